//! The environment, read once: the only place that asks for variables. Everything else gets values.

use std::ffi::OsString;
use std::path::PathBuf;

use zoetrope_files::hub;

/// Keeps the tensor library from threads of its own, which wait by turning in circles: what is large runs in our kernels, on threads that both
/// sides share, and training was twice as fast without. It is told by the environment alone, before it is first used.
#[allow(unsafe_code)]
pub(crate) fn prepare() {
    const THREADS: &str = "CANDLE_NUM_THREADS";
    if variable(THREADS).is_none() {
        // SAFETY: this is called before the process has a second thread.
        unsafe { std::env::set_var(THREADS, "1") };
    }
}

/// What the environment said when the program started.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    /// Where models come from and where they are kept.
    pub(crate) hub: hub::Settings,
    /// Where the server keeps its things unless it is told otherwise.
    pub(crate) data_dir: PathBuf,
    /// Where packed weights are kept.
    pub(crate) packed_dir: PathBuf,
    /// The configuration file that is read if it is there.
    pub(crate) config_file: PathBuf,
    /// The configuration file that `ZOETROPE_CONFIG` names.
    pub(crate) config_named: Option<PathBuf>,
    /// What the `AWS_` variables say about S3, named as object_store names it.
    pub(crate) aws: Vec<(String, String)>,
    /// The key that programs for fal would send.
    pub(crate) fal_key: Option<String>,
    /// What the terminal calls itself; nothing where it does not.
    pub(crate) terminal: String,
}

impl Environment {
    /// Reads it.
    pub(crate) fn read() -> Self {
        let path = |name: &str| variable(name).map(PathBuf::from);
        let user = std::env::home_dir().unwrap_or_else(|| PathBuf::from("."));
        let data = path("XDG_DATA_HOME").unwrap_or_else(|| user.join(".local/share"));
        let cache = path("XDG_CACHE_HOME").unwrap_or_else(|| user.join(".cache"));
        let config = path("XDG_CONFIG_HOME").unwrap_or_else(|| user.join(".config"));
        Self {
            hub: hub_settings(&variable),
            data_dir: data.join("zoetrope"),
            packed_dir: cache.join("zoetrope/packed"),
            config_file: config.join("zoetrope/config.toml"),
            config_named: path("ZOETROPE_CONFIG"),
            aws: aws(&variable),
            fal_key: variable("FAL_KEY").and_then(|value| value.into_string().ok()),
            terminal: variable("TERM").and_then(|name| name.into_string().ok()).unwrap_or_default(),
        }
    }

    /// The variable called `name`; which ones hold providers' keys, only the configuration file says.
    pub(crate) fn named(&self, name: &str) -> Option<String> {
        let sayable = !name.is_empty() && !name.contains(['=', '\0']);
        sayable.then(|| variable(name))??.into_string().ok()
    }
}

#[allow(clippy::disallowed_methods)] // this is the place
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// What Amazon's own tools and the S3-compatible stores read.
const AWS: [&str; 8] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ALLOW_HTTP",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
];

fn aws(variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<(String, String)> {
    let found = AWS
        .iter()
        .filter_map(|name| Some((name.to_ascii_lowercase(), variable(name)?.into_string().ok()?)));
    found.collect()
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
