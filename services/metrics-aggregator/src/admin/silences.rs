//! Silences over the admin port. The door records each call; what was silenced, for how long and why is added.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use roomcast_admin::extract::{Json as Body, Path};
use roomcast_admin::problem::guarded;
use roomcast_admin::{Caller, Note, Operation, Problem, Routes};
use roomcast_proto::event::{micros_of_rfc3339, rfc3339};
use roomcast_proto::refusal::Code;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::AdminDesk;
use crate::publish::now_micros;
use crate::silences::{Failed, Silence};

/// The longest a silence may last from now on.
const UNTIL_MAX_MICROS: i64 = 366 * 24 * 3_600_000_000;
/// Longest text of a reason or a group, in bytes.
const TEXT_BYTES_MAX: usize = 500;

/// A silence to be made.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// The rule that is to say nothing; absent: all of them.
    alert: Option<String>,
    /// Only this group of it, as its notifications name it.
    group: Option<String>,
    /// From this instant, RFC 3339; absent: now.
    from: Option<String>,
    /// Until this one; a year from now at most.
    until: String,
    /// Why, for whoever looks later.
    reason: String,
}

/// Silences that last, or will begin.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Listed {
    /// In the order in which they were made.
    silences: Vec<Silence>,
}

pub(super) fn described() -> Routes<AdminDesk> {
    let list = guarded(Operation::new(
        "aggregator",
        "listSilences",
        "Lists the silences that last, or will begin.",
    ))
    .answers_json::<Listed>(200, "All that operators made; those of the file stand there.");
    let make = guarded(Operation::new(
        "aggregator",
        "createSilence",
        "Lets a rule, or all rules, say nothing for a while.",
    ))
    .about("In force on every aggregator within two seconds. What still fires when it is over is said then; what ends meanwhile and was said is said to be over.")
    .takes_json::<Wanted>()
    .answers_json::<Silence>(201, "It is stored.")
    .refuses([Code::BadJson, Code::UnsupportedType, Code::Limit].map(Code::listed));
    let end = guarded(Operation::new(
        "aggregator",
        "endSilence",
        "Ends a silence at once.",
    ))
    .path("id", "The silence's name.", json!({ "type": "string" }))
    .answers_nothing(204, "It is over.")
    .refuses([Code::NotFound].map(Code::listed));
    Routes::new()
        .get("/admin/v1/silences", list, show)
        .post("/admin/v1/silences", make, create)
        .delete("/admin/v1/silences/{id}", end, expire)
}

impl From<Failed> for Problem {
    fn from(failed: Failed) -> Self {
        let code = match failed {
            Failed::Absent => Code::NotFound,
            Failed::Full => Code::Limit,
            Failed::Unavailable(_) => Code::Unavailable,
        };
        Self::new(code, failed.to_string())
    }
}

async fn show(State(desk): State<AdminDesk>) -> Result<Json<Listed>, Problem> {
    let silences = desk.silences.list(now_micros()).await?;
    Ok(Json(Listed { silences }))
}

async fn create(
    State(desk): State<AdminDesk>,
    Extension(caller): Extension<Caller>,
    Body(wanted): Body<Wanted>,
) -> Result<Response, Problem> {
    let definitions = desk.definitions.now();
    let alerts: Vec<&str> = definitions.rules.iter().map(|rule| rule.alert.as_str()).collect();
    let silence = wanted.read(&alerts, &caller.subject, now_micros())?;
    desk.silences.add(silence.clone(), now_micros()).await?;
    let note = Note(json!({
        "silence": silence.id, "alert": silence.alert, "group": silence.group, "from": silence.from, "until": silence.until,
        "reason": silence.reason,
    }));
    let mut response = (StatusCode::CREATED, Json(silence)).into_response();
    response.extensions_mut().insert(note);
    Ok(response)
}

async fn expire(State(desk): State<AdminDesk>, Path(id): Path<String>) -> Result<Response, Problem> {
    desk.silences.end(&id, now_micros()).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.extensions_mut().insert(Note(json!({ "silence": id })));
    Ok(response)
}

