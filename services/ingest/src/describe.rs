//! What the public routes do, and what an event is, for the OpenAPI documents.

use bytes::Bytes;
use roomcast_chassis::openapi::{Document, Operation};
use roomcast_chassis::routes::{Described, Method, Routes};
use roomcast_proto::refusal::{Code, problem_schema};
use serde_json::{Value, json};

use crate::answer;

/// Where the document is.
pub const PATH: &str = "/openapi.json";

/// The document of all routes, itself included.
#[must_use]
pub fn document<S: Clone + Send + Sync + 'static>(routes: &Routes<S>) -> Bytes {
    let itself = [Described {
        path: PATH,
        method: Method::Get,
        operation: itself(),
    }];
    let about = "Takes events. A token goes into `Authorization: Bearer`, never into an address. A connection over the limit is answered \
                 503 without a body before a request is read.";
    Document::new("Roomcast ingest", about, problem_schema())
        .with(routes.descriptions())
        .with(&itself)
        .text()
}

/// The document's own operation.
#[must_use]
pub fn itself() -> Operation {
    Operation::new("about", "document", "This document.")
        .open()
        .answers(
            200,
            "OpenAPI 3.1.",
            "application/json",
            json!({ "type": "object" }),
        )
}

/// What an event over HTTP may be refused with.
const REFUSALS: [Code; 26] = [
    Code::BadJson,
    Code::BadEncoding,
    Code::BadEvent,
    Code::BadRoom,
    Code::BadTime,
    Code::TooDeep,
    Code::TooLarge,
    Code::BadRequest,
    Code::UnsupportedType,
    Code::Unauthenticated,
    Code::Expired,
    Code::Forbidden,
    Code::UnknownRoom,
    Code::UnknownAudience,
    Code::Schema,
    Code::Late,
    Code::EventExpired,
    Code::TooManyKeys,
    Code::Conflict,
    Code::Rate,
    Code::Quota,
    Code::Unavailable,
    Code::Unknown,
    Code::RequestTimeout,
    Code::BadOrigin,
    Code::Internal,
];

/// `POST /v1/events`
#[must_use]
pub fn publish() -> Operation {
    let batch = || json!({ "type": "array", "items": event_schema(), "maxItems": 1_000 });
    Operation::new("events", "publish", "Publishes events.")
        .about(
            "One event, a batch, or lines without end, by `Content-Type`; any other type with `ce-…` headers is binary mode, the body \
             the event's data. `Content-Encoding: gzip` may pack them. Answered only when stored. Send again with the same ids when no \
             answer came: each is stored once.",
        )
        .header("Roomcast-Backfill", "`1`: ids may be older than the de-duplication window.", json!({ "const": "1" }))
        .takes("application/json", json!({ "anyOf": [event_schema(), batch()] }))
        .takes("application/cloudevents+json", event_schema())
        .takes("application/cloudevents-batch+json", batch())
        .takes("application/x-ndjson", json!({ "type": "string", "description": "One event a line." }))
        .answers(200, "What became of each event, in their order.", "application/json", answer::whole_shape())
        .answers(
            200,
            "What became of each event, in their order.",
            "application/x-ndjson",
            answer::line_shape(),
        )
        .refuses(REFUSALS.map(Code::listed))
}

/// What may be answered to a question for statistics, and is no answer.
const STATISTICS_REFUSALS: [Code; 9] = [
    Code::BadRequest,
    Code::Unauthenticated,
    Code::Expired,
    Code::Forbidden,
    Code::BadOrigin,
    Code::Rate,
    Code::Quota,
    Code::Unavailable,
    Code::Internal,
];

/// `POST /v1/triggers`
#[must_use]
pub fn trigger() -> Operation {
    Operation::new("events", "trigger", "Publishes one event to a room, a role, users, or several of them.")
        .about(
            "One call says what happened and whom it concerns: `room` (everybody in it, or those of `role`), `role` alone (in the room that the \
             policy names for that), `users` (their personal rooms). All of it is taken, or none; who is reached twice has two events, \
             `<id>` in the room and `<id>/<user>` in the personal one. Send it again with the same `id` when no answer came.",
        )
        .header("Roomcast-Backfill", "`1`: the id may be older than the de-duplication window.", json!({ "const": "1" }))
        .takes("application/json", trigger_schema())
        .answers(200, "It was taken; `cursor` is that of the room's event.", "application/json", answer::receipt_shape())
        .refuses(REFUSALS.map(Code::listed))
}

