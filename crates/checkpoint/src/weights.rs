//! Weights by their published names, whatever files they are in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};
use zoetrope_kernels::Matrix;

use crate::blob::Blob;
use crate::convert::Rows;
use crate::dialects::{Dialect, Meaning};
use crate::file::{Entry, Kind, WeightFile};
use crate::packed::{Damage, Key, PackedFolder, Reader, Writer};
use crate::{Error, Result, Storage, hex};

/// Which network a file's tensors belong to; it selects the dialects that can apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the networks' names")]
pub enum Role {
    Transformer,
    TextEncoder,
    Vae,
    Control,
    Vision,
    Safety,
    Depth,
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
    kept: Kept,
}

/// What packed weights come from, or go to.
#[derive(Clone)]
enum Kept {
    Nowhere,
    There(Arc<Reader>),
    Anew(Arc<Writer>),
}

struct All {
    blobs: Vec<Blob>,
    role: Role,
    files: Vec<WeightFile>,
    places: BTreeMap<String, Place>,
    dialect: Dialect,
    asked: Mutex<BTreeSet<String>>,
    ignored: Mutex<Vec<String>>,
    notes: Mutex<Vec<String>>,
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
        let all = All {
            blobs: blobs.to_vec(),
            role,
            files,
            places,
            dialect,
            asked: Mutex::default(),
            ignored: Mutex::default(),
            notes: Mutex::default(),
        };
        Ok(Self {
            all: Arc::new(all),
            prefix: String::new(),
            storage: Storage::AsStored,
            progress: None,
            kept: Kept::Nowhere,
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

    /// The same weights; packed ones come from `folder` where they are there in the chosen storage, and are put there where
    /// they are not. Why that does not go is among the notes.
    pub fn with_packed(self, folder: &PackedFolder) -> Self {
        if self.parameters() < folder.parameters_min {
            return self;
        }
        let All { blobs, files, role, .. } = &*self.all;
        let Some(key) = Key::new(blobs, files, *role, self.storage) else { return self };
        let kept = match Reader::open(folder, &key) {
            Ok(reader) => Kept::There(Arc::new(reader)),
            Err(damage) => {
                if let Damage::Broken(why) = damage {
                    self.note(format!("packed weights are made anew: {why}"));
                }
                match Writer::begin(folder, key, self.memory_bytes(self.storage)) {
                    Ok(writer) => Kept::Anew(Arc::new(writer)),
                    Err(why) => {
                        self.note(format!("packed weights are not kept: {why}"));
                        Kept::Nowhere
                    }
                }
            }
        };
        Self { kept, ..self }
    }

    fn note(&self, text: String) {
        lock(&self.all.notes).push(text);
    }

    /// What happened beside loading that somebody may want to know; each is told once.
    pub fn notes(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.all.notes))
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

    /// As [`Weights::matrix`], in the order in which kernels read it: from the packed file where there is one.
    pub fn packed_matrix(&self, name: &str, shape: [usize; 2]) -> Result<Matrix> {
        let full = format!("{}{name}", self.prefix);
        if let (Kept::There(reader), Some(place)) = (&self.kept, self.all.places.get(&full))
            && let Some(matrix) = reader.matrix(&full, shape)?
        {
            self.was_read(full, self.all.bytes_of(place));
            return Ok(matrix);
        }
        let matrix = self.matrix(name, shape)?.packed()?;
        if let Kept::Anew(writer) = &self.kept {
            writer.put(&full, &matrix)?;
        }
        Ok(matrix)
    }

    /// A table of rows, `[rows, width]`, that are read when they are asked for.
    pub fn table(&self, name: &str, shape: [usize; 2]) -> Result<Table> {
        let place = self.place(name, &shape)?;
        self.was_read(format!("{}{name}", self.prefix), 0);
        Ok(Table { all: self.all.clone(), place, width: shape[1] })
    }

    /// Says that tensors whose names start with `prefix` are known and deliberately not loaded.
    pub fn ignore(&self, prefix: &str) {
        lock(&self.all.ignored).push(format!("{}{prefix}", self.prefix));
    }

    /// Ends loading: an error that names the tensors nobody asked for.
    pub fn finish(&self) -> Result<()> {
        self.check_surplus()?;
        if let Kept::Anew(writer) = &self.kept
            && let Err(why) = writer.finish()
        {
            self.note(format!("packed weights are not kept: {why}"));
        }
        Ok(())
    }

    fn check_surplus(&self) -> Result<()> {
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
        self.loaded().map(|p| self.all.bytes_of(p) as u64).sum()
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

    /// The form that most of the bytes have; [`Storage::AsStored`] stands for blocks.
    pub fn form(&self) -> Storage {
        let forms = [Storage::F32, Storage::Bf16, Storage::F16, Storage::Fp8, Storage::AsStored];
        let bytes = |form: &Storage| {
            let of_form = |place: &&Place| self.all.entry(place).kind.form() == *form;
            let bytes = |place: &Place| self.all.entry(place).end - self.all.entry(place).start;
            self.loaded().filter(of_form).map(bytes).sum::<usize>()
        };
        forms.into_iter().max_by_key(bytes).unwrap_or(Storage::AsStored)
    }

    /// The names of all files, for messages.
    pub fn file(&self) -> String {
        self.all.files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// All linear layers by their published names, with `[out, in]`.
    pub fn linear_shapes(&self) -> BTreeMap<String, [usize; 2]> {
        let shape = |(name, place): (&String, &Place)| {
            let module = name.strip_suffix(".weight")?;
            match self.all.entry(place).shape[..] {
                [rows, columns] => Some((module.to_string(), [rows / place.of, columns])),
                _ => None,
            }
        };
        self.all.places.iter().filter_map(shape).collect()
    }

    /// Tells these weights from others without reading gigabytes: a digest of every header, every size and of samples of the
    /// values. Where the files lie, and when they were written, does not matter.
    pub fn fingerprint(&self) -> String {
        const SAMPLE: usize = 64 << 10;
        const SAMPLES: usize = 16;
        let mut digest = Sha256::new();
        for file in &self.all.files {
            let bytes = file.bytes.all();
            digest.update(bytes.len().to_le_bytes());
            digest.update(&bytes[..file.header]);
            let values = &bytes[file.header..];
            for i in 0..SAMPLES {
                let start = values.len().saturating_sub(SAMPLE) / (SAMPLES - 1) * i;
                digest.update(&values[start..(start + SAMPLE).min(values.len())]);
            }
        }
        hex(&digest.finalize())
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
        let place = self.place(name, wanted)?;
        let (file, entry) = (&self.all.files[place.file], self.all.entry(&place));
        let size = self.all.bytes_of(&place);
        let start = entry.start + place.part * size;
        let value = convert(&file.bytes.all()[start..start + size], entry.kind, place.scale)?;
        file.bytes.release(start, start + size);
        self.was_read(format!("{}{name}", self.prefix), size);
        value.ok_or_else(|| self.all.not_finite(&place))
    }

    /// Where `name` is, which has to have the shape `wanted`.
    fn place(&self, name: &str, wanted: &[usize]) -> Result<Place> {
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
        Ok(place.clone())
    }

    fn was_read(&self, name: String, bytes: usize) {
        lock(&self.all.asked).insert(name);
        if let Some(progress) = &self.progress {
            progress(bytes as u64);
        }
    }
}

/// Rows that stay in their file until they are asked for.
pub struct Table {
    all: Arc<All>,
    place: Place,
    width: usize,
}

impl Table {
    /// Rows `indices` as float32, `[indices, width]`.
    pub fn rows(&self, indices: &[u32]) -> Result<Tensor> {
        let (file, entry) = (&self.all.files[self.place.file], self.all.entry(&self.place));
        let size = entry.kind.bytes(self.width);
        let bytes = &file.bytes.all()[entry.start..entry.end];
        let mut values = Vec::with_capacity(indices.len() * self.width);
        for index in indices {
            let start = *index as usize * size;
            let Some(bytes) = bytes.get(start..start + size) else {
                let problem = format!("`{}` has no row {index}", self.place.name);
                return Err(Error::broken(&file.name, problem));
            };
            let (kind, scale) = (entry.kind, self.place.scale);
            let row = Rows { kind, bytes, shape: [1, self.width], scale }.to_f32()?;
            values.extend(row.ok_or_else(|| self.all.not_finite(&self.place))?);
        }
        Ok(Tensor::from_vec(values, (indices.len(), self.width), &Device::Cpu)?)
    }
}

impl All {
    fn entry(&self, place: &Place) -> &Entry {
        &self.files[place.file].entries[&place.name]
    }

    fn bytes_of(&self, place: &Place) -> usize {
        let entry = self.entry(place);
        (entry.end - entry.start) / place.of
    }

    fn not_finite(&self, place: &Place) -> Error {
        let file = self.files[place.file].name.clone();
        Error::NotFinite { file, tensor: place.name.clone() }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
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
