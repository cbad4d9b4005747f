//! The OpenAPI document of the routes under `/v1`, made from the table of parameters.

use serde_json::{Map, Value, json};

use super::parameter::{Kind, PARAMETERS, Parameter, Support};
use super::request::{INPUTS_MAX, Mode};

/// The document; `base` is where this server answers, without a slash at the end.
pub fn openapi(base: &str) -> Value {
    let draws = |what: &str, body: Value| {
        json!({"post": {"summary": what, "parameters": [dry_run()], "requestBody": {"required": true, "content": body},
            "responses": responses(reference("ImagesResponse"))}})
    };
    let json_of = |name: &str| json!({"application/json": {"schema": reference(name)}});
    let both = |name: &str| json!({"multipart/form-data": {"schema": reference(&format!("{name}Form"))}, "application/json": {"schema": reference(name)}});
    let id = json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string"}});
    let schema = json!({"name": "schema", "in": "query", "schema": {"type": "boolean"},
        "description": "Whether the compiled parameters come with it."});
    let listed = |what: &str, parameters: Vec<&Value>, answer: &str| json!({"get": {"summary": what, "parameters": parameters, "responses": responses(reference(answer))}});
    let window = ["window", "start", "end", "model", "provider"].map(asked);
    let window: Vec<&Value> = window.iter().collect();
    let key = asked("key_id");
    let usage = [&window[..], &[&key]].concat();
    let log =
        ["limit", "starting_after", "ending_before", "created_after", "created_before", "status"]
            .map(asked);
    let log: Vec<&Value> = log.iter().chain([&key]).collect();
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Images", "version": env!("CARGO_PKG_VERSION"), "description": "OpenAI's Images API, with the gateway's parameters."},
        "servers": [{"url": format!("{base}/v1")}],
        "security": [{"key": []}],
        "paths": {
            "/images/generations": draws("Pictures from a prompt", json_of("Generation")),
            "/images/edits": draws("Pictures from pictures and a prompt", both("Edit")),
            "/images/variations": draws("Pictures from a picture", both("Variation")),
            "/models": listed("All models", Vec::new(), "ModelList"),
            "/models/{id}": listed("One model, under any of its names", vec![&id, &schema], "Model"),
            "/balance": listed("What is left of the key's budget", Vec::new(), "Balance"),
            "/usage": listed("Calls, images and cost by key", usage, "List"),
            "/keys": listed("The key, or all keys to one of scope admin", Vec::new(), "List"),
            "/providers/performance": listed("How providers do", window, "List"),
            "/requests": listed("The log, newest first", log, "List"),
            "/requests/{id}": listed("A request that has ended", vec![&id], "Request"),
            "/requests/{id}/payloads": {"delete": {"summary": "Deletes what a request made", "parameters": [&id],
                "responses": responses(reference("Purged"))}},
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Generation": request(Mode::TextToImage, &["model", "prompt"], Files::Addresses),
                "Edit": request(Mode::ImageEdit, &["model", "prompt", "image"], Files::Addresses),
                "EditForm": request(Mode::ImageEdit, &["model", "prompt", "image"], Files::Parts),
                "Variation": request(Mode::ImageEdit, &["model", "image"], Files::Addresses),
                "VariationForm": request(Mode::ImageEdit, &["model", "image"], Files::Parts),
                "ImagesResponse": images(),
                "Model": model(),
                "ModelList": {"type": "object", "required": ["object", "data"], "properties": {
                    "object": {"const": "list"}, "data": {"type": "array", "items": reference("Model")}}},
                "List": {"type": "object", "required": ["object", "data"], "properties": {
                    "object": {"const": "list"}, "data": {"type": "array", "items": {"type": "object"}}}},
                "Balance": object("balance", &["billing_type", "available"]),
                "Request": object("request", &["id", "status", "created_at", "cost"]),
                "Purged": object("request.payloads", &["id", "purged", "already_purged", "media_deleted"]),
                "Error": error(),
            },
        },
    })
}

/// How pictures are sent.
#[derive(Clone, Copy)]
enum Files {
    Addresses,
    Parts,
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A parameter of a query, as text.
fn asked(name: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": "string"}})
}

/// An object that says what it is, and has these fields at least.
fn object(kind: &str, fields: &[&str]) -> Value {
    let required = [&["object"], fields].concat();
    json!({"type": "object", "required": required, "properties": {"object": {"const": kind}}})
}

fn dry_run() -> Value {
    json!({"name": "dryRun", "in": "query", "schema": {"type": "boolean"},
        "description": "Whether only the cost and the effective parameters are told."})
}

fn responses(answer: Value) -> Value {
    let failed = json!({"description": "Why not.", "content": {"application/json": {"schema": reference("Error")}}});
    json!({"200": {"description": "Done.", "content": {"application/json": {"schema": answer}}}, "4XX": failed, "5XX": failed})
}

fn request(mode: Mode, required: &[&str], files: Files) -> Value {
    let sent = PARAMETERS.iter().filter(|one| one.modes.of(mode) != Support::NotAvailable);
    let properties: Map<String, Value> =
        sent.map(|one| (one.name.to_string(), property(one, files))).collect();
    json!({"type": "object", "required": required, "properties": properties, "additionalProperties": true})
}

fn property(parameter: &Parameter, files: Files) -> Value {
    let picture = match files {
        Files::Addresses => json!({"type": "string", "format": "uri"}),
        Files::Parts => json!({"type": "string", "contentMediaType": "application/octet-stream"}),
    };
    let mut schema = match parameter.kind {
        Kind::Text => json!({"type": "string"}),
        Kind::Pattern(pattern) => json!({"type": "string", "pattern": pattern}),
        Kind::Whole { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Kind::Seed => json!({"type": "integer"}),
        Kind::Number { min, max } => json!({"type": "number", "minimum": min, "maximum": max}),
        Kind::Numbers { min, max, count } => {
            let one = json!({"type": "number", "minimum": min, "maximum": max});
            json!({"type": "array", "items": one, "minItems": 1, "maxItems": count})
        }
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Choice(options) => json!({"type": "string", "enum": options}),
        Kind::Picture => picture,
        Kind::Pictures => {
            let several =
                json!({"type": "array", "items": picture, "minItems": 1, "maxItems": INPUTS_MAX});
            json!({"oneOf": [picture, several]})
        }
    };
    schema["description"] = parameter.description.into();
    if let Some(default) = parameter.default {
        schema["default"] = default.value();
    }
    schema
}

fn images() -> Value {
    let text = json!({"type": "string"});
    let item = json!({"type": "object", "properties": {"url": text, "b64_json": text, "revised_prompt": text}});
    json!({"type": "object", "required": ["created", "data"], "properties": {
        "id": text, "created": {"type": "integer"}, "data": {"type": "array", "items": item}, "size": text,
        "output_format": text, "quality": text, "background": text, "usage": {"type": "object"}, "metadata": {"type": "object"},
    }})
}

fn model() -> Value {
    let text = json!({"type": "string"});
    json!({"type": "object", "required": ["id", "object", "created", "owned_by"], "properties": {
        "id": text, "object": {"const": "model"}, "created": {"type": "integer"}, "owned_by": text, "name": text,
        "modes": {"type": "array", "items": text}, "schema": {"type": "object"}, "providers": {"type": "array"},
    }})
}

fn error() -> Value {
    let text = json!({"type": "string"});
    let inner = json!({"type": "object", "required": ["message", "type", "code"], "properties": {
        "message": text, "type": text, "code": text, "param": {"type": ["string", "null"]}}});
    json!({"type": "object", "required": ["error"], "properties": {"error": inner}})
}
