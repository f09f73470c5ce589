//! Several instances on one shard, each believing that it is alone: killed, slow, asleep between reading and writing. Whoever loses the
//! comparison of a write begins again from what is stored; in the end every value is what one that was never disturbed has published.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use roomcast_proto::ids::Tenant;
use roomcast_proto::metric::{STATUS, Update};
use serde_json::value::RawValue;

use crate::definition::Definitions;
use crate::engine::render::Outgoing;
use crate::engine::row::Event;
use crate::engine::shard::{Head, Known, Shard};
use crate::engine::testing::event_of;

const NOON: i64 = 1_780_315_200_000_000; // 2026-06-01T12:00:00Z
const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const REPLICAS: usize = 3;

/// Room, group, amount, minutes before it was stored.
type Made = (usize, usize, i64, i64);

fn definitions() -> Definitions {
    let metrics = [
        "name: sum, value: sum(data.x), group_by: [data.g], window: { total: true }",
        "name: mean, value: avg(data.x), compare: previous, window: { tumbling: minute }",
        "name: most, value: max(data.x), group_by: [data.g], groups_max: 2, compare: previous, window: { sliding: 10m, step: 1m }",
        "name: kinds, value: distinct(data.x), compare: previous, window: { tumbling: hour }",
        "name: visits, value: count(), group_by: [data.g], compare: previous, lateness: 1h, window: { session: 2m }",
        "name: open, value: 'gauge(data.x, data.g == 1)', window: { total: true }",
        "name: last, value: last(data.x), window: { to_date: hour }",
        "name: count, value: count(), group_by: [data.g], window: { total: true }",
    ];
    let metrics = metrics.map(|spec| {
        format!("  - {{ from: {{ room: '*' }}, publish: {{ room: board, audience: all, at_most_every: 50ms }}, {spec} }}\n")
    });
    let text = format!(
        "version: 1\ntimezone: UTC\nmetrics:\n{}  - {{ name: per, ratio: {{ of: sum, to: count }}, publish: {{ room: board, audience: all }} }}\n",
        metrics.concat()
    );
    Definitions::parse(&text, "m", None).unwrap_or_else(|wrong| panic!("{wrong:?}"))
}

fn stored(index: usize) -> i64 {
    NOON + i64::try_from(index).unwrap() * 20 * SECOND
}

fn fold(shard: &mut Shard, events: &[Made], index: usize) {
    let (room, group, amount, ago) = events[index];
    let data: Box<RawValue> = serde_json::from_str(&format!("{{\"x\":{amount},\"g\":{group}}}")).unwrap();
    let event = Event {
        seq: index as u64 + 1,
        stored_micros: stored(index),
        time_micros: stored(index) - ago * MINUTE,
        room: ["a", "b"][room],
        ..event_of(&data)
    };
    shard.fold(&event, &mut |_| {});
    // A server that sends it twice.
    shard.fold(&event, &mut |_| panic!("an event is folded once"));
}

/// What happens next, mostly to one of the replicas.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// So many more events are stored.
    Stored(usize),
    /// It reads some of what there is, having begun where nobody had.
    Reads(usize, usize),
    /// It writes and publishes.
    Writes(usize),
    /// It writes and is killed before it has published.
    WritesAndDies(usize),
    /// It is killed.
    Dies(usize),
}

/// What is stored.
#[derive(Default)]
struct Stored {
    head: Vec<u8>,
    chunks: HashMap<String, Vec<u8>>,
}

/// One instance.
struct Replica {
    shard: Shard,
    /// The write that it began with.
    version: u64,
    /// Where the stream ended then.
    target: u64,
    live: bool,
}

#[derive(Default)]
struct World {
    stored: usize,
    version: u64,
    state: Option<Stored>,
    replicas: [Option<Replica>; REPLICAS],
    /// What clients see.
    shown: BTreeMap<String, Outgoing>,
    conflicts: u32,
}

impl World {
    fn now(&self) -> i64 {
        stored(self.stored)
    }

    /// The replica, begun from what is stored if it is not there.
    fn replica(&mut self, number: usize, definitions: &Definitions) -> &mut Replica {
        if self.replicas[number].is_none() {
            let state = self.state.as_ref();
            let state = state.map(|stored| (Head::read(&stored.head).unwrap(), &stored.chunks));
            let mut shard = Shard::load(definitions.metrics.clone(), state, self.now()).unwrap();
            shard.raise_floors(&known(&self.shown));
            self.replicas[number] = Some(Replica {
                shard,
                version: self.version,
                target: self.stored as u64,
                live: false,
            });
        }
        self.replicas[number].as_mut().unwrap()
    }

