//! The pipelined publisher: many publishes wait for their acknowledgements at once, over one reply subscription.
//!
//! Used where events arrive at high rates. One wildcard inbox costs less than half of a reply future per message,
//! and the window bounds what a frozen server can make us hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::ack::{self, PubAck};
use super::{Outgoing, PublishError, connected};
use crate::nats::NatsMetrics;

/// How long an acknowledgement may take. One step-down of a leader takes 0.1 s; the server's default of 5 s would
/// turn that into a stall of 5 s for whoever waits.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(1);
/// How often those that waited too long are looked for: one timer instead of one per message. A time-out comes at
/// most this much late.
const SWEEP: Duration = Duration::from_millis(50);

/// Publishes to JetStream with a bounded number of messages in flight. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    // Ends the reader when the last publisher is gone; the reader holds `shared` alone.
    _reader: Arc<Reader>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    inbox: String,
    window: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
    metrics: Option<NatsMetrics>,
}

/// Messages without an answer, by token; tokens and times ascend together.
#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    closed: bool,
    by_token: BTreeMap<u64, InFlight>,
}

/// One message without an answer; holds its place in the window until it is answered or given up.
#[derive(Debug)]
struct InFlight {
    answer: oneshot::Sender<Answer>,
    sent_at: Instant,
    _counted: Counted,
    _place: OwnedSemaphorePermit,
}

impl InFlight {
    /// Tells the one who waits, if anybody still does.
    fn answer(self, answer: Answer) -> bool {
        self.answer.send(answer).is_ok()
    }
}

/// Counts a message as in flight for as long as it lives.
#[derive(Debug)]
struct Counted(Option<IntGauge>);

impl Counted {
    fn new(gauge: Option<IntGauge>) -> Self {
        gauge.iter().for_each(IntGauge::inc);
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.iter().for_each(IntGauge::dec);
    }
}

/// What a message in flight comes to. Read by the one who waits, so that reading JSON is spread over the callers.
#[derive(Debug)]
enum Answer {
    Reply(Message),
    Timeout,
    Unconnected,
}

