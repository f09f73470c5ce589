//! Reads back what a publisher has stored since the oldest message of its queue could have been sent the first time.

use std::time::Duration;

use async_nats::HeaderValue;
use roomcast_chassis::jetstream::{ApiError, At, Batch, JetStream, StoredMessage};
use roomcast_proto::ascii_json;
use roomcast_proto::limits::{DEDUP_SAFETY, DEDUP_WINDOW};
use roomcast_proto::subject::{header, stream as names};

use super::known::Known;
use super::place::Place;

/// Messages of one read.
const BATCH: usize = 256;
/// Bytes of one read, about.
const BATCH_BYTES: usize = 4 << 20;
/// By how much the clocks of two nodes may differ.
const CLOCKS: Duration = Duration::from_secs(10);

/// What `publisher` has stored, and what of its queue is kept as dead letters, since a repeat of what was queued at `head_micros` may have
/// been stored.
///
/// Costs a read of everything all publishers have stored since then. It happens where a drain is more than 15 s behind, and once.
///
/// # Errors
/// A stream cannot be read to its end; ask again.
///
/// # Cancel safety
/// Safe.
pub async fn look_back(jetstream: &JetStream, publisher: &str, head_micros: i64) -> Result<Known, ApiError> {
    let publisher = ascii_json(publisher);
    let repeat = DEDUP_WINDOW.saturating_sub(DEDUP_SAFETY) + CLOCKS;
    let since = head_micros.saturating_sub(i64::try_from(repeat.as_micros()).unwrap_or(i64::MAX));
    let mut known = Known::default();
    read_since(jetstream, names::EVENTS, since, |message| {
        let (by, id) = (text(message, header::PUBLISHER), text(message, header::MSG_ID));
        if by == Some(publisher.as_str()) {
            known.stored(id.unwrap_or_default(), message.sequence);
        }
    })
    .await?;
    read_since(jetstream, names::DLQ, since, |message| {
        if let Some(place) = text(message, header::QUEUED).and_then(Place::parse) {
            known.kept(place);
        }
    })
    .await?;
    Ok(known)
}

/// Reads what was stored at or after an instant, up to what is there when it begins.
async fn read_since(
    jetstream: &JetStream,
    stream: &str,
    since_micros: i64,
    mut each: impl FnMut(&StoredMessage),
) -> Result<(), ApiError> {
    let Some(info) = jetstream.stream_info(stream).await? else {
        return Ok(());
    };
    let (end, mut next) = (info.state.last_seq, 0);
    if end == 0 {
        return Ok(());
    }
    loop {
        let Batch { messages, pending } = match next {
            0 => jetstream.direct_since(stream, since_micros, BATCH).await?,
            next => jetstream.direct_portion(stream, next, BATCH, BATCH_BYTES).await?,
        };
        messages.iter().for_each(&mut each);
        next = messages.last().map_or(next, |last| last.sequence + 1);
        if next > end {
            return Ok(());
        }
        if pending == 0 || messages.is_empty() {
            break;
        }
    }
    // The replica that answered says that this is all. Its leader knows more where it is behind.
    match jetstream.message(stream, At::Sequence(end)).await? {
        Some(last) if last.time_micros >= since_micros => Err(ApiError::Timeout),
        _ => Ok(()),
    }
}

/// A header that counts.
pub(super) fn text<'a>(message: &'a StoredMessage, name: &str) -> Option<&'a str> {
    message.headers.get_last(name).map(HeaderValue::as_str)
}
