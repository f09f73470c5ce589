//! One event on its way to browsers: encoded once, shared by every member of its room.
//!
//! Made by the hub when a spine hands over a message; read by shards (live and resume), by the HTTP routes (state, history,
//! snapshot) and kept in the ring and the state cache. Here stands the one function that decides who may see an event.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::{Bytes, BytesMut};
use roomcast_access::permit::View;
use roomcast_access::redact::{self, RedactionClass};
use roomcast_access::{AudienceId, AudienceSet};
use roomcast_chassis::trace::Trail;
use roomcast_proto::cursor::{Cursor, CursorText, Cursors, Epoch, Position};
use roomcast_proto::frame::{event_json_bytes, event_protobuf_bytes, put_event_json, put_event_protobuf};
use roomcast_proto::ids::{Audience, Room, Tenant};
use serde_json::value::{RawValue, to_raw_value};

use crate::encoding::Encoding;
use crate::{sse, ws};

/// What kind of delivery this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Stored, in order, never dropped inside retention.
    Event,
    /// The latest value of a key.
    State {
        /// The key as one token: what an outbox conflates by, together with tenant and room.
        key: Arc<str>,
        /// The key is gone.
        withdrawn: bool,
    },
    /// Not stored; the first to go when an outbox is full.
    Ephemeral,
}

/// One event for the members of one room.
///
/// All bytes lie in one allocation: the WebSocket frame, inside it the JSON text, inside that the CloudEvent. What only some
/// members need, the Protobuf frame and frames with something taken out, is made with the first of them and shared as well.
#[derive(Debug)]
pub struct Delivery {
    /// Whose room.
    pub tenant: Tenant,
    /// Which room.
    pub room: Room,
    /// Who of the room's members gets it; `None`: a role the policy does not know, so nobody.
    pub audience: Option<AudienceId>,
    /// The audience's name: the number is decided again when the policy changes.
    pub audience_name: Audience,
    /// Its class.
    pub kind: Kind,
    /// Its own position in its stream and the hub's in the other at the moment it was handed out.
    pub position: Position,
    /// Unix milliseconds from which on it is not delivered any more.
    pub expires_millis: Option<i64>,
    /// When the stream stored it, Unix milliseconds; 0 where nobody asks.
    pub stored_millis: i64,
    /// Where its trace goes on: of what is handed out live, if that is kept.
    pub trail: Option<Box<Trail>>,
    /// `None`: a frame without a cursor.
    mark: Option<Mark>,
    meter: Meter,
    /// The complete unmasked WebSocket text frame.
    frame: Bytes,
    /// Length of the WebSocket header: where the JSON text begins.
    text_at: u8,
    /// Where the CloudEvent begins.
    body_at: u32,
    /// Other forms, made when first needed.
    forms: OnceLock<Box<Forms>>,
}

