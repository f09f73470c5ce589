//! Works one shard: reads, folds, flushes, publishes; begins anew from what is stored whenever anything is odd.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use roomcast_chassis::jetstream::{ApiError, At, JetStream, Publisher, StreamInfo, StreamState};
use roomcast_proto::ids::Tenant;
use roomcast_proto::subject::{EVENTS_ALL, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::counters::Counters;
use crate::cover::filters;
use crate::definition::Definitions;
use crate::engine::shard::{DIRTY_MAX, Known, Shard, Unsaved};
use crate::feed::{Feeds, Source};
use crate::filler::Filler;
use crate::notify::Speaker;
use crate::publish::{PublishFailed, Values, now_micros};
use crate::reader::{Broken, Delivered, Frame};
use crate::silences::Silences;
use crate::store::{self, StoreError};

/// Least time between two flushes; the first after a rest is made at once.
const FLUSH_EVERY: Duration = Duration::from_millis(150);
/// A position that alone has moved is written this often.
const POSITION_EVERY: Duration = Duration::from_secs(60);
/// How often a quiet shard asks where the stream ends. Less than [`POSITION_EVERY`], so that its position is never older.
const PROBE_EVERY: Duration = Duration::from_secs(30);
/// Events that are taken before anything else is looked at; at the speed of folding a millisecond.
const BURST: usize = 256;
/// Pause before a broken session is begun anew; doubles up to the maximum.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// A stream that seems to end before our position is believed after this many looks.
const BEHIND_LOOKS: u32 = 10;
const BEHIND_PAUSE: Duration = Duration::from_millis(500);

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
            Self::Reader(_) => "reader",
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
    if reader.pending_at_start == 0 {
        session.shard.believe(session.target);
        session.idle = true;
    }
    let filler = session.filler(false).await?;
    session.filling = filler.as_ref().map_or(0, |filler| filler.pending);
    let mut readers = Readers { reader, filler };
    if readers.filler.as_ref().is_some_and(|filler| filler.pending == 0) {
        session.nothing_to_fill(&mut readers).await?;
    }
    let result = session.work(&mut readers, caught_up, stop).await;
    readers.close().await;
    result
}

/// Where a shard's events come from.
struct Readers {
    /// Those of the metrics that go on.
    reader: Source,
    /// Those of the metrics that are being filled.
    filler: Option<Filler>,
}

impl Readers {
    async fn close(self) {
        self.reader.close().await;
        if let Some(filler) = self.filler {
            filler.reader.close().await;
        }
    }
}

