//! Keys and results of commands: claimed before a backend is asked, kept for a day after it has answered.
//!
//! Called by [`crate::door_service`]. What a gateway asks is decided by pure functions of what the bucket holds, under
//! compare-and-set, so two gateways with the same key, at two ingests, agree on one command id and one result.

use std::time::Duration;

use bytes::Bytes;
use roomcast_chassis::jetstream::JetStream;
use roomcast_proto::command::{
    Claim, Claimed, Finish, Finished, KEPT, KEY_BYTES_MAX, Outcome, RESULT_BYTES_MAX, Release, Released, Verb,
};
use roomcast_proto::ids::{Tenant, new_event_id};
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::{command_key, stream};
use serde::{Deserialize, Serialize};

use crate::door_service::{self, Answer};
use crate::key_value::{Decision, KeyValue};
use crate::metrics::IngestMetrics;

/// Longest user id and command name that is taken from a gateway, bytes.
const NAME_BYTES_MAX: usize = 1_024;

/// The service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Commands {
    keys: KeyValue,
}

/// One key as the bucket holds it.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The command id.
    id: String,
    /// Of the data it was claimed with.
    hash: String,
    /// How many gateways have been told to ask a backend.
    asked: u32,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
}

impl Commands {
    /// Makes it.
    #[must_use]
    pub fn new(jetstream: JetStream, metrics: IngestMetrics) -> Self {
        Self {
            keys: KeyValue::new(jetstream, stream::COMMANDS, metrics),
        }
    }

    /// Answers one request.
    ///
    /// # Errors
    /// `bad_request`, `conflict`, `too_large`, `unavailable` (nothing was done), `unknown` (ask again), `internal`.
    pub async fn answer(&self, tenant: &Tenant, verb: &str, body: &[u8]) -> Answer {
        match Verb::of_name(verb).ok_or_else(door_service::no_such_verb)? {
            Verb::Claim => {
                let claim: Claim = door_service::read(body)?;
                let id = new_event_id();
                let claimed = self
                    .change(tenant, &claim, |record| begin(record, &claim, &id))
                    .await?;
                door_service::write(&claimed)
            }
            Verb::Finish => {
                let finish: Finish = door_service::read(body)?;
                if matches!(&finish.outcome, Outcome::Data(data) if data.get().len() > RESULT_BYTES_MAX) {
                    return Err(Refusal::new(
                        Code::TooLarge,
                        "the result is larger than what is kept",
                    ));
                }
                let outcome = self
                    .change(tenant, &finish.claim, |record| end(record, &finish))
                    .await?;
                door_service::write(&Finished { outcome })
            }
            Verb::Release => {
                let release: Release = door_service::read(body)?;
                let released = self
                    .change(tenant, &release.claim, |record| {
                        give_back(record.as_ref(), &release)
                    })
                    .await?;
                door_service::write(&Released { released })
            }
        }
    }

    /// Carries out a decision about one key.
    async fn change<T>(
        &self,
        tenant: &Tenant,
        claim: &Claim,
        decide: impl Fn(Option<Record>) -> Change<T>,
    ) -> Result<T, Refusal> {
        check(claim)?;
        let key = command_key(tenant, &claim.user, &claim.name, &claim.key);
        let decide = |value: Option<&Bytes>| {
            let record = match value.map(|value| serde_json::from_slice::<Record>(value)) {
                None => None,
                Some(Ok(record)) => Some(record),
                Some(Err(error)) => {
                    tracing::error!(%error, "a record of a command cannot be read: {error}");
                    return Decision::Keep(Err(Refusal::new(Code::Internal, "the record cannot be read")));
                }
            };
            match decide(record) {
                Change::None(outcome) => Decision::Keep(Ok(outcome)),
                Change::Conflict => Decision::Keep(Err(conflict())),
                Change::Gone(outcome) => Decision::Delete(Ok(outcome)),
                Change::Put(record, outcome) => match serde_json::to_vec(&record) {
                    Ok(value) => Decision::Set {
                        value: value.into(),
                        ttl: Some(kept()),
                        outcome: Ok(outcome),
                    },
                    Err(_) => {
                        Decision::Keep(Err(Refusal::new(Code::Internal, "the record cannot be written")))
                    }
                },
            }
        };
        self.keys
            .update(&key, decide)
            .await
            .map_err(|error| error.refusal())?
    }
}

/// Kept a little longer than promised, so that the promise holds by any clock.
fn kept() -> Duration {
    KEPT + Duration::from_secs(60)
}

fn check(claim: &Claim) -> Result<(), Refusal> {
    let fits = |text: &str, max: usize| (1..=max).contains(&text.len());
    let right = fits(&claim.key, KEY_BYTES_MAX)
        && fits(&claim.user, NAME_BYTES_MAX)
        && fits(&claim.name, NAME_BYTES_MAX)
        && claim.hash.len() == 22;
    right
        .then_some(())
        .ok_or_else(|| Refusal::new(Code::BadRequest, "a claim needs user, name, key and hash"))
}

fn conflict() -> Refusal {
    Refusal::new(Code::Conflict, "the key was used with other data")
}

/// What becomes of a record, and what the gateway hears.
#[derive(Debug)]
enum Change<T> {
    None(T),
    Put(Record, T),
    Gone(T),
    Conflict,
}

