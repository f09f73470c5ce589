//! A shard: all metrics with the same shard number, one position, one state. Pure: no await, no clock.
//!
//! The worker reads events into [`Shard::fold`], moves time with [`Shard::advance`], writes what [`Shard::flush`] gives and then
//! publishes what [`Shard::render`] gave. Whatever goes wrong outside, the shard is dropped and loaded again.

mod fill;
mod head;
mod write;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use roomcast_proto::ids::{Audience, Room, Tenant};
use roomcast_proto::metric::{UPDATED, metric_of_key};

use crate::definition::Definition;
use crate::definition::rule::Rule;
use crate::engine::alert::{Alerts, Notice, Silenced};
use crate::engine::codec::Corrupt;
use crate::engine::metric::{Hole, Metric, Outcome};
use crate::engine::render::Outgoing;
use crate::engine::row::{Event, Paths};
pub use head::Head;
use head::{Retired, chunk_prefix, revive};

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
    believed: u64,
    as_of: i64,
    last_stored: Option<i64>,
    stream: Option<i64>,
    generation: u64,
    targets: Vec<(Room, Audience)>,
    retired: Vec<Retired>,
    alerts: Alerts,
    unsaved: Unsaved,
}

impl Shard {
    /// Makes a shard from its definitions and what is stored, if anything is. New and changed metrics begin empty; where others keep
    /// what they have, the new ones are filled beside them, see [`Shard::fill`].
    ///
    /// # Errors
    /// [`Corrupt`], also when a chunk is not the one the head was written with: read again.
    pub fn load(
        definitions: Vec<Arc<Definition>>,
        stored: Option<(Head, &HashMap<String, Vec<u8>>)>,
        now: i64,
    ) -> Result<Self, Corrupt> {
        Self::load_with(definitions, Vec::new(), stored, now)
    }

