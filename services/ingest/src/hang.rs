//! Whether a stream's writes hang: publishes without an answer, one after the other, and none stored in between.
//!
//! After a failed write (disk full, an fsync that failed) a server never answers a publish to that stream again, also when the space
//! is back, until it is started anew; publishers see time-outs only. Pure: no clock, no connection; [`crate::standing`] drives it.

use std::time::{Duration, Instant};

/// Fewer time-outs mean nothing: one event's attempts are four of them.
pub const TIMEOUTS_MIN: u32 = 8;

/// One stream's writes.
#[derive(Debug)]
pub struct Hang {
    /// How long nothing must have been stored. An election after a crash takes 4 to 7 s and is no hang.
    within: Duration,
    timeouts: u32,
    /// The first of them.
    first: Option<Instant>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// As it should be.
    Takes,
    /// Nothing is published until the stream looks fit.
    Hangs,
    /// It looks fit, and the next publishes will tell.
    Tried,
}

impl Hang {
    /// Nothing is wrong yet.
    #[must_use]
    pub fn new(within: Duration) -> Self {
        Self {
            within,
            timeouts: 0,
            first: None,
            phase: Phase::Takes,
        }
    }

    /// A publish had no answer. Whether the writes hang from now on, and did not before.
    pub fn timed_out(&mut self, now: Instant) -> bool {
        let first = *self.first.get_or_insert(now);
        self.timeouts = self.timeouts.saturating_add(1);
        let long = now.saturating_duration_since(first) >= self.within;
        let hangs = match self.phase {
            Phase::Takes => self.timeouts >= TIMEOUTS_MIN && long,
            // It had its chance.
            Phase::Tried => self.timeouts >= TIMEOUTS_MIN,
            Phase::Hangs => false,
        };
        if hangs {
            self.phase = Phase::Hangs;
        }
        hangs
    }

    /// A publish was stored. Whether that ends a hang.
    pub fn stored(&mut self) -> bool {
        let ends = self.phase != Phase::Takes;
        *self = Self::new(self.within);
        ends
    }

    /// The stream looks fit: publishes go out again. Whether they did not before.
    pub fn looks_fit(&mut self) -> bool {
        let opens = self.phase == Phase::Hangs;
        if opens {
            (self.timeouts, self.first, self.phase) = (0, None, Phase::Tried);
        }
        opens
    }

    /// Whether nothing is to be published.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Hangs
    }

    /// Whether nothing was stored since the writes began to hang.
    #[must_use]
    pub fn is_hanging(&self) -> bool {
        self.phase != Phase::Takes
    }

    /// Time-outs in a row, and since when.
    #[must_use]
    pub fn unanswered(&self, now: Instant) -> (u32, Duration) {
        let since = self
            .first
            .map_or(Duration::ZERO, |first| now.saturating_duration_since(first));
        (self.timeouts, since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    /// Plays a story: `t<seconds>` a time-out at that time, `s` stored, `f` looks fit. Answers whether it is closed, and hanging.
    fn play(story: &str) -> (bool, bool) {
        let start = Instant::now();
        let mut hang = Hang::new(WITHIN);
        for step in story.split_whitespace() {
            match step.split_at(1) {
                ("t", at) => {
                    hang.timed_out(start + Duration::from_secs(at.parse().unwrap()));
                }
                ("s", _) => {
                    hang.stored();
                }
                _ => {
                    hang.looks_fit();
                }
            }
        }
        (hang.is_closed(), hang.is_hanging())
    }

    #[test]
    fn it_takes_many_and_long_and_nothing_in_between() {
        let rows = [
            ("", (false, false)),
            ("t0 t1 t2 t3 t4 t5 t6 t20", (true, true)),
            // Too few, too short.
            ("t0 t5 t10 t15 t20 t25 t30", (false, false)),
            ("t0 t0 t0 t0 t0 t0 t0 t0 t0 t0 t0 t0 t9", (false, false)),
            // Whatever is stored in between begins it anew.
            ("t0 t1 t2 t3 t4 t5 t6 s t20", (false, false)),
            ("t0 s t1 t2 t3 t4 t5 t6 t7 t8 t10", (false, false)),
            ("t0 s t1 t2 t3 t4 t5 t6 t7 t11", (true, true)),
            // Tried: open, and said to be hanging until something is stored.
            ("t0 t0 t0 t0 t0 t0 t0 t10 f", (false, true)),
            ("t0 t0 t0 t0 t0 t0 t0 t10 f s", (false, false)),
            ("t0 t0 t0 t0 t0 t0 t0 t10 f t11 t11 t11 t11", (false, true)),
            (
                "t0 t0 t0 t0 t0 t0 t0 t10 f t11 t11 t11 t11 t12 t12 t12 t12",
                (true, true),
            ),
            ("t0 t0 t0 t0 t0 t0 t0 t10 s", (false, false)),
            // Looking fit means nothing where nothing hangs.
            ("t0 t1 f t2 t3 t4 t5 t6 t20", (true, true)),
        ];
        for (story, expected) in rows {
            assert_eq!(play(story), expected, "{story}");
        }
    }

    #[test]
    fn beginning_and_end_are_told_once() {
        let start = Instant::now();
        let mut hang = Hang::new(WITHIN);
        let told: Vec<bool> = (0..20)
            .map(|second| hang.timed_out(start + Duration::from_secs(second)))
            .collect();
        assert_eq!(told.iter().filter(|told| **told).count(), 1);
        assert!(told[10], "the eleventh is the first that is late enough");
        assert_eq!(
            hang.unanswered(start + Duration::from_secs(30)),
            (20, Duration::from_secs(30))
        );
        assert!(hang.looks_fit() && !hang.looks_fit());
        assert!(hang.stored() && !hang.stored());
    }
}
