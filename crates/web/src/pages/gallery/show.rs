//! The pictures, newest first: the page with its filters, and what follows when somebody has seen it all.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zoetrope_api::fal::{ENDPOINTS, Endpoint};
use zoetrope_jobs::{Picture, Search};
use zoetrope_server::App;

use super::star;
use crate::fault::Fault;
use crate::icons::{self, icon};
use crate::layout::{Page, Tab, page};
use crate::show::link;
use crate::text::common::Common;
use crate::text::gallery::Gallery;
use crate::visitor::Visitor;

/// Pictures of one page.
const PAGE: i64 = 60;

/// What is looked for, as it stands in the address.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    q: String,
    model: String,
    favourites: String,
    from: String,
    until: String,
    before: String,
}

impl Asked {
    fn search(&self, visitor: &Visitor) -> Result<Search, Fault> {
        let wrong = |name: &str, value: &str, known: &str| {
            let message = format!("`{name}` is `{value}`; it must be {known}.");
            Fault::new(StatusCode::BAD_REQUEST, message)
        };
        let day = |name: &str, text: &str, none: i64| match text {
            "" => Ok(none),
            text => day(text).ok_or_else(|| wrong(name, text, "a day, as 2026-01-31")),
        };
        let before = match self.before.as_str() {
            "" => i64::MAX,
            text => text.parse().map_err(|_| wrong("before", text, "a picture's number"))?,
        };
        Ok(Search {
            owner: visitor.owner().into(),
            words: self.q.chars().take(WORDS_CHARACTERS_MAX).collect(),
            model: self.model.clone(),
            favourites: !self.favourites.is_empty(),
            from_ms: day("from", &self.from, 0)?,
            // The whole of the last day.
            until_ms: day("until", &self.until, i64::MAX - DAY_MS)?.saturating_add(DAY_MS),
            before,
            most: PAGE + 1,
        })
    }

    fn is_filtered(&self) -> bool {
        [&self.q, &self.model, &self.favourites, &self.from, &self.until]
            .iter()
            .any(|text| !text.is_empty())
    }

    /// The address of what follows `last`.
    fn after(&self, last: &Picture) -> String {
        let number = last.number.to_string();
        let query = [
            ("q", self.q.as_str()),
            ("model", &self.model),
            ("favourites", &self.favourites),
            ("from", &self.from),
            ("until", &self.until),
            ("before", &number),
        ];
        link("/gallery", &query)
    }
}

/// Characters of a search.
const WORDS_CHARACTERS_MAX: usize = 500;
const DAY_MS: i64 = 86_400_000;

/// Milliseconds since 1970 of a day's begin in UTC.
fn day(text: &str) -> Option<i64> {
    let at = OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339).ok()?;
    Some((at.unix_timestamp_nanos() / 1_000_000) as i64)
}

pub(super) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Markup, Fault> {
    let mut pictures = app.queue().pictures(&asked.search(&visitor)?).await?;
    let more = pictures.len() as i64 > PAGE;
    pictures.truncate(PAGE as usize);
    let view = View { visitor: &visitor, asked: &asked, pictures: &pictures, more };
    if visitor.look.partial {
        return Ok(match asked.before.is_empty() {
            true => view.found(),
            false => view.items(),
        });
    }
    let catalogue = app.gateway().catalogue();
    let endpoints = ENDPOINTS.iter().filter(|endpoint| !endpoint.trains()).map(|e| e.id);
    let by_name = catalogue.models.iter().map(|model| model.id.as_str());
    let models: Vec<&str> = endpoints.chain(by_name).collect();
    let words = Common::of(visitor.look.language);
    let body = html! {
        div.head {
            h1 { (words.gallery) }
            (view.filters(&models))
        }
        (view.found())
    };
    let scripts = &["gallery.js"];
    Ok(page(&visitor.look, Page { title: words.gallery, tab: Some(Tab::Gallery), scripts, body }))
}

/// What a model or endpoint is called.
pub(super) fn title(model: &str) -> &str {
    Endpoint::find(model).map_or(model, |endpoint| endpoint.title)
}

struct View<'a> {
    visitor: &'a Visitor,
    asked: &'a Asked,
    pictures: &'a [Picture],
    more: bool,
}

