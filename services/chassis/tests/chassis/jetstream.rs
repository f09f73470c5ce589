//! The JetStream API against a real server, inside the account that owns the streams.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use roomcast_chassis::jetstream::{
    ApiError, At, Batch, JetStream, LastMessages, Newest, Outgoing, PublishError, StoredMessage, code,
};
use serde_json::json;

use crate::server::Server;

const TIMEOUT: Duration = Duration::from_secs(1);

/// A server and a stream `T` on `t.>`.
async fn start() -> Option<(Server, JetStream)> {
    let server = Server::start("")?;
    let jetstream = JetStream::new(server.client().await, "$JS.API");
    jetstream.create_stream(&stream("T", "t.>")).await.unwrap();
    Some((server, jetstream))
}

pub fn stream(name: &str, subjects: &str) -> serde_json::Value {
    json!({ "name": name, "subjects": [subjects], "storage": "file", "num_replicas": 1, "retention": "limits",
        "discard": "old", "allow_direct": true, "allow_atomic": true, "duplicate_window": 120_000_000_000_u64 })
}

pub fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    pairs
        .iter()
        .for_each(|(name, value)| headers.append(*name, *value));
    headers
}

pub fn outgoing(subject: &str, pairs: &[(&str, &str)], payload: &str) -> Outgoing {
    Outgoing {
        subject: subject.to_owned(),
        headers: headers(pairs),
        payload: Bytes::from(payload.to_owned()),
    }
}

/// Publishes payloads `0`, `1` … to these subjects; positions are 1, 2 …
async fn fill(jetstream: &JetStream, subjects: impl IntoIterator<Item = String>) {
    for (number, subject) in subjects.into_iter().enumerate() {
        jetstream
            .publish(subject, HeaderMap::new(), number.to_string().into(), TIMEOUT)
            .await
            .unwrap();
    }
}

fn positions(messages: &[StoredMessage]) -> Vec<u64> {
    messages.iter().map(|message| message.sequence).collect()
}

#[tokio::test]
async fn streams_are_described_created_once_and_not_overwritten() {
    let Some((_server, jetstream)) = start().await else {
        return;
    };
    assert!(jetstream.stream_info("NONE").await.unwrap().is_none());
    fill(&jetstream, ["t.a".to_owned(), "t.b".to_owned()]).await;
    let info = jetstream.stream_info("T").await.unwrap().unwrap();
    assert_eq!(info.config["subjects"], json!(["t.>"]));
    assert_eq!(
        (info.state.messages, info.state.first_seq, info.state.last_seq),
        (2, 1, 2)
    );
    assert!(info.created.contains('T'), "{}", info.created);
    let again = jetstream.create_stream(&stream("T", "t.>")).await.unwrap();
    assert_eq!(again.created, info.created);
    let other = jetstream.create_stream(&stream("T", "u.>")).await.unwrap_err();
    assert_eq!(other.err_code(), Some(code::STREAM_NAME_IN_USE), "{other}");
    let unknown = jetstream
        .create_stream(&json!({ "name": "X", "colour": "blue" }))
        .await
        .unwrap_err();
    assert!(!unknown.retryable(), "{unknown}");
    assert!(matches!(
        jetstream.create_stream(&json!({})).await,
        Err(ApiError::Client(_))
    ));
}

#[tokio::test]
async fn a_publish_is_acknowledged_or_says_why_not_and_whether_to_try_again() {
    let Some((_server, jetstream)) = start().await else {
        return;
    };
    let publish = async |subject: &str, pairs: &[(&str, &str)], payload: String| {
        jetstream
            .publish(subject, headers(pairs), payload.into(), TIMEOUT)
            .await
    };
    let first = publish("t.a", &[("Nats-Msg-Id", "x")], "1".into()).await.unwrap();
    assert_eq!(
        (first.seq, first.duplicate, first.stream.as_str()),
        (1, false, "T")
    );
    let again = publish("t.a", &[("Nats-Msg-Id", "x")], "1".into()).await.unwrap();
    assert_eq!((again.seq, again.duplicate), (1, true));
    let compare = publish("t.a", &[("Nats-Expected-Last-Subject-Sequence", "7")], "2".into())
        .await
        .unwrap_err();
    assert_eq!(
        (compare.err_code(), compare.retryable()),
        (Some(code::WRONG_LAST_SEQUENCE), false)
    );
    let nowhere = publish("nowhere", &[], "2".into()).await.unwrap_err();
    assert!(matches!(nowhere, PublishError::NoResponders) && nowhere.retryable());
    let large = publish("t.a", &[], "x".repeat(2 << 20)).await.unwrap_err();
    assert!(
        matches!(large, PublishError::Client(_)) && !large.retryable(),
        "{large}"
    );
}

