//! What a task ended with, in the gateway's words.

use std::time::Duration;

use serde_json::Value;
use zoetrope_api::images::Pixels;
use zoetrope_files::Name;
use zoetrope_jobs::{End, Outcome as Ended};

use super::{IMAGE_FIELD, MASK_FIELD, REFERENCE_FIELD};
use crate::failure::{Failure, FailureKind};
use crate::price::{Bill, Unit};
use crate::provider::{Call, Content, Made, Outcome};

/// The pictures that a task ended with, or why there are none.
pub(super) fn outcome(end: &End, call: &Call, took: Duration) -> Result<Outcome, Failure> {
    let body: Value = serde_json::from_str(&end.response).unwrap_or_default();
    if end.outcome != Ended::Completed || end.status_code != 200 {
        return Err(Failure { first_byte: Some(took), ..failure(end, &body) });
    }
    let seed = body["seed"].as_u64();
    let images = body["images"].as_array().map(Vec::as_slice).unwrap_or_default();
    let revised = body["prompt"].as_str().filter(|_| call.request.prompt_expansion == Some(true));
    let made = |(index, image): (usize, &Value)| {
        let side = |name: &str| image[name].as_u64().and_then(|side| u32::try_from(side).ok());
        Some(Made {
            content: content(image["url"].as_str()?)?,
            format: call.ask.format,
            size: Pixels::new(side("width")?, side("height")?),
            seed: seed.map(|seed| seed.wrapping_add(index as u64)),
            revised_prompt: revised.map(String::from),
        })
    };
    let pictures: Option<Vec<Made>> = images.iter().enumerate().map(made).collect();
    let pictures = pictures.filter(|pictures| pictures.len() == call.part.count as usize);
    let pictures = pictures.ok_or_else(|| {
        Failure::new(
            FailureKind::NoImage,
            "the worker's answer has not the pictures that were asked for",
        )
    })?;
    let by_time = call.deployment.price.as_ref().is_some_and(|price| price.unit == Unit::Second);
    let bill = match end.inference_ms.and_then(|ms| u64::try_from(ms).ok()) {
        Some(ms) if by_time => Bill::Units(1000 * ms), // millionths of seconds
        _ => Bill::Unsaid,
    };
    Ok(Outcome { pictures, first_byte: took, bill })
}

/// A data URI's base64, or the stored file behind an address of ours.
fn content(url: &str) -> Option<Content> {
    if let Some((_, base64)) = url.split_once(";base64,").filter(|_| url.starts_with("data:")) {
        return Some(Content::Base64(base64.into()));
    }
    let (_, path) = url.split_once("/files/")?;
    Some(Content::Stored { name: Name::parse(path)?, url: url.into() })
}

/// What a worker or the queue said, in the gateway's words.
fn failure(end: &End, body: &Value) -> Failure {
    let detail = &body["detail"];
    let problem = detail.get(0).unwrap_or(detail);
    let text = problem["msg"].as_str().or(problem.as_str());
    let text = text.unwrap_or("the engine failed").to_string();
    let code = problem["type"].as_str().map(String::from).or(end.error_type.clone());
    let kind = match (code.as_deref(), end.status_code) {
        (Some("content_policy_violation"), _) => FailureKind::Policy,
        (Some("request_timeout"), _) => FailureKind::TimedOut,
        (_, 400..=422) => FailureKind::Rejected,
        _ if end.outcome == Ended::Cancelled => FailureKind::Cancelled,
        _ => FailureKind::Broken,
    };
    let place = problem["loc"].as_array().and_then(|loc| loc.get(1)?.as_str());
    let parameter = place.map(|name| canonical(name).to_string());
    let failure = Failure::new(kind, text);
    Failure { status: Some(end.status_code), code, parameter, ..failure }
}

/// The worker speaks of fal's fields.
fn canonical(field: &str) -> &str {
    match field {
        IMAGE_FIELD => "image",
        MASK_FIELD => "mask",
        field if field.starts_with(REFERENCE_FIELD) || field == "references" => "image",
        "image_size" => "size",
        "num_images" => "n",
        "guidance_scale" => "cfg_scale",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(outcome: Ended, status_code: u16, response: &str) -> End {
        End {
            outcome,
            status_code,
            response: response.into(),
            error: None,
            error_type: None,
            inference_ms: None,
            billable_units: None,
            flagged: None,
        }
    }

    #[test]
    fn what_the_worker_says_is_told_in_the_gateway_s_words() {
        let field = |name: &str, kind: &str| {
            format!(
                r#"{{"detail": [{{"loc": ["body", "{name}"], "msg": "no", "type": "{kind}"}}]}}"#
            )
        };
        let cases = [
            (422, field("image_url", "image_load_error"), FailureKind::Rejected, Some("image")),
            (422, field("guidance_scale", "value_error"), FailureKind::Rejected, Some("cfg_scale")),
            (422, field("prompt", "content_policy_violation"), FailureKind::Policy, Some("prompt")),
            (500, field("prompt", "internal_server_error"), FailureKind::Broken, Some("prompt")),
            (503, r#"{"detail": "no worker"}"#.into(), FailureKind::Broken, None),
            (500, "nonsense".into(), FailureKind::Broken, None),
        ];
        for (status, response, kind, parameter) in cases {
            let end = end(Ended::Failed, status, &response);
            let body = serde_json::from_str(&end.response).unwrap_or_default();
            let failure = failure(&end, &body);
            assert_eq!(
                (failure.kind, failure.parameter.as_deref()),
                (kind, parameter),
                "{response}"
            );
        }
        let cancelled = end(Ended::Cancelled, 499, r#"{"detail": "Request was cancelled"}"#);
        let body = serde_json::from_str(&cancelled.response).unwrap_or_default();
        assert_eq!(failure(&cancelled, &body).kind, FailureKind::Cancelled);
    }

    #[test]
    fn results_are_bytes_or_files_of_ours() {
        assert!(
            matches!(content("data:image/png;base64,aGk="), Some(Content::Base64(text)) if text == "aGk=")
        );
        let name = Name::new("a.png");
        let url = format!("http://localhost/files/{name}");
        assert!(
            matches!(content(&url), Some(Content::Stored { name: found, .. }) if found.as_str() == name.as_str())
        );
        assert!(content("https://a.example/b.png").is_none());
    }
}
