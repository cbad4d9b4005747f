//! Omni and Edit models against the reference's ZImageOmniPipeline: prompts in parts, the vision tower, every stage of the transformer, and
//! pictures.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::{Arc, Mutex};

use candle_core::{Device, Tensor};
use common::{Case, Fixture, Recorder};
use zoetrope_api::{Acceleration, Controls, Count, Guidance, ImageSize, Seed, Steps};
use zoetrope_checkpoint::{Role, Storage};
use zoetrope_engine::config::{TransformerConfig, VisionConfig, VisionProcessor};
use zoetrope_engine::guides::{REFERENCES_MAX, Reference};
use zoetrope_engine::networks::transformer::{self, Transformer};
use zoetrope_engine::networks::{VisionTower, siglip};
use zoetrope_engine::pipeline::{Event, Keep, Listener, Options, Pipeline, Request, Source};
use zoetrope_engine::pixels::Rgb;
use zoetrope_engine::prompt::PromptTokenizer;
use zoetrope_engine::{Interrupt, Unwatched};

fn fixture() -> Fixture {
    Fixture::open("omni")
}

fn picture(root: &Path, name: &str) -> zoetrope_files::Picture {
    let read = image::open(root.join("inputs").join(name)).unwrap().to_rgb8();
    zoetrope_files::Picture { width: read.width(), height: read.height(), rgb: read.into_raw() }
}

fn rgb(picture: &zoetrope_files::Picture) -> Rgb {
    let (width, height) = (picture.width as usize, picture.height as usize);
    Rgb { width, height, bytes: picture.rgb.clone() }
}

/// A file as a reference of a request, by the way that programs go.
fn reference(
    pipeline: &Pipeline,
    picture: &zoetrope_files::Picture,
    size: Option<ImageSize>,
) -> Reference {
    let (width, height) = (picture.width as usize, picture.height as usize);
    let fit = pipeline.fit(width, height, size).unwrap();
    let whole = picture.resized(fit.whole.0 as u32, fit.whole.1 as u32);
    let (width, height) = (fit.seen.0 as u32, fit.seen.1 as u32);
    let seen = whole.resized_by(width, height, zoetrope_files::Filter::Bilinear);
    Reference { whole: rgb(&whole), seen: rgb(&seen) }
}

fn pipeline() -> Pipeline {
    let options =
        Options { storage: Some(Storage::F32), device: Device::Cpu, keep: Keep::All, packed: None };
    Pipeline::open(fixture().layout(), options).unwrap()
}

fn quiet() -> Listener {
    Arc::new(|_: Event| ())
}

#[test]
fn prompts_that_speak_of_pictures_become_the_reference_s_tokens() {
    let fixture = fixture();
    let tokenizer = PromptTokenizer::new(&fixture.layout().tokenizer_json().unwrap()).unwrap();
    let case = fixture.cases(&["omni_tokens"]).remove(0);
    let keys = case.params()["prompts"].as_array().unwrap();
    for key in keys.iter().map(|key| key.as_str().unwrap()) {
        for references in [0, 1, 3] {
            let parts = PromptTokenizer::scene(&fixture.prompt(key), references);
            assert_eq!(parts.len(), if references == 0 { 1 } else { references + 2 });
            for (j, part) in parts.into_iter().enumerate() {
                let want: Vec<u32> =
                    case.input(&format!("ids.{key}.{references}.{j}")).to_vec1().unwrap();
                assert_eq!(
                    tokenizer.tokens(part, 512).unwrap().ids,
                    want,
                    "{key} {references} {j}"
                );
            }
        }
    }
}

#[test]
fn pictures_are_prepared_for_the_tower_as_in_the_reference() {
    let (fixture, pipeline) = (fixture(), pipeline());
    let processor: VisionProcessor = fixture.config("siglip_processor/preprocessor_config.json");
    let cases = fixture.cases(&["siglip", "siglip_patches"]);
    assert_eq!(cases.len(), 4);
    for case in cases {
        let picture = picture(&fixture.root, case.params()["image"].as_str().unwrap());
        let (width, height) = processor.size(picture.width as usize, picture.height as usize);
        let grid: Vec<u32> = case.input("grid").to_vec1().unwrap();
        let side = processor.patch_size;
        assert_eq!([height / side, width / side].map(|n| n as u32), grid[..], "{}", case.id);
        let bilinear = zoetrope_files::Filter::Bilinear;
        let seen = rgb(&picture.resized_by(width as u32, height as u32, bilinear));
        let patches = siglip::patches(&seen, side, &processor, &Device::Cpu).unwrap();
        case.check("patches", &patches);
        if picture.width < 1024 {
            let whole = reference(&pipeline, &picture, None);
            assert_eq!((whole.seen, whole.whole), (seen, rgb(&picture)));
        }
    }
}

