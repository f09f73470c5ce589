//! What a client of the bench makes of a server's message. Events are read without a parser: thousands of clients in one thread
//! must cost less than the server that is measured.

use roomcast_proto::frame::server_frame::Body;
use roomcast_proto::frame::{Encoding, RoomAnswer, ServerFrame};

/// A server's message.
#[derive(Debug, PartialEq)]
pub enum Heard<'a> {
    /// An event.
    Event {
        /// Its room.
        room: &'a [u8],
        /// The place in its room; none on ephemeral ones.
        cursor: Option<&'a [u8]>,
        /// What number of its room it is, where the publisher counts.
        number: Option<u64>,
        /// When it was due to be published, Unix microseconds.
        sent: Option<u64>,
    },
    /// Everything missed has been sent.
    CaughtUp {
        /// In this room.
        room: &'a [u8],
        /// Resume from here.
        cursor: &'a [u8],
    },
    /// What is not read, in all.
    Counters(u32),
    /// Authenticated, with the answer for each room.
    Connected(Vec<RoomAnswer>),
    /// To be answered with a pong.
    Ping,
    /// A refusal.
    Refused,
    /// About to be closed.
    Disconnect,
    /// Anything else.
    Other,
}

/// Reads one message.
#[must_use]
pub fn hear(encoding: Encoding, payload: &[u8]) -> Heard<'_> {
    let quick = match encoding {
        Encoding::Json => quick_json(payload),
        Encoding::Protobuf => quick_protobuf(payload),
    };
    quick.unwrap_or_else(|| slow(encoding, payload))
}

/// Gives `text` up to the next `"`, and what stands behind it.
fn quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|b| *b == b'"')?;
    Some((&text[..end], &text[end + 1..]))
}

/// Events and `caughtUp` as the gateway writes them; a client that is used for more than measuring parses.
fn quick_json(payload: &[u8]) -> Option<Heard<'_>> {
    const CURSOR: &[u8] = b",\"cursor\":\"";
    if let Some(rest) = payload.strip_prefix(b"{\"event\":{\"room\":\"") {
        let (room, rest) = quoted(rest)?;
        let cursor = rest.strip_prefix(CURSOR).and_then(quoted);
        return Some(event(room, cursor.map(|(cursor, _)| cursor), payload));
    }
    let rest = payload.strip_prefix(b"{\"caughtUp\":{\"room\":\"")?;
    let (room, rest) = quoted(rest)?;
    let (cursor, _) = quoted(rest.strip_prefix(CURSOR)?)?;
    Some(Heard::CaughtUp { room, cursor })
}

/// `ServerFrame.event` and `ServerFrame.caught_up`: field number and wire type 2.
const EVENT: u8 = (11 << 3) | 2;
const CAUGHT_UP: u8 = (12 << 3) | 2;

fn quick_protobuf(payload: &[u8]) -> Option<Heard<'_>> {
    let (kind, inner, _) = field(payload)?;
    match kind {
        EVENT => {
            let (_, room, rest) = field(inner)?;
            let (kind, second, rest) = field(rest)?;
            let (cursor, json) = if kind >> 3 == 2 {
                (Some(second), field(rest)?.1)
            } else {
                (None, second)
            };
            Some(event(room, cursor, json))
        }
        CAUGHT_UP => {
            let (_, room, rest) = field(inner)?;
            let (_, cursor, _) = field(rest)?;
            Some(Heard::CaughtUp { room, cursor })
        }
        _ => None,
    }
}

/// The first field, which must have a length: its key, its bytes, what follows.
fn field(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let key = *bytes.first()?;
    let (mut length, mut at) = (0_usize, 1);
    loop {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
        if at > 5 {
            return None;
        }
    }
    (key & 7 == 2).then_some(())?;
    Some((key, bytes.get(at..at + length)?, bytes.get(at + length..)?))
}

