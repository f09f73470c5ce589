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

/// `GET /v1/devices`
#[must_use]
pub fn devices() -> Operation {
    let device = object(&[("device", text()), ("until", seconds())]);
    let listed = object(&[
        (
            "publicKey",
            json!({ "type": "string", "description": "`applicationServerKey` for `PushManager.subscribe`." }),
        ),
        ("devices", json!({ "type": "array", "items": device })),
    ]);
    devices_of(Operation::new(
        "notifications",
        "devices",
        "Lists the user's devices that pushes go to.",
    ))
    .about("Without their addresses and keys.")
    .answers(200, "The devices.", "application/json", listed)
}

/// `POST /v1/devices`
#[must_use]
pub fn register_device() -> Operation {
    let keys = json!({
        "type": "object",
        "required": ["p256dh", "auth"],
        "properties": { "p256dh": text(), "auth": text() },
        "additionalProperties": false,
    });
    let subscription = json!({
        "type": "object",
        "description": "What `PushSubscription.toJSON()` says.",
        "required": ["endpoint", "keys"],
        "properties": { "endpoint": text(), "expirationTime": { "type": ["number", "null"] }, "keys": keys },
        "additionalProperties": false,
    });
    let body = json!({
        "type": "object",
        "required": ["subscription"],
        "properties": { "subscription": subscription, "name": { "type": ["string", "null"], "description": "What the user calls it." } },
        "additionalProperties": false,
    });
    devices_of(Operation::new(
        "notifications",
        "register_device",
        "Registers a device that pushes go to.",
    ))
    .about("The same again is the same device. It is told of what the user's feed holds, by the roles of this token and what is in force then.")
    .takes("application/json", body)
    .answers(
        200,
        "It is kept.",
        "application/json",
        object(&[("device", text()), ("until", seconds())]),
    )
    .refuses(BODY.map(Code::listed))
}

/// `DELETE /v1/devices/{device}`
#[must_use]
pub fn remove_device() -> Operation {
    devices_of(Operation::new(
        "notifications",
        "remove_device",
        "Removes one of the user's devices.",
    ))
    .about("Whether it was there, or is somebody else's, is not told.")
    .path("device", "The device.", text())
    .answers(
        200,
        "The user has no such device.",
        "application/json",
        object(&[]),
    )
}

fn devices_of(operation: Operation) -> Operation {
    api(operation).refuses([Code::NotFound, Code::Unknown, Code::Internal].map(Code::listed))
}

fn seconds() -> Value {
    json!({ "type": "integer", "description": "Unix seconds until when it is pushed to, unless it is registered again." })
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
