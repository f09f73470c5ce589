//! One ingest inside the test, on a real nats-server of its own.

use std::time::Duration;

use bytes::Bytes;
use roomcast_chassis::config::Environment;
use roomcast_chassis::jetstream::{ApiError, At, JetStream, StoredMessage};
use roomcast_chassis::process::{self, Context, Exit};
use roomcast_harness::http::{Answer, Http};
use roomcast_harness::nats::{Nats, PASSWORD};
use roomcast_harness::token::{ISSUER, Signer};
use roomcast_ingest::{SERVICE, Settings};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub const JSON: &str = "application/json";
pub const EVENT: &str = "application/cloudevents+json";
pub const BATCH: &str = "application/cloudevents-batch+json";

pub const POLICY: &str = r#"
version: 1
roles:
  user:   { permissions: [news.view] }
  staff:  { inherits: [user], permissions: [chat.write] }
  desk:   { permissions: [bookings.publish] }
  pusher: { permissions: [personal.publish] }
  filler: { permissions: [bookings.publish, events.backfill] }
  root:   { permissions: ["*"] }
rooms:
  - { room: bookings, subscribe: news.view, publish: bookings.publish }
  - { room: notifications, subscribe: news.view }
  - { room: chat, subscribe: news.view, client_publish: chat.write }
  - { room: "user.{user}", publish: personal.publish }
publishers:
  - { nats: main/publisher, roles: [desk] }
"#;

/// A running ingest.
pub struct Ingest {
    pub nats: Nats,
    pub url: String,
    pub signer: Signer,
    pub http: Http,
    pub context: Context,
    pub driven: JoinHandle<Exit>,
    pub streams: JetStream,
    dir: tempfile::TempDir,
}

impl Ingest {
    /// With [`POLICY`]; `None` where there is no nats-server on this machine.
    pub async fn start() -> Option<Self> {
        Self::start_with(POLICY, &[]).await
    }

    /// With another policy and more settings.
    pub async fn start_with(policy: &str, more: &[(&str, &str)]) -> Option<Self> {
        Some(Self::on(Nats::start().await?, policy, more).await)
    }

