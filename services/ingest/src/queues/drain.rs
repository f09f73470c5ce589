//! Drains one queue: reads what stands at its head, stores it in order, and only then takes it away.
//!
//! Nothing is remembered between reading and taking away that could be lost. Whoever reads the head again, this instance or another,
//! now or after hours, makes the same events with the same ids, and what was stored before is found: by the streams, where it was queued
//! lately, else by reading back what the publisher has stored ([`super::look_back`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use futures_util::StreamExt;
use roomcast_chassis::jetstream::{ApiError, At, StoredMessage};
use roomcast_proto::event::Delivery;
use roomcast_proto::ids::Tenant;
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::header;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::known::Known;
use super::look_back::{look_back, text};
use super::place::{Place, life};
use super::portion::{self, Element, Read};
use crate::accept::{May, Placement};
use crate::dead_letter::DeadLetter;
use crate::error::RETRY_AFTER_MS;
use crate::metrics::{Door, Outcome};
use crate::now_micros;

/// Messages of one portion: an atomic batch of them holds up the stream for a few ms only.
const PORTION_MESSAGES_MAX: usize = 256;
/// Bytes of one portion, about; with what is made of them, some MiB.
const PORTION_BYTES_MAX: usize = 1 << 20;
/// Events after which a portion takes no further message; one message has at most 1,000.
const PORTION_EVENTS_MAX: usize = 1_000;
/// What was queued less long ago is stored before the streams forget a repeat of it: they remember for 120 s, repeats come within 90 s,
/// and a portion takes [`PORTION_WITHIN`] and one event's attempts (7 s) at most.
const FRESH: Duration = Duration::from_secs(15);
/// A drain that was behind is no longer when its oldest has waited less than this; not at once, or it would look back again and again.
const CAUGHT_UP: Duration = Duration::from_secs(5);
/// No event of a portion is sent later than this after it was read: an instance that was frozen in between reads again.
const PORTION_WITHIN: Duration = Duration::from_secs(8);
/// An empty queue is looked at this often, should the message that wakes be lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// While another instance drains.
const LEASE_EVERY: Duration = Duration::from_millis(250);
/// A publisher that is not listed is looked for this often.
const LISTED_EVERY: Duration = Duration::from_secs(2);

/// One queue.
pub(super) struct Drain {
    shared: Arc<Shared>,
    stream: String,
    life: Arc<str>,
    subjects: String,
    /// The first position that was not drained by this instance.
    next: u64,
    /// Where it is behind.
    known: Option<Known>,
}

/// What a turn has come to.
enum Turn {
    /// A portion was drained.
    Drained,
    /// Nothing is there.
    Empty,
    /// There is something, and it has to wait.
    Paused(&'static str, Duration),
    /// There is no such queue.
    Gone,
}

impl From<ApiError> for Turn {
    fn from(error: ApiError) -> Self {
        tracing::debug!(%error, "a queue waits: {error}");
        Self::Paused("unavailable", Duration::from_millis(RETRY_AFTER_MS))
    }
}

/// A message that was read, with its events.
struct Message {
    position: u64,
    queued_micros: i64,
    read: Read,
}

impl Drain {
    pub(super) fn new(shared: Arc<Shared>, stream: String) -> Self {
        Self {
            shared,
            stream,
            life: "".into(),
            subjects: String::new(),
            next: 0,
            known: None,
        }
    }

    /// Drains until the queue is gone or `ending`; what has begun is finished.
    pub(super) async fn run(mut self, ending: CancellationToken) {
        let mut wake: Option<Subscriber> = None;
        while !ending.is_cancelled() {
            if !self.shared.lease.is_held() {
                // Whoever drains meanwhile goes further than this instance knows.
                (self.next, self.known, wake) = (0, None, None);
                self.shared.waiting(&self.stream, None);
                pause(LEASE_EVERY, &ending).await;
                continue;
            }
            match self.turn().await {
                Turn::Drained => {}
                Turn::Gone => break,
                Turn::Paused(reason, wait) => {
                    self.shared.intake.metrics.queue_pause(reason);
                    pause(wait, &ending).await;
                }
                Turn::Empty => match wake.take() {
                    // What came before the server knew of the subscription is found by the next turn.
                    None => wake = self.wake().await,
                    Some(mut waking) => {
                        let woken = tokio::select! {
                            _ = waking.next() => true,
                            () = tokio::time::sleep(LOOK_EVERY) => false,
                            () = ending.cancelled() => false,
                        };
                        wake = (!woken).then_some(waking);
                    }
                },
            }
        }
        self.shared.waiting(&self.stream, None);
    }

