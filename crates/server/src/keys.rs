//! API keys: made, and kept as hashes.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zoetrope_api::Micros;
use zoetrope_jobs::{Key, KeyLimits, Scope};

use crate::token::random_hex;

/// Of a key's public half, in hexadecimal.
pub(crate) const ID_CHARACTERS: usize = 16;

/// A new key: its row, and the text that its owner keeps, `id:secret`. The secret is nowhere else.
pub fn make(alias: &str, scope: Scope, concurrency_max: i64, now_ms: i64) -> (Key, String) {
    let (id, secret) = (random_hex(ID_CHARACTERS / 2), random_hex(24));
    let text = format!("{id}:{secret}");
    let key = Key {
        id,
        alias: alias.into(),
        hash: hash(&secret),
        scope,
        concurrency_max,
        created_ms: now_ms,
        revoked_ms: None,
        limits: KeyLimits::default(),
        spent_micros: 0,
    };
    (key, text)
}

/// A key as lists show it, without its secret; `time` writes moments, which are milliseconds since 1970.
pub fn shown(key: &Key, time: impl Fn(i64) -> String) -> Value {
    let scope = match key.scope {
        Scope::Api => "api",
        Scope::Admin => "admin",
    };
    json!({
        "id": key.id,
        "object": "key",
        "key_id": key.id,
        "alias": key.alias,
        "scope": scope,
        "status": if key.revoked_ms.is_some() { "revoked" } else { "active" },
        "concurrency": key.concurrency_max,
        "created_at": time(key.created_ms),
        "revoked_at": key.revoked_ms.map(time),
        "budget": key.limits.budget_micros.map(|micros| Micros(micros).dollars()),
        "budget_period": key.limits.budget_period.name(),
        "spent": Micros(key.spent_micros).dollars(),
        "requests_per_minute": key.limits.requests_per_minute,
        "models": key.limits.models,
        "on_flagged": key.limits.on_flagged,
    })
}

/// Secrets have 192 random bits, so that a plain hash cannot be reversed by guessing.
fn hash(secret: &str) -> String {
    Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether `secret` is that of `key`, in a time that says nothing about where they differ.
pub(crate) fn fits(key: &Key, secret: &str) -> bool {
    let (known, given) = (key.hash.as_bytes(), hash(secret));
    let different = known.iter().zip(given.as_bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    known.len() == given.len() && different == 0
}