#[test]
fn every_stage_of_the_vision_tower_is_the_reference_s() {
    let fixture = fixture();
    let config: VisionConfig = fixture.config("siglip/config.json");
    let processor: VisionProcessor = fixture.config("siglip_processor/preprocessor_config.json");
    let config = config.check().unwrap();
    let tower = VisionTower::load(&fixture.parameters(Role::Vision), &config).unwrap();
    for case in fixture.cases(&["siglip"]) {
        let picture = picture(&fixture.root, case.params()["image"].as_str().unwrap());
        let (width, height) = processor.size(picture.width as usize, picture.height as usize);
        let bilinear = zoetrope_files::Filter::Bilinear;
        let seen = rgb(&picture.resized_by(width as u32, height as u32, bilinear));
        let recorder = Recorder::default();
        let out = tower.forward(&seen, &processor, &recorder).unwrap();
        assert_eq!(
            case.check_stages(&recorder.stages()),
            1 + config.num_hidden_layers,
            "{}",
            case.id
        );
        let (rows, columns, hidden) = out.dims3().unwrap();
        case.check("siglip.out", &out.reshape((rows * columns, hidden)).unwrap());
    }
}

fn transformer(fixture: &Fixture) -> Transformer {
    let config: TransformerConfig = fixture.config("transformer/config.json");
    Transformer::load(&fixture.parameters(Role::Transformer), &config.check().unwrap()).unwrap()
}

/// The recorded inputs `kind.0`, `kind.1`, ….
fn numbered(case: &Case, kind: &str) -> Vec<Tensor> {
    let names = (0..).map(|i| format!("{kind}.{i}"));
    let held = names.take_while(|name| case.tensors.contains_key(name));
    held.map(|name| case.input(&name).clone()).collect()
}

#[test]
fn every_stage_of_the_transformer_is_the_reference_s() {
    let fixture = fixture();
    let network = transformer(&fixture);
    let cases = fixture.cases(&["omni_transformer"]);
    assert_eq!(cases.len(), 3);
    for case in cases {
        let mut latents: Vec<Tensor> =
            numbered(&case, "latents").iter().map(|x| x.squeeze(1).unwrap()).collect();
        let drawn = latents.pop().unwrap();
        let seen = numbered(&case, "siglip");
        let references: Vec<_> = latents
            .iter()
            .zip(&seen)
            .map(|(latents, vision)| transformer::Reference {
                latents: latents.clone(),
                vision: vision.clone(),
            })
            .collect();
        let recorder = Recorder::default();
        let features = numbered(&case, "caps");
        let caption = network.scene(&features, &references, &recorder).unwrap();
        let (_, height, width) = drawn.dims3().unwrap();
        let batch = network.batch([(&caption, (height, width))]).unwrap();
        let t: Vec<f32> = case.input("t").to_vec1().unwrap();
        let out = network
            .forward(&batch, std::slice::from_ref(&drawn), f64::from(t[0]), None, &recorder)
            .unwrap();
        let compared = case.check_stages(&recorder.stages());
        case.check("out", &out[0].unsqueeze(1).unwrap());
        let stages = case.json["outputs"].as_object().unwrap().keys();
        let elsewhere = |key: &&String| {
            key.ends_with("_ids") || key.ends_with("_noise") || *key == "out" || *key == "t_clean"
        };
        let stages: Vec<_> = stages.filter(|key| !elsewhere(key)).collect();
        // Without references there is no vision branch, and its blocks are not run in the reference either.
        assert_eq!(compared, stages.len(), "{}: {stages:?}", case.id);

        let lengths: Vec<usize> = features.iter().map(|f| f.dim(0).unwrap()).collect();
        let (text, ends) = transformer::text_positions(&lengths);
        let same = |name: &str, got: &[[usize; 3]]| {
            let want: Vec<Vec<u32>> = case.input(name).to_vec2().unwrap();
            let got: Vec<Vec<u32>> =
                got.iter().map(|p| p.iter().map(|v| *v as u32).collect()).collect();
            assert_eq!(got, want, "{} {name}", case.id);
        };
        same("caption_position_ids", &text);
        let sizes = latents.iter().chain([&drawn]).map(|x| x.dims3().unwrap());
        let sizes: Vec<_> = sizes.map(|(_, height, width)| (height, width)).collect();
        let images: Vec<_> = sizes
            .iter()
            .zip(&ends)
            .flat_map(|((h, w), place)| transformer::image_positions(h / 2, w / 2, *place))
            .collect();
        same("image_position_ids", &images);
        if !seen.is_empty() {
            let grids = seen.iter().map(|x| x.dims3().unwrap());
            let mut tower: Vec<_> = grids
                .zip(sizes.iter().zip(&ends))
                .flat_map(|((rows, columns, _), (size, end))| {
                    transformer::vision_positions((rows, columns), *size, end + 1)
                })
                .collect();
            tower.extend([[0; 3]; transformer::SEQ_MULTI_OF]);
            same("siglip_position_ids", &tower);
        }
    }
}

