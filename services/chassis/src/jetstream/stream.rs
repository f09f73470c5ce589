//! What is asked of a stream and what it answers.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiError, StoredMessage};

/// Which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At<'a> {
    /// The one at this position.
    Sequence(u64),
    /// The last one of a subject (wildcards allowed).
    Last(&'a str),
    /// The first one of a subject (wildcards allowed) at or after a position.
    Next {
        /// Where to begin.
        from: u64,
        /// Which subject.
        subject: &'a str,
    },
}

/// A stream as the server describes it.
#[derive(Clone, Debug, Deserialize)]
pub struct StreamInfo {
    /// Its configuration, every field the server knows.
    pub config: Value,
    /// When it was created (RFC 3339); a stream made anew under the same name differs here.
    pub created: String,
    /// What it holds. A node that has just come back may answer less than is true for some seconds: never lower a
    /// position because of it.
    pub state: StreamState,
}

/// What a stream holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct StreamState {
    /// Messages.
    pub messages: u64,
    /// Bytes.
    pub bytes: u64,
    /// Position of the oldest message; of an empty stream, the next one's.
    pub first_seq: u64,
    /// When the oldest message was stored; of an empty stream it says nothing.
    #[serde(default)]
    pub first_ts: jiff::Timestamp,
    /// Position of the newest message, also when it is gone again.
    pub last_seq: u64,
}

impl StreamState {
    /// Age of the oldest message at `now_micros`, Unix microseconds; zero where there is none.
    #[must_use]
    pub fn oldest(&self, now_micros: i64) -> Duration {
        let age = now_micros.saturating_sub(self.first_ts.as_microsecond());
        let age = u64::try_from(age).ok().filter(|_| self.messages > 0);
        Duration::from_micros(age.unwrap_or_default())
    }
}

/// Part of a stream, read by direct get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The messages, by position.
    pub messages: Vec<StoredMessage>,
    /// How many more there are that match.
    pub pending: u64,
}

/// The last message of each of several subjects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LastMessages {
    /// All of them as they were at one moment.
    Messages {
        /// By position.
        messages: Vec<StoredMessage>,
        /// The stream's position they are true for, where the server says so.
        up_to: Option<u64>,
    },
    /// More than [`super::MULTI_LAST_MAX`] subjects match, or more bytes than the server sends at once (64 MB); read in batches instead.
    TooMany,
}

/// The last message of each of several subjects, as new as the leader has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Newest {
    /// All of them, by position, and perhaps the stream's very last message besides.
    Messages(Vec<StoredMessage>),
    /// More than [`super::MULTI_LAST_MAX`] subjects match, or more bytes than the server sends at once (64 MB); ask for fewer.
    TooMany,
    /// The replica that answered has less than the leader; ask again.
    Behind,
}

impl At<'_> {
    pub(super) fn request(&self) -> Result<Value, ApiError> {
        Ok(match self {
            Self::Sequence(sequence) => json!({ "seq": sequence }),
            Self::Last(subject) => json!({ "last_by_subj": some_subject(subject)? }),
            Self::Next { from, subject } => json!({ "seq": from, "next_by_subj": some_subject(subject)? }),
        })
    }
}

/// The server takes an empty filter for "all"; nobody here means that.
pub(super) fn some_subject(subject: &str) -> Result<&str, ApiError> {
    if subject.is_empty() {
        Err(ApiError::Client("an empty subject as a filter".to_owned()))
    } else {
        Ok(subject)
    }
}
