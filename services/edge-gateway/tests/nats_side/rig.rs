//! The NATS side of a gateway on a real server, without sockets: a shard that writes down what it is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::HeaderMap;
use futures_util::StreamExt;
use roomcast_access::{History, Policy, Principal, Rights, Subscribe};
use roomcast_chassis::config::{Environment, Reader};
use roomcast_chassis::jetstream::JetStream;
use roomcast_chassis::metrics::Metrics;
use roomcast_chassis::nats::{Connector, NatsSettings};
use roomcast_chassis::readiness::Readiness;
use roomcast_chassis::shutdown::Shutdown;
use roomcast_edge_gateway::delivery::{Delivery, Kind};
use roomcast_edge_gateway::hub::{Hub, HubSettings, ToShard};
use roomcast_edge_gateway::nats_side::{self, NatsSideSettings};
use roomcast_edge_gateway::spine_driver::LiveFilter;
use roomcast_harness::nats::{Nats, PASSWORD};
use roomcast_proto::ids::{Audience, Room, Tenant};
use roomcast_proto::subject;

const POLICY: &str = "
version: 1
roles:
  staff: { permissions: [see] }
  admin: { inherits: [staff], permissions: [] }
rooms:
  - { room: a, subscribe: see }
  - { room: b, subscribe: see }
  - { room: c, subscribe: see }
";

/// A hub that follows a server.
pub struct Follower {
    pub hub: Arc<Hub>,
    pub told: Arc<Mutex<Vec<ToShard>>>,
    pub metrics: Metrics,
    readiness: Readiness,
    shutdown: Shutdown,
}

pub fn policy() -> Policy {
    Policy::parse(POLICY, "policy.yaml").unwrap()
}

fn rights(role: &str) -> Rights {
    policy().rights(&Principal {
        tenant: Tenant::default(),
        subject: "u1".into(),
        roles: vec![role.to_owned()],
        claims: serde_json::Map::new(),
        expires_at: i64::MAX,
        issued_at: None,
        token_id: None,
    })
}

pub fn subscribe(role: &str, room: &str) -> Subscribe {
    rights(role).subscribe(&Room::parse(room).unwrap()).unwrap()
}

pub fn history(role: &str, room: &str) -> History {
    rights(role).history(&Room::parse(room).unwrap()).unwrap()
}

impl Follower {
    /// Starts one and waits until it is ready.
    pub async fn start(nats: &Nats, hub_settings: HubSettings, live_filter: Option<LiveFilter>) -> Self {
        let url = nats.url();
        let pairs = [
            ("ROOMCAST_NATS_URL", &*url),
            ("ROOMCAST_NATS_USER", "gw"),
            ("ROOMCAST_NATS_PASSWORD", PASSWORD),
        ];
        let environment = Environment::from_pairs(pairs);
        let settings = NatsSettings::read(&mut Reader::new(&environment), "core.JS.API");
        let (metrics, readiness, shutdown) =
            (Metrics::new("test").unwrap(), Readiness::new(), Shutdown::new());
        let connector =
            Connector::new("test", settings, &metrics, readiness.clone(), shutdown.clone()).unwrap();
        let policy = policy();
        let hub = Hub::new(
            hub_settings,
            Box::new(move |name| policy.audience(name)),
            &metrics,
        )
        .unwrap();
        let told: Arc<Mutex<Vec<ToShard>>> = Arc::default();
        let shard = Arc::clone(&told);
        hub.attach(Box::new(move |message| shard.lock().unwrap().push(message)));
        let side = NatsSideSettings {
            replicas: 1,
            hub: hub_settings,
            live_filter,
        };
        nats_side::start(&hub, &side, &connector, &readiness, &shutdown)
            .await
            .unwrap();
        tokio::time::timeout(Duration::from_secs(20), readiness.ready())
            .await
            .expect("ready within 20 s");
        let follower = Self {
            hub,
            told,
            metrics,
            readiness,
            shutdown,
        };
        follower
            .until("it is open", |follower| follower.hub.accepting().is_ok())
            .await;
        follower
    }