/// Bytes of forms that were made beside the JSON frames and are still held by somebody: they are charged to the ring.
///
/// One per hub, never freed, so that every delivery can hold it for nothing.
#[derive(Debug, Clone, Copy)]
pub struct Meter(&'static AtomicUsize);

impl Default for Meter {
    fn default() -> Self {
        Self(Box::leak(Box::new(AtomicUsize::new(0))))
    }
}

impl Meter {
    /// Bytes held now.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn add(self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Forms of a delivery that most do not need.
#[derive(Debug)]
struct Forms {
    meter: Meter,
    /// The complete unmasked WebSocket binary frame.
    protobuf: OnceLock<Bytes>,
    /// The same without a cursor.
    bare: OnceLock<Arc<Delivery>>,
    /// Its withdrawal, for those who may not see it any more.
    withdrawal: OnceLock<Option<Arc<Delivery>>>,
    /// The complete server-sent event.
    sse: OnceLock<Bytes>,
    /// Frames with something taken out.
    redacted: Mutex<Vec<Redacted>>,
}

impl Forms {
    fn new(meter: Meter) -> Box<Self> {
        Box::new(Self {
            meter,
            protobuf: OnceLock::new(),
            bare: OnceLock::new(),
            withdrawal: OnceLock::new(),
            sse: OnceLock::new(),
            redacted: Mutex::default(),
        })
    }

    fn bytes(&self) -> usize {
        let redacted = self.redacted.lock().unwrap_or_else(PoisonError::into_inner);
        let redacted = redacted
            .iter()
            .flat_map(|(_, made)| made)
            .map(|made| made.cost_bytes());
        let bare = self.bare.get().map_or(0, |bare| bare.cost_bytes());
        let withdrawal = self.withdrawal.get().and_then(Option::as_ref);
        let bare = bare + withdrawal.map_or(0, |made| made.cost_bytes());
        let frames = [&self.protobuf, &self.sse].map(|frame| frame.get().map_or(0, Bytes::len));
        frames.iter().sum::<usize>() + bare + redacted.sum::<usize>()
    }
}

impl Drop for Forms {
    fn drop(&mut self) {
        self.meter.0.fetch_sub(self.bytes(), Ordering::Relaxed);
    }
}

/// What one redaction class gets; `None` when the event cannot be read and so is not delivered to it.
type Redacted = (RedactionClass, Option<Arc<Delivery>>);

/// What a cursor is made of, beside the position.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// Which life of the streams.
    pub epoch: Epoch,
    /// Low bits of the time of message `position.seq`.
    pub time_bits: u16,
    /// How cursors are written.
    pub cursors: Cursors,
}

/// What a delivery is made of, beside its body.
#[derive(Debug, Clone)]
pub struct Address {
    /// Whose room.
    pub tenant: Tenant,
    /// Which room.
    pub room: Room,
    /// The audience as a number of the policy in force.
    pub audience: Option<AudienceId>,
    /// The audience's name.
    pub audience_name: Audience,
    /// Where forms made later are counted.
    pub meter: Meter,
}

impl Delivery {
    /// Encodes an event. Without a `mark` the frame has no cursor. `body` is a complete CloudEvent in JSON, copied once, so that the buffer
    /// it came in can go.
    #[must_use]
    pub fn new(
        address: Address,
        kind: Kind,
        position: Position,
        mark: Option<Mark>,
        expires_millis: Option<i64>,
        body: &[u8],
    ) -> Self {
        let (frame, text_at, body_at) = encode(
            &address.room,
            text_of(mark, &address.tenant, position).as_ref(),
            body,
        );
        Self {
            tenant: address.tenant,
            room: address.room,
            audience: address.audience,
            audience_name: address.audience_name,
            kind,
            position,
            expires_millis,
            stored_millis: 0,
            trail: None,
            mark,
            meter: address.meter,
            frame,
            text_at,
            body_at,
            forms: OnceLock::new(),
        }
    }

    /// The same event at another place, encoded anew: a replayed event whose cursor must not overtake the state that is sent after it,
    /// a value that holds again after another was withdrawn.
    #[must_use]
    pub fn at(&self, position: Position, mark: Option<Mark>) -> Self {
        let (address, kind) = (self.address(), self.kind.clone());
        let mut moved = Self::new(address, kind, position, mark, self.expires_millis, self.body());
        moved.stored_millis = self.stored_millis;
        moved
    }

    /// The withdrawal of this value, without a cursor, for those who may not see it any more; made once. `None`: it is no value.
    #[must_use]
    pub fn withdrawal(&self) -> Option<Arc<Self>> {
        let made = self.forms().withdrawal.get_or_init(|| {
            let made = self.withdrawn().map(Arc::new);
            self.meter.add(made.as_ref().map_or(0, |made| made.cost_bytes()));
            made
        });
        made.clone()
    }

    fn withdrawn(&self) -> Option<Self> {
        const DATA: [&str; 5] = [
            "data",
            "data_base64",
            "datacontenttype",
            "dataschema",
            "expirytime",
        ];
        let Kind::State {
            key,
            withdrawn: false,
        } = &self.kind
        else {
            return None;
        };
        let mut members: BTreeMap<&str, &RawValue> = serde_json::from_slice(self.body()).ok()?;
        members.retain(|name, _| !DATA.contains(name));
        let id: String = serde_json::from_str(members.get("id")?.get()).ok()?;
        // Not the event that the client has seen.
        let id = to_raw_value(&format!("{id}-withdrawn")).ok()?;
        let yes = to_raw_value(&true).ok()?;
        members.extend([("id", &*id), ("withdrawn", &*yes)]);
        let body = serde_json::to_vec(&members).ok()?;
        let kind = Kind::State {
            key: key.clone(),
            withdrawn: true,
        };
        Some(Self::new(self.address(), kind, self.position, None, None, &body))
    }

    /// The same event after a change of policy; shares the bytes.
    #[must_use]
    pub fn for_audience(&self, audience: Option<AudienceId>) -> Self {
        Self {
            audience,
            tenant: self.tenant.clone(),
            room: self.room.clone(),
            audience_name: self.audience_name.clone(),
            kind: self.kind.clone(),
            frame: self.frame.clone(),
            trail: None,
            forms: OnceLock::new(),
            ..*self
        }
    }

    /// The key that it is a value of, or withdraws; `None`: it is no state.
    #[must_use]
    pub fn state_key(&self) -> Option<&Arc<str>> {
        match &self.kind {
            Kind::State { key, .. } => Some(key),
            Kind::Event | Kind::Ephemeral => None,
        }
    }

    /// What the cursor is made of, as given to [`Delivery::new`].
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        self.mark
    }

    fn address(&self) -> Address {
        Address {
            tenant: self.tenant.clone(),
            room: self.room.clone(),
            audience: self.audience,
            audience_name: self.audience_name.clone(),
            meter: self.meter,
        }
    }

    /// Whether the holder of `view` may see this at `now_millis`: the one rule for live, ring, stream, state, history and poll.
    #[must_use]
    pub fn visible(&self, view: &View, now_millis: i64) -> bool {
        self.is_for(view.audiences()) && !self.expired(now_millis)
    }

    /// Whether one of these audiences is meant.
    #[must_use]
    pub fn is_for(&self, audiences: AudienceSet) -> bool {
        self.audience.is_some_and(|audience| audiences.contains(audience))
    }

    /// Whether its time is over.
    #[must_use]
    pub fn expired(&self, now_millis: i64) -> bool {
        self.expires_millis.is_some_and(|expires| expires <= now_millis)
    }

    /// Where the client is once it has this; `None` on ephemeral events and on values sent during recovery.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        cursor_of(self.mark, self.position)
    }

    /// The complete message, ready for the socket: a WebSocket text frame, or a binary one or a server-sent event that is made
    /// when the first client asks for it. Only for views whose class is whole; see [`Delivery::for_class`].
    #[must_use]
    pub fn frame(&self, encoding: Encoding) -> &Bytes {
        match encoding {
            Encoding::Json => &self.frame,
            Encoding::Protobuf => self.forms().protobuf.get_or_init(|| {
                let cursor = text_of(self.mark, &self.tenant, self.position);
                let made = encode_protobuf(&self.room, cursor.as_ref().map(CursorText::as_str), self.body());
                self.meter.add(made.len());
                made
            }),
            Encoding::Sse => self.forms().sse.get_or_init(|| {
                let cursor = text_of(self.mark, &self.tenant, self.position);
                let made = sse::event(cursor.as_ref().map(CursorText::as_str), &self.text());
                self.meter.add(made.len());
                made
            }),
        }
    }

    /// The same without a cursor, as values are sent during recovery; made once.
    #[must_use]
    pub fn bare(self: &Arc<Self>) -> Arc<Self> {
        if self.mark.is_none() {
            return Arc::clone(self);
        }
        let bare = self.forms().bare.get_or_init(|| {
            let made = self.at(self.position, None);
            self.meter.add(made.cost_bytes());
            Arc::new(made)
        });
        Arc::clone(bare)
    }

    /// Bytes of the forms made of this one so far.
    #[must_use]
    pub fn made_bytes(&self) -> usize {
        self.forms.get().map_or(0, |forms| forms.bytes())
    }

    fn forms(&self) -> &Forms {
        self.forms.get_or_init(|| Forms::new(self.meter))
    }

    /// The JSON text of the `event` push, without the WebSocket header.
    #[must_use]
    pub fn text(&self) -> Bytes {
        self.frame.slice(usize::from(self.text_at)..)
    }

    /// The CloudEvent as stored.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.frame[self.body_at as usize..self.frame.len() - 2]
    }

    /// The same without a copy.
    #[must_use]
    pub fn body_bytes(&self) -> Bytes {
        self.frame.slice(self.body_at as usize..self.frame.len() - 2)
    }

    /// This event as the holders of `view` may see it: itself when nothing is to be taken out, else encoded once for all holders of
    /// the same class. `None`: it cannot be read, so it is not delivered.
    #[must_use]
    pub fn for_class(self: &Arc<Self>, view: &View) -> Option<Arc<Self>> {
        if view.class().is_whole() {
            return Some(Arc::clone(self));
        }
        let mut classes = self
            .forms()
            .redacted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((_, made)) = classes.iter().find(|(class, _)| *class == view.class()) {
            return made.clone();
        }
        let made = redact::apply(self.body(), view.redaction()).ok().map(|body| {
            let (kind, expires) = (self.kind.clone(), self.expires_millis);
            Arc::new(Self::new(
                self.address(),
                kind,
                self.position,
                self.mark,
                expires,
                &body,
            ))
        });
        let bytes = made.as_ref().map_or(0, |made| made.cost_bytes());
        self.meter.add(bytes);
        classes.push((view.class(), made.clone()));
        made
    }

    /// What keeping this costs in memory, bytes: the struct, its allocation, its place in an index. It never changes; forms that are
    /// made later are counted by the [`Meter`].
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        // 16: the counts of the Arc; 24: the Bytes' own header; 24: an index entry and an eviction token.
        size_of::<Self>() + 16 + 24 + 24 + self.frame.len()
    }
}

