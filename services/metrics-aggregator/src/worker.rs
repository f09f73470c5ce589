//! Works one shard: reads, folds, flushes, publishes; begins anew from what is stored whenever anything is odd.

mod asked;
mod filling;
mod flush;
mod place;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use roomcast_chassis::jetstream::{ApiError, JetStream, Publisher};
use roomcast_proto::ids::Tenant;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::counters::{Counters, shard_label};
use crate::definition::Definitions;
use crate::delivered::{Delivered, Frame};
use crate::engine::metric::Outcome;
use crate::engine::shard::{DIRTY_MAX, Known, Shard, Unsaved};
use crate::feed::{Feeds, Source};
use crate::filler::Filler;
use crate::notify::Speaker;
use crate::publish::{PublishFailed, Values};
use crate::reader::Broken;
use crate::silences::Silences;
use crate::store::StoreError;
use crate::traces::Traced;

use self::filling::Readers;
use self::flush::FLUSH_EVERY;

/// How often a quiet shard asks where the stream ends. Less than a position that alone has moved waits, so that its position is never older.
const PROBE_EVERY: Duration = Duration::from_secs(30);
/// Events that are taken before anything else is looked at; at the speed of folding a millisecond.
const BURST: usize = 256;
/// Pause before a broken session is begun anew; doubles up to the maximum.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What all workers of a process share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shared {
    /// JetStream.
    pub jetstream: JetStream,
    /// Its prefix.
    pub api_prefix: Arc<str>,
    /// What is read for several shards at once.
    pub feeds: Feeds,
    /// Publishes state values.
    pub publisher: Publisher,
    /// Whose metrics these are.
    pub tenant: Tenant,
    /// The definitions.
    pub definitions: Arc<Definitions>,
    /// What operators silenced.
    pub silences: Silences,
    /// What is counted.
    pub counters: Counters,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Reader(#[from] Broken),
    #[error(transparent)]
    Publish(#[from] PublishFailed),
    #[error("questions cannot be heard: {0}")]
    Ears(#[from] async_nats::SubscribeError),
    #[error("the stream cannot be looked at: {0}")]
    Stream(#[from] ApiError),
    #[error(
        "the stream ends at {last} and this shard has read up to {position}: the stream lost events; restore it, or delete the shard's \
         state (bucket agg) to count anew"
    )]
    Behind { last: u64, position: u64 },
    #[error("the stream was made anew")]
    Renewed,
}

impl Ended {
    fn cause(&self) -> &'static str {
        match self {
            Self::Store(_) => "store",
            Self::Reader(_) | Self::Ears(_) => "reader",
            Self::Publish(_) => "publish",
            Self::Stream(_) | Self::Behind { .. } | Self::Renewed => "stream",
        }
    }
}

