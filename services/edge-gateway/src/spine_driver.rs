//! Drives one spine: its subscription, its reads, its clock. All decisions are in `spine`; all deliveries go to the hub.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::{HeaderMap, HeaderValue, Subscriber};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use roomcast_chassis::jetstream::{At, JetStream, StoredMessage, StreamInfo};
use roomcast_chassis::nats::Status;
use roomcast_chassis::process::Failure;
use roomcast_chassis::readiness::Latch;
use roomcast_chassis::trace::Trail;
use roomcast_proto::subject::{self, header, is_republished};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::hub::{Hub, Incoming, StreamMetrics};
use crate::spine::{Cause, Holes, InfoAnswer, Placed, READ_MESSAGES, ReadAnswer, Spine, Ticket, Wish};
use crate::traces;

/// The spine's clock ticks this often.
const TICK: Duration = Duration::from_millis(50);
/// Live messages taken in one go before answers and the clock get their turn.
const LIVE_AT_ONCE: usize = 256;

/// One of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Events.
    Events,
    /// State values.
    State,
}

impl Which {
    /// The metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::State => "state",
        }
    }

    /// The stream's name.
    #[must_use]
    pub fn stream(self) -> &'static str {
        match self {
            Self::Events => subject::stream::EVENTS,
            Self::State => subject::stream::STATE,
        }
    }

    /// Everything in the stream.
    #[must_use]
    pub fn all(self) -> &'static str {
        match self {
            Self::Events => subject::EVENTS_ALL,
            Self::State => subject::STATE_ALL,
        }
    }

    /// Everything as it is republished.
    #[must_use]
    pub fn live(self) -> &'static str {
        match self {
            Self::Events => subject::LIVE_ALL,
            Self::State => subject::STATE_LIVE_ALL,
        }
    }

    fn holes(self) -> Holes {
        match self {
            Self::Events => Holes::Lost,
            Self::State => Holes::Replaced,
        }
    }
}

/// Whether a republished message is let through. For tests: a network that loses messages.
pub type LiveFilter = Arc<dyn Fn(Which, u64) -> bool + Send + Sync>;

/// See the module.
pub struct SpineDriver {
    hub: Arc<Hub>,
    metrics: StreamMetrics,
    which: Which,
    live: Subscriber,
    status: watch::Receiver<Status>,
    repair: JetStream,
    spine: Spine<Incoming>,
    filter: Option<LiveFilter>,
    latch: Latch,
    caught_up: Arc<AtomicUsize>,
    /// Up to here what is handed out is only for the ring.
    warm_to: u64,
    current: bool,
    started: Instant,
    asked: FuturesUnordered<BoxFuture<'static, Answer>>,
    wishes: Vec<Wish<Incoming>>,
    reported_duplicates: u64,
}

/// What a driver is made of.
pub struct Parts {
    /// Where deliveries go.
    pub hub: Arc<Hub>,
    /// Which stream.
    pub which: Which,
    /// The subscription to what is republished.
    pub live: Subscriber,
    /// The state of the subscription's connection.
    pub status: watch::Receiver<Status>,
    /// The API on the other connection.
    pub repair: JetStream,
    /// The stream when it was looked at, after the subscription was made.
    pub info: StreamInfo,
    /// The position to begin at.
    pub next: u64,
    /// For tests.
    pub filter: Option<LiveFilter>,
    /// Ready once the spine has caught up.
    pub latch: Latch,
    /// Counted up once the spine has caught up.
    pub caught_up: Arc<AtomicUsize>,
    /// The clock's zero.
    pub started: Instant,
}

enum Answer {
    Read(Ticket, Option<ReadAnswer<Incoming>>),
    Leader(Ticket, Option<Option<Placed<Incoming>>>),
    Probe(Ticket, Option<Option<u64>>),
    Info(Ticket, Option<InfoAnswer>),
}

