//! What providers say about failures, found in the shapes that they have, and shown without what they should not repeat.

use serde_json::Value;

/// Characters of what a provider says that are shown.
const SAID_MAX: usize = 300;
/// Prompts that are shorter than this may be words that a provider uses by itself.
const PROMPT_CHARS_MIN: usize = 4;

/// What a provider says about a failure.
pub(super) struct Said {
    pub(super) message: String,
    pub(super) code: Option<String>,
    pub(super) parameter: Option<String>,
}

impl Said {
    /// In the shapes that most servers have: `error.message`, `error`, `message`, `detail`, a list of details, `title`.
    pub(super) fn read(body: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let error = &value["error"];
        let text = |value: &Value| value.as_str().map(String::from);
        let message = text(&error["message"])
            .or_else(|| text(error))
            .or_else(|| text(&value["message"]))
            .or_else(|| text(&value["detail"]))
            .or_else(|| text(&value["detail"][0]["msg"]))
            .or_else(|| text(&value["title"]));
        Self {
            message: message.unwrap_or_default(),
            code: text(&error["code"]).or_else(|| text(&value["code"])),
            parameter: text(&error["param"]),
        }
    }
}

/// `text` without `secret`, without the prompt, and without addresses; its beginning.
pub(super) fn scrubbed(text: &str, secret: &str, prompt: &str) -> String {
    let mut text = text.to_string();
    if !secret.is_empty() {
        text = text.replace(secret, "…");
    }
    let prompt = prompt.trim();
    if prompt.chars().count() >= PROMPT_CHARS_MIN {
        text = text.replace(prompt, "…");
    }
    let words = text.split_whitespace().map(|word| match is_address(word) {
        true => "…",
        false => word,
    });
    let words: Vec<&str> = words.collect();
    let text = words.join(" ");
    match text.char_indices().nth(SAID_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A word that tells where something is.
fn is_address(word: &str) -> bool {
    let bare = |text: &str| {
        let around = |c: char| "()[]{}<>\"'`,;.".contains(c);
        text.trim_matches(around).parse::<std::net::IpAddr>().is_ok()
    };
    let host = word.rsplit_once(':').is_some_and(|(host, _)| bare(host));
    word.contains("://") || bare(word) || host
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_tell_where_something_is_are_known() {
        for word in ["http://10.0.0.1/x", "10.0.0.1", "(10.0.0.1:8080)", "[::1]:80", "\"::1\""] {
            assert!(is_address(word), "{word}");
        }
        for word in ["no", "12:30", "a:b", "1.5", "size:", ""] {
            assert!(!is_address(word), "{word}");
        }
    }

    #[test]
    fn what_servers_say_is_found_in_every_shape() {
        let cases = [
            (r#"{"error": {"message": "m", "code": "c", "param": "size"}}"#, "m"),
            (r#"{"error": "m"}"#, "m"),
            (r#"{"message": "m", "code": "c"}"#, "m"),
            (r#"{"detail": "m"}"#, "m"),
            (r#"{"detail": [{"msg": "m", "loc": ["body"]}]}"#, "m"),
            (r#"{"title": "m"}"#, "m"),
            ("<html>", ""),
            ("[]", ""),
        ];
        for (body, want) in cases {
            assert_eq!(Said::read(body.as_bytes()).message, want, "{body}");
        }
    }
}
