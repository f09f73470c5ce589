//! New and changed metrics beside others that go on: filled in turns with what is new, over restarts, they are what they would be if
//! everything had been read again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;
use roomcast_proto::metric::Update;
use serde_json::value::RawValue;

use crate::definition::{Definition, Definitions};
use crate::engine::row::Event;
use crate::engine::shard::{Head, Shard};
use crate::engine::testing::event_of;

const NOON: i64 = 1_780_315_200_000_000; // 2026-06-01T12:00:00Z
const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;

/// Room, category, amount, minutes before it was stored.
type Made = (usize, usize, i64, i64);

/// The last is of interest only to what was there before.
const ROOMS: [&str; 3] = ["a", "b", "c"];

fn definitions(metrics: &[&str]) -> Definitions {
    let text: String = metrics
        .iter()
        .map(|spec| format!("  - {{ {spec}, publish: {{ room: board, audience: all }} }}\n"))
        .collect();
    let text = format!("version: 1\ntimezone: Europe/Istanbul\nmetrics:\n{text}");
    Definitions::parse(&text, "m", None).unwrap_or_else(|wrong| panic!("{wrong:?}"))
}

const KEPT: &str =
    "name: kept, from: { room: a }, value: sum(data.x), group_by: [data.g], window: { total: true }";
const BEFORE: &str = "name: changed, from: { room: '*' }, value: count(), window: { tumbling: hour }";
const CHANGED: &str = "name: changed, from: { room: a }, value: distinct(data.x), compare: previous, window: { sliding: 1h, step: 1m }";
const NEW: &str = "name: new, from: { room: b }, value: max(data.x), group_by: [data.g], groups_max: 2, compare: previous, window: { tumbling: hour }";

fn with_event<T>(events: &[Made], index: usize, fold: impl FnOnce(&Event<'_>) -> T) -> T {
    let (room, group, amount, ago) = events[index];
    let data: Box<RawValue> = serde_json::from_str(&format!("{{\"x\":{amount},\"g\":{group}}}")).unwrap();
    let stored = stored(index);
    fold(&Event {
        seq: index as u64 + 1,
        stored_micros: stored,
        time_micros: stored - ago * MINUTE,
        room: ROOMS[room],
        ..event_of(&data)
    })
}

fn stored(index: usize) -> i64 {
    NOON + i64::try_from(index).unwrap() * 20 * SECOND
}

/// What is shown of every metric at an instant.
fn shown(shard: &mut Shard, now: i64) -> BTreeMap<String, Update> {
    shard.go_live();
    shard.advance(now);
    let mut shown = BTreeMap::new();
    for out in shard.render() {
        if let (Some(body), true) = (out.body, !out.key.starts_with("status/")) {
            shown.insert(out.key, serde_json::from_str(&body).unwrap());
        }
    }
    shown
}

/// A turn: what is read next.
#[derive(Debug, Clone, Copy)]
enum Turn {
    New,
    Fill,
    Restart,
}

/// The two readers as the worker drives them.
struct World<'e> {
    events: &'e [Made],
    shard: Shard,
    chunks: HashMap<String, Vec<u8>>,
    wide: bool,
}

impl World<'_> {
    fn restart(&mut self, definitions: &Definitions) {
        let flush = self.shard.flush();
        self.chunks.extend(flush.chunks);
        let head = Head::read(&flush.head).unwrap();
        let now = self.shard.as_of();
        self.shard = Shard::load(definitions.metrics.clone(), Some((head, &self.chunks)), now).unwrap();
        self.wide = false;
    }

    fn concerns(definitions: &[&Definition], room: &str) -> bool {
        definitions
            .iter()
            .any(|metric| metric.legs.iter().any(|leg| leg.rooms.fits(room)))
    }

    /// Reads the next event for the metrics that go on.
    fn read(&mut self) {
        let settled: Vec<&Definition> = self.shard.settled_definitions().map(AsRef::as_ref).collect();
        let from = usize::try_from(self.shard.position()).unwrap();
        let next =
            (from..self.events.len()).find(|index| Self::concerns(&settled, ROOMS[self.events[*index].0]));
        if let Some(index) = next {
            self.shard.advance(stored(index));
            with_event(self.events, index, |event| self.shard.fold(event, &mut |_| {}));
        }
    }

    /// Reads the next event for the metrics that are being filled, of those that are stored so far.
    fn fill(&mut self, stored_to: usize) {
        let Some(from) = self.shard.filled_to() else {
            return;
        };
        let wanted: Vec<&Definition> = if self.wide {
            self.shard.definitions().map(AsRef::as_ref).collect()
        } else {
            self.shard.filling().map(AsRef::as_ref).collect()
        };
        let next = (usize::try_from(from).unwrap()..stored_to)
            .find(|index| Self::concerns(&wanted, ROOMS[self.events[*index].0]));
        let Some(index) = next else {
            if self.wide {
                self.shard.believe_filled();
            }
            self.wide = true;
            return;
        };
        let met = with_event(self.events, index, |event| self.shard.fill(event, &mut |_| {}));
        if met {
            self.shard.join();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_filled_beside_others_is_what_a_whole_reading_gives(
        events in prop::collection::vec((0..3_usize, 0..3_usize, -5..5_i64, 0..15_i64), 2..80),
        share in 0..100_usize,
        turns in prop::collection::vec(prop_oneof![
            6 => Just(Turn::New), 8 => Just(Turn::Fill), 1 => Just(Turn::Restart),
        ], 0..200),
    ) {
        let before = definitions(&[KEPT, BEFORE]);
        let after = definitions(&[KEPT, CHANGED, NEW]);
        let known = (events.len() * share / 100).max(1);
        let shard = Shard::load(before.metrics.clone(), None, NOON).unwrap();
        let mut world = World { events: &events, shard, chunks: HashMap::new(), wide: false };
        for index in 0..known {
            world.shard.advance(stored(index));
            with_event(&events, index, |event| world.shard.fold(event, &mut |_| {}));
        }
        world.restart(&after);
        let names: BTreeSet<&str> = world.shard.filling().map(|metric| metric.name.as_str()).collect();
        prop_assert_eq!(names, BTreeSet::from(["changed", "new"]), "only they are filled");
        for turn in &turns {
            let position = world.shard.position();
            match turn {
                Turn::New => world.read(),
                Turn::Fill => world.fill(events.len()),
                Turn::Restart => world.restart(&after),
            }
            prop_assert!(world.shard.position() >= position, "the others never go back");
        }
        // To the end; many more turns than there are events.
        for _ in 0..2 * events.len() + 10 {
            world.read();
            world.fill(events.len());
        }
        if events[known - 1..].iter().any(|(room, ..)| *room < 2) {
            prop_assert_eq!(world.shard.filling().count(), 0, "an event of the others proves that nothing is missing");
        }
        let end = stored(events.len());
        let mut whole = Shard::load(after.metrics.clone(), None, NOON).unwrap();
        for index in 0..events.len() {
            whole.advance(stored(index));
            with_event(&events, index, |event| whole.fold(event, &mut |_| {}));
        }
        world.restart(&after);
        if world.shard.filling().count() > 0 {
            world.shard.believe_filled();
        }
        let (mut got, mut expected) = (shown(&mut world.shard, end), shown(&mut whole, end));
        for updates in [&mut got, &mut expected] {
            for update in updates.values_mut() {
                // Those of a former definition are not gone below.
                update.revision = 0;
            }
            // Closed windows are told as they close; a shard that is loaded tells those that were not yet told.
            updates.retain(|key, _| !key.contains('@'));
        }
        prop_assert_eq!(got, expected);
    }
}
