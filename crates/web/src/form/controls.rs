//! A control for each kind of field. All work without scripts; modules make some of them better.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde_json::Value;
use zoetrope_api::NAMED_SIZES;
use zoetrope_api::fal::field::{Field, Kind, LORA_SCALE};
use zoetrope_api::fal::parse::size_names;
use zoetrope_api::fal::{Endpoint, Problem};

use super::Filled;
use super::filled::{CUSTOM, is_named_size};
use super::received::FILE;
use crate::icons::{self, icon};
use crate::text::Language;
use crate::text::fields;
use crate::text::playground::Playground;

/// What stands in the controls of `endpoint`, and what is wrong with it.
pub(crate) struct Controls<'a> {
    pub(crate) endpoint: &'static Endpoint,
    pub(crate) language: Language,
    pub(crate) filled: &'a Filled,
    /// Sentences by the names of controls.
    pub(crate) problems: BTreeMap<String, String>,
    /// Adapters that were trained here: name and address.
    pub(crate) loras: &'a [(String, String)],
}

/// Sentences about `problems`, by the controls that they belong to.
pub(crate) fn by_control(language: Language, problems: &[Problem]) -> BTreeMap<String, String> {
    let name = |problem: &Problem| {
        let parts = problem.loc.iter().skip(1);
        let parts = parts.map(|part| part.as_str().map_or(part.to_string(), String::from));
        parts.collect::<Vec<_>>().join(".")
    };
    problems.iter().map(|problem| (name(problem), fields::problem(language, problem))).collect()
}

/// Whether a field is one of those that most people change.
pub(crate) fn is_common(field: &Field) -> bool {
    field.required
        || matches!(
            field.kind,
            Kind::ImageSize { .. } | Kind::Seed | Kind::Loras { .. } | Kind::ImageUrl
        )
        || matches!(field.name, "num_images" | "strength" | "tiling_mode" | "negative_prompt")
}

