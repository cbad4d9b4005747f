//! Expanded prompts, as users meet them: on the command line, by fal's form and by OpenAI's.

#![allow(clippy::unwrap_used)]

mod served;

use serde_json::{Value, json};
use served::{Server, zoetrope};

const BRIEF: &str = "a red house, at night";

#[test]
fn the_command_line_draws_what_the_prompt_was_expanded_to_and_keeps_both() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    let file = path.to_str().unwrap();
    let small = ["--size", "64x64", "--steps", "1", "--seed", "5", "--json", "-o", file];
    let draw = |prompt: &str, more: &[&str]| -> Value {
        let done = zoetrope(&[&["generate", prompt], &small[..], more].concat());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    };
    let expanded = draw(BRIEF, &["--expand"]);
    let text = expanded["prompt"].as_str().unwrap().to_string();
    assert_eq!(expanded["expanded_from"], BRIEF);
    assert!(text.len() > BRIEF.len() && text.contains("house"), "{text}");
    let pixels = || image::open(&path).unwrap().into_rgb8();
    let first = pixels();
    let info = zoetrope(&["info", file]);
    let shown = String::from_utf8(info.stdout).unwrap();
    assert!(shown.contains(&text) && shown.contains(BRIEF), "{shown}");
    // The file's prompt makes the same picture by itself.
    let again = draw(&text, &[]);
    assert_eq!(again["expanded_from"], Value::Null);
    assert_eq!(pixels(), first);

    for (option, value, says) in [
        ("--expand-temperature", "3", "between 0 and 2"),
        ("--expand-tokens", "0", "between 1 and 512"),
        ("--expand-system-prompt", "@/nowhere", "/nowhere"),
    ] {
        let wrong = zoetrope(&["generate", BRIEF, "--expand", option, value]);
        let said = String::from_utf8_lossy(&wrong.stderr).to_string();
        assert!(!wrong.status.success() && said.contains(says), "{said}");
    }
}

#[test]
fn a_server_expands_tells_the_words_and_answers_with_them() {
    let server = Server::start(&[]);
    let input = json!({"prompt": BRIEF, "image_size": {"width": 64, "height": 64}, "num_inference_steps": 1, "seed": 5,
        "enable_prompt_expansion": true});
    let (_, submitted) = server.post("/queue/fal-ai/z-image/turbo", &input);
    let id = submitted["request_id"].as_str().unwrap();
    let result = server.result(id);
    let text = result["prompt"].as_str().unwrap();
    assert!(text.len() > BRIEF.len() && text.contains("house"), "{text}");
    let (_, status) = server.get(&format!("/queue/fal-ai/z-image/requests/{id}/status?logs=1"));
    let logs = status["logs"].as_array().unwrap();
    let said = logs.iter().filter_map(|log| log["message"].as_str()?.strip_prefix("Prompt: "));
    assert_eq!(said.collect::<Vec<_>>().join(" "), text, "{logs:?}");
    // The same seed, the same words.
    let (_, again) = server.post("/run/fal-ai/z-image/turbo", &input);
    assert_eq!(again["prompt"], text);

    let body = json!({"model": "z-image-turbo", "prompt": BRIEF, "size": "64x64", "num_inference_steps": 1, "seed": 5});
    let (status, plain) = server.post("/v1/images/generations", &body);
    assert_eq!((status, &plain["data"][0]["revised_prompt"]), (200, &Value::Null), "{plain}");
    let mut expanded = body;
    expanded["enable_prompt_expansion"] = true.into();
    let (status, answer) = server.post("/v1/images/generations", &expanded);
    assert_eq!((status, &answer["data"][0]["revised_prompt"]), (200, &json!(text)), "{answer}");
}
