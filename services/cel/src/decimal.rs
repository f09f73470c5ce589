//! Exact decimals: 128-bit fixed point with 12 decimals, and the comparison of numbers of any size.
//!
//! Sums must equal what a person adds up by hand, so no number ever passes through a float.

use std::cmp::Ordering;
use std::fmt;

/// Decimals a number may have.
pub const DECIMALS: u32 = 12;
/// Whole digits a number may have: |x| < 10^18.
const WHOLE_DIGITS_MAX: i64 = 18;
/// 1 in units of [`Decimal`].
const ONE: i128 = 10_i128.pow(DECIMALS);

/// A number in units of 10^-12.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Decimal(i128);

/// Why a text is not a [`Decimal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Not a JSON number.
    #[error("not a number")]
    NotANumber,
    /// 10^18 or more, or more than 12 decimals.
    #[error("10^18 or more, or more than 12 decimals")]
    OutOfRange,
}

impl Decimal {
    /// Zero.
    pub const ZERO: Self = Self(0);

    /// Takes a count of units of 10^-12.
    #[must_use]
    pub const fn from_units(units: i128) -> Self {
        Self(units)
    }

    /// Takes a whole number.
    #[must_use]
    pub fn from_count(count: u64) -> Self {
        Self(i128::from(count) * ONE)
    }

    /// The count of units of 10^-12.
    #[must_use]
    pub const fn units(self) -> i128 {
        self.0
    }

    /// Reads a JSON number.
    ///
    /// # Errors
    /// [`Unfit`]; nothing is ever rounded.
    pub fn parse(text: &str) -> Result<Self, Unfit> {
        match quick(text.as_bytes()) {
            Some(units) => Ok(Self(units)),
            None => Exact::parse(text).ok_or(Unfit::NotANumber)?.to_decimal(),
        }
    }

    /// `self + other`; `None` beyond 128 bits.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// `self − other`; `None` beyond 128 bits.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// `self · other`, rounded half even to 12 decimals; `None` beyond 128 bits.
    #[must_use]
    pub fn checked_mul(self, other: Self) -> Option<Self> {
        let product = mul_div(self.0.unsigned_abs(), other.0.unsigned_abs(), ONE.unsigned_abs())?;
        let units = i128::try_from(product).ok()?;
        Some(Self(if (self.0 < 0) == (other.0 < 0) {
            units
        } else {
            -units
        }))
    }

    /// `self / to`, rounded half even to `scale` decimals (at most 12); `None` over zero or beyond 128 bits.
    #[must_use]
    pub fn ratio(self, to: Self, scale: u32) -> Option<Self> {
        let scale = scale.min(DECIMALS);
        let quotient = mul_div(self.0.unsigned_abs(), 10_u128.pow(scale), to.0.unsigned_abs())?;
        let units = i128::try_from(quotient)
            .ok()?
            .checked_mul(10_i128.pow(DECIMALS - scale))?;
        Some(Self(if (self.0 < 0) == (to.0 < 0) { units } else { -units }))
    }

    /// `self / |base| · 100`, rounded half even to two decimals; `None` over zero or beyond 128 bits.
    #[must_use]
    pub fn percent_of(self, base: Self) -> Option<Self> {
        let hundredths = mul_div(self.0.unsigned_abs(), 10_000, base.0.unsigned_abs())?;
        let units = i128::try_from(hundredths)
            .ok()?
            .checked_mul(10_i128.pow(DECIMALS - 2))?;
        Some(Self(if self.0 < 0 { -units } else { units }))
    }
}

/// Decimal text without exponent and without trailing zeros.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let abs = self.0.unsigned_abs();
        let one = ONE.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        write!(f, "{}", abs / one)?;
        let fraction = abs % one;
        if fraction != 0 {
            let digits = format!("{fraction:012}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        Ok(())
    }
}