#[tokio::test]
async fn one_message_is_read_by_position_subject_and_next() {
    let Some((_server, jetstream)) = start().await else {
        return;
    };
    let forged = headers(&[("Rc-Kind", "a"), ("Nats-Sequence", "999")]);
    let before = jiff::Timestamp::now().as_microsecond();
    jetstream
        .publish("t.a", forged, Bytes::from_static(b"\xff\x00raw"), TIMEOUT)
        .await
        .unwrap();
    fill(&jetstream, ["t.b".to_owned(), "t.a".to_owned(), "t.b".to_owned()]).await;
    let cases = [
        (At::Sequence(1), Some(1)),
        (At::Sequence(5), None),
        (At::Last("t.a"), Some(3)),
        (At::Last("t.*"), Some(4)),
        (At::Last("t.c"), None),
        (
            At::Next {
                from: 2,
                subject: "t.a",
            },
            Some(3),
        ),
        (
            At::Next {
                from: 4,
                subject: "t.a",
            },
            None,
        ),
    ];
    for (at, expected) in cases {
        let led = jetstream.message("T", at).await.unwrap();
        let direct = jetstream.direct("T", at).await.unwrap();
        assert_eq!(led.as_ref().map(|message| message.sequence), expected, "{at:?}");
        assert_eq!(
            direct.as_ref().map(|message| message.sequence),
            expected,
            "direct {at:?}"
        );
        for message in [led, direct]
            .into_iter()
            .flatten()
            .filter(|message| message.sequence == 1)
        {
            assert_eq!(message.subject, "t.a");
            assert_eq!(&message.payload[..], b"\xff\x00raw");
            assert_eq!(message.headers.get_last("Rc-Kind").unwrap().as_str(), "a");
            assert!(
                (before - 1_000..before + 10_000_000).contains(&message.time_micros),
                "{message:?}"
            );
        }
    }
    assert_eq!(
        jetstream.direct_last("T", "t.b").await.unwrap().unwrap().sequence,
        4
    );
    assert!(matches!(
        jetstream.direct("T", At::Last("")).await,
        Err(ApiError::Client(_))
    ));
    let none = jetstream.message("NONE", At::Sequence(1)).await.unwrap_err();
    assert_eq!(none.err_code(), Some(code::NO_STREAM));
    assert!(matches!(
        jetstream.direct("NONE", At::Sequence(1)).await,
        Err(ApiError::NoResponders)
    ));
}

#[tokio::test]
async fn batches_come_in_order_with_what_is_left() {
    let Some((_server, jetstream)) = start().await else {
        return;
    };
    fill(&jetstream, (0..25).map(|number| format!("t.{}", number % 5))).await;
    let check = async |from: u64, batch: usize, filter: Option<&str>, expected: Vec<u64>, pending: u64| {
        let found = jetstream.direct_batch("T", from, batch, filter).await.unwrap();
        assert_eq!(
            (positions(&found.messages), found.pending),
            (expected, pending),
            "{from} {batch} {filter:?}"
        );
    };
    check(1, 10, None, (1..=10).collect(), 15).await;
    check(0, 3, None, vec![1, 2, 3], 22).await;
    check(21, 10, None, (21..=25).collect(), 0).await;
    check(26, 10, None, vec![], 0).await;
    check(7, 2, Some("t.1"), vec![7, 12], 2).await;
    check(1, 10, Some("t.nobody"), vec![], 0).await;
    assert!(matches!(
        jetstream.direct_batch("T", 1, 10, Some("")).await,
        Err(ApiError::Client(_))
    ));
    assert!(matches!(
        jetstream.direct_batch("NONE", 1, 10, None).await,
        Err(ApiError::NoResponders)
    ));
    let payload = |batch: Batch| batch.messages[0].payload.clone();
    assert_eq!(
        payload(jetstream.direct_batch("T", 9, 1, None).await.unwrap()),
        "8"
    );
}

