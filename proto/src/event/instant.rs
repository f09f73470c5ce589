//! Instants as events write them.

use std::ops::Range;

use jiff::Timestamp;

/// Reads RFC 3339 and nothing wider. Unix microseconds, finer parts cut.
#[must_use]
pub fn micros_of_rfc3339(text: &str) -> Option<i64> {
    let b = text.as_bytes();
    let digits = |range: Range<usize>| {
        b.get(range)
            .is_some_and(|part| part.iter().all(u8::is_ascii_digit))
    };
    let fixed = b.len() >= 20
        && digits(0..4)
        && b[4] == b'-'
        && digits(5..7)
        && b[7] == b'-'
        && digits(8..10)
        && matches!(b[10], b'T' | b't' | b' ')
        && digits(11..13)
        && b[13] == b':'
        && digits(14..16)
        && b[16] == b':'
        && digits(17..19);
    if !fixed {
        return None;
    }
    let mut at = 19;
    if b[at] == b'.' {
        let fraction = b[at + 1..].iter().take_while(|c| c.is_ascii_digit()).count();
        if fraction == 0 || fraction > 9 {
            return None;
        }
        at += 1 + fraction;
    }
    let zone = match b.get(at..)? {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', _, _, b':', _, _] => {
            digits(at + 1..at + 3) && digits(at + 4..at + 6) && &b[at + 1..at + 3] < b"24".as_slice()
        }
        _ => false,
    };
    if !zone {
        return None;
    }
    text.parse::<Timestamp>()
        .ok()
        .map(|t| t.as_nanosecond().div_euclid(1000))
        .and_then(|m| i64::try_from(m).ok())
}

/// Writes Unix microseconds as RFC 3339 in UTC, with as many fraction digits as are needed. What no calendar has is written as 0.
#[must_use]
pub fn rfc3339(micros: i64) -> String {
    match u64::try_from(micros) {
        Ok(micros) if micros <= LATEST_MICROS => since_1970(micros),
        _ => Timestamp::from_microsecond(micros)
            .map_or_else(|_| "1970-01-01T00:00:00Z".to_owned(), |at| at.to_string()),
    }
}

/// The last microsecond of the year 9999.
const LATEST_MICROS: u64 = 253_402_300_799_999_999;

/// Digit by digit: every event has such an instant and every client that comes in is told two, and the machinery of formats costs ten
/// times as much.
fn since_1970(micros: u64) -> String {
    let (secs, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (year, month, day) = date(secs / 86_400);
    let of_day = secs % 86_400;
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    for (at, two) in [
        (0, year / 100),
        (2, year % 100),
        (5, month),
        (8, day),
        (11, of_day / 3_600),
        (14, of_day / 60 % 60),
        (17, of_day % 60),
        (20, micros / 10_000),
        (22, micros / 100 % 100),
        (24, micros % 100),
    ] {
        // Below 100, each.
        let (tens, ones) = (two / 10 % 10, two % 10);
        text[at] += u8::try_from(tens).unwrap_or_default();
        text[at + 1] += u8::try_from(ones).unwrap_or_default();
    }
    // The fraction without the zeros it ends with, and without its point where nothing is left.
    let zeros = text[20..26]
        .iter()
        .rev()
        .take_while(|digit| **digit == b'0')
        .count();
    let end = if zeros == 6 { 19 } else { 26 - zeros };
    text[end] = b'Z';
    std::str::from_utf8(&text[..=end]).unwrap_or_default().to_owned()
}

/// Year, month and day of the month, so many days after 1970-01-01: counted from March, so that a leap day is a year's last, in eras of 400
/// years.
fn date(days: u64) -> (u64, u64, u64) {
    // From the first of March of the year 0.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    // 0: March. Five months have 153 days.
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let is_next = month >= 10;
    let month = if is_next { month - 9 } else { month + 3 };
    (era * 400 + year + u64::from(is_next), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn days_at_the_edges_of_months_years_and_centuries() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.000001Z", 1),
            ("2000-02-29T23:59:59.9Z", 951_868_799_900_000),
            ("2026-12-31T10:20:30.12Z", 1_798_712_430_120_000),
            ("2100-03-01T00:00:00Z", 4_107_542_400_000_000),
            ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
            ("1969-12-31T23:59:59.5Z", -500_000),
            ("1970-01-01T00:00:00Z", i64::MAX),
        ] {
            assert_eq!(rfc3339(micros), text);
        }
    }

    proptest! {
        #[test]
        fn instants_are_written_as_the_calendar_has_them(
            secs in 0_i64..253_402_300_800, micros in prop_oneof![Just(0_i64), (0_i64..1_000).prop_map(|ms| ms * 1_000), 0_i64..1_000_000],
        ) {
            let micros = secs * 1_000_000 + micros;
            prop_assert_eq!(rfc3339(micros), Timestamp::from_microsecond(micros).unwrap().to_string());
            prop_assert_eq!(micros_of_rfc3339(&rfc3339(micros)), Some(micros));
        }
    }
}
