//! The Protobuf form of client and server messages: `ClientFrame` and `ServerFrame` of `roomcast/v1/client.proto`.
//!
//! The generator writes the codec. This file adds what the two forms have in common and a codec does not look at: one message in
//! a frame, an `id` to answer a bad one to, JSON where the contract says JSON; and the ready-made `event` push.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_varint, encoded_len_varint};
use serde_json::value::RawValue;

use super::{BadFrame, ClientFrame, ServerFrame, client_frame, deeper_than};
use crate::limits::JSON_DEPTH_MAX;
use crate::refusal::{Code, Refusal};

/// `ClientFrame.id`.
const ID: u32 = 1;
/// The messages of `ClientFrame.body`, `connect` to `counters`.
const MESSAGES: std::ops::RangeInclusive<u32> = 2..=15;
/// In the JSON form such a value is the member of a message that is the member of a frame.
const JSON_MEMBER_DEPTH_MAX: usize = JSON_DEPTH_MAX - 2;

/// `ServerFrame.event`, `EventPush.room`, `EventPush.cursor`, `EventPush.event`: field number and wire type 2 (a length and bytes).
const EVENT_PUSH: u8 = (11 << 3) | 2;
const ROOM: u8 = (1 << 3) | 2;
const CURSOR: u8 = (2 << 3) | 2;
const EVENT: u8 = (3 << 3) | 2;

/// What stands in a frame, its messages still unread.
#[derive(Debug, Default)]
struct Outline {
    id: Option<u32>,
    ids: usize,
    messages: usize,
    /// A field that may be a message of a later version.
    unknown: Option<u32>,
}

impl Outline {
    /// Walks over the fields of a frame, one level deep and without allocating. What was read before a mistake is in the outline.
    fn walk(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            let (number, kind) = decode_key(&mut bytes).map_err(|error| error.to_string())?;
            let skip = match kind {
                WireType::Varint => {
                    let value = decode_varint(&mut bytes).map_err(|error| error.to_string())?;
                    if number == ID {
                        self.ids += 1;
                        self.id = u32::try_from(value).ok();
                    }
                    0
                }
                WireType::SixtyFourBit => 8,
                WireType::ThirtyTwoBit => 4,
                WireType::LengthDelimited => {
                    if MESSAGES.contains(&number) {
                        self.messages += 1;
                    } else if number != ID {
                        self.unknown = Some(number);
                    }
                    let length = decode_varint(&mut bytes).map_err(|error| error.to_string())?;
                    usize::try_from(length).map_err(|error| error.to_string())?
                }
                WireType::StartGroup | WireType::EndGroup => {
                    return Err("groups are not read here".to_owned());
                }
            };
            bytes = bytes
                .get(skip..)
                .ok_or_else(|| format!("field {number} ends too early"))?;
        }
        Ok(())
    }
}

impl ClientFrame {
    /// Reads one Protobuf message from a client. Unknown fields are ignored, in messages and beside them.
    ///
    /// # Errors
    /// [`BadFrame`] with `bad_frame` (not Protobuf, not one message, no JSON where there must be, JSON nested deeper than the
    /// JSON form of the frame may be) or `unknown_message` (only a field that this version does not know).
    pub fn from_protobuf(bytes: &[u8]) -> Result<Self, BadFrame> {
        let mut outline = Outline::default();
        let walked = outline.walk(bytes);
        let id = outline.id.filter(|_| outline.ids == 1);
        let bad = |detail: String| BadFrame {
            id,
            refusal: Refusal::new(Code::BadFrame, detail),
        };
        walked.map_err(|error| bad(format!("not a Protobuf frame: {error}")))?;
        if id.is_none() && outline.ids > 0 {
            return Err(bad("id is a whole number from 0 to 4294967295, once".to_owned()));
        }
        match (outline.messages, outline.unknown) {
            (1, _) => {}
            (0, Some(number)) => {
                let detail = format!("field {number} is not a message of this protocol");
                let refusal = Refusal::new(Code::UnknownMessage, detail);
                return Err(BadFrame { id, refusal });
            }
            (count, _) => return Err(bad(format!("a frame has one message beside its id, not {count}"))),
        }
        let mut frame = Self::decode(bytes).map_err(|error| bad(error.to_string()))?;
        if let Some((name, json)) = frame.body.as_mut().and_then(json_member) {
            *json = checked(json).map_err(|error| bad(format!("{name}: {error}")))?;
        }
        Ok(frame)
    }

    /// Writes the Protobuf form (clients and tests).
    #[must_use]
    pub fn to_protobuf(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

impl ServerFrame {
    /// Reads the Protobuf form (clients and tests). A message this version does not know gives a frame without body.
    ///
    /// # Errors
    /// When the bytes are not a frame.
    pub fn from_protobuf(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        Self::decode(bytes)
    }

    /// Writes the Protobuf form.
    #[must_use]
    pub fn to_protobuf(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

/// The JSON inside a client's message, and its name.
fn json_member(body: &mut client_frame::Body) -> Option<(&'static str, &mut Bytes)> {
    use client_frame::Body as B;
    match body {
        B::Publish(m) => Some(("data", &mut m.data)),
        B::Command(m) => Some(("data", &mut m.data)),
        B::Feed(m) => Some(("filter", &mut m.filter)),
        B::Preferences(m) => Some(("set", &mut m.set)),
        _ => None,
    }
}

/// One JSON value as the JSON form would carry it: without the white space around it. No bytes at all are an absent value.
fn checked(json: &Bytes) -> Result<Bytes, String> {
    if json.is_empty() {
        return Ok(Bytes::new());
    }
    if deeper_than(json, JSON_MEMBER_DEPTH_MAX) {
        return Err(format!("JSON nested deeper than {JSON_MEMBER_DEPTH_MAX}"));
    }
    let raw: &RawValue = serde_json::from_slice(json).map_err(|error| format!("not JSON: {error}"))?;
    Ok(json.slice_ref(raw.get().as_bytes()))
}

/// Writes the ready Protobuf form of an `event` push behind what `out` holds already; [`super::put_event_json`] is its JSON form.
pub fn put_event_protobuf(out: &mut BytesMut, room: &str, cursor: Option<&str>, event_json: &[u8]) {
    out.put_u8(EVENT_PUSH);
    encode_varint(push_bytes(room, cursor, event_json) as u64, out);
    put_field(out, ROOM, room.as_bytes());
    if let Some(cursor) = cursor {
        put_field(out, CURSOR, cursor.as_bytes());
    }
    put_field(out, EVENT, event_json);
}

/// How many bytes [`put_event_protobuf`] writes.
#[must_use]
pub fn event_protobuf_bytes(room: &str, cursor: Option<&str>, event_json: &[u8]) -> usize {
    field_bytes(push_bytes(room, cursor, event_json))
}

fn push_bytes(room: &str, cursor: Option<&str>, event_json: &[u8]) -> usize {
    let cursor = cursor.map_or(0, |cursor| field_bytes(cursor.len()));
    field_bytes(room.len()) + cursor + field_bytes(event_json.len())
}

fn put_field(out: &mut BytesMut, key: u8, bytes: &[u8]) {
    out.put_u8(key);
    encode_varint(bytes.len() as u64, out);
    out.put_slice(bytes);
}

/// A key of one byte, the length, the bytes.
fn field_bytes(bytes: usize) -> usize {
    1 + encoded_len_varint(bytes as u64) + bytes
}

#[cfg(test)]
mod tests;
