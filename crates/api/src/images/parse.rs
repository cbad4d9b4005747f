//! What was sent, as JSON or as a form, becomes an [`ImageRequest`], or an error that names what is wrong.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::parameter::{Kind, Parameter};
use super::problem::{Code, Problem};
use super::read::{Reader, cut, shown};
use super::request::{Edit, Form, INPUTS_MAX, ImageRequest, Input, Reply};
use super::size::{Pixels, Ratio, SizeWish, Tier};
use crate::{Controls, Format, Sigmas, Variation};

/// Which of OpenAI's routes a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `images/generations`.
    Generations,
    /// `images/edits`.
    Edits,
    /// `images/variations`: an edit without a prompt.
    Variations,
}

/// How far a variation leaves its picture, where nobody said: far enough to differ, near enough to be known again.
pub const VARIATION_STRENGTH: f64 = 0.7;
/// Characters of a prompt, as OpenAI has it. What a model reads of them is less.
const PROMPT_CHARACTERS_MAX: usize = 32_000;
/// Of a shape's sides; beyond it the shorter one would be below the least.
const RATIO_MAX: u32 = 32;
/// How far explicit pixels may be from a shape that is sent beside them.
const AGREEMENT: f64 = 0.02;
/// Families whose clients expect pictures in the answer without asking for it.
const BASE64_FAMILIES: [&str; 2] = ["gpt-image", "chatgpt-image"];

/// Reads a JSON body.
pub fn parse_json(body: &Map<String, Value>, route: Route) -> Result<ImageRequest, Problem> {
    parse(body, Vec::new(), route)
}

/// Reads a form: its texts, and its files by the names of their parts (`image`, `image[]`, `image[0]`, `mask`), each in the
/// order in which it came.
pub fn parse_form(
    texts: Vec<(String, String)>,
    files: Vec<(String, Bytes)>,
    route: Route,
) -> Result<ImageRequest, Problem> {
    let mut body = Map::new();
    for (name, text) in texts {
        let base = without_index(&name);
        let Some(list) = is_list(base).then(|| body.entry(base).or_insert(Value::Null)) else {
            body.insert(name, text.into());
            continue;
        };
        match list {
            Value::Array(list) => list.push(text.into()),
            list => *list = Value::Array(vec![text.into()]),
        }
    }
    let files = files.into_iter().map(|(name, bytes)| (without_index(&name).to_string(), bytes));
    parse(&body, files.collect(), route)
}

/// `image[]` and `image[3]` as `image`.
fn without_index(name: &str) -> &str {
    match name.split_once('[') {
        Some((base, rest)) if is_list(base) && rest.ends_with(']') => base,
        _ => name,
    }
}

/// Whether several parts of a form may be called `name`: pictures, and lists of numbers as OpenAI's clients send them.
fn is_list(name: &str) -> bool {
    let numbers = |parameter: &Parameter| matches!(parameter.kind, Kind::Numbers { .. });
    ["image", "images", "image_url", "mask"].contains(&name)
        || Parameter::named(name).is_some_and(numbers)
}

fn parse(
    body: &Map<String, Value>,
    files: Vec<(String, Bytes)>,
    route: Route,
) -> Result<ImageRequest, Problem> {
    let mut given: Vec<String> =
        body.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.clone()).collect();
    for (name, _) in &files {
        if !given.contains(name) {
            given.push(name.clone());
        }
    }
    let mut read = Reader::new(body);
    let model = read.word("model").unwrap_or_default().to_string();
    if model.is_empty() {
        read.wrong("model", "is missing; GET /v1/models lists what there is");
    }
    let prompt = prompt(&mut read, route);
    let edit = edit(&mut read, files, route);
    let quality = match (read.whole("output_compression"), read.whole("output_quality")) {
        (Some(one), Some(other)) if one != other => {
            let problem =
                format!("is {other}, but `output_compression` is {one}; send one of them");
            read.wrong("output_quality", problem);
            None
        }
        (one, other) => one.or(other).and_then(|quality| u8::try_from(quality).ok()),
    };
    let steps = read.whole("num_inference_steps").and_then(|steps| u32::try_from(steps).ok());
    let controls = controls(&mut read, steps);
    let request = ImageRequest {
        reply: reply(&mut read, &model, route),
        size: size(&mut read),
        count: read.whole("n").and_then(|count| u32::try_from(count).ok()).unwrap_or(1),
        seed: read.seed("seed"),
        steps,
        guidance_scale: read.number("cfg_scale"),
        negative_prompt: read.text("negative_prompt").map(String::from),
        acceleration: read.choice("acceleration").and_then(|level| level.parse().ok()),
        go_fast: read.flag("go_fast"),
        prompt_expansion: read.flag("enable_prompt_expansion"),
        safety_checker: read.flag("enable_safety_checker"),
        controls,
        format: format(&mut read),
        user: read.text("user").map(String::from),
        extras: read.rest(),
        model,
        prompt,
        edit,
        quality,
        given,
    };
    read.finish()?;
    Ok(request)
}