#[tokio::test]
async fn portions_end_by_bytes_and_begin_at_an_instant() {
    let Some((_server, jetstream)) = start().await else {
        return;
    };
    fill(&jetstream, (0..20).map(|number| format!("t.{number}"))).await;
    let all = jetstream.direct_portion("T", 3, 100, 1 << 20).await.unwrap();
    assert_eq!((positions(&all.messages), all.pending), ((3..=20).collect(), 0));
    let some = jetstream.direct_portion("T", 1, 100, 20).await.unwrap();
    let count = some.messages.len() as u64;
    assert!((1..20).contains(&count), "{count}");
    assert_eq!(some.pending, 20 - count);
    let tenth = all.messages[7].time_micros;
    let later = jetstream.direct_since("T", tenth, 3).await.unwrap();
    assert!(
        later.messages[0].sequence <= 10,
        "{:?}",
        positions(&later.messages)
    );
    assert!(later.messages[0].time_micros >= tenth);
    assert_eq!(later.messages.len(), 3);
    // Nothing is as young: nothing, and not everything.
    let none = jetstream
        .direct_since("T", tenth + 3_600_000_000, 3)
        .await
        .unwrap();
    assert!(none.messages.is_empty() && none.pending == 0);
}

#[tokio::test]
async fn streams_are_found_by_subject_and_emptied_up_to_a_position() {
    let Some((_server, jetstream)) = start().await else {
        return;
    };
    fill(&jetstream, (0..5).map(|number| format!("t.{number}"))).await;
    assert_eq!(jetstream.stream_names("t.>").await.unwrap(), ["T"]);
    assert_eq!(
        jetstream.stream_names("nobody.>").await.unwrap(),
        Vec::<String>::new()
    );
    assert!(matches!(
        jetstream.stream_names("").await,
        Err(ApiError::Client(_))
    ));
    for (below, first) in [(0, 1), (1, 1), (4, 4), (2, 4), (100, 6)] {
        jetstream.purge_below("T", below).await.unwrap();
        let found = jetstream.direct_batch("T", 1, 10, None).await.unwrap();
        assert_eq!(
            positions(&found.messages),
            (first..6).collect::<Vec<u64>>(),
            "below {below}"
        );
    }
    let none = jetstream.purge_below("NONE", 1).await.unwrap_err();
    assert_eq!(none.err_code(), Some(code::NO_STREAM));
}

#[tokio::test]
async fn the_last_of_many_subjects_is_one_cut_or_too_many() {
    let Some((_server, jetstream)) = start().await else {
        return;
    };
    fill(&jetstream, ["t.a", "t.b", "t.a", "t.c"].map(str::to_owned)).await;
    let check =
        async |subjects: &[&str], up_to: Option<u64>, expected: &[u64], cut: Option<u64>| match jetstream
            .multi_last("T", subjects, up_to)
            .await
            .unwrap()
        {
            LastMessages::Messages { messages, up_to } => {
                assert_eq!(
                    (positions(&messages).as_slice(), up_to),
                    (expected, cut),
                    "{subjects:?}"
                );
            }
            LastMessages::TooMany => panic!("too many for {subjects:?}"),
        };
    check(&["t.a", "t.b"], None, &[2, 3], Some(4)).await;
    check(&["t.>"], None, &[2, 3, 4], Some(4)).await;
    check(&["t.>"], Some(2), &[1, 2], Some(2)).await;
    check(&["t.none"], None, &[], None).await;
    for none in [&[][..], &[""], &["t.a", ""]] {
        assert!(
            matches!(
                jetstream.multi_last("T", none, None).await,
                Err(ApiError::Client(_))
            ),
            "{none:?}"
        );
    }
    // Two batches make 1,025 subjects, one more than the server answers.
    for part in [0..600, 600..1_022] {
        let messages = part
            .map(|number| outgoing(&format!("t.many.{number}"), &[], "x"))
            .collect();
        jetstream.publish_batch(messages).await.unwrap();
    }
    assert_eq!(
        jetstream.multi_last("T", &["t.>"], None).await.unwrap(),
        LastMessages::TooMany
    );
}

