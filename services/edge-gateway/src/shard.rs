//! The driver: one thread, its sockets, one loop.
//!
//! A shard accepts its sockets and owns them; what turns out to be no WebSocket it hands to `accept`. It sleeps in one
//! `epoll_wait`; what wakes it is readiness of a socket, a message of the hub or of `accept` in its inbox, the one timer
//! wheel, or a room whose events have waited long enough. Nothing runs per connection: no task, no buffer, no timer. Decisions are
//! `session`'s, `outbox`'s and `members`'; here they are carried out, a bounded amount per turn, so that no client and
//! no room can hold the others up.

mod arrivals;
mod asking;
mod bell;
mod catch_up;
mod crowd;
mod deciding;
mod door;
#[cfg(all(feature = "echo", debug_assertions))]
mod echo;
mod exchange;
mod fan_out;
mod history;
mod inbox;
mod input;
mod look;
mod newcomers;
mod pieces;
mod presence;
mod present;
mod recovery;
mod refresh;
mod shared;
mod strangers;
mod stream;
mod timers;
mod write;

use door::{Door, LISTENER};
pub(crate) use history::newest_that_fit;
pub use inbox::{Arrival, Caller, Handle, Newcomer};
use inbox::{INBOX_MAX, INBOX_TURN};
pub(crate) use inbox::{Inbox, Inlet};
pub use look::{Counts, Filter, Holder, Known, Seen, SeenWhole, number};
pub use newcomers::Front;
use newcomers::Silent;
pub use shared::{Limits, Shared};
use strangers::Strangers;
pub use stream::Stream;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mio::event::Event;
use mio::{Events, Poll, Token, Waker};
use roomcast_proto::close::Close;
use roomcast_proto::cursor::Cursor;
use roomcast_proto::frame::{ServerFrame, Status, server_frame};
use slab::Slab;
use tokio::sync::oneshot;

use crate::connection::{Connection, Sent, Stage};
use crate::delivery::Delivery;
use crate::drain::Pace;
use crate::encoding::{Encoding, Ready};
use crate::hub::ToShard;
use crate::maps::HashMap;
use crate::members::Members;
use crate::metrics::{Ending, Tally};
use crate::outbox;
use crate::presence::Place;
use crate::session::{self, Now, Wish};
use crate::wheel::Wheel;

/// Readiness events taken from the kernel at once.
const EVENTS: usize = 1024;
/// Bytes read from a socket at once; larger messages take several reads.
const SCRATCH_BYTES: usize = 16 * 1024;
/// How long a closed socket may take to say goodbye; one that reads slowly has as long as for a write.
const LINGER_MILLIS: u64 = 2_000;
/// How often the loop looks around when nothing happens, milliseconds.
const IDLE_MILLIS: u64 = 1_000;
/// The same while connections are drained.
const DRAIN_TURN_MILLIS: u64 = 10;
const WAKE: Token = Token(usize::MAX);

/// Starts a shard's thread and attaches it to the hub. The receiver hears when the thread has ended in order; it fails
/// when the thread died.
///
/// # Errors
/// Where the system gives no epoll descriptor or no thread.
pub fn start(number: usize, shared: Shared) -> std::io::Result<(Handle, oneshot::Receiver<()>)> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    let (handle, inlet) = Handle::new(waker, shared.metrics.clone());
    let (ended, end) = oneshot::channel();
    let (to_hub, own) = (handle.clone(), handle.clone());
    let at = shared.hub.attach(Box::new(move |message| to_hub.tell(message)));
    std::thread::Builder::new()
        .name(format!("shard-{number}"))
        .spawn(move || {
            Shard::new(at, poll, (own, inlet), shared).run();
            // Nobody may be listening any more when the process ends.
            let _ = ended.send(());
        })?;
    Ok((handle, end))
}

/// What a ticket of the hub stands for.
#[derive(Clone, Copy, Debug)]
enum Ticket {
    Opening(u32),
    Reading(u32),
    Page(u32),
}

