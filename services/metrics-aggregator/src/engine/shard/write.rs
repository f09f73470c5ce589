//! What a flush writes: the chunks that changed, then the head.

use super::head::{chunk_digest, chunk_prefix};
use super::{FLUSH_MAX, Flush, RETIRED_PER_FLUSH, Shard, Unsaved};
use crate::engine::chunk::SPLIT_BYTES;
use crate::engine::codec::{FORMAT, Writer, write_chunk, write_metric};
use crate::engine::metric::Metric;

impl Shard {
    /// What a flush would save.
    #[must_use]
    pub fn unsaved(&self) -> Unsaved {
        let dirty = self.metrics.iter().any(|metric| metric.chunks.dirty() > 0);
        if dirty || self.alerts.is_dirty() || !self.retired.is_empty() {
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
            write_dirty(metric, self.generation, &mut chunks);
        }
        chunks.extend(self.alerts.flush(FLUSH_MAX.saturating_sub(chunks.len() + 1)));
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
        out.optional(self.stream);
        out.unsigned(self.generation.into());
        out.unsigned(self.believed.into());
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
            let position = if metric.filling { 0 } else { self.seq };
            write_metric(&mut out, metric, position);
            let digest = metric
                .chunks
                .list()
                .iter()
                .fold(0_u64, |sum, chunk| sum.wrapping_add(chunk.written));
            out.fixed(&digest.to_le_bytes());
        }
        out.count(self.alerts.stored().count());
        for (name, digest) in self.alerts.stored() {
            out.bytes(name.as_bytes());
            out.fixed(&digest.to_le_bytes());
        }
        out.finish()
    }
}

/// Writes a metric's dirty chunks, splitting those that grew too large.
fn write_dirty(metric: &mut Metric, generation: u64, out: &mut Vec<(String, Vec<u8>)>) {
    let prefix = chunk_prefix(&metric.definition.name, metric.definition.fingerprint, generation);
    let mut waiting: Vec<usize> = (0..metric.chunks.list().len())
        .filter(|i| metric.chunks.list()[*i].dirty)
        .collect();
    while let Some(index) = waiting.pop() {
        let bytes = write_chunk(metric, &metric.chunks.list()[index]);
        if bytes.len() > SPLIT_BYTES
            && out.len() + waiting.len() < FLUSH_MAX - 2
            && let Some(new) = metric.chunks.split(index, &metric.groups)
        {
            waiting.extend([index, new]);
            continue;
        }
        metric.chunks.written(index, chunk_digest(index, &bytes));
        out.push((format!("{prefix}-{index}"), bytes));
    }
}