    /// Waits until something is true, at most 30 s.
    pub async fn until(&self, what: &str, is_true: impl Fn(&Self) -> bool) {
        for _ in 0..1_500 {
            if is_true(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!(
            "not within 30 s: {what}; head {:?}; {:?}",
            self.hub.head(),
            self.readiness.report()
        );
    }

    pub async fn reaches(&self, seq: u64, rev: u64) {
        let there = |follower: &Self| {
            let head = follower.hub.head().position;
            head.seq >= seq && head.rev >= rev
        };
        self.until(&format!("seq {seq}, rev {rev}"), there).await;
    }

    fn deliveries(&self) -> Vec<Arc<Delivery>> {
        let told = self.told.lock().unwrap();
        let only = |message: &ToShard| match message {
            ToShard::Deliver(delivery) => Some(Arc::clone(delivery)),
            _ => None,
        };
        told.iter().filter_map(only).collect()
    }

    /// Positions of events handed out live.
    pub fn events(&self) -> Vec<u64> {
        let live = self.deliveries();
        live.iter()
            .filter(|delivery| delivery.kind == Kind::Event)
            .map(|delivery| delivery.position.seq)
            .collect()
    }

    /// Positions of state values handed out live.
    pub fn values(&self) -> Vec<u64> {
        let live = self.deliveries();
        let is_state = |delivery: &&Arc<Delivery>| matches!(delivery.kind, Kind::State { .. });
        live.iter()
            .filter(is_state)
            .map(|delivery| delivery.position.rev)
            .collect()
    }

    pub fn count(&self, line_start: &str) -> f64 {
        let text = String::from_utf8(self.metrics.encode().unwrap()).unwrap();
        let line = text.lines().find(|line| line.starts_with(line_start));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap_or(0.0)
    }

    pub async fn stop(self) {
        self.shutdown.run(Duration::from_secs(5)).await;
    }
}

/// Publishes as ingest does: with ids, again and again until it is acknowledged.
#[derive(Clone)]
pub struct Writer {
    js: JetStream,
}

impl Writer {
    pub async fn connect(nats: &Nats) -> Self {
        let client = Nats::options("ingest")
            .retry_on_initial_connect()
            .connect(nats.url())
            .await
            .unwrap();
        Self {
            js: JetStream::new(client, "$JS.API"),
        }
    }

    async fn put(&self, subject: String, id: String, headers: HeaderMap, body: String) -> u64 {
        loop {
            let mut headers = headers.clone();
            headers.insert("Nats-Msg-Id", id.as_str());
            let stored = self
                .js
                .publish(
                    subject.clone(),
                    headers,
                    body.clone().into(),
                    Duration::from_secs(1),
                )
                .await;
            match stored {
                Ok(ack) => return ack.seq,
                Err(error) if error.retryable() => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("{subject}: {error}"),
            }
        }
    }

    pub async fn event(&self, room: &str, audience: &str, number: usize) -> u64 {
        self.event_with(room, audience, number, HeaderMap::new()).await
    }

    pub async fn event_with(&self, room: &str, audience: &str, number: usize, headers: HeaderMap) -> u64 {
        let body = format!(
            r#"{{"specversion":"1.0","id":"{number}","source":"t","type":"t","data":{{"n":{number}}}}}"#
        );
        self.put(
            subject::event(&Tenant::default(), &name(room), &audience_of(audience)),
            format!("e{number}"),
            headers,
            body,
        )
        .await
    }

    /// Many events, some at a time.
    pub async fn events(&self, rooms: &[&str], numbers: std::ops::Range<usize>) {
        let publish = numbers.map(|number| self.event(rooms[number % rooms.len()], "all", number));
        futures_util::stream::iter(publish)
            .buffer_unordered(128)
            .for_each(|_| std::future::ready(()))
            .await;
    }

    pub async fn value(&self, room: &str, audience: &str, key: &str, number: usize, withdrawn: bool) -> u64 {
        let mut headers = HeaderMap::new();
        if withdrawn {
            headers.insert(subject::header::WITHDRAWN, "1");
        }
        let body = format!(
            r#"{{"specversion":"1.0","id":"s{number}","source":"t","type":"t","statekey":"{key}","data":{number}}}"#
        );
        let subject = subject::state(&Tenant::default(), &name(room), &audience_of(audience), key);
        self.put(subject, format!("s{number}"), headers, body).await
    }

    pub async fn values(&self, room: &str, numbers: std::ops::Range<usize>) {
        let keys: Vec<(usize, String)> = numbers.map(|number| (number, format!("k{number}"))).collect();
        let publish = keys
            .iter()
            .map(|(number, key)| self.value(room, "all", key, *number, false));
        futures_util::stream::iter(publish)
            .buffer_unordered(128)
            .for_each(|_| std::future::ready(()))
            .await;
    }
}

fn name(room: &str) -> Room {
    Room::parse(room).unwrap()
}

fn audience_of(name: &str) -> Audience {
    Audience::parse(name).unwrap()
}
