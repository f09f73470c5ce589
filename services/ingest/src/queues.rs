//! Queues: what publishers that cannot wait for an answer have left in NATS (`inq.`), drained in order and once.
//!
//! One stream per publisher ([`roomcast_proto::stream::queue`]), filled whether or not an ingest runs. Of several ingests one drains
//! ([`crate::lease`]); each queue by a task of its own ([`drain`]), which leads what it reads along the same decisions as the doors.

mod drain;
mod known;
mod look_back;
pub mod place;
mod portion;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use roomcast_chassis::jetstream::JetStream;
use roomcast_proto::subject::{QUEUED_ALL, QUEUES_LEASE, stream};
use tokio::sync::Semaphore;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::intake::Intake;
use crate::key_value::KeyValue;
use crate::lease::{Lease, RENEW_EVERY};
use drain::Drain;

/// Portions worked on at the same time, over all queues: with their bytes, what draining may hold in memory.
const PORTIONS_MAX: usize = 8;
/// The lease's life.
const LEASE_LIFE: Duration = Duration::from_secs(10);
/// Queues drained; more are left, and said so.
const QUEUES_MAX: usize = 1_024;

/// All queues.
#[derive(Debug)]
pub struct Queues {
    shared: Arc<Shared>,
}

/// What the drains of all queues share.
#[derive(Debug)]
struct Shared {
    intake: Intake,
    jetstream: JetStream,
    lease: Lease,
    portions: Semaphore,
    waiting: Mutex<HashMap<String, (u64, i64)>>,
}

impl Shared {
    /// How many messages wait in a queue, and for how many seconds the oldest has; `None`: it is not drained here.
    fn waiting(&self, queue: &str, waiting: Option<(u64, i64)>) {
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting {
            Some(waiting) => all.insert(queue.to_owned(), waiting),
            None => all.remove(queue),
        };
        let messages: u64 = all.values().map(|(messages, _)| messages).sum();
        let oldest = all.values().map(|(_, secs)| *secs).max().unwrap_or(0);
        let metrics = &self.intake.metrics;
        metrics
            .queue_waiting
            .set(i64::try_from(messages).unwrap_or(i64::MAX));
        metrics.queue_oldest_seconds.set(oldest);
    }
}

impl Queues {
    /// Makes it; nothing is asked for.
    #[must_use]
    pub fn new(jetstream: JetStream, intake: Intake) -> Self {
        let keys = KeyValue::new(jetstream.clone(), stream::COMMANDS, intake.metrics.clone());
        let shared = Shared {
            intake,
            jetstream,
            lease: Lease::new(keys, QUEUES_LEASE, LEASE_LIFE),
            portions: Semaphore::new(PORTIONS_MAX),
            waiting: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Drains what is there and what comes until `ending`; portions that have begun are finished, the lease is given back.
    ///
    /// # Cancel safety
    /// Dropped, as after a crash: whoever drains next does again what was not taken away.
    pub async fn run(self, ending: CancellationToken) {
        let mut drains = JoinSet::new();
        let mut drained: HashMap<Id, String> = HashMap::new();
        while !ending.is_cancelled() {
            if self.shared.intake.sure().is_err() {
                // Another instance may know who may do what; this one would have the lease and drain nothing.
                self.shared.intake.metrics.queue_pause("unsure");
                if self.shared.lease.is_held() {
                    self.give_back().await;
                }
            } else if let Err(error) = self.shared.lease.ask().await {
                tracing::debug!(%error, "the queues' lease cannot be asked for: {error}");
            }
            if self.shared.lease.is_held() {
                for queue in self.found().await {
                    if drained.len() < QUEUES_MAX && !drained.values().any(|known| *known == queue) {
                        tracing::info!(%queue, "drains queue {queue}");
                        let drain = Drain::new(Arc::clone(&self.shared), queue.clone());
                        let task = drains.spawn(drain.run(ending.clone()));
                        drained.insert(task.id(), queue);
                    }
                }
            }
            let renew = tokio::time::sleep(RENEW_EVERY);
            tokio::pin!(renew);
            loop {
                tokio::select! {
                    // One that panicked is begun anew, like one whose stream came back.
                    Some(ended) = drains.join_next_with_id(), if !drains.is_empty() => {
                        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                        drained.remove(&id);
                    }
                    () = &mut renew => break,
                    () = ending.cancelled() => break,
                }
            }
        }
        while drains.join_next().await.is_some() {}
        self.give_back().await;
    }

    /// Gives the lease back where this instance may have it; what takes longer than a second ends by itself.
    async fn give_back(&self) {
        let give_back = self.shared.lease.give_back();
        let _ = tokio::time::timeout(Duration::from_secs(1), give_back).await;
    }

    async fn found(&self) -> Vec<String> {
        match self.shared.jetstream.stream_names(QUEUED_ALL).await {
            Ok(found) => {
                if found.len() > QUEUES_MAX {
                    tracing::error!(
                        queues = found.len(),
                        "{} queues; only {QUEUES_MAX} are drained",
                        found.len()
                    );
                }
                found
            }
            Err(error) => {
                tracing::debug!(%error, "the queues cannot be looked for: {error}");
                Vec::new()
            }
        }
    }
}
