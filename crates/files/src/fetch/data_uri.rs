//! Data URIs: bytes that come with the request itself.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

use super::{FetchError, Fetched, Result, shown};

/// Characters of a percent-encoded byte, the longest form that a byte takes.
const CHARACTERS_PER_BYTE: u64 = 3;
/// Room for the type in front.
const HEAD_CHARACTERS: u64 = 1024;

/// The bytes in `data:TYPE;base64,…` or `data:TYPE,…`, at most `bytes_max`.
pub fn data_uri(text: &str, bytes_max: u64) -> Result<Fetched> {
    let wrong = |problem| FetchError::Address { address: shown(text), problem };
    let too_large = || FetchError::TooLarge { bytes_max };
    let scheme = text.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("data:"));
    scheme.ok_or_else(|| wrong("a data URI begins with data:"))?;
    let characters_max =
        bytes_max.saturating_mul(CHARACTERS_PER_BYTE).saturating_add(HEAD_CHARACTERS);
    if text.len() as u64 > characters_max {
        return Err(too_large());
    }
    let no_comma = || wrong("it has no comma before its data; send data:image/png;base64,…");
    let (head, data) = text[5..].split_once(',').ok_or_else(no_comma)?;
    let plain: Vec<u8> = percent_encoding::percent_decode_str(data).collect();
    let (kind, bytes) = match encoded(head) {
        Some(kind) => {
            let unreadable = || wrong("its base64 cannot be read; send all of it, unchanged");
            (kind, decode(plain).ok_or_else(unreadable)?)
        }
        None => (head.trim(), plain),
    };
    if bytes.len() as u64 > bytes_max {
        return Err(too_large());
    }
    let content_type = match kind {
        "" => None,
        // RFC 2397: what is left out in front of parameters is plain text.
        parameters if parameters.starts_with(';') => Some(format!("text/plain{parameters}")),
        kind => Some(kind.to_string()),
    };
    Ok(Fetched { bytes: Bytes::from(bytes), content_type })
}

/// The type in front of `;base64`, if that is there.
fn encoded(head: &str) -> Option<&str> {
    let (kind, last) = head.rsplit_once(';')?;
    last.trim().eq_ignore_ascii_case("base64").then(|| kind.trim())
}

/// Either alphabet, with or without padding, line breaks between.
fn decode(mut text: Vec<u8>) -> Option<Vec<u8>> {
    text.retain(|byte| !byte.is_ascii_whitespace());
    let lenient =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let read = |alphabet| GeneralPurpose::new(alphabet, lenient).decode(&text).ok();
    read(&STANDARD).or_else(|| read(&URL_SAFE))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn data_uris_of_every_form_are_read() {
        let cases = [
            ("data:image/png;base64,aGk=", "hi", Some("image/png")),
            ("data:image/png;base64,aGk", "hi", Some("image/png")),
            ("data:;base64,aGk%3D", "hi", None),
            ("data:text/plain;charset=utf-8,a%20b", "a b", Some("text/plain;charset=utf-8")),
            ("data:text/plain;base64,aG\nk=", "hi", Some("text/plain")),
            ("DATA:image/png;BASE64,aGk=", "hi", Some("image/png")),
            ("data:;charset=utf-8,x", "x", Some("text/plain;charset=utf-8")),
            ("data:,", "", None),
        ];
        for (text, want, kind) in cases {
            let got = data_uri(text, 100).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(
                (&got.bytes[..], got.content_type.as_deref()),
                (want.as_bytes(), kind),
                "{text}"
            );
        }
        let url_safe = data_uri("data:;base64,-_-_", 100).unwrap();
        assert_eq!(&url_safe.bytes[..], [0xfb, 0xff, 0xbf]);
        for text in ["data:image/png;base64", "data:;base64,!!!!", "http://x", "dat", "dätä:,"] {
            assert!(data_uri(text, 100).is_err(), "{text}");
        }
    }

    #[test]
    fn a_data_uri_holds_the_limit_and_no_more_in_either_encoding() {
        let percent = |count: usize| format!("data:,{}", "%61".repeat(count));
        let base64 = |count: usize| {
            let engine = base64::engine::general_purpose::STANDARD;
            format!("data:image/png;base64,{}", engine.encode(vec![7; count]))
        };
        for uri in [percent(5000), base64(5000)] {
            assert_eq!(data_uri(&uri, 5000).unwrap().bytes.len(), 5000);
        }
        for uri in [percent(5001), base64(5001), percent(50_000), base64(50_000)] {
            assert!(data_uri(&uri, 5000).unwrap_err().is_too_large());
        }
    }
}