impl View<'_> {
    /// The filters: what is typed is looked for at once, and without scripts when it is sent.
    fn filters(&self, models: &[&str]) -> Markup {
        let words = Gallery::of(self.visitor.look.language);
        let asked = self.asked;
        let narrowed =
            [&asked.model, &asked.from, &asked.until].iter().any(|text| !text.is_empty());
        html! {
            form.filters.push method="get" action="/gallery" role="search"
                hx-get="/gallery" hx-target="#found" hx-swap="outerHTML" data-address
                hx-trigger="submit, input changed delay:250ms from:#q, change" {
                input #q type="search" name="q" value=(asked.q) placeholder=(words.search) aria-label=(words.search) autocomplete="off";
                label.chip { input type="checkbox" name="favourites" value="1" checked[!asked.favourites.is_empty()]; (icon(icons::STAR)) span { (words.favourites) } }
                details.menu.narrow-by {
                    summary.button aria-label=(words.filter) data-active[narrowed] { (icon(icons::SETTINGS)) }
                    div.sheet.stack {
                        div.field {
                            label for="model" { (words.model) }
                            select #model name="model" {
                                option value="" { (words.all) }
                                @for model in models { option value=(model) selected[*model == asked.model] { (title(model)) } }
                            }
                        }
                        div.sides {
                            @for (name, word, value) in [("from", words.from, &asked.from), ("until", words.until, &asked.until)] {
                                div { label for=(name) { (word) } input #(name) type="date" name=(name) value=(value); }
                            }
                        }
                    }
                }
                button.unscripted { (words.show) }
            }
        }
    }

    /// All that was found, in a form for what can be done with several at once.
    fn found(&self) -> Markup {
        let words = Gallery::of(self.visitor.look.language);
        let common = Common::of(self.visitor.look.language);
        html! {
            div #found {
                @if self.pictures.is_empty() {
                    div.empty { (icon(icons::PICTURE)) p { (if self.asked.is_filtered() { words.nothing_found } else { words.nothing }) } }
                } @else {
                    form #several method="post" action="/gallery" data-selected=(words.selected) {
                        div.bar {
                            p.numbers role="status" data-count { (words.compare_two) }
                            button.small name="do" value="compare" formmethod="get" formaction="/gallery/compare" data-two { (words.compare) }
                            button.small name="do" value="zip" data-some { (icon(icons::DOWNLOAD)) (words.zip) }
                            button.small.danger name="do" value="delete" data-some data-confirm=(words.delete_sure) { (icon(icons::BIN)) (words.delete) }
                            button.small.quiet.scripted type="button" data-none { (words.select_none) }
                        }
                    }
                    ul.pictures { (self.items()) }
                    (self.large(common, words))
                }
            }
        }
    }

    fn items(&self) -> Markup {
        let language = self.visitor.look.language;
        let words = Gallery::of(language);
        html! {
            @for picture in self.pictures {
                li.item {
                    a.open href={ "/requests/" (picture.request) } data-file={ "/files/" (picture.file) } data-model=(title(&picture.model)) data-again=[again(picture)]
                        data-seed=[picture.seed.as_ref()] data-size={ (picture.width) " × " (picture.height) } {
                        img src={ "/gallery/" (picture.number) "/small.webp" } alt=(picture.prompt) loading="lazy" decoding="async"
                            width=(picture.width) height=(picture.height);
                    }
                    label.pick { input type="checkbox" name="number" value=(picture.number) form="several" aria-label={ (words.select) ": " (short(&picture.prompt)) }; }
                    (star(language, picture))
                }
            }
            @if let Some(last) = self.pictures.last().filter(|_| self.more) {
                @let next = self.asked.after(last);
                li.more {
                    a.button href=(next) hx-get=(next) hx-trigger="click, intersect once" hx-target="closest li" hx-swap="outerHTML" { (words.more) }
                }
            }
        }
    }

    /// Where `gallery.js` shows one picture as large as it fits.
    fn large(&self, common: &Common, words: &Gallery) -> Markup {
        html! {
            dialog #large aria-label=(common.gallery) {
                div.head {
                    p.soft.small data-facts {}
                    button.square.push type="button" data-closes aria-label=(common.close) { (icon(icons::CROSS)) }
                }
                img alt="";
                p data-prompt {}
                p.row {
                    a.button.small data-request { (words.open) }
                    a.button.small data-again { (icon(icons::REUSE)) (words.again) }
                    a.button.small data-download download { (icon(icons::DOWNLOAD)) (common.download) }
                }
            }
        }
    }
}

/// The form that made a picture, as far as it is written down beside it.
fn again(picture: &Picture) -> Option<String> {
    let endpoint = Endpoint::find(&picture.model)?;
    let query = [
        ("prompt", picture.prompt.as_str()),
        ("seed", picture.seed.as_deref().unwrap_or_default()),
    ];
    Some(link(&format!("/playground/{}", endpoint.id), &query))
}

/// The begin of a prompt, as a name for its picture.
pub(super) fn short(prompt: &str) -> String {
    match prompt.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &prompt[..at]),
        None => prompt.into(),
    }
}
