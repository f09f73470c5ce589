//! The socket side: one gateway in this process, real clients, a real NATS.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests stop at the first surprise, as tests do"
)]

mod abuse;
mod autobahn;
mod away;
mod bounds;
mod cursors;
mod doors;
mod ends;
mod following;
mod gates;
mod hostile;
mod keys;
mod life;
mod limits;
mod memory;
mod own;
mod packed;
mod polls;
mod presence;
mod protobuf;
mod raw;
mod recovery;
mod refresh;
mod routes;
mod slow;
mod streams;
mod throttled;
mod tokens;
mod vanished;
mod vectors;
mod whole;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use roomcast_chassis::config::Environment;
use roomcast_chassis::process::{self, Context, Service};
use roomcast_edge_gateway::serve::start;
use roomcast_edge_gateway::settings::{SERVICE, Settings};
use roomcast_harness::client::Client;
use roomcast_harness::nats::{Nats, PASSWORD};
use roomcast_harness::token::{ISSUER, Signer};
use roomcast_proto::accounts::inbox_prefix;
use roomcast_proto::ids::{Audience, Room, Tenant};
use roomcast_proto::subject;
use serde_json::{Value, json};

static THIS: Service = SERVICE;

const POLICY: &str = "
version: 1
roles:
  user:  { permissions: [notifications.view] }
  staff: { inherits: [user], permissions: [desk.view] }
  admin: { inherits: [staff], permissions: [money.view] }
rooms:
  - { room: bookings, subscribe: desk.view }
  - { room: notifications, subscribe: notifications.view, auto_join: true }
  - { room: money, subscribe: money.view }
  - { room: ticker, subscribe: desk.view, flush_ms: 0 }
  - { room: diary, subscribe: desk.view, history: money.view }
  - { room: floor, subscribe: notifications.view, presence: desk.view }
  - room: desk
    subscribe: desk.view
    redact: [{ unless: money.view, remove: [/amount] }]
commands:
  - { command: desk.ring,  allow: desk.view }
  - { command: money.move, allow: money.view }
";

/// What a gateway needs to start: NATS, keys, a policy.
pub struct Files {
    pub nats: Nats,
    pub signer: Signer,
    policy: String,
    keys: String,
    _folder: tempfile::TempDir,
}

/// Starts NATS and writes the files; `None` without a nats-server.
pub async fn setup() -> Option<Files> {
    process::install_crypto();
    let nats = Nats::start().await?;
    let (signer, folder) = (Signer::new(), tempfile::tempdir().unwrap());
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (policy, keys) = (file("policy.yaml", POLICY), file("keys.json", &signer.jwks()));
    Some(Files {
        nats,
        signer,
        policy,
        keys,
        _folder: folder,
    })
}

impl Files {
    /// The usual settings of a gateway.
    pub fn settings(&self) -> HashMap<&'static str, String> {
        let (url, inbox) = (self.nats.url(), inbox_prefix("gw"));
        let usual = [
            ("ROOMCAST_LISTEN", "127.0.0.1:0"),
            ("ROOMCAST_POLICY_FILE", self.policy.as_str()),
            ("ROOMCAST_JWT_KEYS_FILE", self.keys.as_str()),
            ("ROOMCAST_JWT_ISSUER", ISSUER),
            ("ROOMCAST_ALLOWED_ORIGINS", "https://desk.example"),
            ("ROOMCAST_NATS_URL", url.as_str()),
            ("ROOMCAST_NATS_USER", "gw"),
            ("ROOMCAST_NATS_PASSWORD", PASSWORD),
            ("ROOMCAST_NATS_INBOX", inbox.as_str()),
            ("ROOMCAST_REPLICAS", "1"),
            ("ROOMCAST_DRAIN_SECONDS", "5"),
        ];
        usual.map(|(name, value)| (name, value.to_owned())).into()
    }
}

/// A gateway that runs in this process, with its NATS.
pub struct Gateway {
    pub nats: Nats,
    pub url: String,
    pub address: SocketAddr,
    pub signer: Signer,
    pub context: Context,
    ingest: async_nats::Client,
    _files: tempfile::TempDir,
}

impl Gateway {
    /// Starts both; `None` without a nats-server. `more` are settings beside the usual ones.
    pub async fn start(more: &[(&str, &str)]) -> Option<Self> {
        Box::pin(Self::start_changed(more, |_| {})).await
    }

    /// The same with settings that no variable says.
    pub async fn start_changed(more: &[(&str, &str)], change: impl FnOnce(&mut Settings)) -> Option<Self> {
        let files = setup().await?;
        let usual = files.settings();
        let usual = usual.iter().map(|(name, value)| (*name, value.as_str()));
        let pairs: HashMap<&str, &str> = usual.chain(more.iter().copied()).collect();
        let environment = Environment::from_pairs(pairs);
        let (common, mut settings, _) = process::settings(&environment, &THIS, Settings::read).unwrap();
        change(&mut settings);
        let context = Context::new(&THIS, common).unwrap();
        let address = Box::pin(start(settings, context.clone())).await.unwrap();
        tokio::time::timeout(Duration::from_secs(10), context.readiness.ready())
            .await
            .expect("ready within 10 s");
        let Files {
            nats,
            signer,
            _folder: folder,
            ..
        } = files;
        let ingest = nats.connect("ingest").await;
        let url = format!("http://{address}");
        Some(Self {
            nats,
            url,
            address,
            signer,
            context,
            ingest,
            _files: folder,
        })
    }