impl Controls<'_> {
    /// The control for `field`, with its label, help and error.
    pub(crate) fn field(&self, field: &Field) -> Markup {
        let (label, help) = fields::field(self.language, field);
        let control = match &field.kind {
            Kind::ImageUrl => return self.picture(field, &label, &help),
            Kind::Loras { max } => return self.loras(field, *max, &label),
            Kind::ImageSize { auto } => return self.sizes(field, *auto, &label),
            Kind::Flag => return self.flag(field, &label, &help),
            Kind::Choice(options) => return self.choice(field, options, &label, &help),
            Kind::Integer { documented: (1, most), .. } if *most <= 4 => {
                let counts: Vec<String> = (1..=*most).map(|count| count.to_string()).collect();
                let counts: Vec<&str> = counts.iter().map(String::as_str).collect();
                return self.choice(field, &counts, &label, "");
            }
            Kind::Text => self.text(field),
            Kind::Seed if field.name == "seed" => self.seed(field),
            Kind::Seed => self.plain(field, "numeric"),
            Kind::Sigmas => self.plain(field, "text"),
            Kind::Integer { documented: (least, most), .. } if *most <= 1000 => {
                self.slider(field, *least as f64, *most as f64, 1.0)
            }
            Kind::Number { min, max } => {
                self.slider(field, *min, *max, if max - min > 5.0 { 0.1 } else { 0.01 })
            }
            Kind::Integer { .. } | Kind::Positive { .. } => self.plain(field, "decimal"),
            _ => self.file(field),
        };
        html! {
            div.field {
                label for=(id(field.name)) { (label) }
                (control)
                @if !help.is_empty() && field.name != "prompt" { p.help #{ (id(field.name)) "-help" } { (help) } }
                (self.fault(field.name))
            }
        }
    }

    /// What stands in the control `name`, or would be sent without it.
    fn value(&self, field: &Field) -> String {
        let default = || match &field.default {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null | Value::Array(_)) | None => String::new(),
            Some(other) => other.to_string(),
        };
        match self.filled.get(field.name) {
            "" if field.kind == Kind::Text => String::new(),
            "" => default(),
            text => text.into(),
        }
    }

    fn fault(&self, name: &str) -> Markup {
        html! {
            @if let Some(problem) = self.problems.get(name) {
                p.fault #{ (id(name)) "-fault" } { (problem) }
            }
        }
    }

    /// For `aria-invalid`.
    fn invalid(&self, name: &str) -> Option<&'static str> {
        self.problems.contains_key(name).then_some("true")
    }

    /// For `aria-describedby`: the fault first, as long as there is one.
    fn described(&self, name: &str) -> String {
        match self.problems.contains_key(name) {
            true => format!("{0}-fault {0}-help", id(name)),
            false => format!("{}-help", id(name)),
        }
    }

    fn text(&self, field: &Field) -> Markup {
        let words = Playground::of(self.language);
        let hint = (field.name == "prompt").then_some(words.prompt_hint);
        let rows = if field.required { "4" } else { "2" };
        html! {
            textarea #(id(field.name)) name=(field.name) rows=(rows) placeholder=[hint] required[field.required]
                aria-invalid=[self.invalid(field.name)] aria-describedby=(self.described(field.name)) { (self.value(field)) }
        }
    }

    fn plain(&self, field: &Field, mode: &str) -> Markup {
        html! {
            input #(id(field.name)) name=(field.name) type="text" inputmode=(mode) value=(self.value(field)) autocomplete="off"
                required[field.required] aria-invalid=[self.invalid(field.name)] aria-describedby=(self.described(field.name));
        }
    }

    /// A slider, and the same as a number beside it: `app.js` keeps them alike.
    fn slider(&self, field: &Field, least: f64, most: f64, step: f64) -> Markup {
        let value = self.value(field);
        html! {
            div.slider data-slider {
                input type="range" min=(least) max=(most) step=(step) value=(value) aria-hidden="true" tabindex="-1";
                input #(id(field.name)) name=(field.name) type="number" min=(least) max=(most) step="any" value=(value)
                    aria-invalid=[self.invalid(field.name)] aria-describedby=(self.described(field.name));
            }
        }
    }

    fn seed(&self, field: &Field) -> Markup {
        let words = Playground::of(self.language);
        let value = self.value(field);
        html! {
            div.joined data-seed {
                input #(id(field.name)) name=(field.name) type="text" inputmode="numeric" value=(value) autocomplete="off"
                    placeholder=(words.seed_any) aria-invalid=[self.invalid(field.name)] aria-describedby=(self.described(field.name));
                button.square.scripted type="button" data-dice title=(words.seed_dice) aria-label=(words.seed_dice) { (icon(icons::DICE)) }
                button.square.scripted type="button" data-lock title=(words.seed_lock) aria-label=(words.seed_lock)
                    aria-pressed=(!value.is_empty()) { (icon(icons::LOCK)) }
            }
        }
    }

    fn flag(&self, field: &Field, label: &str, help: &str) -> Markup {
        html! {
            div.field {
                input type="hidden" name=(field.name) value="false";
                label.check for=(id(field.name)) {
                    input #(id(field.name)) type="checkbox" name=(field.name) value="true"
                        checked[matches!(self.value(field).as_str(), "true" | "on")] aria-describedby=(self.described(field.name));
                    (label)
                }
                p.help #{ (id(field.name)) "-help" } { (help) }
                (self.fault(field.name))
            }
        }
    }

    fn choice(&self, field: &Field, options: &[&str], label: &str, help: &str) -> Markup {
        let value = self.value(field);
        html! {
            fieldset.field #(id(field.name)) aria-describedby=(self.described(field.name)) {
                legend { (label) }
                div.segments {
                    @for option in options {
                        label { input type="radio" name=(field.name) value=(option) checked[value == *option]; (option) }
                    }
                }
                @if !help.is_empty() { p.help #{ (id(field.name)) "-help" } { (help) } }
                (self.fault(field.name))
            }
        }
    }

    /// Named sizes as shapes, and any other in pixels.
    fn sizes(&self, field: &Field, auto: bool, label: &str) -> Markup {
        let words = Playground::of(self.language);
        let value = self.value(field);
        let custom = !is_named_size(&value);
        let side = |name: &str| {
            let text = self.filled.get(&format!("{}.{name}", field.name));
            if text.is_empty() { "512".to_string() } else { text.to_string() }
        };
        html! {
            fieldset.field #(id(field.name)) aria-describedby=(self.described(field.name)) {
                legend { (label) }
                div.shapes {
                    @for name in size_names(auto) {
                        label.shape {
                            input type="radio" name=(field.name) value=(name) checked[value == name];
                            (shape(name))
                            span { (fields::size(self.language, name)) }
                        }
                    }
                    label.shape {
                        input type="radio" name=(field.name) value=(CUSTOM) checked[custom];
                        (shape(CUSTOM))
                        span { (fields::size(self.language, CUSTOM)) }
                    }
                }
                div.sides {
                    @for (name, word) in [("width", words.width), ("height", words.height)] {
                        @let control = format!("{}.{name}", field.name);
                        div {
                            label for=(id(&control)) { (word) }
                            input #(id(&control)) name=(control) type="number" min="16" max="8192" step="any" value=(side(name))
                                aria-invalid=[self.invalid(&control)] aria-describedby=(self.described(field.name));
                            (self.fault(&control))
                        }
                    }
                }
                (self.fault(field.name))
            }
        }
    }

    /// A picture: a file, an address, or with scripts dropped and pasted; a mask is painted over the picture beside it.
    fn picture(&self, field: &Field, label: &str, help: &str) -> Markup {
        let words = Playground::of(self.language);
        let (name, value) = (field.name, self.value(field));
        let mask = name.starts_with("mask");
        html! {
            div.field.picture data-picture[!mask] data-mask[mask] data-failed=(words.image_failed) {
                label for=(id(name)) { (label) }
                @if mask {
                    p.help.scripted data-first { (words.mask_first) }
                    div.painter hidden {
                        div.tools {
                            label.check { (words.mask_size) input type="range" data-brush min="4" max="120" value="40"; }
                            button.small type="button" data-erase aria-pressed="false" { (words.mask_erase) }
                            button.small type="button" data-clear { (words.mask_clear) }
                        }
                        div.canvas { canvas tabindex="0" aria-label=(words.mask_paint) {} }
                        p.help { (words.mask_paint) }
                    }
                } @else {
                    div.drop {
                        (icon(icons::PICTURE))
                        p { (words.image_drop) }
                        img hidden[value.is_empty()] src=[crate::show::own_path(&value)] alt=(label);
                        button.small.scripted type="button" data-remove hidden[value.is_empty()] { (icon(icons::CROSS)) (words.image_remove) }
                    }
                }
                input.file type="file" name={ (name) (FILE) } accept="image/*" aria-label={ (label) ": " (words.image_choose) };
                input #(id(name)) name=(name) type="text" inputmode="url" value=(value) placeholder=(words.image_address) autocomplete="off"
                    aria-invalid=[self.invalid(name)] aria-describedby=(self.described(name));
                p.help #{ (id(name)) "-help" } { (help) }
                (self.fault(name))
            }
        }
    }

    fn file(&self, field: &Field) -> Markup {
        let (label, _) = fields::field(self.language, field);
        html! {
            div.stack {
                input type="file" name={ (field.name) (FILE) } accept=".zip" aria-label={ (label) ": zip" };
                (self.plain(field, "url"))
            }
        }
    }

    /// Rows for adapters; empty ones after the first are shown by a button.
    fn loras(&self, field: &Field, max: usize, label: &str) -> Markup {
        let words = Playground::of(self.language);
        html! {
            fieldset.field.loras #(id(field.name)) data-loras {
                legend { (label) }
                @for at in 0..max {
                    @let (path, scale) = (format!("{}.{at}.path", field.name), format!("{}.{at}.scale", field.name));
                    @let value = self.filled.get(&path);
                    div.lora data-empty[at > 0 && value.is_empty()] {
                        input #(id(&path)) name=(path) type="text" value=(value) list="loras-known" placeholder=(words.lora_path) autocomplete="off"
                            aria-label={ (words.lora_path) " " (at + 1) } aria-invalid=[self.invalid(&path)];
                        (self.fault(&path))
                        div.slider data-slider {
                            input type="range" min=(LORA_SCALE.0) max="2" step="0.05" value=(or_one(self.filled.get(&scale))) aria-hidden="true" tabindex="-1";
                            input #(id(&scale)) name=(scale) type="number" min=(LORA_SCALE.0) max=(LORA_SCALE.1) step="any"
                                value=(or_one(self.filled.get(&scale))) aria-label={ (words.lora_scale) " " (at + 1) } aria-invalid=[self.invalid(&scale)];
                        }
                        (self.fault(&scale))
                        button.small.scripted type="button" data-remove { (words.lora_remove) }
                    }
                }
                datalist #loras-known {
                    @for (name, address) in self.loras { option value=(address) { (words.lora_trained) ": " (name) } }
                }
                button.small.scripted type="button" data-add { (icon(icons::PLUS)) (words.lora_add) }
                (self.fault(field.name))
            }
        }
    }
}

/// The `id` of a control: names have dots, which selectors do not take.
pub(crate) fn id(name: &str) -> String {
    format!("f-{}", name.replace('.', "-"))
}

fn or_one(text: &str) -> &str {
    if text.is_empty() { "1" } else { text }
}

/// A rectangle as wide and high as the size called `name`.
fn shape(name: &str) -> Markup {
    let known = NAMED_SIZES.iter().find(|(known, ..)| *known == name);
    let (width, height) = known.map_or((1024, 1024), |(_, width, height)| (*width, *height));
    let (across, down) = (f64::from(width) / 1024.0 * 20.0, f64::from(height) / 1024.0 * 20.0);
    html! {
        svg viewBox="0 0 24 24" width="24" height="24" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="1.5"
            stroke-dasharray=[known.is_none().then_some("3 2.5")] {
            rect x=((24.0 - across) / 2.0) y=((24.0 - down) / 2.0) width=(across) height=(down) rx="2" {}
        }
    }
}
