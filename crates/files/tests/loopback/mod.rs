//! A web server on a loopback port that answers byte for byte, and as slowly, as it is told.

// Each test program that includes it uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What a client sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    /// As they were sent, each with its name in small letters.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A piece of an answer.
pub(crate) enum Step {
    Send(Vec<u8>),
    Wait(Duration),
}

/// The whole answer; the connection is closed after it.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<Step> {
    let length = body.len().to_string();
    let mut bytes = head(status, &[headers, &[("content-length", &length)]].concat());
    bytes.extend_from_slice(body);
    vec![Step::Send(bytes)]
}

/// The beginning of an answer, up to its body.
pub(crate) fn head(status: u16, headers: &[(&str, &str)]) -> Vec<u8> {
    let lines: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("HTTP/1.1 {status} Word\r\n{lines}connection: close\r\n\r\n").into_bytes()
}

pub(crate) struct Server {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers each request with what `handle` makes of it.
    pub(crate) async fn start(
        handle: impl Fn(&Request) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        Self::listen(None, handle).await
    }

    pub(crate) async fn listen(
        tls: Option<TlsAcceptor>,
        handle: impl Fn(&Request) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, handle) = (Arc::new(Mutex::new(Vec::new())), Arc::new(handle));
        let keep = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (keep, handle, tls) = (keep.clone(), handle.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => converse(stream, &keep, &*handle).await,
                        Some(tls) => {
                            converse(tls.accept(stream).await.ok()?, &keep, &*handle).await
                        }
                    }
                });
            }
        });
        Self { port, seen }
    }

    /// An address of it, by number.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Mutex<Vec<Request>>,
    handle: &(dyn Fn(&Request) -> Vec<Step> + Send + Sync),
) -> Option<()> {
    let request = read(&mut stream).await?;
    seen.lock().unwrap().push(request.clone());
    for step in handle(&request) {
        match step {
            Step::Send(bytes) => stream.write_all(&bytes).await.ok()?,
            Step::Wait(time) => tokio::time::sleep(time).await,
        }
        stream.flush().await.ok()?;
    }
    stream.shutdown().await.ok()
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        match bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            Some(at) => break at,
            None if stream.read_buf(&mut bytes).await.ok()? == 0 => return None,
            None => {}
        }
    };
    let text = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let pairs = lines.filter_map(|line| line.split_once(':'));
    let mut request = Request {
        method: first.next()?.into(),
        target: first.next()?.into(),
        headers: pairs.map(|(n, v)| (n.to_ascii_lowercase(), v.trim().into())).collect(),
        body: bytes.split_off(end + 4),
    };
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    while request.body.len() < length {
        if stream.read_buf(&mut request.body).await.ok()? == 0 {
            return None;
        }
    }
    Some(request)
}
