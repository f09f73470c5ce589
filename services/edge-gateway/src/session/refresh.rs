//! A newer token: the session goes on under it.

use roomcast_proto::frame::{Refreshed, server_frame};
use roomcast_proto::refusal::Refusal;

use super::{Now, Session, Wish, answer_to, refuse, rfc3339};
use crate::gate::{self, Admitted, Gate};

impl Session {
    pub(super) fn refresh(
        &mut self,
        id: Option<u32>,
        token: &str,
        gate: &Gate,
        now: Now,
        wishes: &mut Vec<Wish>,
    ) {
        let admitted = match gate.admit(token, now.unix_secs()) {
            Ok(admitted) => admitted,
            Err(error) => return refuse(id, &gate::refusal(error), wishes),
        };
        match self.refreshed(admitted) {
            Ok(refreshed) => {
                answer_to(id, server_frame::Body::Refreshed(refreshed), wishes);
                self.decide_again(wishes);
            }
            Err(refusal) => refuse(id, &refusal, wishes),
        }
    }

    /// Goes on under a newer token that somebody else has verified, for a stream, which says nothing itself.
    ///
    /// # Errors
    /// `forbidden`: it is another user's.
    pub fn refresh_with(&mut self, admitted: Admitted, wishes: &mut Vec<Wish>) -> Result<Refreshed, Refusal> {
        let refreshed = self.refreshed(admitted)?;
        self.decide_again(wishes);
        Ok(refreshed)
    }

    fn refreshed(&mut self, admitted: Admitted) -> Result<Refreshed, Refusal> {
        let same =
            admitted.user == self.admitted.user && admitted.rights.tenant() == self.admitted.rights.tenant();
        if !same {
            return Err(Refusal::forbidden());
        }
        let before = std::mem::replace(&mut self.admitted, admitted);
        let now = &self.admitted;
        let is_same = before.generation == now.generation
            && before.roles == now.roles
            && before.principal.claims == now.principal.claims;
        // What waits goes on where only the end is another.
        self.generation += u32::from(!is_same);
        self.expiring_said = false;
        Ok(Refreshed {
            expires_at: rfc3339(self.admitted.expires_at.saturating_mul(1000)),
            roles: self.admitted.roles.to_vec(),
        })
    }
}
