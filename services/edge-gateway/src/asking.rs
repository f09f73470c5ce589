//! What a gateway asks others for: ingest, which alone may write, and backends, which carry out commands.
//!
//! Shards and routes hand over what a client wants and hear how it ended; everything that waits for an answer of NATS waits here, in
//! tasks whose number is bounded. Before NATS is connected, and while nobody answers, clients are told to come back.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_nats::client::RequestError;
use async_nats::{Client, HeaderMap, Message, Request, RequestErrorKind};
use bytes::Bytes;
use prometheus::{Histogram, IntCounterVec, IntGauge};
use roomcast_access::permit::Command;
use roomcast_chassis::config::Reader;
use roomcast_chassis::metrics::Metrics;
use roomcast_chassis::trace::{self, KeyValue, SpanKind, Step, Trail};
use roomcast_issuers::Tenancy;
use roomcast_proto::frame::{FeedPage, PreferencesKept};
use roomcast_proto::ids::{Tenant, shard};
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::series::{Answer, Question};
use roomcast_proto::subject::{Service, series, service};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::hub::Hub;
use crate::limit::Limit;
use crate::metrics::GatewayMetrics;
use crate::{client_publish, commands, feed, preferences};

/// How long ingest may take: longer than all its own attempts to write.
const INGEST_WITHIN: Duration = Duration::from_secs(8);
/// How long an aggregator may take: it answers from memory.
const AGGREGATOR_WITHIN: Duration = Duration::from_secs(2);
/// When a client should ask again, milliseconds.
pub const RETRY_MS: u64 = 1_000;

/// How much may be under way at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of one connection.
    pub per_connection: u32,
    /// Of one user, over all its connections to this gateway.
    pub per_user: u32,
    /// Of one tenant.
    pub per_tenant: u32,
    /// Of this gateway; backends that answer late count until they have, at most 30 s.
    pub all: usize,
    /// Bytes of notifications in one answer.
    pub page_bytes_max: usize,
}

impl Limits {
    /// Reads `ROOMCAST_ASKS_…`; `page_bytes_max` is that of every answer.
    pub fn read(reader: &mut Reader<'_>, tenancy: Tenancy, page_bytes_max: usize) -> Self {
        let per_tenant = reader.number(
            "ROOMCAST_ASKS_PER_TENANT_MAX",
            512,
            1..=1_000_000,
            "Commands and publishes of one tenant under way at the same time, where there are several (ROOMCAST_CURSOR_KEYS is set); one \
             alone may have all.",
        );
        let several = tenancy.cursors.is_sealed();
        Self {
            page_bytes_max,
            per_tenant: if several { per_tenant } else { u32::MAX },
            per_connection: reader.number(
                "ROOMCAST_ASKS_PER_CONNECTION_MAX",
                8,
                1..=1_024,
                "Commands and publishes of one connection under way at the same time.",
            ),
            per_user: reader.number(
                "ROOMCAST_ASKS_PER_USER_MAX",
                16,
                1..=10_000,
                "Commands and publishes of one user under way at the same time.",
            ),
            all: reader.number(
                "ROOMCAST_ASKS_MAX",
                1_024,
                1..=1_000_000,
                "Commands and publishes of all clients under way at the same time.",
            ),
        }
    }
}

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

/// Who has how much under way.
#[derive(Debug, Default)]
struct UnderWay {
    users: HashMap<(Tenant, Arc<str>), u32>,
    tenants: HashMap<Tenant, u32>,
}

/// One less; who has nothing under way is not held.
fn give_back<K: Hash + Eq>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// One ask under way; dropped, there is room for another one.
#[derive(Debug)]
pub struct Place {
    asking: Arc<Asking>,
    user: (Tenant, Arc<str>),
    all: Arc<Slot>,
}

/// The part of a [`Place`] that is held until the last answer has come, also after the client was told.
#[derive(Debug)]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
    in_flight: IntGauge,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.in_flight.dec();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut under_way = self.asking.under_way();
        give_back(&mut under_way.users, &self.user);
        give_back(&mut under_way.tenants, &self.user.0);
    }
}

