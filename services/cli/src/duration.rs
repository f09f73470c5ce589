//! Durations as people write them: `90s`, `30m`, `48h`, `2d`.

use std::time::Duration;

/// Reads a whole number and a unit.
///
/// # Errors
/// What is expected, for the command line to show.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let expected = || "expected a number with a unit: 250ms, 90s, 30m, 48h or 2d".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| expected())?;
    let millis_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(expected()),
    };
    match number.checked_mul(millis_per_unit) {
        Some(0) => Err("must be more than nothing".to_owned()),
        // A year and more is a slip of the finger everywhere a duration is asked for here.
        Some(millis) if millis <= 366 * 86_400_000 => Ok(Duration::from_millis(millis)),
        _ => Err("must be at most 366d".to_owned()),
    }
}

/// How long something took, for a person: `0.21 s`.
pub(crate) fn shown(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_unit() {
        for (text, seconds) in [
            ("90s", 90),
            ("30m", 1_800),
            ("48h", 172_800),
            ("2d", 172_800),
            ("1000ms", 1),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "h",
            "1",
            "1 h",
            "-1h",
            "1.5h",
            "1w",
            "0s",
            "400d",
            "99999999999999999999h",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
