//! Streams and buckets as data: what they must be, and how what a server has differs from it.
//!
//! Creating them is the work of one place (`roomcast`); every service compares what it finds at start and refuses to run on anything else.

use serde_json::{Value, json};

use crate::ids::Tenant;
use crate::limits::{DEDUP_WINDOW, EVENTS_MAX_AGE};
use crate::subject::stream as names;
use crate::subject::{
    AUDIT_ALL, DEAD_LETTERS_ALL, EVENTS_ALL, LIVE_ALL, READ_STATE_LIVE_ALL, STATE_ALL, STATE_LIVE_ALL,
    queue_stream,
};

/// What an operator decides about storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizing {
    /// Copies of everything: 3, or 1 on one machine.
    pub replicas: u32,
    /// Bytes kept of `EVENTS`, at most 72 h of them.
    pub events_bytes: u64,
    /// Bytes kept of `STATE`, and of each bucket.
    pub state_bytes: u64,
    /// Bytes that may wait in each queue.
    pub queue_bytes: u64,
}

impl Sizing {
    /// One development machine.
    pub const DEVELOPMENT: Sizing = Sizing {
        replicas: 1,
        events_bytes: 1 << 30,
        state_bytes: 256 << 20,
        queue_bytes: 64 << 20,
    };
    /// Three nodes in production.
    pub const PRODUCTION: Sizing = Sizing {
        replicas: 3,
        events_bytes: 4 << 30,
        state_bytes: 512 << 20,
        queue_bytes: 256 << 20,
    };

    /// Bytes that all streams together may take, queues left out; the server's `max_file` must not be smaller than that and
    /// [`Sizing::queue_bytes`] for each queue.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        definitions(self)
            .iter()
            .filter_map(|d| d.config["max_bytes"].as_u64())
            .sum()
    }
}

/// One stream: its name and its configuration as the JetStream API takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The stream's name.
    pub name: &'static str,
    /// The body of `STREAM.CREATE`.
    pub config: Value,
}

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;
/// Above the largest event plus what ingest fills in and its headers.
const MESSAGE_BYTES_MAX: u64 = 98_304;
/// The devices of one user, keys and all.
pub const DEVICES_BYTES_MAX: usize = 98_304;
/// What may wait to be sent, and its position.
pub const SINK_MESSAGES_MAX: u64 = 101_000;
/// A dead letter may be a refused oversize event: its first part, and headers.
const DEAD_LETTER_BYTES_MAX: u64 = 131_072;

