//! A shard: all metrics with the same shard number, one position, one state. Pure: no await, no clock.
//!
//! The worker reads events into [`Shard::fold`], moves time with [`Shard::advance`], writes what [`Shard::flush`] gives and then
//! publishes what [`Shard::render`] gave. Whatever goes wrong outside, the shard is dropped and loaded again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use roomcast_proto::ids::{Audience, Room, Tenant};
use roomcast_proto::metric::{UPDATED, metric_of_key};

use crate::definition::Definition;
use crate::engine::chunk::{Chunks, SPLIT_BYTES};
use crate::engine::codec::{
    Corrupt, FORMAT, Reader, StoredMetric, Writer, read_chunk, read_metric, write_chunk, write_metric,
};
use crate::engine::fnv;
use crate::engine::metric::{Due, Hole, Metric, Outcome};
use crate::engine::render::Outgoing;
use crate::engine::row::{Event, Paths};

/// Dirty chunks that force a flush. The server takes 1,000 messages in a batch; the rest is for splits and the head.
pub const DIRTY_MAX: usize = 900;
/// Messages of one flush, the head included.
const FLUSH_MAX: usize = 990;
/// Old chunks emptied in one flush.
const RETIRED_PER_FLUSH: u32 = 50;

/// What a flush would save.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unsaved {
    /// Nothing.
    Nothing,
    /// Only the position: reading again would cost time and change nothing.
    Position,
    /// Numbers, or windows.
    Content,
}

/// What is written by one flush: chunks, then the head.
#[derive(Debug, Clone)]
pub struct Flush {
    /// Names and bytes; empty bytes empty a chunk that is no longer used.
    pub chunks: Vec<(String, Vec<u8>)>,
    /// The head.
    pub head: Vec<u8>,
}

/// A stored head.
#[derive(Debug, Clone)]
pub struct Head {
    as_of: i64,
    seq: u64,
    last_stored: Option<i64>,
    targets: Vec<(Room, Audience)>,
    retired: Vec<Retired>,
    metrics: Vec<(StoredMetric, u64)>,
}

/// Chunks of a metric that is no longer defined so: numbers `next..count` are still stored.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Retired {
    prefix: String,
    next: u32,
    count: u32,
}

/// A state value that is stored: what a loading shard has to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Where.
    pub room: Room,
    /// For whom.
    pub audience: Audience,
    /// Its key.
    pub key: String,
    /// Its revision.
    pub revision: u64,
}

/// One shard.
#[derive(Debug)]
pub struct Shard {
    metrics: Vec<Metric>,
    fresh: BTreeSet<usize>,
    paths: Paths,
    seq: u64,
    as_of: i64,
    last_stored: Option<i64>,
    targets: Vec<(Room, Audience)>,
    retired: Vec<Retired>,
    unsaved: Unsaved,
}

fn chunk_prefix(name: &str, fingerprint: u64) -> String {
    format!("{name}-{fingerprint:016x}")
}

fn chunk_digest(index: usize, bytes: &[u8]) -> u64 {
    fnv::mix(fnv::hash(bytes) ^ (index as u64))
}

impl Head {
    /// Reads a stored head.
    ///
    /// # Errors
    /// [`Corrupt`]: damaged, or written by another version.
    pub fn read(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut input = Reader::new(bytes);
        if input.byte()? != FORMAT {
            return Err(Corrupt("the head is of another version"));
        }
        let (as_of, seq, last_stored) = (input.signed64()?, input.unsigned64()?, input.optional()?);
        let mut targets = Vec::new();
        for _ in 0..input.count()? {
            let room = Room::parse(input.text()?).map_err(|_| Corrupt("a room that is none"))?;
            let audience = Audience::parse(input.text()?).map_err(|_| Corrupt("an audience that is none"))?;
            targets.push((room, audience));
        }
        let mut retired = Vec::new();
        for _ in 0..input.count()? {
            let number = |n: u64| u32::try_from(n).map_err(|_| Corrupt("a chunk number is too large"));
            let prefix = input.text()?.to_owned();
            retired.push(Retired {
                prefix,
                next: number(input.unsigned64()?)?,
                count: number(input.unsigned64()?)?,
            });
        }
        let mut metrics = Vec::new();
        for _ in 0..input.count()? {
            let metric = read_metric(&mut input)?;
            let digest = input.fixed(8)?;
            let mut bytes = [0; 8];
            bytes.copy_from_slice(digest);
            metrics.push((metric, u64::from_le_bytes(bytes)));
        }
        if input.is_empty() {
            Ok(Self {
                as_of,
                seq,
                last_stored,
                targets,
                retired,
                metrics,
            })
        } else {
            Err(Corrupt("more bytes than expected"))
        }
    }

