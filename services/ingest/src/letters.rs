//! Dead letters looked at and taken again: each at most once, in the name of who sent it.
//!
//! Called by the admin port. A letter is claimed under a key of its own before it is taken, as commands are; what is refused again, or
//! surely not stored, gives the claim back. Where an answer is lost the claim stays: nobody can tell, so it is never taken again by itself.
//! What is left of one that was stored in part is a letter of its own.

use std::time::Duration;

use async_nats::HeaderValue;
use bytes::Bytes;
use roomcast_chassis::jetstream::{At, JetStream, StoredMessage};
use roomcast_proto::ids::{Tenant, new_event_id};
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::{self, UNDELIVERED, header, stream};
use serde::{Deserialize, Serialize};

use crate::accept::{May, Sender};
use crate::answer::{Answer, Taken};
use crate::binary_mode;
use crate::dead_letter::ORIGINAL_BYTES;
use crate::error::unavailable;
use crate::intake::{Intake, Request, Shape};
use crate::key_value::{Decision, KeyValue};
use crate::metrics::Door;
use crate::now_micros;
use crate::trigger;

/// Letters read at once: they have up to 128 KiB each.
const BATCH: usize = 32;
/// Letters looked at for one page; the page says where to go on.
const LOOKED_AT_MAX: usize = 2_000;
/// How long a claim is kept: longer than the letter.
const CLAIM_TTL: Duration = Duration::from_secs(8 * 24 * 3_600);

/// Which letters are meant. Pure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of this tenant.
    pub tenant: Option<Tenant>,
    /// With this code of refusal.
    pub reason: Option<String>,
    /// Kept since, Unix microseconds.
    pub since_micros: Option<i64>,
    /// Kept before, Unix microseconds.
    pub until_micros: Option<i64>,
}

impl Wanted {
    fn means(&self, letter: &Letter) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| *tenant == letter.tenant)
            && self.reason.as_ref().is_none_or(|reason| *reason == letter.reason)
            && self.since_micros.is_none_or(|since| letter.time_micros >= since)
            && self.until_micros.is_none_or(|until| letter.time_micros < until)
    }
}

/// A dead letter as the stream holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Its position in the stream: its name.
    pub position: u64,
    /// When it was kept, Unix microseconds.
    pub time_micros: i64,
    /// Whose it is.
    pub tenant: Tenant,
    /// The code of the refusal.
    pub reason: String,
    /// The explanation.
    pub detail: String,
    /// Who sent it.
    pub publisher: String,
    /// The subject or path it came by.
    pub origin: String,
    /// What was sent, or its beginning.
    pub bytes: Bytes,
    /// How many bytes were sent, where that is more than were kept.
    pub original_bytes: Option<u64>,
}

impl Letter {
    /// `None`: a message that is no letter of ours.
    fn read(message: StoredMessage) -> Option<Self> {
        let text = |name: &str| message.headers.get_last(name).map(HeaderValue::as_str);
        let json = |name: &str| {
            text(name)
                .and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or_default()
        };
        let (tenant, reason) = subject::parse_dead_letter(&message.subject)?;
        Some(Self {
            position: message.sequence,
            time_micros: message.time_micros,
            tenant,
            reason: reason.to_owned(),
            detail: json(header::DETAIL),
            publisher: json(header::PUBLISHER),
            origin: json(header::ORIGIN),
            original_bytes: text(ORIGINAL_BYTES).and_then(|bytes| bytes.parse().ok()),
            bytes: message.payload,
        })
    }

    /// Whether it is an event that was refused, and not a notification that a webhook or a device did not take.
    ///
    /// # Errors
    /// `bad_request`.
    fn is_refused_event(&self) -> Result<(), Refusal> {
        if self.reason != UNDELIVERED {
            return Ok(());
        }
        let detail = format!("it was stored; only {} did not take it", self.origin);
        Err(Refusal::new(Code::BadRequest, detail))
    }

    /// What is taken when nobody mended it.
    ///
    /// # Errors
    /// `too_large`: only its beginning was kept.
    fn event(&self) -> Result<Bytes, Refusal> {
        if let Some(bytes) = self.original_bytes {
            let detail = format!(
                "only the first {} of {bytes} bytes were kept; send it mended",
                self.bytes.len()
            );
            return Err(Refusal::new(Code::TooLarge, detail));
        }
        binary_mode::from_original(&self.bytes).unwrap_or_else(|| Ok(self.bytes.clone()))
    }
}

