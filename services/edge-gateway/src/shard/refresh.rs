//! A newer token for a connection that cannot bring it itself.

use roomcast_proto::frame::Refreshed;
use tokio::sync::oneshot;

use super::Shard;
use super::inbox::Handle;
use crate::connection::Connection;
use crate::gate::Admitted;

impl Handle {
    /// Goes on with a connection under a newer token of its user. `None`: it is not here, or another user's, or the token was revoked
    /// meanwhile.
    pub fn refresh(&self, number: u64, admitted: Admitted) -> oneshot::Receiver<Option<Refreshed>> {
        self.look(move |shard| shard.refresh(number, admitted))
    }
}

impl Shard {
    fn refresh(&mut self, number: u64, mut admitted: Admitted) -> Option<Refreshed> {
        let (key, _) = self.seen_one(number)?;
        // Rights may have changed on the way here, and everybody here been decided about under the newer ones.
        let in_force = self.shared.gate.rights().now();
        admitted.decide_again(&in_force, self.now.unix_secs()).ok()?;
        let mut wishes = Vec::new();
        let session = self
            .connections
            .get_mut(key as usize)
            .and_then(Connection::session)?;
        let refreshed = session.refresh_with(admitted, &mut wishes).ok()?;
        self.carry_out(key, &mut wishes);
        // The new end may come before the old one.
        self.schedule(key);
        self.settle();
        Some(refreshed)
    }
}
