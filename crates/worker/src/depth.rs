//! Depth of pictures that control networks follow.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Device;
use zoetrope_checkpoint::VisionModel;
use zoetrope_engine::depth::DepthEstimator;
use zoetrope_engine::{Result, Unwatched};
use zoetrope_files::Picture;

use crate::prepared;

/// A depth network, which is read when the first picture needs it. Cheap to clone; all clones are one network.
#[derive(Clone)]
pub struct Depth {
    files: Arc<VisionModel>,
    device: Device,
    // One look at a time: each has all of the processor.
    network: Arc<Mutex<Option<DepthEstimator>>>,
}

impl Depth {
    /// The network of `files`, which will live on `device`.
    pub fn new(files: VisionModel, device: &Device) -> Self {
        Self { files: Arc::new(files), device: device.clone(), network: Arc::default() }
    }

    /// What it is called by.
    pub fn name(&self) -> &str {
        &self.files.name
    }

    /// The depth of `picture`, grey and of its size: near things are bright. An error of a field where the picture is too long.
    pub fn of(&self, picture: &Picture) -> Result<Picture> {
        let size = (picture.width as usize, picture.height as usize);
        DepthEstimator::check(size.0, size.1)?;
        let mut network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        let network = match &mut *network {
            Some(network) => network,
            none => none.insert(DepthEstimator::open(&self.files, &self.device)?),
        };
        let grey = network.look(&prepared(picture, network.processor()), size, &Unwatched)?;
        Ok(Picture { rgb: grey.into_iter().flat_map(|value| [value; 3]).collect(), ..*picture })
    }
}