fn prompt(read: &mut Reader<'_>, route: Route) -> String {
    let prompt = read.text("prompt");
    match prompt {
        // One that is no text has been told already.
        None if route != Route::Variations && read.value("prompt").is_none() => {
            read.wrong("prompt", "is missing; say what to show");
        }
        Some(text) if text.trim().is_empty() && route == Route::Generations => {
            read.wrong("prompt", "is empty; say what to show");
        }
        Some(text) if text.chars().nth(PROMPT_CHARACTERS_MAX).is_some() => {
            let count = text.chars().count();
            let problem =
                format!("has {count} characters; at most {PROMPT_CHARACTERS_MAX} are taken");
            read.wrong("prompt", problem);
        }
        _ => {}
    }
    prompt.unwrap_or_default().into()
}

/// What an edit starts from. Of a generation, an image is an error: left out in silence, the answer would show something else.
fn edit(read: &mut Reader<'_>, files: Vec<(String, Bytes)>, route: Route) -> Option<Edit> {
    let (mut images, mut masks) = (Vec::new(), Vec::new());
    for name in ["image", "images", "image_url"] {
        if let Some(value) = read.value(name) {
            inputs(read, name, value, &mut images);
        }
    }
    if let Some(value) = read.value("mask") {
        inputs(read, "mask", value, &mut masks);
    }
    for (name, bytes) in files {
        match name.as_str() {
            "image" | "images" | "image_url" => images.push(Input::Bytes(bytes)),
            "mask" => masks.push(Input::Bytes(bytes)),
            _ => read.wrong(&name, "is a file; only `image` and `mask` are"),
        }
    }
    if route == Route::Generations {
        if !images.is_empty() || !masks.is_empty() {
            let name = if images.is_empty() { "mask" } else { "image" };
            read.wrong(name, "is not taken here; send it to images/edits");
        }
        return None;
    }
    if images.is_empty() {
        read.wrong("image", "is missing; send a file, an address or a data URI");
    }
    if images.len() > INPUTS_MAX {
        read.wrong(
            "image",
            format_args!("has {} pictures; at most {INPUTS_MAX} are taken", images.len()),
        );
    }
    if masks.len() > 1 {
        read.wrong(
            "mask",
            format_args!("has {} pictures; send one, for the first image", masks.len()),
        );
    }
    let default = (route == Route::Variations).then_some(VARIATION_STRENGTH);
    Some(Edit { images, mask: masks.pop(), strength: read.number("strength").or(default) })
}

/// A text, `{url}`, `{image_url}` or `{image_url: {url}}`, or a list of such.
fn inputs(read: &mut Reader<'_>, name: &str, value: &Value, found: &mut Vec<Input>) {
    if let Value::Array(list) = value {
        // More than are taken are an error in any case; far more need not be looked at.
        for value in list.iter().take(INPUTS_MAX + 1) {
            one_input(read, name, value, found);
        }
        return;
    }
    one_input(read, name, value, found);
}

fn one_input(read: &mut Reader<'_>, name: &str, value: &Value, found: &mut Vec<Input>) {
    let within = |value: &Value| value.get("image_url").or(value.get("url")).cloned();
    let inner = within(value).map(|inner| within(&inner).unwrap_or(inner));
    let text = inner.as_ref().unwrap_or(value).as_str().map(str::trim);
    let scheme = |text: &str| {
        let begins = |scheme: &str| {
            text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        };
        ["http://", "https://", "data:"].into_iter().any(begins)
    };
    match text {
        Some(text) if scheme(text) => found.push(Input::Url(text.into())),
        Some(text) => {
            let problem = "send https://…, or data:image/png;base64,…";
            read.wrong(
                name,
                format_args!("is `{}`, no address of a picture; {problem}", cut(text)),
            );
        }
        None if value.get("file_id").is_some() => {
            read.wrong(
                name,
                "names a file by its id, but no files are kept here; send an address or a data URI",
            );
        }
        None => read.wrong(
            name,
            format_args!("is {}; send an address or a data URI, or several", shown(value)),
        ),
    }
}

