//! Connects to NATS and stays connected: for ever on the first attempt, for ever after a loss, never to a server the
//! gate refuses.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerInfo};
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::gate::judge;
use super::{NatsMetrics, NatsSettings, Refused};
use crate::jetstream::{JetStream, Publisher};
use crate::metrics::Metrics;
use crate::process::{Exit, Failure};
use crate::readiness::{Latch, Readiness};
use crate::shutdown::{Shutdown, Stage};

/// The longest pause between two attempts: a server that is back is found within this time.
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(1);
/// Time for TCP, INFO and CONNECT of one attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Two missed answers end a connection, so a frozen server is left within about 6 s.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// Default time for a request's answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for what is buffered to leave when the process ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Makes the connections of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connector {
    service: &'static str,
    settings: Arc<NatsSettings>,
    metrics: NatsMetrics,
    readiness: Readiness,
    shutdown: Shutdown,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The server is not one we work with; see the text for how to mend it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Shutdown was requested while waiting.
    #[error("stopped while waiting for NATS")]
    Stopped,
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Refused(refused) => Self::unavailable(refused),
            ConnectError::Stopped => Self {
                exit: Exit::Ok,
                message: error.to_string(),
            },
        }
    }
}

/// What a connection is at the moment; counts only go up, so whoever follows them misses nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether it is up.
    pub connected: bool,
    /// How often it came up. A change means: what was published meanwhile was missed; repair.
    pub connects: u64,
    /// How often the client dropped messages of a subscription that was read too slowly; repair.
    pub slow_consumers: u64,
}

/// One connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Nats {
    client: Client,
    status: watch::Receiver<Status>,
    settings: Arc<NatsSettings>,
    metrics: NatsMetrics,
}

impl Nats {
    /// The client itself.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Follows the connection's state.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// The JetStream API over this connection.
    #[must_use]
    pub fn jetstream(&self) -> JetStream {
        JetStream::new(self.client.clone(), self.settings.api_prefix.as_str())
    }

    /// A pipelined publisher over this connection with the window of the settings.
    ///
    /// # Errors
    /// Where the inbox cannot be subscribed to: the connection is closed.
    pub async fn publisher(&self) -> Result<Publisher, async_nats::SubscribeError> {
        Publisher::start(
            &self.client,
            self.settings.publish_window,
            Some(self.metrics.clone()),
        )
        .await
    }
}

impl Connector {
    /// Makes it; nothing is connected yet. `service` names the connections to the server.
    ///
    /// # Errors
    /// Where the metrics are declared already.
    pub fn new(
        service: &'static str,
        settings: NatsSettings,
        metrics: &Metrics,
        readiness: Readiness,
        shutdown: Shutdown,
    ) -> Result<Self, prometheus::Error> {
        let metrics = NatsMetrics::new(metrics)?;
        Ok(Self {
            service,
            settings: Arc::new(settings),
            metrics,
            readiness,
            shutdown,
        })
    }

    /// The settings in use.
    #[must_use]
    pub fn settings(&self) -> &NatsSettings {
        &self.settings
    }

    /// Connects, waiting as long as it takes; meanwhile `/readyz` says why. `name` tells the connections of one
    /// process apart (metrics, latch, and the server's own listing).
    ///
    /// The connection comes back by itself after every loss, within about 1 s of the server's return. A server that
    /// the gate refuses after a reconnect stops the process with exit code 69. It is drained in [`Stage::Close`].
    ///
    /// # Errors
    /// `Refused`: end with exit code 69. `Stopped`: end.
    ///
    /// # Cancel safety
    /// Safe; the latch then stays not ready.
    pub async fn connect(&self, name: &'static str) -> Result<Nats, ConnectError> {
        let latch = self.readiness.latch(format!("nats {name}"), "connecting");
        let (sender, status) = watch::channel(Status::default());
        let listener = Arc::new(Listener {
            name,
            metrics: self.metrics.clone(),
            latch: latch.clone(),
            status: sender,
        });
        let client = self.first(name, &listener).await?;
        let nats = Nats {
            client,
            status,
            settings: Arc::clone(&self.settings),
            metrics: self.metrics.clone(),
        };
        self.admit(&nats)
            .await
            .inspect_err(|_| listener.count("refused"))?;
        let server = nats.client.server_info();
        tracing::info!(
            connection = name,
            version = server.version,
            "connected to NATS {} at {}",
            server.version,
            self.settings.addresses()
        );
        latch.ready();
        let stage = self.shutdown.stage(Stage::Close);
        stage.spawn(self.clone().watch(nats.clone(), listener, stage.token()));
        Ok(nats)
    }

