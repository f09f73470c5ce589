//! Connections: they wait, come back, and refuse what is too old.

use std::time::{Duration, Instant};

use roomcast_chassis::config::Environment;
use roomcast_chassis::nats::{ConnectError, Refused};
use roomcast_chassis::process::{self, Context, Exit};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::scripted::serve;
use crate::server::{SERVICE, Server, eventually};

pub fn context(url: &str) -> Context {
    let environment = Environment::from_pairs([("ROOMCAST_NATS_URL", url)]);
    let (common, (), _) = process::settings(&environment, &SERVICE, |_| ()).unwrap();
    Context::new(&SERVICE, common).unwrap()
}

/// Serves as a NATS server of version 2.12.0 would until it is asked for more than PING.
pub async fn serve_old(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(serve_once(stream, "2.12.0"));
    }
}

/// Serves one connection as a NATS server of this version, until it is asked for something.
async fn serve_once(stream: TcpStream, version: &str) {
    let info =
        json!({ "server_id": "x", "version": version, "proto": 1, "headers": true, "max_payload": 1 << 20 });
    let (read, mut write) = stream.into_split();
    write
        .write_all(format!("INFO {info}\r\n").as_bytes())
        .await
        .unwrap();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line.starts_with("PUB") || line.starts_with("PING") && write.write_all(b"PONG\r\n").await.is_err()
        {
            return;
        }
    }
}

#[tokio::test]
async fn servers_below_2_14_are_refused_with_how_to_mend_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(serve_old(listener));
    let context = context(&format!("nats://127.0.0.1:{port}"));
    let error = context.nats.connect("main").await.unwrap_err();
    assert_eq!(
        error,
        ConnectError::Refused(Refused::Version("2.12.0".to_owned()))
    );
    assert!(error.to_string().contains("2.14.0 or newer is needed"), "{error}");
    assert!(!context.readiness.is_ready());
    let failure: process::Failure = error.into();
    assert_eq!(failure.exit, Exit::Unavailable);
}

/// Serves as a NATS server that calls itself 2.14.0 and answers whatever is asked for with this.
async fn serve_new(listener: TcpListener, body: &'static str) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let answer =
            move |reply: &str, inbox: &str| format!("MSG {reply} {inbox} {}\r\n{body}\r\n", body.len());
        tokio::spawn(serve(stream, "2.14.0", answer));
    }
}

