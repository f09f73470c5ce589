//! Grants, revocations and kicks: the one place that writes the `acl` bucket, and the one that speaks on `ctl.>`.
//!
//! Each entry says one thing under one key, so writing twice is writing once, and an answer that is lost is asked for again. Every write
//! names what it was decided on ([`KeyValue`]): one that was held up on its way is refused by the server once anybody has written since.
//! A revocation only ever takes more; what it took is given back by `DELETE` alone. What is acknowledged here is in force on every
//! gateway and ingest within two seconds.

use std::time::Duration;

use async_nats::connection::State as Connection;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use prometheus::IntCounterVec;
use roomcast_access::acl::{ENTRIES_MAX, REVOCATION_SECS};
use roomcast_access::token::ID_BYTES_MAX;
use roomcast_admin::extract::{Json as Body, Path, Query};
use roomcast_admin::problem::guarded;
use roomcast_admin::{Note, Operation, Problem, Routes};
use roomcast_chassis::jetstream::JetStream;
use roomcast_chassis::metrics::Metrics;
use roomcast_proto::acl::{Entry, Key, Kick};
use roomcast_proto::ids::Tenant;
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::{self, stream};
use roomcast_rights::Current;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::accept::TTL_SECS_MAX;
use crate::error::unavailable;
use crate::key_value::{Decision, KeyValue, KeyValueError};
use crate::metrics::IngestMetrics;
use crate::now_micros;

/// Entries of a page unless asked for otherwise, and at most.
const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1_000;
/// Time for a write with all its attempts: half of what the admin port waits for an answer.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);
/// Time for a kick to be with the server.
const KICKED_WITHIN: Duration = Duration::from_secs(1);
/// How long the mark is kept that an entry is gone: longer than anybody who reads the bucket may be away without reading it anew, and
/// than a write could be held up that was decided before.
const MARKED_FOR: Duration = Duration::from_secs(REVOCATION_SECS.unsigned_abs());
/// How much longer the server keeps an entry than it holds.
const GRACE_SECS: i64 = 60;

/// What the routes work with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RightsDesk {
    jetstream: JetStream,
    acl: KeyValue,
    rights: Current,
    changes: IntCounterVec,
}

/// Who has no rights any more.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Revocation {
    /// Whose user or token; `main` when left out.
    tenant: Option<String>,
    /// This user: all its tokens, or with `issuedBefore` the older ones.
    user: Option<String>,
    /// The token with this `jti`.
    token: Option<String>,
    /// Tokens issued before this second (Unix), or without `iat`, of the user or of all users of the tenant.
    issued_before: Option<i64>,
}

/// A role that a user has beside those of its token.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Grant {
    /// Whose user; `main` when left out.
    tenant: Option<String>,
    /// The user.
    user: String,
    /// The role, as the policy or one of its aliases names it.
    role: String,
    /// Until when, Unix seconds; without it, until it is taken back.
    until: Option<i64>,
}

/// Which connections end.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Ended {
    /// Whose; `main` when left out.
    tenant: Option<String>,
    /// Those of this user.
    user: Option<String>,
    /// This one, by its name in `connected`.
    connection: Option<String>,
    /// All of the tenant's.
    #[serde(default)]
    everybody: bool,
}

/// An entry of the `acl` bucket.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Shown {
    /// Its key: what `DELETE` names.
    key: String,
    /// The user or the token's id.
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    /// From when on it does not hold, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<i64>,
    /// Tokens issued before this do not count, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<i64>,
}

/// A page of them.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Page {
    /// In the order of their keys.
    entries: Vec<Shown>,
    /// Where the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    after: Option<String>,
    limit: Option<usize>,
}

impl RightsDesk {
    /// Makes it.
    ///
    /// # Errors
    /// Its metric is declared already: a mistake in the code.
    pub fn new(
        jetstream: JetStream,
        rights: Current,
        ingest: IngestMetrics,
        metrics: &Metrics,
    ) -> Result<Self, prometheus::Error> {
        let changes = metrics.counter_vec(
            "roomcast_ingest_acl_changes_total",
            "What administrators changed about rights: grant, revoke, delete, kick; by outcome: done, failed.",
            &["what", "outcome"],
        )?;
        for what in ["grant", "revoke", "delete", "kick"] {
            for outcome in ["done", "failed"] {
                changes.with_label_values(&[what, outcome]);
            }
        }
        Ok(Self {
            acl: KeyValue::new(jetstream.clone(), stream::ACL, ingest).marking_for(MARKED_FOR),
            jetstream,
            rights,
            changes,
        })
    }

