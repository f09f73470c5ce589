//! One case: what is sent, in which pieces, and what must come back.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;
pub const CONTINUATION: u8 = 0;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// How the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// We close with 1000 and are answered with it.
    Clean,
    /// What was sent contains a close frame, to be answered with this code.
    Answered(Option<u16>),
    /// The server closes with this code.
    Fails(u16),
    /// The server closes with either.
    Either(u16, u16),
}

#[derive(Clone, Debug)]
pub struct Case {
    pub id: String,
    wire: Vec<u8>,
    /// Bytes of one write; `None`: all at once.
    chop: Option<usize>,
    expected: Vec<(u8, Vec<u8>)>,
    /// Whether what is expected may also be missing: the server had been told to close.
    may_miss: bool,
    end: End,
}

impl Case {
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            wire: Vec::new(),
            chop: None,
            expected: Vec::new(),
            may_miss: false,
            end: End::Clean,
        }
    }

    /// Adds a frame. `first` holds FIN, the reserved bits and the opcode.
    pub fn raw(mut self, first: u8, payload: impl AsRef<[u8]>) -> Self {
        let payload = payload.as_ref();
        self.wire.push(first);
        match payload.len() {
            len @ 0..=125 => self.wire.push(0x80 | u8::try_from(len).unwrap()),
            len @ 126..=0xffff => {
                self.wire.push(0x80 | 126);
                self.wire.extend(u16::try_from(len).unwrap().to_be_bytes());
            }
            len => {
                self.wire.push(0x80 | 127);
                self.wire.extend(u64::try_from(len).unwrap().to_be_bytes());
            }
        }
        self.wire.extend(MASK);
        self.wire.extend(
            payload
                .iter()
                .zip(MASK.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        self
    }

    /// Adds a whole frame with these reserved bits (0 to 7).
    pub fn frame(self, reserved: u8, opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        self.raw(0x80 | reserved << 4 | opcode, payload)
    }

    pub fn text(self, text: impl AsRef<[u8]>) -> Self {
        self.frame(0, TEXT, text)
    }

    pub fn ping(self, payload: impl AsRef<[u8]>) -> Self {
        self.frame(0, PING, payload)
    }

    /// Adds a message in fragments.
    pub fn fragments<'a>(mut self, opcode: u8, parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let parts: Vec<&[u8]> = parts.into_iter().collect();
        for (n, part) in parts.iter().enumerate() {
            let fin = if n + 1 == parts.len() { 0x80 } else { 0 };
            let opcode = if n == 0 { opcode } else { CONTINUATION };
            self = self.raw(fin | opcode, part);
        }
        self
    }

    /// Adds a close frame with a code and a reason.
    pub fn close(self, code: u16, reason: impl AsRef<[u8]>) -> Self {
        let payload = [&code.to_be_bytes()[..], reason.as_ref()].concat();
        self.frame(0, CLOSE, payload)
    }

    /// Keeps back so many bytes at the end.
    pub fn cut(mut self, bytes: usize) -> Self {
        self.wire.truncate(self.wire.len().saturating_sub(bytes));
        self
    }

    /// Writes so many bytes at once.
    pub fn chopped(mut self, bytes: usize) -> Self {
        self.chop = Some(bytes);
        self
    }

    pub fn expect(mut self, opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        self.expected.push((opcode, payload.into()));
        self
    }

    pub fn expect_text(self, text: impl Into<String>) -> Self {
        self.expect(TEXT, text.into())
    }

    pub fn may_miss(mut self) -> Self {
        self.may_miss = true;
        self
    }

    pub fn clean(self) -> Self {
        self.ends(End::Clean)
    }

    pub fn answered(self, code: u16) -> Self {
        self.ends(End::Answered(Some(code)))
    }

    pub fn fails(self, code: u16) -> Self {
        self.ends(End::Fails(code))
    }

    pub fn ends(mut self, end: End) -> Self {
        self.end = end;
        self
    }
}

