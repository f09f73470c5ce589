//! Stores what was accepted and waits until it is, with the same id again when no answer comes.
//!
//! Called by [`crate::intake`] with whole requests. Requests are side by side; the events of one are stored in their order, together in
//! atomic batches ([`in_order`]). A batch is a speed path, never a promise: on any error of it the same events go one by one with the
//! same ids, and their acknowledgements decide.

mod in_order;
mod steps;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use roomcast_chassis::jetstream::{At, JetStream, Outgoing, PubAck, PublishError, Publisher};
use roomcast_proto::cursor::{Cursor, Cursors, Position};
use roomcast_proto::event::{Delivery, View};
use roomcast_proto::ids::Tenant;
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::{header, stream as names};
use steps::Steps;
use tokio::sync::Semaphore;

use crate::accept::{Accepted, Placement};
use crate::answer::{NotTaken, Receipt, Taken};
use crate::error::{not_stored, told, unavailable, unknown};
use crate::key_limit::KeyLimit;
use crate::metrics::{IngestMetrics, Outcome};
use crate::recent::Recent;
use crate::standing::Standing;
use crate::streams::CurrentEpoch;

/// Events of one atomic batch: a quarter of what the server takes, so that one batch holds up the stream for a few ms only.
const BATCH_MAX: usize = 256;
/// Batches under way at the same time; the server keeps at most 50 per stream, shared with other ingests.
const BATCHES_MAX: usize = 12;
/// Publishes of one event in all: the first and three more.
const ATTEMPTS: u32 = 4;
/// Pause before the second attempt when the server refused at once; doubled for each further one.
const PAUSE: Duration = Duration::from_millis(50);
/// The same where nobody was there to take it: three of them, 1.75 s, outlast a new connection, and most elections of a leader.
const AWAY_PAUSE: Duration = Duration::from_millis(250);
/// A batch's time-out is five of these (see the chassis): 2 s, then its events go one by one.
const BATCH_CALL: Duration = Duration::from_millis(400);
/// Time after which a request's events that were not begun with are refused: the publisher asks again, and what is stored is found.
const ROW_MAX: Duration = Duration::from_secs(10);

/// Where accepted events go. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    jetstream: JetStream,
    batches: JetStream,
    publisher: Publisher,
    epoch: CurrentEpoch,
    cursors: Cursors,
    batch_places: Semaphore,
    recent: Recent,
    key_limit: KeyLimit,
    standing: Standing,
    metrics: IngestMetrics,
}

/// What a store is made of.
#[derive(Debug)]
pub struct Parts {
    /// The API over the connection.
    pub jetstream: JetStream,
    /// Its prefix.
    pub api_prefix: String,
    /// The pipelined publisher over the same connection.
    pub publisher: Publisher,
    /// The streams' epoch.
    pub epoch: CurrentEpoch,
    /// How cursors are written.
    pub cursors: Cursors,
    /// State keys of one room.
    pub room_keys_max: u64,
    /// Whether anything may be stored at the moment.
    pub standing: Standing,
    /// The metrics.
    pub metrics: IngestMetrics,
}

/// One placement that is where it belongs.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// Stored now or before, or sent.
    pub outcome: Outcome,
    /// Its position in its stream; 0 for what is not stored.
    pub seq: u64,
}

impl Store {
    /// Makes it; nothing is sent.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let inner = Inner {
            batches: parts.jetstream.clone().with_timeout(BATCH_CALL),
            key_limit: KeyLimit::new(parts.jetstream.clone(), parts.api_prefix, parts.room_keys_max),
            jetstream: parts.jetstream,
            publisher: parts.publisher,
            epoch: parts.epoch,
            cursors: parts.cursors,
            batch_places: Semaphore::new(BATCHES_MAX),
            recent: Recent::default(),
            standing: parts.standing,
            metrics: parts.metrics,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Stores or sends all events of a request; one result per event, in their order.
    ///
    /// Events are stored in their order, and so are the values of one state key: where one cannot be stored at the moment, none after it
    /// is, and all of these are temporary refusals. An event for several users is taken when all its copies are; where only some are, the
    /// refusal names those that are not.
    ///
    /// # Cancel safety
    /// Dropped, what was sent may be stored: as after a time-out, the same ids give the one result.
    pub async fn take(&self, mut events: Vec<Accepted>) -> Vec<Taken> {
        let steps = Steps::begin(&mut events);
        let (ids, placements): (Vec<_>, Vec<_>) = events
            .into_iter()
            .map(|event| ((event.id, event.tenant, event.placements.len()), event.placements))
            .unzip();
        let placements: Vec<Placement> = placements.into_iter().flatten().collect();
        let started = Instant::now();
        let placed = steps.whole().run(self.inner.place_all(&placements)).await;
        steps.end(&placed);
        self.inner
            .metrics
            .store_seconds
            .observe(started.elapsed().as_secs_f64());
        let mut rest = placements.iter().zip(placed);
        ids.into_iter()
            .map(|(id, tenant, copies)| self.inner.sum_up(id, &tenant, rest.by_ref().take(copies)))
            .collect()
    }
}

