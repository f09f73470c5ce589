//! What the users of this gateway have not read, counted for those who want to be told: a state machine.
//!
//! For each user there is one viewer, whatever number of tabs, polls and streams listen; where two tokens of a user open different rooms
//! there are two. A viewer is ready when its user's record and the notifications of its rooms are here; from then on it is told what
//! changes. Nothing here awaits, reads a clock or touches a socket; [`crate::bells_driver`] feeds it and carries out what it wants.

mod notes;
mod record;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use roomcast_access::{AudienceSet, Subscribe};
use roomcast_proto::frame::Counters;
use roomcast_proto::ids::Tenant;
use roomcast_proto::subject::read_state_key;
use slab::Slab;
use smallvec::SmallVec;

pub use notes::Change;
use notes::{Name, Notes, count};
pub use record::Record;

use crate::place::Place;

/// A viewer nobody listens to any more is kept for so long: polls come back, and so do tabs.
pub const LINGER_MILLIS: u64 = 30_000;
/// Viewers kept without a listener; beyond it, those that were left first go at once. As many as a gateway has connections by default: when
/// all lose their sockets and are back within seconds, nothing is read again; what they hold they held a moment ago.
pub const IDLE_MAX: usize = 10_000;

/// What a user is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Bell {
    /// What is not read.
    pub counters: Counters,
    /// How the user wants to be told, JSON; `None`: nothing was ever set.
    pub preferences: Option<Arc<str>>,
    /// The version of the record that they are of.
    pub record: u64,
    /// Whether the preferences are news to whoever is told.
    pub prefers_anew: bool,
}

/// Who wants to be told.
#[derive(Debug)]
pub struct Entering<L> {
    /// The connection's or the request's own number.
    pub name: u64,
    /// How it is reached.
    pub to: L,
    /// Whose.
    pub tenant: Tenant,
    /// The token's subject.
    pub user: Arc<str>,
    /// The rooms that count.
    pub permits: Vec<Arc<Subscribe>>,
}

/// For what something was read: given back with what was found. Its number is never used again, so that what was read for one is not
/// given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct For {
    at: usize,
    number: u64,
}

/// Something that has to be read.
#[derive(Debug)]
pub enum Want {
    /// The state of a room.
    Room(For, Arc<Subscribe>),
    /// What is kept of a user.
    Record(For, Tenant, Arc<str>),
}

/// See the module. `L`: how a listener is reached.
#[derive(Debug)]
pub struct Bells<L> {
    viewers: Slab<Viewer<L>>,
    rooms: Slab<Room>,
    /// Viewers by the listener's number.
    listeners: HashMap<u64, usize>,
    /// Viewers by the key of their user's record.
    records: HashMap<Arc<str>, SmallVec<[usize; 1]>>,
    /// Rooms by [`Place::key`].
    places: HashMap<Arc<str>, usize>,
    /// Viewers to be counted again.
    dirty: Vec<usize>,
    wants: VecDeque<Want>,
    /// Who was left when (milliseconds), with its number.
    idle: VecDeque<(u64, usize, u64)>,
    /// Everything of the stream of state up to here has been taken in.
    rev: u64,
    /// See [`For`].
    next: u64,
}

#[derive(Debug)]
struct Viewer<L> {
    number: u64,
    tenant: Tenant,
    user: Arc<str>,
    record: Arc<str>,
    rooms: Box<[(usize, AudienceSet)]>,
    listeners: SmallVec<[(u64, L); 1]>,
    read: Box<[Name]>,
    /// Up to which position of the bucket that is so.
    at: u64,
    version: u64,
    preferences: Option<Arc<str>>,
    prefers_anew: bool,
    is_known: bool,
    /// It is being read; and whether it has changed since that began.
    reading: bool,
    again: bool,
    is_dirty: bool,
    said: Option<Counters>,
}

#[derive(Debug)]
struct Room {
    number: u64,
    key: Arc<str>,
    permit: Arc<Subscribe>,
    notes: Notes,
    /// The position that `notes` begin at; `None`: being read.
    rev: Option<u64>,
    /// What came while it was being read.
    pending: Vec<Change>,
    viewers: Vec<usize>,
}