/// That a letter was taken, or is being taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claim {
    attempt: String,
    by: String,
    at_millis: i64,
    ended: bool,
}

/// Where dead letters are read and taken again. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Letters {
    jetstream: JetStream,
    claims: KeyValue,
    intake: Intake,
}

impl Letters {
    /// Makes it.
    #[must_use]
    pub fn new(jetstream: JetStream, intake: Intake) -> Self {
        Self {
            claims: KeyValue::new(jetstream.clone(), stream::COMMANDS, intake.metrics.clone()),
            jetstream,
            intake,
        }
    }

    /// The letter at a position.
    ///
    /// # Errors
    /// `not_found`; `unavailable`.
    pub async fn one(&self, position: u64) -> Result<Letter, Refusal> {
        let none = || Refusal::new(Code::NotFound, "there is no such dead letter, or it is gone");
        // The server counts from 1, and takes 0 for a mistake.
        if position == 0 {
            return Err(none());
        }
        let found = self.jetstream.message(stream::DLQ, At::Sequence(position)).await;
        let found = found.map_err(|_| unreadable())?;
        found.and_then(Letter::read).ok_or_else(none)
    }

    /// At most `limit` wanted letters after a position, oldest first, and after which position to go on; `None`: that was all.
    ///
    /// # Errors
    /// `unavailable`.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn page(
        &self,
        wanted: &Wanted,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<Letter>, Option<u64>), Refusal> {
        let filter = subject::dead_letters(wanted.tenant.as_ref(), wanted.reason.as_deref());
        let (mut found, mut next, mut looked_at) = (Vec::new(), after + 1, 0);
        while looked_at < LOOKED_AT_MAX {
            let batch = self
                .jetstream
                .direct_batch(stream::DLQ, next, BATCH, Some(&filter))
                .await;
            let batch = batch.map_err(|_| unreadable())?;
            let mut messages = batch.messages;
            if messages.is_empty() {
                // Any replica answers that, and it may be behind: the leader says whether there is nothing more.
                let at = At::Next {
                    from: next,
                    subject: &filter,
                };
                let there = self.jetstream.message(stream::DLQ, at).await;
                match there.map_err(|_| unreadable())? {
                    Some(message) => messages.push(message),
                    None => return Ok((found, None)),
                }
            }
            for message in messages {
                next = message.sequence + 1;
                looked_at += 1;
                if let Some(letter) = Letter::read(message).filter(|letter| wanted.means(letter)) {
                    found.push(letter);
                    if found.len() == limit {
                        return Ok((found, Some(next - 1)));
                    }
                }
            }
        }
        Ok((found, Some(next - 1)))
    }

    /// Takes a letter again, as it is or as somebody has mended it. At most one attempt ever stores anything.
    ///
    /// # Errors
    /// `bad_request`: it is no refused event; `conflict`: it was taken before, or an attempt of which nobody knows the end has begun; `too_large`; `unavailable`; `unknown`. What
    /// the event itself is refused for stands in the answer.
    ///
    /// # Cancel safety
    /// Dropped, the claim may stay, and the letter is never taken again.
    pub async fn replay(&self, letter: &Letter, mended: Option<Bytes>, by: &str) -> Result<Answer, Refusal> {
        letter.is_refused_event()?;
        let body = mended.map_or_else(|| letter.event(), Ok)?;
        let mut place = self
            .intake
            .capacity
            .enter()
            .map_err(|full| unavailable(&full.to_string()))?;
        place
            .cover(body.len())
            .map_err(|full| unavailable(&full.to_string()))?;
        let key = subject::replay_key(letter.position, letter.time_micros);
        let mut claim = Claim {
            attempt: new_event_id(),
            by: by.to_owned(),
            at_millis: now_micros() / 1_000,
            ended: false,
        };
        self.claim(&key, &claim).await?;
        let answer = self.take(letter, body).await;
        match fate(&answer) {
            Fate::Taken => {
                claim.ended = true;
                let value = Bytes::from(serde_json::to_vec(&claim).unwrap_or_default());
                let set = |_: Option<&Bytes>| Decision::Set {
                    value: value.clone(),
                    ttl: Some(CLAIM_TTL),
                    outcome: (),
                };
                // Where this fails the claim stays as it is, and keeps the letter all the same.
                let _ = self.claims.update(&key, set).await;
            }
            Fate::NotTaken => {
                let ours = |value: Option<&Bytes>| match read(value) {
                    Some(held) if held.attempt == claim.attempt => Decision::Delete(()),
                    _ => Decision::Keep(()),
                };
                if let Err(error) = self.claims.update(&key, ours).await {
                    tracing::warn!(%error, position = letter.position, "a dead letter that was refused again stays claimed: {error}");
                }
            }
            Fate::Unknown => {}
        }
        drop(place);
        Ok(answer)
    }

    async fn claim(&self, key: &str, claim: &Claim) -> Result<(), Refusal> {
        let value = Bytes::from(serde_json::to_vec(claim).unwrap_or_default());
        let decide = |held: Option<&Bytes>| match read(held) {
            None if held.is_none() => Decision::Set {
                value: value.clone(),
                ttl: Some(CLAIM_TTL),
                outcome: Ok(()),
            },
            // Our own write, seen by a decision that was made anew.
            Some(held) if held.attempt == claim.attempt => Decision::Keep(Ok(())),
            held => Decision::Keep(Err(claimed(held.as_ref()))),
        };
        self.claims
            .update(key, decide)
            .await
            .map_err(|error| error.refusal())?
    }

    async fn take(&self, letter: &Letter, body: Bytes) -> Answer {
        let sender = Sender {
            tenant: letter.tenant.clone(),
            // The name is part of what finds repeats: who sent it may have sent it again.
            publisher: letter.publisher.as_str().into(),
            may: May::Administrator,
        };
        let queued = || subject::parse_queued(&letter.origin).map(|(inbound, _)| inbound);
        let inbound = subject::parse_inbound(&letter.origin).or_else(|_| queued()).ok();
        let (shape, body) = match letter.origin == trigger::PATH {
            false => (Shape::OneOrBatch, body),
            // What was left of one that was stored in part.
            true if Shape::OneOrBatch.is_batch(&body) => (Shape::Together, body),
            true => match trigger::events(&self.intake, &body) {
                Ok(events) => (Shape::Together, events),
                Err(refusal) => return Answer::Refused(refusal),
            },
        };
        let request = Request {
            door: Door::Replay,
            sender: &sender,
            room: inbound.as_ref().map(|inbound| &inbound.room),
            audience: inbound.as_ref().map(|inbound| &inbound.audience),
            backfill: true,
            origin: &letter.origin,
            shape,
            body,
            original: None,
        };
        self.intake.take(request, now_micros()).await
    }
}

