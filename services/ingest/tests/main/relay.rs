//! A way to NATS on which chosen messages are lost: a relay that reads what a client says, and leaves some of it out.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Which messages are lost: by subject and what follows it, headers and payload.
type Loses = dyn FnMut(&str, &str) -> bool + Send;

/// A relay; it ends with the test's runtime.
pub struct Relay {
    url: String,
    loses: Arc<Mutex<Box<Loses>>>,
}

impl Relay {
    /// In front of the server at `url`; nothing is lost yet.
    pub async fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Self {
            url: format!("nats://{}", listener.local_addr().unwrap()),
            loses: Arc::new(Mutex::new(Box::new(|_, _| false))),
        };
        let (server, loses) = (
            url.trim_start_matches("nats://").to_owned(),
            Arc::clone(&relay.loses),
        );
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(between(client, server, Arc::clone(&loses)));
            }
        });
        relay
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// From now on it loses what `loses` says.
    pub fn lose(&self, loses: impl FnMut(&str, &str) -> bool + Send + 'static) {
        *self.loses.lock().unwrap() = Box::new(loses);
    }
}

async fn between(client: TcpStream, server: TcpStream, loses: Arc<Mutex<Box<Loses>>>) {
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut from_client = BufReader::new(from_client);
    let mut line = String::new();
    while from_client
        .read_line(&mut line)
        .await
        .is_ok_and(|bytes| bytes > 0)
    {
        let mut words = line.split_ascii_whitespace();
        let verb = words.next().unwrap_or_default();
        let mut lost = false;
        let mut message = Vec::new();
        if matches!(verb, "PUB" | "HPUB") {
            let subject = words.next().unwrap().to_owned();
            let bytes: usize = words.next_back().unwrap().parse().unwrap();
            message.resize(bytes + 2, 0);
            from_client.read_exact(&mut message).await.unwrap();
            lost = loses.lock().unwrap()(&subject, &String::from_utf8_lossy(&message));
        }
        if !lost {
            let said = [line.as_bytes(), &message].concat();
            if to_server.write_all(&said).await.is_err() {
                return;
            }
        }
        line.clear();
    }
}
