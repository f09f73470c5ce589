//! How state is stored: a compact binary form with a version, written and read here and nowhere else.
//!
//! Whole numbers are LEB128, signed ones zigzag. Reading checks everything: what does not fit is [`Corrupt`], never a panic.

use crate::engine::cell::Cell;
use crate::engine::chunk::{Chunk, Slots, ValueKey};
use crate::engine::metric::{Hole, Metric, part_cells};

/// The version of heads and chunks. A reader refuses any other.
pub const FORMAT: u8 = 1;

/// Stored bytes that are not what this version writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stored state is damaged or of another version: {0}")]
pub struct Corrupt(pub &'static str);

/// Builds stored bytes.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// The bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    /// A whole number.
    pub fn unsigned(&mut self, mut number: u128) {
        loop {
            let low = u8::try_from(number & 0x7f).unwrap_or(0);
            number >>= 7;
            if number == 0 {
                self.0.push(low);
                return;
            }
            self.0.push(low | 0x80);
        }
    }

    /// A signed number.
    pub fn signed(&mut self, number: i128) {
        self.unsigned(((number << 1) ^ (number >> 127)).cast_unsigned());
    }

    /// A length or count.
    pub fn count(&mut self, count: usize) {
        self.unsigned(count as u128);
    }

    /// Bytes with their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// Bytes without their length.
    pub fn fixed(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// A signed number that may be absent.
    pub fn optional(&mut self, number: Option<i64>) {
        match number {
            None => self.0.push(0),
            Some(number) => {
                self.0.push(1);
                self.signed(number.into());
            }
        }
    }
}

/// Reads stored bytes.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Begins at the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether everything was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Some bytes.
    ///
    /// # Errors
    /// [`Corrupt`] where there are not so many; as for all methods here.
    pub fn fixed(&mut self, len: usize) -> Result<&'a [u8], Corrupt> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Corrupt("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn byte(&mut self) -> Result<u8, Corrupt> {
        Ok(self.fixed(1)?[0])
    }

    /// A whole number.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn unsigned(&mut self) -> Result<u128, Corrupt> {
        let mut number = 0_u128;
        for shift in (0..133).step_by(7) {
            let byte = self.byte()?;
            let bits = u128::from(byte & 0x7f);
            if shift == 126 && bits > 3 {
                return Err(Corrupt("a number is too large"));
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Corrupt("a number is too long"))
    }

    /// A signed number.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn signed(&mut self) -> Result<i128, Corrupt> {
        let number = self.unsigned()?;
        Ok((number >> 1).cast_signed() ^ -((number & 1).cast_signed()))
    }

    /// A signed number of 64 bits.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn signed64(&mut self) -> Result<i64, Corrupt> {
        i64::try_from(self.signed()?).map_err(|_| Corrupt("a number is too large"))
    }

    /// A whole number of 64 bits.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn unsigned64(&mut self) -> Result<u64, Corrupt> {
        u64::try_from(self.unsigned()?).map_err(|_| Corrupt("a number is too large"))
    }

    /// A count of things that take at least one byte each.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn count(&mut self) -> Result<usize, Corrupt> {
        let count = usize::try_from(self.unsigned()?).map_err(|_| Corrupt("a count is too large"))?;
        if count > self.0.len() {
            Err(Corrupt("a count is larger than what follows"))
        } else {
            Ok(count)
        }
    }

    /// Text with its length.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn text(&mut self) -> Result<&'a str, Corrupt> {
        let len = self.count()?;
        std::str::from_utf8(self.fixed(len)?).map_err(|_| Corrupt("text is not UTF-8"))
    }

    /// A signed number that may be absent.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn optional(&mut self) -> Result<Option<i64>, Corrupt> {
        match self.byte()? {
            0 => Ok(None),
            1 => self.signed64().map(Some),
            _ => Err(Corrupt("a flag is neither 0 nor 1")),
        }
    }
}

