//! Frames of the protocol as complete WebSocket messages, in the encoding that a client's upgrade agreed on.
//!
//! Called wherever a shard speaks for itself: answers, pushes, last words. Events have ready frames of their own, in `delivery`.

use bytes::Bytes;
use roomcast_proto::frame::{BadFrame, ClientFrame, Encoding, ServerFrame};

use crate::ws::{self, Message};

/// Writes a frame for one client.
#[must_use]
pub fn message(encoding: Encoding, frame: &ServerFrame) -> Bytes {
    match encoding {
        Encoding::Json => ws::text_frame(frame.to_json().as_bytes()),
        Encoding::Protobuf => ws::binary_frame(&frame.to_protobuf()),
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
}

impl Ready {
    /// Writes it.
    #[must_use]
    pub fn new(frame: &ServerFrame) -> Self {
        Self {
            json: message(Encoding::Json, frame),
            protobuf: message(Encoding::Protobuf, frame),
        }
    }

    /// What a client with this encoding is sent.
    #[must_use]
    pub fn in_encoding(&self, encoding: Encoding) -> &Bytes {
        match encoding {
            Encoding::Json => &self.json,
            Encoding::Protobuf => &self.protobuf,
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
        let ready = Ready::new(&session::ping());
        assert_eq!(&ready.in_encoding(Encoding::Json)[..], b"\x81\x0b{\"ping\":{}}");
        assert_eq!(
            &ready.in_encoding(Encoding::Protobuf)[..],
            b"\x82\x03\x9a\x01\x00"
        );
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
        ];
        for (encoding, message, is_read) in rows {
            let expected = is_read.then(|| Ok(pong.clone()));
            assert_eq!(read(encoding, message), expected, "{encoding:?} {message:?}");
        }
    }
}
