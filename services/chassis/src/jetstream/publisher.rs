//! The pipelined publisher: many publishes wait for their acknowledgements at once, over one reply subscription.
//!
//! Used where events arrive at high rates. One wildcard inbox costs less than half of a reply future per message,
//! and the window bounds what a frozen server can make us hold.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::ack::{self, PubAck};
use super::{Outgoing, PublishError};
use crate::nats::NatsMetrics;

/// How long an acknowledgement may take. One step-down of a leader takes 0.1 s; the server's default of 5 s would
/// turn that into a stall of 5 s for whoever waits.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(1);

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
    next: AtomicU64,
    window: Arc<Semaphore>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Message>>>,
    metrics: Option<NatsMetrics>,
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
            next: AtomicU64::new(0),
            window: Arc::new(Semaphore::new(window.clamp(1, Semaphore::MAX_PERMITS))),
            waiting: Mutex::default(),
            metrics,
        });
        let reader = tokio::spawn(read(Arc::clone(&shared), replies));
        Ok(Self {
            shared,
            _reader: Arc::new(Reader(reader)),
        })
    }

    /// Sends a message as soon as the window has room and answers what to wait on for its acknowledgement.
    ///
    /// Messages leave in the order in which these calls return. The acknowledgement must arrive within
    /// [`ACK_TIMEOUT`] of the sending.
    ///
    /// # Errors
    /// `Client`: it could not be sent; nothing is stored.
    ///
    /// # Cancel safety
    /// Dropped before it returns, the message may or may not have been sent: as after a time-out, send the same id
    /// again.
    pub async fn send(&self, message: Outgoing) -> Result<Pending, PublishError> {
        let shared = &self.shared;
        let place = Arc::clone(&shared.window).acquire_owned().await;
        let place = place.map_err(|closed| PublishError::Client(closed.to_string()))?;
        let (sender, acknowledged) = oneshot::channel();
        let token = shared.next.fetch_add(1, Ordering::Relaxed);
        let sent_at = Instant::now();
        shared.waiting().insert(token, sender);
        shared.metrics.iter().for_each(|metrics| metrics.in_flight.inc());
        // From here on dropping `pending` frees everything.
        let pending = Pending {
            token,
            acknowledged,
            sent_at,
            shared: Arc::clone(shared),
            _place: place,
        };
        let reply = format!("{}.{token}", shared.inbox);
        let Outgoing {
            subject,
            headers,
            payload,
        } = message;
        let sent = shared
            .client
            .publish_with_reply_and_headers(subject, reply, headers, payload)
            .await;
        sent.map_err(|error| pending.count(PublishError::Client(error.to_string())))?;
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
    token: u64,
    acknowledged: oneshot::Receiver<Message>,
    sent_at: Instant,
    shared: Arc<Shared>,
    _place: OwnedSemaphorePermit,
}

impl Pending {
    /// Waits for the acknowledgement.
    ///
    /// # Errors
    /// See [`PublishError`].
    ///
    /// # Cancel safety
    /// Dropped, the outcome stays unknown.
    pub async fn acknowledged(mut self) -> Result<PubAck, PublishError> {
        let answer = tokio::time::timeout_at(self.sent_at + ACK_TIMEOUT, &mut self.acknowledged).await;
        let result = match answer {
            Ok(Ok(message)) => ack::read(&message),
            Ok(Err(_)) => Err(PublishError::Client("the connection was closed".to_owned())),
            Err(_) => Err(PublishError::Timeout),
        };
        if let Some(metrics) = &self.shared.metrics {
            metrics.ack_seconds.observe(self.sent_at.elapsed().as_secs_f64());
        }
        result.map_err(|error| self.count(error))
    }

    fn count(&self, error: PublishError) -> PublishError {
        if let Some(metrics) = &self.shared.metrics {
            metrics.publish_errors.with_label_values(&[error.reason()]).inc();
        }
        error
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.shared.waiting().remove(&self.token);
        self.shared
            .metrics
            .iter()
            .for_each(|metrics| metrics.in_flight.dec());
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Message>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands every reply to the one who waits for it, until the last publisher is gone.
async fn read(shared: Arc<Shared>, mut replies: Subscriber) {
    while let Some(message) = replies.next().await {
        let token = message
            .subject
            .rsplit('.')
            .next()
            .and_then(|token| token.parse::<u64>().ok());
        let waiting = token.and_then(|token| shared.waiting().remove(&token));
        let late = waiting.is_none_or(|waiting| waiting.send(message).is_err());
        if let (true, Some(metrics)) = (late, &shared.metrics) {
            metrics.late_acks.inc();
        }
    }
    // The connection is closed: nobody will be answered any more.
    shared.waiting().clear();
}
