//! Tokens that nobody but this server's nodes can make: for realtime, streams and uploads.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zoetrope_jobs::Queue;

/// What a token admits to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// On whose behalf.
    pub(crate) owner: String,
    /// Milliseconds since 1970.
    pub(crate) expires_ms: i64,
    /// For what.
    pub(crate) grant: Grant,
}

/// What may be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Grant {
    /// Calling these applications (aliases, with or without their owner).
    Apps(Vec<String>),
    /// Uploading files.
    Uploads,
    /// Looking at this server's pages.
    Session,
    /// Filling this one file.
    File {
        /// Its name in the store.
        name: String,
        /// When it is deleted.
        expires_ms: Option<i64>,
    },
}

/// Signs and checks tokens.
pub(crate) struct Signer {
    key: Vec<u8>,
}

const PREFIX: &str = "zt.";

impl Signer {
    /// The signer of all nodes on `queue`.
    pub(crate) async fn of(queue: &Queue) -> zoetrope_jobs::Result<Self> {
        let key = queue.secret("token_hmac", || random_hex(32)).await?;
        Ok(Self { key: key.into_bytes() })
    }

    pub(crate) fn sign(&self, claims: &Claims) -> String {
        let payload = serde_json::to_vec(claims).expect("claims are plain data");
        let payload = URL_SAFE_NO_PAD.encode(payload);
        let seal = URL_SAFE_NO_PAD.encode(self.mac(&payload).finalize().into_bytes());
        format!("{PREFIX}{payload}.{seal}")
    }

    /// The claims of `token`, if this server made it and its time is not over.
    pub(crate) fn check(&self, token: &str, now_ms: i64) -> Option<Claims> {
        let (payload, seal) = token.strip_prefix(PREFIX)?.split_once('.')?;
        let seal = URL_SAFE_NO_PAD.decode(seal).ok()?;
        self.mac(payload).verify_slice(&seal).ok()?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        (claims.expires_ms > now_ms).then_some(claims)
    }

    fn mac(&self, payload: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("any length will do");
        mac.update(payload.as_bytes());
        mac
    }
}

/// `bytes` bytes of the system's randomness, in hexadecimal.
pub(crate) fn random_hex(bytes: usize) -> String {
    let mut out = vec![0; bytes];
    getrandom::fill(&mut out).expect("the system has random numbers");
    out.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_is_good_as_it_was_made_and_until_its_time() {
        let signer = Signer { key: b"secret".to_vec() };
        let claims = Claims { owner: "a".into(), expires_ms: 100, grant: Grant::Uploads };
        let token = signer.sign(&claims);
        assert_eq!(signer.check(&token, 99), Some(claims));
        assert_eq!(signer.check(&token, 100), None);
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last character of the seal has bits that say nothing.
            assert!(at + 1 == token.len() || signer.check(&changed, 0).is_none(), "{at}");
        }
        let other = Signer { key: b"other".to_vec() };
        assert_eq!(other.check(&token, 0), None);
    }
}
