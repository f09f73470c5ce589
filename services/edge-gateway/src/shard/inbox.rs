//! How other threads reach a shard: a queue, and one wake-up for however much is put into it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::Waker;
use mio::net::{TcpListener, TcpStream};
use roomcast_proto::acl::Kick;

use super::asking::Answered;
use super::look::Question;
use super::stream::Stream;
use crate::admission::{Place, Stranger};
use crate::bells_driver::Told;
use crate::encoding::Encoding;
use crate::gate::Admitted;
use crate::hub::ToShard;
use crate::metrics::GatewayMetrics;
use crate::presence::Place as Somewhere;
use crate::sync::{AtomicBool, AtomicUsize, Receiver, Sender, channel};

/// Messages that may wait in the inbox. A shard that is so far behind has lost contact with the present: its clients
/// are told to come back (4005) instead of being kept for minutes. More than [`INBOX_TURN`]: what came after a loss is not taken before
/// the loss is seen.
pub(super) const INBOX_MAX: usize = if cfg!(test) { 4 } else { 100_000 };
/// Messages taken from the inbox in one turn.
pub(super) const INBOX_TURN: usize = if cfg!(test) { 2 } else { 256 };

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
    /// The answer to its request, where it was not written yet: it leaves with the first frames.
    pub answer: Bytes,
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
pub(crate) enum Inbox {
    Hub(ToShard),
    Listen(TcpListener),
    Shut,
    Arrival(Box<Arrival>),
    Answered(Box<Answered>),
    Told(Box<Told>),
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
struct Signal {
    notified: AtomicBool,
    backlog: AtomicUsize,
    /// A delivery was dropped: what members got since is not whole.
    lost: AtomicBool,
}

/// The shard's own end of its inbox, read in turns of a bounded number of messages.
#[derive(Debug)]
pub(crate) struct Inlet {
    inbox: Receiver<Inbox>,
    signal: Arc<Signal>,
    taken: usize,
    /// How many may be taken.
    most: usize,
}

impl Inlet {
    /// Begins a turn of at most so many messages: from here on another message wakes the shard again. Whether deliveries were lost since
    /// the turn before.
    pub(crate) fn begin(&mut self, most: usize) -> bool {
        (self.taken, self.most) = (0, most.min(INBOX_TURN));
        self.signal.notified.store(false, Ordering::Release);
        self.signal.lost.swap(false, Ordering::AcqRel)
    }

    /// Whether something has come that was not taken yet.
    pub(crate) fn waits(&self) -> bool {
        self.signal.backlog.load(Ordering::Relaxed) > 0
    }

    /// The next message of this turn.
    pub(crate) fn next(&mut self) -> Option<Inbox> {
        if self.taken == self.most {
            return None;
        }
        let message = self.inbox.try_recv().ok()?;
        self.taken += 1;
        Some(message)
    }

    /// Ends the turn. Whether more may wait: then the next one begins without being woken.
    pub(crate) fn end(&mut self) -> bool {
        self.signal.backlog.fetch_sub(self.taken, Ordering::Relaxed);
        self.taken == self.most
    }

    /// How many were taken in this turn.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }
}

impl Handle {
    /// The two ends of a shard's inbox.
    pub(crate) fn new(waker: Arc<Waker>, metrics: GatewayMetrics) -> (Self, Inlet) {
        let (sender, inbox) = channel();
        let signal = Arc::new(Signal::default());
        let inlet = Inlet {
            inbox,
            signal: Arc::clone(&signal),
            taken: 0,
            most: INBOX_TURN,
        };
        let handle = Self {
            inbox: sender,
            waker,
            signal,
            metrics,
        };
        (handle, inlet)
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

    /// Hands over what the hub says. Never waits: a delivery too many is dropped, and the shard told that it lost one.
    pub(crate) fn tell(&self, message: ToShard) {
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

    /// What a user has not read, for one of its connections.
    pub fn told(&self, told: Told) {
        self.send(Inbox::Told(Box::new(told)));
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

#[cfg(test)]
mod tests {
    use mio::{Events, Poll, Token};
    use roomcast_chassis::metrics::Metrics;

    use super::*;
    use crate::delivery::tests::address;
    use crate::delivery::{Delivery, Kind};

    struct Rig {
        poll: Poll,
        handle: Handle,
        inlet: Inlet,
        metrics: Metrics,
    }

    fn rig() -> Rig {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(7)).unwrap());
        let metrics = Metrics::new("gateway").unwrap();
        let (handle, inlet) = Handle::new(waker, GatewayMetrics::new(&metrics).unwrap());
        Rig {
            poll,
            handle,
            inlet,
            metrics,
        }
    }

    impl Rig {
        /// Whether the shard would wake up now.
        fn wakes(&mut self) -> bool {
            let mut events = Events::with_capacity(4);
            self.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            !events.is_empty()
        }

        fn dropped(&self) -> bool {
            let text = String::from_utf8(self.metrics.encode().unwrap()).unwrap();
            text.lines()
                .any(|line| line.contains("reason=\"inbox\"") && !line.ends_with(" 0"))
        }
    }

    fn delivery() -> ToShard {
        let made = Delivery::new(
            address("a"),
            Kind::Ephemeral,
            roomcast_proto::cursor::Position::default(),
            None,
            None,
            b"{}",
        );
        ToShard::Deliver(Arc::new(made))
    }

    #[test]
    fn a_message_wakes_the_shard_once_until_its_turn_begins() {
        let mut rig = rig();
        assert!(!rig.wakes());
        rig.handle.shut();
        assert!(rig.wakes());
        rig.handle.shut();
        assert!(!rig.wakes(), "it is awake already");
        // From the beginning of a turn on another message is another reason to wake up, whether or not the turn finds it.
        assert!(!rig.inlet.begin(INBOX_TURN));
        rig.handle.shut();
        assert!(rig.wakes());
        let taken = std::iter::from_fn(|| rig.inlet.next()).count();
        assert_eq!(
            (taken, rig.inlet.end()),
            (INBOX_TURN, true),
            "a turn is bounded, and says that more waits"
        );
        rig.inlet.begin(INBOX_TURN);
        assert!(rig.inlet.next().is_some() && rig.inlet.next().is_none());
        assert!(!rig.inlet.end());
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_the_shard_is_told_once() {
        let mut rig = rig();
        for _ in 0..INBOX_MAX {
            rig.handle.tell(delivery());
        }
        assert!(!rig.dropped());
        rig.handle.tell(delivery());
        assert!(rig.dropped());
        // What is no delivery is never dropped.
        rig.handle.tell(ToShard::CloseAll);
        let mut lost = 0;
        let mut taken = 0;
        loop {
            lost += usize::from(rig.inlet.begin(INBOX_TURN));
            let before = taken;
            while rig.inlet.next().is_some() {
                taken += 1;
            }
            rig.inlet.end();
            if taken == before {
                break;
            }
        }
        assert_eq!((lost, taken), (1, INBOX_MAX + 1));
        // There is room again.
        rig.handle.tell(delivery());
        assert!(!rig.inlet.begin(INBOX_TURN) && rig.inlet.next().is_some());
    }
}
