//! `llms.txt` of an endpoint: the page that language models read, in the order of fal's.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::endpoint::{CONFIG_FILE, LORA_FILE};
use super::endpoint::{Endpoint, Makes};
use super::field::{Field, Kind, LORA_SCALE, fields};
use super::parse::size_names;

/// The page of `endpoint`; `run` and `queue` are where this server answers, `pages` where its web pages are.
pub fn llms_txt(endpoint: &Endpoint, run: &str, pages: &str) -> String {
    let Endpoint { id, title, summary, .. } = endpoint;
    let (kind, unit, output, answer) = match endpoint.makes {
        Makes::Pictures { .. } => ("inference", "megapixel", PICTURES, pictures()),
        Makes::Adapter { .. } => ("training", "1000 steps", ADAPTER, adapter()),
    };
    let mut page = format!(
        "# {title}\n\n> {summary}\n\n## Overview\n\n- **Endpoint**: `{run}/{id}`\n- **Model ID**: `{id}`\n\
         - **Category**: {}\n- **Kind**: {kind}\n- **Price at fal**: ${} per {unit}\n\n## API Information\n\n\
         This model can be used via our HTTP API or more conveniently via the client libraries.\n\n### Input Schema\n\n\
         The API accepts the following input parameters:\n\n",
        endpoint.category(),
        endpoint.price
    );
    let fields = fields(endpoint);
    fields.iter().for_each(|field| describe(&mut page, field));
    let example = |only_required: bool| -> Value {
        let shown = fields.iter().filter(|field| field.required || !only_required);
        let value = |field: &Field| field.example.clone().or(field.default.clone());
        let pairs = shown.filter_map(|field| Some((field.name.to_string(), value(field)?)));
        Value::Object(pairs.collect::<Map<_, _>>())
    };
    let least = example(true);
    let _ = write!(
        page,
        "\n**Required Parameters Example**:\n\n```json\n{}\n```\n\n**Full Example**:\n\n```json\n{}\n```\n\n",
        pretty(&least),
        pretty(&example(false))
    );
    page.push_str(output);
    let _ = write!(page, "**Example Response**:\n\n```json\n{}\n```\n\n", pretty(&answer));
    usage(&mut page, id, run, &least);
    let _ = write!(
        page,
        "## Additional Resources\n\n- [Model Playground]({pages}/models/{id})\n\
         - [OpenAPI Schema]({pages}/api/openapi/queue/openapi.json?endpoint_id={id})\n"
    );
    page
}

fn describe(page: &mut String, field: &Field) {
    let (kind, limits) = match &field.kind {
        Kind::Text | Kind::ImageUrl | Kind::ZipUrl => ("string".into(), String::new()),
        Kind::Integer { documented: (least, most), .. } => {
            ("integer".into(), format!("  - Range: `{least}` to `{most}`\n"))
        }
        Kind::Seed => ("integer".into(), String::new()),
        Kind::Sigmas => ("list<float>".into(), String::new()),
        Kind::Number { min, max } => ("float".into(), format!("  - Range: `{min}` to `{max}`\n")),
        Kind::Positive { max } => ("float".into(), format!("  - Range: above `0`, to `{max}`\n")),
        Kind::Flag => ("boolean".into(), String::new()),
        Kind::Choice(options) => (format!("{}Enum", field.name), options_of(options)),
        Kind::ImageSize { auto } => ("ImageSize | Enum".into(), options_of(&size_names(*auto))),
        Kind::Loras { max } => (
            "list<LoRAInput>".to_string(),
            format!(
                "  - At most {max} of `{{path, scale}}`; `scale` from {} to {}, default 1\n",
                LORA_SCALE.0, LORA_SCALE.1
            ),
        ),
    };
    let needed = if field.required { "required" } else { "optional" };
    let _ =
        writeln!(page, "- **`{}`** (`{kind}`, _{needed}_):\n  {}", field.name, field.description);
    if let Some(default) = &field.default {
        let _ = writeln!(page, "  - Default: `{default}`");
    }
    page.push_str(&limits);
    if let Some(example) = &field.example {
        let _ = writeln!(page, "  - Examples: {example}");
    }
    page.push('\n');
}

