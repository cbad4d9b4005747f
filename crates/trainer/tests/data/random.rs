//! Bytes that nobody wrote on purpose: whatever they are, the answer is a data set or an error.

use proptest::prelude::*;

use crate::*;

/// Opens and loads all; only a panic is wrong.
fn survives(dataset: Result<Dataset, String>) {
    for example in dataset.map(|dataset| dataset.examples).unwrap_or_default() {
        let _ = example.load();
    }
}

/// One of everything that is read.
fn everything() -> Vec<(&'static str, Vec<u8>)> {
    let image: DynamicImage = plain(8, 8, [1, 2, 3, 99]);
    let opaque: DynamicImage = image.to_rgb8().into();
    vec![
        ("a.png", encoded(&image, ImageFormat::Png)),
        ("a.txt", b"one".to_vec()),
        ("10_b/b.bmp", encoded(&opaque, ImageFormat::Bmp)),
        ("10_b/masks/b.png", png(8, 8, 200)),
        ("c.qoi", encoded(&opaque, ImageFormat::Qoi)),
        ("captions.csv", b"file_name,text\nc.qoi,\"a, b\"\n".to_vec()),
        ("metadata.jsonl", b"{\"file_name\": \"10_b/b.bmp\", \"text\": \"two\"}\n".to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_are_a_data_set_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        survives(open_file(&bytes, &captioned()));
    }

    #[test]
    fn any_change_of_a_zip_leaves_a_data_set_or_an_error(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = zip_of(&everything());
        for (place, value) in changes {
            let at = place.index(bytes.len());
            bytes[at] = value;
        }
        survives(open_file(&bytes, &captioned()));
    }

    #[test]
    fn any_change_of_a_file_leaves_a_data_set_or_an_error(
        which in 0..7usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut files = everything();
        for (place, value) in changes {
            let bytes = &mut files[which].1;
            let at = place.index(bytes.len());
            bytes[at] = value;
        }
        survives(Place::folder(&files).open(&captioned()));
    }

    #[test]
    fn any_text_is_a_table_or_an_error(text in "[ -~\n\"]{0,200}", csv in any::<bool>()) {
        let name = if csv { "captions.csv" } else { "metadata.jsonl" };
        let text = if csv { format!("file_name,text\n{text}") } else { text };
        survives(Place::folder(&[("a.png", png(8, 8, 1)), (name, text.into_bytes())]).open(&captioned()));
    }
}
