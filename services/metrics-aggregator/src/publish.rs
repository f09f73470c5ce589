//! Publishes state values so that for no key the revision or `as_of` ever goes back, whoever else publishes.
//!
//! Every publish compares the key's last position. An instance that slept and wakes with an old value loses the comparison, sees the
//! newer value and drops its own.

mod keys;

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::HeaderMap;
use roomcast_chassis::jetstream::{
    ApiError, At, JetStream, LastMessages, Outgoing as Message, PublishError, Publisher, StoredMessage, code,
};
use roomcast_chassis::trace;
use roomcast_proto::event::{StateEvent, View, micros_of_rfc3339};
use roomcast_proto::ids::{Audience, Room, Tenant};
use roomcast_proto::limits::{ROOM_KEYS_MAX, WITHDRAWN_TTL};
use roomcast_proto::metric::{STATUS, UPDATED};
use roomcast_proto::subject::{self, header, parse_placed, room_state_filter, stream};
use serde::Deserialize;

use crate::counters::Counters;
use crate::engine::render::Outgoing;
use crate::engine::shard::Known;

use self::keys::{Keys, Last};

/// How often a publish is tried; each waits a second for its acknowledgement.
const ATTEMPTS: u32 = 5;
const AGAIN: Duration = Duration::from_millis(50);
/// Values read at once where a room holds more than `multi_last` answers.
const PAGE: usize = 500;

