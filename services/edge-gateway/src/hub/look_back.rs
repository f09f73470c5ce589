//! Answers those who look back: pages of history, the first paint.

use std::sync::Arc;

use roomcast_access::permit::View;
use roomcast_proto::cursor::{Cursor, Position};

use super::answer::{History, HistoryPage, Outcome, Rewind, Waiter};
use super::stock::{Found, Looked, Stock, capped};
use super::wants::{Enough, Part};
use crate::delivery::Delivery;
use crate::place::Place;
use crate::state_cache::Values;

impl Stock {
    /// A page of the events before a cursor.
    pub fn history(
        &mut self,
        view: &View,
        before: Option<Cursor>,
        limit: usize,
        waiter: Waiter,
        now_millis: i64,
        deep: impl FnOnce() -> Result<(), u64>,
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
                .wants
                .part(&place.key)
                .filter(|part| part.from < low && part.to + 1 >= low)
            else {
                if let Err(wait_millis) = self.waits.charge(waiter, now_millis, deep) {
                    return History::Rate(wait_millis);
                }
                let first = low.saturating_sub(self.scan_max).max(self.first_seq);
                self.wants
                    .want_part(&place, first, low - 1, Enough::count(limit), waiter);
                return if self.waits.may_wait(waiter, now_millis) {
                    History::Wait
                } else {
                    History::Unavailable
                };
            };
            let older = part.events.iter().rev().map(|(event, _)| event);
            let older = older.filter(|event| event.position.seq < low);
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

    /// What a fresh subscriber gets with a part of the past: events from the ring, and beyond it from the stream.
    pub fn rewind(
        &mut self,
        view: &View,
        rewind: Rewind,
        waiter: Waiter,
        now_millis: i64,
        deep: impl FnOnce() -> Result<(), u64>,
    ) -> Looked {
        let Some(head) = self.head() else {
            return Looked::Unavailable;
        };
        let place = Place::of(view);
        if !self.has_state(&place.key, || place.clone(), waiter) {
            return self.wait(waiter, now_millis);
        }
        let since = rewind.since_micros.unwrap_or(i64::MIN);
        let low = self.ring.covers_from(&place.key);
        let mut newest: Vec<Arc<Delivery>> = Vec::new();
        let mut is_old = false;
        let ring = self.ring.newest(&place.key).take_while(|(_, micros)| {
            is_old |= *micros < since;
            !is_old
        });
        let visible = |event: &&Arc<Delivery>| event.visible(view, now_millis);
        newest.extend(
            ring.map(|(event, _)| event)
                .filter(visible)
                .take(rewind.count)
                .cloned(),
        );
        let floor = low.saturating_sub(self.scan_max).max(self.first_seq);
        if newest.len() < rewind.count && !is_old && low > floor {
            let wanted = Enough {
                count: Some(rewind.count),
                since_micros: rewind.since_micros,
            };
            let usable = |part: &&Part| {
                let below = part.events.iter().filter(|(event, _)| event.position.seq < low);
                let all = part.from <= floor || part.cut || wanted.is_met(below.map(|(_, micros)| *micros));
                part.from < low && part.to + 1 >= low && all
            };
            let Some(part) = self.wants.part(&place.key).filter(usable) else {
                if let Err(wait_millis) = self.waits.charge(waiter, now_millis, deep) {
                    return Looked::Rate(wait_millis);
                }
                self.wants.want_part(&place, floor, low - 1, wanted, waiter);
                return self.wait(waiter, now_millis);
            };
            let older = part.events.iter().rev();
            let older = older.filter(|(event, micros)| event.position.seq < low && *micros >= since);
            let left = rewind.count - newest.len();
            newest.extend(older.map(|(event, _)| event).filter(visible).take(left).cloned());
        }
        newest.reverse();
        // Until `caughtUp` no state has been given, so rev is 0.
        let start = match newest.first() {
            None => Cursor {
                position: Position {
                    rev: 0,
                    ..head.position
                },
                ..head
            },
            Some(first) => Cursor {
                epoch: head.epoch,
                position: Position {
                    seq: first.position.seq - 1,
                    rev: 0,
                },
                time_bits: 0,
            },
        };
        Looked::Found(Found {
            recovery: Outcome::Fresh,
            start,
            events: newest,
            values: self.state.values_after(&place.key, 0),
            rev: 0,
            head,
        })
    }

    /// State and the newest events, at one cut; `None` while the state is being read.
    pub fn snapshot(
        &mut self,
        view: &View,
        events: usize,
        waiter: Waiter,
        now_millis: i64,
    ) -> Option<(Cursor, Values, Vec<Arc<Delivery>>)> {
        let place = Place::of(view);
        let (head, values) = self.whole(&place, waiter, now_millis)?;
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
        Some((head, values, newest))
    }

    /// All values of a room at one cut; `None` while they are being read.
    pub fn whole(&mut self, place: &Place, waiter: Waiter, now_millis: i64) -> Option<(Cursor, Values)> {
        let head = self.head()?;
        if !self.has_state(&place.key, || place.clone(), waiter) {
            self.waits.may_wait(waiter, now_millis);
            return None;
        }
        self.forget(waiter);
        Some((head, self.state.values_after(&place.key, 0)))
    }
}

/// The event with a cursor that says nothing of the state.
fn stateless(event: &Arc<Delivery>) -> Arc<Delivery> {
    capped(event, 0)
}
