//! What was filled in, as texts by the names of the controls, and as the JSON of an endpoint's input.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use zoetrope_api::fal::field::{Field, Kind, fields as published};
use zoetrope_api::fal::parse::size_names;
use zoetrope_api::fal::{Endpoint, own_fields};

use crate::show::link;

/// What stands in a form's controls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filled(BTreeMap<String, String>);

/// The name of a size that is none of the named ones.
pub(crate) const CUSTOM: &str = "custom";
/// Controls of one form; the longest has three LoRAs.
const CONTROLS_MAX: usize = 100;

/// All fields of `endpoint`: fal's, then ours.
fn fields(endpoint: &Endpoint) -> Vec<Field> {
    [published(endpoint), own_fields(endpoint)].concat()
}

impl Filled {
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        if self.0.len() < CONTROLS_MAX {
            self.0.insert(name.into(), value.into());
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values, in a fixed order.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// From a link.
    pub(crate) fn of_query(query: &str) -> Self {
        let mut out = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            out.set(&name, value);
        }
        out
    }

    /// From an input as it was sent; what the endpoint has not is left out, and pictures inside it too.
    pub(crate) fn of_input(endpoint: &Endpoint, input: &Value) -> Self {
        let mut out = Self::default();
        let text = |value: &Value| match value {
            Value::String(text) if text.starts_with("data:") => String::new(),
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        for field in fields(endpoint) {
            let sent = &input[field.name];
            match (&field.kind, sent) {
                (_, Value::Null) => {}
                (Kind::ImageSize { .. }, Value::Object(size)) => {
                    out.set(field.name, CUSTOM);
                    for side in ["width", "height"] {
                        let value = size.get(side).map_or("512".into(), text);
                        out.set(&format!("{}.{side}", field.name), value);
                    }
                }
                (Kind::Loras { .. }, Value::Array(list)) => {
                    for (at, lora) in list.iter().enumerate() {
                        out.set(&format!("{}.{at}.path", field.name), text(&lora["path"]));
                        out.set(&format!("{}.{at}.scale", field.name), text(&lora["scale"]));
                    }
                }
                (Kind::Sigmas, Value::Array(levels)) => {
                    let levels: Vec<String> = levels.iter().map(text).collect();
                    out.set(field.name, levels.join(", "));
                }
                _ => out.set(field.name, text(sent)),
            }
        }
        out
    }

    /// The input that is meant; `files` is where this server's files are reached. What is as it would be anyhow is left out.
    pub(crate) fn input(&self, endpoint: &Endpoint, files: &str) -> Value {
        let mut out = Map::new();
        for field in fields(endpoint) {
            if let Some(value) = self.value(&field, files)
                && Some(&value) != field.default.as_ref()
            {
                out.insert(field.name.into(), value);
            }
        }
        Value::Object(out)
    }

    fn value(&self, field: &Field, files: &str) -> Option<Value> {
        let text = self.get(field.name);
        match &field.kind {
            Kind::ImageSize { .. } if text == CUSTOM => {
                let side = |side: &str| number(self.get(&format!("{}.{side}", field.name)));
                Some(json!({"width": side("width"), "height": side("height")}))
            }
            Kind::Loras { max } => {
                let row = |at: usize| {
                    let path = self.get(&format!("{}.{at}.path", field.name)).trim();
                    let scale = self.get(&format!("{}.{at}.scale", field.name));
                    if path.is_empty() {
                        return None;
                    }
                    let path = absolute(path, files);
                    Some(match scale {
                        "" | "1" => json!({"path": path}),
                        scale => json!({"path": path, "scale": number(scale)}),
                    })
                };
                let rows: Vec<Value> = (0..*max).filter_map(row).collect();
                (!rows.is_empty()).then_some(Value::Array(rows))
            }
            _ if text.trim().is_empty() => None,
            Kind::Text | Kind::Choice(_) | Kind::ImageSize { .. } => Some(text.into()),
            Kind::Flag => Some(match text {
                "true" | "on" => true.into(),
                "false" => false.into(),
                other => other.into(),
            }),
            Kind::Integer { .. } | Kind::Seed | Kind::Number { .. } | Kind::Positive { .. } => {
                Some(number(text))
            }
            Kind::Sigmas => Some(text.split(',').map(number).collect()),
            // An address, of whatever it is.
            _ => Some(absolute(text.trim(), files).into()),
        }
    }

    /// A link to `path` with everything that is not as it would be anyhow.
    pub(crate) fn link(&self, path: &str, endpoint: &Endpoint) -> String {
        let fields = fields(endpoint);
        let says_something = |name: &str, value: &str| {
            let field = fields.iter().find(|field| field.name == name);
            match field.and_then(|field| field.default.as_ref()) {
                Some(Value::String(default)) => default != value,
                Some(default) => *default.to_string() != *value,
                // Sides go with a size that is none of the named ones, scales with a path.
                None => match name.split_once('.') {
                    Some((size, "width" | "height")) => self.get(size) == CUSTOM,
                    Some((loras, rest)) if rest.ends_with(".scale") => {
                        let path = rest.trim_end_matches("scale");
                        value != "1" && !self.get(&format!("{loras}.{path}path")).is_empty()
                    }
                    Some(_) => true,
                    None => field.is_some(),
                },
            }
        };
        let said = self.0.iter().filter(|(name, value)| says_something(name, value));
        let said: Vec<(&str, &str)> = said.map(|(n, v)| (n.as_str(), v.as_str())).collect();
        link(path, &said)
    }
}

/// A number if it is one; what is not goes on as it was written, to be told what is wrong with it.
fn number(text: &str) -> Value {
    let text = text.trim();
    let whole =
        text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from));
    match (whole, text.parse::<f64>()) {
        (Ok(whole), _) => whole,
        (_, Ok(float)) if float.is_finite() => float.into(),
        _ => text.into(),
    }
}

