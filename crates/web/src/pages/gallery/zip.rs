//! Several pictures as one zip, written while it is sent: no copy of them lies anywhere.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, ZipWriter};
use zoetrope_files::{Limits, Name};
use zoetrope_jobs::Picture;
use zoetrope_server::App;
use zoetrope_server::pages::Failure;

use crate::fault::Fault;
use crate::visitor::Visitor;

/// The pictures called `numbers`, as far as they are the visitor's.
pub(super) async fn answer(
    app: &App,
    visitor: &Visitor,
    numbers: &[i64],
) -> Result<Response, Fault> {
    let mut pictures = VecDeque::new();
    for number in numbers {
        pictures.extend(app.queue().picture(*number, visitor.owner()).await?);
    }
    let written = Written::default();
    let writer = Some(ZipWriter::new_stream(written.clone()));
    let archive = Archive { app: app.clone(), pictures, writer, written };
    let body = stream::unfold(archive, |mut archive| async move {
        let bytes = archive.next().await.transpose()?;
        Some((bytes, archive))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/zip"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"zoetrope.zip\""),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// What the writer has written and nobody has sent yet.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A zip under way, one picture of it in memory.
struct Archive {
    app: App,
    pictures: VecDeque<Picture>,
    /// None once the end is written.
    writer: Option<ZipWriter<StreamWriter<Written>>>,
    written: Written,
}

impl Archive {
    /// The next bytes; none after the last.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while let Some(picture) = self.pictures.pop_front() {
            let Some(name) = Name::parse(&picture.file) else { continue };
            let read = self.app.store().read(&name, Limits::default().bytes_max).await;
            let failed = |error| io::Error::other(Failure::internal(&error).message().to_string());
            let Some(content) = read.map_err(failed)? else { continue }; // deleted at this moment
            let Some(writer) = &mut self.writer else { continue };
            // Pictures are packed already.
            let options =
                SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
            writer.start_file(format!("{}-{}", picture.number, name.file_name()), options)?;
            writer.write_all(&content)?;
            return Ok(Some(self.written.take().into()));
        }
        let Some(writer) = self.writer.take() else { return Ok(None) };
        writer.finish()?;
        Ok(Some(self.written.take().into()))
    }
}