#[derive(Debug)]
struct Reader(JoinHandle<()>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Publisher {
    /// Subscribes to an inbox of its own and starts. `window` (at least 1) bounds the publishes in flight.
    ///
    /// # Errors
    /// Where the connection is closed.
    pub async fn start(
        client: &Client,
        window: usize,
        metrics: Option<NatsMetrics>,
    ) -> Result<Self, async_nats::SubscribeError> {
        let inbox = client.new_inbox();
        let replies = client.subscribe(format!("{inbox}.*")).await?;
        let shared = Arc::new(Shared {
            client: client.clone(),
            inbox,
            window: Arc::new(Semaphore::new(window.clamp(1, Semaphore::MAX_PERMITS))),
            waiting: Mutex::default(),
            metrics,
        });
        let reader = tokio::spawn(Arc::clone(&shared).read(replies));
        Ok(Self {
            shared,
            _reader: Arc::new(Reader(reader)),
        })
    }

    /// Sends a message as soon as the window has room and answers what to wait on for its acknowledgement.
    ///
    /// Messages leave in the order in which these calls are made one after the other; calls made side by side leave in
    /// any order. A place in the window is free again when the answer is there, whether or not anybody waits for it,
    /// so any number may be sent before the first is waited for.
    ///
    /// Without a connection it is not sent, and its answer is `NoResponders`: what lies in the client's queue leaves whenever a
    /// connection comes, perhaps after the stream has forgotten the id, and is then stored besides a repeat of it. That can still befall
    /// what was queued before the loss was noticed, within about 6 s.
    ///
    /// # Errors
    /// `Client`: it could not be sent; nothing is stored. `Timeout`: the client's queue had no room for it.
    ///
    /// # Cancel safety
    /// Dropped before it returns, the message may or may not have been sent: as after a time-out, send the same id
    /// again.
    pub async fn send(&self, message: Outgoing) -> Result<Pending, PublishError> {
        let shared = &self.shared;
        let place = Arc::clone(&shared.window).acquire_owned().await;
        let place = place.map_err(|closed| PublishError::Client(closed.to_string()))?;
        let (token, mut pending) = shared.register(place)?;
        if connected(&shared.client).is_err() {
            shared.answer(token, Answer::Unconnected);
            return Ok(pending);
        }
        let reply = shared.reply(token);
        let Outgoing {
            subject,
            headers,
            payload,
        } = message;
        let sending = shared
            .client
            .publish_with_reply_and_headers(subject, reply, headers, payload);
        let sent = tokio::select! {
            // Almost always done at once. What waits for room is given up like what waits for an answer, and needs no timer of its own.
            biased;
            sent = sending => sent.map_err(|error| PublishError::Client(error.to_string())),
            _ = &mut pending.answer => Err(PublishError::Timeout),
        };
        sent.map_err(|error| {
            shared.waiting().by_token.remove(&token);
            shared.count(error)
        })?;
        Ok(pending)
    }

    /// Sends a message and waits for its acknowledgement.
    ///
    /// # Errors
    /// See [`PublishError`]; `retryable` ones may be sent again with the same id.
    ///
    /// # Cancel safety
    /// As [`Publisher::send`].
    pub async fn publish(
        &self,
        subject: impl Into<String>,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<PubAck, PublishError> {
        self.send(Outgoing {
            subject: subject.into(),
            headers,
            payload,
        })
        .await?
        .acknowledged()
        .await
    }

    /// Messages that may still be sent before one has to wait.
    #[must_use]
    pub fn room(&self) -> usize {
        self.shared.window.available_permits()
    }
}

/// A message on its way. Dropping it stops the waiting, not the message.
#[derive(Debug)]
pub struct Pending {
    answer: oneshot::Receiver<Answer>,
    sent_at: Instant,
    shared: Arc<Shared>,
}

impl Pending {
    /// Waits for the acknowledgement, at most [`ACK_TIMEOUT`] after the sending.
    ///
    /// # Errors
    /// See [`PublishError`].
    ///
    /// # Cancel safety
    /// Dropped, the outcome stays unknown.
    pub async fn acknowledged(self) -> Result<PubAck, PublishError> {
        let result = match self.answer.await {
            Ok(Answer::Reply(message)) => ack::read(&message),
            Ok(Answer::Timeout) => Err(PublishError::Timeout),
            Ok(Answer::Unconnected) => Err(PublishError::NoResponders),
            Err(_) => Err(PublishError::Client("the connection was closed".to_owned())),
        };
        if let (Ok(_), Some(metrics)) = (&result, &self.shared.metrics) {
            metrics.ack_seconds.observe(self.sent_at.elapsed().as_secs_f64());
        }
        result.map_err(|error| self.shared.count(error))
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the acknowledgement of a message goes.
    fn reply(&self, token: u64) -> String {
        // Not by `format!`: every event has such a subject.
        [&self.inbox, ".", itoa::Buffer::new().format(token)].concat()
    }

    fn register(self: &Arc<Self>, place: OwnedSemaphorePermit) -> Result<(u64, Pending), PublishError> {
        let (sender, answer) = oneshot::channel();
        let counted = Counted::new(self.metrics.as_ref().map(|metrics| metrics.in_flight.clone()));
        let mut waiting = self.waiting();
        let (token, sent_at) = (waiting.next, Instant::now());
        let in_flight = InFlight {
            answer: sender,
            sent_at,
            _counted: counted,
            _place: place,
        };
        if waiting.closed {
            return Err(PublishError::Client("the connection is closed".to_owned()));
        }
        waiting.next += 1;
        waiting.by_token.insert(token, in_flight);
        drop(waiting);
        Ok((
            token,
            Pending {
                answer,
                sent_at,
                shared: Arc::clone(self),
            },
        ))
    }

    /// Hands every reply to the one who waits for it and gives up those that take too long, until the connection is
    /// closed or the last publisher is gone.
    async fn read(self: Arc<Self>, mut replies: Subscriber) {
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                // First, or a stream of replies without a pause would keep it from ever running.
                now = sweep.tick() => self.give_up(now),
                reply = replies.next() => match reply {
                    Some(reply) => self.hand_over(reply),
                    None => break,
                },
            }
        }
        let mut waiting = self.waiting();
        waiting.closed = true;
        waiting.by_token.clear();
    }

    fn hand_over(&self, reply: Message) {
        let token = reply
            .subject
            .rsplit('.')
            .next()
            .and_then(|token| token.parse::<u64>().ok());
        let waited_for = token.is_some_and(|token| self.answer(token, Answer::Reply(reply)));
        if let (false, Some(metrics)) = (waited_for, &self.metrics) {
            metrics.late_acks.inc();
        }
    }

    /// Whether anybody still waited for it.
    fn answer(&self, token: u64, answer: Answer) -> bool {
        let found = self.waiting().by_token.remove(&token);
        found.is_some_and(|in_flight| in_flight.answer(answer))
    }

    fn give_up(&self, now: Instant) {
        let mut waiting = self.waiting();
        while let Some(oldest) = waiting.by_token.first_entry() {
            if now.saturating_duration_since(oldest.get().sent_at) < ACK_TIMEOUT {
                return;
            }
            oldest.remove().answer(Answer::Timeout);
        }
    }

    fn count(&self, error: PublishError) -> PublishError {
        if let Some(metrics) = &self.metrics {
            metrics.publish_errors.with_label_values(&[error.reason()]).inc();
        }
        error
    }
}
