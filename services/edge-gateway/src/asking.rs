//! What a gateway asks others for: ingest, which alone may write, and backends, which carry out commands.
//!
//! Shards and routes hand over what a client wants and hear how it ended; everything that waits for an answer of NATS waits here, in
//! tasks whose number is bounded. Before NATS is connected, and while nobody answers, clients are told to come back.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_nats::client::RequestError;
use async_nats::{Client, HeaderMap, Message, Request, RequestErrorKind};
use bytes::Bytes;
use prometheus::{Histogram, IntCounterVec, IntGauge};
use roomcast_access::permit::Command;
use roomcast_chassis::metrics::Metrics;
use roomcast_chassis::trace::{self, KeyValue, SpanKind, Step, Trail};
use roomcast_proto::frame::{FeedPage, PreferencesKept};
use roomcast_proto::ids::{Tenant, shard};
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::series::{Answer, Question};
use roomcast_proto::subject::{Service, series, service};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::hub::Hub;
use crate::metrics::GatewayMetrics;
use crate::{client_publish, commands, feed, preferences};

mod limits;
mod places;

pub use limits::Limits;
use places::UnderWay;
pub use places::{Place, Slot};

/// How long ingest may take: longer than all its own attempts to write.
const INGEST_WITHIN: Duration = Duration::from_secs(8);
/// How long an aggregator may take: it answers from memory.
const AGGREGATOR_WITHIN: Duration = Duration::from_secs(2);
/// When a client should ask again, milliseconds.
pub const RETRY_MS: u64 = 1_000;

/// On whose behalf something is asked.
#[derive(Clone, Debug)]
pub struct Who {
    /// The tenant.
    pub tenant: Tenant,
    /// The token's subject.
    pub user: Arc<str>,
    /// The roles in force, by the policy's names.
    pub roles: Arc<[String]>,
    /// Its claims that rooms of the policy may name.
    pub claims: Option<Arc<serde_json::Map<String, serde_json::Value>>>,
}

/// Something a client wants that others must do. Permits in it were made when it was asked.
#[derive(Debug)]
pub struct Ask {
    /// The rights it was decided under; see [`crate::session::Session::may_still_ask`].
    pub generation: u32,
    /// The request to answer.
    pub id: Option<u32>,
    /// Who asks.
    pub who: Who,
    /// What for.
    pub what: What,
}

/// What a client wants done.
#[derive(Debug)]
pub enum What {
    /// A command, carried out by a backend.
    Command(commands::Order),
    /// An event of its own.
    Publish(client_publish::Post),
    /// What it is doing.
    Activity(client_publish::Post),
    /// Its notifications.
    Feed(feed::Request),
    /// How it wants to be told of them.
    Preferences(preferences::Set),
}

impl What {
    fn label(&self) -> &'static str {
        match self {
            Self::Command(_) => "command",
            Self::Publish(_) => "publish",
            Self::Activity(_) => "activity",
            Self::Feed(request) => match request.want {
                feed::Want::Page { .. } => "feed",
                feed::Want::Mark { .. } => "mark",
            },
            Self::Preferences(_) => "preferences",
        }
    }
}

/// How it ended.
#[derive(Debug, PartialEq)]
pub enum Done {
    /// The result of a command, JSON.
    Result(Bytes),
    /// The id of the stored event.
    Published(String),
    /// Notifications and counters.
    Feed(FeedPage),
    /// Preferences.
    Preferences(PreferencesKept),
}

/// Metrics of what is asked.
#[derive(Clone, Debug)]
struct AskMetrics {
    asks: IntCounterVec,
    in_flight: IntGauge,
    seconds: Histogram,
}

/// Upper bounds of the time until a client is answered: two durable writes and a backend, up to 30 s.
const SECONDS_BUCKETS: [f64; 10] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0, 30.0];

impl AskMetrics {
    fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        Ok(Self {
            asks: metrics.counter_vec(
                "roomcast_gateway_asks_total",
                "Commands, publishes, activity, feeds, marks and preferences of clients, and groups of metrics (series), by outcome: done, or the refusal's code; of series also behind and unanswered.",
                &["what", "outcome"],
            )?,
            in_flight: metrics.gauge(
                "roomcast_gateway_asks_in_flight",
                "Commands and publishes under way.",
            )?,
            seconds: metrics.histogram(
                "roomcast_gateway_ask_seconds",
                "Time from a client's command or publish to its answer.",
                &SECONDS_BUCKETS,
            )?,
        })
    }
}

