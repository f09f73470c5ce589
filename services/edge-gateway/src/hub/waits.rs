//! Who waits for a read, and until when.

use std::collections::HashMap;

use super::answer::Waiter;

/// The longest a client waits for a read, or for the stream to reach its cursor.
pub const WAIT_MILLIS: i64 = 5_000;
/// Waiters that were told that their time is over and never came back are forgotten after this long.
const FORGET_MILLIS: i64 = 30_000;

/// Deadlines by waiter. Bounded by the requests of open connections, of which each has one at a time.
#[derive(Debug, Default)]
pub struct Waits {
    deadlines: HashMap<Waiter, Deadline>,
}

#[derive(Debug, Clone, Copy)]
struct Deadline {
    at_millis: i64,
    told: bool,
}

impl Waits {
    /// Whether this waiter may wait (longer); its time begins with the first call.
    pub fn may_wait(&mut self, waiter: Waiter, now_millis: i64) -> bool {
        let fresh = Deadline {
            at_millis: now_millis + WAIT_MILLIS,
            told: false,
        };
        now_millis < self.deadlines.entry(waiter).or_insert(fresh).at_millis
    }

    /// It has its answer, or is gone.
    pub fn end(&mut self, waiter: Waiter) {
        self.deadlines.remove(&waiter);
    }

    /// Those whose time is over, each once.
    pub fn over(&mut self, now_millis: i64) -> Vec<Waiter> {
        self.deadlines
            .retain(|_, deadline| now_millis < deadline.at_millis + FORGET_MILLIS);
        let mut over = Vec::new();
        for (waiter, deadline) in &mut self.deadlines {
            if !deadline.told && now_millis >= deadline.at_millis {
                deadline.told = true;
                over.push(*waiter);
            }
        }
        over
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.deadlines.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_begins_once_and_ends_once() {
        let (mut waits, waiter) = (Waits::default(), Waiter { shard: 0, ticket: 1 });
        assert!(waits.may_wait(waiter, 0));
        assert!(waits.may_wait(waiter, WAIT_MILLIS - 1));
        assert!(waits.over(WAIT_MILLIS - 1).is_empty());
        assert_eq!(waits.over(WAIT_MILLIS), [waiter]);
        assert!(waits.over(WAIT_MILLIS).is_empty());
        assert!(!waits.may_wait(waiter, WAIT_MILLIS));
        waits.over(WAIT_MILLIS + FORGET_MILLIS);
        assert_eq!(waits.len(), 0);
    }
}
