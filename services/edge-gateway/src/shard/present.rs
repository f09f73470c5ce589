//! Who is connected to a shard, by user and by room.

use roomcast_proto::ids::{Room, Tenant};
use tokio::sync::oneshot;

use super::Shard;
use super::inbox::Handle;
use crate::connection::Stage;
use crate::statistics::Here;

impl Handle {
    /// Users and rooms of a tenant here, or who is in one room. Costs a look at each connection and its rooms.
    pub fn present(&self, tenant: Tenant, room: Option<Room>) -> oneshot::Receiver<Here> {
        self.look(move |shard| shard.present(&tenant, room.as_ref()))
    }
}

impl Shard {
    fn present(&self, tenant: &Tenant, room: Option<&Room>) -> Here {
        let mut here = Here::default();
        for (_, connection) in &self.connections {
            let Stage::Session(session) = &connection.stage else {
                continue;
            };
            if session.tenant() != tenant {
                continue;
            }
            let user = &session.admitted().user;
            let is_meant = |open: &Room| room.is_none_or(|room| room == open);
            let mut meant = room.is_none();
            for open in session.rooms.iter().filter(|open| is_meant(&open.room)) {
                meant = true;
                let found = match here.rooms.get_mut(&open.room) {
                    Some(found) => found,
                    None => here.rooms.entry(open.room.clone()).or_default(),
                };
                found.0 += 1;
                found.1.insert(user.clone());
            }
            if meant {
                *here.users.entry(user.clone()).or_default() += 1;
            }
        }
        here
    }
}
