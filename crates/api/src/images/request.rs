//! What somebody wants to see, and in which form.

use std::fmt;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::size::SizeWish;
use crate::{Acceleration, Controls, Format};

/// Pictures of one request, as OpenAI has it.
pub const COUNT_MAX: u32 = 10;
/// Input pictures of one edit, as OpenAI has it.
pub const INPUTS_MAX: usize = 16;
/// Partial images of one stream, as OpenAI has it.
pub const PARTIALS_MAX: u32 = 3;

/// A request for pictures, every value of it checked. What was not sent is `None`: its default is the model's or the
/// provider's business.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageRequest {
    /// A slug, an alias, or `provider/slug`, as it was sent; the catalogue says what it means.
    pub model: String,
    /// What to show; empty only where there is a picture to start from.
    pub prompt: String,
    /// What to avoid.
    pub negative_prompt: Option<String>,
    /// What to start from; text to image without.
    pub edit: Option<Edit>,
    /// The size of the result: `size`, `width` and `height`, `aspect_ratio` and `resolution` together.
    pub size: SizeWish,
    /// Pictures, 1 to [`COUNT_MAX`].
    pub count: u32,
    /// Of the first picture; the next ones count on from it.
    pub seed: Option<u64>,
    /// Network evaluations.
    pub steps: Option<u32>,
    /// Classifier-free guidance, `cfg_scale`.
    pub guidance_scale: Option<f64>,
    /// How far it may be approximated.
    pub acceleration: Option<Acceleration>,
    /// Replicate's word for the same.
    pub go_fast: Option<bool>,
    /// Whether a language model may rewrite the prompt.
    pub prompt_expansion: Option<bool>,
    /// Whether somebody should look whether the pictures are harmless.
    pub safety_checker: Option<bool>,
    /// Samplers, noise levels, variations and weights.
    pub controls: Controls,
    /// How the pictures are encoded; as the provider likes where nobody said.
    pub format: Option<Format>,
    /// Quality from 0 to 100 of formats that lose something: `output_compression`, or `output_quality`.
    pub quality: Option<u8>,
    /// Whoever the caller acts for; kept in the log.
    pub user: Option<String>,
    /// Everything else that was sent, known by the table or not, as it was sent.
    pub extras: Map<String, Value>,
    /// Names of all parameters that were sent, extras included, in the order of the body: what a provider does not take of
    /// these is told as dropped.
    pub given: Vec<String>,
    /// How it is answered.
    pub reply: Reply,
}

/// What an edit starts from.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// One picture at least, [`INPUTS_MAX`] at most.
    pub images: Vec<Input>,
    /// Where the first picture is drawn anew: where it is transparent.
    pub mask: Option<Input>,
    /// How far the result may leave the picture, 0 to 1; the provider's own default without.
    pub strength: Option<f64>,
}

/// A picture that was sent. What it holds is not known yet.
#[derive(Clone, PartialEq)]
pub enum Input {
    /// An uploaded file.
    Bytes(Bytes),
    /// An address or a data URI.
    Url(String),
}

/// Which of the two things a model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A picture from a prompt.
    TextToImage,
    /// A picture from a picture and a prompt.
    ImageEdit,
}

/// How a request is answered, whoever makes the pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Where the pictures are put.
    pub form: Form,
    /// For a stream of events: the most partial images that it shows; `None` for one answer at the end.
    pub partials: Option<u32>,
    /// Whether a parameter that would be dropped is an error instead.
    pub strict: bool,
}

/// Where the pictures of an answer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// At addresses.
    Url,
    /// In the answer, as base64.
    Base64,
    /// In both ways: clients of edits read either, and say nothing.
    Both,
    /// In the answer as data URIs, where addresses would be.
    DataUri,
}

impl ImageRequest {
    /// What the model has to do.
    pub fn mode(&self) -> Mode {
        match self.edit {
            None => Mode::TextToImage,
            Some(_) => Mode::ImageEdit,
        }
    }
}

impl Mode {
    /// Both.
    pub const ALL: [Self; 2] = [Self::TextToImage, Self::ImageEdit];

    /// The name in schemas and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::TextToImage => "text-to-image",
            Self::ImageEdit => "image-edit",
        }
    }

    /// As people write it.
    pub fn title(self) -> &'static str {
        match self {
            Self::TextToImage => "Text to Image",
            Self::ImageEdit => "Image Edit",
        }
    }

    /// The mode called `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }
}

impl Form {
    /// Whether addresses are wanted.
    pub fn wants_url(self) -> bool {
        matches!(self, Self::Url | Self::Both)
    }

    /// Whether the bytes are wanted in the answer.
    pub fn wants_bytes(self) -> bool {
        !matches!(self, Self::Url)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Without megabytes, and without what an address may hold.
impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Url(url) => write!(f, "Url({} characters)", url.len()),
        }
    }
}
