//! The route that sends every message back, for suites that judge how we speak RFC 6455. Only with the feature `echo`, only in
//! builds with debug assertions, and there only where a test asks for it (`Settings::echo`).
//!
//! It has the shard's own reading and writing, the decoder, the outbox and the closing handshake; what it has not is
//! our protocol: no token, no `connect`, no pings of ours, no last words before a close frame. Its limits are as wide as
//! the suites want them, which is why no image has it.

use std::io::Write;

use super::Shard;
use super::inbox::{Arrival, Newcomer};
use crate::bucket::Bucket;
use crate::connection::Stage;
use crate::metrics::Ending;
use crate::outbox::{self, Class};
use crate::ws::{self, Flow, Message};
use crate::{accept, upgrade};

/// Where it is.
const PATH: &str = "/v1/echo";
/// Longest message and fragments of one.
const LIMITS: ws::Limits = ws::Limits {
    message_bytes_max: 16 << 20,
    fragments_max: 1 << 20,
};
/// What may wait for a client that sends faster than it reads.
const OUTBOX: outbox::Limits = outbox::Limits {
    bytes_max: 64 << 20,
    frames_max: 1 << 20,
};
/// Nothing is due for it; the wheel wants a number.
pub(super) const LOOK_AT_MILLIS: u64 = 3_600_000;

impl Shard {
    /// Takes a newcomer that asks for the route; gives back any other.
    pub(super) fn echo_newcomer(&mut self, mut newcomer: Newcomer, bytes: &[u8]) -> Option<Newcomer> {
        let front = &self.shared.front;
        if !front.echo {
            return Some(newcomer);
        }
        let agreed = upgrade::plain_at(PATH, bytes, front.head.fields_max, &front.origins);
        let Some((agreed, end)) = agreed else {
            return Some(newcomer);
        };
        let answer = accept::switched_head(&agreed);
        if !matches!(newcomer.socket.write(&answer), Ok(written) if written == answer.len()) {
            return None;
        }
        let key = self.arrive(Arrival {
            socket: newcomer.socket,
            watched: newcomer.watched,
            answer: bytes::Bytes::new(),
            early: Vec::new(),
            admitted: None,
            encoding: agreed.encoding.unwrap_or_default().into(),
            stream: None,
            place: newcomer.place,
            stranger: None,
            accepted: newcomer.accepted,
        });
        let key = key?;
        let mut early = bytes.get(end..).unwrap_or_default().to_vec();
        if let Some(connection) = self.connections.get_mut(key as usize) {
            connection.stage = Stage::Echo;
            connection.ingress = Bucket::default();
            self.take_bytes(key, &mut early);
        }
        None
    }

    /// Takes bytes of such a client.
    pub(super) fn echo(&mut self, key: u32, bytes: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return;
        };
        let mut decoder = std::mem::take(&mut connection.decoder);
        let fed = decoder.feed(bytes, LIMITS, |message| self.send_back(key, message));
        match fed {
            Ok(()) => {
                if let Some(connection) = self.connections.get_mut(key as usize) {
                    connection.decoder = decoder;
                }
            }
            Err(violation) => self.end(key, violation.close()),
        }
    }

    fn send_back(&mut self, key: u32, message: Message<'_>) -> Flow {
        let frame = match message {
            Message::Text(text) => ws::text_frame(text.as_bytes()),
            Message::Binary(bytes) => ws::binary_frame(bytes),
            Message::Ping(payload) => ws::pong_frame(payload),
            Message::Pong(_) => return Flow::Continue,
            Message::Close(code) => {
                let echo = ws::close_frame(code.map(|(code, _)| (code, "")));
                self.close(key, Ending::Client, false, &[echo]);
                return Flow::Stop;
            }
        };
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return Flow::Stop;
        };
        let sent = connection.queue(frame, Class::Answer, OUTBOX, &mut self.tally);
        self.note(key, sent);
        self.dirty.push(key);
        Flow::Continue
    }
}
