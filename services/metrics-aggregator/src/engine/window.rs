//! Windows as ranges of slots: how time is cut, which window is current, what it is compared with.
//!
//! A *slot* is the smallest piece of time the engine keeps apart: a day of a tumbling window, a part of a step of a sliding one, all
//! time of a total. A window is named by an ordinal, its *place*: the day's number, the number of the step at whose end a sliding
//! window ends, 0 for a total. Everything here is arithmetic; the clock is never read. Times are Unix microseconds.

use std::ops::Range;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use crate::definition::{Definition, SPARK, Window};

const DAY_MICROS: i64 = 86_400_000_000;
/// Shortest and longest life of a closed window's value.
const CLOSED_LIFE: (i64, i64) = (3_600_000_000, 7 * DAY_MICROS);

/// The windows of one metric.
#[derive(Debug, Clone)]
pub struct Frames {
    window: Window,
    zone: TimeZone,
    /// Slots of one step of a sliding window, so that 24 equal parts begin and end at slots.
    step_slots: i64,
    /// Steps of a sliding window.
    steps: i64,
    /// The day asked for last, with its bounds: nearly always the next one, too.
    recent: Option<(i64, Range<i64>)>,
}

impl Frames {
    /// The windows of a definition.
    #[must_use]
    pub fn new(definition: &Definition) -> Self {
        let (step_slots, steps) = match definition.window {
            // With `steps` steps a part has steps / 24 of them; cutting each step into 24 / gcd makes that a whole number of slots.
            Window::Sliding { size, step } => (SPARK / gcd(size / step, SPARK), size / step),
            _ => (1, 1),
        };
        Self {
            window: definition.window,
            zone: definition.zone.clone(),
            step_slots,
            steps,
            recent: None,
        }
    }

    /// The slot an instant lies in.
    pub fn slot(&mut self, at: i64) -> i64 {
        match self.window {
            Window::Total => 0,
            Window::Sliding { step, .. } => {
                let (whole, rest) = (at.div_euclid(step), at.rem_euclid(step));
                // Slot j of a step begins at ⌊step · j / n⌋; this is the last one that begins at or before `rest`.
                let part = ((rest + 1) * self.step_slots + step - 1) / step - 1;
                whole * self.step_slots + part
            }
            Window::Day => match &self.recent {
                Some((day, bounds)) if bounds.contains(&at) => *day,
                _ => {
                    let day = self.day_of(at);
                    self.recent = Some((day, self.day_bounds(day)));
                    day
                }
            },
        }
    }

    /// The place of the window that contains an instant as its newest.
    pub fn place(&mut self, at: i64) -> i64 {
        match self.window {
            Window::Total => 0,
            Window::Sliding { step, .. } => at.div_euclid(step) + 1,
            Window::Day => self.slot(at),
        }
    }

    /// First instant inside the window and first one after it; `None` for all time.
    #[must_use]
    pub fn bounds(&self, place: i64) -> Option<Range<i64>> {
        match self.window {
            Window::Total => None,
            Window::Sliding { size, step } => Some(place * step - size..place * step),
            Window::Day => Some(self.day_bounds(place)),
        }
    }

    /// The slots of a window.
    #[must_use]
    pub fn slots(&self, place: i64) -> Range<i64> {
        match self.window {
            Window::Sliding { .. } => (place - self.steps) * self.step_slots..place * self.step_slots,
            _ => place..place + 1,
        }
    }

    /// The slots of the whole window before; `None` where there is none.
    #[must_use]
    pub fn previous(&self, place: i64) -> Option<Range<i64>> {
        match self.window {
            Window::Total => None,
            Window::Sliding { .. } => Some(self.slots(place - self.steps)),
            Window::Day => Some(self.slots(self.day_before(place))),
        }
    }

    /// The slots of the sparkline's parts, oldest first.
    #[must_use]
    pub fn spark(&self, place: i64) -> Vec<Range<i64>> {
        match self.window {
            Window::Total => std::iter::once(0..1).collect(),
            Window::Sliding { .. } => {
                let slots = self.slots(place);
                let part = (slots.end - slots.start) / SPARK;
                (0..SPARK)
                    .map(|i| slots.start + i * part..slots.start + (i + 1) * part)
                    .collect()
            }
            Window::Day => {
                let mut days = vec![place];
                while i64::try_from(days.len()).is_ok_and(|len| len < SPARK) {
                    days.push(self.day_before(days[days.len() - 1]));
                }
                days.into_iter().rev().map(|day| day..day + 1).collect()
            }
        }
    }

    /// The part of the sparkline that a slot belongs to; sliding windows only.
    #[must_use]
    pub fn spark_part(&self, place: i64, slot: i64) -> Option<usize> {
        let slots = self.slots(place);
        let part = (slots.end - slots.start) / SPARK;
        slots
            .contains(&slot)
            .then(|| usize::try_from((slot - slots.start) / part).ok())
            .flatten()
    }