fn cursor_of(mark: Option<Mark>, position: Position) -> Option<Cursor> {
    mark.map(|mark| Cursor {
        epoch: mark.epoch,
        position,
        time_bits: mark.time_bits,
    })
}

fn text_of(mark: Option<Mark>, tenant: &Tenant, position: Position) -> Option<CursorText> {
    let cursor = cursor_of(mark, position)?;
    mark.map(|mark| mark.cursors.write(tenant, &cursor))
}

/// The frame in one piece; where its text begins; where the event in it begins.
fn encode(room: &Room, cursor: Option<&CursorText>, body: &[u8]) -> (Bytes, u8, u32) {
    let cursor = cursor.map(CursorText::as_str);
    let text_bytes = event_json_bytes(room.as_str(), cursor, body);
    let mut out = BytesMut::with_capacity(ws::header_bytes(text_bytes) + text_bytes);
    ws::put_text_header(&mut out, text_bytes);
    let text_at = u8::try_from(out.len()).unwrap_or(u8::MAX);
    let body_at = put_event_json(&mut out, room.as_str(), cursor, body);
    // Bodies are at most 64 KiB and names 200 bytes; a larger offset cannot come up.
    (out.freeze(), text_at, u32::try_from(body_at).unwrap_or(u32::MAX))
}

/// The same event for clients that read Protobuf.
fn encode_protobuf(room: &Room, cursor: Option<&str>, body: &[u8]) -> Bytes {
    let bytes = event_protobuf_bytes(room.as_str(), cursor, body);
    let mut out = BytesMut::with_capacity(ws::header_bytes(bytes) + bytes);
    ws::put_binary_header(&mut out, bytes);
    put_event_protobuf(&mut out, room.as_str(), cursor, body);
    out.freeze()
}

#[cfg(test)]
pub(crate) mod tests;
