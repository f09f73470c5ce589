//! What gateways ask for: who may, keys and results of commands, and the writer of keys under races and a dying server.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use roomcast_chassis::jetstream::{At, JetStream, StoredMessage};
use roomcast_chassis::metrics::Metrics;
use roomcast_ingest::key_value::{Decision, KeyValue, KeyValueError};
use roomcast_ingest::metrics::IngestMetrics;
use roomcast_proto::ids::Tenant;
use roomcast_proto::subject::{QUEUES_LEASE, command_key, stream};
use serde_json::{Value, json};

use crate::fixture::{Ingest, header};

async fn ask(gateway: &Client, verb: &str, body: &Value) -> Value {
    let subject = format!("svc.main.commands.{verb}");
    let answer = gateway.request(subject, body.to_string().into()).await.unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

/// What the bucket of commands holds, besides the lease that the instance renews.
async fn claims(ingest: &Ingest) -> Vec<StoredMessage> {
    let mut stored = ingest.stored(stream::COMMANDS).await;
    stored.retain(|message| message.subject != QUEUES_LEASE);
    stored
}

fn claim(key: &str, hash: char) -> Value {
    json!({ "user": "u1", "name": "delivery.update", "key": key, "hash": hash.to_string().repeat(22) })
}

/// Devices mark through several gateways at once; nothing of it is lost, and of two marks the higher counts.
#[tokio::test]
async fn devices_that_mark_at_the_same_time_agree() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let gateway = ingest.nats.connect("gw").await;
    let ask = async |verb: &str, body: Value| -> Value {
        let subject = format!("svc.main.readstate.{verb}");
        let answer = gateway.request(subject, body.to_string().into()).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    };
    let levels = ["seen", "read", "archived"];
    let mark = |user: &str, device: usize| {
        let ids = (0..6).map(|n| json!({ "id": format!("n{}", device + n), "at": device + n }));
        json!({ "user": user, "as": levels[device % 3], "notifications": ids.collect::<Vec<_>>() })
    };
    assert_eq!(
        ask("read", json!({ "user": "u/1" })).await,
        json!({ "version": 0, "marks": {} })
    );
    let asked = (0..12).map(|device| ask("mark", mark("u/1", device)));
    let answers = futures_util::future::join_all(asked).await;
    assert!(
        answers.iter().all(|answer| answer["version"].is_u64()),
        "{answers:?}"
    );
    let kept = ask("read", json!({ "user": "u/1" })).await;
    let changes = answers.iter().filter(|answer| answer["changed"] == true).count();
    assert_eq!(
        kept["version"], changes,
        "one version for each change: {answers:?}"
    );
    for n in 0..17 {
        let marked = (0..12).filter(|device| (*device..device + 6).contains(&n));
        let highest = marked.map(|device| device % 3).max().unwrap();
        let expected = json!({ "as": levels[highest], "at": n });
        assert_eq!(kept["marks"][format!("n{n}")], expected, "n{n}");
    }
    let again = ask("mark", mark("u/1", 11)).await;
    assert_eq!(again, json!({ "version": changes, "changed": false }));
    // Another user's are another's.
    assert_eq!(ask("mark", mark("u2", 0)).await["version"], 1);
    let strange = json!({ "user": "u2", "as": "unread", "notifications": [] });
    assert_eq!(ask("mark", strange).await["code"], "bad_request");
    assert_eq!(
        ask("forget", json!({ "user": "u2" })).await["code"],
        "bad_request"
    );
}

