//! The one writer of key-value buckets: read from the leader, decide, write where nobody else has written meanwhile.
//!
//! Every write names the revision it was decided on and carries an id of its own. An answer that does not come is no answer: the same
//! write is sent again, and where the server then says that the key has moved on, the key is read back; if it carries the write's id,
//! it was written. So a caller hears "written", "not written" or, when nobody can tell any more, "unknown", and never a guess.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use roomcast_chassis::jetstream::{ACK_TIMEOUT, ApiError, At, JetStream, PublishError, StoredMessage, code};
use roomcast_proto::ids::new_event_id;
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::header;

use crate::error::{RETRY_AFTER_MS, unavailable};
use crate::metrics::IngestMetrics;

/// Attempts of one write or read. With the pauses between them they outlast a leader that steps down (0.1 s) and most elections.
const ATTEMPTS: u32 = 6;
/// The pause after the first attempt; it doubles: 1.55 s in all.
const PAUSE: Duration = Duration::from_millis(50);
/// How often a decision is made anew because others wrote. Each lost round means that somebody else's write was stored.
const ROUNDS_MAX: u32 = 32;
/// What a deleted key leaves behind is gone after this, unless more is asked for: as long as the stream finds repeated ids.
const MARKER_TTL: Duration = Duration::from_secs(120);
/// On a key's last message: it is deleted.
const DELETED: &str = "DEL";
/// The same, said by an operator's tool that took all earlier values with it.
const PURGED: &str = "PURGE";

/// One bucket. Cheap to clone.
#[derive(Clone, Debug)]
pub struct KeyValue {
    jetstream: JetStream,
    stream: &'static str,
    marker_ttl: Duration,
    metrics: IngestMetrics,
}

/// What is to become of a key, and what the caller hears when it has.
#[derive(Debug)]
pub enum Decision<T> {
    /// Nothing is written.
    Keep(T),
    /// The key gets this value.
    Set {
        /// The value.
        value: Bytes,
        /// How long it is kept; `None`: for ever. Whole seconds, rounded up.
        ttl: Option<Duration>,
        /// What the caller hears.
        outcome: T,
    },
    /// The key goes.
    Delete(T),
}

/// Why there is no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyValueError {
    /// Nothing was written; the bucket cannot be reached, or others wrote again and again. Ask again.
    #[error("nothing was written: {0}")]
    Unavailable(String),
    /// It was written or not, and nobody answers who could tell. Ask again: a decision on what is there then is right.
    #[error("whether it was written is unknown")]
    Unknown,
    /// The value is larger than the bucket takes; nothing was written.
    #[error("the value is larger than the bucket takes")]
    TooLarge,
    /// The server refused for a reason that asking again does not mend; nothing was written.
    #[error("the bucket refused: {0}")]
    Refused(String),
}

impl KeyValueError {
    /// What whoever asked is told.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Unavailable(_) => unavailable("the bucket cannot be written at the moment"),
            Self::Unknown => Refusal::new(Code::Unknown, "it is not known whether it was kept; ask again")
                .retry_after_ms(RETRY_AFTER_MS),
            Self::TooLarge => Refusal::new(Code::TooLarge, "larger than what is kept"),
            Self::Refused(reason) => {
                tracing::error!(%reason, "a bucket refused a write: {reason}");
                Refusal::new(Code::Internal, "the bucket refused the write").retry_after_ms(RETRY_AFTER_MS)
            }
        }
    }
}

/// A key as the leader has it.
#[derive(Debug, Default)]
struct Held {
    /// What a write must compare with; 0: the key was never written, or nothing of it is left.
    revision: u64,
    /// `None`: there is none, or it is deleted.
    value: Option<Bytes>,
    /// The id of the write that made it.
    write: Option<String>,
}

impl From<StoredMessage> for Held {
    fn from(message: StoredMessage) -> Self {
        let text = |name| message.headers.get_last(name).map(|value| value.as_str());
        let deleted = matches!(text(header::KV_OPERATION), Some(DELETED | PURGED));
        Self {
            revision: message.sequence,
            write: text(header::MSG_ID).map(str::to_owned),
            value: (!deleted).then_some(message.payload),
        }
    }
}

/// How one attempt to write went.
enum Attempt {
    Written,
    /// Somebody else has written, or this very write has arrived by an earlier attempt.
    Moved,
    /// No answer.
    Silent,
    /// Not written, ask again.
    Later(String),
    /// Not written, and it never will be.
    Never(KeyValueError),
}

impl KeyValue {
    /// The bucket behind `stream`.
    #[must_use]
    pub fn new(jetstream: JetStream, stream: &'static str, metrics: IngestMetrics) -> Self {
        Self {
            jetstream,
            stream,
            marker_ttl: MARKER_TTL,
            metrics,
        }
    }

