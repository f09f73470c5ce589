//! The rules one by one, as tables: what random histories meet too seldom, or what is easier to read here.

use std::collections::HashMap;

use proptest::prelude::*;
use roomcast_proto::ids::{Audience, Room, Tenant, shard as shard_of};
use roomcast_proto::metric::{Update, metric_of_key};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::definition::Definitions;
use crate::engine::metric::{Outcome, Reason};
use crate::engine::render::Outgoing;
use crate::engine::row::Event;
use crate::engine::shard::{Flush, Head, Known, Shard};
use crate::engine::testing::event_of;

mod shown;
mod state;
mod values;
mod windows;

const NOON: i64 = 1_780_315_200_000_000; // 2026-06-01T12:00:00Z
const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const DAY: i64 = 24 * 60 * MINUTE;

/// A shard with one metric `m`: `spec` is what stands behind its name.
struct Bench {
    definitions: Definitions,
    shard: Shard,
    seq: u64,
    now: i64,
}

impl Bench {
    fn new(spec: &str) -> Self {
        let text = format!(
            "version: 1\ntimezone: UTC\nmetrics:\n  - {{ name: m, from: {{ room: r, type: t }}, publish: {{ room: board, audience: all, at_most_every: 250ms }}, {spec} }}\n"
        );
        let definitions = Definitions::parse(&text, "m", None).unwrap_or_else(|wrong| panic!("{wrong:?}"));
        let mut shard = Shard::load(definitions.metrics.clone(), None, NOON).unwrap();
        shard.go_live();
        Self {
            definitions,
            shard,
            seq: 0,
            now: NOON,
        }
    }

    /// Folds one event of a time relative to now.
    fn event(&mut self, shift: i64, data: &str) -> Outcome {
        self.seq += 1;
        let data: Box<RawValue> = serde_json::from_str(data).unwrap();
        let event = Event {
            seq: self.seq,
            stored_micros: self.now,
            time_micros: self.now + shift,
            ..event_of(&data)
        };
        let mut outcome = Outcome::NotOurs;
        self.shard.fold(&event, &mut |told| outcome = told);
        outcome
    }

    /// Lets time pass and takes what is due, statuses aside.
    fn after(&mut self, time: i64) -> Vec<Outgoing> {
        self.now += time;
        self.shard.advance(self.now);
        let mut out = self.shard.render();
        self.shard.settled();
        out.retain(|value| !value.key.starts_with("status/"));
        out
    }

    fn update(out: &[Outgoing], key: &str) -> Update {
        let found = out.iter().rfind(|value| value.key == key);
        let body = found
            .and_then(|value| value.body.as_ref())
            .unwrap_or_else(|| panic!("no {key} in {out:?}"));
        serde_json::from_str(body).unwrap()
    }
}

fn keys(out: &[Outgoing]) -> Vec<&str> {
    out.iter().map(|value| value.key.as_str()).collect()
}
