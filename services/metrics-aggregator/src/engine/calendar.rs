//! Calendar windows: where a minute, an hour, a day or a longer unit begins and ends in a zone.
//!
//! A window is named by an ordinal that grows with time, its *place*: the number of the day, week, month, quarter or year; the Unix
//! second at which a minute or an hour begins, because clocks that move make those shorter and double. Times are Unix microseconds.

use std::ops::Range;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use crate::definition::Unit;

const SECOND_MICROS: i64 = 1_000_000;
const MINUTE_MICROS: i64 = 60 * SECOND_MICROS;
const HOUR_MICROS: i64 = 60 * MINUTE_MICROS;
const DAY_MICROS: i64 = 24 * HOUR_MICROS;
/// The Monday of the week of 1 January 1970, as the number of its day.
const FIRST_MONDAY: i64 = -3;

/// One unit in one zone.
#[derive(Debug, Clone)]
pub struct Calendar {
    unit: Unit,
    zone: TimeZone,
    /// The window asked for last, with its bounds: nearly always the next one, too.
    recent: Option<(i64, Range<i64>)>,
}

impl Calendar {
    /// A unit in a zone.
    #[must_use]
    pub fn new(unit: Unit, zone: TimeZone) -> Self {
        Self {
            unit,
            zone,
            recent: None,
        }
    }

    /// The window an instant lies in.
    pub fn place(&mut self, at: i64) -> i64 {
        match &self.recent {
            Some((place, bounds)) if bounds.contains(&at) => *place,
            _ => {
                let place = self.at(at);
                self.recent = Some((place, self.bounds(place)));
                place
            }
        }
    }

    /// The window an instant lies in, without remembering it.
    #[must_use]
    pub fn at(&self, at: i64) -> i64 {
        match self.unit {
            Unit::Minute | Unit::Hour => self.clock_start(at).div_euclid(SECOND_MICROS),
            unit => self.day_of(at).map_or(0, |day| place_of(unit, day)),
        }
    }

    /// First instant inside a window and first one after it. A date that was skipped is empty.
    #[must_use]
    pub fn bounds(&self, place: i64) -> Range<i64> {
        match self.unit {
            Unit::Minute | Unit::Hour => {
                let start = place.saturating_mul(SECOND_MICROS);
                start..self.clock_end(start)
            }
            unit => self.day_start(first_day(unit, place))..self.day_start(first_day(unit, place + 1)),
        }
    }

    /// The window before.
    #[must_use]
    pub fn before(&self, place: i64) -> i64 {
        self.at(self.bounds(place).start - 1)
    }

    /// The window after.
    #[must_use]
    pub fn after(&self, place: i64) -> i64 {
        self.at(self.bounds(place).end)
    }

    /// Length of a minute or an hour.
    fn length(&self) -> i64 {
        if self.unit == Unit::Minute {
            MINUTE_MICROS
        } else {
            HOUR_MICROS
        }
    }

    /// The offset in force at an instant, as far as it shifts the windows.
    fn shift(&self, at: i64) -> i64 {
        let offset =
            Timestamp::from_microsecond(at).map_or(0, |instant| self.zone.to_offset(instant).seconds());
        (i64::from(offset) * SECOND_MICROS).rem_euclid(self.length())
    }

    /// Where the minute or hour of an instant begins: at the floor of its local time, or where the clock was moved since by
    /// something that is no whole unit.
    fn clock_start(&self, at: i64) -> i64 {
        let shift = self.shift(at);
        let floor = at - (at + shift).rem_euclid(self.length());
        let Ok(instant) = Timestamp::from_microsecond(at) else {
            return floor;
        };
        // `preceding` is strict, and a window may begin at this very instant.
        let instant = instant.checked_add(1.microsecond()).unwrap_or(instant);
        let moved = self
            .zone
            .preceding(instant)
            .map(|change| change.timestamp().as_microsecond())
            .take_while(|change| *change > floor)
            .find(|change| self.shift(*change - 1) != shift);
        moved.unwrap_or(floor)
    }

