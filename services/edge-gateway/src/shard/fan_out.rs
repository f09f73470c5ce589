//! From one event to every member that may see it: the hot path.
//!
//! Everything that is the same for many members is done once: the room is looked up once per event, the decision who
//! may see it is made once per class of equal permits and encodings, the bytes are the delivery's own ready frame. What is left per
//! member is one comparison of positions and one `write(2)`. Events of one room that come in one turn, or are gathered
//! while the room is busy (`gather`), go out as one write.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use roomcast_proto::cursor::Cursor;
use roomcast_proto::frame::{CaughtUp, ServerFrame, server_frame};
use smallvec::SmallVec;

use super::Shard;
use crate::connection::{Connection, Sent};
use crate::delivery::{Delivery, Kind};
use crate::encoding::{self, Encoding};
use crate::gather::Turn;
use crate::members::{Class as PermitClass, Member};
use crate::metrics::{Ending, RoomClass, Tally};
use crate::outbox::{self, Class, StateKey};
use crate::session::Now;
use crate::traces;
use roomcast_proto::close::Close;

/// How often the walk over quiet rooms makes a step, milliseconds.
const SWEEP_MILLIS: u64 = 1_000;
/// A latency beyond this is a clock that disagrees, not a delay: positions carry 16 bits of milliseconds.
const LATENCY_MILLIS_MAX: u16 = 60_000;
/// Bytes written to one member at once, from several events. More are written in several pieces, so that what a slow
/// socket leaves over is cut where frames end.
const WIRE_BYTES_MAX: usize = 256 * 1024;

/// Which members of a room are written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// Those with a WebSocket, who have a cursor per room.
    Sockets,
    /// Those with a stream of server-sent events, who have one for all.
    Streams,
}

/// What the members of one class are sent for one batch of events.
struct Encoded {
    /// The events, as this class sees them.
    deliveries: Seen,
    /// How it is written to.
    encoding: Encoding,
    /// All frames one after another, when there are several.
    wire: Bytes,
    /// Where each ends.
    ends: SmallVec<[(usize, Class); 4]>,
}

/// What holds after a withdrawal cannot be said: the room's values are not in memory, and several audiences have some.
#[derive(Debug)]
struct Unresolved;

/// Events as one class sees them, and what overflow may do to each.
type Seen = SmallVec<[(Arc<Delivery>, Class); 4]>;

impl Shard {
    /// Hands events to their rooms, each room's in their order: they are written now, or gathered.
    pub(super) fn fan_out(&mut self, batch: &[Arc<Delivery>]) {
        self.fan_out_streams(batch);
        match batch {
            [] => return,
            [one] => {
                if let Some(at) = self.members.find(&one.tenant, &one.room) {
                    self.offer(at, batch);
                }
            }
            many => {
                // Few rooms have members here and few events wait together, so a plain list is the fastest index.
                let mut rooms: SmallVec<[(usize, Vec<Arc<Delivery>>); 8]> = SmallVec::new();
                for delivery in many {
                    let Some(at) = self.members.find(&delivery.tenant, &delivery.room) else {
                        continue;
                    };
                    match rooms.iter_mut().find(|(room, _)| *room == at) {
                        Some((_, events)) => events.push(Arc::clone(delivery)),
                        None => rooms.push((at, vec![Arc::clone(delivery)])),
                    }
                }
                for (at, events) in rooms {
                    self.offer(at, &events);
                }
            }
        }
        if let Some(last) = batch.iter().rev().find_map(|delivery| delivery.cursor()) {
            self.head = Some(last);
        }
    }

    fn offer(&mut self, at: usize, events: &[Arc<Delivery>]) {
        match self
            .members
            .offer(at, events, self.now.millis, self.window_millis)
        {
            Some(Turn::AtOnce) => {
                self.tally.flushes_at_once += 1;
                self.fan_out_room(at, events, To::Sockets);
            }
            Some(Turn::From(due)) => self.gathering.push(Reverse((due, at))),
            Some(Turn::Full) => self.flush_room(at),
            Some(Turn::Waits) | None => {}
        }
    }

