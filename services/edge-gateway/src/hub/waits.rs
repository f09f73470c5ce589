//! Who waits for a read, and until when.

use super::answer::Waiter;
use crate::maps::HashMap;

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
    /// Whether reading for it was counted.
    charged: bool,
}

impl Waits {
    /// Whether this waiter may wait (longer); its time begins with the first call.
    pub fn may_wait(&mut self, waiter: Waiter, now_millis: i64) -> bool {
        now_millis < self.deadline(waiter, now_millis).at_millis
    }

    /// Counts reading for this waiter, once however often it asks again.
    ///
    /// # Errors
    /// What `count` says; it is not waiting then.
    pub fn charge(
        &mut self,
        waiter: Waiter,
        now_millis: i64,
        count: impl FnOnce() -> Result<(), u64>,
    ) -> Result<(), u64> {
        if self.deadline(waiter, now_millis).charged {
            return Ok(());
        }
        let counted = count();
        match counted {
            Ok(()) => self.deadline(waiter, now_millis).charged = true,
            Err(_) => self.end(waiter),
        }
        counted
    }

    fn deadline(&mut self, waiter: Waiter, now_millis: i64) -> &mut Deadline {
        let fresh = Deadline {
            at_millis: now_millis + WAIT_MILLIS,
            told: false,
            charged: false,
        };
        self.deadlines.entry(waiter).or_insert(fresh)
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
            // The clock may have been set back: nobody waits for longer than if it began now.
            deadline.at_millis = deadline.at_millis.min(now_millis + WAIT_MILLIS);
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
    fn reading_is_counted_once_for_each_who_waits() {
        let (mut waits, waiter) = (Waits::default(), Waiter { shard: 0, ticket: 1 });
        assert_eq!(waits.charge(waiter, 0, || Err(7)), Err(7));
        assert_eq!(waits.len(), 0, "who was refused does not wait");
        assert_eq!(waits.charge(waiter, 0, || Ok(())), Ok(()));
        assert_eq!(
            waits.charge(waiter, 1, || Err(7)),
            Ok(()),
            "asking again costs nothing"
        );
        waits.end(waiter);
        assert_eq!(waits.charge(waiter, 2, || Err(7)), Err(7));
    }

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

    #[test]
    fn a_clock_that_is_set_back_keeps_nobody() {
        let (mut waits, waiter) = (Waits::default(), Waiter { shard: 0, ticket: 1 });
        assert!(waits.may_wait(waiter, 3_600_000));
        assert!(waits.over(100).is_empty());
        assert_eq!(waits.over(100 + WAIT_MILLIS), [waiter]);
    }
}
