//! One chunk as it is stored: watermarks of rooms, cells, distinct values and sketches of groups.

use super::{Corrupt, FORMAT, FORMAT_OLDEST, Reader, SKETCHES_SINCE, Writer};
use crate::engine::cell::{Carried, Cell, Group, How, Totals};
use crate::engine::chunk::{Chunk, GaugeKey, Latest, SketchKey, Slots, ValueKey};
use crate::engine::metric::{Metric, part_cells};
use crate::engine::ranks::Ranks;
use crate::engine::session::Session;
use crate::engine::sketch::{REGISTERS, Sketch};
use crate::engine::top::Top;

/// All registers of a sketch.
const SKETCH_BYTES: usize = REGISTERS * 6 / 8;

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
    let mut keys: Vec<(&GaugeKey, &Latest)> = chunk.keys.iter().collect();
    keys.sort_unstable_by_key(|(id, latest)| (latest.group, **id));
    let mut sketches: Vec<(&SketchKey, &Sketch)> = chunk.sketches.iter().collect();
    sketches.sort_unstable_by_key(|(key, _)| **key);
    let mut groups: Vec<u32> = parts
        .iter()
        .map(|(group, _)| *group)
        .chain(values.iter().map(|(key, _)| key.group))
        .chain(keys.iter().map(|(_, latest)| latest.group))
        .chain(sketches.iter().map(|(key, _)| key.group))
        .collect();
    groups.sort_unstable();
    groups.dedup();
    out.count(groups.len());
    let (mut parts, mut values, mut keys) = (&parts[..], &values[..], &keys[..]);
    let mut sketches = &sketches[..];
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
                let cells = part_cells(group, leg, *part);
                write_cells(&mut out, cells, group.how[leg], metric.in_parts());
            }
            if metric.frames.gap().is_some() {
                write_sessions(&mut out, group, *part);
            }
        }
        out.count(own_values.len());
        for (key, slots) in own_values {
            out.fixed(&[key.leg]);
            out.fixed(&key.value.to_le_bytes());
            write_slots(&mut out, slots);
        }
        if metric.has_gauge() {
            let (own_keys, rest) = keys.split_at(keys.partition_point(|(_, latest)| latest.group <= place));
            keys = rest;
            write_keys(&mut out, own_keys);
        }
        if metric.has_distinct() {
            let (own, rest) = sketches.split_at(sketches.partition_point(|(key, _)| key.group <= place));
            sketches = rest;
            out.count(own.len());
            for (key, sketch) in own {
                out.fixed(&[key.leg]);
                out.signed(key.slot.into());
                write_sketch(&mut out, sketch);
            }
        }
    }
    out.finish()
}

/// The keys of a group; only of metrics with a gauge.
fn write_keys(out: &mut Writer, keys: &[(&GaugeKey, &Latest)]) {
    out.count(keys.len());
    for ((leg, key), latest) in keys {
        out.fixed(&[leg << 1 | u8::from(latest.holds)]);
        out.fixed(&key.to_le_bytes());
        out.signed(latest.time.into());
        out.unsigned(latest.seq.into());
    }
}

pub(super) fn read_keys(input: &mut Reader<'_>, group: u32) -> Result<Vec<(GaugeKey, Latest)>, Corrupt> {
    let count = input.count()?;
    let mut keys = Vec::with_capacity(count);
    for _ in 0..count {
        let flags = input.byte()?;
        if flags > 3 {
            return Err(Corrupt("a leg that does not exist"));
        }
        let mut key = [0; 16];
        key.copy_from_slice(input.fixed(16)?);
        let latest = Latest {
            group,
            time: input.signed64()?,
            seq: input.unsigned64()?,
            holds: flags & 1 == 1,
        };
        keys.push(((flags >> 1, u128::from_le_bytes(key)), latest));
    }
    Ok(keys)
}

/// Registers one by one, or all of them in six bits each where that is shorter.
pub(super) fn write_sketch(out: &mut Writer, sketch: &Sketch) {
    let registers: Vec<(u16, u8)> = sketch.registers().collect();
    if registers.len() * 3 > SKETCH_BYTES {
        out.fixed(&[1]);
        let mut packed = vec![0_u8; SKETCH_BYTES];
        for (register, rank) in registers {
            let bit = usize::from(register) * 6;
            let two = u16::from(rank) << (bit % 8);
            let [low, high] = two.to_le_bytes();
            packed[bit / 8] |= low;
            if high != 0 {
                packed[bit / 8 + 1] |= high;
            }
        }
        out.fixed(&packed);
        return;
    }
    out.fixed(&[0]);
    out.count(registers.len());
    let mut before = 0;
    for (register, rank) in registers {
        out.unsigned((register - before).into());
        out.fixed(&[rank]);
        before = register;
    }
}

