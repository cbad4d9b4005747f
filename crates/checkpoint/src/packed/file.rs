//! A file of packed weights: their bytes, each weight's at a multiple of a page, then a directory of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use memmap2::Mmap;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use zoetrope_kernels::{Matrix, Region, Stored};

use super::{Key, PackedFolder};
use crate::weights::lock;

const MAGIC: &[u8; 8] = b"ZTPACK01";
/// Bytes of the file's end: the directory's length and sum, and the magic.
const END: usize = 24;
/// Weights begin at multiples of this, so that they share no page.
const ALIGNMENT: u64 = 4096;
/// No directory is larger.
const DIRECTORY_MAX: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Directory {
    what: String,
    key: String,
    weights: BTreeMap<String, Entry>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    form: String,
    shape: [usize; 2],
    scale: f32,
    start: usize,
    bytes: usize,
    sum: u64,
}

/// Why a file cannot be used.
#[derive(Debug)]
pub(crate) enum Damage {
    /// There is none.
    Absent,
    /// It is not what was written.
    Broken(String),
}

/// A file that is there.
pub(crate) struct Reader {
    map: Arc<Mmap>,
    weights: BTreeMap<String, Entry>,
}

impl Reader {
    /// Maps the file of `key` and looks whether all of it is as it was written.
    pub(crate) fn open(folder: &PackedFolder, key: &Key) -> Result<Self, Damage> {
        let path = folder.file(key);
        if !path.exists() {
            return Err(Damage::Absent);
        }
        let broken = |why: &str| Damage::Broken(format!("{}: {why}", path.display()));
        let map = crate::blob::map(&path).map_err(|error| broken(&error.to_string()))?;
        let directory = map.split_last_chunk::<END>().and_then(|(before, end)| {
            let (length, sum) = end_of(end)?;
            Directory::read(before.get(before.len().checked_sub(length)?..)?, sum)
        });
        let directory = directory.ok_or_else(|| broken("its directory is damaged"))?;
        if directory.key != key.text {
            return Err(broken("it is of other weights"));
        }
        let sound = |(_, entry): (&String, &Entry)| {
            let end = entry.start.checked_add(entry.bytes);
            let bytes = end.and_then(|end| map.get(entry.start..end));
            bytes.is_some_and(|bytes| sum(bytes) == entry.sum)
        };
        if !directory.weights.par_iter().all(sound) {
            return Err(broken("its weights are damaged"));
        }
        // Whatever is used least goes first, by this time.
        let _ = File::options()
            .append(true)
            .open(&path)
            .and_then(|f| f.set_modified(SystemTime::now()));
        Ok(Self { map: Arc::new(map), weights: directory.weights })
    }

    /// What the file was made from, from its directory alone.
    pub(super) fn what(path: &Path) -> Option<String> {
        let mut file = File::open(path).ok()?;
        let start = file.seek(SeekFrom::End(-(END as i64))).ok()?;
        let mut end = [0; END];
        file.read_exact(&mut end).ok()?;
        let (length, sum) = end_of(&end)?;
        let mut bytes = vec![0; length];
        file.seek(SeekFrom::Start(start.checked_sub(length as u64)?)).ok()?;
        file.read_exact(&mut bytes).ok()?;
        Directory::read(&bytes, sum).map(|directory| directory.what)
    }

    /// Weight `name`; `None` when there is none of this shape.
    pub(crate) fn matrix(
        &self,
        name: &str,
        shape: [usize; 2],
    ) -> candle_core::Result<Option<Matrix>> {
        let Some(entry) = self.weights.get(name).filter(|entry| entry.shape == shape) else {
            return Ok(None);
        };
        let region = Part { map: self.map.clone(), start: entry.start, bytes: entry.bytes };
        let (form, scale) = (entry.form.clone(), entry.scale);
        Matrix::from_stored(Stored { form, shape, scale, bytes: Arc::new(region) })
    }
}

impl Directory {
    fn read(bytes: &[u8], wanted: u64) -> Option<Self> {
        (sum(bytes) == wanted).then(|| serde_json::from_slice(bytes).ok())?
    }
}

/// Length and sum of the directory, from a file's last bytes.
fn end_of(end: &[u8; END]) -> Option<(usize, u64)> {
    let number = |at: usize| Some(u64::from_le_bytes(end.get(at..at + 8)?.try_into().ok()?));
    let (length, sum) = (number(0)?, number(8)?);
    (end[16..] == *MAGIC && length <= DIRECTORY_MAX).then_some((length as usize, sum))
}

/// A weight's bytes in a map.
struct Part {
    map: Arc<Mmap>,
    start: usize,
    bytes: usize,
}

