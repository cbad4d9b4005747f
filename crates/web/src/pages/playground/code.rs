//! `/playground/code/{id}`: what is filled in as programs, for fal's clients, for OpenAI's, and as a command.

use axum::extract::{Path, Request};
use maud::{Markup, html};
use serde_json::{Map, Value, json};
use zoetrope_api::NAMED_SIZES;
use zoetrope_api::fal::field::fields;
use zoetrope_api::fal::{Draws, Endpoint, Makes};
use zoetrope_api::task::Model;

use super::form::endpoint;
use crate::fault::Fault;
use crate::form::receive;
use crate::icons::{self, icon};
use crate::layout::{Page, Tab, page};
use crate::text::common::Common;
use crate::text::playground::Playground;
use crate::visitor::Visitor;

pub(super) async fn show(
    visitor: Visitor,
    Path(id): Path<String>,
    sent: Request,
) -> Result<Markup, Fault> {
    let endpoint = endpoint(&id)?;
    // Files are not kept for this: their place in the program is for the reader to fill in.
    let filled = receive(sent).await?.filled;
    let input = filled.input(endpoint, &visitor.origin.files);
    let shown = sheet(&visitor, endpoint, &input);
    if visitor.look.partial {
        return Ok(shown);
    }
    let title = Playground::of(visitor.look.language).code_title;
    Ok(page(&visitor.look, Page { title, tab: Some(Tab::Playground), scripts: &[], body: shown }))
}

fn sheet(visitor: &Visitor, endpoint: &Endpoint, input: &Value) -> Markup {
    let (words, common) =
        (Playground::of(visitor.look.language), Common::of(visitor.look.language));
    html! {
        div.head {
            h2 #code-title { (words.code_title) }
            button.square.push.scripted type="button" data-closes aria-label=(common.close) { (icon(icons::CROSS)) }
        }
        (programs(visitor, endpoint, input))
    }
}

/// The programs that ask `endpoint` for `input`.
pub(crate) fn programs(visitor: &Visitor, endpoint: &Endpoint, input: &Value) -> Markup {
    let language = visitor.look.language;
    let (words, common) = (Playground::of(language), Common::of(language));
    let base = &visitor.origin.run;
    html! {
        p.help { (words.code_key) }
        (part("fal", common, &fal(endpoint, input, base)))
        @match openai_body(endpoint, input) {
            Some(body) => (part("OpenAI", common, &of_openai(&body, base))),
            None => { h3 { "OpenAI" } p.soft { (words.code_no_openai) } }
        }
        (part("CLI", common, &[("Shell", command(endpoint, input))]))
    }
}

fn part(title: &str, words: &Common, programs: &[(&str, String)]) -> Markup {
    html! {
        h3 { (title) }
        @for (language, text) in programs {
            @let id = format!("code-{}-{}", title.to_ascii_lowercase(), language.to_ascii_lowercase());
            details.code name="code" open[title == "fal" && *language == "Python"] {
                summary { (language) }
                button.small.scripted type="button" data-copy={ "#" (id) } aria-label={ (words.copy) " " (title) " " (language) } { (icon(icons::COPY)) (words.copy) }
                pre #(id) tabindex="0" { (text) }
            }
        }
    }
}

