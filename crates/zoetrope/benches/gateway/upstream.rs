//! A provider that answers at once, in OpenAI's shape, whatever it is asked: what is measured beside it is the gateway's own.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Starts it; where it listens.
pub(crate) async fn start(picture: &[u8]) -> anyhow::Result<SocketAddr> {
    let body = format!(
        r#"{{"created":1763700000,"data":[{{"b64_json":"{}"}}]}}"#,
        STANDARD.encode(picture)
    );
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let answer = Bytes::from([head, body].concat());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true); // slower without, and no worse
            tokio::spawn(answer_all(stream, answer.clone()));
        }
    });
    Ok(address)
}

/// Answers every request of a connection until it is closed.
async fn answer_all(mut stream: TcpStream, answer: Bytes) {
    let (mut held, mut part) = (Vec::new(), [0; 16 << 10]);
    loop {
        while let Some(length) = whole(&held) {
            held.drain(..length);
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
        match stream.read(&mut part).await {
            Ok(read) if read > 0 => held.extend_from_slice(&part[..read]),
            _ => return,
        }
    }
}

/// Bytes of the first request in `held`, once all of it is there.
fn whole(held: &[u8]) -> Option<usize> {
    let head = held.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&held[..head]).ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let all = head + length.unwrap_or(0);
    (held.len() >= all).then_some(all)
}
