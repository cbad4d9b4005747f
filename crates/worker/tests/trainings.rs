//! Trainings with the embedded model, from a row in the queue to files in the store; no network and no port.

#![allow(clippy::unwrap_used)]

mod room;

use std::io::Write as _;
use std::time::{Duration, Instant};

use room::{BASE, Room};
use serde_json::{Value, json};
use zoetrope_checkpoint::VisionModel;
use zoetrope_files::{Format, Name, Picture};
use zoetrope_jobs::{Outcome, Request, State};
use zoetrope_worker::{Checker, Safety};

const TRAINER: &str = "fal-ai/z-image-trainer";

/// A zip of `count` pictures of a red square, each with its caption where `captions` says so.
fn zip(count: u8, captions: bool) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for i in 0..count {
        let pixel = |at: u32| match at % 64 < u32::from(i) * 4 + 20 && at / 64 > 30 {
            true => [200, 20, 20],
            false => [250, 250, 245],
        };
        let rgb = (0..64 * 64).flat_map(pixel).collect();
        let picture = Picture { width: 64, height: 64, rgb };
        let bytes = zoetrope_files::encode(&picture, Format::Png, None).unwrap();
        zip.start_file(format!("{i:03}.png"), zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&bytes).unwrap();
        if captions {
            let options = zip::write::SimpleFileOptions::default();
            zip.start_file(format!("{i:03}.txt"), options).unwrap();
            zip.write_all(b"a red house, ink").unwrap();
        }
    }
    zip.finish().unwrap().into_inner()
}