    /// Attempts until one succeeds.
    async fn first(&self, name: &'static str, listener: &Arc<Listener>) -> Result<Client, ConnectError> {
        let stopped = self.shutdown.token();
        let mut said = String::new();
        for attempt in 1_usize.. {
            let connecting = self.options(name, listener).connect(&self.settings.servers[..]);
            let outcome = tokio::select! {
                outcome = connecting => outcome,
                () = stopped.cancelled() => return Err(ConnectError::Stopped),
            };
            let reason = match outcome {
                Ok(client) => return Ok(client),
                Err(error) => format!("cannot connect to {}: {error}", self.settings.addresses()),
            };
            listener.count("connect_failed");
            listener.latch.not_ready(reason.as_str());
            if said != reason {
                tracing::warn!(connection = name, "{reason}; trying again until it works");
                said = reason;
            }
            tokio::select! {
                () = tokio::time::sleep(delay(attempt)) => {}
                () = stopped.cancelled() => return Err(ConnectError::Stopped),
            }
        }
        Err(ConnectError::Stopped)
    }

    fn options(&self, name: &str, listener: &Arc<Listener>) -> ConnectOptions {
        let listener = Arc::clone(listener);
        let options = ConnectOptions::new()
            .name(format!("{} {name}", self.service))
            .custom_inbox_prefix(&self.settings.inbox_prefix)
            .subscription_capacity(self.settings.pending_max)
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .ping_interval(PING_INTERVAL)
            .reconnect_delay_callback(delay)
            .event_callback(move |event| {
                let listener = Arc::clone(&listener);
                async move { listener.heard(event) }
            });
        let options = match &self.settings.certificate {
            Some((certificate, key)) => options.add_client_certificate(certificate.clone(), key.clone()),
            None => options,
        };
        match &*self.settings {
            NatsSettings { nkey: Some(seed), .. } => options.nkey(seed.expose().to_owned()),
            NatsSettings {
                user: Some(user),
                password: Some(password),
                ..
            } => options.user_and_password(user.clone(), password.expose().to_owned()),
            _ => options,
        }
    }

    /// Asks the server what it is and lets the gate decide.
    async fn admit(&self, nats: &Nats) -> Result<(), Refused> {
        let ServerInfo { version, .. } = nats.client.server_info();
        judge(&version, None)?;
        let level = api_level(&nats.client, &self.settings.api_prefix).await?;
        if level.is_none() {
            tracing::debug!("this account may not ask for the JetStream API level; the version decides");
        }
        judge(&version, level)
    }

    /// Passes every reconnect through the gate; drains the connection at the end.
    async fn watch(self, nats: Nats, listener: Arc<Listener>, ending: CancellationToken) {
        let mut status = nats.status();
        let mut admitted = status.borrow_and_update().connects;
        loop {
            tokio::select! {
                changed = status.changed() => if changed.is_err() { return },
                () = ending.cancelled() => break,
            }
            let now = *status.borrow_and_update();
            if !now.connected || now.connects == admitted {
                continue;
            }
            if let Err(refused) = self.admit(&nats).await {
                listener.count("refused");
                listener.latch.not_ready(refused.to_string());
                return self.shutdown.fail(Failure::unavailable(refused));
            }
            admitted = now.connects;
            tracing::info!(connection = listener.name, "connected to NATS again");
            if status.borrow().connected {
                listener.latch.ready();
            }
        }
        if nats.client.drain().await.is_ok() {
            let closed = async { while status.changed().await.is_ok() && status.borrow().connected {} };
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, closed).await;
        }
    }
}

