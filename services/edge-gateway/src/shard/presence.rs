//! Presence in a shard: who of its clients is where, who asks, and who watches.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use roomcast_access::Policy;
use roomcast_proto::frame::{ServerFrame, server_frame};
use roomcast_proto::ids::{Room, Tenant};
use roomcast_proto::presence::USERS_SHOWN_MAX;
use roomcast_proto::refusal::Refusal;

use super::Shard;
use crate::connection::Connection;
use crate::encoding::Ready;
use crate::outbox::{Class, StateKey};
use crate::presence::Place;
use crate::presence_driver::{self, PUSHED_MAX, RollCall};
use crate::session::{OpenRoom, Session};

/// What a newer set takes the place of in an outbox. Keys of state values have no dot.
const PUSHED: &str = "presence.";

impl Shard {
    /// Answers who is in a room, unless this gateway is cut off: what it knows may be old, and rights, too.
    pub(super) fn answer_presence(&mut self, key: u32, id: Option<u32>, room: &Room) {
        let known = self.knows_presence();
        let Some(session) = self.session(key) else { return };
        // It may have waited for a room, and rights have changed since.
        let Some(permit) = session.presence(room) else {
            return self.refuse(key, id, &Refusal::forbidden());
        };
        let user = Arc::clone(session.user_name());
        if !known {
            return self.refuse(key, id, &presence_driver::unknown());
        }
        if id.is_some() {
            let set = self.shared.roll_call.set(&permit, &user, USERS_SHOWN_MAX);
            self.say(key, &ServerFrame::answer(id, server_frame::Body::Presence(set)));
        }
    }

    fn knows_presence(&self) -> bool {
        self.shared.hub.is_sure() && self.shared.roll_call.is_current()
    }

    fn session(&mut self, key: u32) -> Option<&mut Session> {
        let connection = self.connections.get_mut(key as usize);
        connection.and_then(Connection::session)
    }

    /// A client wants to be told who is in a room that it has open; it is told at once, and whenever that changes.
    pub(super) fn watch(&mut self, key: u32, room: &Room) {
        let Some(session) = self.session(key) else { return };
        let place = (session.tenant().clone(), room.clone());
        // Refused or closed again in between: then nothing is watched either.
        let Some(open) = session.slot(room).and_then(|slot| session.rooms.get_mut(slot)) else {
            return;
        };
        open.watched = true;
        self.watchers.entry(place.clone()).or_default().insert(key);
        self.push_presence(&place, &[key]);
    }

    /// These rooms look different.
    pub(super) fn presence_changed(&mut self, places: &HashSet<Place>) {
        for place in places {
            if let Some(watchers) = self.watchers.get(place) {
                let keys: Vec<u32> = watchers.iter().copied().collect();
                self.push_presence(place, &keys);
            }
        }
    }

    /// Pushes to those whose rights still allow it, decided at this moment; made once for all who see the same. A client that is slow
    /// gets the newest set alone.
    fn push_presence(&mut self, place: &Place, keys: &[u32]) {
        // Whoever is not told now is told when this gateway is heard again.
        if !self.knows_presence() {
            return;
        }
        let room = place.1.clone();
        let class = Class::State(StateKey {
            room,
            key: PUSHED.into(),
        });
        let mut made: HashMap<(u128, Option<Arc<str>>), Ready> = HashMap::new();
        let mut frames: Vec<(u32, Bytes)> = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(connection) = self.connections.get_mut(*key as usize) else {
                continue;
            };
            let encoding = connection.encoding;
            let Some(session) = connection.session() else {
                continue;
            };
            let Some(permit) = session.presence(&place.1) else {
                continue;
            };
            let audiences = permit.audiences();
            let alone = audiences.without_roles().then(|| Arc::clone(session.user_name()));
            let ready = made.entry((audiences.bits(), alone)).or_insert_with(|| {
                let set = self.shared.roll_call.set(&permit, session.user(), PUSHED_MAX);
                Ready::new(&ServerFrame::push(server_frame::Body::Presence(set)))
            });
            frames.push((*key, ready.in_encoding(encoding).clone()));
        }
        for (key, frame) in frames {
            self.queue(key, frame, class.clone());
        }
    }

    /// Counts a client's user as present in all that it has open, as this policy shows it and with the roles that it has now.
    pub(super) fn count_again(&mut self, key: u32, policy: &Policy) {
        let (roll_call, now) = (self.shared.roll_call.clone(), self.now.unix_millis);
        let Some(session) = self.session(key) else { return };
        let who = Who::of(session);
        for open in &mut session.rooms {
            who.count(open, policy, &roll_call, now);
        }
    }

    /// The same for one room.
    pub(super) fn count_in(&mut self, key: u32, slot: usize) {
        let in_force = self.shared.gate.rights().now();
        let connection = self.connections.get_mut(key as usize);
        let Some(session) = connection.and_then(Connection::session) else {
            return;
        };
        // Most rooms show nobody.
        let shows = |open: &OpenRoom| in_force.policy.shows_presence(&open.room);
        if !session.rooms.get(slot).is_some_and(shows) {
            return;
        }
        let who = Who::of(session);
        if let Some(open) = session.rooms.get_mut(slot) {
            let (roll_call, now) = (&self.shared.roll_call, self.now.unix_millis);
            who.count(open, &in_force.policy, roll_call, now);
        }
    }

    /// A room was closed, by whatever way: its user has one connection less there.
    pub(super) fn absent(&mut self, key: u32, tenant: &Tenant, user: &Arc<str>, open: &OpenRoom) {
        if !open.present && !open.watched {
            return;
        }
        let place = (tenant.clone(), open.room.clone());
        if open.present {
            self.shared.roll_call.leave(&place, user);
        }
        if open.watched
            && let Some(watchers) = self.watchers.get_mut(&place)
        {
            watchers.remove(&key);
            if watchers.is_empty() {
                self.watchers.remove(&place);
            }
        }
    }
}

/// Whom a connection stands for.
struct Who {
    tenant: Tenant,
    user: Arc<str>,
    roles: Arc<[String]>,
}

impl Who {
    fn of(session: &Session) -> Self {
        Self {
            tenant: session.tenant().clone(),
            user: Arc::clone(session.user_name()),
            roles: session.roles(),
        }
    }

    fn count(&self, open: &mut OpenRoom, policy: &Policy, roll_call: &RollCall, unix_millis: i64) {
        let shown = policy.shows_presence(&open.room);
        if !shown && !open.present {
            return;
        }
        let place = (self.tenant.clone(), open.room.clone());
        match (open.present, shown) {
            (false, _) => open.present = roll_call.enter(&place, &self.user, &self.roles, unix_millis),
            (true, true) => roll_call.roles_changed(&place, &self.user, &self.roles),
            (true, false) => {
                roll_call.leave(&place, &self.user);
                open.present = false;
            }
        }
    }
}
