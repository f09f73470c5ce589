//! What one client has not taken yet: a bounded queue of ready frames, and what gives way when it is full.
//!
//! The shard makes one only when a socket refuses bytes (or when several frames are to go out in one write) and drops
//! it when it is empty, so a client that keeps up costs nothing. Frames are shared with all other clients; a queue
//! holds references. A state value takes the place of an older one of its key, at the end of the queue: a client that
//! is slow gets the newest values and fewer of them. What a client missed while it was away is not counted against the
//! limits: it has a bound of its own, the page of a recovery. Decided here, without clock or socket.

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use roomcast_proto::ids::Room;

/// Bytes that [`Outbox::next`] gives out at once, and one frame more. What a slow client's kernel holds can no longer give way.
const NEXT_BYTES: usize = 16 * 1024;
/// Frames that a queue has room for when it is made: what a client is told that has missed little.
const FRAMES: usize = 16;
/// Places of frames that gave way which may stay in a queue before it is packed, beside one per frame.
const GAPS_MIN: usize = 64;

/// How much may wait for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of live frames and answers.
    pub bytes_max: usize,
    /// Live frames and answers.
    pub frames_max: usize,
}

/// What a state value is the latest of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StateKey {
    /// The room; a client is of one tenant.
    pub room: Room,
    /// The key, as one token.
    pub key: Arc<str>,
}

/// What a frame is, which decides what overflow may do to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// An answer or a push of the protocol itself: never dropped.
    Answer,
    /// A live event, kept in order to the limit.
    Event,
    /// A live state value: gives way to the next one of its key.
    State(StateKey),
    /// A live event that nobody stored: gives way to everything else when the queue is full.
    Ephemeral,
    /// Part of a recovery: bounded by its page, not by the limits.
    Recovery,
    /// The last words of a connection: they always fit.
    Last,
    /// What the client is told about this queue itself: it always fits, and at most one waits.
    Note,
    /// The answer to a WebSocket ping; only the newest is kept (RFC 6455 §5.5.3).
    Pong,
}

/// The queue is full: the client is too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the outbox is full")]
pub struct Full;

/// Frames that will not be sent because of a [`Outbox::push`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GaveWay {
    /// State values with a newer one of their key behind them.
    pub state: u32,
    /// Ephemeral events, the one that was pushed among them.
    pub ephemeral: u32,
}

#[derive(Debug)]
struct Entry {
    frame: Bytes,
    class: Class,
}

impl Entry {
    fn counts(&self) -> bool {
        !matches!(self.class, Class::Recovery | Class::Last | Class::Note)
    }
}

/// The queue of one client.
#[derive(Debug)]
pub struct Outbox {
    /// Frames, and the places of those that gave way; the first one is a frame.
    entries: VecDeque<Option<Entry>>,
    /// The number of the first entry: numbers go on, so that `states` stays right.
    first: u64,
    /// The number of each key's value.
    states: HashMap<StateKey, u64>,
    gaps: usize,
    ephemerals: usize,
    /// Bytes of the first entry that are written already.
    written: usize,
    /// What counts against the limits.
    bytes: usize,
    frames: usize,
    /// Bytes of all frames, recovery included.
    held: usize,
    /// What gave way since the client was told.
    thinned: GaveWay,
    has_note: bool,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            entries: VecDeque::with_capacity(FRAMES),
            first: 0,
            states: HashMap::new(),
            gaps: 0,
            ephemerals: 0,
            written: 0,
            bytes: 0,
            frames: 0,
            held: 0,
            thinned: GaveWay::default(),
            has_note: false,
        }
    }
}

