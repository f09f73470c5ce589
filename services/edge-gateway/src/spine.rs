//! The reader of one stream, as a pure state machine: live messages and answers go in, deliveries and wishes come out.
//!
//! Republished messages are a fast path that may lose, repeat and reorder; sequences tell. A hole is read again with a direct get, a
//! lost tail is found by asking for the last message when it is silent, and what a replica answers is believed only as far as it can
//! be: a lower position than known never lowers ours, an absent message is absent only when the leader says so.
//! `spine_driver` does the I/O; this file reads no clock and awaits nothing.

use std::collections::{BTreeMap, VecDeque};

mod repair;
#[cfg(test)]
mod tests;
mod wish;

pub use wish::{Cause, Holes, InfoAnswer, Placed, ReadAnswer, Ticket, Wish};

/// Messages read in one repair. 500 cost the server 1.3 ms, and a start reads one portion after the other: at a server with one processor
/// those who published meanwhile waited 5 to 8 ms. With 100 a start takes a fifth longer.
pub const READ_MESSAGES: usize = 100;
/// A silence this long may be a lost tail.
const PROBE_AFTER_MILLIS: i64 = 500;
/// The stream's identity and ends are asked for this often.
const INFO_EVERY_MILLIS: i64 = 2_000;
/// Pause when the leader cannot answer either.
const LEADER_PAUSE_MILLIS: i64 = 250;
/// A stream that says for this long that it ends before what we have seen has lost its end, or never had it.
const DOUBT_MILLIS: i64 = 10_000;

/// What is being asked for to fill a hole. One thing at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Idle,
    Reading(Ticket),
    AtLeader(Ticket),
    /// The leader has nothing from `next` up to this position, but something after it: lost, or deleted?
    Checking(u64),
}

/// What happened so far, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that came again and were dropped.
    pub duplicates: u64,
    /// Live messages that came before their turn.
    pub early: u64,
    /// Live messages that did not fit into the waiting room and are read again.
    pub overflowed: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Spine<M> {
    holes: Holes,
    created: String,
    next: u64,
    ahead: BTreeMap<u64, Placed<M>>,
    ahead_bytes: usize,
    /// The highest position known to be, or to have been, in the stream.
    target: u64,
    /// Whether to read until the stream has no more.
    to_end: bool,
    work: Work,
    tries: u32,
    paused_until: i64,
    probe: Option<Ticket>,
    heard: i64,
    info: Option<Ticket>,
    /// What came next when the stream's ends were asked for: the answer is as old as the question.
    asked_at: u64,
    info_due: i64,
    doubt_since: Option<i64>,
    below_since: Option<i64>,
    recent: VecDeque<(u64, i64)>,
    /// Delivered, and to be read again: whether it is still what it was is not known since something was interrupted.
    again: Option<u64>,
    tickets: u64,
    counts: Counts,
    #[cfg(test)]
    mistake: Option<tests::Mistake>,
}

impl<M> Spine<M> {
    /// Starts before position `next` of the stream created at `created`.
    #[must_use]
    pub fn new(holes: Holes, created: String, next: u64, now_millis: i64) -> Self {
        Self {
            holes,
            created,
            next: next.max(1),
            ahead: BTreeMap::new(),
            ahead_bytes: 0,
            target: 0,
            to_end: true,
            work: Work::Idle,
            tries: 0,
            paused_until: 0,
            probe: None,
            heard: now_millis,
            info: None,
            asked_at: 0,
            info_due: now_millis + INFO_EVERY_MILLIS,
            doubt_since: None,
            below_since: None,
            recent: VecDeque::new(),
            again: None,
            tickets: 0,
            counts: Counts::default(),
            #[cfg(test)]
            mistake: None,
        }
    }

    /// The position that is delivered next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The highest position known to be, or to have been, in the stream.
    #[must_use]
    pub fn target(&self) -> u64 {
        self.target
    }

    /// Which stream this is: its creation time.
    #[must_use]
    pub fn created(&self) -> &str {
        &self.created
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether nothing is known to be missing.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.work == Work::Idle && !self.to_end && self.target < self.next && self.ahead.is_empty()
    }