/// One chunk of a metric as it is stored.
#[must_use]
pub fn write_chunk(metric: &Metric, chunk: &Chunk) -> Vec<u8> {
    let mut out = Writer::default();
    out.fixed(&[FORMAT]);
    let mut rooms: Vec<_> = chunk.rooms.iter().collect();
    rooms.sort_unstable();
    out.count(rooms.len());
    for (room, marks) in rooms {
        out.bytes(room.as_bytes());
        for mark in marks {
            out.optional((*mark != i64::MIN).then_some(*mark));
        }
    }
    let mut parts = chunk.parts.clone();
    parts.sort_unstable();
    let mut values: Vec<(&ValueKey, &Slots)> = chunk.values.iter().collect();
    values.sort_unstable_by_key(|(key, _)| **key);
    let mut groups: Vec<u32> = parts
        .iter()
        .map(|(group, _)| *group)
        .chain(values.iter().map(|(key, _)| key.group))
        .collect();
    groups.sort_unstable();
    groups.dedup();
    out.count(groups.len());
    let (mut parts, mut values) = (&parts[..], &values[..]);
    for place in groups {
        let (own_parts, rest) = parts.split_at(parts.partition_point(|(group, _)| *group <= place));
        parts = rest;
        let (own_values, rest) = values.split_at(values.partition_point(|(key, _)| key.group <= place));
        values = rest;
        let group = &metric.groups[place as usize];
        out.bytes(group.key.as_bytes());
        out.count(own_parts.len());
        for (_, part) in own_parts {
            for leg in 0..2 {
                write_cells(&mut out, part_cells(group, leg, *part));
            }
        }
        out.count(own_values.len());
        for (key, slots) in own_values {
            out.fixed(&[key.leg]);
            out.fixed(&key.value.to_le_bytes());
            write_slots(&mut out, slots);
        }
    }
    out.finish()
}

fn write_cells(out: &mut Writer, cells: &[Cell]) {
    out.count(cells.len());
    let (mut slot, mut seq) = (0_i64, 0_i128);
    for cell in cells {
        out.signed(i128::from(cell.slot) - i128::from(slot));
        slot = cell.slot;
        out.unsigned(u128::from(cell.events) << 1 | u128::from(cell.capped));
        out.signed(cell.sum);
        out.signed(i128::from(cell.seq) - seq);
        seq = cell.seq.into();
    }
}

fn read_cells(input: &mut Reader<'_>) -> Result<Vec<Cell>, Corrupt> {
    let count = input.count()?;
    let mut cells = Vec::with_capacity(count);
    let (mut slot, mut seq) = (0_i128, 0_i128);
    for _ in 0..count {
        slot = slot
            .checked_add(input.signed()?)
            .ok_or(Corrupt("a slot is too large"))?;
        let events = input.unsigned()?;
        let sum = input.signed()?;
        seq = seq
            .checked_add(input.signed()?)
            .ok_or(Corrupt("a position is too large"))?;
        cells.push(Cell {
            sum,
            slot: i64::try_from(slot).map_err(|_| Corrupt("a slot is too large"))?,
            events: u64::try_from(events >> 1).map_err(|_| Corrupt("a count is too large"))?,
            seq: u64::try_from(seq).map_err(|_| Corrupt("a position is too large"))?,
            capped: events & 1 == 1,
        });
    }
    Ok(cells)
}

/// Slots as runs of consecutive ones, or as a bitmap where that is shorter.
fn write_slots(out: &mut Writer, slots: &Slots) {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    for slot in slots {
        match runs.last_mut() {
            Some((start, len)) if *start + *len == *slot => *len += 1,
            _ => runs.push((*slot, 1)),
        }
    }
    let first = slots.first().copied().unwrap_or(0);
    let span = slots.last().map_or(0, |last| last - first + 1);
    let bitmap_bytes = usize::try_from(span / 8 + 1).unwrap_or(usize::MAX);
    if runs.len() > 8 && bitmap_bytes < runs.len() * 2 {
        out.fixed(&[1]);
        out.signed(first.into());
        let mut bitmap = vec![0_u8; bitmap_bytes];
        for slot in slots {
            let at = usize::try_from(slot - first).unwrap_or(0);
            bitmap[at / 8] |= 1 << (at % 8);
        }
        out.bytes(&bitmap);
        return;
    }
    out.fixed(&[0]);
    out.count(runs.len());
    let mut end = 0;
    for (start, len) in runs {
        out.signed(i128::from(start) - i128::from(end));
        out.signed(len.into());
        end = start + len;
    }
}

