//! The endpoints that are served.

use crate::task::Model;

/// One of fal's endpoints.
#[derive(Debug, PartialEq)]
pub struct Endpoint {
    /// `owner/alias/path`.
    pub id: &'static str,
    /// The name of its schemas, `ZImageTurbo` for `ZImageTurboInput`.
    pub name: &'static str,
    /// What it is called on a page.
    pub title: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Which model runs.
    pub model: Model,
    /// What it makes.
    pub makes: Makes,
    /// What fal asks for a unit, in dollars.
    pub price: f64,
}

/// What an endpoint makes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Makes {
    /// Pictures from a prompt.
    Pictures {
        /// What it draws them from, and how.
        draws: Draws,
        /// Whether it takes adapters.
        loras: bool,
    },
    /// An adapter from pictures.
    Adapter {
        /// Updates, where nobody says how many.
        steps: u32,
        /// The learning rate, where nobody says which.
        learning_rate: f64,
        /// Whether it asks what shall be learned.
        types: bool,
    },
}

/// What an endpoint's pictures are drawn from, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draws {
    /// From the prompt.
    Text,
    /// From an image.
    Image,
    /// From an image of which a part is painted anew.
    Inpaint,
    /// Along an image that a control network looks at.
    Control,
    /// So that they tile, from an image if there is one.
    Tiles,
}

impl Endpoint {
    /// The endpoint called `id`; slashes around it do not matter.
    pub fn find(id: &str) -> Option<&'static Self> {
        let id = id.trim_matches('/');
        ENDPOINTS.iter().find(|endpoint| endpoint.id == id)
    }

    /// Owner and alias, the first two parts: what URLs of requests begin with.
    pub fn application(&self) -> &'static str {
        application(self.id)
    }

    /// fal's category.
    pub fn category(&self) -> &'static str {
        match self.makes {
            Makes::Pictures { draws: Draws::Text | Draws::Tiles, .. } => "text-to-image",
            Makes::Pictures { .. } => "image-to-image",
            Makes::Adapter { .. } => "training",
        }
    }

    /// What it is charged by.
    pub fn unit(&self) -> &'static str {
        match self.makes {
            Makes::Pictures { .. } => "megapixels",
            Makes::Adapter { .. } => "1000 steps",
        }
    }

    /// Whether it starts from an image.
    pub fn takes_image(&self) -> bool {
        matches!(self.makes, Makes::Pictures { draws, .. } if !matches!(draws, Draws::Text | Draws::Tiles))
    }

    /// Whether an image may be sent.
    pub fn may_take_image(&self) -> bool {
        matches!(self.makes, Makes::Pictures { draws, .. } if draws != Draws::Text)
    }

    /// Whether it takes adapters.
    pub fn takes_loras(&self) -> bool {
        matches!(self.makes, Makes::Pictures { loras: true, .. })
    }

    /// Whether it trains.
    pub fn trains(&self) -> bool {
        matches!(self.makes, Makes::Adapter { .. })
    }
}

/// What a trained adapter's file is called: the name that diffusers looks for.
pub const LORA_FILE: &str = "pytorch_lora_weights.safetensors";
/// What the file about its training is called.
pub const CONFIG_FILE: &str = "config.json";

/// Owner and alias of an endpoint's id.
pub fn application(id: &str) -> &str {
    let second = id.match_indices('/').nth(1).map_or(id.len(), |(at, _)| at);
    &id[..second]
}

