//! What a user has done with notifications and how it wants to be told of them: marks and preferences, the same on all devices. What
//! gateways ask of `svc.….readstate`, and how marks come together.
//!
//! Marks only grow (seen, read, archived: each implies the one before), so devices that mark at the same time, or much later because
//! they were offline, agree whatever the order is in which ingest hears of it. What is kept is bounded by bytes: marks of the oldest
//! notifications go first, which is also the same in any order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::{ATTRIBUTE_BYTES_MAX, EVENT_ID_BYTES_MAX};
use crate::preferences::Preferences;
use crate::refusal::Refusal;

/// Bytes of marks kept for one user: 900 and more with usual ids, and a user sees the newest 200 notifications.
pub const MARKS_BYTES_MAX: usize = 80 * 1024;
/// Notifications marked by one request.
pub const MARKS_AT_ONCE_MAX: usize = 200;
/// Longest id of a notification, bytes: that of an event, or of one user's copy of it.
pub const ID_BYTES_MAX: usize = EVENT_ID_BYTES_MAX + 1 + ATTRIBUTE_BYTES_MAX;
/// What a mark costs beside its id: names, time, punctuation.
const MARK_BYTES: usize = 50;

/// The verbs of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// [`Mark`] to [`Marked`].
    Mark,
    /// [`Read`] to [`ReadState`].
    Read,
    /// [`SetPreferences`] to [`KeptPreferences`].
    Preferences,
}

impl Verb {
    /// All of them.
    pub const ALL: [Verb; 3] = [Verb::Mark, Verb::Read, Verb::Preferences];

    /// The token in the subject.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Mark => "mark",
            Verb::Read => "read",
            Verb::Preferences => "preferences",
        }
    }

    /// The verb with this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Verb> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == name)
    }
}

/// How far a user is with a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It was shown.
    Seen,
    /// It was opened.
    Read,
    /// It is out of the way.
    Archived,
}

/// A user marks notifications.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The token's subject.
    pub user: String,
    /// As what.
    #[serde(rename = "as")]
    pub level: Level,
    /// The notifications.
    pub notifications: Vec<Marking>,
}

/// One notification that is marked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marking {
    /// The event's id.
    pub id: String,
    /// When the event was stored, Unix milliseconds: the marks of the oldest go first.
    pub at: i64,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marked {
    /// The version of what is kept now.
    pub version: u64,
    /// Whether anything is other than before.
    pub changed: bool,
}

/// What is kept for a user?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// The token's subject.
    pub user: String,
}

/// A user says how it wants to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetPreferences {
    /// The token's subject.
    pub user: String,
    /// What is set; see [`Preferences::set`].
    pub set: serde_json::Map<String, serde_json::Value>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptPreferences {
    /// The version of what is kept now.
    pub version: u64,
    /// All of them.
    pub preferences: Preferences,
}

/// Everything kept for one user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadState {
    /// Grows by one with each change.
    pub version: u64,
    /// By the notification's id.
    pub marks: BTreeMap<String, KeptMark>,
    /// How the user wants to be told.
    #[serde(default, skip_serializing_if = "Preferences::is_empty")]
    pub preferences: Preferences,
}

/// How far a user is with one notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptMark {
    /// How far.
    #[serde(rename = "as")]
    pub level: Level,
    /// When the event was stored, Unix milliseconds.
    pub at: i64,
}

impl ReadState {
    /// Adds marks: of two for one notification the higher counts. Whether anything is other than before; then the version has grown.
    pub fn mark(&mut self, level: Level, notifications: &[Marking]) -> bool {
        let before = self.marks.clone();
        for Marking { id, at } in notifications {
            let mark = self
                .marks
                .entry(id.clone())
                .or_insert(KeptMark { level, at: *at });
            mark.level = mark.level.max(level);
            mark.at = mark.at.max(*at);
        }
        self.keep_the_newest();
        let changed = before != self.marks;
        self.version += u64::from(changed);
        changed
    }

    /// Sets preferences. Whether anything is other than before; then the version has grown.
    ///
    /// # Errors
    /// As [`Preferences::set`].
    pub fn prefer(&mut self, set: &serde_json::Map<String, serde_json::Value>) -> Result<bool, Refusal> {
        let before = self.preferences.clone();
        self.preferences.set(set)?;
        let changed = before != self.preferences;
        self.version += u64::from(changed);
        Ok(changed)
    }

    /// How far the user is with a notification.
    #[must_use]
    pub fn level(&self, id: &str) -> Option<Level> {
        self.marks.get(id).map(|mark| mark.level)
    }

    /// Drops the marks of the oldest notifications, so that the rest fits. What goes depends on what there is, not on what came first.
    fn keep_the_newest(&mut self) {
        let all: usize = self.marks.keys().map(|id| cost(id)).sum();
        if all <= MARKS_BYTES_MAX {
            return;
        }
        let mut newest: Vec<(i64, &String)> = self.marks.iter().map(|(id, mark)| (mark.at, id)).collect();
        newest.sort_unstable_by(|a, b| b.cmp(a));
        let mut bytes = 0;
        let gone: Vec<String> = newest
            .into_iter()
            .skip_while(|(_, id)| {
                bytes += cost(id);
                bytes <= MARKS_BYTES_MAX
            })
            .map(|(_, id)| id.clone())
            .collect();
        for id in gone {
            self.marks.remove(&id);
        }
    }
}