    /// Whether anything is left to do for a shard without metrics.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.metrics.is_empty() && self.targets.is_empty() && self.retired.is_empty()
    }

    /// The chunks to read for these definitions; state of others is not needed.
    #[must_use]
    pub fn chunk_names(&self, definitions: &[Arc<Definition>]) -> Vec<String> {
        let wanted = |stored: &StoredMetric| {
            definitions
                .iter()
                .any(|d| d.name == stored.name && d.fingerprint == stored.fingerprint)
        };
        self.metrics
            .iter()
            .filter(|(stored, _)| wanted(stored))
            .flat_map(|(stored, _)| {
                let prefix = chunk_prefix(&stored.name, stored.fingerprint);
                (0..stored.directory.len()).map(move |index| format!("{prefix}-{index}"))
            })
            .collect()
    }

    /// The rooms that may hold values of this shard.
    #[must_use]
    pub fn targets(&self) -> &[(Room, Audience)] {
        &self.targets
    }
}

impl Shard {
    /// Makes a shard from its definitions and what is stored, if anything is. New and changed metrics begin empty at position 0;
    /// the others keep what they have, and skip what they folded already while the new ones catch up.
    ///
    /// # Errors
    /// [`Corrupt`], also when a chunk is not the one the head was written with: read again.
    pub fn load(
        definitions: Vec<Arc<Definition>>,
        stored: Option<(Head, &HashMap<String, Vec<u8>>)>,
        now: i64,
    ) -> Result<Self, Corrupt> {
        let mut paths = Paths::default();
        let (head, chunks) = match stored {
            Some((head, chunks)) => (head, Some(chunks)),
            None => {
                let head = Head {
                    as_of: now,
                    seq: 0,
                    last_stored: None,
                    targets: Vec::new(),
                    retired: Vec::new(),
                    metrics: Vec::new(),
                };
                (head, None)
            }
        };
        let as_of = head.as_of.max(now);
        let mut metrics = Vec::with_capacity(definitions.len());
        let mut fresh = BTreeSet::new();
        let mut retired = head.retired;
        let mut unsaved = Unsaved::Nothing;
        for definition in definitions {
            let known = head
                .metrics
                .iter()
                .find(|(stored, _)| stored.name == definition.name);
            let mut metric = Metric::new(Arc::clone(&definition), &mut paths, head.as_of);
            match (known, chunks) {
                (Some((stored, digest)), Some(chunks)) if stored.fingerprint == definition.fingerprint => {
                    revive(&mut metric, stored, *digest, chunks)?;
                }
                (known, _) => {
                    metric.floor = known.map_or(0, |(stored, _)| stored.folded_to.max(stored.floor));
                    metric.created = as_of;
                    fresh.insert(metrics.len());
                    unsaved = Unsaved::Content;
                }
            }
            metrics.push(metric);
        }
        for (stored, _) in &head.metrics {
            let kept = metrics.iter().any(|metric| {
                metric.definition.name == stored.name && metric.definition.fingerprint == stored.fingerprint
            });
            if !kept {
                let count = u32::try_from(stored.directory.len()).unwrap_or(u32::MAX);
                retired.push(Retired {
                    prefix: chunk_prefix(&stored.name, stored.fingerprint),
                    next: 0,
                    count,
                });
                unsaved = Unsaved::Content;
            }
        }
        // A definition that came back takes its old chunks over again.
        retired.retain(|old| {
            !metrics
                .iter()
                .any(|m| chunk_prefix(&m.definition.name, m.definition.fingerprint) == old.prefix)
        });
        let seq = metrics
            .iter()
            .map(|metric| metric.folded_to)
            .min()
            .unwrap_or(head.seq);
        let mut targets = head.targets;
        for publish in metrics
            .iter()
            .filter_map(|metric| metric.definition.publish.as_ref())
        {
            let target = (publish.room.clone(), publish.audience.clone());
            if !targets.contains(&target) {
                targets.push(target);
                unsaved = Unsaved::Content;
            }
        }
        let mut shard = Self {
            metrics,
            fresh,
            paths,
            seq,
            as_of,
            last_stored: head.last_stored,
            targets,
            retired,
            unsaved,
        };
        shard.advance(now);
        Ok(shard)
    }

