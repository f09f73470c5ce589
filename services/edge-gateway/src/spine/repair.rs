//! How a spine fills a hole: what waits for its turn, what is read, whose word counts.

use std::collections::btree_map::Entry;

use super::{Cause, DOUBT_MILLIS, INFO_EVERY_MILLIS, InfoAnswer, Placed, Spine, Wish, Work};

/// Pause after reads that gave nothing; doubled each time.
const PAUSE_MILLIS: i64 = 25;
/// Reads that give nothing before the leader is asked.
const READS_MAX: u32 = 3;
/// Live messages kept while a hole before them is read. What does not fit is read from the stream, too.
pub(super) const AHEAD_MESSAGES_MAX: usize = 8_192;
/// The same in bytes.
pub(super) const AHEAD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Times of delivered messages kept, to tell a repeat from a position used a second time.
const RECENT_MAX: usize = 1_024;

impl<M> Spine<M> {
    pub(super) fn deliver(&mut self, placed: Placed<M>, repaired: bool, out: &mut Vec<Wish<M>>) {
        self.next = placed.sequence + 1;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((placed.sequence, placed.time_micros));
        self.doubt_since = None;
        out.push(Wish::Deliver { placed, repaired });
    }

    pub(super) fn skip_to(&mut self, next: u64, out: &mut Vec<Wish<M>>) {
        if next > self.next {
            out.push(Wish::Skip {
                from: self.next,
                to: next - 1,
            });
            self.next = next;
            self.doubt_since = None;
        }
    }

    /// Keeps a message whose turn has not come, or remembers that it exists.
    pub(super) fn keep(&mut self, placed: Placed<M>) {
        self.target = self.target.max(placed.sequence);
        let fits =
            self.ahead.len() < AHEAD_MESSAGES_MAX && self.ahead_bytes + placed.bytes <= AHEAD_BYTES_MAX;
        if !fits {
            self.counts.overflowed += 1;
        } else if let Entry::Vacant(entry) = self.ahead.entry(placed.sequence) {
            self.ahead_bytes += placed.bytes;
            entry.insert(placed);
        } else {
            self.counts.duplicates += 1;
        }
    }

    /// Delivers what has waited for its turn.
    pub(super) fn settle(&mut self, out: &mut Vec<Wish<M>>) {
        while let Some(entry) = self.ahead.first_entry() {
            if *entry.key() > self.next {
                return;
            }
            let placed = entry.remove();
            self.ahead_bytes -= placed.bytes;
            if placed.sequence == self.next {
                self.deliver(placed, false, out);
            } else {
                self.counts.duplicates += 1;
            }
        }
    }

    /// The last position before which something is known to be missing.
    pub(super) fn hole_end(&self) -> Option<u64> {
        let end = self.ahead.keys().next().map_or(self.target, |first| first - 1);
        (end >= self.next).then_some(end)
    }

    /// A read was in vain: again, then the leader.
    pub(super) fn nothing_new(&mut self, now_millis: i64, out: &mut Vec<Wish<M>>) {
        self.tries += 1;
        if self.mistaken_skip(out) {
            return self.go_on(now_millis, out);
        }
        if self.tries < READS_MAX {
            self.paused_until = now_millis + (PAUSE_MILLIS << self.tries);
            return;
        }
        self.ask_leader(out);
    }

    pub(super) fn ask_leader(&mut self, out: &mut Vec<Wish<M>>) {
        let ticket = self.ticket();
        self.work = Work::AtLeader(ticket);
        out.push(Wish::AskLeader {
            ticket,
            from: self.next,
        });
    }

    /// The leader has nothing up to `to`, but something after it: asks why.
    pub(super) fn check(&mut self, to: u64, now_millis: i64, out: &mut Vec<Wish<M>>) {
        self.work = Work::Checking(to);
        // An answer to an earlier question may be older than the leader's.
        self.info = None;
        self.ask_info(now_millis, out);
    }

    /// The leader has something after `to` and nothing before it: lost or deleted?
    pub(super) fn checked(&mut self, to: u64, answer: &InfoAnswer, out: &mut Vec<Wish<M>>) {
        self.paused_until = 0;
        if answer.first > self.next {
            self.lose_to(answer.first, out);
        } else if answer.last > to {
            self.skip_to(to + 1, out);
        }
    }

    /// What is known to have been there is not: it is not applied yet, or it went away again at the very end of the stream. Nothing is
    /// skipped for that: what comes after it, once it comes, proves the hole in one answer.
    pub(super) fn nothing_at_leader(&mut self, now_millis: i64) {
        let since = *self.doubt_since.get_or_insert(now_millis);
        if self.hole_end().is_none() {
            self.to_end = false;
        } else if now_millis - since >= DOUBT_MILLIS {
            self.doubt_since = None;
            self.target = 0;
            self.ahead.clear();
            self.ahead_bytes = 0;
            self.to_end = false;
        }
    }

    /// History is lost up to `next`; what waits beyond it is still good.
    pub(super) fn lose_to(&mut self, next: u64, out: &mut Vec<Wish<M>>) {
        self.next = next;
        self.doubt_since = None;
        out.push(Wish::Reset {
            cause: Cause::HistoryLost,
            next,
        });
    }

    pub(super) fn reset(&mut self, cause: Cause, next: u64, out: &mut Vec<Wish<M>>) {
        self.next = next;
        self.ahead.clear();
        self.ahead_bytes = 0;
        self.target = 0;
        self.to_end = true;
        self.work = Work::Idle;
        self.tries = 0;
        self.paused_until = 0;
        self.probe = None;
        self.info = None;
        self.recent.clear();
        self.again = None;
        self.doubt_since = None;
        self.below_since = None;
        out.push(Wish::Reset { cause, next });
    }

    /// Delivers what can be delivered and asks for what is missing.
    pub(super) fn go_on(&mut self, now_millis: i64, out: &mut Vec<Wish<M>>) {
        self.settle(out);
        if self.work != Work::Idle || now_millis < self.paused_until {
            return;
        }
        if self.hole_end().is_some() || self.to_end {
            let ticket = self.ticket();
            self.work = Work::Reading(ticket);
            out.push(Wish::Read {
                ticket,
                from: self.again.unwrap_or(self.next),
            });
        }
    }

    pub(super) fn ask_info(&mut self, now_millis: i64, out: &mut Vec<Wish<M>>) {
        self.info_due = now_millis + INFO_EVERY_MILLIS;
        if self.info.is_none() {
            let ticket = self.ticket();
            self.info = Some(ticket);
            self.asked_at = self.next;
            out.push(Wish::Info { ticket });
        }
    }
}