    /// One message of the queue as it comes, to wake by: a flood wakes once.
    async fn wake(&self) -> Option<Subscriber> {
        let client = self.shared.jetstream.client();
        let mut waking = client.subscribe(self.subjects.clone()).await.ok()?;
        waking.unsubscribe_after(1).await.ok()?;
        Some(waking)
    }

    async fn turn(&mut self) -> Turn {
        let shared = Arc::clone(&self.shared);
        let Ok(_place) = shared.portions.acquire().await else {
            return Turn::Gone;
        };
        match self.portion().await {
            Ok(turn) | Err(turn) => turn,
        }
    }

    async fn portion(&mut self) -> Result<Turn, Turn> {
        let (messages, read_at) = match self.head().await? {
            Some(head) => head,
            None => return Ok(Turn::Empty),
        };
        if self.shared.intake.sure().is_err() {
            return Ok(Turn::Paused("unsure", Duration::from_millis(RETRY_AFTER_MS)));
        }
        let messages = self.decide(messages)?;
        let Some(first) = messages.first() else {
            return Ok(Turn::Empty);
        };
        let waited = now_micros().saturating_sub(first.queued_micros);
        let waited = Duration::from_micros(u64::try_from(waited).unwrap_or_default());
        if waited < CAUGHT_UP {
            self.known = None;
        } else if waited >= FRESH && self.known.is_none() {
            // Of a message that is nobody's nothing is stored.
            let is_listed = |message: &&Message| !matches!(message.read.sender.may, May::Nothing);
            let publisher = &messages.iter().find(is_listed).unwrap_or(first).read.publisher;
            let known = look_back(&self.shared.jetstream, publisher, first.queued_micros).await?;
            self.known = Some(known);
            // That took a while; it is read again and not sent late.
            return Ok(Turn::Drained);
        }
        self.pay(&messages)?;
        self.carry_out(messages, read_at + PORTION_WITHIN).await
    }

    /// What stands at the head, without holes; `None`: the queue is empty.
    async fn head(&mut self) -> Result<Option<(Vec<StoredMessage>, Instant)>, Turn> {
        let jetstream = &self.shared.jetstream;
        let Some(info) = jetstream.stream_info(&self.stream).await? else {
            return Err(Turn::Gone);
        };
        let life = life(&self.stream, &info.created);
        if life != self.life {
            let subjects = info.config["subjects"][0].as_str().unwrap_or_default();
            (self.life, self.subjects, self.next, self.known) = (life, subjects.to_owned(), 0, None);
        }
        let read_at = Instant::now();
        let next = self.next.max(info.state.first_seq);
        if info.state.messages == 0 || next > info.state.last_seq {
            self.shared.waiting(&self.stream, Some((0, 0)));
            if info.state.messages > 0 {
                self.take_away().await?;
            }
            return Ok(None);
        }
        let read = jetstream.direct_portion(&self.stream, next, PORTION_MESSAGES_MAX, PORTION_BYTES_MAX);
        let mut messages = read.await?.messages;
        let behind = || Turn::Paused("unavailable", LEASE_EVERY);
        let Some(first) = messages.first() else {
            // The replica that answered has not come as far as the leader.
            return Err(behind());
        };
        let age = now_micros().saturating_sub(first.time_micros) / 1_000_000;
        self.shared
            .waiting(&self.stream, Some((info.state.messages, age)));
        if first.sequence != next {
            let at = At::Next {
                from: next,
                subject: ">",
            };
            // Only the leader can tell that nothing is between.
            if jetstream
                .message(&self.stream, at)
                .await?
                .map(|found| found.sequence)
                != Some(first.sequence)
            {
                return Err(behind());
            }
        }
        let begin = first.sequence;
        let contiguous = (begin..)
            .zip(&messages)
            .take_while(|(position, message)| message.sequence == *position);
        let count = contiguous.count();
        messages.truncate(count);
        Ok(Some((messages, read_at)))
    }

