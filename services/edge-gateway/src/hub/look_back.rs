//! Answers those who look back: pages of history, the first paint.

use std::sync::Arc;

use roomcast_access::permit::View;
use roomcast_proto::cursor::{Cursor, Position};
use roomcast_proto::limits::SCAN_POSITIONS_MAX;

use super::answer::{History, HistoryPage, Snapshot, Waiter};
use super::stock::{Stock, capped};
use crate::delivery::Delivery;
use crate::place::Place;

impl Stock {
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
                .wants
                .part(&place.key)
                .filter(|part| part.from < low && part.to + 1 >= low)
            else {
                let first = low.saturating_sub(SCAN_POSITIONS_MAX).max(self.first_seq);
                self.wants.want_part(&place, first, low - 1, Some(limit), waiter);
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
}

/// The event with a cursor that says nothing of the state.
fn stateless(event: &Arc<Delivery>) -> Arc<Delivery> {
    capped(event, 0)
}
