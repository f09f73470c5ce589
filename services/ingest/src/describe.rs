//! What an event is, for the OpenAPI documents.

use serde_json::{Value, json};

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
