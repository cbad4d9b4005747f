//! Replicate's predictions: created with a wait, asked for until they end, cancelled when nobody waits any more.

use std::time::Instant;

use futures_util::future::BoxFuture;
use reqwest::Method;
use serde_json::{Value, json};
use zoetrope_api::Format;
use zoetrope_api::images::{Handling, Mode, SizeRule};

use Handling::{Converted, Emulated, Passthrough, Renamed};

use super::http::{Guard, Http, Reply, answer_bytes_max, is_id};
use super::said::Said;
use super::{PROMPT_CHARS_MAX, extras};
use crate::catalogue::{ConfigError, Deployment, ProviderEntry};
use crate::failure::{Billed, Failure, FailureKind};
use crate::gateway::House;
use crate::price::{Bill, Unit};
use crate::provider::{Abilities, Beyond, Bound, Call, Outcome, Provider};

/// Seconds that a creation waits for its end: Replicate would wait for 60, but what nobody waits for any more can only be
/// cancelled once it has a name.
const WAIT_SECONDS_MAX: u64 = 10;
/// The least that a prediction may be given to live.
const LIFE_SECONDS_MIN: u64 = 5;
/// The version that draws sides of up to 1440 pixels only.
const SMALL_VERSION: &str = "5fd5416a";

/// Its schema has `negative_prompt` too, which does nothing there: better to tell that it is dropped.
const TEXT: &[(&str, Handling)] = &[
    ("prompt", Passthrough),
    ("seed", Passthrough),
    ("n", Emulated),
    ("size", Converted),
    ("aspect_ratio", Converted),
    ("resolution", Converted),
    ("width", Passthrough),
    ("height", Passthrough),
    ("response_format", Emulated),
    ("output_format", Converted),
    ("output_compression", Renamed),
    ("output_quality", Passthrough),
    ("cfg_scale", Renamed),
    ("num_inference_steps", Passthrough),
    ("go_fast", Passthrough),
    ("sync_mode", Emulated),
];

const BOUNDS: &[Bound] = &[
    Bound { parameter: "num_inference_steps", least: 1, most: 50, beyond: Beyond::Nearest },
    // Its schemas have whole numbers of 64 bits with a sign.
    Bound { parameter: "seed", least: 0, most: i64::MAX as u64, beyond: Beyond::Rest },
];

/// An account at Replicate.
pub(super) struct Replicate(Http);

impl Replicate {
    pub(super) fn open(entry: &ProviderEntry, house: &House) -> Result<Self, ConfigError> {
        Ok(Self(Http::with_key(entry, house, "Bearer")?))
    }
}

impl Provider for Replicate {
    fn abilities(&self, deployment: &Deployment, _: Mode) -> Abilities {
        let version = deployment.upstream.split_once(':').map_or("", |(_, version)| version);
        let side_max = if version.starts_with(SMALL_VERSION) { 1440 } else { 2048 };
        Abilities {
            sizes: SizeRule {
                multiple: 16,
                side_min: 64,
                side_max,
                ..SizeRule::up_to(2048 * 2048)
            },
            count_max: 1, // `num_outputs` above 1 is refused
            formats: &[Format::Jpeg, Format::Png, Format::Webp],
            inputs_max: 0,
            prompt_chars_max: PROMPT_CHARS_MAX,
            partials: false,
            handling: TEXT,
            passes_unknown: true,
            bounds: BOUNDS,
        }
    }

    fn make<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(self.run(call))
    }
}

impl Replicate {
    async fn run(&self, call: &Call) -> Result<Outcome, Failure> {
        let abilities = self.abilities(&call.deployment, call.request.mode());
        let begun = Instant::now();
        let (mut reply, guard) = self.create(call, &abilities).await?;
        let mut prediction = self.0.json(&reply)?;
        let id = id(&prediction);
        let path = id.map(path).ok_or_else(|| self.0.broken("took the request without an id"))?;
        if is_under_way(&prediction) {
            (reply, prediction) = self.0.follow(call, begun, || self.ended(call, &path)).await?;
        }
        if let Some(guard) = guard {
            guard.ended();
        }
        self.outcome(call, &reply, &prediction).await
    }

