//! Every network-level case that was recorded from the reference: tokens, text encoder, transformer, autoencoder,
//! schedule, noise and pixels, stage by stage.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use candle_core::{DType, Tensor};
use common::{Case, FIXTURES, Fixture, Recorder, device};
use zoetrope_api::{ImageSize, Seed};
use zoetrope_checkpoint::{Blob, Role, Storage, Weights};
use zoetrope_engine::config::{
    SchedulerConfig, TextEncoderConfig, TinyConfig, TransformerConfig, VaeConfig,
};
use zoetrope_engine::layers::{Parameters, RopeTable};
use zoetrope_engine::networks::text_encoder::Depth;
use zoetrope_engine::networks::transformer;
use zoetrope_engine::networks::vae::Passage;
use zoetrope_engine::networks::{TextEncoder, TinyDecoder, Transformer, Vae};
use zoetrope_engine::noise::Generator;
use zoetrope_engine::pixels;
use zoetrope_engine::prompt::PromptTokenizer;
use zoetrope_engine::schedule::{Schedule, linspace};
use zoetrope_engine::{Result, Unwatched, Watch};
use zoetrope_kernels::Wrap;

fn tokenizer(fixture: &Fixture) -> PromptTokenizer {
    PromptTokenizer::new(&fixture.layout().tokenizer_json().unwrap()).unwrap()
}

fn text_encoder(fixture: &Fixture, depth: Depth) -> TextEncoder {
    let config: TextEncoderConfig = fixture.config("text_encoder/config.json");
    TextEncoder::load(&fixture.parameters(Role::TextEncoder), &config.check().unwrap(), depth)
        .unwrap()
}

fn transformer(fixture: &Fixture) -> Transformer {
    let config: TransformerConfig = fixture.config("transformer/config.json");
    Transformer::load(&fixture.parameters(Role::Transformer), &config.check().unwrap()).unwrap()
}

fn vae(fixture: &Fixture) -> Vae {
    let config: VaeConfig = fixture.config("vae/config.json");
    Vae::load(&fixture.parameters(Role::Vae), &config.check().unwrap()).unwrap()
}

/// Runs `check` on every case of `kind` in every fixture, and fails if there is none.
fn every(kind: &str, check: impl Fn(&Fixture, &Case)) {
    let mut seen = 0;
    for name in FIXTURES {
        let fixture = Fixture::open(name);
        for case in fixture.cases(&[kind]) {
            check(&fixture, &case);
            seen += 1;
        }
    }
    assert!(seen > 0, "no case of kind {kind}");
}

#[test]
fn prompts_become_the_reference_s_tokens() {
    every("tokens", |fixture, case| {
        let tokenizer = tokenizer(fixture);
        let most = case.params()["max_sequence_length"].as_u64().unwrap() as usize;
        for key in case.params()["prompts"].as_array().unwrap() {
            let key = key.as_str().unwrap();
            let want: Vec<u32> = case.input(&format!("ids.{key}")).to_vec1().unwrap();
            let mask: Vec<u32> = case.input(&format!("mask.{key}")).to_vec1().unwrap();
            let real = mask.iter().filter(|m| **m == 1).count();
            let got = tokenizer.encode(&fixture.prompt(key), most).unwrap();
            assert_eq!(got.ids, want[..real], "{} {key}", case.id);
            if let Some(chat) = case.json["facts"]["chat"][key].as_str() {
                assert_eq!(PromptTokenizer::chat(&fixture.prompt(key)), chat);
            }
        }
    });
}

#[test]
fn caption_features_are_the_reference_s() {
    every("embeds", |fixture, case| {
        let (tokenizer, encoder) = (tokenizer(fixture), text_encoder(fixture, Depth::Features));
        for key in case.params()["prompts"].as_array().unwrap() {
            let key = key.as_str().unwrap();
            let tokens = tokenizer.encode(&fixture.prompt(key), 512).unwrap();
            case.check(
                &format!("embeds.{key}"),
                &encoder.forward(&tokens.ids, &Unwatched).unwrap(),
            );
        }
    });
}

#[test]
fn every_layer_of_the_text_encoder_is_the_reference_s() {
    every("text_trace", |fixture, case| {
        let (encoder, recorder) = (text_encoder(fixture, Depth::Full), Recorder::default());
        let ids: Vec<u32> = case.input("ids").to_vec1().unwrap();
        encoder.next(&ids, &mut encoder.past(ids.len()), &recorder).unwrap();
        let stages = recorder.stages();
        assert!(stages.len() > 2);
        for (name, value) in stages {
            case.check(&name, &value.squeeze(0).unwrap());
        }
    });
}

