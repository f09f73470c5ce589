//! Sockets that are taken in, and sockets that are watched for room.

use mio::{Interest, Token};
use roomcast_proto::close::Close;

use super::inbox::Arrival;
use super::newcomers::NEWCOMER;
use super::{Shard, timers};
use crate::beat::Beat;
use crate::connection::{Connection, Stage, Watched};
use crate::metrics::Ending;
use crate::outbox;
use crate::session::Handshake;

impl Shard {
    /// Takes a socket in; its key, unless it is gone.
    pub(super) fn arrive(&mut self, arrival: Arrival) -> Option<u32> {
        let mut socket = arrival.socket;
        let entry = self.connections.vacant_entry();
        let key = u32::try_from(entry.key()).unwrap_or(u32::MAX);
        self.shared.metrics.connections.inc();
        if arrival.watched {
            // It was as a newcomer, under another key.
            let token = Token(key as usize);
            let registered = self
                .poll
                .registry()
                .reregister(&mut socket, token, Interest::READABLE);
            if let Err(error) = registered {
                tracing::warn!(%error, "a socket cannot be watched: {error}");
                self.shared.metrics.ended(Ending::Gone);
                return None;
            }
        } else {
            self.strangers.watch_later(key);
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
        let connection = entry.insert(Connection::new(
            socket,
            stage,
            encoding,
            beat,
            accepted,
            (place, stranger),
        ));
        if arrival.watched {
            connection.watched = Watched::Bytes;
        }
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

    /// Has the system say what those send who came while nobody was let in; what they have sent since is told of at once.
    pub(super) fn watch_strangers(&mut self) {
        let registry = self.poll.registry();
        for key in self.strangers.take_unwatched() {
            let (token, place) = (Token(key as usize), (key & !NEWCOMER) as usize);
            let registered = if key & NEWCOMER == 0 {
                let connection = self.connections.get_mut(place);
                // It may be gone, and another one, watched already, in its place.
                let Some(connection) = connection.filter(|other| other.watched == Watched::Unwatched) else {
                    continue;
                };
                connection.watched = Watched::Bytes;
                registry.register(&mut connection.socket, token, Interest::READABLE)
            } else {
                let newcomer = self.newcomers.get_mut(place);
                let Some(newcomer) = newcomer.filter(|other| !other.newcomer.watched) else {
                    continue;
                };
                newcomer.newcomer.watched = true;
                registry.register(&mut newcomer.newcomer.socket, token, Interest::READABLE)
            };
            if let Err(error) = registered {
                tracing::warn!(%error, "a socket cannot be watched: {error}");
                match key & NEWCOMER {
                    0 => self.ending.push((key, Ending::Gone)),
                    _ => drop(self.newcomers.try_remove(place)),
                }
            }
        }
    }

    /// A socket takes no more: the system says when it does again, and the wheel looks whether that takes too long. Most sockets never
    /// get here, and are not asked to wake anybody up for that.
    pub(super) fn wait_for_room(&mut self, key: u32) {
        self.schedule(key);
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return;
        };
        if connection.stuck_at == 0 {
            return;
        }
        let interests = Interest::READABLE | Interest::WRITABLE;
        let (registry, token) = (self.poll.registry(), Token(key as usize));
        let registered = match std::mem::replace(&mut connection.watched, Watched::Room) {
            Watched::Unwatched => registry.register(&mut connection.socket, token, interests),
            Watched::Bytes => registry.reregister(&mut connection.socket, token, interests),
            Watched::Room => return,
        };
        if let Err(error) = registered {
            tracing::warn!(%error, "a socket cannot be watched: {error}");
            self.ending.push((key, Ending::Gone));
        }
    }
}
