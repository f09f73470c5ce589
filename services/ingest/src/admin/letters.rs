//! Dead letters over the admin port: listed, shown, and taken again, one or many.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use roomcast_admin::extract::{Json as Body, Path, Query, RawJson};
use roomcast_admin::problem::guarded;
use roomcast_admin::{Caller, Note, Operation, Problem, Routes};
use roomcast_proto::ids::Tenant;
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::UNDELIVERED;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::answer::{self, Answer};
use crate::letters::{Letter, Letters, Wanted};

/// Letters of a page unless asked for otherwise, and at most.
const PAGE_DEFAULT: usize = 50;
const PAGE_MAX: usize = 200;
/// So long letters of one page are taken again, then the page ends: the rest of the time that the admin port has is for the last of them.
const REPLAYED_WITHIN: Duration = Duration::from_secs(10);

/// Which letters are meant.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Selection {
    /// Of this tenant; of all when left out.
    tenant: Option<String>,
    /// Refused with this code; `undelivered`: not taken by a webhook or a device.
    reason: Option<String>,
    /// Kept since this second (Unix).
    since: Option<i64>,
    /// Kept before this second (Unix).
    until: Option<i64>,
    /// After this position.
    after: Option<u64>,
    /// How many at most.
    limit: Option<usize>,
}

/// A dead letter.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Shown {
    /// Its position: what it is asked for by.
    position: u64,
    /// When it was kept, Unix milliseconds.
    at: i64,
    tenant: String,
    /// The code it was refused with.
    reason: String,
    /// The explanation.
    detail: String,
    /// Who sent it.
    publisher: String,
    /// The subject or the path it came by.
    origin: String,
    /// Bytes that were sent.
    bytes: u64,
    /// Whether only the beginning was kept.
    cut: bool,
    /// What was sent, where one letter is asked for; what is not UTF-8 is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// A page of them.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Page {
    /// Oldest first.
    letters: Vec<Shown>,
    /// `after` of the next page; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

/// What became of one letter.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Replayed {
    /// The letter.
    position: u64,
    /// `taken`, or the code of the refusal.
    outcome: &'static str,
    /// Of a batch that was taken: how many of its events were refused again, and are letters of their own.
    #[serde(skip_serializing_if = "is_zero")]
    refused: usize,
    /// Why it was refused.
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
}

/// What became of many.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct ReplayedAll {
    /// Letters taken.
    taken: usize,
    /// Each letter, oldest first.
    letters: Vec<Replayed>,
    /// `after` of the next call; absent when there are no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

/// The routes under `/admin/v1`.
#[must_use]
pub fn routes(letters: Letters) -> Routes {
    described().with_state(letters)
}