/// Works a shard until `stop`, then writes and publishes what is left.
pub async fn run(shared: Shared, shard: u32, caught_up: Arc<AtomicBool>, stop: CancellationToken) {
    let mut pause = AGAIN.0;
    while !stop.is_cancelled() {
        let begun = Instant::now();
        match session(&shared, shard, &caught_up, &stop).await {
            Ok(()) => return,
            Err(ended) => {
                if matches!(ended, Ended::Store(StoreError::Conflict)) {
                    shared.counters.conflicts.inc();
                }
                shared.counters.restarts.with_label_values(&[ended.cause()]).inc();
                if matches!(ended, Ended::Behind { .. } | Ended::Store(StoreError::Corrupt(_))) {
                    tracing::error!(shard, "shard {shard}: {ended}");
                } else {
                    tracing::warn!(shard, "shard {shard} begins anew: {ended}");
                }
            }
        }
        pause = if begun.elapsed() > AGAIN.1 {
            AGAIN.0
        } else {
            (pause * 2).min(AGAIN.1)
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// One shard in memory, with the position of the head it came from.
struct Session<'a> {
    shared: &'a Shared,
    number: u32,
    shard: Shard,
    head_seq: u64,
    values: Values,
    speaker: Speaker,
    /// Notices that were written by whoever worked the shard before.
    taken_over: HashSet<String>,
    /// Looks at groups that no rule had room for, as far as counted.
    unwatched: u64,
    /// Values stored before, until what is no longer produced has been withdrawn.
    known: Option<Vec<Known>>,
    /// Where the stream ended when the session began; from there on there is something to say.
    target: u64,
    live: bool,
    pending: u64,
    /// Events behind in what is being filled.
    filling: u64,
    idle: bool,
    flushed: Instant,
    probed: Instant,
    /// Events of the next flush whose trace is kept.
    traced: Traced,
}

async fn session(
    shared: &Shared,
    number: u32,
    caught_up: &AtomicBool,
    stop: &CancellationToken,
) -> Result<(), Ended> {
    let Some(mut session) = Session::load(shared, number).await? else {
        caught_up.store(true, Ordering::Relaxed);
        return Ok(());
    };
    if session.shard.is_empty() {
        session.go_live();
        caught_up.store(true, Ordering::Relaxed);
        session.flush().await?;
        // What is defined no longer ends what it has said.
        while session.shard.unsaved() > Unsaved::Nothing || session.shard.notices().next().is_some() {
            if session.shard.unsaved() == Unsaved::Nothing {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    id = session.speaker.said() => session.shard.said(&id),
                }
            }
            session.flush().await?;
        }
        return Ok(());
    }
    let reader = session.reader().await?;
    session.pending = reader.pending_at_start;
    // Before anything is written: where no write succeeds, this is all that is heard of how much waits.
    session.say_lag();
    if reader.pending_at_start == 0 {
        session.shard.believe(session.target);
        session.idle = true;
    }
    let filler = session.filler(false).await?;
    session.filling = filler.as_ref().map_or(0, |filler| filler.pending);
    let questions = session.ears().await?;
    let mut readers = Readers {
        reader,
        filler,
        questions,
    };
    if readers.filler.as_ref().is_some_and(|filler| filler.pending == 0) {
        session.nothing_to_fill(&mut readers).await?;
    }
    let result = session.work(&mut readers, caught_up, stop).await;
    readers.close().await;
    result
}

impl Session<'_> {
    async fn work(
        &mut self,
        readers: &mut Readers,
        caught_up: &AtomicBool,
        stop: &CancellationToken,
    ) -> Result<(), Ended> {
        loop {
            if !self.live && self.shard.believed() >= self.target {
                self.go_live();
                caught_up.store(true, Ordering::Relaxed);
                tracing::info!(
                    shard = self.number,
                    "shard {} is current at position {}",
                    self.number,
                    self.shard.believed()
                );
            }
            if self.must_flush() {
                self.flush().await?;
            }
            if self.wants_probe() {
                self.probed = Instant::now();
                let last = self.kept().await?.last_seq;
                readers.reader.probe(last).await?;
            }
            let wake = self.wake();
            // By turns: neither what is new nor what is being filled waits for all of the other.
            tokio::select! {
                () = stop.cancelled() => break,
                frame = readers.reader.next() => {
                    let mut frame = frame?;
                    let mut folded = 0;
                    // What is there already is taken at once; looking at the clock and at all metrics costs more than an event.
                    for left in (0..BURST).rev() {
                        match frame {
                            Frame::Event(event) => folded += self.fold(event),
                            Frame::Reached(seq) => {
                                self.shard.believe(*seq);
                                self.quiet();
                            }
                            Frame::Quiet => self.quiet(),
                            Frame::CastOff => self.go_alone(&mut readers.reader).await?,
                        }
                        if left == 0 || self.shard.dirty() >= DIRTY_MAX {
                            break;
                        }
                        let Some(next) = readers.reader.ready() else { break };
                        frame = next?;
                    }
                    self.shared.counters.folded(folded);
                }
                frame = Filler::next(&mut readers.filler) => {
                    let frame = frame?;
                    self.filled(frame, readers).await?;
                }
                id = self.speaker.said() => self.shard.said(&id),
                Some(question) = readers.questions.next() => self.answer(question).await,
                () = tokio::time::sleep_until(wake) => {}
            }
        }
        self.advance();
        if self.shard.unsaved() > Unsaved::Nothing || self.shard.is_due() {
            self.flush().await?;
        }
        Ok(())
    }

    async fn go_alone(&self, reader: &mut Source) -> Result<(), Broken> {
        tracing::debug!(shard = self.number, "shard {} reads by itself now", self.number);
        self.shared.counters.cast_off.inc();
        reader.go_alone().await
    }

    fn say_lag(&self) {
        let lag = &self.shared.counters.lag;
        lag.with_label_values(&[&shard_label(self.number)])
            .set(i64::try_from(self.pending).unwrap_or(i64::MAX));
    }

    fn quiet(&mut self) {
        self.idle = true;
        self.pending = 0;
    }

    fn go_live(&mut self) {
        self.live = true;
        self.shard.go_live();
    }

    /// Answers into how many metrics it was folded; that is counted for many at once, because all shards count in one place.
    fn fold(&mut self, delivered: &Delivered) -> u64 {
        let mut folded = 0;
        self.pending = delivered.pending;
        self.idle = delivered.pending == 0;
        if self.live {
            self.traced.take(delivered);
        }
        let counters = &self.shared.counters;
        let shard = &mut self.shard;
        let read = delivered.read(&self.shared.tenant, |event| {
            shard.fold(event, &mut |outcome| match outcome {
                Outcome::Folded => folded += 1,
                other => counters.count(other),
            });
        });
        if read.is_none() {
            counters.unreadable.inc();
            self.shard.reached(delivered.seq);
        }
        folded
    }

    /// Whether the position may have fallen behind the stream's end although nothing is waiting.
    fn wants_probe(&self) -> bool {
        let waiting = !self.live && self.shard.believed() < self.target;
        let since = self.probed.elapsed();
        self.idle && (since >= PROBE_EVERY || (waiting && since >= FLUSH_EVERY))
    }
}