impl Wanted {
    /// The silence that is meant.
    fn read(self, alerts: &[&str], by: &str, now: i64) -> Result<Silence, Problem> {
        let bad = |what: String| Problem::new(Code::BadRequest, what);
        if let Some(alert) = self.alert.as_deref().filter(|alert| !alerts.contains(alert)) {
            return Err(bad(format!(
                "there is no rule {alert:?}; there are {}",
                alerts.join(", ")
            )));
        }
        if self.group.is_some() && self.alert.is_none() {
            return Err(bad("a group is one of a rule: say alert as well".to_owned()));
        }
        if self.reason.is_empty() || self.reason.len() > TEXT_BYTES_MAX {
            return Err(bad(format!("reason has 1 to {TEXT_BYTES_MAX} bytes")));
        }
        if self
            .group
            .as_ref()
            .is_some_and(|group| group.len() > TEXT_BYTES_MAX)
        {
            return Err(bad(format!("group has at most {TEXT_BYTES_MAX} bytes")));
        }
        let instant = |name: &str, text: &str| {
            micros_of_rfc3339(text)
                .ok_or_else(|| bad(format!("{name} is an instant such as 2026-01-31T14:05:00Z")))
        };
        let from = self
            .from
            .as_deref()
            .map_or(Ok(now), |from| instant("from", from))?;
        let until = instant("until", &self.until)?;
        if until <= from.max(now) {
            return Err(bad("until lies before from, or in the past".to_owned()));
        }
        if until > now.saturating_add(UNTIL_MAX_MICROS) {
            return Err(bad("until lies more than 366 days ahead".to_owned()));
        }
        Ok(Silence {
            id: uuid::Uuid::now_v7().to_string(),
            alert: self.alert,
            group: self.group,
            from: rfc3339(from),
            until: rfc3339(until),
            reason: self.reason,
            by: by.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_780_315_200_000_000; // 2026-06-01T12:00:00Z

    #[test]
    fn what_is_asked_for_is_read_or_refused() {
        for (body, expected) in [
            (
                json!({ "until": "2026-06-01T13:00:00Z", "reason": "r" }),
                "2026-06-01T12:00:00Z 2026-06-01T13:00:00Z",
            ),
            (
                json!({ "alert": "busy", "group": "north", "from": "2026-06-01T12:30:00Z", "until": "2026-06-01T13:00:00Z", "reason": "r" }),
                "2026-06-01T12:30:00Z 2026-06-01T13:00:00Z",
            ),
            (
                json!({ "alert": "bussy", "until": "2026-06-01T13:00:00Z", "reason": "r" }),
                "no rule \"bussy\"; there are busy, slow",
            ),
            (
                json!({ "group": "north", "until": "2026-06-01T13:00:00Z", "reason": "r" }),
                "say alert",
            ),
            (
                json!({ "until": "2026-06-01T12:00:00Z", "reason": "r" }),
                "in the past",
            ),
            (
                json!({ "from": "2026-06-01T14:00:00Z", "until": "2026-06-01T13:00:00Z", "reason": "r" }),
                "before from",
            ),
            (
                json!({ "until": "2028-06-01T12:00:00Z", "reason": "r" }),
                "366 days",
            ),
            (
                json!({ "until": "tomorrow", "reason": "r" }),
                "until is an instant",
            ),
            (
                json!({ "from": "today", "until": "2026-06-01T13:00:00Z", "reason": "r" }),
                "from is an instant",
            ),
            (
                json!({ "until": "2026-06-01T13:00:00Z", "reason": "" }),
                "reason has",
            ),
            (
                json!({ "until": "2026-06-01T13:00:00Z", "reason": "r".repeat(501) }),
                "reason has",
            ),
        ] {
            let wanted: Wanted = serde_json::from_value(body.clone()).unwrap();
            let said = match wanted.read(&["busy", "slow"], "ada", NOON) {
                Ok(silence) => {
                    assert_eq!(silence.by, "ada");
                    format!("{} {}", silence.from, silence.until)
                }
                Err(problem) => problem.0.detail,
            };
            assert!(said.contains(expected), "{body}: {said}");
        }
        let unknown =
            serde_json::from_value::<Wanted>(json!({ "until": "x", "reason": "r", "rule": "busy" }));
        assert!(unknown.is_err());
    }
}