impl Inner {
    async fn place_all(&self, placements: &[Placement]) -> Vec<Result<Placed, Refusal>> {
        if let Some(why) = self.standing.closed() {
            let place = |placement| self.place_while_closed(placement, why);
            return join_all(placements.iter().map(place)).await;
        }
        if let [only] = placements {
            if only.class == Delivery::Event {
                // A batch with a repeat of it would go apart.
                self.recent.is_new(&only.msg_id);
            }
            return vec![self.place(only, false).await];
        }
        let rows = rows(placements);
        let until = Instant::now() + ROW_MAX;
        let placed = join_all(rows.iter().map(|row| {
            let row: Vec<&Placement> = row.iter().map(|index| &placements[*index]).collect();
            async move { self.in_order(&row, until).await }
        }))
        .await;
        let mut results: Vec<Option<Result<Placed, Refusal>>> = vec![None; placements.len()];
        for (row, placed) in rows.into_iter().zip(placed) {
            for (index, result) in row.into_iter().zip(placed) {
                results[index] = Some(result);
            }
        }
        let behind = || Err(unavailable("an event before it could not be stored yet"));
        results
            .into_iter()
            .map(|result| result.unwrap_or_else(behind))
            .collect()
    }

    /// Only what no stream keeps goes out.
    async fn place_while_closed(&self, placement: &Placement, why: &str) -> Result<Placed, Refusal> {
        match placement.class {
            Delivery::Ephemeral => self.send(placement).await,
            Delivery::Event | Delivery::State => Err(unavailable(why)),
        }
    }

    /// Stores all or none of some messages of `EVENTS`; where they are not surely stored, whether they may be.
    async fn batch(&self, messages: Vec<Outgoing>) -> Result<impl Iterator<Item = Placed> + use<>, bool> {
        let count = messages.len() as u64;
        match self.batches.publish_batch(messages).await {
            Ok(PubAck { seq, batch_count, .. }) if batch_count == count && seq >= count => {
                self.metrics.batch(true);
                self.standing.stored(Delivery::Event);
                Ok((seq + 1 - count..=seq).map(|seq| Placed {
                    outcome: Outcome::Stored,
                    seq,
                }))
            }
            other => {
                self.metrics.batch(false);
                tracing::debug!(?other, count, "a batch of {count} goes one by one: {other:?}");
                if other == Err(PublishError::Timeout) {
                    self.standing.timed_out(Delivery::Event, Instant::now());
                }
                Err(matches!(other, Ok(_) | Err(PublishError::Timeout)))
            }
        }
    }

    /// Places one message. `perhaps_stored`: a batch with it had no answer.
    async fn place(&self, placement: &Placement, perhaps_stored: bool) -> Result<Placed, Refusal> {
        match placement.class {
            Delivery::Ephemeral => self.send(placement).await,
            Delivery::Event => self.put(placement, names::EVENTS, perhaps_stored).await,
            Delivery::State => {
                self.key_limit.make_room(placement).await?;
                self.put(placement, names::STATE, perhaps_stored).await
            }
        }
    }

    async fn send(&self, placement: &Placement) -> Result<Placed, Refusal> {
        let message = steps::message(placement);
        let sent = self
            .jetstream
            .client()
            .publish_with_headers(message.subject, message.headers, message.payload)
            .await;
        sent.map(|()| Placed {
            outcome: Outcome::Sent,
            seq: 0,
        })
        .map_err(|_| unavailable("NATS cannot be reached"))
    }

    /// Publishes with the same id until an acknowledgement decides, at most [`ATTEMPTS`] times.
    async fn put(
        &self,
        placement: &Placement,
        stream: &str,
        mut perhaps_stored: bool,
    ) -> Result<Placed, Refusal> {
        let mut attempt = 1;
        loop {
            let answer = match self.publisher.send(steps::message(placement)).await {
                Ok(pending) => pending.acknowledged().await,
                Err(error) => Err(error),
            };
            let error = match answer {
                Ok(PubAck {
                    seq,
                    duplicate: false,
                    ..
                }) => {
                    self.standing.stored(placement.class);
                    return Ok(Placed {
                        outcome: Outcome::Stored,
                        seq,
                    });
                }
                // That says nothing of the stream's writes: nothing was written.
                Ok(PubAck { seq, .. }) => return self.compare(placement, stream, seq, perhaps_stored).await,
                Err(error) => error,
            };
            if error == PublishError::Timeout {
                perhaps_stored = true;
                self.standing.timed_out(placement.class, Instant::now());
            }
            if attempt == ATTEMPTS || !error.retryable() {
                if !error.retryable() {
                    tracing::error!(%error, stream, "stream {stream} refused an event: {error}");
                }
                return Err(not_stored(&error, perhaps_stored, &placement.msg_id));
            }
            self.metrics.retries.inc();
            let pause = match error {
                PublishError::Timeout => Duration::ZERO,
                PublishError::NoResponders => AWAY_PAUSE,
                _ => PAUSE,
            };
            tokio::time::sleep(pause * 2_u32.pow(attempt - 1)).await;
            attempt += 1;
        }
    }

