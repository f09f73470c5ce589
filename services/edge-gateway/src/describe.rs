//! What the public routes do, for the OpenAPI document.
//!
//! Each route is added with its operation in `http.rs`; here stand the operations. Bodies are written by hand there, so
//! their schemas are written by hand here, and the tests of the whole stack compare them with what is answered.

use bytes::Bytes;
use roomcast_chassis::openapi::{Document, Operation};
use roomcast_chassis::routes::{Described, Method, Routes};
use roomcast_proto::limits::{HISTORY_EVENTS_DEFAULT, HISTORY_EVENTS_MAX};
use roomcast_proto::refusal::{Code, problem_schema};
use serde_json::{Value, json};

mod following;
mod own;
mod series;
mod two_way;

pub use following::{poll, refresh, sse, ticket};
pub use own::{activity, presence, publish};
pub use series::{metrics, series};
pub use two_way::{command, devices, feed, marks, preferences, register_device, remove_device};

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
    let about = "Rooms over HTTP and WebSocket. A token goes into `Authorization: Bearer`, never into an address. What is not there and \
                 what is not yours is one answer, `forbidden`. A new connection may be turned away with 429 or 503 \
                 before a request is read.";
    Document::new("Roomcast edge gateway", about, problem_schema())
        .with(routes.descriptions())
        .with(&itself)
        .text()
}

/// The document's own operation.
#[must_use]
pub fn itself() -> Operation {
    let operation = Operation::new("about", "document", "This document.").open();
    page_like(operation).answers(
        200,
        "OpenAPI 3.1.",
        "application/json",
        json!({ "type": "object" }),
    )
}

/// `GET /v1/ws`
#[must_use]
pub fn socket() -> Operation {
    let text = || json!({ "type": "string" });
    let operation = Operation::new("rooms", "connect", "Opens a WebSocket.")
        .about(
            "RFC 6455, version 13. Subprotocols: `roomcast.v1.json` (also when none is asked for) and `roomcast.v1.protobuf`; beside one \
             of them `bearer.<token>` may stand. Without a token in the request, the first message brings it. The messages are in \
             `client.proto`, the close codes in the contract's README.",
        )
        .token_optional()
        .header("Upgrade", "`websocket`", text())
        .header("Connection", "`Upgrade`", text())
        .header("Sec-WebSocket-Version", "`13`", text())
        .header("Sec-WebSocket-Key", "16 random bytes in base64.", text())
        .header("Sec-WebSocket-Protocol", "Subprotocols, separated by commas.", text())
        .answers_nothing(101, "From here on WebSocket.");
    api(operation)
}

/// `GET /v1/rooms/{room}/snapshot`
#[must_use]
pub fn snapshot() -> Operation {
    let limit = |least: u32| bounded(least);
    api(room_path(Operation::new("rooms", "snapshot", "Reads a room's state and its last events, one cut.")))
        .about("For the first paint: subscribe with the cursor afterwards, and nothing is missed or doubled. Without the right to history there are no events.")
        .query("events", "How many events at most.", limit(0))
        .answers(
            200,
            "The cut.",
            "application/json",
            object(&[("room", text()), ("cursor", cursor()), ("state", events()), ("events", events())]),
        )
}

/// `GET /v1/rooms/{room}/events`
#[must_use]
pub fn history() -> Operation {
    let entry = object(&[("cursor", cursor()), ("event", event())]);
    let page = object(&[
        ("events", json!({ "type": "array", "items": entry })),
        (
            "cursor",
            json!({ "type": ["string", "null"], "description": "Give this as `before` for what is older." }),
        ),
        (
            "complete",
            json!({ "type": "boolean", "description": "Whether nothing older is kept." }),
        ),
    ]);
    api(room_path(Operation::new(
        "rooms",
        "history",
        "Reads past events of a room, a page at a time.",
    )))
    .about("Events only, ascending, from the newest backwards.")
    .query("before", "A cursor: only what is older.", text())
    .query("limit", "How many events at most.", bounded(1))
    .answers(200, "A page.", "application/json", page)
}

/// `GET /v1/state`
#[must_use]
pub fn state() -> Operation {
    api(Operation::new(
        "rooms",
        "state",
        "Reads the latest value of every key of a room.",
    ))
    .query_required("room", "The room.", text())
    .query(
        "at",
        "Only metrics: of each the window that contains this instant, as it is known now, where it is kept.",
        json!({ "type": "string", "format": "date-time" }),
    )
    .answers(
        200,
        "The values.",
        "application/json",
        object(&[("room", text()), ("cursor", cursor()), ("state", events())]),
    )
}

/// `GET /page.json`
#[must_use]
pub fn page_config() -> Operation {
    page_like(Operation::new("page", "pageConfig", "What the page is told.").open())
        .answers(
            200,
            "As the operator wrote it.",
            "application/json",
            json!({ "type": "object" }),
        )
        .refuses([Code::NotFound.listed()])
}

/// `GET /`
#[must_use]
pub fn page() -> Operation {
    page_like(Operation::new("page", "page", "The page.").open())
        .about("Its other files are at the addresses that it names.")
        .header("If-None-Match", "The `ETag` of what is there already.", text())
        .answers(200, "The page.", "text/html", text())
        .answers_nothing(304, "It is what is there already.")
}

/// What every route of the API may refuse.
fn api(operation: Operation) -> Operation {
    let refusals = [
        Code::BadRequest,
        Code::Unauthenticated,
        Code::Expired,
        Code::Forbidden,
        Code::BadOrigin,
        Code::HeadersTooLarge,
        Code::Rate,
        Code::Limit,
        Code::Unavailable,
    ];
    operation.refuses(refusals.map(Code::listed))
}

/// What is refused of a body.
const BODY: [Code; 6] = [
    Code::BadJson,
    Code::BadEncoding,
    Code::TooDeep,
    Code::TooLarge,
    Code::UnsupportedType,
    Code::RequestTimeout,
];

/// What may be refused where no token is asked for.
fn page_like(operation: Operation) -> Operation {
    operation.refuses([Code::BadRequest, Code::HeadersTooLarge].map(Code::listed))
}

fn room_path(operation: Operation) -> Operation {
    operation.path("room", "The room.", text())
}

fn bounded(least: u32) -> Value {
    json!({ "type": "integer", "minimum": least, "maximum": HISTORY_EVENTS_MAX, "default": HISTORY_EVENTS_DEFAULT })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn cursor() -> Value {
    json!({ "type": "string", "description": "Opaque; valid at any gateway." })
}

fn event() -> Value {
    json!({
        "type": "object",
        "description": "A CloudEvent 1.0 with room and audience.",
        "required": ["specversion", "id", "source", "type", "room", "audience"],
        "properties": { "specversion": { "const": "1.0" }, "id": text(), "source": text(), "type": text() },
    })
}

fn events() -> Value {
    json!({ "type": "array", "items": event() })
}

fn object(properties: &[(&str, Value)]) -> Value {
    let names: Vec<&str> = properties.iter().map(|(name, _)| *name).collect();
    let properties: serde_json::Map<String, Value> = properties
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    json!({ "type": "object", "required": names, "properties": properties })
}
