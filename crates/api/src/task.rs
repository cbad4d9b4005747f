//! What is to be done, whatever dialect asked for it.

use serde::{Deserialize, Serialize};

use crate::Acceleration;

/// Pictures from a prompt: the work of one request, as it lies in the queue.
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
    /// Adapters, applied together.
    pub loras: Vec<Lora>,
    /// How far it may be approximated.
    #[serde(default)]
    pub acceleration: Acceleration,
    /// How results are encoded.
    pub format: Format,
    /// Where results go.
    pub delivery: Delivery,
    /// Whether somebody should look whether the pictures are harmless.
    #[serde(default)]
    pub safety_checker: bool,
    /// Whether somebody watches: each step is then shown as a small picture.
    #[serde(default)]
    pub previews: bool,
    /// How long stored results live; as long as the request where nobody said.
    #[serde(default)]
    pub keep_seconds: Option<u64>,
}

/// Which model a task runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Model {
    /// 8 steps without guidance.
    Turbo,
    /// Many steps with guidance.
    Base,
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

/// Where a picture is.
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

/// How a picture is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Without loss.
    Png,
    /// Quality 95.
    Jpeg,
    /// Without loss.
    Webp,
}

impl Format {
    /// `image/png` and so on.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }

    /// The ending of a file's name.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Webp => "webp",
        }
    }
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
