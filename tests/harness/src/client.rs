//! A dashboard without a page: a WebSocket client, in either encoding, that keeps every byte it was sent.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
pub use roomcast_proto::frame::Encoding;
use roomcast_proto::frame::{ClientFrame, ServerFrame};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

/// How long an answer may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// One frame from the gateway, as its JSON form whatever was spoken.
pub type Frame = Value;

/// An open connection.
pub struct Client {
    socket: WebSocketStream<TcpStream>,
    encoding: Encoding,
    next_id: u32,
    /// Where this client stands in each room: from `event` and `caughtUp` only.
    pub cursors: HashMap<String, String>,
    /// Every message received, in order, as it came: leaks are found by looking through these. Of Protobuf what is text in it.
    pub raw: Vec<String>,
    /// Frames that came while the answer to a request was awaited.
    pub early: Vec<Frame>,
    /// How the connection ended: close code and reason.
    pub closed: Option<(u16, String)>,
}

/// `ws://…/v1/ws` for a gateway's `http://…`.
#[must_use]
pub fn ws_url(gateway: &str) -> String {
    format!("{}/v1/ws", gateway.replacen("http", "ws", 1))
}

impl Client {
    /// Opens a socket and says nothing yet.
    ///
    /// # Errors
    /// When the gateway refuses the upgrade.
    pub async fn open(gateway: &str) -> anyhow::Result<Self> {
        Self::open_as(Encoding::Json, gateway).await
    }

    /// Likewise, to speak the given encoding.
    ///
    /// # Errors
    /// When the gateway refuses the upgrade.
    pub async fn open_as(encoding: Encoding, gateway: &str) -> anyhow::Result<Self> {
        let address = gateway.trim_start_matches("http://");
        Self::upgrade(encoding, gateway, TcpStream::connect(address).await?).await
    }

