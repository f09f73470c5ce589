//! Where a capture goes on: its position in a bucket, and what it stored beyond, read back from the stream.
//!
//! The position is written about once a second while changes come, and before one is stored that comes later. What was stored after that
//! and before a crash is in the stream behind the place that the position names; reading it back is what makes a change that the database
//! sends again no second event, however long nobody followed.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;
use roomcast_capture::Mapping;
use roomcast_capture::follow::From;
use roomcast_capture::position::{Position, Snapshots, Timelines, parse_event_id};
use roomcast_chassis::jetstream::{At, JetStream, StoredMessage};
use roomcast_proto::ascii_json;
use roomcast_proto::ids::Tenant;
use roomcast_proto::subject::{self, header, stream as names};
use serde::Deserialize;

use super::{Ended, STORED_WITHIN};

/// Messages read back at once.
const READ_AT_ONCE: usize = 500;
/// Events of ours that may be stored beyond a position: far more than come in the time between two.
const BEYOND_MAX: usize = 2_000_000;
/// Age of a position beyond which another is written before anything is stored.
const YOUNG: Duration = Duration::from_secs(10);
/// Nothing of ours is stored later than this after the position was written: its age where a batch begins, the time in which that is stored,
/// and a minute for the writing itself, the batch's last attempt, and clocks of servers that differ.
const BEYOND_WITHIN: Duration = Duration::from_secs(YOUNG.as_secs() + STORED_WITHIN.as_secs() + 60);
/// Time for one write, and how often it is tried.
const WRITE: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 5;

/// The position of one capture, and beside it which tables' rows of before are published.
#[derive(Debug)]
pub(super) struct Kept {
    jetstream: JetStream,
    tenant: Tenant,
    position: Entry,
    snapshots: Entry,
    /// When the last writing of the position began.
    written: Option<Instant>,
}

impl Kept {
    pub(super) fn new(jetstream: JetStream, mapping: &Mapping) -> Self {
        let entry = |name: &str| Entry {
            key: subject::capture_position(&mapping.tenant, name),
            revision: 0,
        };
        Self {
            jetstream,
            tenant: mapping.tenant.clone(),
            position: entry(&mapping.source),
            // No source has a dot.
            snapshots: entry(&format!("{}.snapshots", mapping.source)),
            written: None,
        }
    }

    /// Reads it, from the leader, and when it was written, microseconds.
    pub(super) async fn read(&mut self) -> Result<(Option<Position>, Option<i64>), Ended> {
        let Some(held) = self.position.read(&self.jetstream).await? else {
            return Ok((None, None));
        };
        let position: Position = serde_json::from_slice(&held.payload).map_err(|error| {
            Ended::Stopped(format!(
                "the stored position is not understood ({error}); to mend it: nats kv del capture, if all is to begin anew"
            ))
        })?;
        Ok((Some(position), Some(held.time_micros)))
    }

    /// Reads which tables' rows of before are published; `None`: a version before this knew all or nothing.
    pub(super) async fn read_snapshots(&mut self) -> Result<Option<Snapshots>, Ended> {
        let held = self.snapshots.read(&self.jetstream).await?;
        Ok(held.and_then(|held| serde_json::from_slice(&held.payload).ok()))
    }

    /// Writes which tables' rows of before are published.
    pub(super) async fn write_snapshots(&mut self, snapshots: &Snapshots) -> Result<(), Ended> {
        let value = json(snapshots)?;
        self.snapshots.write(&self.jetstream, value).await
    }

    /// Whether the position is too old for something to be stored that it does not cover.
    pub(super) fn is_old(&self) -> bool {
        self.written.is_none_or(|written| written.elapsed() > YOUNG)
    }

    /// Writes it where nobody else has written since. `covered`: its place covers everything that is stored; then the stream's end goes
    /// into it, and else what is read back next time begins where it began this time.
    pub(super) async fn write(&mut self, position: &mut Position, covered: bool) -> Result<(), Ended> {
        let began = Instant::now();
        if covered {
            let info = self.jetstream.stream_info(names::EVENTS).await;
            let info = info.map_err(|error| failed(&error))?;
            position.events_seq = info.map_or(0, |info| info.state.last_seq);
        }
        let value = json(position)?;
        self.position.write(&self.jetstream, value).await?;
        self.written = Some(began);
        Ok(())
    }

