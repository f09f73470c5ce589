//! What follows rooms with one cursor for all of them: server-sent events and polls.

use std::time::Duration;

use roomcast_chassis::openapi::Operation;
use roomcast_proto::limits::POLL_WAIT_MAX;
use roomcast_proto::refusal::Code;
use serde_json::{Value, json};

use super::{BODY, api, cursor, object, text};

/// `GET /v1/sse`
#[must_use]
pub fn sse() -> Operation {
    let operation = Operation::new("rooms", "stream", "Follows rooms as server-sent events.")
        .about(
            "Each event's `data` is one frame, as on a WebSocket in JSON, the first is `connected`. `id` is a cursor for all rooms: \
             everything up to here was said in each of them. A comment comes every 15 s where nothing else is set. The stream ends with `disconnect`.",
        )
        .header(
            "Last-Event-ID",
            "The last `id`; counts before `cursor`.",
            cursor(),
        )
        .answers(
            200,
            "The stream; it has no end of its own.",
            "text/event-stream",
            text(),
        );
    let operation = operation.token_optional().query(
        "ticket",
        "Instead of a token, where no header can be set; see `POST /v1/tickets`.",
        text(),
    );
    following(operation).refuses([Code::Unknown, Code::Internal].map(Code::listed))
}

/// `POST /v1/tickets`
#[must_use]
pub fn ticket() -> Operation {
    let body = json!({
        "type": "object",
        "required": ["rooms"],
        "properties": { "rooms": { "type": "array", "items": text(), "description": "The rooms that it opens, beside those that the policy joins." } },
        "additionalProperties": false,
    });
    let refusals = [Code::Conflict, Code::Unknown, Code::Internal];
    let seconds = json!({ "type": "integer" });
    api(Operation::new("rooms", "ticket", "Gives a ticket that opens one stream."))
        .about("For `EventSource`, which cannot set a header. It is good once, at any gateway, for pages of the origin that asked.")
        .takes("application/json", body)
        .answers(
            200,
            "The ticket.",
            "application/json",
            object(&[("ticket", text()), ("goodForSeconds", seconds)]),
        )
        .refuses(BODY.into_iter().chain(refusals).map(Code::listed))
}

/// `POST /v1/refresh`
#[must_use]
pub fn refresh() -> Operation {
    let body = json!({
        "type": "object",
        "required": ["connection"],
        "properties": { "connection": { "type": "string", "description": "What `connected` called it." } },
        "additionalProperties": false,
    });
    let instant = json!({ "type": "string", "format": "date-time" });
    let roles = json!({ "type": "array", "items": text() });
    api(Operation::new("rooms", "refresh", "Goes on with a stream under a newer token."))
        .about(
            "The token of this request takes the place of the one that the stream was opened with, of the same user. It may open rooms \
             and close rooms. Any gateway takes it. A stream that is nowhere, or not the user's, is `forbidden`: it ends with its token, and \
             its cursor brings it back.",
        )
        .takes("application/json", body)
        .answers(
            200,
            "It goes on.",
            "application/json",
            object(&[("expiresAt", instant), ("roles", roles)]),
        )
        .refuses(BODY.into_iter().chain([Code::Internal]).map(Code::listed))
}

/// `GET /v1/poll`; `most`: how long it is held at the longest.
#[must_use]
pub fn poll(most: Duration) -> Operation {
    let whole = object(&[
        ("rooms", list("How each room begins.")),
        (
            "frames",
            list(
                "`event`, `status`, `counters`, `preferences`, `presence`, `disconnect`: frames of the WebSocket.",
            ),
        ),
        (
            "cursor",
            json!({ "type": ["string", "null"], "description": "For all rooms; null while rooms from different places are on their way to one." }),
        ),
        (
            "more",
            json!({ "type": "boolean", "description": "Ask again at once." }),
        ),
    ]);
    let wait = json!({ "type": "integer", "minimum": 0, "maximum": most.max(POLL_WAIT_MAX).as_secs(), "default": most.as_secs() });
    let operation = Operation::new("rooms", "poll", "Asks what is new in rooms.")
        .about("Answered as soon as there is something new, after `wait` seconds in any case.")
        .query("wait", "Seconds; 0 is answered at once.", wait)
        .header("If-None-Match", "The `ETag` of the answer before.", text())
        .header(
            "Last-Event-ID",
            "As for a stream; counts before `cursor`.",
            cursor(),
        )
        .answers(200, "What is new.", "application/json", whole)
        .answers_nothing(304, "Nothing is new.");
    following(operation)
}

fn following(operation: Operation) -> Operation {
    let several = || json!({ "type": "array", "items": text() });
    api(operation)
        .query(
            "room",
            "Rooms to follow, beside those that the policy joins.",
            several(),
        )
        .query(
            "cursor",
            "One for all rooms, or as many as rooms, each for its own; an empty one is none.",
            several(),
        )
        .query(
            "counters",
            "Unread notifications are wanted: the version of those you have, 0 where you have none.",
            json!({ "type": "integer", "minimum": 0 }),
        )
        .query(
            "presence",
            "Rooms of which presence is wanted, where the policy says so.",
            several(),
        )
}

fn list(words: &str) -> Value {
    json!({ "type": "array", "items": { "type": "object" }, "description": words })
}
