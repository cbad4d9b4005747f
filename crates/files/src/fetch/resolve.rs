//! From names to addresses that may be connected to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{Rules, address};

impl Rules {
    /// Whether `host`, which is at `address`, may be connected to.
    pub(super) fn allow(&self, host: &str, address: IpAddr) -> bool {
        self.private
            || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host))
            || address::is_public(address)
    }

    /// The addresses of `host` that may be connected to.
    pub(super) async fn resolve(&self, host: &str) -> Result<Vec<SocketAddr>, Unresolved> {
        let all = tokio::net::lookup_host((host, 0)).await.map_err(|_| Unresolved::Unknown)?;
        let allowed: Vec<SocketAddr> = all.filter(|at| self.allow(host, at.ip())).collect();
        if allowed.is_empty() { Err(Unresolved::Forbidden) } else { Ok(allowed) }
    }
}

/// Why a name leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unresolved {
    #[error("the name has no address")]
    Unknown,
    #[error("the name has no address that may be fetched")]
    Forbidden,
}

impl Unresolved {
    /// The one that made a request fail.
    pub(super) fn of(error: &reqwest::Error) -> Option<Self> {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref() {
                return Some(*found);
            }
            cause = error.source();
        }
        None
    }
}

/// The client's only way from a name to a connection. Whatever the name means a moment later, the connection goes to an
/// address that was looked at.
pub(super) struct Resolver(pub(super) Arc<Rules>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let rules = self.0.clone();
        Box::pin(async move {
            let allowed = rules.resolve(name.as_str()).await?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}
