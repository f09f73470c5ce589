//! What was refused, kept with its original bytes: nothing that came from a known publisher disappears.
//!
//! Keeping one never holds up an answer for more than a second; one that cannot be kept is counted and logged.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use roomcast_chassis::jetstream::{Outgoing, PubAck, PublishError, Publisher};
use roomcast_proto::ascii_json;
use roomcast_proto::ids::Tenant;
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::{self, header};

use crate::metrics::IngestMetrics;
use crate::queues::place::Place;

/// Bytes kept of a dead letter. The stream takes 128 KiB a message; the rest is for headers.
pub const KEPT_BYTES_MAX: usize = 96 * 1024;
/// On a dead letter that was cut: how many bytes the original had.
pub const ORIGINAL_BYTES: &str = "Rc-Original-Bytes";
/// What a letter takes beside what was sent, about: its headers and its place in the stream.
const OVERHEAD_BYTES: usize = 1024;
/// Characters kept of the explanation; it may quote what was sent.
const DETAIL_CHARS_MAX: usize = 1_024;
/// How long an answer may wait for its dead letters.
const WITHIN: Duration = Duration::from_secs(1);
/// How long one is tried to be kept that nobody else has: an election after a crash takes 4 s.
const NAMED_WITHIN: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Something refused.
#[derive(Debug, Clone)]
pub struct DeadLetter<'a> {
    /// Whose it is.
    pub tenant: &'a Tenant,
    /// Who sent it: a token's subject, or `nats/<user>`.
    pub publisher: &'a str,
    /// How it came: the subject, or the HTTP path.
    pub origin: &'a str,
    /// Why it was refused.
    pub refusal: &'a Refusal,
    /// What was sent; for an element of a batch, the element.
    pub bytes: Bytes,
    /// How many bytes were sent, where `bytes` is only the first of them.
    pub original_bytes: usize,
}

/// Whether refusals of this kind are kept. Those that a repeat mends are not, nor those by rate or quota: the publisher still
/// has the event, and a flood must not become a flood of dead letters.
#[must_use]
pub fn is_kept(code: Code) -> bool {
    !code.temporary() && code != Code::Limit
}

/// Bytes that the letter of something so large takes, about.
#[must_use]
pub fn letter_bytes(sent: usize) -> usize {
    sent.min(KEPT_BYTES_MAX) + OVERHEAD_BYTES
}

impl DeadLetter<'_> {
    /// The message.
    #[must_use]
    pub fn outgoing(&self) -> Outgoing {
        let mut headers = HeaderMap::new();
        let detail: String = self.refusal.detail.chars().take(DETAIL_CHARS_MAX).collect();
        headers.insert(header::REASON, self.refusal.code.as_str());
        headers.insert(header::DETAIL, ascii_json(&detail).as_str());
        headers.insert(header::ORIGIN, ascii_json(self.origin).as_str());
        headers.insert(header::PUBLISHER, ascii_json(self.publisher).as_str());
        let kept = self.bytes.slice(..self.bytes.len().min(KEPT_BYTES_MAX));
        let original = self.original_bytes.max(self.bytes.len());
        if kept.len() < original {
            headers.insert(ORIGINAL_BYTES, original.to_string().as_str());
        }
        Outgoing {
            subject: subject::dead_letter(self.tenant, self.refusal.code),
            headers,
            payload: kept,
        }
    }
}

/// Keeps dead letters. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    publisher: Publisher,
    metrics: IngestMetrics,
}

impl DeadLetters {
    /// `publisher` should be one of its own, so that a full window of events does not keep dead letters out.
    #[must_use]
    pub fn new(publisher: Publisher, metrics: IngestMetrics) -> Self {
        Self { publisher, metrics }
    }

    /// Keeps them all, within a second. What could not be kept is counted.
    ///
    /// # Cancel safety
    /// Dropped, those not yet acknowledged may or may not be kept, and are not counted.
    pub async fn keep(&self, letters: Vec<DeadLetter<'_>>) {
        let keep = letters.iter().map(|letter| self.keep_one(letter));
        futures_util::future::join_all(keep).await;
    }

    /// Keeps one that waited in a queue, under the name of its place: kept twice within the stream's window, it is one. Whether it is kept.
    ///
    /// # Cancel safety
    /// Dropped, it may be kept.
    pub async fn keep_surely(&self, letter: &DeadLetter<'_>, place: &Place) -> bool {
        let mut message = letter.outgoing();
        let place = place.to_string();
        message.headers.insert(header::MSG_ID, place.as_str());
        message.headers.insert(header::QUEUED, place.as_str());
        self.acknowledged(message, letter.refusal.code).await
    }

