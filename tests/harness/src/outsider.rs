//! A NATS client that keeps no rules: the bare protocol on a socket, to try what no client library would send.
//!
//! The server answers in order: when `PONG` comes, everything sent before it has been judged, and everything it set off in the
//! server's own hands is on the way. So "nothing came" is known without waiting.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The server answers within this, on however busy a machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Where it was published.
    pub subject: String,
    /// The headers' lines, the status line first; empty: none.
    pub headers: String,
    /// What it says.
    pub payload: String,
}

/// A connection that speaks the bare protocol.
#[derive(Debug)]
pub struct Outsider {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    next_id: u64,
    /// Messages that came and were not asked for yet.
    pub heard: Vec<Heard>,
    /// `-ERR` that came and were not asked for yet.
    pub errors: Vec<String>,
}

impl Outsider {
    /// Connects to `nats://address:port` and logs in.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn connect(url: &str, user: &str, password: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(url.trim_start_matches("nats://")).await?;
        // Many small writes, each waiting for an answer.
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let mut outsider = Self {
            read: BufReader::new(read),
            write,
            next_id: 1,
            heard: Vec::new(),
            errors: Vec::new(),
        };
        let login = json!({
            "verbose": false, "pedantic": false, "headers": true, "no_responders": true, "protocol": 1, "echo": true,
            "user": user, "pass": password, "name": "outsider", "lang": "none", "version": "0",
        });
        outsider.send(&format!("CONNECT {login}\r\n")).await?;
        outsider.settle().await?;
        ensure!(outsider.errors.is_empty(), "{user}: {:?}", outsider.errors);
        Ok(outsider)
    }

    async fn send(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.write.write_all(text.as_bytes()).await?)
    }

    /// Publishes; `reply` and `headers` may be anything at all.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn publish(
        &mut self,
        subject: &str,
        reply: &str,
        headers: &[(&str, &str)],
        payload: &str,
    ) -> anyhow::Result<()> {
        if headers.is_empty() {
            let line = format!("PUB {subject} {reply} {}\r\n{payload}\r\n", payload.len());
            return self.send(&line).await;
        }
        let lines: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let head = format!("NATS/1.0\r\n{lines}\r\n");
        let all = head.len() + payload.len();
        self.send(&format!(
            "HPUB {subject} {reply} {} {all}\r\n{head}{payload}\r\n",
            head.len()
        ))
        .await
    }

    /// Subscribes, in a queue group where `queue` is not empty; answers the subscription's id.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn subscribe(&mut self, subject: &str, queue: &str) -> anyhow::Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&format!("SUB {subject} {queue} {id}\r\n")).await?;
        Ok(id)
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn unsubscribe(&mut self, id: u64) -> anyhow::Result<()> {
        self.send(&format!("UNSUB {id}\r\n")).await
    }

    /// Waits until the server has judged everything sent so far; what came meanwhile is in `heard` and `errors`.
    ///
    /// # Errors
    /// When the connection is gone or nothing comes for 20 s.
    pub async fn settle(&mut self) -> anyhow::Result<()> {
        self.send("PING\r\n").await?;
        while !self.read_one().await? {}
        Ok(())
    }

    /// Waits for a message on a subject and takes it out of `heard`.
    ///
    /// # Errors
    /// When the connection is gone or nothing comes for 20 s.
    pub async fn next_on(&mut self, subject: &str) -> anyhow::Result<Heard> {
        loop {
            if let Some(at) = self.heard.iter().position(|heard| heard.subject == subject) {
                return Ok(self.heard.remove(at));
            }
            self.read_one()
                .await
                .with_context(|| format!("nothing on {subject}; {:?}", self.errors))?;
        }
    }

    /// Reads one thing the server says; whether it was `PONG`.
    async fn read_one(&mut self) -> anyhow::Result<bool> {
        let mut line = String::new();
        let read = tokio::time::timeout(ANSWER_WITHIN, self.read.read_line(&mut line)).await;
        ensure!(
            read.context("the server says nothing")?? > 0,
            "the server hung up"
        );
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.first().copied().unwrap_or_default() {
            "PONG" => return Ok(true),
            "PING" => self.send("PONG\r\n").await?,
            "-ERR" => self.errors.push(line.trim_end().to_owned()),
            "MSG" => self.message(words[1], 0, words[words.len() - 1]).await?,
            "HMSG" => {
                let head = words[words.len() - 2].parse()?;
                self.message(words[1], head, words[words.len() - 1]).await?;
            }
            _ => {}
        }
        Ok(false)
    }

    async fn message(&mut self, subject: &str, head: usize, all: &str) -> anyhow::Result<()> {
        let mut bytes = vec![0; all.parse::<usize>()? + 2];
        tokio::time::timeout(ANSWER_WITHIN, self.read.read_exact(&mut bytes)).await??;
        bytes.truncate(bytes.len() - 2);
        let payload = bytes.split_off(head);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        self.heard.push(Heard {
            subject: subject.to_owned(),
            headers: text(bytes),
            payload: text(payload),
        });
        Ok(())
    }
}
