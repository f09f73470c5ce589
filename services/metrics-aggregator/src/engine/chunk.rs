//! State cut into chunks by hash, so that a write carries only what changed.
//!
//! Items are: the cells of a group in some slots, one distinct value of a group, the sketch of those in a slot that found no room, one
//! key of a gauge, the watermarks of a room. Which chunk an item lives in is decided by the upper bits of its hash (extendible hashing):
//! a chunk that grows too large is split in two by the next bit, and nothing else moves. Distinct values, sketches, keys and watermarks
//! live only here; cells live with their group and are listed here.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::engine::cell::Group;
use crate::engine::fnv;
use crate::engine::sketch::Sketch;

/// A chunk that is larger when written is split. Far below the 64 KiB a chunk may have: one fold rewrites one chunk.
pub const SPLIT_BYTES: usize = 16 * 1024;
/// Deepest split: 2^16 chunks of one metric.
const DEPTH_MAX: u8 = 16;

/// Slots in which a value was seen, ascending.
pub type Slots = SmallVec<[i64; 2]>;

/// A distinct value of one leg of one group: the first 128 bits of its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueKey {
    /// Place of the group.
    pub group: u32,
    /// Which leg.
    pub leg: u8,
    /// The value's digest.
    pub value: u128,
}

impl ValueKey {
    /// The sketch it belongs to where it is not kept itself.
    #[must_use]
    pub fn sketch(self, slot: i64) -> SketchKey {
        SketchKey {
            group: self.group,
            leg: self.leg,
            slot,
        }
    }
}

/// The distinct values of one leg of one group in one slot that are not kept one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SketchKey {
    /// Place of the group.
    pub group: u32,
    /// Which leg.
    pub leg: u8,
    /// Which slot.
    pub slot: i64,
}

/// A gauge's key: which leg, and the key's digest.
pub type GaugeKey = (u8, u128);

/// What the latest event of a gauge's key said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latest {
    /// Place of the group it was in.
    pub group: u32,
    /// Its time.
    pub time: i64,
    /// Its position.
    pub seq: u64,
    /// Whether it satisfies the condition.
    pub holds: bool,
}

/// One chunk.
#[derive(Debug, Clone, Default)]
pub struct Chunk {
    /// How many upper bits of the hash are given.
    pub depth: u8,
    /// Those bits, at the upper end.
    pub prefix: u64,
    /// Whether it changed since it was last written.
    pub dirty: bool,
    /// (place of the group, part of its slots).
    pub parts: Vec<(u32, i64)>,
    /// Distinct values.
    pub values: HashMap<ValueKey, Slots>,
    /// What is known of distinct values that found no room.
    pub sketches: HashMap<SketchKey, Sketch>,
    /// Keys of gauges by leg and digest, whichever group they are in.
    pub keys: HashMap<GaugeKey, Latest>,
    /// Watermarks by room and leg; `i64::MIN` where there is none.
    pub rooms: HashMap<Box<str>, [i64; 2]>,
    /// Digest of the bytes last written; 0 when never.
    pub written: u64,
}

/// All chunks of a metric.
#[derive(Debug, Clone)]
pub struct Chunks {
    list: Vec<Chunk>,
    /// Chunk by the upper `bits` bits of the hash.
    directory: Vec<u32>,
    bits: u8,
    dirty: usize,
    rooms: usize,
}

impl Default for Chunks {
    fn default() -> Self {
        Self {
            list: vec![Chunk::default()],
            directory: vec![0],
            bits: 0,
            dirty: 0,
            rooms: 0,
        }
    }
}