#[test]
fn time_becomes_the_reference_s_embedding() {
    every("timestep", |fixture, case| {
        let t: Vec<f32> = case.input("t").to_vec1().unwrap();
        let scaled: Vec<f32> = t.iter().map(|t| t * 1000.0).collect();
        case.check("sinusoid", &transformer::sinusoid(&scaled, &device()).unwrap());
        let network = transformer(fixture);
        for (i, t) in t.iter().enumerate() {
            let recorder = Recorder::default();
            let config: TransformerConfig = fixture.config("transformer/config.json");
            let caption = Tensor::zeros((1, config.cap_feat_dim), DType::F32, &device()).unwrap();
            let caption = network.caption(&caption, &Unwatched).unwrap();
            let latents = Tensor::zeros((16, 2, 2), DType::F32, &device()).unwrap();
            let batch = network.batch([(&caption, (2, 2))]).unwrap();
            network.forward(&batch, &[latents], f64::from(*t), None, &recorder).unwrap();
            let got = recorder.stages()["t_embedding"].get(0).unwrap();
            let want = case.input("embedding").get(i).unwrap();
            let worst =
                (got - want).unwrap().abs().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
            let allowed = case.json["outputs"]["embedding"]["atol"].as_f64().unwrap();
            assert!(f64::from(worst) <= allowed, "{} t {t}: {worst}", case.id);
        }
    });
}

#[test]
fn rotary_angles_are_the_reference_s() {
    every("rope", |fixture, case| {
        let config: TransformerConfig = fixture.config("transformer/config.json");
        let table = RopeTable::new(config.rope_theta, config.axes_dims, config.axes_lens);
        let ids: Vec<Vec<u32>> = case.input("ids").to_vec2().unwrap();
        let positions: Vec<[usize; 3]> =
            ids.iter().map(|p| [p[0], p[1], p[2]].map(|v| v as usize)).collect();
        let angles = table.angles(&positions, &device()).unwrap();
        case.check("cos", &angles.cos);
        case.check("sin", &angles.sin);
    });
}

/// Runs a recorded call of the transformer. Pictures of one time go through it together, as they do in pipelines; the
/// reference takes several times at once.
fn run(network: &Transformer, case: &Case, watch: &dyn Watch) -> Vec<Tensor> {
    let t: Vec<f32> = case.input("t").to_vec1().unwrap();
    let latents: Vec<Tensor> =
        (0..t.len()).map(|i| case.input(&format!("latents.{i}")).squeeze(1).unwrap()).collect();
    let captions: Vec<_> = (0..t.len())
        .map(|i| network.caption(case.input(&format!("caps.{i}")), watch).unwrap())
        .collect();
    let mut velocities = vec![None; t.len()];
    for time in &t {
        let members: Vec<usize> = (0..t.len()).filter(|i| t[*i] == *time).collect();
        let latents: Vec<_> = members.iter().map(|i| latents[*i].clone()).collect();
        let sizes = latents.iter().map(|x| x.dims3().map(|(_, height, width)| (height, width)));
        let captions = members.iter().map(|i| &captions[*i]);
        let batch = network.batch(captions.zip(sizes.map(Result::unwrap))).unwrap();
        let together = network.forward(&batch, &latents, f64::from(*time), None, watch).unwrap();
        members.into_iter().zip(together).for_each(|(i, v)| velocities[i] = Some(v));
    }
    velocities.into_iter().map(Option::unwrap).collect()
}

#[test]
fn velocities_are_the_reference_s_alone_and_in_batches() {
    every("transformer", |fixture, case| {
        for (i, out) in run(&transformer(fixture), case, &Unwatched).into_iter().enumerate() {
            case.check(&format!("out.{i}"), &out.unsqueeze(1).unwrap());
        }
    });
}

