//! A request to stored pictures: fetch, run, store.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::{Instrument as _, info_span};
use zoetrope_api::fal::PIXELS_MAX;
use zoetrope_api::task::{Delivery, Generate, Size};
use zoetrope_api::{ControlSpan, Count, Guidance, ImageSize, Seed, Steps, Strength};
use zoetrope_engine::Interrupt;
use zoetrope_engine::guides::{Control, Gap};
use zoetrope_engine::pipeline::{Request, Source};
use zoetrope_engine::pixels::Rgb;
use zoetrope_engine::prompt::TOKENS_MAX;
use zoetrope_files::{Mask, Picture};
use zoetrope_jobs::{End, Lease, Outcome, Preview};

use crate::Expansion;
use crate::attempt::{Done, Room, Tally};
use crate::engine::{News, Work};
use crate::error::JobError;
use crate::inputs::{self, Inputs};
use crate::outputs::keep;
use crate::safety::Looking;
use crate::shown;
use crate::stage::{record, timed};
use crate::words::Words;

/// Runs what `lease` holds.
pub(crate) async fn run(
    task: &Generate,
    lease: &Lease,
    room: &Room,
    interrupt: &Interrupt,
) -> Result<Done, JobError> {
    let looking = Looking::at(task, lease, room).await?;
    let refers = task.image.is_some() || task.control.is_some() || !task.references.is_empty();
    if refers || !task.loras.is_empty() {
        lease.log("INFO", "Fetching inputs").await?;
    }
    let fetch = inputs::fetch(task, &lease.request, room).instrument(info_span!("fetch"));
    let Inputs { picture, mask, control, references, loras } = timed("fetch", fetch).await?;
    let shape = picture.as_ref().or(control.as_ref()).or(references.first());
    let (width, height) = pixels(task, shape);
    let seed = task.seed.unwrap_or_else(|| room.chance());
    let expansion = task.expand_prompt.then(|| room.expansion_for(task.model).clone());
    let request = request(task, (picture, mask, control), (width, height), (seed, expansion))?;
    let (news, heard) = mpsc::unbounded_channel();
    let interrupt = interrupt.clone();
    let work = Work { model: task.model, request, references, loras, interrupt, news };
    let span = info_span!("draw", width, height, steps = task.steps, images = task.count);
    let drawing = async { tokio::join!(room.engine.make(work), report(lease, &looking, heard)) };
    let (made, ()) = drawing.instrument(span).await;
    let made = made?;
    let inference = made.took;
    record("draw", inference);
    let mut pictures: Vec<Picture> =
        made.pictures.iter().map(|rgb| cropped(rgb, width, height)).collect();
    let flagged = timed("check", looking.at_all(&mut pictures, lease)).await?;
    let expanded = made.expanded.as_deref();
    let parameters = shown::parameters(task, &lease.request, (width, height), seed, expanded);
    let store = store(task, (pictures, parameters), lease, room);
    let images = timed("store", store.instrument(info_span!("store"))).await?;
    let prompt = expanded.unwrap_or(&task.prompt);
    let pictures = shown::pictures(task, &lease.request, &images, seed, prompt);
    let count = images.len();
    let megapixels = f64::from(width) * f64::from(height) * count as f64 / 1e6;
    let response = json!({
        "images": images,
        "timings": {"inference": (inference.as_secs_f64() * 1000.0).round() / 1000.0},
        "seed": seed,
        // Empty where nobody has looked.
        "has_nsfw_concepts": flagged.as_deref().unwrap_or_default(),
        "prompt": prompt,
    });
    let end = End {
        outcome: Outcome::Completed,
        status_code: 200,
        response: response.to_string(),
        error: None,
        error_type: None,
        inference_ms: Some(inference.as_millis() as i64),
        billable_units: Some(megapixels),
        flagged: flagged.map(|flagged| flagged.iter().filter(|found| **found).count() as i64),
    };
    Ok(Done { end, pictures, tally: Tally::Pictures { count, megapixels } })
}

