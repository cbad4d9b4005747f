//! Pictures to where the caller wants them: at an address of ours, in the answer, or both.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use zoetrope_api::images::{Form, Problem};
use zoetrope_files::{Limits, Name};
use zoetrope_jobs::FileRow;

use crate::answer::Picture;
use crate::caller::Caller;
use crate::gateway::House;
use crate::provider::{Content, Made};
use crate::source::failed;

/// Puts `made` into `form`. What came in the form that is wanted is passed on as it is; addresses of providers are never
/// passed on, since they end within the hour.
pub async fn deliver(
    made: Made,
    form: Form,
    caller: &Caller,
    house: &House,
) -> Result<Picture, Problem> {
    let Made { content, format, size, seed, revised_prompt } = made;
    let kept = match (&content, form.wants_url()) {
        (_, false) => None,
        (Content::Stored { name, url }, true) => Some((name.clone(), url.clone())),
        (Content::Bytes(bytes), true) => {
            Some(keep(bytes.clone(), format.extension(), caller, house).await?)
        }
        (Content::Base64(text), true) => {
            let bytes = STANDARD.decode(text).map_err(failed)?;
            Some(keep(bytes.into(), format.extension(), caller, house).await?)
        }
    };
    let base64 = match (content, form.wants_bytes()) {
        (_, false) => None,
        (Content::Base64(text), true) => Some(text),
        (Content::Bytes(bytes), true) => Some(STANDARD.encode(&bytes)),
        (Content::Stored { name, .. }, true) => {
            let read =
                house.store.read(&name, Limits::default().bytes_max).await.map_err(failed)?;
            let bytes = read.ok_or_else(|| failed("a picture is not in the store any more"))?;
            Some(STANDARD.encode(&bytes))
        }
    };
    let (file, url) = kept.map(|(name, url)| (name.as_str().to_string(), url)).unzip();
    let (url, base64) = match form {
        Form::DataUri => {
            let uri = |text| format!("data:{};base64,{text}", format.content_type());
            (base64.map(uri), None)
        }
        Form::Url | Form::Base64 | Form::Both => (url, base64),
    };
    Ok(Picture { url, file, base64, format, size, seed, revised_prompt })
}

/// Stores a file for as long as addresses live; its name and its address. Its row comes first: bytes without a row would never be found
/// again.
async fn keep(
    bytes: Bytes,
    extension: &str,
    caller: &Caller,
    house: &House,
) -> Result<(Name, String), Problem> {
    let name = Name::new(&format!("image.{extension}"));
    let created_ms = (house.now_ms)();
    let row = FileRow {
        name: name.as_str().into(),
        owner: caller.owner.clone(),
        request: None,
        size: bytes.len() as i64,
        created_ms,
        expires_ms: Some(created_ms + house.keep_ms),
    };
    house.queue.insert_file(&row).await.map_err(failed)?;
    house.store.put(&name, bytes).await.map_err(failed)?;
    let url = format!("{}/files/{}", caller.base, name.as_str());
    Ok((name, url))
}
