//! What operators may ask of ingest, and to say something to everybody.

pub mod letters;
pub mod rights;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use roomcast_admin::extract::{Query, RawJson};
use roomcast_admin::instance::{Instance, Running};
use roomcast_admin::problem::guarded;
use roomcast_admin::{Caller, Note, Operation, Problem, Routes};
use roomcast_proto::ids::Tenant;
use roomcast_proto::refusal::Code;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::accept::Sender;
use crate::answer::{self, Answer};
use crate::describe;
use crate::intake::{self, Intake, Shape};
use crate::metrics::{Door, Totals};
use crate::now_micros;

/// The path of a broadcast, also the origin of its dead letter.
const BROADCAST: &str = "/admin/v1/broadcast";

/// What the routes answer from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AdminDesk {
    /// Where broadcasts go.
    pub intake: Intake,
    /// The process.
    pub running: Running,
}

/// Ingest in figures.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Statistics {
    #[serde(flatten)]
    instance: Instance,
    /// Whether NATS is connected.
    connected: bool,
    /// Requests being worked on.
    in_flight: u64,
    /// Counted since the start.
    totals: Totals,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whose {
    tenant: Option<String>,
}

/// The routes under `/admin/v1`.
#[must_use]
pub fn routes(desk: AdminDesk) -> Routes {
    described().with_state(Arc::new(desk))
}

fn described() -> Routes<Arc<AdminDesk>> {
    let statistics = guarded(Operation::new("ingest", "getStatistics", "Ingest in figures."))
        .answers_json::<Statistics>(200, "As they are at the moment.");
    let broadcast = guarded(Operation::new("ingest", "broadcast", "Publishes one event in the administrator's name."))
        .about(
            "The way of every event, with `admin/<subject>` as publisher: any type, to any room of the policy with any audience, or to \
             `users`. Send the same `id` again when no answer came. What is refused is kept as a dead letter.",
        )
        .query("tenant", "Whose event it is; `main` when left out.", json!({ "type": "string" }))
        .takes("application/json", describe::event_schema())
        .answers(200, "It was taken.", "application/json", answer::receipt_shape())
        .refuses(
            [
                Code::BadJson,
                Code::BadEncoding,
                Code::BadEvent,
                Code::BadRoom,
                Code::BadTime,
                Code::TooDeep,
                Code::TooLarge,
                Code::UnsupportedType,
                Code::UnknownRoom,
                Code::UnknownAudience,
                Code::Schema,
                Code::Late,
                Code::EventExpired,
                Code::TooManyKeys,
                Code::Conflict,
                Code::Unavailable,
                Code::Unknown,
                Code::Internal,
            ]
            .map(Code::listed),
        );
    Routes::new()
        .get("/admin/v1/statistics", statistics, show)
        .post(BROADCAST, broadcast, publish)
}

async fn show(State(desk): State<Arc<AdminDesk>>) -> Json<Statistics> {
    let intake = &desk.intake;
    Json(Statistics {
        instance: desk.running.now(),
        connected: intake.nats.borrow().connected,
        in_flight: u64::try_from(intake.metrics.in_flight.get()).unwrap_or(0),
        totals: intake.metrics.totals(),
    })
}

async fn publish(
    State(desk): State<Arc<AdminDesk>>,
    Extension(caller): Extension<Caller>,
    Query(whose): Query<Whose>,
    RawJson(body): RawJson,
) -> Result<Response, Problem> {
    let tenant = whose.tenant.as_deref().map(Tenant::parse).transpose();
    let tenant = tenant
        .map_err(|_| Problem::new(Code::BadRequest, "tenant is no tenant's name"))?
        .unwrap_or_default();
    let intake = &desk.intake;
    intake.metrics.request(Door::Admin);
    let full = |full| Problem(intake.full(Door::Admin, full));
    let mut place = intake.capacity.enter().map_err(full)?;
    place.cover(body.len()).map_err(full)?;
    let sender = Sender::administrator(&tenant, &caller.subject);
    let request = intake::Request {
        door: Door::Admin,
        sender: &sender,
        room: None,
        audience: None,
        backfill: false,
        origin: BROADCAST,
        shape: Shape::One,
        body,
        original: None,
    };
    let answer = intake.take(request, now_micros()).await;
    drop(place);
    let mut response = match answer.body() {
        Ok(body) => ([(CONTENT_TYPE, "application/json")], Bytes::from(body)).into_response(),
        Err(refusal) => Problem(refusal.clone()).into_response(),
    };
    if let Answer::One(Ok(receipt)) = &answer {
        let note =
            json!({ "tenant": tenant.as_str(), "id": receipt.id, "outcome": receipt.outcome.as_str() });
        response.extensions_mut().insert(Note(note));
    }
    Ok(response)
}