/// What is set beside prompt, size, `steps` and seed. Each picture of a request has a seed of its own here, whoever asks.
fn controls(read: &mut Reader<'_>, steps: Option<u32>) -> Controls {
    let sampler = read.choice("sampler").and_then(|name| name.parse().ok());
    let sigmas = read.numbers("sigmas").map(|levels| {
        let levels: Vec<f32> = levels.into_iter().map(|level| level as f32).collect();
        let checked = Sigmas::new(levels);
        checked.map_err(|wrong| read.wrong("sigmas", wrong.problem)).ok()
    });
    let levels = sigmas.iter().flatten().map(|sigmas| sigmas.get().len());
    for levels in levels.filter(|levels| steps.is_some_and(|steps| steps as usize != *levels)) {
        let problem = format!("is not the {levels} levels of `sigmas`; send one of them");
        read.wrong("num_inference_steps", problem);
    }
    let (seed, strength) = (read.seed("variation_seed"), read.number("variation_strength"));
    // Programs that send every default of the schema mean nothing by it.
    let meant = strength.is_some_and(|strength| strength != Variation::STRENGTH_DEFAULT);
    if meant && seed.is_none() && read.value("variation_seed").is_none() {
        read.wrong(
            "variation_strength",
            "says how far, but there is no `variation_seed`; send both",
        );
    }
    let strength = strength.unwrap_or(Variation::STRENGTH_DEFAULT);
    Controls {
        sampler: sampler.unwrap_or_default(),
        sigmas: sigmas.flatten(),
        tiling: None,
        variation: seed.map(|seed| Variation { seed, strength }),
        seed_per_image: false,
        prompt_weighting: read.flag("prompt_weighting").unwrap_or(false),
    }
}

fn format(read: &mut Reader<'_>) -> Option<Format> {
    let name = read.word("output_format")?.to_ascii_lowercase();
    let format = Format::named(&name);
    if format.is_none() {
        let names = Format::NAMES.join(", ");
        read.wrong("output_format", format_args!("is `{}`; send one of {names}", cut(&name)));
    }
    format
}

/// How the answer comes. Where nobody said, generations are addresses, except under names whose clients read nothing but
/// base64, and edits are both: their clients read one or the other.
fn reply(read: &mut Reader<'_>, model: &str, route: Route) -> Reply {
    let streams = read.flag("stream").unwrap_or(false);
    let partials = read.whole("partial_images").and_then(|most| u32::try_from(most).ok());
    let sync = read.flag("sync_mode").unwrap_or(false);
    let form = match read.choice("response_format").as_deref() {
        _ if streams => Form::Base64,
        Some("b64_json") => Form::Base64,
        _ if sync => Form::DataUri,
        Some(_) => Form::Url,
        None if BASE64_FAMILIES.iter().any(|family| model.starts_with(family)) => Form::Base64,
        None if route == Route::Generations => Form::Url,
        None => Form::Both,
    };
    Reply {
        form,
        partials: streams.then_some(partials.unwrap_or(0)),
        strict: read.flag("strict").unwrap_or(false),
    }
}