    /// The rooms in which values of this shard may be stored: those it publishes to, and those it did.
    #[must_use]
    pub fn targets(&self) -> &[(Room, Audience)] {
        &self.targets
    }

    /// The definitions.
    pub fn definitions(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.metrics.iter().map(|metric| &metric.definition)
    }

    /// Whether there is any metric.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.metrics.is_empty()
    }

    /// Everything up to here is folded.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.seq
    }

    /// When the last event that was read was stored.
    #[must_use]
    pub fn last_stored(&self) -> Option<i64> {
        self.last_stored
    }

    /// The instant up to which time has moved.
    #[must_use]
    pub fn as_of(&self) -> i64 {
        self.as_of
    }

    /// Folds one event; events must come in stream order, and one that was folded before changes nothing.
    pub fn fold(&mut self, event: &Event<'_>, told: &mut impl FnMut(Outcome)) {
        if event.seq <= self.seq {
            return;
        }
        let row = self.paths.row(event);
        let mut concerned = false;
        for metric in &mut self.metrics {
            metric.fold(event, &row, &mut |outcome| {
                concerned |= outcome != Outcome::NotOurs;
                told(outcome);
            });
        }
        self.seq = event.seq;
        self.last_stored = self.last_stored.max(Some(event.stored_micros));
        self.unsaved = self.unsaved.max(if concerned {
            Unsaved::Content
        } else {
            Unsaved::Position
        });
    }

    /// Nothing of interest lies at or before this position.
    pub fn reached(&mut self, seq: u64) {
        if seq > self.seq {
            self.seq = seq;
            self.unsaved = self.unsaved.max(Unsaved::Position);
        }
    }

    /// Moves time.
    pub fn advance(&mut self, now: i64) {
        self.as_of = self.as_of.max(now);
        for metric in &mut self.metrics {
            metric.advance(self.as_of);
        }
    }

    /// The stream no longer holds what lies before `first_seq`, which was stored at `until`. Answers how many metrics miss events.
    pub fn missed(&mut self, first_seq: u64, until: i64) -> usize {
        let since = self
            .last_stored
            .filter(|_| self.seq > 0)
            .unwrap_or(until)
            .min(until);
        let mut count = 0;
        for metric in &mut self.metrics {
            if metric.folded_to.max(self.seq) + 1 < first_seq {
                // A metric that never read anything misses what lies before the oldest event it is filled from.
                let since = if metric.last_match.is_none() { until } else { since };
                metric.missed(Hole { since, until });
                count += 1;
            }
        }
        if count > 0 {
            self.unsaved = Unsaved::Content;
        }
        self.reached(first_seq.saturating_sub(1));
        count
    }

    /// Revisions of metrics that begin anew stay above those of their values that are stored.
    pub fn raise_floors(&mut self, known: &[Known]) {
        for index in &self.fresh {
            let metric = &mut self.metrics[*index];
            let own = known
                .iter()
                .filter(|known| metric_of_key(&known.key) == metric.definition.name);
            metric.floor = own
                .map(|known| known.revision)
                .max()
                .unwrap_or(0)
                .max(metric.floor);
        }
    }

    /// From now on there is something to say.
    pub fn go_live(&mut self) {
        for metric in &mut self.metrics {
            metric.live = true;
        }
    }

    /// Events that are stored and not yet read.
    pub fn set_lag(&mut self, lag: u64) {
        for metric in &mut self.metrics {
            metric.lag = lag;
        }
    }

    /// The next instant at which time alone changes or releases something.
    #[must_use]
    pub fn next_wake(&self) -> Option<i64> {
        let changes = self.metrics.iter().filter_map(Metric::next_change);
        changes
            .chain(
                self.metrics
                    .iter()
                    .filter_map(|metric| metric.render_at(self.seq)),
            )
            .min()
    }

    /// Whether anything is to be published now.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.metrics
            .iter()
            .any(|metric| metric.render_at(self.seq).is_some_and(|at| at <= self.as_of))
    }

    /// What is to be published once the next flush has succeeded.
    pub fn render(&mut self) -> Vec<Outgoing> {
        self.metrics
            .iter_mut()
            .flat_map(|metric| metric.render(self.seq))
            .collect()
    }

    /// Everything rendered was acknowledged.
    pub fn settled(&mut self) {
        for metric in &mut self.metrics {
            if !metric.closed_in_flight.is_empty() {
                metric.settled();
                // The outbox in the head is empty now; that it is written so can wait.
                self.unsaved = self.unsaved.max(Unsaved::Position);
            }
        }
    }

    /// Stored values of this shard that nothing produces any more: former groups, metrics, rooms. To be withdrawn.
    pub fn orphans(&mut self, shard: u32, tenant: &Tenant, known: &[Known]) -> Vec<Outgoing> {
        let mut out = Vec::new();
        let produced: Vec<_> = self
            .metrics
            .iter()
            .map(|metric| metric.definition.publish.is_some().then(|| metric.produced()))
            .collect();
        for known in known {
            let name = metric_of_key(&known.key);
            if roomcast_proto::ids::shard(tenant, name) != shard {
                continue;
            }
            let place = self
                .metrics
                .iter()
                .position(|metric| metric.definition.name == name);
            let kept = place.is_some_and(|place| {
                let publish = self.metrics[place].definition.publish.as_ref();
                let here = publish.is_some_and(|p| p.room == known.room && p.audience == known.audience);
                here && produced[place]
                    .as_ref()
                    .is_some_and(|keys| keys.contains_key(&known.key))
            });
            if let (true, Some(place)) = (kept, place) {
                let closed = produced[place]
                    .as_ref()
                    .and_then(|keys| keys.get(&known.key).cloned().flatten());
                if let Some((window, group)) = closed {
                    self.metrics[place]
                        .closed_published
                        .entry(window)
                        .or_default()
                        .insert(group);
                }
            } else {
                out.push(Outgoing {
                    room: known.room.clone(),
                    audience: known.audience.clone(),
                    key: known.key.clone(),
                    kind: UPDATED,
                    body: None,
                    expires_micros: None,
                    revision: known.revision.max(self.seq),
                    as_of: self.as_of,
                });
            }
        }
        out
    }

    /// All orphans are withdrawn: former rooms need not be looked at again.
    pub fn swept(&mut self) {
        let publishes = self
            .metrics
            .iter()
            .filter_map(|metric| metric.definition.publish.as_ref());
        let mut targets: Vec<(Room, Audience)> = Vec::new();
        for publish in publishes {
            let target = (publish.room.clone(), publish.audience.clone());
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        if targets != self.targets {
            self.targets = targets;
            self.unsaved = Unsaved::Content;
        }
    }

    /// What a flush would save.
    #[must_use]
    pub fn unsaved(&self) -> Unsaved {
        let dirty = self.metrics.iter().any(|metric| metric.chunks.dirty() > 0);
        if dirty || !self.retired.is_empty() {
            Unsaved::Content
        } else {
            self.unsaved
        }
    }

    /// Chunks that wait to be written.
    #[must_use]
    pub fn dirty(&self) -> usize {
        self.metrics.iter().map(|metric| metric.chunks.dirty()).sum()
    }

    /// Takes what is to be written. If writing fails or its outcome is unknown, drop the shard and load it again.
    pub fn flush(&mut self) -> Flush {
        let mut chunks = Vec::new();
        for metric in &mut self.metrics {
            write_dirty(metric, &mut chunks);
        }
        for old in &mut self.retired {
            let end = old.count.min(old.next + RETIRED_PER_FLUSH);
            while old.next < end && chunks.len() < FLUSH_MAX - 1 {
                chunks.push((format!("{}-{}", old.prefix, old.next), Vec::new()));
                old.next += 1;
            }
        }
        self.retired.retain(|old| old.next < old.count);
        self.unsaved = Unsaved::Nothing;
        Flush {
            chunks,
            head: self.write_head(),
        }
    }

    fn write_head(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.fixed(&[FORMAT]);
        out.signed(self.as_of.into());
        out.unsigned(self.seq.into());
        out.optional(self.last_stored);
        out.count(self.targets.len());
        for (room, audience) in &self.targets {
            out.bytes(room.as_str().as_bytes());
            out.bytes(audience.as_str().as_bytes());
        }
        out.count(self.retired.len());
        for old in &self.retired {
            out.bytes(old.prefix.as_bytes());
            out.unsigned(old.next.into());
            out.unsigned(old.count.into());
        }
        out.count(self.metrics.len());
        for metric in &self.metrics {
            write_metric(&mut out, metric, self.seq);
            let digest = metric
                .chunks
                .list()
                .iter()
                .fold(0_u64, |sum, chunk| sum.wrapping_add(chunk.written));
            out.fixed(&digest.to_le_bytes());
        }
        out.finish()
    }

    /// Watermarks that were not kept because a metric has too many rooms; cumulative.
    #[must_use]
    pub fn rooms_untracked(&self) -> u64 {
        self.metrics.iter().map(|metric| metric.rooms_untracked).sum()
    }

    /// A metric by name, for tests and queries.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<&Metric> {
        self.metrics.iter().find(|metric| metric.definition.name == name)
    }
}