/// The pixels of a result. Pictures that tile are as large as they are drawn: what is cut off would part their edges.
fn pixels(task: &Generate, picture: Option<&Picture>) -> (u32, u32) {
    let (width, height) = wanted(task, picture);
    match task.controls.tiling {
        Some(_) => (up(width), up(height)),
        None => (width, height),
    }
}

/// The next multiple of what a token covers.
fn up(side: u32) -> u32 {
    side.next_multiple_of(ImageSize::MULTIPLE)
}

fn wanted(task: &Generate, picture: Option<&Picture>) -> (u32, u32) {
    match (task.size, picture) {
        (Size::Pixels { width, height }, _) => (width, height),
        (Size::Auto, Some(picture)) => {
            let (width, height) = (f64::from(picture.width), f64::from(picture.height));
            let shrink = (PIXELS_MAX as f64 / (width * height)).sqrt().min(1.0);
            let side = |length: f64| ((length * shrink).floor() as u32).max(1);
            (side(width), side(height))
        }
        (Size::Auto, None) => (1024, 1024),
    }
}

/// The engine's request: the network draws the next multiples of 16, of which the result is the upper left part.
fn request(
    task: &Generate,
    (picture, mask, control): (Option<Picture>, Option<Mask>, Option<Picture>),
    (width, height): (u32, u32),
    (seed, expansion): (u64, Option<Expansion>),
) -> Result<Request, JobError> {
    let field = |e: zoetrope_api::InvalidField| JobError::from(zoetrope_engine::Error::from(e));
    let size = ImageSize::new(up(width), up(height)).map_err(field)?;
    let span = task.control.as_ref().map(|c| ControlSpan::new(c.scale, c.start, c.end));
    let span = span.transpose().map_err(field)?;
    let source = match (picture, &task.image) {
        (Some(picture), Some(reference)) => {
            let image = extended(&picture.resized(width, height), size);
            let strength = Strength::new(reference.strength).map_err(field)?;
            match mask {
                Some(mask) => {
                    let mask = extended_mask(&mask.resized(width, height), size);
                    Source::Inpaint { image, mask, strength }
                }
                None => Source::Image { image, strength },
            }
        }
        _ => Source::Text,
    };
    let control = control.map(|picture| extended(&picture.resized(width, height), size));
    let control = span.and_then(|span| control_of(span, control, &source));
    Ok(Request {
        prompt: task.prompt.clone(),
        negative_prompt: Some(task.negative_prompt.clone()),
        size,
        steps: Steps::new(task.steps).map_err(field)?,
        seed: Seed(seed),
        count: Count::new(task.count).map_err(field)?,
        guidance: Guidance::new(task.guidance_scale, 0.0, 1.0).map_err(field)?,
        source,
        tokens_max: TOKENS_MAX,
        acceleration: task.acceleration,
        previews: task.previews,
        control,
        references: Vec::new(), // they wait for the model, which says at which size it takes them
        controls: task.controls.clone(),
        expansion,
    })
}

/// What a control network looks at: a picture, or what is around the part of `source` that is painted.
fn control_of(span: ControlSpan, picture: Option<Rgb>, source: &Source) -> Option<Control> {
    let gap = match (&picture, source) {
        (None, Source::Inpaint { image, mask, .. }) => {
            Some(Gap { image: image.clone(), mask: mask.clone() })
        }
        _ => None,
    };
    (picture.is_some() || gap.is_some()).then_some(Control { image: picture, gap, span })
}

/// `picture` with its last column and row repeated up to `size`.
fn extended(picture: &Picture, size: ImageSize) -> Rgb {
    let (width, height) = (size.width() as usize, size.height() as usize);
    let (right, bottom) = (picture.width as usize - 1, picture.height as usize - 1);
    let mut bytes = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        let row = y.min(bottom) * picture.width as usize;
        for x in 0..width {
            let at = 3 * (row + x.min(right));
            bytes.extend_from_slice(&picture.rgb[at..at + 3]);
        }
    }
    Rgb { width, height, bytes }
}

