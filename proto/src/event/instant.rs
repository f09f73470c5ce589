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

/// Writes Unix microseconds as RFC 3339 in UTC, with as many fraction digits as are needed.
#[must_use]
pub fn rfc3339(micros: i64) -> String {
    Timestamp::from_microsecond(micros).map_or_else(|_| "1970-01-01T00:00:00Z".to_owned(), |t| t.to_string())
}