fn read_slots(input: &mut Reader<'_>) -> Result<Slots, Corrupt> {
    const FAR: Corrupt = Corrupt("a slot is too large");
    let mut slots = Slots::new();
    match input.byte()? {
        0 => {
            let mut end = 0_i64;
            for _ in 0..input.count()? {
                let start = end.checked_add(input.signed64()?).ok_or(FAR)?;
                let len = input.signed64()?;
                end = start.checked_add(len).ok_or(FAR)?;
                if !(1..=1 << 20).contains(&len) {
                    return Err(FAR);
                }
                slots.extend(start..end);
            }
        }
        1 => {
            let first = input.signed64()?;
            let len = input.count()?;
            for (byte, base) in input.fixed(len)?.iter().zip((0_i64..).step_by(8)) {
                for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                    slots.push(first.checked_add(base + bit).ok_or(FAR)?);
                }
            }
        }
        _ => return Err(Corrupt("unknown form of slots")),
    }
    Ok(slots)
}

/// Adds a stored chunk to a metric. [`Metric::restore`] completes it when all are read.
///
/// # Errors
/// [`Corrupt`].
pub fn read_chunk(metric: &mut Metric, index: usize, bytes: &[u8]) -> Result<(), Corrupt> {
    let mut input = Reader::new(bytes);
    if input.byte()? != FORMAT {
        return Err(Corrupt("another version"));
    }
    for _ in 0..input.count()? {
        let room = input.text()?;
        let marks = [
            input.optional()?.unwrap_or(i64::MIN),
            input.optional()?.unwrap_or(i64::MIN),
        ];
        metric.chunks.get_mut(index).rooms.insert(room.into(), marks);
    }
    for _ in 0..input.count()? {
        let place = metric.group_place(input.text()?);
        for _ in 0..input.count()? {
            for leg in 0..2 {
                let cells = read_cells(&mut input)?;
                metric.groups[place as usize].legs[leg].extend(cells);
            }
        }
        for _ in 0..input.count()? {
            let leg = input.byte()?;
            if leg > 1 {
                return Err(Corrupt("a leg that does not exist"));
            }
            let mut value = [0; 16];
            value.copy_from_slice(input.fixed(16)?);
            let key = ValueKey {
                group: place,
                leg,
                value: u128::from_le_bytes(value),
            };
            let slots = read_slots(&mut input)?;
            metric.chunks.get_mut(index).values.insert(key, slots);
        }
    }
    if input.is_empty() {
        Ok(())
    } else {
        Err(Corrupt("more bytes than expected"))
    }
}

/// What the head says about one metric.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(unsigned: u128, signed: i128, optional: Option<i64>) {
            let mut out = Writer::default();
            out.unsigned(unsigned);
            out.signed(signed);
            out.optional(optional);
            let bytes = out.finish();
            let mut input = Reader::new(&bytes);
            prop_assert_eq!(input.unsigned(), Ok(unsigned));
            prop_assert_eq!(input.signed(), Ok(signed));
            prop_assert_eq!(input.optional(), Ok(optional));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn slots_come_back(gaps in prop::collection::vec(1_i64..40, 1..200), first in -1_000_000_i64..1_000_000, dense: bool) {
            let mut at = first;
            let slots: Slots = gaps.iter().map(|gap| { at += if dense { gap % 3 + 1 } else { *gap }; at }).collect();
            let mut out = Writer::default();
            write_slots(&mut out, &slots);
            prop_assert_eq!(read_slots(&mut Reader::new(&out.finish())), Ok(slots));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_metric(&mut Reader::new(&bytes));
            let _ = read_slots(&mut Reader::new(&bytes));
            let _ = read_cells(&mut Reader::new(&bytes));
        }
    }
}