#[tokio::test]
async fn a_key_is_claimed_once_and_its_first_result_is_kept() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let gateway = ingest.nats.connect("gw").await;
    let first = ask(&gateway, "claim", &claim("k1", 'a')).await;
    let id = first["new"].as_str().unwrap().to_owned();
    assert_eq!(
        ask(&gateway, "claim", &claim("k1", 'a')).await,
        json!({ "again": id })
    );
    let conflict = ask(&gateway, "claim", &claim("k1", 'b')).await;
    assert_eq!(
        (&conflict["code"], &conflict["temporary"]),
        (&json!("conflict"), &json!(false))
    );
    let finish =
        |result: Value| json!({ "claim": claim("k1", 'a'), "id": id, "outcome": { "data": result } });
    let kept = json!({ "outcome": { "data": { "n": 1 } } });
    assert_eq!(ask(&gateway, "finish", &finish(json!({ "n": 1 }))).await, kept);
    assert_eq!(
        ask(&gateway, "finish", &finish(json!({ "n": 2 }))).await,
        kept,
        "the first answer counts"
    );
    assert_eq!(
        ask(&gateway, "claim", &claim("k1", 'a')).await,
        json!({ "done": { "data": { "n": 1 } } })
    );
    assert_eq!(
        ask(&gateway, "claim", &claim("k1", 'b')).await["code"],
        "conflict"
    );
    let key = command_key(&Tenant::default(), "u1", "delivery.update", "k1");
    let stored = ingest
        .streams
        .message(stream::COMMANDS, At::Last(&key))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(header(&stored, "Nats-TTL"), Some("86460"), "for a day");

    // Given back, a key is as if it had never been used; seen by somebody else, it is not.
    let mine = ask(&gateway, "claim", &claim("k2", 'a')).await["new"]
        .as_str()
        .unwrap()
        .to_owned();
    let release = |key: &str, id: &str| json!({ "claim": claim(key, 'a'), "id": id });
    assert_eq!(
        ask(&gateway, "release", &release("k2", &mine)).await,
        json!({ "released": true })
    );
    let next = ask(&gateway, "claim", &claim("k2", 'b')).await["new"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_ne!(next, mine);
    ask(&gateway, "claim", &claim("k2", 'b')).await;
    let release = json!({ "claim": claim("k2", 'b'), "id": next });
    assert_eq!(
        ask(&gateway, "release", &release).await,
        json!({ "released": false })
    );
}

#[tokio::test]
async fn what_cannot_be_read_and_who_may_not_ask_is_refused_and_counted() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let gateway = ingest.nats.connect("gw").await;
    let mut more = claim("k", 'a');
    more["tenant"] = json!("acme");
    let mut large = json!({ "claim": claim("k", 'a'), "id": "x", "outcome": { "data": "" } });
    large["outcome"]["data"] = "x".repeat(65_537).into();
    let rows = [
        ("claim", json!({}), "bad_request"),
        ("claim", json!("text"), "bad_request"),
        ("claim", more, "bad_request"),
        ("claim", claim("", 'a'), "bad_request"),
        ("claim", claim(&"k".repeat(129), 'a'), "bad_request"),
        ("steal", claim("k", 'a'), "bad_request"),
        ("finish", large, "too_large"),
    ];
    for (verb, body, code) in rows {
        let answer = ask(&gateway, verb, &body).await;
        assert_eq!(answer["code"], code, "{verb} {answer}");
    }
    assert!(claims(&ingest).await.is_empty());
    // A tenant that is one of our own accounts, and nobody of that name.
    for subject in ["svc.SYS.commands.claim", "svc.a=b.commands.claim"] {
        let answer = gateway
            .request(subject, claim("k", 'a').to_string().into())
            .await
            .unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(answer["code"], "forbidden", "{subject}");
    }
    // The subject inside CORE without the account of the gateways: only an administrator can even try.
    let admin = ingest.nats.connect("admin").await;
    let body = claim("k", 'a').to_string().into();
    let sent = admin.publish_with_reply("svc.main.main.commands.claim", "_INBOX.stranger", body);
    sent.await.unwrap();
    roomcast_harness::eventually("all three are counted", Duration::from_secs(5), || async {
        let line = r#"roomcast_ingest_service_requests_total{asked="none",outcome="forbidden"}"#;
        ingest.metric(line) == 3.0
    })
    .await;
    assert!(claims(&ingest).await.is_empty());
    // Without anybody to hear the answer nothing is claimed.
    gateway
        .publish("svc.main.commands.claim", claim("k", 'a').to_string().into())
        .await
        .unwrap();
    ask(&gateway, "claim", &claim("other", 'a')).await;
    assert_eq!(claims(&ingest).await.len(), 1);
    assert_eq!(ingest.metric("roomcast_ingest_unheard_total"), 1.0);
}