struct Shard {
    number: usize,
    poll: Poll,
    handle: Handle,
    inlet: Inlet,
    /// More waits in the inbox than a turn takes.
    more: bool,
    /// Messages that may still be taken between the pieces of this turn.
    between: usize,
    shared: Shared,
    connections: Slab<Connection>,
    door: Door,
    newcomers: Slab<Silent>,
    strangers: Strangers,
    /// How many of the connections are streams of server-sent events.
    streams: usize,
    members: Members,
    /// When somebody was written an event last, milliseconds of the shard's clock.
    written_millis: u64,
    /// When rooms write what they have gathered: instant and place.
    gathering: BinaryHeap<Reverse<(u64, usize)>>,
    /// How long busy rooms gather, milliseconds; 0: not at all.
    window_millis: u64,
    wheel: Wheel,
    clock: Clock,
    now: Now,
    tally: Tally,
    /// What waits in the outboxes of this shard, as it was said last.
    waiting_bytes: i64,
    tickets: HashMap<u64, Ticket>,
    next_ticket: u64,
    /// The newest cursor this shard has handed out: what quiet rooms are told.
    head: Option<Cursor>,
    stale: bool,
    /// Where the walk over quiet rooms goes on, and when.
    sweep_at: usize,
    swept_millis: u64,
    /// Connections with unread bytes beyond their turn.
    unread: Vec<u32>,
    /// Connections with queued frames that were not tried yet.
    dirty: Vec<u32>,
    /// Connections whose socket took less than it was given, to be looked at by the wheel.
    blocked: Vec<u32>,
    /// Connections that may take the next page of their recovery.
    pages: VecDeque<u32>,
    /// Who is told when other people are in a room.
    watchers: HashMap<Place, HashSet<u32>>,
    /// Connections that end for a reason found while others were served.
    ending: Vec<(u32, Ending)>,
    drain: Option<Pace>,
    draining: bool,
    scratch: Vec<u8>,
    wishes: Vec<Wish>,
    ping: Ready,
    /// Under which generation of rights clients are decided about.
    rights_generation: u64,
    /// Deciding again, while it is under way.
    round: Option<deciding::Round>,
}

/// Both clocks.
struct Clock {
    start: Instant,
}

impl Clock {
    fn now(&self) -> Now {
        // From 1 s on, so that 0 can mean "none".
        let millis = u64::try_from(self.start.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .saturating_add(1_000);
        let unix = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            millis,
            unix_millis: i64::try_from(unix.as_millis()).unwrap_or(i64::MAX),
        }
    }
}

/// The key of the connection or newcomer that an event is about.
fn key_of(event: &Event) -> u32 {
    u32::try_from(event.token().0).unwrap_or(u32::MAX)
}

