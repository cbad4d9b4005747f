//! How values are written on pages: addresses, times, sizes, money.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::text::Language;
use crate::text::common::Ago;
use crate::text::filled;

/// What needs no escaping in a part of a query.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'/');

/// `path?name=value&…`, escaped; what is empty is left out.
pub(crate) fn link(path: &str, query: &[(&str, &str)]) -> String {
    let mut out = path.to_string();
    let mut before = '?';
    for (name, value) in query.iter().filter(|(_, value)| !value.is_empty()) {
        out.push(before);
        out.extend(utf8_percent_encode(name, QUERY));
        out.push('=');
        out.extend(utf8_percent_encode(value, QUERY));
        before = '&';
    }
    out
}

/// The path of one of this server's own files: pages show it from wherever they were reached themselves. `None` for every other
/// address.
pub(crate) fn own_path(url: &str) -> Option<String> {
    let path = match url.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/')?..],
        None => url,
    };
    let name = zoetrope_files::Name::parse(path.strip_prefix("/files/")?)?;
    Some(format!("/files/{}", name.as_str()))
}

/// A path of this server to go back to, and nothing that leads elsewhere.
pub(crate) fn back(path: &str) -> &str {
    let harmless = path.starts_with('/') && !path.starts_with("//") && !path.contains('\\');
    let plain = !path.chars().any(|c| c.is_control());
    if harmless && plain { path } else { "/playground" }
}

/// How long before `now_ms` it was.
pub(crate) fn ago(language: Language, at_ms: i64, now_ms: i64) -> String {
    let words = Ago::of(language);
    let minutes = (now_ms - at_ms).max(0) / 60_000;
    match minutes {
        0 => words.now.into(),
        1..60 => filled(words.minutes, &[&minutes]),
        60..2880 => filled(words.hours, &[&(minutes / 60)]),
        _ => filled(words.days, &[&(minutes / 1440)]),
    }
}

/// Dollars, with as many digits as small prices need.
pub(crate) fn dollars(amount: f64) -> String {
    match amount {
        0.0 => "$0".into(),
        x if x.abs() >= 1.0 => format!("${x:.2}"),
        x => {
            let text = format!("{x:.6}");
            let short = text.trim_end_matches('0');
            // At least two digits after the point.
            let least = text.find('.').map_or(text.len(), |at| at + 3);
            format!("${}", &text[..short.len().max(least)])
        }
    }
}

/// Seconds of `ms`.
pub(crate) fn seconds(ms: i64) -> String {
    let seconds = ms as f64 / 1000.0;
    if seconds < 10.0 { format!("{seconds:.2}") } else { format!("{seconds:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_escaped_and_stay_here() {
        assert_eq!(link("/a", &[("b", "c d&e=1"), ("f", "")]), "/a?b=c%20d%26e%3D1");
        let name = "0123456789abcdef0123456789abcdef/a.png";
        for url in [format!("http://here:1/files/{name}"), format!("/files/{name}")] {
            assert_eq!(own_path(&url), Some(format!("/files/{name}")));
        }
        assert_eq!(own_path("https://elsewhere.example/a.png"), None);
        assert_eq!(own_path("javascript:alert(1)"), None);
        for (path, expected) in [
            ("/gallery?a=b", "/gallery?a=b"),
            ("//evil.example", "/playground"),
            ("/\\evil.example", "/playground"),
            ("https://evil.example", "/playground"),
            ("", "/playground"),
        ] {
            assert_eq!(back(path), expected);
        }
    }

    #[test]
    fn money_is_short_and_exact() {
        let cases = [
            (0.0, "$0"),
            (0.005, "$0.005"),
            (0.0039322, "$0.003932"),
            (0.5, "$0.50"),
            (2.26, "$2.26"),
        ];
        for (amount, expected) in cases {
            assert_eq!(dollars(amount), expected);
        }
    }
}
