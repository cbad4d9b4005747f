//! Values of a request, each read by its name, with what is wrong kept for all to be told together.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::parameter::{Kind, Parameter};
use super::problem::Problem;

/// A body, and what was read of it. Forms send everything as text, so that numbers and flags are read from text too.
pub(super) struct Reader<'a> {
    body: &'a Map<String, Value>,
    problems: Vec<Problem>,
    taken: BTreeSet<&'a str>,
}

/// Characters of a value that an error repeats.
const SHOWN_CHARACTERS_MAX: usize = 60;

impl<'a> Reader<'a> {
    pub(super) fn new(body: &'a Map<String, Value>) -> Self {
        Self { body, problems: Vec::new(), taken: BTreeSet::new() }
    }

    /// What was sent as `name`, which thereby has its place; null is as good as nothing.
    pub(super) fn value(&mut self, name: &str) -> Option<&'a Value> {
        let (name, value) = self.body.get_key_value(name)?;
        self.taken.insert(name);
        (!value.is_null()).then_some(value)
    }

    /// Something is wrong with `name`; `problem` begins where the name ends.
    pub(super) fn wrong(&mut self, name: &str, problem: impl std::fmt::Display) {
        self.problems.push(Problem::invalid(name, format!("`{name}` {problem}")));
    }

    pub(super) fn text(&mut self, name: &str) -> Option<&'a str> {
        let value = self.value(name)?;
        if value.as_str().is_none() {
            self.wrong(name, format_args!("is {}; it must be a string", shown(value)));
        }
        value.as_str()
    }

    /// The same where an empty text says nothing.
    pub(super) fn word(&mut self, name: &str) -> Option<&'a str> {
        self.text(name).map(str::trim).filter(|text| !text.is_empty())
    }

    /// One of the table's words, in any case of letters.
    pub(super) fn choice(&mut self, name: &str) -> Option<String> {
        let word = self.word(name)?.to_ascii_lowercase();
        let Some(Parameter { kind: Kind::Choice(options), .. }) = Parameter::named(name) else {
            return Some(word);
        };
        if options.iter().any(|option| option.eq_ignore_ascii_case(&word)) {
            return Some(word);
        }
        self.wrong(name, format_args!("is `{}`; send one of {}", cut(&word), options.join(", ")));
        None
    }

    /// A whole number within the table's limits.
    pub(super) fn whole(&mut self, name: &str) -> Option<i64> {
        let value = self.value(name)?;
        let whole = whole(value);
        let limits = Parameter::named(name).map(|parameter| parameter.kind);
        let within = |whole: i64| match limits {
            Some(Kind::Whole { min, max }) => (min..=max).contains(&whole),
            _ => true,
        };
        if whole.is_some_and(within) {
            return whole;
        }
        let limits = match limits {
            Some(Kind::Whole { min, max }) => format!(" from {min} to {max}"),
            _ => String::new(),
        };
        self.wrong(name, format_args!("is {}; it must be a whole number{limits}", shown(value)));
        None
    }

    /// A whole number of 64 bits; negative ones are taken modulo 2⁶⁴.
    pub(super) fn seed(&mut self, name: &str) -> Option<u64> {
        let value = self.value(name)?;
        let text = value.as_str().map(str::trim);
        let unsigned = value.as_u64().or_else(|| text?.parse().ok());
        let seed = unsigned.or_else(|| whole(value).map(|whole| whole as u64));
        if seed.is_none() {
            self.wrong(
                name,
                format_args!("is {}; it must be a whole number of 64 bits", shown(value)),
            );
        }
        seed
    }

    /// A number within the table's limits.
    pub(super) fn number(&mut self, name: &str) -> Option<f64> {
        let value = self.value(name)?;
        let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
        let (min, max) = match Parameter::named(name).map(|parameter| parameter.kind) {
            Some(Kind::Number { min, max }) => (min, max),
            _ => (f64::MIN, f64::MAX),
        };
        let within = number.filter(|number| (min..=max).contains(number));
        if within.is_none() {
            let shown = shown(value);
            self.wrong(name, format_args!("is {shown}; it must be a number from {min} to {max}"));
        }
        within
    }

    /// A list of numbers within the table's limits, or a text in which commas are between them.
    pub(super) fn numbers(&mut self, name: &str) -> Option<Vec<f64>> {
        let value = self.value(name)?;
        let Some(Parameter { kind: Kind::Numbers { min, max, count }, .. }) =
            Parameter::named(name)
        else {
            return None;
        };
        let texts = |text: &str| -> Option<Vec<f64>> {
            let list = text.trim().trim_start_matches('[').trim_end_matches(']');
            list.split(',').take(count + 1).map(|number| number.trim().parse().ok()).collect()
        };
        // In forms each number of a list is a text, or all of them are one.
        let one = |value: &Value| match value {
            Value::String(text) => texts(text),
            other => Some(vec![other.as_f64()?]),
        };
        let numbers: Option<Vec<f64>> = match value {
            Value::Array(list) => {
                let parts: Option<Vec<_>> = list.iter().take(count + 1).map(one).collect();
                parts.map(|parts| parts.concat())
            }
            Value::String(text) => texts(text),
            _ => None,
        };
        let within = |number: &f64| (min..=max).contains(&number);
        let numbers =
            numbers.filter(|numbers| numbers.len() <= *count && numbers.iter().all(within));
        if numbers.is_none() {
            self.wrong(
                name,
                format_args!("must be a list of at most {count} numbers from {min} to {max}"),
            );
        }
        numbers
    }

    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        let value = self.value(name)?;
        let flag = value.as_bool().or_else(|| {
            match value.as_str()?.trim().to_ascii_lowercase().as_str() {
                "true" | "1" => Some(true),
                "false" | "0" => Some(false),
                _ => None,
            }
        });
        if flag.is_none() {
            self.wrong(name, format_args!("is {}; it must be true or false", shown(value)));
        }
        flag
    }

    /// What nobody has read.
    pub(super) fn rest(&self) -> Map<String, Value> {
        let left = self
            .body
            .iter()
            .filter(|(name, value)| !value.is_null() && !self.taken.contains(name.as_str()));
        left.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// All that was wrong as one problem about the first of them.
    pub(super) fn finish(self) -> Result<(), Problem> {
        let messages: Vec<_> = self.problems.iter().map(|p| p.message.as_str()).collect();
        let message = messages.join(". ");
        match self.problems.into_iter().next() {
            Some(first) => Err(Problem { message, ..first }),
            None => Ok(()),
        }
    }
}

/// `8`, `8.0` and `"8"`.
fn whole(value: &Value) -> Option<i64> {
    let float = |number: f64| {
        let is_whole = number.fract() == 0.0 && number.abs() < 9e15; // below 2⁵³ every whole number is one
        is_whole.then_some(number as i64)
    };
    value
        .as_i64()
        .or_else(|| float(value.as_f64()?))
        .or_else(|| value.as_str()?.trim().parse().ok())
}

/// A value as an error shows it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".into(),
        Value::Array(_) => "a list".into(),
        Value::String(text) => format!("`{}`", cut(text)),
        other => other.to_string(),
    }
}

/// The beginning of a text that may be long.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.into(),
    }
}