    fn flush_room(&mut self, at: usize) {
        let events = self
            .members
            .take_gathered(at, self.now.millis, self.window_millis);
        self.tally.flushes_gathered += 1;
        self.fan_out_room(at, &events, To::Sockets);
    }

    /// Writes what rooms have gathered for a window.
    pub(super) fn flush_due(&mut self) {
        self.flush_until(self.now.millis);
    }

    /// Writes all that rooms have gathered, and gathers no more: this shard is going down.
    pub(super) fn stop_gathering(&mut self) {
        self.window_millis = 0;
        self.flush_until(u64::MAX);
    }

    fn flush_until(&mut self, millis: u64) {
        while let Some(Reverse((due, at))) = self.gathering.peek().copied() {
            if due > millis {
                return;
            }
            self.gathering.pop();
            // The room may have been flushed because it was full, or be another one by now.
            if self.members.is_due(at, due) {
                self.flush_room(at);
            }
        }
    }

    pub(super) fn fan_out_room(&mut self, at: usize, events: &[Arc<Delivery>], to: To) {
        let Some(entry) = self.members.room_mut(at) else {
            return;
        };
        let now = self.now;
        let limits = self.shared.limits.outbox;
        let concerned = |class: &PermitClass| (class.encoding == Encoding::Sse) == (to == To::Streams);
        let anybody = || entry.classes.iter().any(|(_, class)| concerned(class));
        let written = traces::Written::begin(events, self.tally.deliveries, anybody);
        let mut unresolved: Vec<u32> = Vec::new();
        let before = self.tally.deliveries;
        for (_, class) in &mut entry.classes {
            if !concerned(class) {
                continue;
            }
            let hub = &self.shared.hub;
            let resolve =
                |delivery: &Arc<Delivery>| hub.resolve_withdrawn(&class.permit, delivery, now.unix_millis);
            let encoded = match encode(class, events, resolve, now, &mut self.tally) {
                Ok(Some(encoded)) => encoded,
                Ok(None) => continue,
                Err(Unresolved) => {
                    unresolved.extend(class.members.iter().map(|member| member.connection));
                    continue;
                }
            };
            class.told_millis = now.millis;
            for member in &class.members {
                let Some(connection) = self.connections.get_mut(member.connection as usize) else {
                    continue;
                };
                let sent = deliver(connection, member, &encoded, limits, now, &mut self.tally);
                match sent {
                    Sent::All => {}
                    Sent::Blocked => self.blocked.push(member.connection),
                    Sent::Full => self
                        .ending
                        .push((member.connection, Ending::Closed(Close::TooSlow))),
                    Sent::Broken => self.ending.push((member.connection, Ending::Gone)),
                }
            }
        }
        while let Some(key) = self.blocked.pop() {
            self.wait_for_room(key);
        }
        if let Some(written) = written {
            written.end(events.len(), self.tally.deliveries, to == To::Streams);
        }
        if self.tally.deliveries > before {
            self.written_millis = now.millis;
        }
        for key in unresolved {
            self.have_come_back(key);
        }
        self.sample_latency(events);
    }

    /// Ends a connection that cannot be told what comes next; nothing live goes to it any more, so its cursors stay before that.
    fn have_come_back(&mut self, key: u32) {
        let session = self
            .connections
            .get_mut(key as usize)
            .and_then(Connection::session);
        let rooms = session.map_or(&[][..], |session| &session.rooms);
        for room in rooms {
            if let Some(member) = self.members.member_mut(room.seat) {
                member.behind = true;
            }
        }
        self.ending.push((key, Ending::Closed(Close::Resync)));
    }

