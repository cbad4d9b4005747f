//! What is of this machine, by name: hosts, and the pages of a browser.

use std::net::IpAddr;

use url::Url;

/// Whether `host`, without a port, can only mean this machine. A name that merely looks like its address may be anybody's.
pub(crate) fn is_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match address {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// Whether a page of `origin` was served by this machine, or under the name of one of `own`, addresses of this server.
pub(crate) fn is_own_page(origin: &str, own: &[&str]) -> bool {
    let Some(page) = Url::parse(origin).ok().filter(|url| url.has_host()) else { return false };
    let host = page.host_str().unwrap_or_default();
    let same = |address: &&str| Url::parse(address).is_ok_and(|url| url.origin() == page.origin());
    is_local(host) || own.iter().any(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_this_machine() {
        let cases = [
            ("localhost", true),
            ("a.localhost", true),
            ("127.0.0.1", true),
            ("127.1.2.3", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]", true),
            ("127.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("192.168.1.1", false),
            ("0.0.0.0", false),
            ("", false),
        ];
        for (host, expected) in cases {
            assert_eq!(is_local(host), expected, "{host}");
        }
    }

    #[test]
    fn pages_are_told_apart_by_their_origin() {
        let own = ["https://pictures.example"];
        let cases = [
            ("http://localhost:3000", true),
            ("http://127.0.0.1:8080", true),
            ("https://pictures.example", true),
            ("http://pictures.example", false),
            ("https://pictures.example.evil.example", false),
            ("http://127.evil.example", false),
            ("null", false),
            ("file://", false),
        ];
        for (origin, expected) in cases {
            assert_eq!(is_own_page(origin, &own), expected, "{origin}");
        }
    }
}