/// `mask` with its last column and row repeated up to `size`.
fn extended_mask(mask: &Mask, size: ImageSize) -> Vec<u8> {
    let (width, height) = (size.width() as usize, size.height() as usize);
    let (right, bottom) = (mask.width as usize - 1, mask.height as usize - 1);
    let row = |y: usize| y.min(bottom) * mask.width as usize;
    (0..height)
        .flat_map(|y| (0..width).map(move |x| (x, y)))
        .map(|(x, y)| mask.grey[row(y) + x.min(right)])
        .collect()
}

/// The upper left `width` × `height` of `rgb`.
fn cropped(rgb: &Rgb, width: u32, height: u32) -> Picture {
    let rows = rgb.bytes.chunks_exact(3 * rgb.width).take(height as usize);
    let rgb = rows.flat_map(|row| &row[..3 * width as usize]).copied().collect();
    Picture { width, height, rgb }
}

/// Passes on what the engine says, until it has nothing more to say. Lines that cannot be written are lost: the picture counts.
async fn report(lease: &Lease, looking: &Looking<'_>, mut heard: mpsc::UnboundedReceiver<News>) {
    let mut words = Words::default();
    while let Some(news) = heard.recv().await {
        if !matches!(news, News::Words(_))
            && let Some(line) = words.rest()
        {
            let _ = lease.log("INFO", &line).await; // as below: the picture counts
        }
        let said = match news {
            News::Loading { component, of } => {
                let line = format!("Loading the {component} ({:.1} GB)", of as f64 / 1e9);
                lease.log("INFO", &line).await
            }
            News::Step { done, of } => lease.log("INFO", &format!("Step {done}/{of}")).await,
            News::Uncontrolled => {
                let line =
                    "Painting without a control network: this server has none that fills gaps";
                lease.log("INFO", line).await
            }
            News::PromptCut { tokens } => {
                let line = format!("The prompt is too long: its last {tokens} tokens are cut off");
                lease.log("WARN", &line).await
            }
            News::Words(text) => match words.push(&text) {
                Some(line) => lease.log("INFO", &line).await,
                None => Ok(()),
            },
            News::Preview { done, of, picture } => {
                let seen = looking.at_preview(picture_of(picture)).await;
                match seen.and_then(|(picture, _)| data_uri(&picture)) {
                    Some(picture) => {
                        let (step, of) = (done as i64, of as i64);
                        lease.preview(&Preview { step, of, picture }).await
                    }
                    None => Ok(()),
                }
            }
        };
        if let Err(error) = said {
            tracing::warn!(request = %lease.request.id, %error, "progress could not be written");
        }
    }
}

/// The engine's pixels as a picture.
pub(crate) fn picture_of(rgb: Rgb) -> Picture {
    Picture { width: rgb.width as u32, height: rgb.height as u32, rgb: rgb.bytes }
}

/// `picture` as a data URI of a JPEG.
pub(crate) fn data_uri(picture: &Picture) -> Option<String> {
    let bytes = zoetrope_files::encode(picture, zoetrope_files::Format::Jpeg, None).ok()?;
    Some(format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes)))
}

/// Encodes and stores all pictures; what fal calls `ImageFile`s.
async fn store(
    task: &Generate,
    (pictures, parameters): (Vec<Picture>, Option<String>),
    lease: &Lease,
    room: &Room,
) -> Result<Vec<Value>, JobError> {
    let (format, quality) = (zoetrope_files::Format::from(task.format), task.quality);
    let (width, height) = pictures.first().map_or((0, 0), |p| (p.width, p.height));
    let encode = move || -> zoetrope_files::Result<Vec<Vec<u8>>> {
        let encode =
            |picture| zoetrope_files::encode_at(picture, format, quality, parameters.as_deref());
        pictures.iter().map(encode).collect()
    };
    let encoded = tokio::task::spawn_blocking(encode).await;
    let encoded = encoded.map_err(|_| JobError::Engine("encoding panicked".into()))?;
    let encoded = encoded.map_err(|e| JobError::Engine(e.to_string()))?;
    let mut images = Vec::new();
    for (index, bytes) in encoded.into_iter().enumerate() {
        let file_name = format!("{}-{index}.{}", lease.request.id, task.format.extension());
        let size = bytes.len();
        let url = match task.delivery {
            Delivery::Inline => {
                format!("data:{};base64,{}", task.format.content_type(), STANDARD.encode(bytes))
            }
            Delivery::Stored => keep(&file_name, bytes, task.keep_seconds, lease, room).await?,
        };
        images.push(json!({
            "url": url,
            "content_type": task.format.content_type(),
            "file_name": file_name,
            "file_size": size,
            "width": width,
            "height": height,
        }));
    }
    Ok(images)
}

