//! What changes for everybody at once: rights, and the connections that an administrator ends.
//!
//! One task tells the shards that rights have changed; they see for themselves what it is. Another takes what ingest says on `ctl.>`,
//! which nobody remembers: a gateway that is away misses it.

use std::sync::Arc;

use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use prometheus::IntCounterVec;
use roomcast_access::{InForce, Policy};
use roomcast_chassis::nats::Nats;
use roomcast_chassis::process::{Context, Failure};
use roomcast_chassis::shutdown::Stage;
use roomcast_proto::acl::Kick;
use roomcast_proto::subject::{CONTROL_ALL, KICK, STATISTICS};
use roomcast_rights::Current;
use tokio_util::sync::CancellationToken;

use crate::bells_driver::BellDesk;
use crate::hub::Hub;
use crate::metrics::GatewayMetrics;
use crate::shard::Handle;
use crate::statistics::Statistics;

/// Who is to be told.
#[derive(Clone, Debug)]
pub struct Control {
    rights: Current,
    hub: Arc<Hub>,
    shards: Vec<Handle>,
    bells: BellDesk,
    messages: IntCounterVec,
}

impl Control {
    /// Makes it; nothing runs.
    #[must_use]
    pub fn new(
        rights: Current,
        hub: Arc<Hub>,
        (shards, bells): (Vec<Handle>, BellDesk),
        metrics: &GatewayMetrics,
    ) -> Self {
        Self {
            rights,
            hub,
            shards,
            bells,
            messages: metrics.control.clone(),
        }
    }

    /// Tells shards of every change of rights until the process ends.
    pub fn start(&self, context: &Context) {
        let finish = context.shutdown.stage(Stage::Finish);
        finish.spawn(self.clone().follow_rights(finish.token()));
    }

    /// Takes what ingest says to gateways.
    ///
    /// # Errors
    /// NATS does not take the subscription (69).
    pub async fn listen(&self, nats: &Nats, context: &Context) -> Result<(), Failure> {
        let messages =
            nats.client().subscribe(CONTROL_ALL).await.map_err(|error| {
                Failure::unavailable(format!("cannot subscribe to {CONTROL_ALL}: {error}"))
            })?;
        let finish = context.shutdown.stage(Stage::Finish);
        let followed = self
            .clone()
            .follow_messages(messages, nats.client().clone(), finish.token());
        finish.spawn(followed);
        Ok(())
    }

    async fn follow_rights(mut self, ending: CancellationToken) {
        let mut before = self.rights.now();
        loop {
            let changed = tokio::select! {
                () = ending.cancelled() => return,
                changed = self.rights.changed() => changed,
            };
            let Some(now) = changed else { return };
            if has_new_audience(&before, &now) {
                // A walk over everything kept: not on a thread that others wait for.
                let hub = Arc::clone(&self.hub);
                let _ = tokio::task::spawn_blocking(move || hub.policy_changed()).await;
                self.bells.policy_changed();
            }
            self.shards.iter().for_each(Handle::wake);
            before = now;
        }
    }

    async fn follow_messages(self, mut messages: Subscriber, client: Client, ending: CancellationToken) {
        let statistics = Statistics::new(self.shards.clone().into());
        loop {
            let message = tokio::select! {
                () = ending.cancelled() => return,
                message = messages.next() => message,
            };
            let Some(message) = message else { return };
            let outcome = match message.subject.as_str() {
                KICK if self.kick(&message.payload) => "kick",
                STATISTICS if statistics.answer(&message.payload, &client) => "statistics",
                _ => "unknown",
            };
            self.messages.with_label_values(&[outcome]).inc();
        }
    }

    /// Ends the connections that a kick means; `false`: it is none.
    fn kick(&self, message: &[u8]) -> bool {
        let kick = Kick::read(message).map(Arc::new);
        let told = kick.map(|kick| self.shards.iter().for_each(|shard| shard.kick(Arc::clone(&kick))));
        told.is_some()
    }
}

/// Whether an audience has a number now that had none: what is kept for it was for nobody until now.
fn has_new_audience(before: &InForce, now: &InForce) -> bool {
    let known = |policy: &Policy, name: &str| policy.audience(name).is_some();
    now.policy.audiences().any(|name| !known(&before.policy, name))
}