/// Plain numbers without exponent and with few digits: nearly all there are.
fn quick(bytes: &[u8]) -> Option<i128> {
    let (negative, digits) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, bytes),
    };
    let whole_len = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    let (whole, rest) = digits.split_at(whole_len);
    if whole.is_empty() || whole.len() > 18 || (whole.len() > 1 && whole[0] == b'0') {
        return None;
    }
    let fraction = match rest {
        [] => rest,
        [b'.', fraction @ ..] if !fraction.is_empty() && fraction.len() <= 12 => fraction,
        _ => return None,
    };
    let mut units: u64 = 0;
    for b in whole {
        units = units * 10 + u64::from(b - b'0');
    }
    let mut part: u64 = 0;
    for b in fraction {
        if !b.is_ascii_digit() {
            return None;
        }
        part = part * 10 + u64::from(b - b'0');
    }
    let shift = u32::try_from(12 - fraction.len()).ok()?;
    let value = i128::from(units) * ONE + i128::from(part) * 10_i128.pow(shift);
    Some(if negative { -value } else { value })
}

/// `a · m / d`, rounded half even, over 256 bits; `None` when `d` is zero or the result does not fit.
fn mul_div(a: u128, m: u128, d: u128) -> Option<u128> {
    if d == 0 {
        return None;
    }
    let (high, low) = widening_mul(a, m);
    if high >= d {
        return None;
    }
    let (mut quotient, mut rest) = (0_u128, high);
    for bit in (0..128).rev() {
        let carried = rest >> 127 == 1;
        rest = (rest << 1) | ((low >> bit) & 1);
        if carried || rest >= d {
            rest = rest.wrapping_sub(d);
            quotient |= 1 << bit;
        }
    }
    let up = match rest.cmp(&(d - rest)) {
        Ordering::Greater => 1,
        Ordering::Equal => quotient & 1,
        Ordering::Less => 0,
    };
    quotient.checked_add(up)
}

/// The product as (high, low) 128 bits each.
fn widening_mul(a: u128, b: u128) -> (u128, u128) {
    const LOW: u128 = u64::MAX as u128;
    let (a1, a0, b1, b0) = (a >> 64, a & LOW, b >> 64, b & LOW);
    let (p00, p01, p10, p11) = (a0 * b0, a0 * b1, a1 * b0, a1 * b1);
    let middle = (p00 >> 64) + (p01 & LOW) + (p10 & LOW);
    let high = p11 + (p01 >> 64) + (p10 >> 64) + (middle >> 64);
    (high, (middle << 64) | (p00 & LOW))
}

