//! What clients and gateways say to each other, in both encodings.
//!
//! The messages themselves are generated from `roomcast/v1/client.proto`. Here stands the JSON form: one object, an optional `id`,
//! exactly one member named after the message; the generator cannot write it with useful errors. The Protobuf form is in
//! `protobuf`. Both have a ready-made form of the one message that is sent to thousands: the event.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::refusal::{Code, Refusal};

#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    reason = "generated; the documentation is in the .proto"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/roomcast.v1.rs"));
}
pub use generated::{client_frame, server_frame, *};

mod connected;
mod protobuf;
pub use protobuf::{event_protobuf_bytes, put_event_protobuf};

/// WebSocket subprotocol of the JSON form; also in force when a client asks for none.
pub const SUBPROTOCOL_JSON: &str = "roomcast.v1.json";
/// WebSocket subprotocol of the Protobuf form.
pub const SUBPROTOCOL_PROTOBUF: &str = "roomcast.v1.protobuf";
/// Subprotocol that carries a token beside one of the others: `bearer.<jwt>`.
pub const SUBPROTOCOL_BEARER: &str = "bearer.";

/// How frames are written on one connection, agreed in its upgrade.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encoding {
    /// JSON in text messages.
    #[default]
    Json,
    /// Protobuf in binary messages.
    Protobuf,
}

impl Encoding {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Json, Self::Protobuf];

    /// The subprotocol that names it.
    #[must_use]
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => SUBPROTOCOL_JSON,
            Self::Protobuf => SUBPROTOCOL_PROTOBUF,
        }
    }

    /// The encoding that a subprotocol names.
    #[must_use]
    pub fn of_subprotocol(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|encoding| encoding.subprotocol() == name)
    }
}

impl From<&Refusal> for ErrorBody {
    fn from(refusal: &Refusal) -> Self {
        Self {
            code: refusal.code.as_str().to_owned(),
            message: refusal.detail.clone(),
            temporary: refusal.code.temporary(),
            retry_after_ms: refusal.retry_after_ms,
        }
    }
}

/// A frame that cannot be used, with the `id` to answer to when there was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFrame {
    /// The request to answer, when it could be read.
    pub id: Option<u32>,
    /// What was wrong.
    pub refusal: Refusal,
}

/// The envelope: what stands around a message, still unread.
struct Envelope<'a> {
    id: Option<u32>,
    message: Option<(String, &'a RawValue)>,
    members: usize,
    id_is_bad: bool,
}