/// `GET /v1/triggers`
#[must_use]
pub fn statistics() -> Operation {
    let count = || json!({ "type": "integer", "minimum": 0 });
    let room = json!({
        "type": "object", "required": ["connections", "users"], "additionalProperties": false,
        "properties": { "connections": count(), "users": count() },
    });
    let shape = json!({
        "type": "object", "required": ["gateways", "connections", "users", "rooms", "complete"], "additionalProperties": false,
        "properties": {
            "gateways": { "type": "integer", "minimum": 1, "description": "Gateways that have answered in time." },
            "connections": { "type": "integer", "minimum": 0, "description": "Connections; with `room`, those that have it open." },
            "users": { "type": "object", "additionalProperties": count(), "description": "Each user's connections, by the token's subject." },
            "rooms": { "type": "object", "additionalProperties": room, "description": "Rooms that somebody has open. A user at two gateways counts at each." },
            "complete": { "type": "boolean", "description": "Whether all users and rooms are named." },
        },
    });
    Operation::new("events", "statistics", "Says who is connected: for the backend that sends triggers.")
        .about(
            "All gateways are asked, and those that answer within half a second are added up. For a token whose role has the permission \
             `statistics.read`.",
        )
        .query("room", "Only those who have this room open.", json!({ "type": "string" }))
        .answers(200, "As it is at the moment.", "application/json", shape)
        .refuses(STATISTICS_REFUSALS.map(Code::listed))
}

/// JSON Schema of a trigger: an event whose destination is said in other words.
fn trigger_schema() -> Value {
    let mut schema = event_schema();
    schema["description"] = json!("An event, and whom it concerns.");
    let Some(properties) = schema["properties"].as_object_mut() else {
        return schema;
    };
    properties.remove("audience");
    properties.insert("role".to_owned(), json!({ "type": "string", "description": "A role of the policy: who of the room's members gets it." }));
    let users = json!({
        "type": "array", "items": { "type": "string", "minLength": 1, "maxLength": 1024 }, "minItems": 1, "maxItems": 1_000,
        "description": "Subjects; one copy each in their personal rooms.",
    });
    properties.insert("users".to_owned(), users);
    schema["anyOf"] = json!([{ "required": ["room"] }, { "required": ["role"] }, { "required": ["users"] }]);
    schema
}

/// The preflight of `POST /v1/triggers`.
#[must_use]
pub fn trigger_preflight() -> Operation {
    Operation::new(
        "events",
        "triggerPreflight",
        "Tells a browser whether a page may send a trigger.",
    )
    .open()
    .answers_nothing(204, "It may.")
    .refuses([Code::BadOrigin.listed()])
}

/// The preflight of `POST /v1/events`.
#[must_use]
pub fn preflight() -> Operation {
    Operation::new(
        "events",
        "preflight",
        "Tells a browser whether a page may publish.",
    )
    .open()
    .answers_nothing(204, "It may.")
    .refuses([Code::BadOrigin.listed()])
}

/// JSON Schema of an event as it is sent, structured or short.
#[must_use]
pub fn event_schema() -> Value {
    let text = |words: &str| json!({ "type": "string", "description": words });
    json!({
        "type": "object",
        "description": "A CloudEvent 1.0 with a room, an audience and data. What may be left out is filled in.",
        "required": ["type"],
        "properties": {
            "specversion": { "const": "1.0" },
            "id": { "type": "string", "minLength": 1, "maxLength": 256, "description": "With `source` it names the event for ever." },
            "source": text("Where it comes from; `roomcast://<tenant>/<publisher>` when left out."),
            "type": { "type": "string", "minLength": 1, "maxLength": 1024 },
            "subject": text("What it is about."),
            "time": { "type": "string", "format": "date-time" },
            "datacontenttype": text("The media type of the data; `application/json` when left out."),
            "data": { "description": "Passed through byte for byte." },
            "data_base64": { "type": "string", "contentEncoding": "base64" },
            "room": { "type": "string", "maxLength": 200, "description": "Where it goes: 1 to 8 tokens joined by dots." },
            "audience": text("A role of the policy, or `all`: who of the room's members gets it."),
            "priority": { "enum": ["critical", "high", "medium", "low"] },
            "delivery": { "enum": ["event", "state", "ephemeral"] },
            "statekey": text("Required for `state`."),
            "withdrawn": { "type": "boolean", "description": "On a state event without data: the key is gone." },
            "expirytime": { "type": "string", "format": "date-time" },
            "users": text("Instead of `room`: subjects, comma-separated, percent-encoded; one copy each in the personal rooms."),
        },
        "additionalProperties": { "type": ["string", "number", "boolean"] },
    })
}
