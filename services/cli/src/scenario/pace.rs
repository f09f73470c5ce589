//! How many stories there are at which time of day.

use fastrand::Rng;
use jiff::Timestamp;
use jiff::tz::TimeZone;

const DAY_MICROS: f64 = 86_400e6;
const HOUR_SECONDS: f64 = 3_600.0;

/// The pauses between stories: even when live, with the curve of a day in history.
#[derive(Debug)]
pub(super) struct Pace {
    seconds: [f64; 2],
    /// By local hour; the mean is 1.
    hours: Vec<f64>,
    growth_per_day: f64,
    zone: TimeZone,
}

impl Pace {
    /// Checks and takes what the file says.
    ///
    /// # Errors
    /// What is expected instead.
    pub(super) fn new(
        seconds: [f64; 2],
        hours: &[f64],
        growth_percent: f64,
        zone: TimeZone,
    ) -> Result<Self, String> {
        if !(seconds[0] >= 0.1 && seconds[0] <= seconds[1] && seconds[1] <= 86_400.0) {
            return Err("seconds goes from the smaller to the larger number, 0.1 to 86400".to_owned());
        }
        if hours.len() != 24 || !hours.iter().all(|share| (0.01..=1e6).contains(share)) {
            return Err(format!(
                "hours has 24 numbers above 0, one for each hour; there are {}",
                hours.len()
            ));
        }
        if !(-50.0..=100.0).contains(&growth_percent) {
            return Err("growth_percent_per_day is a number from -50 to 100".to_owned());
        }
        let mean = hours.iter().sum::<f64>() / 24.0;
        let hours = hours.iter().map(|share| share / mean).collect();
        Ok(Self {
            seconds,
            hours,
            growth_per_day: growth_percent / 100.0,
            zone,
        })
    }

    /// The pause after a live story, microseconds.
    pub(super) fn live_pause(&self, rng: &mut Rng) -> i64 {
        micros(between(rng, self.seconds))
    }

    /// The pause after a story of history at `at`, microseconds. `middle` is where growth counts as none, so that history as a
    /// whole has as many stories as the same time live.
    pub(super) fn history_pause(&self, rng: &mut Rng, at: i64, middle: i64) -> i64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a span of days in microseconds is far below 2^53"
        )]
        let days = (at - middle) as f64 / DAY_MICROS;
        let growth = (1.0 + self.growth_per_day).powf(days);
        micros(between(rng, self.seconds) / (self.share(at) * growth))
    }

    /// The hour's share at an instant, going evenly from the middle of one hour to the middle of the next.
    fn share(&self, at: i64) -> f64 {
        let Ok(instant) = Timestamp::from_microsecond(at) else {
            return 1.0;
        };
        let local = instant.to_zoned(self.zone.clone());
        let seconds = f64::from(local.minute()) * 60.0 + f64::from(local.second());
        let position = seconds / HOUR_SECONDS - 0.5;
        let hour = usize::try_from(local.hour()).unwrap_or_default();
        let (before, after, way) = if position < 0.0 {
            ((hour + 23) % 24, hour, position + 1.0)
        } else {
            (hour, (hour + 1) % 24, position)
        };
        self.hours[before] * (1.0 - way) + self.hours[after] * way
    }
}

/// A number between two, evenly.
pub(super) fn between(rng: &mut Rng, [from, to]: [f64; 2]) -> f64 {
    from + (to - from) * rng.f64()
}

/// Seconds as microseconds.
#[expect(
    clippy::cast_possible_truncation,
    reason = "every span of a scenario is below a few days"
)]
pub(super) fn micros(seconds: f64) -> i64 {
    (seconds * 1e6) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_go_evenly_from_hour_to_hour_in_local_time() {
        let mut hours = [1.0; 24];
        hours[9] = 3.0;
        let pace = Pace::new([1.0, 1.0], &hours, 0.0, TimeZone::fixed(jiff::tz::offset(3))).unwrap();
        let share =
            |time: &str| pace.share(time.parse::<Timestamp>().unwrap().as_microsecond()) * 26.0 / 24.0;
        for (time, expected) in [
            ("2026-01-01T06:30:00Z", 3.0),
            ("2026-01-01T06:00:00Z", 2.0),
            ("2026-01-01T07:00:00Z", 2.0),
            ("2026-01-01T05:30:00Z", 1.0),
            ("2026-01-01T20:59:59Z", 1.0),
        ] {
            assert!((share(time) - expected).abs() < 0.01, "{time}: {}", share(time));
        }
    }
}
