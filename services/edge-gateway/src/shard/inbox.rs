//! How other threads reach a shard: a queue, and one wake-up for however much is put into it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use mio::Waker;
use mio::net::{TcpListener, TcpStream};
use roomcast_proto::acl::Kick;

use super::asking::Answered;
use super::look::Question;
use super::stream::Stream;
use crate::admission::{Place, Stranger};
use crate::encoding::Encoding;
use crate::gate::Admitted;
use crate::hub::ToShard;
use crate::metrics::GatewayMetrics;
use crate::presence::Place as Somewhere;

/// Messages that may wait in the inbox. A shard that is so far behind has lost contact with the present: its clients
/// are told to come back (4005) instead of being kept for minutes.
pub(super) const INBOX_MAX: usize = 100_000;

/// A socket that has not said anything yet.
#[derive(Debug)]
pub struct Newcomer {
    /// The socket.
    pub socket: TcpStream,
    /// Whether its shard watches it already.
    pub watched: bool,
    /// Held as long as the connection lives.
    pub place: Place,
    /// Held until it has shown a token.
    pub stranger: Stranger,
    /// When it was accepted.
    pub accepted: Instant,
}

/// A newcomer that wants something else than a WebSocket, or not all at once: it goes to the HTTP library.
#[derive(Debug)]
pub struct Caller {
    /// The socket and what it holds.
    pub newcomer: Newcomer,
    /// What was read of it.
    pub first: Vec<u8>,
}

/// A socket that was upgraded.
#[derive(Debug)]
pub struct Arrival {
    /// The socket.
    pub socket: TcpStream,
    /// Whether the shard that gets it watches it already.
    pub watched: bool,
    /// What the client sent right behind its request.
    pub early: Vec<u8>,
    /// The user, when a token came with the request.
    pub admitted: Option<Admitted>,
    /// How frames are written.
    pub encoding: Encoding,
    /// What a stream of server-sent events asked for; `None`: a WebSocket, which asks later.
    pub stream: Option<Box<Stream>>,
    /// Held as long as the connection lives.
    pub place: Place,
    /// Held until it has shown a token.
    pub stranger: Option<Stranger>,
    /// When it was accepted.
    pub accepted: Instant,
}

/// What comes to a shard from other threads.
#[derive(Debug)]
pub(super) enum Inbox {
    Hub(ToShard),
    Listen(TcpListener),
    Shut,
    Arrival(Box<Arrival>),
    Answered(Box<Answered>),
    Presence(Arc<HashSet<Somewhere>>),
    Drain(Duration, usize),
    Look(Question),
    Kick(Arc<Kick>),
}

/// How other threads reach a shard. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    inbox: Sender<Inbox>,
    waker: Arc<Waker>,
    signal: Arc<Signal>,
    metrics: GatewayMetrics,
}

/// Wake-ups are coalesced: while one is under way, no other is sent.
#[derive(Debug, Default)]
pub(super) struct Signal {
    notified: AtomicBool,
    backlog: AtomicUsize,
    /// A delivery was dropped: what members got since is not whole.
    lost: AtomicBool,
}

impl Signal {
    /// From here on another message wakes the shard again; asked before the inbox is read. Whether deliveries were lost.
    pub(super) fn listening(&self) -> bool {
        self.notified.store(false, Ordering::Release);
        self.lost.swap(false, Ordering::AcqRel)
    }

    /// So many messages were taken out.
    pub(super) fn took(&self, count: usize) {
        self.backlog.fetch_sub(count, Ordering::Relaxed);
    }
}

impl Handle {
    /// The two ends of a shard's inbox, and what they share.
    pub(super) fn new(waker: Arc<Waker>, metrics: GatewayMetrics) -> (Self, Receiver<Inbox>, Arc<Signal>) {
        let (sender, inbox) = channel();
        let signal = Arc::new(Signal::default());
        (
            Self {
                inbox: sender,
                waker,
                signal: Arc::clone(&signal),
                metrics,
            },
            inbox,
            signal,
        )
    }

    /// Hands over the listener that new sockets come from.
    pub fn listen(&self, listener: TcpListener) {
        self.send(Inbox::Listen(listener));
    }

    /// Answers 503 to everybody who comes from now on.
    pub fn shut(&self) {
        self.send(Inbox::Shut);
    }

    /// Hands an upgraded socket over.
    pub fn arrive(&self, arrival: Arrival) {
        self.send(Inbox::Arrival(Box::new(arrival)));
    }

    /// Closes all connections with 4001, evenly within `window`, then ends the thread. `everybody`: connections of the gateway.
    pub fn drain(&self, window: Duration, everybody: usize) {
        self.send(Inbox::Drain(window, everybody));
    }

    /// Ends the connections that are meant.
    pub fn kick(&self, kick: Arc<Kick>) {
        self.send(Inbox::Kick(kick));
    }

    /// Has the shard look around at once: rights have changed.
    pub fn wake(&self) {
        let _ = self.waker.wake();
    }

    pub(super) fn tell(&self, message: ToShard) {
        let behind = self.signal.backlog.load(Ordering::Relaxed) >= INBOX_MAX;
        if behind && matches!(message, ToShard::Deliver(_)) {
            self.signal.lost.store(true, Ordering::Release);
            self.metrics.inbox_overflow();
            return;
        }
        self.send(Inbox::Hub(message));
    }

    /// These rooms have other people in them than before.
    pub fn presence_changed(&self, places: Arc<HashSet<Somewhere>>) {
        self.send(Inbox::Presence(places));
    }

    pub(super) fn send(&self, message: Inbox) {
        self.signal.backlog.fetch_add(1, Ordering::Relaxed);
        // A shard that is gone takes nothing any more; its end is reported by its thread.
        let _ = self.inbox.send(message);
        if !self.signal.notified.swap(true, Ordering::AcqRel) {
            let _ = self.waker.wake();
        }
    }
}