    /// The prediction as it is after a while, and what cancels it.
    async fn create(
        &self,
        call: &Call,
        abilities: &Abilities,
    ) -> Result<(Reply, Option<Guard>), Failure> {
        let input = input(call, abilities);
        let upstream = call.deployment.upstream.as_str();
        let (target, body) = match upstream.split_once(':') {
            Some((_, version)) => {
                ("/v1/predictions".to_string(), json!({"version": version, "input": input}))
            }
            None => (format!("/v1/models/{upstream}/predictions"), json!({"input": input})),
        };
        let left = call.deadline.saturating_duration_since(Instant::now()).as_secs();
        let wait = left.saturating_sub(1).clamp(1, WAIT_SECONDS_MAX);
        let request = self
            .0
            .post(&target, &body)
            .header("prefer", format!("wait={wait}"))
            // Should we be gone by then, it ends by itself.
            .header("cancel-after", format!("{}s", left.max(LIFE_SECONDS_MIN)));
        let cancel = |http: &Http, reply: &Reply| {
            let prediction: Value = serde_json::from_slice(&reply.body).ok()?;
            let path = path(id(&prediction)?);
            is_under_way(&prediction).then(|| http.request(Method::POST, &format!("{path}/cancel")))
        };
        let (reply, guard) =
            self.0.submit(request, answer_bytes_max(1), call.deadline, cancel).await?;
        match reply.is_success() {
            true => Ok((reply, guard)),
            false => Err(self.refused(&reply, call)),
        }
    }

    /// The prediction, once it has ended.
    async fn ended(&self, call: &Call, path: &str) -> Result<Option<(Reply, Value)>, Failure> {
        let request = self.0.request(Method::GET, path);
        let reply = self.0.send(request, answer_bytes_max(1), call.deadline).await?;
        if !reply.is_success() {
            return Err(self.refused(&reply, call));
        }
        let prediction = self.0.json(&reply)?;
        Ok((!is_under_way(&prediction)).then_some((reply, prediction)))
    }

    async fn outcome(
        &self,
        call: &Call,
        reply: &Reply,
        prediction: &Value,
    ) -> Result<Outcome, Failure> {
        let status = prediction["status"].as_str().unwrap_or_default();
        let output = url_of(&prediction["output"]);
        match (status, output) {
            ("failed", _) => Err(self.ended_badly(call, reply, prediction)),
            // By itself, since its time was over: before its start for nothing, after it not.
            ("canceled" | "aborted", _) => {
                let text = format!("{} gave the prediction up: {status}", self.0.name());
                let billed = if status == "aborted" { Billed::No } else { Billed::Yes };
                let failure = Failure::new(FailureKind::TimedOut, text);
                Err(Failure { billed, first_byte: Some(reply.first_byte), ..failure })
            }
            (_, Some(url)) => {
                let mut made = self.0.picture(url, reply.first_byte, call.deadline).await?;
                made.seed = call.part.seed;
                let bill = bill(call, prediction);
                Ok(Outcome { pictures: vec![made], first_byte: reply.first_byte, bill })
            }
            ("succeeded", None) => {
                Err(self.0.no_image("answers without a picture", reply.first_byte))
            }
            _ => Err(self.0.broken("answers with a prediction of no known status")),
        }
    }

    /// A run that failed: an answer of success that holds an error.
    fn ended_badly(&self, call: &Call, reply: &Reply, prediction: &Value) -> Failure {
        let said = prediction["error"].as_str().unwrap_or("the prediction failed");
        let lower = said.to_ascii_lowercase();
        let words = ["nsfw", "safety", "sensitive", "content policy"];
        let kind = match words.iter().any(|word| lower.contains(word)) {
            true => FailureKind::Policy,
            false => FailureKind::Broken,
        };
        let text = self.0.scrubbed(said, call);
        let failure = Failure::new(kind, format!("{}: {text}", self.0.name()));
        Failure { first_byte: Some(reply.first_byte), status: Some(reply.status), ..failure }
    }