impl<'de> serde::Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Envelope<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object with an optional id and one message")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
                let mut envelope = Envelope {
                    id: None,
                    message: None,
                    members: 0,
                    id_is_bad: false,
                };
                let mut ids = 0;
                while let Some(name) = map.next_key::<String>()? {
                    let raw: &'de RawValue = map.next_value()?;
                    if name == "id" {
                        ids += 1;
                        envelope.id = serde_json::from_str(raw.get()).ok();
                        envelope.id_is_bad = envelope.id.is_none() || ids > 1;
                    } else {
                        envelope.members += 1;
                        envelope.message = Some((name, raw));
                    }
                }
                Ok(envelope)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl ClientFrame {
    /// Reads one JSON message from a client. Unknown fields inside a message are ignored.
    ///
    /// # Errors
    /// [`BadFrame`] with `bad_frame` (not JSON, not one message, a field of the wrong type) or `unknown_message`.
    pub fn from_json(text: &str) -> Result<Self, BadFrame> {
        let bad = |id, detail: String| BadFrame {
            id,
            refusal: Refusal::new(Code::BadFrame, detail),
        };
        if too_deep(text.as_bytes()) {
            return Err(bad(None, "nested deeper than 32".to_owned()));
        }
        let envelope: Envelope<'_> =
            serde_json::from_str(text).map_err(|error| bad(None, format!("not a JSON object: {error}")))?;
        if envelope.id_is_bad {
            return Err(bad(
                None,
                "id is a whole number from 0 to 4294967295, once".to_owned(),
            ));
        }
        let id = envelope.id;
        let Some((name, raw)) = envelope.message.filter(|_| envelope.members == 1) else {
            return Err(bad(
                id,
                format!("a frame has one message beside its id, not {}", envelope.members),
            ));
        };
        if !raw.get().starts_with('{') {
            return Err(bad(
                id,
                format!(
                    "{}: a message is an object",
                    name.chars().take(40).collect::<String>()
                ),
            ));
        }
        match client_body(&name, raw.get()) {
            Some(Ok(body)) => Ok(Self { id, body: Some(body) }),
            Some(Err(error)) => Err(bad(id, format!("{name}: {error}"))),
            None => {
                let shown: String = name.chars().take(40).collect();
                let refusal = Refusal::new(
                    Code::UnknownMessage,
                    format!("{shown:?} is not a message of this protocol"),
                );
                Err(BadFrame { id, refusal })
            }
        }
    }

    /// Writes the JSON form (clients and tests).
    #[must_use]
    pub fn to_json(&self) -> String {
        use client_frame::Body as B;
        match &self.body {
            Some(B::Connect(m)) => write_frame(self.id, "connect", m),
            Some(B::Subscribe(m)) => write_frame(self.id, "subscribe", m),
            Some(B::Unsubscribe(m)) => write_frame(self.id, "unsubscribe", m),
            Some(B::History(m)) => write_frame(self.id, "history", m),
            Some(B::Publish(m)) => write_frame(self.id, "publish", m),
            Some(B::Command(m)) => write_frame(self.id, "command", m),
            Some(B::Presence(m)) => write_frame(self.id, "presence", m),
            Some(B::Feed(m)) => write_frame(self.id, "feed", m),
            Some(B::Mark(m)) => write_frame(self.id, "mark", m),
            Some(B::Preferences(m)) => write_frame(self.id, "preferences", m),
            Some(B::Activity(m)) => write_frame(self.id, "activity", m),
            Some(B::Refresh(m)) => write_frame(self.id, "refresh", m),
            Some(B::Pong(m)) => write_frame(self.id, "pong", m),
            Some(B::Counters(m)) => write_frame(self.id, "counters", m),
            None => "{}".to_owned(),
        }
    }
}

fn client_body(name: &str, raw: &str) -> Option<Result<client_frame::Body, serde_json::Error>> {
    use client_frame::Body as B;
    Some(match name {
        "connect" => serde_json::from_str(raw).map(B::Connect),
        "subscribe" => serde_json::from_str(raw).map(B::Subscribe),
        "unsubscribe" => serde_json::from_str(raw).map(B::Unsubscribe),
        "history" => serde_json::from_str(raw).map(B::History),
        "publish" => serde_json::from_str(raw).map(B::Publish),
        "command" => serde_json::from_str(raw).map(B::Command),
        "presence" => serde_json::from_str(raw).map(B::Presence),
        "feed" => serde_json::from_str(raw).map(B::Feed),
        "mark" => serde_json::from_str(raw).map(B::Mark),
        "preferences" => serde_json::from_str(raw).map(B::Preferences),
        "activity" => serde_json::from_str(raw).map(B::Activity),
        "refresh" => serde_json::from_str(raw).map(B::Refresh),
        "pong" => serde_json::from_str(raw).map(B::Pong),
        "counters" => serde_json::from_str(raw).map(B::Counters),
        _ => return None,
    })
}

impl ServerFrame {
    /// A push: a message without `id`.
    #[must_use]
    pub fn push(body: server_frame::Body) -> Self {
        Self {
            id: None,
            body: Some(body),
        }
    }

    /// The answer to request `id`.
    #[must_use]
    pub fn answer(id: Option<u32>, body: server_frame::Body) -> Self {
        Self { id, body: Some(body) }
    }

    /// The refusal of request `id`.
    #[must_use]
    pub fn refuse(id: Option<u32>, refusal: &Refusal) -> Self {
        Self::answer(id, server_frame::Body::Error(refusal.into()))
    }

