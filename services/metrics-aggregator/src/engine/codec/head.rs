//! What a stored head says about one metric.

use super::{Corrupt, Reader, Writer};
use crate::engine::metric::{Hole, Metric};

/// What the head says about one metric, which has folded everything up to `position` and perhaps more.
pub fn write_metric(out: &mut Writer, metric: &Metric, position: u64) {
    out.bytes(metric.definition.name.as_bytes());
    out.fixed(&metric.definition.fingerprint.to_le_bytes());
    for number in [
        metric.folded_to.max(position),
        metric.last_seq,
        metric.floor,
        metric.folded,
        metric.rooms_untracked,
    ] {
        out.unsigned(number.into());
    }
    let skipped = &metric.skipped;
    for number in [
        skipped.late,
        skipped.future,
        skipped.where_error,
        skipped.missing,
        skipped.not_a_number,
        skipped.not_a_scalar,
        skipped.out_of_range,
        skipped.overflow,
    ] {
        out.unsigned(number.into());
    }
    out.signed(metric.created.into());
    for number in [
        metric.place,
        metric.highest,
        metric.last_match,
        metric.hole.map(|h| h.since),
        metric.hole.map(|h| h.until),
    ] {
        out.optional(number);
    }
    let outbox = metric.outbox();
    out.count(outbox.len());
    for place in outbox {
        out.signed(place.into());
    }
    out.count(metric.chunks.list().len());
    for chunk in metric.chunks.list() {
        out.fixed(&[chunk.depth]);
        out.unsigned(u128::from(chunk.prefix.reverse_bits()));
    }
}

/// A metric's part of a head, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMetric {
    /// Its name.
    pub name: String,
    /// What it folded.
    pub fingerprint: u64,
    /// Its own position.
    pub folded_to: u64,
    pub(crate) last_seq: u64,
    pub(crate) floor: u64,
    pub(crate) folded: u64,
    pub(crate) rooms_untracked: u64,
    pub(crate) skipped: roomcast_proto::metric::Skipped,
    pub(crate) created: i64,
    pub(crate) place: Option<i64>,
    pub(crate) highest: Option<i64>,
    pub(crate) last_match: Option<i64>,
    pub(crate) hole: Option<Hole>,
    pub(crate) outbox: Vec<i64>,
    /// Its chunks: (depth, prefix).
    pub directory: Vec<(u8, u64)>,
}

/// Reads what [`write_metric`] wrote.
///
/// # Errors
/// [`Corrupt`].
pub fn read_metric(input: &mut Reader<'_>) -> Result<StoredMetric, Corrupt> {
    let name = input.text()?.to_owned();
    let mut fingerprint = [0; 8];
    fingerprint.copy_from_slice(input.fixed(8)?);
    let mut numbers = [0; 13];
    for number in &mut numbers {
        *number = input.unsigned64()?;
    }
    let created = input.signed64()?;
    let (place, highest, last_match) = (input.optional()?, input.optional()?, input.optional()?);
    let (since, until) = (input.optional()?, input.optional()?);
    let outbox = (0..input.count()?)
        .map(|_| input.signed64())
        .collect::<Result<_, _>>()?;
    let mut directory = Vec::new();
    for _ in 0..input.count()? {
        directory.push((input.byte()?, input.unsigned64()?.reverse_bits()));
    }
    let [
        folded_to,
        last_seq,
        floor,
        folded,
        rooms_untracked,
        late,
        future,
        where_error,
        missing,
        not_a_number,
        not_a_scalar,
        out_of_range,
        overflow,
    ] = numbers;
    Ok(StoredMetric {
        name,
        fingerprint: u64::from_le_bytes(fingerprint),
        folded_to,
        last_seq,
        floor,
        folded,
        rooms_untracked,
        skipped: roomcast_proto::metric::Skipped {
            late,
            future,
            where_error,
            missing,
            not_a_number,
            not_a_scalar,
            out_of_range,
            overflow,
        },
        created,
        place,
        highest,
        last_match,
        hole: since.zip(until).map(|(since, until)| Hole { since, until }),
        outbox,
        directory,
    })
}