fn event<'a>(room: &'a [u8], cursor: Option<&'a [u8]>, json: &'a [u8]) -> Heard<'a> {
    // What the publisher counts and stamps are the last members of the last attribute.
    let tail = &json[json.len().saturating_sub(64)..];
    Heard::Event {
        room,
        cursor,
        number: number(tail, b",\"n\":"),
        sent: number(tail, b"\"sent\":"),
    }
}

fn number(text: &[u8], name: &[u8]) -> Option<u64> {
    let at = text.windows(name.len()).rposition(|window| window == name)? + name.len();
    let digits = text[at..].iter().take_while(|b| b.is_ascii_digit());
    Some(digits.fold(0, |n, b| n * 10 + u64::from(b - b'0')))
}

fn slow(encoding: Encoding, payload: &[u8]) -> Heard<'_> {
    let frame = match encoding {
        Encoding::Json => std::str::from_utf8(payload)
            .ok()
            .and_then(|text| ServerFrame::from_json(text).ok()),
        Encoding::Protobuf => ServerFrame::from_protobuf(payload).ok(),
    };
    match frame.and_then(|frame| frame.body) {
        Some(Body::Connected(connected)) => Heard::Connected(connected.rooms),
        Some(Body::Counters(counters)) => Heard::Counters(counters.unread),
        Some(Body::Ping(_)) => Heard::Ping,
        Some(Body::Error(_)) => Heard::Refused,
        Some(Body::Disconnect(_)) => Heard::Disconnect,
        _ => Heard::Other,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use roomcast_proto::frame::{CaughtUp, Disconnect, EventPush, Ping, server_frame};

    use super::*;

    /// `body` is heard as `expected` in both encodings.
    fn check(body: server_frame::Body, expected: &Heard<'_>) {
        let frame = ServerFrame::push(body);
        assert_eq!(&hear(Encoding::Json, frame.to_json().as_bytes()), expected);
        assert_eq!(&hear(Encoding::Protobuf, &frame.to_protobuf()), expected);
    }

    #[test]
    fn messages_are_heard_in_both_encodings() {
        let event = |json: &'static str, cursor: Option<&str>| {
            server_frame::Body::Event(EventPush {
                room: "load.7".into(),
                cursor: cursor.map(str::to_owned),
                event: Bytes::from_static(json.as_bytes()),
            })
        };
        let heard = |cursor, number, sent| Heard::Event {
            room: b"load.7",
            cursor,
            number,
            sent,
        };
        let full = r#"{"specversion":"1.0","id":"1","data":{"fill":"xxxxxxxxxxxxxxxxxxxxxxxxx","n":41,"sent":1700000000000000}}"#;
        check(
            event(full, Some("00000001.2.3.4")),
            &heard(Some(b"00000001.2.3.4"), Some(41), Some(1_700_000_000_000_000)),
        );
        check(event(r#"{"data":{"sent":5}}"#, None), &heard(None, None, Some(5)));
        check(event("{}", Some("c")), &heard(Some(b"c"), None, None));
        check(
            server_frame::Body::CaughtUp(CaughtUp {
                room: "load.7".into(),
                cursor: "c".into(),
            }),
            &Heard::CaughtUp {
                room: b"load.7",
                cursor: b"c",
            },
        );
        check(server_frame::Body::Ping(Ping {}), &Heard::Ping);
        check(
            server_frame::Body::Disconnect(Disconnect::default()),
            &Heard::Disconnect,
        );
    }

    #[test]
    fn what_is_no_message_is_heard_as_nothing() {
        for bytes in [
            &b""[..],
            b"{",
            b"{\"event\":{\"room\":\"x",
            &[EVENT],
            &[EVENT, 9, 1],
            &[0xff; 9],
        ] {
            for encoding in Encoding::ALL {
                assert_eq!(hear(encoding, bytes), Heard::Other, "{bytes:?}");
            }
        }
    }
}
