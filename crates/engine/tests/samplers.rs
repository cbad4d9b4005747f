//! Samplers against diffusers' schedulers, step by step.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;
use common::{Fixture, read_tensors};
use zoetrope_api::{Guidance, Sampler};
use zoetrope_checkpoint::Role;
use zoetrope_engine::Unwatched;
use zoetrope_engine::config::SchedulerConfig;
use zoetrope_engine::networks::Transformer;
use zoetrope_engine::networks::transformer::Caption;
use zoetrope_engine::sampler::{Conditioning, Method, Run, Start};
use zoetrope_engine::schedule::Schedule;

fn relative(got: &Tensor, want: &Tensor) -> f32 {
    let square = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    (square(&(got - want).unwrap()) / square(want)).sqrt()
}

fn alone(caption: Caption) -> Conditioning {
    let (positive, negative, guidance) = (vec![caption], Vec::new(), Guidance::OFF);
    Conditioning { positive, negative, guidance, control: None }
}

fn steps(
    transformer: &Transformer,
    conditioning: &Conditioning,
    (sampler, schedule): (Sampler, &Schedule),
    noise: &Tensor,
) -> Vec<Tensor> {
    let method = Method { sampler, tiling: None };
    let start = (noise.clone(), Start::Noise);
    let run = Run::with(method, transformer, conditioning, schedule, start, &Unwatched).unwrap();
    run.map(|step| step.unwrap().latents).collect()
}

#[test]
fn every_step_of_every_sampler_is_diffusers_s() {
    let file = "../../tests/fixtures/samplers/turbo.safetensors";
    let recorded: HashMap<String, Tensor> =
        read_tensors(&Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
    let fixture = Fixture::open("turbo");
    let config = fixture.config("transformer/config.json");
    let transformer = Transformer::load(&fixture.parameters(Role::Transformer), &config).unwrap();
    let conditioning = alone(transformer.caption(&recorded["features"], &Unwatched).unwrap());
    let cases = [
        ("heun", Sampler::Heun),
        ("dpmpp_2m", Sampler::DpmPlusPlus2M),
        ("dpmpp_2m_below", Sampler::DpmPlusPlus2M),
        ("unipc", Sampler::UniPc),
    ];
    for (case, sampler) in cases {
        let levels: Vec<f32> = recorded[&format!("{case}.sigmas")].to_vec1().unwrap();
        let schedule = Schedule::from_stops(&SchedulerConfig::with_shift(1.0), &levels, 0);
        let got = steps(&transformer, &conditioning, (sampler, &schedule), &recorded["noise"]);
        let want = &recorded[&format!("{case}.steps")];
        assert_eq!(got.len(), want.dim(0).unwrap());
        for (i, got) in got.iter().enumerate() {
            let off = relative(got, &want.get(i).unwrap());
            assert!(off < 2e-5, "{case}, step {i}: {off:.2e}");
        }
    }
}
