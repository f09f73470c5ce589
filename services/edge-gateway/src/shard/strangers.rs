//! Who wants in, in the order of knocking, and what of a turn that may cost.
//!
//! To let somebody in takes a hundred times what a delivery takes: a signature, a policy, rooms read back. When thousands come at
//! once, those who are in must not notice: they have their turn first, and what comes in has a bounded part of each.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::Shard;
use super::newcomers::NEWCOMER;
use crate::connection::Stage;

/// What of one turn those who want in may take. One that has begun is finished.
const STRANGERS_TURN: Duration = Duration::from_micros(500);

/// Sockets that were heard, and openings that can go on. Holds each at most once, so it is bounded by the connections.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    order: VecDeque<u32>,
    /// Whether the other side has said its last word.
    heard: HashMap<u32, bool>,
    tickets: VecDeque<u64>,
}

impl Strangers {
    /// A socket has something to say. `closed`: nothing more after it.
    pub(super) fn heard(&mut self, key: u32, closed: bool) {
        if let Some(known) = self.heard.get_mut(&key) {
            *known |= closed;
        } else {
            self.heard.insert(key, closed);
            self.order.push_back(key);
        }
    }

    /// What an opening has waited for is there.
    pub(super) fn can_go_on(&mut self, ticket: u64) {
        self.tickets.push_back(ticket);
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty() && self.tickets.is_empty()
    }

    fn next(&mut self) -> Option<(u32, bool)> {
        let key = self.order.pop_front()?;
        Some((key, self.heard.remove(&key).unwrap_or(false)))
    }
}

impl Shard {
    /// Whether it is somebody who has shown no token yet.
    pub(super) fn is_stranger(&self, key: u32) -> bool {
        key & NEWCOMER != 0
            || self
                .connections
                .get(key as usize)
                .is_some_and(|connection| matches!(connection.stage, Stage::Handshake { .. }))
    }

    /// Goes on with those who want in until their part of the turn is over: first who has waited for rooms, then who has
    /// something to say, then who is at the door.
    pub(super) fn let_in(&mut self) {
        let began = Instant::now();
        let over = || began.elapsed() >= STRANGERS_TURN;
        while let Some(ticket) = self.strangers.tickets.pop_front() {
            self.ticket_ready(ticket);
            self.settle();
            if over() {
                return;
            }
        }
        while let Some((key, closed)) = self.strangers.next() {
            if key & NEWCOMER == 0 {
                self.read(key, closed);
            } else {
                self.hear(key & !NEWCOMER);
            }
            self.settle();
            if over() {
                return;
            }
        }
        self.answer_door(over);
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::Strangers;

    #[test]
    fn each_has_one_place_in_the_order_of_knocking() {
        let mut strangers = Strangers::default();
        for (key, closed) in [(3, false), (1, false), (3, true), (2, false), (1, false)] {
            strangers.heard(key, closed);
        }
        let order: Vec<_> = std::iter::from_fn(|| strangers.next()).collect();
        assert_eq!(order, [(3, true), (1, false), (2, false)]);
        assert!(strangers.is_empty());
        strangers.heard(1, false);
        assert_eq!(
            strangers.next(),
            Some((1, false)),
            "who was heard may knock again"
        );
    }
}
