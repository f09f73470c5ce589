//! Counters and preferences in a shard: who wants to be told, and what it is told.

use roomcast_proto::frame::{PreferencesKept, ServerFrame, server_frame};

use super::Shard;
use crate::bells::Entering;
use crate::bells_driver::{Listener, Told};
use crate::encoding;
use crate::outbox::{Class, StateKey};

/// What newer ones take the place of in an outbox. Keys of state values have no dot.
const COUNTERS: &str = "counters.";
const PREFERENCES: &str = "preferences.";

impl Shard {
    /// A client wants to be told from now on, or has other rights than before.
    pub(super) fn listen(&mut self, key: u32) {
        let number = self.number;
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return;
        };
        let name = connection.name;
        let Some(session) = connection.session() else {
            return;
        };
        self.shared.bells.enter(Entering {
            name,
            to: Listener::Shard {
                shard: number,
                key,
                generation: session.generation(),
            },
            tenant: session.tenant().clone(),
            user: session.user_name().clone(),
            permits: session.counted_rooms(),
        });
    }

    /// Says what is not read, and how the user wants to be told where that is news. A client that is slow gets the newest alone.
    pub(super) fn ring(&mut self, told: Told) {
        let Some(connection) = self.connections.get_mut(told.key as usize) else {
            return;
        };
        if connection.name != told.name {
            return;
        }
        let encoding = connection.encoding;
        // Counted under rights that are over: it is on its way under those of now.
        let Some(session) = connection
            .session()
            .filter(|session| session.generation() == told.generation)
        else {
            return;
        };
        let (id, room) = (
            session.take_counters_id(),
            session.rights().personal_room().cloned(),
        );
        let class = |key: &str| match &room {
            Some(room) => Class::State(StateKey {
                room: room.clone(),
                key: key.into(),
            }),
            None => Class::Answer,
        };
        let counters = server_frame::Body::Counters(told.bell.counters);
        match id {
            Some(_) => self.say(told.key, &ServerFrame::answer(id, counters)),
            None => {
                let frame = encoding::message(encoding, &ServerFrame::push(counters));
                self.queue(told.key, frame, class(COUNTERS));
            }
        }
        if let Some(preferences) = told.bell.preferences.filter(|_| told.bell.prefers_anew) {
            let kept = PreferencesKept {
                version: told.bell.record,
                preferences: bytes::Bytes::copy_from_slice(preferences.as_bytes()),
            };
            let push = ServerFrame::push(server_frame::Body::Preferences(kept));
            self.queue(told.key, encoding::message(encoding, &push), class(PREFERENCES));
        }
    }
}
