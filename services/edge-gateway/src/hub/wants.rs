//! What clients wait to have read, each thing asked for once however many want it, and what was read just now.
//!
//! What was read for one is kept for a while, because those who want the same come together, and not at once: who comes while it is
//! read, or just after, finds it here. A part is everything of its room between two positions, so it can be old but never wrong: what
//! came since is in the ring, and where the ring has moved on only the rest is read and put beside it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::answer::Waiter;
use crate::maps::HashMap;
use crate::place::Place;
use crate::ring::Entry;

/// Bytes of events kept after reads, for those who come for the same.
const PARTS_BYTES_MAX: usize = 64 << 20;
/// Bytes of what is put together of several reads of one room; beyond, the oldest events go.
const JOINED_BYTES_MAX: usize = 32 << 20;
/// How long they are kept.
const PART_MILLIS: i64 = 10_000;
/// Times of single messages kept.
const TIMES_MAX: usize = 4_096;

/// Something to be read from NATS.
#[derive(Debug, Clone)]
pub enum Read {
    /// All values of a room.
    State(Place),
    /// Events of a room, for this waiter; [`Wants::take_part`] says which, and nothing when it was read for another one meanwhile.
    Events(Place, Waiter),
    /// When a message of `EVENTS` was stored.
    Time(u64),
}

/// Which events of a room are wanted.
#[derive(Debug, Clone)]
pub struct WantedPart {
    /// The room.
    pub place: Place,
    /// The first position.
    pub from: u64,
    /// The last position.
    pub to: u64,
    /// What suffices.
    pub enough: Enough,
    waiters: Vec<Waiter>,
}

/// When reading backwards may end: with so many events, or with one that was stored before; without either, at the first position.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Enough {
    /// The newest so many.
    pub count: Option<usize>,
    /// Those stored since, Unix microseconds.
    pub since_micros: Option<i64>,
}

impl Enough {
    /// The newest so many.
    #[must_use]
    pub fn count(count: usize) -> Self {
        Self {
            count: Some(count),
            since_micros: None,
        }
    }

    /// Whether these are enough, given the times at which they were stored.
    pub fn is_met(&self, times: impl Iterator<Item = i64>) -> bool {
        let (mut count, mut oldest) = (0, i64::MAX);
        for micros in times {
            count += 1;
            oldest = oldest.min(micros);
        }
        self.count.is_some_and(|enough| count >= enough)
            || self.since_micros.is_some_and(|since| oldest < since)
    }

    /// What is enough for both.
    fn and(self, other: Self) -> Self {
        let is_alike = self.since_micros.is_some() == other.since_micros.is_some();
        let (Some(a), Some(b), true) = (self.count, other.count, is_alike) else {
            return Self::default();
        };
        Self {
            count: Some(a.max(b)),
            since_micros: self.since_micros.zip(other.since_micros).map(|(a, b)| a.min(b)),
        }
    }
}

/// A part of the stream, read for one room.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// The first position read.
    pub from: u64,
    /// The last position read.
    pub to: u64,
    /// The room's events in it and when they were stored, ascending.
    pub events: Vec<Entry>,
    /// Whether there was too much before `from`.
    pub cut: bool,
}

impl Part {
    /// Whether whoever wanted this may find in it what it wants. It has to ask anyway; who is left out keeps its place in the line.
    fn may_do_for(&self, wanted: &WantedPart) -> bool {
        let times = self.events.iter().map(|(_, micros)| *micros);
        self.from <= wanted.from || self.cut || wanted.enough.is_met(times)
    }

