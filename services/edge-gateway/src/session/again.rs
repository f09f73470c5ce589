//! Deciding again: what a change of rights means for what a client has open.
//!
//! Rooms that the new rights do not open are left at once and the client is told; those that stay open are followed under the new
//! permit; those that open by themselves now are opened. What waits for the hub is decided again when its turn comes.

use std::sync::Arc;

use roomcast_access::InForce;
use roomcast_proto::close::Close;
use roomcast_proto::frame::{Roles, ServerFrame, Unsubscribed, server_frame};
use roomcast_proto::refusal::Refusal;

use super::{From, Now, Session, Wish, asked, joined_by_policy};

/// What came of deciding again about one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Same,
    /// Its rights are others.
    Changed,
    /// It has none any more.
    Revoked,
}

impl Session {
    /// Under which generation of rights this client was decided about.
    #[must_use]
    pub fn rights_generation(&self) -> u64 {
        self.admitted.generation
    }

    /// Decides again under what is in force now.
    pub fn rights_changed(&mut self, in_force: &InForce, now: Now, wishes: &mut Vec<Wish>) -> Verdict {
        let roles = Arc::clone(&self.admitted.roles);
        match self.admitted.decide_again(in_force, now.unix_secs()) {
            Err(_) => {
                wishes.push(Wish::End(Close::Revoked));
                Verdict::Revoked
            }
            Ok(false) => Verdict::Same,
            Ok(true) => {
                self.generation += 1;
                if roles != self.admitted.roles {
                    let roles = self.admitted.roles.to_vec();
                    let roles = server_frame::Body::Roles(Roles { roles });
                    wishes.push(Wish::Tell(ServerFrame::push(roles)));
                }
                self.decide_again(wishes);
                Verdict::Changed
            }
        }
    }

    /// Decides about every open room again and opens what has become open.
    pub(super) fn decide_again(&self, wishes: &mut Vec<Wish>) {
        let mut kept = Vec::with_capacity(self.rooms.len());
        for open in &self.rooms {
            match self.admitted.rights.subscribe(&open.room) {
                Ok(permit) => kept.push(Arc::new(permit)),
                Err(_) => {
                    let refusal = Refusal::forbidden();
                    let closed = Unsubscribed {
                        room: open.room.as_str().to_owned(),
                        code: Some(refusal.code.as_str().to_owned()),
                        reason: Some("your rights have changed".to_owned()),
                    };
                    wishes.push(Wish::Evict(open.room.clone()));
                    wishes.push(Wish::Tell(ServerFrame::push(server_frame::Body::Unsubscribed(
                        closed,
                    ))));
                }
            }
        }
        if !kept.is_empty() {
            wishes.push(Wish::Exchange(kept));
        }
        let gained = joined_by_policy(&self.admitted.rights).filter(|room| self.slot(room).is_none());
        let gained: Vec<_> = gained
            .map(|room| asked(room.as_str(), From::Fresh, &self.admitted.rights, false))
            .collect();
        if !gained.is_empty() {
            wishes.push(self.opening(None, gained));
        }
        if self.counted {
            wishes.push(Wish::Listen);
        }
    }
}