    /// Where a minute or hour that begins at `start` ends.
    fn clock_end(&self, start: i64) -> i64 {
        let shift = self.shift(start);
        let full = start - (start + shift).rem_euclid(self.length()) + self.length();
        let Ok(instant) = Timestamp::from_microsecond(start) else {
            return full;
        };
        let moved = self
            .zone
            .following(instant)
            .map(|change| change.timestamp().as_microsecond())
            .take_while(|change| *change < full)
            .find(|change| self.shift(*change) != shift);
        moved.unwrap_or(full)
    }

    /// The number of the local date of an instant; `None` outside the calendar.
    fn day_of(&self, at: i64) -> Option<i64> {
        let instant = Timestamp::from_microsecond(at).ok()?;
        let day = day_number(self.zone.to_datetime(instant).date());
        // A clock set back over midnight shows the old date again; the day began at its first instant all the same.
        let found = (-2..=2)
            .map(|near| day + near)
            .find(|near| (self.day_start(*near)..self.day_start(near + 1)).contains(&at));
        Some(found.unwrap_or(day))
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

/// The day, week, month, quarter or year of a day.
fn place_of(unit: Unit, day: i64) -> i64 {
    let months = || {
        date(day).map_or(0, |date| {
            i64::from(date.year()) * 12 + i64::from(date.month()) - 1
        })
    };
    match unit {
        Unit::Week => (day - FIRST_MONDAY).div_euclid(7),
        Unit::Month => months(),
        Unit::Quarter => months().div_euclid(3),
        Unit::Year => months().div_euclid(12),
        Unit::Minute | Unit::Hour | Unit::Day => day,
    }
}

/// The first day of a day, week, month, quarter or year.
fn first_day(unit: Unit, place: i64) -> i64 {
    let month = match unit {
        Unit::Week => return place.saturating_mul(7).saturating_add(FIRST_MONDAY),
        Unit::Minute | Unit::Hour | Unit::Day => return place,
        Unit::Month => place,
        Unit::Quarter => place.saturating_mul(3),
        Unit::Year => place.saturating_mul(12),
    };
    let year = i16::try_from(month.div_euclid(12)).ok();
    let number = i8::try_from(month.rem_euclid(12) + 1).ok();
    year.zip(number)
        .and_then(|(year, month)| Date::new(year, month, 1).ok())
        .map_or(i64::MAX / DAY_MICROS, day_number)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn calendar(unit: Unit, zone: &str) -> Calendar {
        Calendar::new(unit, TimeZone::get(zone).unwrap())
    }

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_microsecond()
    }

    /// The bounds of the window that holds an instant.
    fn check(unit: Unit, zone: &str, instant: &str, start: &str, end: &str) {
        let mut calendar = calendar(unit, zone);
        let place = calendar.place(at(instant));
        assert_eq!(
            calendar.bounds(place),
            at(start)..at(end),
            "{unit:?} {zone} {instant}"
        );
    }

    #[test]
    fn days_begin_at_the_first_instant_of_their_local_date() {
        let rows = [
            (
                "UTC",
                "1969-12-31T23:59:59.999999Z",
                "1969-12-31T00:00:00Z",
                "1970-01-01T00:00:00Z",
            ),
            (
                "Europe/Istanbul",
                "2026-06-01T20:59:59Z",
                "2026-05-31T21:00:00Z",
                "2026-06-01T21:00:00Z",
            ),
            (
                "Europe/Istanbul",
                "2026-06-01T21:00:00Z",
                "2026-06-01T21:00:00Z",
                "2026-06-02T21:00:00Z",
            ),
            // 23 and 25 hours.
            (
                "America/New_York",
                "2026-03-08T12:00:00Z",
                "2026-03-08T05:00:00Z",
                "2026-03-09T04:00:00Z",
            ),
            (
                "America/New_York",
                "2026-11-01T12:00:00Z",
                "2026-11-01T04:00:00Z",
                "2026-11-02T05:00:00Z",
            ),
            // Midnight does not exist: the day begins at one.
            (
                "Africa/Cairo",
                "2026-04-24T12:00:00Z",
                "2026-04-23T22:00:00Z",
                "2026-04-24T21:00:00Z",
            ),
            // Midnight exists twice: the first counts.
            (
                "America/Havana",
                "2026-11-01T12:00:00Z",
                "2026-11-01T04:00:00Z",
                "2026-11-02T05:00:00Z",
            ),
            // The clock goes back at midnight to 23:00: the old day has 25 hours.
            (
                "America/Sao_Paulo",
                "2018-02-18T02:30:00Z",
                "2018-02-17T02:00:00Z",
                "2018-02-18T03:00:00Z",
            ),
            // 30 December 2011 was skipped; the date line moved.
            (
                "Pacific/Apia",
                "2011-12-30T09:59:59Z",
                "2011-12-29T10:00:00Z",
                "2011-12-30T10:00:00Z",
            ),
            (
                "Pacific/Apia",
                "2011-12-30T10:00:00Z",
                "2011-12-30T10:00:00Z",
                "2011-12-31T10:00:00Z",
            ),
        ];
        for (zone, instant, start, end) in rows {
            check(Unit::Day, zone, instant, start, end);
        }
    }

    #[test]
    fn hours_and_minutes_are_floored_by_the_offset_in_force() {
        let rows = [
            (
                Unit::Hour,
                "Asia/Kolkata",
                "2026-06-01T10:15:00Z",
                "2026-06-01T09:30:00Z",
                "2026-06-01T10:30:00Z",
            ),
            (
                Unit::Minute,
                "Asia/Kolkata",
                "2026-06-01T10:15:30Z",
                "2026-06-01T10:15:00Z",
                "2026-06-01T10:16:00Z",
            ),
            // 01:30 is shown twice and lies in two windows.
            (
                Unit::Hour,
                "America/New_York",
                "2026-11-01T05:30:00Z",
                "2026-11-01T05:00:00Z",
                "2026-11-01T06:00:00Z",
            ),
            (
                Unit::Hour,
                "America/New_York",
                "2026-11-01T06:30:00Z",
                "2026-11-01T06:00:00Z",
                "2026-11-01T07:00:00Z",
            ),
            // 02:00 is never shown.
            (
                Unit::Hour,
                "America/New_York",
                "2026-03-08T06:59:59Z",
                "2026-03-08T06:00:00Z",
                "2026-03-08T07:00:00Z",
            ),
            (
                Unit::Hour,
                "America/New_York",
                "2026-03-08T07:00:00Z",
                "2026-03-08T07:00:00Z",
                "2026-03-08T08:00:00Z",
            ),
            // Lord Howe moves by half an hour: back from 02:00 to 01:30, the second half of that hour is a window of its own …
            (
                Unit::Hour,
                "Australia/Lord_Howe",
                "2026-04-04T14:59:00Z",
                "2026-04-04T14:00:00Z",
                "2026-04-04T15:00:00Z",
            ),
            (
                Unit::Hour,
                "Australia/Lord_Howe",
                "2026-04-04T15:00:00Z",
                "2026-04-04T15:00:00Z",
                "2026-04-04T15:30:00Z",
            ),
            (
                Unit::Hour,
                "Australia/Lord_Howe",
                "2026-04-04T15:30:00Z",
                "2026-04-04T15:30:00Z",
                "2026-04-04T16:30:00Z",
            ),
            // … and forward from 02:00 to 02:30, where an hour has half its length.
            (
                Unit::Hour,
                "Australia/Lord_Howe",
                "2026-10-03T15:29:59Z",
                "2026-10-03T14:30:00Z",
                "2026-10-03T15:30:00Z",
            ),
            (
                Unit::Hour,
                "Australia/Lord_Howe",
                "2026-10-03T15:30:00Z",
                "2026-10-03T15:30:00Z",
                "2026-10-03T16:00:00Z",
            ),
            // St. John's went back at 00:01; the offset differs by a whole hour, so no window is cut.
            (
                Unit::Hour,
                "America/St_Johns",
                "2006-10-29T02:31:30Z",
                "2006-10-29T02:30:00Z",
                "2006-10-29T03:30:00Z",
            ),
            // Apia skipped a date and no hour.
            (
                Unit::Hour,
                "Pacific/Apia",
                "2011-12-30T10:00:00Z",
                "2011-12-30T10:00:00Z",
                "2011-12-30T11:00:00Z",
            ),
        ];
        for (unit, zone, instant, start, end) in rows {
            check(unit, zone, instant, start, end);
        }
    }

    #[test]
    fn longer_units_begin_with_a_local_day() {
        let rows = [
            // A Sunday night in Istanbul, and the Monday after it.
            (
                Unit::Week,
                "2026-11-15T20:59:59Z",
                "2026-11-08T21:00:00Z",
                "2026-11-15T21:00:00Z",
            ),
            (
                Unit::Week,
                "2026-11-15T21:00:00Z",
                "2026-11-15T21:00:00Z",
                "2026-11-22T21:00:00Z",
            ),
            (
                Unit::Month,
                "2028-02-29T12:00:00Z",
                "2028-01-31T21:00:00Z",
                "2028-02-29T21:00:00Z",
            ),
            (
                Unit::Month,
                "2026-12-31T21:00:00Z",
                "2026-12-31T21:00:00Z",
                "2027-01-31T21:00:00Z",
            ),
            (
                Unit::Quarter,
                "2026-06-30T20:59:59Z",
                "2026-03-31T21:00:00Z",
                "2026-06-30T21:00:00Z",
            ),
            (
                Unit::Year,
                "2026-12-31T20:59:59Z",
                "2025-12-31T21:00:00Z",
                "2026-12-31T21:00:00Z",
            ),
            (
                Unit::Year,
                "1969-06-01T00:00:00Z",
                "1968-12-31T22:00:00Z",
                "1969-12-31T22:00:00Z",
            ),
        ];
        for (unit, instant, start, end) in rows {
            check(unit, "Europe/Istanbul", instant, start, end);
        }
        check(
            Unit::Week,
            "Pacific/Apia",
            "2011-12-30T12:00:00Z",
            "2011-12-26T10:00:00Z",
            "2012-01-01T10:00:00Z",
        );
        check(
            Unit::Month,
            "America/New_York",
            "2026-03-20T12:00:00Z",
            "2026-03-01T05:00:00Z",
            "2026-04-01T04:00:00Z",
        );
    }

    #[test]
    fn a_skipped_date_is_no_window_and_not_the_one_before() {
        let calendar = calendar(Unit::Day, "Pacific/Apia");
        let after = calendar.at(at("2011-12-30T12:00:00Z"));
        assert!(calendar.bounds(after - 1).is_empty());
        assert_eq!(calendar.before(after), after - 2);
        assert_eq!(calendar.after(after - 2), after);
    }

    proptest! {
        /// Windows follow each other without gap or overlap, and each holds its instants.
        #[test]
        fn every_instant_lies_in_one_window(
            zone in prop::sample::select(vec!["America/New_York", "Pacific/Apia", "Europe/Istanbul", "America/Sao_Paulo", "Australia/Lord_Howe", "America/St_Johns", "Africa/Monrovia"]),
            unit in prop::sample::select(Unit::ALL.map(|(_, unit)| unit).to_vec()),
            at in 0_i64..2_000_000_000_000_000,
        ) {
            let mut calendar = calendar(unit, zone);
            let place = calendar.place(at);
            let bounds = calendar.bounds(place);
            prop_assert!(bounds.contains(&at));
            prop_assert_eq!(calendar.at(bounds.start), place);
            prop_assert_eq!(calendar.at(bounds.end - 1), place);
            let (before, after) = (calendar.before(place), calendar.after(place));
            prop_assert!(before < place && place < after);
            prop_assert_eq!(calendar.bounds(before).end, bounds.start);
            prop_assert_eq!(calendar.bounds(after).start, bounds.end);
        }
    }
}
