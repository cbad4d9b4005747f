//! Tensors kept between runs, a file for each, by the names of what they were made from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

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
        zoetrope_files::write(&path, &bytes_of(&tensors)?)?;
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
        let file = SafeTensors::deserialize(&bytes).ok()?;
        let tensor = |(name, view): (String, TensorView)| {
            if view.dtype() != Dtype::F32 {
                return None;
            }
            let number = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            let values: Vec<f32> = view.data().chunks_exact(4).map(number).collect();
            Some((name, Tensor::from_vec(values, view.shape(), &Device::Cpu).ok()?))
        };
        file.tensors().into_iter().map(tensor).collect()
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.safetensors"))
    }
}

fn bytes_of(tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>> {
    let wrong = |e: safetensors::SafeTensorError| Error::data("the cache", e);
    let values = tensors.iter().map(|(name, tensor)| {
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Ok((name, tensor.dims().to_vec(), bytes))
    });
    let values = values.collect::<Result<Vec<_>>>()?;
    let views = values.iter().map(|(name, shape, bytes)| {
        Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(wrong)?))
    });
    safetensors::serialize(views.collect::<Result<Vec<_>>>()?, None).map_err(wrong)
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