    /// Writes the JSON form.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = Vec::new();
        self.put_json(&mut out);
        String::from_utf8(out).unwrap_or_default()
    }

    /// Writes the JSON form behind what `out` holds already: a transport puts its own header before it.
    pub fn put_json(&self, out: &mut Vec<u8>) {
        use server_frame::Body as B;
        match &self.body {
            Some(B::Connected(m)) => {
                put_frame_of(out, self.id, "connected", |out| connected::put_connected(out, m));
            }
            Some(B::Subscribed(m)) => put_frame(out, self.id, "subscribed", m),
            Some(B::Unsubscribed(m)) => put_frame(out, self.id, "unsubscribed", m),
            Some(B::History(m)) => put_frame(out, self.id, "history", m),
            Some(B::Published(m)) => put_frame(out, self.id, "published", m),
            Some(B::Result(m)) => put_frame(out, self.id, "result", m),
            Some(B::Presence(m)) => put_frame(out, self.id, "presence", m),
            Some(B::Feed(m)) => put_frame(out, self.id, "feed", m),
            Some(B::Refreshed(m)) => put_frame(out, self.id, "refreshed", m),
            Some(B::Event(m)) => put_frame(out, self.id, "event", m),
            Some(B::CaughtUp(m)) => put_frame(out, self.id, "caughtUp", m),
            Some(B::Counters(m)) => put_frame(out, self.id, "counters", m),
            Some(B::Roles(m)) => put_frame(out, self.id, "roles", m),
            Some(B::Expiring(m)) => put_frame(out, self.id, "expiring", m),
            Some(B::Status(m)) => put_frame(out, self.id, "status", m),
            Some(B::Disconnect(m)) => put_frame(out, self.id, "disconnect", m),
            Some(B::Error(m)) => put_frame(out, self.id, "error", m),
            Some(B::Ping(m)) => put_frame(out, self.id, "ping", m),
            Some(B::Thinned(m)) => put_frame(out, self.id, "thinned", m),
            Some(B::Preferences(m)) => put_frame(out, self.id, "preferences", m),
            None => out.extend_from_slice(b"{}"),
        }
    }

    /// Reads the JSON form (clients and tests). A message this version does not know gives a frame without body.
    ///
    /// # Errors
    /// When the text is not a frame.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        use server_frame::Body as B;
        let envelope: Envelope<'_> = serde_json::from_str(text)?;
        let Some((name, raw)) = envelope.message else {
            return Ok(Self {
                id: envelope.id,
                body: None,
            });
        };
        let raw = raw.get();
        let body = match &*name {
            "connected" => B::Connected(serde_json::from_str(raw)?),
            "subscribed" => B::Subscribed(serde_json::from_str(raw)?),
            "unsubscribed" => B::Unsubscribed(serde_json::from_str(raw)?),
            "history" => B::History(serde_json::from_str(raw)?),
            "published" => B::Published(serde_json::from_str(raw)?),
            "result" => B::Result(serde_json::from_str(raw)?),
            "presence" => B::Presence(serde_json::from_str(raw)?),
            "feed" => B::Feed(serde_json::from_str(raw)?),
            "refreshed" => B::Refreshed(serde_json::from_str(raw)?),
            "event" => B::Event(serde_json::from_str(raw)?),
            "caughtUp" => B::CaughtUp(serde_json::from_str(raw)?),
            "counters" => B::Counters(serde_json::from_str(raw)?),
            "roles" => B::Roles(serde_json::from_str(raw)?),
            "expiring" => B::Expiring(serde_json::from_str(raw)?),
            "status" => B::Status(serde_json::from_str(raw)?),
            "disconnect" => B::Disconnect(serde_json::from_str(raw)?),
            "error" => B::Error(serde_json::from_str(raw)?),
            "ping" => B::Ping(serde_json::from_str(raw)?),
            "thinned" => B::Thinned(serde_json::from_str(raw)?),
            "preferences" => B::Preferences(serde_json::from_str(raw)?),
            _ => {
                return Ok(Self {
                    id: envelope.id,
                    body: None,
                });
            }
        };
        Ok(Self {
            id: envelope.id,
            body: Some(body),
        })
    }
}

fn write_frame<M: Serialize>(id: Option<u32>, name: &str, message: &M) -> String {
    let mut out = Vec::new();
    put_frame(&mut out, id, name, message);
    String::from_utf8(out).unwrap_or_default()
}

fn put_frame<M: Serialize>(out: &mut Vec<u8>, id: Option<u32>, name: &str, message: &M) {
    put_frame_of(out, id, name, |out| put_json(out, message));
}