    /// Changes what stands under a key by a decision on what does; it is the outcome once it is stored.
    ///
    /// Every change is written, also one that changes nothing: what somebody else asked for before, and is held up on its way, finds
    /// that the key has moved on.
    async fn write<T>(
        &self,
        what: &str,
        key: &Key,
        decide: impl Fn(Option<Entry>) -> Decision<T>,
    ) -> Result<T, Problem> {
        let subject = subject::acl_entry(&key.to_string());
        // What cannot be read is not in force either.
        let entry = |bytes: &Bytes| serde_json::from_slice(bytes).ok();
        let write = self.acl.update(&subject, |held| decide(held.and_then(entry)));
        let (outcome, reason) = match tokio::time::timeout(WRITTEN_WITHIN, write).await {
            Ok(Ok(outcome)) => {
                self.changes.with_label_values(&[what, "done"]).inc();
                return Ok(outcome);
            }
            Ok(Err(error)) => (error.refusal(), error.to_string()),
            Err(_) => (KeyValueError::Unknown.refusal(), "no answer in time".to_owned()),
        };
        self.changes.with_label_values(&[what, "failed"]).inc();
        tracing::warn!(%key, "an entry of the acl bucket could not be stored: {reason}");
        Err(Problem(outcome))
    }

    fn has_room_for(&self, key: &Key) -> Result<(), Problem> {
        let in_force = self.rights.now();
        let known = in_force.acl.get(&key.to_string()).is_some();
        if known || in_force.acl.len() < ENTRIES_MAX {
            return Ok(());
        }
        Err(Problem::new(
            Code::Limit,
            format!("{ENTRIES_MAX} grants and revocations are in force, no more are taken"),
        ))
    }
}

/// The routes under `/admin/v1`.
#[must_use]
pub fn routes(desk: RightsDesk) -> Routes {
    described().with_state(desk)
}