impl SpineDriver {
    /// Ready to run.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let now = uptime_millis(parts.started);
        let spine = Spine::new(parts.which.holes(), parts.info.created, parts.next, now);
        Self {
            metrics: parts.hub.metrics().of_stream(parts.which.label()),
            hub: parts.hub,
            which: parts.which,
            live: parts.live,
            status: parts.status,
            repair: parts.repair,
            spine,
            filter: parts.filter,
            latch: parts.latch,
            caught_up: parts.caught_up,
            warm_to: parts.info.state.last_seq,
            current: false,
            started: parts.started,
            asked: FuturesUnordered::new(),
            wishes: Vec::new(),
            reported_duplicates: 0,
        }
    }

    /// Runs until `ending`. It never ends by itself, unless the subscription does: the connection was closed.
    ///
    /// # Errors
    /// The connection was closed, though nobody asked for it.
    ///
    /// # Cancel safety
    /// Dropped, what was delivered stays delivered; nothing else is kept.
    pub async fn run(mut self, ending: CancellationToken) -> Result<(), Failure> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = *self.status.borrow_and_update();
        loop {
            tokio::select! {
                () = ending.cancelled() => return Ok(()),
                message = self.live.next() => match message {
                    Some(message) => self.take_live(message),
                    None if ending.is_cancelled() => return Ok(()),
                    None => return Err(Failure::unavailable("the live connection to NATS was closed")),
                },
                Some(answer) = self.asked.next(), if !self.asked.is_empty() => self.take_answer(answer),
                _ = ticks.tick() => {
                    let now = self.now();
                    self.spine.on_tick(now, &mut self.wishes);
                    self.hub.knows(self.which, self.spine.target());
                }
                changed = self.status.changed() => if changed.is_ok() {
                    let now = *self.status.borrow_and_update();
                    if now.connected && (now.connects, now.slow_consumers) != (seen.connects, seen.slow_consumers) {
                        seen = now;
                        let millis = self.now();
                        self.spine.on_interrupted(millis, &mut self.wishes);
                    }
                } else {
                    return Ok(());
                },
            }
            self.fulfil();
        }
    }

    fn now(&self) -> i64 {
        uptime_millis(self.started)
    }

    /// Takes a message and what has come with it.
    fn take_live(&mut self, message: async_nats::Message) {
        let now = self.now();
        let mut message = Some(message);
        for _ in 0..LIVE_AT_ONCE {
            let Some(taken) = message else { return };
            self.take_one(taken, now);
            self.fulfil();
            message = self.live.next().now_or_never().flatten();
        }
        if let Some(last) = message {
            self.take_one(last, now);
        }
    }

    fn take_one(&mut self, message: async_nats::Message, now: i64) {
        let Some(placed) = of_live(message) else {
            self.metrics.unreadable.inc();
            return;
        };
        if self
            .filter
            .as_ref()
            .is_some_and(|pass| !pass(self.which, placed.sequence))
        {
            return;
        }
        self.spine.on_live(placed, now, &mut self.wishes);
    }

    fn take_answer(&mut self, answer: Answer) {
        let now = self.now();
        let out = &mut self.wishes;
        let answered = match answer {
            Answer::Read(ticket, answer) => {
                let answered = answer.is_some();
                self.spine.on_read(ticket, answer, now, out);
                answered
            }
            Answer::Leader(ticket, answer) => {
                let answered = answer.is_some();
                self.spine.on_leader(ticket, answer, now, out);
                answered
            }
            Answer::Probe(ticket, answer) => {
                let answered = answer.is_some();
                self.spine.on_probe(ticket, answer.flatten(), now, out);
                answered
            }
            Answer::Info(ticket, answer) => {
                let answered = answer.is_some();
                if let Some(info) = answer.as_ref().filter(|_| self.which == Which::Events) {
                    self.hub.kept_events(info.first, None);
                }
                self.spine.on_info(ticket, answer, now, out);
                answered
            }
        };
        if answered {
            self.hub.answered(now);
        } else {
            self.metrics.unanswered.inc();
        }
    }

    /// Does what the spine wishes.
    fn fulfil(&mut self) {
        let (mut delivered, mut repaired) = (0, 0);
        for wish in std::mem::take(&mut self.wishes) {
            match wish {
                Wish::Deliver {
                    mut placed,
                    repaired: again,
                } => {
                    delivered += 1;
                    repaired += u64::from(again);
                    let (sequence, time) = (placed.sequence, placed.time_micros);
                    let step = traces::received(self.which.stream(), sequence, &mut placed.message);
                    let _entered = step.enter();
                    match self.which {
                        Which::Events => {
                            self.hub
                                .event(sequence, time, &placed.message, sequence <= self.warm_to)
                        }
                        Which::State => self.hub.state_value(sequence, time, &placed.message),
                    }
                }
                Wish::Skip { from, to } => {
                    self.metrics.skipped.inc_by(to - from + 1);
                    match self.which {
                        Which::Events => self.hub.skip_events(to),
                        Which::State => self.hub.skip_state(to),
                    }
                }
                Wish::Reset { cause, next } => self.reset(cause, next),
                asked => self.ask(asked),
            }
        }
        if delivered > 0 {
            self.metrics.delivered.inc_by(delivered);
            self.metrics.repaired.inc_by(repaired);
            self.metrics
                .position
                .set(i64::try_from(self.spine.next() - 1).unwrap_or(i64::MAX));
        }
        let duplicates = self.spine.counts().duplicates;
        self.metrics
            .duplicates
            .inc_by(duplicates - self.reported_duplicates);
        self.reported_duplicates = duplicates;
        if !self.current && self.spine.is_current() && self.spine.next() > self.warm_to {
            self.current = true;
            self.caught_up.fetch_add(1, Ordering::Relaxed);
            self.latch.ready();
        }
    }

    fn reset(&mut self, cause: Cause, next: u64) {
        self.warm_to = 0;
        // What a stream that lost its end keeps at its beginning is asked for soon; until then too much is believed to be there.
        let first = if cause == Cause::Regressed { 1 } else { next };
        match self.which {
            Which::Events => self
                .hub
                .reset_events(self.spine.created(), first, next, Some(cause)),
            Which::State => self.hub.reset_state(self.spine.created(), next, Some(cause)),
        }
    }

    fn ask(&mut self, wish: Wish<Incoming>) {
        let (stream, all) = (self.which.stream(), self.which.all());
        let js = self.repair.clone();
        let asked: BoxFuture<'static, Answer> = match wish {
            Wish::Read { ticket, from } => {
                self.metrics.asked_replica.inc();
                Box::pin(async move {
                    let batch = js.direct_batch(stream, from, READ_MESSAGES, None).await;
                    Answer::Read(
                        ticket,
                        batch.ok().map(|batch| ReadAnswer {
                            messages: batch.messages.into_iter().map(of_stored).collect(),
                            more: batch.pending > 0,
                        }),
                    )
                })
            }
            Wish::AskLeader { ticket, from } => {
                self.metrics.asked_leader.inc();
                Box::pin(async move {
                    let message = js.message(stream, At::Next { from, subject: all }).await;
                    Answer::Leader(ticket, message.ok().map(|message| message.map(of_stored)))
                })
            }
            Wish::Probe { ticket } => {
                self.metrics.probes.inc();
                Box::pin(async move {
                    let last = js.direct_last(stream, all).await;
                    Answer::Probe(ticket, last.ok().map(|last| last.map(|message| message.sequence)))
                })
            }
            Wish::Info { ticket } => Box::pin(async move {
                let info = js.stream_info(stream).await.ok().flatten();
                Answer::Info(
                    ticket,
                    info.map(|info| InfoAnswer {
                        created: info.created,
                        first: info.state.first_seq,
                        last: info.state.last_seq,
                    }),
                )
            }),
            Wish::Deliver { .. } | Wish::Skip { .. } | Wish::Reset { .. } => return,
        };
        self.asked.push(asked);
    }
}

