//! The environment, read once: the only place that asks for variables. Everything else gets values.

use std::ffi::OsString;
use std::path::PathBuf;

use zoetrope_files::hub;

/// What the environment said when the program started.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    /// Where models come from and where they are kept.
    pub(crate) hub: hub::Settings,
}

impl Environment {
    /// Reads it.
    pub(crate) fn read() -> Self {
        Self { hub: hub_settings(&variable) }
    }
}

#[allow(clippy::disallowed_methods)] // this is the place
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The variables of `huggingface_hub`, with its precedence.
fn hub_settings(variable: &dyn Fn(&str) -> Option<OsString>) -> hub::Settings {
    let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
    let path = |name: &str| variable(name).map(PathBuf::from);

    let user = std::env::home_dir().unwrap_or_else(|| PathBuf::from("."));
    let xdg = path("XDG_CACHE_HOME").unwrap_or_else(|| user.join(".cache"));
    let home = path("HF_HOME").unwrap_or_else(|| xdg.join("huggingface"));
    let cache = path("HF_HUB_CACHE")
        .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
        .unwrap_or_else(|| home.join("hub"));

    let in_file = || {
        std::fs::read_to_string(path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"))).ok()
    };
    let token = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")).or_else(in_file);
    let token = token.map(|token| token.trim().to_string()).filter(|token| !token.is_empty());

    let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| hub::Settings::ENDPOINT.into());
    let offline = text("HF_HUB_OFFLINE")
        .is_some_and(|value| matches!(value.to_lowercase().as_str(), "1" | "true" | "yes" | "on"));
    hub::Settings {
        endpoint: endpoint.trim().trim_end_matches('/').into(),
        token: token.map(hub::Token),
        proxy: proxy(&endpoint, &text),
        offline,
        ..hub::Settings::new(cache)
    }
}

/// The proxy for the hub's address, as curl chooses it; `NO_PROXY` lists the ends of host names.
fn proxy(endpoint: &str, text: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let either = |name: &str| text(&name.to_lowercase()).or_else(|| text(name));
    let (scheme, rest) = endpoint.split_once("://")?;
    let host = rest.split(['/', ':']).next().unwrap_or_default();
    let excluded = either("NO_PROXY").is_some_and(|list| {
        let ends = |end: &str| {
            host == end || host.strip_suffix(end).is_some_and(|front| front.ends_with('.'))
        };
        list.split(',')
            .map(|end| end.trim().trim_start_matches('.'))
            .any(|end| end == "*" || (!end.is_empty() && ends(end)))
    });
    let chosen = if scheme == "https" { either("HTTPS_PROXY") } else { text("http_proxy") };
    chosen.or_else(|| either("ALL_PROXY")).filter(|_| !excluded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> hub::Settings {
        hub_settings(&|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_cache_is_where_huggingface_hub_has_it() {
        let cases: [(&[(&str, &str)], &str); 4] = [
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")], "/h/hub"),
            (&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")], "/c"),
            (&[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/old"),
        ];
        for (variables, expected) in cases {
            assert_eq!(settings(variables).cache_dir, PathBuf::from(expected), "{variables:?}");
        }
    }

    #[test]
    fn the_token_may_lie_in_a_file() {
        let home = tempfile::tempdir().unwrap();
        let home_path = home.path().to_str().unwrap();
        assert_eq!(settings(&[("HF_HOME", home_path)]).token, None);
        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        assert_eq!(settings(&[("HF_HOME", home_path)]).token, Some(hub::Token("hf_file".into())));
        let both = [("HF_HOME", home_path), ("HF_TOKEN", " hf_variable ")];
        assert_eq!(settings(&both).token, Some(hub::Token("hf_variable".into())));
    }

    #[test]
    fn a_proxy_is_used_unless_the_host_is_excluded() {
        let proxy = |variables: &[(&str, &str)]| {
            settings(&[&[("HF_HOME", "/h")], variables].concat()).proxy
        };
        assert_eq!(proxy(&[("HTTPS_PROXY", "http://p:1")]), Some("http://p:1".into()));
        assert_eq!(
            proxy(&[("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", "localhost,.huggingface.co")]),
            None
        );
        assert_eq!(proxy(&[("HTTPS_PROXY", "http://p:1"), ("HF_ENDPOINT", "http://mirror")]), None);
    }
}
