//! A set as the zip that trainers read, written into the store piece by piece: gigabytes fit no memory's plan.

use std::io::{self, Write};

use axum::body::Bytes;
use futures_util::stream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;
use zoetrope_files::{Limits, Name, Store};
use zoetrope_jobs::{FileRow, TrainingPicture};
use zoetrope_server::App;
use zoetrope_server::pages::Failure;

use crate::fault::Fault;
use crate::visitor::Visitor;

/// As large as a trainer takes.
const BYTES_MAX: u64 = 2 << 30;
/// Pieces that wait for the store.
const WAITING: usize = 4;
/// Of one piece.
const PIECE_BYTES: usize = 1 << 20;

/// Packs `pictures` with their captions; the zip's name in the store. It lives as long as uploads do.
pub(super) async fn pack(
    visitor: &Visitor,
    app: &App,
    pictures: Vec<TrainingPicture>,
) -> Result<Name, Fault> {
    let name = Name::new("pictures.zip");
    let now_ms = app.now_ms();
    let row = FileRow {
        name: name.as_str().into(),
        owner: visitor.caller.owner.clone(),
        request: None,
        size: -1,
        created_ms: now_ms,
        expires_ms: Some(now_ms + DAYS_MS),
    };
    app.queue().reserve_file(&row, now_ms + 3_600_000).await?;
    let (sender, receiver) = mpsc::channel(WAITING);
    let (store, handle) = (app.store().clone(), Handle::current());
    let writing = tokio::task::spawn_blocking(move || write(&store, &handle, &pictures, sender));
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        let piece: io::Result<Bytes> = receiver.recv().await?;
        Some((piece, receiver))
    });
    let stored = app.store().put_stream(&name, Box::pin(pieces), BYTES_MAX).await;
    let written = writing.await.map_err(|error| Failure::internal(&error))?;
    match (stored, written) {
        (Ok(size), Ok(())) => {
            app.queue().fill_file(&FileRow { size: size as i64, ..row }).await?;
            Ok(name)
        }
        (stored, written) => {
            let _ = app.store().delete(&name).await; // whatever is there of it is of no use
            app.queue().forget_file(name.as_str()).await?;
            let error = written.err().map(|error| error.to_string());
            let error = error.or(stored.err().map(|error| error.to_string())).unwrap_or_default();
            Err(Failure::internal(&error).into())
        }
    }
}

/// How long the zip is there: as long as a training may wait.
const DAYS_MS: i64 = 30 * 86_400_000;

fn write(
    store: &Store,
    handle: &Handle,
    pictures: &[TrainingPicture],
    sender: mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let pieces = Pieces { sender: sender.clone(), piece: Vec::with_capacity(PIECE_BYTES) };
    let written = entries(store, handle, pictures, pieces);
    if let Err(error) = &written {
        let _ = sender.blocking_send(Err(io::Error::other(error.to_string()))); // the other end may have given up
    }
    written
}

fn entries(
    store: &Store,
    handle: &Handle,
    pictures: &[TrainingPicture],
    pieces: Pieces,
) -> io::Result<()> {
    let mut zip = zip::ZipWriter::new_stream(pieces);
    // Pictures are packed already.
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (at, picture) in pictures.iter().enumerate() {
        let name =
            Name::parse(&picture.file).ok_or_else(|| io::Error::other("a picture has no name"))?;
        let read = handle.block_on(store.read(&name, Limits::default().bytes_max));
        let bytes = read.map_err(io::Error::other)?;
        let bytes =
            bytes.ok_or_else(|| io::Error::other("a picture is not in the store any more"))?;
        let ending = name.file_name().rsplit_once('.').map_or("png", |(_, ending)| ending);
        zip.start_file(format!("{:03}.{ending}", at + 1), options)?;
        zip.write_all(&bytes)?;
        if !picture.caption.is_empty() {
            zip.start_file(format!("{:03}.txt", at + 1), options)?;
            zip.write_all(picture.caption.as_bytes())?;
        }
    }
    zip.finish()?.into_inner().flush()
}

/// A writer whose bytes go to the store.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        if piece.is_empty() {
            return Ok(());
        }
        let sent = self.sender.blocking_send(Ok(piece.into()));
        sent.map_err(|_| io::Error::other("the store takes no more"))
    }
}