#[cfg(test)]
mod tests {
    use zoetrope_api::task::{Model, Place, Reference};
    use zoetrope_api::{Acceleration, Controls, Format, OnFlagged, Tiling, TilingMode};

    use super::*;

    fn task(size: Size) -> Generate {
        Generate {
            model: Model::Turbo,
            prompt: "a house".into(),
            negative_prompt: String::new(),
            size,
            steps: 8,
            seed: Some(1),
            count: 1,
            guidance_scale: 0.0,
            image: Some(Reference { place: Place::Url(String::new()), strength: 0.5 }),
            mask: None,
            control: None,
            references: Vec::new(),
            loras: Vec::new(),
            acceleration: Acceleration::Regular,
            format: Format::Png,
            quality: None,
            delivery: Delivery::Stored,
            safety_checker: true,
            on_flagged: OnFlagged::Blank,
            expand_prompt: false,
            previews: false,
            keep_seconds: None,
            controls: Controls::default(),
        }
    }

    /// A picture whose pixels tell where they are.
    fn picture(width: u32, height: u32) -> Picture {
        let at = |i: u32| [(i % width) as u8, (i / width) as u8, 7];
        Picture { width, height, rgb: (0..width * height).flat_map(at).collect() }
    }

    #[test]
    fn auto_is_the_picture_s_size_up_to_four_megapixels() {
        let cases = [((300, 200), (300, 200)), ((4096, 4096), (2048, 2048)), ((1, 1), (1, 1))];
        for ((width, height), expected) in cases {
            let picture = Picture { width, height, rgb: Vec::new() };
            assert_eq!(pixels(&task(Size::Auto), Some(&picture)), expected);
        }
        let (width, height) = (33, 65);
        assert_eq!(pixels(&task(Size::Pixels { width, height }), None), (33, 65));
        let mut tiles = task(Size::Pixels { width, height });
        tiles.controls.tiling = Some(Tiling::usual(TilingMode::Both));
        assert_eq!(pixels(&tiles, None), (48, 80));
    }

    #[test]
    fn odd_sizes_are_drawn_larger_and_cut() {
        let inputs = (Some(picture(33, 20)), None, None);
        let request = request(&task(Size::Auto), inputs, (33, 20), (1, None)).unwrap();
        assert_eq!((request.size.width(), request.size.height()), (48, 32));
        let Source::Image { image, .. } = request.source else { panic!("an image was given") };
        let pixel = |x: usize, y: usize| &image.bytes[3 * (48 * y + x)..][..2];
        assert_eq!((pixel(5, 6), pixel(47, 31)), (&[5, 6][..], &[32, 19][..]));
        let cut = cropped(&image, 33, 20);
        assert_eq!(cut.rgb, picture(33, 20).rgb);
    }

    #[test]
    fn a_mask_is_laid_over_its_picture_at_every_size() {
        let mask = Mask { width: 2, height: 1, grey: vec![0, 255] };
        let inputs = (Some(picture(40, 20)), Some(mask), None);
        let request = request(&task(Size::Auto), inputs, (40, 20), (1, None)).unwrap();
        let Source::Inpaint { mask, .. } = request.source else { panic!("a mask was given") };
        assert_eq!(mask.len(), 48 * 32);
        let at = |x: usize, y: usize| mask[48 * y + x];
        assert_eq!((at(0, 0), at(39, 0), at(47, 31)), (0, 255, 255));
    }
}
