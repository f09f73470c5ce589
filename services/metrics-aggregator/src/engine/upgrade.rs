//! State as former versions wrote it is read, and goes on as if it were our own.
//!
//! `upgrade/format-3.json` was written by the last version before rules, `upgrade/format-4.json` by the last one before sketches,
//! `upgrade/format-5.json` by the present one, all from the history below: head and chunks in hexadecimal.

use std::collections::{BTreeMap, HashMap};

use roomcast_proto::metric::{UPDATED, Update, metric_of_key};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::definition::Definitions;
use crate::engine::codec::FORMAT;
use crate::engine::render::Outgoing;
use crate::engine::row::Event;
use crate::engine::shard::{Head, Shard};
use crate::engine::testing::event_of;

const NOON: i64 = 1_780_315_200_000_000; // 2026-06-01T12:00:00Z
const MINUTE: i64 = 60_000_000;
/// Events of the history; a few more come after the upgrade.
const EVENTS: i64 = 120;

#[derive(Serialize, Deserialize)]
struct Stored {
    head: String,
    chunks: BTreeMap<String, String>,
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
        ..event_of(&data)
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
fn state_of_the_versions_before_goes_on() {
    for (format, stored) in [
        (3, include_str!("upgrade/format-3.json")),
        (4, include_str!("upgrade/format-4.json")),
        (FORMAT, include_str!("upgrade/format-5.json")),
    ] {
        goes_on(format, stored);
    }
}

/// What this version writes is what its file says. Who changes that raises [`FORMAT`], goes on reading the former ones, and keeps what
/// the test below has written as the file of the new one: the next version is tried with it.
#[test]
fn what_is_written_is_of_this_format() {
    let mut own = Shard::load(definitions().metrics, None, NOON).unwrap();
    for index in 0..EVENTS {
        fold(&mut own, index);
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let flush = own.flush();
    let stored = Stored {
        head: hex(&flush.head),
        chunks: flush
            .chunks
            .iter()
            .map(|(name, bytes)| (name.clone(), hex(bytes)))
            .collect(),
    };
    let written = serde_json::to_string(&stored).unwrap();
    if written != include_str!("upgrade/format-5.json").trim_end() {
        let file = std::env::temp_dir().join(format!("format-{FORMAT}.json"));
        std::fs::write(&file, written).unwrap();
        panic!(
            "state is written otherwise than format 5 says; what is written now: {}",
            file.display()
        );
    }
}

fn goes_on(format: u8, stored: &str) {
    let stored: Stored = serde_json::from_str(stored).unwrap();
    let bytes = |hex: &str| -> Vec<u8> {
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    };
    let chunks = stored.chunks.iter().map(|(name, hex)| (name.clone(), bytes(hex)));
    let chunks: HashMap<String, Vec<u8>> = chunks.collect();
    let head = Head::read(&bytes(&stored.head)).unwrap();
    assert_eq!(bytes(&stored.head)[0], format);
    let definitions = definitions();
    assert_eq!(head.chunk_names(&definitions.metrics).len(), chunks.len());
    let now = NOON + EVENTS * MINUTE;
    let mut upgraded = Shard::load(definitions.metrics.clone(), Some((head, &chunks)), now).unwrap();
    assert_eq!(upgraded.position(), u64::try_from(EVENTS).unwrap());
    assert_eq!(upgraded.filling().count(), 0, "nothing is counted anew");
    let mut own = Shard::load(definitions.metrics.clone(), None, NOON).unwrap();
    for index in 0..EVENTS {
        fold(&mut own, index);
    }
    // Former versions left out the different values that found no room; what they counted of them is what they have.
    let (kinds, others) = split(shown(&mut upgraded));
    let (own_kinds, own_others) = split(shown(&mut own));
    // What closed before the upgrade was published by the former version; here it waits in the outbox of both.
    assert_eq!(others, own_others, "format {format}");
    assert_eq!(kinds.len(), own_kinds.len(), "format {format}");
    for (kinds, own) in kinds
        .iter()
        .zip(&own_kinds)
        .filter(|(kinds, _)| kinds.kind == UPDATED)
    {
        let read = |out: &Outgoing| serde_json::from_str::<Update>(out.body.as_ref().unwrap()).unwrap();
        let (kinds, own) = (read(kinds), read(own));
        let number = |update: &Update| update.value.as_ref().unwrap().parse::<u64>().unwrap();
        assert_eq!(kinds.approximate, own.approximate, "{kinds:?}");
        assert!(number(&kinds) <= number(&own), "{kinds:?} and {own:?}");
        assert!(
            format < FORMAT || number(&kinds) == number(&own),
            "{kinds:?} and {own:?}"
        );
        assert!(
            kinds.approximate || number(&kinds) == number(&own),
            "{kinds:?} and {own:?}"
        );
    }
    // And it is written as its own from here on.
    let flush = upgraded.flush();
    let mut chunks = chunks;
    chunks.extend(flush.chunks);
    let head = Head::read(&flush.head).unwrap();
    Shard::load(definitions.metrics, Some((head, &chunks)), now).unwrap();
}

/// What is said of different values, and the rest.
fn split(shown: Vec<Outgoing>) -> (Vec<Outgoing>, Vec<Outgoing>) {
    shown
        .into_iter()
        .partition(|out| metric_of_key(&out.key).starts_with("kinds") || out.key.starts_with("status/kinds"))
}
