//! Permits that change while their rooms are open.

use std::sync::Arc;

use roomcast_access::Subscribe;
use roomcast_proto::refusal::Refusal;

use super::Shard;
use super::recovery::Opened;
use crate::connection::Connection;
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
            .filter(|permit| self.exchange_one(key, permit))
            .collect();
        let session = self.connections.get_mut(key as usize)?.session()?;
        (!shown.is_empty()).then(|| session.exchange(shown))
    }

    /// Whether the new permit shows anything else.
    fn exchange_one(&mut self, key: u32, permit: &Arc<Subscribe>) -> bool {
        let session = self
            .connections
            .get_mut(key as usize)
            .and_then(Connection::session);
        let place = session.and_then(|session| {
            let slot = session.slot(permit.room())?;
            Some((slot, session.rooms.get(slot)?.seat))
        });
        let Some((slot, seat)) = place else { return false };
        let Some(held) = self.members.permit(seat).filter(|held| ***held != **permit) else {
            return false;
        };
        let other = !held.shows_same(permit);
        let Some(member) = self.members.member_mut(seat).copied() else {
            return false;
        };
        // In before out: the room is never empty, so the hub keeps what it holds for it.
        let (taken, _) = self.members.join(permit, member, self.now.millis);
        self.set_seat(key, slot, taken);
        self.give_up(seat);
        other
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

    /// Sends the state of an exchanged permit. Values are the latest, so those live ones that they cover are skipped.
    pub(super) fn exchanged(&mut self, key: u32, found: Vec<Result<Opened, Refusal>>) {
        for (permit, recovered) in found.into_iter().flatten() {
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
            for value in &recovered.state {
                self.queue_seen(key, &permit, value);
            }
        }
    }
}
