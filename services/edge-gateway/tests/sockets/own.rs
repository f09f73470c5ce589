//! Users' own rooms, which are not kept in memory once their users have been told what they hold.

use std::time::Duration;

use roomcast_harness::client::Client;
use roomcast_harness::eventually;
use serde_json::{Value, json};

use super::{Gateway, ids};

const SOON: Duration = Duration::from_secs(30);
const OWN: &str = "user.u1";

/// Puts more into another user's room than all rooms may hold together.
async fn crowd(gateway: &Gateway) {
    let padding = "x".repeat(12 * 1024);
    for n in 0..60 {
        gateway
            .state("user.u2", "all", &format!("k{n}"), json!(padding))
            .await;
    }
}

/// Who is there gets what comes, and its end; where it cannot be said what holds then, the client comes back and is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_room_that_was_emptied_says_what_holds_or_has_its_user_come_back() {
    let Some(gateway) = Gateway::start(&[("ROOMCAST_STATE_BYTES", "1048576")]).await else {
        return;
    };
    gateway.state(OWN, "all", "kept", json!(1)).await;
    gateway.state(OWN, "all", "gone", json!(1)).await;
    crowd(&gateway).await;
    let (mut client, _) = gateway.client("u1", &["staff"], &[]).await;
    let told = client.caught_up(OWN).await.unwrap();
    assert_eq!(ids(&told, OWN), ["kept-1", "gone-1"]);
    let (mut other, _) = gateway.client("u2", &["staff"], &[]).await;
    assert_eq!(
        ids(&other.caught_up("user.u2").await.unwrap(), "user.u2").len(),
        60
    );
    eventually("the first one's room is emptied", SOON, || async {
        gateway.count("roomcast_gateway_state_dropped_total", "own") >= 1.0
    })
    .await;

    // Nobody else has a value in it: the end of one is the end.
    let event_of = |id: &'static str| move |frame: &Value| frame["event"]["event"]["id"] == id;
    gateway.withdraw(OWN, "all", "gone").await;
    client
        .until("its end", SOON, event_of("gone-withdrawn"))
        .await
        .unwrap();
    // A second tab finds what holds, which is read again.
    let (mut tab, _) = gateway.client("u1", &["staff"], &[]).await;
    assert_eq!(ids(&tab.caught_up(OWN).await.unwrap(), OWN), ["kept-1"]);
    let emptied = gateway.count("roomcast_gateway_state_dropped_total", "own");
    let (mut third, _) = gateway.client("u2", &["staff"], &[]).await;
    third.caught_up("user.u2").await.unwrap();
    eventually("it is emptied again", SOON, || async {
        gateway.count("roomcast_gateway_state_dropped_total", "own") > emptied
    })
    .await;

    // A value for fewer covers the one for all; when it goes, what is below is not here to be said.
    gateway.state(OWN, "staff", "kept", json!(2)).await;
    for client in [&mut client, &mut tab] {
        client
            .until("a newer value", SOON, event_of("kept-2"))
            .await
            .unwrap();
    }
    gateway.withdraw(OWN, "staff", "kept").await;
    for mut client in [client, tab] {
        let last = client
            .until("the end", SOON, |frame| frame["disconnect"].is_object())
            .await
            .unwrap();
        assert_eq!(last.last().unwrap()["disconnect"]["code"], 4005);
        assert!(ids(&last, OWN).is_empty(), "nothing was said of it: {last:?}");
        let cursors = client.cut();
        let token = gateway.signer.token("u1", &["staff"]);
        let (mut back, _) = Client::connect(&gateway.url, &token, &[OWN], &cursors)
            .await
            .unwrap();
        let told = back.caught_up(OWN).await.unwrap();
        assert_eq!(ids(&told, OWN), ["kept-1"], "what was below holds again");
    }
}

/// Whoever comes back, and has missed nothing in its own room, costs no read of it, although nothing of it is in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_comes_back_to_an_emptied_room_costs_a_read_only_where_something_is_new() {
    let Some(gateway) = Gateway::start(&[("ROOMCAST_STATE_BYTES", "1048576")]).await else {
        return;
    };
    gateway.state(OWN, "all", "kept", json!(1)).await;
    crowd(&gateway).await;
    let (mut client, _) = gateway.client("u1", &["staff"], &[]).await;
    assert_eq!(ids(&client.caught_up(OWN).await.unwrap(), OWN), ["kept-1"]);
    let (mut other, _) = gateway.client("u2", &["staff"], &[]).await;
    other.caught_up("user.u2").await.unwrap();
    eventually("the first one's room is emptied", SOON, || async {
        gateway.count("roomcast_gateway_state_dropped_total", "own") >= 1.0
    })
    .await;
    let reads = || gateway.count("roomcast_gateway_stream_reads_total", "state");
    let token = gateway.signer.token("u1", &["staff"]);
    let before = reads();
    // With nobody in the room, and once more with somebody.
    for (new, told) in [(None, &[][..]), (None, &[]), (Some(2), &["kept-2"])] {
        let cursors = client.cut();
        if let Some(value) = new {
            gateway.state(OWN, "all", "kept", json!(value)).await;
        }
        client = Client::connect(&gateway.url, &token, &[OWN], &cursors)
            .await
            .unwrap()
            .0;
        let found = ids(&client.caught_up(OWN).await.unwrap(), OWN);
        assert_eq!(found, told, "{new:?}");
        assert_eq!(reads() > before, new.is_some(), "{new:?}");
    }
}
