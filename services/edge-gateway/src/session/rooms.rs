//! Which rooms a client opens, leaves and looks back in, and from where.

use std::sync::Arc;

use roomcast_access::{Rights, Subscribe};
use roomcast_proto::frame::{Rewind, Unsubscribed, server_frame};
use roomcast_proto::ids::Room;
use roomcast_proto::limits;
use roomcast_proto::refusal::{Code, Refusal};

use super::{Asked, From, Reading, Session, Wish, answer_to, forbid, refuse};
use crate::limit::Limit;

impl Session {
    pub(super) fn subscribe(&mut self, id: Option<u32>, name: &str, from: From, wishes: &mut Vec<Wish>) {
        let asked = asked(name, from, &self.admitted.rights, true);
        let requested = self
            .rooms
            .iter()
            .filter(|open| open.requested && open.room.as_str() != name)
            .count();
        match &asked.permit {
            Err(refusal) => {
                wishes.push(Wish::Forbade("subscribe"));
                refuse(id, refusal, wishes);
            }
            Ok(_) if requested >= self.limits.subscriptions_max => {
                let refusal = Refusal::new(
                    Code::Limit,
                    format!("at most {} rooms", self.limits.subscriptions_max),
                );
                refuse(id, &refusal, wishes);
                wishes.push(Wish::Met(Limit::Subscriptions));
            }
            Ok(_) => wishes.push(self.opening(id, vec![asked])),
        }
    }

    pub(super) fn from(&self, cursor: Option<&str>) -> From {
        From::read(self.limits.cursors, self.admitted.rights.tenant(), cursor)
    }

    pub(super) fn unsubscribe(&mut self, id: Option<u32>, name: String, wishes: &mut Vec<Wish>) {
        // Also where it is not open: it may be by the time this has its turn, behind rooms that are being opened.
        wishes.extend(Room::parse(&name).ok().map(Wish::Leave));
        // The same answer for a room that was not open: nothing is said about what there is.
        let answer = Unsubscribed {
            room: name,
            code: None,
            reason: None,
        };
        answer_to(id, server_frame::Body::Unsubscribed(answer), wishes);
    }

    pub(super) fn history(
        &self,
        id: Option<u32>,
        request: &roomcast_proto::frame::History,
        wishes: &mut Vec<Wish>,
    ) {
        let room = Room::parse(&request.room).ok();
        let permit = room.and_then(|room| self.admitted.rights.history(&room).ok());
        let Some(permit) = permit else {
            return forbid(id, "history", wishes);
        };
        let cursors = self.limits.cursors;
        let read = |text| cursors.read(self.admitted.rights.tenant(), text);
        let before = match request.before.as_deref().map(read) {
            None => None,
            Some(Ok(cursor)) => Some(cursor),
            Some(Err(_)) => {
                let refusal = Refusal::new(Code::BadRequest, "before is not a cursor").at("/history/before");
                return refuse(id, &refusal, wishes);
            }
        };
        let limit = if request.limit == 0 {
            limits::HISTORY_EVENTS_DEFAULT
        } else {
            request.limit
        };
        let limit = usize::try_from(limit.min(limits::HISTORY_EVENTS_MAX)).unwrap_or(1);
        wishes.push(Wish::Read(Reading {
            generation: self.generation,
            id,
            permit,
            before,
            limit,
        }));
    }
}

/// `auto_join` of the policy and the personal room, of which every user is a member: notifications arrive there.
pub(super) fn joined_by_policy(rights: &Rights) -> impl Iterator<Item = Room> + '_ {
    rights
        .auto_join()
        .into_iter()
        .chain(rights.personal_room().cloned())
}

pub(super) fn asked(name: &str, from: From, rights: &Rights, requested: bool) -> Asked {
    Asked {
        name: name.to_owned(),
        permit: permit(name, rights),
        from,
        requested,
        before: None,
    }
}

/// Where a client begins that wants a part of the past.
pub(super) fn rewound(rewind: &Rewind) -> Result<From, Refusal> {
    let bad = |what: &str| Err(Refusal::new(Code::BadRequest, what.to_owned()).at("/subscribe/rewind"));
    match (rewind.count, rewind.seconds) {
        (None, None) => bad("count or seconds, or both"),
        (Some(0), _) | (_, Some(0)) => bad("at least 1"),
        (count, seconds) => Ok(From::Rewind {
            count: usize::try_from(count.unwrap_or(u32::MAX))
                .unwrap_or(usize::MAX)
                .min(limits::REWIND_EVENTS_MAX),
            seconds,
        }),
    }
}

/// The decision about a room. A name that is none is refused like a room that is not there.
pub(super) fn permit(name: &str, rights: &Rights) -> Result<Arc<Subscribe>, Refusal> {
    let room = Room::parse(name).map_err(|_| Refusal::forbidden())?;
    rights
        .subscribe(&room)
        .map(Arc::new)
        .map_err(|_| Refusal::forbidden())
}
