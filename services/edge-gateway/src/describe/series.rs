//! Metrics over HTTP.

use roomcast_chassis::openapi::Operation;
use serde_json::{Value, json};

use super::{api, cursor, object, text};

/// `GET /v1/metrics`
#[must_use]
pub fn metrics() -> Operation {
    api(Operation::new(
        "metrics",
        "metrics",
        "Lists the metrics of a room.",
    ))
    .query_required("room", "The room.", text())
    .answers(
        200,
        "The status of each metric that is published there.",
        "application/json",
        object(&[
            ("room", text()),
            ("cursor", cursor()),
            ("metrics", list("Data of a `metric.status` event.")),
        ]),
    )
}

/// `GET /v1/metrics/{name}`
#[must_use]
pub fn series() -> Operation {
    let instant = || json!({ "type": "string", "format": "date-time" });
    api(Operation::new(
        "metrics",
        "series",
        "Reads the windows of a metric that are kept.",
    ))
    .about(
        "The current one and the closed ones, the oldest first, one cut: subscribe with the cursor afterwards, and a chart goes on \
         without a hole. A metric that is not there has no windows.",
    )
    .path("name", "The metric.", text())
    .query_required("room", "The room it is published to.", text())
    .query("from", "Only windows that end after this instant.", instant())
    .query("to", "Only windows that begin before this instant.", instant())
    .query(
        "step",
        "Only windows that contain one of the instants `from`, `from` and this span, and so on before `to`: 30s, 5m, 1h, 1d; 1,500 instants at most.",
        json!({ "type": "string", "pattern": "^[0-9]{1,12}[smhd]$" }),
    )
    .query(
        "group",
        "Only this group, as keys name it: its values joined by `/`, each escaped; `~other`. Also one that is not among the largest.",
        text(),
    )
    .answers(
        200,
        "The windows.",
        "application/json",
        object(&[
            ("room", text()),
            ("cursor", cursor()),
            ("metric", text()),
            ("windows", list("Data of a `metric.updated` event.")),
        ]),
    )
}

fn list(about: &str) -> Value {
    json!({ "type": "array", "items": { "type": "object", "description": about } })
}
