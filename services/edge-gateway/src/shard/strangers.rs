//! Who wants in, in the order of knocking, and what of a turn that may cost.
//!
//! To let somebody in takes a hundred times what a delivery takes: a signature, a policy, rooms read back. When thousands come at
//! once, those who are in must not notice: what comes in has a bounded part of each turn, piece by piece (`pieces`).

use std::collections::VecDeque;

use super::Shard;
use super::crowd::{Crowd, GATHER_MILLIS};
use super::inbox::Arrival;
use super::newcomers::NEWCOMER;
use crate::connection::Stage;
use crate::maps::HashMap;

/// Those who want in rest between their parts while those who are in are being served: while somebody was written to within this time,
/// milliseconds.
const SERVING_MILLIS: u64 = 100;
/// So long do they rest, milliseconds, where those who were in before they came are many. So they have a fifth of a shard's time,
/// two thousand a second and shard or so, and what an event needs before it comes here, ingest and NATS and the reader of both,
/// finds a processor meanwhile. With twice the rest those who come back wait twice as long, and nobody else waits less.
const REST_MILLIS: u64 = 2;
/// The same where nearly everybody has just come, as after a restart: who is back is served already and waits for nobody but the
/// others who come. Nothing shorter can be waited for.
const REST_AMONG_NEWCOMERS_MILLIS: u64 = 1;
/// Those who were in are many while there are at most so many connections for each of them.
const FEW: usize = 8;
/// No part of a turn was used up for so long, milliseconds: who is in now was in before the next ones came.
const CALM_MILLIS: u64 = 1_000;

/// Sockets that were heard, openings that can go on, and sockets that the HTTP library hands over. Holds each at most once, so it is
/// bounded by the connections.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    order: VecDeque<u32>,
    /// Whether the other side has said its last word.
    heard: HashMap<u32, bool>,
    tickets: VecDeque<u64>,
    arrivals: VecDeque<Box<Arrival>>,
    /// Nobody is let in before this instant.
    rests_until: u64,
    /// Keys of those who came while nobody is let in, and are not watched until somebody is: what they say would only wake the shard.
    unwatched: Vec<u32>,
    crowd: Crowd,
    /// When a part was used up last.
    over_millis: u64,
    /// How many connections there were when the present ones began to come.
    settled: usize,
}

/// What is next.
#[derive(Debug)]
enum Next {
    /// An opening has what it waited for.
    Ticket(u64),
    /// Somebody was upgraded.
    Arrival(Box<Arrival>),
    /// A socket has something to say; whether nothing more after it.
    Heard(u32, bool),
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

    /// Somebody was upgraded elsewhere.
    pub(super) fn arrived(&mut self, arrival: Box<Arrival>) {
        self.arrivals.push_back(arrival);
    }

    /// A socket that came is to be watched as soon as somebody is let in.
    pub(super) fn watch_later(&mut self, key: u32) {
        self.unwatched.push(key);
    }

    /// Whether anybody is to be watched later.
    pub(super) fn has_unwatched(&self) -> bool {
        !self.unwatched.is_empty()
    }

