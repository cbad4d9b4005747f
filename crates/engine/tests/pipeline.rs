//! Every end-to-end case that was recorded from the reference: text to image, image to image, inpainting, guidance and
//! adapters, step by step, with the reference's own tolerances.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex};

use candle_core::Tensor;
use common::{Case, FIXTURES, Fixture, device};
use serde_json::Value;
use zoetrope_api::{
    Acceleration, Controls, Count, Guidance, ImageSize, Seed, Sigmas, Steps, Strength,
};
use zoetrope_checkpoint::{Adapter, Blob, Role, Storage};
use zoetrope_engine::config::{SchedulerConfig, TextEncoderConfig, TransformerConfig, VaeConfig};
use zoetrope_engine::lora::{self, Applied};
use zoetrope_engine::networks::text_encoder::Depth;
use zoetrope_engine::networks::transformer::Caption;
use zoetrope_engine::networks::{TextEncoder, Transformer, Vae};
use zoetrope_engine::noise::Generator;
use zoetrope_engine::pipeline::{Event, Keep, Options, Pipeline, Request, Source};
use zoetrope_engine::pixels::{self, Rgb};
use zoetrope_engine::prompt::PromptTokenizer;
use zoetrope_engine::sampler::{Conditioning, Run, Start};
use zoetrope_engine::schedule::Schedule;
use zoetrope_engine::{Interrupt, Unwatched, Watch};
use zoetrope_kernels::Level;

/// The parts of a fixture's pipeline, so that recorded inputs can stand in for drawn ones.
struct Parts {
    tokenizer: PromptTokenizer,
    text_encoder: TextEncoder,
    transformer: Transformer,
    vae: Vae,
    scheduler: SchedulerConfig,
}

impl Parts {
    fn load(fixture: &Fixture) -> Self {
        let text: TextEncoderConfig = fixture.config("text_encoder/config.json");
        let transformer: TransformerConfig = fixture.config("transformer/config.json");
        let vae: VaeConfig = fixture.config("vae/config.json");
        Self {
            tokenizer: PromptTokenizer::new(&fixture.layout().tokenizer_json().unwrap()).unwrap(),
            text_encoder: TextEncoder::load(
                &fixture.parameters(Role::TextEncoder),
                &text,
                Depth::Features,
            )
            .unwrap(),
            transformer: Transformer::load(&fixture.parameters(Role::Transformer), &transformer)
                .unwrap(),
            vae: Vae::load(&fixture.parameters(Role::Vae), &vae).unwrap(),
            scheduler: fixture.config("scheduler/scheduler_config.json"),
        }
    }

    fn captions(&self, prompts: &[String], tokens: usize, each: usize) -> Vec<Caption> {
        let caption = |prompt: &String| {
            let tokens = self.tokenizer.encode(prompt, tokens).unwrap();
            let features = self.text_encoder.forward(&tokens.ids, &Unwatched).unwrap();
            self.transformer.caption(&features, &Unwatched).unwrap()
        };
        prompts.iter().flat_map(|p| vec![caption(p); each]).collect()
    }
}

fn number(params: &Value, name: &str) -> Option<f64> {
    params.get(name).and_then(Value::as_f64)
}

fn prompts(fixture: &Fixture, params: &Value) -> Vec<String> {
    match &params["prompt"] {
        Value::Array(keys) => keys.iter().map(|k| fixture.prompt(k.as_str().unwrap())).collect(),
        key => vec![fixture.prompt(key.as_str().unwrap())],
    }
}

fn guidance(params: &Value) -> Guidance {
    let normalization = match &params.get("cfg_normalization") {
        Some(Value::Bool(on)) => f64::from(u8::from(*on)),
        other => other.and_then(Value::as_f64).unwrap_or(0.0),
    };
    let truncation = match params.get("cfg_truncation") {
        Some(Value::Null) => f64::MAX,
        other => other.and_then(Value::as_f64).unwrap_or(1.0),
    };
    Guidance::new(number(params, "guidance_scale").unwrap_or(0.0), normalization, truncation)
        .unwrap()
}

