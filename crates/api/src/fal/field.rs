//! The fields of fal's endpoints: one description of each, from which validation, schemas and documents are made.

use serde_json::{Value, json};

use super::endpoint::{Draws, Endpoint, Makes};
use crate::task::{Model, TrainingType};
use crate::{Acceleration, Tiling, TilingMode};

/// A field of an endpoint's input.
#[derive(Clone, Debug)]
pub struct Field {
    /// As it is sent.
    pub name: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// What it is when it is not sent; a field without one must be sent, unless it is optional.
    pub default: Option<Value>,
    /// Whether leaving it out is an error.
    pub required: bool,
    /// One or two sentences.
    pub description: &'static str,
    /// A value to show.
    pub example: Option<Value>,
}

/// What a field may hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// An address or a data URI of an image.
    ImageUrl,
    /// An address or a data URI of a zip.
    ZipUrl,
    /// A whole number. `documented` is the range that is published, `accepted` the one that is enforced.
    Integer {
        /// Least and most that are published.
        documented: (i64, i64),
        /// Least and most that are taken.
        accepted: (i64, i64),
    },
    /// A seed.
    Seed,
    /// A number in a range.
    Number {
        /// The least.
        min: f64,
        /// The most.
        max: f64,
    },
    /// A number above 0.
    Positive {
        /// The most.
        max: f64,
    },
    /// `true` or `false`.
    Flag,
    /// One of these.
    Choice(&'static [&'static str]),
    /// A named size or `{width, height}`, and `auto` where there is an image.
    ImageSize {
        /// Whether `auto` is one of the names.
        auto: bool,
    },
    /// Falling noise levels, one a step.
    Sigmas,
    /// Up to `max` adapters.
    Loras {
        /// The most.
        max: usize,
    },
}

/// Adapters of one request.
pub const LORAS_MAX: usize = 3;
/// Scales of an adapter.
pub const LORA_SCALE: (f64, f64) = (0.0, 4.0);
/// Updates of a training: fal's range.
pub const TRAINING_STEPS: (i64, i64) = (100, 10_000);
/// The highest learning rate: far above any that learns, and what the trainer takes.
pub const LEARNING_RATE_MAX: f64 = 10.0;

pub(super) fn field(
    name: &'static str,
    kind: Kind,
    default: Value,
    description: &'static str,
) -> Field {
    Field { name, kind, default: Some(default), required: false, description, example: None }
}

fn required(
    name: &'static str,
    kind: Kind,
    example: &'static str,
    description: &'static str,
) -> Field {
    Field { name, kind, default: None, required: true, description, example: Some(json!(example)) }
}

/// A field that may be left out and then is nothing.
pub(super) fn optional(
    name: &'static str,
    kind: Kind,
    example: Value,
    description: &'static str,
) -> Field {
    Field { name, kind, default: None, required: false, description, example: Some(example) }
}

/// The fields of `endpoint`, in the order of fal's pages.
pub fn fields(endpoint: &Endpoint) -> Vec<Field> {
    match endpoint.makes {
        Makes::Pictures { draws, loras } => of_pictures(endpoint.model, draws, loras),
        Makes::Adapter { steps, learning_rate, types } => of_training(steps, learning_rate, types),
    }
}

/// Fields of a training.
fn of_training(steps: u32, learning_rate: f64, types: bool) -> Vec<Field> {
    let mut out = vec![
        required(
            "image_data_url",
            Kind::ZipUrl,
            "https://example.com/pictures.zip",
            "A zip of pictures, ten or more: an address or a data URI. The caption of 001.jpg is in 001.txt beside it; a picture without one gets default_caption.",
        ),
        field(
            "steps",
            Kind::Integer { documented: TRAINING_STEPS, accepted: TRAINING_STEPS },
            json!(steps),
            "The number of steps to train for.",
        ),
        field(
            "learning_rate",
            Kind::Positive { max: LEARNING_RATE_MAX },
            json!(learning_rate),
            "The learning rate.",
        ),
    ];
    if types {
        out.push(field(
            "training_type",
            Kind::Choice(&TrainingType::NAMES),
            json!("balanced"),
            "What to learn: content is what the pictures show, style how they show it, balanced both.",
        ));
    }
    out.push(optional(
        "default_caption",
        Kind::Text,
        json!("an ink drawing with one red accent"),
        "The caption of pictures that have none of their own; without it they are an error.",
    ));
    out
}