pub(super) fn described() -> Routes<RightsDesk> {
    let refuses = |operation: Operation| {
        operation.refuses(
            [
                Code::BadJson,
                Code::UnsupportedType,
                Code::Limit,
                Code::Unknown,
                Code::Internal,
            ]
            .map(Code::listed),
        )
    };
    let list = guarded(Operation::new(
        "rights",
        "getGrantsAndRevocations",
        "Grants and revocations in force.",
    ))
    .query(
        "after",
        "The key after which the page begins.",
        json!({ "type": "string" }),
    )
    .query(
        "limit",
        "Entries of the page.",
        json!({ "type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT }),
    )
    .answers_json::<Page>(200, "One page, in the order of the keys.");
    let revoke = guarded(Operation::new("rights", "revoke", "Takes all rights from a user or a token."))
        .about(
            "Say `user`, or `token`, or `issuedBefore` with or without `user`. Open connections end with 4501 within two seconds on every \
             gateway, and no door opens for the token. Of two `issuedBefore` the later one counts, whichever is said last: only `DELETE` \
             gives rights back. Forgotten by itself when no token lives any more that it could mean.",
        )
        .takes_json::<Revocation>()
        .answers_json::<Shown>(200, "It is stored; this is in force now.");
    let grant = guarded(Operation::new("rights", "grant", "Gives a user a role more."))
        .about("In force within two seconds, also on open connections.")
        .takes_json::<Grant>()
        .answers_json::<Shown>(200, "It is stored.");
    let delete = guarded(Operation::new(
        "rights",
        "takeBack",
        "Takes a grant or a revocation back.",
    ))
    .path("key", "The entry's key.", json!({ "type": "string" }))
    .answers_nothing(204, "It is gone, or was not there.");
    let kick = guarded(Operation::new("rights", "kick", "Ends connections on all gateways."))
        .about(
            "Say `user`, or `connection`, or `everybody`. They end with 4007 and may come back. Nothing is remembered, and a gateway that is \
             cut off does not hear it: to keep somebody out, revoke.",
        )
        .takes_json::<Ended>()
        .answers_nothing(204, "All gateways that are there were told.");
    Routes::new()
        .get("/admin/v1/acl", list, show)
        .delete("/admin/v1/acl/{key}", refuses(delete), take_back)
        .post("/admin/v1/revocations", refuses(revoke), revoke_one)
        .post("/admin/v1/grants", refuses(grant), grant_one)
        .post("/admin/v1/kicks", refuses(kick), kick_some)
}

async fn show(State(desk): State<RightsDesk>, Query(from): Query<From>) -> Result<Json<Page>, Problem> {
    let limit = from.limit.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(bad(format!("limit is a number from 1 to {PAGE_MAX}")));
    }
    let in_force = desk.rights.now();
    let mut entries: Vec<Shown> = in_force
        .acl
        .after(from.after.as_deref().unwrap_or_default())
        .take(limit + 1)
        .map(|(key, entry)| shown(key.to_owned(), entry))
        .collect();
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next = more
        .then(|| entries.last().map(|last| last.key.clone()))
        .flatten();
    Ok(Json(Page { entries, next }))
}

async fn revoke_one(
    State(desk): State<RightsDesk>,
    Body(asked): Body<Revocation>,
) -> Result<Response, Problem> {
    let now = now_secs();
    let (key, name, before) = revocation(&asked)?;
    desk.has_room_for(&key)?;
    let asked = Entry {
        name,
        until: Some(now + REVOCATION_SECS),
        before,
    };
    let set = |held: Option<Entry>| set(tightened(held, asked.clone()), now);
    let entry = desk.write("revoke", &key, set).await?;
    Ok(stored(&key, &entry))
}

async fn grant_one(State(desk): State<RightsDesk>, Body(asked): Body<Grant>) -> Result<Response, Problem> {
    let now = now_secs();
    let tenant = tenant(asked.tenant.as_deref())?;
    let user = named("user", &asked.user)?;
    let in_force = desk.rights.now();
    // By the policy's own name, so that one role is one entry.
    let role = in_force
        .policy
        .role_name(&asked.role)
        .ok_or_else(|| bad(format!("{:?} is no role of the policy", asked.role)))?;
    if asked.until.is_some_and(|until| until <= now) {
        return Err(bad("until lies in the past"));
    }
    let key = Key::grant(&tenant, user, role);
    desk.has_room_for(&key)?;
    let entry = Entry {
        name: user.to_owned(),
        until: asked.until,
        before: None,
    };
    // What was granted before is replaced, also by less: nobody else's word stands behind it.
    let entry = desk.write("grant", &key, |_| set(entry.clone(), now)).await?;
    Ok(stored(&key, &entry))
}

async fn take_back(State(desk): State<RightsDesk>, Path(key): Path<String>) -> Result<Response, Problem> {
    let key = Key::parse(&key).ok_or_else(|| bad("this is no key of a grant or a revocation"))?;
    desk.write("delete", &key, |_| Decision::Delete(())).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    response
        .extensions_mut()
        .insert(Note(json!({ "key": key.to_string() })));
    Ok(response)
}

async fn kick_some(State(desk): State<RightsDesk>, Body(asked): Body<Ended>) -> Result<Response, Problem> {
    let kick = Kick {
        tenant: tenant(asked.tenant.as_deref())?,
        user: asked.user,
        connection: asked.connection,
        everybody: asked.everybody,
    };
    if !kick.is_definite() {
        return Err(bad("expected `user`, `connection` or both, or else `everybody`"));
    }
    let body = serde_json::to_vec(&kick).unwrap_or_default();
    let client = desk.jetstream.client();
    // Held up until there is a connection again, it would end those who came back meanwhile.
    let refusal = if client.connection_state() != Connection::Connected {
        Some(unavailable("NATS cannot be reached"))
    } else {
        let told = async {
            client.publish(subject::KICK, body.into()).await.ok()?;
            client.flush().await.ok()
        };
        let told = tokio::time::timeout(KICKED_WITHIN, told).await;
        let unknown = || {
            Refusal::new(
                Code::Unknown,
                "it is not known whether the gateways were told; ask again",
            )
        };
        (!matches!(told, Ok(Some(())))).then(unknown)
    };
    let outcome = if refusal.is_none() { "done" } else { "failed" };
    desk.changes.with_label_values(&["kick", outcome]).inc();
    if let Some(refusal) = refusal {
        return Err(Problem(refusal));
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.extensions_mut().insert(Note(json!(kick)));
    Ok(response)
}

/// What is in force once a revocation is: what was revoked before stays revoked, for as long as it was.
fn tightened(held: Option<Entry>, asked: Entry) -> Entry {
    let Some(held) = held else { return asked };
    Entry {
        name: asked.name,
        // Without an end it holds until it is taken back.
        until: held
            .until
            .and_then(|held| asked.until.map(|asked| asked.max(held))),
        before: held.before.max(asked.before),
    }
}

/// Stores an entry, for as long as it holds.
fn set(entry: Entry, now: i64) -> Decision<Entry> {
    let secs = entry.until.and_then(|until| kept_secs(until, now));
    Decision::Set {
        value: serde_json::to_vec(&entry).unwrap_or_default().into(),
        ttl: secs.map(|secs| Duration::from_secs(secs.unsigned_abs())),
        outcome: entry,
    }
}

/// How long the server keeps an entry that holds until then. `None`: until it is taken back, because it ends later than the server can
/// be told; readers go by `until` itself.
fn kept_secs(until: i64, now: i64) -> Option<i64> {
    let secs = until.saturating_sub(now).saturating_add(GRACE_SECS);
    u64::try_from(secs)
        .is_ok_and(|secs| secs <= TTL_SECS_MAX)
        .then_some(secs)
}

/// The key of a revocation, the name it is about, and the second before which tokens do not count.
fn revocation(asked: &Revocation) -> Result<(Key, String, Option<i64>), Problem> {
    let tenant = tenant(asked.tenant.as_deref())?;
    let user = asked
        .user
        .as_deref()
        .map(|user| named("user", user))
        .transpose()?;
    let token = asked
        .token
        .as_deref()
        .map(|token| named("token", token))
        .transpose()?;
    Ok(match (user, token, asked.issued_before) {
        (Some(user), None, None) => (Key::user(&tenant, user), user.to_owned(), None),
        (None, Some(token), None) => (Key::token(&tenant, token), token.to_owned(), None),
        (user, None, Some(before)) => {
            // What is to come cannot be revoked: it would be forgotten too early.
            if before > now_secs() + 1 {
                return Err(bad("issuedBefore lies in the future"));
            }
            (
                Key::before(&tenant, user),
                user.unwrap_or_default().to_owned(),
                Some(before),
            )
        }
        _ => {
            return Err(bad(
                "expected `user`, or `token`, or `issuedBefore` with or without `user`",
            ));
        }
    })
}

fn tenant(name: Option<&str>) -> Result<Tenant, Problem> {
    let tenant = name.map(Tenant::parse).transpose();
    tenant
        .map(Option::unwrap_or_default)
        .map_err(|_| bad("tenant is no tenant's name"))
}

fn named<'a>(what: &str, name: &'a str) -> Result<&'a str, Problem> {
    if (1..=ID_BYTES_MAX).contains(&name.len()) {
        Ok(name)
    } else {
        Err(bad(format!("{what} has 1 to {ID_BYTES_MAX} bytes")))
    }
}

