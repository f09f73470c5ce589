//! The latest values per room in memory: what a page that opens, or a client that returns, is given before anything live.
//!
//! A room is loaded when it is first asked for, kept current by the state spine, and dropped when it was not used for longest; rooms
//! with members stay. A user's own room does not: what it holds is held for one user, who has been told it, so it goes a while after it
//! was asked for last, and is loaded again for the next to ask; how far it is remains known, so that a user who comes back and has missed
//! nothing there costs no read. A value is (room, key); several audiences may hold one, and everybody
//! gets the newest they may see. Written by the hub under its lock; this file reads no clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use roomcast_access::permit::View;
use roomcast_proto::ids::Audience;
use roomcast_proto::limits::ROOM_KEYS_MAX;
use smallvec::SmallVec;

use crate::delivery::{Delivery, Kind};
use crate::maps::HashMap;
use crate::place::is_personal;

/// A user's own room is emptied when nobody has asked for it for so long, whether or not it has members: a user's tabs, its bell and the
/// page of its notifications ask one after the other.
pub const OWN_MILLIS: i64 = 10_000;
/// Values of such rooms that are dropped in one step, under the hub's lock: half a millisecond. Thousands who came back together have
/// their rooms emptied within seconds.
const STEP_VALUES: usize = 1_000;
/// What an entry costs beside its delivery: two index entries and the key.
const ENTRY_BYTES: usize = 200;
/// What a room costs without any value.
const ROOM_BYTES: usize = 400;
/// Values of one room: its keys, each held by a few audiences.
const ROOM_VALUES_MAX: usize = 4 * ROOM_KEYS_MAX;

/// See the module.
#[derive(Debug)]
pub struct StateCache {
    rooms: HashMap<Arc<str>, RoomState>,
    bytes: usize,
    /// Those of rooms that nobody holds, and how many they may be.
    idle_bytes: usize,
    bytes_max: usize,
    values: usize,
    uses: u64,
    /// Rooms that may be dropped, by their last use.
    idle: BTreeMap<u64, Arc<str>>,
    /// Those of them that are users' own and have members.
    own: BTreeMap<u64, Arc<str>>,
    /// The wall clock, as it was said last.
    now_millis: i64,
    /// When values end, Unix milliseconds and position.
    ends: Ends,
    dropped: u64,
    emptied: u64,
    refused: u64,
}

/// Room and key of the value that ends then (Unix milliseconds) and has that position.
type Ends = BTreeMap<(i64, u64), (Arc<str>, Arc<str>)>;

#[derive(Debug, Default)]
struct RoomState {
    loaded: bool,
    loading: bool,
    holders: usize,
    /// Whether it may be dropped.
    is_idle: bool,
    /// It is a user's own.
    is_own: bool,
    /// Several audiences were found to hold values of a user's own room: what holds after a withdrawal can be said from memory alone, so
    /// it stays like all rooms with members.
    is_mixed: bool,
    /// The position of its newest value, followed whether or not the values are here. `None`: not known.
    newest: Option<u64>,
    /// The only audience that held values when the room was emptied, and has held any since. `None`: not known.
    sole: Option<Audience>,
    used: u64,
    used_millis: i64,
    bytes: usize,
    keys: HashMap<Arc<str>, SmallVec<[Value; 1]>>,
    by_rev: BTreeMap<u64, Arc<Delivery>>,
    /// All values by position, as they were asked for last; gone with the next change.
    whole: Option<Values>,
}

/// Values of a room by position, shared by all who ask for them; see [`newest`].
pub type Values = Arc<[Arc<Delivery>]>;

/// One audience's value of a key.
#[derive(Debug)]
struct Value {
    delivery: Arc<Delivery>,
    ends_millis: Option<i64>,
}

impl RoomState {
    /// Nothing of it is here but how far it is, and nobody holds it.
    fn is_trace(&self) -> bool {
        self.is_own && self.holders == 0 && !self.loaded && !self.loading && self.newest.is_some()
    }
}

impl Value {
    fn rev(&self) -> u64 {
        self.delivery.position.rev
    }

