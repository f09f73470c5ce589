//! What operators may ask of a gateway and do to it, on the admin port.
//!
//! Sockets belong to shards, so shards are asked and answer in their own turn, one question at a time for the whole
//! gateway: looking must not cost those who are looked at more than a look. Whatever does not come in time is refused.

mod connections;
mod explain;
mod rooms;
mod statistics;
mod trial;

use std::sync::Arc;
use std::time::Duration;

use roomcast_admin::instance::Running;
use roomcast_admin::{Problem, Routes};
use roomcast_proto::refusal::{Code, Refusal};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};

use crate::gate::Gate;
use crate::hub::Hub;
use crate::metrics::GatewayMetrics;
use crate::shard::Handle;

/// Time for all shards to answer, waiting for one's turn included.
const WITHIN: Duration = Duration::from_secs(2);
/// Entries of a page unless asked for otherwise, and at most.
const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 500;

/// What the routes answer from. Cheap to clone.
#[derive(Clone)]
pub struct AdminDesk {
    /// Who owns the sockets.
    pub shards: Arc<[Handle]>,
    /// Rooms, memory, the way from NATS.
    pub hub: Arc<Hub>,
    /// The policy in force.
    pub gate: Arc<Gate>,
    /// What was counted.
    pub metrics: GatewayMetrics,
    /// The process.
    pub running: Running,
    turn: Arc<Semaphore>,
}

impl AdminDesk {
    /// A desk of a gateway that starts now.
    #[must_use]
    pub fn new(
        shards: &[Handle],
        hub: Arc<Hub>,
        gate: Arc<Gate>,
        metrics: GatewayMetrics,
        running: Running,
    ) -> Self {
        Self {
            shards: shards.into(),
            hub,
            gate,
            metrics,
            running,
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// Asks every shard and waits for all answers, in the order of the shards.
    async fn ask<T>(&self, question: impl Fn(&Handle) -> oneshot::Receiver<T>) -> Result<Vec<T>, Problem> {
        let asked = async {
            let _turn = self.turn.acquire().await.ok()?;
            let answers: Vec<_> = self.shards.iter().map(question).collect();
            futures_util::future::try_join_all(answers).await.ok()
        };
        match tokio::time::timeout(WITHIN, asked).await {
            Ok(Some(answers)) => Ok(answers),
            Ok(None) | Err(_) => Err(Problem(
                Refusal::new(Code::Unavailable, "the gateway's threads did not answer in time")
                    .retry_after_ms(1_000),
            )),
        }
    }
}

/// The routes under `/admin/v1`.
#[must_use]
pub fn routes(desk: AdminDesk) -> Routes {
    described().with_state(desk)
}

fn described() -> Routes<AdminDesk> {
    statistics::routes()
        .merge(connections::routes())
        .merge(rooms::routes())
        .merge(explain::routes())
        .merge(trial::routes())
}

/// How many entries a page has.
fn page_size(asked: Option<usize>) -> Result<usize, Problem> {
    match asked.unwrap_or(PAGE_DEFAULT) {
        size @ 1..=PAGE_MAX => Ok(size),
        _ => Err(bad(format!("limit is a number from 1 to {PAGE_MAX}"))),
    }
}

/// The schema of `limit`.
fn page_schema() -> Value {
    json!({ "type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT })
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(Code::BadRequest, detail)
}

fn nothing(detail: &str) -> Problem {
    Problem::new(Code::NotFound, detail)
}