impl Place {
    /// See [`Slot`].
    #[must_use]
    pub fn slot(&self) -> Arc<Slot> {
        Arc::clone(&self.all)
    }
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

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>, who: &Who) -> Result<Place, Refusal> {
        let user = (who.tenant.clone(), Arc::clone(&who.user));
        let mut under_way = self.under_way();
        let of_user = under_way.users.get(&user).copied().unwrap_or(0);
        let of_tenant = under_way.tenants.get(&user.0).copied().unwrap_or(0);
        let met = match (
            of_user >= self.limits.per_user,
            of_tenant >= self.limits.per_tenant,
        ) {
            (true, _) => Some(Limit::AsksOfUser),
            (false, true) => Some(Limit::AsksOfTenant),
            (false, false) => None,
        };
        if let Some(limit) = met {
            self.limited.limited(limit);
            return Err(too_many());
        }
        let permit = Arc::clone(&self.all).try_acquire_owned().map_err(|_| {
            self.limited.limited(Limit::Asks);
            unavailable("too much is under way at this gateway")
        })?;
        under_way.users.insert(user.clone(), of_user + 1);
        under_way.tenants.insert(user.0.clone(), of_tenant + 1);
        drop(under_way);
        self.metrics.in_flight.inc();
        Ok(Place {
            asking: Arc::clone(self),
            user,
            all: Arc::new(Slot {
                _permit: permit,
                in_flight: self.metrics.in_flight.clone(),
            }),
        })
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
mod tests {
    use super::*;

    fn who(user: &str) -> Who {
        Who {
            tenant: Tenant::default(),
            user: user.into(),
            roles: Arc::default(),
            claims: None,
        }
    }

    #[test]
    fn users_and_the_gateway_have_their_bounds_and_get_them_back() {
        let limits = Limits {
            per_connection: 1,
            per_user: 2,
            per_tenant: 3,
            all: 4,
            page_bytes_max: 1,
        };
        let metrics = Metrics::new("gateway").unwrap();
        let limited = GatewayMetrics::new(&metrics).unwrap();
        let asking = Asking::new(limits, &metrics, limited).unwrap();
        let code = |user: &str| asking.enter(&who(user)).map_err(|refusal| refusal.code);
        let first = code("u1").unwrap();
        let second = code("u1").unwrap();
        assert_eq!(code("u1").unwrap_err(), Code::Rate);
        let other = code("u2").unwrap();
        assert_eq!(code("u3").unwrap_err(), Code::Rate, "the tenant's share");
        let acme = |user: &str| {
            let who = Who {
                tenant: Tenant::parse("acme").unwrap(),
                ..who(user)
            };
            asking.enter(&who).map_err(|refusal| refusal.code)
        };
        let of_acme = acme("u1").unwrap();
        assert_eq!(acme("u2").unwrap_err(), Code::Unavailable);
        // The client has been told; the backend has not answered yet.
        let slot = first.slot();
        drop(first);
        assert_eq!(code("u3").unwrap_err(), Code::Unavailable);
        drop(slot);
        drop(code("u1").unwrap());
        drop((second, other, of_acme));
        let under_way = asking.under_way();
        assert!(under_way.users.is_empty() && under_way.tenants.is_empty());
        let text = String::from_utf8(metrics.encode().unwrap()).unwrap();
        for limit in [Limit::AsksOfUser, Limit::AsksOfTenant, Limit::Asks] {
            let label = format!("limit=\"{}\"", limit.as_str());
            let line = text.lines().find(|line| line.contains(&label)).unwrap();
            assert!(!line.ends_with(" 0"), "{line}");
        }
        assert_eq!(asking.metrics.in_flight.get(), 0);
    }

    #[test]
    fn answers_and_refusals_of_ingest_are_told_apart() {
        let read = |text: &str| read::<HashMap<String, u32>>(text.as_bytes());
        assert_eq!(read(r#"{"n":1}"#), Ok(HashMap::from([("n".to_owned(), 1)])));
        let refused = read(r#"{"code":"conflict","message":"no","temporary":false}"#).unwrap_err();
        assert_eq!((refused.code, refused.detail.as_str()), (Code::Conflict, "no"));
        let refused =
            read(r#"{"code":"unavailable","message":"no","temporary":true,"retryAfterMs":7}"#).unwrap_err();
        assert_eq!(refused.retry_after_ms, Some(7));
        for strange in ["", "[]", r#"{"code":"nothing","message":""}"#] {
            assert_eq!(read(strange).unwrap_err().code, Code::Internal, "{strange}");
        }
        // What is absent and what is not yours are one answer, also after a journey.
        assert_eq!(
            read(&Refusal::forbidden().error_json()).unwrap_err(),
            Refusal::forbidden()
        );
    }
}
