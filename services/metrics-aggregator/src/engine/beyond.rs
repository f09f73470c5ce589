//! Different values beyond those that are kept one by one: nobody is left out, and the number is within its stated error.

use std::collections::HashMap;

use roomcast_proto::metric::Update;
use serde_json::value::RawValue;

use crate::definition::Definitions;
use crate::engine::metric::{DISTINCT_MAX, Outcome};
use crate::engine::row::Event;
use crate::engine::shard::{Head, Shard};
use crate::engine::sketch::REGISTERS;
use crate::engine::testing::event_of;

const NOON: i64 = 1_780_315_200_000_000; // 2026-06-01T12:00:00Z
const MINUTE: i64 = 60_000_000;
const VALUES: u64 = 12_000;

fn definitions(rest: &str) -> Definitions {
    let text = format!(
        "version: 1\ntimezone: UTC\nmetrics:\n  - {{ name: m, from: {{ room: r }}, lateness: 2h, publish: {{ room: board, audience: all }}, {rest} }}\n"
    );
    Definitions::parse(&text, "m", None).unwrap_or_else(|wrong| panic!("{wrong:?}"))
}

struct Told {
    shard: Shard,
    seq: u64,
}

impl Told {
    fn new(rest: &str) -> Self {
        let mut shard = Shard::load(definitions(rest).metrics, None, NOON).unwrap();
        shard.go_live();
        Self { shard, seq: 0 }
    }

    /// Folds values `from..to` at an instant.
    fn values(&mut self, at: i64, from: u64, to: u64) {
        self.shard.advance(at);
        for value in from..to {
            self.seq += 1;
            let data: Box<RawValue> = serde_json::from_str(&format!("{{\"x\":{value}}}")).unwrap();
            let event = Event {
                seq: self.seq,
                stored_micros: at,
                time_micros: at,
                ..event_of(&data)
            };
            self.shard
                .fold(&event, &mut |told| assert_eq!(told, Outcome::Folded));
        }
    }

    fn update(&mut self, now: i64) -> Update {
        self.shard.advance(now);
        let metric = self.shard.metric("m").unwrap();
        let place = metric.current_place("[]").unwrap();
        metric.update("[]", place)
    }
}

fn near(told: Option<&str>, count: u64) {
    let told: u64 = told.unwrap().parse().unwrap();
    assert!(
        told.abs_diff(count) * 1_000 <= count * 25,
        "{count} are told as {told}"
    );
}

/// All windows: more values than are kept one by one, each twice, before and after a restart; and the window before.
#[test]
fn more_values_than_are_kept_are_within_the_stated_error() {
    for rest in [
        "value: distinct(data.x), window: { total: true }",
        "value: distinct(data.x), window: { tumbling: day }",
        "value: distinct(data.x), window: { session: 2h }",
        "value: distinct(data.x), window: { sliding: 1h, step: 1m }",
        "value: distinct(data.x), window: { sliding: 25h, step: 1m }",
        "value: 'active(data.x, 1h)'",
    ] {
        let mut told = Told::new(rest);
        told.values(NOON, 0, DISTINCT_MAX.into());
        let exact = told.update(NOON);
        assert_eq!(exact.value, Some(DISTINCT_MAX.to_string()), "{rest}");
        assert!(!exact.approximate, "{rest}");
        // From two blocks of the hour's windows, half of them in both.
        told.values(NOON + 10 * MINUTE, 0, VALUES);
        told.values(NOON + 20 * MINUTE, VALUES / 2, VALUES * 3 / 2);
        let now = NOON + 30 * MINUTE;
        let update = told.update(now);
        near(update.value.as_deref(), VALUES * 3 / 2);
        assert!(update.approximate, "{rest}");
        assert_eq!(update.events, u64::from(DISTINCT_MAX) + 2 * VALUES, "{rest}");
        let (mut chunks, mut head) = (HashMap::new(), Vec::new());
        // What is split is written by turns.
        for _ in 0..8 {
            let flush = told.shard.flush();
            assert!(
                flush.chunks.iter().all(|(_, bytes)| bytes.len() < 64 * 1024),
                "{rest}"
            );
            chunks.extend(flush.chunks);
            head = flush.head;
        }
        let stored: usize = chunks.values().map(Vec::len).sum();
        assert!(stored < 64 * 1024, "{rest}: {stored} bytes of 36,000 events");
        let head = Head::read(&head).unwrap();
        let again = Shard::load(definitions(rest).metrics, Some((head, &chunks)), now).unwrap();
        told.shard = again;
        assert_eq!(told.update(now), update, "{rest}");
    }
}

/// What slides on: a window without more values than are kept is exact again, and the one before it still is not.
#[test]
fn a_window_that_slides_on_is_exact_again() {
    let mut told = Told::new("value: distinct(data.x), compare: previous, window: { sliding: 1h, step: 1m }");
    told.values(NOON, 0, VALUES);
    told.values(NOON + 65 * MINUTE, 0, 3);
    let update = told.update(NOON + 65 * MINUTE);
    assert_eq!(update.value.as_deref(), Some("3"));
    assert!(!update.approximate);
    near(update.previous.as_deref(), VALUES);
    let update = told.update(NOON + 200 * MINUTE);
    assert_eq!((update.value.as_deref(), update.previous), (Some("0"), None));
}

/// Two sessions that become one: what both had is counted once, whichever of them had more than is kept.
#[test]
fn joined_sessions_count_what_both_had_once() {
    let few = u64::from(DISTINCT_MAX) - 1;
    for (first, second) in [(VALUES, few), (few, VALUES), (VALUES, VALUES)] {
        let mut told = Told::new("value: distinct(data.x), window: { session: 20m }");
        told.values(NOON, 0, first);
        told.values(NOON + 30 * MINUTE, 0, second);
        let now = NOON + 31 * MINUTE;
        assert_eq!(told.update(now).events, second, "two sessions");
        // A late one between both.
        told.seq += 1;
        let data: Box<RawValue> = serde_json::from_str("{\"x\":0}").unwrap();
        let event = Event {
            seq: told.seq,
            stored_micros: now,
            time_micros: NOON + 15 * MINUTE,
            ..event_of(&data)
        };
        told.shard.fold(&event, &mut |_| {});
        let update = told.update(now);
        assert_eq!(update.events, first + second + 1);
        near(update.value.as_deref(), first.max(second));
        told.values(now, 0, VALUES);
        near(told.update(now).value.as_deref(), VALUES);
    }
}

/// A group's sketches take 16 KiB a slot and no more, however many values come.
#[test]
fn a_sketch_takes_as_much_as_it_says() {
    let mut told = Told::new("value: distinct(data.x), window: { total: true }");
    told.values(NOON, 0, 60_000);
    let metric = told.shard.metric("m").unwrap();
    let sketches = metric
        .chunks
        .list()
        .iter()
        .flat_map(|chunk| chunk.sketches.values());
    let held: Vec<usize> = sketches.map(super::sketch::Sketch::bytes).collect();
    assert_eq!(held, [REGISTERS]);
    let kept: usize = metric.chunks.list().iter().map(|chunk| chunk.values.len()).sum();
    assert_eq!(kept, DISTINCT_MAX as usize);
}