    /// The keys of those who are to be watched now.
    pub(super) fn take_unwatched(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.unwatched)
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty() && self.tickets.is_empty() && self.arrivals.is_empty()
    }

    /// How long nobody is let in from `millis` on.
    pub(super) fn rest(&self, millis: u64) -> u64 {
        self.rests_until.saturating_sub(millis)
    }

    /// A part of a turn is used up. `written_millis`: when somebody was written to last; `connections`: how many there are.
    fn part_is_over(&mut self, millis: u64, written_millis: u64, connections: usize) {
        if millis >= self.over_millis + CALM_MILLIS {
            self.settled = connections;
        }
        self.over_millis = millis;
        if millis < written_millis + SERVING_MILLIS {
            let few = self.settled.saturating_mul(FEW) < connections;
            let rest = if few {
                REST_AMONG_NEWCOMERS_MILLIS
            } else {
                REST_MILLIS
            };
            self.rests_until = millis + rest;
        }
    }

    /// First who has waited for rooms, then who was upgraded, then who has something to say.
    fn next(&mut self) -> Option<Next> {
        if let Some(ticket) = self.tickets.pop_front() {
            return Some(Next::Ticket(ticket));
        }
        if let Some(arrival) = self.arrivals.pop_front() {
            return Some(Next::Arrival(arrival));
        }
        let key = self.order.pop_front()?;
        Some(Next::Heard(key, self.heard.remove(&key).unwrap_or(false)))
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

    /// Goes on with those who want in until their part of the turn is over; last who is at the door.
    pub(super) fn let_in(&mut self) {
        self.forget_turned_away();
        if self.strangers.rest(self.now.millis) > 0 {
            return;
        }
        if self.are_unheard() {
            // What they have said meanwhile is heard with the next look at the sockets: it goes before whoever is at the door.
            self.watch_strangers();
            return self.hear_door(true);
        }
        let mut pieces = 0;
        let is_over = self.piece_by_piece(|shard| {
            let done = shard.let_one_in();
            pieces += usize::from(done);
            done
        });
        let millis = self.now.millis;
        let is_crowd = self.strangers.crowd.add(millis, pieces);
        if is_over {
            let now = self.clock.now().millis;
            self.strangers
                .part_is_over(now, self.written_millis, self.connections.len());
        } else if is_crowd {
            self.strangers.rests_until = millis + GATHER_MILLIS;
        }
        match self.strangers.rest(millis) {
            0 => self.watch_strangers(),
            _ => self.hear_door(false),
        }
    }

    /// Whether somebody may have said something, or may have come, of which the system does not tell while strangers rest.
    pub(super) fn are_unheard(&self) -> bool {
        self.strangers.has_unwatched() || self.door.is_unheard
    }

    fn let_one_in(&mut self) -> bool {
        match self.strangers.next() {
            Some(Next::Ticket(ticket)) => self.ticket_ready(ticket),
            Some(Next::Arrival(arrival)) => drop(self.arrive(*arrival)),
            Some(Next::Heard(key, closed)) if key & NEWCOMER == 0 => self.read(key, closed),
            Some(Next::Heard(key, _)) => self.hear(key & !NEWCOMER),
            None => {
                if !self.answer_door() {
                    return false;
                }
            }
        }
        self.settle();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{Next, REST_AMONG_NEWCOMERS_MILLIS, REST_MILLIS, Strangers};

    #[test]
    fn each_has_one_place_in_the_order_of_knocking() {
        let mut strangers = Strangers::default();
        for (key, closed) in [(3, false), (1, false), (3, true), (2, false), (1, false)] {
            strangers.heard(key, closed);
        }
        strangers.can_go_on(7);
        let next = |strangers: &mut Strangers| match strangers.next()? {
            Next::Ticket(ticket) => Some((u32::try_from(ticket).unwrap(), None)),
            Next::Arrival(_) => None,
            Next::Heard(key, closed) => Some((key, Some(closed))),
        };
        let order: Vec<_> = std::iter::from_fn(|| next(&mut strangers)).collect();
        assert_eq!(
            order,
            [(7, None), (3, Some(true)), (1, Some(false)), (2, Some(false))]
        );
        assert!(strangers.is_empty());
        strangers.heard(1, false);
        assert_eq!(
            next(&mut strangers),
            Some((1, Some(false))),
            "who was heard may knock again"
        );
    }

    #[test]
    fn they_rest_only_while_others_are_served_and_longer_where_those_are_many() {
        const { assert!(REST_MILLIS > REST_AMONG_NEWCOMERS_MILLIS) }
        let mut strangers = Strangers::default();
        // When a part was over, when somebody was written to last, connections by then, how long they rest.
        for (millis, written, connections, rest) in [
            (5_000, 0, 100, 0),
            (5_001, 5_001, 100, REST_MILLIS),
            (5_100, 5_001, 800, REST_MILLIS),
            (5_100, 5_001, 801, REST_AMONG_NEWCOMERS_MILLIS),
            (5_101, 5_001, 801, 0),
            // They went on coming: nobody of them has settled.
            (6_100, 6_100, 900, REST_AMONG_NEWCOMERS_MILLIS),
            // After a second in which nobody came, all have.
            (7_100, 7_100, 900, REST_MILLIS),
            (7_101, 7_101, 7_200, REST_MILLIS),
            (7_102, 7_102, 7_201, REST_AMONG_NEWCOMERS_MILLIS),
            // After a restart there is nobody whom they could disturb.
            (9_000, 9_000, 0, REST_MILLIS),
            (9_001, 9_001, 1, REST_AMONG_NEWCOMERS_MILLIS),
        ] {
            strangers.part_is_over(millis, written, connections);
            assert_eq!(strangers.rest(millis), rest, "{millis}");
            assert_eq!(strangers.rest(millis + REST_MILLIS), 0);
        }
    }
}