    fn is_withdrawn(&self) -> bool {
        is_withdrawn(&self.delivery)
    }

    fn cost(&self) -> usize {
        self.delivery.cost_bytes() + ENTRY_BYTES
    }
}

impl StateCache {
    /// An empty one; `bytes_max` bounds the rooms nobody holds.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            rooms: HashMap::default(),
            bytes: 0,
            idle_bytes: 0,
            bytes_max,
            values: 0,
            uses: 0,
            idle: BTreeMap::new(),
            own: BTreeMap::new(),
            now_millis: 0,
            ends: BTreeMap::new(),
            dropped: 0,
            emptied: 0,
            refused: 0,
        }
    }

    /// Rooms, values, bytes.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.rooms.len(), self.values, self.bytes)
    }

    /// Rooms dropped because they were not used, users' own rooms emptied because they were not asked for, and values not kept because
    /// their room holds too many.
    #[must_use]
    pub fn dropped(&self) -> (u64, u64, u64) {
        (self.dropped, self.emptied, self.refused)
    }

    /// What is held of a room: keys and bytes; `None` when it is not in memory.
    #[must_use]
    pub fn room_sizes(&self, key: &str) -> Option<(usize, usize)> {
        let room = self.rooms.get(key).filter(|room| room.loaded)?;
        Some((room.keys.len(), room.bytes))
    }

    /// The position of the newest value of a room whose state is complete here; 0 where it has none.
    #[must_use]
    pub fn loaded_to(&self, key: &str) -> Option<u64> {
        let room = self.rooms.get(key).filter(|room| room.loaded)?;
        Some(room.by_rev.last_key_value().map_or(0, |(rev, _)| *rev))
    }

    /// Whether it is known that a user's own room has no value newer than this, although its values are not here.
    #[must_use]
    pub fn is_unchanged_since(&self, key: &str, rev: u64) -> bool {
        let room = self.rooms.get(key).filter(|room| room.is_own && !room.loaded);
        room.and_then(|room| room.newest)
            .is_some_and(|newest| newest <= rev)
    }

    /// Counts one more shard with members in the room: it is not dropped.
    pub fn hold(&mut self, key: &Arc<str>) {
        let room = self.room(key);
        room.holders += 1;
        self.touch(key);
    }

    /// The opposite of [`StateCache::hold`].
    pub fn release(&mut self, key: &str) {
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        room.holders = room.holders.saturating_sub(1);
        if room.holders == 0 && !room.loaded && !room.loading && !room.is_trace() {
            return self.remove(key);
        }
        self.touch(key);
        self.make_room();
    }

    /// From now on live values of the room are kept, so that nothing that comes while it is read is missed.
    pub fn begin(&mut self, key: &Arc<str>) {
        self.room(key).loading = true;
        self.touch(key);
    }

    fn room(&mut self, key: &Arc<str>) -> &mut RoomState {
        self.rooms.entry(Arc::clone(key)).or_insert_with(|| {
            self.bytes += ROOM_BYTES;
            RoomState {
                bytes: ROOM_BYTES,
                is_own: is_personal(key),
                ..RoomState::default()
            }
        })
    }

    /// The room was read; what came live meanwhile and is newer wins.
    pub fn finish(&mut self, key: &Arc<str>, values: impl IntoIterator<Item = (Delivery, Option<i64>)>) {
        self.begin(key);
        for (delivery, ends_millis) in values {
            self.apply(key, Arc::new(delivery), ends_millis);
        }
        if let Some(room) = self.rooms.get_mut(key) {
            (room.loaded, room.loading) = (true, false);
            let newest = room.by_rev.last_key_value().map(|(rev, _)| *rev);
            room.newest = Some(newest.unwrap_or(0).max(room.newest.unwrap_or(0)));
        }
        self.touch(key);
        self.make_room();
    }

    /// The room could not be read.
    pub fn abandon(&mut self, key: &str) {
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        room.loading = false;
        if room.loaded {
            return;
        }
        if room.holders == 0 {
            return self.remove(key);
        }
        // What came meanwhile is not followed any more.
        self.empty(key);
    }

    /// Everything is of another stream.
    pub fn clear(&mut self) {
        let holders: Vec<(Arc<str>, usize)> = self
            .rooms
            .iter()
            .filter(|(_, room)| room.holders > 0)
            .map(|(key, room)| (Arc::clone(key), room.holders))
            .collect();
        (self.bytes, self.idle_bytes, self.values) = (0, 0, 0);
        self.rooms.clear();
        self.idle.clear();
        self.own.clear();
        self.ends.clear();
        for (key, holders) in holders {
            self.room(&key).holders = holders;
        }
    }

    /// Takes a value if its room is kept here and it is newer than what its audience has. `ends_millis`: when it ends by itself.
    pub fn apply(&mut self, key: &Arc<str>, delivery: Arc<Delivery>, ends_millis: Option<i64>) {
        let Kind::State { key: state_key, .. } = &delivery.kind else {
            return;
        };
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        let rev = delivery.position.rev;
        room.newest = room.newest.map(|newest| newest.max(rev));
        if !room.loaded {
            room.sole.take_if(|sole| *sole != delivery.audience_name);
            if !room.loading {
                return;
            }
        }
        let state_key = Arc::clone(state_key);
        let values = room.keys.entry(Arc::clone(&state_key)).or_default();
        let mine = values
            .iter()
            .position(|value| value.delivery.audience_name == delivery.audience_name);
        if mine.is_some_and(|at| values[at].rev() >= rev) {
            return;
        }
        if let Some(at) = mine {
            let old = values.swap_remove(at);
            room.by_rev.remove(&old.rev());
            Self::forget_end(&mut self.ends, &old);
            room.bytes -= old.cost();
            self.bytes -= old.cost();
            self.idle_bytes -= if room.is_idle { old.cost() } else { 0 };
            self.values -= 1;
        } else if room.by_rev.len() >= ROOM_VALUES_MAX {
            self.refused += 1;
            return;
        }
        room.whole = None;
        room.by_rev.insert(rev, Arc::clone(&delivery));
        let value = Value {
            delivery,
            ends_millis,
        };
        room.bytes += value.cost();
        self.bytes += value.cost();
        self.idle_bytes += if room.is_idle { value.cost() } else { 0 };
        self.values += 1;
        values.push(value);
        let is_first = room.is_own && room.by_rev.len() == 1;
        if let Some(ends) = ends_millis {
            self.ends.insert((ends, rev), (Arc::clone(key), state_key));
        }
        if is_first {
            // Now it may be emptied.
            self.touch(key);
        }
    }

    /// Time went by: users' own rooms that nobody has asked for are emptied, a bounded part of them.
    pub fn rest(&mut self, now_millis: i64) {
        self.now_millis = now_millis;
        let before = self.values;
        while let Some((_, key)) = self.own.first_key_value() {
            let used = self.rooms.get(key).map_or(i64::MIN, |room| room.used_millis);
            let rests = now_millis.saturating_sub(used);
            // A clock that was set back does not keep them.
            if (0..OWN_MILLIS).contains(&rests) || before.saturating_sub(self.values) >= STEP_VALUES {
                return;
            }
            let key = Arc::clone(key);
            self.let_go(&key);
        }
    }

    /// Drops what has ended: the stream sends nothing at that moment.
    pub fn expire(&mut self, now_millis: i64) {
        while let Some(entry) = self.ends.first_entry() {
            let (ends, rev) = *entry.key();
            if ends > now_millis {
                return;
            }
            let (key, state_key) = entry.remove();
            let Some(room) = self.rooms.get_mut(&key) else {
                continue;
            };
            let Some(values) = room.keys.get_mut(&state_key) else {
                continue;
            };
            if let Some(at) = values.iter().position(|value| value.rev() == rev) {
                let old = values.swap_remove(at);
                room.whole = None;
                room.by_rev.remove(&rev);
                room.bytes -= old.cost();
                self.bytes -= old.cost();
                self.idle_bytes -= if room.is_idle { old.cost() } else { 0 };
                self.values -= 1;
            }
            if values.is_empty() {
                room.keys.remove(&state_key);
            }
        }
    }

    /// All values of the keys that changed after `rev`, by position: what [`newest`] chooses from. Costs a clone of a pointer for all of a
    /// room that did not change since it was last asked, else one for each value.
    pub fn values_after(&mut self, key: &str, rev: u64) -> Values {
        self.touch(key);
        let Some(room) = self.rooms.get_mut(key) else {
            return Values::default();
        };
        let RoomState {
            by_rev, whole, keys, ..
        } = room;
        if rev == 0 {
            let whole = whole.get_or_insert_with(|| by_rev.values().map(Arc::clone).collect());
            return Arc::clone(whole);
        }
        let mut values: Vec<Arc<Delivery>> = Vec::new();
        for (_, changed) in by_rev.range(rev.saturating_add(1)..) {
            values.push(Arc::clone(changed));
            let Some(key) = changed.state_key() else {
                continue;
            };
            // What another audience has held for longer may be what holds now.
            let others = keys.get(key).into_iter().flatten();
            let older = others.filter(|other| other.rev() <= rev);
            values.extend(older.map(|other| Arc::clone(&other.delivery)));
        }
        values.sort_unstable_by_key(|value| value.position.rev);
        values.dedup_by_key(|value| value.position.rev);
        values.into()
    }

    /// The newest value of a key that still holds for this view.
    #[must_use]
    pub fn newest(&self, view: &View, key: &str, state_key: &str, now_millis: i64) -> Option<&Arc<Delivery>> {
        let values = self.rooms.get(key)?.keys.get(state_key)?;
        let holds = values
            .iter()
            .filter(|value| !value.is_withdrawn() && value.delivery.visible(view, now_millis));
        holds.max_by_key(|value| value.rev()).map(|value| &value.delivery)
    }

    /// Whether it can be said what holds of a key after this withdrawal: the room is here, or nobody else has a value in it.
    #[must_use]
    pub fn knows_after(&self, key: &str, withdrawn: &Delivery) -> bool {
        let room = self.rooms.get(key);
        room.is_some_and(|room| room.loaded || room.sole.as_ref() == Some(&withdrawn.audience_name))
    }

    /// Replaces every value for which `change` has a new form: audiences after a change of policy.
    pub fn map(&mut self, change: impl Fn(&Delivery) -> Option<Delivery>) {
        for room in self.rooms.values_mut() {
            for value in room.keys.values_mut().flatten() {
                if let Some(changed) = change(&value.delivery) {
                    value.delivery = Arc::new(changed);
                    room.by_rev.insert(value.rev(), Arc::clone(&value.delivery));
                    room.whole = None;
                }
            }
        }
    }

    /// The room is used: it goes last.
    fn touch(&mut self, key: &str) {
        let Some((name, room)) = self.rooms.get_key_value(key) else {
            return;
        };
        // An own room without values weighs what is left of one that was emptied.
        let is_own = room.is_own && room.holders > 0 && !room.is_mixed && !room.by_rev.is_empty();
        let is_idle = room.is_trace() || (room.loaded && (room.holders == 0 || is_own));
        if !is_idle && !room.is_idle {
            // It stays, however long ago it was used.
            return;
        }
        self.idle.remove(&room.used);
        self.own.remove(&room.used);
        self.uses += 1;
        let uses = self.uses;
        if is_idle {
            self.idle.insert(uses, Arc::clone(name));
        }
        if is_idle && is_own {
            self.own.insert(uses, Arc::clone(name));
        }
        if let Some(room) = self.rooms.get_mut(key) {
            room.used = uses;
            room.used_millis = self.now_millis;
            match (room.is_idle, is_idle) {
                (false, true) => self.idle_bytes += room.bytes,
                (true, false) => self.idle_bytes -= room.bytes,
                _ => {}
            }
            room.is_idle = is_idle;
        }
    }

    /// Drops rooms that may be dropped. What was read last stays, whatever it weighs: somebody waits for it and has not come for it yet.
    fn make_room(&mut self) {
        while self.idle_bytes > self.bytes_max && self.idle.len() > 1 {
            let Some((used, key)) = self.idle.first_key_value() else {
                return;
            };
            let (is_own, key) = (self.own.contains_key(used), Arc::clone(key));
            let may_be_trace = |room: &RoomState| room.is_own && !room.is_mixed && !room.by_rev.is_empty();
            if is_own || self.rooms.get(&key).is_some_and(may_be_trace) {
                self.let_go(&key);
            } else {
                self.remove(&key);
                self.dropped += 1;
            }
        }
    }

    /// Empties a user's own room, unless several audiences hold values in it.
    fn let_go(&mut self, key: &Arc<str>) {
        let Some(room) = self.rooms.get_mut(key) else {
            return;
        };
        let mut audiences = room.by_rev.values().map(|value| &value.audience_name);
        let sole = audiences.next().cloned();
        room.is_mixed = audiences.any(|audience| Some(audience) != sole.as_ref());
        if sole.is_none() || room.is_mixed {
            return self.touch(key);
        }
        room.sole = sole;
        self.empty(key);
        self.emptied += 1;
    }

    /// Forgets what a room holds; who holds it is remembered.
    fn empty(&mut self, key: &str) {
        let Some((name, room)) = self.rooms.get_key_value(key) else {
            return;
        };
        let (name, holders, sole, newest) = (Arc::clone(name), room.holders, room.sole.clone(), room.newest);
        self.remove(key);
        let room = self.room(&name);
        (room.holders, room.sole, room.newest) = (holders, sole, newest);
        self.touch(key);
    }

    fn remove(&mut self, key: &str) {
        let Some(room) = self.rooms.remove(key) else {
            return;
        };
        self.idle.remove(&room.used);
        self.own.remove(&room.used);
        self.bytes -= room.bytes;
        self.idle_bytes -= if room.is_idle { room.bytes } else { 0 };
        self.values -= room.by_rev.len();
        for value in room.keys.values().flatten() {
            Self::forget_end(&mut self.ends, value);
        }
    }

    fn forget_end(ends: &mut Ends, value: &Value) {
        if let Some(at) = value.ends_millis {
            ends.remove(&(at, value.rev()));
        }
    }
}

