//! A contender: a model with settings. Its name is a digest of both, so that the same one is the same in every challenge.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use zoetrope_api::fal::{self, Draws, Endpoint, Makes};
use zoetrope_api::images::{ImageRequest, Mode, Route, parse_json};
use zoetrope_api::task::{Delivery, Generate, Model, Task};
use zoetrope_gateway::Gateway;
use zoetrope_gateway::caller::Caller;
use zoetrope_jobs::{ArenaEntry, Challenge, ChallengePrompt};

use crate::{Error, Result, Wrong};

/// Who takes part.
#[derive(Clone, Debug, PartialEq)]
pub struct Contender {
    /// What it is called in its challenge.
    pub name: String,
    /// An endpoint of this server's, as `fal-ai/z-image/turbo/lora`, or a model of the gateway's, as `fal/z-image-turbo`.
    pub model: String,
    /// The catalogue's model that it is, as `z-image-turbo`.
    pub family: String,
    /// Fields of the endpoint, or parameters of the gateway's.
    pub settings: Map<String, Value>,
}

/// How a contender's picture is asked for.
pub(crate) enum Wish {
    /// By the queue, where everything about this server's own engine can be said.
    Queue { endpoint: &'static Endpoint, input: Value, task: Box<Generate> },
    /// By the gateway.
    Gateway(Box<ImageRequest>),
}

/// Characters of a name.
pub const NAME_MAX: usize = 80;
/// Characters of all settings: more than every field together takes.
const SETTINGS_MAX: usize = 4000;
/// What the challenge decides, and no contender may.
const OF_CHALLENGES: [&str; 17] = [
    "prompt",
    "seed",
    "image_size",
    "size",
    "width",
    "height",
    "aspect_ratio",
    "resolution",
    "num_images",
    "n",
    "sync_mode",
    "output_format",
    "response_format",
    "stream",
    "partial_images",
    "model",
    "user",
];

impl Contender {
    /// The contender that `model` with `settings` is, if `gateway` and this server could draw by it for `caller`.
    pub async fn check(
        name: &str,
        model: &str,
        settings: Map<String, Value>,
        (gateway, caller): (&Gateway, &Caller),
    ) -> Result<Self> {
        let mut wrong = Vec::new();
        let name = name.trim();
        if name.chars().count() > NAME_MAX {
            wrong
                .push(Wrong::new("name", format!("The name has more than {NAME_MAX} characters.")));
        }
        for field in settings.keys().filter(|field| OF_CHALLENGES.contains(&field.as_str())) {
            let text = format!("`{field}` is decided by the challenge; leave it out.");
            wrong.push(Wrong::new(format!("settings.{field}"), text));
        }
        if Value::Object(settings.clone()).to_string().len() > SETTINGS_MAX {
            let text = format!("The settings have more than {SETTINGS_MAX} characters.");
            wrong.push(Wrong::new("settings", text));
        }
        let family = match Endpoint::find(model) {
            Some(endpoint) => of_endpoint(endpoint),
            None => gateway
                .catalogue()
                .resolve(model)
                .map(|target| target.model.id.clone())
                .map_err(|problem| Wrong::new("model", problem.message)),
        };
        let family = family.unwrap_or_else(|error| {
            wrong.push(error);
            String::new()
        });
        if !wrong.is_empty() {
            return Err(Error::Wrong(wrong));
        }
        let mut contender =
            Self { name: name.into(), model: model.trim_matches('/').into(), family, settings };
        if contender.name.is_empty() {
            contender.name = contender.described();
        }
        // Asked for as it will be, at a size that everybody takes.
        let probe = ChallengePrompt { number: 0, prompt: "a house".into(), seed: 1 };
        if let Wish::Gateway(request) =
            wish(&contender.model, &contender.settings, &probe, (1024, 1024))?
        {
            let estimate = gateway.estimate(&request, caller).await;
            estimate.map_err(|refusal| {
                let field =
                    refusal.problem.param.map_or("model".into(), |p| format!("settings.{p}"));
                Error::Wrong(vec![Wrong::new(field, refusal.problem.message)])
            })?;
        }
        Ok(contender)
    }

