//! Whether this gateway has fallen behind a stream that it can see: NATS answers, but what it has is not handed out.

use super::STALE_AFTER_MILLIS;

/// What is known of one stream's end. Pure; the time is an argument.
#[derive(Debug, Default)]
pub struct Behind {
    known: u64,
    mark: u64,
    marked_millis: i64,
}

impl Behind {
    /// The stream reaches to this position at least.
    pub fn knows(&mut self, known: u64) {
        self.known = self.known.max(known);
    }

    /// Everything up to `position` has been handed out. Answers whether something that was known 5 s ago has not.
    pub fn is_behind(&mut self, position: u64, now_millis: i64) -> bool {
        if position >= self.mark {
            self.mark = self.known;
            self.marked_millis = now_millis;
        }
        position < self.mark && now_millis - self.marked_millis >= STALE_AFTER_MILLIS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_is_who_stays_behind() {
        let mut behind = Behind::default();
        // Position, known, time, whether it is behind.
        let rows = [
            (0, 0, 0, false),
            (10, 10, 100, false),
            (10, 500, 200, false),
            (499, 900, 5_199, false),
            (499, 900, 5_200, true),
            (500, 900, 5_300, false),
            (899, 5_000, 10_299, false),
            (899, 5_000, 10_300, true),
            (5_000, 5_000, 10_400, false),
            (5_000, 5_000, 90_000, false),
        ];
        for (number, (position, known, now_millis, expected)) in rows.into_iter().enumerate() {
            behind.knows(known);
            assert_eq!(behind.is_behind(position, now_millis), expected, "row {number}");
        }
    }
}
