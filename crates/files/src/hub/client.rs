//! The two addresses of a hub that matter here, `/api/models/…` and `/…/resolve/…`, and which failures are worth another try.

use std::io;
use std::time::Duration;

use ureq::config::RedirectAuthHeaders;
use ureq::http::Response;
use ureq::{Agent, Body, Proxy};

use super::id::percent_encoded;
use super::plan::Listing;
use super::{Error, Patience, Repo, Result, Settings, Token};

/// Listings of models are some kilobytes; this is room for any repository that `plan` accepts.
const LISTING_BYTES_MAX: u64 = 16 << 20;

/// Attempts for the first question: whoever has no network should hear so at once.
const LISTING_ATTEMPTS_MAX: u32 = 3;

/// A connection to one hub.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<Token>,
    patience: Patience,
}

/// Why a request brought nothing, or not everything.
pub(super) enum Failure {
    /// Another attempt would bring the same.
    Final(Error),
    /// Worth another attempt, not before the time that the hub named.
    Again { cause: Cause, wait: Option<Duration> },
}

/// What went wrong for the time being.
pub(super) enum Cause {
    Status { url: String, status: u16 },
    Transport(Box<ureq::Error>),
    Body(io::Error),
}

impl Cause {
    /// For people who watch.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Status { status: 429, .. } => "the hub asks for a pause".into(),
            Self::Status { status, .. } => format!("the hub answered {status}"),
            Self::Transport(error) => error.to_string(),
            Self::Body(error) => format!("the connection broke off: {error}"),
        }
    }
}

