//! Holds leases and works the shards they are for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use roomcast_chassis::jetstream::{ApiError, At, LastMessages};
use roomcast_chassis::readiness::Latch;
use roomcast_proto::subject::{self, header, stream as names};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::definition::Definitions;
use crate::following::{InForce, changed_shards};
use crate::lease::{self, Lease, Leases, Wish};
use crate::worker::{self, Shared};

const LEASE_TIMEOUT: Duration = Duration::from_secs(1);

struct Working {
    stop: CancellationToken,
    caught_up: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// One instance with its leases and workers.
pub struct Holder {
    leases: Leases,
    workers: BTreeMap<u32, Working>,
    shared: Shared,
    in_force: InForce,
    board: Board,
    latch: Latch,
}

impl Holder {
    /// Begins with nothing held. `latch` is ready while everything held is current; `board` says what that is.
    #[must_use]
    pub fn new(leases: Leases, shared: Shared, in_force: InForce, board: Board, latch: Latch) -> Self {
        Self {
            leases,
            workers: BTreeMap::new(),
            shared,
            in_force,
            board,
            latch,
        }
    }

    /// Works until `stop`, then flushes and publishes everything and gives the leases back.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut looked = false;
        loop {
            match self.look().await {
                Ok(()) => {
                    looked = true;
                    self.settle().await;
                }
                Err(error) => tracing::warn!("leases cannot be read: {error}; what is held is worked on"),
            }
            self.say(looked);
            let settled = looked
                && self
                    .workers
                    .values()
                    .all(|working| working.caught_up.load(Ordering::Relaxed));
            // While shards catch up readiness is looked at more often; leases need no more than their own pace.
            let pause = if settled { lease::EVERY } else { lease::EVERY / 10 };
            let until = Instant::now() + lease::EVERY;
            while Instant::now() < until {
                tokio::select! {
                    () = tokio::time::sleep(pause.min(until.saturating_duration_since(Instant::now()))) => self.say(looked),
                    definitions = self.in_force.changed() => self.redefine(definitions).await,
                    () = stop.cancelled() => return self.end().await,
                }
            }
        }
    }

    fn say(&self, looked: bool) {
        let behind: Vec<String> = self
            .workers
            .iter()
            .filter(|(_, working)| !working.caught_up.load(Ordering::Relaxed))
            .map(|(shard, _)| shard.to_string())
            .collect();
        if !looked {
            self.latch.not_ready("the leases cannot be read");
        } else if behind.is_empty() {
            self.latch.ready();
        } else {
            self.latch
                .not_ready(format!("catching up: shards {}", behind.join(", ")));
        }
    }

    /// Reads all leases, and what is silenced.
    async fn look(&mut self) -> Result<(), ApiError> {
        let answer = self
            .shared
            .jetstream
            .multi_last(names::AGG, &[subject::SHARD_LEASES, subject::SILENCES], None)
            .await?;
        let LastMessages::Messages { messages, .. } = answer else {
            return Ok(());
        };
        let now = Instant::now();
        for message in messages {
            if message.subject == subject::SILENCES {
                self.shared.silences.observe(message.sequence, &message.payload);
                continue;
            }
            let shard = message
                .subject
                .rsplit('.')
                .next()
                .and_then(|text| text.parse::<u32>().ok());
            if let (Some(shard), Ok(lease)) = (shard, serde_json::from_slice::<Lease>(&message.payload)) {
                self.leases.observe(shard, message.sequence, lease, now);
            }
        }
        Ok(())
    }

    /// Does what the leases say.
    async fn settle(&mut self) {
        for wish in self.leases.wishes(Instant::now()) {
            match &wish {
                Wish::Leave(shard) => {
                    tracing::info!(shard, "another instance works shard {shard} now");
                    self.stop(*shard).await;
                    self.leases.left(*shard);
                }
                Wish::Give(shard, to) => {
                    tracing::info!(shard, to, "giving shard {shard} to {to}");
                    self.stop(*shard).await;
                    self.write(&wish).await;
                    self.leases.left(*shard);
                }
                Wish::Take(shard) => {
                    if self.write(&wish).await {
                        self.start(*shard);
                    }
                }
                Wish::Renew(_) | Wish::Ask(_) => {
                    self.write(&wish).await;
                }
            }
        }
        self.revive();
        self.shared
            .counters
            .shards
            .set(i64::try_from(self.workers.len()).unwrap_or(i64::MAX));
    }

