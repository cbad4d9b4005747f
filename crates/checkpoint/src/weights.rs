//! Weights by their published names, whatever files they are in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use zoetrope_kernels::Matrix;

use crate::blob::Blob;
use crate::convert::Rows;
use crate::dialects::{Dialect, Meaning};
use crate::file::{Entry, Kind, WeightFile};
use crate::{Error, Result, Storage};

/// Which network a file's tensors belong to; it selects the dialects that can apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the networks' names")]
pub enum Role {
    Transformer,
    TextEncoder,
    Vae,
}

/// Called with how many bytes of a file were read just now.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// The tensors of a network under their published names. Cheap to clone; a clone made by [`Weights::at`] sees the
/// names under a prefix.
#[derive(Clone)]
pub struct Weights {
    all: Arc<All>,
    prefix: String,
    storage: Storage,
    progress: Option<Progress>,
}

struct All {
    files: Vec<WeightFile>,
    places: BTreeMap<String, Place>,
    dialect: Dialect,
    asked: Mutex<BTreeSet<String>>,
    ignored: Mutex<Vec<String>>,
}

/// Where a published tensor is: a file's tensor, or equal parts of its rows.
#[derive(Clone)]
struct Place {
    file: usize,
    name: String,
    part: usize,
    of: usize,
    scale: f32,
}

impl Weights {
    /// Reads the headers of `blobs`, and nothing more.
    pub fn open(blobs: &[Blob], role: Role) -> Result<Self> {
        let files = blobs.iter().map(WeightFile::open).collect::<Result<Vec<_>>>()?;
        let names = files.iter().flat_map(|f| f.entries.keys().map(String::as_str));
        let (dialect, prefix) = Dialect::recognise(role, names);
        let places = places(&files, dialect, prefix)?;
        if places.is_empty() {
            let file = files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(Error::broken(file, "holds no weights"));
        }
        let all =
            All { files, places, dialect, asked: Mutex::default(), ignored: Mutex::default() };
        Ok(Self {
            all: Arc::new(all),
            prefix: String::new(),
            storage: Storage::AsStored,
            progress: None,
        })
    }

    /// The same weights, matrices of which are kept as `storage`.
    pub fn with_storage(self, storage: Storage) -> Self {
        Self { storage, ..self }
    }

    /// What matrices are kept as.
    pub fn storage(&self) -> Storage {
        self.storage
    }

    /// The same weights; `progress` hears of every tensor that is read.
    pub fn with_progress(self, progress: Progress) -> Self {
        Self { progress: Some(progress), ..self }
    }

    /// The weights under `part`.
    pub fn at(&self, part: impl Display) -> Self {
        Self { prefix: format!("{}{part}.", self.prefix), ..self.clone() }
    }

    /// Whether there is a tensor `name`.
    pub fn has(&self, name: &str) -> bool {
        self.all.places.contains_key(&format!("{}{name}", self.prefix))
    }

