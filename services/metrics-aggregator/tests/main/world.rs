//! A real nats-server, aggregators that can be killed, events whose sums are known.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use roomcast_chassis::config::Environment;
use roomcast_chassis::jetstream::{JetStream, LastMessages};
use roomcast_chassis::process::{Context, install_crypto, settings};
use roomcast_chassis::shutdown::Shutdown;
use roomcast_harness::nats::{Nats, PASSWORD};
use roomcast_metrics_aggregator::{SERVICE, Settings, serve};
use roomcast_proto::accounts::inbox_prefix;
use roomcast_proto::event::rfc3339;
use roomcast_proto::ids::{Audience, Room, Tenant};
use roomcast_proto::subject::{self, header, stream};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// An aggregator as a process of its own would be: a runtime that can be dropped at any moment.
pub struct Aggregator {
    runtime: Option<Runtime>,
    pub context: Context,
    /// Its definitions.
    file: PathBuf,
    ended: std::sync::mpsc::Receiver<u8>,
}

pub struct World {
    pub nats: Nats,
    folder: tempfile::TempDir,
    pub jetstream: JetStream,
    pub tenant: Tenant,
    pub room: Room,
}

pub const METRICS: &str = r#"version: 1
timezone: Europe/Istanbul
metrics:
  - { name: revenue, from: { room: bookings, type: done }, value: sum(data.amount), window: { total: true }, publish: { room: board, audience: admin, at_most_every: 50ms } }
  - { name: by_kind, from: { room: bookings, type: done }, value: sum(data.amount), group_by: [data.kind], window: { tumbling: day }, compare: previous, publish: { room: board, audience: staff, at_most_every: 50ms } }
  - { name: customers, from: { room: bookings, type: new }, value: distinct(data.customer), window: { sliding: 24h, step: 1m }, compare: previous, publish: { room: board, audience: staff, at_most_every: 50ms } }
  - { name: count, from: { room: bookings, type: new }, value: count(), window: { total: true } }
  - { name: done, from: { room: bookings, type: done }, value: count(), window: { total: true } }
  - { name: conversion, ratio: { of: done, to: count }, publish: { room: board, audience: staff, at_most_every: 50ms } }
"#;

impl World {
    pub async fn new(nats: Nats) -> Self {
        install_crypto();
        let admin = nats.connect("admin").await;
        Self {
            nats,
            folder: tempfile::tempdir().unwrap(),
            jetstream: JetStream::new(admin, "$JS.API"),
            tenant: Tenant::default(),
            room: Room::parse("board").unwrap(),
        }
    }

