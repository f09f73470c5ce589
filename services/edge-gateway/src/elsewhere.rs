//! A newer token for a stream that another gateway has: passed to all of them, and answered by the one that goes on with it.
//!
//! Whoever has the stream verifies the token itself, with the same keys and under the same rights as one that came by its own door, so a
//! gateway can pass nothing that its client could not have posted there. What is refused is not answered: a stream that is somebody else's
//! looks, also in time, like one that is nowhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use prometheus::IntCounterVec;
use roomcast_chassis::metrics::Metrics;
use roomcast_proto::elsewhere::{Pass, Passed};
use roomcast_proto::frame::Refreshed;
use roomcast_proto::ids::new_event_id;
use roomcast_proto::subject::passed;
use tokio::sync::oneshot;

use crate::gate::{Admitted, Gate};
use crate::http::unix_secs;
use crate::shard::{self, Handle};

/// How long the other gateways have to answer. None does where the stream is nowhere, or not the user's.
const WITHIN: Duration = Duration::from_secs(1);
/// Requests that wait for others at the same time; one more is answered as if nobody had the stream.
const WAITING_MAX: usize = 1_000;

/// The other gateways, as far as they have streams.
#[derive(Debug)]
pub struct Elsewhere {
    own: String,
    gate: Arc<Gate>,
    shards: OnceLock<Arc<[Handle]>>,
    client: OnceLock<Client>,
    waiting: Mutex<HashMap<String, oneshot::Sender<Refreshed>>>,
    passed: IntCounterVec,
}

impl Elsewhere {
    /// Reaches nobody yet.
    ///
    /// # Errors
    /// Where the metrics are declared already.
    pub fn new(gate: Arc<Gate>, metrics: &Metrics) -> Result<Arc<Self>, prometheus::Error> {
        Ok(Arc::new(Self {
            own: new_event_id(),
            gate,
            shards: OnceLock::new(),
            client: OnceLock::new(),
            waiting: Mutex::default(),
            passed: metrics.counter_vec(
                "roomcast_gateway_passed_total",
                "Newer tokens for streams at other gateways: asked, answered (by another one), heard, done (here, for another one), \
                 unreadable, full (too many wait).",
                &["what"],
            )?,
        }))
    }

    /// These are the streams of this gateway, and this is how others are reached.
    pub fn connected(&self, shards: Arc<[Handle]>, client: Client) {
        let _ = self.shards.set(shards);
        let _ = self.client.set(client);
    }

    fn count(&self, what: &str) {
        self.passed.with_label_values(&[what]).inc();
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Refreshed>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the gateway that holds a stream go on with it under this token. `None`: none does, or it refuses.
    ///
    /// # Cancel safety
    /// Dropped, the stream may go on under the newer token or not.
    pub async fn refresh(&self, connection: &str, token: &str) -> Option<Refreshed> {
        let ask = new_event_id();
        let (sender, answer) = oneshot::channel();
        let _waits = {
            let mut waiting = self.waiting();
            if waiting.len() >= WAITING_MAX {
                self.count("full");
                return None;
            }
            waiting.insert(ask.clone(), sender);
            Waits(self, ask.clone())
        };
        let what = Pass::Refresh {
            ask,
            connection: connection.to_owned(),
            token: token.to_owned(),
        };
        self.count("asked");
        self.say(what).await?;
        let refreshed = tokio::time::timeout(WITHIN, answer).await.ok()?.ok()?;
        self.count("answered");
        Some(refreshed)
    }

    async fn say(&self, what: Pass) -> Option<()> {
        let said = Passed {
            gateway: self.own.clone(),
            what,
        };
        let body = serde_json::to_vec(&said).ok()?;
        let client = self.client.get()?;
        client.publish(passed(&self.own), Bytes::from(body)).await.ok()
    }

    /// Takes what a gateway passes; its own is passed over.
    pub fn hear(self: &Arc<Self>, payload: &[u8]) {
        let Ok(heard) = serde_json::from_slice::<Passed>(payload) else {
            return self.count("unreadable");
        };
        if heard.gateway == self.own {
            return;
        }
        match heard.what {
            Pass::Refresh {
                ask,
                connection,
                token,
            } => {
                self.count("heard");
                let own = Arc::clone(self);
                tokio::spawn(async move {
                    let refreshed = own.refresh_here(&connection, &token).await?;
                    own.count("done");
                    own.say(Pass::Refreshed {
                        ask,
                        expires_at: refreshed.expires_at,
                        roles: refreshed.roles,
                    })
                    .await
                });
            }
            Pass::Refreshed {
                ask,
                expires_at,
                roles,
            } => {
                if let Some(waiting) = self.waiting().remove(&ask) {
                    let _ = waiting.send(Refreshed { expires_at, roles });
                }
            }
        }
    }

    async fn refresh_here(&self, connection: &str, token: &str) -> Option<Refreshed> {
        let number = shard::number(connection)?;
        let shards = self.shards.get()?;
        let admitted = self.gate.admit(token, unix_secs()).ok()?;
        refresh_among(shards, number, &admitted).await
    }
}

/// Goes on with a stream of this gateway; `None`: it is not here, or not the user's.
pub async fn refresh_among(shards: &[Handle], number: u64, admitted: &Admitted) -> Option<Refreshed> {
    let mut answers = Vec::with_capacity(shards.len());
    for shard in shards {
        answers.push(shard.refresh(number, admitted.clone()));
    }
    for answer in answers {
        // A shard that is gone has no connections any more.
        if let Ok(Some(refreshed)) = answer.await {
            return Some(refreshed);
        }
    }
    None
}

/// Who waits no longer is not held.
struct Waits<'a>(&'a Elsewhere, String);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting().remove(&self.1);
    }
}
