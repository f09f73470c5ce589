//! What users have done with notifications, and how they want to be told: one key per user, changed under compare-and-set by merging.
//!
//! Called by [`crate::door_service`]. Marks only grow, so it does not matter in which order gateways ask, how often, or at which ingest;
//! of preferences that are set at the same time each member is the last one's.

use bytes::Bytes;
use roomcast_chassis::jetstream::JetStream;
use roomcast_proto::ids::Tenant;
use roomcast_proto::limits::ATTRIBUTE_BYTES_MAX;
use roomcast_proto::readstate::{
    ID_BYTES_MAX, KeptPreferences, MARKS_AT_ONCE_MAX, Mark, Marked, Read, ReadState, SetPreferences, Verb,
};
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::{read_state_key, stream};

use crate::door_service::{self, Answer};
use crate::key_value::{Decision, KeyValue};
use crate::metrics::IngestMetrics;

/// The service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ReadStates {
    keys: KeyValue,
}

impl ReadStates {
    /// Makes it.
    #[must_use]
    pub fn new(jetstream: JetStream, metrics: IngestMetrics) -> Self {
        Self {
            keys: KeyValue::new(jetstream, stream::READSTATE, metrics),
        }
    }

    /// Answers one request.
    ///
    /// # Errors
    /// `bad_request`, `unavailable` (nothing was done), `unknown` (ask again), `internal`.
    pub async fn answer(&self, tenant: &Tenant, verb: &str, body: &[u8]) -> Answer {
        match Verb::of_name(verb).ok_or_else(door_service::no_such_verb)? {
            Verb::Mark => {
                let mark: Mark = door_service::read(body)?;
                check(&mark)?;
                let key = read_state_key(tenant, &mark.user);
                let decided = self.keys.update(&key, |value| decide(value, &mark)).await;
                door_service::write(&decided.map_err(|error| error.refusal())??)
            }
            Verb::Preferences => {
                let set: SetPreferences = door_service::read(body)?;
                check_user(&set.user)?;
                let key = read_state_key(tenant, &set.user);
                let decided = self.keys.update(&key, |value| prefer(value, &set)).await;
                door_service::write(&decided.map_err(|error| error.refusal())??)
            }
            Verb::Read => {
                let Read { user } = door_service::read(body)?;
                check_user(&user)?;
                let held = self.keys.read(&read_state_key(tenant, &user)).await;
                door_service::write(&kept(held.map_err(|error| error.refusal())?.as_ref())?)
            }
        }
    }
}

fn check(mark: &Mark) -> Result<(), Refusal> {
    check_user(&mark.user)?;
    let right = |bytes: usize| (1..=ID_BYTES_MAX).contains(&bytes);
    let few = mark.notifications.len() <= MARKS_AT_ONCE_MAX;
    if few && mark.notifications.iter().all(|one| right(one.id.len())) {
        return Ok(());
    }
    let detail = format!("at most {MARKS_AT_ONCE_MAX} notifications, ids of 1 to {ID_BYTES_MAX} bytes");
    Err(Refusal::new(Code::BadRequest, detail))
}

fn check_user(user: &str) -> Result<(), Refusal> {
    let right = (1..=ATTRIBUTE_BYTES_MAX).contains(&user.len());
    right
        .then_some(())
        .ok_or_else(|| Refusal::new(Code::BadRequest, "a user is needed"))
}

/// What a key holds. A record that cannot be read is not overwritten: somebody has to look at it.
fn kept(value: Option<&Bytes>) -> Result<ReadState, Refusal> {
    let Some(value) = value else {
        return Ok(ReadState::default());
    };
    serde_json::from_slice(value).map_err(|error| {
        tracing::error!(%error, "what is kept of a user's marks cannot be read: {error}");
        Refusal::new(Code::Internal, "what is kept cannot be read")
    })
}

fn decide(value: Option<&Bytes>, mark: &Mark) -> Decision<Result<Marked, Refusal>> {
    let mut state = match kept(value) {
        Ok(state) => state,
        Err(refusal) => return Decision::Keep(Err(refusal)),
    };
    let changed = state.mark(mark.level, &mark.notifications);
    let outcome = Marked {
        version: state.version,
        changed,
    };
    written(&state, changed, outcome)
}

fn prefer(value: Option<&Bytes>, set: &SetPreferences) -> Decision<Result<KeptPreferences, Refusal>> {
    let mut state = match kept(value) {
        Ok(state) => state,
        Err(refusal) => return Decision::Keep(Err(refusal)),
    };
    let changed = match state.prefer(&set.set) {
        Ok(changed) => changed,
        Err(refusal) => return Decision::Keep(Err(refusal)),
    };
    let outcome = KeptPreferences {
        version: state.version,
        preferences: state.preferences.clone(),
    };
    written(&state, changed, outcome)
}