impl Region for Part {
    fn bytes(&self) -> &[u8] {
        &self.map[self.start..self.start + self.bytes]
    }
}

/// A file that is being written beside its final place. What goes wrong is told at the end: the weights are in memory
/// anyway.
pub(crate) struct Writer {
    key: Key,
    partial: PathBuf,
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    file: Option<File>,
    end: u64,
    weights: BTreeMap<String, Entry>,
    failed: Option<String>,
}

impl Writer {
    /// Begins the file of `key`, for about so many bytes.
    pub(crate) fn begin(folder: &PackedFolder, key: Key, bytes: u64) -> Result<Self, String> {
        folder.make_room(bytes)?;
        let partial = folder.partial(&key);
        let file = File::create(&partial).map_err(|e| format!("{}: {e}", partial.display()))?;
        let state = State { file: Some(file), end: 0, weights: BTreeMap::new(), failed: None };
        Ok(Self { path: folder.file(&key), key, partial, state: Mutex::new(state) })
    }

    /// Adds a weight.
    pub(crate) fn put(&self, name: &str, matrix: &Matrix) -> candle_core::Result<()> {
        let stored = matrix.stored()?;
        let sum = stored.as_ref().map(|stored| sum(&stored.bytes));
        let mut state = lock(&self.state);
        let (Some(stored), Some(sum)) = (stored, sum) else {
            state.failed.get_or_insert(format!("{name} has a form that is not kept"));
            return Ok(());
        };
        if state.failed.is_none() {
            let start = state.end.next_multiple_of(ALIGNMENT);
            match state.write(start, &stored.bytes) {
                Ok(()) => {
                    let (start, bytes) = (start as usize, stored.bytes.len());
                    let Stored { form, shape, scale, .. } = stored;
                    let entry = Entry { form, shape, scale, start, bytes, sum };
                    state.weights.insert(name.into(), entry);
                }
                Err(error) => state.failed = Some(error.to_string()),
            }
        }
        Ok(())
    }

    /// Ends the file and puts it in its place; why it was not kept.
    pub(crate) fn finish(&self) -> Result<(), String> {
        let mut state = lock(&self.state);
        if let Some(why) = state.failed.take() {
            return Err(why);
        }
        let weights = std::mem::take(&mut state.weights);
        let directory =
            Directory { what: self.key.what.clone(), key: self.key.text.clone(), weights };
        let mut bytes = serde_json::to_vec(&directory).map_err(|e| e.to_string())?;
        let (length, sum) = (bytes.len() as u64, sum(&bytes));
        bytes.extend(length.to_le_bytes().into_iter().chain(sum.to_le_bytes()).chain(*MAGIC));
        let end = state.end;
        // Nobody waits for the disk: after a power failure the sums tell what did not reach it.
        let written = state.write(end, &bytes);
        state.file = None;
        let moved = written.and_then(|()| fs::rename(&self.partial, &self.path));
        moved.map_err(|e| format!("{}: {e}", self.partial.display()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        lock(&self.state).file = None;
        let _ = fs::remove_file(&self.partial); // gone where it became the file itself
    }
}

impl State {
    fn write(&mut self, start: u64, bytes: &[u8]) -> io::Result<()> {
        let file = self.file.as_mut().ok_or_else(|| io::Error::other("is closed"))?;
        file.seek(SeekFrom::Start(start))?;
        file.write_all(bytes)?;
        self.end = start + bytes.len() as u64;
        Ok(())
    }
}

/// Tells bytes from others that differ by accident. Four sums side by side keep up with memory.
fn sum(bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(PRIME).rotate_left(29);
    let mut sums = [1u64, 2, 3, 4];
    let blocks = bytes.chunks_exact(32);
    let rest = blocks.remainder();
    for block in blocks {
        let words =
            block.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().expect("8 bytes")));
        sums.iter_mut().zip(words).for_each(|(sum, word)| *sum = mix(*sum, word));
    }
    let tail = rest.iter().fold(bytes.len() as u64, |sum, byte| mix(sum, u64::from(*byte)));
    sums.into_iter().fold(tail, mix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_sees_every_byte_and_the_length() {
        let bytes: Vec<u8> = (0..100u8).collect();
        let whole = sum(&bytes);
        for i in 0..bytes.len() {
            let mut other = bytes.clone();
            other[i] ^= 1;
            assert_ne!(sum(&other), whole, "byte {i}");
        }
        assert_ne!(sum(&bytes[..99]), whole);
        assert_ne!(sum(&[0; 8]), sum(&[0; 9]));
    }
}