pub(super) fn read_sketch(input: &mut Reader<'_>) -> Result<Sketch, Corrupt> {
    const NONE: Corrupt = Corrupt("a register that does not exist");
    let mut registers = Vec::new();
    match input.byte()? {
        0 => {
            let mut register = 0_u16;
            for _ in 0..input.count()? {
                let step = u16::try_from(input.unsigned()?).map_err(|_| NONE)?;
                register = register.checked_add(step).ok_or(NONE)?;
                registers.push((register, input.byte()?));
            }
        }
        1 => {
            let packed = input.fixed(SKETCH_BYTES)?;
            for register in 0..REGISTERS {
                let bit = register * 6;
                let high = packed.get(bit / 8 + 1).copied().unwrap_or(0);
                let two = u16::from_le_bytes([packed[bit / 8], high]);
                let rank = u8::try_from(two >> (bit % 8) & 0x3f).map_err(|_| NONE)?;
                if rank > 0 {
                    registers.push((u16::try_from(register).map_err(|_| NONE)?, rank));
                }
            }
        }
        _ => return Err(Corrupt("unknown form of a sketch")),
    }
    Sketch::from_registers(registers).ok_or(NONE)
}

/// The sessions of a group whose slots are in a part; only of metrics with session windows.
fn write_sessions(out: &mut Writer, group: &Group, part: i64) {
    let slots = group.part(part);
    let sessions: Vec<_> = group
        .sessions
        .iter()
        .filter(|session| slots.contains(&session.slot))
        .collect();
    out.count(sessions.len());
    for session in sessions {
        out.signed(session.slot.into());
        out.signed(i128::from(session.start) - i128::from(session.slot));
        out.signed(i128::from(session.last) - i128::from(session.slot));
    }
}

pub(super) fn read_sessions(input: &mut Reader<'_>) -> Result<Vec<Session>, Corrupt> {
    const FAR: Corrupt = Corrupt("a session is too far away");
    let count = input.count()?;
    let mut sessions = Vec::with_capacity(count);
    for _ in 0..count {
        let slot = input.signed64()?;
        let start = slot.checked_add(input.signed64()?).ok_or(FAR)?;
        let last = slot.checked_add(input.signed64()?).ok_or(FAR)?;
        if !(start..=last).contains(&slot) {
            return Err(Corrupt("a session does not contain its slot"));
        }
        sessions.push(Session { slot, start, last });
    }
    Ok(sessions)
}

pub(super) fn write_cells(out: &mut Writer, cells: &[Cell], how: How, in_parts: bool) {
    out.count(cells.len());
    let (mut slot, mut seq) = (0_i64, 0_i128);
    for cell in cells {
        out.signed(i128::from(cell.slot) - i128::from(slot));
        slot = cell.slot;
        let carried = cell.carried();
        out.unsigned(
            u128::from(cell.events) << 2 | u128::from(carried.is_some()) << 1 | u128::from(cell.capped()),
        );
        out.signed(cell.sum);
        out.signed(i128::from(cell.seq) - seq);
        seq = cell.seq.into();
        if let Some(carried) = carried {
            out.signed(carried.time.into());
            out.unsigned(carried.seq.into());
            out.bytes(carried.text.as_bytes());
        }
        if how == How::Ranked {
            write_ranks(out, cell.ranks().unwrap_or(&Ranks::default()));
        }
        if how == How::Top {
            let list = cell.rare.as_ref().map_or(&[][..], |rare| rare.top.list());
            out.count(list.len());
            for (key, count) in list {
                out.bytes(key.as_bytes());
                out.unsigned((*count).into());
            }
        }
        if in_parts {
            write_parts(out, cell.rare.as_ref().map_or(&[], |rare| &rare.parts));
        }
    }
}

fn write_parts(out: &mut Writer, parts: &[(u16, Totals)]) {
    out.count(parts.len());
    for (at, totals) in parts {
        out.unsigned((*at).into());
        out.unsigned(totals.events.into());
        out.signed(totals.sum);
    }
}

fn read_top(input: &mut Reader<'_>) -> Result<Top, Corrupt> {
    let count = input.count()?;
    let mut list = Vec::with_capacity(count);
    for _ in 0..count {
        list.push((input.text()?.into(), input.unsigned64()?));
    }
    Top::from_list(list).ok_or(Corrupt("keys do not ascend"))
}