/// Asks ingest and backends.
#[derive(Debug)]
pub struct Asking {
    client: OnceLock<Client>,
    limits: Limits,
    all: Arc<Semaphore>,
    under_way: Mutex<UnderWay>,
    metrics: AskMetrics,
    limited: GatewayMetrics,
}

impl Asking {
    /// Makes it; until [`Asking::connected`] everybody is told to come back. `limited` counts who met a limit.
    ///
    /// # Errors
    /// Where the metrics are declared already.
    pub fn new(
        limits: Limits,
        metrics: &Metrics,
        limited: GatewayMetrics,
    ) -> Result<Arc<Self>, prometheus::Error> {
        Ok(Arc::new(Self {
            client: OnceLock::new(),
            limits,
            all: Arc::new(Semaphore::new(limits.all.clamp(1, Semaphore::MAX_PERMITS))),
            under_way: Mutex::default(),
            metrics: AskMetrics::new(metrics)?,
            limited,
        }))
    }

    /// From here on there is somebody to ask.
    pub fn connected(&self, client: Client) {
        // Set once, at start.
        let _ = self.client.set(client);
    }

    /// What one connection may have under way.
    #[must_use]
    pub fn per_connection(&self) -> u32 {
        self.limits.per_connection
    }

    /// Bytes of notifications in one answer; a page that would be longer ends earlier.
    #[must_use]
    pub fn page_bytes_max(&self) -> usize {
        self.limits.page_bytes_max
    }

    /// Does what a client wants, and counts how it ended. A step of the trace that the client names with `trail`; without one the sample
    /// decides whether it begins a trace, and those who are asked go on with it.
    ///
    /// # Errors
    /// The refusal for the client.
    ///
    /// # Cancel safety
    /// Dropped, the outcome is unknown.
    pub async fn carry_out(
        self: Arc<Self>,
        hub: &Hub,
        who: Who,
        what: What,
        trail: Option<&Trail>,
    ) -> Result<Done, Refusal> {
        let start = tokio::time::Instant::now();
        let label = what.label();
        let step = Step::begin(label, SpanKind::Server, trail);
        step.set(|| [KeyValue::new("roomcast.tenant", who.tenant.to_string())]);
        let done = step.run(self.done(hub, &who, what, &step)).await;
        let outcome = match &done {
            Ok(_) => "done",
            Err(refusal) => {
                step.failed(refusal.code.as_str());
                refusal.code.as_str()
            }
        };
        self.count(label, outcome);
        self.metrics.seconds.observe(start.elapsed().as_secs_f64());
        done
    }

    async fn done(self: &Arc<Self>, hub: &Hub, who: &Who, what: What, step: &Step) -> Result<Done, Refusal> {
        let place = self.enter(who)?;
        match what {
            What::Command(order) => {
                step.set(|| [KeyValue::new("roomcast.command", order.permit.name().to_owned())]);
                commands::run(self, who, order, &place, step)
                    .await
                    .map(Done::Result)
            }
            What::Publish(post) | What::Activity(post) => {
                client_publish::run(self, who, post).await.map(Done::Published)
            }
            What::Feed(request) => feed::run(self, hub, who, request).await.map(Done::Feed),
            What::Preferences(set) => preferences::run(self, who, set).await.map(Done::Preferences),
        }
    }

    /// Counts what was refused before it was asked.
    pub fn count(&self, what: &str, outcome: &str) {
        self.metrics.asks.with_label_values(&[what, outcome]).inc();
    }

    /// Asks one of ingest's services.
    ///
    /// # Errors
    /// The service's refusal; `unavailable` where no ingest is there; `unknown` where none answered in time.
    pub async fn service<Q: Serialize + Sync, A: DeserializeOwned>(
        &self,
        tenant: &Tenant,
        what: Service,
        verb: &str,
        question: &Q,
    ) -> Result<A, Refusal> {
        let body = serde_json::to_vec(question)
            .map_err(|_| Refusal::new(Code::Internal, "a request cannot be written as JSON"))?;
        let subject = service(tenant, what, verb);
        let answer = self.request(subject, HeaderMap::new(), body.into(), INGEST_WITHIN);
        read(&answer.await.map_err(not_answered)?.payload)
    }

