//! Bytes in: from readiness to messages to wishes carried out.

use std::io::{ErrorKind, Read};

use roomcast_proto::close::Close;
use roomcast_proto::frame::{BadFrame, ClientFrame, ServerFrame, client_frame};

use super::Shard;
use crate::admission::TooMany;
use crate::allowance::{self, Operation};
use crate::connection::{Connection, QUEUE_MAX, Stage};
use crate::encoding::{self, Encoding};
use crate::limit::Limit;
use crate::metrics::Ending;
use crate::outbox::Class;
use crate::session::{StreamRequest, Wish};
use crate::ws::{self, Flow, Message};

/// Bytes read from one client before the others have their turn.
const TURN_BYTES: usize = 64 * 1024;

impl Shard {
    /// Reads until the socket has no more, or the client's turn is over. Readiness is told once, at the edge: bytes that
    /// come later are a new event, an end that came with them is not, so with `to_end` it is read as well.
    pub(super) fn read(&mut self, key: u32, to_end: bool) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut turn = 0;
        while let Some(connection) = self.connections.get_mut(key as usize) {
            if turn >= TURN_BYTES {
                self.unread.push(key);
                break;
            }
            match connection.socket.read(&mut scratch) {
                Ok(0) => {
                    // This is how the reader of a stream leaves; a socket says goodbye before.
                    let ending = match connection.encoding {
                        Encoding::Sse => Ending::Client,
                        _ => Ending::Gone,
                    };
                    self.ending.push((key, ending));
                    break;
                }
                Ok(count) => {
                    turn += count;
                    self.tally.bytes_in += count as u64;
                    self.take_bytes(key, &mut scratch[..count]);
                    if count < scratch.len() && !to_end {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() == ErrorKind::TimedOut {
                        self.shared.metrics.limited(Limit::Unacknowledged);
                    }
                    self.ending.push((key, Ending::Gone));
                    break;
                }
            }
        }
        self.scratch = scratch;
    }

    /// Goes on with those whose turn was over.
    pub(super) fn read_deferred(&mut self) {
        for key in std::mem::take(&mut self.unread) {
            self.read(key, true);
            self.attend();
        }
    }

