//! Bytes onto a socket, bytes back: for requests and answers that no client library would make.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{CANARY, PATIENCE};

/// Sends a request and reads until the other side closes, which `Connection: close` asks for.
pub(crate) async fn exchange(to: SocketAddr, request: &str) -> String {
    let answer =
        String::from_utf8_lossy(&exchange_bytes(to, request.as_bytes()).await).into_owned();
    assert!(!answer.contains(CANARY), "a secret is in an answer: {answer}");
    answer
}

/// As [`exchange`], with any bytes.
pub(crate) async fn exchange_bytes(to: SocketAddr, request: &[u8]) -> Vec<u8> {
    let talk = async {
        let mut stream = TcpStream::connect(to).await.expect("it listens");
        // A server that refuses may close before everything is written.
        drop(stream.write_all(request).await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        answer
    };
    timeout(PATIENCE, talk).await.expect("the connection is closed in the end")
}
