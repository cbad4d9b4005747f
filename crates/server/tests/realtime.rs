//! Websockets that say nothing: asked for signs of life, and ended when none come.

#![allow(clippy::unwrap_used)]

mod room;

use room::{Room, TURBO};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use zoetrope_server::listen::{Options, serve};

/// What the protocol calls a ping without a text, and a pong as a client sends it.
const PING: [u8; 2] = [0x89, 0];
const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];
const CLOSE: u8 = 0x88;

/// A websocket that is open. From then on time passes as soon as nobody has anything to do.
async fn open(room: &Room) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = room.stop.subscribe();
    tokio::spawn(serve(listener, room.router.clone(), Options::default(), stop));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /run/{TURBO}/realtime HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    tokio::time::pause();
    stream
}

#[tokio::test]
async fn a_websocket_that_gives_no_sign_of_life_ends() {
    let mut stream = open(&Room::new().await).await;
    let begun = tokio::time::Instant::now();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard[..4], [PING, PING].concat());
    assert_eq!(heard[4], CLOSE);
    let seconds = begun.elapsed().as_secs();
    assert!((90..100).contains(&seconds), "it ended after {seconds} s");
}

#[tokio::test]
async fn a_websocket_that_answers_lives_on() {
    let mut stream = open(&Room::new().await).await;
    for _ in 0..10 {
        let mut heard = [0; 2];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, PING);
        stream.write_all(&PONG).await.unwrap();
    }
}
