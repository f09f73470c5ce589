//! Permits that change while their rooms are open.

use std::collections::HashSet;
use std::sync::Arc;

use roomcast_access::Subscribe;
use roomcast_proto::refusal::Refusal;

use super::Shard;
use super::recovery::Opened;
use crate::connection::Connection;
use crate::delivery::Delivery;
use crate::hub::{Recovered, Recovery};
use crate::members::Seat;
use crate::session::Opening;

impl Shard {
    /// Whether a room that is open shows other bytes under this permit than it does now.
    pub(super) fn shows_other(&mut self, key: u32, permit: &Subscribe) -> bool {
        let session = self
            .connections
            .get_mut(key as usize)
            .and_then(Connection::session);
        let seat = session.and_then(|session| Some(session.rooms.get(session.slot(permit.room())?)?.seat));
        let held = seat.and_then(|seat| self.members.permit(seat));
        held.is_some_and(|held| !held.shows_same(permit))
    }

    /// Puts a member under other permits, from this instant on. Answers the opening that sends the state they show; `None` when
    /// they show what was shown before.
    pub(super) fn exchange(&mut self, key: u32, permits: Vec<Arc<Subscribe>>) -> Option<Opening> {
        let shown: Vec<_> = permits
            .into_iter()
            .filter_map(|permit| Some((self.exchange_one(key, &permit)?, permit)))
            .collect();
        let session = self.connections.get_mut(key as usize)?.session()?;
        (!shown.is_empty()).then(|| session.exchange(shown))
    }

    /// The permit before, where the new one shows anything else.
    fn exchange_one(&mut self, key: u32, permit: &Arc<Subscribe>) -> Option<Arc<Subscribe>> {
        let session = self
            .connections
            .get_mut(key as usize)
            .and_then(Connection::session);
        let place = session.and_then(|session| {
            let slot = session.slot(permit.room())?;
            Some((slot, session.rooms.get(slot)?.seat))
        });
        let (slot, seat) = place?;
        let held = self.members.permit(seat).filter(|held| ***held != **permit)?;
        let held = Arc::clone(held);
        let member = self.members.member_mut(seat).copied()?;
        // In before out: the room is never empty, so the hub keeps what it holds for it.
        let (taken, _) = self.members.join(permit, member, self.now.millis);
        self.set_seat(key, slot, taken);
        self.give_up(seat);
        (!held.shows_same(permit)).then_some(held)
    }

    fn set_seat(&mut self, key: u32, slot: usize, seat: Seat) {
        let session = self
            .connections
            .get_mut(key as usize)
            .and_then(Connection::session);
        if let Some(open) = session.and_then(|session| session.rooms.get_mut(slot)) {
            open.seat = seat;
        }
    }

    /// Sends the state of an exchanged permit, and withdraws what it does not show any more. Values are the latest, so those live ones that
    /// they cover are skipped.
    pub(super) fn exchanged(&mut self, key: u32, opening: &Opening, found: Vec<Result<Opened, Refusal>>) {
        for (asked, found) in opening.rooms.iter().zip(found) {
            let Ok((permit, recovered)) = found else {
                continue;
            };
            let session = self
                .connections
                .get_mut(key as usize)
                .and_then(Connection::session);
            let seat =
                session.and_then(|session| Some(session.rooms.get(session.slot(permit.room())?)?.seat));
            let Some(member) = seat.and_then(|seat| self.members.member_mut(seat)) else {
                continue;
            };
            member.skip.rev = member.skip.rev.max(recovered.head.position.rev);
            let before = asked.before.as_ref();
            let before = before.filter(|before| !permit.audiences().holds_all_of(before.audiences()));
            let hidden = before.map(|before| self.hidden(before, &recovered));
            for value in recovered.state.iter().chain(hidden.iter().flatten()) {
                self.queue_seen(key, &permit, value);
            }
        }
    }

    /// Withdrawals of the values that this permit shows now, but for those that were found for another one.
    fn hidden(&mut self, before: &Subscribe, found: &Recovered) -> Vec<Arc<Delivery>> {
        let ticket = self.new_ticket();
        let waiter = self.waiter(ticket);
        let hub = &self.shared.hub;
        let Recovery::Done(shown) = hub.recover(before, None, waiter, self.now.unix_millis) else {
            // It was read just now, and a room with members stays in memory.
            hub.forget(waiter);
            return Vec::new();
        };
        let left: HashSet<_> = found.state.iter().filter_map(|value| value.state_key()).collect();
        let gone = shown
            .state
            .iter()
            .filter(|value| value.state_key().is_some_and(|key| !left.contains(key)));
        gone.filter_map(|value| value.withdrawal()).collect()
    }
}