/// Of values by position (see [`StateCache::values_after`]), the newest visible one of each key that changed after `rev` for this view, by
/// position, without cursors. With `withdrawn`, a key that no longer has a value is given as its withdrawal. Takes a time that grows
/// with the room; to be called without a lock.
#[must_use]
pub fn newest(
    values: &[Arc<Delivery>],
    view: &View,
    rev: u64,
    withdrawn: bool,
    now_millis: i64,
) -> Vec<Arc<Delivery>> {
    /// The newest of a key, and the newest that is not withdrawn.
    type Of<'a> = (&'a Arc<Delivery>, Option<&'a Arc<Delivery>>);
    let mut keys: HashMap<&str, Of<'_>> = HashMap::with_capacity_and_hasher(values.len(), Default::default());
    for value in values.iter().filter(|value| value.visible(view, now_millis)) {
        let Some(key) = value.state_key() else {
            continue;
        };
        let of_key = keys.entry(key).or_insert((value, None));
        // They come by position: the later one is the newer.
        of_key.0 = value;
        if !is_withdrawn(value) {
            of_key.1 = Some(value);
        }
    }
    let mut changed: Vec<Of<'_>> = keys
        .into_values()
        .filter(|(top, _)| top.position.rev > rev)
        .collect();
    changed.sort_unstable_by_key(|(top, _)| top.position.rev);
    let chosen = changed
        .into_iter()
        .filter_map(|(top, holds)| holds.or(withdrawn.then_some(top)));
    chosen.map(Delivery::bare).collect()
}

fn is_withdrawn(delivery: &Delivery) -> bool {
    matches!(delivery.kind, Kind::State { withdrawn: true, .. })
}

#[cfg(test)]
mod tests;