/// The three languages for fal's clients.
fn fal(endpoint: &Endpoint, input: &Value, base: &str) -> [(&'static str, String); 3] {
    let id = endpoint.id;
    let python = format!(
        "# zoetrope run -- python app.py\nimport fal_client\n\nresult = fal_client.subscribe(\n    \"{id}\",\n    arguments={},\n    with_logs=True,\n)\nprint(result)\n",
        python(input, 1)
    );
    let javascript = format!(
        "import {{ fal }} from \"@fal-ai/client\";\n\nfal.config({{ proxyUrl: {{ url: \"{base}/api/fal/proxy\", when: \"always\" }} }});\n\n\
         const {{ data, requestId }} = await fal.subscribe(\"{id}\", {{\n  input: {},\n  logs: true,\n}});\nconsole.log(data, requestId);\n",
        indented(input, "  ")
    );
    let curl = format!(
        "curl {base}/{id} \\\n  -H \"Authorization: Key ID:SECRET\" \\\n  -H \"Content-Type: application/json\" \\\n  -d {}\n",
        quoted(&pretty(input))
    );
    [("Python", python), ("JavaScript", javascript), ("cURL", curl)]
}

/// What OpenAI's API calls the same; `None` where it has no such thing.
fn openai_body(endpoint: &Endpoint, input: &Value) -> Option<Value> {
    let input = &told(endpoint, input);
    let alien = !input["loras"].is_null() || follows(endpoint);
    if endpoint.trains() || alien || tiles(endpoint) {
        return None;
    }
    let mut body = Map::new();
    let model = match endpoint.model {
        Model::Turbo => "z-image-turbo",
        Model::Base => "z-image",
        Model::Edit => "z-image-edit",
    };
    body.insert("model".into(), model.into());
    let size = match &input["image_size"] {
        Value::Object(size) => Some(format!("{}x{}", size["width"], size["height"])),
        Value::String(name) => named(name),
        _ if endpoint.takes_image() => None,
        _ => named("landscape_4_3"),
    };
    if let Some(size) = size {
        body.insert("size".into(), size.into());
    }
    let names = [
        ("prompt", "prompt"),
        ("num_images", "n"),
        ("seed", "seed"),
        ("num_inference_steps", "num_inference_steps"),
        ("guidance_scale", "cfg_scale"),
        ("negative_prompt", "negative_prompt"),
        ("strength", "strength"),
        ("acceleration", "acceleration"),
        ("output_format", "output_format"),
        ("enable_safety_checker", "enable_safety_checker"),
        ("enable_prompt_expansion", "enable_prompt_expansion"),
        ("sampler", "sampler"),
        ("sigmas", "sigmas"),
        ("variation_seed", "variation_seed"),
        ("variation_strength", "variation_strength"),
        ("prompt_weighting", "prompt_weighting"),
        ("image_url", "image_url"),
        ("mask_image_url", "mask"),
    ];
    for (ours, theirs) in names {
        if !input[ours].is_null() {
            body.insert(theirs.into(), input[ours].clone());
        }
    }
    if endpoint.takes_image() && !body.contains_key("image_url") {
        body.insert("image_url".into(), "https://…".into());
    }
    Some(Value::Object(body))
}

fn named(name: &str) -> Option<String> {
    let found = NAMED_SIZES.iter().find(|(known, ..)| *known == name);
    found.map(|(_, width, height)| format!("{width}x{height}"))
}

/// What OpenAI's own clients have parameters for; the rest goes beside them.
const OPENAI_PARAMETERS: [&str; 5] = ["model", "prompt", "n", "size", "output_format"];

/// The three languages for OpenAI's clients.
fn of_openai(body: &Value, base: &str) -> [(&'static str, String); 3] {
    let edits = !body["image_url"].is_null();
    let body = body.as_object().cloned().unwrap_or_default();
    let files = ["image_url", "mask"];
    let (own, extra): (Map<_, _>, Map<_, _>) = body
        .clone()
        .into_iter()
        .filter(|(name, _)| !files.contains(&name.as_str()))
        .partition(|(name, _)| OPENAI_PARAMETERS.contains(&name.as_str()));
    let method = if edits { "edit" } else { "generate" };
    let mut arguments: Vec<String> =
        own.iter().map(|(name, value)| format!("    {name}={},\n", python(value, 1))).collect();
    if edits {
        arguments.push("    image=open(\"input.png\", \"rb\"),\n".into());
    }
    if body.contains_key("mask") {
        arguments.push("    mask=open(\"mask.png\", \"rb\"),\n".into());
    }
    if !extra.is_empty() {
        arguments.push(format!("    extra_body={},\n", python(&Value::Object(extra.clone()), 1)));
    }
    let python = format!(
        "from openai import OpenAI\n\nclient = OpenAI(base_url=\"{base}/v1\", api_key=\"ID:SECRET\")\nanswer = client.images.{method}(\n{})\nprint(answer.data[0].url)\n",
        arguments.concat()
    );
    let mut fields: Vec<String> = own
        .iter()
        .chain(&extra)
        .map(|(name, value)| format!("  {name}: {},\n", indented(value, "  ")))
        .collect();
    let mut imports = "import OpenAI from \"openai\";\n".to_string();
    if edits {
        imports.insert_str(0, "import fs from \"node:fs\";\n");
        fields.push("  image: fs.createReadStream(\"input.png\"),\n".into());
    }
    if body.contains_key("mask") {
        fields.push("  mask: fs.createReadStream(\"mask.png\"),\n".into());
    }
    let javascript = format!(
        "{imports}\nconst client = new OpenAI({{ baseURL: \"{base}/v1\", apiKey: \"ID:SECRET\" }});\nconst answer = await client.images.{method}({{\n{}}});\nconsole.log(answer.data[0].url);\n",
        fields.concat()
    );
    let route = if edits { "edits" } else { "generations" };
    let curl = format!(
        "curl {base}/v1/images/{route} \\\n  -H \"Authorization: Bearer ID:SECRET\" \\\n  -H \"Content-Type: application/json\" \\\n  -d {}\n",
        quoted(&pretty(&Value::Object(body)))
    );
    [("Python", python), ("JavaScript", javascript), ("cURL", curl)]
}

/// Whether its pictures can be laid side by side.
fn tiles(endpoint: &Endpoint) -> bool {
    fields(endpoint).iter().any(|field| field.name == "tiling_mode")
}

/// Whether its image is what a control network looks at.
fn follows(endpoint: &Endpoint) -> bool {
    matches!(endpoint.makes, Makes::Pictures { draws: Draws::Control, .. })
}

/// Where fal's control networks end.
const CONTROL_END: f64 = 0.8;

/// `input` with what its endpoint means by leaving it out, where OpenAI's routes and the command mean something else, and without what
/// they refuse because it has no effect.
fn told(endpoint: &Endpoint, input: &Value) -> Value {
    let mut input = input.clone();
    let inpaints = matches!(endpoint.makes, Makes::Pictures { draws: Draws::Inpaint, .. });
    if inpaints && input["strength"].is_null() {
        input["strength"] = json!(1);
    }
    if !input["sigmas"].is_null() {
        input["num_inference_steps"] = Value::Null;
    }
    if input["variation_seed"].is_null() {
        input["variation_strength"] = Value::Null;
    }
    input
}

/// What a control network follows, as a command takes it; where the network is, is for the reader to fill in.
fn control_flags(input: &Value) -> Vec<(&'static str, Value)> {
    let scale = input["control_scale"].as_f64().map(|scale| format!(":{scale}"));
    let picture = format!("input.png{}", scale.unwrap_or_default());
    // The command's network works to the end where nobody says otherwise; fal's does not.
    let end = input["control_end"].as_f64().unwrap_or(CONTROL_END);
    let flags = [
        ("--control", json!(picture)),
        ("--controlnet", json!("Z-Image-Turbo-Fun-Controlnet-Union-2.1.safetensors")),
        ("--control-preprocess", input["preprocess"].clone()),
        ("--control-start", input["control_start"].clone()),
        ("--control-end", json!(end)),
    ];
    flags.into_iter().filter(|(_, value)| !value.is_null()).collect()
}

/// The same without a server.
fn command(endpoint: &Endpoint, input: &Value) -> String {
    let model = match endpoint.model {
        Model::Turbo => "Tongyi-MAI/Z-Image-Turbo",
        Model::Base => "Tongyi-MAI/Z-Image",
        Model::Edit => "Tongyi-MAI/Z-Image-Edit",
    };
    if endpoint.trains() {
        let steps =
            input["steps"].as_u64().map(|steps| format!(" --steps {steps}")).unwrap_or_default();
        return format!("zoetrope train pictures.zip --model {model}{steps}\n");
    }
    let input = &told(endpoint, input);
    let prompt = quoted(input["prompt"].as_str().unwrap_or_default());
    let mut out = format!("zoetrope generate {prompt} \\\n  --model {model}");
    let mut add = |flag: &str, value: &Value| {
        let text = value.as_str().map_or(value.to_string(), String::from);
        out.push_str(&format!(" \\\n  {flag} {}", quoted_if_needed(&text)));
    };
    let size = match &input["image_size"] {
        Value::Object(size) => Some(json!(format!("{}x{}", size["width"], size["height"]))),
        Value::String(name) if name != "auto" => Some(json!(name)),
        _ => None,
    };
    size.iter().for_each(|size| add("--size", size));
    let flags = [
        ("num_inference_steps", "--steps"),
        ("seed", "--seed"),
        ("num_images", "--count"),
        ("guidance_scale", "--guidance-scale"),
        ("negative_prompt", "--negative-prompt"),
        ("acceleration", "--acceleration"),
        ("strength", "--strength"),
        ("sampler", "--sampler"),
        ("variation_seed", "--variation-seed"),
        ("variation_strength", "--variation-strength"),
    ];
    for (field, flag) in flags {
        if !input[field].is_null() {
            add(flag, &input[field]);
        }
    }
    if let Some(levels) = input["sigmas"].as_array() {
        let levels: Vec<String> = levels.iter().map(Value::to_string).collect();
        add("--sigmas", &json!(levels.join(",")));
    }
    if tiles(endpoint) {
        add(
            "--tile",
            &match input["tiling_mode"].as_str() {
                Some("horizontal") => json!("x"),
                Some("vertical") => json!("y"),
                _ => json!("both"),
            },
        );
    }
    if follows(endpoint) {
        control_flags(input).iter().for_each(|(flag, value)| add(flag, value));
    } else if endpoint.takes_image() || !input["image_url"].is_null() {
        add("--image", &json!("input.png"));
    }
    if !input["mask_image_url"].is_null() {
        add("--mask", &json!("mask.png"));
    }
    for lora in input["loras"].as_array().into_iter().flatten() {
        let path = lora["path"].as_str().unwrap_or_default();
        let file = path.rsplit('/').next().unwrap_or(path);
        let scale = lora["scale"].as_f64().map(|scale| format!(":{scale}")).unwrap_or_default();
        add("--lora", &json!(format!("{file}{scale}")));
    }
    for (field, flag) in
        [("seed_per_image", "--seed-per-image"), ("prompt_weighting", "--prompt-weighting")]
    {
        if input[field] == json!(true) {
            out.push_str(&format!(" \\\n  {flag}"));
        }
    }
    out.push('\n');
    out
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// JSON with `margin` before every line but the first.
fn indented(value: &Value, margin: &str) -> String {
    pretty(value).replace('\n', &format!("\n{margin}"))
}

/// `value` as Python writes it, `depth` levels in.
fn python(value: &Value, depth: usize) -> String {
    let margin = "    ".repeat(depth + 1);
    let end = "    ".repeat(depth);
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Array(list) if !list.is_empty() => {
            let lines = list.iter().map(|each| format!("{margin}{},\n", python(each, depth + 1)));
            format!("[\n{}{end}]", lines.collect::<String>())
        }
        Value::Object(object) if !object.is_empty() => {
            let line = |(name, each): (&String, &Value)| {
                format!("{margin}{}: {},\n", json!(name), python(each, depth + 1))
            };
            format!("{{\n{}{end}}}", object.iter().map(line).collect::<String>())
        }
        // JSON's texts are Python's: both know the same escapes.
        other => other.to_string(),
    }
}

/// `text` as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn quoted_if_needed(text: &str) -> String {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "._-:/,x".contains(c));
    if plain && !text.is_empty() { text.into() } else { quoted(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "it's \"a\" $(house)\n\u{1f98a}";

    #[test]
    fn a_prompt_stays_a_text_in_every_language() {
        let endpoint = Endpoint::find("fal-ai/z-image/turbo").unwrap();
        let input = json!({"prompt": HOSTILE, "enable_safety_checker": false});
        let [(_, python), (_, javascript), (_, curl)] = fal(endpoint, &input, "http://here");
        assert!(python.contains(r#""prompt": "it's \"a\" $(house)\n🦊","#), "{python}");
        assert!(python.contains("\"enable_safety_checker\": False,"), "{python}");
        assert!(javascript.contains(r#"it's \"a\" $(house)\n🦊"#), "{javascript}");
        assert!(curl.contains(r#"it'\''s \"a\" $(house)"#), "{curl}");
        assert!(
            command(endpoint, &input)
                .starts_with("zoetrope generate 'it'\\''s \"a\" $(house)\n🦊'")
        );
    }

    #[test]
    fn fields_of_ours_are_in_every_program() {
        let endpoint = Endpoint::find("fal-ai/z-image/turbo").unwrap();
        let input = json!({"prompt": "a", "sampler": "heun", "sigmas": [1, 0.5], "variation_seed": 3, "prompt_weighting": true});
        let text = command(endpoint, &input);
        for part in ["--sampler heun", "--sigmas 1,0.5", "--variation-seed 3", "--prompt-weighting"]
        {
            assert!(text.contains(part), "{text}");
        }
        let body = openai_body(endpoint, &input).unwrap();
        for name in ["sampler", "sigmas", "variation_seed", "prompt_weighting"] {
            assert_eq!(body[name], input[name], "{body}");
        }
    }

    #[test]
    fn what_a_control_network_follows_is_no_image_to_start_from() {
        let endpoint = Endpoint::find("fal-ai/z-image/turbo/controlnet").unwrap();
        let input = json!({"prompt": "a", "image_url": "http://here/files/x/y.png", "preprocess": "canny", "control_scale": 0.6});
        let text = command(endpoint, &input);
        assert!(text.contains("--control input.png:0.6 ") && !text.contains("--image"), "{text}");
        assert!(
            text.contains("--controlnet ") && text.contains("--control-preprocess canny"),
            "{text}"
        );
        assert!(text.contains("--control-end 0.8"), "{text}");
        assert_eq!(openai_body(endpoint, &input), None);
    }

    #[test]
    fn what_fal_means_by_leaving_it_out_is_told_to_others() {
        let endpoint = Endpoint::find("fal-ai/z-image/turbo/inpaint").unwrap();
        let input = json!({"prompt": "a", "image_url": "x", "mask_image_url": "y", "sigmas": [1, 0.5], "num_inference_steps": 4, "variation_strength": 0.5});
        let text = command(endpoint, &input);
        assert!(text.contains("--strength 1 ") && text.contains("--sigmas 1,0.5"), "{text}");
        assert!(!text.contains("--steps") && !text.contains("--variation-strength"), "{text}");
        let body = openai_body(endpoint, &input).unwrap();
        assert_eq!((&body["strength"], &body["num_inference_steps"]), (&json!(1), &Value::Null));
    }

    #[test]
    fn openai_is_asked_for_the_same() {
        let endpoint = |path: &str| Endpoint::find(&format!("fal-ai/z-image/{path}")).unwrap();
        let input = json!({"prompt": "a", "num_images": 2, "seed": 7});
        let body = openai_body(endpoint("turbo"), &input).unwrap();
        let expected =
            json!({"model": "z-image-turbo", "size": "1024x768", "prompt": "a", "n": 2, "seed": 7});
        assert_eq!(body, expected);
        let [(_, python), ..] = of_openai(&body, "http://here");
        assert!(python.contains("extra_body={\n        \"seed\": 7,\n    },"), "{python}");
        let edit =
            json!({"prompt": "a", "image_url": "http://here/files/x/y.png", "strength": 0.5});
        let body = openai_body(endpoint("turbo/image-to-image"), &edit).unwrap();
        let [.., (_, curl)] = of_openai(&body, "http://here");
        assert!(curl.starts_with("curl http://here/v1/images/edits"));
        assert_eq!(openai_body(endpoint("turbo/lora"), &json!({"loras": [{"path": "a/b"}]})), None);
    }
}
