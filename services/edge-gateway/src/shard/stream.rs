//! Streams of server-sent events: connections with one cursor for all their rooms.
//!
//! An `id` says "everything up to here, in every room of this connection". That holds because of three things done here: all
//! rooms begin at one cut and what was missed is merged into the stream's order; a long recovery goes on in all rooms
//! together, and nothing live is written before its end; live events are written one by one in the hub's order, where sockets get
//! those of one room together. A room that opens later, by a grant, begins at a cut of its own: what it says has no `id`.

use std::sync::Arc;

use bytes::Bytes;
use roomcast_access::Subscribe;
use roomcast_proto::close::Close;
use roomcast_proto::cursor::Cursor;
use roomcast_proto::frame::{CaughtUp, ServerFrame, server_frame};

use super::fan_out::To;
use super::{Shard, Ticket};
use crate::connection::{Connection, Waiting};
use crate::delivery::Delivery;
use crate::encoding::{self, Encoding};
use crate::hub::{OfRoom, Outcome, Recovered, Recovery, Together};
use crate::metrics::Ending;
use crate::outbox::Class;
use crate::session::{From, Opening, StreamRequest};
use crate::sse;

/// A request for a stream, admitted, whose answer has not begun.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The head of the answer.
    pub head: Bytes,
    /// What was asked for.
    pub request: StreamRequest,
}

impl Shard {
    /// Answers a request for a stream and opens its rooms.
    pub(super) fn begin_stream(&mut self, key: u32, stream: Stream) {
        self.queue(key, stream.head, Class::Last);
        if self.draining {
            return self.end(key, Close::Drain);
        }
        self.take_request(key, stream.request);
    }

