//! One client as a state machine: messages and the passing of time go in, wishes come out.
//!
//! A connection begins as a [`Handshake`] and becomes a [`Session`] by its first message, which must be `connect` and
//! is the only one that can do that. The shard carries the wishes out: it writes, joins rooms, asks the hub. Nothing
//! here awaits, reads a clock or touches a socket. What a client was refused is one answer, the same for what is not
//! there and what is not its own.

use std::sync::Arc;
use std::time::Duration;

use roomcast_access::{Rights, Subscribe};
use roomcast_proto::close::Close;
use roomcast_proto::cursor::{Cursor, Cursors};
use roomcast_proto::frame::{
    BadFrame, ClientFrame, Connected, Expiring, RoomAnswer, ServerFrame, client_frame, server_frame,
};
use roomcast_proto::ids::{Room, Tenant};
use roomcast_proto::limits;
use roomcast_proto::refusal::{Code, Refusal};

use crate::asking::Ask;
use crate::bucket::{Bucket, Rate};
use crate::gate::{Admitted, Gate};
use crate::members::Seat;

mod again;
mod answers;
mod handshake;
mod refresh;
mod rooms;
mod two_way;
mod wish;

pub use again::Verdict;
use answers::{answer_to, forbid, refuse, refused_frame, too_many};
pub use answers::{ping, rfc3339, status_word};
pub use handshake::{Failed, Handshake, stream_rooms};
use rooms::{asked, joined_by_policy, permit, rewound};
pub use two_way::{counted_rooms, doing, notifications, order, own_event, who};
pub use wish::{Asked, From, Kind, Opening, Reading, StreamRequest, Wish};

/// Longest `client` text kept of a `connect`, bytes.
pub const CLIENT_BYTES_MAX: usize = 128;

/// What one session may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rooms that a client may ask for; rooms joined by the policy do not count.
    pub subscriptions_max: usize,
    /// Rooms that its `connect` may name.
    pub rooms_max: usize,
    /// Bytes of a message; it is told.
    pub message_bytes_max: usize,
    /// Messages.
    pub requests: Rate,
    /// Activity; what is more is dropped and counted.
    pub activity: Rate,
    /// How cursors are read.
    pub cursors: Cursors,
    /// How often the client is pinged; it is told.
    pub ping_every: Duration,
}

/// The two clocks, read once per turn of the shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Milliseconds on a clock that never jumps.
    pub millis: u64,
    /// Unix milliseconds.
    pub unix_millis: i64,
}

impl Now {
    /// Unix seconds.
    #[must_use]
    pub fn unix_secs(self) -> i64 {
        self.unix_millis.div_euclid(1000)
    }
}

/// A room that is open.
#[derive(Debug)]
pub struct OpenRoom {
    /// Its name.
    pub room: Room,
    /// The place among its members.
    pub seat: Seat,
    /// Whether it counts against the limit.
    pub requested: bool,
    /// Whether the user is counted as present there.
    pub present: bool,
    /// Whether the client is told who is there.
    pub watched: bool,
    /// Set while a long recovery is still being sent: the last cursor that was.
    pub behind: Option<Box<Cursor>>,
}

/// A connected client.
#[derive(Debug)]
pub struct Session {
    limits: Limits,
    admitted: Admitted,
    /// The rooms that are open; slots move when one is closed, see [`Session::close`].
    pub rooms: Vec<OpenRoom>,
    requests: Bucket,
    activity: Bucket,
    expiring_said: bool,
    /// Grows whenever rights are decided again.
    generation: u32,
    /// Whether it is told what its user has not read.
    counted: bool,
    /// The request that the next counters answer.
    counters_id: Option<u32>,
}

/// What `connected` says beside the rooms.
#[derive(Clone, Debug)]
pub struct About {
    /// The connection's name.
    pub connection: String,
    /// First part of every cursor.
    pub epoch: String,
    /// How long a client may be away.
    pub resume_seconds: u64,
    /// Whether NATS is heard.
    pub stale: bool,
}

impl Session {
    fn new(admitted: Admitted, limits: Limits, requests: Bucket) -> Self {
        Self {
            limits,
            admitted,
            rooms: Vec::new(),
            requests,
            activity: Bucket::default(),
            expiring_said: false,
            generation: 0,
            counted: false,
            counters_id: None,
        }
    }

    /// Who was let in, and under what.
    #[must_use]
    pub fn admitted(&self) -> &Admitted {
        &self.admitted
    }

