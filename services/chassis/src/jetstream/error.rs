//! What JetStream calls can answer instead of a result, and whether asking again may help.

use async_nats::{RequestErrorKind, client::RequestError};
use serde::Deserialize;
use tokio::time::error::Elapsed;

/// JetStream's `err_code`s that decisions depend on.
pub mod code {
    /// Maximum of servers, memory or disk reached for now.
    pub const INSUFFICIENT_RESOURCES: u64 = 10_023;
    /// JetStream is not available at the moment (no leader).
    pub const NOT_AVAILABLE: u64 = 10_008;
    /// No message at that position.
    pub const NO_MESSAGE: u64 = 10_037;
    /// No message at this position, said to whoever would take it away.
    pub const NO_SEQUENCE: u64 = 10_043;
    /// The store took the message not; why is in the description alone.
    pub const STORE_FAILED: u64 = 10_077;
    /// No such stream.
    pub const NO_STREAM: u64 = 10_059;
    /// The name is in use with another configuration.
    pub const STREAM_NAME_IN_USE: u64 = 10_058;
    /// Compare-and-set failed: somebody else wrote.
    pub const WRONG_LAST_SEQUENCE: u64 = 10_071;
    /// The same, said by a cluster while another write of the subject is on its way.
    pub const WRONG_LAST_SEQUENCE_IN_PROCESS: u64 = 10_164;
    /// The same id is being stored at this moment by another request.
    pub const DUPLICATE_IN_PROCESS: u64 = 10_158;
    /// The stream has too many requests waiting.
    pub const TOO_MANY_REQUESTS: u64 = 10_167;
    /// An atomic batch holds an id that was stored before.
    pub const BATCH_DUPLICATE: u64 = 10_201;
}

/// What the server said no with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{description} ({code}, {err_code})")]
pub struct Refusal {
    /// Class, like an HTTP status: 400, 404, 503 …
    pub code: u16,
    /// JetStream's own number; see [`code`].
    #[serde(default)]
    pub err_code: u64,
    /// The server's words.
    #[serde(default)]
    pub description: String,
}

impl Refusal {
    /// Whether the same request may succeed later unchanged.
    #[must_use]
    pub fn retryable(&self) -> bool {
        use code::{DUPLICATE_IN_PROCESS, INSUFFICIENT_RESOURCES, NOT_AVAILABLE, TOO_MANY_REQUESTS};
        self.code == 503
            || matches!(
                self.err_code,
                NOT_AVAILABLE | INSUFFICIENT_RESOURCES | DUPLICATE_IN_PROCESS | TOO_MANY_REQUESTS
            )
    }

    /// Whether the stream has as many bytes or messages as it may have and forgets none for new ones.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let said = self.description.as_str();
        self.err_code == code::STORE_FAILED
            && matches!(said, "maximum bytes exceeded" | "maximum messages exceeded")
    }
}

/// Why a call of the JetStream API has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// No answer in time, or not the whole of one; for a call that changes something the outcome is unknown.
    #[error("no answer from JetStream in time")]
    Timeout,
    /// Nobody listens: no JetStream, no leader, or an account without the import.
    #[error("nobody answers for JetStream")]
    NoResponders,
    /// The server refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The answer cannot be read.
    #[error("JetStream answered what cannot be read: {0}")]
    Malformed(String),
    /// The request could not be sent, or must not be: an empty filter, a closed connection.
    #[error("the request could not be sent: {0}")]
    Client(String),
}

impl ApiError {
    /// Whether the same call may succeed later unchanged.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Timeout | Self::NoResponders => true,
            Self::Refused(refusal) => refusal.retryable(),
            Self::Malformed(_) | Self::Client(_) => false,
        }
    }

    /// The server's `err_code`, where it refused.
    #[must_use]
    pub fn err_code(&self) -> Option<u64> {
        match self {
            Self::Refused(refusal) => Some(refusal.err_code),
            _ => None,
        }
    }
}

impl From<Elapsed> for ApiError {
    fn from(_: Elapsed) -> Self {
        Self::Timeout
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        match error.kind() {
            RequestErrorKind::TimedOut => Self::Timeout,
            RequestErrorKind::NoResponders => Self::NoResponders,
            _ => Self::Client(error.to_string()),
        }
    }
}

/// Why a publish has no good acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// No acknowledgement in time. Stored or not is unknown: send the same id again.
    #[error("no acknowledgement in time")]
    Timeout,
    /// Nothing is stored: no stream listens on the subject, it has no leader just now, or there is no connection.
    #[error("no stream can be reached for the message")]
    NoResponders,
    /// The server refused; nothing is stored.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The acknowledgement cannot be read: somebody other than JetStream answered.
    #[error("the acknowledgement cannot be read: {0}")]
    Malformed(String),
    /// It could not be sent: too large, a malformed subject, a closed connection.
    #[error("it could not be sent: {0}")]
    Client(String),
}

impl PublishError {
    /// Whether the same message with the same id may be stored if sent again.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Timeout | Self::NoResponders => true,
            Self::Refused(refusal) => refusal.retryable(),
            Self::Malformed(_) | Self::Client(_) => false,
        }
    }

    /// The server's `err_code`, where it refused.
    #[must_use]
    pub fn err_code(&self) -> Option<u64> {
        match self {
            Self::Refused(refusal) => Some(refusal.err_code),
            _ => None,
        }
    }

    /// A closed set of words, for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::NoResponders => "no_responders",
            Self::Refused(_) => "refused",
            Self::Malformed(_) => "malformed",
            Self::Client(_) => "client",
        }
    }
}

impl From<Elapsed> for PublishError {
    fn from(_: Elapsed) -> Self {
        Self::Timeout
    }
}

impl From<RequestError> for PublishError {
    fn from(error: RequestError) -> Self {
        match error.kind() {
            RequestErrorKind::TimedOut => Self::Timeout,
            RequestErrorKind::NoResponders => Self::NoResponders,
            _ => Self::Client(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(class: u16, err_code: u64, retryable: bool) {
        let refusal = Refusal {
            code: class,
            err_code,
            description: String::new(),
        };
        assert_eq!(refusal.retryable(), retryable, "{class} {err_code}");
        assert_eq!(PublishError::Refused(refusal.clone()).retryable(), retryable);
        assert_eq!(ApiError::Refused(refusal).retryable(), retryable);
    }

    #[test]
    fn what_may_be_tried_again() {
        check(503, code::STORE_FAILED, true);
        check(503, code::NOT_AVAILABLE, true);
        check(503, code::INSUFFICIENT_RESOURCES, true);
        check(409, code::DUPLICATE_IN_PROCESS, true);
        check(429, code::TOO_MANY_REQUESTS, true);
        check(400, code::WRONG_LAST_SEQUENCE, false);
        check(400, code::BATCH_DUPLICATE, false);
        check(404, code::NO_STREAM, false);
        check(400, 10_054, false);
        assert!(PublishError::Timeout.retryable() && PublishError::NoResponders.retryable());
        assert!(!PublishError::Malformed(String::new()).retryable());
        assert!(!PublishError::Client(String::new()).retryable());
    }
}