    /// How long ago the oldest event of a flush was stored; of several flushes in a turn the longest counts.
    fn sample_latency(&mut self, events: &[Arc<Delivery>]) {
        let oldest = events
            .iter()
            .find(|delivery| delivery.kind == Kind::Event)
            .and_then(|event| event.cursor());
        let Some(cursor) = oldest else { return };
        let now = u16::try_from(self.clock.now().unix_millis & 0xffff).unwrap_or(0);
        let millis = now.wrapping_sub(cursor.time_bits);
        if millis <= LATENCY_MILLIS_MAX {
            let class = events
                .first()
                .map_or(RoomClass::Shared, |event| RoomClass::of(&event.room));
            let longest = &mut self.tally.latency_millis[class as usize];
            *longest = (*longest).max(Some(millis));
        }
    }

    /// Tells quiet rooms a newer cursor, a part of the rooms at each step, so that everybody is told within a minute
    /// and never everybody at once.
    pub(super) fn sweep_quiet_rooms(&mut self) {
        if self.now.millis < self.swept_millis + SWEEP_MILLIS {
            return;
        }
        self.swept_millis = self.now.millis;
        let Some(head) = self.head else { return };
        let places = self.members.places_max();
        // Twice round a minute: a room is told at 60 s to 90 s of quiet, more often 60.
        let step = places / 30 + 64;
        for at in self.sweep_at..(self.sweep_at + step).min(places) {
            self.tell_quiet(at, head);
        }
        self.sweep_at = if self.sweep_at + step >= places {
            0
        } else {
            self.sweep_at + step
        };
    }

    fn tell_quiet(&mut self, at: usize, head: Cursor) {
        let (now, limits) = (self.now, self.shared.limits.outbox);
        let every = u64::try_from(self.shared.limits.quiet_every.as_millis()).unwrap_or(u64::MAX);
        let Some(entry) = self.members.room_mut(at).filter(|entry| !entry.gathers()) else {
            return;
        };
        for (_, class) in &mut entry.classes {
            if now.millis < class.told_millis + every || class.told == Some(head) {
                continue;
            }
            class.told_millis = now.millis;
            class.told = Some(head);
            let cursor = self.shared.hub.cursors().write(class.permit.tenant(), &head);
            let caught_up = CaughtUp {
                room: class.permit.room().as_str().to_owned(),
                cursor: cursor.to_string(),
            };
            let caught_up = ServerFrame::push(server_frame::Body::CaughtUp(caught_up));
            // On a stream this counts for all its rooms: it was written everything up to `head` before.
            let frame = encoding::message_at(class.encoding, &caught_up, cursor.as_str());
            for member in &class.members {
                // Who recovered at a later head than this shard has reached knows more already.
                let ahead = member.skip.seq > head.position.seq || member.skip.rev > head.position.rev;
                if member.behind || ahead {
                    continue;
                }
                let Some(connection) = self.connections.get_mut(member.connection as usize) else {
                    continue;
                };
                match connection.send(&frame, &Class::Answer, limits, now, &mut self.tally) {
                    Sent::All => {}
                    Sent::Blocked => self.blocked.push(member.connection),
                    Sent::Full => self
                        .ending
                        .push((member.connection, Ending::Closed(Close::TooSlow))),
                    Sent::Broken => self.ending.push((member.connection, Ending::Gone)),
                }
            }
        }
        while let Some(key) = self.blocked.pop() {
            self.wait_for_room(key);
        }
    }
}

/// What a class is sent; nothing when none of the events is for it.
fn encode(
    class: &PermitClass,
    events: &[Arc<Delivery>],
    resolve: impl Fn(&Arc<Delivery>) -> Option<Arc<Delivery>>,
    now: Now,
    tally: &mut Tally,
) -> Result<Option<Encoded>, Unresolved> {
    let encoding = class.encoding;
    let deliveries = seen(class, events, resolve, now, tally)?;
    Ok(match deliveries.as_slice() {
        [] => None,
        [(one, _)] => {
            let wire = one.frame(encoding).clone();
            Some(Encoded {
                deliveries,
                encoding,
                wire,
                ends: SmallVec::new(),
            })
        }
        many => {
            let frames = many.iter().map(|(delivery, _)| delivery.frame(encoding));
            let mut wire = BytesMut::with_capacity(frames.map(Bytes::len).sum());
            let mut ends = SmallVec::with_capacity(many.len());
            for (delivery, outbox_class) in many {
                wire.extend_from_slice(delivery.frame(encoding));
                ends.push((wire.len(), outbox_class.clone()));
            }
            Some(Encoded {
                encoding,
                wire: wire.freeze(),
                ends,
                deliveries,
            })
        }
    })
}