    /// What is stored of `source` beyond a position that was written at `micros`.
    pub(super) async fn beyond(
        &self,
        position: &Position,
        micros: i64,
        source: &str,
        timelines: &Timelines,
    ) -> Result<From, Ended> {
        let failed = |error: &dyn std::fmt::Display| {
            Ended::Position(format!("the stream cannot be read back: {error}"))
        };
        let until = micros.saturating_add(i64::try_from(BEYOND_WITHIN.as_micros()).unwrap_or(i64::MAX));
        let publisher = ascii_json(source);
        let info = self.jetstream.stream_info(names::EVENTS).await;
        let state = info.map_err(|error| failed(&error))?.map(|info| info.state);
        let state = state.unwrap_or_default();
        let mut next = (position.events_seq + 1).max(state.first_seq);
        let mut found = From {
            place: position.place,
            stored: HashSet::new(),
            numbers: HashSet::new(),
        };
        let mut silent = 0;
        while next <= state.last_seq {
            let batch = self
                .jetstream
                .direct_batch(names::EVENTS, next, READ_AT_ONCE, None)
                .await
                .map_err(|error| failed(&error))?;
            let Some(last) = batch.messages.last() else {
                // A replica may be a little behind its leader.
                silent += 1;
                if silent > 50 {
                    return Err(failed(&"a replica does not have what its leader has"));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            silent = 0;
            next = last.sequence + 1;
            let late = last.time_micros > until;
            for message in &batch.messages {
                let by = message.headers.get_last(header::PUBLISHER);
                if by.is_none_or(|by| by.as_str() != publisher) || !self.is_ours(message) {
                    continue;
                }
                remember(message, timelines, &mut found);
            }
            if found.stored.len() + found.numbers.len() > BEYOND_MAX {
                return Err(failed(&"more is stored beyond the position than can be"));
            }
            if late {
                break;
            }
        }
        Ok(found)
    }

    /// Tenants name their databases by themselves, so two may have one of the same name.
    fn is_ours(&self, message: &StoredMessage) -> bool {
        let placed = subject::parse_placed(&message.subject);
        placed.is_some_and(|placed| placed.tenant == self.tenant.as_str())
    }
}

/// A value of the bucket.
#[derive(Debug)]
struct Entry {
    key: String,
    /// Of the value that was last read or written; 0: there is none.
    revision: u64,
}

impl Entry {
    async fn held(&self, jetstream: &JetStream) -> Result<Option<StoredMessage>, Ended> {
        let held = jetstream.message(names::CAPTURE, At::Last(&self.key)).await;
        held.map_err(|error| failed(&error))
    }

    /// Reads it, from the leader; of one that an operator deleted, an empty message is left.
    async fn read(&mut self, jetstream: &JetStream) -> Result<Option<StoredMessage>, Ended> {
        let held = self.held(jetstream).await?;
        self.revision = held.as_ref().map_or(0, |held| held.sequence);
        Ok(held.filter(|held| !held.payload.is_empty()))
    }

    /// Writes it where nobody else has written since.
    async fn write(&mut self, jetstream: &JetStream, value: Bytes) -> Result<(), Ended> {
        let mut last = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_millis(100) * attempt).await;
            }
            let mut headers = HeaderMap::new();
            headers.insert(
                header::EXPECTED_LAST_SUBJECT_SEQUENCE,
                self.revision.to_string().as_str(),
            );
            let sent = jetstream
                .publish(self.key.as_str(), headers, value.clone(), WRITE)
                .await;
            match sent {
                Ok(ack) => {
                    self.revision = ack.seq;
                    return Ok(());
                }
                Err(error) => last = error.to_string(),
            }
            // Perhaps it was written, and only the answer was lost.
            if let Some(held) = self.held(jetstream).await?
                && held.sequence != self.revision
            {
                if held.payload == value {
                    self.revision = held.sequence;
                    return Ok(());
                }
                return Err(failed(&"another instance has written it"));
            }
        }
        Err(Ended::Position(last))
    }
}

fn failed(error: &dyn std::fmt::Display) -> Ended {
    Ended::Position(error.to_string())
}

fn json(value: &impl serde::Serialize) -> Result<Bytes, Ended> {
    let value = serde_json::to_vec(value).map_err(|error| failed(&error))?;
    Ok(Bytes::from(value))
}

fn remember(message: &StoredMessage, timelines: &Timelines, found: &mut From) {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    let Ok(Named { id }) = serde_json::from_slice(&message.payload) else {
        return;
    };
    if let Some(number) = id.strip_prefix("outbox-").and_then(|text| text.parse().ok()) {
        found.numbers.insert(number);
    } else if let Some((timeline, place)) = parse_event_id(&id)
        && timeline == timelines.of(place.lsn)
        && place > found.place
    {
        found.stored.insert(place);
    }
}