#[tokio::test]
async fn more_than_may_be_in_flight_is_told_to_come_back() {
    let more = [("ROOMCAST_SERVICE_REQUESTS_MAX", "1")];
    let Some(ingest) = Ingest::start_with(crate::fixture::POLICY, &more).await else {
        return;
    };
    let gateway = ingest.nats.connect("gw").await;
    let keys: Vec<String> = (0..50).map(|n| format!("k{n}")).collect();
    let asked = keys.iter().map(|key| {
        let gateway = &gateway;
        async move { ask(gateway, "claim", &claim(key, 'a')).await }
    });
    let answers = futures_util::future::join_all(asked).await;
    let refused: Vec<&Value> = answers
        .iter()
        .filter(|answer| answer.get("new").is_none())
        .collect();
    assert!(!refused.is_empty() && refused.len() < 50, "{}", refused.len());
    assert!(
        refused
            .iter()
            .all(|answer| answer["code"] == "unavailable" && answer["retryAfterMs"] == 1000)
    );
    roomcast_harness::eventually("nothing is in flight", Duration::from_secs(5), || async {
        ingest.metric("roomcast_ingest_service_in_flight") == 0.0
    })
    .await;
}

async fn writer(ingest: &Ingest) -> KeyValue {
    let js = JetStream::new(ingest.nats.connect("ingest").await, "$JS.API");
    let metrics = IngestMetrics::new(&Metrics::new("another").unwrap()).unwrap();
    KeyValue::new(js, stream::COMMANDS, metrics)
}