fn read_parts(input: &mut Reader<'_>) -> Result<Vec<(u16, Totals)>, Corrupt> {
    let count = input.count()?;
    let mut parts: Vec<(u16, Totals)> = Vec::with_capacity(count);
    for _ in 0..count {
        let at = u16::try_from(input.unsigned()?).map_err(|_| Corrupt("a part that does not exist"))?;
        if parts.last().is_some_and(|(before, _)| *before >= at) {
            return Err(Corrupt("parts do not ascend"));
        }
        let totals = Totals {
            events: input.unsigned64()?,
            sum: input.signed()?,
            capped: 0,
        };
        parts.push((at, totals));
    }
    Ok(parts)
}

fn write_ranks(out: &mut Writer, ranks: &Ranks) {
    out.count(ranks.list().len());
    let mut before = 0;
    for (range, count) in ranks.list() {
        out.signed(i128::from(*range) - before);
        out.unsigned((*count).into());
        before = i128::from(*range);
    }
}

fn read_ranks(input: &mut Reader<'_>) -> Result<Ranks, Corrupt> {
    const FAR: Corrupt = Corrupt("a range that does not exist");
    let count = input.count()?;
    let mut list = Vec::with_capacity(count);
    let mut range = 0_i16;
    for _ in 0..count {
        let step = i16::try_from(input.signed64()?).map_err(|_| FAR)?;
        range = range.checked_add(step).ok_or(FAR)?;
        list.push((range, input.unsigned64()?));
    }
    Ranks::from_list(list).ok_or(Corrupt("ranges do not ascend"))
}

pub(super) fn read_cells(
    input: &mut Reader<'_>,
    format: u8,
    how: How,
    in_parts: bool,
) -> Result<Vec<Cell>, Corrupt> {
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
        // The first version had one flag below the count.
        let flags = if format == FORMAT_OLDEST { 1 } else { 2 };
        let mut cell = Cell {
            sum,
            slot: i64::try_from(slot).map_err(|_| Corrupt("a slot is too large"))?,
            events: u64::try_from(events >> flags).map_err(|_| Corrupt("a count is too large"))?,
            seq: u64::try_from(seq).map_err(|_| Corrupt("a position is too large"))?,
            rare: None,
        };
        if events & 1 == 1 {
            cell.rare().capped = true;
        }
        if flags == 2 && events & 2 == 2 {
            cell.rare().carried = Some(Carried {
                time: input.signed64()?,
                seq: input.unsigned64()?,
                text: input.text()?.into(),
            });
        }
        if how == How::Ranked {
            cell.rare().ranks = read_ranks(input)?;
        }
        if how == How::Top {
            cell.rare().top = read_top(input)?;
        }
        if in_parts {
            cell.rare().parts = read_parts(input)?;
        }
        cells.push(cell);
    }
    Ok(cells)
}

/// Slots as runs of consecutive ones, or as a bitmap where that is shorter.
pub(super) fn write_slots(out: &mut Writer, slots: &Slots) {
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

pub(super) fn read_slots(input: &mut Reader<'_>) -> Result<Slots, Corrupt> {
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
    let format = input.byte()?;
    if !(FORMAT_OLDEST..=FORMAT).contains(&format) {
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
                let how = metric.groups[place as usize].how[leg];
                let cells = read_cells(&mut input, format, how, metric.in_parts())?;
                metric.groups[place as usize].legs[leg].extend(cells);
            }
            if metric.frames.gap().is_some() {
                let sessions = read_sessions(&mut input)?;
                metric.groups[place as usize].sessions.extend(sessions);
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
        if metric.has_gauge() {
            let keys = read_keys(&mut input, place)?;
            metric.chunks.get_mut(index).keys.extend(keys);
        }
        if metric.has_distinct() && format >= SKETCHES_SINCE {
            for _ in 0..input.count()? {
                let leg = input.byte()?;
                if leg > 1 {
                    return Err(Corrupt("a leg that does not exist"));
                }
                let slot = input.signed64()?;
                let key = SketchKey {
                    group: place,
                    leg,
                    slot,
                };
                let sketch = read_sketch(&mut input)?;
                metric.chunks.get_mut(index).sketches.insert(key, sketch);
            }
        }
    }
    if input.is_empty() {
        Ok(())
    } else {
        Err(Corrupt("more bytes than expected"))
    }
}