/// Why publishing ended. Load the shard again: its outbox and its current values are published then.
#[derive(Debug, thiserror::Error)]
pub enum PublishFailed {
    /// A value could not be published.
    #[error("a state value cannot be published: {0}")]
    Publish(#[from] PublishError),
    /// What is stored could not be read.
    #[error("state values cannot be read: {0}")]
    Read(#[from] ApiError),
}

/// Publishes the values of one shard.
#[derive(Debug)]
pub struct Values {
    jetstream: JetStream,
    publisher: Publisher,
    tenant: Tenant,
    counters: Counters,
    keys: Keys,
}

#[derive(Deserialize, Default)]
struct Stamp {
    #[serde(default)]
    revision: u64,
    #[serde(default)]
    as_of: String,
}

impl Values {
    /// Begins with nothing known.
    #[must_use]
    pub fn new(jetstream: JetStream, publisher: Publisher, tenant: Tenant, counters: Counters) -> Self {
        Self {
            jetstream,
            publisher,
            tenant,
            counters,
            keys: Keys::default(),
        }
    }

    /// Reads what is stored in some rooms: the values of metrics that hold.
    ///
    /// # Errors
    /// `Read`.
    pub async fn read(&mut self, targets: &[(Room, Audience)]) -> Result<Vec<Known>, PublishFailed> {
        let rooms: HashSet<&Room> = targets.iter().map(|(room, _)| room).collect();
        let mut known = Vec::new();
        for room in rooms {
            let messages = self.room(room).await?;
            for message in messages {
                let (last, kind) = stamp(&message);
                self.keys.put(room, &message.subject, last);
                let Some(placed) = parse_placed(&message.subject) else {
                    continue;
                };
                let Ok(audience) = Audience::parse(placed.audience) else {
                    continue;
                };
                let ours = matches!(kind.as_str(), UPDATED | STATUS);
                let target = targets.iter().any(|(r, a)| r == room && *a == audience);
                let key = message
                    .headers
                    .get_last(header::KEY)
                    .and_then(|key| serde_json::from_str(key.as_str()).ok());
                if let (true, true, true, Some(key)) = (ours, target, last.there, key) {
                    known.push(Known {
                        room: room.clone(),
                        audience,
                        key,
                        revision: last.revision,
                    });
                }
            }
        }
        Ok(known)
    }

    async fn room(&self, room: &Room) -> Result<Vec<StoredMessage>, ApiError> {
        let filter = room_state_filter(&self.tenant, room);
        if let LastMessages::Messages { messages, .. } =
            self.jetstream.multi_last(stream::STATE, &[&filter], None).await?
        {
            return Ok(messages);
        }
        let mut all = Vec::new();
        let mut from = 1;
        loop {
            let batch = self
                .jetstream
                .direct_batch(stream::STATE, from, PAGE, Some(&filter))
                .await?;
            from = batch.messages.last().map_or(from, |message| message.sequence + 1);
            let end = batch.messages.is_empty() || batch.pending == 0;
            all.extend(batch.messages);
            if end {
                return Ok(all);
            }
        }
    }

    /// Publishes values in order; different keys travel side by side. All are acknowledged, or newer ones are there, when this
    /// returns.
    ///
    /// # Errors
    /// [`PublishFailed`].
    pub async fn publish(&mut self, values: Vec<Outgoing>) -> Result<(), PublishFailed> {
        let now = now_micros();
        self.keys.forget(now);
        let mut rest = values;
        while !rest.is_empty() {
            // The same key twice: the later one waits for the earlier.
            let mut keys = HashSet::new();
            let (wave, later): (Vec<_>, Vec<_>) = rest.into_iter().partition(|value| {
                keys.insert((value.room.clone(), value.audience.clone(), value.key.clone()))
            });
            self.wave(wave, now).await?;
            rest = later;
        }
        Ok(())
    }

    async fn wave(&mut self, values: Vec<Outgoing>, now: i64) -> Result<(), PublishFailed> {
        let mut waiting: Vec<Outgoing> = values;
        self.count_full(&waiting, now).await?;
        for attempt in 1..=ATTEMPTS {
            let mut sent = Vec::with_capacity(waiting.len());
            for value in waiting {
                let subject = subject::state(&self.tenant, &value.room, &value.audience, &value.key);
                if !self.admits(&subject, &value) {
                    continue;
                }
                let message = self.message(&subject, &value, now);
                sent.push((subject, self.publisher.send(message).await?, value));
            }
            let mut again = Vec::new();
            let mut failed = None;
            for (subject, pending, value) in sent {
                match pending.acknowledged().await {
                    Ok(ack) => self.acknowledged(&subject, &value, ack.seq, now),
                    Err(error) if error.err_code() == Some(code::WRONG_LAST_SEQUENCE) => {
                        if self.newer(&subject, &value).await? {
                            self.counters.stale.inc();
                        } else {
                            again.push(value);
                        }
                    }
                    Err(error) if error.retryable() => {
                        failed = Some(error);
                        again.push(value);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            if again.is_empty() {
                return Ok(());
            }
            if let (Some(error), ATTEMPTS) = (failed, attempt) {
                return Err(error.into());
            }
            waiting = again;
            tokio::time::sleep(AGAIN).await;
        }
        // Lost the comparison every time: somebody else publishes these keys, so the shard is not ours.
        Err(PublishError::Client("another instance publishes the same keys".to_owned()).into())
    }

    /// Counts the keys of rooms anew that seem to have no place for a value: others may have dropped some. Nothing is under way then, so
    /// what is read is all there is.
    async fn count_full(&mut self, values: &[Outgoing], now: i64) -> Result<(), ApiError> {
        for value in values {
            let subject = subject::state(&self.tenant, &value.room, &value.audience, &value.key);
            if self.has_place(&subject, value) || !self.keys.wants_count(&value.room, now) {
                continue;
            }
            let messages = self.room(&value.room).await?;
            let stored = messages
                .iter()
                .map(|message| (message.subject.as_str(), stamp(message).0));
            self.keys.count(&value.room, stored, now);
        }
        Ok(())
    }

    fn has_place(&self, subject: &str, value: &Outgoing) -> bool {
        value.body.is_none() || self.keys.admits(&value.room, subject, ROOM_KEYS_MAX)
    }

    /// Whether the room has a place for the key; counts where it has none.
    fn admits(&self, subject: &str, value: &Outgoing) -> bool {
        if !self.has_place(subject, value) {
            self.counters.keys_refused.inc();
            tracing::warn!(room = %value.room, "room {} holds {ROOM_KEYS_MAX} keys; a value is not published", value.room);
            return false;
        }
        true
    }

    fn acknowledged(&mut self, subject: &str, value: &Outgoing, seq: u64, now: i64) {
        self.counters.published.inc();
        let there = value.body.is_some();
        let withdrawn_until =
            now.saturating_add(i64::try_from(WITHDRAWN_TTL.as_micros()).unwrap_or(i64::MAX));
        let until = if there {
            value.expires_micros
        } else {
            Some(withdrawn_until)
        };
        let last = Last {
            seq,
            revision: value.revision,
            as_of: value.as_of,
            until,
            there,
        };
        self.keys.put(&value.room, subject, last);
    }

    /// After a lost comparison: whether what is stored is newer than `value`.
    async fn newer(&mut self, subject: &str, value: &Outgoing) -> Result<bool, ApiError> {
        let stored = self.jetstream.message(stream::STATE, At::Last(subject)).await?;
        let last = stored
            .as_ref()
            .map(|message| stamp(message).0)
            .unwrap_or_default();
        self.keys.put(&value.room, subject, last);
        Ok(last.revision > value.revision || last.as_of > value.as_of)
    }

    fn message(&self, subject: &str, value: &Outgoing, now: i64) -> Message {
        let body = value.body.as_deref();
        let id = id(subject, value);
        let source = format!("roomcast://{}/metrics", self.tenant);
        let event = StateEvent {
            id: &id,
            source: &source,
            kind: value.kind,
            time_micros: value.as_of,
            room: &value.room,
            audience: &value.audience,
            statekey: &value.key,
            expires_micros: value.expires_micros,
            data: body,
        };
        let mut headers = HeaderMap::new();
        let expected = self.keys.seq(&value.room, subject);
        headers.insert(header::MSG_ID, id.as_str());
        headers.insert(
            header::EXPECTED_LAST_SUBJECT_SEQUENCE,
            expected.to_string().as_str(),
        );
        // A key is made of letters, digits and a few signs; as JSON it is the same in quotes.
        headers.insert(header::KEY, format!("\"{}\"", value.key).as_str());
        if body.is_none() {
            headers.insert(header::WITHDRAWN, "1");
            headers.insert(header::TTL, WITHDRAWN_TTL.as_secs().to_string().as_str());
        } else if let Some(until) = value.expires_micros {
            let seconds = ((until - now).max(0) + 999_999) / 1_000_000;
            headers.insert(header::TTL, seconds.max(1).to_string().as_str());
            headers.insert(header::EXPIRES, (until / 1_000).to_string().as_str());
        }
        if let Some(trail) = trace::current() {
            trail.write(&mut headers);
        }
        Message {
            subject: subject.to_owned(),
            headers,
            payload: event.to_json(),
        }
    }
}

/// The same value has the same id, so a repeat within the window is found by the server.
fn id(subject: &str, value: &Outgoing) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in [
        subject,
        &value.revision.to_string(),
        &value.as_of.to_string(),
        value.body.as_deref().unwrap_or(""),
    ] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let sum = context.finish();
    sum.as_ref()[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Position, revision and instant of a stored value, and its type. A withdrawn one has no data: its instant is the time of the event, and
/// only of an event of ours, because others may say any.
fn stamp(message: &StoredMessage) -> (Last, String) {
    let there = message.headers.get_last(header::WITHDRAWN).is_none() && !message.payload.is_empty();
    let view = View::parse(&message.payload).ok();
    let data = view.as_ref().and_then(|view| view.data);
    let stamp: Stamp = data
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default();
    let until = message
        .headers
        .get_last(header::EXPIRES)
        .and_then(|text| text.as_str().parse::<i64>().ok());
    let withdrawn = view
        .as_ref()
        .filter(|view| !there && matches!(&*view.kind, UPDATED | STATUS));
    let as_of = match withdrawn {
        Some(view) => view.time_micros(),
        None => micros_of_rfc3339(&stamp.as_of),
    };
    let last = Last {
        seq: message.sequence,
        revision: stamp.revision,
        as_of: as_of.unwrap_or(i64::MIN),
        until: until.map(|millis| millis.saturating_mul(1_000)),
        there,
    };
    (last, view.map(|view| view.kind.into_owned()).unwrap_or_default())
}

/// Unix microseconds.
#[must_use]
pub fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