    /// The same bucket, where the mark that a key is gone is kept longer: for readers that may be away for longer. Whole seconds.
    #[must_use]
    pub fn marking_for(mut self, ttl: Duration) -> Self {
        self.marker_ttl = ttl;
        self
    }

    /// The value of a key, read from the leader.
    ///
    /// # Errors
    /// `Unavailable`.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn read(&self, key: &str) -> Result<Option<Bytes>, KeyValueError> {
        Ok(self.held(key).await?.value)
    }

    /// Changes a key by a decision about its value (`None`: absent or deleted), made anew as often as somebody else wrote meanwhile,
    /// at most 32 times.
    ///
    /// A decision may see its own effect: where a write of ours was stored, unacknowledged, and replaced by somebody else's that was
    /// decided on it. It has to be right then, too; claims that name their maker, and maxima, are.
    ///
    /// # Errors
    /// See [`KeyValueError`].
    ///
    /// # Cancel safety
    /// Dropped, it is as with `Unknown`.
    pub async fn update<T>(
        &self,
        key: &str,
        mut decide: impl FnMut(Option<&Bytes>) -> Decision<T>,
    ) -> Result<T, KeyValueError> {
        for round in 0..ROUNDS_MAX {
            if round > 0 {
                self.metrics.key_value(self.stream, "raced");
                // Who lost to a crowd steps back a little, each by another time.
                tokio::time::sleep(jitter(Duration::from_millis(u64::from(round).min(8)))).await;
            }
            let held = self.held(key).await?;
            let (value, ttl, outcome) = match decide(held.value.as_ref()) {
                Decision::Keep(outcome) => {
                    self.metrics.key_value(self.stream, "kept");
                    return Ok(outcome);
                }
                Decision::Set { value, ttl, outcome } => (Some(value), ttl, outcome),
                Decision::Delete(outcome) => (None, Some(self.marker_ttl), outcome),
            };
            if self.write(key, held.revision, value, ttl).await? {
                self.metrics.key_value(self.stream, "written");
                return Ok(outcome);
            }
        }
        self.metrics.key_value(self.stream, "unavailable");
        Err(KeyValueError::Unavailable(
            "others wrote the key again and again".to_owned(),
        ))
    }

    /// Writes where the key still has this revision; `false`: somebody else was faster, and nothing of ours was written.
    async fn write(
        &self,
        key: &str,
        revision: u64,
        value: Option<Bytes>,
        ttl: Option<Duration>,
    ) -> Result<bool, KeyValueError> {
        let id = new_event_id();
        let headers = headers(&id, revision, value.is_none(), ttl);
        let value = value.unwrap_or_default();
        let (mut perhaps, mut last) = (false, String::new());
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(jitter(PAUSE * 2_u32.pow(attempt - 1))).await;
            }
            let sent = self
                .jetstream
                .publish(key, headers.clone(), value.clone(), ACK_TIMEOUT);
            match judge(sent.await) {
                Attempt::Written => return Ok(true),
                Attempt::Moved if !perhaps => return Ok(false),
                // Moved on by somebody else, or by this very write, whose answer was lost.
                Attempt::Moved => match self.held(key).await {
                    Ok(held) if held.write.as_deref() == Some(&id) => {
                        self.metrics.key_value(self.stream, "resolved");
                        return Ok(true);
                    }
                    Ok(held) if held.revision != revision => return Ok(false),
                    // A cluster says so while a write is on its way: it may be an earlier attempt of ours.
                    Ok(_) | Err(_) => {}
                },
                Attempt::Silent => perhaps = true,
                Attempt::Later(reason) => last = reason,
                Attempt::Never(error) if !perhaps => return Err(error),
                Attempt::Never(_) => {}
            }
        }
        if !perhaps {
            self.metrics.key_value(self.stream, "unavailable");
            return Err(KeyValueError::Unavailable(last));
        }
        // The attempts may all have been lost, or one may still be on its way: only our id proves anything.
        if self
            .held(key)
            .await
            .is_ok_and(|held| held.write.as_deref() == Some(&id))
        {
            self.metrics.key_value(self.stream, "resolved");
            return Ok(true);
        }
        self.metrics.key_value(self.stream, "unknown");
        Err(KeyValueError::Unknown)
    }

    /// The key as the leader has it. A replica could be behind, and a decision on what was would only lose the comparison.
    async fn held(&self, key: &str) -> Result<Held, KeyValueError> {
        let mut last = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(jitter(PAUSE * 2_u32.pow(attempt - 1))).await;
            }
            match self.jetstream.message(self.stream, At::Last(key)).await {
                Ok(found) => return Ok(found.map(Held::from).unwrap_or_default()),
                Err(error) if error.retryable() => last = error.to_string(),
                Err(error @ (ApiError::Malformed(_) | ApiError::Client(_) | ApiError::Refused(_))) => {
                    return Err(KeyValueError::Refused(error.to_string()));
                }
                Err(error) => last = error.to_string(),
            }
        }
        self.metrics.key_value(self.stream, "unavailable");
        Err(KeyValueError::Unavailable(last))
    }
}

