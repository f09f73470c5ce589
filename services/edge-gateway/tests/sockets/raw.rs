//! A client without a WebSocket library around it: whatever bytes a test wants, as slowly as it wants.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::Gateway;

const SOON: Duration = Duration::from_secs(30);
/// A request that is granted, but for its last empty line.
pub const UPGRADE: &str = "GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// An upgraded socket, connected as a user of the desk.
pub async fn bare(gateway: &Gateway) -> TcpStream {
    connected(TcpStream::connect(gateway.address).await.unwrap(), gateway).await
}

/// The same with a receive buffer that holds next to nothing.
pub async fn bare_narrow(gateway: &Gateway) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    connected(socket.connect(gateway.address).await.unwrap(), gateway).await
}

async fn connected(mut stream: TcpStream, gateway: &Gateway) -> TcpStream {
    let token = gateway.signer.token("bare", &["staff"]);
    stream
        .write_all(format!("{UPGRADE}Authorization: Bearer {token}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    stream
        .write_all(&masked(
            0x81,
            br#"{"id":1,"connect":{"client":"bare","rooms":[{"room":"bookings"}]}}"#,
        ))
        .await
        .unwrap();
    stream
}

/// A client's frame with this first byte; a mask of zeros is one.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u8::try_from(payload.len()) {
        Ok(len @ 0..=125) => frame.push(0x80 | len),
        _ => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Everything until the server ends the connection.
pub async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut all))
        .await
        .expect("the server ends the connection");
    all
}

/// Reads until these bytes have come.
pub async fn until(socket: &mut TcpStream, wanted: &[u8]) {
    let mut came = Vec::new();
    let reading = async {
        while !came.windows(wanted.len()).any(|part| part == wanted) {
            came.push(socket.read_u8().await.unwrap());
        }
    };
    tokio::time::timeout(SOON, reading)
        .await
        .expect("what was wanted");
}

/// Takes the whole frames out of what a server has sent so far: first byte and payload.
pub fn take_frames(bytes: &mut Vec<u8>) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [first, len, ..] = bytes[..] {
        let (start, len) = match len {
            126 if bytes.len() >= 4 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            127 if bytes.len() >= 10 => (
                10,
                usize::try_from(u64::from_be_bytes(bytes[2..10].try_into().unwrap())).unwrap(),
            ),
            126 | 127 => break,
            len => (2, usize::from(len)),
        };
        if bytes.len() < start + len {
            break;
        }
        frames.push((first, bytes[start..start + len].to_vec()));
        bytes.drain(..start + len);
    }
    frames
}

/// A text frame's message.
pub fn message(frame: &(u8, Vec<u8>)) -> Option<Value> {
    (frame.0 == 0x81).then(|| serde_json::from_slice(&frame.1).unwrap())
}
