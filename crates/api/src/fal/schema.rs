//! The OpenAPI document of an endpoint, as fal serves it: queue paths, the input's and the output's schema.

use serde_json::{Map, Value, json};

use super::endpoint::{Endpoint, Makes};
use super::field::{Field, Kind, LORA_SCALE, fields};
use super::parse::{SIDE_MAX, size_names};

/// `/api/openapi/queue/openapi.json?endpoint_id=…`; `server` is this server's queue, `pages` its web pages.
pub fn openapi(endpoint: &Endpoint, server: &str, pages: &str) -> Value {
    let Endpoint { id, name, summary, .. } = endpoint;
    let (input, output) = (format!("{name}Input"), format!("{name}Output"));
    let mut schemas = Map::new();
    schemas.insert("QueueStatus".into(), queue_status());
    schemas.insert(input.clone(), input_schema(endpoint));
    schemas.insert(output.clone(), output_schema(endpoint));
    match endpoint.makes {
        Makes::Pictures { loras, .. } => {
            schemas.insert("ImageSize".into(), image_size());
            schemas.insert("ImageFile".into(), image_file());
            if loras {
                schemas.insert("LoRAInput".into(), lora());
            }
        }
        Makes::Adapter { .. } => _ = schemas.insert("File".into(), file()),
    }
    let request_id = json!({"name": "request_id", "in": "path", "required": true,
        "schema": {"type": "string", "description": "Request ID"}});
    let logs = json!({"name": "logs", "in": "query", "required": false, "schema": {"type": "number",
        "description": "Whether to include logs (`1`) in the response or not (`0`)."}});
    let answer = |description: &str, schema: Value| json!({"200": {"description": description, "content": {"application/json": {"schema": schema}}}});
    let body =
        json!({"required": true, "content": {"application/json": {"schema": reference(&input)}}});
    let cancelled = json!({"type": "object", "properties": {"success": {"type": "boolean",
        "description": "Whether the request was cancelled successfully."}}});
    let mut paths = Map::new();
    paths.insert(
        format!("/{id}"),
        json!({"post": {"parameters": [], "requestBody": body,
            "responses": answer("The request status.", reference("QueueStatus"))}}),
    );
    paths.insert(
        format!("/{id}/requests/{{request_id}}"),
        json!({"get": {"parameters": [request_id],
            "responses": answer("Result of the request.", reference(&output))}}),
    );
    paths.insert(
        format!("/{id}/requests/{{request_id}}/status"),
        json!({"get": {"parameters": [request_id, logs],
            "responses": answer("The request status.", reference("QueueStatus"))}}),
    );
    paths.insert(
        format!("/{id}/requests/{{request_id}}/cancel"),
        json!({"put": {"parameters": [request_id],
            "responses": answer("The request was cancelled.", cancelled)}}),
    );
    json!({
        "openapi": "3.0.4",
        "info": {
            "title": format!("Queue OpenAPI for {id}"),
            "version": "1.0.0",
            "description": summary,
            "x-fal-metadata": {
                "endpointId": id,
                "category": endpoint.category(),
                "playgroundUrl": format!("{pages}/models/{id}"),
                "documentationUrl": format!("{pages}/models/{id}/api"),
            },
        },
        "components": {
            "securitySchemes": {"apiKeyAuth": {"type": "apiKey", "in": "header", "name": "Authorization",
                "description": "Fal Key"}},
            "schemas": schemas,
        },
        "paths": paths,
        "servers": [{"url": server}],
        "security": [{"apiKeyAuth": []}],
    })
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// `num_inference_steps` as `Num Inference Steps`.
fn title(name: &str) -> String {
    let word = |word: &str| match word {
        "url" => "URL".to_string(),
        "loras" => "LoRAs".to_string(),
        "lora" => "LoRA".to_string(),
        _ => word[..1].to_ascii_uppercase() + &word[1..],
    };
    name.split('_').map(word).collect::<Vec<_>>().join(" ")
}

/// The schema of the input, which a form can be made from.
pub fn input_schema(endpoint: &Endpoint) -> Value {
    let fields = fields(endpoint);
    let properties: Map<String, Value> =
        fields.iter().map(|field| (field.name.into(), property(field))).collect();
    let order: Vec<_> = fields.iter().map(|field| field.name).collect();
    let required: Vec<_> = fields.iter().filter(|f| f.required).map(|f| f.name).collect();
    json!({"title": format!("{}Input", endpoint.name), "type": "object", "properties": properties,
        "required": required, "x-fal-order-properties": order})
}

fn property(field: &Field) -> Value {
    let mut schema = match &field.kind {
        Kind::Text => json!({"type": "string"}),
        Kind::ImageUrl => json!({"type": "string", "ui": {"field": "image"}}),
        Kind::ZipUrl => json!({"type": "string", "ui": {"field": "file"}}),
        Kind::Integer { documented: (least, most), .. } => {
            json!({"type": "integer", "minimum": least, "maximum": most})
        }
        Kind::Seed => json!({"type": "integer"}),
        Kind::Number { min, max } => json!({"type": "number", "minimum": min, "maximum": max}),
        // As OpenAPI 3.0 has it; JSON Schema's own is a number.
        Kind::Positive { max } => {
            json!({"type": "number", "minimum": 0, "exclusiveMinimum": true, "maximum": max})
        }
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Choice(options) => json!({"type": "string", "enum": options}),
        Kind::ImageSize { auto } => {
            json!({"anyOf": [reference("ImageSize"), {"type": "string", "enum": size_names(*auto)}]})
        }
        Kind::Sigmas => json!({"type": "array", "items": {"type": "number"}}),
        Kind::Loras { max } => {
            json!({"type": "array", "items": reference("LoRAInput"), "maxItems": max})
        }
    };
    schema["title"] = json!(title(field.name));
    schema["description"] = json!(field.description);
    if let Some(default) = &field.default {
        schema["default"] = default.clone();
    }
    if let Some(example) = &field.example {
        schema["examples"] = json!([example]);
    }
    schema
}

/// The schema of what it answers.
pub fn output_schema(endpoint: &Endpoint) -> Value {
    match endpoint.makes {
        Makes::Pictures { .. } => pictures(endpoint),
        Makes::Adapter { .. } => adapter(endpoint),
    }
}

fn adapter(endpoint: &Endpoint) -> Value {
    let order = ["diffusers_lora_file", "config_file"];
    let of = |name: &str, description: &str| json!({"title": title(name), "allOf": [reference("File")], "description": description});
    json!({
        "title": format!("{}Output", endpoint.name),
        "type": "object",
        "required": order,
        "x-fal-order-properties": order,
        "properties": {
            "diffusers_lora_file": of("diffusers_lora_file", "The trained LoRA."),
            "config_file": of("config_file", "What it was trained with."),
        },
    })
}

fn pictures(endpoint: &Endpoint) -> Value {
    let order = ["images", "timings", "seed", "has_nsfw_concepts", "prompt"];
    json!({
        "title": format!("{}Output", endpoint.name),
        "type": "object",
        "required": order,
        "x-fal-order-properties": order,
        "properties": {
            "images": {"title": "Images", "type": "array", "items": reference("ImageFile"),
                "description": "The generated images."},
            "timings": {"title": "Timings", "type": "object", "additionalProperties": {"type": "number"},
                "description": "Seconds that the parts of the work took."},
            "seed": {"title": "Seed", "type": "integer",
                "description": "The seed that was used, given or drawn."},
            "has_nsfw_concepts": {"title": "Has NSFW Concepts", "type": "array", "items": {"type": "boolean"},
                "description": "Whether each image was found unsafe."},
            "prompt": {"title": "Prompt", "type": "string", "description": "The prompt that was used."},
        },
    })
}

fn image_size() -> Value {
    let side = |name: &str, words: &str| {
        json!({"title": title(name), "type": "integer", "default": 512, "minimum": 1, "maximum": SIDE_MAX,
            "description": format!("The {words} of the generated image in pixels.")})
    };
    json!({"title": "ImageSize", "type": "object", "x-fal-order-properties": ["width", "height"],
        "properties": {"width": side("width", "width"), "height": side("height", "height")}})
}

fn file() -> Value {
    let optional = |kind: &str, name: &str, description: &str| json!({"title": title(name), "type": kind, "nullable": true, "description": description});
    let order = ["url", "content_type", "file_name", "file_size"];
    json!({"title": "File", "type": "object", "required": ["url"], "x-fal-order-properties": order,
    "properties": {
        "url": {"title": "URL", "type": "string", "description": "Where the file can be downloaded."},
        "content_type": optional("string", "content_type", "The file's media type."),
        "file_name": optional("string", "file_name", "The file's name."),
        "file_size": optional("integer", "file_size", "The file's size in bytes."),
    }})
}

/// A file, and its pixels.
fn image_file() -> Value {
    let mut schema = file();
    schema["title"] = json!("ImageFile");
    for (name, description) in
        [("width", "The image's width in pixels."), ("height", "The image's height in pixels.")]
    {
        schema["properties"][name] = json!({"title": title(name), "type": "integer", "nullable": true, "description": description});
        schema["x-fal-order-properties"].as_array_mut().expect("a list").push(json!(name));
    }
    schema
}

fn lora() -> Value {
    json!({"title": "LoRAInput", "type": "object", "required": ["path"], "x-fal-order-properties": ["path", "scale"],
    "properties": {
        "path": {"title": "Path", "type": "string",
            "description": "An address of a safetensors file, or a Hugging Face repository, owner/name or owner/name/file."},
        "scale": {"title": "Scale", "type": "number", "default": 1, "minimum": LORA_SCALE.0, "maximum": LORA_SCALE.1,
            "description": "How strongly the LoRA works; 1 is as trained."},
    }})
}

fn queue_status() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    json!({"type": "object", "required": ["status", "request_id"],
    "properties": {
        "status": {"type": "string", "enum": ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]},
        "request_id": text("The request id."),
        "response_url": text("The response url."),
        "status_url": text("The status url."),
        "cancel_url": text("The cancel url."),
        // fal publishes an object; what it sends, and its clients read, is a list, or null where none was asked for.
        "logs": {"type": "array", "nullable": true, "description": "The logs.",
            "items": {"type": "object", "additionalProperties": true}},
        "metrics": {"type": "object", "description": "The metrics.", "additionalProperties": true},
        "queue_position": {"type": "integer", "description": "The queue position."},
    }})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fal::ENDPOINTS;

    /// Every `$ref` of a document.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str).map(String::from));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn a_document_refers_only_to_what_it_defines() {
        for endpoint in ENDPOINTS {
            let document =
                openapi(endpoint, "http://localhost:7860/queue", "http://localhost:7860");
            let mut found = Vec::new();
            references(&document, &mut found);
            assert!(found.len() >= 5);
            for reference in found {
                let pointer = reference.trim_start_matches('#');
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
        }
    }

    #[test]
    fn the_published_ranges_are_fal_s() {
        let schema = input_schema(Endpoint::find("fal-ai/z-image/turbo").unwrap());
        let steps = &schema["properties"]["num_inference_steps"];
        assert_eq!(
            (&steps["minimum"], &steps["maximum"], &steps["default"]),
            (&json!(1), &json!(8), &json!(8))
        );
        assert_eq!(schema["required"], json!(["prompt"]));
        assert_eq!(schema["properties"]["image_size"]["default"], json!("landscape_4_3"));
        let order = schema["x-fal-order-properties"].as_array().unwrap();
        assert_eq!(order.len(), schema["properties"].as_object().unwrap().len());
    }

    #[test]
    fn a_trainer_takes_a_zip_and_answers_with_two_files() {
        let endpoint = Endpoint::find("fal-ai/z-image-trainer").unwrap();
        let schema = input_schema(endpoint);
        let order =
            ["image_data_url", "steps", "learning_rate", "training_type", "default_caption"];
        assert_eq!(schema["x-fal-order-properties"], json!(order));
        assert_eq!(schema["required"], json!(["image_data_url"]));
        let steps = &schema["properties"]["steps"];
        assert_eq!((&steps["minimum"], &steps["maximum"]), (&json!(100), &json!(10_000)));
        let document = openapi(endpoint, "http://localhost:7860/queue", "http://localhost:7860");
        assert_eq!(document["info"]["x-fal-metadata"]["category"], "training");
        let schemas = &document["components"]["schemas"];
        let output = &schemas["ZImageTrainerOutput"]["properties"];
        for file in ["diffusers_lora_file", "config_file"] {
            assert_eq!(output[file]["allOf"][0]["$ref"], "#/components/schemas/File");
        }
        assert_eq!(schemas["File"]["required"], json!(["url"]));
        let sibling = input_schema(Endpoint::find("fal-ai/z-image-base-trainer").unwrap());
        assert!(sibling["properties"].get("training_type").is_none());
    }
}