/// What becomes of a claim.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Taken,
    NotTaken,
    Unknown,
}

fn fate(answer: &Answer) -> Fate {
    let is_unknown = |refusal: &Refusal| refusal.code == Code::Unknown;
    let refused = |taken: &Taken| taken.as_ref().is_err_and(|one| is_unknown(&one.refusal));
    let unknown = match answer {
        // What is left is kept as letters of its own.
        _ if answer.has_stored() => return Fate::Taken,
        Answer::One(taken) => refused(taken),
        Answer::Batch(taken) => taken.iter().any(refused),
        Answer::Refused(refusal) => is_unknown(refusal),
    };
    if unknown { Fate::Unknown } else { Fate::NotTaken }
}

fn read(value: Option<&Bytes>) -> Option<Claim> {
    serde_json::from_slice(value?).ok()
}

fn claimed(held: Option<&Claim>) -> Refusal {
    let detail = match held {
        Some(Claim { ended: true, by, .. }) => format!("it was taken before, by {by}"),
        Some(Claim { by, .. }) => format!(
            "{by} began to take it, and it is not known how that ended; look for the event before you publish it"
        ),
        None => "its claim cannot be read".to_owned(),
    };
    Refusal::new(Code::Conflict, detail)
}

fn unreadable() -> Refusal {
    unavailable("the dead letters cannot be read at the moment")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{NotTaken, Receipt};
    use crate::metrics::Outcome;

    fn letter(tenant: &str, reason: &str, time_micros: i64) -> Letter {
        Letter {
            position: 7,
            time_micros,
            tenant: Tenant::parse(tenant).unwrap(),
            reason: reason.to_owned(),
            detail: String::new(),
            publisher: "p".to_owned(),
            origin: "/v1/events".to_owned(),
            bytes: Bytes::from_static(b"{}"),
            original_bytes: None,
        }
    }

    #[test]
    fn letters_are_chosen_by_tenant_reason_and_time() {
        let one = letter("main", "late", 100);
        let all = Wanted::default();
        let rows = [
            (all.clone(), true),
            (
                Wanted {
                    tenant: Some(Tenant::parse("acme").unwrap()),
                    ..all.clone()
                },
                false,
            ),
            (
                Wanted {
                    reason: Some("late".to_owned()),
                    ..all.clone()
                },
                true,
            ),
            (
                Wanted {
                    reason: Some("conflict".to_owned()),
                    ..all.clone()
                },
                false,
            ),
            (
                Wanted {
                    since_micros: Some(100),
                    until_micros: Some(101),
                    ..all.clone()
                },
                true,
            ),
            (
                Wanted {
                    since_micros: Some(101),
                    ..all.clone()
                },
                false,
            ),
            (
                Wanted {
                    until_micros: Some(100),
                    ..all
                },
                false,
            ),
        ];
        for (wanted, expected) in rows {
            assert_eq!(wanted.means(&one), expected, "{wanted:?}");
        }
    }

    #[test]
    fn what_was_stored_is_not_taken_again() {
        assert!(letter("main", "late", 0).is_refused_event().is_ok());
        let undelivered = letter("main", UNDELIVERED, 0).is_refused_event();
        assert_eq!(undelivered.unwrap_err().code, Code::BadRequest);
    }

    #[test]
    fn a_letter_that_was_cut_is_not_taken_as_it_is() {
        let mut cut = letter("main", "too_large", 0);
        cut.original_bytes = Some(100);
        assert_eq!(cut.event().unwrap_err().code, Code::TooLarge);
        let mut headers = letter("main", "bad_room", 0);
        headers.bytes =
            Bytes::from_static(b"ce-id: 1\r\nce-type: t\r\ncontent-type: application/json\r\n\r\n{\"a\":1}");
        let event: serde_json::Value = serde_json::from_slice(&headers.event().unwrap()).unwrap();
        assert_eq!(
            (&event["id"], &event["data"]["a"]),
            (&serde_json::json!("1"), &serde_json::json!(1))
        );
    }

    #[test]
    fn a_claim_is_given_back_only_when_nothing_was_stored() {
        let taken = || {
            Ok(Receipt {
                outcome: Outcome::Stored,
                id: "e".to_owned(),
                cursor: None,
            })
        };
        let refused = |code| Err(NotTaken::new(Refusal::new(code, ""), None));
        let in_part = |code| {
            let left = vec!["u2".to_owned()];
            Err(NotTaken::in_part(Refusal::new(code, ""), "e".to_owned(), left))
        };
        let rows = [
            (Answer::One(taken()), Fate::Taken),
            (Answer::One(refused(Code::BadRoom)), Fate::NotTaken),
            (Answer::One(refused(Code::Unavailable)), Fate::NotTaken),
            (Answer::One(refused(Code::Unknown)), Fate::Unknown),
            (Answer::One(in_part(Code::Conflict)), Fate::Taken),
            (Answer::One(in_part(Code::Unavailable)), Fate::Taken),
            (Answer::One(in_part(Code::Unknown)), Fate::Taken),
            (Answer::Refused(Refusal::new(Code::BadJson, "")), Fate::NotTaken),
            (Answer::Refused(Refusal::new(Code::Unknown, "")), Fate::Unknown),
            (
                Answer::Batch(vec![refused(Code::Late), in_part(Code::Unavailable)]),
                Fate::Taken,
            ),
            (Answer::Batch(vec![refused(Code::Unknown), taken()]), Fate::Taken),
            (
                Answer::Batch(vec![refused(Code::Unknown), refused(Code::Late)]),
                Fate::Unknown,
            ),
            (Answer::Batch(vec![refused(Code::Late)]), Fate::NotTaken),
        ];
        for (answer, expected) in rows {
            assert_eq!(fate(&answer), expected, "{answer:?}");
        }
    }
}
