//! Sinks: notifications on their way out of the house, to webhooks and to users' devices.
//!
//! `STATE` is read once, from a position that is kept beside what follows from it: one atomic batch holds the jobs of what was read, one for
//! each webhook and device it is for ([`plan`]), and the position up to which that is. So a crash neither loses a notification nor makes a
//! second job of it. Jobs are sent ([`attempt`]), as receivers let themselves be sent to ([`waiting`]), and taken away when they were
//! answered for good. Only between an answer and that can a crash make a job be sent again, under the same name.
//!
//! Of several ingests one does this ([`crate::lease`]).

mod attempt;
pub mod devices;
#[cfg(test)]
mod hour;
pub mod metrics;
mod plan;
mod recipients;
mod roster;
mod term;
mod verdict;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use roomcast_chassis::jetstream::JetStream;
use roomcast_chassis::process::Failure;
use roomcast_proto::subject::{SINKS_LEASE, stream};
use roomcast_rights::Current;
use roomcast_sinks::config::Config;
use roomcast_sinks::send::Sender;
use tokio_util::sync::CancellationToken;

use crate::key_value::KeyValue;
use crate::lease::{Lease, RENEW_EVERY};
use crate::metrics::IngestMetrics;
use metrics::SinkMetrics;
use term::Term;

/// The lease's life: whoever takes over waits for so long after a crash. Less, and an attempt of 5 s would seldom fit into what is left of
/// the holder's part of it.
const LEASE_LIFE: Duration = Duration::from_secs(15);
/// While another instance sends.
const LEASE_EVERY: Duration = Duration::from_millis(250);
/// Before a term that could not begin is begun again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// All sinks.
#[derive(Debug)]
pub struct Sinks {
    shared: Arc<Shared>,
}

/// What all attempts share.
#[derive(Debug)]
struct Shared {
    config: Arc<Config>,
    sender: Sender,
    jetstream: JetStream,
    rights: Current,
    lease: Lease,
    devices: KeyValue,
    read_states: KeyValue,
    metrics: SinkMetrics,
}

impl Sinks {
    /// Makes it; nothing is asked for.
    ///
    /// # Errors
    /// Exit code 65: there are no certificates to trust.
    pub fn new(
        config: Arc<Config>,
        jetstream: JetStream,
        rights: Current,
        sink_metrics: SinkMetrics,
        metrics: &IngestMetrics,
    ) -> Result<Self, Failure> {
        let sender = Sender::new(&config.private, config.authorities.as_deref())
            .map_err(|error| Failure::file(format!("nothing can be sent over TLS: {error}")))?;
        let bucket = |stream| KeyValue::new(jetstream.clone(), stream, metrics.clone());
        let shared = Shared {
            config,
            sender,
            rights,
            lease: Lease::new(bucket(stream::COMMANDS), SINKS_LEASE, LEASE_LIFE),
            devices: bucket(stream::DEVICES),
            read_states: bucket(stream::READSTATE),
            metrics: sink_metrics,
            jetstream,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Sends until `ending`; attempts that have begun are finished, the lease is given back.
    ///
    /// # Cancel safety
    /// Dropped, as after a crash: what was answered and not yet taken away is sent again.
    pub async fn run(self, ending: CancellationToken) {
        let over = CancellationToken::new();
        let work = async {
            self.work(&ending).await;
            over.cancel();
        };
        tokio::join!(work, self.renew(&over));
    }

    async fn renew(&self, over: &CancellationToken) {
        while !over.is_cancelled() {
            if let Err(error) = self.shared.lease.ask().await {
                tracing::debug!(%error, "the sinks' lease cannot be asked for: {error}");
            }
            tokio::select! {
                () = tokio::time::sleep(RENEW_EVERY) => {}
                () = over.cancelled() => {}
            }
        }
        let give_back = self.shared.lease.give_back();
        let _ = tokio::time::timeout(Duration::from_secs(1), give_back).await;
    }

    async fn work(&self, ending: &CancellationToken) {
        while !ending.is_cancelled() {
            let mut pause = LEASE_EVERY;
            if self.shared.lease.is_held() {
                match Term::begin(Arc::clone(&self.shared)).await {
                    Ok(term) => term.run(ending).await,
                    Err(error) => {
                        self.shared.metrics.pause("unavailable");
                        tracing::debug!(%error, "nothing can be sent yet: {error}");
                        pause = AGAIN_AFTER;
                    }
                }
                self.shared.metrics.idle();
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = ending.cancelled() => {}
            }
        }
    }
}