    /// Whether windows follow each other without overlap, so that each is published once more when it closes.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.window == Window::Day
    }

    /// Whether one window is many slots, so that its totals are kept rolling.
    #[must_use]
    pub fn rolls(&self) -> bool {
        matches!(self.window, Window::Sliding { .. })
    }

    /// Slots of one window: how many cells may be added up.
    #[must_use]
    pub fn slots_per_window(&self) -> i64 {
        self.steps * self.step_slots
    }

    /// Steps of one window.
    #[must_use]
    pub fn steps(&self) -> i64 {
        self.steps
    }

    /// The block of a slot: groups and distinct values are bounded per block. A day or all time is one; a sliding window's slots are
    /// counted off in blocks of its own length, so that what is admitted depends on events alone and not on when it was looked at.
    #[must_use]
    pub fn block(&self, slot: i64) -> i64 {
        slot.div_euclid(self.slots_per_window())
    }

    /// The first slot of a block.
    #[must_use]
    pub fn block_start(&self, block: i64) -> i64 {
        block * self.slots_per_window()
    }

    /// The oldest slot that anything published about the window at `place` or a window still open to corrections can show. Whole blocks.
    #[must_use]
    pub fn horizon(&self, place: i64, lateness_micros: i64) -> i64 {
        match self.window {
            Window::Total => i64::MIN,
            Window::Sliding { .. } => {
                self.block_start(self.block((place - 2 * self.steps) * self.step_slots))
            }
            // 24 windows of sparkline, behind the oldest window that a late event may still correct; one more for skipped dates.
            Window::Day => place - SPARK - lateness_micros / DAY_MICROS - 3,
        }
    }

    /// The instant at which the window at `place` is over; `None`: never.
    #[must_use]
    pub fn end(&self, place: i64) -> Option<i64> {
        self.bounds(place).map(|bounds| bounds.end)
    }

    /// The places of the closed windows that a change in `slot` alters, its own first; the current window is at `place`.
    #[must_use]
    pub fn altered(&self, slot: i64, place: i64) -> Range<i64> {
        if self.closes() {
            slot..place.min(slot + SPARK + 1).max(slot)
        } else {
            0..0
        }
    }

    /// Until when the value of a closed window is kept: 24 windows, at least an hour, at most a week.
    #[must_use]
    pub fn closed_until(&self, place: i64) -> Option<i64> {
        let bounds = self.bounds(place)?;
        let life = ((bounds.end - bounds.start) * SPARK).clamp(CLOSED_LIFE.0, CLOSED_LIFE.1);
        Some(bounds.end + life)
    }

    /// Whether there is a window at this place: a zone may skip a date.
    #[must_use]
    pub fn exists(&self, place: i64) -> bool {
        self.bounds(place).is_none_or(|bounds| bounds.start < bounds.end)
    }

    fn day_before(&self, mut day: i64) -> i64 {
        day -= 1;
        // No zone ever skipped two dates in a row.
        if self.exists(day) { day } else { day - 1 }
    }

    fn day_of(&self, at: i64) -> i64 {
        let day = Timestamp::from_microsecond(at).map_or_else(
            |_| at.div_euclid(DAY_MICROS),
            |instant| day_number(self.zone.to_datetime(instant).date()),
        );
        // A clock set back over midnight shows the old date again; the day began at its first instant all the same.
        (-2..=2)
            .map(|near| day + near)
            .find(|near| self.day_bounds(*near).contains(&at))
            .unwrap_or(day)
    }

    fn day_bounds(&self, day: i64) -> Range<i64> {
        self.day_start(day)..self.day_start(day + 1)
    }

    /// The first instant of a local date. A date that was skipped begins and ends where the next one begins.
    fn day_start(&self, day: i64) -> i64 {
        date(day)
            .and_then(|date| date.to_zoned(self.zone.clone()).ok())
            .map_or(day.saturating_mul(DAY_MICROS), |start| {
                start.timestamp().as_microsecond()
            })
    }
}

fn day_number(date: Date) -> i64 {
    i64::from((date - epoch()).get_days())
}

fn epoch() -> Date {
    Date::constant(1970, 1, 1)
}

