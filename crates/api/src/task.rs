//! What is to be done, whatever dialect asked for it.

mod control;

use serde::{Deserialize, Serialize};

pub use crate::Format;
use crate::{Acceleration, Controls, OnFlagged};

pub use self::control::{Control, Preprocess};

/// The work of one request, as it lies in the queue.
///
/// Each kind's own fields tell it from the others, so that pictures are written as they were before there was anything else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Task {
    /// Draw.
    Generate(Box<Generate>),
    /// Train.
    Train(Train),
}

/// Pictures from a prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generate {
    /// Which of the family's models.
    pub model: Model,
    /// What to show.
    pub prompt: String,
    /// What to avoid; used with guidance only.
    pub negative_prompt: String,
    /// Pixels of the result.
    pub size: Size,
    /// Network evaluations.
    pub steps: u32,
    /// Chosen by the worker where nobody did.
    pub seed: Option<u64>,
    /// Pictures for the prompt.
    pub count: u32,
    /// Classifier-free guidance; 0 is off.
    pub guidance_scale: f64,
    /// Start from this picture.
    pub image: Option<Reference>,
    /// Where that picture is drawn anew: where this one, laid over it, is transparent; if it has no transparency, where it is light.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Place>,
    /// What the result shall follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
    /// Pictures that the prompt speaks of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Place>,
    /// Adapters, applied together.
    pub loras: Vec<Lora>,
    /// How far it may be approximated.
    #[serde(default)]
    pub acceleration: Acceleration,
    /// How results are encoded.
    pub format: Format,
    /// Quality of that, 0 to 100, where it loses something; the encoder's own where nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<u8>,
    /// Where results go.
    pub delivery: Delivery,
    /// Whether somebody should look whether the pictures are harmless.
    #[serde(default)]
    pub safety_checker: bool,
    /// What becomes of those that are not, where the key says nothing.
    #[serde(default)]
    pub on_flagged: OnFlagged,
    /// Whether the prompt is made more detailed first.
    #[serde(default)]
    pub expand_prompt: bool,
    /// Whether somebody watches: each step is then shown as a small picture.
    #[serde(default)]
    pub previews: bool,
    /// How long stored results live; as long as the request where nobody said.
    #[serde(default)]
    pub keep_seconds: Option<u64>,
    /// What is asked for beyond fal's and OpenAI's fields.
    #[serde(default, skip_serializing_if = "Controls::are_default")]
    pub controls: Controls,
}

/// An adapter from pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Train {
    /// Which of the family's models is adapted.
    pub model: Model,
    /// A zip of pictures with captions.
    pub data: Place,
    /// Updates of the adapter.
    pub steps: u32,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// What is learned; left to the trainer where nobody said.
    pub training_type: Option<TrainingType>,
    /// The caption of pictures that have none.
    pub default_caption: Option<String>,
    /// How long stored results live; as long as the request where nobody said.
    #[serde(default)]
    pub keep_seconds: Option<u64>,
}

/// What an adapter learns from its pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainingType {
    /// What they show.
    Content,
    /// How they show it.
    Style,
    /// Both.
    Balanced,
}

impl TrainingType {
    /// Every type.
    pub const NAMES: [&str; 3] = ["content", "style", "balanced"];

    /// The type called `name`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "content" => Some(Self::Content),
            "style" => Some(Self::Style),
            "balanced" => Some(Self::Balanced),
            _ => None,
        }
    }
}

/// Which model a task runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Model {
    /// 8 steps without guidance.
    Turbo,
    /// Many steps with guidance.
    Base,
    /// Omni or Edit: many steps with guidance, and a prompt that may speak of pictures.
    Edit,
}

/// Pixels of a result; the network makes the next multiples of 16 and the rest is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    /// These.
    Pixels {
        /// Across.
        width: u32,
        /// Down.
        height: u32,
    },
    /// Those of the input image, made smaller where they exceed 4 megapixels.
    Auto,
}

/// The picture that image to image starts from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// Where it is.
    pub place: Place,
    /// Share of the schedule that is run, 0..=1.
    pub strength: f64,
}

/// Where a picture or an archive is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// At an address, or in this data URI.
    Url(String),
    /// In the data URI that the request's input has in this field: megabytes that are kept once.
    Input(String),
}

/// Whether `url` is not an address but the bytes themselves.
pub fn is_data_uri(url: &str) -> bool {
    url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"))
}

/// An adapter and how strongly it works.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lora {
    /// An address, a hub id with or without a file, or a name on this machine.
    pub path: String,
    /// 1 is as trained.
    pub scale: f64,
}

/// Where results go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Into files; the answer has their addresses.
    Stored,
    /// Into the answer itself as data URIs; nothing is kept.
    Inline,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_queued_before_there_were_trainings_is_still_read() {
        let row = r#"{"model":"turbo","prompt":"a house","negative_prompt":"","size":{"pixels":{"width":64,"height":64}},"steps":8,
            "seed":null,"count":1,"guidance_scale":0.0,"image":{"place":{"url":"https://a.example/b.png"},"strength":0.1},"loras":[],
            "format":"png","delivery":"stored"}"#;
        let task: Task = serde_json::from_str(row).unwrap();
        let Task::Generate(generate) = &task else { panic!("{task:?}") };
        assert_eq!((generate.prompt.as_str(), generate.steps), ("a house", 8));
        // And by nodes that know nothing else.
        let written = serde_json::to_string(&task).unwrap();
        assert_eq!(&serde_json::from_str::<Generate>(&written).unwrap(), generate.as_ref());
    }

    #[test]
    fn a_training_comes_back_from_the_queue_to_the_last_bit() {
        let task = Task::Train(Train {
            model: Model::Base,
            data: Place::Input("image_data_url".into()),
            steps: 100,
            learning_rate: 0.1 + 0.2,
            training_type: TrainingType::named("style"),
            default_caption: None,
            keep_seconds: Some(60),
        });
        let written = serde_json::to_string(&task).unwrap();
        assert_eq!(serde_json::from_str::<Task>(&written).unwrap(), task);
    }
}
