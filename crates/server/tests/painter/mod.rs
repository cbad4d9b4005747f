//! A worker in a test's hands: it draws grey pictures of what the queue holds, and remembers the tasks.

#![allow(dead_code, clippy::unwrap_used)] // each test uses what it needs

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use zoetrope_api::task::{Delivery, Generate, Size};
use zoetrope_files::{Name, Picture, Store};
use zoetrope_jobs::{Attempt, End, FileRow, Lease, Outcome, Preview, Queue};

use crate::room::Room;

/// What a task was and what came with it.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    pub(crate) task: Generate,
    pub(crate) input: Value,
    pub(crate) endpoint: String,
    pub(crate) owner: String,
}

/// Draws until it is dropped.
pub(crate) struct Painter {
    drawn: Arc<Mutex<Vec<Drawn>>>,
    task: JoinHandle<()>,
}

impl Painter {
    pub(crate) fn of(room: &Room) -> Self {
        let drawn = Arc::<Mutex<Vec<Drawn>>>::default();
        let (queue, store, seen) = (room.queue.clone(), room.store.clone(), drawn.clone());
        let task = tokio::spawn(async move {
            loop {
                match queue.claim().await.unwrap() {
                    Some(lease) => draw(&queue, &store, lease, &seen).await,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        });
        Self { drawn, task }
    }

    pub(crate) fn drawn(&self) -> Vec<Drawn> {
        self.drawn.lock().unwrap().clone()
    }
}

impl Drop for Painter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A grey picture as a file.
pub(crate) fn picture(width: u32, height: u32, format: zoetrope_api::Format) -> Vec<u8> {
    let picture = Picture { width, height, rgb: vec![127; (3 * width * height) as usize] };
    zoetrope_files::encode(&picture, format.into(), None).unwrap()
}

async fn draw(queue: &Queue, store: &Store, lease: Lease, seen: &Mutex<Vec<Drawn>>) {
    let task: Generate = serde_json::from_str(&lease.request.task).unwrap();
    seen.lock().unwrap().push(Drawn {
        task: task.clone(),
        input: serde_json::from_str(&lease.request.input).unwrap(),
        endpoint: lease.request.endpoint.clone(),
        owner: lease.request.owner.clone(),
    });
    let Size::Pixels { width, height } = task.size else { panic!("sizes are worked out before") };
    if task.previews {
        for step in 1..i64::from(task.steps) {
            let small = STANDARD.encode(picture(16, 16, zoetrope_api::Format::Jpeg));
            let picture = format!("data:image/jpeg;base64,{small}");
            lease.preview(&Preview { step, of: task.steps.into(), picture }).await.unwrap();
        }
    }
    let bytes = picture(width, height, task.format);
    let url = match task.delivery {
        Delivery::Inline => {
            format!("data:{};base64,{}", task.format.content_type(), STANDARD.encode(bytes))
        }
        Delivery::Stored => {
            let name = Name::new(&format!("image.{}", task.format.extension()));
            let row = FileRow {
                name: name.as_str().into(),
                owner: lease.request.owner.clone(),
                request: Some(lease.request.id.clone()),
                size: bytes.len() as i64,
                created_ms: lease.request.created_ms,
                expires_ms: task.keep_seconds.map(|s| lease.request.created_ms + 1000 * s as i64),
            };
            queue.insert_file(&row).await.unwrap();
            store.put(&name, bytes.into()).await.unwrap();
            format!("{}/files/{name}", lease.request.base)
        }
    };
    let response = json!({
        "images": [{"url": url, "content_type": task.format.content_type(), "width": width, "height": height}],
        "seed": task.seed.unwrap_or(99),
        "prompt": task.prompt,
    });
    let end = End {
        outcome: Outcome::Completed,
        status_code: 200,
        response: response.to_string(),
        error: None,
        error_type: None,
        inference_ms: Some(10),
        billable_units: Some(1.0),
        flagged: None,
    };
    lease.finish(Attempt::End(end)).await.unwrap();
}

/// A part of a form: its name, and a file or a text.
pub(crate) type Part<'a> = (&'a str, Option<&'a [u8]>, &'a str);

/// A form as JavaScript's client streams it: the file first, nothing known of its type or length.
pub(crate) fn form(parts: &[Part]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, file, text) in parts {
        let head = match file {
            Some(_) => "; filename=\"blob\"\r\nContent-Type: application/octet-stream",
            None => "",
        };
        body.extend_from_slice(
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"{head}\r\n\r\n")
                .as_bytes(),
        );
        body.extend_from_slice(file.unwrap_or(text.as_bytes()));
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--b--\r\n");
    ("multipart/form-data; boundary=b".into(), body)
}