/// Adds a name to the list under a key; the answer is how often it already stood there, because its write was counted as lost.
async fn add(keys: &KeyValue, key: &str, name: &str) -> Result<bool, KeyValueError> {
    keys.update(key, |held| {
        let mut list: Vec<String> =
            held.map_or_else(Vec::new, |bytes| serde_json::from_slice(bytes).unwrap());
        if list.iter().any(|there| there == name) {
            return Decision::Keep(true);
        }
        list.push(name.to_owned());
        Decision::Set {
            value: Bytes::from(serde_json::to_vec(&list).unwrap()),
            ttl: Some(Duration::from_secs(600)),
            outcome: false,
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_race_lose_nothing() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let writers = [writer(&ingest).await, writer(&ingest).await];
    let key = command_key(&Tenant::default(), "race", "n", "k");
    let mut running = Vec::new();
    for (w, keys) in writers.iter().enumerate() {
        for task in 0..4 {
            let (keys, key) = (keys.clone(), key.clone());
            running.push(tokio::spawn(async move {
                for n in 0..15 {
                    while add(&keys, &key, &format!("{w}-{task}-{n}")).await.is_err() {}
                }
            }));
        }
    }
    for one in running {
        one.await.unwrap();
    }
    let list: Vec<String> = serde_json::from_slice(&writers[0].read(&key).await.unwrap().unwrap()).unwrap();
    assert_eq!(list.len(), 120, "each name once");
    assert_eq!(list.iter().collect::<HashSet<_>>().len(), 120);
}

/// Names are added while the server is killed and frozen. What was answered "written" stands there, everything once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dying_server_makes_no_liar_of_the_writer() {
    let Some(mut ingest) = Ingest::start().await else {
        return;
    };
    let (stop, mut running) = (Arc::new(AtomicBool::new(false)), Vec::new());
    for w in 0..2 {
        let (keys, stop) = (writer(&ingest).await, Arc::clone(&stop));
        let key = command_key(&Tenant::default(), "dying", "n", "k");
        running.push(tokio::spawn(async move {
            let (mut written, mut unsure) = (Vec::new(), 0);
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let name = format!("{w}-{n}");
                loop {
                    match add(&keys, &key, &name).await {
                        Ok(_) => break written.push(name),
                        Err(KeyValueError::Unavailable(_)) => {}
                        Err(KeyValueError::Unknown) => unsure += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (written, unsure)
        }));
    }
    for round in 0..4 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        if round % 2 == 0 {
            ingest.nats.kill();
            tokio::time::sleep(Duration::from_millis(300)).await;
            ingest.nats.launch().await;
        } else {
            // Longer than an acknowledgement is waited for: those attempts are in doubt, and are all resolved.
            ingest.nats.signal("STOP");
            tokio::time::sleep(Duration::from_millis(1_400)).await;
            ingest.nats.signal("CONT");
        }
    }
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    stop.store(true, Ordering::Relaxed);
    let mut all = HashSet::new();
    for one in running {
        let (written, unsure) = one.await.unwrap();
        println!("{} written, {unsure} times unknown", written.len());
        all.extend(written);
    }
    let keys = writer(&ingest).await;
    let key = command_key(&Tenant::default(), "dying", "n", "k");
    let list: Vec<String> = serde_json::from_slice(&keys.read(&key).await.unwrap().unwrap()).unwrap();
    assert!(list.len() > 50, "{}", list.len());
    assert_eq!(
        list.iter().cloned().collect::<HashSet<_>>().len(),
        list.len(),
        "everything once"
    );
    assert_eq!(list.into_iter().collect::<HashSet<_>>(), all);
}

#[tokio::test]
async fn a_key_ends_by_its_own_time_and_by_being_deleted() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let keys = writer(&ingest).await;
    let key = command_key(&Tenant::default(), "ttl", "n", "k");
    let set = |value: &'static str, ttl| {
        move |held: Option<&Bytes>| match held {
            Some(_) => Decision::Keep(false),
            None => Decision::Set {
                value: Bytes::from_static(value.as_bytes()),
                ttl: Some(ttl),
                outcome: true,
            },
        }
    };
    let second = Duration::from_secs(1);
    assert!(keys.update(&key, set("1", second)).await.unwrap());
    assert!(!keys.update(&key, set("2", second)).await.unwrap(), "it is there");
    roomcast_harness::eventually("the value has ended", Duration::from_secs(10), || async {
        keys.read(&key).await.unwrap().is_none()
    })
    .await;
    assert!(keys.update(&key, set("3", second * 600)).await.unwrap());
    let delete = |held: Option<&Bytes>| match held {
        Some(_) => Decision::Delete(true),
        None => Decision::Keep(false),
    };
    assert!(keys.update(&key, delete).await.unwrap());
    assert!(
        !keys.update(&key, delete).await.unwrap(),
        "only one of two deletes it"
    );
    assert_eq!(keys.read(&key).await.unwrap(), None);
    assert!(
        keys.update(&key, set("4", second)).await.unwrap(),
        "and it may be made again"
    );
}

/// Two ingests, one key: whatever the order, one of them says "new", all others the same id again, and one result is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_ingests_agree_on_one_id_and_one_result() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let _second = ingest.another().await;
    let gateway = ingest.nats.connect("gw").await;
    for round in 0..10 {
        let key = format!("k{round}");
        let asked = (0..8).map(|_| {
            let (gateway, key) = (&gateway, &key);
            async move { ask(gateway, "claim", &claim(key, 'a')).await }
        });
        let answers = futures_util::future::join_all(asked).await;
        let new: Vec<&str> = answers
            .iter()
            .filter_map(|answer| answer["new"].as_str())
            .collect();
        let again: HashSet<&str> = answers
            .iter()
            .filter_map(|answer| answer["again"].as_str())
            .collect();
        assert_eq!((new.len(), again.len()), (1, 1), "{answers:?}");
        assert_eq!(Some(&new[0]), again.iter().next());
        let finish = |n: u32| json!({ "claim": claim(&key, 'a'), "id": new[0], "outcome": { "data": n } });
        let finished = (0..4).map(|n| {
            let (gateway, body) = (&gateway, finish(n));
            async move { ask(gateway, "finish", &body).await.to_string() }
        });
        let results: HashSet<String> = futures_util::future::join_all(finished)
            .await
            .into_iter()
            .collect();
        assert_eq!(results.len(), 1, "{results:?}");
    }
}