/// Nobody sees the others of a batch, whatever their sizes and the lengths of their captions.
#[test]
fn velocities_do_not_depend_on_the_rest_of_the_batch() {
    let fixture = Fixture::open("turbo");
    let network = transformer(&fixture);
    let config: TransformerConfig = fixture.config("transformer/config.json");
    let random =
        |shape: &[usize], seed| Generator::new(Seed(seed)).normal(shape, &device()).unwrap();
    let captions = [5, 40, 64].map(|tokens| {
        let features = random(&[tokens, config.cap_feat_dim], tokens as u64);
        network.caption(&features, &Unwatched).unwrap()
    });
    let sizes = [(4, 6), (8, 8), (4, 6)];
    let latents = [0, 1, 2].map(|i| random(&[16, sizes[i].0, sizes[i].1], i as u64));
    let batch = network.batch(captions.iter().zip(sizes)).unwrap();
    let together = network.forward(&batch, &latents, 0.3, None, &Unwatched).unwrap();
    for i in 0..3 {
        let alone = network.batch([(&captions[i], sizes[i])]).unwrap();
        let alone = network.forward(&alone, &latents[i..=i], 0.3, None, &Unwatched).unwrap();
        let off = (&together[i] - &alone[0]).unwrap().abs().unwrap();
        let worst = off.flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
        assert!(worst < 1e-5, "picture {i}: {worst}");
    }
}

#[test]
fn every_stage_of_the_transformer_is_the_reference_s() {
    every("transformer_trace", |fixture, case| {
        let recorder = Recorder::default();
        let out = run(&transformer(fixture), case, &recorder).remove(0);
        let mut compared = 0;
        for (name, value) in recorder.stages() {
            if case.has(&name) {
                let value = if value.rank() == 3 { value.squeeze(0).unwrap() } else { value };
                // Rows that the reference computes and throws away are not computed here.
                let rows = matches!(name.as_str(), "x_embedded" | "cap_embedded" | "final_layer");
                case.check_rows(&name, &value, rows.then(|| value.dim(0).unwrap()));
                compared += 1;
            }
        }
        case.check("out", &out.unsqueeze(1).unwrap());
        let stages = case.json["outputs"].as_object().unwrap().keys();
        let stages =
            stages.filter(|k| !k.ends_with("_ids") && !k.ends_with("_mask") && *k != "out").count();
        assert_eq!(compared, stages, "{}: stages compared", case.id);

        let (_, _, height, width) = case.input("latents.0").dims4().unwrap();
        let caption: Vec<Vec<u32>> = case.input("caption_position_ids").to_vec2().unwrap();
        let padded = case.input("caption_pad_mask").dim(0).unwrap();
        let image: Vec<Vec<u32>> = case.input("image_position_ids").to_vec2().unwrap();
        let same = |got: Vec<[usize; 3]>, want: &[Vec<u32>]| {
            let got: Vec<Vec<u32>> =
                got.iter().map(|p| p.iter().map(|v| *v as u32).collect()).collect();
            assert_eq!(got, want, "{}", case.id);
        };
        same(transformer::caption_positions(padded), &caption[..padded]);
        same(transformer::image_positions(height / 2, width / 2, padded + 1), &image);
    });
}

#[test]
fn every_stage_of_the_encoder_is_the_reference_s() {
    every("vae_encode", |fixture, case| {
        let (network, recorder) = (vae(fixture), Recorder::default());
        let posterior = network.encode(case.input("image"), &recorder).unwrap();
        let stages = recorder.stages();
        for (name, value) in stages.iter().filter(|(name, _)| case.has(name)) {
            case.check(name, value);
        }
        case.check("mean", &posterior.mean);
        case.check("logvar", &posterior.logvar);
        case.check("latents", &network.scale(&posterior.mean).unwrap());
    });
}

#[test]
fn every_stage_of_the_decoder_is_the_reference_s() {
    every("vae_decode", |fixture, case| {
        let (network, recorder) = (vae(fixture), Recorder::default());
        let image = network.decode(case.input("latents"), &recorder).unwrap();
        let stages = recorder.stages();
        for (name, value) in stages.iter().filter(|(name, _)| case.has(name)) {
            case.check(name, value);
        }
        case.check("image", &image);
    });
}

/// Strips of all heights, also such that a strip sees three others, leave no trace.
#[test]
fn decoding_in_strips_gives_the_same_picture() {
    every("vae_decode", |fixture, case| {
        let network = vae(fixture);
        let whole = network.decode(case.input("latents"), &Unwatched).unwrap();
        let size = whole.elem_count() / whole.dim(0).unwrap();
        for most in [1, 40 * size, 200 * size] {
            let passage = Passage { values_max: Some(most), ..Passage::default() };
            let strips = network.decode_by(case.input("latents"), passage, &Unwatched).unwrap();
            case.check("image", &strips);
            let off = worst(&strips, &whole);
            assert!(off < 2e-5, "{} {most}: {off}", case.id);
        }
    });
}

