//! The recent events in memory: what returning clients are answered from, so that a storm of them never reaches the stream.
//!
//! Filled by the hub in stream order, read under the hub's lock. Bounded by bytes, in all and for each tenant. When it is full the tenant that holds most loses
//! its oldest events first, but a quiet room keeps its last ones as long as they fit into half of its tenant's share: one tenant's
//! flood does not cost the others their resume, one room's flood not its neighbours'.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::delivery::Delivery;
use crate::maps::HashMap;
use crate::place::Place;

/// Positions whose time is remembered, to find cursors of another life of the stream: two bytes each.
const TIMES_MAX: usize = 131_072;

/// Bounds of the ring.
#[derive(Debug, Clone, Copy)]
pub struct RingLimits {
    /// Bytes in all, the cost of every event included.
    pub bytes_max: usize,
    /// Bytes of one tenant, however much is free.
    pub tenant_bytes_max: usize,
    /// Events of a quiet room that stay.
    pub room_events_min: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Ring {
    limits: RingLimits,
    tenants: HashMap<Box<str>, Share>,
    bytes: usize,
    /// Bytes of forms made beside the frames, see [`Ring::beside`].
    beside: usize,
    events: usize,
    /// Every event from this position on was in here once.
    start: u64,
    /// Storage time of the newest event that was pushed out, Unix microseconds.
    evicted_micros: Option<i64>,
    evicted: u64,
    oldest_micros: Option<i64>,
    times: Times,
}

/// What one tenant has in the ring.
#[derive(Debug, Default)]
struct Share {
    rooms: HashMap<Arc<str>, RoomEvents>,
    /// One token per event that may be pushed out, oldest first.
    order: VecDeque<Arc<str>>,
    /// Tokens of events that were spared because their room is quiet.
    spared: VecDeque<Arc<str>>,
    bytes: usize,
    events: usize,
    /// Up to here events of rooms that are not listed have been pushed out.
    unlisted_to: u64,
}

#[derive(Debug, Default)]
struct RoomEvents {
    events: VecDeque<Entry>,
    /// Up to here events of this room have been pushed out.
    evicted_to: u64,
    /// Events that came, pushed out or not.
    came: u64,
}

/// An event and when it was stored, Unix microseconds.
pub type Entry = (Arc<Delivery>, i64);

impl Ring {
    /// An empty one: nothing from before `start` was ever in it.
    #[must_use]
    pub fn new(limits: RingLimits, start: u64) -> Self {
        Self {
            limits,
            tenants: HashMap::default(),
            bytes: 0,
            beside: 0,
            events: 0,
            start: start.max(1),
            evicted_micros: None,
            evicted: 0,
            oldest_micros: None,
            times: Times::default(),
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Charges the ring with what was made of events since (Protobuf frames, frames with something taken out), wherever it is held.
    pub fn beside(&mut self, bytes: usize) {
        self.beside = bytes;
        if self.bytes + self.beside > self.limits.bytes_max {
            self.make_room();
        }
    }

    /// Events held.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events
    }

    /// Events pushed out so far.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The first position that was ever in here.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// When the newest event that is no longer here was stored, Unix microseconds; `None` while nothing was pushed out.
    #[must_use]
    pub fn evicted_micros(&self) -> Option<i64> {
        self.evicted_micros
    }

    /// When the first event that was ever in here was stored, Unix microseconds; `None` while there was none.
    #[must_use]
    pub fn oldest_micros(&self) -> Option<i64> {
        self.oldest_micros
    }

    /// Low bits of the time of a position; `None` when it is not remembered.
    #[must_use]
    pub fn time_bits(&self, sequence: u64) -> Option<u16> {
        self.times.get(sequence)
    }

    /// Remembers the time of a position that holds no event for anybody.
    pub fn note_time(&mut self, sequence: u64, time_bits: u16) {
        self.times.put(sequence, time_bits);
    }

    /// Adds the newest event of the stream and pushes out what no longer fits.
    pub fn push(&mut self, key: &Arc<str>, event: Arc<Delivery>, time_micros: i64, time_bits: u16) {
        self.times.put(event.position.seq, time_bits);
        self.oldest_micros.get_or_insert(time_micros);
        let cost = event.cost_bytes();
        let tenant = Place::tenant_of(key);
        if !self.tenants.contains_key(tenant) {
            self.tenants.insert(tenant.into(), Share::default());
        }
        let Some(share) = self.tenants.get_mut(tenant) else {
            return;
        };
        let unlisted_to = share.unlisted_to;
        let room = share.rooms.entry(Arc::clone(key)).or_insert_with(|| RoomEvents {
            events: VecDeque::new(),
            evicted_to: unlisted_to,
            came: 0,
        });
        room.came += 1;
        room.events.push_back((event, time_micros));
        share.order.push_back(Arc::clone(key));
        share.bytes += cost;
        share.events += 1;
        let over = share.bytes > self.limits.tenant_bytes_max;
        self.bytes += cost;
        self.events += 1;
        if over {
            self.make_room_of(tenant);
        }
        if self.bytes + self.beside > self.limits.bytes_max {
            self.make_room();
        }
    }

    /// What is held of a room: events, their bytes, and how many came since the room was first listed here.
    #[must_use]
    pub fn room_sizes(&self, key: &str) -> (usize, usize, u64) {
        let share = self.tenants.get(Place::tenant_of(key));
        share
            .and_then(|share| share.rooms.get(key))
            .map_or((0, 0, 0), |room| {
                let bytes = room.events.iter().map(|(event, _)| event.cost_bytes()).sum();
                (room.events.len(), bytes, room.came)
            })
    }

    /// The first position from which on every event of the room is in here.
    #[must_use]
    pub fn covers_from(&self, key: &str) -> u64 {
        let evicted_to = self.tenants.get(Place::tenant_of(key)).map_or(0, |share| {
            share
                .rooms
                .get(key)
                .map_or(share.unlisted_to, |room| room.evicted_to)
        });
        self.start.max(evicted_to + 1)
    }

    /// The room's events after a position, ascending. Cost: the logarithm of what the room holds, and what is returned.
    pub fn after(&self, key: &str, sequence: u64) -> impl DoubleEndedIterator<Item = &Arc<Delivery>> {
        self.slice(key, move |seq| seq <= sequence, false)
    }

    /// The room's events with the time each was stored, Unix microseconds, newest first.
    pub fn newest(&self, key: &str) -> impl Iterator<Item = &Entry> {
        let room = self
            .tenants
            .get(Place::tenant_of(key))
            .and_then(|share| share.rooms.get(key));
        room.into_iter().flat_map(|room| room.events.iter().rev())
    }

    /// The room's events before a position, ascending.
    pub fn before(&self, key: &str, sequence: u64) -> impl DoubleEndedIterator<Item = &Arc<Delivery>> {
        self.slice(key, move |seq| seq < sequence, true)
    }

    /// Replaces every event for which `change` has a new form: audiences after a change of policy.
    pub fn map(&mut self, change: impl Fn(&Delivery) -> Option<Delivery>) {
        let rooms = self
            .tenants
            .values_mut()
            .flat_map(|share| share.rooms.values_mut());
        for (event, _) in rooms.flat_map(|room| &mut room.events) {
            if let Some(changed) = change(event) {
                *event = Arc::new(changed);
            }
        }
    }

    fn slice(
        &self,
        key: &str,
        is_before: impl Fn(u64) -> bool,
        first_part: bool,
    ) -> impl DoubleEndedIterator<Item = &Arc<Delivery>> {
        let room = self
            .tenants
            .get(Place::tenant_of(key))
            .and_then(|share| share.rooms.get(key));
        let range = room.map(|room| {
            let cut = room
                .events
                .partition_point(|(event, _)| is_before(event.position.seq));
            if first_part {
                room.events.range(..cut)
            } else {
                room.events.range(cut..)
            }
        });
        range.into_iter().flatten().map(|(event, _)| event)
    }

    /// Pushes out a hundredth at a time, so that choosing the tenant costs little per event.
    fn make_room(&mut self) {
        let goal = self.limits.bytes_max - self.limits.bytes_max / 100;
        let holders = self.tenants.values().filter(|share| share.events > 0).count();
        let share_max = (self.limits.bytes_max / holders.max(1)).min(self.limits.tenant_bytes_max);
        while self.bytes + self.beside > goal {
            let Some(share) = self.tenants.values_mut().max_by_key(|share| share.bytes) else {
                return;
            };
            let Some(gone) = share.push_out(self.limits.room_events_min, share_max) else {
                return;
            };
            self.gone(&gone);
        }
        self.tenants
            .retain(|_, share| share.events > 0 || share.unlisted_to > 0);
    }

    /// The same for a tenant that holds more than its share.
    fn make_room_of(&mut self, tenant: &str) {
        let most = self.limits.tenant_bytes_max;
        while let Some(share) = self
            .tenants
            .get_mut(tenant)
            .filter(|share| share.bytes > most - most / 100)
        {
            let Some(gone) = share.push_out(self.limits.room_events_min, most) else {
                return;
            };
            self.gone(&gone);
        }
    }

    /// Counts an event that was pushed out.
    fn gone(&mut self, (event, time_micros): &Entry) {
        self.beside = self.beside.saturating_sub(event.made_bytes());
        self.bytes -= event.cost_bytes();
        self.events -= 1;
        self.evicted += 1;
        self.evicted_micros = self.evicted_micros.max(Some(*time_micros));
    }
}

impl Share {
    /// Takes out the oldest event that may go.
    fn push_out(&mut self, room_events_min: usize, share_max: usize) -> Option<Entry> {
        while let Some(key) = self.order.pop_front() {
            let spared_bytes = self.spared.len() * (self.bytes / self.events.max(1));
            let quiet = self
                .rooms
                .get(&key)
                .is_some_and(|room| room.events.len() <= room_events_min);
            if quiet && spared_bytes < share_max / 2 {
                self.spared.push_back(key);
                continue;
            }
            if let Some(gone) = self.pop(&key) {
                return Some(gone);
            }
        }
        while let Some(key) = self.spared.pop_front() {
            if let Some(gone) = self.pop(&key) {
                return Some(gone);
            }
        }
        None
    }

