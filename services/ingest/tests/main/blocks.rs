//! Header blocks that no client library writes: NATS hands on what a publisher sent, byte for byte.

use std::time::Duration;

use roomcast_harness::eventually;
use roomcast_harness::nats::{Nats, PASSWORD};
use roomcast_proto::ids::Tenant;
use roomcast_proto::stream::{Sizing, queue};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fixture::{Ingest, event};

const SOON: Duration = Duration::from_secs(15);
const BLOCKS: [&[u8]; 10] = [
    b"NATS/1.0\r\nX: a\rb\r\n\r\n",
    b"NATS/1.0\r\nX: \xff\xfe\r\n\r\n",
    b"NATS/1.0\r\nno colon\r\n\r\n",
    b"NATS/1.0\r\na name: with a space\r\n\r\n",
    b"NATS/1.0\r\n: without a name\r\n\r\n",
    b"NATS/1.0 abc\r\n\r\n",
    b"NATS/1.0 404 No Messages\r\n\r\n",
    b"NATS/1.0 204\r\n\r\n",
    b"NATS/1.0 503\r\n\r\n",
    b"NATS/1.0\r\n\xff: x\r\n folded\r\n\r\n",
];

/// Sends messages as they are, and waits until the server has them.
async fn send(nats: &Nats, messages: &[(&str, &[u8], Value)]) {
    let url = nats.url();
    let mut stream = TcpStream::connect(url.trim_start_matches("nats://"))
        .await
        .unwrap();
    let connect = json!({
        "user": "publisher", "pass": PASSWORD, "headers": true, "verbose": false, "pedantic": false,
    });
    let mut bytes = format!("CONNECT {connect}\r\n").into_bytes();
    for (subject, block, body) in messages {
        let body = body.to_string();
        let sizes = format!("HPUB {subject} {} {}\r\n", block.len(), block.len() + body.len());
        bytes.extend([sizes.as_bytes(), block, body.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend(b"PING\r\n");
    stream.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("PONG") {
        let mut some = [0; 1024];
        let read = stream.read(&mut some).await.unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend(&some[..read]);
    }
}

/// The message itself is taken, by whichever door, and nobody else notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_block_that_cannot_be_read_harms_nobody() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let config = queue(&Sizing::DEVELOPMENT, &Tenant::default(), "publisher").unwrap();
    ingest.streams.create_stream(&config).await.unwrap();
    let mut messages: Vec<(&str, &[u8], Value)> = Vec::new();
    for (number, block) in BLOCKS.into_iter().enumerate() {
        messages.push(("in.bookings.staff", block, event(&format!("asked-{number}"))));
        messages.push((
            "inq.publisher.bookings.staff",
            block,
            event(&format!("queued-{number}")),
        ));
    }
    send(&ingest.nats, &messages).await;
    assert_eq!(
        ingest.publish(&event("of somebody else")).await["status"],
        "stored"
    );
    let ids = async || {
        let stored = ingest.stored("EVENTS").await;
        let id = |payload: &[u8]| serde_json::from_slice::<Value>(payload).unwrap()["id"].clone();
        let mut ids: Vec<String> = stored
            .iter()
            .map(|message| id(&message.payload).as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids
    };
    let mut expected: Vec<String> = (0..BLOCKS.len())
        .flat_map(|number| [format!("asked-{number}"), format!("queued-{number}")])
        .chain(["of somebody else".to_owned()])
        .collect();
    expected.sort();
    eventually("all are stored", SOON, || async {
        ids().await.len() == expected.len()
    })
    .await;
    assert_eq!(ids().await, expected);
}
