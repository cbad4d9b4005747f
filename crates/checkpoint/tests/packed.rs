//! Packed weights on disk: the same bits again, whatever was done to the files in between.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use zoetrope_checkpoint::{Blob, PackedFolder, Role, Storage, Weights};

const NAME: &str = "layers.0.attention.to_q.weight";
const SHAPE: [usize; 2] = [64, 256];

/// A file of weights and a folder beside it.
struct Place {
    root: TempDir,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let values: Vec<u8> = (0..SHAPE[0] * SHAPE[1])
            .flat_map(|i| (((i * 7919) % 1000) as f32 / 500.0 - 1.0).to_le_bytes())
            .collect();
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, SHAPE.into(), &values);
        let bytes = safetensors::serialize([(NAME, view.unwrap())], None).unwrap();
        fs::write(root.path().join("model.safetensors"), bytes).unwrap();
        Self { root }
    }

    fn source(&self) -> PathBuf {
        self.root.path().join("model.safetensors")
    }

    fn folder(&self, bytes_max: u64) -> PackedFolder {
        PackedFolder { path: self.root.path().join("packed"), bytes_max, parameters_min: 0 }
    }

    /// The weight as it is loaded, and what was said beside.
    fn load(&self, storage: Storage, folder: &PackedFolder) -> (Vec<Vec<f32>>, Vec<String>) {
        let weights = Weights::open(&[Blob::File(self.source())], Role::Transformer).unwrap();
        let weights = weights.with_storage(storage).with_packed(folder);
        let matrix = weights.packed_matrix(NAME, SHAPE).unwrap();
        weights.finish().unwrap();
        (matrix.to_f32().unwrap().to_vec2().unwrap(), weights.notes())
    }

    /// Sets every value to 0, and nothing that a key could see.
    fn empty_source(&self) {
        let modified = fs::metadata(self.source()).unwrap().modified().unwrap();
        let mut bytes = fs::read(self.source()).unwrap();
        let values = bytes.len() - 4 * SHAPE[0] * SHAPE[1];
        bytes[values..].fill(0);
        fs::write(self.source(), bytes).unwrap();
        File::options().append(true).open(self.source()).unwrap().set_modified(modified).unwrap();
    }

    fn packed(&self) -> Vec<PathBuf> {
        let entries = self.folder(0).entries().unwrap();
        entries.into_iter().map(|entry| entry.path).collect()
    }
}

const ROOMY: u64 = 1 << 30;

#[test]
fn weights_come_from_the_packed_file_bit_by_bit() {
    use Storage::{Bf16, F16, F32, Fp8, Int8, Q4_0, Q4K, Q6K, Q8_0};
    for storage in [F32, Bf16, F16, Fp8, Int8, Q8_0, Q6K, Q4K, Q4_0] {
        let place = Place::new();
        let folder = place.folder(ROOMY);
        let (first, notes) = place.load(storage, &folder);
        assert_eq!((notes.len(), place.packed().len()), (0, 1), "{storage}: {notes:?}");
        place.empty_source();
        assert_eq!(place.load(storage, &folder), (first, Vec::new()), "{storage}");
    }
}

#[test]
fn damage_is_noticed_and_mended() {
    let damages: [fn(&mut Vec<u8>); 5] = [
        |bytes| bytes[100] ^= 1,                 // a weight
        |bytes| *bytes.last_mut().unwrap() ^= 1, // the end
        |bytes| {
            let at = bytes.len() - 30;
            bytes[at] ^= 1
        }, // the directory
        |bytes| bytes.truncate(1000),
        |bytes| bytes.truncate(3),
    ];
    for damage in damages {
        let place = Place::new();
        let folder = place.folder(ROOMY);
        let (first, _) = place.load(Storage::Bf16, &folder);
        let path = place.packed().remove(0);
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let (again, notes) = place.load(Storage::Bf16, &folder);
        assert_eq!(again, first);
        assert!(notes.len() == 1 && notes[0].contains("made anew"), "{notes:?}");
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn a_changed_file_and_another_form_have_a_key_of_their_own() {
    let place = Place::new();
    let folder = place.folder(ROOMY);
    place.load(Storage::Bf16, &folder);
    place.load(Storage::Q8_0, &folder);
    assert_eq!(place.packed().len(), 2);
    let later = SystemTime::now() + Duration::from_secs(5);
    File::options().append(true).open(place.source()).unwrap().set_modified(later).unwrap();
    place.load(Storage::Bf16, &folder);
    assert_eq!(place.packed().len(), 3);
}

#[test]
fn the_folder_stays_within_its_bound() {
    let place = Place::new();
    let one = 40_000; // a form takes up to 32 KiB of weights, and a directory
    let (_, notes) = place.load(Storage::Bf16, &place.folder(1000));
    assert!(notes.len() == 1 && notes[0].contains("are not kept"), "{notes:?}");
    assert!(place.packed().is_empty());

    place.load(Storage::Bf16, &place.folder(one));
    let bf16 = place.packed();
    place.load(Storage::F16, &place.folder(one));
    assert!(place.packed().len() == 1 && place.packed() != bf16);
    assert!(place.folder(0).clear().unwrap() > 32_000);
    assert!(files(&place.folder(0).path).is_empty());
}

#[test]
fn what_is_left_of_an_unfinished_file_does_not_count() {
    let place = Place::new();
    let folder = place.folder(ROOMY);
    let open = || Weights::open(&[Blob::File(place.source())], Role::Transformer).unwrap();
    let weights = open().with_storage(Storage::Bf16).with_packed(&folder);
    weights.packed_matrix(NAME, SHAPE).unwrap();
    assert_eq!((place.packed().len(), files(&folder.path).len()), (0, 1));
    drop(weights);
    assert!(files(&folder.path).is_empty());
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}