impl Shard {
    fn new(number: usize, poll: Poll, (handle, inlet): (Handle, Inlet), shared: Shared) -> Self {
        let clock = Clock {
            start: Instant::now(),
        };
        let now = clock.now();
        Self {
            number,
            poll,
            handle,
            inlet,
            more: false,
            between: pieces::BETWEEN,
            stale: shared.hub.status().stale,
            written_millis: 0,
            gathering: BinaryHeap::new(),
            window_millis: u64::try_from(shared.limits.flush_window.as_millis()).unwrap_or(u64::MAX),
            rights_generation: shared.gate.rights().generation(),
            round: None,
            shared,
            connections: Slab::new(),
            door: Door::default(),
            newcomers: Slab::new(),
            strangers: Strangers::default(),
            streams: 0,
            members: Members::default(),
            wheel: Wheel::new(now.millis),
            clock,
            now,
            tally: Tally::default(),
            waiting_bytes: 0,
            tickets: HashMap::default(),
            next_ticket: 1,
            head: None,
            sweep_at: 0,
            swept_millis: now.millis,
            unread: Vec::new(),
            dirty: Vec::new(),
            blocked: Vec::new(),
            pages: VecDeque::new(),
            watchers: HashMap::default(),
            ending: Vec::new(),
            drain: None,
            draining: false,
            scratch: vec![0; SCRATCH_BYTES],
            wishes: Vec::new(),
            ping: Ready::alive(&session::ping()),
        }
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        while !(self.draining && self.connections.is_empty() && self.strangers.is_empty()) {
            let timeout = self.timeout();
            if let Err(error) = self.poll.poll(&mut events, Some(timeout)) {
                // A signal interrupts the wait; anything else cannot happen to a live epoll descriptor.
                if error.kind() != ErrorKind::Interrupted {
                    tracing::error!(%error, "a shard cannot wait for its sockets: {error}");
                    return;
                }
            }
            self.now = self.clock.now();
            self.between = pieces::BETWEEN;
            self.decide_again();
            // What waits for a socket is written before anything else is queued behind it.
            for event in &events {
                if event.token() == LISTENER {
                    self.door.more = true;
                } else if event.token() != WAKE && event.is_writable() {
                    self.writable(key_of(event));
                }
            }
            for event in &events {
                let closed = event.is_read_closed() || event.is_error();
                let heard = event.is_readable() || closed;
                if !heard || [LISTENER, WAKE].contains(&event.token()) {
                    continue;
                }
                let key = key_of(event);
                if self.is_stranger(key) {
                    self.strangers.heard(key, closed);
                } else {
                    self.read(key, closed);
                    self.attend();
                }
            }
            self.read_deferred();
            self.settle();
            self.more = self.take_inbox(INBOX_TURN);
            self.flush_due();
            self.let_in();
            self.timers();
            self.sweep_quiet_rooms();
            self.next_pages();
            self.pace_drain();
            self.settle();
            self.give_way();
            let metrics = &self.shared.metrics;
            metrics.add(&mut self.tally);
        }
    }

    fn timeout(&self) -> Duration {
        let resting = self.strangers.rest(self.now.millis);
        let door_resting = self.door.rests_until.saturating_sub(self.now.millis);
        let wants_in = !self.strangers.is_empty() || (self.door.more && door_resting == 0);
        if self.more
            || self.is_deciding()
            || !self.unread.is_empty()
            || !self.pages.is_empty()
            || (wants_in && resting == 0)
        {
            return Duration::ZERO;
        }
        let idle = if self.drain.is_some() {
            DRAIN_TURN_MILLIS
        } else {
            IDLE_MILLIS
        };
        // One more, so that the tick that is due has passed when the loop looks.
        let tick = self.wheel.next_in(self.now.millis).map_or(idle, |next| next + 1);
        let flush = self
            .gathering
            .peek()
            .map_or(idle, |Reverse((due, _))| due.saturating_sub(self.now.millis));
        let resting = if wants_in || self.are_unheard() {
            resting
        } else {
            0
        };
        let rests = [resting, door_resting].into_iter().filter(|rest| *rest > 0);
        let rest = rests.min().unwrap_or(idle);
        Duration::from_millis(idle.min(tick).min(flush).min(rest))
    }

    /// Takes at most so many messages; whether more wait.
    fn take_inbox(&mut self, most: usize) -> bool {
        if self.inlet.begin(most) {
            tracing::warn!(
                "a shard fell more than {INBOX_MAX} messages behind; its clients are told to come back"
            );
            self.close_all(Close::Resync);
        }
        let mut batch: Vec<Arc<Delivery>> = Vec::new();
        while let Some(message) = self.inlet.next() {
            match message {
                Inbox::Hub(ToShard::Deliver(delivery)) => batch.push(delivery),
                other => {
                    // What came before is delivered before: order is what makes positions mean something.
                    self.fan_out(&batch);
                    batch.clear();
                    self.told(other);
                }
            }
        }
        let more = self.inlet.end();
        self.fan_out(&batch);
        more
    }