    /// Asks the aggregator that works a metric for one group of it. `None`: it is not there, or did not answer in time.
    pub async fn series(&self, tenant: &Tenant, question: &Question) -> Option<Answer> {
        let body = serde_json::to_vec(question).ok()?;
        let subject = series(tenant, shard(tenant, &question.metric));
        let asked = self.request(subject, HeaderMap::new(), body.into(), AGGREGATOR_WITHIN);
        let answer = asked.await.ok();
        let answer = answer.and_then(|answer| serde_json::from_slice::<Answer>(&answer.payload).ok());
        let outcome = match &answer {
            Some(Answer::Behind {}) => "behind",
            Some(_) => "done",
            None => "unanswered",
        };
        self.count("series", outcome);
        answer
    }

    /// Publishes to ingest and hears whether it is stored.
    ///
    /// # Errors
    /// As [`Asking::service`].
    pub async fn publish(
        &self,
        subject: String,
        headers: HeaderMap,
        event: Bytes,
    ) -> Result<String, Refusal> {
        #[derive(Deserialize)]
        struct Stored {
            id: String,
        }
        let answer = self.request(subject, headers, event, INGEST_WITHIN);
        read::<Stored>(&answer.await.map_err(not_answered)?.payload).map(|stored| stored.id)
    }

    /// Asks anybody, who hears in which trace.
    ///
    /// # Errors
    /// Without an answer.
    pub async fn request(
        &self,
        subject: String,
        mut headers: HeaderMap,
        body: Bytes,
        within: Duration,
    ) -> Result<Message, NoAnswer> {
        let client = self.client.get().ok_or(NoAnswer::Nobody)?;
        if let Some(trail) = trace::current() {
            trail.write(&mut headers);
        }
        let request = Request::new()
            .headers(headers)
            .payload(body)
            .timeout(Some(within));
        client
            .send_request(subject, request)
            .await
            .map_err(NoAnswer::from)
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// Nobody was there to hear it, so nothing was done.
    Nobody,
    /// It was sent, and nothing came in time.
    Silence,
}

impl From<RequestError> for NoAnswer {
    fn from(error: RequestError) -> Self {
        match error.kind() {
            RequestErrorKind::NoResponders | RequestErrorKind::InvalidSubject => Self::Nobody,
            _ => Self::Silence,
        }
    }
}

fn not_answered(no_answer: NoAnswer) -> Refusal {
    match no_answer {
        NoAnswer::Nobody => unavailable("ingest cannot be reached"),
        NoAnswer::Silence => {
            Refusal::new(Code::Unknown, "ingest did not answer in time; ask again").retry_after_ms(RETRY_MS)
        }
    }
}

/// Ingest's answer, or its refusal.
fn read<A: DeserializeOwned>(payload: &[u8]) -> Result<A, Refusal> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Refused {
        code: Code,
        message: String,
        retry_after_ms: Option<u64>,
    }
    if let Ok(refused) = serde_json::from_slice::<Refused>(payload) {
        return Err(Refusal {
            retry_after_ms: refused.retry_after_ms,
            ..Refusal::new(refused.code, refused.message)
        });
    }
    serde_json::from_slice(payload)
        .map_err(|_| Refusal::new(Code::Internal, "ingest answered what cannot be read"))
}

/// What is told whose request waited while its rights became others.
pub const RIGHTS_CHANGED: &str = "rights have changed; ask again";

/// Nothing was done; ask again.
#[must_use]
pub fn unavailable(detail: &str) -> Refusal {
    Refusal::new(Code::Unavailable, detail).retry_after_ms(RETRY_MS)
}

/// One client has too much under way.
#[must_use]
pub fn too_many() -> Refusal {
    Refusal::new(Code::Rate, "too many commands and publishes at the same time").retry_after_ms(RETRY_MS)
}

/// What a holder of a command's permit asks for; here so that nobody builds a subject from a name without one.
#[must_use]
pub fn command_subject(permit: &Command) -> String {
    roomcast_proto::subject::command(permit.tenant(), permit.name())
}

#[cfg(test)]
mod tests;