/// Fields of a request for pictures.
fn of_pictures(model: Model, draws: Draws, loras: bool) -> Vec<Field> {
    let base = model == Model::Base;
    let image = draws != Draws::Text;
    let size = match draws {
        Draws::Text => "landscape_4_3",
        Draws::Image | Draws::Inpaint | Draws::Control => "auto",
        Draws::Tiles => "square_hd",
    };
    let steps = match base {
        true => Kind::Integer { documented: (1, 50), accepted: (1, 50) },
        // fal's own pages disagree, 1 to 8 or 1 to 30.
        false => Kind::Integer { documented: (1, 8), accepted: (1, 30) },
    };
    let mut out = vec![required(
        "prompt",
        Kind::Text,
        "A red fox sleeping under an old pine tree, soft morning light",
        "The prompt to generate an image from.",
    )];
    if !matches!(draws, Draws::Text | Draws::Tiles) {
        let example = "https://storage.googleapis.com/falserverless/example_inputs/z-image-turbo-i2i-input.png";
        out.push(required(
            "image_url",
            Kind::ImageUrl,
            example,
            match draws {
                Draws::Control => "The image to follow: an address or a data URI.",
                _ => "The image to start from: an address or a data URI.",
            },
        ));
    }
    if draws == Draws::Inpaint {
        out.push(required(
            "mask_image_url",
            Kind::ImageUrl,
            "https://storage.googleapis.com/falserverless/example_inputs/z-image-turbo-i2i-mask.png",
            "Where the image is painted anew: white, or transparent.",
        ));
    }
    out.push(field(
        "image_size",
        Kind::ImageSize { auto: image },
        json!(size),
        "The size of the generated image.",
    ));
    out.push(field(
        "num_inference_steps",
        steps,
        json!(if base { 28 } else { 8 }),
        "The number of inference steps to perform.",
    ));
    out.push(optional(
        "seed",
        Kind::Seed,
        json!(42),
        "The same seed and the same prompt given to the same version of the model output the same image every time.",
    ));
    out.push(field(
        "sync_mode",
        Kind::Flag,
        json!(false),
        "If true, images come as data URIs and are not kept in the request history.",
    ));
    let count = Kind::Integer { documented: (1, 4), accepted: (1, 4) };
    out.push(field("num_images", count, json!(1), "The number of images to generate."));
    out.push(field(
        "enable_safety_checker",
        Kind::Flag,
        json!(true),
        "If true, images are checked for unsafe content.",
    ));
    out.push(field(
        "output_format",
        Kind::Choice(&["jpeg", "png", "webp"]),
        json!("png"),
        "The format of the generated image.",
    ));
    out.push(field(
        "acceleration",
        Kind::Choice(&Acceleration::NAMES),
        json!("regular"),
        "How far the picture may be approximated to be ready sooner: none and regular compute every step in full, regular with float16 weights as bfloat16, beside which attention's scores are in 8 bits; high computes the transformer in 8 bits and predicts steps from those before them.",
    ));
    if base {
        let scale = Kind::Number { min: 1.0, max: 20.0 };
        out.push(field("guidance_scale", scale, json!(4.0), "How closely to follow the prompt."));
        out.push(field(
            "negative_prompt",
            Kind::Text,
            json!(""),
            "What the image should not show.",
        ));
    } else {
        out.push(field(
            "enable_prompt_expansion",
            Kind::Flag,
            json!(false),
            "If true, the prompt is expanded by a language model first.",
        ));
    }
    if draws == Draws::Tiles {
        out.extend(of_tiles());
    }
    out.extend(super::control::fields(draws));
    if image && draws != Draws::Control {
        let strength = Kind::Number { min: 0.0, max: 1.0 };
        out.push(field(
            "strength",
            strength,
            json!(if draws == Draws::Inpaint { 1.0 } else { 0.6 }),
            "How far the result may leave the image: 0 keeps it, 1 ignores it.",
        ));
    }
    if loras {
        out.push(field(
            "loras",
            Kind::Loras { max: LORAS_MAX },
            json!([]),
            "LoRA weights to apply, at most 3.",
        ));
    }
    out
}

/// What asks for pictures that tile.
fn of_tiles() -> [Field; 5] {
    let whole = |(least, most): (u32, u32)| {
        let range = (i64::from(least), i64::from(most));
        Kind::Integer { documented: range, accepted: range }
    };
    [
        field(
            "tiling_mode",
            Kind::Choice(&TilingMode::NAMES),
            json!("both"),
            "Which edges meet: both means all four, horizontal left and right, vertical top and bottom.",
        ),
        field(
            "tile_size",
            whole(Tiling::SIZE),
            json!(Tiling::SIZE_DEFAULT),
            "The side of the windows that the image is drawn in, in latent pixels of 8 (an even number): 128 are 1024 pixels.",
        ),
        field(
            "tile_stride",
            whole(Tiling::STRIDE),
            json!(Tiling::STRIDE_DEFAULT),
            "From one window to the next, in latent pixels of 8 (an even number). Less overlaps more and takes longer.",
        ),
        optional(
            "image_url",
            Kind::ImageUrl,
            json!("https://example.com/bricks.jpg"),
            "An image to start from: an address or a data URI.",
        ),
        optional(
            "mask_image_url",
            Kind::ImageUrl,
            json!("https://example.com/mask.png"),
            "Which part of image_url is drawn anew: where this image is white.",
        ),
    ]
}
