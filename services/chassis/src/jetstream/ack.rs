//! The acknowledgement of a publish.

use async_nats::{Message, StatusCode};
use serde::Deserialize;

use super::{PublishError, Refusal};

/// The server has stored the message (or the whole batch).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PubAck {
    /// The stream.
    pub stream: String,
    /// Position of the message; of a batch, of its last message.
    pub seq: u64,
    /// The same `Nats-Msg-Id` was stored before, at `seq`; nothing was stored now.
    pub duplicate: bool,
    /// Messages stored by a batch; 0 for a single publish.
    pub batch_count: u64,
}

#[derive(Deserialize)]
struct Answer {
    error: Option<Refusal>,
    #[serde(default)]
    stream: String,
    seq: Option<u64>,
    #[serde(default)]
    duplicate: bool,
    #[serde(default)]
    count: u64,
}

/// Reads what came back on a publish's reply subject.
pub(super) fn read(message: &Message) -> Result<PubAck, PublishError> {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(PublishError::NoResponders);
    }
    let answer: Answer = serde_json::from_slice(&message.payload)
        .map_err(|error| PublishError::Malformed(error.to_string()))?;
    match (answer.error, answer.seq) {
        (Some(refusal), _) => Err(refusal.into()),
        (None, Some(seq)) => Ok(PubAck {
            stream: answer.stream,
            seq,
            duplicate: answer.duplicate,
            batch_count: answer.count,
        }),
        (None, None) => Err(PublishError::Malformed("neither position nor error".to_owned())),
    }
}
