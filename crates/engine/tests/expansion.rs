//! The text encoder as a language model, against transformers' greedy generation as `tests/fixtures/expansion/record.py` recorded it.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Arc, Mutex};

use candle_core::Tensor;
use common::Fixture;
use zoetrope_api::{Acceleration, Count, Guidance, ImageSize, Seed, Steps};
use zoetrope_checkpoint::{Layout, Role};
use zoetrope_engine::config::TextEncoderConfig;
use zoetrope_engine::expand::{Expansion, answer};
use zoetrope_engine::networks::TextEncoder;
use zoetrope_engine::networks::text_encoder::Depth;
use zoetrope_engine::pipeline::{Event, Keep, Listener, Options, Pipeline, Request, Source};
use zoetrope_engine::prompt::PromptTokenizer;
use zoetrope_engine::{Interrupt, Unwatched};

fn model(fixture: &Fixture) -> TextEncoder {
    let config: TextEncoderConfig = fixture.config("text_encoder/config.json");
    let parameters = fixture.parameters(Role::TextEncoder);
    TextEncoder::load(&parameters, &config.check().unwrap(), Depth::Full).unwrap()
}

fn tokenizer(fixture: &Fixture) -> PromptTokenizer {
    PromptTokenizer::new(&fixture.layout().tokenizer_json().unwrap()).unwrap()
}

#[test]
fn answers_are_transformers_greedy_ones() {
    let recorded = Fixture::open("expansion");
    for case in recorded.cases(&["expansion"]) {
        let fixture = Fixture::open(&case.id);
        let (model, tokenizer) = (model(&fixture), tokenizer(&fixture));
        for (key, texts) in case.params()["prompts"].as_object().unwrap() {
            let (system, prompt) = (texts[0].as_str().unwrap(), texts[1].as_str().unwrap());
            let chat = PromptTokenizer::expansion_chat(system, prompt);
            assert_eq!(chat, case.json["facts"]["chat"][key].as_str().unwrap());
            let question: Vec<u32> = case.input(&format!("question.{key}")).to_vec1().unwrap();
            let want: Vec<u32> = case.input(&format!("answer.{key}")).to_vec1().unwrap();

            // Token by token with the recorded answer, every logit.
            let mut past = model.past(question.len() + want.len());
            let mut logits = vec![model.next(&question, &mut past, &Unwatched).unwrap()];
            for token in &want[..want.len() - 1] {
                logits.push(model.next(&[*token], &mut past, &Unwatched).unwrap());
            }
            assert_eq!(past.tokens(), question.len() + want.len() - 1);
            case.check(&format!("logits.{key}"), &Tensor::stack(&logits, 0).unwrap());

            let expansion = Expansion {
                system_prompt: system.into(),
                temperature: 0.0,
                tokens_max: case.params()["tokens_max"].as_u64().unwrap() as usize,
            };
            let (ends, watch) = (tokenizer.ends(), Interrupt::default());
            let got = answer(&model, &question, (&expansion, &ends), Seed(1), &watch, &mut |_| {})
                .unwrap();
            let of_ends = want.iter().position(|id| ends.contains(id));
            assert_eq!(got.ids, want[..of_ends.unwrap_or(want.len())], "{} {key}", case.id);
            assert_eq!(got.finished, of_ends.is_some());
        }
    }
}

#[test]
fn a_text_seen_in_pieces_is_the_text_seen_at_once() {
    let fixture = Fixture::open("turbo");
    let model = model(&fixture);
    let ids: Vec<u32> = (3..40).collect();
    let mut at_once = model.past(ids.len());
    let want: Vec<f32> = model.next(&ids, &mut at_once, &Unwatched).unwrap().to_vec1().unwrap();
    for pieces in [1, 5, 36] {
        let mut past = model.past(ids.len());
        let mut got = Vec::new();
        for piece in ids.chunks(pieces) {
            got = model.next(piece, &mut past, &Unwatched).unwrap().to_vec1().unwrap();
        }
        let worst =
            got.iter().zip(&want).map(|(g, w): (&f32, &f32)| (g - w).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4, "pieces of {pieces}: {worst}");
    }
    let mut small = model.past(10);
    let error = model.next(&ids, &mut small, &Unwatched).unwrap_err().to_string();
    assert!(error.contains("10 tokens"), "{error}");
}

