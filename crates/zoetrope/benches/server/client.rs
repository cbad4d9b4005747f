//! A client that costs little: one connection, one request at a time.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A connection that is kept alive.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, host: address.to_string() })
    }

    /// The answer's head, with the body still to come.
    pub(crate) async fn open(
        &mut self,
        method: Method,
        path: &str,
        body: &[u8],
    ) -> anyhow::Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("authorization", "Key bench:bench")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::copy_from_slice(body)))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: &[u8],
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let answer = self.open(method, path, body).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    /// A `GET` that must succeed.
    pub(crate) async fn get(&mut self, path: &str) -> anyhow::Result<Bytes> {
        let (status, body) = self.call(Method::GET, path, b"").await?;
        ensure!(
            status.is_success(),
            "{path} is answered {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(body)
    }

    /// A `PUT` that must succeed.
    pub(crate) async fn put(&mut self, path: &str) -> anyhow::Result<()> {
        let (status, body) = self.call(Method::PUT, path, b"").await?;
        ensure!(
            status.is_success(),
            "{path} is answered {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(())
    }

    /// A `POST` of JSON that must succeed.
    pub(crate) async fn post(&mut self, path: &str, body: &[u8]) -> anyhow::Result<Value> {
        let (status, body) = self.call(Method::POST, path, body).await?;
        ensure!(
            status.is_success(),
            "{path} is answered {status}: {}",
            String::from_utf8_lossy(&body)
        );
        serde_json::from_slice(&body).with_context(|| format!("the answer of {path}"))
    }
}