/// Doubles from 50 ms to [`RECONNECT_DELAY_MAX`]; the first attempt waits for nothing.
fn delay(attempt: usize) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(2))
        .unwrap_or(u32::MAX)
        .min(8);
    if attempt <= 1 {
        Duration::ZERO
    } else {
        (Duration::from_millis(50) * 2_u32.pow(doublings)).min(RECONNECT_DELAY_MAX)
    }
}

/// The JetStream API level the server answers; `None` where it may not be asked from this account.
async fn api_level(client: &Client, api_prefix: &str) -> Result<Option<u64>, Refused> {
    #[derive(Deserialize)]
    struct Answer {
        api: Option<Api>,
        error: Option<Problem>,
    }
    #[derive(Deserialize)]
    struct Api {
        #[serde(default)]
        level: u64,
    }
    #[derive(Deserialize)]
    struct Problem {
        err_code: u64,
        description: String,
    }
    // An account without the permission gets no answer or "no responders", never a refusal.
    let Ok(answer) = client
        .request(format!("{api_prefix}.INFO"), bytes::Bytes::new())
        .await
    else {
        return Ok(None);
    };
    match serde_json::from_slice::<Answer>(&answer.payload) {
        // 10039: not enabled for this account; 10076: not enabled at all.
        Ok(Answer {
            error:
                Some(Problem {
                    err_code: 10_039 | 10_076,
                    description,
                }),
            ..
        }) => Err(Refused::NoJetStream(description)),
        Ok(Answer { api: Some(api), .. }) => Ok(Some(api.level)),
        _ => Ok(None),
    }
}

/// Hears a connection's events.
#[derive(Debug)]
struct Listener {
    name: &'static str,
    metrics: NatsMetrics,
    latch: Latch,
    status: watch::Sender<Status>,
}

impl Listener {
    fn heard(&self, event: Event) {
        self.count(label(&event));
        match event {
            Event::Connected => {
                self.metrics.connected.with_label_values(&[self.name]).set(1);
                self.status.send_modify(|status| {
                    status.connected = true;
                    status.connects += 1;
                });
            }
            Event::Disconnected | Event::Closed => {
                self.metrics.connected.with_label_values(&[self.name]).set(0);
                self.latch.not_ready("connection lost, connecting again");
                self.status.send_modify(|status| status.connected = false);
                match event {
                    Event::Closed => tracing::info!(connection = self.name, "NATS connection closed"),
                    _ => tracing::warn!(connection = self.name, "NATS connection lost, connecting again"),
                }
            }
            Event::SlowConsumer(_) => self.status.send_modify(|status| status.slow_consumers += 1),
            Event::LameDuckMode | Event::Draining => {
                tracing::info!(connection = self.name, "NATS connection: {event}");
            }
            Event::ServerError(_) | Event::ClientError(_) => {
                tracing::warn!(connection = self.name, "NATS connection: {event}");
            }
        }
    }

    fn count(&self, event: &str) {
        self.metrics.events.with_label_values(&[self.name, event]).inc();
    }
}

fn label(event: &Event) -> &'static str {
    match event {
        Event::Connected => "connected",
        Event::Disconnected => "disconnected",
        Event::LameDuckMode => "lame_duck",
        Event::Draining => "draining",
        Event::Closed => "closed",
        Event::SlowConsumer(_) => "slow_consumer",
        Event::ServerError(_) => "server_error",
        Event::ClientError(_) => "client_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_one_second_and_no_further() {
        let millis: Vec<u128> = (0..9).map(|attempt| delay(attempt).as_millis()).collect();
        assert_eq!(millis, [0, 0, 50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(delay(usize::MAX), RECONNECT_DELAY_MAX);
    }
}