    /// The shape of tensor `name`.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let place = self.all.places.get(&format!("{}{name}", self.prefix))?;
        let mut shape = self.all.entry(place).shape.clone();
        if let Some(rows) = shape.first_mut() {
            *rows /= place.of;
        }
        Some(shape)
    }

    /// Tensor `name` as float32: norms, biases, convolutions, and layers that must be precise.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let width = shape.last().copied().unwrap_or(1).max(1);
        let rows = shape.iter().product::<usize>() / width;
        self.read(name, shape, |stored, kind, scale| {
            let rows = Rows { kind, bytes: stored, shape: [rows, width], scale };
            rows.to_f32()?.map(|values| Tensor::from_vec(values, shape, &Device::Cpu)).transpose()
        })
    }

    /// A linear layer's weight, `[out, in]`, in the chosen storage.
    pub fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Matrix> {
        self.read(name, &shape, |bytes, kind, scale| {
            Rows { kind, bytes, shape, scale }.to_matrix(self.storage)
        })
    }

    /// A table of rows, `[rows, width]`, that stays dense: bfloat16 where it is stored narrower.
    pub fn embedding(&self, name: &str, shape: [usize; 2]) -> Result<Tensor> {
        let matrix = self.read(name, &shape, |bytes, kind, scale| {
            let storage = match (self.storage, kind) {
                (Storage::F32, _) => Storage::F32,
                (Storage::AsStored, Kind::F32 | Kind::Bf16 | Kind::F16) => Storage::AsStored,
                _ => Storage::Bf16,
            };
            Rows { kind, bytes, shape, scale }.to_matrix(storage)
        })?;
        match matrix {
            Matrix::Dense(table) => Ok(table),
            other => Ok(other.to_f32()?.to_dtype(DType::BF16)?),
        }
    }

    /// Says that tensors whose names start with `prefix` are known and deliberately not loaded.
    pub fn ignore(&self, prefix: &str) {
        lock(&self.all.ignored).push(format!("{}{prefix}", self.prefix));
    }

    /// An error that names the tensors nobody asked for.
    pub fn finish(&self) -> Result<()> {
        let (asked, ignored) = (lock(&self.all.asked), lock(&self.all.ignored));
        let surplus = |name: &&String| {
            !asked.contains(*name) && !ignored.iter().any(|prefix| name.starts_with(prefix))
        };
        let mut left = self.all.places.keys().filter(surplus);
        match left.next() {
            None => Ok(()),
            Some(first) => Err(Error::Surplus {
                file: self.file(),
                count: 1 + left.count(),
                first: first.clone(),
            }),
        }
    }

    /// Bytes that all tensors take once loaded with matrices in `storage`, from the headers alone.
    pub fn memory_bytes(&self, storage: Storage) -> u64 {
        let bytes = |place: &Place| {
            let entry = self.all.entry(place);
            let count = entry.shape.iter().product::<usize>() / place.of;
            match (entry.shape.len(), storage) {
                (2, Storage::AsStored) => entry.kind.bytes(count) as u64,
                (2, _) => storage.for_width(entry.shape[1]).bytes(count),
                _ => Storage::F32.bytes(count),
            }
        };
        self.loaded().map(bytes).sum()
    }

    /// Bytes of the files that loading reads.
    pub fn file_bytes(&self) -> u64 {
        self.loaded()
            .map(|p| ((self.all.entry(p).end - self.all.entry(p).start) / p.of) as u64)
            .sum()
    }

    /// How many values there are.
    pub fn parameters(&self) -> u64 {
        self.loaded()
            .map(|p| (self.all.entry(p).shape.iter().product::<usize>() / p.of) as u64)
            .sum()
    }

    /// How the file names its tensors.
    pub fn dialect(&self) -> &'static str {
        self.all.dialect.name()
    }

    /// Whether most of the bytes are float32: a model as it was trained, and twice what it needs.
    pub fn is_float32(&self) -> bool {
        let bytes = |p: &Place| self.all.entry(p).end - self.all.entry(p).start;
        let wide: usize =
            self.loaded().filter(|p| self.all.entry(p).kind == Kind::F32).map(bytes).sum();
        2 * wide > self.loaded().map(bytes).sum()
    }

    /// The names of all files, for messages.
    pub fn file(&self) -> String {
        self.all.files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn loaded(&self) -> impl Iterator<Item = &Place> {
        let ignored = lock(&self.all.ignored).clone();
        let kept = self
            .all
            .places
            .iter()
            .filter(move |(name, _)| !ignored.iter().any(|p| name.starts_with(p)));
        kept.map(|(_, place)| place)
    }

    /// Finds `name`, checks its shape, and hands its bytes to `convert`, which says `None` to values not finite.
    fn read<T>(
        &self,
        name: &str,
        wanted: &[usize],
        convert: impl FnOnce(&[u8], Kind, f32) -> candle_core::Result<Option<T>>,
    ) -> Result<T> {
        let name = format!("{}{name}", self.prefix);
        let Some(place) = self.all.places.get(&name) else {
            return Err(Error::Missing { file: self.file(), tensor: name });
        };
        let (file, entry) = (&self.all.files[place.file], self.all.entry(place));
        if entry.kind == Kind::Other {
            return Err(Error::broken(
                &file.name,
                format!("`{}` has a dtype that is not supported", place.name),
            ));
        }
        let mut found = entry.shape.clone();
        if let Some(rows) = found.first_mut().filter(|rows| **rows % place.of == 0) {
            *rows /= place.of;
        }
        let same = found == wanted
            || (self.all.dialect.squeezes() && squeezed(&found) == squeezed(wanted));
        if !same {
            return Err(Error::Shape {
                file: file.name.clone(),
                tensor: place.name.clone(),
                found,
                wanted: wanted.to_vec(),
            });
        }
        let size = (entry.end - entry.start) / place.of;
        let (start, end) = (entry.start + place.part * size, entry.start + (place.part + 1) * size);
        let value = convert(&file.bytes.all()[start..end], entry.kind, place.scale)?;
        file.bytes.release(start, end);
        lock(&self.all.asked).insert(name);
        if let Some(progress) = &self.progress {
            progress(size as u64);
        }
        value
            .ok_or_else(|| Error::NotFinite { file: file.name.clone(), tensor: place.name.clone() })
    }
}

impl All {
    fn entry(&self, place: &Place) -> &Entry {
        &self.files[place.file].entries[&place.name]
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn squeezed(shape: &[usize]) -> Vec<usize> {
    shape.iter().copied().filter(|n| *n != 1).collect()
}

/// Every published name with its place, and fp8 scales joined to their weights.
fn places(files: &[WeightFile], dialect: Dialect, prefix: &str) -> Result<BTreeMap<String, Place>> {
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    let mut scales = Vec::new();
    for (file, content) in files.iter().enumerate() {
        for name in content.entries.keys() {
            let Some(bare) = name.strip_prefix(prefix) else { continue };
            let parts = match dialect.meaning(bare) {
                Meaning::Tensor(published) => vec![published],
                Meaning::Parts(parts) => parts,
                Meaning::Scale(of) => {
                    scales.push((of, scale(content, name)?));
                    continue;
                }
                Meaning::Nothing => continue,
            };
            let of = parts.len();
            for (part, published) in parts.into_iter().enumerate() {
                let place = Place { file, name: name.clone(), part, of, scale: 1.0 };
                if places.insert(published, place).is_some() {
                    return Err(Error::broken(&content.name, format!("`{name}` is there twice")));
                }
            }
        }
    }
    for (of, scale) in scales {
        for weight in of.split('\n') {
            if let Some(place) = places.get_mut(weight) {
                place.scale = scale;
            }
        }
    }
    Ok(places)
}

fn scale(file: &WeightFile, name: &str) -> Result<f32> {
    let entry = &file.entries[name];
    let bytes = &file.bytes.all()[entry.start..entry.end];
    let rows =
        Rows { kind: entry.kind, bytes, shape: [1, entry.shape.iter().product()], scale: 1.0 };
    match rows.to_f32().ok().flatten().as_deref() {
        Some([scale]) => Ok(*scale),
        _ => {
            let problem =
                format!("`{name}` is no single number; only one scale a matrix is supported");
            Err(Error::broken(&file.name, problem))
        }
    }
}
