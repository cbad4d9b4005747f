//! What a deployment would be asked for a request, worked out before anybody is called: filters, dry runs and calls all
//! follow the same plan.

use std::sync::Arc;

use zoetrope_api::images::{Change, Finish, Fit, Handling, ImageRequest, Mode};
use zoetrope_api::{Format, Micros};

use crate::catalogue::Deployment;
use crate::changes::{self, flag};
use crate::price::{self, Component, Usage};
use crate::provider::{Abilities, Outcome};
use crate::source::Sources;

/// What a deployment would be asked, and what is done with its answer.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who would make it.
    pub deployment: Arc<Deployment>,
    /// What size is asked for, and which is given.
    pub fit: Fit,
    /// The calls that together make all pictures; they do not wait for each other.
    pub parts: Vec<Part>,
    /// The format that the provider is asked for.
    pub ask: Encoding,
    /// How its pictures are encoded again; `None` where they are given as they come.
    pub encode: Option<Encoding>,
    /// Parameters that were sent and are dropped or changed for this deployment.
    pub changes: Vec<Change>,
    /// What it would cost; empty where the price is not known.
    pub components: Vec<Component>,
}

/// One call's share of the pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which picture of the request is its first, from 0.
    pub first: u32,
    /// Pictures, 1 or more, no more than the provider makes at once.
    pub count: u32,
    /// Of its first picture; each further one counts on.
    pub seed: Option<u64>,
}

/// A format and, where it loses something, how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// The format.
    pub format: Format,
    /// 0 to 100; the encoder's default without.
    pub quality: Option<u8>,
}

/// Why a deployment cannot serve a request at all: not a candidate, and an error of this text where nobody else is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unsuited {
    /// The parameter that is in the way, as it was sent.
    pub parameter: Option<String>,
    /// For people: the value, the limit, and what to do.
    pub message: String,
}

/// The largest side of an AVIF that the gateway itself encodes: beyond that it takes many seconds of all processors.
const AVIF_SIDE_MAX: u32 = 1600;

/// What `deployment`, which has `abilities`, would be asked for `request`, whose pictures are `sources`.
pub fn work_out(
    request: &ImageRequest,
    sources: &Sources,
    deployment: &Arc<Deployment>,
    abilities: &Abilities,
) -> Result<Plan, Unsuited> {
    check(request, deployment, abilities)?;
    let fit = abilities.sizes.fit(request.size, sources.size()).map_err(|unfit| Unsuited {
        parameter: changes::size_parameter(request).map(String::from),
        message: unfit.to_string(),
    })?;
    let (ask, encode) = encodings(request, abilities, &fit)?;
    let parts = parts(request, abilities);
    let format = encode.unwrap_or(ask).format;
    let changes = changes::of(request, abilities, &fit, format);
    let mut plan = Plan {
        deployment: deployment.clone(),
        fit,
        parts,
        ask,
        encode,
        changes,
        components: Vec::new(),
    };
    plan.components = plan.estimate(request, None).unwrap_or_default();
    Ok(plan)
}

/// What no conversion can help.
fn check(
    request: &ImageRequest,
    deployment: &Deployment,
    abilities: &Abilities,
) -> Result<(), Unsuited> {
    let key = &deployment.key;
    let mode = request.mode();
    if !deployment.modes.contains(&mode) {
        let what = match mode {
            Mode::TextToImage => "text-to-image",
            Mode::ImageEdit => "image editing",
        };
        let modes: Vec<&str> = deployment.modes.iter().map(|mode| mode.name()).collect();
        let modes = modes.join(", ");
        let text = format!("Model '{key}' does not support {what}. Supported modes: {modes}");
        return Err(Unsuited { parameter: None, message: text });
    }
    let images = request.edit.as_ref().map_or(0, |edit| edit.images.len());
    if images > abilities.inputs_max {
        let text = format!(
            "Model '{key}' does not support multiple input images: {images} were sent, it takes {}",
            abilities.inputs_max
        );
        return Err(Unsuited::new("image", text));
    }
    let characters = request.prompt.chars().count();
    if characters > abilities.prompt_chars_max {
        let text = format!(
            "`prompt` has {characters} characters; {key} takes at most {}: shorten it",
            abilities.prompt_chars_max
        );
        return Err(Unsuited::new("prompt", text));
    }
    Ok(())
}

