//! Latencies in buckets: 64 to every doubling, so that a figure read back is at most 1.6 % above what was noted. Fixed size.

use std::fmt;

/// Buckets of one doubling.
const STEPS: u64 = 64;
/// Up to 2^36 µs, nineteen hours; longer ones count as that.
const BUCKETS: usize = ((36 - STEPS.ilog2() as usize) + 1) * STEPS as usize;

/// Counts of latencies, microseconds.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    highest: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS].into_boxed_slice(),
            total: 0,
            highest: 0,
        }
    }
}

fn bucket(micros: u64) -> usize {
    let doublings = micros.max(STEPS).ilog2() - STEPS.ilog2();
    let within = micros >> doublings;
    (u64::from(doublings) * STEPS + within).min(BUCKETS as u64 - 1) as usize
}

/// The longest latency of a bucket.
fn end(bucket: usize) -> u64 {
    let (bucket, first) = (bucket as u64, 2 * STEPS);
    if bucket < first {
        return bucket;
    }
    let doublings = bucket / STEPS - 1;
    ((bucket - doublings * STEPS + 1) << doublings) - 1
}

impl Histogram {
    /// Notes one.
    pub fn record(&mut self, micros: u64) {
        if let Some(count) = self.counts.get_mut(bucket(micros)) {
            *count += 1;
        }
        self.total += 1;
        self.highest = self.highest.max(micros);
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.highest = self.highest.max(other.highest);
    }

    /// How many were noted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The latency that a share of all does not exceed, milliseconds; not a number when none was noted.
    #[must_use]
    pub fn millis(&self, share: f64) -> f64 {
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut passed = 0;
        let found = self.counts.iter().position(|count| {
            passed += count;
            passed >= rank
        });
        found.map_or(f64::NAN, |bucket| end(bucket).min(self.highest) as f64 / 1000.0)
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
            write!(f, "{name} {:.2}, ", self.millis(share))?;
        }
        write!(f, "max {:.2} ms of {}", self.highest as f64 / 1000.0, self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_at_most_a_sixty_fourth_too_high() {
        for micros in (0..300).chain([1_000, 12_345, 1 << 20, (1 << 35) + 12_345]) {
            let end = end(bucket(micros));
            assert!(end >= micros && end <= micros + micros / 64, "{micros}: {end}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn shares_are_read_by_rank() {
        let mut histogram = Histogram::default();
        assert!(histogram.millis(0.5).is_nan());
        for micros in 1..=100 {
            histogram.record(micros);
        }
        let rows = [
            (0.0, 0.001),
            (0.5, 0.050),
            (0.99, 0.099),
            (0.995, 0.1),
            (1.0, 0.1),
        ];
        for (share, expected) in rows {
            assert!((histogram.millis(share) - expected).abs() < 1e-9, "{share}");
        }
        let mut both = histogram.clone();
        both.record(5_000_000);
        both.merge(&histogram);
        assert_eq!(both.count(), 201);
        assert!((both.millis(1.0) - 5_000.0).abs() < 1e-9);
    }
}
