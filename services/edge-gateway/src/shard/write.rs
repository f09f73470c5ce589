//! Bytes out that are not fan-out: answers, pushes of the protocol, and the end of a connection.

use std::sync::Arc;

use bytes::Bytes;
use roomcast_proto::close::Close;
use roomcast_proto::frame::{Disconnect, ServerFrame};

use super::{LINGER_MILLIS, Shard, timers};
use crate::backlog;
use crate::connection::{Connection, Sent, Stage};
use crate::encoding::{self, Encoding};
use crate::limit::Limit;
use crate::members::Seat;
use crate::metrics::Ending;
use crate::outbox::Class;
use crate::ws;

impl Shard {
    /// Queues a message; it leaves with the next flush.
    pub(super) fn say(&mut self, key: u32, frame: &ServerFrame) {
        if let Some(connection) = self.connections.get(key as usize) {
            self.queue(key, encoding::message(connection.encoding, frame), Class::Answer);
        }
    }

    /// Queues a ready frame; it leaves with the next flush.
    pub(super) fn queue(&mut self, key: u32, frame: Bytes, class: Class) {
        let limits = self.shared.limits.outbox;
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return;
        };
        match connection.queue(frame, class, limits, &mut self.tally) {
            Sent::Blocked => self.dirty.push(key),
            other => self.note(key, other),
        }
    }

    /// Writes what waits for a client.
    pub(super) fn flush(&mut self, key: u32) {
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return;
        };
        let sent = connection.flush(self.now, &mut self.tally);
        if sent != Sent::All {
            return self.note(key, sent);
        }
        match &mut connection.stage {
            // All is said: the other side's FIN, or the end of its time, drops the socket.
            Stage::Closing { .. } => drop(connection.socket.shutdown(std::net::Shutdown::Write)),
            Stage::Session(session) if session.rooms.iter().any(|room| room.behind.is_some()) => {
                self.pages.push_back(key)
            }
            _ => {}
        }
    }

    /// Ends a connection: leaves its rooms, says why, closes. The socket stays until the other side has gone, or 2 s.
    pub(super) fn end(&mut self, key: u32, close: Close) {
        let Some(connection) = self.connections.get(key as usize) else {
            return;
        };
        let (encoding, code) = (connection.encoding, close.code());
        let retry_after_ms = match (&self.drain, close) {
            (Some(pace), Close::Drain) => Some(pace.retry_after_millis(fastrand::u64(..))),
            // Others come back to a gateway that works, or to this one; not all in the same instant.
            (_, Close::Resync | Close::Kicked) => Some(fastrand::u64(100..2_000)),
            _ => None,
        };
        let disconnect = Disconnect {
            code: u32::from(code),
            reason: close.reason().to_owned(),
            reconnect: close.reconnect(),
            retry_after_ms,
        };
        // A client that does not read would not read what waits either; its cursor brings it back to it.
        let abandon = close == Close::TooSlow;
        let last = encoding::last_words(encoding, disconnect, close);
        #[cfg(all(feature = "echo", debug_assertions))]
        if matches!(connection.stage, Stage::Echo) {
            // Speaks RFC 6455 and nothing of ours.
            return self.close(key, Ending::Closed(close), abandon, &last[1..]);
        }
        self.close(key, Ending::Closed(close), abandon, &last);
    }

    /// Answers the client's own close frame.
    pub(super) fn answer_close(&mut self, key: u32, code: Option<u16>) {
        let echo = ws::close_frame(code.map(|code| (code, "")));
        self.close(key, Ending::Client, true, &[echo]);
    }

    pub(super) fn close(&mut self, key: u32, ending: Ending, abandon: bool, last_words: &[Bytes]) {
        if !self.leave_everything(key) {
            return;
        }
        self.shared.metrics.ended(ending);
        // Who reads slowly has as long for the last words as for everything else.
        let slow = ending == Ending::Closed(Close::TooSlow);
        let linger = match slow {
            true => timers::write_timeout_millis(&self.shared.limits).max(LINGER_MILLIS),
            false => LINGER_MILLIS,
        };
        let linger = self
            .drain
            .as_ref()
            .map_or(linger, |pace| pace.linger_millis().min(linger));
        let until = self.now.millis + linger;
        let limits = self.shared.limits.outbox;
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return;
        };
        connection.stage = Stage::Closing { until };
        connection.decoder = ws::Decoder::default();
        connection.stranger = None;
        if abandon {
            connection.abandon(&mut self.tally);
        }
        if slow {
            // Nothing was taken of what is dropped; that is not held against what is said now.
            connection.stuck_at = 0;
        }
        for frame in last_words {
            connection.queue(frame.clone(), Class::Last, limits, &mut self.tally);
        }
        self.flush(key);
        self.schedule(key);
    }

    /// Forgets a connection at once: it is broken, or has said goodbye.
    pub(super) fn drop_connection(&mut self, key: u32, ending: Ending) {
        if self.leave_everything(key) {
            self.shared.metrics.ended(ending);
        }
        if let Some(mut connection) = self.connections.try_remove(key as usize) {
            self.tally.waiting_bytes -= i64::try_from(connection.counted).unwrap_or(0);
            // Closing the descriptor would do; asking for it keeps the order of events certain.
            let _ = self.poll.registry().deregister(&mut connection.socket);
            if connection.encoding == Encoding::Sse {
                self.streams -= 1;
                self.shared.metrics.streams.dec();
            }
        }
    }

    /// Says how much waits here, and ends those who have to give way to all: the fattest first.
    pub(super) fn give_way(&mut self) {
        let by = std::mem::take(&mut self.tally.waiting_bytes);
        self.waiting_bytes += by;
        let own = usize::try_from(self.waiting_bytes).unwrap_or(0);
        let excess = self.shared.backlog.changed(by, own);
        if excess == 0 {
            return;
        }
        let open =
            |(_, connection): &(usize, &Connection)| !matches!(connection.stage, Stage::Closing { .. });
        let waiting = self.connections.iter().filter(open);
        let waiting = waiting
            .filter(|(_, connection)| connection.counted > 0)
            .map(|(key, connection)| {
                let key = u32::try_from(key).unwrap_or(u32::MAX);
                (connection.counted, connection.stuck_at, key)
            });
        for key in backlog::who_goes(waiting.collect(), excess) {
            self.shared.metrics.limited(Limit::Outboxes);
            self.end(key, Close::TooSlow);
        }
        self.settle();
        // What is free now is said at once, so that no other shard ends anybody for it. One look a turn is enough.
        let by = std::mem::take(&mut self.tally.waiting_bytes);
        self.waiting_bytes += by;
        let _ = self.shared.backlog.changed(by, 0);
    }

    /// Takes a connection out of its rooms and out of what the hub does for it. Whether it was open until now.
    fn leave_everything(&mut self, key: u32) -> bool {
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return false;
        };
        let name = connection.name;
        let waiting = connection.waiting.take().map(|waiting| waiting.ticket);
        let reading = connection.reading.take().map(|reading| reading.0);
        let page = Some(std::mem::take(&mut connection.page_ticket)).filter(|ticket| *ticket != 0);
        let rooms = match &mut connection.stage {
            Stage::Closing { .. } => return false,
            Stage::Handshake { .. } => None,
            #[cfg(all(feature = "echo", debug_assertions))]
            Stage::Echo => None,
            Stage::Session(session) => {
                if session.is_counted() {
                    self.shared.bells.leave(name);
                }
                let (tenant, user) = (session.tenant().clone(), Arc::clone(session.user_name()));
                Some((tenant, user, std::mem::take(&mut session.rooms)))
            }
        };
        for ticket in [waiting, reading, page].into_iter().flatten() {
            self.tickets.remove(&ticket);
            self.shared.hub.forget(self.waiter(ticket));
        }
        let Some((tenant, user, rooms)) = rooms else {
            return true;
        };
        for open in rooms {
            self.absent(key, &tenant, &user, &open);
            self.give_up(open.seat);
        }
        true
    }

    /// Takes a member out of its room and tells the one that got its seat.
    pub(super) fn give_up(&mut self, seat: Seat) {
        let left = self.members.leave(seat);
        if let Some((member, seat)) = left.moved {
            let session = self
                .connections
                .get_mut(member.connection as usize)
                .and_then(|other| other.session());
            if let Some(room) = session.and_then(|session| session.rooms.get_mut(member.slot as usize)) {
                room.seat = seat;
            }
        }
        if let Some(permit) = left.emptied {
            self.shared.hub.release(&permit);
        }
    }
}
