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
    BadFrame, ClientFrame, Connected, Expiring, Ping, Refreshed, Rewind, RoomAnswer, ServerFrame,
    Unsubscribed, client_frame, server_frame,
};
use roomcast_proto::ids::{Room, Tenant};
use roomcast_proto::limits;
use roomcast_proto::refusal::{Code, Refusal};

use crate::bucket::{Bucket, Rate};
use crate::gate::{self, Admitted, Gate};
use crate::limit::Limit;
use crate::members::Seat;

mod again;
mod handshake;
mod two_way;
mod wish;

pub use again::Verdict;
pub use handshake::{Failed, Handshake, stream_rooms};
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
        if opening.generation == self.generation {
            return;
        }
        opening.generation = self.generation;
        for asked in &mut opening.rooms {
            asked.permit = permit(&asked.name, &self.admitted.rights);
        }
        // Rooms that nobody asked for opened by themselves; those that are open no more are not spoken of.
        if opening.kind == Kind::Subscribed && opening.id.is_none() {
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

    /// The opening that sends the state of exchanged permits.
    #[must_use]
    pub fn exchange(&self, permits: Vec<Arc<Subscribe>>) -> Opening {
        let asked = |permit: Arc<Subscribe>| Asked {
            name: permit.room().as_str().to_owned(),
            permit: Ok(permit),
            from: From::Fresh,
            requested: false,
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

    fn subscribe(&mut self, id: Option<u32>, name: &str, from: From, wishes: &mut Vec<Wish>) {
        let asked = asked(name, from, &self.admitted.rights, true);
        let requested = self
            .rooms
            .iter()
            .filter(|open| open.requested && open.room.as_str() != name)
            .count();
        match &asked.permit {
            Err(refusal) => {
                wishes.push(Wish::Forbade("subscribe"));
                refuse(id, refusal, wishes);
            }
            Ok(_) if requested >= self.limits.subscriptions_max => {
                let refusal = Refusal::new(
                    Code::Limit,
                    format!("at most {} rooms", self.limits.subscriptions_max),
                );
                refuse(id, &refusal, wishes);
                wishes.push(Wish::Met(Limit::Subscriptions));
            }
            Ok(_) => wishes.push(self.opening(id, vec![asked])),
        }
    }

    fn from(&self, cursor: Option<&str>) -> From {
        From::read(self.limits.cursors, self.admitted.rights.tenant(), cursor)
    }

    fn unsubscribe(&mut self, id: Option<u32>, name: String, wishes: &mut Vec<Wish>) {
        if let Some(slot) = self.rooms.iter().position(|open| open.room.as_str() == name) {
            wishes.push(Wish::Leave(self.rooms[slot].room.clone()));
        }
        // The same answer for a room that was not open: nothing is said about what there is.
        let answer = Unsubscribed {
            room: name,
            code: None,
            reason: None,
        };
        answer_to(id, server_frame::Body::Unsubscribed(answer), wishes);
    }

    fn history(&self, id: Option<u32>, request: &roomcast_proto::frame::History, wishes: &mut Vec<Wish>) {
        let room = Room::parse(&request.room).ok();
        let permit = room.and_then(|room| self.admitted.rights.history(&room).ok());
        let Some(permit) = permit else {
            return forbid(id, "history", wishes);
        };
        let cursors = self.limits.cursors;
        let read = |text| cursors.read(self.admitted.rights.tenant(), text);
        let before = match request.before.as_deref().map(read) {
            None => None,
            Some(Ok(cursor)) => Some(cursor),
            Some(Err(_)) => {
                let refusal = Refusal::new(Code::BadRequest, "before is not a cursor").at("/history/before");
                return refuse(id, &refusal, wishes);
            }
        };
        let limit = if request.limit == 0 {
            limits::HISTORY_EVENTS_DEFAULT
        } else {
            request.limit
        };
        let limit = usize::try_from(limit.min(limits::HISTORY_EVENTS_MAX)).unwrap_or(1);
        wishes.push(Wish::Read(Reading {
            generation: self.generation,
            id,
            permit,
            before,
            limit,
        }));
    }

    fn refresh(&mut self, id: Option<u32>, token: &str, gate: &Gate, now: Now, wishes: &mut Vec<Wish>) {
        let admitted = match gate.admit(token, now.unix_secs()) {
            Ok(admitted) => admitted,
            Err(error) => return refuse(id, &gate::refusal(error), wishes),
        };
        match self.refreshed(admitted) {
            Ok(refreshed) => {
                answer_to(id, server_frame::Body::Refreshed(refreshed), wishes);
                self.decide_again(wishes);
            }
            Err(refusal) => refuse(id, &refusal, wishes),
        }
    }

    /// Goes on under a newer token that somebody else has verified, for a stream, which says nothing itself.
    ///
    /// # Errors
    /// `forbidden`: it is another user's.
    pub fn refresh_with(&mut self, admitted: Admitted, wishes: &mut Vec<Wish>) -> Result<Refreshed, Refusal> {
        let refreshed = self.refreshed(admitted)?;
        self.decide_again(wishes);
        Ok(refreshed)
    }

    fn refreshed(&mut self, admitted: Admitted) -> Result<Refreshed, Refusal> {
        let same =
            admitted.user == self.admitted.user && admitted.rights.tenant() == self.admitted.rights.tenant();
        if !same {
            return Err(Refusal::forbidden());
        }
        self.admitted = admitted;
        self.expiring_said = false;
        self.generation += 1;
        Ok(Refreshed {
            expires_at: rfc3339(self.admitted.expires_at.saturating_mul(1000)),
            roles: self.admitted.roles.to_vec(),
        })
    }
}

/// `auto_join` of the policy and the personal room, of which every user is a member: notifications arrive there.
fn joined_by_policy(rights: &Rights) -> impl Iterator<Item = Room> + '_ {
    rights
        .auto_join()
        .into_iter()
        .chain(rights.personal_room().cloned())
}

fn asked(name: &str, from: From, rights: &Rights, requested: bool) -> Asked {
    Asked {
        name: name.to_owned(),
        permit: permit(name, rights),
        from,
        requested,
    }
}

/// Where a client begins that wants a part of the past.
fn rewound(rewind: &Rewind) -> Result<From, Refusal> {
    let bad = |what: &str| Err(Refusal::new(Code::BadRequest, what.to_owned()).at("/subscribe/rewind"));
    match (rewind.count, rewind.seconds) {
        (None, None) => bad("count or seconds, or both"),
        (Some(0), _) | (_, Some(0)) => bad("at least 1"),
        (count, seconds) => Ok(From::Rewind {
            count: usize::try_from(count.unwrap_or(u32::MAX))
                .unwrap_or(usize::MAX)
                .min(limits::REWIND_EVENTS_MAX),
            seconds,
        }),
    }
}

/// The decision about a room. A name that is none is refused like a room that is not there.
fn permit(name: &str, rights: &Rights) -> Result<Arc<Subscribe>, Refusal> {
    let room = Room::parse(name).map_err(|_| Refusal::forbidden())?;
    rights
        .subscribe(&room)
        .map(Arc::new)
        .map_err(|_| Refusal::forbidden())
}

/// A message that cannot be read ends the connection, because what follows it cannot be trusted either; one that can
/// be answered, or that is only unknown, is answered.
fn refused_frame(bad: BadFrame, wishes: &mut Vec<Wish>) {
    let end = bad.id.is_none() && bad.refusal.code == Code::BadFrame;
    wishes.push(Wish::Say(ServerFrame::refuse(bad.id, &bad.refusal)));
    if end {
        wishes.push(Wish::End(Close::Protocol));
    }
}

/// One message too many ends the connection.
fn too_many(wishes: &mut Vec<Wish>) {
    wishes.push(Wish::Met(Limit::Requests));
    wishes.push(Wish::End(Close::Rate));
}

fn refuse(id: Option<u32>, refusal: &Refusal, wishes: &mut Vec<Wish>) {
    answer_to(id, server_frame::Body::Error(refusal.into()), wishes);
}

/// Refuses what there is no right to, and has it put on record.
fn forbid(id: Option<u32>, what: &'static str, wishes: &mut Vec<Wish>) {
    wishes.push(Wish::Forbade(what));
    refuse(id, &Refusal::forbidden(), wishes);
}

/// A message without `id` gets no answer.
fn answer_to(id: Option<u32>, body: server_frame::Body, wishes: &mut Vec<Wish>) {
    if id.is_some() {
        wishes.push(Wish::Say(ServerFrame::answer(id, body)));
    }
}

/// The question every client is asked every 25 s.
#[must_use]
pub fn ping() -> ServerFrame {
    ServerFrame::push(server_frame::Body::Ping(Ping {}))
}

/// `ok` or `stale`.
#[must_use]
pub fn status_word(stale: bool) -> &'static str {
    if stale { "stale" } else { "ok" }
}

/// Unix milliseconds as RFC 3339 in UTC.
#[must_use]
pub fn rfc3339(unix_millis: i64) -> String {
    roomcast_proto::event::rfc3339(unix_millis.saturating_mul(1_000))
}

#[cfg(test)]
mod tests;