    /// Opens all rooms of a stream at one cut, or waits for the hub.
    pub(super) fn open_stream(&mut self, key: u32, opening: Opening, ticket: u64) {
        let waiter = self.waiter(ticket);
        let permits: Vec<Arc<Subscribe>> = opening
            .rooms
            .iter()
            .filter_map(|asked| asked.permit.as_ref().ok().cloned())
            .collect();
        let open = opening.rooms.iter().filter(|asked| asked.permit.is_ok());
        let from: Vec<From> = open.map(|asked| asked.from).collect();
        let cursors: Vec<Option<Cursor>> = from
            .iter()
            .map(|from| match from {
                From::At(cursor) => Some(*cursor),
                From::Fresh | From::Unreadable | From::Rewind { .. } => None,
            })
            .collect();
        let recovery = self.shared.hub.recover_all(
            &permits,
            &cursors,
            self.page_and_one(),
            waiter,
            self.now.unix_millis,
        );
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return;
        };
        if matches!(recovery, Recovery::Wait) {
            self.tickets.insert(ticket, Ticket::Opening(key));
            connection.waiting = Some(Box::new(Waiting {
                ticket,
                opening,
                queue: Vec::new(),
            }));
            return;
        }
        self.tickets.remove(&ticket);
        self.shared.hub.forget(waiter);
        let Recovery::Done(mut together) = recovery else {
            // With one cursor a room cannot be left out for the moment: it would be taken for read.
            return self.end(key, Close::Resync);
        };
        for (room, _) in from
            .iter()
            .enumerate()
            .filter(|(_, from)| **from == From::Unreadable)
        {
            together.say_unreadable(room);
        }
        let head = together.head;
        let mut begun = together.rooms.iter().zip(&permits);
        let found: Vec<_> = opening
            .rooms
            .iter()
            .map(|asked| {
                let permit = asked.permit.clone()?;
                let start = begun.next().map(|(begun, _)| *begun);
                let recovered = Recovered {
                    recovery: start.map_or(Outcome::Fresh, |begun| begun.recovery),
                    start: start.map_or(head, |begun| begun.start),
                    events: Vec::new(),
                    state: Vec::new(),
                    head,
                };
                Ok((permit, recovered))
            })
            .collect();
        self.say_connected(key, &opening, &found);
        for (asked, found) in opening.rooms.iter().zip(&found) {
            if let Ok((permit, _)) = found {
                self.take_seat(key, permit, head.position, asked.requested);
            }
        }
        self.stream_page(key, &permits, &together);
    }

    /// Queues missed events of all rooms, then state, then `caughtUp` of each; of many events only a page.
    fn stream_page(&mut self, key: u32, permits: &[Arc<Subscribe>], together: &Together) {
        let page = together.page(self.shared.limits.page_events, usize::MAX);
        self.queue_all(key, permits, &page.events, together.is_shared());
        if page.behind.is_none() {
            self.queue_all(key, permits, &together.state, true);
            for permit in permits {
                self.say_caught_up_at(key, permit, together.head);
            }
        }
        let Some(session) = self
            .connections
            .get_mut(key as usize)
            .and_then(Connection::session)
        else {
            return;
        };
        let mut behind = page.behind.into_iter().flatten();
        for room in &mut session.rooms {
            room.behind = behind.next().map(Box::new);
            if let Some(member) = self.members.member_mut(room.seat) {
                member.behind = room.behind.is_some();
                member.skip = together.head.position;
            }
        }
    }

    /// `placed`: where the client is behind each of them counts for all rooms.
    fn queue_all(&mut self, key: u32, permits: &[Arc<Subscribe>], deliveries: &[OfRoom], placed: bool) {
        for (room, delivery) in deliveries {
            let Some(permit) = permits.get(*room) else {
                continue;
            };
            match delivery.for_class(permit) {
                None => self.tally.unreadable += 1,
                Some(seen) if placed => self.queue(key, seen.frame(Encoding::Sse).clone(), Class::Recovery),
                Some(seen) => self.queue(key, sse::event(None, &seen.text()), Class::Recovery),
            }
        }
    }

    /// Says that everything up to `head` was said, in all rooms.
    fn say_caught_up_at(&mut self, key: u32, permit: &Subscribe, head: Cursor) {
        let cursor = self.write_cursor(permit.tenant(), &head);
        let caught_up = CaughtUp {
            room: permit.room().as_str().to_owned(),
            cursor: cursor.clone(),
        };
        let frame = ServerFrame::push(server_frame::Body::CaughtUp(caught_up));
        self.queue(
            key,
            encoding::message_at(Encoding::Sse, &frame, &cursor),
            Class::Recovery,
        );
    }

    /// Goes on with a long recovery in all rooms.
    pub(super) fn next_stream_page(&mut self, key: u32) {
        let Some(session) = self
            .connections
            .get_mut(key as usize)
            .and_then(Connection::session)
        else {
            return;
        };
        if session.rooms.iter().all(|room| room.behind.is_none()) {
            return;
        }
        let (permits, from): (Vec<Arc<Subscribe>>, Vec<Option<Cursor>>) = session
            .rooms
            .iter()
            .filter_map(|room| {
                Some((
                    self.members.permit(room.seat).cloned()?,
                    room.behind.as_deref().copied(),
                ))
            })
            .unzip();
        let ticket = self.new_ticket();
        let waiter = self.waiter(ticket);
        let recovery =
            self.shared
                .hub
                .recover_all(&permits, &from, self.page_and_one(), waiter, self.now.unix_millis);
        match recovery {
            Recovery::Done(together) if together.is_complete() => {
                self.stream_page(key, &permits, &together);
            }
            Recovery::Done(_) | Recovery::Unavailable | Recovery::Rate(_) => {
                self.ending.push((key, Ending::Closed(Close::Resync)));
            }
            Recovery::Wait => {
                self.tickets.insert(ticket, Ticket::Page(key));
                if let Some(connection) = self.connections.get_mut(key as usize) {
                    connection.page_ticket = ticket;
                }
            }
        }
    }

    /// A room that opens while the others are in a long recovery goes through the rest of it with them: its live events would
    /// carry cursors that the others have not reached.
    pub(super) fn fall_in_behind(&mut self, key: u32, slot: usize, head: Cursor) {
        let Some(session) = self
            .connections
            .get_mut(key as usize)
            .and_then(Connection::session)
        else {
            return;
        };
        let is_behind = session.rooms.iter().any(|room| room.behind.is_some());
        let Some(open) = session.rooms.get_mut(slot).filter(|_| is_behind) else {
            return;
        };
        open.behind = Some(Box::new(head));
        if let Some(member) = self.members.member_mut(open.seat) {
            member.behind = true;
        }
    }

    /// Writes events to members over server-sent events, each before the next, whichever room it is of.
    pub(super) fn fan_out_streams(&mut self, batch: &[Arc<Delivery>]) {
        if self.streams == 0 {
            return;
        }
        for delivery in batch {
            if let Some(at) = self.members.find(&delivery.tenant, &delivery.room) {
                self.fan_out_room(at, std::slice::from_ref(delivery), To::Streams);
            }
        }
    }
}