fn put_frame_of(out: &mut Vec<u8>, id: Option<u32>, name: &str, put_message: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"{");
    if let Some(id) = id {
        out.extend_from_slice(b"\"id\":");
        put_json(out, &id);
        out.extend_from_slice(b",");
    }
    out.extend_from_slice(b"\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    put_message(out);
    out.extend_from_slice(b"}");
}

/// Memory takes everything, and no message of ours refuses to be written.
fn put_json<M: Serialize + ?Sized>(out: &mut Vec<u8>, message: &M) {
    let _ = serde_json::to_writer(out, message);
}

/// The JSON form of a `caughtUp`, in the parts that stand one behind another: a client that comes in is told one for each of its rooms.
///
/// `room` is a checked name and `cursor` our own text; neither needs escaping.
#[must_use]
pub fn caught_up_json<'a>(room: &'a str, cursor: &'a str) -> [&'a str; 5] {
    [
        "{\"caughtUp\":{\"room\":\"",
        room,
        "\",\"cursor\":\"",
        cursor,
        "\"}}",
    ]
}

/// The ready JSON text of an `event` push: what every member of a room is sent, made once.
///
/// `room` is a checked name and needs no escaping; `cursor` is our own text; `event_json` is a complete JSON object.
#[must_use]
pub fn event_json(room: &str, cursor: Option<&str>, event_json: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(event_json_bytes(room, cursor, event_json));
    put_event_json(&mut out, room, cursor, event_json);
    out.freeze()
}

/// Writes what [`event_json`] returns behind what `out` holds already: a transport puts its own header before it, so that a frame
/// lies in one piece. Returns where in `out` the event's own JSON begins.
pub fn put_event_json(out: &mut BytesMut, room: &str, cursor: Option<&str>, event_json: &[u8]) -> usize {
    out.put_slice(EVENT_HEAD);
    out.put_slice(room.as_bytes());
    if let Some(cursor) = cursor {
        out.put_slice(EVENT_CURSOR);
        out.put_slice(cursor.as_bytes());
    }
    out.put_slice(EVENT_BODY);
    let at = out.len();
    out.put_slice(event_json);
    out.put_slice(EVENT_END);
    at
}

/// How many bytes [`put_event_json`] writes.
#[must_use]
pub fn event_json_bytes(room: &str, cursor: Option<&str>, event_json: &[u8]) -> usize {
    let cursor = cursor.map_or(0, |cursor| EVENT_CURSOR.len() + cursor.len());
    EVENT_HEAD.len() + room.len() + cursor + EVENT_BODY.len() + event_json.len() + EVENT_END.len()
}

const EVENT_HEAD: &[u8] = b"{\"event\":{\"room\":\"";
const EVENT_CURSOR: &[u8] = b"\",\"cursor\":\"";
const EVENT_BODY: &[u8] = b"\",\"event\":";
const EVENT_END: &[u8] = b"}}";

/// Whether JSON text is nested deeper than [`crate::limits::JSON_DEPTH_MAX`]. One pass, no allocation.
#[must_use]
pub fn too_deep(text: &[u8]) -> bool {
    deeper_than(text, crate::limits::JSON_DEPTH_MAX)
}

fn deeper_than(text: &[u8], depth_max: usize) -> bool {
    // What opens so few objects and lists, in strings or not, cannot be deeper; that many bytes are compared at once.
    brackets(text) > depth_max && nested_deeper_than(text, depth_max)
}

/// How many `{` and `[` there are.
fn brackets(text: &[u8]) -> usize {
    // They differ in one bit. So few at once that a byte holds their number.
    let opens = |b: &u8| u8::from(b | 0x20 == b'{');
    let of_part = |part: &[u8]| part.iter().map(opens).sum::<u8>();
    text.chunks(128).map(|part| usize::from(of_part(part))).sum()
}