/// The format that the provider is asked for, and the one that its pictures are then encoded in, if another.
fn encodings(
    request: &ImageRequest,
    abilities: &Abilities,
    fit: &Fit,
) -> Result<(Encoding, Option<Encoding>), Unsuited> {
    let unasked = abilities.formats.first().copied().unwrap_or(Format::Png);
    let format = request.format.unwrap_or(unasked);
    let quality = request.quality.filter(|_| format.takes_quality());
    let takes = |handling| handling != Handling::Emulated;
    let reaches = quality.is_none() || abilities.handling("output_compression").is_some_and(takes);
    let wanted = Encoding { format, quality };
    if fit.finish == Finish::None && reaches && abilities.formats.contains(&format) {
        return Ok((wanted, None));
    }
    if format == Format::Avif && fit.given.width.max(fit.given.height) > AVIF_SIDE_MAX {
        let text = format!(
            "`output_format` is avif, which is encoded here up to {AVIF_SIDE_MAX} pixels a side; \
             the picture would have {}: ask for webp, or for a smaller one",
            fit.given
        );
        return Err(Unsuited::new("output_format", text));
    }
    // Nothing should be lost twice.
    let lossless = abilities.formats.contains(&Format::Png);
    let source = if lossless { Format::Png } else { unasked };
    Ok((Encoding { format: source, quality: None }, Some(wanted)))
}

/// As few calls as make all pictures.
fn parts(request: &ImageRequest, abilities: &Abilities) -> Vec<Part> {
    let most = abilities.count_max.max(1);
    let seed = |first| {
        let seed = request.seed?.wrapping_add(u64::from(first));
        Some(abilities.bounded("seed", seed))
    };
    let firsts = (0..request.count).step_by(most as usize);
    firsts
        .map(|first| Part { first, count: most.min(request.count - first), seed: seed(first) })
        .collect()
}

impl Plan {
    /// What it would cost; `None` where the price is not known.
    pub fn total(&self) -> Option<Micros> {
        (!self.components.is_empty()).then(|| price::total(&self.components))
    }

    /// The lines of its price, of providers that charge for time too, if `seconds_millionths` says how much they take for all
    /// pictures; `None` where the price is not known.
    pub fn estimate(
        &self,
        request: &ImageRequest,
        seconds_millionths: Option<u64>,
    ) -> Option<Vec<Component>> {
        let price = self.deployment.price.as_ref()?;
        let usage = Usage {
            pictures: request.count,
            pixels: self.fit.made.count() * u64::from(request.count),
            calls: self.parts.len() as u32,
            seconds_millionths,
            flags: &self.flags(request),
        };
        price::estimate(price, &usage)
    }

    /// What `outcome`, as the provider made it, costs; `None` where nobody says.
    pub fn settle(&self, request: &ImageRequest, outcome: &Outcome) -> Option<Micros> {
        let usage = Usage {
            pictures: outcome.pictures.len() as u32,
            pixels: outcome.pictures.iter().map(|made| made.size.count()).sum(),
            calls: 1,
            seconds_millionths: None,
            flags: &self.flags(request),
        };
        price::settle(self.deployment.price.as_ref(), &usage, outcome.bill)
    }

    /// Flags with a surcharge that are set and reach the provider.
    fn flags(&self, request: &ImageRequest) -> Vec<&str> {
        let surcharges = self.deployment.price.iter().flat_map(|price| &price.surcharges);
        let names = surcharges.map(|surcharge| surcharge.parameter.as_str());
        let dropped = |name: &str| {
            self.changes.iter().any(|change| change.parameter == name && change.to.is_null())
        };
        names.filter(|name| flag(request, name) && !dropped(name)).collect()
    }
}

impl Unsuited {
    /// `parameter` is in the way.
    pub fn new(parameter: &str, message: impl Into<String>) -> Self {
        Self { parameter: Some(parameter.into()), message: message.into() }
    }
}