    fn reads(&mut self, number: usize, count: usize, events: &[Made], definitions: &Definitions) {
        let (now, stored) = (self.now(), self.stored);
        let replica = self.replica(number, definitions);
        let from = usize::try_from(replica.shard.position()).unwrap();
        for index in from..stored.min(from + count) {
            fold(&mut replica.shard, events, index);
        }
        replica.shard.advance(now);
        if !replica.live && replica.shard.position() >= replica.target {
            replica.live = true;
            replica.shard.go_live();
        }
    }

    /// As the worker does: what is to be said is made before the write and published after it.
    fn writes(&mut self, number: usize, publishes: bool) {
        let now = self.now();
        let Some(replica) = &mut self.replicas[number] else {
            return;
        };
        replica.shard.advance(now);
        let values = if replica.live {
            replica.shard.render()
        } else {
            Vec::new()
        };
        let flush = replica.shard.flush();
        if replica.version != self.version {
            self.conflicts += 1;
            self.replicas[number] = None;
            return;
        }
        self.version += 1;
        replica.version = self.version;
        let stored = self.state.get_or_insert_default();
        stored.head = flush.head;
        stored.chunks.extend(flush.chunks);
        if !publishes {
            self.replicas[number] = None;
            return;
        }
        replica.shard.settled();
        self.publish(values);
    }

    fn publish(&mut self, values: Vec<Outgoing>) {
        for value in values {
            if let Some(before) = self.shown.get(&value.key) {
                assert!(
                    before.revision <= value.revision,
                    "{}: the revision went back",
                    value.key
                );
                assert!(before.as_of <= value.as_of, "{}: as_of went back", value.key);
            }
            if value.body.is_some() {
                self.shown.insert(value.key.clone(), value);
            } else {
                self.shown.remove(&value.key);
            }
        }
    }
}

fn known(shown: &BTreeMap<String, Outgoing>) -> Vec<Known> {
    let known = shown.values().map(|value| Known {
        room: value.room.clone(),
        audience: value.audience.clone(),
        key: value.key.clone(),
        revision: value.revision,
    });
    known.collect()
}

/// What clients see, without what is over and the instants at which it was said.
fn seen(shown: &BTreeMap<String, Outgoing>, now: i64) -> BTreeMap<&str, Update> {
    let there =
        |value: &&Outgoing| value.kind != STATUS && value.expires_micros.is_none_or(|until| until > now);
    let update = |value: &Outgoing| {
        let mut update: Update = serde_json::from_str(value.body.as_ref().unwrap()).unwrap();
        update.as_of.clear();
        // A window to date ends when it was published; time alone is no reason to publish it again.
        if update.metric == "last" {
            update.window.end = None;
        }
        update
    };
    let shown = shown.values().filter(there);
    shown.map(|value| (value.key.as_str(), update(value))).collect()
}

fn turn() -> impl Strategy<Value = Turn> {
    let replica = || 0..REPLICAS;
    prop_oneof![
        4 => (1..4_usize).prop_map(Turn::Stored),
        6 => (replica(), 1..6_usize).prop_map(|(number, count)| Turn::Reads(number, count)),
        6 => replica().prop_map(Turn::Writes),
        1 => replica().prop_map(Turn::WritesAndDies),
        1 => replica().prop_map(Turn::Dies),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn replicas_that_know_nothing_of_each_other_lose_and_double_nothing(
        events in prop::collection::vec((0..2_usize, 0..3_usize, -5..5_i64, 0..12_i64), 5..90),
        turns in prop::collection::vec(turn(), 0..200),
    ) {
        let definitions = definitions();
        let mut world = World::default();
        // Both begin with the stream: of what closed before its first look nobody says anything.
        world.reads(0, 0, &events, &definitions);
        world.writes(0, true);
        for turn in turns {
            match turn {
                Turn::Stored(count) => world.stored = events.len().min(world.stored + count),
                Turn::Reads(number, count) => world.reads(number, count, &events, &definitions),
                Turn::Writes(number) => world.writes(number, true),
                Turn::WritesAndDies(number) => world.writes(number, false),
                Turn::Dies(number) => world.replicas[number] = None,
            }
        }
        // One of them stays.
        world.stored = events.len();
        world.replicas = Default::default();
        world.reads(0, events.len(), &events, &definitions);
        world.writes(0, true);
        let shown = known(&world.shown);
        let shard = &mut world.replicas[0].as_mut().unwrap().shard;
        let orphans: Vec<Outgoing> = (0..16)
            .flat_map(|number| shard.orphans(number, &Tenant::default(), &shown))
            .collect();
        for orphan in orphans {
            world.shown.remove(&orphan.key);
        }
        // And one that was never disturbed.
        let mut whole = World::default();
        whole.reads(0, 0, &events, &definitions);
        for index in 0..events.len() {
            whole.stored = index + 1;
            whole.reads(0, 1, &events, &definitions);
            whole.writes(0, true);
        }
        prop_assert_eq!(whole.conflicts, 0);
        let now = world.now();
        prop_assert_eq!(seen(&world.shown, now), seen(&whole.shown, now));
    }
}