    /// Both in one, where nothing is left out between them; else what was read now.
    fn and_before(self, before: Self, bytes_max: usize) -> Self {
        if self.from > before.to.saturating_add(1) || before.from > self.to.saturating_add(1) {
            return self;
        }
        let (low, high) = match self.from <= before.from {
            true => (self, before),
            false => (before, self),
        };
        let (high_from, high_to) = (high.from, high.to);
        let (below, mut above): (Vec<Entry>, Vec<Entry>) = low
            .events
            .into_iter()
            .filter(|(event, _)| !(high_from..=high_to).contains(&event.position.seq))
            .partition(|(event, _)| event.position.seq < high_from);
        let mut events = below;
        events.extend(high.events);
        events.append(&mut above);
        let mut joined = Self {
            from: low.from,
            to: low.to.max(high_to),
            events,
            cut: low.cut,
        };
        joined.bound(bytes_max);
        joined
    }

    /// Lets the oldest events go that are too much.
    fn bound(&mut self, bytes_max: usize) {
        let mut bytes = 0;
        let fits = self.events.iter().rev().take_while(|(event, _)| {
            bytes += event.cost_bytes();
            bytes <= bytes_max
        });
        let too_many = self.events.len() - fits.count();
        if let Some((newest, _)) = self.events.drain(..too_many).next_back() {
            self.from = newest.position.seq + 1;
            self.cut = true;
        }
    }
}

/// See the module. Bounded by the rooms clients wait for, and by bytes for what was read.
#[derive(Debug, Default)]
pub struct Wants {
    state: HashMap<Arc<str>, Vec<Waiter>>,
    wanted: HashMap<Arc<str>, WantedPart>,
    reading: HashMap<Arc<str>, Vec<Waiter>>,
    parts: VecDeque<Kept>,
    parts_bytes: usize,
    times: HashMap<u64, u16>,
    timing: HashMap<u64, Vec<Waiter>>,
    reads: Vec<Read>,
}

#[derive(Debug)]
struct Kept {
    key: Arc<str>,
    read_at_millis: i64,
    bytes: usize,
    part: Part,
}

impl Wants {
    /// What has to be read now; each thing is said once.
    pub fn take_reads(&mut self) -> Vec<Read> {
        std::mem::take(&mut self.reads)
    }

    /// A read that nobody will make.
    pub fn give_up(&mut self, read: &Read) {
        match read {
            Read::State(place) => drop(self.state.remove(&place.key)),
            Read::Events(place, _) => drop(self.wanted.remove(&place.key)),
            Read::Time(seq) => drop(self.timing.remove(seq)),
        }
    }

    /// Wants a room's state; answers whether nobody did before.
    pub fn want_state(&mut self, place: &Place, waiter: Waiter) -> bool {
        let waiters = self.state.entry(Arc::clone(&place.key)).or_default();
        waiters.push(waiter);
        let is_first = waiters.len() == 1;
        if is_first {
            self.reads.push(Read::State(place.clone()));
        }
        is_first
    }

    /// The rooms whose state is wanted or being read.
    pub fn wanted_state(&self) -> impl Iterator<Item = &Arc<str>> {
        self.state.keys()
    }

    /// Wants a room's events in a part of the stream.
    pub fn want_part(&mut self, place: &Place, from: u64, to: u64, enough: Enough, waiter: Waiter) {
        // Each waiter has its own place in the line: whoever comes first brings it about for all.
        self.reads.push(Read::Events(place.clone(), waiter));
        if let Some(wanted) = self.wanted.get_mut(&place.key) {
            wanted.from = wanted.from.min(from);
            wanted.to = wanted.to.max(to);
            wanted.enough = wanted.enough.and(enough);
            wanted.waiters.push(waiter);
            return;
        }
        let waiters = vec![waiter];
        let wanted = WantedPart {
            place: place.clone(),
            from,
            to,
            enough,
            waiters,
        };
        self.wanted.insert(Arc::clone(&place.key), wanted);
    }

    /// Wants to know when a message was stored.
    pub fn want_time(&mut self, seq: u64, waiter: Waiter) {
        let waiters = self.timing.entry(seq).or_default();
        if waiters.is_empty() {
            self.reads.push(Read::Time(seq));
        }
        waiters.push(waiter);
    }