    /// The stream has this id already, at `seq`: a repeat, or another event under the same id?
    async fn compare(
        &self,
        placement: &Placement,
        stream: &str,
        seq: u64,
        perhaps_ours: bool,
    ) -> Result<Placed, Refusal> {
        for _ in 1..=ATTEMPTS {
            match self.jetstream.message(stream, At::Sequence(seq)).await {
                Ok(Some(stored)) => {
                    let hash = stored
                        .headers
                        .get_last(header::HASH)
                        .map(async_nats::HeaderValue::as_str);
                    if hash != Some(placement.hash.as_str()) {
                        let detail = "an event with this source and id is stored with other content";
                        return Err(Refusal::new(Code::Conflict, detail).at("/id"));
                    }
                    // After an attempt without an answer the stored one is as good as surely ours.
                    let outcome = if perhaps_ours {
                        Outcome::Stored
                    } else {
                        Outcome::Duplicate
                    };
                    return Ok(Placed { outcome, seq });
                }
                // The state value was replaced since: what it was cannot be told any more.
                Ok(None) => {
                    return Ok(Placed {
                        outcome: Outcome::Duplicate,
                        seq,
                    });
                }
                Err(error) if error.retryable() => self.metrics.retries.inc(),
                Err(error) => {
                    tracing::error!(%error, "a stored event cannot be read: {error}");
                    break;
                }
            }
        }
        Err(unknown(&placement.msg_id))
    }

    /// The result of an event from those of its copies: refused where one failed, else stored if any was stored now.
    fn sum_up<'a>(
        &self,
        id: String,
        tenant: &Tenant,
        copies: impl Iterator<Item = (&'a Placement, Result<Placed, Refusal>)>,
    ) -> Taken {
        let mut outcome = None;
        let mut position = Position::default();
        let mut failed = Vec::new();
        for (placement, placed) in copies {
            match placed {
                Ok(Placed { outcome: one, seq }) => {
                    let kept = if placement.class == Delivery::State {
                        &mut position.rev
                    } else {
                        &mut position.seq
                    };
                    *kept = seq.max(*kept);
                    outcome = if outcome == Some(Outcome::Stored) {
                        outcome
                    } else {
                        Some(one)
                    };
                }
                Err(refusal) => failed.push((placement, refusal)),
            }
        }
        if let Some(refusal) = told(failed.iter().map(|(_, refusal)| refusal)) {
            let refusal = match refusal.code {
                // The publisher knows its event by the id, not by what the stream knows it by.
                Code::Unknown => unknown(&id),
                _ => refusal.clone(),
            };
            if outcome.is_none() {
                return Err(NotTaken::new(refusal, Some(id)));
            }
            let left = failed.iter().filter_map(|(placement, _)| user(placement, &id));
            let left = left.collect();
            return Err(NotTaken::in_part(refusal, id, left));
        }
        let outcome = outcome.unwrap_or(Outcome::Sent);
        let stored = outcome != Outcome::Sent;
        // Bits 0: "time not stated". The acknowledgement has none, and a read per event would double the work.
        let cursor = stored.then(|| Cursor {
            epoch: self.epoch.get(),
            position,
            time_bits: 0,
        });
        let cursor = cursor.map(|cursor| self.cursors.write(tenant, &cursor).to_string());
        Ok(Receipt { outcome, id, cursor })
    }
}

/// Whose copy of the event with this id it is.
fn user(placement: &Placement, id: &str) -> Option<String> {
    let copy = View::parse(&placement.payload).ok()?;
    Some(copy.id.strip_prefix(id)?.strip_prefix('/')?.to_owned())
}

/// What has to keep its order among the placements of a request, by index: its events, its ephemeral events, the values of each state key.
fn rows(placements: &[Placement]) -> Vec<Vec<usize>> {
    let mut rows: Vec<Vec<usize>> = Vec::new();
    let mut known = HashMap::new();
    for (index, placement) in placements.iter().enumerate() {
        let of = match placement.class {
            Delivery::State => (placement.class, placement.subject.as_str()),
            Delivery::Event | Delivery::Ephemeral => (placement.class, ""),
        };
        let row = *known.entry(of).or_insert_with(|| {
            rows.push(Vec::new());
            rows.len() - 1
        });
        rows[row].push(index);
    }
    rows
}
