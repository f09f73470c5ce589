//! What is asked while NATS is away.

use std::time::Duration;

use roomcast_chassis::jetstream::{At, JetStream};
use serde_json::json;

use crate::server::{Server, eventually};

/// A request whose time was up is not sent when the connection is back: whoever asked was told that there is no answer, and may have
/// asked, and written something newer, elsewhere.
#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_sent_later() {
    let Some(mut server) = Server::start("") else {
        return;
    };
    let client = server.client().await;
    let stream = json!({ "name": "KEPT", "subjects": ["kept.*"] });
    let asked = client
        .request("$JS.API.STREAM.CREATE.KEPT", stream.to_string().into())
        .await;
    assert!(!String::from_utf8_lossy(&asked.unwrap().payload).contains("error"));
    server.kill();
    eventually("the loss is noticed", async || {
        client.connection_state() != async_nats::connection::State::Connected
    })
    .await;
    let late = client.request("kept.late", "".into());
    assert!(
        tokio::time::timeout(Duration::from_millis(200), late)
            .await
            .is_err()
    );
    server.restart("");
    eventually("the connection is back", async || {
        let asked = client.request("kept.now", "".into());
        tokio::time::timeout(Duration::from_millis(500), asked)
            .await
            .is_ok_and(|answer| answer.is_ok())
    })
    .await;
    let late = JetStream::new(client, "$JS.API")
        .message("KEPT", At::Last("kept.late"))
        .await;
    assert_eq!(late.unwrap().map(|message| message.sequence), None);
}
