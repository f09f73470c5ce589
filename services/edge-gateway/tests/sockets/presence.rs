//! Presence at one gateway, with another one that the test plays, and with NATS away.

use std::collections::HashMap;
use std::time::Duration;

use roomcast_harness::client::Client;
use roomcast_harness::eventually;
use roomcast_harness::http::Http;
use roomcast_harness::stream::Stream;
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

/// Over HTTP it is asked in the same words, a stream is told when it says of which rooms, and who polls is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_socket_who_is_there_is_asked_told_and_counted_the_same() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let http = Http::default();
    let token = |user: &str| gateway.signer.token(user, &["staff"]);
    let (mut socket, _) = gateway.client("socket", &["staff"], &["floor"]).await;
    until(&mut socket, "itself", |answer| named(answer) == ["socket"]).await;
    let path = "/v1/sse?room=floor&presence=floor&presence=bookings&presence=money&presence=%20";
    let mut stream = Stream::open(&gateway.url, path, Some(&token("stream")), &[])
        .await
        .unwrap();
    let both = |frame: &Value| named(frame) == ["socket", "stream"];
    stream.until("it is told at once", SOON, both).await.unwrap();
    let poll = format!("{}/v1/poll?room=floor&wait=0", gateway.url);
    let polled = http.get(&poll, Some(&token("poll"))).await.unwrap();
    assert_eq!(polled.status, 200, "{}", polled.text());
    assert_eq!(polled.json()["frames"], json!([]), "nobody asked who is there");
    let three = |frame: &Value| named(frame) == ["socket", "stream", "poll"];
    stream.until("who polls is there", SOON, three).await.unwrap();
    let over_socket = until(&mut socket, "all three", three).await;
    let asked = format!("{}/v1/presence?room=floor", gateway.url);
    let answer = http.get(&asked, Some(&token("poll"))).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let shown = |set: &Value| (set["room"].clone(), set["total"].clone(), set["users"][0].clone());
    assert_eq!(shown(&answer.json()), shown(&over_socket["presence"]));
    // Held, a poll is answered when somebody comes.
    let mut cursor = polled.json()["cursor"].as_str().unwrap().to_owned();
    let watcher = token("poll");
    let (newcomer, answer) = tokio::join!(
        async {
            eventually("it is held", SOON, || async {
                gateway.metric("roomcast_gateway_polls_held") > 0.0
            })
            .await;
            gateway.client("newcomer", &["staff"], &["floor"]).await
        },
        async {
            loop {
                let held = format!(
                    "{}/v1/poll?room=floor&presence=floor&presence=money&wait=25&cursor={cursor}",
                    gateway.url
                );
                let answer = http.get(&held, Some(&watcher)).await.unwrap();
                cursor = answer.json()["cursor"].as_str().unwrap().to_owned();
                if named(&answer.json()["frames"][0]).contains(&"newcomer") {
                    return answer;
                }
            }
        }
    );
    assert_eq!(
        answer.json()["frames"].as_array().unwrap().len(),
        1,
        "{}",
        answer.text()
    );
    drop(newcomer);

    // A room that does not show it tells nobody, whatever they ask for.
    let plain = gateway.signer.token("plain", &["user"]);
    let mut blind = Stream::open(&gateway.url, path, Some(&plain), &[]).await.unwrap();
    let connected = blind.next(SOON).await.unwrap().unwrap();
    assert!(connected["connected"].is_object(), "{connected}");
    let there = |frame: &Value| named(frame).contains(&"plain");
    stream
        .until("who may not see is seen", SOON, there)
        .await
        .unwrap();
    gateway.event("floor", "all", "last", json!({})).await;
    let last = |frame: &Value| frame["event"]["event"]["id"] == "last";
    let frames = blind.until("what comes after it", SOON, last).await.unwrap();
    assert!(
        frames.iter().all(|frame| frame["presence"].is_null()),
        "{frames:?}"
    );

    // Without NATS nobody knows.
    gateway.nats.signal("STOP");
    eventually("it is not known", SOON, || async {
        let answer = http.get(&asked, Some(&token("asker"))).await.unwrap();
        answer.status == 503
            && answer.json()["code"] == "unavailable"
            && answer.json()["retryAfterMs"] == 1_000
    })
    .await;
    gateway.nats.signal("CONT");
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
    eventually("it is known again", SOON, || async {
        let token = gateway.signer.token("again", &["staff"]);
        let connected = Client::connect(&gateway.url, &token, &["floor"], &HashMap::new()).await;
        // Nobody is let in before the gateway hears NATS.
        match connected {
            Ok((mut again, _)) => named(&asked(&mut again, "floor").await).contains(&"again"),
            Err(_) => false,
        }
    })
    .await;
}
