//! Values of a body, each read as Pydantic would, with what is wrong kept for all to be told together.

use serde_json::{Map, Value, json};

use super::field::{Field, Kind};
use super::parse::PROMPT_BYTES_MAX;
use super::problem::Problem;
use crate::task::{Place, is_data_uri};

/// What was sent to an endpoint, and what is wrong with it.
pub(super) struct Reader<'a> {
    pub(super) body: &'a Map<String, Value>,
    pub(super) fields: &'a [Field],
    pub(super) problems: Vec<Problem>,
}

impl Reader<'_> {
    /// What was sent as `name`, else its default; `None` for a field that the endpoint has not.
    pub(super) fn value(&mut self, name: &'static str) -> Option<(Value, Kind)> {
        let field = self.fields.iter().find(|field| field.name == name)?;
        let sent = self.body.get(name).filter(|value| !value.is_null() || field.required);
        if let Some(value) = sent.or(field.default.as_ref()) {
            return Some((value.clone(), field.kind.clone()));
        }
        if field.required {
            let missing = Problem::new(&[json!(name)], "missing", "Field required");
            self.problems.push(missing.input(&Value::Object(self.body.clone())));
        }
        None
    }

    pub(super) fn wrong(
        &mut self,
        name: &str,
        kind: &'static str,
        msg: impl Into<String>,
        input: &Value,
    ) {
        self.problems.push(Problem::new(&[json!(name)], kind, msg).input(input));
    }

    pub(super) fn text(&mut self, name: &'static str) -> String {
        match self.value(name) {
            Some((Value::String(text), _)) => text,
            Some((other, _)) => {
                self.wrong(name, "string_type", "Input should be a valid string", &other);
                String::new()
            }
            None => String::new(),
        }
    }

    pub(super) fn place(&mut self, name: &'static str) -> Place {
        if let Some(Value::String(text)) = self.body.get(name)
            && is_data_uri(text)
        {
            return Place::Input(name.into()); // and not megabytes again
        }
        Place::Url(self.text(name))
    }

    /// A place that need not be there; forms send what was left empty as an empty text.
    pub(super) fn optional_place(&mut self, name: &'static str) -> Option<Place> {
        let sent = self.body.get(name).is_some_and(|value| !value.is_null() && *value != "");
        let known = self.fields.iter().any(|field| field.name == name);
        (sent && known).then(|| self.place(name))
    }

    pub(super) fn prompt(&mut self, name: &'static str) -> String {
        let text = self.text(name);
        if text.len() > PROMPT_BYTES_MAX {
            let msg =
                format!("String should have at most {PROMPT_BYTES_MAX} bytes, not {}", text.len());
            let path = [json!(name)];
            let problem = Problem::new(&path, "string_too_long", msg);
            self.problems.push(problem.with("max_length", PROMPT_BYTES_MAX).input(&json!(text)));
        }
        text
    }

    pub(super) fn integer(&mut self, name: &'static str) -> Option<i64> {
        let (value, kind) = self.value(name)?;
        let Kind::Integer { accepted: (least, most), .. } = kind else { return None };
        let path = [json!(name)];
        self.whole(&path, &value, least, most)
    }

    /// A whole number as Pydantic takes one: `8`, `8.0` and `"8"`.
    pub(super) fn whole(
        &mut self,
        path: &[Value],
        value: &Value,
        least: i64,
        most: i64,
    ) -> Option<i64> {
        let wrong = |kind, msg: &str| Problem::new(path, kind, msg).input(value);
        let valid = "Input should be a valid integer";
        let found = match value {
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Ok(whole),
                (_, Some(float)) if float.fract() == 0.0 && float.abs() < 9e15 => Ok(float as i64),
                (_, Some(float)) if float.fract() != 0.0 => {
                    let msg = format!("{valid}, got a number with a fractional part");
                    Err(wrong("int_from_float", &msg))
                }
                _ => Err(wrong(
                    "int_parsing_size",
                    "Unable to parse input string as an integer, exceeded maximum size",
                )),
            },
            Value::String(text) => text.trim().parse().map_err(|_| {
                wrong("int_parsing", &format!("{valid}, unable to parse string as an integer"))
            }),
            _ => Err(wrong("int_type", valid)),
        };
        let checked = found.and_then(|whole| within(path, value, whole, least, most));
        self.keep(checked)
    }

    pub(super) fn keep<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    pub(super) fn seed(&mut self, name: &'static str) -> Option<u64> {
        let (value, _) = self.value(name)?;
        if let Some(seed) = value.as_u64() {
            return Some(seed);
        }
        // Negative seeds are taken as torch takes them, modulo 2⁶⁴.
        self.whole(&[json!(name)], &value, i64::MIN, i64::MAX).map(|seed| seed as u64)
    }

    pub(super) fn number(&mut self, name: &'static str) -> Option<f64> {
        let (value, kind) = self.value(name)?;
        let Kind::Number { min, max } = kind else { return None };
        self.float(&[json!(name)], &value, min, max)
    }

    pub(super) fn positive(&mut self, name: &'static str) -> Option<f64> {
        let (value, kind) = self.value(name)?;
        let Kind::Positive { max } = kind else { return None };
        let path = [json!(name)];
        let number = self.float(&path, &value, f64::MIN, max)?;
        let above = (number > 0.0).then_some(number).ok_or_else(|| {
            let msg = "Input should be greater than 0";
            Problem::new(&path, "greater_than", msg).with("gt", 0).input(&value)
        });
        self.keep(above)
    }

    pub(super) fn float(
        &mut self,
        path: &[Value],
        value: &Value,
        least: f64,
        most: f64,
    ) -> Option<f64> {
        let wrong = |kind, msg: &str| Problem::new(path, kind, msg).input(value);
        let found = match value {
            Value::Number(number) => Ok(number.as_f64().unwrap_or(f64::NAN)),
            Value::String(text) => text.trim().parse().map_err(|_| {
                let msg = "Input should be a valid number, unable to parse string as a number";
                wrong("float_parsing", msg)
            }),
            _ => Err(wrong("float_type", "Input should be a valid number")),
        };
        let checked = found.and_then(|number: f64| match number.is_finite() {
            true => within(path, value, number, least, most),
            false => Err(wrong("finite_number", "Input should be a finite number")),
        });
        self.keep(checked)
    }

    pub(super) fn flag(&mut self, name: &'static str) -> bool {
        let Some((value, _)) = self.value(name) else { return false };
        let known = match &value {
            Value::Bool(flag) => Some(*flag),
            Value::Number(number) if number.as_f64() == Some(1.0) => Some(true),
            Value::Number(number) if number.as_f64() == Some(0.0) => Some(false),
            Value::String(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "on" | "t" | "y" | "yes" => Some(true),
                "false" | "0" | "off" | "f" | "n" | "no" => Some(false),
                _ => None,
            },
            _ => None,
        };
        if known.is_none() {
            let msg = "Input should be a valid boolean, unable to interpret input";
            self.wrong(name, "bool_parsing", msg, &value);
        }
        known.unwrap_or(false)
    }

    pub(super) fn choice(&mut self, name: &'static str) -> String {
        let Some((value, Kind::Choice(options))) = self.value(name) else { return String::new() };
        match value.as_str().filter(|text| options.contains(text)) {
            Some(text) => text.into(),
            None => {
                self.problems.push(not_among(&[json!(name)], options, &value));
                String::new()
            }
        }
    }
}

/// `value` is none of `options`.
pub(super) fn not_among(path: &[Value], options: &[&str], value: &Value) -> Problem {
    let quoted: Vec<_> = options.iter().map(|option| format!("'{option}'")).collect();
    let (last, front) = quoted.split_last().expect("an enum has values");
    let expected = format!("{} or {last}", front.join(", "));
    Problem::new(path, "literal_error", format!("Input should be {expected}"))
        .with("expected", expected)
        .input(value)
}

fn within<T: PartialOrd + Copy + std::fmt::Display + Into<Value>>(
    path: &[Value],
    value: &Value,
    number: T,
    least: T,
    most: T,
) -> Result<T, Problem> {
    let wrong = |kind, words, key, limit: T| {
        let msg = format!("Input should be {words} than or equal to {limit}");
        Err(Problem::new(path, kind, msg).with(key, limit).input(value))
    };
    match () {
        () if number < least => wrong("greater_than_equal", "greater", "ge", least),
        () if number > most => wrong("less_than_equal", "less", "le", most),
        () => Ok(number),
    }
}