fn shown(key: String, entry: &Entry) -> Shown {
    Shown {
        key,
        name: entry.name.clone(),
        until: entry.until,
        before: entry.before,
    }
}

fn stored(key: &Key, entry: &Entry) -> Response {
    let shown = shown(key.to_string(), entry);
    let note = Note(json!({ "key": shown.key, "until": shown.until, "before": shown.before }));
    let mut response = Json(shown).into_response();
    response.extensions_mut().insert(note);
    response
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem(Refusal::new(Code::BadRequest, detail))
}

fn now_secs() -> i64 {
    now_micros() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_forgets_grants_that_end_within_ten_years() {
        let ten_years = 10 * 365 * 24 * 3_600;
        for (until, expected) in [
            (1_001, Some(1 + GRACE_SECS)),
            (1_000 + ten_years - GRACE_SECS, Some(ten_years)),
            (1_001 + ten_years - GRACE_SECS, None),
            (253_402_300_799, None),
            (i64::MAX, None),
        ] {
            assert_eq!(kept_secs(until, 1_000), expected, "{until}");
        }
    }

    #[test]
    fn a_revocation_takes_more_and_never_less() {
        let entry = |until: Option<i64>, before: Option<i64>| Entry {
            name: "u".to_owned(),
            until,
            before,
        };
        for (held, asked, expected) in [
            (None, (Some(9), Some(5)), (Some(9), Some(5))),
            (Some((Some(8), Some(7))), (Some(9), Some(5)), (Some(9), Some(7))),
            (Some((Some(8), Some(5))), (Some(9), Some(7)), (Some(9), Some(7))),
            (Some((Some(9), Some(7))), (Some(8), Some(5)), (Some(9), Some(7))),
            (Some((Some(8), None)), (Some(9), None), (Some(9), None)),
            (Some((None, None)), (Some(9), None), (None, None)),
        ] {
            let held = held.map(|(until, before)| entry(until, before));
            let found = tightened(held.clone(), entry(asked.0, asked.1));
            assert_eq!((found.until, found.before), expected, "{held:?} {asked:?}");
        }
    }

    #[test]
    fn a_revocation_says_one_thing() {
        #[track_caller]
        fn check(body: &str, expected: Option<&str>) {
            let asked: Revocation = serde_json::from_str(body).unwrap();
            let key = revocation(&asked).ok().map(|(key, _, _)| key.to_string());
            assert_eq!(key.as_deref(), expected, "{body}");
        }
        check(r#"{"user":"u@1"}"#, Some("user.main.u=401"));
        check(r#"{"tenant":"acme","token":"j1"}"#, Some("token.acme.j1"));
        check(r#"{"user":"u1","issuedBefore":5}"#, Some("before.main.u1"));
        check(r#"{"issuedBefore":5}"#, Some("before.main"));
        check("{}", None);
        check(r#"{"user":"u1","token":"j1"}"#, None);
        check(r#"{"token":"j1","issuedBefore":5}"#, None);
        check(r#"{"user":""}"#, None);
        check(r#"{"tenant":"GW","user":"u1"}"#, None);
        check(r#"{"issuedBefore":99999999999}"#, None);
        assert!(serde_json::from_str::<Revocation>(r#"{"usr":"u1"}"#).is_err());
    }
}