fn schedule(parts: &Parts, params: &Value, tokens: usize) -> Schedule {
    match params.get("sigmas").and_then(Value::as_array) {
        Some(stops) => {
            let stops: Vec<f32> = stops.iter().map(|s| s.as_f64().unwrap() as f32).collect();
            Schedule::from_stops(&parts.scheduler, &stops, tokens)
        }
        None => Schedule::new(&parts.scheduler, params["steps"].as_u64().unwrap() as usize, tokens),
    }
}

/// Runs a case from its recorded noise and compares the start, every step, the final latents and the pictures.
fn check(fixture: &Fixture, parts: &mut Parts, case: &Case) {
    let params = case.params();
    let modules = lora::modules(&mut parts.transformer);
    let adapters: Vec<Applied> = params
        .get("adapters")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|a| {
            let blob = Blob::File(fixture.root.join("lora").join(a["file"].as_str().unwrap()));
            let adapter = Arc::new(Adapter::read(&blob, &modules).unwrap());
            Applied { adapter, scale: a["weight"].as_f64().unwrap() }
        })
        .collect();
    lora::apply(&mut parts.transformer, &adapters, &device()).unwrap();

    let tokens = params.get("max_sequence_length").and_then(Value::as_u64).unwrap_or(512) as usize;
    let each = params.get("num_images_per_prompt").and_then(Value::as_u64).unwrap_or(1) as usize;
    let texts = prompts(fixture, params);
    let guidance = guidance(params);
    let negative = params
        .get("negative_prompt")
        .and_then(Value::as_str)
        .map_or(String::new(), |k| fixture.prompt(k));
    let conditioning = Conditioning {
        positive: parts.captions(&texts, tokens, each),
        negative: if guidance.is_on() {
            parts.captions(&vec![negative; texts.len()], tokens, each)
        } else {
            Vec::new()
        },
        guidance,
        control: None,
    };
    let noise = case.input("noise").clone();
    let (_, _, height, width) = noise.dims4().unwrap();
    let schedule = schedule(parts, params, (height / 2) * (width / 2));
    let start = match case.json["kind"].as_str().unwrap() {
        "t2i" | "lora" => Start::Noise,
        kind => {
            let posterior = parts.vae.encode(case.input("image"), &Unwatched).unwrap();
            let latents =
                parts.vae.scale(&posterior.sample(case.input("posterior_noise")).unwrap()).unwrap();
            let strength = Strength::new(params["strength"].as_f64().unwrap()).unwrap();
            match kind {
                "inpaint" => {
                    Start::Inpaint { latents, mask: case.input("mask_latent").clone(), strength }
                }
                _ => Start::Image { latents, strength },
            }
        }
    };
    let mut run =
        Run::new(&parts.transformer, &conditioning, &schedule, (noise, start), &Unwatched).unwrap();
    if case.has("start") {
        case.check("start", run.latents());
    }
    let steps: Vec<Tensor> = (&mut run).map(|step| step.unwrap().latents).collect();
    if case.has("steps") {
        case.check("steps", &Tensor::stack(&steps, 0).unwrap());
    }
    case.check("latents", run.latents());
    let pictures =
        pixels::to_pictures(&parts.vae.decode(run.latents(), &Unwatched).unwrap()).unwrap();
    for (i, picture) in pictures.iter().enumerate() {
        case.check_picture(i, &picture.bytes);
    }
}

fn every(fixture: &str, kinds: &[&str], least: usize) {
    let fixture = Fixture::open(fixture);
    let mut parts = Parts::load(&fixture);
    let cases = fixture.cases(kinds);
    assert!(cases.len() >= least, "{} cases", cases.len());
    for case in cases {
        check(&fixture, &mut parts, &case);
    }
}

#[test]
fn turbo_text_to_image_is_the_reference_s() {
    every("turbo", &["t2i"], 15);
}

#[test]
fn turbo_image_to_image_and_inpainting_are_the_reference_s() {
    every("turbo", &["img2img", "inpaint"], 9);
}

#[test]
fn turbo_with_adapters_is_the_reference_s() {
    every("turbo", &["lora"], 14);
}

