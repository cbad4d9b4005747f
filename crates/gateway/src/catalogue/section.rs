//! Reading a table of a configuration: every value is checked, and everything that is wrong is remembered with its place.

use std::cell::RefCell;
use std::time::Duration;

use toml::{Table, Value};
use zoetrope_api::Micros;

use super::{ConfigError, Mistake};

/// What was found to be wrong so far.
#[derive(Default)]
pub(super) struct Mistakes(RefCell<Vec<Mistake>>);

impl Mistakes {
    pub(super) fn say(&self, place: impl Into<String>, message: impl Into<String>) {
        self.0.borrow_mut().push(Mistake { place: place.into(), message: message.into() });
    }

    /// `value`, if nothing was wrong.
    pub(super) fn or<T>(self, value: T) -> Result<T, ConfigError> {
        let mistakes = self.0.into_inner();
        if mistakes.is_empty() { Ok(value) } else { Err(ConfigError { mistakes }) }
    }
}

/// A table and where it stands. Names that were never asked for are told at the end.
pub(super) struct Section<'a> {
    pub(super) place: String,
    table: &'a Table,
    mistakes: &'a Mistakes,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    pub(super) fn new(place: &str, table: &'a Table, mistakes: &'a Mistakes) -> Self {
        Self { place: place.into(), table, mistakes, known: RefCell::default() }
    }

    /// The value of `value` as a section; a mistake if it is no table.
    pub(super) fn of(place: String, value: &'a Value, mistakes: &'a Mistakes) -> Option<Self> {
        match value {
            Value::Table(table) => Some(Self::new(&place, table, mistakes)),
            _ => {
                mistakes.say(place, format!("is {}, and must be a table", kind(value)));
                None
            }
        }
    }

    /// The value called `name`, if it is there.
    pub(super) fn get(&self, name: &'static str) -> Option<&'a Value> {
        self.known.borrow_mut().push(name);
        self.table.get(name)
    }

    /// Something is wrong with the value called `name`, or with all of it where that is empty.
    pub(super) fn wrong(&self, name: &str, message: impl Into<String>) {
        let place = match name {
            "" => self.place.clone(),
            name => format!("{}.{name}", self.place),
        };
        self.mistakes.say(place, message);
    }

    fn read<T>(
        &self,
        name: &'static str,
        wanted: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(name)?;
        let read = read(value);
        if read.is_none() {
            self.wrong(name, format!("is {}; write {wanted}", shown(value)));
        }
        read
    }

    pub(super) fn text(&self, name: &'static str) -> Option<String> {
        let text = |value: &'a Value| value.as_str().filter(|text| !text.trim().is_empty());
        self.read(name, "some text in quotes", text).map(String::from)
    }

    pub(super) fn flag(&self, name: &'static str) -> Option<bool> {
        self.read(name, "true or false", Value::as_bool)
    }

    /// A whole number from `min` to `max`.
    pub(super) fn whole(&self, name: &'static str, min: i64, max: i64) -> Option<i64> {
        let within =
            |value: &'a Value| value.as_integer().filter(|number| (min..=max).contains(number));
        self.read(name, &format!("a whole number from {min} to {max}"), within)
    }

    /// A number from `min` to `max`.
    pub(super) fn number(&self, name: &'static str, min: f64, max: f64) -> Option<f64> {
        let within = |value: &'a Value| {
            let number = value.as_float().or(value.as_integer().map(|whole| whole as f64))?;
            (min..=max).contains(&number).then_some(number)
        };
        self.read(name, &format!("a number from {min} to {max}"), within)
    }

    /// Seconds, up to a day.
    pub(super) fn seconds(&self, name: &'static str) -> Option<Duration> {
        self.number(name, 0.001, 86_400.0).map(Duration::from_secs_f64)
    }

    /// Dollars, up to a million.
    pub(super) fn dollars(&self, name: &'static str) -> Option<Micros> {
        self.number(name, 0.0, 1e6).and_then(Micros::of_dollars)
    }

    /// One of `choices`, by its name.
    pub(super) fn choice<T: Copy>(
        &self,
        name: &'static str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let found = |value: &'a Value| {
            let text = value.as_str()?;
            choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice)
        };
        self.read(name, &format!("one of {}", names.join(", ")), found)
    }

    /// A list of texts.
    pub(super) fn texts(&self, name: &'static str) -> Option<Vec<String>> {
        let texts = |value: &'a Value| {
            let items = value.as_array()?.iter();
            items.map(|item| item.as_str().map(String::from)).collect::<Option<Vec<_>>>()
        };
        self.read(name, "a list of texts in quotes", texts)
    }

    /// The tables in the table called `name`, with their names.
    pub(super) fn sections(&self, name: &'static str) -> Vec<(&'a str, Self)> {
        let Some(value) = self.get(name) else { return Vec::new() };
        let place = format!("{}.{name}", self.place);
        let Some(outer) = Self::of(place, value, self.mistakes) else { return Vec::new() };
        let inner = outer.table.iter().filter_map(|(name, value)| {
            let place = format!("{}.{name}", outer.place);
            Some((name.as_str(), Self::of(place, value, self.mistakes)?))
        });
        inner.collect()
    }

    /// The table called `name`.
    pub(super) fn section(&self, name: &'static str) -> Option<Self> {
        let value = self.get(name)?;
        Self::of(format!("{}.{name}", self.place), value, self.mistakes)
    }

    /// The values of the list called `name`, with their places.
    pub(super) fn items(&self, name: &'static str) -> Option<Vec<(String, &'a Value)>> {
        let items = self.read(name, "a list", |value| value.as_array())?;
        let place = |at: usize| format!("{}.{name}[{at}]", self.place);
        Some(items.iter().enumerate().map(|(at, value)| (place(at), value)).collect())
    }

    /// Everything was asked for that may be there; what else is there is a mistake.
    pub(super) fn done(&self) {
        let known = self.known.borrow();
        for name in self.table.keys().filter(|name| !known.contains(&name.as_str())) {
            let mut names = known.clone();
            names.sort_unstable();
            names.dedup();
            self.wrong(name, format!("is no setting; there are {}", names.join(", ")));
        }
    }
}

/// What a value is, in words.
fn kind(value: &Value) -> String {
    format!("a {}", value.type_str())
}

/// A value as it may be shown: keys stand among texts, so only short ones that are no text.
fn shown(value: &Value) -> String {
    match value {
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => value.to_string(),
        Value::String(text) if text.trim().is_empty() => "empty".into(),
        _ => kind(value),
    }
}