    /// Keeps one that nobody would send again, trying for 5 s. The same name within the stream's window is the same letter. Whether it is
    /// kept.
    ///
    /// # Cancel safety
    /// Dropped, it may be kept.
    pub async fn keep_named(&self, letter: &DeadLetter<'_>, name: &str) -> bool {
        let keep = async {
            let mut message = letter.outgoing();
            message.headers.insert(header::MSG_ID, name);
            while !self.acknowledged(message.clone(), letter.refusal.code).await {
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(NAMED_WITHIN, keep).await.is_ok()
    }

    /// Whether a named letter is in the stream now; counted once.
    async fn acknowledged(&self, message: Outgoing, code: Code) -> bool {
        match tokio::time::timeout(WITHIN, self.publish(message)).await {
            Ok(Ok(acknowledged)) => {
                if !acknowledged.duplicate {
                    self.metrics.dead_letter(code);
                }
                true
            }
            other => {
                tracing::debug!(?other, "a dead letter is not kept yet: {other:?}");
                false
            }
        }
    }

    async fn publish(&self, message: Outgoing) -> Result<PubAck, PublishError> {
        self.publisher.send(message).await?.acknowledged().await
    }

    async fn keep_one(&self, letter: &DeadLetter<'_>) {
        let publish = async {
            loop {
                let kept = self.publish(letter.outgoing()).await;
                // The connection may be back in a moment, and nothing was sent.
                if kept != Err(PublishError::NoResponders) {
                    return kept;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        let reason = match tokio::time::timeout(WITHIN, publish).await {
            Ok(Ok(_)) => return self.metrics.dead_letter(letter.refusal.code),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no acknowledgement in time".to_owned(),
        };
        self.lost(letter, &reason);
    }

    /// One that is not kept, and will not be.
    pub fn lost(&self, letter: &DeadLetter<'_>, reason: &str) {
        self.metrics.dead_letters_lost.inc();
        tracing::error!(
            tenant = %letter.tenant,
            code = %letter.refusal.code,
            "a refused event ({}) could not be kept as a dead letter: {reason}",
            letter.refusal.code
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_carry_reason_and_bytes_and_are_bounded() {
        let refusal = Refusal::new(Code::BadRoom, "é\r\nNats-Msg-Id: x").at("/room");
        let tenant = Tenant::default();
        let letter = |bytes: &[u8], original_bytes| DeadLetter {
            tenant: &tenant,
            publisher: "nats/erp",
            origin: "in.main.a.all",
            refusal: &refusal,
            bytes: Bytes::copy_from_slice(bytes),
            original_bytes,
        };
        let outgoing = letter(b"\xff{", 2).outgoing();
        assert_eq!(outgoing.subject, "dlq.main.bad_room");
        assert_eq!(outgoing.payload.as_ref(), b"\xff{");
        let text = |name: &str| {
            outgoing
                .headers
                .get_last(name)
                .map(|value| value.as_str().to_owned())
        };
        assert_eq!(text("Rc-Reason").as_deref(), Some("bad_room"));
        assert_eq!(
            text("Rc-Detail").as_deref(),
            Some("\"\\u00e9\\r\\nNats-Msg-Id: x\"")
        );
        assert_eq!(text("Rc-Publisher").as_deref(), Some("\"nats/erp\""));
        assert_eq!(text(ORIGINAL_BYTES), None);
        let cut = letter(&vec![b'x'; KEPT_BYTES_MAX + 1], 0).outgoing();
        assert_eq!(cut.payload.len(), KEPT_BYTES_MAX);
        assert_eq!(
            cut.headers.get_last(ORIGINAL_BYTES).map(|v| v.as_str()),
            Some("98305")
        );
    }

    #[test]
    fn what_a_repeat_mends_is_not_kept() {
        for (code, kept) in [
            (Code::Forbidden, true),
            (Code::BadJson, true),
            (Code::Conflict, true),
            (Code::Late, true),
            (Code::TooManyKeys, true),
            (Code::Rate, false),
            (Code::Quota, false),
            (Code::Limit, false),
            (Code::Unavailable, false),
            (Code::Unknown, false),
        ] {
            assert_eq!(is_kept(code), kept, "{code}");
        }
    }
}