#[test]
fn base_with_guidance_is_the_reference_s() {
    every("base", &["t2i", "img2img", "inpaint"], 14);
}

#[test]
fn wide_and_slim_are_the_reference_s() {
    every("wide", &["t2i"], 1);
    every("slim", &["t2i", "img2img", "inpaint"], 4);
}

/// Counts how often each layer ran.
#[derive(Default)]
struct Layers(Mutex<BTreeMap<String, usize>>);

impl Watch for Layers {
    fn stage(&self, name: &dyn Display, _: &Tensor) -> zoetrope_engine::Result<()> {
        *self.0.lock().unwrap().entry(name.to_string()).or_default() += 1;
        Ok(())
    }
}

#[test]
fn a_reusing_run_computes_every_second_step_and_ends_near_the_exact_one() {
    let fixture = Fixture::open("turbo");
    let parts = Parts::load(&fixture);
    let captions = parts.captions(&[fixture.prompt("fox")], 512, 1);
    let conditioning = Conditioning {
        positive: captions,
        negative: Vec::new(),
        guidance: Guidance::OFF,
        control: None,
    };
    // Untrained weights turn with the time; in steps as small as these they hold still.
    let stops: Vec<f32> = (0..8).map(|i| 1.0 - 0.002 * i as f32).collect();
    let schedule = Schedule::from_stops(&parts.scheduler, &stops, 16);
    let noise = Generator::new(Seed(1)).normal(&[1, 16, 8, 8], &device()).unwrap();
    let layers = Layers::default();
    let run = |watch| {
        let start = (noise.clone(), Start::Noise);
        Run::new(&parts.transformer, &conditioning, &schedule, start, watch).unwrap()
    };
    let last = |run: Run| run.last().unwrap().unwrap().latents;
    let exact = last(run(&Unwatched));
    let reused = last(run(&layers).reusing());
    let counts = layers.0.lock().unwrap();
    assert_eq!((counts["layers.0"], counts["layers.1"]), (8, 5));
    let norm = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    let distance = norm(&(&reused - &exact).unwrap()) / norm(&exact);
    assert!(distance > 0.0 && distance < 0.02, "{distance}");
}

/// The same through the public door: files on disk, a seed, and nothing recorded put in.
#[test]
fn a_request_with_a_seed_gives_the_reference_s_latents() {
    for name in FIXTURES {
        let fixture = Fixture::open(name);
        let cases = fixture.cases(&["t2i", "img2img", "inpaint"]);
        let plain = |c: &&Case| {
            let p = c.params();
            p.get("seed").is_some_and(Value::is_u64) && p["prompt"].is_string()
        };
        let options = Options {
            storage: Some(Storage::F32),
            device: device(),
            keep: Keep::All,
            packed: None,
        };
        let mut pipeline = Pipeline::open(fixture.layout(), options).unwrap();
        let mut seen = 0;
        for case in cases.iter().filter(plain) {
            let request = request(&fixture, case);
            let generated =
                pipeline.generate(&request, &[], &Interrupt::default(), &quiet()).unwrap();
            case.check("latents", &generated.latents);
            for (i, picture) in generated.pictures.iter().enumerate() {
                case.check_picture(i, &picture.bytes);
            }
            seen += 1;
        }
        assert!(seen > 0, "{name}");
    }
}

fn quiet() -> Arc<dyn Fn(Event) + Send + Sync> {
    Arc::new(|_| ())
}

