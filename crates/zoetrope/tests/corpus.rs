//! What the fuzzer found interesting, once more: every file of `fuzz/corpus` through the function that it was found for.

#[allow(unreachable_pub)] // a library for the fuzzer
#[path = "../../../fuzz/src/lib.rs"]
mod fuzz;

use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("every target has a corpus") {
        let file = entry.expect("it can be listed").path();
        println!("{}", file.display()); // shown if it fails
        run(&std::fs::read(&file).expect("it can be read"));
        count += 1;
    }
    assert!(count > 3, "{} has {count} files", folder.display());
}

#[test]
fn bodies_as_json() {
    replay("json", fuzz::requests::json);
}

#[test]
fn bodies_as_msgpack() {
    replay("msgpack", fuzz::requests::msgpack);
}

#[test]
fn whole_requests() {
    replay("http", fuzz::http::request);
}

#[test]
fn images() {
    replay("images", fuzz::images::image);
}

#[test]
fn files_of_weights() {
    replay("weights", fuzz::checkpoints::weights);
}

#[test]
fn adapters() {
    replay("adapters", fuzz::checkpoints::adapter);
}