/// Plays one case, which is lost when it has not ended within `patience`.
pub async fn play(address: SocketAddr, case: &Case, patience: Duration) -> Result<(), String> {
    let mut stream = TcpStream::connect(address).await.map_err(text)?;
    stream.set_nodelay(true).map_err(text)?;
    upgrade(&mut stream).await?;
    let (mut reading, mut writing) = stream.into_split();
    let (wire, chop) = (case.wire.clone(), case.chop.unwrap_or(usize::MAX).max(1));
    let (all_seen, seen) = tokio::sync::oneshot::channel::<()>();
    let closes = case.end == End::Clean;
    let writer = tokio::spawn(async move {
        for piece in wire.chunks(chop.min(wire.len().max(1))) {
            // A server that has closed does not take the rest.
            if writing.write_all(piece).await.is_err() {
                return;
            }
        }
        if closes && seen.await.is_ok() {
            let last = Case::new("").close(1000, "").wire;
            let _ = writing.write_all(&last).await;
        }
        // Dropping it would be a FIN before the server has said everything.
        std::future::pending::<()>().await;
    });
    let outcome = tokio::time::timeout(patience, hear(&mut reading, case, all_seen)).await;
    writer.abort();
    outcome.unwrap_or_else(|_| Err("it took too long".to_owned()))
}

async fn hear(
    reading: &mut OwnedReadHalf,
    case: &Case,
    all_seen: tokio::sync::oneshot::Sender<()>,
) -> Result<(), String> {
    let mut expected = case.expected.iter();
    let mut all_seen = Some(all_seen);
    if case.expected.is_empty() && case.end == End::Clean {
        drop_open(&mut all_seen);
    }
    loop {
        let Some((opcode, payload)) = frame(reading).await? else {
            return Err("the connection ended without a close frame".to_owned());
        };
        if opcode == CLOSE {
            let left = expected.len();
            if left > 0 && !case.may_miss {
                return Err(format!("closed ({payload:?}) with {left} messages missing"));
            }
            closed(&payload, case.end)?;
            return match frame(reading).await? {
                None => Ok(()),
                Some(more) => Err(format!("after the close frame: {more:?}")),
            };
        }
        match expected.next() {
            Some((wanted, bytes)) if *wanted == opcode && *bytes == payload => {}
            Some((wanted, bytes)) => {
                return Err(format!(
                    "expected opcode {wanted} with {} bytes, got {opcode} with {} bytes: {:?}",
                    bytes.len(),
                    payload.len(),
                    &payload[..payload.len().min(40)]
                ));
            }
            None => return Err(format!("not expected: opcode {opcode}, {} bytes", payload.len())),
        }
        if expected.len() == 0 && case.end == End::Clean {
            drop_open(&mut all_seen);
        }
    }
}

/// Tells the writer that it may close.
fn drop_open(all_seen: &mut Option<tokio::sync::oneshot::Sender<()>>) {
    if let Some(all_seen) = all_seen.take() {
        let _ = all_seen.send(());
    }
}

fn closed(payload: &[u8], end: End) -> Result<(), String> {
    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
    let right = match end {
        End::Clean => code == Some(1000),
        End::Answered(wanted) => code == wanted,
        End::Fails(wanted) => code == Some(wanted),
        End::Either(one, other) => code == Some(one) || code == Some(other),
    };
    if right {
        Ok(())
    } else {
        Err(format!("closed with {code:?}, expected {end:?}"))
    }
}

/// One frame of the server; `None`: the connection has ended.
async fn frame(reading: &mut OwnedReadHalf) -> Result<Option<(u8, Vec<u8>)>, String> {
    let Ok(first) = reading.read_u8().await else {
        return Ok(None);
    };
    if first & 0xf0 != 0x80 {
        return Err(format!("a frame that begins with {first:#04x}: no whole message"));
    }
    let len = match reading.read_u8().await.map_err(text)? {
        126 => usize::from(reading.read_u16().await.map_err(text)?),
        127 => usize::try_from(reading.read_u64().await.map_err(text)?).map_err(text)?,
        len @ 0..=125 => usize::from(len),
        _ => return Err("a masked frame of a server".to_owned()),
    };
    let mut payload = vec![0; len];
    reading.read_exact(&mut payload).await.map_err(text)?;
    Ok(Some((first & 0x0f, payload)))
}

async fn upgrade(stream: &mut TcpStream) -> Result<(), String> {
    let request = "GET /v1/echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.map_err(text)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.map_err(text)?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let right = head.starts_with("HTTP/1.1 101") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    if right { Ok(()) } else { Err(head) }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
