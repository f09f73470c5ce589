//! A client of server-sent events that keeps every byte it was sent: no library, so that what is on the wire is what is judged.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::client::Frame;

/// An open stream.
pub struct Stream {
    socket: BufReader<TcpStream>,
    /// The head of the answer, as it came.
    pub head: String,
    /// The last `id`: where this client stands in all its rooms.
    pub last_id: Option<String>,
    /// The last `retry`, milliseconds.
    pub retry: Option<u64>,
    /// How many comments came.
    pub comments: usize,
    /// Everything behind the head, as it came.
    pub raw: String,
    /// Whether the server has ended it.
    pub ended: bool,
    /// A line that has not come whole: reading may stop at any byte.
    line: Vec<u8>,
    data: Vec<String>,
}

impl Stream {
    /// Asks for `path` (with its query), with a token when there is one and more headers, each `name: value`.
    ///
    /// # Errors
    /// When the gateway cannot be reached or refuses; the error holds its whole answer.
    pub async fn open(
        gateway: &str,
        path: &str,
        token: Option<&str>,
        more: &[String],
    ) -> anyhow::Result<Self> {
        let address = gateway.trim_start_matches("http://");
        let mut socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n");
        let token = token.map(|token| format!("Authorization: Bearer {token}"));
        for line in token.iter().chain(more) {
            request.push_str(line);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut socket = BufReader::new(socket);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = tokio::time::timeout(Duration::from_secs(10), socket.read_line(&mut head)).await??;
            anyhow::ensure!(read > 0, "ended in the head: {head:?}");
        }
        if !head.starts_with("HTTP/1.1 200 ") {
            let length = head.to_lowercase();
            let length = length.split("content-length: ").nth(1).unwrap_or("0");
            let length: usize = length.lines().next().unwrap_or("0").parse().unwrap_or(0);
            let mut body = vec![0; length];
            socket.read_exact(&mut body).await?;
            anyhow::bail!("{head}{}", String::from_utf8_lossy(&body));
        }
        // Any HTTP library would stop after so many bytes, or look for chunks: a stream lasts until the connection ends.
        let fields = head.to_lowercase();
        anyhow::ensure!(
            !fields.contains("\r\ncontent-length:") && !fields.contains("\r\ntransfer-encoding:"),
            "a stream with a length: {head}"
        );
        Ok(Self {
            socket,
            head,
            last_id: None,
            retry: None,
            comments: 0,
            raw: String::new(),
            ended: false,
            line: Vec::new(),
            data: Vec::new(),
        })
    }

    /// Follows rooms from one cursor, as a browser does that comes back.
    ///
    /// # Errors
    /// As for [`Stream::open`].
    pub async fn follow(
        gateway: &str,
        token: &str,
        rooms: &[&str],
        cursor: Option<&str>,
    ) -> anyhow::Result<Self> {
        let more: Vec<String> = cursor
            .map(|id| format!("Last-Event-ID: {id}"))
            .into_iter()
            .collect();
        Self::open(gateway, &path("sse", rooms, &[]), Some(token), &more).await
    }

    /// The next frame. `None` when nothing came in time or the stream ended (then `ended` is set).
    ///
    /// # Errors
    /// When an event is not JSON.
    pub async fn next(&mut self, within: Duration) -> anyhow::Result<Option<Frame>> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            match tokio::time::timeout_at(deadline, self.socket.read_until(b'\n', &mut self.line)).await {
                Err(_) => return Ok(None),
                Ok(Ok(_)) if self.line.ends_with(b"\n") => {}
                Ok(_) => {
                    self.ended = true;
                    return Ok(None);
                }
            }
            let line = String::from_utf8(std::mem::take(&mut self.line))?;
            self.raw.push_str(&line);
            let line = line.trim_end_matches('\n');
            match line
                .split_once(':')
                .map(|(name, value)| (name, value.strip_prefix(' ').unwrap_or(value)))
            {
                Some(("", _)) => self.comments += 1,
                Some(("id", id)) => self.last_id = Some(id.to_owned()),
                Some(("retry", millis)) => self.retry = millis.parse().ok(),
                Some(("data", data)) => self.data.push(data.to_owned()),
                Some((name, _)) => anyhow::bail!("a field that no browser reads: {name:?}"),
                None if line.is_empty() && !self.data.is_empty() => {
                    let text = std::mem::take(&mut self.data).join("\n");
                    return Ok(Some(serde_json::from_str(&text)?));
                }
                None => anyhow::ensure!(line.is_empty(), "a line that is no field: {line:?}"),
            }
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
        let mut frames: Vec<Value> = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let Some(frame) = self.next(left).await? else {
                anyhow::bail!("{what}: did not come (ended: {}); came: {frames:?}", self.ended);
            };
            let last = wanted(&frame);
            frames.push(frame);
            if last {
                return Ok(frames);
            }
        }
    }

    /// Reads until every one of these rooms has said `caughtUp`.
    ///
    /// # Errors
    /// When that does not happen within 10 s.
    pub async fn caught_up(&mut self, rooms: &[&str]) -> anyhow::Result<Vec<Frame>> {
        let mut left: Vec<&str> = rooms.to_vec();
        self.until("caughtUp", Duration::from_secs(10), |frame| {
            left.retain(|room| frame["caughtUp"]["room"] != **room);
            left.is_empty()
        })
        .await
    }
}

/// The address of a route that follows rooms; `cursors`: none, one, or as many as rooms.
#[must_use]
pub fn path(route: &str, rooms: &[&str], cursors: &[&str]) -> String {
    let rooms = rooms.iter().map(|room| format!("room={room}"));
    let cursors = cursors.iter().map(|cursor| format!("cursor={cursor}"));
    let query: Vec<String> = rooms.chain(cursors).collect();
    format!("/v1/{route}?{}", query.join("&"))
}