/// Milliseconds since `started`: a clock nobody sets back.
pub(crate) fn uptime_millis(started: Instant) -> i64 {
    i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX)
}

/// A republished message; `None` when it is none: the server's headers are missing, or it is stored under another subject and was
/// sent here by somebody who made the server answer to it.
fn of_live(message: async_nats::Message) -> Option<Placed<Incoming>> {
    let headers = message.headers.as_ref()?;
    if !is_republished(&message.subject, text(headers, header::SUBJECT)?) {
        return None;
    }
    let sequence = text(headers, header::SEQUENCE)?.parse().ok()?;
    let time: jiff::Timestamp = text(headers, header::TIME_STAMP)?.parse().ok()?;
    let bytes = message.length;
    let incoming = incoming(message.subject.to_string(), headers, message.payload.clone());
    Some(Placed {
        sequence,
        time_micros: time.as_microsecond(),
        bytes,
        message: incoming,
    })
}

/// A message read from a stream.
pub(crate) fn of_stored(message: StoredMessage) -> Placed<Incoming> {
    Placed {
        sequence: message.sequence,
        time_micros: message.time_micros,
        bytes: message.payload.len() + message.subject.len(),
        message: incoming(message.subject, &message.headers, message.payload),
    }
}

/// What of a message is an event's; the same for every way it comes by.
pub(crate) fn incoming(subject: String, headers: &HeaderMap, payload: bytes::Bytes) -> Incoming {
    Incoming {
        subject,
        expires_millis: text(headers, header::EXPIRES).and_then(|millis| millis.parse().ok()),
        withdrawn: text(headers, header::WITHDRAWN) == Some("1"),
        payload,
        trail: Trail::kept(headers).map(Box::new),
    }
}

/// The last value of a header: an earlier one may be a publisher's forgery.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get_last(name).map(HeaderValue::as_str)
}