pub(super) fn described() -> Routes<Letters> {
    let selected = |operation: Operation| {
        let text = || json!({ "type": "string" });
        let number = || json!({ "type": "integer", "minimum": 0 });
        operation
            .query("tenant", "Of this tenant; of all when left out.", text())
            .query(
                "reason",
                "Refused with this code; `undelivered`: not taken by a webhook or a device.",
                text(),
            )
            .query("since", "Kept since this second (Unix).", number())
            .query("until", "Kept before this second (Unix).", number())
            .query("after", "The position after which the page begins.", number())
            .query(
                "limit",
                "Letters of the page.",
                json!({ "type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT }),
            )
    };
    let list = selected(guarded(Operation::new("dead letters", "getDeadLetters", "What was refused.")))
        .about("Oldest first, without what was sent. A page may be empty and still name a next one: much was looked at for it.")
        .answers_json::<Page>(200, "One page.");
    let position = |operation: Operation| {
        operation
            .path(
                "position",
                "The letter's position.",
                json!({ "type": "integer", "minimum": 0 }),
            )
            .refuses([Code::NotFound].map(Code::listed))
    };
    let one = position(guarded(Operation::new(
        "dead letters",
        "getDeadLetter",
        "One letter with what was sent.",
    )))
    .answers_json::<Shown>(200, "The letter.");
    let refusals = [
        Code::BadJson,
        Code::BadEncoding,
        Code::BadEvent,
        Code::BadRoom,
        Code::BadTime,
        Code::TooDeep,
        Code::UnsupportedType,
        Code::UnknownRoom,
        Code::UnknownAudience,
        Code::Schema,
        Code::Forbidden,
        Code::Late,
        Code::EventExpired,
        Code::TooManyKeys,
        Code::Conflict,
        Code::Unknown,
        Code::Internal,
    ];
    let replay = position(guarded(Operation::new("dead letters", "replayDeadLetter", "Takes one letter again.")))
        .about(
            "With `{}` as it was sent, with anything else that instead: the event as you have mended it. In the name of who sent it, to any \
             room of the policy, however old its id is. Each letter is taken at most once: a second time is `conflict`, and so is one \
             whose first attempt has no known end. What is refused again may be mended again; where a part of it is stored, the rest is a \
             letter of its own.",
        )
        .takes("application/json", json!({ "type": "object" }))
        .answers(
            200,
            "It was taken; of a batch, what became of each event.",
            "application/json",
            answer::whole_shape(),
        )
        .refuses(refusals.map(Code::listed));
    let many = guarded(Operation::new(
        "dead letters",
        "replayDeadLetters",
        "Takes many letters again, as they were sent.",
    ))
    .about(
        "As many as `limit` says, or as 10 s are enough for; go on with `after: next`. What is refused stays, and says why; of a batch \
         that is taken, what is refused becomes letters of its own. What is `unknown` may be stored already: \
         it is taken only where `reason` says so.",
    )
    .takes_json::<Selection>()
    .answers_json::<ReplayedAll>(200, "What became of each.")
    .refuses([Code::BadJson, Code::UnsupportedType].map(Code::listed));
    Routes::new()
        .get("/admin/v1/dead-letters", list, show)
        .get("/admin/v1/dead-letters/{position}", one, show_one)
        .post("/admin/v1/dead-letters/{position}/replay", replay, replay_one)
        .post("/admin/v1/replays", many, replay_many)
}

impl Selection {
    /// What is wanted, after which position, and how many.
    fn read(self) -> Result<(Wanted, u64, usize), Problem> {
        let bad = |what: &str| Problem::new(Code::BadRequest, what);
        let limit = self.limit.unwrap_or(PAGE_DEFAULT);
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(bad("limit is a number from 1 to 200"));
        }
        let tenant = self.tenant.as_deref().map(Tenant::parse).transpose();
        let known =
            |reason: &String| reason == UNDELIVERED || Code::ALL.iter().any(|code| code.as_str() == reason);
        if !self.reason.as_ref().is_none_or(known) {
            return Err(bad("reason is no code of a refusal, and not undelivered"));
        }
        let micros = |secs: i64| secs.saturating_mul(1_000_000);
        let wanted = Wanted {
            tenant: tenant.map_err(|_| bad("tenant is no tenant's name"))?,
            reason: self.reason,
            since_micros: self.since.map(micros),
            until_micros: self.until.map(micros),
        };
        // One more is asked for; the last position there can be has nothing after it.
        Ok((wanted, self.after.unwrap_or(0).min(u64::MAX - 1), limit))
    }
}

fn shown(letter: Letter, with_text: bool) -> Shown {
    let kept = letter.bytes.len() as u64;
    Shown {
        position: letter.position,
        at: letter.time_micros / 1_000,
        tenant: letter.tenant.to_string(),
        reason: letter.reason,
        detail: letter.detail,
        publisher: letter.publisher,
        origin: letter.origin,
        bytes: letter.original_bytes.unwrap_or(kept),
        cut: letter.original_bytes.is_some(),
        text: with_text.then(|| String::from_utf8_lossy(&letter.bytes).into_owned()),
    }
}

async fn show(
    State(letters): State<Letters>,
    Query(selection): Query<Selection>,
) -> Result<Json<Page>, Problem> {
    let (wanted, after, limit) = selection.read()?;
    let (found, next) = letters.page(&wanted, after, limit).await?;
    let letters = found.into_iter().map(|letter| shown(letter, false)).collect();
    Ok(Json(Page { letters, next }))
}

async fn show_one(State(letters): State<Letters>, Path(position): Path<u64>) -> Result<Json<Shown>, Problem> {
    Ok(Json(shown(letters.one(position).await?, true)))
}

async fn replay_one(
    State(letters): State<Letters>,
    Extension(caller): Extension<Caller>,
    Path(position): Path<u64>,
    RawJson(body): RawJson,
) -> Result<Response, Problem> {
    let letter = letters.one(position).await?;
    let object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&body);
    let as_it_is = object.is_ok_and(|object| object.is_empty());
    let mended = (!as_it_is).then_some(body);
    let is_mended = mended.is_some();
    let answer = letters.replay(&letter, mended, &caller.subject).await?;
    let mut response = match answer.body() {
        Ok(body) => ([(CONTENT_TYPE, "application/json")], Bytes::from(body)).into_response(),
        Err(refusal) => Problem(refusal.clone()).into_response(),
    };
    if response.status().is_success() || answer.has_stored() {
        let note = json!({ "position": position, "tenant": letter.tenant.as_str(), "mended": is_mended });
        response.extensions_mut().insert(Note(note));
    }
    Ok(response)
}

