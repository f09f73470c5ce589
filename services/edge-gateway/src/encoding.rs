//! Frames of the protocol as complete messages for a socket, in the way that a client's request agreed on.
//!
//! Called wherever a shard speaks for itself: answers, pushes, last words. Events have ready frames of their own, in `delivery`.

use bytes::Bytes;
use roomcast_proto::close::Close;
use roomcast_proto::frame::{self, BadFrame, CaughtUp, ClientFrame, Disconnect, ServerFrame, server_frame};
use roomcast_proto::ids::Room;

use crate::sse;
use crate::ws::{self, Message};

/// How one connection is written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// JSON in text messages of a WebSocket.
    #[default]
    Json,
    /// Protobuf in binary messages of a WebSocket.
    Protobuf,
    /// JSON as server-sent events; one cursor for all rooms, and nothing is read.
    Sse,
}

impl From<frame::Encoding> for Encoding {
    fn from(agreed: frame::Encoding) -> Self {
        match agreed {
            frame::Encoding::Json => Self::Json,
            frame::Encoding::Protobuf => Self::Protobuf,
        }
    }
}

/// Writes a frame for one client.
#[must_use]
pub fn message(encoding: Encoding, frame: &ServerFrame) -> Bytes {
    match encoding {
        Encoding::Json => ws::text_frame_of(|out| frame.put_json(out)),
        Encoding::Protobuf => ws::binary_frame(&frame.to_protobuf()),
        Encoding::Sse => sse::event(None, frame.to_json().as_bytes()),
    }
}

/// `caughtUp` of a room.
#[must_use]
pub fn caught_up(encoding: Encoding, room: &Room, cursor: &str) -> Bytes {
    if encoding == Encoding::Json {
        let payload = frame::caught_up_json(room.as_str(), cursor);
        return ws::text_frame_of_parts(payload);
    }
    let caught_up = CaughtUp {
        room: room.as_str().to_owned(),
        cursor: cursor.to_owned(),
    };
    message(
        encoding,
        &ServerFrame::push(server_frame::Body::CaughtUp(caught_up)),
    )
}

/// A message after which the client stands at `cursor` in all its rooms, not only in the one it names.
#[must_use]
pub fn message_at(encoding: Encoding, frame: &ServerFrame, cursor: &str) -> Bytes {
    match encoding {
        Encoding::Sse => sse::event(Some(cursor), frame.to_json().as_bytes()),
        socket => message(socket, frame),
    }
}

/// What a connection is told before we close it.
#[must_use]
pub fn last_words(encoding: Encoding, disconnect: Disconnect, close: Close) -> Vec<Bytes> {
    let retry_after_ms = disconnect.retry_after_ms;
    let frame = ServerFrame::push(server_frame::Body::Disconnect(disconnect));
    match encoding {
        Encoding::Sse => vec![sse::farewell(retry_after_ms, frame.to_json().as_bytes())],
        socket => vec![
            message(socket, &frame),
            ws::close_frame(Some((close.code(), close.reason()))),
        ],
    }
}

/// Reads a client's message. `None`: it is of the other kind, which ends the connection with 1003; or it is no data message.
#[must_use]
pub fn read(encoding: Encoding, message: Message<'_>) -> Option<Result<ClientFrame, BadFrame>> {
    match (encoding, message) {
        (Encoding::Json, Message::Text(text)) => Some(ClientFrame::from_json(text)),
        (Encoding::Protobuf, Message::Binary(bytes)) => Some(ClientFrame::from_protobuf(bytes)),
        _ => None,
    }
}

/// A frame for many clients, written once in each encoding.
#[derive(Debug, Clone)]
pub struct Ready {
    json: Bytes,
    protobuf: Bytes,
    sse: Bytes,
}

impl Ready {
    /// Writes it.
    #[must_use]
    pub fn new(frame: &ServerFrame) -> Self {
        Self {
            json: message(Encoding::Json, frame),
            protobuf: message(Encoding::Protobuf, frame),
            sse: message(Encoding::Sse, frame),
        }
    }

    /// Says that the connection is alive: asks a socket, which answers; tells a stream, which cannot.
    #[must_use]
    pub fn alive(ping: &ServerFrame) -> Self {
        Self {
            sse: Bytes::from_static(sse::COMMENT),
            ..Self::new(ping)
        }
    }

    /// What a client with this encoding is sent.
    #[must_use]
    pub fn in_encoding(&self, encoding: Encoding) -> &Bytes {
        match encoding {
            Encoding::Json => &self.json,
            Encoding::Protobuf => &self.protobuf,
            Encoding::Sse => &self.sse,
        }
    }
}

#[cfg(test)]
mod tests {
    use roomcast_proto::frame::{Pong, client_frame};

    use super::*;
    use crate::session;

    #[test]
    fn each_encoding_has_its_kind_of_message() {
        let ready = Ready::alive(&session::ping());
        assert_eq!(&ready.in_encoding(Encoding::Sse)[..], b":\n\n");
        assert_eq!(&ready.in_encoding(Encoding::Json)[..], b"\x81\x0b{\"ping\":{}}");
        assert_eq!(
            &ready.in_encoding(Encoding::Protobuf)[..],
            b"\x82\x03\x9a\x01\x00"
        );
    }

    #[test]
    fn a_stream_says_where_the_client_is_and_when_to_come_back() {
        let caught_up = ServerFrame::push(server_frame::Body::CaughtUp(frame::CaughtUp {
            room: "a".into(),
            cursor: "c".into(),
        }));
        let text = r#"data: {"caughtUp":{"room":"a","cursor":"c"}}"#;
        assert_eq!(message(Encoding::Sse, &caught_up), format!("{text}\n\n"));
        assert_eq!(
            message_at(Encoding::Sse, &caught_up, "c"),
            format!("id: c\n{text}\n\n")
        );
        assert_eq!(
            message_at(Encoding::Json, &caught_up, "c"),
            message(Encoding::Json, &caught_up)
        );
        let room = Room::parse("a").unwrap();
        for encoding in [Encoding::Json, Encoding::Protobuf, Encoding::Sse] {
            assert_eq!(
                super::caught_up(encoding, &room, "c"),
                message(encoding, &caught_up)
            );
        }
        let disconnect = Disconnect {
            code: 4001,
            reason: "drain".into(),
            reconnect: true,
            retry_after_ms: Some(1800),
        };
        let words = last_words(Encoding::Sse, disconnect.clone(), Close::Drain);
        assert!(
            words.len() == 1 && words[0].starts_with(b"retry: 1800\ndata: {\"disconnect\":{\"code\":4001")
        );
        assert_eq!(last_words(Encoding::Json, disconnect, Close::Drain).len(), 2);
    }

    #[test]
    fn the_other_kind_of_message_is_not_read() {
        let pong = ClientFrame {
            id: None,
            body: Some(client_frame::Body::Pong(Pong {})),
        };
        let (text, bytes) = (pong.to_json(), pong.to_protobuf());
        let rows = [
            (Encoding::Json, Message::Text(&text), true),
            (Encoding::Json, Message::Binary(&bytes), false),
            (Encoding::Json, Message::Binary(text.as_bytes()), false),
            (Encoding::Protobuf, Message::Binary(&bytes), true),
            (Encoding::Protobuf, Message::Text(&text), false),
            (Encoding::Protobuf, Message::Ping(&bytes), false),
            (Encoding::Sse, Message::Text(&text), false),
        ];
        for (encoding, message, is_read) in rows {
            let expected = is_read.then(|| Ok(pong.clone()));
            assert_eq!(read(encoding, message), expected, "{encoding:?} {message:?}");
        }
    }
}
