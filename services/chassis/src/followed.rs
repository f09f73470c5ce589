//! Files that are followed while a process runs.
//!
//! They are read once a second, and two equal readings in a row count: what is being written at that moment does not.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

/// How often files are read.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What files say, as it was read; `T` holds also why they cannot be read.
#[derive(Debug)]
pub struct Followed<T> {
    /// What the last reading gave.
    glance: T,
    /// What was last given to the caller.
    given: T,
    ticks: Option<Interval>,
}

impl<T: Clone + PartialEq + Send + 'static> Followed<T> {
    /// Begins behind what the caller has read itself.
    #[must_use]
    pub fn new(read: T) -> Self {
        Self {
            glance: read.clone(),
            given: read,
            ticks: None,
        }
    }

    /// Waits until `read` gives something else than what was given last, twice in a row; none where reading itself cannot go on,
    /// because the process ends. `read` may block.
    ///
    /// # Cancel safety
    /// Safe: a reading that was begun counts for nothing.
    pub async fn changed<R>(&mut self, read: R) -> Option<T>
    where
        R: Fn() -> T + Clone + Send + 'static,
    {
        loop {
            let ticks = self.ticks.get_or_insert_with(|| {
                let mut ticks = tokio::time::interval(LOOK_EVERY);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                ticks
            });
            ticks.tick().await;
            let said = tokio::task::spawn_blocking(read.clone()).await.ok()?;
            if self.took(said) {
                return Some(self.given.clone());
            }
        }
    }

    /// Takes a reading; whether there is something to be given.
    fn took(&mut self, said: T) -> bool {
        let settled = said == self.glance;
        self.glance = said;
        let other = settled && self.given != self.glance;
        if other {
            self.given.clone_from(&self.glance);
        }
        other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_equal_readings_that_differ_from_what_was_given_count() {
        let mut followed = Followed::new("a");
        let rows = [
            ("a", false),
            ("b", false),
            ("bc", false),
            ("bcd", false),
            ("bcd", true),
            ("bcd", false),
            ("a", false),
            ("bcd", false),
            ("bcd", false),
            ("a", false),
            ("a", true),
        ];
        for (row, (said, given)) in rows.into_iter().enumerate() {
            assert_eq!(followed.took(said), given, "reading {row}: {said}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reading_that_was_given_up_counts_for_nothing() {
        let mut followed = Followed::new(0);
        let given_up = tokio::time::timeout(LOOK_EVERY / 2, followed.changed(|| 0)).await;
        assert!(given_up.is_err(), "nothing else was read");
        assert_eq!(followed.changed(|| 1).await, Some(1));
    }
}