impl<'a> Session<'a> {
    /// Reads what is stored. `None`: there is nothing to do for this shard.
    async fn load(shared: &'a Shared, number: u32) -> Result<Option<Self>, Ended> {
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
    async fn kept(&self) -> Result<StreamState, Ended> {
        let info = self.shared.jetstream.stream_info(stream::EVENTS).await?;
        let created = info.as_ref().and_then(created_micros);
        if let (Some(known), Some(created)) = (self.shard.stream(), created)
            && known != created
        {
            return Err(Ended::Renewed);
        }
        Ok(info.map(|info| info.state).unwrap_or_default())
    }

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
                    let mut next = Some(frame);
                    // What is there already is taken at once; looking at the clock and at all metrics costs more than an event.
                    for _ in 0..BURST {
                        let Some(frame) = next else { break };
                        self.take(frame?, &mut readers.reader).await?;
                        next = (self.shard.dirty() < DIRTY_MAX).then(|| readers.reader.ready()).flatten();
                    }
                    if let Some(frame) = next {
                        self.take(frame?, &mut readers.reader).await?;
                    }
                }
                frame = Filler::next(&mut readers.filler) => {
                    let frame = frame?;
                    self.filled(frame, readers).await?;
                }
                id = self.speaker.said() => self.shard.said(&id),
                () = tokio::time::sleep_until(wake) => {}
            }
        }
        self.advance();
        if self.shard.unsaved() > Unsaved::Nothing || self.shard.is_due() {
            self.flush().await?;
        }
        Ok(())
    }

    async fn take(&mut self, frame: Frame, reader: &mut Source) -> Result<(), Ended> {
        match frame {
            Frame::Event(event) => self.fold(&event),
            Frame::Reached(seq) => {
                self.shard.believe(seq);
                self.quiet();
            }
            Frame::Quiet => self.quiet(),
            Frame::CastOff => {
                tracing::debug!(shard = self.number, "shard {} reads by itself now", self.number);
                self.shared.counters.cast_off.inc();
                reader.go_alone().await?;
            }
        }
        Ok(())
    }

    fn quiet(&mut self) {
        self.idle = true;
        self.pending = 0;
    }

    fn go_live(&mut self) {
        self.live = true;
        self.shard.go_live();
    }

    fn fold(&mut self, delivered: &Delivered) {
        self.pending = delivered.pending;
        self.idle = delivered.pending == 0;
        let counters = &self.shared.counters;
        let shard = &mut self.shard;
        let read = delivered.read(&self.shared.tenant, |event| {
            shard.fold(event, &mut |outcome| counters.count(outcome));
        });
        if read.is_none() {
            counters.unreadable.inc();
            self.shard.reached(delivered.seq);
        }
    }

    async fn filler(&self, whole: bool) -> Result<Option<Filler>, Broken> {
        let shared = self.shared;
        let client = shared.jetstream.client();
        Filler::open(client, &shared.api_prefix, &shared.tenant, &self.shard, whole).await
    }

    /// What came for the metrics that are being filled.
    async fn filled(&mut self, frame: Frame, readers: &mut Readers) -> Result<(), Ended> {
        let Some(filler) = &mut readers.filler else {
            return Ok(());
        };
        let mut met = false;
        if let Frame::Event(delivered) = &frame {
            filler.pending = delivered.pending;
            let counters = &self.shared.counters;
            let shard = &mut self.shard;
            let read = delivered.read(&self.shared.tenant, |event| {
                shard.fill(event, &mut |outcome| counters.count(outcome))
            });
            // What is no event was counted when the others met it.
            met = read.unwrap_or(delivered.seq >= shard.position());
        } else {
            filler.pending = 0;
        }
        self.filling = filler.pending;
        if met {
            self.join(readers).await
        } else if filler.pending == 0 {
            self.nothing_to_fill(readers).await
        } else {
            Ok(())
        }
    }

    /// In the rooms that the filler reads nothing is waiting.
    async fn nothing_to_fill(&mut self, readers: &mut Readers) -> Result<(), Ended> {
        let wider = match &readers.filler {
            Some(filler) if !filler.whole => self.filler(true).await?,
            _ => None,
        };
        if let Some(wider) = wider {
            let pending = wider.pending;
            if let Some(narrow) = readers.filler.replace(wider) {
                narrow.reader.close().await;
            }
            if pending > 0 {
                return Ok(());
            }
        }
        self.shard.believe_filled();
        Ok(())
    }

    /// What was filled is as far as the others: from here on one reader serves all.
    async fn join(&mut self, readers: &mut Readers) -> Result<(), Ended> {
        let filled: Vec<String> = self.shard.filling().map(|metric| metric.name.clone()).collect();
        tracing::info!(
            shard = self.number,
            "shard {}: {} filled from history up to position {}",
            self.number,
            filled.join(", "),
            self.shard.position()
        );
        self.shard.join();
        self.filling = 0;
        let reader = self.reader().await?;
        self.pending = reader.pending_at_start;
        std::mem::replace(&mut readers.reader, reader).close().await;
        if let Some(filler) = readers.filler.take() {
            filler.reader.close().await;
        }
        Ok(())
    }

    /// The reader of what goes on, from the position on.
    async fn reader(&self) -> Result<Source, Broken> {
        let shared = self.shared;
        let settled = self.shard.settled_definitions().map(AsRef::as_ref);
        let wanted = filters(&shared.tenant, settled);
        let start = self.shard.position() + 1;
        shared.feeds.open(wanted, start).await
    }

    /// Whether the position may have fallen behind the stream's end although nothing is waiting.
    fn wants_probe(&self) -> bool {
        let waiting = !self.live && self.shard.believed() < self.target;
        let since = self.probed.elapsed();
        self.idle && (since >= PROBE_EVERY || (waiting && since >= FLUSH_EVERY))
    }

    fn must_flush(&mut self) -> bool {
        if self.shard.dirty() >= DIRTY_MAX {
            return true;
        }
        let since = self.flushed.elapsed();
        if since < FLUSH_EVERY {
            return false;
        }
        self.advance();
        match self.shard.unsaved() {
            Unsaved::Content => true,
            Unsaved::Position if since >= POSITION_EVERY => true,
            _ => self.shard.is_due() || self.may_sweep(),
        }
    }

    /// Moves time, under the silences there are.
    fn advance(&mut self) {
        self.shard.silence(self.shared.silences.now());
        self.shard.advance(now_micros());
    }

    /// Whether what nothing produces any more may be taken back: while something is being filled nobody knows yet.
    fn may_sweep(&self) -> bool {
        self.live && self.known.is_some() && !self.shard.is_filling()
    }

    /// Writes the state, then publishes what was rendered from it.
    async fn flush(&mut self) -> Result<(), Ended> {
        let counters = &self.shared.counters;
        let label = format!("{:02}", self.number);
        self.advance();
        self.shard.set_lag(self.pending);
        counters
            .lag
            .with_label_values(&[&label])
            .set(i64::try_from(self.pending).unwrap_or(i64::MAX));
        counters
            .filling
            .with_label_values(&[&label])
            .set(i64::try_from(self.filling).unwrap_or(i64::MAX));
        counters
            .rooms_untracked
            .with_label_values(&[&label])
            .set(i64::try_from(self.shard.rooms_untracked()).unwrap_or(i64::MAX));
        let mut values = if self.live {
            self.shard.render()
        } else {
            Vec::new()
        };
        let may_sweep = self.may_sweep();
        let sweeping = self.known.take_if(|_| may_sweep);
        if let Some(known) = &sweeping {
            values.extend(self.shard.orphans(self.number, &self.shared.tenant, known));
        }
        let flush = self.shard.flush();
        let bytes = flush.head.len() + flush.chunks.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        let begun = Instant::now();
        self.head_seq = store::write(&self.shared.jetstream, self.number, flush, self.head_seq).await?;
        self.flushed = Instant::now();
        counters.flushes.inc();
        counters.flush_bytes.inc_by(bytes as u64);
        counters.flush_seconds.observe(begun.elapsed().as_secs_f64());
        self.speak(&label);
        if !values.is_empty() {
            self.values.publish(values).await?;
            self.shard.settled();
        }
        if sweeping.is_some() {
            self.shard.swept();
        }
        Ok(())
    }

    /// Hands over what rules have to say, now that it is written.
    fn speak(&mut self, label: &str) {
        self.speaker.hand(self.shard.notices(), &self.taken_over);
        let (firing, unwatched) = self.shard.firing();
        let counters = &self.shared.counters;
        let firing = i64::try_from(firing).unwrap_or(i64::MAX);
        counters.firing.with_label_values(&[label]).set(firing);
        counters.unwatched.inc_by(unwatched - self.unwatched);
        self.unwatched = unwatched;
    }

    /// When to look again although nothing came.
    fn wake(&self) -> Instant {
        let now = Instant::now();
        let after_flush = self.flushed + FLUSH_EVERY;
        let probe = self.probed + PROBE_EVERY;
        let mut wake = probe
            .min(self.flushed + POSITION_EVERY)
            .max(now + Duration::from_millis(1));
        if self.shard.unsaved() == Unsaved::Content {
            wake = wake.min(after_flush);
        }
        if let Some(at) = self.shard.next_wake() {
            let wait = u64::try_from(at.saturating_sub(now_micros())).unwrap_or(0);
            wake = wake.min((now + Duration::from_micros(wait)).max(after_flush));
        }
        wake
    }
}

/// When a stream was made, Unix microseconds.
fn created_micros(info: &StreamInfo) -> Option<i64> {
    let created: jiff::Timestamp = info.created.parse().ok()?;
    Some(created.as_microsecond())
}