/// A version is what a server says of itself; the level of its API is what it does.
#[tokio::test]
async fn a_new_version_with_an_old_api_is_refused() {
    for (body, expected) in [
        (r#"{"api":{"level":3}}"#, Some(Refused::ApiLevel(3))),
        (r#"{"api":{}}"#, Some(Refused::ApiLevel(0))),
        (r#"{"api":{"level":4}}"#, None),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(serve_new(listener, body));
        let context = context(&format!("nats://127.0.0.1:{port}"));
        match (context.nats.connect("main").await, expected) {
            (Ok(_), None) => {}
            (Err(error), Some(refused)) => {
                assert_eq!(error, ConnectError::Refused(refused), "{body}");
                assert!(!context.readiness.is_ready());
                let failure: process::Failure = error.into();
                assert_eq!(failure.exit, Exit::Unavailable);
            }
            (found, expected) => panic!("{body}: {:?}, not {expected:?}", found.err()),
        }
    }
}

#[tokio::test]
async fn a_server_without_jetstream_is_refused() {
    let accounts = "accounts { PLAIN { users: [ { user: u, password: p } ] } }\nno_auth_user: u";
    let Some(server) = Server::start(accounts) else {
        return;
    };
    let error = context(&server.url()).nats.connect("main").await.unwrap_err();
    assert!(
        matches!(error, ConnectError::Refused(Refused::NoJetStream(_))),
        "{error}"
    );
}

#[tokio::test]
async fn the_first_connection_waits_for_ever_and_says_why() {
    let Some(mut server) = Server::start("") else {
        return;
    };
    server.kill();
    let context = context(&server.url());
    let connecting = tokio::spawn({
        let nats = context.nats.clone();
        async move { nats.connect("main").await }
    });
    eventually("the reason is told", async || {
        let report = context.readiness.report();
        report
            .waiting
            .get("nats main")
            .is_some_and(|reason| reason.starts_with("cannot connect to 127.0.0.1:"))
    })
    .await;
    server.restart("");
    let nats = tokio::time::timeout(Duration::from_secs(5), connecting)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(context.readiness.is_ready());
    assert!(nats.jetstream().stream_info("NONE").await.unwrap().is_none());
}

#[tokio::test]
async fn waiting_ends_with_the_process() {
    let context = context("nats://127.0.0.1:1");
    let connecting = tokio::spawn({
        let nats = context.nats.clone();
        async move { nats.connect("main").await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    context.shutdown.request();
    assert_eq!(connecting.await.unwrap().unwrap_err(), ConnectError::Stopped);
}

#[tokio::test]
async fn any_of_several_addresses_will_do() {
    let Some(server) = Server::start("") else { return };
    let context = context(&format!("nats://127.0.0.1:1,{}", server.url()));
    context.nats.connect("main").await.unwrap();
    assert!(context.readiness.is_ready());
}

#[tokio::test]
async fn a_lost_connection_is_not_ready_and_comes_back_by_itself() {
    let Some(mut server) = Server::start("") else {
        return;
    };
    let context = context(&server.url());
    let nats = context.nats.connect("main").await.unwrap();
    let connects = nats.status().borrow().connects;
    server.kill();
    eventually("the loss is noticed", async || !context.readiness.is_ready()).await;
    assert!(!nats.status().borrow().connected);
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.restart("");
    let back = Instant::now();
    eventually("it is ready again", async || context.readiness.is_ready()).await;
    assert!(back.elapsed() < Duration::from_secs(3), "{:?}", back.elapsed());
    assert_eq!(nats.status().borrow().connects, connects + 1);
}

/// A server replaced by an older one accepts our newer requests silently and does not honour them.
#[tokio::test]
async fn an_older_server_behind_the_same_address_stops_the_process() {
    let Some(mut server) = Server::start("") else {
        return;
    };
    let context = context(&server.url());
    let _nats = context.nats.connect("main").await.unwrap();
    server.kill();
    let listener = loop {
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", server.port)).await {
            break listener;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    tokio::spawn(serve_old(listener));
    tokio::time::timeout(Duration::from_secs(10), context.shutdown.requested())
        .await
        .unwrap();
    let failure = context.shutdown.failure().unwrap();
    assert_eq!(failure.exit, Exit::Unavailable);
    assert!(failure.message.contains("2.12.0"), "{failure}");
    assert!(!context.readiness.is_ready());
}

/// A client can end by itself, for example by a panic; nothing would be told any more, and nothing would come back.
#[tokio::test]
async fn a_client_that_ends_before_the_process_stops_it() {
    let Some(server) = Server::start("") else {
        return;
    };
    let context = context(&server.url());
    let nats = context.nats.connect("main").await.unwrap();
    assert!(context.readiness.is_ready());
    nats.client().drain().await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), context.shutdown.requested())
        .await
        .unwrap();
    let failure = context.shutdown.failure().unwrap();
    assert_eq!(failure.exit, Exit::Unavailable);
    assert!(failure.message.contains("main has ended"), "{failure}");
    assert!(!context.readiness.is_ready() && !nats.status().borrow().connected);
}

/// The connection that was asked is lost with the question; the next one leads to another server, or there is none.
#[tokio::test]
async fn a_connection_that_is_lost_while_it_is_judged_is_not_taken_for_good() {
    for next in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            serve_once(stream, "2.14.0").await;
            if next {
                serve_old(listener).await;
            }
        });
        let context = context(&format!("nats://127.0.0.1:{port}"));
        let connected = context.nats.connect("main").await.map(drop);
        let older = ConnectError::Refused(Refused::Version("2.12.0".to_owned()));
        assert_eq!(connected, if next { Err(older) } else { Ok(()) });
        assert!(!context.readiness.is_ready());
    }
}

/// Word that the connection shall be drained waits for room in the client's queue, behind what a frozen server does not take.
#[tokio::test]
async fn the_end_does_not_wait_for_a_server_that_takes_nothing() {
    let Some(server) = Server::start("") else {
        return;
    };
    let context = context(&server.url());
    let nats = context.nats.connect("main").await.unwrap();
    server.signal("STOP");
    let large = bytes::Bytes::from(vec![0; 64 * 1024]);
    let room = async || {
        let sending = nats.client().publish("x", large.clone());
        tokio::time::timeout(Duration::from_millis(200), sending)
            .await
            .is_ok()
    };
    while room().await {}
    assert!(context.shutdown.run(Duration::from_secs(20)).await);
}