/// The hash of a group's cells in a part.
#[must_use]
pub fn part_hash(group_hash: u64, part: i64) -> u64 {
    fnv::mix(group_hash ^ part.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The hash of a value.
#[must_use]
pub fn value_hash(group_hash: u64, leg: u8, value: u128) -> u64 {
    let high = u64::try_from(value >> 64).unwrap_or(0);
    let low = u64::try_from(value & u128::from(u64::MAX)).unwrap_or(0);
    fnv::mix(group_hash ^ high ^ low.rotate_left(u32::from(leg) + 1))
}

/// The hash of a sketch.
#[must_use]
pub fn sketch_hash(group_hash: u64, leg: u8, slot: i64) -> u64 {
    fnv::mix(part_hash(group_hash, slot) ^ (u64::from(leg) + 1))
}

impl Chunks {
    /// Rebuilds the directory from what was stored: (depth, prefix) of each chunk. `None` where they do not fit together.
    #[must_use]
    pub fn from_directory(stored: &[(u8, u64)]) -> Option<Self> {
        let bits = stored.iter().map(|(depth, _)| *depth).max()?;
        if bits > DEPTH_MAX {
            return None;
        }
        let mut directory = vec![u32::MAX; 1 << bits];
        let mut list = Vec::with_capacity(stored.len());
        for (index, (depth, prefix)) in stored.iter().enumerate() {
            let first = top(*prefix, bits);
            let count = 1_usize << (bits - depth);
            for entry in directory.get_mut(first..first + count)? {
                if *entry != u32::MAX {
                    return None;
                }
                *entry = u32::try_from(index).ok()?;
            }
            list.push(Chunk {
                depth: *depth,
                prefix: *prefix,
                ..Chunk::default()
            });
        }
        (!directory.contains(&u32::MAX)).then_some(Self {
            list,
            directory,
            bits,
            dirty: 0,
            rooms: 0,
        })
    }

    /// All chunks in the order of their numbers.
    #[must_use]
    pub fn list(&self) -> &[Chunk] {
        &self.list
    }

    /// How many rooms have watermarks.
    #[must_use]
    pub fn rooms(&self) -> usize {
        self.rooms
    }

    /// How many chunks are dirty.
    #[must_use]
    pub fn dirty(&self) -> usize {
        self.dirty
    }

    /// One chunk by number.
    pub fn get_mut(&mut self, index: usize) -> &mut Chunk {
        &mut self.list[index]
    }

    /// The number of the chunk an item lives in.
    #[must_use]
    pub fn index(&self, hash: u64) -> usize {
        self.directory[top(hash, self.bits)] as usize
    }

    /// The chunk an item lives in, marked as changed.
    pub fn touch(&mut self, hash: u64) -> &mut Chunk {
        let index = self.index(hash);
        let chunk = &mut self.list[index];
        if !chunk.dirty {
            chunk.dirty = true;
            self.dirty += 1;
        }
        chunk
    }

    /// Says that a chunk was written, with the digest of its bytes.
    pub fn written(&mut self, index: usize, digest: u64) {
        let chunk = &mut self.list[index];
        chunk.written = digest;
        if chunk.dirty {
            chunk.dirty = false;
            self.dirty -= 1;
        }
    }

    /// The sketch of a slot of a group with this hash.
    #[must_use]
    pub fn sketch(&self, group_hash: u64, key: &SketchKey) -> Option<&Sketch> {
        let index = self.index(sketch_hash(group_hash, key.leg, key.slot));
        self.list[index].sketches.get(key)
    }

    /// Adds a value to the sketch of a slot of a group with this hash.
    pub fn add_to_sketch(&mut self, group_hash: u64, key: SketchKey, value: u128) {
        let hash = sketch_hash(group_hash, key.leg, key.slot);
        let index = self.index(hash);
        if self.list[index].sketches.entry(key).or_default().add(value) {
            self.touch(hash);
        }
    }

    /// A room's watermarks.
    #[must_use]
    pub fn marks(&self, room: &str) -> Option<[i64; 2]> {
        self.list[self.index(fnv::hash(room.as_bytes()))]
            .rooms
            .get(room)
            .copied()
    }

    /// Changes a room's watermarks.
    pub fn set_marks(&mut self, room: &str, marks: [i64; 2]) {
        let rooms = &mut self.touch(fnv::hash(room.as_bytes())).rooms;
        match rooms.get_mut(room) {
            Some(known) => *known = marks,
            None => {
                rooms.insert(room.into(), marks);
                self.rooms += 1;
            }
        }
    }

    /// Counts a room that was decoded.
    pub fn count_rooms(&mut self) {
        self.rooms = self.list.iter().map(|chunk| chunk.rooms.len()).sum();
    }

    /// Splits a chunk by the next bit. Answers the number of the new one; both are dirty then. `None` at the deepest.
    pub fn split(&mut self, index: usize, groups: &[Group]) -> Option<usize> {
        let depth = self.list[index].depth;
        if depth >= DEPTH_MAX {
            return None;
        }
        let bit = 1_u64 << (63 - depth);
        let number = self.list.len();
        let old = &mut self.list[index];
        old.depth += 1;
        let mut new = Chunk {
            depth: depth + 1,
            prefix: old.prefix | bit,
            ..Chunk::default()
        };
        let group_hash = |group: u32| groups.get(group as usize).map_or(0, |group| group.hash);
        let parts = std::mem::take(&mut old.parts);
        (new.parts, old.parts) = parts
            .into_iter()
            .partition(|(g, part)| part_hash(group_hash(*g), *part) & bit != 0);
        let values = std::mem::take(&mut old.values);
        (new.values, old.values) = values
            .into_iter()
            .partition(|(key, _)| value_hash(group_hash(key.group), key.leg, key.value) & bit != 0);
        let sketches = std::mem::take(&mut old.sketches);
        (new.sketches, old.sketches) = sketches
            .into_iter()
            .partition(|(key, _)| sketch_hash(group_hash(key.group), key.leg, key.slot) & bit != 0);
        let keys = std::mem::take(&mut old.keys);
        (new.keys, old.keys) = keys
            .into_iter()
            .partition(|((leg, key), _)| value_hash(0, *leg, *key) & bit != 0);
        let rooms = std::mem::take(&mut old.rooms);
        (new.rooms, old.rooms) = rooms
            .into_iter()
            .partition(|(room, _)| fnv::hash(room.as_bytes()) & bit != 0);
        for chunk in [&mut *old, &mut new] {
            if !chunk.dirty {
                chunk.dirty = true;
                self.dirty += 1;
            }
        }
        self.list.push(new);
        self.point(number);
        Some(number)
    }

    /// Lets the directory point to a new chunk, doubling it where its bits do not suffice.
    fn point(&mut self, number: usize) {
        let (depth, prefix) = (self.list[number].depth, self.list[number].prefix);
        if depth > self.bits {
            self.directory = self.directory.iter().flat_map(|entry| [*entry, *entry]).collect();
            self.bits += 1;
        }
        let first = top(prefix, self.bits);
        let entries = &mut self.directory[first..first + (1 << (self.bits - depth))];
        entries.fill(u32::try_from(number).unwrap_or(u32::MAX));
    }

    /// Moves the values of a group's slot to another. Answers how many different ones are kept one by one there then, by leg, where any
    /// was moved or there before. One pass over all values.
    ///
    /// Where not all of either slot are kept one by one, all of both go to the sketch: nobody could tell any more which are counted twice.
    pub fn move_values(&mut self, place: u32, group: &Group, from: i64, into: i64) -> [Option<u32>; 2] {
        let key = |leg: u8, slot: i64| SketchKey {
            group: place,
            leg,
            slot,
        };
        let mut joined: [Option<Sketch>; 2] = [None, None];
        for (leg, joined) in (0_u8..).zip(&mut joined) {
            for slot in [from, into] {
                let index = self.index(sketch_hash(group.hash, leg, slot));
                if let Some(sketch) = self.list[index].sketches.remove(&key(leg, slot)) {
                    self.touch(sketch_hash(group.hash, leg, slot));
                    joined.get_or_insert_default().join(&sketch);
                }
            }
        }
        let mut counts = joined.each_ref().map(|joined| joined.as_ref().map(|_| 0));
        for chunk in &mut self.list {
            let mut moved = false;
            for (key, slots) in chunk.values.iter_mut().filter(|(key, _)| key.group == place) {
                let leg = usize::from(key.leg);
                let had = slots.len();
                if let Some(sketch) = &mut joined[leg] {
                    slots.retain(|slot| *slot != from && *slot != into);
                    if slots.len() != had {
                        sketch.add(key.value);
                        moved = true;
                    }
                    continue;
                }
                if let Ok(at) = slots.binary_search(&from) {
                    slots.remove(at);
                    if let Err(at) = slots.binary_search(&into) {
                        slots.insert(at, into);
                    }
                    moved = true;
                }
                if slots.binary_search(&into).is_ok() {
                    *counts[leg].get_or_insert(0) += 1;
                }
            }
            chunk.values.retain(|_, slots| !slots.is_empty());
            if moved && !chunk.dirty {
                chunk.dirty = true;
                self.dirty += 1;
            }
        }
        for (leg, sketch) in (0_u8..).zip(joined) {
            if let Some(sketch) = sketch {
                let chunk = self.touch(sketch_hash(group.hash, leg, into));
                chunk.sketches.insert(key(leg, into), sketch);
            }
        }
        // The emptied part of the group is listed no more.
        let part = group.part_of(from);
        if part != group.part_of(into) {
            let chunk = self.touch(part_hash(group.hash, part));
            chunk.parts.retain(|known| *known != (place, part));
        }
        counts
    }

    /// Drops the slots of values, and the sketches, that are no session of their group any more.
    pub fn retain_slots(&mut self, groups: &[Group]) {
        for chunk in &mut self.list {
            chunk.values.retain(|key, slots| {
                let group = groups.get(key.group as usize);
                slots.retain(|slot| group.is_some_and(|group| group.session(*slot).is_some()));
                !slots.is_empty()
            });
            chunk.sketches.retain(|key, _| {
                let group = groups.get(key.group as usize);
                group.is_some_and(|group| group.session(key.slot).is_some())
            });
        }
    }

    /// Lists all parts anew after groups moved. `moved` gives the new place of a group; values of groups that are gone go.
    pub fn renumber(&mut self, groups: &[Group], moved: &[Option<u32>]) {
        for chunk in &mut self.list {
            chunk.parts.clear();
            let values = std::mem::take(&mut chunk.values);
            chunk.values = values
                .into_iter()
                .filter_map(|(key, slots)| {
                    let group = moved.get(key.group as usize).copied().flatten()?;
                    Some((ValueKey { group, ..key }, slots))
                })
                .collect();
            let sketches = std::mem::take(&mut chunk.sketches);
            chunk.sketches = sketches
                .into_iter()
                .filter_map(|(key, sketch)| {
                    let group = moved.get(key.group as usize).copied().flatten()?;
                    Some((SketchKey { group, ..key }, sketch))
                })
                .collect();
            chunk.keys.retain(|_, latest| {
                let group = moved.get(latest.group as usize).copied().flatten();
                latest.group = group.unwrap_or(latest.group);
                group.is_some()
            });
        }
        for (place, group) in groups.iter().enumerate() {
            let place = u32::try_from(place).unwrap_or(u32::MAX);
            let mut parts: Vec<i64> = group
                .legs
                .iter()
                .flatten()
                .map(|cell| group.part_of(cell.slot))
                .collect();
            parts.sort_unstable();
            parts.dedup();
            for part in parts {
                let index = self.index(part_hash(group.hash, part));
                self.list[index].parts.push((place, part));
            }
        }
    }
}

fn top(hash: u64, bits: u8) -> usize {
    if bits == 0 {
        0
    } else {
        usize::try_from(hash >> (64 - bits)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_moves_half_and_the_directory_finds_both() {
        let mut chunks = Chunks::default();
        let rooms: Vec<String> = (0..500).map(|i| format!("room-{i}")).collect();
        for (i, room) in rooms.iter().enumerate() {
            chunks.set_marks(room, [i64::try_from(i).unwrap(), 0]);
        }
        for index in [0, 0, 1, 2, 0, 5] {
            assert!(chunks.split(index, &[]).is_some());
        }
        assert_eq!(chunks.list().len(), 7);
        for (i, room) in rooms.iter().enumerate() {
            assert_eq!(chunks.marks(room), Some([i64::try_from(i).unwrap(), 0]));
        }
        assert!(
            chunks.list().iter().all(|chunk| chunk.rooms.len() > 10),
            "halves are about even"
        );
        let stored: Vec<(u8, u64)> = chunks.list().iter().map(|c| (c.depth, c.prefix)).collect();
        let again = Chunks::from_directory(&stored).unwrap();
        assert_eq!(again.directory, chunks.directory);
        for broken in [&stored[..6], &[stored[0], stored[0]], &[(17, 0)], &[]] {
            assert!(Chunks::from_directory(broken).is_none());
        }
    }
}
