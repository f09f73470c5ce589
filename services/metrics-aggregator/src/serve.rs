//! Starts the aggregator: definitions, NATS, streams, shards; and ends it in order.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use roomcast_admin::Audit;
use roomcast_admin::instance::Running;
use roomcast_chassis::jetstream::{ApiError, JetStream};
use roomcast_chassis::process::{Context, Failure, Service};
use roomcast_chassis::readiness::Latch;
use roomcast_chassis::shutdown::Stage;
use roomcast_proto::accounts::API_OUTSIDE_CORE;
use roomcast_proto::ids::{SHARDS, Tenant};
use roomcast_proto::stream::{Sizing, definitions, differences};
use roomcast_proto::subject::stream as names;

use crate::admin::{self, AdminDesk};
use crate::board::Board;
use crate::counters::Counters;
use crate::feed::Feeds;
use crate::following;
use crate::holder::Holder;
use crate::lease::Leases;
use crate::settings::Settings;
use crate::silences::Silences;
use crate::store;
use crate::worker::Shared;

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

/// Sets the aggregator up and returns; it works on the stages of the context. At the end its shards are flushed and published, then
/// their leases given back.
///
/// # Errors
/// Exit codes: 65 a broken file, 69 NATS or a stream that cannot be used.
pub async fn serve(settings: Settings, context: Context) -> Result<(), Failure> {
    let (streams, shards) = (
        context.readiness.latch("streams", "not yet looked at"),
        context.readiness.latch("shards", "not yet taken"),
    );
    let counters = Counters::new(&context.metrics)?;
    let audit = Audit::new(&context, "aggregator")?;
    let in_force = following::follow(&settings, &audit, &context)?;
    let nats = context.nats.connect("aggregator").await?;
    let jetstream = nats.jetstream();
    verify(&jetstream, context.common.replicas, &streams).await?;
    let inbox = |error| Failure::unavailable(format!("no inbox at NATS: {error}"));
    let publisher = nats.publisher().await.map_err(inbox)?;
    audit.keep(nats.publisher().await.map_err(inbox)?, &context);
    let shared = Shared {
        jetstream: jetstream.clone(),
        silences: Silences::new(jetstream.clone()),
        feeds: Feeds::new(
            jetstream.client().clone(),
            context.common.nats.api_prefix.as_str().into(),
        ),
        api_prefix: context.common.nats.api_prefix.as_str().into(),
        publisher,
        tenant: Tenant::default(),
        definitions: in_force.now(),
        counters,
    };
    let board = Board::default();
    let desk = AdminDesk {
        definitions: in_force.clone(),
        board: board.clone(),
        counters: shared.counters.clone(),
        running: Running::new(&context),
        silences: shared.silences.clone(),
        against: Arc::new(settings.against()?),
        jetstream: jetstream.clone(),
    };
    roomcast_admin::open(&settings.admin, admin::routes(desk), &audit, &context)?;
    let with_work = shards_with_work(&shared).await;
    let instance = settings
        .instance
        .clone()
        .unwrap_or_else(|| context.instance().to_owned());
    tracing::info!(
        instance,
        metrics = shared.definitions.metrics.len(),
        shards = with_work.len(),
        "{} metrics in {} shards",
        shared.definitions.metrics.len(),
        with_work.len()
    );
    let stop = context.shutdown.stage(Stage::Drain).token();
    let holder = Holder::new(Leases::new(instance, with_work), shared, in_force, board, shards);
    context.shutdown.spawn_vital(Stage::Drain, "shards", async move {
        holder.run(stop).await;
        drop(streams);
        Ok(())
    });
    Ok(())
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
