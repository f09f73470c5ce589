//! Peers that vanish without a word: no FIN, no reset, and no acknowledgement any more, as behind a cable that was pulled.
//!
//! A socket filter of the client's own lets nothing through to it from one moment on, so its kernel acknowledges nothing. The
//! gateway's kernel gives such a connection up; and who answers no ping is given up before.

use std::time::Duration;

use roomcast_harness::eventually;
use serde_json::json;
use socket2::{SockFilter, SockRef};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Gateway;
use super::raw::{bare, until};

const SOON: Duration = Duration::from_secs(30);

/// From here on nothing reaches this socket.
fn vanish(socket: &TcpStream) {
    // BPF_RET | BPF_K with 0: of every packet no byte is let through.
    let nothing = SockFilter::new(0x06, 0, 0, 0);
    SockRef::from(socket).attach_filter(&[nothing]).unwrap();
}

async fn stream(gateway: &Gateway) -> TcpStream {
    let mut socket = TcpStream::connect(gateway.address).await.unwrap();
    let token = gateway.signer.token("stream", &["staff"]);
    let request =
        format!("GET /v1/sse?room=bookings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    until(&mut socket, b"caughtUp").await;
    socket
}

/// Neither pings nor time-outs of writes help: what was sent is in the kernel, and nobody acknowledges it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_acknowledges_nothing_is_cut_off() {
    let limits = [
        ("ROOMCAST_UNACKNOWLEDGED_SECONDS", "1"),
        ("ROOMCAST_COMMENT_SECONDS", "1"),
        ("ROOMCAST_PING_SECONDS", "300"),
        ("ROOMCAST_PONG_SECONDS", "60"),
        ("ROOMCAST_WRITE_SECONDS", "300"),
    ];
    let Some(gateway) = Gateway::start(&limits).await else {
        return;
    };
    let (mut here, _) = gateway.client("here", &["staff"], &["bookings"]).await;
    here.caught_up("bookings").await.unwrap();
    let mut socket = bare(&gateway).await;
    until(&mut socket, b"caughtUp").await;
    let stream = stream(&gateway).await;
    assert_eq!(gateway.metric("roomcast_gateway_connections"), 3.0);
    vanish(&socket);
    vanish(&stream);
    // The stream is found by its comments; the socket when there is something for it.
    gateway.event("bookings", "all", "e1", json!({})).await;
    eventually("both are cut off", SOON, || async {
        gateway.count("roomcast_gateway_limited_total", "\"unacknowledged\"") >= 2.0
    })
    .await;
    eventually("one is left", SOON, || async {
        gateway.metric("roomcast_gateway_connections") == 1.0
    })
    .await;
    for reason in ["no_pong", "too_slow"] {
        assert_eq!(
            gateway.count("roomcast_gateway_closes_total", reason),
            0.0,
            "{reason}"
        );
    }
    let is_e1 = |frame: &serde_json::Value| frame["event"]["event"]["id"] == "e1";
    here.until("its event", SOON, is_e1).await.unwrap();
    drop((socket, stream));
}

/// An idle one is found by its ping: nothing else is sent to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_vanished_while_nothing_was_said_is_found_by_a_ping() {
    let limits = [
        ("ROOMCAST_UNACKNOWLEDGED_SECONDS", "300"),
        ("ROOMCAST_PING_SECONDS", "1"),
        ("ROOMCAST_PONG_SECONDS", "1"),
    ];
    let Some(gateway) = Gateway::start(&limits).await else {
        return;
    };
    let mut socket = bare(&gateway).await;
    until(&mut socket, b"caughtUp").await;
    vanish(&socket);
    eventually("it is closed", SOON, || async {
        gateway.count("roomcast_gateway_limited_total", "\"pong\"") == 1.0
    })
    .await;
    // Our close frame reaches nobody, and is not waited for.
    eventually("its place is free", SOON, || async {
        gateway.metric("roomcast_gateway_connections") == 0.0
    })
    .await;
    drop(socket);
}

/// Who asked for something and vanished: the answer is given up like a frame, and the connection with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_whose_client_vanished_holds_nothing() {
    let limits = [
        ("ROOMCAST_UNACKNOWLEDGED_SECONDS", "1"),
        ("ROOMCAST_POLL_SECONDS", "2"),
        ("ROOMCAST_HEADER_SECONDS", "1"),
        ("ROOMCAST_CONNECTIONS_PER_USER_MAX", "1"),
    ];
    let Some(gateway) = Gateway::start(&limits).await else {
        return;
    };
    let token = gateway.signer.token("poll", &["staff"]);
    let ask = |cursor: &str| {
        format!(
            "GET /v1/poll?room=bookings{cursor} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        )
    };
    let mut socket = TcpStream::connect(gateway.address).await.unwrap();
    socket.write_all(ask("&wait=0").as_bytes()).await.unwrap();
    let mut came = Vec::new();
    let cursor = loop {
        came.push(socket.read_u8().await.unwrap());
        let text = String::from_utf8_lossy(&came);
        if text.ends_with("\"more\":false}") {
            let cursor = text.rsplit("\"cursor\":\"").next().unwrap();
            break cursor.split('"').next().unwrap().to_owned();
        }
    };
    socket
        .write_all(ask(&format!("&cursor={cursor}")).as_bytes())
        .await
        .unwrap();
    eventually("it is held", SOON, || async {
        gateway.metric("roomcast_gateway_polls_held") == 1.0
    })
    .await;
    vanish(&socket);
    eventually("nothing is held", SOON, || async {
        gateway.metric("roomcast_gateway_polls_held") == 0.0
    })
    .await;
    // The user's one place is free again.
    let (client, _) = gateway.client("poll", &["staff"], &[]).await;
    drop((client, socket));
}
