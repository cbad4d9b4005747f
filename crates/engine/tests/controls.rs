//! What controls promise, measured on the embedded model: edges that meet, samplers that agree, seeds that count on.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::{Arc, Mutex};

use candle_core::{Device, Tensor};
use zoetrope_api::{
    Acceleration, Controls, Count, Guidance, ImageSize, Sampler, Seed, Steps, Strength, Tiling,
    TilingMode, Variation,
};
use zoetrope_checkpoint::Layout;
use zoetrope_engine::Interrupt;
use zoetrope_engine::pipeline::{
    Event, Generated, Keep, Listener, Options, Pipeline, Request, Source,
};
use zoetrope_engine::pixels::Rgb;
use zoetrope_engine::prompt::TOKENS_MAX;

const PROMPTS: [&str; 4] = [
    "a red house on the left, a big green tree on the right, rolling hills, the sun, at noon",
    "a blue boat in the middle, the sea, at sunset, clouds",
    "a tall green cactus in the desert, an orange tower on the right, sunset",
    "a purple hot air balloon on the left, mountains, a clear sky, at dawn",
];

fn pipeline() -> Pipeline {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    let options = Options { storage: None, device: Device::Cpu, keep: Keep::All, packed: None };
    Pipeline::open(Layout::locate(&folder, None, None).unwrap(), options).unwrap()
}

fn request(prompt: &str, seed: u64) -> Request {
    Request {
        prompt: prompt.into(),
        negative_prompt: None,
        size: ImageSize::new(192, 192).unwrap(),
        steps: Steps::new(8).unwrap(),
        seed: Seed(seed),
        count: Count::new(1).unwrap(),
        guidance: Guidance::OFF,
        source: Source::Text,
        tokens_max: TOKENS_MAX,
        acceleration: Acceleration::None,
        previews: false,
        control: None,
        references: Vec::new(),
        expansion: None,
        controls: Controls::default(),
    }
}

fn quiet() -> Listener {
    Arc::new(|_: Event| {})
}

fn make(pipeline: &mut Pipeline, request: &Request) -> Generated {
    pipeline.generate(request, &[], &Interrupt::default(), &quiet()).unwrap()
}

fn with(prompt: &str, seed: u64, controls: Controls) -> Request {
    Request { controls, ..request(prompt, seed) }
}

fn tiled(mode: TilingMode) -> Controls {
    Controls { tiling: Some(Tiling::usual(mode)), ..Controls::default() }
}

fn relative(got: &Tensor, want: &Tensor) -> f32 {
    let square = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    (square(&(got - want).unwrap()) / square(want)).sqrt()
}

/// Between neighbouring columns, or rows: the mean difference over the seam, and over the rest of the picture.
fn gradients(picture: &Rgb, across: bool) -> (f64, f64) {
    let (width, height) = (picture.width, picture.height);
    let at = |x: usize, y: usize| &picture.bytes[3 * (y * width + x)..][..3];
    let difference =
        |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>();
    let (lines, length) = if across { (width, height) } else { (height, width) };
    let between = |a: usize, b: usize| {
        let pair = |i: usize| if across { (at(a, i), at(b, i)) } else { (at(i, a), at(i, b)) };
        (0..length).map(|i| difference(pair(i).0, pair(i).1)).sum::<f64>() / (3 * length) as f64
    };
    let inside = (1..lines).map(|i| between(i - 1, i)).sum::<f64>() / (lines - 1) as f64;
    (between(lines - 1, 0), inside)
}

/// Means of both over eight pictures, for their columns and rows.
fn seams(pipeline: &mut Pipeline, controls: &Controls) -> [(f64, f64); 2] {
    let mut sums = [(0.0, 0.0); 2];
    let pictures = PROMPTS.iter().cycle().zip(0..8);
    for (prompt, seed) in pictures {
        let made = make(pipeline, &with(prompt, seed, controls.clone()));
        for (sum, across) in sums.iter_mut().zip([true, false]) {
            let (seam, inside) = gradients(&made.pictures[0], across);
            *sum = (sum.0 + seam / 8.0, sum.1 + inside / 8.0);
        }
    }
    sums
}

#[test]
fn a_tile_s_seam_is_no_steeper_than_the_picture() {
    let mut pipeline = pipeline();
    for mode in [TilingMode::Both, TilingMode::Horizontal, TilingMode::Vertical] {
        let [columns, rows] = seams(&mut pipeline, &tiled(mode));
        println!("{mode:?}: columns {columns:.2?}, rows {rows:.2?} levels (seam, inside)");
        for (wraps, (seam, inside)) in [(mode.wraps_columns(), columns), (mode.wraps_rows(), rows)]
        {
            assert!(
                !wraps || seam <= inside,
                "{mode:?}: the seam has {seam}, the picture {inside}"
            );
        }
    }
    let [columns, rows] = seams(&mut pipeline, &Controls::default());
    println!("not tiled: columns {columns:.2?}, rows {rows:.2?}");
    assert!(columns.0 > 2.0 * columns.1 && rows.0 > 2.0 * rows.1, "{columns:?} {rows:?}");
}