    /// The same model with the same settings has the same id, whoever asks and wherever.
    pub fn id(&self) -> String {
        let mut digest = Sha256::new();
        digest.update(&self.model);
        digest.update([0]);
        digest.update(Value::Object(self.settings.clone()).to_string());
        digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Its row in `challenge`.
    pub fn entry(&self, challenge: &Challenge) -> ArenaEntry {
        ArenaEntry {
            challenge: challenge.id.clone(),
            contender: self.id(),
            name: self.name.clone(),
            model: self.model.clone(),
            family: self.family.clone(),
            settings: Value::Object(self.settings.clone()).to_string(),
        }
    }

    /// A name for one that was given none: the model, and what differs from it as it comes.
    fn described(&self) -> String {
        let settings = described(&self.settings);
        let name = match settings.is_empty() {
            true => self.model.clone(),
            false => format!("{}, {settings}", self.model),
        };
        name.chars().take(NAME_MAX).collect()
    }
}

/// Settings in a line, as `acceleration high, num_inference_steps 4`.
pub fn described(settings: &Map<String, Value>) -> String {
    let shown = |value: &Value| value.as_str().map_or(value.to_string(), String::from);
    let parts: Vec<String> =
        settings.iter().map(|(name, value)| format!("{name} {}", shown(value))).collect();
    parts.join(", ")
}

/// The catalogue's name of what an endpoint draws with.
fn of_endpoint(endpoint: &Endpoint) -> std::result::Result<String, Wrong> {
    match (&endpoint.makes, endpoint.model) {
        (Makes::Pictures { draws: Draws::Text, .. }, Model::Turbo) => Ok("z-image-turbo".into()),
        (Makes::Pictures { draws: Draws::Text, .. }, Model::Base) => Ok("z-image".into()),
        _ => {
            let text =
                format!("{} does not draw from a prompt alone; choose one that does.", endpoint.id);
            Err(Wrong::new("model", text))
        }
    }
}

/// What is asked for so that `model` with `settings` draws `prompt` in `size`.
pub(crate) fn wish(
    model: &str,
    settings: &Map<String, Value>,
    prompt: &ChallengePrompt,
    (width, height): (u32, u32),
) -> Result<Wish> {
    let mut body = settings.clone();
    body.insert("prompt".into(), json!(prompt.prompt));
    body.insert("seed".into(), json!(prompt.seed));
    let Some(endpoint) = Endpoint::find(model) else {
        body.insert("model".into(), json!(model));
        body.insert("size".into(), json!(format!("{width}x{height}")));
        body.insert("response_format".into(), json!("b64_json"));
        // What a provider would leave out in silence would be compared with something that it is not.
        body.insert("strict".into(), json!(true));
        let request = parse_json(&body, Route::Generations).map_err(|problem| {
            let field =
                problem.param.map_or("settings".into(), |param| format!("settings.{param}"));
            Error::Wrong(vec![Wrong::new(field, problem.message)])
        })?;
        debug_assert_eq!(request.mode(), Mode::TextToImage);
        return Ok(Wish::Gateway(Box::new(request)));
    };
    body.insert("image_size".into(), json!({"width": width, "height": height}));
    body.insert("output_format".into(), json!("png"));
    let input = Value::Object(body);
    let unusable = |problem: &fal::Problem| {
        let path: Vec<String> = problem.loc.iter().skip(1).map(part).collect();
        Wrong::new(
            format!("settings.{}", path.join(".")),
            format!("{}: {}", path.join("."), problem.msg),
        )
    };
    let task = fal::parse(endpoint, &input)
        .map_err(|problems| Error::Wrong(problems.iter().map(unusable).collect()))?;
    let Task::Generate(mut task) = task else {
        return Err(Error::Wrong(vec![Wrong::new(
            "model",
            format!("{} draws nothing.", endpoint.id),
        )]));
    };
    // Nothing of it is kept but the picture, in the arena.
    task.delivery = Delivery::Inline;
    Ok(Wish::Queue { endpoint, input, task })
}

fn part(value: &Value) -> String {
    value.as_str().map_or(value.to_string(), String::from)
}
