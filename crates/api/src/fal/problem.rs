//! fal's model errors: what is wrong with which field, in Pydantic's shape with fal's own types.

use serde::Serialize;
use serde_json::{Map, Value, json};

/// One entry of an error's `detail`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Problem {
    /// Where: `["body", "image_size", "width"]`.
    pub loc: Vec<Value>,
    /// For people.
    pub msg: String,
    /// For programs.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The limit and the like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctx: Option<Box<Map<String, Value>>>,
    /// What was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Box<Value>>,
    /// The page about the type.
    pub url: String,
}

/// More of an input than this is not sent back.
const ECHO_MAX: usize = 200;

impl Problem {
    /// An error of type `kind` at `body.path`.
    pub fn new(path: &[Value], kind: &'static str, msg: impl Into<String>) -> Self {
        let loc = std::iter::once(json!("body")).chain(path.iter().cloned()).collect();
        let url = format!("https://docs.fal.ai/errors/#{kind}");
        Self { loc, msg: msg.into(), kind, ctx: None, input: None, url }
    }

    /// The same with `ctx[key]`.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.ctx.get_or_insert_default().insert(key.into(), value.into());
        self
    }

    /// The same with what was sent; long texts are cut.
    pub fn input(mut self, value: &Value) -> Self {
        self.input = Some(Box::new(match value {
            Value::String(text) if text.len() > ECHO_MAX => {
                let cut = text.char_indices().nth(ECHO_MAX / 4).map_or(text.len(), |(at, _)| at);
                json!(format!("{}… ({} bytes)", &text[..cut], text.len()))
            }
            other if other.to_string().len() > ECHO_MAX * 4 => json!("…"),
            other => other.clone(),
        }));
        self
    }
}

/// `{"detail": […]}`.
pub fn detail(problems: &[Problem]) -> Value {
    json!({ "detail": problems })
}