    /// Likewise, with the smallest receive buffer the kernel gives: what is not read stays with the gateway.
    ///
    /// # Errors
    /// When the gateway refuses the upgrade.
    pub async fn open_narrow(gateway: &str) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        let stream = socket
            .connect(gateway.trim_start_matches("http://").parse()?)
            .await?;
        Self::upgrade(Encoding::Json, gateway, stream).await
    }

    async fn upgrade(encoding: Encoding, gateway: &str, stream: TcpStream) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        let url: http::Uri = ws_url(gateway).parse()?;
        let protocol = http::HeaderValue::from_static(encoding.subprotocol());
        let builder = ClientBuilder::from_uri(url)
            .add_header(http::header::SEC_WEBSOCKET_PROTOCOL, protocol)
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        let (socket, _) = tokio::time::timeout(PATIENCE, builder.connect_on(stream)).await??;
        Ok(Self {
            socket,
            encoding,
            next_id: 1,
            cursors: HashMap::new(),
            raw: Vec::new(),
            early: Vec::new(),
            closed: None,
        })
    }

    /// Opens a socket, connects with a token and rooms (with cursors where this map has them), and returns the `connected` body.
    ///
    /// # Errors
    /// When the gateway refuses.
    pub async fn connect(
        gateway: &str,
        token: &str,
        rooms: &[&str],
        cursors: &HashMap<String, String>,
    ) -> anyhow::Result<(Self, Value)> {
        Self::connect_as(Encoding::Json, gateway, token, rooms, cursors).await
    }

    /// Likewise, speaking the given encoding.
    ///
    /// # Errors
    /// When the gateway refuses.
    pub async fn connect_as(
        encoding: Encoding,
        gateway: &str,
        token: &str,
        rooms: &[&str],
        cursors: &HashMap<String, String>,
    ) -> anyhow::Result<(Self, Value)> {
        let mut client = Self::open_as(encoding, gateway).await?;
        let connected = client.begin(token, rooms, cursors).await?;
        Ok((client, connected))
    }

    /// Sends `connect` and returns the body of its answer.
    ///
    /// # Errors
    /// When the gateway refuses.
    pub async fn begin(
        &mut self,
        token: &str,
        rooms: &[&str],
        cursors: &HashMap<String, String>,
    ) -> anyhow::Result<Value> {
        self.cursors.clone_from(cursors);
        let rooms = rooms.iter().map(|room| match cursors.get(*room) {
            Some(cursor) => json!({ "room": room, "cursor": cursor }),
            None => json!({ "room": room }),
        });
        let rooms: Vec<Value> = rooms.collect();
        let answer = self
            .request(
                "connect",
                json!({ "token": token, "client": "harness", "rooms": rooms }),
            )
            .await?;
        match answer.get("connected") {
            Some(connected) => Ok(connected.clone()),
            None => anyhow::bail!("not connected: {answer}"),
        }
    }

    /// Sends any text.
    ///
    /// # Errors
    /// When the socket is gone.
    pub async fn send_text(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.socket.send(Message::text(text.to_owned())).await?)
    }

    /// Sends any bytes as a binary message.
    ///
    /// # Errors
    /// When the socket is gone.
    pub async fn send_bytes(&mut self, bytes: Vec<u8>) -> anyhow::Result<()> {
        Ok(self.socket.send(Message::binary(bytes)).await?)
    }

    /// Sends a frame, given as JSON, in what is spoken.
    async fn send(&mut self, frame: &str) -> anyhow::Result<()> {
        match self.encoding {
            Encoding::Json => self.send_text(frame).await,
            Encoding::Protobuf => {
                let frame =
                    ClientFrame::from_json(frame).map_err(|bad| anyhow::anyhow!("{frame}: {bad:?}"))?;
                self.send_bytes(frame.to_protobuf()).await
            }
        }
    }

    /// Sends a request and reads until its answer; frames that come before are kept in [`Client::early`] and their cursors noted.
    ///
    /// # Errors
    /// When the socket ends or nothing answers within 20 s.
    pub async fn request(&mut self, name: &str, body: Value) -> anyhow::Result<Frame> {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&json!({ "id": id, name: body }).to_string()).await?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            anyhow::ensure!(!left.is_zero(), "no answer to {name}");
            match self.next(left).await? {
                Some(frame) if frame["id"] == id => return Ok(frame),
                Some(frame) => self.early.push(frame),
                None => anyhow::bail!("no answer to {name}; closed: {:?}", self.closed),
            }
        }
    }

    /// The next frame, answering pings on the way. `None` when nothing came in time or the connection ended (then `closed` is set).
    ///
    /// # Errors
    /// When a frame cannot be read, or is not in what is spoken.
    pub async fn next(&mut self, within: Duration) -> anyhow::Result<Option<Frame>> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let message = match tokio::time::timeout_at(deadline, self.socket.next()).await {
                Err(_) => return Ok(None),
                Ok(None) => {
                    self.closed.get_or_insert((1006, String::new()));
                    return Ok(None);
                }
                Ok(Some(Err(error))) => {
                    self.closed.get_or_insert((1006, error.to_string()));
                    return Ok(None);
                }
                Ok(Some(Ok(message))) => message,
            };
            if let Some((code, reason)) = message.as_close() {
                self.closed = Some((code.into(), reason.to_owned()));
                continue;
            }
            if !message.is_text() && !message.is_binary() {
                continue;
            }
            let bytes = message.as_payload();
            self.raw.push(String::from_utf8_lossy(bytes).into_owned());
            let frame: Frame = match self.encoding {
                Encoding::Json if message.is_text() => serde_json::from_slice(bytes)?,
                Encoding::Protobuf if message.is_binary() => {
                    serde_json::from_str(&ServerFrame::from_protobuf(bytes)?.to_json())?
                }
                _ => anyhow::bail!("the other kind of message: {message:?}"),
            };
            if frame.get("ping").is_some() {
                self.send("{\"pong\":{}}").await?;
                continue;
            }
            for name in ["event", "caughtUp"] {
                if let (Some(room), Some(cursor)) =
                    (frame[name]["room"].as_str(), frame[name]["cursor"].as_str())
                {
                    self.cursors.insert(room.to_owned(), cursor.to_owned());
                }
            }
            return Ok(Some(frame));
        }
    }

    /// Reads until a frame satisfies `wanted`, and returns it with all that came before.
    ///
    /// # Errors
    /// When that does not happen within the time.
    pub async fn until(
        &mut self,
        what: &str,
        within: Duration,
        mut wanted: impl FnMut(&Frame) -> bool,
    ) -> anyhow::Result<Vec<Frame>> {
        let deadline = tokio::time::Instant::now() + within;
        let mut frames = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            match self.next(left).await? {
                Some(frame) => {
                    let last = wanted(&frame);
                    frames.push(frame);
                    if last {
                        return Ok(frames);
                    }
                }
                None if self.closed.is_some() => anyhow::bail!("{what}: closed first: {:?}", self.closed),
                None => anyhow::bail!("{what}: did not come within {within:?}; came: {frames:?}"),
            }
        }
    }

    /// Reads until the room says `caughtUp`.
    ///
    /// # Errors
    /// When it does not within 20 s.
    pub async fn caught_up(&mut self, room: &str) -> anyhow::Result<Vec<Frame>> {
        self.until("caughtUp", PATIENCE, |frame| frame["caughtUp"]["room"] == room)
            .await
    }

    /// Ends the TCP connection without a close frame, as a train does.
    pub fn cut(self) -> HashMap<String, String> {
        self.cursors
    }
}