    /// As [`Shard::load`], with the rules on these metrics. A rule keeps what it has said whatever else has changed of it.
    ///
    /// # Errors
    /// As [`Shard::load`].
    pub fn load_with(
        definitions: Vec<Arc<Definition>>,
        rules: Vec<Arc<Rule>>,
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
                    believed: 0,
                    last_stored: None,
                    stream: None,
                    generation: 0,
                    anew: false,
                    targets: Vec::new(),
                    retired: Vec::new(),
                    metrics: Vec::new(),
                    rules: Vec::new(),
                };
                (head, None)
            }
        };
        let as_of = head.as_of.max(now);
        let generation = match head.stream.filter(|_| head.anew) {
            Some(created) => created.cast_unsigned(),
            None => head.generation,
        };
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
                (Some((stored, digest)), Some(chunks))
                    if stored.fingerprint == definition.fingerprint && !head.anew =>
                {
                    revive(&mut metric, stored, *digest, generation, chunks)?;
                }
                (known, _) => {
                    metric.floor = known.map_or(0, |(stored, _)| stored.folded_to.max(stored.floor));
                    metric.created = as_of;
                    if let (Some(created), Some(_)) = (head.stream.filter(|_| head.anew), known) {
                        metric.missed(Hole {
                            since: created,
                            until: created,
                        });
                    }
                    fresh.insert(metrics.len());
                    unsaved = Unsaved::Content;
                }
            }
            metrics.push(metric);
        }
        let none = HashMap::new();
        let alerts = Alerts::load(
            rules,
            (&metrics, &fresh),
            &head.rules,
            chunks.unwrap_or(&none),
            as_of,
        )?;
        for (stored, _) in &head.metrics {
            let kept = !head.anew
                && metrics.iter().any(|metric| {
                    metric.definition.name == stored.name
                        && metric.definition.fingerprint == stored.fingerprint
                });
            if !kept {
                let count = u32::try_from(stored.directory.len()).unwrap_or(u32::MAX);
                retired.push(Retired {
                    prefix: chunk_prefix(&stored.name, stored.fingerprint, head.generation),
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
                .any(|m| chunk_prefix(&m.definition.name, m.definition.fingerprint, generation) == old.prefix)
        });
        // Those that have come furthest go on; the others, new or not yet filled when the state was written, are filled beside them.
        let seq = match metrics.iter().map(|metric| metric.folded_to).max() {
            Some(furthest) => furthest,
            None => head.seq,
        };
        for metric in &mut metrics {
            metric.filling = metric.folded_to < seq;
        }
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
        // What was said of the metrics before says nothing where none of them is left.
        let believed = if fresh.len() < metrics.len() || metrics.is_empty() {
            head.believed
        } else {
            0
        };
        let mut shard = Self {
            metrics,
            fresh,
            paths,
            seq,
            believed,
            as_of,
            last_stored: head.last_stored.filter(|_| !head.anew),
            stream: head.stream,
            generation,
            targets,
            retired,
            alerts,
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

    /// Everything up to here is folded, for certain: reading begins behind it.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.seq
    }

    /// Everything up to here is folded, as far as is known: [`Shard::position`], or further, see [`Shard::believe`].
    #[must_use]
    pub fn believed(&self) -> u64 {
        self.seq.max(self.believed)
    }

    /// When the last event that was read was stored.
    #[must_use]
    pub fn last_stored(&self) -> Option<i64> {
        self.last_stored
    }

    /// When the stream was made that this is folded from, once known.
    #[must_use]
    pub fn stream(&self) -> Option<i64> {
        self.stream
    }

    /// Says when the stream was made, where that is not known yet.
    pub fn set_stream(&mut self, created: i64) {
        if self.stream.is_none() {
            self.stream = Some(created);
            self.unsaved = Unsaved::Content;
        }
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
        for metric in self.metrics.iter_mut().filter(|metric| !metric.filling) {
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

    /// A node said that nothing of interest lies at or before this position. It may lag behind the others and give out an older event
    /// yet, which is folded then; so this is enough to speak, and to know later that what the stream dropped was not missed, and never
    /// moves the position.
    pub fn believe(&mut self, seq: u64) {
        if seq > self.believed() {
            self.believed = seq;
            self.unsaved = self.unsaved.max(Unsaved::Position);
        }
    }

    /// From the next look on rules are silent as operators say.
    pub fn silence(&mut self, silenced: Arc<[Silenced]>) {
        self.alerts.silence(silenced);
    }

    /// Moves time, and has rules look.
    pub fn advance(&mut self, now: i64) {
        self.as_of = self.as_of.max(now);
        for metric in &mut self.metrics {
            metric.advance(self.as_of);
        }
        self.alerts.look(&self.metrics, self.as_of);
    }

    /// The stream no longer holds what lies before `first_seq`, which was stored at `until`. Answers how many metrics miss events.
    pub fn missed(&mut self, first_seq: u64, until: i64) -> usize {
        let since = self
            .last_stored
            .filter(|_| self.seq > 0)
            .unwrap_or(until)
            .min(until);
        let mut count = 0;
        let believed = self.believed();
        for metric in &mut self.metrics {
            // What a node said was of the rooms of those that are filled.
            let known = if metric.filling { 0 } else { believed };
            if metric.folded_to.max(known) + 1 < first_seq {
                // A metric that never read anything misses what lies before the oldest event it is filled from.
                let since = match metric.last_match {
                    None => until,
                    Some(last) if metric.filling => last.min(until),
                    Some(_) => since,
                };
                metric.missed(Hole { since, until });
                count += 1;
            }
            if metric.filling {
                metric.folded_to = metric.folded_to.max(first_seq.saturating_sub(1));
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

    /// From now on there is something to say, of all that is not being filled.
    pub fn go_live(&mut self) {
        for metric in self.metrics.iter_mut().filter(|metric| !metric.filling) {
            metric.live = true;
        }
    }

    /// Events that are stored and not yet read.
    pub fn set_lag(&mut self, lag: u64) {
        for metric in self.metrics.iter_mut().filter(|metric| !metric.filling) {
            metric.lag = lag;
        }
    }

    /// The next instant at which time alone changes or releases something.
    #[must_use]
    pub fn next_wake(&self) -> Option<i64> {
        let changes = self.metrics.iter().filter_map(Metric::next_change);
        changes
            .chain(self.alerts.next_look())
            .chain(
                self.metrics
                    .iter()
                    .filter_map(|metric| metric.render_at(self.seq)),
            )
            .min()
    }

    /// What rules have to say, once it is written; the same until [`Shard::said`].
    pub fn notices(&self) -> impl Iterator<Item = &Notice> {
        self.alerts.waiting()
    }

    /// A notice is stored, or refused for good.
    pub fn said(&mut self, id: &str) {
        self.alerts.said(id);
    }

    /// How many groups of rules fire, and how many found no room to be watched since this was loaded.
    #[must_use]
    pub fn firing(&self) -> (usize, u64) {
        (self.alerts.firing(), self.alerts.refused())
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
                if let Some(closed) = closed {
                    self.metrics[place].adopt(closed);
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
