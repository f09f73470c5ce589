//! The streams ingest writes to: compared with what they must be before anything is written, and watched afterwards. How full the others
//! are is shown as well.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use roomcast_chassis::jetstream::{ApiError, JetStream};
use roomcast_chassis::process::Failure;
use roomcast_chassis::readiness::Latch;
use roomcast_proto::cursor::Epoch;
use roomcast_proto::stream::{Definition, Sizing, definitions, differences};
use roomcast_proto::subject::stream as names;
use tokio_util::sync::CancellationToken;

use crate::metrics::{IngestMetrics, StreamGauges};
use crate::now_micros;

/// The streams ingest writes to.
const WRITTEN: [&str; 5] = [
    names::EVENTS,
    names::STATE,
    names::DLQ,
    names::COMMANDS,
    names::CAPTURE,
];
/// Those it needs besides where something is sent.
const SINKS: [&str; 2] = [names::DEVICES, names::SINKS];
/// How often they are looked at while ingest runs.
const WATCH_EVERY: Duration = Duration::from_secs(10);
/// Pause before NATS is asked again while it does not answer.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// The life of the streams that cursors name; changes when they are made anew. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CurrentEpoch(Arc<RwLock<Epoch>>);

impl CurrentEpoch {
    /// The epoch now.
    #[must_use]
    pub fn get(&self) -> Epoch {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a look at the streams found.
enum Look {
    /// All as they must be.
    Fit(Epoch),
    /// What differs, one line each.
    Differ(Vec<String>),
}

/// What the streams must be; `sinks`: whether something is sent out of the house.
#[must_use]
pub fn wanted(replicas: u8, sinks: bool) -> Vec<Definition> {
    let sizing = Sizing {
        replicas: u32::from(replicas),
        ..Sizing::PRODUCTION
    };
    definitions(&sizing)
        .into_iter()
        .filter(|definition| WRITTEN.contains(&definition.name) || sinks && SINKS.contains(&definition.name))
        .collect()
}

/// Shows how full the streams are that others write to: one eye for all of them.
async fn show_others(jetstream: &JetStream, wanted: &[Definition], gauges: &StreamGauges) {
    for Definition { name, .. } in definitions(&Sizing::PRODUCTION) {
        if wanted.iter().any(|wanted| wanted.name == name) {
            continue;
        }
        match jetstream.stream_info(name).await {
            Ok(Some(info)) => gauges.show(name, &info, now_micros()),
            // Those of what is switched off need not be there.
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "the stream {name} cannot be looked at: {error}"),
        }
    }
}

async fn look(jetstream: &JetStream, wanted: &[Definition], gauges: &StreamGauges) -> Result<Look, ApiError> {
    let (mut lines, mut created) = (Vec::new(), Vec::new());
    for Definition { name, config } in wanted {
        let Some(info) = jetstream.stream_info(name).await? else {
            lines.push(format!("stream {name} does not exist"));
            continue;
        };
        gauges.show(name, &info, now_micros());
        lines.extend(
            differences(config, &info.config)
                .into_iter()
                .map(|line| format!("stream {name}: {line}")),
        );
        created.push((*name, info.created));
    }
    let created = |name| {
        created
            .iter()
            .find(|(stream, _)| *stream == name)
            .map_or("", |(_, at)| at.as_str())
    };
    let epoch = Epoch::of_streams(created(names::EVENTS), created(names::STATE));
    Ok(if lines.is_empty() {
        Look::Fit(epoch)
    } else {
        Look::Differ(lines)
    })
}

/// Waits until JetStream answers, then compares.
///
/// # Errors
/// Exit code 69 with every difference. They are never adapted to, and never changed from here.
///
/// # Cancel safety
/// Safe.
pub async fn verify(
    jetstream: &JetStream,
    wanted: &[Definition],
    latch: &Latch,
    gauges: &StreamGauges,
) -> Result<CurrentEpoch, Failure> {
    loop {
        match look(jetstream, wanted, gauges).await {
            Ok(Look::Fit(epoch)) => {
                latch.ready();
                return Ok(CurrentEpoch(Arc::new(RwLock::new(epoch))));
            }
            Ok(Look::Differ(lines)) => {
                let text = lines.join("\n  ");
                return Err(Failure::unavailable(format!(
                    "the streams are not what they must be:\n  {text}\ncreate or change them (`roomcast dev` does for development), \
                     or set ROOMCAST_REPLICAS to what this installation has"
                )));
            }
            Err(error) => latch.not_ready(format!("the streams cannot be looked at: {error}")),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// Looks at the streams again and again: a stream that was changed makes ingest not ready, one that was made anew
/// gives new cursors. Ends with `ending`.
pub async fn watch(
    jetstream: JetStream,
    wanted: Vec<Definition>,
    latch: Latch,
    epoch: CurrentEpoch,
    metrics: IngestMetrics,
    ending: CancellationToken,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(WATCH_EVERY) => {}
            () = ending.cancelled() => return,
        }
        match look(&jetstream, &wanted, &metrics.streams).await {
            Ok(Look::Fit(now)) => {
                if epoch.get() != now {
                    tracing::warn!(%now, "the streams were made anew; cursors now begin with {now}");
                    *epoch.0.write().unwrap_or_else(PoisonError::into_inner) = now;
                }
                latch.ready();
            }
            Ok(Look::Differ(lines)) => {
                let text = lines.join("; ");
                tracing::error!("the streams are no longer what they must be: {text}");
                latch.not_ready(text);
            }
            // The connection's own latch speaks for NATS being away.
            Err(error) => tracing::debug!(%error, "the streams cannot be looked at: {error}"),
        }
        tokio::select! {
            () = show_others(&jetstream, &wanted, &metrics.streams) => {}
            () = ending.cancelled() => return,
        }
    }
}
