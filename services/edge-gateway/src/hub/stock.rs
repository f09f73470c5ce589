//! What the hub keeps under its lock, and what it answers from it: pure, with `now` as an argument.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use roomcast_access::permit::View;
use roomcast_proto::cursor::{Cursor, Epoch, Position};
use roomcast_proto::limits::SCAN_POSITIONS_MAX;

use super::answer::{Gap, History, HistoryPage, Outcome, Recovered, Recovery, Snapshot, Waiter};
use super::waits::Waits;
use crate::delivery::Delivery;
use crate::place::Place;
use crate::replay::{Known, Plan, plan};
use crate::ring::Ring;
use crate::state_cache::StateCache;

/// Parts of the stream kept after a read, for those who come for the same.
const PARTS_MAX: usize = 64;
/// How long they are kept.
const PART_MILLIS: i64 = 10_000;
/// Times of single messages kept.
const TIMES_MAX: usize = 4_096;

/// Something to be read from NATS.
#[derive(Debug, Clone)]
pub enum Read {
    /// All values of a room.
    State(Place),
    /// Events of a room; [`Stock::wanted_part`] says which.
    Events(Place),
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
    /// The newest so many suffice; `None`: all.
    pub enough: Option<usize>,
    waiters: Vec<Waiter>,
}

/// A part of the stream, read for one room.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// The first position read.
    pub from: u64,
    /// The last position read.
    pub to: u64,
    /// The room's events in it, ascending.
    pub events: Vec<Arc<Delivery>>,
    /// Whether there was too much before `from`.
    pub cut: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Stock {
    /// Which life of the streams; `None` until both are known.
    pub epoch: Option<Epoch>,
    /// Everything up to here has been taken in.
    pub position: Position,
    /// Low bits of the time of event `position.seq`.
    pub time_bits: u16,
    /// The oldest event the stream keeps.
    pub first_seq: u64,
    /// From here on every state value is younger than withdrawn ones are kept.
    pub first_rev: u64,
    /// Counts the lives of the streams seen.
    pub life: u64,
    /// Recent events.
    pub ring: Ring,
    /// Latest values.
    pub state: StateCache,
    waits: Waits,
    loads: HashMap<Arc<str>, Vec<Waiter>>,
    wanted: HashMap<Arc<str>, WantedPart>,
    reading: HashMap<Arc<str>, Vec<Waiter>>,
    parts: VecDeque<(Arc<str>, i64, Part)>,
    times: HashMap<u64, u16>,
    timing: HashMap<u64, Vec<Waiter>>,
    ahead: HashMap<Waiter, Position>,
    reads: Vec<Read>,
}

impl Stock {
    /// Nothing yet.
    #[must_use]
    pub fn new(ring: Ring, state: StateCache) -> Self {
        Self {
            epoch: None,
            position: Position::default(),
            time_bits: 0,
            first_seq: 1,
            first_rev: 1,
            life: 0,
            ring,
            state,
            waits: Waits::default(),
            loads: HashMap::new(),
            wanted: HashMap::new(),
            reading: HashMap::new(),
            parts: VecDeque::new(),
            times: HashMap::new(),
            timing: HashMap::new(),
            ahead: HashMap::new(),
            reads: Vec::new(),
        }
    }

    /// The cut at this moment.
    #[must_use]
    pub fn head(&self) -> Option<Cursor> {
        self.epoch.map(|epoch| Cursor {
            epoch,
            position: self.position,
            time_bits: self.time_bits,
        })
    }

    /// What has to be read now; each thing is said once.
    pub fn take_reads(&mut self) -> Vec<Read> {
        std::mem::take(&mut self.reads)
    }