/// A gateway wants to ask a backend. `id`: the command id if nobody has claimed the key.
fn begin(record: Option<Record>, claim: &Claim, id: &str) -> Change<Claimed> {
    match record {
        None => {
            let record = Record {
                id: id.to_owned(),
                hash: claim.hash.clone(),
                asked: 1,
                outcome: None,
            };
            Change::Put(record, Claimed::New(id.to_owned()))
        }
        Some(record) if record.hash != claim.hash => Change::Conflict,
        Some(Record {
            outcome: Some(outcome),
            ..
        }) => Change::None(Claimed::Done(outcome)),
        // Our own claim, whose acknowledgement was lost, is ours still.
        Some(record) if record.id == id => Change::None(Claimed::New(record.id)),
        // Counted, so that whoever claimed it first can no longer give it back.
        Some(record) => {
            let id = record.id.clone();
            let asked = record.asked.saturating_add(1);
            Change::Put(Record { asked, ..record }, Claimed::Again(id))
        }
    }
}

/// A backend has answered; the first answer counts.
fn end(record: Option<Record>, finish: &Finish) -> Change<Outcome> {
    let outcome = finish.outcome.clone();
    match record {
        Some(record) if record.id != finish.id || record.hash != finish.claim.hash => Change::Conflict,
        Some(Record {
            outcome: Some(first), ..
        }) => Change::None(first),
        // Without a record it took longer than a day, or the bucket was made anew: the answer counts from now.
        record => {
            let asked = record.map_or(1, |record| record.asked);
            let record = Record {
                id: finish.id.clone(),
                hash: finish.claim.hash.clone(),
                asked,
                outcome: Some(outcome.clone()),
            };
            Change::Put(record, outcome)
        }
    }
}

/// No backend was there. Only a claim that nobody else has seen goes: else somebody may be asking at this moment.
fn give_back(record: Option<&Record>, release: &Release) -> Change<bool> {
    match record {
        None => Change::None(true),
        Some(record) if record.id == release.id && record.asked == 1 && record.outcome.is_none() => {
            Change::Gone(true)
        }
        Some(_) => Change::None(false),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn claim(hash: &str) -> Claim {
        Claim {
            user: "u1".into(),
            name: "delivery.update".into(),
            key: "k1".into(),
            hash: hash.into(),
        }
    }

    fn record(id: &str, asked: u32, outcome: Option<&str>) -> Record {
        Record {
            id: id.into(),
            hash: "h".into(),
            asked,
            outcome: outcome.map(data),
        }
    }

    fn data(json: &str) -> Outcome {
        Outcome::Data(RawValue::from_string(json.into()).unwrap())
    }

    fn json<T: Serialize>(value: &T) -> String {
        serde_json::to_string(value).unwrap()
    }

    /// A change as text: what is put, and what is said.
    fn said<T: Serialize>(change: Change<T>) -> String {
        match change {
            Change::None(outcome) => format!("keep, say {}", json(&outcome)),
            Change::Put(record, outcome) => format!("put {}, say {}", json(&record), json(&outcome)),
            Change::Gone(outcome) => format!("delete, say {}", json(&outcome)),
            Change::Conflict => "conflict".to_owned(),
        }
    }

    #[test]
    fn the_first_claim_is_new_and_repeats_get_the_same_id_or_the_result() {
        let rows = [
            (
                None,
                "h",
                r#"put {"id":"mine","hash":"h","asked":1}, say {"new":"mine"}"#,
            ),
            (
                Some(record("first", 1, None)),
                "h",
                r#"put {"id":"first","hash":"h","asked":2}, say {"again":"first"}"#,
            ),
            (Some(record("mine", 1, None)), "h", r#"keep, say {"new":"mine"}"#),
            (
                Some(record("first", 1, Some("[1]"))),
                "h",
                r#"keep, say {"done":{"data":[1]}}"#,
            ),
            (Some(record("first", 1, None)), "other", "conflict"),
            (Some(record("first", 1, Some("[1]"))), "other", "conflict"),
        ];
        for (held, hash, expected) in rows {
            let text = format!("{held:?}");
            assert_eq!(said(begin(held, &claim(hash), "mine")), expected, "{text}");
        }
    }

    #[test]
    fn the_first_answer_counts() {
        let finish = |id: &str| Finish {
            claim: claim("h"),
            id: id.into(),
            outcome: data("2"),
        };
        let rows = [
            (
                Some(record("a", 3, None)),
                r#"put {"id":"a","hash":"h","asked":3,"outcome":{"data":2}}, say {"data":2}"#,
            ),
            (Some(record("a", 1, Some("1"))), r#"keep, say {"data":1}"#),
            (Some(record("b", 1, None)), "conflict"),
            (
                None,
                r#"put {"id":"a","hash":"h","asked":1,"outcome":{"data":2}}, say {"data":2}"#,
            ),
        ];
        for (held, expected) in rows {
            let text = format!("{held:?}");
            assert_eq!(said(end(held, &finish("a"))), expected, "{text}");
        }
    }

    #[test]
    fn only_a_claim_that_nobody_else_saw_is_given_back() {
        let release = Release {
            claim: claim("h"),
            id: "a".into(),
        };
        let rows = [
            (None, "keep, say true"),
            (Some(record("a", 1, None)), "delete, say true"),
            (Some(record("a", 2, None)), "keep, say false"),
            (Some(record("b", 1, None)), "keep, say false"),
            (Some(record("a", 1, Some("1"))), "keep, say false"),
        ];
        for (held, expected) in rows {
            assert_eq!(said(give_back(held.as_ref(), &release)), expected, "{held:?}");
        }
    }
}