    /// Writes a lease where nobody wrote in between.
    async fn write(&mut self, wish: &Wish) -> bool {
        let Some((shard, lease)) = self.leases.value(wish) else {
            return false;
        };
        let Ok(body) = serde_json::to_vec(&lease) else {
            return false;
        };
        let mut headers = HeaderMap::new();
        headers.insert(
            header::EXPECTED_LAST_SUBJECT_SEQUENCE,
            self.leases.seq(shard).to_string().as_str(),
        );
        let jetstream = &self.shared.jetstream;
        match jetstream
            .publish(subject::shard_lease(shard), headers, body.into(), LEASE_TIMEOUT)
            .await
        {
            Ok(ack) => {
                self.leases.stored(wish, ack.seq, lease, Instant::now());
                true
            }
            Err(error) => {
                tracing::debug!(shard, "the lease of shard {shard} was not written: {error}");
                self.look_again(shard).await;
                false
            }
        }
    }

    /// Other definitions are in force: shards that they change are begun anew from what is stored, side by side; what is there for the
    /// first time is taken with the next look at the leases.
    async fn redefine(&mut self, definitions: Arc<Definitions>) {
        let changed = changed_shards(&self.shared.definitions, &definitions);
        self.leases
            .add(definitions.metrics.iter().map(|metric| metric.shard));
        self.shared.definitions = definitions;
        let held: Vec<u32> = self
            .workers
            .keys()
            .copied()
            .filter(|shard| changed.contains(shard))
            .collect();
        for shard in &held {
            if let Some(working) = self.workers.get(shard) {
                working.stop.cancel();
            }
        }
        for shard in held {
            self.stop(shard).await;
            self.start(shard);
        }
    }

    /// Somebody wrote in between: read through the leader, because a replica may not know yet.
    async fn look_again(&mut self, shard: u32) {
        let lease = subject::shard_lease(shard);
        if let Ok(Some(message)) = self.shared.jetstream.message(names::AGG, At::Last(&lease)).await
            && let Ok(lease) = serde_json::from_slice(&message.payload)
        {
            self.leases
                .observe(shard, message.sequence, lease, Instant::now());
        }
    }

    /// A worker ends by itself only when its shard has nothing left to do; any other end was a panic.
    fn revive(&mut self) {
        let dead: Vec<u32> = self
            .workers
            .iter()
            .filter(|(shard, working)| {
                working.task.is_finished() && !self.shared.definitions.of_shard(**shard).is_empty()
            })
            .map(|(shard, _)| *shard)
            .collect();
        for shard in dead {
            tracing::error!(shard, "the worker of shard {shard} ended; it begins anew");
            self.workers.remove(&shard);
            self.start(shard);
        }
    }

    fn start(&mut self, shard: u32) {
        if self.workers.contains_key(&shard) {
            return;
        }
        let (stop, caught_up) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn(worker::run(
            self.shared.clone(),
            shard,
            Arc::clone(&caught_up),
            stop.clone(),
        ));
        self.board.begin(shard, Arc::clone(&caught_up));
        self.workers.insert(
            shard,
            Working {
                stop,
                caught_up,
                task,
            },
        );
    }

    async fn stop(&mut self, shard: u32) {
        if let Some(working) = self.workers.remove(&shard) {
            self.board.end(shard);
            working.stop.cancel();
            if working.task.await.is_err() {
                tracing::error!(shard, "the worker of shard {shard} panicked");
            }
        }
    }

    /// Flushes all shards side by side, then gives the leases back, so that a successor need not wait for them.
    async fn end(mut self) {
        for working in self.workers.values() {
            working.stop.cancel();
        }
        let shards: Vec<u32> = self.workers.keys().copied().collect();
        for shard in shards {
            self.stop(shard).await;
            self.write(&Wish::Give(shard, String::new())).await;
        }
    }
}