    /// A room's state was read, or not; returns who must ask again.
    pub fn state_done(&mut self, key: &str) -> Vec<Waiter> {
        self.state.remove(key).unwrap_or_default()
    }

    /// The events to be read for a room, all that was asked for up to now at once.
    pub fn take_part(&mut self, key: &str) -> Option<WantedPart> {
        let wanted = self.wanted.remove(key)?;
        self.reading
            .insert(Arc::clone(&wanted.place.key), wanted.waiters.clone());
        Some(wanted)
    }

    /// They were read, or not; returns who must ask again: also who came meanwhile and may find enough in what was read.
    pub fn part_done(&mut self, key: &Arc<str>, part: Option<Part>, now_millis: i64) -> Vec<Waiter> {
        let mut waiters = self.reading.remove(key).unwrap_or_default();
        let Some(part) = part else { return waiters };
        if self.wanted.get(key).is_some_and(|wanted| part.may_do_for(wanted)) {
            waiters.extend(
                self.wanted
                    .remove(key)
                    .into_iter()
                    .flat_map(|wanted| wanted.waiters),
            );
        }
        self.keep(key, part, now_millis);
        waiters
    }

    /// Keeps what was read for those who want it next.
    fn keep(&mut self, key: &Arc<str>, part: Part, now_millis: i64) {
        let before = self.parts.iter().position(|kept| kept.key == *key);
        let part = match before.and_then(|at| self.parts.remove(at)) {
            Some(before) => {
                self.parts_bytes -= before.bytes;
                part.and_before(before.part, JOINED_BYTES_MAX)
            }
            None => part,
        };
        let bytes = part.events.iter().map(|(event, _)| event.cost_bytes()).sum();
        self.parts.push_back(Kept {
            key: Arc::clone(key),
            read_at_millis: now_millis,
            bytes,
            part,
        });
        self.parts_bytes += bytes;
        // The newest stays whatever it weighs: somebody waits for it.
        while self.parts_bytes > PARTS_BYTES_MAX && self.parts.len() > 1 {
            self.parts_bytes -= self.parts.pop_front().map_or(0, |kept| kept.bytes);
        }
    }

    /// A message's time was read: its low bits, or 0 when there is no such message; `None`: nobody answered.
    pub fn time_done(&mut self, seq: u64, time_bits: Option<u16>) -> Vec<Waiter> {
        if let Some(time_bits) = time_bits {
            if self.times.len() >= TIMES_MAX {
                self.times.clear();
            }
            self.times.insert(seq, time_bits);
        }
        self.timing.remove(&seq).unwrap_or_default()
    }

    /// What was read for this room just now.
    #[must_use]
    pub fn part(&self, key: &str) -> Option<&Part> {
        self.parts
            .iter()
            .find(|kept| &*kept.key == key)
            .map(|kept| &kept.part)
    }

    /// Bytes of what was read and is kept.
    #[must_use]
    pub fn parts_bytes(&self) -> usize {
        self.parts_bytes
    }

    /// Low bits of the time of a message, if it was read.
    #[must_use]
    pub fn time_bits(&self, seq: u64) -> Option<u16> {
        self.times.get(&seq).copied()
    }

    /// Forgets what was read long ago.
    pub fn tick(&mut self, now_millis: i64) {
        self.drop_parts(|kept| now_millis - kept.read_at_millis > PART_MILLIS);
    }

    /// The stream is another one: what was read is worth nothing.
    pub fn forget_read(&mut self) {
        self.forget_parts();
        self.times.clear();
    }

    /// Whom events are for was decided under another policy.
    pub fn forget_parts(&mut self) {
        self.drop_parts(|_| true);
    }

    fn drop_parts(&mut self, goes: impl Fn(&Kept) -> bool) {
        self.parts.retain(|kept| !goes(kept));
        self.parts_bytes = self.parts.iter().map(|kept| kept.bytes).sum();
    }
}