    /// Reads the messages' events, up to the bound of a portion.
    fn decide(&self, stored: Vec<StoredMessage>) -> Result<Vec<Message>, Turn> {
        let life = Place {
            life: Arc::clone(&self.life),
            position: 0,
            index: 0,
        };
        let (mut messages, mut events) = (Vec::with_capacity(stored.len()), 0);
        for message in &stored {
            if events >= PORTION_EVENTS_MAX {
                break;
            }
            let read = match portion::read(&self.shared.intake, &life, message, now_micros()) {
                Ok(read) => read,
                Err(not_listed) if messages.is_empty() => {
                    tracing::warn!(%not_listed, "a queue is not drained: {not_listed}");
                    return Err(Turn::Paused("not_listed", LISTED_EVERY));
                }
                Err(_) => break,
            };
            events += read.elements.len();
            messages.push(Message {
                position: message.sequence,
                queued_micros: message.time_micros,
                read,
            });
        }
        Ok(messages)
    }

    /// A queue is no way around a publisher's rate: it waits until its events may be taken. What is refused is kept whatever it takes,
    /// because nobody sends it again, and what comes after it must not wait for that.
    fn pay(&self, messages: &[Message]) -> Result<(), Turn> {
        // A queue has one publisher.
        let Some(sender) = messages.first().map(|message| &message.read.sender) else {
            return Ok(());
        };
        let quotas = &self.shared.intake.quotas;
        let elements = messages.iter().map(|message| message.read.elements.len()).sum();
        let paid = quotas.enter(sender).and_then(|share| {
            let paid = quotas.take(sender, elements);
            drop(share);
            paid
        });
        paid.map_err(|refusal| {
            let wait = refusal.retry_after_ms.unwrap_or(RETRY_AFTER_MS);
            Turn::Paused("rate", Duration::from_millis(wait))
        })
    }

    /// Stores what was accepted, keeps what was refused, and takes away what is done.
    async fn carry_out(&mut self, messages: Vec<Message>, until: Instant) -> Result<Turn, Turn> {
        let mut done = self.known_results(&messages).await?;
        self.store(&messages, &mut done, until).await;
        let complete = done
            .iter()
            .take_while(|results| results.iter().all(Option::is_some))
            .count();
        for (message, results) in messages.iter().zip(&done).take(complete) {
            self.keep_refused(message, results).await?;
        }
        let metrics = &self.shared.intake.metrics;
        let Some(last) = complete.checked_sub(1).and_then(|last| messages.get(last)) else {
            return Ok(Turn::from(ApiError::Timeout));
        };
        self.next = last.position + 1;
        for (message, results) in messages.iter().zip(&done[..complete]) {
            metrics.request(Door::Queue);
            let taken =
                message.read.elements.iter().zip(results).filter(
                    |(_, result)| matches!(result, Some(Ok(outcome)) if *outcome != Outcome::Duplicate),
                );
            let bytes = taken.clone().map(|(element, _)| element.bytes.len() as u64).sum();
            metrics.usage(&message.read.tenant, taken.count() as u64, bytes);
            for result in results.iter().flatten() {
                match result {
                    Ok(outcome) => metrics.event(Door::Queue, *outcome),
                    Err(refusal) => {
                        metrics.event(Door::Queue, Outcome::Refused);
                        metrics.refused(refusal.code);
                    }
                }
            }
        }
        self.take_away().await?;
        if complete < messages.len() {
            return Ok(Turn::from(ApiError::Timeout));
        }
        Ok(Turn::Drained)
    }

    /// Takes away what is done.
    async fn take_away(&self) -> Result<(), Turn> {
        let purged = self.shared.jetstream.purge_below(&self.stream, self.next).await;
        purged.map_err(|error| {
            let queue = &self.stream;
            tracing::warn!(%error, queue, "what was drained of {queue} cannot be taken away yet: {error}");
            Turn::from(error)
        })
    }

