//! Adapters that were read before, by file; those not used for longest go first.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use zoetrope_api::Acceleration;
use zoetrope_api::task::Model;
use zoetrope_checkpoint::{Adapter, Blob};
use zoetrope_engine::pipeline::{Listener, Pipeline};

use crate::error::JobError;

/// Bytes of adapter files whose contents stay in memory.
const BYTES_MAX: u64 = 2 << 30;

/// Adapters in memory; the one used last comes last.
#[derive(Default)]
pub(crate) struct Adapters {
    read: Vec<((Model, PathBuf), u64, Arc<Adapter>)>,
}

impl Adapters {
    /// The adapter in the file `path`, the `index`-th of a request of this acceleration, as it fits `model`.
    pub(crate) fn read(
        &mut self,
        (model, pipeline): (Model, &mut Pipeline),
        acceleration: Acceleration,
        path: &Path,
        index: usize,
        on: &Listener,
    ) -> Result<Arc<Adapter>, JobError> {
        if let Some(at) =
            self.read.iter().position(|((of, known), ..)| *of == model && known == path)
        {
            let entry = self.read.remove(at);
            let adapter = entry.2.clone();
            self.read.push(entry);
            return Ok(adapter);
        }
        let adapter = pipeline.read_adapter(&Blob::File(path.to_path_buf()), acceleration, on);
        let adapter = Arc::new(adapter.map_err(|error| wrong(error, path, index))?);
        let bytes = std::fs::metadata(path).map_or(0, |m| m.len());
        self.read.push(((model, path.to_path_buf()), bytes, adapter.clone()));
        while self.read.len() > 1 && self.read.iter().map(|(_, b, _)| b).sum::<u64>() > BYTES_MAX {
            self.read.remove(0);
        }
        Ok(adapter)
    }
}

/// What is wrong with an adapter, without this machine's path.
fn wrong(error: zoetrope_engine::Error, path: &Path, index: usize) -> JobError {
    match error {
        zoetrope_engine::Error::Checkpoint(error) => {
            let shown = path.display().to_string();
            let message = error.to_string().replace(&shown, "the LoRA file");
            JobError::field(&[json!("loras"), json!(index), json!("path")], "value_error", message)
        }
        other => other.into(),
    }
}