#[cfg(test)]
mod tests {
    use roomcast_proto::cursor::Position;
    use roomcast_proto::ids::{Room, Tenant};

    use super::*;
    use crate::delivery::tests::address;
    use crate::delivery::{Delivery, Kind};

    fn place(room: &str) -> Place {
        let (tenant, room) = (Tenant::default(), Room::parse(room).unwrap());
        Place {
            key: format!("{tenant}.{room}").into(),
            tenant,
            room,
        }
    }

    fn waiter(ticket: u64) -> Waiter {
        Waiter { shard: 0, ticket }
    }

    #[test]
    fn what_is_enough_for_two_is_enough_for_each() {
        let enough = |count, since_micros| Enough { count, since_micros };
        let rows = [
            (
                enough(Some(5), None),
                enough(Some(9), None),
                enough(Some(9), None),
            ),
            (enough(Some(5), None), enough(None, None), enough(None, None)),
            (
                enough(Some(5), Some(70)),
                enough(Some(3), Some(50)),
                enough(Some(5), Some(50)),
            ),
            (
                enough(Some(5), Some(70)),
                enough(Some(9), None),
                enough(None, None),
            ),
        ];
        for (a, b, both) in rows {
            assert_eq!((a.and(b), b.and(a)), (both, both));
        }
        let met = |enough: Enough, times: &[i64]| enough.is_met(times.iter().copied());
        assert!(met(enough(Some(2), None), &[9, 8]) && !met(enough(Some(3), None), &[9, 8]));
        assert!(met(enough(Some(9), Some(9)), &[9, 8]) && !met(enough(Some(9), Some(8)), &[9, 8]));
        assert!(!met(Enough::default(), &[1; 100]));
    }

    #[test]
    fn a_thing_is_read_once_for_all_who_want_it() {
        let (mut wants, room) = (Wants::default(), place("a"));
        assert!(wants.want_state(&room, waiter(1)) && !wants.want_state(&room, waiter(2)));
        wants.want_part(&room, 100, 200, Enough::count(50), waiter(3));
        wants.want_part(&room, 50, 150, Enough::default(), waiter(4));
        wants.want_time(7, waiter(5));
        wants.want_time(7, waiter(6));
        assert_eq!(
            wants.take_reads().len(),
            4,
            "state, time, and a place in the line for each of two"
        );
        assert!(wants.take_reads().is_empty());
        let wanted = wants.take_part(&room.key).unwrap();
        assert_eq!(
            (wanted.from, wanted.to, wanted.enough),
            (50, 200, Enough::default())
        );
        assert!(wants.take_part(&room.key).is_none(), "it is read once");
        wants.want_part(&room, 10, 20, Enough::default(), waiter(7));
        assert_eq!(
            wants.take_reads().len(),
            1,
            "who comes while it is read is read for afterwards"
        );
        let part = Part {
            from: 50,
            to: 200,
            ..Part::default()
        };
        assert_eq!(wants.part_done(&room.key, Some(part), 0), [waiter(3), waiter(4)]);
        assert!(
            wants.take_part(&room.key).is_some(),
            "who wants what is before it has kept its place"
        );
        assert_eq!(wants.state_done(&room.key), [waiter(1), waiter(2)]);
        assert_eq!(
            (wants.time_done(7, Some(0)), wants.time_bits(7)),
            (vec![waiter(5), waiter(6)], Some(0))
        );
        assert!(wants.part(&room.key).is_some());
        wants.tick(PART_MILLIS + 1);
        assert!(wants.part(&room.key).is_none());
    }
    fn event(seq: u64, bytes: usize) -> Arc<Delivery> {
        let position = Position { seq, rev: 0 };
        Arc::new(Delivery::new(
            address("a"),
            Kind::Event,
            position,
            None,
            None,
            &vec![b'x'; bytes],
        ))
    }

