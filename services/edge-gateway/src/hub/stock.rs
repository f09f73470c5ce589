//! What the hub keeps under its lock, and what it answers from it: pure, with `now` as an argument.

use std::sync::Arc;

use roomcast_access::Subscribe;
use roomcast_access::permit::View;
use roomcast_proto::cursor::{Cursor, Epoch, Position};

use super::answer::{Gap, Outcome, Recovered, Waiter};
use super::waits::Waits;
use super::wants::{Enough, Part, Read, WantedPart, Wants};
use super::watches::Watches;
use crate::delivery::Delivery;
use crate::maps::HashMap;
use crate::place::{self, Place};
use crate::replay::{Known, Plan, plan};
use crate::ring::Ring;
use crate::state_cache::{self, StateCache, Values};

/// Positions read before the first that is wanted: clients of a room lose their connections at one moment, but not at one event.
const READ_BEFORE: u64 = 500;

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
    /// Counts what makes reads that are under way worthless: another life of a stream, another policy.
    pub life: u64,
    /// Recent events.
    pub ring: Ring,
    /// Latest values.
    pub state: StateCache,
    pub(super) waits: Waits,
    pub(super) wants: Wants,
    /// Positions that are looked through for one room at most.
    pub(super) scan_max: u64,
    pub(super) watches: Watches,
    /// Recoveries that took events from what was read of the stream.
    pub(super) deep: u64,
    ahead: HashMap<Waiter, Position>,
    /// The key of the room that is being looked up.
    key: String,
}

/// What was found under the lock.
#[derive(Debug)]
pub enum Looked<T = Found> {
    /// All of it; [`Found::finish`] makes the answer.
    Found(T),
    /// Something has to be read first.
    Wait,
    /// It could not be read in time.
    Unavailable,
    /// The user has had too much read; when to try again, milliseconds.
    Rate(u64),
}

/// An answer that still holds more than its receiver may see: choosing takes time with the size of the room, and needs no lock.
#[derive(Debug)]
pub struct Found {
    pub(super) recovery: Outcome,
    pub(super) start: Cursor,
    pub(super) events: Vec<Arc<Delivery>>,
    pub(super) values: Values,
    /// State up to here is known to the receiver.
    pub(super) rev: u64,
    pub(super) head: Cursor,
}

impl Found {
    /// What the holder of `view` gets.
    pub fn finish(self, view: &View, now_millis: i64) -> Recovered {
        // With withdrawals only where the receiver may hold the key.
        let withdrawn = self.recovery == Outcome::Complete;
        let state = state_cache::newest(&self.values, view, self.rev, withdrawn, now_millis);
        let may_overtake = !state.is_empty() || self.recovery == Outcome::Fresh;
        let events = if may_overtake {
            // The state comes after the events: until it is there, no cursor may say that it has been delivered.
            self.events.iter().map(|event| capped(event, self.rev)).collect()
        } else {
            self.events
        };
        Recovered {
            recovery: self.recovery,
            start: self.start,
            events,
            state,
            head: self.head,
        }
    }
}

impl Stock {
    /// Nothing yet.
    #[must_use]
    pub fn new(ring: Ring, state: StateCache, scan_max: u64) -> Self {
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
            wants: Wants::default(),
            scan_max,
            watches: Watches::default(),
            deep: 0,
            ahead: HashMap::default(),
            key: String::new(),
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
        self.wants.take_reads()
    }

    /// A read that nobody will make: whoever waits for it waits in vain, the next one to want it asks anew.
    pub fn give_up(&mut self, read: &Read) {
        self.wants.give_up(read);
    }