fn worst(a: &Tensor, b: &Tensor) -> f32 {
    let off = (a - b).unwrap().abs().unwrap();
    off.max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn encoding_in_strips_gives_the_same_latents() {
    every("vae_encode", |fixture, case| {
        let network = vae(fixture);
        let image = case.input("image");
        let size = image.elem_count() / image.dim(0).unwrap();
        for most in [1, 40 * size, 200 * size] {
            let passage = Passage { values_max: Some(most), ..Passage::default() };
            let posterior = network.encode_by(image, passage, &Unwatched).unwrap();
            case.check("mean", &posterior.mean);
            case.check("logvar", &posterior.logvar);
        }
    });
}

const WRAPS: [Wrap; 3] = [
    Wrap { rows: true, columns: false },
    Wrap { rows: false, columns: true },
    Wrap { rows: true, columns: true },
];

/// Where edges meet, no place is an edge: a picture that is shifted around is encoded and decoded as one that is not.
#[test]
fn pictures_whose_edges_meet_may_be_shifted_around() {
    every("vae_decode", |fixture, case| {
        let (network, latents) = (vae(fixture), case.input("latents"));
        for wrap in WRAPS {
            let (down, across) = (i32::from(wrap.rows), i32::from(wrap.columns));
            let shifted =
                |x: &Tensor, by: i32| x.roll(by * down, 2).unwrap().roll(by * across, 3).unwrap();
            let passage = Passage { wrap, values_max: None };
            let decode = |x: &Tensor, passage| network.decode_by(x, passage, &Unwatched).unwrap();
            let image = decode(latents, passage);
            let off = worst(&decode(&shifted(latents, 1), passage), &shifted(&image, 8));
            assert!(off < 2e-4, "{} {wrap:?}: {off}", case.id);
            assert!(worst(&decode(latents, Passage::default()), &image) > 1e-3, "{}", case.id);
            let encode =
                |x: &Tensor, passage| network.encode_by(x, passage, &Unwatched).unwrap().mean;
            let off =
                worst(&encode(&shifted(&image, 8), passage), &shifted(&encode(&image, passage), 1));
            assert!(off < 2e-4, "{} {wrap:?}: {off}", case.id);
            for most in [1, 40 * image.elem_count()] {
                let strips = Passage { wrap, values_max: Some(most) };
                let off = worst(&decode(latents, strips), &image);
                assert!(off < 2e-5, "{} {wrap:?} {most}: {off}", case.id);
                let off = worst(&encode(&image, strips), &encode(&image, passage));
                assert!(off < 2e-4, "{} {wrap:?} {most}: {off}", case.id);
            }
        }
    });
}

#[test]
fn pixels_round_as_in_the_reference() {
    every("postprocess", |_, case| {
        let pictures = pixels::to_pictures(case.input("image")).unwrap();
        case.check_picture(0, &pictures[0].bytes);
    });
}

#[test]
fn masks_reach_the_latents_as_in_the_reference() {
    every("preprocess", |_, case| {
        let recorded = case.json["outputs"].as_object().unwrap().keys();
        for name in recorded.filter_map(|k| k.strip_prefix("mask.")) {
            let mask = case.input(&format!("mask.{name}"));
            let (_, _, height, width) = mask.dims4().unwrap();
            let values = mask.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let bytes: Vec<u8> = values.iter().map(|v| (v * 255.0) as u8).collect();
            let size = ImageSize::new(width as u32, height as u32).unwrap();
            let got = pixels::mask_to_latent(&bytes, size, &device()).unwrap();
            case.check(&format!("mask_latent.{name}"), &got);
        }
    });
}

#[test]
fn schedules_are_the_reference_s() {
    every("scheduler", |_, case| {
        let check = |name: &str, schedule: &Schedule| {
            let steps = schedule.steps();
            let sigmas = Tensor::new(schedule.sigmas(), &device()).unwrap();
            case.check(&format!("{name}.sigmas"), &sigmas);
            let timesteps: Vec<f32> = (0..steps).map(|i| schedule.timestep(i)).collect();
            case.check(&format!("{name}.timesteps"), &Tensor::new(timesteps, &device()).unwrap());
        };
        for shift in case.params()["shifts"].as_array().unwrap() {
            let shift = shift.as_f64().unwrap();
            let config = SchedulerConfig::with_shift(shift);
            for steps in case.params()["steps"].as_array().unwrap() {
                let steps = steps.as_u64().unwrap() as usize;
                check(&format!("shift{shift}.steps{steps}"), &Schedule::new(&config, steps, 0));
                let older = format!("older.shift{shift}.steps{steps}");
                if case.has(&format!("{older}.sigmas")) {
                    // Before diffusers 0.39 the stops ran down to 0.
                    check(&older, &Schedule::from_stops(&config, &linspace(1.0, 0.0, steps), 0));
                }
            }
        }
        for item in case.params()["dynamic"].as_array().unwrap() {
            let kind = item["type"].as_str().unwrap();
            let (tokens, steps) =
                (item["image_tokens"].as_u64().unwrap(), item["steps"].as_u64().unwrap());
            let config: SchedulerConfig = serde_json::from_value(
                serde_json::json!({"use_dynamic_shifting": true, "time_shift_type": kind}),
            )
            .unwrap();
            let schedule = Schedule::new(&config.check().unwrap(), steps as usize, tokens as usize);
            check(&format!("dynamic.{kind}.tokens{tokens}.steps{steps}"), &schedule);
        }
    });
}

#[test]
fn noise_is_torch_s() {
    every("noise", |_, case| {
        let recorded = case.json["outputs"].as_object().unwrap();
        for name in recorded.keys().filter(|k| k.starts_with("seed")) {
            let [seed, shape, dtype] = name.split('.').collect::<Vec<_>>()[..] else {
                panic!("{name}")
            };
            let shape: Vec<usize> = shape.split('x').map(|n| n.parse().unwrap()).collect();
            let seed = Seed(seed.strip_prefix("seed").unwrap().parse().unwrap());
            let got = Generator::new(seed).normal(&shape, &device()).unwrap();
            if dtype == "f32" {
                case.check(name, &got);
            } else {
                check_rounded(case, name, &got);
            }
        }
        let list = &case.params()["list"];
        let numbers = |v: &serde_json::Value| {
            v.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect::<Vec<_>>()
        };
        let shape: Vec<usize> = numbers(&list["shape"]).iter().map(|n| *n as usize).collect();
        let rows: Vec<Tensor> = numbers(&list["seeds"])
            .into_iter()
            .map(|seed| {
                Generator::new(Seed(seed)).normal(&[&[1], &shape[1..]].concat(), &device()).unwrap()
            })
            .collect();
        case.check("list", &Tensor::cat(&rows, 0).unwrap());
        let consecutive = &case.params()["consecutive"];
        let mut generator = Generator::new(Seed(consecutive["seed"].as_u64().unwrap()));
        for (i, shape) in consecutive["shapes"].as_array().unwrap().iter().enumerate() {
            let shape: Vec<usize> = numbers(shape).iter().map(|n| *n as usize).collect();
            case.check(&format!("consecutive.{i}"), &generator.normal(&shape, &device()).unwrap());
        }
    });
}

/// bfloat16 noise is the float32 noise rounded; a tie may fall the other way by the float32 noise's last digit.
fn check_rounded(case: &Case, name: &str, got: &Tensor) {
    let flat = |t: &Tensor| {
        t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let (got, want) = (flat(&got.to_dtype(DType::BF16).unwrap()), flat(case.input(name)));
    for (g, w) in got.iter().zip(&want) {
        assert!((g - w).abs() <= w.abs() / 128.0, "{} {name}: {g} is not {w}", case.id);
    }
    let other = got.iter().zip(&want).filter(|(g, w)| g != w).count();
    assert!(
        other * 1000 <= got.len(),
        "{} {name}: {other} of {} round otherwise",
        case.id,
        got.len()
    );
}

#[test]
fn the_decoder_for_previews_is_diffusers_s() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/taef1");
    let config = std::fs::read(root.join("model/config.json")).unwrap();
    let config: TinyConfig = zoetrope_engine::config::parse("config.json", &config).unwrap();
    let file = Blob::File(root.join("model/diffusion_pytorch_model.safetensors"));
    let weights = Weights::open(&[file], Role::Vae).unwrap().with_storage(Storage::F32);
    let parameters = Parameters::new(weights, &device());
    let config = config.check(16).unwrap();
    let network = TinyDecoder::load(&parameters, &config).unwrap();
    let golden = common::read_tensors(&root.join("golden.safetensors"));
    let image = network.decode(&golden["latents"], &Unwatched).unwrap();
    assert_eq!(image.dims(), golden["image"].dims());
    let off = worst(&image, &golden["image"]);
    assert!(off < 2e-5, "{off}");
    assert!(config.check(4).unwrap_err().to_string().contains("16 channels; the model's have 4"));
}