    /// A republished message came.
    pub fn on_live(&mut self, placed: Placed<M>, now_millis: i64, out: &mut Vec<Wish<M>>) {
        self.heard = now_millis;
        if placed.sequence < self.next {
            if !self.is_reused(&placed) {
                self.counts.duplicates += 1;
                return;
            }
            self.reset(Cause::Regressed, placed.sequence, out);
        }
        if placed.sequence == self.next {
            self.deliver(placed, false, out);
        } else {
            self.counts.early += 1;
            self.keep(placed);
        }
        self.go_on(now_millis, out);
    }

    /// The connection came back, or the client dropped messages: everything up to the end may be missing, and the stream may have
    /// lost its end and written over it meanwhile.
    pub fn on_interrupted(&mut self, now_millis: i64, out: &mut Vec<Wish<M>>) {
        self.to_end = true;
        self.doubt_newest();
        self.tries = 0;
        self.paused_until = 0;
        self.info_due = now_millis;
        self.on_tick(now_millis, out);
    }

    /// Time went by; to be called at least every 100 ms.
    pub fn on_tick(&mut self, now_millis: i64, out: &mut Vec<Wish<M>>) {
        self.go_on(now_millis, out);
        let silent = now_millis - self.heard >= PROBE_AFTER_MILLIS && !self.mistaken_no_probe();
        if silent && self.probe.is_none() && self.work == Work::Idle {
            let ticket = self.ticket();
            self.probe = Some(ticket);
            out.push(Wish::Probe { ticket });
        }
        if now_millis >= self.info_due {
            self.ask_info(now_millis, out);
        }
    }

    /// The last position as some replica sees it; `None` when the stream is empty or nobody answered.
    pub fn on_probe(&mut self, ticket: Ticket, last: Option<u64>, now_millis: i64, out: &mut Vec<Wish<M>>) {
        if self.probe != Some(ticket) {
            return;
        }
        self.probe = None;
        // The next silence begins now.
        self.heard = now_millis;
        let last = last.unwrap_or(0);
        self.mistaken_lowering(last);
        // A replica that is behind says less than is known: then nothing follows from it.
        self.target = self.target.max(last);
        self.go_on(now_millis, out);
    }

    /// What a repair read; `None` when nobody answered.
    pub fn on_read(
        &mut self,
        ticket: Ticket,
        answer: Option<ReadAnswer<M>>,
        now_millis: i64,
        out: &mut Vec<Wish<M>>,
    ) {
        if self.work != Work::Reading(ticket) {
            return;
        }
        self.work = Work::Idle;
        let before = self.next;
        let Some(answer) = answer else {
            return self.nothing_new(now_millis, out);
        };
        if let Some(reused) = answer.messages.iter().find(|placed| self.is_reused(placed)) {
            let from = reused.sequence;
            self.reset(Cause::Regressed, from, out);
            return self.go_on(now_millis, out);
        }
        // A replica that says nothing from there on may be behind: asked again.
        let last = answer.messages.last().map_or(0, |last| last.sequence);
        let again = self.again.take_if(|again| *again <= last);
        let mut gap = false;
        for placed in answer.messages {
            if again == Some(placed.sequence) {
                continue;
            }
            if placed.sequence < self.next && !self.mistaken_repeat() {
                self.counts.duplicates += 1;
            } else if placed.sequence <= self.next {
                self.deliver(placed, true, out);
            } else if self.holes == Holes::Replaced {
                self.skip_to(placed.sequence, out);
                self.deliver(placed, true, out);
            } else {
                // Only the leader knows whether the hole before it is one.
                gap = true;
                self.keep(placed);
            }
        }
        self.settle(out);
        if gap && self.hole_end().is_some() && !self.mistaken_skip(out) {
            return self.ask_leader(out);
        }
        if self.next > before {
            self.tries = 0;
            self.to_end &= answer.more;
        } else if self.hole_end().is_some() {
            return self.nothing_new(now_millis, out);
        } else {
            self.to_end = false;
        }
        self.go_on(now_millis, out);
    }

