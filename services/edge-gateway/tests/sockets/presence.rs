//! Presence at one gateway, with another one that the test plays, and with NATS away.

use std::time::Duration;

use roomcast_harness::client::Client;
use roomcast_harness::eventually;
use roomcast_proto::ids::Room;
use roomcast_proto::presence::{Here, Is, Said, What};
use roomcast_proto::subject;
use serde_json::{Value, json};

use super::Gateway;

const SOON: Duration = Duration::from_secs(20);

/// Another gateway, as far as NATS can tell.
struct Played {
    nats: async_nats::Client,
    name: &'static str,
    version: u64,
}

impl Played {
    async fn say(&mut self, what: What) {
        self.version += u64::from(matches!(what, What::Changes(_)));
        let said = Said {
            gateway: self.name.to_owned(),
            version: self.version,
            what,
        };
        let body = serde_json::to_vec(&said).unwrap();
        let subject = subject::presence(self.name);
        self.nats.publish(subject, body.into()).await.unwrap();
        self.nats.flush().await.unwrap();
    }
}

fn here(user: &str, connections: Option<u32>, since_millis: i64) -> Here {
    Here {
        tenant: Default::default(),
        room: Room::parse("floor").unwrap(),
        user: user.into(),
        is: connections.map(|connections| Is {
            roles: vec!["staff".to_owned()].into(),
            connections,
            since_millis,
        }),
    }
}

async fn asked(client: &mut Client, room: &str) -> Value {
    client.request("presence", json!({ "room": room })).await.unwrap()
}

/// Asks until the answer is as it should be; the last one is kept for the message.
async fn until(client: &mut Client, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let start = tokio::time::Instant::now();
    loop {
        let answer = asked(client, "floor").await;
        if is_so(&answer) {
            return answer;
        }
        assert!(start.elapsed() < Duration::from_secs(40), "{what}: {answer}");
        // Below the rate that a user has.
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

fn named(frame: &Value) -> Vec<&str> {
    let users = frame["presence"]["users"].as_array().into_iter().flatten();
    users.filter_map(|user| user["user"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_thousands_enter_at_another_gateway_is_pushed_seldom_and_short() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let (mut client, _) = gateway.client("watcher", &["staff"], &[]).await;
    let watch = json!({ "room": "floor", "presence": true });
    let subscribed = client.request("subscribe", watch).await.unwrap();
    assert!(subscribed["subscribed"].is_object(), "{subscribed}");
    let only_me = |frame: &Value| named(frame) == ["watcher"];
    client.until("the first push", SOON, only_me).await.unwrap();

    let nats = gateway.nats.connect("gw").await;
    let mut other = Played {
        nats,
        name: "played",
        version: 0,
    };
    other.say(What::Beat).await;
    for burst in 0..50 {
        let users = (0..20).map(|n| here(&format!("u{}", burst * 20 + n), Some(1), i64::MAX / 2));
        other.say(What::Changes(users.collect())).await;
    }
    let full = |frame: &Value| frame["presence"]["total"] == 1_001;
    let frames = client.until("the full room", SOON, full).await.unwrap();
    let pushes: Vec<&Value> = frames
        .iter()
        .filter(|frame| frame["presence"].is_object())
        .collect();
    assert!(pushes.len() <= 20, "a thousand joiners, {} pushes", pushes.len());
    assert!(pushes.iter().all(|push| named(push).len() <= 50), "{pushes:?}");
    assert_eq!(
        named(pushes[pushes.len() - 1])[0],
        "watcher",
        "the longest there first"
    );
    // Who asks is told more.
    let answer = asked(&mut client, "floor").await;
    assert_eq!(
        (named(&answer).len(), &answer["presence"]["total"]),
        (500, &json!(1_001))
    );

    // What is missed is asked for: the test's gateway goes on two changes later and tells all when it is asked to.
    let mut asks = other.nats.subscribe(subject::PRESENCE_ALL).await.unwrap();
    other.nats.flush().await.unwrap();
    other.version += 1;
    other.say(What::Changes(vec![here("late", Some(1), 7)])).await;
    let to_it = |said: &Said| said.what == What::TellAll("played".to_owned());
    loop {
        let message = tokio::time::timeout(SOON, futures_util::StreamExt::next(&mut asks)).await;
        let message = message.expect("it is asked").expect("NATS is there");
        if to_it(&serde_json::from_slice(&message.payload).unwrap()) {
            break;
        }
        other.say(What::Beat).await;
    }
    let users = vec![here("late", Some(2), 7)];
    other
        .say(What::All {
            part: 0,
            of: 1,
            users,
        })
        .await;
    let answer = until(&mut client, "what it told", |answer| {
        answer["presence"]["total"] == 2
    })
    .await;
    assert_eq!(named(&answer), ["late", "watcher"]);
    assert_eq!(
        answer["presence"]["users"][0],
        json!({ "user": "late", "connections": 2, "since": "1970-01-01T00:00:00.007Z", "status": "active" })
    );
    // It says nothing any more: away, then gone.
    until(&mut client, "away", |answer| {
        answer["presence"]["users"][0]["status"] == "away"
    })
    .await;
    until(&mut client, "gone", |answer| named(answer) == ["watcher"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_cut_off_says_so_and_nothing_else() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let (mut client, _) = gateway.client("asker", &["staff"], &["floor"]).await;
    let (mut user, _) = gateway.client("user", &["user"], &["floor"]).await;
    let answer = until(&mut client, "both", |answer| named(answer).len() == 2).await;
    assert_eq!(answer["presence"]["total"], 2, "{answer}");
    gateway.nats.signal("STOP");
    let is_away = |answer: &Value| answer["error"]["code"] == "unavailable";
    let answer = until(&mut client, "cut off", is_away).await;
    assert_eq!(
        (&answer["error"]["temporary"], &answer["error"]["retryAfterMs"]),
        (&json!(true), &json!(1_000)),
        "{answer}"
    );
    // What one may not ask is refused all the same, like a room that is not there.
    let mut bytes = std::collections::HashSet::new();
    bytes.insert(asked(&mut user, "floor").await["error"].to_string());
    for room in ["bookings", "nowhere", "a b", "user.user", "money"] {
        bytes.insert(asked(&mut client, room).await["error"].to_string());
    }
    assert_eq!(bytes.len(), 1, "{bytes:?}");
    assert!(bytes.iter().all(|text| text.contains("forbidden")), "{bytes:?}");
    gateway.nats.signal("CONT");
    // Whether or not the connections outlived it: whoever is there is shown.
    eventually("it is known again", SOON, async || {
        let (mut again, _) = gateway.client("again", &["staff"], &["floor"]).await;
        named(&asked(&mut again, "floor").await).contains(&"again")
    })
    .await;
}