    fn refused(&self, reply: &Reply, call: &Call) -> Failure {
        let value: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let field = value["invalid_fields"][0]["field"].as_str();
        let said = Said {
            parameter: field.map(|field| canonical(field).into()),
            ..Said::read(&reply.body)
        };
        self.0.refused(reply, said, call)
    }
}

/// The model's input.
fn input(call: &Call, abilities: &Abilities) -> Value {
    let request = &call.request;
    let mut input = extras(call, abilities);
    let mut set = |name: &str, value: Value| drop(input.insert(name.into(), value));
    set("prompt", json!(request.prompt));
    set("width", json!(call.size.width));
    set("height", json!(call.size.height));
    set("output_format", json!(format_name(call.ask.format)));
    if let Some(quality) = call.ask.quality {
        set("output_quality", json!(quality));
    }
    if let Some(seed) = call.part.seed {
        set("seed", json!(seed));
    }
    if let Some(steps) = request.steps {
        set("num_inference_steps", json!(abilities.bounded("num_inference_steps", steps.into())));
    }
    if let Some(scale) = request.guidance_scale {
        set("guidance_scale", json!(scale));
    }
    if let Some(flag) = request.go_fast {
        set("go_fast", json!(flag));
    }
    Value::Object(input)
}

fn format_name(format: Format) -> &'static str {
    match format {
        Format::Jpeg => "jpg",
        other => other.extension(),
    }
}

/// Our name of a field, which may have its place in front.
fn canonical(field: &str) -> &str {
    match field.rsplit('.').next().unwrap_or(field) {
        "width" | "height" => "size",
        "guidance_scale" => "cfg_scale",
        field => field,
    }
}

/// What a prediction is called.
fn id(prediction: &Value) -> Option<&str> {
    prediction["id"].as_str().filter(|id| is_id(id))
}

/// Where it is asked about, whatever addresses the answer has: ours is the key that goes there.
fn path(id: &str) -> String {
    format!("/v1/predictions/{id}")
}

/// Where it waits, an output may be there before the status says so.
fn is_under_way(prediction: &Value) -> bool {
    let status = prediction["status"].as_str().unwrap_or_default();
    matches!(status, "starting" | "processing") && url_of(&prediction["output"]).is_none()
}

/// The output's address: one text, or the first of a list.
fn url_of(output: &Value) -> Option<&str> {
    output.as_str().or_else(|| output[0].as_str())
}

/// Seconds, where those are what is charged.
fn bill(call: &Call, prediction: &Value) -> Bill {
    let by_second = call.deployment.price.as_ref().is_some_and(|price| price.unit == Unit::Second);
    let seconds = prediction["metrics"]["predict_time"].as_f64().filter(|_| by_second);
    match seconds.map(|seconds| (seconds * 1e6).round()) {
        Some(millionths) if (0.0..1e15).contains(&millionths) => Bill::Units(millionths as u64),
        _ => Bill::Unsaid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_may_come_before_its_status() {
        let cases = [
            (json!({"status": "starting", "output": null}), true),
            (json!({"status": "processing"}), true),
            (json!({"status": "processing", "output": "https://x/a.png"}), false),
            (json!({"status": "succeeded", "output": ["https://x/a.png"]}), false),
            (json!({"status": "failed"}), false),
            (json!({}), false),
        ];
        for (prediction, want) in cases {
            assert_eq!(is_under_way(&prediction), want, "{prediction}");
        }
    }

    #[test]
    fn fields_are_told_by_our_names() {
        for (field, want) in
            [("input.width", "size"), ("seed", "seed"), ("input.guidance_scale", "cfg_scale")]
        {
            assert_eq!(canonical(field), want);
        }
    }
}
