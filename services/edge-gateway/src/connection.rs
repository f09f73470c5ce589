//! One socket in a shard: what is kept for it, and the only two ways bytes leave.
//!
//! At rest there is no buffer, no task and no timer: the decoder is a null pointer, the outbox is absent, and one
//! number says when the shard's wheel has to look at it again.

use std::io::{ErrorKind, IoSlice, Write};
use std::time::Instant;

use bytes::Bytes;
use mio::net::TcpStream;
use roomcast_proto::frame::{ServerFrame, Thinned, server_frame};

use crate::admission::{Place, Stranger};
use crate::beat::Beat;
use crate::bucket::Bucket;
use crate::encoding::{self, Encoding};
use crate::metrics::Tally;
use crate::outbox::{self, Class, Full, GaveWay, Outbox};
use crate::session::{Handshake, Now, Opening, Reading, Session, Wish};
use crate::ws::Decoder;

/// Frames given to one `writev`: most of what a returning client missed goes out in one.
const SLICES: usize = 128;
/// Wishes that may wait behind a room that is being recovered; a client that sends more has lost patience, or means harm.
pub const QUEUE_MAX: usize = 256;

/// How far a connection has come.
#[derive(Debug)]
pub enum Stage {
    /// Nothing said yet; closed at this instant, milliseconds of the shard's clock.
    Handshake {
        /// What is known.
        handshake: Box<Handshake>,
        /// The end of patience.
        due: u64,
    },
    /// Connected.
    Session(Box<Session>),
    /// Gets its messages back, for conformance suites.
    #[cfg(all(feature = "echo", debug_assertions))]
    Echo,
    /// Our close frame is out or waits; what comes in is dropped until this instant.
    Closing {
        /// Then the socket is dropped, whatever the other side does.
        until: u64,
    },
}

/// What of a socket wakes its shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Watched {
    /// Nothing yet.
    #[default]
    Unwatched,
    /// Bytes that came.
    Bytes,
    /// Room for bytes as well.
    Room,
}

/// Rooms that cannot be opened yet, and what waits behind them.
#[derive(Debug)]
pub struct Waiting {
    /// The number that the hub answers with.
    pub ticket: u64,
    /// The rooms.
    pub opening: Opening,
    /// Carried out afterwards, in this order.
    pub queue: Vec<Wish>,
}

/// One client's socket and everything kept for it.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub socket: TcpStream,
    /// How far it has come.
    pub stage: Stage,
    /// How frames are written, both ways.
    pub encoding: Encoding,
    /// A frame or message that is not complete.
    pub decoder: Decoder,
    /// What could not be written; absent when everything could.
    outbox: Option<Box<Outbox>>,
    /// What of it is counted among what waits in all outboxes, bytes.
    pub counted: usize,
    /// Bytes it may send.
    pub ingress: Bucket,
    /// When the wheel looks at it next.
    pub wake_at: u64,
    /// When it is asked whether it is still there.
    pub beat: Beat,
    /// Since when bytes wait without any being taken; 0: none wait.
    pub stuck_at: u64,
    /// What the system says about the socket.
    pub watched: Watched,
    /// Rooms being recovered.
    pub waiting: Option<Box<Waiting>>,
    /// History being read.
    pub reading: Option<Box<(u64, Reading)>>,
    /// The ticket of a page of a long recovery; 0: none.
    pub page_ticket: u64,
    /// Commands and publishes under way.
    pub asks: u32,
    /// Its name in logs and in `connected`.
    pub name: u64,
    /// When it was accepted.
    pub accepted: Instant,
    /// Held as long as it lives.
    pub place: Place,
    /// Held until it has shown a token.
    pub stranger: Option<Stranger>,
}

/// How a write went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Nothing waits.
    All,
    /// Something waits for the socket.
    Blocked,
    /// The outbox is full.
    Full,
    /// The socket is broken.
    Broken,
}

impl Connection {
    /// A connection with nothing read and nothing written.
    #[must_use]
    pub fn new(
        socket: TcpStream,
        stage: Stage,
        encoding: Encoding,
        beat: Beat,
        accepted: Instant,
        held: (Place, Option<Stranger>),
    ) -> Self {
        Self {
            socket,
            stage,
            encoding,
            decoder: Decoder::default(),
            outbox: None,
            counted: 0,
            ingress: Bucket::default(),
            wake_at: 0,
            beat,
            stuck_at: 0,
            watched: Watched::default(),
            waiting: None,
            reading: None,
            page_ticket: 0,
            asks: 0,
            name: fastrand::u64(..),
            accepted,
            place: held.0,
            stranger: held.1,
        }
    }