    fn told(&mut self, message: Inbox) {
        match message {
            Inbox::Listen(listener) => self.open_door(listener),
            Inbox::Shut => self.shut_door(),
            Inbox::Arrival(arrival) => self.strangers.arrived(arrival),
            Inbox::Look(question) => question.answer(self),
            Inbox::Answered(answered) => self.answered(*answered),
            Inbox::Told(told) => self.ring(*told),
            Inbox::Presence(places) => self.presence_changed(&places),
            Inbox::Drain(window, everybody) => {
                self.draining = true;
                self.stop_gathering();
                self.shut_door();
                let own = self.connections.len();
                self.drain = Some(Pace::new(self.now.millis, own, everybody, window));
            }
            Inbox::Hub(ToShard::Ready { ticket }) => self.strangers.can_go_on(ticket),
            Inbox::Hub(ToShard::Status { stale, since_millis }) => self.say_status(stale, since_millis),
            Inbox::Hub(ToShard::CloseAll) => self.close_all(Close::Resync),
            Inbox::Hub(ToShard::Reset) => {
                // A place in streams that are no more.
                self.head = None;
                self.close_all(Close::Resync);
            }
            Inbox::Kick(kick) => self.kick(&kick),
            Inbox::Hub(ToShard::Deliver(_)) => {}
        }
        self.settle();
    }

    /// A socket takes bytes again.
    fn writable(&mut self, key: u32) {
        let connection = self.connections.get(key as usize);
        if connection.is_some_and(Connection::is_blocked) {
            self.flush(key);
        }
    }

    /// Flushes what was queued and ends what must end, until both are done. Ending queues last words, and flushing finds
    /// broken sockets, so they go round; each connection ends once, so that comes to an end.
    fn settle(&mut self) {
        loop {
            while let Some(key) = self.dirty.pop() {
                self.flush(key);
            }
            let Some((key, ending)) = self.ending.pop() else {
                return;
            };
            match ending {
                Ending::Closed(close) => self.end(key, close),
                Ending::Client | Ending::Gone => self.drop_connection(key, ending),
            }
        }
    }

    fn say_status(&mut self, stale: bool, since_millis: i64) {
        self.stale = stale;
        let (status, since) = (
            session::status_word(stale).to_owned(),
            session::rfc3339(since_millis),
        );
        let frame = Ready::new(&ServerFrame::push(server_frame::Body::Status(Status {
            status,
            since,
        })));
        let connected =
            |(_, connection): &(usize, &Connection)| matches!(connection.stage, Stage::Session(_));
        let keys: Vec<(usize, Encoding)> = self
            .connections
            .iter()
            .filter(connected)
            .map(|(key, connection)| (key, connection.encoding))
            .collect();
        for (key, encoding) in keys {
            self.queue(
                u32::try_from(key).unwrap_or(u32::MAX),
                frame.in_encoding(encoding).clone(),
                outbox::Class::Answer,
            );
        }
    }

    fn close_all(&mut self, close: Close) {
        let keys: Vec<usize> = self.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.end(u32::try_from(key).unwrap_or(u32::MAX), close);
        }
    }

    fn pace_drain(&mut self) {
        let Some(pace) = &mut self.drain else { return };
        let due = pace.due(self.now.millis);
        if due == 0 {
            return;
        }
        let open =
            |(_, connection): &(usize, &Connection)| !matches!(connection.stage, Stage::Closing { .. });
        let keys: Vec<usize> = self
            .connections
            .iter()
            .filter(open)
            .take(due)
            .map(|(key, _)| key)
            .collect();
        for key in keys {
            self.end(u32::try_from(key).unwrap_or(u32::MAX), Close::Drain);
        }
    }

    /// Notes how a write went.
    fn note(&mut self, key: u32, sent: Sent) {
        match sent {
            Sent::All => {}
            Sent::Blocked => self.wait_for_room(key),
            Sent::Full => self.ending.push((key, Ending::Closed(Close::TooSlow))),
            Sent::Broken => self.ending.push((key, Ending::Gone)),
        }
    }
}