fn request(fixture: &Fixture, case: &Case, pipeline: &Pipeline) -> Request {
    let params = case.params();
    let number = |name: &str| params[name].as_f64().unwrap();
    let files = params["references"].as_array().unwrap();
    let pictures: Vec<_> =
        files.iter().map(|file| picture(&fixture.root, file.as_str().unwrap())).collect();
    let asked = params["size"].as_array().map(|sides| {
        let side = |i: usize| sides[i].as_u64().unwrap() as u32;
        ImageSize::new(side(1), side(0)).unwrap()
    });
    let size = asked.unwrap_or_else(|| {
        let last = pictures.last().unwrap();
        ImageSize::new(last.width / 16 * 16, last.height / 16 * 16).unwrap()
    });
    Request {
        prompt: fixture.prompt(params["prompt"].as_str().unwrap()),
        negative_prompt: params["negative_prompt"].as_str().map(|key| fixture.prompt(key)),
        size,
        steps: Steps::new(number("steps") as u32).unwrap(),
        seed: Seed(number("seed") as u64),
        count: Count::new(number("num_images_per_prompt") as u32).unwrap(),
        guidance: Guidance::new(number("guidance_scale"), 0.0, 1.0).unwrap(),
        source: Source::Text,
        tokens_max: 512,
        acceleration: Acceleration::None,
        previews: false,
        expansion: None,
        controls: Controls::default(),
        control: None,
        references: pictures.iter().map(|p| reference(pipeline, p, asked)).collect(),
    }
}

#[test]
fn pictures_are_the_reference_s() {
    let (fixture, mut pipeline) = (fixture(), pipeline());
    let cases = fixture.cases(&["omni"]);
    assert!(cases.len() >= 8, "{}", cases.len());
    for case in cases {
        let request = request(&fixture, &case, &pipeline);
        let steps = Arc::new(Mutex::new(Vec::new()));
        let taken = steps.clone();
        let on: Listener = Arc::new(move |event| {
            if let Event::Step { latents, .. } = event {
                taken.lock().unwrap().push(latents.clone());
            }
        });
        let generated = pipeline.generate(&request, &[], &Interrupt::default(), &on).unwrap();
        case.check("steps", &Tensor::stack(&steps.lock().unwrap(), 0).unwrap());
        case.check("latents", &generated.latents);
        for (i, picture) in generated.pictures.iter().enumerate() {
            case.check_picture(i, &picture.bytes);
        }
    }
}

#[test]
fn one_network_at_a_time_makes_the_same_picture_and_high_acceleration_one_near_it() {
    let fixture = fixture();
    let case = fixture.cases(&["omni"]).into_iter().find(|case| case.id == "edit_two").unwrap();
    let latents = |keep, acceleration| {
        let options =
            Options { storage: Some(Storage::F32), device: Device::Cpu, keep, packed: None };
        let mut pipeline = Pipeline::open(fixture.layout(), options).unwrap();
        let request = Request { acceleration, ..request(&fixture, &case, &pipeline) };
        pipeline.generate(&request, &[], &Interrupt::default(), &quiet()).unwrap().latents
    };
    case.check("latents", &latents(Keep::OneAtATime, Acceleration::None));
    let norm = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    let high = latents(Keep::All, Acceleration::High);
    let want = case.input("latents");
    let distance = norm(&(&high - want).unwrap()) / norm(want);
    assert!(distance > 0.0 && distance < 0.2, "{distance}");
}

#[test]
fn references_that_cannot_be_are_refused() {
    let (fixture, pipeline) = (fixture(), pipeline());
    let problem = |width, height| pipeline.fit(width, height, None).unwrap_err().to_string();
    assert_eq!(
        problem(63, 100),
        "`references` hold a picture of 63x100 pixels; each side must have 64"
    );
    assert_eq!(
        problem(801, 100),
        "`references` hold a picture of 801x100 pixels; one side may be 8 times the other"
    );
    let plain = Fixture::open("turbo");
    let options = || Options { storage: None, device: Device::Cpu, keep: Keep::All, packed: None };
    let mut turbo = Pipeline::open(plain.layout(), options()).unwrap();
    assert!(!turbo.takes_references() && pipeline.takes_references());
    let case = fixture.cases(&["omni"]).into_iter().find(|case| case.id == "edit").unwrap();
    let good = request(&fixture, &case, &pipeline);
    let refused = turbo.generate(&good, &[], &Interrupt::default(), &quiet()).err().unwrap();
    assert_eq!(
        refused.to_string(),
        "`references` need a model that sees pictures (Z-Image-Omni, Z-Image-Edit), and this one does not"
    );
    let many = vec![good.references[0].clone(); REFERENCES_MAX + 1];
    let mut omni = pipeline;
    let many = Request { references: many, ..good };
    let refused = omni.generate(&many, &[], &Interrupt::default(), &quiet()).err().unwrap();
    assert_eq!(refused.to_string(), "`references` are 17; the most is 16");

    let mut layout = fixture.layout();
    layout.vision_config = None;
    let blind = Pipeline::open(layout, options()).unwrap();
    let missing = blind.fit(100, 100, None).unwrap_err().to_string();
    assert!(missing.contains("the vision tower are missing"), "{missing}");
    let _ = Unwatched;
}