#[tokio::test]
async fn the_newest_of_many_subjects_may_have_the_last_message_beside_them() {
    let Some((_server, jetstream)) = start().await else {
        return;
    };
    let newest = async |subjects: &[&str]| match jetstream.newest("T", "t.>", subjects).await.unwrap() {
        Newest::Messages(messages) => positions(&messages),
        other => panic!("{subjects:?}: {other:?}"),
    };
    assert_eq!(newest(&["t.a"]).await, [0; 0], "an empty stream");
    fill(&jetstream, ["t.a", "t.b", "t.a", "t.c"].map(str::to_owned)).await;
    for (subjects, expected) in [
        (&["t.a", "t.b"][..], &[2, 3, 4][..]),
        (&["t.none"], &[4]),
        (&["t.c"], &[4]),
        (&["t.*"], &[2, 3, 4]),
    ] {
        assert_eq!(newest(subjects).await, expected, "{subjects:?}");
    }
    for none in [&[][..], &[""], &["t.a", ""]] {
        let refused = jetstream.newest("T", "t.>", none).await;
        assert!(matches!(refused, Err(ApiError::Client(_))), "{none:?}");
    }
    for part in [0..600, 600..1_022] {
        let messages = part
            .map(|number| outgoing(&format!("t.many.{number}"), &[], "x"))
            .collect();
        jetstream.publish_batch(messages).await.unwrap();
    }
    let many = jetstream.newest("T", "t.>", &["t.>"]).await.unwrap();
    assert_eq!(many, Newest::TooMany);
}

#[tokio::test]
async fn an_atomic_batch_is_stored_as_a_whole_or_not_at_all() {
    let Some((_server, jetstream)) = start().await else {
        return;
    };
    let chunk = |number: usize| outgoing(&format!("t.chunk.{number}"), &[], "x");
    let compare = |expected: &str| {
        outgoing(
            "t.head",
            &[("Nats-Expected-Last-Subject-Sequence", expected)],
            "head",
        )
    };
    let batch = |expected: &str| vec![chunk(1), chunk(2), compare(expected)];
    let stored = async || jetstream.stream_info("T").await.unwrap().unwrap().state.last_seq;
    let ack = jetstream.publish_batch(batch("0")).await.unwrap();
    assert_eq!((ack.seq, ack.batch_count, stored().await), (3, 3, 3));
    let zombie = jetstream.publish_batch(batch("0")).await.unwrap_err();
    assert_eq!(
        (zombie.err_code(), stored().await),
        (Some(code::WRONG_LAST_SEQUENCE), 3),
        "{zombie}"
    );
    assert_eq!(jetstream.publish_batch(batch("3")).await.unwrap().seq, 6);
    assert_eq!(jetstream.publish_batch(vec![compare("6")]).await.unwrap().seq, 7);
    assert_eq!(
        jetstream
            .publish_batch((0..1_000).map(chunk).collect())
            .await
            .unwrap()
            .seq,
        1_007
    );
    for wrong in [0, 1_001] {
        let refused = jetstream
            .publish_batch((0..wrong).map(chunk).collect())
            .await
            .unwrap_err();
        assert!(matches!(refused, PublishError::Client(_)), "{refused}");
    }
    // Ids inside a batch are remembered; the whole batch with one that was stored before is refused.
    let with_id = |id: &str| outgoing("t.id", &[("Nats-Msg-Id", id)], "x");
    jetstream
        .publish_batch(vec![with_id("a"), with_id("b")])
        .await
        .unwrap();
    let before = stored().await;
    let repeated = jetstream
        .publish_batch(vec![with_id("c"), with_id("b")])
        .await
        .unwrap_err();
    assert_eq!(
        (repeated.err_code(), stored().await),
        (Some(code::BATCH_DUPLICATE), before),
        "{repeated}"
    );
    assert!(!repeated.retryable());
    let mut plain = stream("PLAIN", "plain.>");
    plain["allow_atomic"] = false.into();
    jetstream.create_stream(&plain).await.unwrap();
    let refused = jetstream
        .publish_batch(vec![outgoing("plain.a", &[], ""), outgoing("plain.b", &[], "")])
        .await;
    assert!(matches!(refused, Err(PublishError::Refused(_))), "{refused:?}");
    assert_eq!(
        jetstream
            .stream_info("PLAIN")
            .await
            .unwrap()
            .unwrap()
            .state
            .messages,
        0
    );
}
