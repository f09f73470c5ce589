//! A shard's stored state: read through the leader, written as one atomic batch that compares the head.
//!
//! The comparison is all that keeps two instances apart: whoever loses it has written nothing and reads again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use roomcast_chassis::jetstream::{ApiError, At, JetStream, LastMessages, Outgoing, PublishError, code};
use roomcast_proto::subject::{header, shard_chunk, shard_head, stream};

use crate::definition::Definition;
use crate::engine::codec::Corrupt;
use crate::engine::shard::{Flush, Head};

/// Chunks asked for at once; the server answers at most 1,024.
const CHUNKS_PER_READ: usize = 500;
/// How often a read that another instance's write came in between is tried again.
const READS_MAX: usize = 20;
const READ_AGAIN: Duration = Duration::from_millis(100);
const ACK_TIMEOUT: Duration = Duration::from_secs(2);

/// Why state could not be read or written. In each case: drop what is in memory and load again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another instance has written since.
    #[error("another instance works this shard")]
    Conflict,
    /// Whether it was written is unknown.
    #[error("the outcome of a state write is unknown: {0}")]
    Unknown(PublishError),
    /// It could not be read.
    #[error("state cannot be read: {0}")]
    Read(#[from] ApiError),
    /// What was read does not fit together, again and again.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// What is stored of a shard.
#[derive(Debug)]
pub struct Stored {
    /// Position of the head; 0 where there is none.
    pub head_seq: u64,
    /// The head, and the chunks of the metrics asked for.
    pub state: Option<(Head, HashMap<String, Vec<u8>>)>,
}

/// Reads the head alone: whether there is anything left to do for a shard.
///
/// # Errors
/// As [`load`].
pub async fn head(jetstream: &JetStream, shard: u32) -> Result<Option<(u64, Head)>, StoreError> {
    let subject = shard_head(shard);
    match jetstream.message(stream::AGG, At::Last(&subject)).await? {
        Some(message) => Ok(Some((message.sequence, Head::read(&message.payload)?))),
        None => Ok(None),
    }
}

/// Reads a shard's state for these definitions, all of one moment.
///
/// # Errors
/// `Read`, or `Corrupt` for a head of another version.
pub async fn load(
    jetstream: &JetStream,
    shard: u32,
    definitions: &[Arc<Definition>],
) -> Result<Stored, StoreError> {
    for _ in 0..READS_MAX {
        let Some((head_seq, head_read)) = head(jetstream, shard).await? else {
            return Ok(Stored {
                head_seq: 0,
                state: None,
            });
        };
        let names = head_read.chunk_names(definitions);
        let chunks = read_chunks(jetstream, shard, &names).await?;
        // A write in between changed the head; a replica that lags is found by the digests when the shard is made.
        match head(jetstream, shard).await? {
            Some((again, _)) if again == head_seq => {
                return Ok(Stored {
                    head_seq,
                    state: Some((head_read, chunks)),
                });
            }
            _ => tokio::time::sleep(READ_AGAIN).await,
        }
    }
    Err(StoreError::Conflict)
}

async fn read_chunks(
    jetstream: &JetStream,
    shard: u32,
    names: &[String],
) -> Result<HashMap<String, Vec<u8>>, ApiError> {
    let subjects: HashMap<String, &String> = names
        .iter()
        .map(|name| (shard_chunk(shard, name), name))
        .collect();
    let list: Vec<&str> = subjects.keys().map(String::as_str).collect();
    let mut chunks = HashMap::with_capacity(names.len());
    for part in list.chunks(CHUNKS_PER_READ) {
        match jetstream.multi_last(stream::AGG, part, None).await? {
            LastMessages::Messages { messages, .. } => {
                for message in messages {
                    if let Some(name) = subjects.get(&message.subject) {
                        chunks.insert((*name).clone(), message.payload.to_vec());
                    }
                }
            }
            LastMessages::TooMany => {
                return Err(ApiError::Malformed("too many chunks in one read".to_owned()));
            }
        }
    }
    Ok(chunks)
}

/// Writes a flush where the head is still the one at `head_seq`. Answers the new head's position.
///
/// # Errors
/// `Conflict`: nothing was written. `Unknown`: all or nothing was.
pub async fn write(
    jetstream: &JetStream,
    shard: u32,
    flush: Flush,
    head_seq: u64,
) -> Result<u64, StoreError> {
    let mut headers = HeaderMap::new();
    headers.insert(
        header::EXPECTED_LAST_SUBJECT_SEQUENCE,
        head_seq.to_string().as_str(),
    );
    let head = Outgoing {
        subject: shard_head(shard),
        headers,
        payload: flush.head.into(),
    };
    let written = if flush.chunks.is_empty() {
        jetstream
            .publish(head.subject, head.headers, head.payload, ACK_TIMEOUT)
            .await
    } else {
        let chunks = flush.chunks.into_iter().map(|(name, bytes)| Outgoing {
            subject: shard_chunk(shard, &name),
            headers: HeaderMap::new(),
            payload: Bytes::from(bytes),
        });
        jetstream.publish_batch(chunks.chain([head]).collect()).await
    };
    match written {
        Ok(ack) => Ok(ack.seq),
        Err(error) if error.err_code() == Some(code::WRONG_LAST_SEQUENCE) => Err(StoreError::Conflict),
        Err(error) => Err(StoreError::Unknown(error)),
    }
}
