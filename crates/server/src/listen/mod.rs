//! Connections: plain, over TLS, and through this server as a proxy to fal's names, all of them to the same app.
//!
//! [`serve`] takes connections in, `connection` speaks HTTP on one, `connect` tells what is meant for a proxy, and
//! [`Authority`] has the certificate that fal's names are answered with.

mod authority;
mod certificate;
mod connect;
mod connection;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

pub use authority::{Authority, Error, FAL_NAMES, LOCAL_NAMES};
use connection::{Connection, Held, Room};

/// Who sent a request; an extension of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// This server's end of the connection that a request came by; an extension of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local(pub SocketAddr);

/// The request came over TLS; an extension of requests that did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secure;

/// Which way a request came; an extension of every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// To this server's own address.
    Direct,
    /// To one of [`FAL_NAMES`], with this server as the proxy.
    Tunnel {
        /// In lower case, without a port.
        host: String,
    },
}

/// How connections are treated.
#[derive(Clone, Debug)]
pub struct Options {
    /// TLS from the first byte on.
    pub tls: Option<Arc<ServerConfig>>,
    /// TLS at the end of tunnels to fal's names. Without it none are opened.
    pub tunnel: Option<Arc<ServerConfig>>,
    /// What else this server is called in addresses, as `zoetrope.example` or `box:8080`. The address that a connection came in
    /// at and `localhost` need not be told.
    pub own: Vec<String>,
    /// For the first request's head, from the moment the connection is there.
    pub header_timeout: Duration,
    /// Between one request's end and the end of the next one's head.
    pub idle_timeout: Duration,
    /// For a TLS handshake.
    pub handshake_timeout: Duration,
    /// For a client that takes nothing of what it asked for: longer than any network's pause, shorter than what fills memory.
    pub stall_timeout: Duration,
    /// For requests that run when the server is told to stop.
    pub drain: Duration,
    /// At once, WebSockets and tunnels included. Further ones wait in the system's queue.
    pub connections_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls: None,
            tunnel: None,
            own: Vec::new(),
            header_timeout: Duration::from_secs(30),
            // Longer than clients and proxies keep theirs (httpx 5 s, Node 5 s, nginx and AWS's balancer 60 s): the end that
            // closes first must be the one that sends requests, or a request meets a closed connection.
            idle_timeout: Duration::from_secs(75),
            handshake_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
            drain: Duration::from_secs(30),
            connections_max: 4096,
        }
    }
}

/// After an error of `accept` that is not a client's: descriptors or memory are short, and trying at once only burns time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Serves `app` on `listener` until `stop` holds true or its sender is gone. Then nothing new is taken in, what runs may end
/// within [`Options::drain`], and the rest is cut off. A WebSocket is the app's once it is open: it neither delays the end nor
/// is cut off.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    options: Options,
    mut stop: watch::Receiver<bool>,
) {
    let permits = Arc::new(Semaphore::new(options.connections_max.min(Semaphore::MAX_PERMITS)));
    let drain = options.drain;
    let room = Arc::new(Room { app, options, stop: stop.clone() });
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer, permit) = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(ended) = connections.join_next() => {
                note_panic(ended);
                continue;
            }
            accepted = accept(&listener, &permits) => accepted,
        };
        let Ok(local) = stream.local_addr() else { continue }; // gone already
        let _ = stream.set_nodelay(true); // only slower without
        let connection = Connection { room: room.clone(), peer, local, via: Via::Direct };
        connections.spawn(connection.run(Held::new(stream, room.options.stall_timeout, permit)));
    }
    drop(listener);
    let ended = async {
        while let Some(ended) = connections.join_next().await {
            note_panic(ended);
        }
    };
    if tokio::time::timeout(drain, ended).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "requests were cut off: they still ran when the server's time to stop was over"
        );
        connections.shutdown().await;
    }
}

/// The next connection, once there is room for it. May be dropped while it waits: no connection is lost.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, permit),
            Err(error) if is_clients(&error) => {
                tracing::debug!(%error, "a client left before it was let in")
            }
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_clients(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection ended in a panic");
    }
}

/// Waits until the server is told to stop, or nobody is left to tell it.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
