//! What all pages share: the frame with navigation and switches, and how a fault looks.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};
use zoetrope_server::pages::Failure;

use crate::assets;
use crate::fault::Shown;
use crate::icons::{self, icon};
use crate::text::Language;
use crate::text::common::Common;
use crate::visitor::{Account, Look, Theme};

/// A page for [`page`].
pub(crate) struct Page<'a> {
    pub(crate) title: &'a str,
    /// Which entry of the navigation it belongs to.
    pub(crate) tab: Option<Tab>,
    /// Modules of `assets/js` that it needs besides `app.js`.
    pub(crate) scripts: &'a [&'a str],
    pub(crate) body: Markup,
}

/// An entry of the navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tab {
    Playground,
    Gallery,
    Arena,
    Models,
    Performance,
    Training,
}

impl Tab {
    const ALL: [Self; 6] = [
        Self::Playground,
        Self::Gallery,
        Self::Arena,
        Self::Models,
        Self::Performance,
        Self::Training,
    ];

    fn path(self) -> &'static str {
        match self {
            Self::Playground => "/playground",
            Self::Gallery => "/gallery",
            Self::Arena => "/arena",
            Self::Models => "/models",
            Self::Performance => "/performance",
            Self::Training => "/training",
        }
    }

    fn title(self, words: &Common) -> &'static str {
        match self {
            Self::Playground => words.playground,
            Self::Gallery => words.gallery,
            Self::Arena => words.arena,
            Self::Models => words.models,
            Self::Performance => words.performance,
            Self::Training => words.training,
        }
    }
}

/// What htmx is told: no styles of its own, no scripts from answers, and nothing kept of pages that may be secret.
const HTMX: &str = r#"{"includeIndicatorCSS":false,"history":false,"defaultTimeout":0}"#;

/// `page` in the frame.
pub(crate) fn page(look: &Look, page: Page<'_>) -> Markup {
    let words = Common::of(look.language);
    html! {
        (DOCTYPE)
        html lang=(look.language.name()) data-theme=(look.theme.name()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="htmx-config" content=(HTMX);
                title { (page.title) " · Zoetrope" }
                link rel="icon" type="image/svg+xml" href=(assets::address("icon.svg"));
                link rel="stylesheet" href=(assets::address("app.css"));
                script defer src=(assets::address("htmx.js")) {}
                script type="module" src=(assets::address("app.js")) {}
                @for script in page.scripts {
                    script type="module" src=(assets::address(script)) {}
                }
            }
            body {
                a.skip href="#main" { (words.skip) }
                (top(look, words, page.tab))
                main #main tabindex="-1" { (page.body) }
                div #said role="status" aria-live="polite" data-copied=(words.copied) {}
            }
        }
    }
}

fn top(look: &Look, words: &Common, tab: Option<Tab>) -> Markup {
    html! {
        header.top {
            a.mark href="/playground" aria-label="Zoetrope" { (icons::mark()) span { "Zoetrope" } }
            nav.pages aria-label=(words.navigation) {
                ul {
                    @for entry in Tab::ALL {
                        li {
                            a href=(entry.path()) aria-current=[(tab == Some(entry)).then_some("page")] {
                                (entry.title(words))
                            }
                        }
                    }
                }
            }
            details.menu {
                summary aria-label=(words.settings) { (icon(icons::SETTINGS)) }
                div.sheet { (switches(look, words)) }
            }
        }
    }
}

/// Language, theme and signing out: plain forms, so that they work without scripts.
fn switches(look: &Look, words: &Common) -> Markup {
    let theme = |theme: Theme| match theme {
        Theme::System => words.theme_system,
        Theme::Light => words.theme_light,
        Theme::Dark => words.theme_dark,
    };
    html! {
        form method="post" action="/settings" {
            input type="hidden" name="back" value=(look.path);
            fieldset {
                legend { (words.theme) }
                div.segments {
                    @for each in Theme::ALL {
                        button name="theme" value=(each.name()) aria-pressed=(look.theme == each) { (theme(each)) }
                    }
                }
            }
            fieldset {
                legend { (words.language) }
                div.segments {
                    @for each in Language::ALL {
                        button name="language" value=(each.name()) lang=(each.name()) aria-pressed=(look.language == each) { (each.title()) }
                    }
                }
            }
        }
        @match look.account {
            Account::None => {},
            Account::SignedIn => form method="post" action="/sign-out" { button.quiet { (words.sign_out) } },
            Account::SignedOut => a.button.quiet href="/sign-in" { (words.sign_in) },
        }
    }
}

/// `shown` as whoever asked can read it: a page, a part of one, or the words that programs get.
pub(crate) fn fault(look: &Look, shown: Shown, answer: Response) -> Response {
    let Shown { status, message } = shown;
    if status == StatusCode::UNAUTHORIZED && look.account == Account::SignedOut {
        let to = crate::show::link("/sign-in", &[("back", &look.path)]);
        if look.partial {
            return (StatusCode::NO_CONTENT, [("hx-redirect", to)]).into_response();
        }
        if look.html {
            return (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response();
        }
    }
    let words = Common::of(look.language);
    if look.partial {
        return (status, html! { p.fault role="alert" { (message) } }).into_response();
    }
    if !look.html {
        drop(answer);
        return Failure::new(status, message).into_response();
    }
    let title = if status == StatusCode::NOT_FOUND { words.sorry_missing } else { words.sorry };
    let body = html! {
        section.narrow {
            h1 { (title) }
            p.fault role="alert" { (message) }
            p { a.button href="/playground" { (words.playground) } }
        }
    };
    (status, page(look, Page { title, tab: None, scripts: &[], body })).into_response()
}