impl Outbox {
    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes waiting, recovery included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.held - self.written
    }

    /// Frames waiting, recovery included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len() - self.gaps
    }

    /// Appends a frame of which `written` bytes are out already (only for the first one). Answers what gave way to it;
    /// an ephemeral event that finds the queue full gives way itself.
    ///
    /// # Errors
    /// [`Full`] when the limits do not allow it even so; the client must be told to come back.
    pub fn push(
        &mut self,
        frame: Bytes,
        written: usize,
        class: Class,
        limits: Limits,
    ) -> Result<GaveWay, Full> {
        let gave_way = self.push_counted(frame, written, class, limits)?;
        self.thinned.state = self.thinned.state.saturating_add(gave_way.state);
        self.thinned.ephemeral = self.thinned.ephemeral.saturating_add(gave_way.ephemeral);
        Ok(gave_way)
    }

    /// What gave way since this was asked last; nothing while a note about it waits.
    pub fn take_thinned(&mut self) -> GaveWay {
        match self.has_note {
            true => GaveWay::default(),
            false => std::mem::take(&mut self.thinned),
        }
    }

    fn push_counted(
        &mut self,
        frame: Bytes,
        written: usize,
        class: Class,
        limits: Limits,
    ) -> Result<GaveWay, Full> {
        debug_assert!(
            written == 0 || self.entries.is_empty(),
            "only the first frame can be half written"
        );
        if class == Class::Pong && self.replace_pong(&frame) {
            return Ok(GaveWay::default());
        }
        let mut gave_way = GaveWay::default();
        let entry = Entry { frame, class };
        if entry.counts() {
            let old = self.older(&entry.class);
            if !self.fits(&entry, old, limits) && entry.class != Class::Ephemeral {
                gave_way.ephemeral = self.drop_ephemerals();
            }
            // Dropping has closed the gaps.
            let old = self.older(&entry.class);
            if !self.fits(&entry, old, limits) {
                gave_way.ephemeral += 1;
                return if entry.class == Class::Ephemeral {
                    Ok(gave_way)
                } else {
                    Err(Full)
                };
            }
            if let Some(old) = old {
                gave_way.state = 1;
                self.take_out(old);
                if self.gaps > self.len() + GAPS_MIN {
                    self.pack();
                }
            }
            self.frames += 1;
            self.bytes += entry.frame.len();
        }
        if self.entries.is_empty() {
            self.written = written;
        }
        match &entry.class {
            Class::State(key) => drop(
                self.states
                    .insert(key.clone(), self.first + self.entries.len() as u64),
            ),
            Class::Ephemeral => self.ephemerals += 1,
            Class::Note => self.has_note = true,
            _ => {}
        }
        self.held += entry.frame.len();
        self.entries.push_back(Some(entry));
        Ok(gave_way)
    }

    /// Whether a frame fits once the one at `old` is gone.
    fn fits(&self, entry: &Entry, old: Option<usize>, limits: Limits) -> bool {
        let old = old.and_then(|at| self.entries.get(at)?.as_ref());
        let (frames, bytes) = old.map_or((0, 0), |old| (1, old.frame.len()));
        self.frames - frames < limits.frames_max && self.bytes - bytes + entry.frame.len() <= limits.bytes_max
    }

    /// The frames to write next, at most as many as `slices` holds, and few bytes. Answers how many slices are filled.
    pub fn next<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut filled, mut bytes) = (0, 0);
        for (slice, entry) in slices.iter_mut().zip(self.entries.iter().flatten()) {
            if bytes >= NEXT_BYTES {
                break;
            }
            let skip = if filled == 0 { self.written } else { 0 };
            *slice = IoSlice::new(&entry.frame[skip..]);
            bytes += slice.len();
            filled += 1;
        }
        filled
    }

    /// Notes that `bytes` more are written.
    pub fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        while let Some(first) = self.entries.front().and_then(Option::as_ref) {
            if self.written < first.frame.len() {
                return;
            }
            self.written -= first.frame.len();
            self.take_out(0);
        }
        self.written = 0;
    }

    /// Drops everything but a frame that is half out, which must be ended for the next one to be readable.
    pub fn abandon(&mut self) {
        self.thinned = GaveWay::default();
        // From the end: taking out the first one moves the others.
        for at in (usize::from(self.written > 0)..self.entries.len()).rev() {
            self.take_out(at);
        }
        self.pack();
    }

    fn replace_pong(&mut self, frame: &Bytes) -> bool {
        // The first entry may be half written.
        let mut waiting = self.entries.iter_mut().skip(1).flatten();
        let Some(pong) = waiting.find(|entry| entry.class == Class::Pong) else {
            return false;
        };
        self.bytes = self.bytes - pong.frame.len() + frame.len();
        self.held = self.held - pong.frame.len() + frame.len();
        pong.frame = frame.clone();
        true
    }

    /// The place of the value that a newer one makes old. Whoever loses the connection between the two has a cursor from
    /// before the newer one, so it gets that one.
    fn older(&self, class: &Class) -> Option<usize> {
        let Class::State(key) = class else { return None };
        let at = usize::try_from(self.states.get(key)? - self.first).ok()?;
        // What is half out must be ended.
        (at > 0 || self.written == 0).then_some(at)
    }

    fn drop_ephemerals(&mut self) -> u32 {
        let before = self.ephemerals;
        if before > 0 {
            for at in (usize::from(self.written > 0)..self.entries.len()).rev() {
                let ephemeral = |entry: &Option<Entry>| {
                    entry
                        .as_ref()
                        .is_some_and(|entry| entry.class == Class::Ephemeral)
                };
                if self.entries.get(at).is_some_and(ephemeral) {
                    self.take_out(at);
                }
            }
            self.pack();
        }
        u32::try_from(before - self.ephemerals).unwrap_or(u32::MAX)
    }

    /// Makes a gap of an entry, and nothing of gaps at the front: taking out the first one moves all others.
    fn take_out(&mut self, at: usize) {
        let Some(entry) = self.entries.get_mut(at).and_then(Option::take) else {
            return;
        };
        self.gaps += 1;
        self.held -= entry.frame.len();
        if entry.counts() {
            self.frames -= 1;
            self.bytes -= entry.frame.len();
        }
        match &entry.class {
            Class::State(key) if self.states.get(key) == Some(&(self.first + at as u64)) => {
                self.states.remove(key);
            }
            Class::Ephemeral => self.ephemerals -= 1,
            Class::Note => self.has_note = false,
            _ => {}
        }
        if at == 0 {
            while self.entries.front().is_some_and(Option::is_none) {
                self.entries.pop_front();
                (self.first, self.gaps) = (self.first + 1, self.gaps - 1);
            }
        }
    }

    /// Closes the gaps: what is left is numbered anew.
    fn pack(&mut self) {
        self.entries.retain(Option::is_some);
        self.gaps = 0;
        self.states.clear();
        for (at, entry) in self.entries.iter().flatten().enumerate() {
            if let Class::State(key) = &entry.class {
                self.states.insert(key.clone(), self.first + at as u64);
            }
        }
    }
}

#[cfg(test)]
mod tests;