/// What `size`, `width`, `height`, `aspect_ratio` and `resolution` say together.
fn size(read: &mut Reader<'_>) -> SizeWish {
    let (mut pixels, mut ratio, mut tier) = (None, None, None);
    if let Some(text) = read.word("size").filter(|text| !text.eq_ignore_ascii_case("auto")) {
        match (pixels_of(text), ratio_of(text), Tier::named(text)) {
            (Some(size), ..) => pixels = checked(read, "size", text, size),
            (_, Some(shape), _) => ratio = Some(("size", shape)),
            (.., Some(named)) => tier = Some(named),
            _ => read.wrong(
                "size",
                format_args!(
                    "is `{}`; send pixels as 1024x768, a ratio as 16:9, or auto",
                    cut(text)
                ),
            ),
        }
    }
    match (read.whole("width"), read.whole("height")) {
        (Some(width), Some(height)) => {
            let sides = Pixels::new(width as u32, height as u32); // the table's limits hold
            if pixels.is_some_and(|size| size != sides) {
                read.wrong(
                    "width",
                    format_args!("and `height` are {sides}, but `size` is another"),
                );
            }
            pixels = Some(sides);
        }
        (Some(_), None) => read.wrong("height", "is missing beside `width`; send both, or `size`"),
        (None, Some(_)) => read.wrong("width", "is missing beside `height`; send both, or `size`"),
        (None, None) => {}
    }
    if let Some(text) = read.word("aspect_ratio").filter(|text| !text.eq_ignore_ascii_case("auto"))
    {
        match ratio_of(text) {
            Some(shape) => {
                if ratio.is_some_and(|(_, size)| size.get() != shape.get()) {
                    read.wrong(
                        "aspect_ratio",
                        format_args!("is {shape}, but `size` is another ratio"),
                    );
                }
                ratio = Some(("aspect_ratio", shape));
            }
            None => read.wrong(
                "aspect_ratio",
                format_args!("is `{}`; send a ratio as 16:9, or auto", cut(text)),
            ),
        }
    }
    if let Some(named) = read.choice("resolution").as_deref().and_then(Tier::named) {
        tier = Some(named);
    }
    if let Some((name, shape)) = ratio
        && shape.across.max(shape.down) > shape.across.min(shape.down).saturating_mul(RATIO_MAX)
    {
        read.wrong(
            name,
            format_args!("is {shape}; at most {RATIO_MAX}:1 and 1:{RATIO_MAX} are drawn"),
        );
    }
    let ratio = ratio.map(|(_, shape)| shape);
    match pixels {
        Some(pixels) => {
            contradiction(read, pixels, ratio, tier);
            SizeWish::Exactly(pixels)
        }
        None if ratio.is_none() && tier.is_none() => SizeWish::Auto,
        None => SizeWish::Shape { ratio, tier },
    }
}

/// Tells where explicit pixels are not of the shape that is sent beside them.
fn contradiction(read: &mut Reader<'_>, pixels: Pixels, ratio: Option<Ratio>, tier: Option<Tier>) {
    if let Some(ratio) =
        ratio.filter(|ratio| (pixels.ratio() / ratio.get() - 1.0).abs() > AGREEMENT)
    {
        read.wrong(
            "aspect_ratio",
            format_args!("is {ratio}, but {pixels} is sent too; send one of them"),
        );
    }
    let side = (pixels.count() as f64).sqrt();
    if let Some(tier) = tier.filter(|tier| (side / f64::from(tier.side()) - 1.0).abs() > AGREEMENT)
    {
        let wanted = tier.side();
        let problem = format!(
            "is about {wanted}x{wanted} pixels, but {pixels} is sent too; send one of them"
        );
        read.wrong("resolution", problem);
    }
}

/// `1024x768`, with any of the signs that people write between them.
fn pixels_of(text: &str) -> Option<(u64, u64)> {
    pair(text, &['x', 'X', '*', '×'])
}

fn checked(
    read: &mut Reader<'_>,
    name: &str,
    text: &str,
    (width, height): (u64, u64),
) -> Option<Pixels> {
    let most = u64::from(crate::ImageSize::SIDE_MAX);
    if [width, height].iter().all(|side| (1..=most).contains(side)) {
        return Some(Pixels::new(width as u32, height as u32));
    }
    read.wrong(name, format_args!("is `{}`; sides are from 1 to {most} pixels", cut(text)));
    None
}

fn ratio_of(text: &str) -> Option<Ratio> {
    let (across, down) = pair(text, &[':'])?;
    let side = |side: u64| u32::try_from(side).ok().filter(|side| *side > 0);
    Some(Ratio { across: side(across)?, down: side(down)? })
}

fn pair(text: &str, signs: &[char]) -> Option<(u64, u64)> {
    let (a, b) = text.split_once(signs)?;
    Some((a.trim().parse().ok()?, b.trim().parse().ok()?))
}

/// What is told of a body that is no object.
pub fn no_object() -> Problem {
    Problem::new(Code::InvalidRequest, "The body must be a JSON object")
}