fn request(fixture: &Fixture, case: &Case) -> Request {
    let params = case.params();
    let (_, _, height, width) = case.input("latents").dims4().unwrap();
    let size = ImageSize::new(width as u32 * 8, height as u32 * 8).unwrap();
    let source = match case.json["kind"].as_str().unwrap() {
        "t2i" => Source::Text,
        kind => {
            let picture = pixels::to_pictures(case.input("image")).unwrap().remove(0);
            let strength = Strength::new(params["strength"].as_f64().unwrap()).unwrap();
            match kind {
                "inpaint" => {
                    Source::Inpaint { image: picture, mask: whole_mask(case, size), strength }
                }
                _ => Source::Image { image: picture, strength },
            }
        }
    };
    Request {
        prompt: prompts(fixture, params).remove(0),
        negative_prompt: params
            .get("negative_prompt")
            .and_then(Value::as_str)
            .map(|k| fixture.prompt(k)),
        size,
        steps: Steps::new(params["steps"].as_u64().unwrap() as u32).unwrap(),
        seed: Seed(params["seed"].as_u64().unwrap()),
        count: Count::new(
            params.get("num_images_per_prompt").and_then(Value::as_u64).unwrap_or(1) as u32
        )
        .unwrap(),
        guidance: guidance(params),
        source,
        tokens_max: params.get("max_sequence_length").and_then(Value::as_u64).unwrap_or(512)
            as usize,
        acceleration: Acceleration::None,
        previews: false,
        control: None,
        references: Vec::new(),
        controls: Controls { sigmas: sigmas(params), ..Controls::default() },
        expansion: None,
    }
}

fn sigmas(params: &Value) -> Option<Sigmas> {
    let sigmas = params.get("sigmas")?.as_array()?.iter();
    Some(Sigmas::new(sigmas.map(|v| v.as_f64().unwrap() as f32).collect()).unwrap())
}

/// A mask in pixels whose blocks have the recorded values.
fn whole_mask(case: &Case, size: ImageSize) -> Vec<u8> {
    let latent: Vec<Vec<f32>> =
        case.input("mask_latent").get(0).unwrap().get(0).unwrap().to_vec2().unwrap();
    let (width, height) = (size.width() as usize, size.height() as usize);
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (y / 8, x / 8)));
    pixels.map(|(y, x)| if latent[y][x] > 0.5 { 255 } else { 0 }).collect()
}

fn small_request(fixture: &Fixture) -> Request {
    let case = fixture.cases(&["t2i"]).into_iter().find(|c| c.id == "t2i_seed").unwrap();
    request(fixture, &case)
}

#[test]
fn an_interrupt_ends_a_generation_between_layers() {
    let fixture = Fixture::open("wide");
    let options = Options { storage: None, device: device(), keep: Keep::OneAtATime, packed: None };
    let mut pipeline = Pipeline::open(fixture.layout(), options).unwrap();
    let interrupt = Interrupt::default();
    let stop = interrupt.clone();
    let on: Arc<dyn Fn(Event) + Send + Sync> = Arc::new(move |event| {
        if matches!(event, Event::Step { done: 2, .. }) {
            stop.stop();
        }
    });
    let error = pipeline.generate(&small_request(&fixture), &[], &interrupt, &on).err().unwrap();
    assert!(matches!(error, zoetrope_engine::Error::Interrupted), "{error}");
}

#[test]
fn reduced_precision_stays_near_the_reference() {
    let fixture = Fixture::open("base");
    let case = fixture.cases(&["t2i"]).into_iter().find(|c| c.id == "cfg").unwrap();
    let drift = case.json["bf16_reference_drift"]["latents"].as_f64().unwrap();
    let want = case.input("latents");
    let norm = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    // The reference's own distance in bfloat16 is the yardstick; with 8 bits a few times
    // that: the blocks' products round the activations to 8 bits as well.
    for (storage, times) in [
        (Storage::Bf16, 1.0),
        (Storage::F16, 1.0),
        (Storage::Int8, 4.0),
        (Storage::Q8_0, 4.0),
        (Storage::Fp8, 8.0),
    ] {
        let options =
            Options { storage: Some(storage), device: device(), keep: Keep::All, packed: None };
        let mut pipeline = Pipeline::open(fixture.layout(), options).unwrap();
        let got = pipeline
            .generate(&request(&fixture, &case), &[], &Interrupt::default(), &quiet())
            .unwrap()
            .latents;
        let distance = f64::from(norm(&(got - want).unwrap()) / norm(want));
        assert!(distance <= drift * times, "{storage}: {distance} against {drift}");
    }
}