impl<L> Default for Bells<L> {
    fn default() -> Self {
        Self {
            viewers: Slab::new(),
            rooms: Slab::new(),
            listeners: HashMap::new(),
            records: HashMap::new(),
            places: HashMap::new(),
            dirty: Vec::new(),
            wants: VecDeque::new(),
            idle: VecDeque::new(),
            rev: 0,
            next: 0,
        }
    }
}

impl<L> Bells<L> {
    /// Viewers, their listeners, and the values held of their rooms.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize, usize) {
        let notes = self.rooms.iter().map(|(_, room)| room.notes.len()).sum();
        (self.viewers.len(), self.listeners.len(), notes)
    }

    /// Somebody wants to be told from now on; it may have been here before, with other rights. Answers what it is told at once.
    pub fn enter(&mut self, entering: Entering<L>, now_millis: u64) -> Option<Bell> {
        self.leave(entering.name, now_millis);
        let record: Arc<str> = read_state_key(&entering.tenant, &entering.user).into();
        let places: Vec<(Place, AudienceSet)> = entering
            .permits
            .iter()
            .map(|permit| (Place::of(permit), permit.audiences()))
            .collect();
        let at = match self.find(&record, &places) {
            Some(at) => at,
            None => self.begin(&entering, record, places),
        };
        self.listeners.insert(entering.name, at);
        let viewer = self.viewers.get_mut(at)?;
        viewer.listeners.push((entering.name, entering.to));
        Some(Bell {
            counters: viewer.said?,
            preferences: viewer.preferences.clone(),
            record: viewer.version,
            prefers_anew: viewer.preferences.is_some(),
        })
    }

    fn find(&self, record: &str, places: &[(Place, AudienceSet)]) -> Option<usize> {
        let same = |at: &&usize| {
            let Some(viewer) = self.viewers.get(**at) else {
                return false;
            };
            let rooms = viewer
                .rooms
                .iter()
                .filter_map(|(room, audiences)| Some((&self.rooms.get(*room)?.key, *audiences)));
            rooms.eq(places.iter().map(|(place, audiences)| (&place.key, *audiences)))
        };
        self.records.get(record)?.iter().find(same).copied()
    }

    fn begin(
        &mut self,
        entering: &Entering<L>,
        record: Arc<str>,
        places: Vec<(Place, AudienceSet)>,
    ) -> usize {
        let at = self.viewers.vacant_key();
        let mut rooms = Vec::with_capacity(places.len());
        for ((place, audiences), permit) in places.into_iter().zip(&entering.permits) {
            let room = match self.places.get(&place.key) {
                Some(room) => *room,
                None => self.open(place, permit),
            };
            if let Some(room) = self.rooms.get_mut(room) {
                room.viewers.push(at);
            }
            rooms.push((room, audiences));
        }
        let number = self.number();
        self.viewers.insert(Viewer {
            number,
            tenant: entering.tenant.clone(),
            user: Arc::clone(&entering.user),
            record: Arc::clone(&record),
            rooms: rooms.into(),
            listeners: SmallVec::new(),
            read: Box::default(),
            at: 0,
            version: 0,
            preferences: None,
            prefers_anew: false,
            is_known: false,
            reading: true,
            again: false,
            is_dirty: false,
            said: None,
        });
        self.records.entry(record).or_default().push(at);
        self.wants.push_back(Want::Record(
            For { at, number },
            entering.tenant.clone(),
            Arc::clone(&entering.user),
        ));
        at
    }

    fn open(&mut self, place: Place, permit: &Arc<Subscribe>) -> usize {
        let number = self.number();
        let at = self.rooms.insert(Room {
            number,
            key: Arc::clone(&place.key),
            permit: Arc::clone(permit),
            notes: Notes::default(),
            rev: None,
            pending: Vec::new(),
            viewers: Vec::new(),
        });
        self.places.insert(place.key, at);
        self.wants
            .push_back(Want::Room(For { at, number }, Arc::clone(permit)));
        at
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A listener is gone.
    pub fn leave(&mut self, name: u64, now_millis: u64) {
        let Some(at) = self.listeners.remove(&name) else {
            return;
        };
        if let Some(viewer) = self.viewers.get_mut(at) {
            viewer.listeners.retain(|(other, _)| *other != name);
            if viewer.listeners.is_empty() {
                self.idle.push_back((now_millis, at, viewer.number));
            }
        }
    }

    /// Forgets viewers that nobody has listened to for a while.
    pub fn sweep(&mut self, now_millis: u64) {
        while let Some((left, at, number)) = self.idle.front().copied() {
            if self.idle.len() <= IDLE_MAX && now_millis.saturating_sub(left) < LINGER_MILLIS {
                return;
            }
            self.idle.pop_front();
            // Somebody may have come back, and left again: then it stands in the list once more.
            let is_idle = |viewer: &Viewer<L>| viewer.number == number && viewer.listeners.is_empty();
            let again = self.idle.iter().any(|(_, _, other)| *other == number);
            if self.viewers.get(at).is_some_and(is_idle) && !again {
                self.forget(at);
            }
        }
    }

    fn forget(&mut self, at: usize) {
        let viewer = self.viewers.remove(at);
        if let Some(all) = self.records.get_mut(&viewer.record) {
            all.retain(|other| *other != at);
            if all.is_empty() {
                self.records.remove(&viewer.record);
            }
        }
        for (room, _) in viewer.rooms.iter() {
            let Some(held) = self.rooms.get_mut(*room) else {
                continue;
            };
            held.viewers.retain(|other| *other != at);
            if held.viewers.is_empty() {
                let gone = self.rooms.remove(*room);
                self.places.remove(&gone.key);
            }
        }
        self.dirty.retain(|other| *other != at);
    }

    fn room(&mut self, of: For) -> Option<&mut Room> {
        let room = self.rooms.get_mut(of.at);
        room.filter(|room| room.number == of.number)
    }

    fn viewer(&mut self, of: For) -> Option<&mut Viewer<L>> {
        let viewer = self.viewers.get_mut(of.at);
        viewer.filter(|viewer| viewer.number == of.number)
    }

    /// The next thing to be read.
    pub fn take_want(&mut self) -> Option<Want> {
        self.wants.pop_front()
    }

    /// It could not be read; the same is wanted again when `want` is given back.
    pub fn give_back(&mut self, want: Want) {
        let is_wanted = match &want {
            Want::Room(of, _) => self.room(*of).is_some(),
            Want::Record(of, ..) => self.viewer(*of).is_some(),
        };
        if is_wanted {
            self.wants.push_back(want);
        }
    }

    /// A notification of a room, or the end of one, in the order of the stream.
    pub fn changed(&mut self, key: &str, change: Change) {
        let Some(room) = self.places.get(key).and_then(|at| self.rooms.get_mut(*at)) else {
            return;
        };
        match room.rev {
            None => room.pending.push(change),
            Some(rev) if change.rev() > rev => {
                room.notes.apply(change);
                let viewers = std::mem::take(&mut room.viewers);
                self.count_again(&viewers);
                if let Some(room) = self.places.get(key).and_then(|at| self.rooms.get_mut(*at)) {
                    room.viewers = viewers;
                }
            }
            Some(_) => {}
        }
    }

    /// Whether anybody here counts notifications of this room.
    #[must_use]
    pub fn has_room(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// Everything of the stream of state up to here has been said.
    pub fn passed(&mut self, rev: u64) {
        self.rev = self.rev.max(rev);
    }

    /// The streams are not what they were: positions go on from here, and rooms are read again.
    pub fn begin_anew(&mut self, rev: u64) {
        self.rev = rev;
        self.rooms_changed();
    }

    /// A room was read: all that it held at this position, ascending.
    pub fn room_read(&mut self, of: For, rev: u64, changes: impl IntoIterator<Item = Change>) {
        let Some(room) = self.room(of) else { return };
        let mut notes = Notes::of(changes.into_iter());
        let later = std::mem::take(&mut room.pending).into_iter();
        later
            .filter(|change| change.rev() > rev)
            .for_each(|change| notes.apply(change));
        (room.notes, room.rev) = (notes, Some(rev));
        let viewers = room.viewers.clone();
        self.count_again(&viewers);
    }

    /// A user's record was read.
    pub fn record_read(&mut self, of: For, record: Record) {
        let Some(viewer) = self.viewer(of) else { return };
        viewer.reading = false;
        let preferences: Option<Arc<str>> = record.preferences.map(|json| json.get().into());
        // What was taken back is said as well.
        let preferences = preferences.or_else(|| viewer.preferences.as_ref().map(|_| "{}".into()));
        // Nothing goes back: an answer may be one of a leader that is none any more. Versions say nothing of that, they may begin anew.
        if !viewer.is_known || record.at >= viewer.at {
            viewer.at = record.at;
            viewer.prefers_anew |= viewer.preferences != preferences;
            viewer.preferences = preferences;
            viewer.read = record.marks.0;
            viewer.version = record.version;
            viewer.is_known = true;
        }
        let again = std::mem::take(&mut viewer.again);
        if again {
            self.want_record(of.at);
        }
        self.count_again(&[of.at]);
    }

    /// The record behind this key has changed.
    pub fn record_changed(&mut self, key: &str) {
        let all = self.records.get(key).cloned().unwrap_or_default();
        all.into_iter().for_each(|at| self.want_record(at));
    }

    /// Any record may have changed, and the bucket itself may be another one.
    pub fn records_changed(&mut self) {
        let all: Vec<usize> = self.viewers.iter().map(|(at, _)| at).collect();
        for at in all {
            if let Some(viewer) = self.viewers.get_mut(at) {
                viewer.at = 0;
            }
            self.want_record(at);
        }
    }

    fn want_record(&mut self, at: usize) {
        let Some(viewer) = self.viewers.get_mut(at) else {
            return;
        };
        if viewer.reading {
            viewer.again = true;
            return;
        }
        viewer.reading = true;
        let of = For {
            at,
            number: viewer.number,
        };
        let want = Want::Record(of, viewer.tenant.clone(), Arc::clone(&viewer.user));
        self.wants.push_back(want);
    }

    /// What is here of rooms is not what they hold: something was lost, or the stream is another.
    pub fn rooms_changed(&mut self) {
        let all: Vec<usize> = self.rooms.iter().map(|(at, _)| at).collect();
        for at in all {
            let number = self.number();
            let Some(room) = self.rooms.get_mut(at) else {
                continue;
            };
            room.number = number;
            room.rev = None;
            room.pending = Vec::new();
            let want = Want::Room(For { at, number }, Arc::clone(&room.permit));
            self.wants.push_back(want);
        }
    }

    /// Time went by: what has ended counts no more.
    pub fn expire(&mut self, now_secs: u32) {
        let mut changed = Vec::new();
        for (_, room) in &mut self.rooms {
            if room.notes.expire(now_secs) {
                changed.extend_from_slice(&room.viewers);
            }
        }
        self.count_again(&changed);
    }

    fn count_again(&mut self, viewers: &[usize]) {
        for at in viewers {
            if let Some(viewer) = self.viewers.get_mut(*at).filter(|viewer| !viewer.is_dirty) {
                viewer.is_dirty = true;
                self.dirty.push(*at);
            }
        }
    }

    /// Counts for those for whom something has changed, and tells those to whom it makes a difference. Answers how many were counted.
    pub fn round(&mut self, mut tell: impl FnMut(u64, &L, &Bell)) -> usize {
        let dirty = std::mem::take(&mut self.dirty);
        for at in &dirty {
            let Some(viewer) = self.viewers.get_mut(*at) else {
                continue;
            };
            viewer.is_dirty = false;
            let mut head = self.rev;
            let mut rooms: SmallVec<[(&Notes, AudienceSet); 8]> = SmallVec::new();
            let mut is_ready = viewer.is_known;
            for (room, audiences) in viewer.rooms.iter() {
                match self.rooms.get(*room).map(|room| (room, room.rev)) {
                    Some((room, Some(rev))) => {
                        head = head.max(rev);
                        rooms.push((&room.notes, *audiences));
                    }
                    _ => is_ready = false,
                }
            }
            if !is_ready {
                continue;
            }
            let version = head.saturating_add(viewer.version);
            let counters = Counters {
                version,
                ..count(rooms.into_iter(), &viewer.read)
            };
            let same = |said: Counters| Counters { version, ..said } == counters;
            let prefers_anew = std::mem::take(&mut viewer.prefers_anew);
            if !prefers_anew && viewer.said.is_some_and(same) {
                continue;
            }
            viewer.said = Some(counters);
            let bell = Bell {
                counters,
                preferences: viewer.preferences.clone(),
                record: viewer.version,
                prefers_anew,
            };
            for (name, to) in &viewer.listeners {
                tell(*name, to, &bell);
            }
        }
        dirty.len()
    }
}

#[cfg(test)]
mod tests;