    /// How many wait for something.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waits.len()
    }

    /// A waiter is gone.
    pub fn forget(&mut self, waiter: Waiter) {
        self.waits.end(waiter);
        self.ahead.remove(&waiter);
    }

    /// Time went by: values end, reads are forgotten. Returns who must ask again because their time is over.
    pub fn tick(&mut self, now_millis: i64) -> Vec<Waiter> {
        self.state.expire(now_millis);
        while self
            .parts
            .front()
            .is_some_and(|(_, read_at, _)| now_millis - read_at > PART_MILLIS)
        {
            self.parts.pop_front();
        }
        self.waits.over(now_millis)
    }

    /// The streams moved on: who waited for the position that is reached now.
    pub fn take_ahead(&mut self) -> Vec<Waiter> {
        if self.ahead.is_empty() {
            return Vec::new();
        }
        let Position { seq, rev } = self.position;
        let reached = |at: &Position| at.seq <= seq && at.rev <= rev;
        self.ahead
            .extract_if(|_, at| reached(at))
            .map(|(waiter, _)| waiter)
            .collect()
    }

    /// Everything after a change of `EVENTS`, which keeps what is not before `first_seq`: the ring starts before `next`.
    pub fn reset_events(&mut self, ring: Ring, first_seq: u64, next: u64) {
        self.ring = ring;
        self.life += 1;
        self.position.seq = next.saturating_sub(1);
        self.time_bits = 0;
        self.first_seq = first_seq;
        self.parts.clear();
        self.times.clear();
    }

    /// Everything after a change of `STATE`.
    pub fn reset_state(&mut self, next: u64) {
        self.state.clear();
        self.life += 1;
        self.position.rev = next.saturating_sub(1);
    }

    /// What the holder of `view` gets before live.
    pub fn recover(
        &mut self,
        view: &View,
        from: Option<Cursor>,
        waiter: Waiter,
        now_millis: i64,
    ) -> Recovery {
        let Some(head) = self.head() else {
            return Recovery::Unavailable;
        };
        let place = Place::of(view);
        if !self.has_state(&place, waiter) {
            return self.wait(waiter, now_millis);
        }
        let done = |recovered| Recovery::Done(recovered);
        let answer = match plan(from, &self.known(head, &place.key, from)) {
            Plan::Fresh => done(self.anew(view, &place, Outcome::Fresh, head, now_millis)),
            Plan::Incomplete(reason) => {
                done(self.anew(view, &place, Outcome::Incomplete { reason }, head, now_millis))
            }
            Plan::Ahead if self.waits.may_wait(waiter, now_millis) => {
                self.ahead
                    .insert(waiter, from.map_or(head.position, |from| from.position));
                return Recovery::Wait;
            }
            Plan::Ahead => {
                let outcome = Outcome::Incomplete { reason: Gap::Ahead };
                done(self.anew(view, &place, outcome, head, now_millis))
            }
            Plan::NeedTime => {
                let seq = from.map_or(0, |from| from.position.seq);
                self.want_time(seq, waiter);
                return self.wait(waiter, now_millis);
            }
            Plan::NeedRead(first, last) => {
                self.want_part(&place, first, last, None, waiter);
                return self.wait(waiter, now_millis);
            }
            Plan::Complete => done(self.missed(view, &place, from.unwrap_or(head), head, now_millis)),
        };
        // The waiter is not forgotten: it may wait for another room of the same request, whose time goes on.
        answer
    }

    /// A page of the events before a cursor.
    pub fn history(
        &mut self,
        view: &View,
        before: Option<Cursor>,
        limit: usize,
        waiter: Waiter,
        now_millis: i64,
    ) -> History {
        let Some(head) = self.head() else {
            return History::Unavailable;
        };
        // A place in another life of the streams has nothing before it.
        if before.is_some_and(|before| before.epoch != head.epoch) {
            return History::Done(HistoryPage {
                events: Vec::new(),
                cursor: None,
                complete: true,
            });
        }
        let place = Place::of(view);
        let end = before
            .map_or(u64::MAX, |before| before.position.seq)
            .min(head.position.seq + 1);
        let ring_from = self.ring.covers_from(&place.key);
        let mut newest: Vec<Arc<Delivery>> = Vec::new();
        let visible = |event: &&Arc<Delivery>| event.visible(view, now_millis);
        newest.extend(
            self.ring
                .before(&place.key, end)
                .rev()
                .filter(visible)
                .take(limit)
                .cloned(),
        );
        let mut low = end.min(ring_from);
        if newest.len() < limit && low > self.first_seq {
            let Some(part) = self
                .part(&place.key)
                .filter(|part| part.from < low && part.to + 1 >= low)
            else {
                let first = low.saturating_sub(SCAN_POSITIONS_MAX).max(self.first_seq);
                self.want_part(&place, first, low - 1, Some(limit), waiter);
                return if self.waits.may_wait(waiter, now_millis) {
                    History::Wait
                } else {
                    History::Unavailable
                };
            };
            let older = part.events.iter().rev().filter(|event| event.position.seq < low);
            newest.extend(older.filter(visible).take(limit - newest.len()).cloned());
            low = part.from;
        }
        self.forget(waiter);
        let full = newest.len() == limit;
        let next = if full {
            newest.last().map_or(low, |event| event.position.seq)
        } else {
            low
        };
        let complete = next <= self.first_seq;
        let at = |seq| Cursor {
            epoch: head.epoch,
            position: Position { seq, rev: 0 },
            time_bits: 0,
        };
        // A place in the past says nothing about state: rev 0.
        let events = newest.iter().rev().map(stateless).collect();
        History::Done(HistoryPage {
            events,
            cursor: (!complete).then(|| at(next)),
            complete,
        })
    }

    /// State and the newest events, at one cut; `None` while the state is being read.
    pub fn snapshot(
        &mut self,
        view: &View,
        events: usize,
        waiter: Waiter,
        now_millis: i64,
    ) -> Option<Snapshot> {
        let head = self.head()?;
        let place = Place::of(view);
        if !self.has_state(&place, waiter) {
            self.waits.may_wait(waiter, now_millis);
            return None;
        }
        self.forget(waiter);
        let visible = |event: &&Arc<Delivery>| event.visible(view, now_millis);
        let mut newest: Vec<Arc<Delivery>> = self
            .ring
            .before(&place.key, u64::MAX)
            .rev()
            .filter(visible)
            .take(events)
            .cloned()
            .collect();
        newest.reverse();
        let state = self.state.changed(view, &place.key, 0, false, now_millis);
        Some(Snapshot {
            cursor: head,
            state,
            events: newest,
        })
    }

    /// Whether the room's state is here; else asks for it.
    fn has_state(&mut self, place: &Place, waiter: Waiter) -> bool {
        if self.state.is_loaded(&place.key) {
            return true;
        }
        let waiters = self.loads.entry(Arc::clone(&place.key)).or_insert_with(|| {
            self.state.begin(&place.key);
            self.reads.push(Read::State(place.clone()));
            Vec::new()
        });
        waiters.push(waiter);
        false
    }

    fn wait(&mut self, waiter: Waiter, now_millis: i64) -> Recovery {
        if self.waits.may_wait(waiter, now_millis) {
            Recovery::Wait
        } else {
            Recovery::Unavailable
        }
    }

    fn known(&self, head: Cursor, key: &str, from: Option<Cursor>) -> Known {
        let part = self.part(key);
        let seq = from.map_or(0, |from| from.position.seq);
        Known {
            epoch: head.epoch,
            head: head.position,
            first_seq: self.first_seq,
            first_rev: self.first_rev,
            ring_from: self.ring.covers_from(key),
            read: part.map(|part| (part.from, part.to)),
            unread_before: part.filter(|part| part.cut).map(|part| part.from),
            time_bits: self.ring.time_bits(seq).or_else(|| self.times.get(&seq).copied()),
        }
    }

    fn anew(
        &mut self,
        view: &View,
        place: &Place,
        recovery: Outcome,
        head: Cursor,
        now_millis: i64,
    ) -> Recovered {
        let state = self.state.changed(view, &place.key, 0, false, now_millis);
        // Until `caughtUp` no state has been given, so rev is 0.
        let start = Cursor {
            position: Position {
                rev: 0,
                ..head.position
            },
            ..head
        };
        Recovered {
            recovery,
            start,
            events: Vec::new(),
            state,
            head,
        }
    }

    fn missed(
        &mut self,
        view: &View,
        place: &Place,
        from: Cursor,
        head: Cursor,
        now_millis: i64,
    ) -> Recovered {
        let state = self
            .state
            .changed(view, &place.key, from.position.rev, true, now_millis);
        let ring_from = self.ring.covers_from(&place.key);
        let seq = from.position.seq;
        let part = self.part(&place.key).map_or(&[][..], |part| &part.events);
        let read = part
            .iter()
            .filter(|event| event.position.seq > seq && event.position.seq < ring_from);
        let ring = self
            .ring
            .after(&place.key, seq)
            .filter(|event| event.position.seq >= ring_from);
        let visible = read.chain(ring).filter(|event| event.visible(view, now_millis));
        let events: Vec<Arc<Delivery>> = if state.is_empty() {
            visible.cloned().collect()
        } else {
            // The state comes after the events: until it is there, no cursor may say that it has been delivered.
            visible.map(|event| capped(event, from.position.rev)).collect()
        };
        Recovered {
            recovery: Outcome::Complete,
            start: from,
            events,
            state,
            head,
        }
    }

    fn part(&self, key: &str) -> Option<&Part> {
        self.parts
            .iter()
            .rev()
            .find(|(name, ..)| &**name == key)
            .map(|(.., part)| part)
    }

    fn want_part(&mut self, place: &Place, from: u64, to: u64, enough: Option<usize>, waiter: Waiter) {
        match self.wanted.get_mut(&place.key) {
            Some(wanted) => {
                wanted.from = wanted.from.min(from);
                wanted.to = wanted.to.max(to);
                wanted.enough = wanted.enough.and_then(|had| Some(had.max(enough?)));
                wanted.waiters.push(waiter);
            }
            None => {
                let wanted = WantedPart {
                    place: place.clone(),
                    from,
                    to,
                    enough,
                    waiters: vec![waiter],
                };
                self.wanted.insert(Arc::clone(&place.key), wanted);
                self.reads.push(Read::Events(place.clone()));
            }
        }
    }

    fn want_time(&mut self, seq: u64, waiter: Waiter) {
        let waiters = self.timing.entry(seq).or_default();
        if waiters.is_empty() {
            self.reads.push(Read::Time(seq));
        }
        waiters.push(waiter);
    }

    /// The room's state was read, or not; returns who must ask again.
    ///
    /// `life`: [`Stock::life`] when the reading began; what was read of streams that are no more is not used.
    pub fn loaded(
        &mut self,
        key: &Arc<str>,
        life: u64,
        values: Option<Vec<(Delivery, Option<i64>)>>,
    ) -> Vec<Waiter> {
        match values.filter(|_| life == self.life) {
            Some(values) => self.state.finish(key, values),
            None => self.state.abandon(key),
        }
        self.loads.remove(key).unwrap_or_default()
    }

    /// The events to be read for a room, all that was asked for up to now at once.
    pub fn wanted_part(&mut self, key: &str) -> Option<WantedPart> {
        let wanted = self.wanted.remove(key)?;
        self.reading
            .insert(wanted.place.key.clone(), wanted.waiters.clone());
        Some(wanted)
    }

    /// They were read, or not; returns who must ask again.
    ///
    /// `life`: as for [`Stock::loaded`].
    pub fn read_part(
        &mut self,
        key: &Arc<str>,
        life: u64,
        part: Option<Part>,
        now_millis: i64,
    ) -> Vec<Waiter> {
        let waiters = self.reading.remove(key).unwrap_or_default();
        if let Some(part) = part.filter(|_| life == self.life) {
            self.parts.retain(|(name, ..)| name != key);
            if self.parts.len() == PARTS_MAX {
                self.parts.pop_front();
            }
            self.parts.push_back((Arc::clone(key), now_millis, part));
        }
        waiters
    }

    /// A message's time was read: its low bits, or 0 when there is no such message; `None`: nobody answered.
    pub fn timed(&mut self, seq: u64, time_bits: Option<u16>) -> Vec<Waiter> {
        if let Some(time_bits) = time_bits {
            if self.times.len() >= TIMES_MAX {
                self.times.clear();
            }
            self.times.insert(seq, time_bits);
        }
        self.timing.remove(&seq).unwrap_or_default()
    }
}

/// The event with a cursor that says no more of the state than `rev`.
fn capped(event: &Arc<Delivery>, rev: u64) -> Arc<Delivery> {
    if event.position.rev <= rev {
        return Arc::clone(event);
    }
    Arc::new(event.at(
        Position {
            rev,
            ..event.position
        },
        event.mark(),
    ))
}

/// The event with a cursor that says nothing of the state.
fn stateless(event: &Arc<Delivery>) -> Arc<Delivery> {
    capped(event, 0)
}