/// The events that a class may see, as it sees them; of each key's values only the newest.
fn seen(
    class: &PermitClass,
    events: &[Arc<Delivery>],
    resolve: impl Fn(&Arc<Delivery>) -> Option<Arc<Delivery>>,
    now: Now,
    tally: &mut Tally,
) -> Result<Seen, Unresolved> {
    let visible = events
        .iter()
        .filter(|event| event.visible(&class.permit, now.unix_millis));
    let visible: SmallVec<[&Arc<Delivery>; 8]> = visible.collect();
    let newest = newest_values(&visible);
    tally.conflated += ((visible.len() - newest.len()) * class.members.len()) as u64;
    let mut deliveries = Seen::new();
    for event in newest {
        let seen = match event.kind {
            Kind::State { withdrawn: true, .. } => resolve(event).ok_or(Unresolved)?.for_class(&class.permit),
            _ => event.for_class(&class.permit),
        };
        match seen {
            Some(seen) => {
                let outbox_class = outbox_class(&seen);
                deliveries.push((seen, outbox_class));
            }
            None => tally.unreadable += 1,
        }
    }
    Ok(deliveries)
}

/// Leaves out values with a newer one of their key behind them. Between the two a cursor may say that the older one was
/// delivered: who comes back with it gets the newer one.
fn newest_values<'a>(events: &[&'a Arc<Delivery>]) -> SmallVec<[&'a Arc<Delivery>; 8]> {
    if events.len() < 2 {
        return events.into();
    }
    let mut keys: HashSet<&str> = HashSet::new();
    let mut newest: SmallVec<[&Arc<Delivery>; 8]> = SmallVec::new();
    for event in events.iter().rev() {
        match &event.kind {
            Kind::State { key, .. } if !keys.insert(key) => {}
            _ => newest.push(event),
        }
    }
    newest.reverse();
    newest
}

/// Writes to one member what it does not have yet.
fn deliver(
    connection: &mut Connection,
    member: &Member,
    encoded: &Encoded,
    limits: outbox::Limits,
    now: Now,
    tally: &mut Tally,
) -> Sent {
    if member.behind {
        return Sent::All;
    }
    let all = encoded.deliveries.len();
    let missing = || {
        let deliveries = encoded.deliveries.iter();
        deliveries.filter(|(delivery, _)| !member.has(delivery))
    };
    let count = missing().count();
    tally.deliveries += count as u64;
    if count == all && all > 1 && encoded.wire.len() <= WIRE_BYTES_MAX {
        return connection.send_many(&encoded.wire, &encoded.ends, limits, now, tally);
    }
    if count < 2 {
        return missing().next().map_or(Sent::All, |(delivery, class)| {
            connection.send(delivery.frame(encoded.encoding), class, limits, now, tally)
        });
    }
    let blocked = connection.is_blocked();
    for (delivery, class) in missing() {
        let frame = delivery.frame(encoded.encoding).clone();
        if connection.queue(frame, class.clone(), limits, tally) == Sent::Full {
            return Sent::Full;
        }
    }
    if blocked {
        return Sent::Blocked;
    }
    connection.flush(now, tally)
}

/// What overflow may do to a delivery.
fn outbox_class(delivery: &Delivery) -> Class {
    match &delivery.kind {
        Kind::Event => Class::Event,
        Kind::State { key, .. } => Class::State(StateKey {
            room: delivery.room.clone(),
            key: Arc::clone(key),
        }),
        Kind::Ephemeral => Class::Ephemeral,
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod policies;
