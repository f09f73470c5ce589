//! Sockets that are taken in, and sockets that are watched for room.

use mio::{Interest, Token};
use roomcast_proto::close::Close;

use super::inbox::Arrival;
use super::{Shard, timers};
use crate::beat::Beat;
use crate::connection::{Connection, Stage};
use crate::metrics::Ending;
use crate::outbox;
use crate::session::Handshake;

impl Shard {
    /// Takes a socket in; its key, unless it is gone.
    pub(super) fn arrive(&mut self, arrival: Arrival) -> Option<u32> {
        let mut socket = arrival.socket;
        let entry = self.connections.vacant_entry();
        let key = entry.key();
        let (registry, token) = (self.poll.registry(), Token(key));
        let registered = match arrival.watched {
            true => registry.reregister(&mut socket, token, Interest::READABLE),
            false => registry.register(&mut socket, token, Interest::READABLE),
        };
        self.shared.metrics.connections.inc();
        if let Err(error) = registered {
            tracing::warn!(%error, "a socket cannot be watched: {error}");
            self.shared.metrics.ended(Ending::Gone);
            return None;
        }
        let within = self.shared.limits.authenticate_within.as_millis();
        let due = self
            .now
            .millis
            .saturating_add(u64::try_from(within).unwrap_or(u64::MAX));
        let Arrival {
            answer,
            mut early,
            admitted,
            encoding,
            place,
            stranger,
            accepted,
            stream,
            ..
        } = arrival;
        let stage = Stage::Handshake {
            handshake: Box::new(Handshake { admitted }),
            due,
        };
        let pace = timers::pace(&self.shared.limits, encoding);
        let beat = Beat::new(self.now.millis, pace, fastrand::u64(..));
        entry.insert(Connection::new(
            socket,
            stage,
            encoding,
            beat,
            accepted,
            (place, stranger),
        ));
        let key = u32::try_from(key).unwrap_or(u32::MAX);
        self.schedule(key);
        if !answer.is_empty() {
            self.queue(key, answer, outbox::Class::Last);
        }
        if let Some(stream) = stream {
            self.streams += 1;
            self.shared.metrics.streams.inc();
            self.begin_stream(key, *stream);
        } else if self.draining {
            self.end(key, Close::Drain);
        } else if !early.is_empty() {
            self.take_bytes(key, &mut early);
        }
        Some(key)
    }

    /// A socket takes no more: the system says when it does again, and the wheel looks whether that takes too long. Most sockets never
    /// get here, and are not asked to wake anybody up for that.
    pub(super) fn wait_for_room(&mut self, key: u32) {
        self.schedule(key);
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return;
        };
        if connection.stuck_at == 0 || connection.is_watched_for_room {
            return;
        }
        connection.is_watched_for_room = true;
        let interests = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        if let Err(error) = registry.reregister(&mut connection.socket, Token(key as usize), interests) {
            tracing::warn!(%error, "a socket cannot be watched: {error}");
            self.ending.push((key, Ending::Gone));
        }
    }
}