async fn replay_many(
    State(letters): State<Letters>,
    Extension(caller): Extension<Caller>,
    Body(selection): Body<Selection>,
) -> Result<Response, Problem> {
    let (wanted, after, limit) = selection.read()?;
    let began = Instant::now();
    let (found, mut next) = letters.page(&wanted, after, limit).await?;
    let mut done = Vec::with_capacity(found.len());
    let mut last = after;
    for letter in found {
        // One at least, or asking again would get nowhere.
        if !done.is_empty() && began.elapsed() > REPLAYED_WITHIN {
            next = Some(last);
            break;
        }
        let position = letter.position;
        last = position;
        let perhaps_stored = letter.reason == Code::Unknown.as_str() && wanted.reason.is_none();
        if perhaps_stored {
            done.push(left(position, &look_first()));
            continue;
        }
        done.push(match letters.replay(&letter, None, &caller.subject).await {
            Ok(answer) => outcome(position, &answer),
            Err(refusal) => left(position, &refusal),
        });
    }
    let taken = done.iter().filter(|one| one.outcome == TAKEN).count();
    let note = json!({ "letters": done.len(), "taken": taken });
    let all = ReplayedAll {
        taken,
        letters: done,
        next,
    };
    let mut response = Json(all).into_response();
    response.extensions_mut().insert(Note(note));
    Ok(response)
}

/// A letter whose events were taken, or at least one of them.
const TAKEN: &str = "taken";

fn outcome(position: u64, answer: &Answer) -> Replayed {
    let results = match answer {
        Answer::One(Ok(_)) => return taken(position, 0, String::new()),
        Answer::One(Err(not_taken)) => return left(position, &not_taken.refusal),
        Answer::Refused(refusal) => return left(position, refusal),
        Answer::Batch(results) => results,
    };
    let refused = || results.iter().filter_map(|one| one.as_ref().err());
    match refused().next().map(|first| &first.refusal) {
        None => taken(position, 0, String::new()),
        Some(first) if answer.has_stored() => {
            let count = refused().count();
            let detail = format!("{count} of its events were refused again; the first: {first}");
            taken(position, count, detail)
        }
        Some(first) => left(position, first),
    }
}

fn taken(position: u64, refused: usize, detail: String) -> Replayed {
    Replayed {
        position,
        outcome: TAKEN,
        refused,
        detail,
    }
}

fn left(position: u64, refusal: &Refusal) -> Replayed {
    Replayed {
        position,
        outcome: refusal.code.as_str(),
        refused: 0,
        detail: refusal.detail.clone(),
    }
}

/// Of a letter of which it is not known whether it is stored; nobody should take it without having looked.
fn look_first() -> Refusal {
    let detail =
        "it may be stored already: look for it, then take it by its position, or all of the reason unknown";
    Refusal::new(Code::Unknown, detail)
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_chosen_by_what_they_are_kept_under() {
        for (reason, known) in [
            ("schema", true),
            ("unknown_audience", true),
            (UNDELIVERED, true),
            ("", false),
            ("Schema", false),
            ("undeliverable", false),
        ] {
            let selection = Selection {
                reason: Some(reason.to_owned()),
                ..Selection::default()
            };
            assert_eq!(selection.read().is_ok(), known, "{reason}");
        }
        assert!(Selection::default().read().is_ok());
    }
}
