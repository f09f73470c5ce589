//! State as former versions wrote it is read, and goes on as if it were our own.
//!
//! `upgrade/format-3.json` was written by the last version before rules, from the history below: head and chunks in hexadecimal.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::definition::Definitions;
use crate::engine::render::Outgoing;
use crate::engine::row::Event;
use crate::engine::shard::{Head, Shard};

const NOON: i64 = 1_780_315_200_000_000; // 2026-06-01T12:00:00Z
const MINUTE: i64 = 60_000_000;
/// Events of the history; a few more come after the upgrade.
const EVENTS: i64 = 120;

#[derive(Serialize, Deserialize)]
struct Stored {
    head: String,
    chunks: HashMap<String, String>,
}

fn definitions() -> Definitions {
    let windows = [
        ("hour", "{ tumbling: hour }"),
        ("slide", "{ sliding: 2h, step: 10m }"),
        ("visit", "{ session: 5m }"),
        ("all", "{ total: true }"),
    ];
    let values = [
        ("sum", "sum(data.x)"),
        ("min", "min(data.x)"),
        ("last", "last(data.x)"),
        ("kinds", "distinct(data.x)"),
        ("p90", "p90(data.x)"),
        ("top", "top(2, data.x)"),
    ];
    let mut text = "version: 1\ntimezone: Europe/Istanbul\nmetrics:\n".to_owned();
    for (window, spec) in windows {
        for (value, aggregate) in values {
            text += &format!(
                "  - {{ name: {value}_{window}, from: {{ room: '*' }}, value: '{aggregate}', group_by: [data.g], window: {spec}, publish: {{ room: board, audience: all }} }}\n"
            );
        }
    }
    text += "  - { name: open, from: { room: '*' }, value: 'gauge(data.x, data.g == 1)', window: { total: true }, publish: { room: board, audience: all } }\n";
    text += "  - { name: part, from: { room: '*' }, value: sum(data.x), compare: previous_elapsed, window: { to_date: hour }, publish: { room: board, audience: all } }\n";
    Definitions::parse(&text, "m", None).unwrap_or_else(|wrong| panic!("{wrong:?}"))
}

fn fold(shard: &mut Shard, index: i64) {
    let stored = NOON + index * MINUTE;
    let data = format!("{{\"x\":{},\"g\":{}}}", index * 7 % 11 - 3, index * 5 % 3);
    let data: Box<RawValue> = serde_json::from_str(&data).unwrap();
    let event = Event {
        seq: u64::try_from(index).unwrap() + 1,
        stored_micros: stored,
        time_micros: stored - index * 3 % 8 * MINUTE,
        room: ["a", "b"][usize::try_from(index % 2).unwrap()],
        audience: "all",
        kind: "t",
        source: "s",
        id: "i",
        subject: None,
        priority: "medium",
        data: Some(&data),
    };
    shard.advance(stored);
    shard.fold(&event, &mut |_| {});
}

fn shown(shard: &mut Shard) -> Vec<Outgoing> {
    for index in EVENTS..EVENTS + 5 {
        fold(shard, index);
    }
    shard.go_live();
    shard.advance(NOON + (EVENTS + 10) * MINUTE);
    shard.render()
}

#[test]
fn state_of_the_version_before_goes_on() {
    let stored: Stored = serde_json::from_str(include_str!("upgrade/format-3.json")).unwrap();
    let bytes = |hex: &str| -> Vec<u8> {
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    };
    let chunks = stored.chunks.iter().map(|(name, hex)| (name.clone(), bytes(hex)));
    let chunks: HashMap<String, Vec<u8>> = chunks.collect();
    let head = Head::read(&bytes(&stored.head)).unwrap();
    assert_eq!(bytes(&stored.head)[0], 3);
    let definitions = definitions();
    assert_eq!(head.chunk_names(&definitions.metrics).len(), chunks.len());
    let now = NOON + EVENTS * MINUTE;
    let mut upgraded = Shard::load(definitions.metrics.clone(), Some((head, &chunks)), now).unwrap();
    assert_eq!(upgraded.position(), u64::try_from(EVENTS).unwrap());
    assert_eq!(upgraded.filling().count(), 0, "nothing is counted anew");
    let mut own = Shard::load(definitions.metrics, None, NOON).unwrap();
    for index in 0..EVENTS {
        fold(&mut own, index);
    }
    // What closed before the upgrade was published by the former version; here it waits in the outbox of both.
    assert_eq!(shown(&mut upgraded), shown(&mut own));
}
