//! How a gateway empties itself: evenly over the time it has, each client with its own hint when to come back.
//!
//! Pure; a shard asks every few milliseconds how many of its connections should be gone by now.

use std::time::Duration;

/// Fewer connections than this a second are not worth spreading: a gateway with ten clients is empty at once.
const PER_SECOND_MIN: usize = 500;
/// Clients that come back to one gateway in a second, for the hint: what it takes by default.
const RETURNS_PER_SECOND: usize = 2_500;
/// The shortest and the longest spread of the hints, milliseconds.
const SPREAD_MILLIS: (u64, u64) = (500, 10_000);
/// Part of the drain time that may be used; the rest is for close handshakes and for the last bytes.
const SHARE_PERCENT: u32 = 60;

/// One shard's way to empty; the pace is that of all of them together.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    started_millis: u64,
    over_millis: u64,
    linger_millis: u64,
    total: usize,
    everybody: usize,
    closed: usize,
}

impl Pace {
    /// Begins to close `total` connections of `everybody` that the gateway has, within `window`.
    #[must_use]
    pub fn new(now_millis: u64, total: usize, everybody: usize, window: Duration) -> Self {
        let everybody = everybody.max(total);
        let most = u64::try_from((window * SHARE_PERCENT / 100).as_millis()).unwrap_or(u64::MAX);
        let linger_millis = u64::try_from((window / 10).as_millis()).unwrap_or(u64::MAX);
        let needed = (everybody as u64).saturating_mul(1000) / PER_SECOND_MIN as u64;
        Self {
            started_millis: now_millis,
            over_millis: needed.min(most),
            linger_millis,
            total,
            everybody,
            closed: 0,
        }
    }

    /// How long a closed socket may take to say goodbye, milliseconds: a tenth of the window.
    #[must_use]
    pub fn linger_millis(&self) -> u64 {
        self.linger_millis
    }

    /// How many more connections are to be closed now.
    pub fn due(&mut self, now_millis: u64) -> usize {
        let elapsed = now_millis.saturating_sub(self.started_millis);
        let target = match (self.total as u64)
            .saturating_mul(elapsed)
            .checked_div(self.over_millis)
        {
            Some(target) => usize::try_from(target).unwrap_or(self.total).min(self.total),
            None => self.total,
        };
        let due = target.saturating_sub(self.closed);
        self.closed += due;
        due
    }

    /// Milliseconds after which a client should come back: `random` (any number) spread over the time in which another
    /// gateway takes all of them.
    #[must_use]
    pub fn retry_after_millis(&self, random: u64) -> u64 {
        let needed = self.everybody as u64 * 1000 / RETURNS_PER_SECOND as u64;
        100 + random % needed.clamp(SPREAD_MILLIS.0, SPREAD_MILLIS.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(total: usize, everybody: usize, window_secs: u64, expected: &[(u64, usize)]) {
        let mut pace = Pace::new(1_000, total, everybody, Duration::from_secs(window_secs));
        let mut closed = 0;
        for (after, sum) in expected {
            closed += pace.due(1_000 + after);
            assert_eq!(closed, *sum, "{after} ms after the start");
        }
    }

    #[test]
    fn a_few_go_at_once_and_many_evenly_within_the_window() {
        check(0, 0, 30, &[(0, 0), (1_000, 0)]);
        check(10, 10, 30, &[(0, 0), (10, 5), (20, 10), (30_000, 10)]);
        check(5_000, 5_000, 30, &[(1_000, 500), (5_000, 2_500), (10_000, 5_000)]);
        check(
            50_000,
            50_000,
            30,
            &[(9_000, 25_000), (18_000, 50_000), (22_000, 50_000)],
        );
        check(100, 100, 0, &[(0, 100)]);
        // One of eight shards takes as long as all of them together need.
        check(625, 5_000, 30, &[(1_000, 62), (5_000, 312), (10_000, 625)]);
    }

    #[test]
    fn hints_are_spread_by_the_number_of_clients() {
        let pace = |total: usize| Pace::new(0, total / 8, total, Duration::from_secs(30));
        for (total, most) in [(1, 600), (5_000, 2_100), (1_000_000, 10_100)] {
            let hints: Vec<u64> = (0..20_000)
                .map(|random| pace(total).retry_after_millis(random))
                .collect();
            assert_eq!(
                (hints.iter().min(), hints.iter().max()),
                (Some(&100), Some(&(most - 1))),
                "{total}"
            );
        }
    }
}
