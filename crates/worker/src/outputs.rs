//! Files that a request makes, stored under its name and for as long as it wants.

use bytes::Bytes;
use zoetrope_files::Name;
use zoetrope_jobs::{FileRow, Lease};

use crate::attempt::Room;
use crate::error::JobError;

/// Stores one file of `lease`'s request; its address. Its row comes first: bytes without a row would never be found again.
pub(crate) async fn keep(
    file_name: &str,
    bytes: Vec<u8>,
    keep_seconds: Option<u64>,
    lease: &Lease,
    room: &Room,
) -> Result<String, JobError> {
    let name = Name::new(file_name);
    let created_ms = room.now_ms();
    let row = FileRow {
        name: name.as_str().into(),
        owner: lease.request.owner.clone(),
        request: Some(lease.request.id.clone()),
        size: bytes.len() as i64,
        created_ms,
        expires_ms: keep_seconds.map(|seconds| created_ms + 1000 * seconds as i64),
    };
    room.queue.insert_file(&row).await?;
    let stored = room.store.put(&name, Bytes::from(bytes)).await;
    stored.map_err(|e| JobError::Passing(e.to_string()))?;
    Ok(format!("{}/files/{}", lease.request.base, name.as_str()))
}