/// One pipeline serves all levels, and changes the transformer's form with them.
#[test]
fn levels_of_acceleration_are_what_they_say() {
    let fixture = Fixture::open("base");
    let case = fixture.cases(&["t2i"]).into_iter().find(|c| c.id == "cfg").unwrap();
    let drift = case.json["bf16_reference_drift"]["latents"].as_f64().unwrap();
    let options = Options { storage: None, device: device(), keep: Keep::All, packed: None };
    let mut pipeline = Pipeline::open(fixture.layout(), options).unwrap();
    let mut latents = |acceleration| {
        let request = Request { acceleration, ..request(&fixture, &case) };
        let made = pipeline.generate(&request, &[], &Interrupt::default(), &quiet()).unwrap();
        made.latents.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let exact = latents(Acceleration::None);
    let high = latents(Acceleration::High);
    assert_eq!(latents(Acceleration::Regular), exact);
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
    let off = norm(&mut high.iter().zip(&exact).map(|(h, e)| h - e));
    let distance = f64::from(off / norm(&mut exact.iter().copied()));
    assert!(distance > 0.0 && distance <= drift * 8.0, "{distance} against {drift}");
}

/// Beside bfloat16 weights `regular` rounds more than `none` does, and little more.
#[test]
fn regular_rounds_scores_beside_narrow_weights() {
    let fixture = Fixture::open("base");
    let case = fixture.cases(&["t2i"]).into_iter().find(|c| c.id == "cfg").unwrap();
    let drift = case.json["bf16_reference_drift"]["latents"].as_f64().unwrap();
    let want = case.input("latents").flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let options =
        Options { storage: Some(Storage::Bf16), device: device(), keep: Keep::All, packed: None };
    let mut pipeline = Pipeline::open(fixture.layout(), options).unwrap();
    let mut latents = |acceleration| {
        let request = Request { acceleration, ..request(&fixture, &case) };
        let made = pipeline.generate(&request, &[], &Interrupt::default(), &quiet()).unwrap();
        made.latents.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let exact = latents(Acceleration::None);
    let regular = latents(Acceleration::Regular);
    // One network in memory serves both, one after the other.
    assert_eq!(latents(Acceleration::None), exact);
    if device().is_cpu() && Level::best().has_bf16() {
        assert_ne!(regular, exact);
    }
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
    let off = norm(&mut regular.iter().zip(&want).map(|(r, w)| r - w));
    let distance = f64::from(off / norm(&mut want.iter().copied()));
    assert!(distance <= drift * 2.0, "{distance} against {drift}");
}

#[test]
fn what_cannot_be_made_is_refused_before_anything_is_loaded() {
    let fixture = Fixture::open("wide");
    let options = Options { storage: None, device: device(), keep: Keep::All, packed: None };
    let mut pipeline = Pipeline::open(fixture.layout(), options).unwrap();
    let good = small_request(&fixture);
    let image = Rgb { width: 32, height: 32, bytes: vec![0; 3 * 32 * 32] };
    let strength = Strength::new(0.5).unwrap();
    let cases = [
        (
            Source::Image { image: image.clone(), strength },
            "`image` is 32x32, but the request's size is 64x64",
        ),
        (
            Source::Inpaint {
                image: Rgb { width: 64, height: 64, bytes: vec![0; 3 * 64 * 64] },
                mask: vec![0; 9],
                strength,
            },
            "`mask` has another size than the image",
        ),
    ];
    for (source, want) in cases {
        let request = Request { source, ..good.clone() };
        let error =
            pipeline.generate(&request, &[], &Interrupt::default(), &quiet()).err().unwrap();
        assert_eq!(error.to_string(), want);
    }
}

#[test]
fn two_generators_draw_as_two_seeds() {
    let fixture = Fixture::open("turbo");
    let case = fixture.cases(&["t2i"]).into_iter().find(|c| c.id == "t2i_two_generators").unwrap();
    let seeds = case.params()["seed"].as_array().unwrap();
    for (i, seed) in seeds.iter().enumerate() {
        let drawn =
            Generator::new(Seed(seed.as_u64().unwrap())).normal(&[1, 16, 8, 8], &device()).unwrap();
        let recorded = case.input("noise").narrow(0, i, 1).unwrap();
        let worst =
            (drawn - recorded).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        assert!(worst.to_scalar::<f32>().unwrap() < 5e-6);
    }
}