impl Client {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let proxy = settings.proxy.as_deref().map(Proxy::new).transpose();
        let unreachable = |source| Error::Unreachable {
            endpoint: settings.endpoint.clone(),
            source: Box::new(source),
        };
        let patience = settings.patience.clone();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("zoetrope/", env!("CARGO_PKG_VERSION")))
            // Storage lies on other hosts, with signed addresses: the token is none of their business.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .accept_encoding("identity")
            .proxy(proxy.map_err(unreachable)?)
            .timeout_connect(Some(patience.answer))
            .timeout_recv_response(Some(patience.answer))
            .timeout_per_read(Some(patience.silence));
        let endpoint = settings.endpoint.trim_end_matches('/').to_string();
        Ok(Self {
            agent: config.build().new_agent(),
            endpoint,
            token: settings.token.clone(),
            patience,
        })
    }

    /// The files of a revision, with sizes and hashes.
    pub(super) fn listing(&self, repo: &Repo) -> Result<Listing> {
        let revision = percent_encoded(repo.revision(), "");
        let url =
            format!("{}/api/models/{}/revision/{revision}?blobs=true", self.endpoint, repo.name());
        let attempts_max = self.patience.attempts.min(LISTING_ATTEMPTS_MAX);
        let mut attempts = 1;
        loop {
            match self.get(&url, 0, repo).and_then(|answer| read_listing(&url, answer)) {
                Ok(listing) => return Ok(listing),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again { cause, wait }) => {
                    let hopeless = matches!(&cause, Cause::Transport(error) if matches!(**error, ureq::Error::HostNotFound));
                    if attempts >= attempts_max || hopeless {
                        return Err(self.given_up(cause, attempts));
                    }
                    std::thread::sleep(self.wait(attempts, wait));
                    attempts += 1;
                }
            }
        }
    }

    /// A file's bytes from `offset` on; a server that knows no ranges answers with all of them.
    pub(super) fn file(
        &self,
        repo: &Repo,
        commit: &str,
        name: &str,
        offset: u64,
    ) -> Result<Response<Body>, Failure> {
        let name = percent_encoded(name, "/");
        self.get(
            &format!("{}/{}/resolve/{commit}/{name}", self.endpoint, repo.name()),
            offset,
            repo,
        )
    }

    /// The error after the last attempt.
    pub(super) fn given_up(&self, cause: Cause, attempts: u32) -> Error {
        let source = match cause {
            Cause::Status { url, status } => return Error::Status { url, status, attempts },
            Cause::Transport(error) => error,
            Cause::Body(error) => Box::new(ureq::Error::Io(error)),
        };
        Error::Unreachable { endpoint: self.endpoint.clone(), source }
    }

    /// Attempts without progress before giving up.
    pub(super) fn attempts(&self) -> u32 {
        self.patience.attempts
    }

    /// How long to wait after an attempt: what the hub says, or twice as long as the last time.
    pub(super) fn wait(&self, attempts: u32, asked: Option<Duration>) -> Duration {
        let doubled =
            self.patience.first_wait.saturating_mul(1 << attempts.saturating_sub(1).min(16));
        asked.unwrap_or(doubled).min(self.patience.wait_max)
    }

    fn get(&self, url: &str, offset: u64, repo: &Repo) -> Result<Response<Body>, Failure> {
        let mut request = self.agent.get(url);
        if let Some(Token(token)) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if offset > 0 {
            request = request.header("Range", format!("bytes={offset}-"));
        }
        let answer = request.call().map_err(|error| match error {
            ureq::Error::BadUri(_)
            | ureq::Error::TooManyRedirects
            | ureq::Error::RedirectFailed => {
                Failure::Final(Error::BadReply { url: url.into(), why: error.to_string() })
            }
            error => Failure::Again { cause: Cause::Transport(Box::new(error)), wait: None },
        })?;
        match answer.status().as_u16() {
            200 | 206 => Ok(answer),
            416 if offset > 0 => Ok(answer), // there is nothing from there on: the caller begins anew
            status @ (401 | 403) => Err(Failure::Final(self.denied(status, repo))),
            404 => Err(Failure::Final(self.not_found(url, repo))),
            status @ (408 | 429 | 500..=599) => {
                let wait = answer
                    .headers()
                    .get("Retry-After")
                    .and_then(|value| value.to_str().ok()?.trim().parse().ok());
                let cause = Cause::Status { url: url.into(), status };
                Err(Failure::Again { cause, wait: wait.map(Duration::from_secs) })
            }
            status => Err(Failure::Final(Error::Status { url: url.into(), status, attempts: 1 })),
        }
    }

    fn denied(&self, status: u16, repo: &Repo) -> Error {
        let advice = match (&self.token, status) {
            // The hub also says 401 for a name that does not exist, lest it tell which private ones do.
            (None, _) => {
                "it is private, or its licence must be accepted, or the name is misspelled. Accept the licence on its page, and \
                 set HF_TOKEN to a token of yours (its page: Settings, Access Tokens)."
            }
            (Some(_), 401) => {
                "the token in HF_TOKEN is not valid, or the name is misspelled. Set HF_TOKEN to a new token."
            }
            (Some(_), _) => {
                "the token in HF_TOKEN may not read it. Accept the licence on the model's page with the same account."
            }
        };
        Error::Denied { endpoint: self.endpoint.clone(), repo: repo.name().into(), status, advice }
    }

    fn not_found(&self, url: &str, repo: &Repo) -> Error {
        // A listed file that is gone is another matter than a model that never was.
        if url.contains("/resolve/") {
            return Error::BadReply {
                url: url.into(),
                why: "a listed file is not there (404)".into(),
            };
        }
        let (repo, revision) = (repo.name().into(), repo.revision().into());
        Error::NotFound { endpoint: self.endpoint.clone(), repo, revision }
    }
}

fn read_listing(url: &str, mut answer: Response<Body>) -> Result<Listing, Failure> {
    let bytes = answer.body_mut().with_config().limit(LISTING_BYTES_MAX).read_to_vec().map_err(
        |error| match error {
            ureq::Error::BodyExceedsLimit(_) => {
                Failure::Final(Error::BadReply { url: url.into(), why: error.to_string() })
            }
            error => Failure::Again { cause: Cause::Transport(Box::new(error)), wait: None },
        },
    )?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Failure::Final(Error::BadReply { url: url.into(), why: error.to_string() })
    })
}
