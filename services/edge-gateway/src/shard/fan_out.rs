//! From one event to every member that may see it: the hot path.
//!
//! Everything that is the same for many members is done once: the room is looked up once per event, the decision who
//! may see it is made once per class of equal permits and encodings, the bytes are the delivery's own ready frame. What is left per
//! member is one comparison of positions and one `write(2)`. Events of one room that wait together go out as one write.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use roomcast_proto::cursor::Cursor;
use roomcast_proto::frame::{CaughtUp, Encoding, ServerFrame, server_frame};
use roomcast_proto::limits::QUIET_CAUGHT_UP_EVERY;
use smallvec::SmallVec;

use super::Shard;
use crate::connection::{Connection, Sent};
use crate::delivery::{Delivery, Kind};
use crate::encoding;
use crate::members::{Class as PermitClass, Member};
use crate::metrics::{Ending, Tally};
use crate::outbox::{self, Class};
use crate::session::Now;
use roomcast_proto::close::Close;

/// How often the walk over quiet rooms makes a step, milliseconds.
const SWEEP_MILLIS: u64 = 1_000;
/// A latency beyond this is a clock that disagrees, not a delay: positions carry 16 bits of milliseconds.
const LATENCY_MILLIS_MAX: u16 = 60_000;
/// Bytes written to one member at once, from several events. More are written in several pieces, so that what a slow
/// socket leaves over is cut where frames end.
const WIRE_BYTES_MAX: usize = 256 * 1024;

/// What the members of one class are sent for one batch of events.
struct Encoded {
    /// The events, as this class sees them.
    deliveries: SmallVec<[(Arc<Delivery>, Class); 4]>,
    /// How it is written to.
    encoding: Encoding,
    /// All frames one after another, when there are several.
    wire: Bytes,
    /// Where each ends.
    ends: SmallVec<[(usize, Class); 4]>,
}

impl Shard {
    /// Writes events to the members of their rooms, each room's in their order.
    pub(super) fn fan_out(&mut self, batch: &[Arc<Delivery>]) {
        let Some(last) = batch.iter().rev().find_map(|delivery| delivery.cursor()) else {
            return self.fan_out_rooms(batch);
        };
        self.fan_out_rooms(batch);
        self.head = Some(last);
        self.sample_latency(batch);
    }

    fn fan_out_rooms(&mut self, batch: &[Arc<Delivery>]) {
        match batch {
            [] => {}
            [one] => {
                if let Some(at) = self.members.find(&one.tenant, &one.room) {
                    self.fan_out_room(at, batch);
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
                    self.fan_out_room(at, &events);
                }
            }
        }
    }

    fn fan_out_room(&mut self, at: usize, events: &[Arc<Delivery>]) {
        let Some(entry) = self.members.room_mut(at) else {
            return;
        };
        let now = self.now;
        let limits = self.shared.limits.outbox;
        for (_, class) in &mut entry.classes {
            let hub = &self.shared.hub;
            let resolve =
                |delivery: &Arc<Delivery>| hub.resolve_withdrawn(&class.permit, delivery, now.unix_millis);
            let Some(encoded) = encode(class, events, resolve, now, &mut self.tally) else {
                continue;
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
                    Sent::Full => {
                        self.tally.outbox_full += 1;
                        self.ending
                            .push((member.connection, Ending::Closed(Close::TooSlow)));
                    }
                    Sent::Broken => self.ending.push((member.connection, Ending::Gone)),
                }
            }
        }
        while let Some(key) = self.blocked.pop() {
            self.schedule(key);
        }
    }

    /// One sample per batch: how long ago its oldest event was stored.
    fn sample_latency(&mut self, batch: &[Arc<Delivery>]) {
        let oldest = batch
            .iter()
            .find(|delivery| delivery.kind == Kind::Event)
            .and_then(|event| event.cursor());
        let Some(cursor) = oldest else { return };
        let now = u16::try_from(self.clock.now().unix_millis & 0xffff).unwrap_or(0);
        let millis = now.wrapping_sub(cursor.time_bits);
        if millis <= LATENCY_MILLIS_MAX {
            self.tally.latency_millis = Some(millis);
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
        let every = u64::try_from(QUIET_CAUGHT_UP_EVERY.as_millis()).unwrap_or(u64::MAX);
        let Some(entry) = self.members.room_mut(at) else {
            return;
        };
        for (_, class) in &mut entry.classes {
            if now.millis < class.told_millis + every || class.told == Some(head) {
                continue;
            }
            class.told_millis = now.millis;
            class.told = Some(head);
            let caught_up = CaughtUp {
                room: class.permit.room().as_str().to_owned(),
                cursor: head.to_string(),
            };
            let caught_up = ServerFrame::push(server_frame::Body::CaughtUp(caught_up));
            let frame = encoding::message(class.encoding, &caught_up);
            for member in &class.members {
                // Who recovered at a later head than this shard has reached knows more already.
                let ahead = member.skip.seq > head.position.seq || member.skip.rev > head.position.rev;
                if member.behind || ahead {
                    continue;
                }
                let Some(connection) = self.connections.get_mut(member.connection as usize) else {
                    continue;
                };
                match connection.send(&frame, Class::Answer, limits, now, &mut self.tally) {
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
            self.schedule(key);
        }
    }
}

/// What a class is sent; `None` when none of the events is for it.
fn encode(
    class: &PermitClass,
    events: &[Arc<Delivery>],
    resolve: impl Fn(&Arc<Delivery>) -> Arc<Delivery>,
    now: Now,
    tally: &mut Tally,
) -> Option<Encoded> {
    let mut deliveries: SmallVec<[(Arc<Delivery>, Class); 4]> = SmallVec::new();
    for event in events
        .iter()
        .filter(|event| event.visible(&class.permit, now.unix_millis))
    {
        let seen = match event.kind {
            Kind::State { withdrawn: true, .. } => resolve(event).for_class(&class.permit),
            _ => event.for_class(&class.permit),
        };
        match seen {
            Some(seen) => {
                let outbox_class = outbox_class(&seen.kind);
                deliveries.push((seen, outbox_class));
            }
            None => tally.unreadable += 1,
        }
    }
    let encoding = class.encoding;
    match deliveries.as_slice() {
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
                ends.push((wire.len(), *outbox_class));
            }
            Some(Encoded {
                encoding,
                wire: wire.freeze(),
                ends,
                deliveries,
            })
        }
    }
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
    let whole = encoded
        .deliveries
        .iter()
        .all(|(delivery, _)| !member.has(delivery));
    if whole && encoded.deliveries.len() > 1 && encoded.wire.len() <= WIRE_BYTES_MAX {
        tally.deliveries += encoded.deliveries.len() as u64;
        return connection.send_many(&encoded.wire, &encoded.ends, limits, now, tally);
    }
    let mut worst = Sent::All;
    for (delivery, class) in encoded
        .deliveries
        .iter()
        .filter(|(delivery, _)| !member.has(delivery))
    {
        match connection.send(delivery.frame(encoded.encoding), *class, limits, now, tally) {
            Sent::Full if *class == Class::Ephemeral => {
                tally.dropped_ephemeral += 1;
                continue;
            }
            Sent::All => {}
            Sent::Blocked => worst = Sent::Blocked,
            bad @ (Sent::Full | Sent::Broken) => return bad,
        }
        tally.deliveries += 1;
    }
    worst
}

/// What overflow may do to a delivery.
pub(super) fn outbox_class(kind: &Kind) -> Class {
    match kind {
        Kind::Event => Class::Event,
        Kind::State { .. } => Class::State,
        Kind::Ephemeral => Class::Ephemeral,
    }
}