    /// On this server.
    pub async fn on(nats: Nats, policy: &str, more: &[(&str, &str)]) -> Self {
        process::install_crypto();
        let dir = tempfile::tempdir().unwrap();
        let signer = Signer::new();
        std::fs::write(dir.path().join("policy.yaml"), policy).unwrap();
        std::fs::write(dir.path().join("keys.json"), signer.jwks()).unwrap();
        let mut pairs = environment(&nats.url(), dir.path());
        pairs.extend(
            more.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        let (url, context, driven) = run(pairs).await;
        let streams = JetStream::new(nats.connect("admin").await, "$JS.API");
        let ingest = Self {
            nats,
            url,
            signer,
            http: Http::default(),
            context,
            driven,
            streams,
            dir,
        };
        ingest.until_listening().await;
        ingest
    }

    /// A second ingest on the same server, with the same files; it ends with its context.
    pub async fn another(&self) -> Context {
        self.another_at().await.0
    }

    /// The same, and where its HTTP door is.
    pub async fn another_at(&self) -> (Context, String) {
        let (url, context, _) = run(self.environment()).await;
        (context, url)
    }

    /// The settings of one more ingest on the same server, with the same files.
    pub fn environment(&self) -> Vec<(String, String)> {
        environment(&self.nats.url(), self.dir.path())
    }

    /// Where its files lie, for another one with the same.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Puts another policy into the file; ingest follows it.
    pub fn write_policy(&self, policy: &str) {
        std::fs::write(self.dir.path().join("policy.yaml"), policy).unwrap();
    }

    async fn until_listening(&self) {
        roomcast_harness::eventually("the door answers", Duration::from_secs(10), || async {
            self.http
                .get(&self.url, None)
                .await
                .is_ok_and(|answer| answer.status == 404)
        })
        .await;
    }

    /// A token for user `desk`.
    pub fn token(&self, role: &str) -> String {
        self.signer.token("desk", &[role])
    }

    /// `POST /v1/events` as `role`.
    pub async fn post(&self, role: &str, kind: &str, body: impl Into<Bytes>) -> Answer {
        let url = format!("{}/v1/events", self.url);
        self.http.post(&url, &self.token(role), kind, body).await.unwrap()
    }

    /// Posts one event as `desk` and gives the JSON of the answer.
    pub async fn publish(&self, event: &Value) -> Value {
        self.post("desk", JSON, event.to_string()).await.json()
    }

    /// All messages of a stream, by position.
    pub async fn stored(&self, stream: &str) -> Vec<StoredMessage> {
        let (mut found, mut next) = (Vec::new(), 1);
        let mut patience = 10;
        loop {
            let read = self.streams.direct_batch(stream, next, 500, None).await;
            // A busy machine may take its time.
            if patience > 0 && read.as_ref().is_err_and(ApiError::retryable) {
                patience -= 1;
                continue;
            }
            let batch = read.unwrap();
            let Some(last) = batch.messages.last() else {
                return found;
            };
            next = last.sequence + 1;
            found.extend(batch.messages);
        }
    }

    /// The newest dead letter of a reason.
    pub async fn dead_letter(&self, reason: &str) -> Option<StoredMessage> {
        self.streams
            .message("DLQ", At::Last(&format!("dlq.main.{reason}")))
            .await
            .unwrap()
    }

    /// The value of a metric's sample line, 0 where there is none.
    pub fn metric(&self, line: &str) -> f64 {
        let text = String::from_utf8(self.context.metrics.encode().unwrap()).unwrap();
        let (name, labels) = line.split_once('{').unwrap_or((line, ""));
        let wanted: Vec<&str> = labels
            .trim_end_matches('}')
            .split(',')
            .filter(|label| !label.is_empty())
            .collect();
        let sample = text
            .lines()
            .filter(|sample| !sample.starts_with('#'))
            .find(|sample| {
                let rest = sample.strip_prefix(name);
                rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
                    && wanted.iter().all(|label| sample.contains(label))
            });
        sample
            .and_then(|sample| sample.rsplit(' ').next()?.parse().ok())
            .unwrap_or(0.0)
    }
}

/// Starts an ingest and waits until it is ready.
async fn run(pairs: Vec<(String, String)>) -> (String, Context, JoinHandle<Exit>) {
    let environment = Environment::from_pairs(pairs);
    let (common, settings, _) = process::settings(&environment, &SERVICE, Settings::read).unwrap();
    let context = Context::new(&SERVICE, common).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let driven = tokio::spawn(
        context
            .clone()
            .drive(move |context| roomcast_ingest::serve::serve_on(listener, settings, context)),
    );
    let readiness = context.readiness.clone();
    roomcast_harness::eventually("ingest is ready", Duration::from_secs(10), || {
        let report = readiness.report();
        async move { report.ready && report.waiting.is_empty() && report.started }
    })
    .await;
    // Ready before the latches were taken would be too early.
    tokio::time::timeout(Duration::from_secs(10), context.readiness.ready())
        .await
        .unwrap();
    (url, context, driven)
}

/// The settings of an ingest on this server whose files lie in this folder.
pub fn environment(nats: &str, dir: &std::path::Path) -> Vec<(String, String)> {
    let path = |name: &str| dir.join(name).display().to_string();
    let pairs = [
        ("ROOMCAST_NATS_URL", nats.to_owned()),
        ("ROOMCAST_NATS_USER", "ingest".to_owned()),
        ("ROOMCAST_NATS_PASSWORD", PASSWORD.to_owned()),
        ("ROOMCAST_REPLICAS", "1".to_owned()),
        ("ROOMCAST_POLICY_FILE", path("policy.yaml")),
        ("ROOMCAST_JWT_KEYS_FILE", path("keys.json")),
        ("ROOMCAST_JWT_ISSUER", ISSUER.to_owned()),
        ("ROOMCAST_LISTEN", "127.0.0.1:0".to_owned()),
        ("ROOMCAST_ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
    ];
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// An event with an id, in short form.
pub fn event(id: &str) -> Value {
    json!({ "type": "booking:new", "room": "bookings", "audience": "staff", "id": id, "data": { "n": id } })
}

/// The text of a header that counts.
pub fn header<'a>(message: &'a StoredMessage, name: &str) -> Option<&'a str> {
    message.headers.get_last(name).map(|value| value.as_str())
}

/// A UUIDv7 of that age.
pub fn aged_id(secs: u64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    uuid::Builder::from_unix_timestamp_millis((now - secs) * 1000, &[3; 10])
        .into_uuid()
        .to_string()
}