    /// A file of its own for each start: nobody reads one while it is written.
    fn metrics_file(&self, text: &str) -> PathBuf {
        let path = self.folder.path().join(format!("{}.yaml", uuid::Uuid::new_v4()));
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts an aggregator. Two of one name both believe that all leases are theirs.
    pub fn start(&self, instance: &str, metrics: &str) -> Aggregator {
        let path = self.metrics_file(metrics);
        let file = path.display().to_string();
        let url = self.nats.url();
        let inbox = inbox_prefix("agg");
        let environment = Environment::from_pairs([
            ("ROOMCAST_NATS_URL", url.as_str()),
            ("ROOMCAST_NATS_USER", "agg"),
            ("ROOMCAST_NATS_PASSWORD", PASSWORD),
            ("ROOMCAST_NATS_INBOX", inbox.as_str()),
            ("ROOMCAST_REPLICAS", "1"),
            ("ROOMCAST_ADMIN_LISTEN", "127.0.0.1:0"),
            ("ROOMCAST_METRICS_FILE", file.as_str()),
            ("ROOMCAST_INSTANCE", instance),
            ("ROOMCAST_DRAIN_SECONDS", "5"),
        ]);
        let (common, own, _) = settings(&environment, &SERVICE, Settings::read).unwrap();
        let context = Context::new(&SERVICE, common).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (tell, ended) = std::sync::mpsc::channel();
        let running = context.clone();
        runtime.spawn(async move {
            let exit = running.drive(|context| serve(own, context)).await;
            let _ = tell.send(exit as u8);
        });
        Aggregator {
            runtime: Some(runtime),
            context,
            file: path,
            ended,
        }
    }

    /// Stores an event as ingest would. `micros`: its time.
    pub async fn event(&self, id: u64, kind: &str, data: &Value, micros: i64) {
        let room = Room::parse("bookings").unwrap();
        let body = json!({
            "specversion": "1.0", "id": format!("e{id}"), "source": "test", "type": kind, "time": rfc3339(micros),
            "room": "bookings", "audience": "staff", "priority": "medium", "data": data,
        });
        let subject = subject::event(&self.tenant, &room, &Audience::parse("staff").unwrap());
        let mut headers = HeaderMap::new();
        headers.insert(header::MSG_ID, format!("e{id}").as_str());
        for _ in 0..50 {
            let payload = body.to_string().into();
            match self
                .jetstream
                .publish(subject.as_str(), headers.clone(), payload, Duration::from_secs(1))
                .await
            {
                Ok(_) => return,
                Err(error) => {
                    assert!(error.retryable(), "{error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        panic!("event {id} was not stored");
    }

    /// Deletes the stream of events and makes it anew with the same configuration.
    pub async fn renew_events(&self) {
        let info = self.jetstream.stream_info(stream::EVENTS).await.unwrap().unwrap();
        let subject = format!("$JS.API.STREAM.DELETE.{}", stream::EVENTS);
        let answer = self
            .jetstream
            .client()
            .request(subject, String::new().into())
            .await
            .unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(answer["success"], true, "{answer}");
        self.jetstream.create_stream(&info.config).await.unwrap();
    }

    /// Every value in the room: key → (data, or null where it is withdrawn).
    pub async fn values(&self) -> BTreeMap<String, Value> {
        let filter = subject::room_state_filter(&self.tenant, &self.room);
        let answer = self.jetstream.multi_last(stream::STATE, &[&filter], None).await;
        let Ok(LastMessages::Messages { messages, .. }) = answer else {
            return BTreeMap::new();
        };
        let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        messages
            .iter()
            .map(|message| {
                let event = read(&message.payload);
                assert_eq!(event["delivery"], "state");
                let key = event["statekey"].as_str().unwrap().to_owned();
                assert_eq!(
                    read(message.headers.get_last(header::KEY).unwrap().as_str().as_bytes()),
                    event["statekey"]
                );
                (key, event["data"].clone())
            })
            .collect()
    }

    /// Waits until the values are as they must be; says what they are when they are not.
    pub async fn eventually(
        &self,
        what: &str,
        holds: impl Fn(&BTreeMap<String, Value>) -> bool,
    ) -> BTreeMap<String, Value> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let values = self.values().await;
            if holds(&values) {
                return values;
            }
            assert!(Instant::now() < until, "{what}: {values:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Aggregator {
    /// Puts other definitions into its file, in one step.
    pub fn redefine(&self, text: &str) {
        let beside = self.file.with_extension("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, &self.file).unwrap();
    }

    /// Takes its file away.
    pub fn undefine(&self) {
        std::fs::remove_file(&self.file).unwrap();
    }

    /// As kill -9: nothing is flushed, nothing is said, the connection just ends.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// As SIGTERM; answers the exit code.
    pub fn stop(&mut self) -> u8 {
        self.shutdown().request();
        let exit = self.ended.recv_timeout(Duration::from_secs(10)).unwrap();
        self.kill();
        exit
    }

    fn shutdown(&self) -> &Shutdown {
        &self.context.shutdown
    }

    pub async fn ready(&self) {
        let ready = tokio::time::timeout(Duration::from_secs(20), self.context.readiness.ready()).await;
        assert!(ready.is_ok(), "{:?}", self.context.readiness.report());
    }

    /// One of the aggregator's own counters.
    pub fn counter(&self, name: &str) -> u64 {
        let text = self.metrics();
        let lines = text
            .lines()
            .filter(|line| line.starts_with(name) && !line.starts_with('#'));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// All that it counts.
    pub fn metrics(&self) -> String {
        String::from_utf8(self.context.metrics.encode().unwrap()).unwrap()
    }

    /// The exit code of one that ends by itself.
    pub fn exit(&self) -> u8 {
        self.ended.recv_timeout(Duration::from_secs(10)).unwrap()
    }
}

impl Drop for Aggregator {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn now() -> i64 {
    roomcast_metrics_aggregator::publish::now_micros()
}