/// A JSON number of any size, taken apart; compares exactly.
#[derive(Debug, Clone, Copy)]
pub struct Exact<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Exact<'a> {
    /// Reads a JSON number; `None` for any other text.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (negative, rest) = match bytes {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, bytes),
        };
        let (whole, rest) = rest.split_at(rest.iter().take_while(|b| b.is_ascii_digit()).count());
        if whole.is_empty() || (whole.len() > 1 && whole[0] == b'0') {
            return None;
        }
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => rest.split_at(rest.iter().take_while(|b| b.is_ascii_digit()).count()),
            _ => (&rest[..0], rest),
        };
        if fraction.is_empty() && bytes.get(usize::from(negative) + whole.len()) == Some(&b'.') {
            return None;
        }
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', digits @ ..] => exponent(digits)?,
            _ => return None,
        };
        Some(Self {
            negative,
            whole,
            fraction,
            exponent,
        })
    }

    fn digit(&self, index: usize) -> u8 {
        let digit = self
            .whole
            .get(index)
            .or_else(|| self.fraction.get(index - self.whole.len()));
        digit.map_or(0, |b| b - b'0')
    }

    /// First and one past the last digit that is not zero; `None` for zero.
    fn significant(&self) -> Option<(usize, usize)> {
        let len = self.whole.len() + self.fraction.len();
        let first = (0..len).find(|i| self.digit(*i) != 0)?;
        let last = (first..len).rev().find(|i| self.digit(*i) != 0)?;
        Some((first, last + 1))
    }

    /// Whole digits of the number whose first digit that is not zero stands at `first`; ≤ 0 for 0.0….
    fn magnitude(&self, first: usize) -> i64 {
        let whole = i64::try_from(self.whole.len()).unwrap_or(i64::MAX / 4);
        let first = i64::try_from(first).unwrap_or(i64::MAX / 4);
        whole - first + self.exponent
    }

    fn to_decimal(self) -> Result<Decimal, Unfit> {
        let Some((first, end)) = self.significant() else {
            return Ok(Decimal::ZERO);
        };
        let magnitude = self.magnitude(first);
        let digits = i64::try_from(end - first).map_err(|_| Unfit::OutOfRange)?;
        let decimals = digits - magnitude;
        if magnitude > WHOLE_DIGITS_MAX || decimals > i64::from(DECIMALS) {
            return Err(Unfit::OutOfRange);
        }
        // At most 18 + 12 digits, so this fits.
        let value = (first..end).fold(0_i128, |value, i| value * 10 + i128::from(self.digit(i)));
        let shift = u32::try_from(i64::from(DECIMALS) - decimals).map_err(|_| Unfit::OutOfRange)?;
        let units = value * 10_i128.pow(shift);
        Ok(Decimal(if self.negative { -units } else { units }))
    }

    /// One text per value: `1`, `1.0` and `10e-1` give the same.
    #[must_use]
    pub fn canonical(&self) -> String {
        let Some((first, end)) = self.significant() else {
            return "0".to_owned();
        };
        let mut text = if self.negative {
            "-".to_owned()
        } else {
            String::new()
        };
        text.extend((first..end).map(|i| char::from(b'0' + self.digit(i))));
        text.push('e');
        text.push_str(&self.magnitude(first).to_string());
        text
    }
}

impl PartialEq for Exact<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Exact<'_> {}
impl PartialOrd for Exact<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Exact<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = match (self.significant(), other.significant()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => {
                return if other.negative {
                    Ordering::Greater
                } else {
                    Ordering::Less
                };
            }
            (Some(_), None) => {
                return if self.negative {
                    Ordering::Less
                } else {
                    Ordering::Greater
                };
            }
            (Some(a), Some(b)) => (a, b),
        };
        match (self.negative, other.negative) {
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            _ => {}
        }
        let digits = |number: &Self, (first, end): (usize, usize), i: usize| {
            if first + i < end {
                number.digit(first + i)
            } else {
                0
            }
        };
        let size = self.magnitude(a.0).cmp(&other.magnitude(b.0)).then_with(|| {
            let len = (a.1 - a.0).max(b.1 - b.0);
            (0..len)
                .map(|i| digits(self, a, i).cmp(&digits(other, b, i)))
                .find(|order| order.is_ne())
                .unwrap_or(Ordering::Equal)
        });
        if self.negative { size.reverse() } else { size }
    }
}

