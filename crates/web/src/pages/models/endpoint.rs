//! The sheet of one of fal's endpoints: what it is, takes and answers, as tables and as programs.

use maud::{Markup, html};
use serde_json::{Map, Value};
use zoetrope_api::fal::Endpoint;
use zoetrope_api::fal::field::{Field, fields};
use zoetrope_api::fal::schema;
use zoetrope_server::App;

use super::{price, samples};
use crate::fault::Fault;
use crate::layout::{Page, Tab, page};
use crate::pages::playground::code;
use crate::text::fields;
use crate::text::models::Models;
use crate::visitor::Visitor;

pub(super) async fn sheet(
    app: &App,
    visitor: &Visitor,
    endpoint: &'static Endpoint,
) -> Result<Markup, Fault> {
    let words = Models::of(visitor.look.language);
    let input = schema::input_schema(endpoint);
    let output = schema::output_schema(endpoint);
    let open = match endpoint.trains() {
        true => "/training".to_string(),
        false => format!("/playground/{}", endpoint.id),
    };
    let body = html! {
        div.head {
            h1 { (endpoint.title) }
            a.button.primary.push href=(open) { (words.open) }
        }
        p { (endpoint.summary) }
        h2 { (words.specification) }
        dl.sheet-facts {
            div { dt { (words.id) } dd { code { (endpoint.id) } } }
            div { dt { (words.category) } dd { (endpoint.category()) } }
            div { dt { (words.price) } dd.numbers { (price(app, endpoint, visitor)) } }
            div { dt { (words.documents) } dd {
                a href={ "/models/" (endpoint.id) "/llms.txt" } { "llms.txt" } " · "
                a href={ "/api/openapi/queue/openapi.json?endpoint_id=" (endpoint.id) } { "OpenAPI" }
            } }
        }
        h2 { (words.input) }
        (table(words, words.input, fields(endpoint).iter().map(|field| row(visitor, words, field, &input["properties"][field.name]))))
        h2 { (words.output) }
        (table(words, words.output, output["properties"].as_object().into_iter().flatten().map(|(name, property)| html! {
            tr { td { code { (name) } } td { (kind(property)) } td { } td { (property["description"].as_str().unwrap_or_default()) } }
        })))
        (samples(app, visitor, endpoint.id).await?)
        h2 { (words.programs) }
        (code::programs(visitor, endpoint, &example(endpoint)))
    };
    let page_of = Page { title: endpoint.title, tab: Some(Tab::Models), scripts: &[], body };
    Ok(page(&visitor.look, page_of))
}

fn table(words: &Models, of: &str, rows: impl Iterator<Item = Markup>) -> Markup {
    html! {
        div.table.schema tabindex="0" role="region" aria-label=(of) {
            table {
                thead { tr { th { (words.field) } th { (words.kind) } th { (words.default) } th { (words.about) } } }
                tbody { @for row in rows { (row) } }
            }
        }
    }
}

fn row(visitor: &Visitor, words: &Models, field: &Field, property: &Value) -> Markup {
    let (_, help) = fields::field(visitor.look.language, field);
    html! {
        tr {
            td { code { (field.name) } @if field.required { " " span.tag { (words.required) } } }
            td { (kind(property)) }
            td { @if let Some(default) = &field.default { code { (default) } } }
            td { (help) }
        }
    }
}

/// A property's type with its limits, in one line.
fn kind(property: &Value) -> String {
    if let Some(options) = property["enum"].as_array() {
        let options: Vec<_> = options.iter().filter_map(Value::as_str).collect();
        return options.join(" | ");
    }
    if let Some(choices) = property["anyOf"].as_array() {
        return choices.iter().map(kind).collect::<Vec<_>>().join(" | ");
    }
    if let Some(reference) = property["$ref"].as_str() {
        return reference.rsplit('/').next().unwrap_or(reference).into();
    }
    if let Some(parts) = property["allOf"].as_array() {
        return parts.iter().map(kind).collect::<Vec<_>>().join(" & ");
    }
    match (property["type"].as_str(), &property["minimum"], &property["maximum"]) {
        (Some("array"), ..) => format!("list of {}", kind(&property["items"])),
        (Some(name), Value::Number(least), Value::Number(most)) => {
            format!("{name}, {least} – {most}")
        }
        (Some(name), ..) => name.into(),
        (None, ..) => String::new(),
    }
}

/// An input that shows what must be there.
fn example(endpoint: &Endpoint) -> Value {
    let needed = fields(endpoint).into_iter().filter(|field| field.required);
    let pairs = needed.filter_map(|field| Some((field.name.to_string(), field.example?)));
    Value::Object(pairs.collect::<Map<_, _>>())
}
