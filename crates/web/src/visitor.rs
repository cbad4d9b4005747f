//! Who looks, and how: what every page is told, read once by the guard from cookies and headers.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use zoetrope_jobs::Scope;
use zoetrope_server::pages::{Caller, Origin};

use crate::fault::Fault;
use crate::text::Language;

/// The cookie that holds a session.
pub(crate) const SESSION: &str = "zoetrope_session";
/// The cookie that holds a chosen language.
pub(crate) const LANGUAGE: &str = "zoetrope_language";
/// The cookie that holds a chosen theme.
pub(crate) const THEME: &str = "zoetrope_theme";

/// Who looks at a page. A handler that takes one is closed to strangers: they are sent to sign in.
#[derive(Clone)]
pub(crate) struct Visitor {
    pub(crate) caller: Caller,
    /// How this server is reached from there.
    pub(crate) origin: Origin,
    pub(crate) look: Look,
}

/// How a page is shown, to a stranger too.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) language: Language,
    pub(crate) theme: Theme,
    /// Path and query of the page, to come back to.
    pub(crate) path: String,
    pub(crate) account: Account,
    /// Whether htmx or a script asks, and wants a part of a page only.
    pub(crate) partial: bool,
    /// Whether a page can be read at all: programs get JSON.
    pub(crate) html: bool,
}

/// Light or dark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Theme {
    /// As the system is.
    #[default]
    System,
    Light,
    Dark,
}

/// What the header says about signing in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Account {
    /// The server has no keys: nobody signs in.
    None,
    SignedOut,
    SignedIn,
}

impl Theme {
    pub(crate) const ALL: [Self; 3] = [Self::System, Self::Light, Self::Dark];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|theme| theme.name() == name)
    }
}

impl Look {
    /// How whoever sent `headers` wants to see things.
    pub(crate) fn of(headers: &HeaderMap, path: String, account: Account) -> Self {
        let chosen = cookie(headers, LANGUAGE).and_then(Language::named);
        let accepted = || headers.get(header::ACCEPT_LANGUAGE).and_then(|v| v.to_str().ok());
        Self {
            language: chosen.unwrap_or_else(|| Language::accepted(accepted().unwrap_or_default())),
            theme: cookie(headers, THEME).and_then(Theme::named).unwrap_or_default(),
            path,
            account,
            partial: headers.contains_key("hx-request"),
            html: headers
                .get(header::ACCEPT)
                .and_then(|value| value.to_str().ok())
                .is_some_and(|accepted| accepted.contains("text/html")),
        }
    }
}

impl Visitor {
    /// Whose things may be seen: empty for everybody's.
    pub(crate) fn owner(&self) -> &str {
        match self.caller.scope {
            Scope::Admin => "",
            Scope::Api => &self.caller.owner,
        }
    }
}

/// The cookie called `name`.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let sent = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = sent.flat_map(|text| text.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.find(|(known, _)| known.trim() == name).map(|(_, value)| value.trim())
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Fault::stranger)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Look {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let found = parts.extensions.get::<Self>().cloned();
        Ok(found.expect("the guard stands before every page"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=1; zoetrope_theme=dark".parse().unwrap());
        headers.append(header::COOKIE, "zoetrope_language = zh".parse().unwrap());
        assert_eq!(cookie(&headers, THEME), Some("dark"));
        assert_eq!(cookie(&headers, LANGUAGE), Some("zh"));
        assert_eq!(cookie(&headers, "theme"), None);
    }
}
