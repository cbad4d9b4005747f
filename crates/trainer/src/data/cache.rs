//! Tensors kept between runs, a file for each, by the names of what they were made from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use crate::{Error, Result};

/// A folder of tensors.
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// In `folder`, which is made if it is not there.
    pub fn open(folder: &Path) -> Result<Self> {
        let failed = |source| Error::File { path: folder.into(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        Ok(Self { folder: folder.into() })
    }

    /// The float32 tensors that are kept as `key`; those that `make` makes, where there are none or they are damaged.
    pub fn tensors(
        &self,
        key: &str,
        make: impl FnOnce() -> Result<BTreeMap<String, Tensor>>,
    ) -> Result<BTreeMap<String, Tensor>> {
        if let Some(tensors) = self.kept(key) {
            return Ok(tensors);
        }
        let tensors = make()?;
        let path = self.path(key);
        let bytes = safetensors::serialize(tensors.iter(), None)
            .map_err(|e| Error::data(path.display(), e))?;
        zoetrope_files::write(&path, &bytes)?;
        Ok(tensors)
    }

    /// Those that `tensors` kept before.
    pub fn read(&self, key: &str) -> Result<BTreeMap<String, Tensor>> {
        let gone = || {
            let problem =
                "is gone or damaged while the run needs it; start again, and it is made anew";
            Error::data(self.path(key).display(), problem)
        };
        self.kept(key).ok_or_else(gone)
    }

    fn kept(&self, key: &str) -> Option<BTreeMap<String, Tensor>> {
        let bytes = std::fs::read(self.path(key)).ok()?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).ok()?;
        Some(tensors.into_iter().collect())
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.safetensors"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_what_is_damaged_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let make =
            || Ok(BTreeMap::from([("a".to_string(), Tensor::new(&[[1f32, -2.5]], &Device::Cpu)?)]));
        cache.tensors("x", make).unwrap();
        let again = cache.tensors("x", || panic!("it is kept")).unwrap();
        assert_eq!(again["a"].to_vec2::<f32>().unwrap(), [[1.0, -2.5]]);
        std::fs::write(cache.path("x"), b"half").unwrap();
        assert!(cache.read("x").err().unwrap().to_string().contains("damaged"));
        assert_eq!(cache.tensors("x", make).unwrap()["a"].dims(), [1, 2]);
        assert!(cache.read("x").is_ok());
    }
}
