//! Who asks: a key, a token, or, on loopback, whoever sits at this machine.

use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode, header};
use zoetrope_jobs::{Key, KeyLimits, Scope};

use crate::answer::Failure;
use crate::keys::ID_CHARACTERS;
use crate::state::App;
use crate::token::{Claims, Grant};

/// Who asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    /// The key's id, or `local`.
    pub owner: String,
    /// What may be seen.
    pub scope: Scope,
    /// Requests of this owner that may run at once.
    pub concurrency_max: i64,
    /// What may be used of models that cost something.
    pub limits: KeyLimits,
}

/// The owner of everything where no keys are needed.
pub(crate) const LOCAL: &str = "local";
/// How long a key is believed without asking the database again: so long does a revoked one go on.
const KEY_FRESH: Duration = Duration::from_secs(2);
/// Keys remembered at once.
const KEYS_MAX: usize = 10_000;

impl Caller {
    /// Whether this caller may see what belongs to `owner`.
    pub fn sees(&self, owner: &str) -> bool {
        self.scope == Scope::Admin || self.owner == owner
    }
}

/// What a caller wants, as far as tokens are concerned: each opens one thing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose<'a> {
    /// To call this application, owner and alias of an endpoint.
    Application(&'a str),
    /// To upload files.
    Upload,
    /// Everything else: for keys alone.
    Account,
}

/// Who sent `headers`; tokens may come in the query too.
pub(crate) async fn caller(
    app: &App,
    headers: &HeaderMap,
    query_token: Option<&str>,
    purpose: Purpose<'_>,
) -> Result<Caller, Failure> {
    let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let credential = sent.and_then(|text| {
        let (scheme, rest) = text.trim().split_once(' ')?;
        ["key", "bearer"].contains(&scheme.to_ascii_lowercase().as_str()).then(|| rest.trim())
    });
    let credential = query_token.or(credential);
    if let Some(credential) = credential {
        if let Some(claims) = app.signer.check(credential, app.now_ms()) {
            return by_token(app, claims.owner, &claims.grant, purpose).await;
        }
        if let Some(key) = key(app, credential).await? {
            return Ok(of_key(key));
        }
    }
    // Clients always send some key: without keys, any will do.
    if !app.settings.keys_required {
        return Ok(local(app));
    }
    let detail = match (credential, purpose) {
        (Some(_), _) => {
            "This key or token is not known here, was revoked, or its time is over".into()
        }
        (None, Purpose::Application(id)) => {
            format!("Cannot access application \"{id}\". Send a key: Authorization: Key ID:SECRET")
        }
        (None, _) => "Authorization header is required: Authorization: Key ID:SECRET".into(),
    };
    Err(Failure::new(StatusCode::UNAUTHORIZED, detail))
}

fn of_key(key: Key) -> Caller {
    Caller {
        owner: key.id,
        scope: key.scope,
        concurrency_max: key.concurrency_max,
        limits: key.limits,
    }
}

/// How long whoever signed in stays so.
pub(crate) const SESSION_MS: i64 = 30 * 86_400_000;

/// Who looks at the pages with the session `token`; without keys whoever sits at this machine.
pub(crate) async fn visitor(app: &App, token: Option<&str>) -> Result<Option<Caller>, Failure> {
    if !app.settings.keys_required {
        return Ok(Some(local(app)));
    }
    let claims = token.and_then(|token| app.signer.check(token, app.now_ms()));
    match claims.filter(|claims| claims.grant == Grant::Session) {
        // What a revoked key has opened is closed with it.
        Some(claims) => Ok(row(app, &claims.owner).await?.map(of_key)),
        None => Ok(None),
    }
}

/// A session for whoever has the key `credential`, `id:secret`.
pub(crate) async fn sign_in(app: &App, credential: &str) -> Result<Option<String>, Failure> {
    let Some(key) = key(app, credential).await? else { return Ok(None) };
    let expires_ms = app.now_ms() + SESSION_MS;
    let claims = Claims { owner: key.id, expires_ms, grant: Grant::Session };
    Ok(Some(app.signer.sign(&claims)))
}

fn local(app: &App) -> Caller {
    Caller {
        owner: LOCAL.into(),
        scope: Scope::Admin,
        concurrency_max: app.settings.concurrency_max,
        limits: KeyLimits::default(),
    }
}

async fn by_token(
    app: &App,
    owner: String,
    grant: &Grant,
    purpose: Purpose<'_>,
) -> Result<Caller, Failure> {
    let admitted = match (grant, purpose) {
        (Grant::Apps(apps), Purpose::Application(id)) => {
            let alias = id.split('/').nth(1).unwrap_or(id);
            apps.iter().any(|app| app == id || app == alias)
        }
        (Grant::Uploads, Purpose::Upload) => true,
        _ => false,
    };
    if !admitted {
        return Err(Failure::new(StatusCode::FORBIDDEN, "This token was made for something else"));
    }
    if owner == LOCAL {
        return match app.settings.keys_required {
            false => Ok(local(app)),
            true => Err(Failure::new(
                StatusCode::UNAUTHORIZED,
                "This token was made when no keys were needed",
            )),
        };
    }
    // What a revoked key has made is revoked with it.
    match row(app, &owner).await? {
        Some(key) => Ok(Caller {
            owner,
            scope: Scope::Api,
            concurrency_max: key.concurrency_max,
            limits: key.limits,
        }),
        None => {
            Err(Failure::new(StatusCode::UNAUTHORIZED, "The key behind this token was revoked"))
        }
    }
}

/// The key that `credential`, `id:secret`, is.
async fn key(app: &App, credential: &str) -> Result<Option<Key>, Failure> {
    let Some((id, secret)) = credential.split_once(':') else { return Ok(None) };
    let fits = |key: &Key| crate::keys::fits(key, secret);
    Ok(row(app, id).await?.filter(fits))
}

/// The key called `id`, unless it was revoked.
async fn row(app: &App, id: &str) -> Result<Option<Key>, Failure> {
    // What cannot be an id is not asked for, and not remembered.
    if id.len() != ID_CHARACTERS || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let known = || app.keys.lock().expect("nothing panics while it is held").get(id).cloned();
    if let Some((key, _)) = known().filter(|(_, at)| at.elapsed() < KEY_FRESH) {
        return Ok(key);
    }
    let key = app.settings.queue.key(id).await?.filter(|key| key.revoked_ms.is_none());
    let mut keys = app.keys.lock().expect("nothing panics while it is held");
    if keys.len() >= KEYS_MAX {
        keys.clear();
    }
    keys.insert(id.into(), (key.clone(), Instant::now()));
    Ok(key)
}
