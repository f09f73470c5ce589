//! The head of a shard: position, time, rooms, and what each metric needs besides its chunks.

use std::collections::HashMap;
use std::sync::Arc;

use roomcast_proto::ids::{Audience, Room};

use crate::definition::Definition;
use crate::engine::alert::codec::FORMAT_FIRST as RULES_SINCE;
use crate::engine::alert::{self, StoredRule};
use crate::engine::chunk::Chunks;
use crate::engine::codec::{Corrupt, FORMAT, FORMAT_OLDEST, Reader, StoredMetric, read_chunk, read_metric};
use crate::engine::fnv;
use crate::engine::metric::{Due, Metric};

/// A stored head.
#[derive(Debug, Clone)]
pub struct Head {
    pub(super) as_of: i64,
    pub(super) seq: u64,
    /// See [`super::Shard::believe`].
    pub(super) believed: u64,
    pub(super) last_stored: Option<i64>,
    /// When the stream was made that all this was folded from.
    pub(super) stream: Option<i64>,
    /// Mixed into the names of chunks; 0 until a stream is made anew.
    pub(super) generation: u64,
    /// The stream is another one: nothing here counts.
    pub(super) anew: bool,
    pub(super) targets: Vec<(Room, Audience)>,
    pub(super) retired: Vec<Retired>,
    pub(super) metrics: Vec<(StoredMetric, u64)>,
    pub(super) rules: Vec<StoredRule>,
}

/// Chunks of a metric that is no longer defined so: numbers `next..count` are still stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Retired {
    pub(super) prefix: String,
    pub(super) next: u32,
    pub(super) count: u32,
}

pub(super) fn chunk_prefix(name: &str, fingerprint: u64, generation: u64) -> String {
    format!("{name}-{:016x}", fingerprint ^ generation)
}

pub(super) fn chunk_digest(index: usize, bytes: &[u8]) -> u64 {
    fnv::mix(fnv::hash(bytes) ^ (index as u64))
}

impl Head {
    /// Reads a stored head.
    ///
    /// # Errors
    /// [`Corrupt`]: damaged, or written by another version.
    pub fn read(bytes: &[u8]) -> Result<Self, Corrupt> {
        let mut input = Reader::new(bytes);
        let format = input.byte()?;
        if !(FORMAT_OLDEST..=FORMAT).contains(&format) {
            return Err(Corrupt("the head is of another version"));
        }
        let (as_of, seq, last_stored) = (input.signed64()?, input.unsigned64()?, input.optional()?);
        let (stream, generation) = if format == FORMAT_OLDEST {
            (None, 0)
        } else {
            (input.optional()?, input.unsigned64()?)
        };
        // Before, the position itself was what a node had said.
        let believed = if format < 3 { seq } else { input.unsigned64()? };
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
        let mut rules = Vec::new();
        let count = if format < RULES_SINCE { 0 } else { input.count()? };
        for _ in 0..count {
            let name = input.text()?.to_owned();
            let mut bytes = [0; 8];
            bytes.copy_from_slice(input.fixed(8)?);
            rules.push((name, u64::from_le_bytes(bytes)));
        }
        if input.is_empty() {
            Ok(Self {
                as_of,
                seq,
                believed,
                last_stored,
                stream,
                generation,
                anew: false,
                targets,
                retired,
                metrics,
                rules,
            })
        } else {
            Err(Corrupt("more bytes than expected"))
        }
    }

    /// Compares the stream this was folded from with the one there is, made at `created`. True where that is another one: positions
    /// mean nothing then, and a shard loaded from this head counts anew.
    pub fn meet(&mut self, created: i64) -> bool {
        self.anew = self.stream.is_some_and(|known| known != created);
        self.stream = Some(created);
        self.anew
    }

    /// Whether anything is left to do for a shard without metrics.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.metrics.is_empty() && self.targets.is_empty() && self.retired.is_empty() && self.rules.is_empty()
    }

    /// The chunks to read for these definitions, state of others is not needed; and those of all rules.
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
                let prefix = chunk_prefix(&stored.name, stored.fingerprint, self.generation);
                (0..stored.directory.len()).map(move |index| format!("{prefix}-{index}"))
            })
            .chain(self.rules.iter().map(|(rule, _)| alert::chunk_name(rule)))
            .collect()
    }

    /// The rooms that may hold values of this shard.
    #[must_use]
    pub fn targets(&self) -> &[(Room, Audience)] {
        &self.targets
    }
}

/// Fills a metric from what is stored of it.
pub(super) fn revive(
    metric: &mut Metric,
    stored: &StoredMetric,
    digest: u64,
    generation: u64,
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
    let prefix = chunk_prefix(&stored.name, stored.fingerprint, generation);
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