    fn pop(&mut self, key: &Arc<str>) -> Option<Entry> {
        let room = self.rooms.get_mut(key)?;
        let gone = room.events.pop_front()?;
        self.bytes -= gone.0.cost_bytes();
        self.events -= 1;
        room.evicted_to = gone.0.position.seq;
        if room.events.is_empty() {
            // A room that is not listed counts as pushed out up to the newest event of any such room.
            self.unlisted_to = self.unlisted_to.max(room.evicted_to);
            self.rooms.remove(key);
        }
        Some(gone)
    }
}

/// Low bits of the times of the newest positions, without a gap.
#[derive(Debug, Default)]
struct Times {
    first: u64,
    bits: VecDeque<u16>,
}

impl Times {
    fn put(&mut self, sequence: u64, bits: u16) {
        let next = self.first + self.bits.len() as u64;
        let skipped = sequence.saturating_sub(next);
        if self.bits.is_empty() || sequence < next || skipped >= TIMES_MAX as u64 {
            self.bits.clear();
            self.first = sequence;
        } else {
            // 0 is not compared: these positions hold nothing.
            (0..skipped).for_each(|_| self.bits.push_back(0));
        }
        self.bits.push_back(bits);
        while self.bits.len() > TIMES_MAX {
            self.bits.pop_front();
            self.first += 1;
        }
    }

    fn get(&self, sequence: u64) -> Option<u16> {
        let at = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        self.bits.get(at).copied()
    }
}

#[cfg(test)]
mod tests;
