//! The sheet of a model: who serves it for how much, and what each parameter does.

use maud::{Markup, html};
use zoetrope_api::images::{ParameterSheet, ProviderSheet};
use zoetrope_gateway::catalogue::Model;
use zoetrope_server::App;

use super::samples;
use crate::fault::Fault;
use crate::layout::{Page, Tab, page};
use crate::show::dollars;
use crate::text::filled;
use crate::text::models::Models;
use crate::visitor::Visitor;

pub(super) async fn sheet(app: &App, visitor: &Visitor, model: &Model) -> Result<Markup, Fault> {
    let words = Models::of(visitor.look.language);
    let sheet = app.model_sheet(model);
    let here = format!("/models/{}/{}", sheet.owned_by, sheet.id);
    let body = html! {
        div.head { h1 { (sheet.name) } }
        p { (sheet.description) }
        h2 { (words.specification) }
        dl.sheet-facts {
            div { dt { (words.id) } dd { code { (sheet.id) } } }
            div { dt { (words.creator) } dd { (sheet.owned_by) } }
            div { dt { (words.modes) } dd { (sheet.modes.join(", ")) } }
            div { dt { (words.largest) } dd.numbers { (sheet.max_resolution) } }
            @if !sheet.aliases.is_empty() { div { dt { (words.aliases) } dd { (sheet.aliases.join(", ")) } } }
            div { dt { (words.documents) } dd {
                a href={ (here) "/llms.txt" } { "llms.txt" } " · "
                a href="/v1/openapi.json" { "OpenAPI" }
            } }
        }
        h2 { (words.providers) }
        div.table tabindex="0" role="region" aria-label=(words.providers) {
            table {
                thead { tr { th { (words.provider) } th { (words.upstream) } th { (words.modes) } th { (words.price) } th { (words.health) } } }
                tbody { @for provider in &sheet.providers { (row(words, provider)) } }
            }
        }
        h2 { (words.parameters) }
        div.table.schema tabindex="0" role="region" aria-label=(words.parameters) {
            table {
                thead { tr { th { (words.field) } th { (words.kind) } th { (words.default) } th { (words.about) } } }
                tbody { @for parameter in &sheet.schema.parameters { (of_parameter(words, parameter)) } }
            }
        }
        (samples(app, visitor, &sheet.id).await?)
    };
    let page_of = Page { title: &sheet.name, tab: Some(Tab::Models), scripts: &[], body };
    Ok(page(&visitor.look, page_of))
}

fn row(words: &Models, provider: &ProviderSheet) -> Markup {
    let prices = provider.pricing.iter().map(|price| {
        let amount = dollars(price.price_micros as f64 / 1e6);
        let when = price.parameter.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        format!("{amount} / {}{when}", price.unit)
    });
    let prices: Vec<String> = prices.collect();
    html! {
        tr {
            td { (provider.provider_name) br; code.soft { (provider.key) } }
            td { code { (provider.provider_model_id) } }
            td { (provider.modes.join(", ")) }
            td.numbers { (if prices.is_empty() { words.unknown.to_string() } else { prices.join(", ") }) }
            td { (if provider.healthy { words.healthy } else { words.unhealthy }) }
        }
    }
}

fn of_parameter(words: &Models, parameter: &ParameterSheet) -> Markup {
    let limits = match (&parameter.values, parameter.minimum, parameter.maximum) {
        (Some(values), ..) => values.join(" | "),
        (None, Some(least), Some(most)) => format!("{}, {least} – {most}", parameter.kind),
        _ => parameter.kind.into(),
    };
    html! {
        tr {
            td { code { (parameter.name) } }
            td { (limits) }
            td { @if !parameter.default.is_null() { code { (parameter.default) } } }
            td {
                (parameter.description)
                @if let Some(providers) = &parameter.providers { " " span.tag { (filled(words.only, &[&providers.join(", ")])) } }
            }
        }
    }
}