fn date(day: i64) -> Option<Date> {
    let days = i32::try_from(day).ok()?;
    epoch().checked_add(days.days()).ok()
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn days(zone: &str) -> Frames {
        let zone = TimeZone::get(zone).unwrap();
        Frames {
            window: Window::Day,
            zone,
            step_slots: 1,
            steps: 1,
            recent: None,
        }
    }

    fn sliding(size: i64, step: i64) -> Frames {
        let window = Window::Sliding { size, step };
        let step_slots = SPARK / gcd(size / step, SPARK);
        Frames {
            window,
            zone: TimeZone::UTC,
            step_slots,
            steps: size / step,
            recent: None,
        }
    }

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_microsecond()
    }

    /// Hours of the day that holds an instant, and its bounds.
    fn check(zone: &str, instant: &str, start: &str, end: &str) {
        let mut frames = days(zone);
        let place = frames.place(at(instant));
        assert_eq!(frames.bounds(place), Some(at(start)..at(end)), "{zone} {instant}");
    }

    #[test]
    fn days_begin_at_the_first_instant_of_their_local_date() {
        check(
            "UTC",
            "1969-12-31T23:59:59.999999Z",
            "1969-12-31T00:00:00Z",
            "1970-01-01T00:00:00Z",
        );
        check(
            "Europe/Istanbul",
            "2026-06-01T20:59:59Z",
            "2026-05-31T21:00:00Z",
            "2026-06-01T21:00:00Z",
        );
        check(
            "Europe/Istanbul",
            "2026-06-01T21:00:00Z",
            "2026-06-01T21:00:00Z",
            "2026-06-02T21:00:00Z",
        );
        // 23 and 25 hours.
        check(
            "America/New_York",
            "2026-03-08T12:00:00Z",
            "2026-03-08T05:00:00Z",
            "2026-03-09T04:00:00Z",
        );
        check(
            "America/New_York",
            "2026-11-01T12:00:00Z",
            "2026-11-01T04:00:00Z",
            "2026-11-02T05:00:00Z",
        );
        // Midnight does not exist: the day begins at one.
        check(
            "Africa/Cairo",
            "2026-04-24T12:00:00Z",
            "2026-04-23T22:00:00Z",
            "2026-04-24T21:00:00Z",
        );
        // Midnight exists twice: the first counts.
        check(
            "America/Havana",
            "2026-11-01T12:00:00Z",
            "2026-11-01T04:00:00Z",
            "2026-11-02T05:00:00Z",
        );
        // The clock goes back at midnight to 23:00: the old day has 25 hours.
        check(
            "America/Sao_Paulo",
            "2018-02-18T02:30:00Z",
            "2018-02-17T02:00:00Z",
            "2018-02-18T03:00:00Z",
        );
        // 30 December 2011 was skipped; the date line moved.
        check(
            "Pacific/Apia",
            "2011-12-30T09:59:59Z",
            "2011-12-29T10:00:00Z",
            "2011-12-30T10:00:00Z",
        );
        check(
            "Pacific/Apia",
            "2011-12-30T10:00:00Z",
            "2011-12-30T10:00:00Z",
            "2011-12-31T10:00:00Z",
        );
    }

    #[test]
    fn a_skipped_date_is_no_window_and_not_the_one_before() {
        let mut frames = days("Pacific/Apia");
        let after = frames.place(at("2011-12-30T12:00:00Z"));
        assert!(!frames.exists(after - 1));
        assert_eq!(frames.previous(after), Some(after - 2..after - 1));
        assert_eq!(frames.spark(after).len(), 24);
        assert!(frames.spark(after).iter().all(|slots| frames.exists(slots.start)));
    }

    #[test]
    fn sliding_windows_end_at_the_next_step() {
        let mut frames = sliding(3_600_000_000, 60_000_000);
        let now = at("2026-01-01T12:00:30Z");
        let place = frames.place(now);
        assert_eq!(
            frames.bounds(place),
            Some(at("2026-01-01T11:01:00Z")..at("2026-01-01T12:01:00Z"))
        );
        let on_the_minute = frames.place(at("2026-01-01T12:01:00Z"));
        assert_eq!(on_the_minute, place + 1);
        assert_eq!(frames.previous(place).unwrap().end, frames.slots(place).start);
    }

    proptest! {
        /// A slot lies inside the window exactly when its instants do, for every size and step, and so do the sparkline's parts.
        #[test]
        fn slots_and_instants_agree(steps in 1..STEPS, step in 1_000_000_i64..10_000_000_000, at in -4_000_000_000_000_000_i64..4_000_000_000_000_000, back in 0..3_i64) {
            let mut frames = sliding(steps * step, step);
            let place = frames.place(at) + back;
            let slot = frames.slot(at);
            let bounds = frames.bounds(place).unwrap();
            prop_assert_eq!(frames.slots(place).contains(&slot), bounds.contains(&at));
            let part = frames.spark_part(place, slot);
            let expected = bounds.contains(&at).then(|| {
                (0..24_usize).rev().find(|i| at >= bounds.start + steps * step * i64::try_from(*i).unwrap() / 24).unwrap()
            });
            prop_assert_eq!(part, expected);
            if let Some(part) = part {
                prop_assert!(frames.spark(place)[part].contains(&slot));
            }
            prop_assert!(frames.horizon(place, 0) <= frames.previous(place).unwrap().start);
        }

        #[test]
        fn every_instant_lies_in_its_day(zone in prop::sample::select(vec!["America/New_York", "Pacific/Apia", "Europe/Istanbul", "America/Sao_Paulo", "Australia/Lord_Howe"]), at in 0_i64..2_000_000_000_000_000) {
            let mut frames = days(zone);
            let place = frames.place(at);
            prop_assert!(frames.bounds(place).unwrap().contains(&at));
            prop_assert_eq!(frames.bounds(place).unwrap().end, frames.bounds(place + 1).unwrap().start);
        }
    }

    const STEPS: i64 = crate::definition::STEPS_MAX + 1;
}
