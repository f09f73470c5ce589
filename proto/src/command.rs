//! Commands between gateways, ingest and backends: what a gateway asks of `svc.….commands`, what it sends to a backend, and their
//! bounds. The key is claimed before a backend is asked, so that a repeat at any gateway finds what the first one began.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Longest idempotency key, bytes.
pub const KEY_BYTES_MAX: usize = 128;
/// Largest result of a command, bytes of JSON.
pub const RESULT_BYTES_MAX: usize = 64 * 1024;
/// How long a key and its result are kept.
pub const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long a client waits when it does not say.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// The longest a client may wait, and how long a gateway listens for a late result in any case.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// Headers of the request that a backend gets.
pub mod header {
    /// Names the command for ever: a handler that has done it before gives the same answer and does nothing.
    pub const ID: &str = "Roomcast-Command-Id";
    /// Who sent it: the token's subject, a JSON string in ASCII.
    pub const USER: &str = "Roomcast-User";
    /// The user's roles by the policy's names, a JSON array of strings in ASCII.
    pub const ROLES: &str = "Roomcast-Roles";
    /// Set by a handler that failed (the convention of NATS services): nothing is kept, asking again asks it again.
    pub const FAILED: &str = "Nats-Service-Error-Code";
}

/// The verbs of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Claims a key: [`Claim`] to [`Claimed`], or `conflict`.
    Claim,
    /// Keeps a result: [`Finish`] to [`Finished`].
    Finish,
    /// Gives a claim back, because no backend was asked: [`Release`] to [`Released`].
    Release,
}

impl Verb {
    /// All of them.
    pub const ALL: [Verb; 3] = [Verb::Claim, Verb::Finish, Verb::Release];

    /// The token in the subject.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Claim => "claim",
            Verb::Finish => "finish",
            Verb::Release => "release",
        }
    }

    /// The verb with this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Verb> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == name)
    }
}

/// One command of one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The token's subject.
    pub user: String,
    /// The command's name, as the policy has it.
    pub name: String,
    /// The client's idempotency key.
    pub key: String,
    /// [`content_hash`] of its data.
    pub hash: String,
}

/// What a claim gave.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Claimed {
    /// Nobody has asked a backend with this key: ask, with this command id.
    New(String),
    /// Somebody may have asked and no result is kept: ask again, with the same command id.
    Again(String),
    /// It was done.
    Done(Outcome),
}

/// How a command ended, for everybody who asks with its key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// The backend's answer, JSON.
    Data(Box<RawValue>),
    /// It was done and its answer was larger than [`RESULT_BYTES_MAX`].
    TooLarge,
}

/// A backend has answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finish {
    /// The command.
    pub claim: Claim,
    /// The id it was sent with.
    pub id: String,
    /// The answer.
    pub outcome: Outcome,
}

/// What is kept now: of several answers to one command the first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finished {
    /// For this gateway's client, too.
    pub outcome: Outcome,
}

/// No backend was there to be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The command.
    pub claim: Claim,
    /// The id it would have been sent with.
    pub id: String,
}

/// Whether the claim is gone: nobody else has asked with its key meanwhile, so certainly nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Released {
    /// It is.
    pub released: bool,
}

/// Digest of a command's data as the client wrote it: tells a repeat from a conflict.
#[must_use]
pub fn content_hash(data: &[u8]) -> String {
    let sum = digest::digest(&digest::SHA256, data);
    let mut text = URL_SAFE_NO_PAD.encode(sum.as_ref());
    text.truncate(22);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_the_documented_ones() {
        let rows = [
            (
                serde_json::to_string(&Claimed::New("i".into())).unwrap(),
                r#"{"new":"i"}"#,
            ),
            (
                serde_json::to_string(&Claimed::Again("i".into())).unwrap(),
                r#"{"again":"i"}"#,
            ),
            (
                serde_json::to_string(&Claimed::Done(Outcome::TooLarge)).unwrap(),
                r#"{"done":"too_large"}"#,
            ),
        ];
        for (made, expected) in rows {
            assert_eq!(made, expected);
            assert_eq!(
                serde_json::to_string(&serde_json::from_str::<Claimed>(expected).unwrap()).unwrap(),
                expected
            );
        }
        // The answer's own text, to the byte.
        let text = r#"{"done":{"data":{"b":1.50, "a":[ ]}}}"#;
        let read: Claimed = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        for verb in Verb::ALL {
            assert_eq!(Verb::of_name(verb.as_str()), Some(verb));
        }
    }

    #[test]
    fn content_is_told_apart_to_the_byte() {
        assert_eq!(content_hash(b"{}"), content_hash(b"{}"));
        assert_ne!(content_hash(b"{}"), content_hash(b"{ }"));
        assert_eq!(content_hash(b"").len(), 22);
    }
}
