//! `GET /v1/triggers`: who is connected, for the backend that sends triggers. All gateways are asked, and what they say is added up.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use axum::extract::Query;
use bytes::Bytes;
use futures_util::StreamExt;
use http::Uri;
use roomcast_proto::ids::{Room, Tenant, new_event_id};
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::statistics::{Present, Question};
use roomcast_proto::subject::{STATISTICS, statistics_answer};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::error::unavailable;

/// What the role of who asks must have.
pub const PERMISSION: &str = "statistics.read";
/// How long gateways have to answer: how many there are, nobody knows.
const WITHIN: Duration = Duration::from_millis(500);
/// Questions under way at a time.
const AT_ONCE: usize = 4;

/// What is answered.
#[derive(Debug, Serialize)]
pub struct Statistics {
    /// Gateways that have answered.
    gateways: u64,
    #[serde(flatten)]
    present: Present,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    room: Option<Room>,
}

/// Asks gateways. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Desk {
    client: Client,
    turns: Arc<Semaphore>,
}

impl Desk {
    /// Makes it.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Who of a tenant is connected, in JSON; `?room=` asks for one room.
    ///
    /// # Errors
    /// `bad_request`; `unavailable`: too many ask, or no gateway answers.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ask(&self, tenant: &Tenant, uri: &Uri) -> Result<Bytes, Refusal> {
        let Ok(Query(Asked { room })) = Query::try_from_uri(uri) else {
            return Err(Refusal::new(
                Code::BadRequest,
                "expected nothing, or ?room=<room>",
            ));
        };
        let turn = self.turns.try_acquire();
        let _turn = turn.map_err(|_| unavailable("as many as may be ask for statistics"))?;
        let question = Question {
            id: new_event_id(),
            tenant: tenant.clone(),
            room,
        };
        let answers = self.client.subscribe(statistics_answer(&question.id)).await;
        let away = || unavailable("NATS cannot be reached");
        let mut answers = answers.map_err(|_| away())?;
        let asked = self.client.publish(
            STATISTICS,
            serde_json::to_vec(&question).unwrap_or_default().into(),
        );
        asked.await.map_err(|_| away())?;
        let mut all = Statistics {
            gateways: 0,
            present: Present {
                complete: true,
                ..Present::default()
            },
        };
        let until = tokio::time::Instant::now() + WITHIN;
        while let Ok(Some(answer)) = tokio::time::timeout_at(until, answers.next()).await {
            if let Ok(present) = serde_json::from_slice(&answer.payload) {
                all.gateways += 1;
                all.present.add(present);
            }
        }
        match all.gateways {
            0 => Err(unavailable("no gateway answers")),
            _ => Ok(serde_json::to_vec(&all).unwrap_or_default().into()),
        }
    }
}