/// Bytes that a mark takes as JSON, at most: control characters are written with six.
fn cost(id: &str) -> usize {
    let more = |byte: u8| match byte {
        b'"' | b'\\' => 1,
        0..0x20 => 5,
        _ => 0,
    };
    id.len() + id.bytes().map(more).sum::<usize>() + MARK_BYTES
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn marking(n: usize) -> Marking {
        // The time is the notification's own: the same whoever marks it.
        Marking {
            id: format!("n{n}\"{}", "x".repeat(n % 900)),
            at: (n as i64 * 7_919) % 1_000,
        }
    }

    #[test]
    fn a_mark_implies_those_before_it_and_never_goes_back() {
        let mut state = ReadState::default();
        let rows = [
            (Level::Read, true, Level::Read, 1),
            (Level::Seen, false, Level::Read, 1),
            (Level::Read, false, Level::Read, 1),
            (Level::Archived, true, Level::Archived, 2),
            (Level::Seen, false, Level::Archived, 2),
        ];
        for (level, changed, kept, version) in rows {
            assert_eq!(state.mark(level, &[marking(1)]), changed, "{level:?}");
            assert_eq!(
                (state.level(&marking(1).id), state.version),
                (Some(kept), version)
            );
        }
        assert_eq!(state.level("another"), None);
        assert!(!state.mark(Level::Read, &[]));
    }

    #[test]
    fn what_is_kept_fits_the_bucket_whatever_the_ids_are() {
        for part in ["\"\\", "\n\u{1}", "é", "x"] {
            let mut state = ReadState::default();
            for n in 0..3_000 {
                let marking = Marking {
                    id: format!("{n}{}", part.repeat(n % 200)),
                    at: i64::MIN + n as i64,
                };
                state.mark(Level::Archived, &[marking]);
            }
            let bytes = serde_json::to_vec(&state).unwrap().len();
            assert!((50 * 1024..96 * 1024).contains(&bytes), "{part:?}: {bytes}");
        }
        // Usual ids: more than anybody sees.
        let mut state = ReadState::default();
        let ids = (0..3_000).map(|n| Marking {
            id: format!("0199d2a0-7c1e-7000-8000-{n:012}"),
            at: 1_769_868_300_250 + n,
        });
        state.mark(Level::Seen, &ids.collect::<Vec<_>>());
        assert!(state.marks.len() > 900, "{}", state.marks.len());
        assert!(state.marks.contains_key("0199d2a0-7c1e-7000-8000-000000002999"));
    }

    #[test]
    fn messages_are_the_documented_ones_and_strange_ones_are_not_read() {
        let mark = r#"{"user":"u1","as":"read","notifications":[{"id":"n1","at":5}]}"#;
        let read: Mark = serde_json::from_str(mark).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), mark);
        let mut state = ReadState::default();
        state.mark(read.level, &read.notifications);
        let text = r#"{"version":1,"marks":{"n1":{"as":"read","at":5}}}"#;
        assert_eq!(serde_json::to_string(&state).unwrap(), text);
        assert_eq!(serde_json::from_str::<ReadState>(text).unwrap(), state);
        for strange in [
            "{}",
            r#"{"user":"u1","as":"unread","notifications":[]}"#,
            r#"{"user":"u1","as":"read","notifications":[{"id":"n1"}]}"#,
            r#"{"user":"u1","as":"read","notifications":[],"more":1}"#,
        ] {
            assert!(serde_json::from_str::<Mark>(strange).is_err(), "{strange}");
        }
        for verb in Verb::ALL {
            assert_eq!(Verb::of_name(verb.as_str()), Some(verb));
        }
    }

    type Requests = Vec<(Level, Vec<usize>)>;

    fn requests() -> impl Strategy<Value = Requests> {
        let level = prop_oneof![Just(Level::Seen), Just(Level::Read), Just(Level::Archived)];
        prop::collection::vec((level, prop::collection::vec(0..400_usize, 0..60)), 0..12)
    }

    fn after(requests: &Requests) -> ReadState {
        let mut state = ReadState::default();
        for (level, ids) in requests {
            let ids: Vec<Marking> = ids.iter().map(|n| marking(*n)).collect();
            state.mark(*level, &ids);
        }
        state
    }

    proptest! {
        /// Devices mark in any order, the same again or late; what is kept is the same, and it is the highest mark of each of the
        /// newest notifications.
        #[test]
        fn devices_agree_whatever_the_order(
            (requests, other) in requests().prop_flat_map(|requests| (Just(requests.clone()), Just(requests).prop_shuffle())),
            again in 0..12_usize,
        ) {
            let one = after(&requests);
            let mut repeated = other.clone();
            repeated.extend(requests.iter().take(again).cloned());
            for changed in [after(&other), after(&repeated)] {
                prop_assert_eq!(&changed.marks, &one.marks);
            }
            for (id, mark) in &one.marks {
                let named = |ids: &[usize]| ids.iter().any(|n| marking(*n).id == *id);
                let highest = requests.iter().filter(|(_, ids)| named(ids)).map(|(level, _)| *level).max();
                prop_assert_eq!(Some(mark.level), highest);
            }
        }
    }
}
