//! What survives a kill: the adapter, the optimiser and the average after an update, in one file that is there whole or not at all.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::settings::Settings;
use crate::{Error, Result};

/// Checkpoints of a run in a folder of their own.
pub(crate) struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

/// Decides what comes of a run; a checkpoint of another run is not gone on from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// How it is trained.
    pub(crate) settings: Settings,
    /// A digest of pictures and captions.
    pub(crate) data: String,
    /// A digest of the transformer's weights, and the form they are kept in.
    pub(crate) model: String,
    /// Digests of the adapters beside it and before it.
    pub(crate) adapters: Vec<String>,
}

/// A run after `step` updates.
pub(crate) struct Saved {
    pub(crate) step: usize,
    pub(crate) tensors: BTreeMap<String, Array>,
    pub(crate) numbers: BTreeMap<String, f64>,
}

/// Values of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// Numbers.
    F32(Vec<f32>),
    /// Codes.
    U8(Vec<u8>),
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    step: usize,
    identity: Identity,
    numbers: BTreeMap<String, f64>,
}

const VERSION: u32 = 1;
const KEY: &str = "zoetrope_training";

impl Checkpoints {
    /// Those in `folder`, of which the last `keep` stay.
    pub(crate) fn open(folder: PathBuf, keep: usize) -> Result<Self> {
        std::fs::create_dir_all(&folder)
            .map_err(|source| Error::File { path: folder.clone(), source })?;
        Ok(Self { folder, keep: keep.max(1) })
    }

    /// Writes one, and removes those that are too many.
    pub(crate) fn save(&self, identity: &Identity, saved: &Saved) -> Result<()> {
        let header = Header {
            version: VERSION,
            step: saved.step,
            identity: identity.clone(),
            numbers: saved.numbers.clone(),
        };
        let header =
            serde_json::to_string(&header).map_err(|e| Error::data("the checkpoint", e))?;
        let bytes: BTreeMap<&str, (Dtype, Vec<u8>)> =
            saved.tensors.iter().map(|(name, array)| (name.as_str(), array.bytes())).collect();
        let views = bytes.iter().map(|(name, (dtype, bytes))| {
            let count = bytes.len() / (dtype.bitsize() / 8);
            let view = TensorView::new(*dtype, vec![count], bytes);
            Ok((*name, view.map_err(|e| Error::data("the checkpoint", e))?))
        });
        let views = views.collect::<Result<Vec<_>>>()?;
        let metadata = HashMap::from([(KEY.to_string(), header)]);
        let bytes = safetensors::serialize(views, Some(metadata))
            .map_err(|e| Error::data("the checkpoint", e))?;
        zoetrope_files::write(&self.path(saved.step), &bytes)?;
        for step in self.steps()?.into_iter().rev().skip(self.keep) {
            let path = self.path(step);
            std::fs::remove_file(&path).map_err(|source| Error::File { path, source })?;
        }
        Ok(())
    }

    /// The newest, if it is of the run that `identity` stands for. One that cannot be read is told through `note` and the one before it taken.
    pub(crate) fn newest(&self, identity: &Identity, note: impl Fn(&str)) -> Result<Option<Saved>> {
        for step in self.steps()?.into_iter().rev() {
            let path = self.path(step);
            match read(&path) {
                Ok((header, tensors)) => {
                    identity.check(&header.identity, &self.folder)?;
                    return Ok(Some(Saved { step: header.step, tensors, numbers: header.numbers }));
                }
                Err(problem) => {
                    note(&format!("{}: {problem}; going on from the one before", path.display()))
                }
            }
        }
        Ok(None)
    }

    fn path(&self, step: usize) -> PathBuf {
        self.folder.join(format!("step-{step:07}.safetensors"))
    }

    /// Updates after which there are checkpoints, rising.
    fn steps(&self) -> Result<Vec<usize>> {
        let failed = |source| Error::File { path: self.folder.clone(), source };
        let mut steps = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let step =
                name.to_str().and_then(|n| n.strip_prefix("step-")?.strip_suffix(".safetensors"));
            steps.extend(step.and_then(|step| step.parse::<usize>().ok()));
        }
        steps.sort_unstable();
        Ok(steps)
    }
}