    /// The user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.admitted.user
    }

    /// The user, to be kept.
    #[must_use]
    pub fn user_name(&self) -> &Arc<str> {
        &self.admitted.user
    }

    /// What the user may do.
    #[must_use]
    pub fn rights(&self) -> &Rights {
        &self.admitted.rights
    }

    /// The roles that count.
    #[must_use]
    pub fn roles(&self) -> Arc<[String]> {
        Arc::clone(&self.admitted.roles)
    }

    /// When the token ends, Unix seconds.
    #[must_use]
    pub fn expires_at(&self) -> i64 {
        self.admitted.expires_at
    }

    /// The user's tenant.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        self.admitted.rights.tenant()
    }

    /// Answers a message that is not carried out with this refusal; it counts among all messages.
    pub fn refuse(&mut self, id: Option<u32>, refusal: &Refusal, now: Now, wishes: &mut Vec<Wish>) {
        if !self.requests.take(now.millis, 1, self.limits.requests) {
            return too_many(wishes);
        }
        refuse(id, refusal, wishes);
    }

    /// Whether the user may see now who is in a room.
    #[must_use]
    pub fn presence(&self, room: &Room) -> Option<roomcast_access::Presence> {
        self.admitted.rights.presence(room).ok()
    }

    /// The last second in which this session may live, Unix.
    #[must_use]
    pub fn ends_at(&self) -> i64 {
        self.admitted.ends_at
    }

    /// When the token must be looked at next, Unix seconds: to warn, then to end.
    #[must_use]
    pub fn next_at(&self) -> i64 {
        if self.expiring_said {
            self.admitted.ends_at
        } else {
            self.warn_at().min(self.admitted.ends_at)
        }
    }

    fn warn_at(&self) -> i64 {
        self.admitted.expires_at - i64::try_from(limits::EXPIRING_BEFORE.as_secs()).unwrap_or(0)
    }

    /// The place of a room in [`Session::rooms`].
    #[must_use]
    pub fn slot(&self, room: &Room) -> Option<usize> {
        self.rooms.iter().position(|open| open.room == *room)
    }

    /// Takes a room out. The last room takes its slot; the shard tells that one's seat.
    pub fn close(&mut self, slot: usize) -> OpenRoom {
        self.rooms.swap_remove(slot)
    }

    /// Decides about an opening again when rights have changed since: it may have waited for the hub.
    pub fn decide_opening(&self, opening: &mut Opening) {
        let is_unasked = opening.kind == Kind::Subscribed && opening.id.is_none();
        if is_unasked {
            // Those that were being opened when this was decided may be open by now.
            let is_open = |name: &str| self.rooms.iter().any(|open| open.room.as_str() == name);
            opening.rooms.retain(|asked| !is_open(&asked.name));
        }
        if opening.generation == self.generation {
            return;
        }
        opening.generation = self.generation;
        for asked in &mut opening.rooms {
            asked.permit = permit(&asked.name, &self.admitted.rights);
        }
        // Rooms that nobody asked for opened by themselves; those that are open no more are not spoken of.
        if is_unasked {
            opening
                .rooms
                .retain(|asked| asked.requested || asked.permit.is_ok());
        }
    }

    /// Whether a request for history is still permitted; its permit is the one of now afterwards.
    pub fn may_still_read(&self, reading: &mut Reading) -> bool {
        if reading.generation == self.generation {
            return true;
        }
        reading.generation = self.generation;
        match self.admitted.rights.history(reading.permit.room()) {
            Ok(permit) => {
                reading.permit = permit;
                true
            }
            Err(_) => false,
        }
    }

    /// Whether what was asked for may still be carried out: not under rights that have changed while it waited behind rooms that were
    /// being opened.
    #[must_use]
    pub fn may_still_ask(&self, ask: &Ask) -> bool {
        ask.generation == self.generation
    }

    /// The opening that sends the state of exchanged permits: the one before and the one of now of each room.
    #[must_use]
    pub fn exchange(&self, permits: Vec<(Arc<Subscribe>, Arc<Subscribe>)>) -> Opening {
        let asked = |(before, permit): (Arc<Subscribe>, Arc<Subscribe>)| Asked {
            name: permit.room().as_str().to_owned(),
            permit: Ok(permit),
            from: From::Fresh,
            requested: false,
            before: Some(before),
        };
        Opening {
            generation: self.generation,
            id: None,
            kind: Kind::Exchanged,
            rooms: permits.into_iter().map(asked).collect(),
        }
    }

    fn opening(&self, id: Option<u32>, rooms: Vec<Asked>) -> Wish {
        Wish::Open(Opening {
            generation: self.generation,
            id,
            kind: Kind::Subscribed,
            rooms,
        })
    }

    /// The answer to `connect`.
    #[must_use]
    pub fn connected(&self, about: About, rooms: Vec<RoomAnswer>, now: Now) -> Connected {
        Connected {
            connection: about.connection,
            user: self.admitted.user.as_ref().to_owned(),
            roles: self.admitted.roles.to_vec(),
            epoch: about.epoch,
            ping_seconds: u32::try_from(self.limits.ping_every.as_secs()).unwrap_or(u32::MAX),
            expires_at: rfc3339(self.admitted.expires_at.saturating_mul(1000)),
            server_time: rfc3339(now.unix_millis),
            status: status_word(about.stale).to_owned(),
            rooms,
            limits: Some(roomcast_proto::frame::ClientLimits {
                resume_seconds: u32::try_from(about.resume_seconds).unwrap_or(u32::MAX),
                subscriptions: u32::try_from(self.limits.subscriptions_max).unwrap_or(u32::MAX),
                message_bytes: u32::try_from(self.limits.message_bytes_max).unwrap_or(u32::MAX),
                event_bytes: u32::try_from(limits::EVENT_BYTES_MAX).unwrap_or(u32::MAX),
            }),
        }
    }

    /// Takes one message. `wishes` are appended in the order in which they are to be carried out.
    pub fn message(
        &mut self,
        frame: Result<ClientFrame, BadFrame>,
        gate: &Gate,
        now: Now,
        wishes: &mut Vec<Wish>,
    ) {
        use client_frame::Body;
        if !self.requests.take(now.millis, 1, self.limits.requests) {
            return too_many(wishes);
        }
        let frame = match frame {
            Ok(frame) => frame,
            Err(bad) => return refused_frame(bad, wishes),
        };
        let id = frame.id;
        match frame.body {
            Some(Body::Subscribe(subscribe)) => {
                let from = match (&subscribe.cursor, &subscribe.rewind) {
                    (None, Some(rewind)) => match rewound(rewind) {
                        Ok(from) => from,
                        Err(refusal) => return refuse(id, &refusal, wishes),
                    },
                    // Who has a place goes on from there.
                    (cursor, _) => self.from(cursor.as_deref()),
                };
                self.subscribe(id, &subscribe.room, from, wishes);
                self.watch_asked(&subscribe, wishes);
            }
            Some(Body::Unsubscribe(unsubscribe)) => self.unsubscribe(id, unsubscribe.room, wishes),
            Some(Body::History(history)) => self.history(id, &history, wishes),
            Some(Body::Refresh(refresh)) => self.refresh(id, &refresh.token, gate, now, wishes),
            Some(Body::Pong(_)) => {}
            Some(Body::Connect(_)) => {
                let refusal = Refusal::new(Code::BadFrame, "connect is said once");
                wishes.push(Wish::Say(ServerFrame::refuse(id, &refusal)));
                wishes.push(Wish::End(Close::Protocol));
            }
            Some(Body::Command(command)) => self.command(id, command, &gate.rights().now().policy, wishes),
            Some(Body::Publish(publish)) => self.publish(id, publish, &gate.rights().now().policy, wishes),
            Some(Body::Activity(activity)) => {
                self.activity(id, &activity, &gate.rights().now().policy, now, wishes)
            }
            Some(Body::Presence(query)) => self.presence_asked(id, &query.room, wishes),
            Some(Body::Feed(query)) => self.feed(id, &query, &gate.rights().now().policy, wishes),
            Some(Body::Mark(mark)) => self.mark(id, mark, &gate.rights().now().policy, wishes),
            Some(Body::Preferences(frame)) => {
                self.preferences(id, &frame, &gate.rights().now().policy, wishes);
            }
            Some(Body::Counters(_)) => self.counters(id, wishes),
            None => refuse(id, &Refusal::forbidden(), wishes),
        }
    }

    /// Looks at the token's end: warns once, then ends.
    pub fn passes(&mut self, now: Now, wishes: &mut Vec<Wish>) {
        let secs = now.unix_secs();
        if secs >= self.admitted.ends_at {
            return wishes.push(Wish::End(Close::Expired));
        }
        if !self.expiring_said && secs >= self.warn_at() {
            self.expiring_said = true;
            let expires_at = rfc3339(self.admitted.expires_at.saturating_mul(1000));
            wishes.push(Wish::Say(ServerFrame::push(server_frame::Body::Expiring(
                Expiring { expires_at },
            ))));
        }
    }
}

#[cfg(test)]
mod tests;