fn options_of(options: &[&str]) -> String {
    let quoted: Vec<_> = options.iter().map(|option| format!("\"{option}\"")).collect();
    format!("  - Options: {}\n", quoted.join(", "))
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("JSON can be written")
}

const PICTURES: &str = "### Output Schema

The API returns the following output format:

- **`images`** (`list<ImageFile>`, _required_): The generated images.

- **`timings`** (`Timings`, _required_): Seconds that the parts of the work took.

- **`seed`** (`integer`, _required_): The seed that was used, given or drawn.

- **`has_nsfw_concepts`** (`list<boolean>`, _required_): Whether each image was found unsafe.

- **`prompt`** (`string`, _required_): The prompt that was used.

";

fn pictures() -> Value {
    json!({"images": [{"url": "https://v3.fal.media/files/b/…/image.png", "content_type": "image/png", "file_name": "image.png",
        "file_size": 1_048_576, "width": 1024, "height": 768}],
        "timings": {"inference": 1.5}, "seed": 42, "has_nsfw_concepts": [false], "prompt": "…"})
}

const ADAPTER: &str = "### Output Schema

The API returns the following output format:

- **`diffusers_lora_file`** (`File`, _required_): The trained LoRA; its `url` can be the `path` of a LoRA.

- **`config_file`** (`File`, _required_): What it was trained with.

";

fn adapter() -> Value {
    let file = |name: &str, content_type: &str, bytes: u64| {
        json!({"url": format!("https://v3.fal.media/files/b/…/{name}"), "content_type": content_type,
            "file_name": name, "file_size": bytes})
    };
    json!({
        "diffusers_lora_file": file(LORA_FILE, "application/octet-stream", 92_000_000),
        "config_file": file(CONFIG_FILE, "application/json", 700),
    })
}

fn usage(page: &mut String, id: &str, run: &str, input: &Value) {
    let body = pretty(input);
    let _ = write!(
        page,
        "## Usage Examples\n\n### cURL\n\n```bash\ncurl --request POST \\\n  --url {run}/{id} \\\n  \
         --header \"Authorization: Key $FAL_KEY\" \\\n  --header \"Content-Type: application/json\" \\\n  --data '{body}'\n```\n\n\
         ### Python\n\n```python\nimport fal_client\n\nresult = fal_client.subscribe(\n    \"{id}\",\n    arguments={body},\n    \
         with_logs=True,\n)\nprint(result)\n```\n\n\
         ### JavaScript\n\n```javascript\nimport {{ fal }} from \"@fal-ai/client\";\n\nconst result = await fal.subscribe(\"{id}\", {{\n  \
         input: {body},\n  logs: true,\n}});\nconsole.log(result.data, result.requestId);\n```\n\n"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fal::ENDPOINTS;

    #[test]
    fn the_page_names_every_field_with_its_limits() {
        for endpoint in ENDPOINTS {
            let page = llms_txt(endpoint, "http://localhost:7860", "http://localhost:7860");
            for field in fields(endpoint) {
                assert!(page.contains(&format!("**`{}`**", field.name)), "{}", field.name);
            }
        }
        let turbo = Endpoint::find("fal-ai/z-image/turbo").unwrap();
        let page = llms_txt(turbo, "http://localhost:7860", "http://localhost:7860");
        assert!(page.contains("- **`num_inference_steps`** (`integer`, _optional_):"));
        assert!(page.contains("  - Default: `8`\n  - Range: `1` to `8`\n"));
        assert!(page.contains("curl --request POST"));
        let trainer = Endpoint::find("fal-ai/z-image-trainer").unwrap();
        let page = llms_txt(trainer, "http://localhost:7860", "http://localhost:7860");
        assert!(page.contains("- **Kind**: training\n- **Price at fal**: $2.26 per 1000 steps\n"));
        assert!(page.contains("**`diffusers_lora_file`**") && !page.contains("**`images`**"));
    }
}
