//! Looking over a network's shoulder: between its stages a caller may stop it, or record what it computed.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;

use crate::{Error, Result};

/// Called by the networks after every block with the block's name and result.
pub trait Watch: Sync {
    /// An error ends the computation and is handed to its caller.
    fn stage(&self, name: &dyn Display, value: &Tensor) -> Result<()>;
}

/// Nobody is watching.
pub struct Unwatched;

impl Watch for Unwatched {
    fn stage(&self, _: &dyn Display, _: &Tensor) -> Result<()> {
        Ok(())
    }
}

/// A switch that another thread (a signal handler, say) may throw; the networks stop at their next block.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Stops the work.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the work was stopped.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once the work was stopped.
    pub fn check(&self) -> Result<()> {
        if self.is_stopped() { Err(Error::Interrupted) } else { Ok(()) }
    }
}

impl Watch for Interrupt {
    fn stage(&self, _: &dyn Display, _: &Tensor) -> Result<()> {
        self.check()
    }
}