#[test]
fn features_are_the_same_bits_whatever_else_is_loaded() {
    let fixture = Fixture::open("turbo");
    let config: TextEncoderConfig = fixture.config("text_encoder/config.json");
    let features = |depth| {
        let parameters = fixture.parameters(Role::TextEncoder);
        let model =
            TextEncoder::load(&parameters, &config.clone().check().unwrap(), depth).unwrap();
        model.forward(&[1, 2, 3, 4, 5], &Unwatched).unwrap().to_vec2::<f32>().unwrap()
    };
    assert_eq!(features(Depth::Features), features(Depth::Full));
}

fn pipeline(keep: Keep) -> Pipeline {
    let demo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    let layout = Layout::locate(&demo, None, None).unwrap();
    let device = candle_core::Device::Cpu;
    Pipeline::open(layout, Options { storage: None, device, keep, packed: None }).unwrap()
}

fn request(prompt: &str, seed: u64, expansion: Option<Expansion>) -> Request {
    Request {
        prompt: prompt.into(),
        negative_prompt: None,
        size: ImageSize::new(64, 64).unwrap(),
        steps: Steps::new(2).unwrap(),
        seed: Seed(seed),
        count: Count::new(1).unwrap(),
        guidance: Guidance::new(0.0, 0.0, 1.0).unwrap(),
        source: Source::Text,
        tokens_max: 512,
        controls: zoetrope_api::Controls::default(),
        acceleration: Acceleration::default(),
        previews: false,
        expansion,
        control: None,
        references: Vec::new(),
    }
}

/// How the embedded model is asked.
fn expansion(temperature: f64) -> Expansion {
    let demo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo/demo.json");
    let demo: serde_json::Value = serde_json::from_slice(&std::fs::read(demo).unwrap()).unwrap();
    let system_prompt = demo["expansion"]["system_prompt"].as_str().unwrap().into();
    Expansion { system_prompt, temperature, tokens_max: 96 }
}

#[test]
fn an_expanded_prompt_follows_from_the_seed_is_told_as_it_grows_and_draws_what_it_says() {
    let told = Arc::new(Mutex::new(String::new()));
    let heard = told.clone();
    let on: Listener = Arc::new(move |event| {
        if let Event::Words { text } = event {
            heard.lock().unwrap().push_str(text);
        }
    });
    for keep in [Keep::All, Keep::OneAtATime] {
        let mut pipeline = pipeline(keep);
        let watch = Interrupt::default();
        let mut draw = |request: &Request| {
            told.lock().unwrap().clear();
            let made = pipeline.generate(request, &[], &watch, &on).unwrap();
            (made.expanded, made.pictures[0].bytes.clone())
        };
        let asked = |seed| request("a red house, at night", seed, Some(expansion(2.0)));
        let (first, picture) = draw(&asked(1));
        let text = first.clone().unwrap();
        assert_eq!(told.lock().unwrap().trim(), text);
        assert_eq!(draw(&asked(1)), (first.clone(), picture.clone()));
        assert_ne!(draw(&asked(2)).0, first);
        assert_eq!(draw(&request(&text, 1, None)), (None, picture));
    }
}

#[test]
fn a_prompt_too_long_to_be_expanded_says_so() {
    let long = "a red house, ".repeat(1000);
    let mut pipeline = pipeline(Keep::All);
    let on: Listener = Arc::new(|_| ());
    let asked = request(&long, 1, Some(expansion(0.0)));
    let error = pipeline.generate(&asked, &[], &Interrupt::default(), &on).err().unwrap();
    assert!(error.to_string().contains("1536"), "{error}");
    let stopped = Interrupt::default();
    stopped.stop();
    let asked = request("a house", 1, Some(expansion(0.0)));
    assert!(pipeline.expand(&asked, &stopped, &on).is_err());
}
