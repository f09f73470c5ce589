//! Atomic batches (ADR-50): several messages of one stream, stored together or not at all.
//!
//! Works inside the stream's account and through service imports alike: only the last message carries a reply
//! subject, and the answer to it decides.

use async_nats::{HeaderMap, Request};
use bytes::Bytes;

use super::ack::{self, PubAck};
use super::{JetStream, PublishError, connected};

/// Messages the server takes in one batch.
pub const BATCH_MAX: usize = 1_000;

/// A message to be stored.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where to; must be bound to a stream.
    pub subject: String,
    /// Its headers, e.g. `Nats-Msg-Id`.
    pub headers: HeaderMap,
    /// Its body.
    pub payload: Bytes,
}

impl JetStream {
    /// Stores messages of one stream together: all or none. At least 1, at most [`BATCH_MAX`].
    ///
    /// Compare-and-set headers are checked at the end; only one message per subject may carry one.
    ///
    /// # Errors
    /// `Refused`: nothing is stored (10071: compare failed; 10201: an id was stored before; 10174 to 10179: the
    /// stream takes no batches, or a message of this one was lost). `Timeout`: all or nothing is stored, but which is
    /// unknown; read back before going on. `NoResponders`: nothing is stored, for example because there is no connection.
    ///
    /// # Cancel safety
    /// Dropped, it is as after a time-out; a batch without its end is forgotten by the server after 10 s.
    pub async fn publish_batch(&self, messages: Vec<Outgoing>) -> Result<PubAck, PublishError> {
        let count = messages.len();
        if count == 0 || count > BATCH_MAX {
            return Err(PublishError::Client(format!(
                "a batch of {count} messages; 1 to {BATCH_MAX} are possible"
            )));
        }
        tokio::time::timeout(self.batch_timeout(), self.send_batch(messages)).await?
    }

    async fn send_batch(&self, messages: Vec<Outgoing>) -> Result<PubAck, PublishError> {
        let (id, count) = (self.unique(), messages.len());
        for (
            sequence,
            Outgoing {
                subject,
                mut headers,
                payload,
            },
        ) in (1..=count).zip(messages)
        {
            connected(&self.client)?;
            headers.insert("Nats-Batch-Id", id.as_str());
            headers.insert("Nats-Batch-Sequence", sequence.to_string().as_str());
            if sequence < count {
                let sent = self.client.publish_with_headers(subject, headers, payload).await;
                sent.map_err(|error| PublishError::Client(error.to_string()))?;
                continue;
            }
            headers.insert("Nats-Batch-Commit", "1");
            let request = Request::new().headers(headers).payload(payload).timeout(None);
            return ack::read(&self.client.send_request(subject, request).await?);
        }
        Err(PublishError::Client("a batch without an end".to_owned()))
    }
}
