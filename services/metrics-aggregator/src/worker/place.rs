//! Where a session begins: what is stored, and whether the stream still holds what comes next.

use std::time::Duration;

use roomcast_chassis::jetstream::{At, StreamInfo, StreamState};
use roomcast_proto::subject::{EVENTS_ALL, stream};
use tokio::time::Instant;

use super::flush::FLUSH_EVERY;
use super::{Ended, Session, Shared};
use crate::engine::shard::Shard;
use crate::notify::Speaker;
use crate::publish::{Values, now_micros};
use crate::store::{self, StoreError};
use crate::traces::Traced;

/// A stream that seems to end before our position is believed after this many looks.
const BEHIND_LOOKS: u32 = 10;
const BEHIND_PAUSE: Duration = Duration::from_millis(500);

impl<'a> Session<'a> {
    /// Reads what is stored. `None`: there is nothing to do for this shard.
    pub(super) async fn load(shared: &'a Shared, number: u32) -> Result<Option<Self>, Ended> {
        let definitions = shared.definitions.of_shard(number);
        let rules = shared.definitions.rules_of_shard(number);
        // Looked at first: a stream made anew after this is noticed when the session looks for its place.
        let info = shared.jetstream.stream_info(stream::EVENTS).await?;
        let created = info.as_ref().and_then(created_micros);
        let mut stored = store::load(&shared.jetstream, number, &definitions).await?;
        if let (Some((head, _)), Some(created)) = (&mut stored.state, created)
            && head.meet(created)
        {
            shared.counters.incomplete.inc_by(definitions.len() as u64);
            tracing::warn!(
                shard = number,
                metrics = definitions.len(),
                "shard {number}: the stream was made anew; its metrics count anew and say since when they are incomplete"
            );
        }
        let idle = stored.state.as_ref().is_none_or(|(head, _)| head.is_idle());
        if definitions.is_empty() && idle {
            return Ok(None);
        }
        let (head_seq, now) = (stored.head_seq, now_micros());
        let mut shard = match &stored.state {
            Some((head, chunks)) => Shard::load_with(definitions, rules, Some((head.clone(), chunks)), now),
            None => Shard::load_with(definitions, rules, None, now),
        }
        .map_err(StoreError::from)?;
        let mut values = Values::new(
            shared.jetstream.clone(),
            shared.publisher.clone(),
            shared.tenant.clone(),
            shared.counters.clone(),
        );
        if let Some(created) = created {
            shard.set_stream(created);
        }
        let known = values.read(shard.targets()).await?;
        shard.raise_floors(&known);
        let mut session = Self {
            shared,
            number,
            head_seq,
            values,
            taken_over: shard.notices().map(|notice| notice.id.clone()).collect(),
            unwatched: 0,
            speaker: Speaker::start(
                shared.jetstream.clone(),
                shared.tenant.clone(),
                shared.counters.clone(),
            ),
            shard,
            known: Some(known),
            target: 0,
            live: false,
            pending: 0,
            filling: 0,
            idle: false,
            flushed: Instant::now()
                .checked_sub(FLUSH_EVERY)
                .unwrap_or_else(Instant::now),
            probed: Instant::now(),
            traced: Traced::default(),
        };
        if !session.shard.is_empty() {
            session.find_place().await?;
        }
        Ok(Some(session))
    }

    /// Where the stream ends, and whether it still holds what comes next.
    async fn find_place(&mut self) -> Result<(), Ended> {
        let position = self.shard.position();
        let mut kept = StreamState::default();
        for look in 1.. {
            kept = self.kept().await?;
            if kept.last_seq >= position {
                self.target = kept.last_seq;
                break;
            }
            // A node that has just come back may answer less than is true for some seconds.
            if look >= BEHIND_LOOKS {
                let last = kept.last_seq;
                return Err(Ended::Behind { last, position });
            }
            tokio::time::sleep(BEHIND_PAUSE).await;
        }
        // What is gone is gone on every node; that a node finds no later message says nothing, it may lag.
        let first = kept.first_seq;
        let filled = self.shard.filled_to().unwrap_or(u64::MAX - 1);
        if first <= self.shard.believed() + 1 && first <= filled + 1 {
            return Ok(());
        }
        let next = At::Next {
            from: first,
            subject: EVENTS_ALL,
        };
        let oldest = self.shared.jetstream.message(stream::EVENTS, next).await?;
        let until = oldest.map_or_else(now_micros, |message| message.time_micros);
        let count = self.shard.missed(first, until);
        self.shared.counters.incomplete.inc_by(count as u64);
        tracing::warn!(
            shard = self.number,
            metrics = count,
            "shard {}: the stream no longer holds events {} to {}; {count} metrics say since when they are incomplete",
            self.number,
            position + 1,
            first - 1
        );
        Ok(())
    }

    /// What the stream holds.
    pub(super) async fn kept(&self) -> Result<StreamState, Ended> {
        let info = self.shared.jetstream.stream_info(stream::EVENTS).await?;
        let created = info.as_ref().and_then(created_micros);
        if let (Some(known), Some(created)) = (self.shard.stream(), created)
            && known != created
        {
            return Err(Ended::Renewed);
        }
        Ok(info.map(|info| info.state).unwrap_or_default())
    }
}

/// When a stream was made, Unix microseconds.
fn created_micros(info: &StreamInfo) -> Option<i64> {
    let created: jiff::Timestamp = info.created.parse().ok()?;
    Some(created.as_microsecond())
}