/// Fills a metric from what is stored of it.
fn revive(
    metric: &mut Metric,
    stored: &StoredMetric,
    digest: u64,
    chunks: &HashMap<String, Vec<u8>>,
) -> Result<(), Corrupt> {
    metric.folded_to = stored.folded_to;
    metric.last_seq = stored.last_seq;
    metric.floor = stored.floor;
    metric.folded = stored.folded;
    metric.rooms_untracked = stored.rooms_untracked;
    metric.skipped = stored.skipped;
    metric.created = stored.created;
    metric.place = stored.place;
    metric.highest = stored.highest;
    metric.last_match = stored.last_match;
    metric.hole = stored.hole;
    metric.chunks =
        Chunks::from_directory(&stored.directory).ok_or(Corrupt("the chunks do not fit together"))?;
    let prefix = chunk_prefix(&stored.name, stored.fingerprint);
    let mut sum = 0_u64;
    for index in 0..stored.directory.len() {
        if let Some(bytes) = chunks
            .get(&format!("{prefix}-{index}"))
            .filter(|bytes| !bytes.is_empty())
        {
            let digest = chunk_digest(index, bytes);
            sum = sum.wrapping_add(digest);
            read_chunk(metric, index, bytes)?;
            metric.chunks.written(index, digest);
        }
    }
    if sum != digest {
        return Err(Corrupt("a chunk is not the one the head was written with"));
    }
    metric.restore();
    metric.closed = stored.outbox.iter().map(|place| (*place, Due::All)).collect();
    Ok(())
}

/// Writes a metric's dirty chunks, splitting those that grew too large.
fn write_dirty(metric: &mut Metric, out: &mut Vec<(String, Vec<u8>)>) {
    let prefix = chunk_prefix(&metric.definition.name, metric.definition.fingerprint);
    let mut waiting: Vec<usize> = (0..metric.chunks.list().len())
        .filter(|i| metric.chunks.list()[*i].dirty)
        .collect();
    while let Some(index) = waiting.pop() {
        let bytes = write_chunk(metric, &metric.chunks.list()[index]);
        if bytes.len() > SPLIT_BYTES && out.len() + waiting.len() < FLUSH_MAX - 2 {
            if let Some(new) = metric.chunks.split(index, &metric.groups) {
                waiting.extend([index, new]);
                continue;
            }
        }
        metric.chunks.written(index, chunk_digest(index, &bytes));
        out.push((format!("{prefix}-{index}"), bytes));
    }
}
