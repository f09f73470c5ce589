//! What users say over HTTP, and who is there: their own events, what they are doing, presence.

use roomcast_chassis::openapi::Operation;
use roomcast_proto::presence::USERS_SHOWN_MAX;
use roomcast_proto::refusal::Code;
use serde_json::{Value, json};

use super::{BODY, api, object, text};
use crate::client_publish::ACTIVITY_BYTES_MAX;

/// `POST /v1/publish`
#[must_use]
pub fn publish() -> Operation {
    let body = json!({
        "type": "object",
        "required": ["room", "type"],
        "properties": {
            "room": text(),
            "type": { "type": "string", "description": "The event's type." },
            "data": { "description": "The event's data: any JSON." },
            "eventId": { "type": "string", "description": "Names the event: sent again under it, it is stored once." },
        },
    });
    stored(Operation::new(
        "events",
        "publish",
        "Publishes an event of the user's own.",
    ))
    .about("For everybody in the room, where the policy's `client_publish` says so.")
    .takes("application/json", body)
    .answers(
        200,
        "It is stored, now or before.",
        "application/json",
        object(&[("eventId", text())]),
    )
}

/// `POST /v1/activity`
#[must_use]
pub fn activity() -> Operation {
    let said = |about: &str| json!({ "type": "string", "description": format!("{about} At most {ACTIVITY_BYTES_MAX} bytes.") });
    let body = json!({
        "type": "object",
        "required": ["kind"],
        "properties": { "kind": said("What it is: `page`."), "detail": said("Of which: `/bookings`.") },
    });
    stored(Operation::new(
        "events",
        "activity",
        "Says what the user is doing.",
    ))
    .about("It becomes an event `user.activity` where the policy's `activity` wants to know.")
    .takes("application/json", body)
    .answers(200, "It is stored.", "application/json", object(&[]))
}

/// `GET /v1/presence`
#[must_use]
pub fn presence() -> Operation {
    let user = object(&[
        ("user", text()),
        ("connections", count()),
        ("since", json!({ "type": "string", "format": "date-time" })),
        ("status", json!({ "enum": ["active", "away"] })),
    ]);
    let users = json!({ "type": "array", "items": user, "maxItems": USERS_SHOWN_MAX });
    api(Operation::new("rooms", "presence", "Says who is in a room."))
        .about("Each user once, those longest there first, and of those only who shares a role with the caller. A stream may ask to be told: `presence=<room>`.")
        .query_required("room", "The room.", text())
        .answers(
            200,
            "Who is there.",
            "application/json",
            object(&[("room", text()), ("users", users), ("total", count())]),
        )
}

/// What is published by ingest, which decides once more.
fn stored(operation: Operation) -> Operation {
    let refused = [
        Code::BadEvent,
        Code::Schema,
        Code::Late,
        Code::TooManyKeys,
        Code::UnknownAudience,
        Code::Conflict,
        Code::Quota,
        Code::Unknown,
        Code::Internal,
    ];
    api(operation).refuses(BODY.into_iter().chain(refused).map(Code::listed))
}

fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}