/// Only what changed is written.
fn written<T>(state: &ReadState, changed: bool, outcome: T) -> Decision<Result<T, Refusal>> {
    if !changed {
        return Decision::Keep(Ok(outcome));
    }
    match serde_json::to_vec(state) {
        Ok(value) => Decision::Set {
            value: value.into(),
            ttl: None,
            outcome: Ok(outcome),
        },
        Err(_) => Decision::Keep(Err(Refusal::new(Code::Internal, "the record cannot be written"))),
    }
}

#[cfg(test)]
mod tests {
    use roomcast_proto::readstate::{Level, Marking};

    use super::*;

    fn mark(level: Level, ids: &[&str]) -> Mark {
        let notifications = ids.iter().map(|id| Marking {
            id: (*id).to_owned(),
            at: 5,
        });
        Mark {
            user: "u1".into(),
            level,
            notifications: notifications.collect(),
        }
    }

    fn said(decision: Decision<Result<Marked, Refusal>>) -> String {
        let text = |outcome: &Result<Marked, Refusal>| match outcome {
            Ok(marked) => format!("version {} changed {}", marked.version, marked.changed),
            Err(refusal) => refusal.code.as_str().to_owned(),
        };
        match decision {
            Decision::Keep(outcome) => format!("keep, {}", text(&outcome)),
            Decision::Set { value, ttl, outcome } => {
                let value = String::from_utf8_lossy(&value).into_owned();
                format!("set {value} {ttl:?}, {}", text(&outcome))
            }
            Decision::Delete(_) => "delete".to_owned(),
        }
    }

    #[test]
    fn only_what_changes_is_written_and_what_cannot_be_read_is_left_alone() {
        let held = r#"{"version":4,"marks":{"a":{"as":"read","at":5}}}"#;
        let rows = [
            (
                None,
                mark(Level::Seen, &["a"]),
                r#"set {"version":1,"marks":{"a":{"as":"seen","at":5}}} None, version 1 changed true"#,
            ),
            (
                Some(held),
                mark(Level::Seen, &["a"]),
                "keep, version 4 changed false",
            ),
            (
                Some(held),
                mark(Level::Read, &[]),
                "keep, version 4 changed false",
            ),
            (
                Some(held),
                mark(Level::Archived, &["a"]),
                r#"set {"version":5,"marks":{"a":{"as":"archived","at":5}}} None, version 5 changed true"#,
            ),
            (Some("[]"), mark(Level::Read, &["a"]), "keep, internal"),
        ];
        for (held, mark, expected) in rows {
            let value = held.map(Bytes::from);
            assert_eq!(said(decide(value.as_ref(), &mark)), expected, "{held:?} {mark:?}");
        }
    }

    #[test]
    fn preferences_stand_beside_the_marks_and_a_mistake_changes_nothing() {
        let held = r#"{"version":4,"marks":{"a":{"as":"read","at":5}},"preferences":{"sounds":true}}"#;
        let rows = [
            (r#"{"sounds":true}"#, "keep, 4"),
            (
                r#"{"desktop":false}"#,
                r#"{"version":5,"marks":{"a":{"as":"read","at":5}},"preferences":{"sounds":true,"desktop":false}}"#,
            ),
            (
                r#"{"sounds":null}"#,
                r#"{"version":5,"marks":{"a":{"as":"read","at":5}}}"#,
            ),
            (r#"{"loud":true}"#, "keep, bad_request"),
        ];
        for (set, expected) in rows {
            let set = SetPreferences {
                user: "u1".into(),
                set: serde_json::from_str(set).unwrap(),
            };
            let found = match prefer(Some(&Bytes::from(held)), &set) {
                Decision::Keep(Ok(kept)) => format!("keep, {}", kept.version),
                Decision::Keep(Err(refusal)) => format!("keep, {}", refusal.code.as_str()),
                Decision::Set { value, .. } => String::from_utf8_lossy(&value).into_owned(),
                Decision::Delete(_) => "delete".to_owned(),
            };
            assert_eq!(found, expected, "{:?}", set.set);
        }
        // A mark leaves them alone.
        let marked = said(decide(Some(&Bytes::from(held)), &mark(Level::Read, &["b"])));
        assert!(marked.contains(r#""preferences":{"sounds":true}"#), "{marked}");
    }

    #[test]
    fn requests_are_bounded() {
        let long = "x".repeat(ID_BYTES_MAX + 1);
        let many = vec!["a"; MARKS_AT_ONCE_MAX + 1];
        let mut nobody = mark(Level::Read, &["a"]);
        nobody.user.clear();
        let rows = [
            (mark(Level::Read, &["a"]), true),
            (mark(Level::Read, &many[1..]), true),
            (mark(Level::Read, &many), false),
            (mark(Level::Read, &[""]), false),
            (mark(Level::Read, &[&long]), false),
            (nobody, false),
        ];
        for (mark, right) in rows {
            assert_eq!(check(&mark).is_ok(), right, "{}", mark.notifications.len());
        }
    }
}