#[test]
fn every_sampler_comes_to_the_picture_of_euler_in_200_steps() {
    let mut pipeline = pipeline();
    let mut latents = |sampler, steps| {
        let controls = Controls { sampler, ..Controls::default() };
        let request =
            Request { steps: Steps::new(steps).unwrap(), ..with(PROMPTS[0], 3, controls) };
        make(&mut pipeline, &request).latents
    };
    let exact = latents(Sampler::Euler, 200);
    let mut off = |sampler, steps| relative(&latents(sampler, steps), &exact);
    for sampler in Sampler::ALL {
        let (coarse, fine) = (off(sampler, 10), off(sampler, 80));
        println!("{sampler}: {coarse:.4} off in 10 steps, {fine:.4} in 80");
        assert!(fine < coarse && fine < 0.05, "{sampler}: {coarse} and {fine}");
    }
    let euler = off(Sampler::Euler, 25);
    for sampler in [Sampler::Heun, Sampler::DpmPlusPlus2M, Sampler::UniPc] {
        let better = off(sampler, 25);
        println!("{sampler}: {better:.4} in 25 steps, where Euler is {euler:.4} off");
        assert!(better < euler, "{sampler} in 25 steps: {better}, Euler {euler}");
    }
}

#[test]
fn pictures_of_a_batch_may_be_those_of_the_next_seeds() {
    let mut pipeline = pipeline();
    let each = Controls { seed_per_image: true, ..Controls::default() };
    let image = make(&mut pipeline, &request(PROMPTS[1], 1)).pictures.remove(0);
    let strength = Strength::new(0.5).unwrap();
    for source in [Source::Text, Source::Image { image, strength }] {
        let count = Count::new(3).unwrap();
        let batch = Request { count, source: source.clone(), ..with(PROMPTS[0], 7, each.clone()) };
        let batch = make(&mut pipeline, &batch);
        for (i, picture) in batch.pictures.iter().enumerate() {
            let alone = Request { source: source.clone(), ..request(PROMPTS[0], 7 + i as u64) };
            let alone = make(&mut pipeline, &alone);
            let off = relative(&batch.latents.narrow(0, i, 1).unwrap(), &alone.latents);
            assert!(off < 1e-4, "picture {i}: {off}");
            assert_eq!(picture.bytes.len(), alone.pictures[0].bytes.len());
        }
        assert!(relative(&batch.latents.get(0).unwrap(), &batch.latents.get(1).unwrap()) > 0.1);
    }
}

#[test]
fn a_variation_lies_between_two_seeds() {
    let mut pipeline = pipeline();
    let mut of = |seed, variation| {
        let controls = Controls { variation, ..Controls::default() };
        make(&mut pipeline, &with(PROMPTS[0], seed, controls)).latents
    };
    let (first, second) = (of(1, None), of(2, None));
    let at = |strength| Some(Variation::new(2, strength).unwrap());
    assert!(relative(&of(1, at(0.0)), &first) < 1e-5);
    assert!(relative(&of(1, at(1.0)), &second) < 1e-4);
    let distances = [0.1, 0.4, 0.8].map(|strength| relative(&of(1, at(strength)), &first));
    println!(
        "off by {distances:.3?} at 0.1, 0.4, 0.8; the other seed by {:.3}",
        relative(&second, &first)
    );
    assert!(distances[0] < distances[1] && distances[1] < distances[2], "{distances:?}");
    let controls = Controls { variation: at(0.3), seed_per_image: true, ..Controls::default() };
    let count = Count::new(2).unwrap();
    let batch = make(&mut pipeline, &Request { count, ..with(PROMPTS[0], 1, controls) });
    let next = Controls { variation: Some(Variation::new(3, 0.3).unwrap()), ..Controls::default() };
    let next = make(&mut pipeline, &with(PROMPTS[0], 1, next));
    assert!(relative(&batch.latents.narrow(0, 1, 1).unwrap(), &next.latents) < 1e-4);
}

/// An upscaled picture shows what it was made from, and what the windows add is not at their edges.
#[test]
fn windows_draw_a_larger_picture_of_the_same() {
    let mut pipeline = pipeline();
    let small = make(&mut pipeline, &request(PROMPTS[0], 3)).pictures.remove(0);
    let double = |x: usize| x / 2;
    let bytes = (0..384usize)
        .flat_map(|y| (0..384usize).map(move |x| 3 * (double(y) * 192 + double(x))))
        .flat_map(|at| small.bytes[at..at + 3].to_vec())
        .collect();
    let image = Rgb { width: 384, height: 384, bytes };
    let tiling = Some(Tiling::new(TilingMode::Windows, 32, 16).unwrap());
    let source = Source::Image { image: image.clone(), strength: Strength::new(0.1).unwrap() };
    let request = Request {
        size: ImageSize::new(384, 384).unwrap(),
        source,
        ..with(PROMPTS[0], 3, Controls { tiling, ..Controls::default() })
    };
    let large = make(&mut pipeline, &request).pictures.remove(0);
    let off = large.bytes.iter().zip(&image.bytes).map(|(a, b)| f64::from(a.abs_diff(*b)));
    let mean = off.sum::<f64>() / image.bytes.len() as f64;
    println!("{mean:.2} levels from what it was made of");
    assert!(mean > 0.5 && mean < 20.0, "{mean}");
}

#[test]
fn steps_are_told_once_whatever_the_sampler_evaluates() {
    let mut pipeline = pipeline();
    let controls = Controls { sampler: Sampler::Heun, ..Controls::default() };
    let request = Request { steps: Steps::new(3).unwrap(), ..with(PROMPTS[0], 1, controls) };
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    let on: Listener = Arc::new(move |event: Event| {
        if let Event::Step { done, of, .. } = event {
            heard.lock().unwrap().push((done, of));
        }
    });
    pipeline.generate(&request, &[], &Interrupt::default(), &on).unwrap();
    assert_eq!(*told.lock().unwrap(), [(1, 3), (2, 3), (3, 3)]);
}
