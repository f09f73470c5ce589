//! Deciding again about everybody when rights change, and ending those whom an administrator names.
//!
//! A shard looks at the generation of rights at the beginning of each turn, before it writes anything. It decides about a portion of
//! its clients per turn, so that events go on to flow; what is left when the time is over is decided in one go. So a turn that
//! begins after that time writes nothing to anybody under rights that are over, whatever waits in the inbox.

use std::sync::Arc;
use std::time::Instant;

use roomcast_access::InForce;
use roomcast_proto::acl::Kick;
use roomcast_proto::close::Close;

use super::{Shard, input};
use crate::connection::{Connection, Stage};
use crate::metrics::Ending;
use crate::session::{Verdict, Wish};

/// Clients decided about in one turn: some milliseconds where all of them have rooms to exchange.
const PORTION: usize = 256;
/// From when on there are no portions any more, milliseconds after the change was noticed. Noticing takes half a second when
/// everything that tells of a change is lost, and all of it must be over within two.
const WITHIN_MILLIS: u64 = 1_000;

/// A round of deciding again.
#[derive(Debug)]
pub(super) struct Round {
    in_force: Arc<InForce>,
    /// The next key.
    at: usize,
    due: u64,
    begun: Instant,
}

impl Shard {
    /// Begins a round when rights have changed and goes on with the one under way.
    pub(super) fn decide_again(&mut self) {
        let rights = self.shared.gate.rights();
        if rights.generation() != self.rights_generation {
            let in_force = rights.now();
            self.rights_generation = in_force.generation;
            // Who waits for the round before waits no longer because there is another.
            let (due, begun) = match &self.round {
                Some(round) => (round.due, round.begun),
                None => (self.now.millis + WITHIN_MILLIS, Instant::now()),
            };
            self.round = Some(Round {
                in_force,
                at: 0,
                due,
                begun,
            });
        }
        let Some(mut round) = self.round.take() else {
            return;
        };
        let portion = match self.now.millis >= round.due {
            true => usize::MAX,
            false => PORTION,
        };
        if self.decide_portion(&mut round, portion) {
            let after = round.begun.elapsed();
            self.shared.metrics.decided_again(after);
        } else {
            self.round = Some(round);
        }
        self.settle();
    }

    /// Whether a round is under way, so that the next turn must come at once.
    pub(super) fn is_deciding(&self) -> bool {
        self.round.is_some()
    }

    /// Whether the round is over.
    fn decide_portion(&mut self, round: &mut Round, portion: usize) -> bool {
        let mut wishes = std::mem::take(&mut self.wishes);
        let mut decided = 0;
        while decided < portion && round.at < self.connections.capacity() {
            let key = round.at;
            round.at += 1;
            let Some(connection) = self.connections.get_mut(key) else {
                continue;
            };
            // Handshakes are decided when they are accepted.
            let Stage::Session(session) = &mut connection.stage else {
                continue;
            };
            if session.rights_generation() == round.in_force.generation {
                continue;
            }
            decided += 1;
            let verdict = session.rights_changed(&round.in_force, self.now, &mut wishes);
            self.shared.metrics.decided(verdict);
            let key = u32::try_from(key).unwrap_or(u32::MAX);
            let loses = match verdict {
                Verdict::Same => false,
                Verdict::Changed => self.loses(key, &wishes),
                Verdict::Revoked => true,
            };
            if loses && !self.is_drained(key) {
                wishes.clear();
                // What waits may be what it loses. It comes back, and its cursors bring the rest, if there is any.
                self.give_up_unsent(key, verdict);
            }
            self.carry_out(key, &mut wishes);
            if verdict == Verdict::Same {
                self.count_again(key, &round.in_force.policy);
            }
        }
        self.wishes = wishes;
        round.at >= self.connections.capacity()
    }

    /// Whether a client sees less than before, or something else.
    fn loses(&mut self, key: u32, wishes: &[Wish]) -> bool {
        wishes.iter().any(|wish| match wish {
            Wish::Evict(_) => true,
            Wish::Exchange(permits) => permits.iter().any(|permit| self.shows_other(key, permit)),
            _ => false,
        })
    }

    /// Whether the socket has taken everything that was to be written.
    fn is_drained(&mut self, key: u32) -> bool {
        self.flush(key);
        let blocked = self.connections.get(key as usize).map(Connection::is_blocked);
        blocked != Some(true)
    }

    /// Ends a connection without the frames that wait. The rest of one that is half out would still have to follow: then the
    /// connection is broken off.
    fn give_up_unsent(&mut self, key: u32, verdict: Verdict) {
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return;
        };
        connection.abandon(&mut self.tally);
        if connection.is_blocked() {
            self.ending.push((key, Ending::Gone));
        } else if verdict == Verdict::Revoked {
            self.end(key, Close::Revoked);
        } else {
            self.end(key, Close::Resync);
        }
    }

    /// Ends the connections that are meant.
    pub(super) fn kick(&mut self, kick: &Kick) {
        let meant = |connection: &Connection| match &connection.stage {
            Stage::Session(session) => kick.means(session.tenant(), session.user(), &input::name(connection)),
            _ => false,
        };
        let keys: Vec<usize> = self
            .connections
            .iter()
            .filter(|(_, connection)| meant(connection))
            .map(|(key, _)| key)
            .collect();
        for key in keys {
            self.end(u32::try_from(key).unwrap_or(u32::MAX), Kick::CLOSE);
        }
    }
}