    /// Stores an event, as ingest does.
    pub async fn event(&self, room: &str, audience: &str, id: &str, more: Value) {
        let subject = subject::event(
            &Tenant::default(),
            &room_of(room),
            &Audience::parse(audience).unwrap(),
        );
        self.store(subject, room, audience, id, more, Vec::new()).await;
    }

    /// Stores an event of some tenant, for all.
    pub async fn event_of(&self, tenant: &str, room: &str, id: &str) {
        let subject = subject::event(&Tenant::parse(tenant).unwrap(), &room_of(room), &Audience::all());
        self.store(subject, room, "all", id, json!({}), Vec::new()).await;
    }

    /// Stores an event that expires.
    pub async fn expiring_event(&self, room: &str, id: &str, expires_millis: i64) {
        let subject = subject::event(&Tenant::default(), &room_of(room), &Audience::all());
        let header = (subject::header::EXPIRES, expires_millis.to_string());
        self.store(subject, room, "all", id, json!({}), vec![header])
            .await;
    }

    /// Stores a state value, as the aggregator does.
    pub async fn state(&self, room: &str, audience: &str, key: &str, value: Value) {
        stored_state(&self.ingest, (room, audience), key, value).await;
    }

    /// Stores the end of a state value.
    pub async fn withdraw(&self, room: &str, audience: &str, key: &str) {
        let audience_of = Audience::parse(audience).unwrap();
        let subject = subject::state(&Tenant::default(), &room_of(room), &audience_of, key);
        let more = json!({ "delivery": "state", "statekey": key });
        let header = (subject::header::WITHDRAWN, "1".to_owned());
        self.store(
            subject,
            room,
            audience,
            &format!("{key}-withdrawn"),
            more,
            vec![header],
        )
        .await;
    }

    /// Stores an update or a status of a metric under a key.
    pub async fn metric_value(&self, room: &str, audience: &str, key: &str, kind: &str, data: Value) {
        let audience_of = Audience::parse(audience).unwrap();
        let subject = subject::state(&Tenant::default(), &room_of(room), &audience_of, key);
        let more = json!({ "delivery": "state", "statekey": key, "type": kind, "data": data });
        self.store(subject, room, audience, key, more, Vec::new()).await;
    }

    async fn store(
        &self,
        subject: String,
        room: &str,
        audience: &str,
        id: &str,
        more: Value,
        headers: Vec<(&str, String)>,
    ) {
        store(&self.ingest, subject, (room, audience, id), more, headers).await;
    }

    /// A connected client.
    pub async fn client(&self, user: &str, roles: &[&str], rooms: &[&str]) -> (Client, Value) {
        Client::connect(&self.url, &self.signer.token(user, roles), rooms, &HashMap::new())
            .await
            .unwrap()
    }

    /// One metric's value where the labels contain this text.
    pub fn count(&self, name: &str, label: &str) -> f64 {
        let text = String::from_utf8(self.context.metrics.encode().unwrap()).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with(name) && line.contains(label));
        line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok())
            .unwrap_or(0.0)
    }

    /// One metric's value, all labels added up.
    pub fn metric(&self, name: &str) -> f64 {
        let text = String::from_utf8(self.context.metrics.encode().unwrap()).unwrap();
        let of_name = |line: &&str| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']);
        text.lines()
            .filter(of_name)
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }
}

/// Stores an event for all, as ingest does.
pub async fn stored(ingest: &async_nats::Client, room: &str, id: &str, more: Value) {
    let subject = subject::event(&Tenant::default(), &room_of(room), &Audience::all());
    store(ingest, subject, (room, "all", id), more, Vec::new()).await;
}

/// Stores a state value, as the aggregator does.
pub async fn stored_state(
    ingest: &async_nats::Client,
    (room, audience): (&str, &str),
    key: &str,
    value: Value,
) {
    let audience_of = Audience::parse(audience).unwrap();
    let subject = subject::state(&Tenant::default(), &room_of(room), &audience_of, key);
    let mut id = format!("{key}-{value}");
    id.truncate(128);
    let more = json!({ "delivery": "state", "statekey": key, "data": { "value": value } });
    store(ingest, subject, (room, audience, &id), more, Vec::new()).await;
}

async fn store(
    ingest: &async_nats::Client,
    subject: String,
    (room, audience, id): (&str, &str, &str),
    more: Value,
    headers: Vec<(&str, String)>,
) {
    let mut event = json!({
        "specversion": "1.0", "id": id, "source": "/test", "type": "test:made", "time": "2026-01-01T00:00:00Z",
        "room": room, "audience": audience,
    });
    event
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let mut map = async_nats::HeaderMap::new();
    for (name, value) in headers {
        map.insert(name, value.as_str());
    }
    let answer = ingest
        .request_with_headers(subject, map, event.to_string().into())
        .await
        .unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert!(answer["error"].is_null() && answer["seq"].is_u64(), "{answer}");
}

fn room_of(name: &str) -> Room {
    Room::parse(name).unwrap()
}

/// Ids of the events of a room among frames.
pub fn ids(frames: &[Value], room: &str) -> Vec<String> {
    let events = frames.iter().filter(|frame| frame["event"]["room"] == room);
    events
        .map(|frame| frame["event"]["event"]["id"].as_str().unwrap().to_owned())
        .collect()
}

/// Resident memory of this process in KiB.
pub fn resident_kib() -> usize {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
