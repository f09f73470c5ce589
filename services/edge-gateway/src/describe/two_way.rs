//! What users do over HTTP: commands, notifications and marks of them.

use roomcast_chassis::openapi::Operation;
use roomcast_proto::readstate::MARKS_AT_ONCE_MAX;
use roomcast_proto::refusal::Code;
use serde_json::{Value, json};

use super::{BODY, api, cursor, event, object, text};
use crate::feed::NOTIFICATIONS_MAX;

/// `POST /v1/commands/{name}`
#[must_use]
pub fn command() -> Operation {
    let body = json!({
        "type": "object",
        "required": ["key"],
        "properties": {
            "data": { "description": "What the handler gets." },
            "key": { "type": "string", "minLength": 1, "description": "Names this command: sent again under it, it is carried out once." },
            "timeoutMs": { "type": "integer", "minimum": 0, "description": "How long to wait for the result." },
        },
    });
    let refusals = [Code::Conflict, Code::Unknown, Code::Internal];
    api(Operation::new(
        "commands",
        "command",
        "Has a command carried out, and answers its result.",
    ))
    .path("name", "The command.", text())
    .takes("application/json", body)
    .answers(
        200,
        "The result.",
        "application/json",
        object(&[(
            "data",
            json!({ "description": "What the handler answered: any JSON." }),
        )]),
    )
    .refuses(BODY.into_iter().chain(refusals).map(Code::listed))
}

/// `GET /v1/feed`
#[must_use]
pub fn feed() -> Operation {
    let limit = json!({ "type": "integer", "minimum": 0, "maximum": NOTIFICATIONS_MAX });
    let filter = json!({ "type": "string", "contentMediaType": "application/json", "examples": [r#"{"unread":true}"#] });
    api(Operation::new("notifications", "feed", "Reads the user's notifications, a page at a time."))
        .about("Newest first, of the rooms that open by themselves and the user's own. A poll with `counters` tells when to ask again.")
        .query("before", "A notification's cursor: only what is older.", text())
        .query("limit", "How many at most; 0 and absent: 50.", limit)
        .query("filter", "`{type?, room?, priority?: […], group?, unread?, archived?}`.", filter)
        .answers(200, "The page, its marks, and the counters of all.", "application/json", page())
        .refuses([Code::Unknown, Code::Internal].map(Code::listed))
}

/// `POST /v1/marks`
#[must_use]
pub fn marks() -> Operation {
    let body = json!({
        "type": "object",
        "required": ["as"],
        "properties": {
            "ids": { "type": "array", "items": text(), "maxItems": MARKS_AT_ONCE_MAX, "description": "These notifications; those that are not the user's are passed over." },
            "upTo": { "type": "string", "description": "Instead of `ids`, a notification's cursor: all up to it." },
            "as": { "enum": ["seen", "read", "archived"] },
        },
    });
    api(Operation::new("notifications", "mark", "Marks notifications."))
        .about("Each mark implies the one before, and none is taken back: sent again, it changes nothing.")
        .takes("application/json", body)
        .answers(
            200,
            "The counters after it; no notifications.",
            "application/json",
            page(),
        )
        .refuses(
            BODY.into_iter()
                .chain([Code::Unknown, Code::Internal])
                .map(Code::listed),
        )
}

/// `POST /v1/preferences`
#[must_use]
pub fn preferences() -> Operation {
    let set = json!({
        "type": "object",
        "description": "`mute {types, rooms}`, `sounds`, `quiet {from, to, zone}`, `desktop`: each takes the place of the one kept, null takes it away.",
    });
    let kept = object(&[
        ("version", json!({ "type": "integer", "minimum": 0 })),
        ("preferences", json!({ "type": "object" })),
    ]);
    api(Operation::new(
        "notifications",
        "preferences",
        "Sets how the user is told of notifications, or asks for it.",
    ))
    .about("Without `set` nothing is set. All of the user's devices are told.")
    .takes(
        "application/json",
        json!({ "type": "object", "properties": { "set": set } }),
    )
    .answers(200, "All that is kept.", "application/json", kept)
    .refuses(
        BODY.into_iter()
            .chain([Code::Unknown, Code::Internal])
            .map(Code::listed),
    )
}

fn page() -> Value {
    let placed = object(&[("cursor", cursor()), ("event", event())]);
    let mark = object(&[
        ("id", text()),
        ("as", json!({ "enum": ["seen", "read", "archived"] })),
    ]);
    object(&[
        ("notifications", json!({ "type": "array", "items": placed })),
        (
            "counters",
            json!({ "type": "object", "description": "What is not read, by priority." }),
        ),
        ("version", json!({ "type": "integer", "minimum": 0 })),
        ("marks", json!({ "type": "array", "items": mark })),
        (
            "groups",
            json!({ "type": "array", "items": { "type": "object" }, "description": "`{group, total, unread}` of all that the filter lets through." }),
        ),
    ])
}
