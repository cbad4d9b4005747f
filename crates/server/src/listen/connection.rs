//! HTTP/1.1 on one connection, and on the tunnel that it may become.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::Service;

use super::connect::{self, Target};
use super::{Local, Options, Peer, Secure, Via, stopped};

/// What all connections share.
pub(super) struct Room {
    pub(super) app: Router,
    pub(super) options: Options,
    pub(super) stop: watch::Receiver<bool>,
}

/// A connection, as its requests are told about it.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) room: Arc<Room>,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) via: Via,
}

/// What a connection becomes after an answer to `CONNECT`.
struct Tunnel {
    host: String,
    upgrade: OnUpgrade,
    tls: Arc<ServerConfig>,
}

impl Connection {
    /// Everything from the first byte to the last.
    pub(super) async fn run(self, stream: Held) {
        let tunnel = match self.room.options.tls.clone() {
            None => self.speak(stream, Wire::Plain).await,
            Some(tls) => match self.handshake(stream, tls).await {
                Some(stream) => self.speak(stream, Wire::Tls).await,
                None => None,
            },
        };
        let Some(Tunnel { host, upgrade, tls }) = tunnel else { return };
        match upgrade.await {
            Ok(upgraded) => {
                let inside = Self { via: Via::Tunnel { host }, ..self };
                if let Some(stream) = inside.handshake(TokioIo::new(upgraded), tls).await {
                    inside.speak(stream, Wire::Tls).await; // a tunnel in a tunnel is refused, so there is no other
                }
            }
            Err(error) => tracing::debug!(%error, peer = %self.peer, "a tunnel was not opened"),
        }
    }

    async fn handshake<S>(&self, stream: S, tls: Arc<ServerConfig>) -> Option<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut stop = self.room.stop.clone();
        let accepted = tokio::select! {
            accepted = timeout(self.room.options.handshake_timeout, TlsAcceptor::from(tls).accept(stream)) => accepted,
            () = stopped(&mut stop) => return None,
        };
        match accepted {
            Ok(Ok(stream)) => return Some(stream),
            // Often a program that was not told to trust the authority.
            Ok(Err(error)) => tracing::debug!(%error, peer = %self.peer, "a TLS handshake failed"),
            Err(_) => tracing::debug!(peer = %self.peer, "a TLS handshake took too long"),
        }
        None
    }

    /// Answers requests until the connection is over; what is left of it after `CONNECT`.
    async fn speak<S>(&self, stream: S, wire: Wire) -> Option<Tunnel>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let options = &self.room.options;
        let asked = AtomicBool::new(false);
        let tunnel = Mutex::new(None);
        let service = service_fn(|request: hyper::Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            self.answer(request.map(Body::new), wire, &tunnel)
        });
        // hyper has one limit, which runs between requests too; hence the first head's is kept here.
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(options.idle_timeout.max(options.header_timeout));
        {
            let mut served =
                pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
            let mut first_head = pin!(tokio::time::sleep(options.header_timeout));
            let mut stop = self.room.stop.clone();
            let (mut waiting, mut stopping) = (true, false);
            let result = loop {
                tokio::select! {
                    result = served.as_mut() => break result,
                    () = first_head.as_mut(), if waiting => {
                        waiting = false;
                        if !asked.load(Ordering::Relaxed) {
                            tracing::debug!(peer = %self.peer, "a connection brought no request in time");
                            return None;
                        }
                    }
                    () = stopped(&mut stop), if !stopping => {
                        stopping = true;
                        served.as_mut().graceful_shutdown();
                    }
                }
            };
            if let Err(error) = result {
                tracing::debug!(%error, peer = %self.peer, "a connection ended early");
            }
        }
        tunnel.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(
        &self,
        mut request: Request,
        wire: Wire,
        tunnel: &Mutex<Option<Tunnel>>,
    ) -> impl Future<Output = Result<Response, Infallible>> + use<> {
        let via = match Target::of(&request, self.local, &self.room.options.own) {
            Target::Own => Ok(self.via.clone()),
            Target::Fal(host) => Ok(Via::Tunnel { host }),
            Target::Elsewhere(target) => Err(connect::refuse(&target)),
            Target::Tunnel(host) => Err(self.open(host, &mut request, tunnel)),
        };
        let answer = via.map(|via| {
            connect::to_origin_form(&mut request);
            let extensions = request.extensions_mut();
            extensions.insert(Peer(self.peer));
            extensions.insert(Local(self.local));
            extensions.insert(via);
            if wire == Wire::Tls {
                extensions.insert(Secure);
            }
            self.room.app.clone().call(request)
        });
        async move {
            match answer {
                Ok(answer) => answer.await,
                Err(response) => Ok(response),
            }
        }
    }

    /// The answer to `CONNECT`, after which the connection is a tunnel.
    fn open(
        &self,
        host: String,
        request: &mut Request,
        tunnel: &Mutex<Option<Tunnel>>,
    ) -> Response {
        if self.via != Via::Direct {
            return connect::refuse(&host); // a tunnel leads to one host alone
        }
        let Some(tls) = self.room.options.tunnel.clone() else {
            return connect::refuse_tunnel(&host);
        };
        let upgrade = hyper::upgrade::on(request);
        *tunnel.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Tunnel { host, upgrade, tls });
        Response::new(Body::empty())
    }
}

/// What requests come over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    Plain,
    Tls,
}

/// A connection with its place among the many: the place is free once the last who has the connection lets go of it, and that
/// may be a WebSocket in the app. A client that does not read what it asked for loses it.
pub(super) struct Held {
    stream: TcpStream,
    stall_timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl Held {
    pub(super) fn new(
        stream: TcpStream,
        stall_timeout: Duration,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self { stream, stall_timeout, stalled: None, _permit: permit }
    }

    /// `written`, or an error once nothing was taken for too long.
    fn unless_stalled<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let most = self.stall_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(most)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Held {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.unless_stalled(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.unless_stalled(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