    /// What is known of each event without storing anything: that it is refused, or was stored before.
    async fn known_results(&self, messages: &[Message]) -> Result<Vec<Results>, Turn> {
        let mut all = Vec::with_capacity(messages.len());
        for message in messages {
            let mut results = Vec::with_capacity(message.read.elements.len());
            for element in &message.read.elements {
                results.push(match &element.decided {
                    Err(refusal) => Some(Err(refusal.clone())),
                    Ok(accepted) => match accepted.placements.first() {
                        Some(placement) => self.stored_before(message, element, placement).await?,
                        None => Some(Ok(Outcome::Sent)),
                    },
                });
            }
            all.push(results);
        }
        Ok(all)
    }

    /// Whether an event of a queue that is behind was stored before, or came too late to be its key's value.
    async fn stored_before(
        &self,
        message: &Message,
        element: &Element,
        placement: &Placement,
    ) -> Result<Option<Result<Outcome, Refusal>>, Turn> {
        let Some(known) = &self.known else {
            return Ok(None);
        };
        let store = &self.shared.intake.store;
        let later = |_: Refusal| Turn::from(ApiError::Timeout);
        if placement.class == Delivery::Event {
            let Some(seq) = known.position(&placement.msg_id) else {
                return Ok(None);
            };
            return match store.judge_stored(placement, seq).await {
                Ok(_) => Ok(Some(Ok(Outcome::Duplicate))),
                Err(refusal) if refusal.code == Code::Conflict => Ok(Some(Err(refusal))),
                Err(refusal) => Err(later(refusal)),
            };
        }
        let Some(held) = store.state_now(placement).await.map_err(later)? else {
            return Ok(None);
        };
        let from_queue = text(&held, header::QUEUED).and_then(Place::parse);
        let passed = match from_queue.filter(|place| place.life == element.place.life) {
            Some(place) => element.place.is_not_after(&place),
            // Somebody else has set the key since this was queued: theirs is the newer value.
            None => held.time_micros > message.queued_micros,
        };
        Ok(passed.then_some(Ok(Outcome::Duplicate)))
    }

    /// Stores in order what has no result yet, as far as it goes.
    async fn store(&mut self, messages: &[Message], done: &mut [Results], until: Instant) {
        let (mut places, mut placements) = (Vec::new(), Vec::new());
        for (at, message) in messages.iter().enumerate() {
            for (index, element) in message.read.elements.iter().enumerate() {
                let placement = element
                    .decided
                    .as_ref()
                    .ok()
                    .and_then(|accepted| accepted.placements.first());
                if let (None, Some(placement)) = (&done[at][index], placement) {
                    places.push((at, index));
                    placements.push(placement);
                }
            }
        }
        let stored = self.shared.intake.store.take_in_order(&placements, until).await;
        for (((at, index), placement), result) in places.into_iter().zip(&placements).zip(stored) {
            done[at][index] = match result {
                Ok(placed) => {
                    if let Some(known) = &mut self.known
                        && placement.class == Delivery::Event
                    {
                        known.stored(&placement.msg_id, placed.seq);
                    }
                    Some(Ok(placed.outcome))
                }
                Err(refusal) if refusal.code.temporary() => None,
                Err(refusal) => Some(Err(refusal)),
            };
        }
    }

    async fn keep_refused(&mut self, message: &Message, results: &Results) -> Result<(), Turn> {
        let Read {
            tenant,
            publisher,
            origin,
            elements,
            ..
        } = &message.read;
        for (element, result) in elements.iter().zip(results) {
            let Some(Err(refusal)) = result else { continue };
            if self
                .known
                .as_ref()
                .is_some_and(|known| known.is_kept(&element.place))
            {
                continue;
            }
            if !self.keep(tenant, publisher, origin, element, refusal).await {
                return Err(Turn::from(ApiError::Timeout));
            }
        }
        Ok(())
    }

    async fn keep(
        &self,
        tenant: &Tenant,
        publisher: &str,
        origin: &str,
        element: &Element,
        refusal: &Refusal,
    ) -> bool {
        let letter = DeadLetter {
            tenant,
            publisher,
            origin,
            refusal,
            bytes: element.bytes.clone(),
            original_bytes: element.bytes.len(),
        };
        self.shared
            .intake
            .dead_letters
            .keep_surely(&letter, &element.place)
            .await
    }
}

/// What became of a message's events; `None`: not yet anything.
type Results = Vec<Option<Result<Outcome, Refusal>>>;

async fn pause(wait: Duration, ending: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = ending.cancelled() => {}
    }
}