/// Every stream and bucket of Roomcast.
#[must_use]
pub fn definitions(sizing: &Sizing) -> Vec<Definition> {
    let dedup = DEDUP_WINDOW.as_secs() * SECOND;
    let base = |name: &'static str, subject: &str, extra: Value| {
        let mut config = json!({
            "name": name,
            "subjects": [subject],
            "retention": "limits",
            "storage": "file",
            "num_replicas": sizing.replicas,
            "duplicate_window": dedup,
            "allow_direct": true,
            "max_msgs": -1,
            "max_consumers": -1,
            "metadata": { "roomcast.schema": "1" },
        });
        if let (Some(config), Value::Object(extra)) = (config.as_object_mut(), extra) {
            config.extend(extra);
        }
        Definition { name, config }
    };
    let bucket = |name: &'static str, subject: &str, extra: Value| {
        let mut definition = base(
            name,
            subject,
            json!({
                "discard": "new", "max_msgs_per_subject": 1, "max_bytes": sizing.state_bytes,
                "allow_rollup_hdrs": true, "deny_delete": true,
            }),
        );
        if let (Some(config), Value::Object(extra)) = (definition.config.as_object_mut(), extra) {
            config.extend(extra);
        }
        definition
    };
    vec![
        base(
            names::EVENTS,
            EVENTS_ALL,
            json!({
                "discard": "old", "max_age": EVENTS_MAX_AGE.as_secs() * SECOND, "max_bytes": sizing.events_bytes,
                "max_msg_size": MESSAGE_BYTES_MAX, "max_msgs_per_subject": -1, "deny_delete": true, "deny_purge": true,
                "allow_atomic": true, "republish": { "src": EVENTS_ALL, "dest": LIVE_ALL },
            }),
        ),
        base(
            names::STATE,
            STATE_ALL,
            json!({
                "discard": "new", "max_age": 0, "max_bytes": sizing.state_bytes, "max_msg_size": MESSAGE_BYTES_MAX,
                "max_msgs_per_subject": 1, "deny_delete": true, "deny_purge": true, "allow_msg_ttl": true, "allow_atomic": true,
                "republish": { "src": STATE_ALL, "dest": STATE_LIVE_ALL },
            }),
        ),
        base(
            names::DLQ,
            DEAD_LETTERS_ALL,
            json!({
                "discard": "old", "max_age": 7 * DAY, "max_bytes": 256_u64 << 20, "max_msg_size": DEAD_LETTER_BYTES_MAX,
                "max_msgs_per_subject": 10_000,
            }),
        ),
        base(
            names::AUDIT,
            AUDIT_ALL,
            json!({
                "discard": "old", "max_age": 400 * DAY, "max_bytes": 256_u64 << 20, "max_msgs_per_subject": -1,
                "deny_delete": true, "deny_purge": true,
            }),
        ),
        bucket(
            names::AGG,
            "$KV.agg.>",
            json!({ "allow_atomic": true, "allow_msg_ttl": true, "max_msg_size": MESSAGE_BYTES_MAX }),
        ),
        bucket(
            names::ACL,
            "$KV.acl.>",
            json!({ "allow_msg_ttl": true, "max_msg_size": 65_536, "republish": { "src": "$KV.acl.>", "dest": "kvl.acl.>" } }),
        ),
        bucket(
            names::CFG,
            "$KV.cfg.>",
            json!({
                "max_msgs_per_subject": 16, "max_msg_size": 262_144, "max_bytes": 64_u64 << 20,
                "republish": { "src": "$KV.cfg.>", "dest": "kvl.cfg.>" },
            }),
        ),
        bucket(
            names::READSTATE,
            "$KV.readstate.>",
            // Gateways hear that something changed and ask for what they need: a record is long, and few gateways have its user.
            json!({
                "allow_msg_ttl": true, "max_msg_size": MESSAGE_BYTES_MAX,
                "republish": { "src": "$KV.readstate.>", "dest": READ_STATE_LIVE_ALL, "headers_only": true },
            }),
        ),
        bucket(
            names::COMMANDS,
            "$KV.commands.>",
            json!({ "allow_msg_ttl": true, "max_msg_size": MESSAGE_BYTES_MAX }),
        ),
        bucket(
            names::TICKETS,
            "$KV.tickets.>",
            json!({ "allow_msg_ttl": true, "max_msg_size": 16_384, "max_bytes": 64_u64 << 20 }),
        ),
        bucket(
            names::CAPTURE,
            "$KV.capture.>",
            json!({ "max_msg_size": 16_384, "max_bytes": 16_u64 << 20 }),
        ),
        bucket(
            names::DEVICES,
            "$KV.devices.>",
            json!({ "allow_msg_ttl": true, "max_msg_size": DEVICES_BYTES_MAX, "max_bytes": 64_u64 << 20 }),
        ),
        bucket(
            names::SINKS,
            "$KV.sinks.>",
            // What was sent is deleted, message by message.
            json!({
                "allow_atomic": true, "deny_delete": false, "max_msg_size": MESSAGE_BYTES_MAX, "max_msgs": SINK_MESSAGES_MAX,
                "max_bytes": 256_u64 << 20,
            }),
        ),
    ]
}

/// A queue's largest message: what the server takes at all, so that what may be sent as a request may be queued.
const QUEUED_BYTES_MAX: u64 = 262_144;
/// The least the server takes: the same id in a queue is no repeat yet, ids are looked at when it is drained.
const QUEUE_DEDUP_NANOS: u64 = SECOND / 10;