fn nested_deeper_than(text: &[u8], depth_max: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for b in text {
        if in_string {
            match b {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
        } else {
            match b {
                b'"' => in_string = true,
                b'{' | b'[' => {
                    depth += 1;
                    if depth > depth_max {
                        return true;
                    }
                }
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_with_one_message_are_read() {
        let frame =
            ClientFrame::from_json(r#"{"id":2,"subscribe":{"room":"os_dashboard","later":1}}"#).unwrap();
        assert_eq!(frame.id, Some(2));
        let Some(client_frame::Body::Subscribe(subscribe)) = frame.body else {
            panic!("subscribe")
        };
        assert_eq!(
            (subscribe.room.as_str(), subscribe.cursor),
            ("os_dashboard", None)
        );
    }

    #[test]
    fn refused_frames_say_what_is_wrong() {
        let deep = format!("{{\"connect\":{}{}}}", "[".repeat(33), "]".repeat(33));
        let rows: [(&str, Option<u32>, Code); 12] = [
            ("", None, Code::BadFrame),
            ("[]", None, Code::BadFrame),
            ("{}", None, Code::BadFrame),
            ("{\"id\":1}", Some(1), Code::BadFrame),
            ("{\"id\":1,\"pong\":{},\"connect\":{}}", Some(1), Code::BadFrame),
            ("{\"id\":1,\"id\":2,\"pong\":{}}", None, Code::BadFrame),
            ("{\"id\":-1,\"pong\":{}}", None, Code::BadFrame),
            ("{\"id\":4294967296,\"pong\":{}}", None, Code::BadFrame),
            ("{\"id\":\"1\",\"pong\":{}}", None, Code::BadFrame),
            ("{\"id\":3,\"fly\":{}}", Some(3), Code::UnknownMessage),
            ("{\"id\":4,\"subscribe\":{\"room\":7}}", Some(4), Code::BadFrame),
            (&deep, None, Code::BadFrame),
        ];
        for (text, id, code) in rows {
            let bad = ClientFrame::from_json(text).unwrap_err();
            assert_eq!((bad.id, bad.refusal.code), (id, code), "{text}");
        }
    }

    #[test]
    fn a_ready_caught_up_is_the_one_that_is_read() {
        let frame = ServerFrame::push(server_frame::Body::CaughtUp(CaughtUp {
            room: "os.desk-1_x".to_owned(),
            cursor: "00c0ffee.1041.77.a2".to_owned(),
        }));
        let ready = caught_up_json("os.desk-1_x", "00c0ffee.1041.77.a2");
        assert_eq!(ready.concat(), frame.to_json());
    }

    #[test]
    fn a_server_message_this_version_does_not_know_is_no_error() {
        assert_eq!(ServerFrame::from_json("{\"tomorrow\":{}}").unwrap().body, None);
    }

    #[test]
    fn the_ready_event_is_the_event_message() {
        let event = br#"{"specversion":"1.0","id":"1","data":{"a": 1.50}}"#;
        let ready = event_json("bookings", Some("00000001.2.3.4"), event);
        let push = EventPush {
            room: "bookings".into(),
            cursor: Some("00000001.2.3.4".into()),
            event: Bytes::from_static(event),
        };
        let frame = ServerFrame::push(server_frame::Body::Event(push));
        assert_eq!(std::str::from_utf8(&ready).unwrap(), frame.to_json());
        assert_eq!(ServerFrame::from_json(&frame.to_json()).unwrap(), frame);
    }

    proptest! {
        #[test]
        fn a_look_at_brackets_alone_changes_no_depth(text in r#"[\[\]{}"a\\]{0,200}"#, depth_max in 0_usize..40) {
            prop_assert_eq!(deeper_than(text.as_bytes(), depth_max), nested_deeper_than(text.as_bytes(), depth_max));
        }

        #[test]
        fn reading_never_panics(text in ".{0,300}") {
            let _ = ClientFrame::from_json(&text);
            let _ = ServerFrame::from_json(&text);
        }

        #[test]
        fn client_frames_come_back(id: Option<u32>, room in "[a-z]{1,9}", cursor: Option<String>, limit: u32) {
            use client_frame::Body as B;
            for body in [
                B::Subscribe(Subscribe { room: room.clone(), cursor: cursor.clone(), rewind: None, presence: false }),
                B::History(History { room: room.clone(), before: cursor.clone(), limit }),
                B::Connect(Connect { token: cursor.clone(), client: room.clone(), rooms: vec![RoomRequest { room: room.clone(), cursor: cursor.clone(), presence: None }], counters: None }),
                B::Pong(Pong {}),
            ] {
                let frame = ClientFrame { id, body: Some(body) };
                prop_assert_eq!(ClientFrame::from_json(&frame.to_json()).unwrap(), frame);
            }
        }
    }
}