    /// The first message at or after the position asked for, as the leader has it. `Some(None)`: it has none; `None`: no answer.
    pub fn on_leader(
        &mut self,
        ticket: Ticket,
        answer: Option<Option<Placed<M>>>,
        now_millis: i64,
        out: &mut Vec<Wish<M>>,
    ) {
        if self.work != Work::AtLeader(ticket) {
            return;
        }
        self.work = Work::Idle;
        self.tries = 0;
        match answer {
            Some(Some(placed)) if placed.sequence < self.next => {}
            Some(Some(placed)) if placed.sequence == self.next => self.deliver(placed, true, out),
            Some(Some(placed)) if self.holes == Holes::Replaced => {
                self.skip_to(placed.sequence, out);
                self.deliver(placed, true, out);
            }
            Some(Some(placed)) => {
                let gone = placed.sequence - 1;
                self.keep(placed);
                self.check(gone, now_millis, out);
            }
            Some(None) => {
                self.paused_until = now_millis + LEADER_PAUSE_MILLIS;
                self.nothing_at_leader(now_millis);
            }
            None => self.paused_until = now_millis + LEADER_PAUSE_MILLIS,
        }
        self.go_on(now_millis, out);
    }

    /// The stream's identity and ends; `None` when nobody answered.
    pub fn on_info(
        &mut self,
        ticket: Ticket,
        answer: Option<InfoAnswer>,
        now_millis: i64,
        out: &mut Vec<Wish<M>>,
    ) {
        if self.info != Some(ticket) {
            return;
        }
        self.info = None;
        let checking = match self.work {
            Work::Checking(to) => {
                self.work = Work::Idle;
                self.paused_until = now_millis + LEADER_PAUSE_MILLIS;
                Some(to)
            }
            _ => None,
        };
        let Some(answer) = answer else { return };
        if answer.created != self.created {
            self.created = answer.created;
            self.reset(Cause::Recreated, answer.first.max(1), out);
        } else if answer.last.saturating_add(1) < self.asked_at {
            // A node that has just come back says so for a while; a stream that lost its end says so for ever.
            let since = *self.below_since.get_or_insert(now_millis);
            if now_millis - since >= DOUBT_MILLIS {
                self.reset(Cause::Regressed, answer.last + 1, out);
            }
        } else {
            if self.below_since.take().is_some() {
                self.doubt_newest();
            }
            match checking {
                Some(to) => self.checked(to, &answer, out),
                // Found out by reading, where what is on its way to us still counts.
                None => self.to_end |= answer.first > self.next || self.again.is_some(),
            }
        }
        self.go_on(now_millis, out);
    }

    /// Has the newest message that was delivered read again with the next read. A stream loses its end only, and that is the first
    /// thing it would lose. Of a stream that keeps the latest value alone the position may be empty; then what follows it speaks.
    fn doubt_newest(&mut self) {
        self.again = self.recent.back().map(|(sequence, _)| *sequence);
    }

    /// Whether a position is used for another message than the one that was delivered.
    fn is_reused(&self, placed: &Placed<M>) -> bool {
        let Some((newest, _)) = self.recent.back() else {
            return false;
        };
        let back = usize::try_from(newest.saturating_sub(placed.sequence)).unwrap_or(usize::MAX);
        let found = self
            .recent
            .iter()
            .rev()
            .take(back.saturating_add(1))
            .find(|(seq, _)| *seq == placed.sequence);
        found.is_some_and(|(_, time)| *time != placed.time_micros)
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }
}

/// The mistakes a test plants to see that the simulation finds them; none of them exists outside tests.
#[cfg(not(test))]
impl<M> Spine<M> {
    fn mistaken_no_probe(&self) -> bool {
        false
    }
    fn mistaken_lowering(&mut self, _last: u64) {}
    fn mistaken_repeat(&self) -> bool {
        false
    }
    fn mistaken_skip(&mut self, _out: &mut Vec<Wish<M>>) -> bool {
        false
    }
}