fn output(request: &Request) -> Value {
    serde_json::from_str(&request.end.as_ref().unwrap().response).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_ends_with_a_file_that_draws() {
    let room = Room::new().await;
    let worker = room.work();
    let url = room.upload("pictures.zip", zip(8, true)).await;
    let input = json!({"image_data_url": url, "steps": 100, "learning_rate": 0.01});
    let id = room.submit(TRAINER, &input).await;
    let request = room.ended(&id).await;
    let end = request.end.clone().unwrap();
    assert_eq!((end.outcome, end.billable_units), (Outcome::Completed, Some(0.1)), "{end:?}");

    let output = output(&request);
    let file = &output["diffusers_lora_file"];
    assert_eq!(file["file_name"], "pytorch_lora_weights.safetensors");
    assert_eq!(file["content_type"], "application/octet-stream");
    let path = file["url"].as_str().unwrap();
    let name = Name::parse(path.strip_prefix(&format!("{BASE}/files/")).unwrap()).unwrap();
    let bytes = room.store.read(&name, 1 << 30).await.unwrap().unwrap();
    assert_eq!(file["file_size"], bytes.len());
    assert!(String::from_utf8_lossy(&bytes[..4096]).contains(".lora_A.weight"));
    assert_eq!(output["config_file"]["file_name"], "config.json");
    assert_eq!(output["config_file"]["content_type"], "application/json");

    let lines = room.lines(&id).await;
    let steps: Vec<_> = lines.iter().filter(|line| line.starts_with("Step ")).collect();
    assert!(steps.len() == 100 && steps[0].starts_with("Step 1/100: loss "), "{lines:?}");
    let samples = lines.iter().filter(|line| line.starts_with("Sample after "));
    assert_eq!(samples.count(), 5);
    // Both files and the samples go with the request.
    assert_eq!(room.queue.files_of(&id).await.unwrap().len(), 7);

    // The file's address is an adapter's path, though nothing of this network may be fetched.
    let mut drawn = Vec::new();
    for scale in [0.0, 1.0] {
        let input = json!({"prompt": "a red house", "image_size": {"width": 64, "height": 64}, "seed": 1,
            "sync_mode": true, "loras": [{"path": path, "scale": scale}]});
        let id = room.submit("fal-ai/z-image/turbo/lora", &input).await;
        let request = room.ended(&id).await;
        assert_eq!(request.end.as_ref().unwrap().status_code, 200, "{request:?}");
        drawn.push(self::output(&request)["images"][0]["url"].clone());
    }
    assert_ne!(drawn[0], drawn[1], "the adapter changes nothing");
    worker.stop().await;
}

/// The first sample of a training whose pictures show `caption`, and whether it was said to be unsafe.
async fn first_sample(room: &Room, caption: &str) -> (Picture, bool) {
    let worker = room.work();
    let url = room.upload("pictures.zip", zip(2, false)).await;
    let input = json!({"image_data_url": url, "steps": 10_000, "default_caption": caption});
    let id = room.submit(TRAINER, &input).await;
    room.until(&id, async || room.said(&id, "Step 1/").await).await;
    let lines = room.lines(&id).await;
    let sample = lines.iter().find_map(|line| line.strip_prefix("Sample after 0 of 10000 steps: "));
    let name = Name::parse(sample.unwrap().strip_prefix(&format!("{BASE}/files/")).unwrap());
    let bytes = room.store.read(&name.unwrap(), 1 << 24).await.unwrap().unwrap();
    let said = room.said(&id, "The safety checker found this sample unsafe").await;
    room.queue.cancel(&id).await.unwrap();
    room.ended(&id).await;
    worker.stop().await;
    (zoetrope_files::decode(&bytes, &Default::default()).unwrap().picture, said)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checker_looks_at_samples_too() {
    let mut room = Room::new().await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/safety/vit");
    let files = VisionModel::safety_checker(folder.as_ref()).unwrap();
    let checker = Checker::open(&files, &candle_core::Device::Cpu).unwrap();
    let (night, day) = (
        "a lighthouse in the middle, the sea, at midnight",
        "a white house in the middle, snow, the sun on the left, at noon",
    );
    let black = |picture: &Picture| picture.rgb.iter().all(|value| *value < 3);
    assert!(!black(&first_sample(&room, night).await.0), "nobody looks");
    room.safety = Safety::Checked(checker);
    let (picture, said) = first_sample(&room, night).await;
    assert!(black(&picture) && said);
    let (picture, said) = first_sample(&room, day).await;
    assert!(!black(&picture) && !said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_that_is_handed_back_goes_on_and_is_cancelled_within_a_step() {
    let room = Room::new().await;
    let worker = room.work();
    let url = room.upload("pictures.zip", zip(2, true)).await;
    // Far too long for a test: only a step of it is waited for.
    let id = room.submit(TRAINER, &json!({"image_data_url": url, "steps": 10_000})).await;
    room.until(&id, async || room.said(&id, "Step 3/").await).await;
    worker.stop().await;
    let standing = room.queue.standing(&id).await.unwrap().unwrap();
    assert_eq!((standing.state, standing.attempts), (State::Queued, 0));

    let worker = room.work();
    room.until(&id, async || room.said(&id, "Goes on after step ").await).await;
    let before = room.lines(&id).await.len();
    room.until(&id, async || room.lines(&id).await.len() > before).await;
    let begun = Instant::now();
    room.queue.cancel(&id).await.unwrap();
    let request = room.ended(&id).await;
    assert_eq!(request.end.unwrap().outcome, Outcome::Cancelled);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    worker.stop().await;

    // What the next worker does first is to look for what is over.
    let folder = room.folder.path().join("trainings").join(&id);
    assert!(folder.is_dir());
    let worker = room.work();
    room.until(&id, async || !folder.exists()).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_pictures_is_told_of_their_field() {
    let room = Room::new().await;
    let worker = room.work();
    let unknown = Name::new("gone.zip");
    let cases = [
        (room.upload("a.zip", zip(2, false)).await, "value_error", "000.png: has no caption"),
        (room.upload("a.zip", zip(0, false)).await, "invalid_archive", "The file is an empty zip"),
        (room.upload("a.zip", b"x".to_vec()).await, "invalid_archive", "The file is neither"),
        (format!("{BASE}/files/{unknown}"), "file_download_error", "There is no such file"),
        ("http://127.0.0.1:9/a.zip".into(), "file_download_error", "127.0.0.1 is an address"),
        ("data:application/zip;base64,eA==".into(), "invalid_archive", "The file is neither"),
    ];
    for (url, kind, beginning) in cases {
        let id = room.submit(TRAINER, &json!({"image_data_url": url})).await;
        let request = room.ended(&id).await;
        let end = request.end.clone().unwrap();
        assert_eq!((end.status_code, end.error_type.as_deref()), (422, Some(kind)), "{end:?}");
        let problem = &output(&request)["detail"][0];
        assert_eq!(problem["loc"], json!(["body", "image_data_url"]));
        assert!(problem["msg"].as_str().unwrap().starts_with(beginning), "{problem}");
        let here = room.folder.path().display().to_string();
        assert!(!problem.to_string().contains(&here), "{problem}");
    }
    worker.stop().await;
}