fn headers(id: &str, revision: u64, delete: bool, ttl: Option<Duration>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::MSG_ID, id);
    headers.insert(
        header::EXPECTED_LAST_SUBJECT_SEQUENCE,
        revision.to_string().as_str(),
    );
    if delete {
        headers.insert(header::KV_OPERATION, DELETED);
    }
    if let Some(ttl) = ttl {
        let secs = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        headers.insert(header::TTL, secs.max(1).to_string().as_str());
    }
    headers
}

fn judge<T>(sent: Result<T, PublishError>) -> Attempt {
    /// Larger than the stream takes.
    const MESSAGE_TOO_LARGE: u64 = 10_054;
    let error = match sent {
        Ok(_) => return Attempt::Written,
        Err(error) => error,
    };
    match error.err_code() {
        Some(code::WRONG_LAST_SEQUENCE | code::WRONG_LAST_SEQUENCE_IN_PROCESS) => Attempt::Moved,
        Some(MESSAGE_TOO_LARGE) => Attempt::Never(KeyValueError::TooLarge),
        _ => match &error {
            PublishError::Timeout | PublishError::Malformed(_) => Attempt::Silent,
            error if error.retryable() => Attempt::Later(error.to_string()),
            PublishError::Client(reason) => Attempt::Later(reason.clone()),
            error => Attempt::Never(KeyValueError::Refused(error.to_string())),
        },
    }
}

/// Half of `pause` to all of it.
fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use roomcast_chassis::jetstream;

    use super::*;

    #[test]
    fn every_answer_has_its_meaning() {
        let refused = |code, err_code| {
            PublishError::Refused(jetstream::Refusal {
                code,
                err_code,
                description: "no".into(),
            })
        };
        let name = |attempt| match attempt {
            Attempt::Written => "written",
            Attempt::Moved => "moved",
            Attempt::Silent => "silent",
            Attempt::Later(_) => "later",
            Attempt::Never(KeyValueError::TooLarge) => "too large",
            Attempt::Never(_) => "never",
        };
        let rows = [
            (Ok(()), "written"),
            (Err(refused(400, 10_071)), "moved"),
            (Err(refused(400, 10_164)), "moved"),
            (Err(refused(400, 10_054)), "too large"),
            (Err(refused(503, 10_077)), "later"),
            (Err(refused(409, 10_158)), "later"),
            (Err(refused(400, 10_060)), "never"),
            (Err(PublishError::Timeout), "silent"),
            // Somebody answered who is no stream: what became of the message is not known.
            (Err(PublishError::Malformed(String::new())), "silent"),
            (Err(PublishError::NoResponders), "later"),
            (Err(PublishError::Client("closed".into())), "later"),
        ];
        for (sent, expected) in rows {
            let said = format!("{sent:?}");
            assert_eq!(name(judge(sent)), expected, "{said}");
        }
    }

    #[test]
    fn a_write_says_what_it_was_decided_on_and_how_long_it_lives() {
        let text = |headers: &HeaderMap, name: &str| headers.get_last(name).map(|v| v.as_str().to_owned());
        let set = headers("w1", 7, false, Some(Duration::from_millis(1_500)));
        assert_eq!(text(&set, header::MSG_ID).as_deref(), Some("w1"));
        assert_eq!(
            text(&set, header::EXPECTED_LAST_SUBJECT_SEQUENCE).as_deref(),
            Some("7")
        );
        assert_eq!(
            text(&set, header::TTL).as_deref(),
            Some("2"),
            "never shorter than asked for"
        );
        assert_eq!(text(&set, header::KV_OPERATION), None);
        let gone = headers("w2", 8, true, Some(Duration::ZERO));
        assert_eq!(text(&gone, header::KV_OPERATION).as_deref(), Some("DEL"));
        assert_eq!(text(&gone, header::TTL).as_deref(), Some("1"));
        assert_eq!(text(&headers("w3", 0, false, None), header::TTL), None);
    }

    #[test]
    fn whoever_asked_is_told_in_a_code() {
        let rows = [
            (KeyValueError::Unavailable(String::new()), Code::Unavailable),
            (KeyValueError::Unknown, Code::Unknown),
            (KeyValueError::TooLarge, Code::TooLarge),
            (KeyValueError::Refused(String::new()), Code::Internal),
        ];
        for (error, code) in rows {
            assert_eq!(error.refusal().code, code, "{error}");
        }
    }
}
