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
    /// Whether it starts from an image.
    pub image: bool,
    /// Whether it takes adapters.
    pub loras: bool,
    /// What fal asks for a megapixel, in dollars.
    pub price_per_megapixel: f64,
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
        if self.image { "image-to-image" } else { "text-to-image" }
    }
}

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
        image: false,
        loras: false,
        price_per_megapixel: 0.005,
    },
    Endpoint {
        id: "fal-ai/z-image/turbo/lora",
        name: "ZImageTurboLora",
        title: "Z-Image Turbo with LoRA",
        summary: "Text to image with Z-Image-Turbo and up to 3 LoRA files.",
        model: Model::Turbo,
        image: false,
        loras: true,
        price_per_megapixel: 0.0085,
    },
    Endpoint {
        id: "fal-ai/z-image/turbo/image-to-image",
        name: "ZImageTurboImageToImage",
        title: "Z-Image Turbo image to image",
        summary: "Image to image with Z-Image-Turbo.",
        model: Model::Turbo,
        image: true,
        loras: false,
        price_per_megapixel: 0.005,
    },
    Endpoint {
        id: "fal-ai/z-image/turbo/image-to-image/lora",
        name: "ZImageTurboImageToImageLora",
        title: "Z-Image Turbo image to image with LoRA",
        summary: "Image to image with Z-Image-Turbo and up to 3 LoRA files.",
        model: Model::Turbo,
        image: true,
        loras: true,
        price_per_megapixel: 0.0085,
    },
    Endpoint {
        id: "fal-ai/z-image/base",
        name: "ZImageBase",
        title: "Z-Image Base",
        summary: "Text to image with Z-Image's base model, with guidance and a negative prompt.",
        model: Model::Base,
        image: false,
        loras: false,
        price_per_megapixel: 0.01,
    },
    Endpoint {
        id: "fal-ai/z-image/base/lora",
        name: "ZImageBaseLora",
        title: "Z-Image Base with LoRA",
        summary: "Text to image with Z-Image's base model and up to 3 LoRA files.",
        model: Model::Base,
        image: false,
        loras: true,
        price_per_megapixel: 0.01,
    },
];