impl Array {
    fn bytes(&self) -> (Dtype, Vec<u8>) {
        match self {
            Self::F32(values) => {
                (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
            }
            Self::U8(values) => (Dtype::U8, values.clone()),
        }
    }
}

fn read(path: &Path) -> Result<(Header, BTreeMap<String, Array>), String> {
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    let damaged = |e: safetensors::SafeTensorError| format!("is damaged ({e})");
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
    let header = metadata.metadata().as_ref().and_then(|m| m.get(KEY));
    let header = header.ok_or_else(|| "is no checkpoint".to_string())?;
    let header: Header =
        serde_json::from_str(header).map_err(|e| format!("is of another version ({e})"))?;
    if header.version != VERSION {
        return Err(format!("is of version {}, and this program writes {VERSION}", header.version));
    }
    let file = SafeTensors::deserialize(&bytes).map_err(damaged)?;
    let array = |(name, view): (String, TensorView)| {
        let numbers = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let array = match view.dtype() {
            Dtype::U8 => Array::U8(view.data().to_vec()),
            Dtype::F32 => Array::F32(view.data().chunks_exact(4).map(numbers).collect()),
            other => return Err(format!("`{name}` is {other:?}")),
        };
        Ok((name, array))
    };
    let tensors = file.tensors().into_iter().map(array).collect::<Result<_, _>>()?;
    Ok((header, tensors))
}

impl Identity {
    /// An error that says what is different from the run `before`. A run may be made longer or shorter while its rate is constant.
    fn check(&self, before: &Self, folder: &Path) -> Result<()> {
        let different = |what: &str| {
            let place = folder.parent().unwrap_or(folder).display();
            let problem = format!(
                "holds a run with {what}; use another --work folder, or --restart to begin anew in this one"
            );
            Err(Error::data(place, problem))
        };
        if self.model != before.model {
            return different("another model or dtype");
        }
        if self.data != before.data {
            return different("other pictures or captions");
        }
        if self.adapters != before.adapters {
            return different("other adapters beside it or before it");
        }
        let fields = |settings: &Settings| serde_json::to_value(settings).unwrap_or_default();
        let (now, then) = (fields(&self.settings), fields(&before.settings));
        let differing = now.as_object().into_iter().flatten().find_map(|(name, value)| {
            let longer = name == "steps"
                && self.settings.schedule == crate::settings::RateSchedule::Constant;
            (!longer && then.get(name) != Some(value))
                .then(|| (name.clone(), then[name].clone(), value.clone()))
        });
        match differing {
            Some((name, then, now)) => {
                different(&format!("`{name}` {then}, where it is {now} now"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let (data, model) = ("data".into(), "model".into());
        Identity { settings: Settings::default(), data, model, adapters: Vec::new() }
    }

    fn saved(step: usize) -> Saved {
        let tensors = BTreeMap::from([
            ("a".to_string(), Array::F32(vec![step as f32, -0.5])),
            ("b".to_string(), Array::U8(vec![7, 8, 9])),
        ]);
        Saved { step, tensors, numbers: BTreeMap::from([("d".into(), 0.1)]) }
    }

    #[test]
    fn the_newest_that_can_be_read_is_gone_on_from_and_only_some_stay() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("checkpoints");
        let checkpoints = Checkpoints::open(place.clone(), 2).unwrap();
        for step in [10, 20, 30] {
            checkpoints.save(&identity(), &saved(step)).unwrap();
        }
        assert_eq!(checkpoints.steps().unwrap(), [20, 30]);
        let newest =
            checkpoints.newest(&identity(), |_| panic!("nothing is wrong")).unwrap().unwrap();
        assert_eq!((newest.step, newest.tensors), (30, saved(30).tensors));
        assert_eq!(newest.numbers["d"], 0.1);
        let last = checkpoints.path(30);
        let bytes = std::fs::read(&last).unwrap();
        std::fs::write(&last, &bytes[..bytes.len() / 2]).unwrap();
        let told = std::cell::RefCell::new(Vec::new());
        let newest =
            checkpoints.newest(&identity(), |note| told.borrow_mut().push(note.to_string()));
        assert_eq!(newest.unwrap().unwrap().step, 20);
        assert!(told.borrow()[0].contains("damaged"), "{:?}", told.borrow());
    }

    #[test]
    fn another_run_is_not_gone_on_from() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(folder.path().join("checkpoints"), 2).unwrap();
        checkpoints.save(&identity(), &saved(1)).unwrap();
        let mut longer = identity();
        longer.settings.steps = 5000;
        assert!(checkpoints.newest(&longer, |_| {}).unwrap().is_some());
        let mut other = identity();
        other.settings.learning_rate = 0.5;
        let Err(error) = checkpoints.newest(&other, |_| {}) else { panic!("it was taken") };
        let error = error.to_string();
        assert!(error.contains("learning_rate") && error.contains("--restart"), "{error}");
    }
}
