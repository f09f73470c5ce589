//! Who waits for something to happen in a room: requests that are held until there is something to answer.

use std::sync::Arc;

use super::answer::Waiter;
use crate::maps::HashMap;

/// Waiters by room. Bounded by the requests that may be held, and by the rooms of each.
#[derive(Debug, Default)]
pub struct Watches {
    by_room: HashMap<Arc<str>, Vec<Waiter>>,
    by_waiter: HashMap<Waiter, Vec<Arc<str>>>,
}

impl Watches {
    /// Tells this waiter when something happens in one of these rooms: once, for all of them.
    pub fn watch(&mut self, waiter: Waiter, rooms: Vec<Arc<str>>) {
        self.end(waiter);
        for room in &rooms {
            self.by_room.entry(Arc::clone(room)).or_default().push(waiter);
        }
        self.by_waiter.insert(waiter, rooms);
    }

    /// Something happened in a room: who is to be told.
    pub fn changed(&mut self, room: &str) -> Vec<Waiter> {
        // Nearly always nobody waits, and this is asked for every event.
        if self.by_room.is_empty() {
            return Vec::new();
        }
        let told = self.by_room.get(room).cloned().unwrap_or_default();
        for waiter in &told {
            self.end(*waiter);
        }
        told
    }

    /// Something happened that concerns everybody.
    pub fn all(&mut self) -> Vec<Waiter> {
        self.by_room.clear();
        std::mem::take(&mut self.by_waiter).into_keys().collect()
    }

    /// A waiter is gone, or was told.
    pub fn end(&mut self, waiter: Waiter) {
        for room in self.by_waiter.remove(&waiter).unwrap_or_default() {
            if let Some(waiters) = self.by_room.get_mut(&room) {
                waiters.retain(|other| *other != waiter);
                if waiters.is_empty() {
                    self.by_room.remove(&room);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter(ticket: u64) -> Waiter {
        Waiter { shard: 0, ticket }
    }

    #[test]
    fn each_is_told_once_and_leaves_nothing_behind() {
        let mut watches = Watches::default();
        let rooms = |names: &[&str]| {
            names
                .iter()
                .map(|name| Arc::from(*name))
                .collect::<Vec<Arc<str>>>()
        };
        watches.watch(waiter(1), rooms(&["a", "b"]));
        watches.watch(waiter(2), rooms(&["b"]));
        watches.watch(waiter(3), rooms(&["c"]));
        assert!(watches.changed("d").is_empty());
        assert_eq!(watches.changed("a"), [waiter(1)]);
        assert_eq!(watches.changed("b"), [waiter(2)]);
        watches.watch(waiter(2), rooms(&["a"]));
        watches.watch(waiter(2), rooms(&["b"]));
        assert!(
            watches.changed("a").is_empty(),
            "the last request of a waiter counts"
        );
        watches.end(waiter(2));
        assert_eq!(watches.all(), [waiter(3)]);
        assert!(watches.by_room.is_empty() && watches.by_waiter.is_empty());
    }
}