    /// Takes bytes of a client: counts them against its budget, then reads frames.
    pub(super) fn take_bytes(&mut self, key: u32, bytes: &mut [u8]) {
        let rate = self.shared.limits.ingress;
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return;
        };
        if matches!(connection.stage, Stage::Closing { .. }) {
            return;
        }
        #[cfg(all(feature = "echo", debug_assertions))]
        if matches!(connection.stage, Stage::Echo) {
            return self.echo(key, bytes);
        }
        if !connection.ingress.take(self.now.millis, bytes.len() as u64, rate) {
            self.shared.metrics.limited(Limit::Ingress);
            return self.end(key, Close::Rate);
        }
        if connection.encoding == Encoding::Sse {
            return;
        }
        let limits = self.shared.limits.ws;
        let mut decoder = std::mem::take(&mut connection.decoder);
        let fed = decoder.feed(bytes, limits, |message| self.message(key, message));
        match fed {
            Ok(()) => {
                if let Some(connection) = self.connections.get_mut(key as usize) {
                    connection.decoder = decoder;
                }
            }
            Err(violation) => {
                if violation == ws::Violation::TooBig {
                    self.shared.metrics.limited(Limit::Message);
                }
                self.end(key, violation.close());
            }
        }
    }

    /// Takes one message or control frame.
    fn message(&mut self, key: u32, message: Message<'_>) -> Flow {
        self.tally.frames_in += 1;
        match message {
            Message::Text(_) | Message::Binary(_) => self.data(key, message),
            Message::Ping(payload) => self.queue(key, ws::pong_frame(payload), Class::Pong),
            Message::Pong(_) => {}
            Message::Close(code) => self.answer_close(key, code.map(|(code, _)| code)),
        }
        let open = |connection: &Connection| !matches!(connection.stage, Stage::Closing { .. });
        if self.connections.get(key as usize).is_some_and(open) {
            Flow::Continue
        } else {
            Flow::Stop
        }
    }

    fn data(&mut self, key: u32, message: Message<'_>) {
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return;
        };
        let Some(frame) = encoding::read(connection.encoding, message) else {
            return self.end(key, Close::WsUnsupported);
        };
        let mut wishes = std::mem::take(&mut self.wishes);
        match &mut connection.stage {
            Stage::Closing { .. } => {}
            #[cfg(all(feature = "echo", debug_assertions))]
            Stage::Echo => {}
            Stage::Handshake { handshake, .. } => {
                let handshake = std::mem::take(&mut **handshake);
                let presence = presence_wanted(&frame);
                match handshake.accept(frame, &self.shared.gate, self.shared.limits.session, self.now) {
                    Ok((session, opening)) => {
                        connection.stranger = None;
                        if let Err(limit) = connection.place.settle(session.tenant(), session.user()) {
                            self.wishes = wishes;
                            return self.one_too_many(key, opening.id, limit);
                        }
                        let counted = session.is_counted();
                        wishes.push(Wish::Open(opening));
                        wishes.extend(session.watched(&presence).map(Wish::Watch));
                        connection.stage = Stage::Session(Box::new(session));
                        if counted {
                            wishes.push(Wish::Listen);
                        }
                    }
                    Err(failed) => {
                        if failed.close == Close::Limit {
                            self.shared.metrics.limited(Limit::Rooms);
                        }
                        self.say(key, &ServerFrame::refuse(failed.id, &failed.refusal));
                        self.end(key, failed.close);
                    }
                }
                self.schedule(key);
            }
            Stage::Session(session) => {
                if matches!(
                    &frame,
                    Ok(ClientFrame {
                        body: Some(client_frame::Body::Pong(_)),
                        ..
                    })
                ) {
                    connection.beat.heard();
                }
                let allowance = &self.shared.allowance;
                let over = frame.as_ref().ok().and_then(|frame| {
                    let operation = Operation::of(frame)?;
                    let taken = allowance.take(session.tenant(), session.user(), operation);
                    taken.err().map(|wait_millis| (frame.id, wait_millis))
                });
                match over {
                    Some((id, wait_millis)) => {
                        session.refuse(id, &allowance::too_many(wait_millis), self.now, &mut wishes);
                    }
                    None => session.message(frame, &self.shared.gate, self.now, &mut wishes),
                }
            }
        }
        self.carry_out(key, &mut wishes);
        self.wishes = wishes;
    }

    /// A token that holds, of a tenant or a user that has too many connections: 4504.
    fn one_too_many(&mut self, key: u32, id: Option<u32>, limit: TooMany) {
        let label = &[limit.as_str()];
        self.shared.metrics.turned_away.with_label_values(label).inc();
        self.say(key, &ServerFrame::refuse(id, &limit.refusal()));
        self.end(key, Close::Limit);
    }

    /// Begins the session of a stream, whose request has said everything.
    pub(super) fn take_request(&mut self, key: u32, request: StreamRequest) {
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return;
        };
        let Stage::Handshake { handshake, .. } = &mut connection.stage else {
            return;
        };
        let handshake = std::mem::take(&mut **handshake);
        let limits = self.shared.limits.session;
        let (session, opening) = match handshake.stream(&request, &self.shared.gate, limits, self.now) {
            Ok(begun) => begun,
            Err(close) => return self.end(key, close),
        };
        let mut wishes = vec![Wish::Open(opening)];
        if session.is_counted() {
            wishes.push(Wish::Listen);
        }
        // After its rooms are open: who is in a room is told only to those who have it.
        wishes.extend(session.watched(&request.presence).map(Wish::Watch));
        connection.stage = Stage::Session(Box::new(session));
        self.schedule(key);
        self.carry_out(key, &mut wishes);
    }

    /// Carries wishes out in their order. While rooms are being recovered all of them wait, but for the end and for
    /// what takes rights away.
    pub(super) fn carry_out(&mut self, key: u32, wishes: &mut Vec<Wish>) {
        for wish in wishes.drain(..) {
            let Some(connection) = self.connections.get_mut(key as usize) else {
                continue;
            };
            if matches!(connection.stage, Stage::Closing { .. }) {
                continue;
            }
            let wish = match wish {
                Wish::Met(limit) => {
                    self.shared.metrics.limited(limit);
                    continue;
                }
                Wish::Forbade(what) => {
                    if let Some(session) = connection.session() {
                        self.shared.gate.forbade(what, session.admitted());
                    }
                    continue;
                }
                Wish::End(close) => {
                    self.end(key, close);
                    continue;
                }
                Wish::Evict(room) => {
                    self.leave(key, &room);
                    continue;
                }
                Wish::Exchange(permits) => {
                    let in_force = self.shared.gate.rights().now();
                    self.count_again(key, &in_force.policy);
                    match self.exchange(key, permits) {
                        Some(opening) => Wish::Open(opening),
                        None => continue,
                    }
                }
                Wish::Tell(frame) => {
                    self.say(key, &frame);
                    continue;
                }
                wish => wish,
            };
            self.carry_out_in_turn(key, wish);
        }
    }

    fn carry_out_in_turn(&mut self, key: u32, wish: Wish) {
        let waiting = self
            .connections
            .get_mut(key as usize)
            .and_then(|connection| connection.waiting.as_mut());
        match (waiting, wish) {
            (Some(waiting), wish) if waiting.queue.len() < QUEUE_MAX => waiting.queue.push(wish),
            (Some(_), _) => {
                self.shared.metrics.limited(Limit::Waiting);
                self.end(key, Close::Rate);
            }
            (None, Wish::Say(frame)) => self.say(key, &frame),
            (None, Wish::Open(opening)) => self.open(key, opening),
            (None, Wish::Leave(room)) => self.leave(key, &room),
            (None, Wish::Read(reading)) => self.read_history(key, reading),
            (None, Wish::Presence(id, room)) => self.answer_presence(key, id, &room),
            (None, Wish::Watch(room)) => self.watch(key, &room),
            (None, Wish::Listen) => self.listen(key),
            (None, Wish::Ask(ask)) => self.ask(key, *ask),
            (None, Wish::Count(what, code)) => self.shared.asking.count(what, code.as_str()),
            (
                None,
                Wish::End(_)
                | Wish::Evict(_)
                | Wish::Exchange(_)
                | Wish::Tell(_)
                | Wish::Forbade(_)
                | Wish::Met(_),
            ) => {}
        }
    }
}

/// The rooms of a `connect` of which presence is wanted.
fn presence_wanted(frame: &Result<ClientFrame, BadFrame>) -> Vec<String> {
    let Ok(ClientFrame {
        body: Some(client_frame::Body::Connect(connect)),
        ..
    }) = frame
    else {
        return Vec::new();
    };
    let wanted = connect.rooms.iter().filter(|asked| asked.presence == Some(true));
    wanted.map(|asked| asked.room.clone()).collect()
}

/// The connection's name as it is shown.
pub(super) fn name(connection: &Connection) -> String {
    shown(connection.name)
}

/// A connection's number as it is shown.
pub(super) fn shown(number: u64) -> String {
    format!("c{number:016x}")
}