/// All of them.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        id: "fal-ai/z-image/turbo",
        name: "ZImageTurbo",
        title: "Z-Image Turbo",
        summary: "Text to image with Z-Image-Turbo, a 6B model, in 8 steps.",
        model: Model::Turbo,
        makes: Makes::Pictures { draws: Draws::Text, loras: false },
        price: 0.005,
    },
    Endpoint {
        id: "fal-ai/z-image/turbo/lora",
        name: "ZImageTurboLora",
        title: "Z-Image Turbo with LoRA",
        summary: "Text to image with Z-Image-Turbo and up to 3 LoRA files.",
        model: Model::Turbo,
        makes: Makes::Pictures { draws: Draws::Text, loras: true },
        price: 0.0085,
    },
    Endpoint {
        id: "fal-ai/z-image/turbo/image-to-image",
        name: "ZImageTurboImageToImage",
        title: "Z-Image Turbo image to image",
        summary: "Image to image with Z-Image-Turbo.",
        model: Model::Turbo,
        makes: Makes::Pictures { draws: Draws::Image, loras: false },
        price: 0.005,
    },
    Endpoint {
        id: "fal-ai/z-image/turbo/image-to-image/lora",
        name: "ZImageTurboImageToImageLora",
        title: "Z-Image Turbo image to image with LoRA",
        summary: "Image to image with Z-Image-Turbo and up to 3 LoRA files.",
        model: Model::Turbo,
        makes: Makes::Pictures { draws: Draws::Image, loras: true },
        price: 0.0085,
    },
    // fal tells no price of inpainting, nor of ControlNet and tiling with LoRA: as of what they are most alike.
    Endpoint {
        id: "fal-ai/z-image/turbo/inpaint",
        name: "ZImageTurboInpaint",
        title: "Z-Image Turbo inpainting",
        summary: "Paints a part of an image anew with Z-Image-Turbo.",
        model: Model::Turbo,
        makes: Makes::Pictures { draws: Draws::Inpaint, loras: false },
        price: 0.0065,
    },
    Endpoint {
        id: "fal-ai/z-image/turbo/inpaint/lora",
        name: "ZImageTurboInpaintLora",
        title: "Z-Image Turbo inpainting with LoRA",
        summary: "Paints a part of an image anew with Z-Image-Turbo and up to 3 LoRA files.",
        model: Model::Turbo,
        makes: Makes::Pictures { draws: Draws::Inpaint, loras: true },
        price: 0.0085,
    },
    Endpoint {
        id: "fal-ai/z-image/turbo/controlnet",
        name: "ZImageTurboControlnet",
        title: "Z-Image Turbo with ControlNet",
        summary: "Text to image with Z-Image-Turbo along the edges, depth or pose of an image.",
        model: Model::Turbo,
        makes: Makes::Pictures { draws: Draws::Control, loras: false },
        price: 0.0065,
    },
    Endpoint {
        id: "fal-ai/z-image/turbo/controlnet/lora",
        name: "ZImageTurboControlnetLora",
        title: "Z-Image Turbo with ControlNet and LoRA",
        summary: "The same with up to 3 LoRA files.",
        model: Model::Turbo,
        makes: Makes::Pictures { draws: Draws::Control, loras: true },
        price: 0.0085,
    },
    Endpoint {
        id: "fal-ai/z-image/turbo/tiling",
        name: "ZImageTurboTiling",
        title: "Z-Image Turbo seamless tiling",
        summary: "Pictures whose edges meet, so that they can be laid beside each other without a seam.",
        model: Model::Turbo,
        makes: Makes::Pictures { draws: Draws::Tiles, loras: false },
        price: 0.02,
    },
    Endpoint {
        id: "fal-ai/z-image/turbo/tiling/lora",
        name: "ZImageTurboTilingLora",
        title: "Z-Image Turbo seamless tiling with LoRA",
        summary: "Pictures whose edges meet, with up to 3 LoRA files.",
        model: Model::Turbo,
        makes: Makes::Pictures { draws: Draws::Tiles, loras: true },
        price: 0.02,
    },
    Endpoint {
        id: "fal-ai/z-image/base",
        name: "ZImageBase",
        title: "Z-Image Base",
        summary: "Text to image with Z-Image's base model, with guidance and a negative prompt.",
        model: Model::Base,
        makes: Makes::Pictures { draws: Draws::Text, loras: false },
        price: 0.01,
    },
    Endpoint {
        id: "fal-ai/z-image/base/lora",
        name: "ZImageBaseLora",
        title: "Z-Image Base with LoRA",
        summary: "Text to image with Z-Image's base model and up to 3 LoRA files.",
        model: Model::Base,
        makes: Makes::Pictures { draws: Draws::Text, loras: true },
        price: 0.01,
    },
    Endpoint {
        id: "fal-ai/z-image-trainer",
        name: "ZImageTrainer",
        title: "Z-Image Trainer",
        summary: "A LoRA for Z-Image-Turbo from a zip of pictures: their content, their style, or both.",
        model: Model::Turbo,
        makes: Makes::Adapter { steps: 1000, learning_rate: 1e-4, types: true },
        price: 2.26,
    },
    Endpoint {
        id: "fal-ai/z-image-turbo-trainer",
        name: "ZImageTurboTrainer",
        title: "Z-Image Turbo Trainer",
        summary: "A LoRA for Z-Image-Turbo from a zip of pictures.",
        model: Model::Turbo,
        makes: Makes::Adapter { steps: 2000, learning_rate: 5e-4, types: false },
        price: 0.85,
    },
    Endpoint {
        id: "fal-ai/z-image-turbo-trainer-v2",
        name: "ZImageTurboTrainerV2",
        title: "Z-Image Turbo Trainer V2",
        summary: "A LoRA for Z-Image-Turbo from a zip of pictures.",
        model: Model::Turbo,
        makes: Makes::Adapter { steps: 2000, learning_rate: 5e-4, types: false },
        price: 0.85,
    },
    Endpoint {
        id: "fal-ai/z-image-base-trainer",
        name: "ZImageBaseTrainer",
        title: "Z-Image Base Trainer",
        summary: "A LoRA for Z-Image's base model from a zip of pictures.",
        model: Model::Base,
        makes: Makes::Adapter { steps: 2000, learning_rate: 5e-4, types: false },
        price: 0.85,
    },
];