    /// How many wait for something.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waits.len()
    }

    /// Bytes kept of what was read.
    #[must_use]
    pub fn read_bytes(&self) -> usize {
        self.wants.parts_bytes()
    }

    /// A waiter is gone.
    pub fn forget(&mut self, waiter: Waiter) {
        self.waits.end(waiter);
        self.ahead.remove(&waiter);
        self.watches.end(waiter);
    }

    /// Time went by: values end, reads are forgotten. Returns who must ask again because their time is over.
    pub fn tick(&mut self, now_millis: i64) -> Vec<Waiter> {
        self.state.expire(now_millis);
        self.state.rest(now_millis);
        self.wants.tick(now_millis);
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
        // An empty stream says 0, which is before every position.
        self.first_seq = first_seq.max(1);
        self.wants.forget_read();
    }

    /// Everything after a change of `STATE`. `is_new`: it is another stream, which has forgotten nothing yet.
    pub fn reset_state(&mut self, next: u64, is_new: bool) {
        if is_new {
            self.first_rev = 1;
        }
        self.state.clear();
        // Who waits for a room's values waits for those of now: live ones are kept for them from here on.
        for key in self.wants.wanted_state() {
            self.state.begin(key);
        }
        self.life += 1;
        self.position.rev = next.saturating_sub(1);
    }

    /// Whom things are for is decided anew, in what is kept and in what is being read.
    pub fn decide_again(&mut self, change: impl Fn(&Delivery) -> Option<Delivery>) {
        self.life += 1;
        self.ring.map(&change);
        self.state.map(&change);
        self.wants.forget_parts();
    }

    /// What the holder of `view` gets before live.
    pub fn recover(
        &mut self,
        view: &View,
        from: Option<Cursor>,
        events_max: usize,
        waiter: Waiter,
        now_millis: i64,
    ) -> Looked {
        let mut key = std::mem::take(&mut self.key);
        place::write_key(&mut key, view.tenant().as_str(), view.room().as_str());
        let looked = self.recover_room(&key, view, from, events_max, waiter, now_millis);
        self.key = key;
        looked
    }

    fn recover_room(
        &mut self,
        key: &str,
        view: &View,
        from: Option<Cursor>,
        events_max: usize,
        waiter: Waiter,
        now_millis: i64,
    ) -> Looked {
        let Some(head) = self.head() else {
            return Looked::Unavailable;
        };
        let plan = match from {
            None => Plan::Fresh,
            Some(_) => plan(from, &self.known(head, key, from)),
        };
        // Who goes on in a room of its own where nothing is newer needs none of its values.
        let rev = from.map_or(0, |from| from.position.rev);
        let is_unchanged = matches!(plan, Plan::Complete | Plan::NeedTime | Plan::NeedRead(..))
            && self.state.is_unchanged_since(key, rev);
        if !is_unchanged && !self.has_state(key, || Place::of(view), waiter) {
            return self.wait(waiter, now_millis);
        }
        let found = match plan {
            Plan::Fresh => self.anew(key, Outcome::Fresh, head),
            Plan::Incomplete(reason) => self.anew(key, Outcome::Incomplete { reason }, head),
            Plan::Ahead if self.waits.may_wait(waiter, now_millis) => {
                self.ahead
                    .insert(waiter, from.map_or(head.position, |from| from.position));
                return Looked::Wait;
            }
            Plan::Ahead => self.anew(key, Outcome::Incomplete { reason: Gap::Ahead }, head),
            Plan::NeedTime => {
                let seq = from.map_or(0, |from| from.position.seq);
                self.wants.want_time(seq, waiter);
                return self.wait(waiter, now_millis);
            }
            Plan::NeedRead(first, last) => {
                self.wants
                    .want_part(&Place::of(view), first, last, Enough::default(), waiter);
                return self.wait(waiter, now_millis);
            }
            Plan::Complete => self.missed(view, key, from.unwrap_or(head), head, events_max, now_millis),
        };
        // The waiter is not forgotten: it may wait for another room of the same request, whose time goes on.
        Looked::Found(found)
    }

    /// What the holder of these permits gets in rooms that are followed together, each from its cursor: all at one cut, or none.
    pub fn recover_all(
        &mut self,
        permits: &[Arc<Subscribe>],
        from: &[Option<Cursor>],
        events_max: usize,
        waiter: Waiter,
        now_millis: i64,
    ) -> Looked<(Vec<Found>, Cursor)> {
        let Some(head) = self.head() else {
            return Looked::Unavailable;
        };
        let (mut all, mut wait) = (Vec::with_capacity(permits.len()), false);
        for (permit, from) in permits.iter().zip(from) {
            match self.recover(permit, *from, events_max, waiter, now_millis) {
                Looked::Found(found) => all.push(found),
                Looked::Wait => wait = true,
                Looked::Unavailable => return Looked::Unavailable,
                Looked::Rate(wait_millis) => return Looked::Rate(wait_millis),
            }
        }
        if wait {
            return Looked::Wait;
        }
        Looked::Found((all, head))
    }

    /// Whether the room's state is here, at this cut; else asks for it. A read may have seen values that have not come live yet: who
    /// were given them now would get them again, and perhaps older ones before.
    pub(super) fn has_state(&mut self, key: &str, place: impl FnOnce() -> Place, waiter: Waiter) -> bool {
        if let Some(newest) = self.state.loaded_to(key) {
            if newest <= self.position.rev {
                return true;
            }
            let read = Position {
                rev: newest,
                ..Position::default()
            };
            self.ahead.insert(waiter, read);
            return false;
        }
        let place = place();
        if self.wants.want_state(&place, waiter) {
            self.state.begin(&place.key);
        }
        false
    }

    pub(super) fn wait(&mut self, waiter: Waiter, now_millis: i64) -> Looked {
        if self.waits.may_wait(waiter, now_millis) {
            Looked::Wait
        } else {
            Looked::Unavailable
        }
    }

    fn known(&self, head: Cursor, key: &str, from: Option<Cursor>) -> Known {
        let part = self.wants.part(key);
        let seq = from.map_or(0, |from| from.position.seq);
        Known {
            epoch: head.epoch,
            head: head.position,
            scan_max: self.scan_max,
            first_seq: self.first_seq,
            first_rev: self.first_rev,
            ring_from: self.ring.covers_from(key),
            read: part.map(|part| (part.from, part.to)),
            unread_before: part.filter(|part| part.cut).map(|part| part.from),
            time_bits: self.ring.time_bits(seq).or_else(|| self.wants.time_bits(seq)),
        }
    }

    fn anew(&mut self, key: &str, recovery: Outcome, head: Cursor) -> Found {
        // Until `caughtUp` no state has been given, so rev is 0.
        let start = Cursor {
            position: Position {
                rev: 0,
                ..head.position
            },
            ..head
        };
        Found {
            recovery,
            start,
            events: Vec::new(),
            values: self.state.values_after(key, 0),
            rev: 0,
            head,
        }
    }

    fn missed(
        &mut self,
        view: &View,
        key: &str,
        from: Cursor,
        head: Cursor,
        events_max: usize,
        now_millis: i64,
    ) -> Found {
        let ring_from = self.ring.covers_from(key);
        let Position { seq, rev } = from.position;
        self.deep += u64::from(seq.saturating_add(1) < ring_from);
        let part = self.wants.part(key).map_or(&[][..], |part| &part.events);
        let read = part
            .iter()
            .map(|(event, _)| event)
            .filter(|event| event.position.seq > seq && event.position.seq < ring_from);
        let ring = self
            .ring
            .after(key, seq)
            .filter(|event| event.position.seq >= ring_from);
        let visible = read.chain(ring).filter(|event| event.visible(view, now_millis));
        Found {
            recovery: Outcome::Complete,
            start: from,
            events: visible.take(events_max).cloned().collect(),
            values: self.state.values_after(key, rev),
            rev,
            head,
        }
    }

    /// A room's state was read, or not; returns who must ask again.
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
        self.wants.state_done(key)
    }

    /// The events to be read for a room: of those who come back, a little more than they want.
    pub fn wanted_part(&mut self, key: &str) -> Option<WantedPart> {
        let mut wanted = self.wants.take_part(key)?;
        let goes_on = self
            .wants
            .part(key)
            .is_some_and(|part| part.to + 1 == wanted.from);
        if wanted.enough == Enough::default() && !goes_on {
            wanted.from = wanted.from.saturating_sub(READ_BEFORE).max(self.first_seq);
        }
        Some(wanted)
    }

    /// They were read, or not; returns who must ask again. `life`: as for [`Stock::loaded`].
    pub fn read_part(
        &mut self,
        key: &Arc<str>,
        life: u64,
        part: Option<Part>,
        now_millis: i64,
    ) -> Vec<Waiter> {
        let part = part.filter(|_| life == self.life);
        self.wants.part_done(key, part, now_millis)
    }

    /// A message's time was read, or not; returns who must ask again.
    pub fn timed(&mut self, seq: u64, time_bits: Option<u16>) -> Vec<Waiter> {
        self.wants.time_done(seq, time_bits)
    }
}

/// The event with a cursor that says no more of the state than `rev`.
pub(super) fn capped(event: &Arc<Delivery>, rev: u64) -> Arc<Delivery> {
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
