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
/// Time for a request's answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for what is buffered to leave when the process ends, room in the client's queue for the word that it shall included.
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
    /// the gate refuses after a reconnect stops the process with exit code 69, and so does a client that ends before the
    /// process does. It is drained in [`Stage::Close`].
    ///
    /// # Errors
    /// `Refused`: end with exit code 69. `Stopped`: end.
    ///
    /// # Cancel safety
    /// Safe; the latch then stays not ready.
    pub async fn connect(&self, name: &'static str) -> Result<Nats, ConnectError> {
        let station = Station {
            name,
            metrics: self.metrics.clone(),
            latch: self.readiness.latch(format!("nats {name}"), "connecting"),
        };
        let (client, status) = self.first(&station).await?;
        let nats = Nats {
            client,
            status,
            settings: Arc::clone(&self.settings),
            metrics: self.metrics.clone(),
        };
        let admitted = self.admit(&nats, &station).await?;
        let server = nats.client.server_info();
        tracing::info!(
            connection = name,
            version = server.version,
            "connected to NATS {} at {}",
            server.version,
            self.settings.addresses()
        );
        let stage = self.shutdown.stage(Stage::Close);
        let watch = self.clone().watch(nats.clone(), station, admitted, stage.token());
        stage.spawn(watch);
        Ok(nats)
    }

    /// Attempts until one succeeds.
    async fn first(&self, station: &Station) -> Result<(Client, watch::Receiver<Status>), ConnectError> {
        let stopped = self.shutdown.token();
        let mut said = String::new();
        for attempt in 1_usize.. {
            let (listener, status) = Listener::new(station.clone());
            // Boxed: most of 7 KB, which would be in the future of everybody who connects.
            let connecting = Box::pin(self.options(listener).connect(&self.settings.servers[..]));
            let outcome = tokio::select! {
                outcome = connecting => outcome,
                () = stopped.cancelled() => return Err(ConnectError::Stopped),
            };
            let reason = match outcome {
                Ok(client) => return Ok((client, status)),
                Err(error) => format!("cannot connect to {}: {error}", self.settings.addresses()),
            };
            station.count("connect_failed");
            station.latch.not_ready(reason.as_str());
            if said != reason {
                tracing::warn!(connection = station.name, "{reason}; trying again until it works");
                said = reason;
            }
            tokio::select! {
                () = tokio::time::sleep(delay(attempt)) => {}
                () = stopped.cancelled() => return Err(ConnectError::Stopped),
            }
        }
        Err(ConnectError::Stopped)
    }

    fn options(&self, listener: Listener) -> ConnectOptions {
        let name = format!("{} {}", self.service, listener.station.name);
        let listener = Arc::new(listener);
        let options = ConnectOptions::new()
            .name(name)
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

    /// Lets the gate decide about the server of the connection that is up, and the latch say so while it still is that one.
    /// Answers how often the connection had come up before it was asked: one that came later is another one, not yet admitted.
    async fn admit(&self, nats: &Nats, station: &Station) -> Result<u64, Refused> {
        let mut status = nats.status();
        // Word of the first connection may come a little after it; and none of a client that has ended since, which `watch` finds.
        let up = status.wait_for(|status| status.connects > 0).await;
        let connects = up.map_or(0, |status| status.connects);
        let judged = self.judge(&nats.client).await.inspect_err(|refused| {
            station.count("refused");
            station.latch.not_ready(refused.to_string());
        });
        judged?;
        // Under the lock that a loss is told under: else its word could come in between, and be overwritten.
        let now = status.borrow();
        if now.connected && now.connects == connects {
            station.latch.ready();
        }
        Ok(connects)
    }

    /// Asks the server what it is and lets the gate decide.
    async fn judge(&self, client: &Client) -> Result<(), Refused> {
        let ServerInfo { version, .. } = client.server_info();
        judge(&version, None)?;
        let level = api_level(client, &self.settings.api_prefix).await?;
        if level.is_none() {
            tracing::debug!("this account may not ask for the JetStream API level; the version decides");
        }
        // Read anew: of a connection that has just come up it may have been what the server before it said.
        judge(&client.server_info().version, level)
    }

    /// Passes every reconnect through the gate; drains the connection at the end.
    async fn watch(self, nats: Nats, station: Station, mut admitted: u64, ending: CancellationToken) {
        let mut status = nats.status();
        loop {
            let changed = tokio::select! {
                changed = status.changed() => changed,
                () = ending.cancelled() => break,
            };
            let name = station.name;
            if changed.is_err() {
                if !self.shutdown.is_requested() {
                    let message =
                        format!("the client of NATS connection {name} has ended; start the process again");
                    self.shutdown.fail(Failure::unavailable(message));
                }
                return;
            }
            let now = *status.borrow_and_update();
            if !now.connected || now.connects == admitted {
                continue;
            }
            admitted = match self.admit(&nats, &station).await {
                Ok(admitted) => admitted,
                Err(refused) => return self.shutdown.fail(Failure::unavailable(refused)),
            };
            tracing::info!(connection = name, "connected to NATS again");
        }
        let drained = async {
            if nats.client.drain().await.is_ok() {
                while status.changed().await.is_ok() && status.borrow().connected {}
            }
        };
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
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
    let asked = client.request(format!("{api_prefix}.INFO"), bytes::Bytes::new());
    let Ok(Ok(answer)) = tokio::time::timeout(REQUEST_TIMEOUT, asked).await else {
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

/// Where it is told how a connection is.
#[derive(Clone, Debug)]
struct Station {
    name: &'static str,
    metrics: NatsMetrics,
    latch: Latch,
}

impl Station {
    fn count(&self, event: &str) {
        self.metrics.events.with_label_values(&[self.name, event]).inc();
    }

    fn connected(&self, connected: bool) {
        let gauge = self.metrics.connected.with_label_values(&[self.name]);
        gauge.set(connected.into());
    }
}

/// Hears a connection's events. Nobody but the client has it: where the client ends, by a panic as well, it goes, and whoever follows
/// the status hears of that.
#[derive(Debug)]
struct Listener {
    station: Station,
    status: watch::Sender<Status>,
}

impl Listener {
    fn new(station: Station) -> (Self, watch::Receiver<Status>) {
        let (status, followed) = watch::channel(Status::default());
        (Self { station, status }, followed)
    }

    fn heard(&self, event: Event) {
        let name = self.station.name;
        self.station.count(label(&event));
        match event {
            Event::Connected => {
                self.station.connected(true);
                self.status.send_modify(|status| {
                    status.connected = true;
                    status.connects += 1;
                });
            }
            Event::Disconnected => {
                self.lost("connection lost, connecting again");
                tracing::warn!(connection = name, "NATS connection lost, connecting again");
            }
            Event::Closed => {
                self.lost("connection closed");
                tracing::info!(connection = name, "NATS connection closed");
            }
            Event::SlowConsumer(_) => self.status.send_modify(|status| status.slow_consumers += 1),
            Event::LameDuckMode | Event::Draining => {
                tracing::info!(connection = name, "NATS connection: {event}");
            }
            Event::ServerError(_) | Event::ClientError(_) => {
                tracing::warn!(connection = name, "NATS connection: {event}");
            }
        }
    }

    fn lost(&self, reason: &str) {
        self.station.connected(false);
        self.status.send_modify(|status| {
            status.connected = false;
            // In here, so that it is never older than the status.
            self.station.latch.not_ready(reason);
        });
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // An attempt that failed has its own reason.
        if self.status.borrow().connected {
            self.lost("the NATS client has ended");
        }
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

    /// As after a panic in the client, of which there is no event.
    #[test]
    fn a_client_that_ends_without_a_word_is_not_connected() {
        let (metrics, readiness) = (Metrics::new("test").unwrap(), Readiness::new());
        let station = Station {
            name: "main",
            metrics: NatsMetrics::new(&metrics).unwrap(),
            latch: readiness.latch("nats main", "connecting"),
        };
        let (listener, status) = Listener::new(station.clone());
        listener.heard(Event::Connected);
        station.latch.ready();
        assert!(status.borrow().connected && readiness.is_ready());
        drop(listener);
        assert!(!status.borrow().connected && !readiness.is_ready());
        assert_eq!(station.metrics.connected.with_label_values(&["main"]).get(), 0);
        assert!(
            status.has_changed().is_err(),
            "who follows the status hears that it ended"
        );
    }
}
