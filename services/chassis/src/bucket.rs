//! A rate limit in one number: how much may happen at once, and how fast that comes back.
//!
//! The generic cell rate algorithm (ITU-T I.371): instead of a level and its time, only the instant is kept at which
//! the bucket would be full again. Pure; time is an argument.

/// What a limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Sustained, per second. At least 1.
    pub per_second: u64,
    /// At once, after a rest. At least 1.
    pub burst: u64,
}

/// One holder's use of a [`Rate`]. A new one is full.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// Microseconds, on the caller's clock, at which it is full again.
    full_at: u64,
}

impl Bucket {
    /// Takes `cost` when that much is there; else takes nothing and says no.
    pub fn take(&mut self, now_millis: u64, cost: u64, rate: Rate) -> bool {
        let now = now_millis.saturating_mul(1000);
        let micros = |units: u64| units.saturating_mul(1_000_000) / rate.per_second.max(1);
        let full_at = self.full_at.max(now).saturating_add(micros(cost));
        let allowed = full_at - now <= micros(rate.burst);
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }

    /// Whether nothing is taken from it any more.
    #[must_use]
    pub fn is_full(&self, now_millis: u64) -> bool {
        self.full_at <= now_millis.saturating_mul(1000)
    }

    /// Milliseconds until one unit is there, rounded up.
    #[must_use]
    pub fn wait_millis(&self, now_millis: u64, rate: Rate) -> u64 {
        self.wait_millis_for(now_millis, 1, rate)
    }

    /// Milliseconds until `cost` units are there, rounded up; they never are when they are more than the burst.
    #[must_use]
    pub fn wait_millis_for(&self, now_millis: u64, cost: u64, rate: Rate) -> u64 {
        let now = now_millis.saturating_mul(1000);
        let micros = |units: u64| units.saturating_mul(1_000_000) / rate.per_second.max(1);
        let full_at = self.full_at.max(now).saturating_add(micros(cost));
        full_at
            .saturating_sub(now.saturating_add(micros(rate.burst)))
            .div_ceil(1000)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate {
        per_second: 20,
        burst: 60,
    };

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = Bucket::default();
        let burst = (0..100).filter(|_| bucket.take(5_000, 1, RATE)).count();
        assert_eq!(burst, 60);
        assert_eq!(bucket.wait_millis(5_000, RATE), 50);
        assert_eq!(bucket.wait_millis_for(5_000, 20, RATE), 1_000);
        assert_eq!(bucket.wait_millis_for(8_000, 60, RATE), 0);
        let second = (0..100).filter(|n| bucket.take(5_000 + n * 10, 1, RATE)).count();
        assert_eq!(second, 19, "50 ms each, from 5,050 to 5,990");
        assert!(!bucket.take(6_040, 2, RATE), "not both, so none");
        assert!(bucket.take(6_050, 1, RATE));
        assert_eq!(
            (0..100).filter(|_| bucket.take(60_000, 1, RATE)).count(),
            60,
            "rest does not add up for ever"
        );
    }

    proptest! {
        #[test]
        fn never_more_than_rate_and_burst(steps in prop::collection::vec((0_u64..200, 1_u64..20), 1..200)) {
            let (mut bucket, mut now, mut taken) = (Bucket::default(), 0, 0);
            for (wait, cost) in steps {
                now += wait;
                if bucket.take(now, cost, RATE) {
                    taken += cost;
                }
                prop_assert!(taken <= RATE.burst + now * RATE.per_second / 1000 + 1);
            }
        }
    }
}