    fn part(from: u64, to: u64, step: usize) -> Part {
        let event = |seq| (event(seq, 10), 0);
        Part {
            from,
            to,
            events: (from..=to).step_by(step).map(event).collect(),
            cut: false,
        }
    }

    /// From, to, whether it was cut, and the events.
    fn shape(part: &Part) -> (u64, u64, bool, Vec<u64>) {
        let seqs = part.events.iter().map(|(event, _)| event.position.seq);
        (part.from, part.to, part.cut, seqs.collect())
    }

    #[test]
    fn what_was_read_bit_by_bit_is_one_part() {
        let all = |from, to| (from, to, false, (from..=to).collect::<Vec<u64>>());
        let rows = [
            // Later, earlier, around, within, overlapping on either side.
            ((10, 20), (21, 25), all(10, 25)),
            ((10, 20), (5, 9), all(5, 20)),
            ((10, 20), (5, 25), all(5, 25)),
            ((10, 20), (12, 15), all(10, 20)),
            ((10, 20), (15, 25), all(10, 25)),
            ((10, 20), (5, 15), all(5, 20)),
            // Not beside each other: the newer one.
            ((10, 20), (22, 25), all(22, 25)),
            ((10, 20), (5, 8), all(5, 8)),
        ];
        for ((from, to), (next_from, next_to), expected) in rows {
            let joined = part(next_from, next_to, 1).and_before(part(from, to, 1), usize::MAX);
            assert_eq!(shape(&joined), expected, "{from}-{to} and {next_from}-{next_to}");
        }
        let cut = Part {
            cut: true,
            ..part(10, 20, 1)
        };
        assert!(part(21, 25, 1).and_before(cut.clone(), usize::MAX).cut);
        assert!(
            !part(5, 9, 1).and_before(cut, usize::MAX).cut,
            "what was left out is here"
        );
        let one = part(10, 10, 1).events[0].0.cost_bytes();
        let joined = part(21, 30, 5).and_before(part(10, 20, 5), 3 * one);
        assert_eq!(shape(&joined), (16, 30, true, vec![20, 21, 26]), "the oldest go");
    }

    #[test]
    fn who_comes_while_it_is_read_asks_again_and_does_not_read() {
        let (mut wants, room) = (Wants::default(), place("a"));
        wants.want_part(&room, 50, 200, Enough::default(), waiter(1));
        wants.take_part(&room.key).unwrap();
        wants.want_part(&room, 60, 205, Enough::default(), waiter(2));
        wants.want_part(&room, 55, 207, Enough::default(), waiter(3));
        assert_eq!(
            wants.part_done(&room.key, Some(part(50, 200, 1)), 0),
            [waiter(1), waiter(2), waiter(3)]
        );
        assert!(wants.take_part(&room.key).is_none());
        // What could not be read does nothing for anybody.
        wants.want_part(&room, 10, 20, Enough::default(), waiter(4));
        wants.take_part(&room.key).unwrap();
        wants.want_part(&room, 10, 20, Enough::default(), waiter(5));
        assert_eq!(wants.part_done(&room.key, None, 0), [waiter(4)]);
        assert!(wants.take_part(&room.key).is_some());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut wants = Wants::default();
        let large = event(1, 1 << 20);
        for number in 0..30 {
            let key: Arc<str> = format!("main.{number}").into();
            let read = Part {
                events: vec![(Arc::clone(&large), 0); 10],
                ..part(1, 1, 1)
            };
            wants.part_done(&key, Some(read), 0);
            assert!(wants.parts_bytes() <= PARTS_BYTES_MAX);
        }
        assert!(wants.part("main.29").is_some() && wants.part("main.0").is_none());
        let held: usize = wants.parts.iter().map(|kept| kept.bytes).sum();
        assert_eq!(held, wants.parts_bytes());
        wants.forget_parts();
        assert_eq!(wants.parts_bytes(), 0);
    }
}
