//! What tests ask of NATS on three nodes: who leads, whether all copies are current, and to lead no longer.

use std::time::{Duration, Instant};

use roomcast_proto::stream::{Sizing, definitions};
use serde_json::Value;

/// Asks and moves, as the administrator of the streams.
#[derive(Debug)]
pub struct Cluster {
    admin: async_nats::Client,
}

/// Pause between two looks: answers come from whoever leads, and choosing a leader takes seconds.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// One answer; a node that just died takes the question with it.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

impl Cluster {
    /// `admin`: see [`crate::stack::Stack::nats_admin`].
    #[must_use]
    pub fn new(admin: async_nats::Client) -> Self {
        Self { admin }
    }

    /// The answer of the JetStream API; `None` when there is none, or an error.
    async fn ask(&self, call: &str) -> Option<Value> {
        let request = self.admin.request(format!("$JS.API.{call}"), "".into());
        let answer = tokio::time::timeout(ANSWER_WITHIN, request).await.ok()?.ok()?;
        let answer: Value = serde_json::from_slice(&answer.payload).ok()?;
        answer.get("error").is_none().then_some(answer)
    }

    /// The node that leads a stream, as its child process is named: `nats-2`.
    ///
    /// # Panics
    /// When none does within 30 s.
    pub async fn leader(&self, stream: &str) -> String {
        let start = Instant::now();
        loop {
            let info = self.ask(&format!("STREAM.INFO.{stream}")).await;
            if let Some(leader) = info.as_ref().and_then(|info| info["cluster"]["leader"].as_str()) {
                return leader.to_owned();
            }
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "nobody leads {stream}: {info:?}"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Makes another node lead a stream; answers whether that happened. Nobody may be fit to take over at this moment.
    pub async fn step_down(&self, stream: &str) -> bool {
        let before = self.leader(stream).await;
        let answer = self.ask(&format!("STREAM.LEADER.STEPDOWN.{stream}")).await;
        answer.is_some_and(|answer| answer["success"] == true) && self.leader(stream).await != before
    }

    /// Why not every stream and bucket has three current copies; `None` when all have.
    pub async fn behind(&self) -> Option<String> {
        for definition in definitions(&Sizing::PRODUCTION) {
            let name = definition.name;
            let Some(info) = self.ask(&format!("STREAM.INFO.{name}")).await else {
                return Some(format!("{name} does not answer"));
            };
            let followers = info["cluster"]["replicas"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let fit = |replica: &Value| replica["current"] == true && replica["offline"] != true;
            if followers.len() != 2 || !followers.iter().all(fit) {
                return Some(format!("{name}: {}", info["cluster"]));
            }
        }
        None
    }

    /// Waits until every stream and bucket has three current copies.
    ///
    /// # Panics
    /// When that takes longer than `within`, with the one that has not.
    pub async fn is_whole(&self, within: Duration) {
        let start = Instant::now();
        while let Some(why) = self.behind().await {
            assert!(
                start.elapsed() < within,
                "after {within:?} not all copies are current: {why}"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