    /// Whether bytes wait.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.outbox.is_some()
    }

    /// Frames and bytes that wait.
    #[must_use]
    pub fn waiting_bytes(&self) -> (usize, usize) {
        let outbox = self.outbox.as_ref();
        outbox.map_or((0, 0), |outbox| (outbox.len(), outbox.bytes()))
    }

    /// The session, when it is connected.
    #[must_use]
    pub fn session(&mut self) -> Option<&mut Session> {
        match &mut self.stage {
            Stage::Session(session) => Some(session),
            _ => None,
        }
    }

    /// Writes a ready frame now when nothing waits; what the socket does not take is queued.
    pub fn send(
        &mut self,
        frame: &Bytes,
        class: &Class,
        limits: outbox::Limits,
        now: Now,
        tally: &mut Tally,
    ) -> Sent {
        if self.outbox.is_some() {
            return self.queue(frame.clone(), class.clone(), limits, tally);
        }
        match self.write(frame, tally) {
            Ok(written) if written == frame.len() => {
                tally.frames_out += 1;
                Sent::All
            }
            Ok(written) => {
                self.stuck_at = now.millis;
                self.put(frame.clone(), written, class.clone(), limits, tally)
            }
            Err(_) => Sent::Broken,
        }
    }

    /// Writes frames that lie one after another in `wire`; `ends` says where each ends and what it is.
    pub fn send_many(
        &mut self,
        wire: &Bytes,
        ends: &[(usize, Class)],
        limits: outbox::Limits,
        now: Now,
        tally: &mut Tally,
    ) -> Sent {
        let written = match self.outbox {
            Some(_) => 0,
            None => match self.write(wire, tally) {
                Ok(written) if written == wire.len() => {
                    tally.frames_out += ends.len() as u64;
                    return Sent::All;
                }
                Ok(written) => {
                    self.stuck_at = now.millis;
                    written
                }
                Err(_) => return Sent::Broken,
            },
        };
        let mut start = 0;
        for (end, class) in ends {
            if *end > written {
                let (frame, out) = (wire.slice(start..*end), written.saturating_sub(start));
                if self.put(frame, out, class.clone(), limits, tally) == Sent::Full {
                    return Sent::Full;
                }
            } else {
                tally.frames_out += 1;
            }
            start = *end;
        }
        Sent::Blocked
    }

    /// Queues a frame behind what waits, to be written by [`Connection::flush`].
    pub fn queue(&mut self, frame: Bytes, class: Class, limits: outbox::Limits, tally: &mut Tally) -> Sent {
        self.put(frame, 0, class, limits, tally)
    }

    fn put(
        &mut self,
        frame: Bytes,
        written: usize,
        class: Class,
        limits: outbox::Limits,
        tally: &mut Tally,
    ) -> Sent {
        let full = match class {
            Class::State(_) => &mut tally.outbox_full.state,
            Class::Event => &mut tally.outbox_full.event,
            _ => &mut tally.outbox_full.answer,
        };
        let pushed = self
            .outbox
            .get_or_insert_default()
            .push(frame, written, class, limits);
        let sent = match pushed {
            Ok(gave_way) => {
                tally.frames_out += 1;
                tally.conflated += u64::from(gave_way.state);
                tally.dropped_ephemeral += u64::from(gave_way.ephemeral);
                Sent::Blocked
            }
            Err(Full) => {
                *full += 1;
                Sent::Full
            }
        };
        self.count(tally);
        sent
    }

    /// Counts what waits here among what waits in all outboxes.
    fn count(&mut self, tally: &mut Tally) {
        let now = self.outbox.as_ref().map_or(0, |outbox| outbox.bytes());
        tally.waiting_bytes += signed(now) - signed(self.counted);
        self.counted = now;
    }

    /// Writes what waits, until the socket takes no more.
    pub fn flush(&mut self, now: Now, tally: &mut Tally) -> Sent {
        let sent = self.flush_all(now, tally);
        self.count(tally);
        sent
    }

    fn flush_all(&mut self, now: Now, tally: &mut Tally) -> Sent {
        while let Some(outbox) = &mut self.outbox {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = outbox.next(&mut slices);
            match self.socket.write_vectored(&slices[..filled]) {
                Ok(written) => {
                    tally.bytes_out += written as u64;
                    outbox.wrote(written);
                    self.stuck_at = now.millis;
                    if outbox.is_empty() {
                        let thinned = outbox.take_thinned();
                        self.outbox = None;
                        self.tell_thinned(thinned);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.stuck_at == 0 {
                        self.stuck_at = now.millis;
                    }
                    return Sent::Blocked;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Sent::Broken,
            }
        }
        self.stuck_at = 0;
        Sent::All
    }

    /// Tells the client what it was not sent since it was told last, behind what waits: also one that is never without something
    /// waiting must know.
    pub fn queue_thinned(&mut self) {
        if let Some(outbox) = &mut self.outbox {
            let thinned = outbox.take_thinned();
            self.tell_thinned(thinned);
        }
    }

    fn tell_thinned(&mut self, thinned: GaveWay) {
        // After a close frame nothing may be said.
        if thinned == GaveWay::default() || !matches!(self.stage, Stage::Session(_)) {
            return;
        }
        let frame = ServerFrame::push(server_frame::Body::Thinned(Thinned {
            state: thinned.state,
            ephemeral: thinned.ephemeral,
        }));
        let frame = encoding::message(self.encoding, &frame);
        let none = outbox::Limits {
            bytes_max: 0,
            frames_max: 0,
        };
        // A note is not counted against any.
        let _ = self
            .outbox
            .get_or_insert_default()
            .push(frame, 0, Class::Note, none);
    }

    /// Drops what waits, but for a frame that is half out.
    pub fn abandon(&mut self, tally: &mut Tally) {
        if let Some(outbox) = &mut self.outbox {
            outbox.abandon();
            if outbox.is_empty() {
                self.outbox = None;
            }
        }
        self.count(tally);
    }

    /// One `write(2)`; 0 when the socket takes nothing.
    fn write(&mut self, bytes: &[u8], tally: &mut Tally) -> std::io::Result<usize> {
        loop {
            match self.socket.write(bytes) {
                Ok(written) => {
                    tally.bytes_out += written as u64;
                    return Ok(written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Bytes of one process are far fewer than 2⁶³.
fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