/// The stream of a publisher's queue; `None`: the publisher's name is no token.
///
/// Nothing in it gets too old, and when it is full the publisher is told so: what it has accepted is there until it is drained.
#[must_use]
pub fn queue(sizing: &Sizing, tenant: &Tenant, publisher: &str) -> Option<Value> {
    let (name, subjects) = queue_stream(tenant, publisher)?;
    Some(json!({
        "name": name,
        "subjects": [subjects],
        "retention": "workqueue",
        "storage": "file",
        "num_replicas": sizing.replicas,
        "discard": "new",
        "duplicate_window": QUEUE_DEDUP_NANOS,
        "allow_direct": true,
        "max_age": 0,
        "max_msgs": -1,
        "max_bytes": sizing.queue_bytes,
        "max_msg_size": QUEUED_BYTES_MAX,
        "max_consumers": -1,
        "metadata": { "roomcast.schema": "1" },
    }))
}

/// What an operator may size; the contract does not depend on it beyond its being a bound.
const SIZED_BY_OPERATOR: [&str; 2] = ["max_bytes", "max_age"];

/// How a server's stream differs from ours, one line per setting; empty when it is as it must be.
///
/// `got` is the `config` of a `STREAM.INFO` answer. Settings that we do not name are the server's affair.
#[must_use]
pub fn differences(want: &Value, got: &Value) -> Vec<String> {
    let Some(want) = want.as_object() else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    for (name, expected) in want {
        let found = &got[name];
        let same = match name.as_str() {
            sized if SIZED_BY_OPERATOR.contains(&sized) && expected.as_u64() != Some(0) => {
                found.as_i64().is_some_and(|bound| bound > 0)
            }
            "metadata" => expected["roomcast.schema"] == found["roomcast.schema"],
            _ => found == expected || (found.is_null() && is_zero(expected)),
        };
        if !same {
            lines.push(format!("{name} is {found}, must be {expected}"));
        }
    }
    lines
}

/// The server leaves settings out of its answers when they have their zero value.
fn is_zero(value: &Value) -> bool {
    matches!(value, Value::Bool(false)) || value.as_u64() == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_of_ours_has_no_differences_and_each_change_is_named() {
        for definition in definitions(&Sizing::PRODUCTION) {
            assert!(differences(&definition.config, &definition.config).is_empty());
        }
        let events = definitions(&Sizing::PRODUCTION).remove(0).config;
        let change = |name: &str, value: Value| {
            let mut other = events.clone();
            other[name] = value;
            differences(&events, &other)
        };
        let rows = [
            ("num_replicas", json!(1), 1),
            ("deny_delete", json!(false), 1),
            ("republish", json!({ "src": "evt.>", "dest": "other.>" }), 1),
            ("republish", Value::Null, 1),
            ("subjects", json!(["evt.>", "x"]), 1),
            ("max_bytes", json!(1 << 20), 0),
            ("max_bytes", json!(-1), 1),
            ("max_age", json!(0), 1),
            ("first_seq", json!(7), 0),
        ];
        for (name, value, differing) in rows {
            assert_eq!(change(name, value.clone()).len(), differing, "{name} = {value}");
        }
        assert_eq!(
            differences(&json!({ "max_age": 0 }), &json!({})),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_queue_keeps_what_it_has_and_says_when_it_is_full() {
        let queue = queue(&Sizing::PRODUCTION, &Tenant::default(), "erp").unwrap();
        assert_eq!(
            (
                queue["name"].as_str(),
                queue["discard"].as_str(),
                queue["max_age"].as_u64()
            ),
            (Some("INQ_main_erp"), Some("new"), Some(0))
        );
        let mut forgets = queue.clone();
        forgets["max_age"] = json!(1);
        assert_eq!(differences(&queue, &forgets).len(), 1);
        assert!(differences(&queue, &queue).is_empty());
        assert_eq!(super::queue(&Sizing::PRODUCTION, &Tenant::default(), "a.b"), None);
    }

    #[test]
    fn no_subject_is_captured_twice() {
        let all = definitions(&Sizing::DEVELOPMENT);
        let subjects: Vec<&str> = all
            .iter()
            .filter_map(|d| d.config["subjects"][0].as_str())
            .collect();
        for (i, a) in subjects.iter().enumerate() {
            let stem = a.trim_end_matches('>');
            assert!(subjects[i + 1..].iter().all(|b| !b.starts_with(stem)), "{a}");
        }
    }
}
