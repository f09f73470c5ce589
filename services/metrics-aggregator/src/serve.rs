//! Starts the aggregator: definitions, NATS, streams, shards; and ends it in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use roomcast_chassis::jetstream::{ApiError, At, JetStream, LastMessages};
use roomcast_chassis::process::{Context, Failure, Service};
use roomcast_chassis::readiness::Latch;
use roomcast_chassis::shutdown::Stage;
use roomcast_proto::accounts::API_OUTSIDE_CORE;
use roomcast_proto::ids::{SHARDS, Tenant};
use roomcast_proto::stream::{Sizing, definitions, differences};
use roomcast_proto::subject::{self, header, stream as names};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::counters::Counters;
use crate::lease::{self, Lease, Leases, Wish};
use crate::settings::Settings;
use crate::store;
use crate::worker::{self, Shared};

/// What the aggregator is, for the process around it.
pub static SERVICE: Service = Service {
    name: "roomcast-metrics-aggregator",
    about: "folds events into the metrics of metrics.yaml and publishes their numbers as state",
    admin_port: 9082,
    jetstream_api: API_OUTSIDE_CORE,
};

/// The streams it reads and writes.
const USED: [&str; 3] = [names::EVENTS, names::STATE, names::AGG];
/// Pause before NATS is asked again while it does not answer.
const ASK_AGAIN: Duration = Duration::from_millis(500);
const LEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs the aggregator until shutdown: its shards are flushed and published, then their leases given back.
///
/// # Errors
/// Exit codes: 65 a broken file, 69 NATS or a stream that cannot be used.
pub async fn serve(settings: Settings, context: Context) -> Result<(), Failure> {
    let (streams, shards) = (
        context.readiness.latch("streams", "not yet looked at"),
        context.readiness.latch("shards", "not yet taken"),
    );
    let counters = Counters::new(&context.metrics)?;
    let definitions = settings.definitions()?;
    let nats = context.nats.connect("aggregator").await?;
    let jetstream = nats.jetstream();
    verify(&jetstream, context.common.replicas, &streams).await?;
    let publisher = nats
        .publisher()
        .await
        .map_err(|error| Failure::unavailable(format!("no inbox at NATS: {error}")))?;
    let shared = Shared {
        jetstream: jetstream.clone(),
        api_prefix: context.common.nats.api_prefix.as_str().into(),
        publisher,
        tenant: Tenant::default(),
        definitions: Arc::new(definitions),
        counters,
    };
    let with_work = shards_with_work(&shared).await;
    let instance = settings.instance.clone().unwrap_or_else(|| instance(&context));
    tracing::info!(
        instance,
        metrics = shared.definitions.metrics.len(),
        shards = with_work.len(),
        "{} metrics in {} shards",
        shared.definitions.metrics.len(),
        with_work.len()
    );
    let stop = context.shutdown.stage(Stage::Drain).token();
    Holder {
        leases: Leases::new(instance, with_work),
        workers: BTreeMap::new(),
        shared,
        latch: shards,
    }
    .run(stop)
    .await;
    drop(streams);
    Ok(())
}

/// Host and admin port: the same after a restart, another one beside it. A port that the system chooses says nothing.
fn instance(context: &Context) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match context.common.admin_listen.port() {
        0 => uuid::Uuid::new_v4().simple().to_string(),
        port => format!("{}-{port}", host.trim()),
    }
}

/// Waits until JetStream answers, then compares the streams with what they must be.
async fn verify(jetstream: &JetStream, replicas: u8, latch: &Latch) -> Result<(), Failure> {
    let sizing = Sizing {
        replicas: u32::from(replicas),
        ..Sizing::PRODUCTION
    };
    let wanted: Vec<_> = definitions(&sizing)
        .into_iter()
        .filter(|wanted| USED.contains(&wanted.name))
        .collect();
    loop {
        let mut lines = Vec::new();
        let mut silent: Option<ApiError> = None;
        for wanted in &wanted {
            match jetstream.stream_info(wanted.name).await {
                Ok(Some(info)) => {
                    let found = differences(&wanted.config, &info.config);
                    lines.extend(
                        found
                            .into_iter()
                            .map(|line| format!("stream {}: {line}", wanted.name)),
                    );
                }
                Ok(None) => lines.push(format!("stream {} does not exist", wanted.name)),
                Err(error) => silent = Some(error),
            }
        }
        match silent {
            Some(error) => latch.not_ready(format!("the streams cannot be looked at: {error}")),
            None if lines.is_empty() => {
                latch.ready();
                return Ok(());
            }
            None => {
                let text = lines.join("\n  ");
                return Err(Failure::unavailable(format!(
                    "the streams are not what they must be:\n  {text}\ncreate or change them (`roomcast dev` does for development), \
                     or set ROOMCAST_REPLICAS to what this installation has"
                )));
            }
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// The shards that have metrics, and those whose former metrics left something to withdraw.
async fn shards_with_work(shared: &Shared) -> BTreeSet<u32> {
    let mut with_work: BTreeSet<u32> = shared
        .definitions
        .metrics
        .iter()
        .map(|metric| metric.shard)
        .collect();
    for shard in (0..SHARDS)
        .filter(|shard| !with_work.contains(shard))
        .collect::<Vec<_>>()
    {
        match store::head(&shared.jetstream, shard).await {
            Ok(Some((_, head))) if !head.is_idle() => {
                with_work.insert(shard);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(
                    shard,
                    "whether shard {shard} has anything left to withdraw is unknown: {error}"
                );
                with_work.insert(shard);
            }
        }
    }
    with_work
}

struct Working {
    stop: CancellationToken,
    caught_up: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// Holds leases and works the shards they are for.
struct Holder {
    leases: Leases,
    workers: BTreeMap<u32, Working>,
    shared: Shared,
    latch: Latch,
}

impl Holder {
    async fn run(mut self, stop: CancellationToken) {
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
                    () = tokio::time::sleep(pause.min(until - Instant::now())) => self.say(looked),
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

    /// Reads all leases.
    async fn look(&mut self) -> Result<(), ApiError> {
        let answer = self
            .shared
            .jetstream
            .multi_last(names::AGG, &[subject::SHARD_LEASES], None)
            .await?;
        let LastMessages::Messages { messages, .. } = answer else {
            return Ok(());
        };
        let now = Instant::now();
        for message in messages {
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

    /// Somebody wrote in between: read through the leader, because a replica may not know yet.
    async fn look_again(&mut self, shard: u32) {
        let lease = subject::shard_lease(shard);
        if let Ok(Some(message)) = self.shared.jetstream.message(names::AGG, At::Last(&lease)).await {
            if let Ok(lease) = serde_json::from_slice(&message.payload) {
                self.leases
                    .observe(shard, message.sequence, lease, Instant::now());
            }
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