/// An address as workers read it.
fn absolute(url: &str, files: &str) -> String {
    if url.starts_with("/files/") { format!("{files}{url}") } else { url.into() }
}

/// Whether `name` is a size that has a name.
pub(crate) fn is_named_size(name: &str) -> bool {
    size_names(true).contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turbo(path: &str) -> &'static Endpoint {
        Endpoint::find(&format!("fal-ai/z-image/turbo{path}")).unwrap()
    }

    #[test]
    fn a_form_is_the_input_that_a_program_sends() {
        let cases = [
            (
                "",
                "prompt=a+house&num_images=1&image_size=landscape_4_3",
                json!({"prompt": "a house"}),
            ),
            ("", "prompt=a&seed=18446744073709551615", json!({"prompt": "a", "seed": u64::MAX})),
            (
                "",
                "prompt=a&image_size=custom&image_size.width=192&image_size.height=x",
                json!({"prompt": "a", "image_size": {"width": 192, "height": "x"}}),
            ),
            (
                "",
                "enable_safety_checker=false&num_images=2",
                json!({"enable_safety_checker": false, "num_images": 2}),
            ),
            (
                "/lora",
                "loras.0.path=&loras.1.path=a/b&loras.1.scale=0.5",
                json!({"loras": [{"path": "a/b", "scale": 0.5}]}),
            ),
            (
                "",
                "prompt=a&sampler=heun&sigmas=1,+0.5&variation_seed=3&variation_strength=0.1&seed_per_image=false",
                json!({"prompt": "a", "sampler": "heun", "sigmas": [1, 0.5], "variation_seed": 3}),
            ),
            ("", "sampler=euler&sigmas=1;x", json!({"sigmas": ["1;x"]})),
            (
                "/image-to-image",
                "image_url=/files/x/y.png&strength=0.5",
                json!({"image_url": "http://here/files/x/y.png", "strength": 0.5}),
            ),
        ];
        for (path, query, expected) in cases {
            assert_eq!(Filled::of_query(query).input(turbo(path), "http://here"), expected);
        }
    }

    #[test]
    fn a_link_restores_the_form() {
        let endpoint = turbo("/lora");
        let input = json!({"prompt": "a & b?", "seed": 7, "num_images": 3, "image_size": {"width": 192, "height": 256},
            "loras": [{"path": "a/b", "scale": 0.5}], "sampler": "unipc", "sigmas": [1, 0.75, 0.5]});
        let filled = Filled::of_input(endpoint, &input);
        let link = filled.link("/playground", endpoint);
        assert!(!link.contains("output_format"), "{link}");
        let again = Filled::of_query(link.split_once('?').unwrap().1);
        assert_eq!(again.input(endpoint, ""), input);
    }
}