/// An exponent, cut off far beyond anything that matters.
fn exponent(digits: &[u8]) -> Option<i64> {
    let (negative, digits) = match digits {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size = digits.iter().fold(0_i64, |size, b| {
        (size * 10 + i64::from(b - b'0')).min(i64::MAX / 100)
    });
    Some(if negative { -size } else { size })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_read_exactly_or_not_at_all() {
        let good = [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("4250.50", "4250.5"),
            ("-12.000000000001", "-12.000000000001"),
            ("1e3", "1000"),
            ("1.5E-2", "0.015"),
            ("10e-13", "0.000000000001"),
            (
                "999999999999999999.999999999999",
                "999999999999999999.999999999999",
            ),
            ("1.0000000000000000000", "1"),
            ("0e999999999999999999999", "0"),
            ("100000000000000000000e-5", "1000000000000000"),
        ];
        for (text, expected) in good {
            assert_eq!(
                Decimal::parse(text).map(|d| d.to_string()),
                Ok(expected.to_owned()),
                "{text}"
            );
        }
        let bad = [
            ("1000000000000000000", Unfit::OutOfRange),
            ("1e18", Unfit::OutOfRange),
            ("0.0000000000001", Unfit::OutOfRange),
            ("1e-13", Unfit::OutOfRange),
            ("1e999999999999999999999", Unfit::OutOfRange),
            ("", Unfit::NotANumber),
            ("-", Unfit::NotANumber),
            ("+1", Unfit::NotANumber),
            ("01", Unfit::NotANumber),
            ("1.", Unfit::NotANumber),
            (".5", Unfit::NotANumber),
            ("1e", Unfit::NotANumber),
            (" 1", Unfit::NotANumber),
            ("1 ", Unfit::NotANumber),
            ("NaN", Unfit::NotANumber),
            ("1_000", Unfit::NotANumber),
        ];
        for (text, expected) in bad {
            assert_eq!(Decimal::parse(text), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn rounding_is_half_even() {
        let number = |text| Decimal::parse(text).unwrap();
        let rows = [
            ("1", "3", 4, Some("0.3333")),
            ("2", "3", 4, Some("0.6667")),
            ("1", "8", 2, Some("0.12")),
            ("3", "8", 2, Some("0.38")),
            ("-1", "8", 2, Some("-0.12")),
            ("1", "-8", 2, Some("-0.12")),
            ("5", "2", 0, Some("2")),
            ("7", "2", 0, Some("4")),
            ("0", "5", 4, Some("0")),
            ("5", "0", 4, None),
            ("999999999999999999", "0.000000000001", 12, None),
        ];
        for (of, to, scale, expected) in rows {
            let got = number(of).ratio(number(to), scale).map(|d| d.to_string());
            assert_eq!(got.as_deref(), expected, "{of} / {to}");
        }
        for (change, base, expected) in [
            ("25", "200", Some("12.5")),
            ("1", "3", Some("33.33")),
            ("-1", "3", Some("-33.33")),
            ("5", "-20", Some("25")),
            ("1", "0", None),
            ("0.00125", "1", Some("0.12")),
            ("0.00135", "1", Some("0.14")),
        ] {
            let got = number(change).percent_of(number(base)).map(|d| d.to_string());
            assert_eq!(got.as_deref(), expected, "{change} of {base}");
        }
    }

    #[test]
    fn numbers_of_any_size_compare() {
        let ascending = [
            "-1e400",
            "-2",
            "-1.5",
            "-1e-400",
            "0",
            "1e-400",
            "0.1",
            "1",
            "1.00000000000000000001",
            "9",
            "10",
            "1e400",
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                let (x, y) = (Exact::parse(a).unwrap(), Exact::parse(b).unwrap());
                assert_eq!(x.cmp(&y), i.cmp(&j), "{a} {b}");
            }
        }
        assert_eq!(
            Exact::parse("1").unwrap().canonical(),
            Exact::parse("10.0e-1").unwrap().canonical()
        );
    }

    proptest! {
        #[test]
        fn reading_and_writing_agree(units in -999_999_999_999_999_999_999_999_999_999_i128..=999_999_999_999_999_999_999_999_999_999) {
            let text = Decimal(units).to_string();
            prop_assert_eq!(Decimal::parse(&text), Ok(Decimal(units)));
            prop_assert_eq!(Exact::parse(&text).unwrap().to_decimal(), Ok(Decimal(units)));
        }

        #[test]
        fn wide_division_equals_the_narrow_one(a in 0..u128::from(u64::MAX), m in 0..u128::from(u64::MAX), d in 1..u128::from(u64::MAX)) {
            let product = a * m;
            let (q, r) = (product / d, product % d);
            let up = u128::from(r * 2 > d || (r * 2 == d && q % 2 == 1));
            prop_assert_eq!(mul_div(a, m, d), Some(q + up));
        }

        #[test]
        fn any_text_is_survived(text in ".{0,40}") {
            let _ = Decimal::parse(&text);
        }
    }
}
