//! When the events of one room leave: at once while the room is quiet, several in one write while it is busy.
//!
//! A write costs about the same whether it carries one event or ten, so a busy room's events wait for each other, at most
//! one window; a room with fewer flushes than that never waits. Kept by `members` for each room, asked by a shard for
//! every event. Pure: time is an argument, in milliseconds of the shard's clock.

use std::sync::Arc;

use crate::delivery::Delivery;

/// Flushes that a quiet room has in hand before its events wait: an event, the numbers and the notification that follow
/// from it all leave at once.
const IN_HAND: u64 = 2;
/// Events that wait for each other; more leave early.
pub const EVENTS_MAX: usize = 256;
/// Bytes of events that wait for each other; more leave early.
pub const BYTES_MAX: usize = 128 * 1024;

/// What is to be done with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It leaves now.
    AtOnce,
    /// It waits, as the first one: all that wait leave at this instant.
    From(u64),
    /// It waits with others.
    Waits,
    /// It is with those that wait, and they are as many as may be: all leave now.
    Full,
}

/// The rhythm of one room, and what waits for its next beat.
#[derive(Debug, Default)]
pub struct Gather {
    /// From here on a flush would be in time if every one took a whole window. Flushes may be ahead of it by those in
    /// hand (a token bucket in one number).
    even_millis: u64,
    due_millis: u64,
    events: Vec<Arc<Delivery>>,
    bytes: usize,
}

impl Gather {
    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Bytes of what waits.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether what waits leaves at this instant, and not at another one.
    #[must_use]
    pub fn is_due(&self, due_millis: u64) -> bool {
        !self.events.is_empty() && self.due_millis == due_millis
    }

    /// Offers the events of one turn. What does not leave at once is kept. `window_millis` 0: nothing waits.
    pub fn offer(&mut self, events: &[Arc<Delivery>], now_millis: u64, window_millis: u64) -> Turn {
        let due = self.even_millis.saturating_sub(IN_HAND * window_millis);
        let first = self.events.is_empty();
        if first && (now_millis >= due || window_millis == 0) {
            self.flushed(now_millis, window_millis);
            return Turn::AtOnce;
        }
        self.events.extend_from_slice(events);
        self.bytes += events.iter().map(|event| event.cost_bytes()).sum::<usize>();
        if self.events.len() >= EVENTS_MAX || self.bytes >= BYTES_MAX {
            return Turn::Full;
        }
        if !first {
            return Turn::Waits;
        }
        // Never later than a window from now, whatever the window was before.
        self.due_millis = due.min(now_millis + window_millis);
        Turn::From(self.due_millis)
    }

    /// Everything that waits; it leaves now.
    pub fn take(&mut self, now_millis: u64, window_millis: u64) -> Vec<Arc<Delivery>> {
        self.flushed(now_millis, window_millis);
        self.bytes = 0;
        std::mem::take(&mut self.events)
    }

    fn flushed(&mut self, now_millis: u64, window_millis: u64) {
        self.even_millis = self.even_millis.max(now_millis) + window_millis;
    }
}

#[cfg(test)]
mod tests;
