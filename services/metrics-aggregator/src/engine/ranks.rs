//! How many numbers lie in each of narrow ranges: what percentiles are read from.
//!
//! A range is a 128th of a power of two or less, so whatever number of it stands for all is within 0.79 % of each. The ranges are fixed
//! (a DDSketch whose mapping is linear between powers of two), which makes counts of two windows add up and subtract, and everything is
//! whole numbers: the same events give the same answer on every machine. No library is used because those that were looked at map
//! with floating logarithms and cannot subtract.

use crate::engine::decimal::Decimal;

/// Ranges one cell may have; an event that needs one more does not fit. As stored, at most 32 KiB. All there are is 23,000: numbers
/// from a cent to a hundred million, of one sign, have 4,200.
pub const RANGES_MAX: usize = 8_192;
/// The upper bits of a number that make its range: the first is always set.
const BITS: u32 = 8;

/// Counts by range, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranks(Vec<(i16, u64)>);

/// The range of a number.
#[must_use]
pub fn range_of(number: Decimal) -> i16 {
    let size = number.units().unsigned_abs();
    let shift = (u128::BITS - size.leading_zeros()).saturating_sub(BITS);
    // A number of fewer bits is a range of its own; below, the ranges of each further bit follow.
    let upper = i16::try_from(size >> shift).unwrap_or(i16::MAX);
    let shift = i16::try_from(shift).unwrap_or(0);
    let index = (shift << (BITS - 1)) + upper;
    if number.units() < 0 { -index } else { index }
}

/// The number that stands for a range: of those in it, one with the fewest digits.
#[must_use]
pub fn shown(of: i16) -> Decimal {
    let index = u128::from(of.unsigned_abs());
    let shift = (index >> (BITS - 1)).saturating_sub(1);
    let first = (index - (shift << (BITS - 1))) << shift;
    let after = first + (1 << shift);
    let middle = first + (after - first) / 2;
    let range = first..after;
    let mut step = 10_u128.pow(31);
    let mut number = first;
    while step > 0 {
        let near = (middle + step / 2) / step * step;
        let found = [near, first.div_ceil(step) * step]
            .into_iter()
            .find(|number| range.contains(number));
        if let Some(found) = found {
            number = found;
            break;
        }
        step /= 10;
    }
    let units = i128::try_from(number).unwrap_or(i128::MAX);
    Decimal::from_units(if of < 0 { -units } else { units })
}

impl Ranks {
    /// Whether a cell may count a number of this range.
    #[must_use]
    pub fn has_room(&self, range: i16) -> bool {
        self.0.len() < RANGES_MAX || self.find(range).is_ok()
    }

    /// Counts a number.
    pub fn add(&mut self, range: i16) {
        match self.find(range) {
            Ok(at) => self.0[at].1 += 1,
            Err(at) => self.0.insert(at, (range, 1)),
        }
    }

    /// Counts what another counted.
    pub fn join(&mut self, other: &Self) {
        for (range, count) in &other.0 {
            match self.find(*range) {
                Ok(at) => self.0[at].1 += count,
                Err(at) => self.0.insert(at, (*range, *count)),
            }
        }
    }

    /// Takes out what was counted before.
    pub fn leave(&mut self, other: &Self) {
        for (range, count) in &other.0 {
            if let Ok(at) = self.find(*range) {
                self.0[at].1 = self.0[at].1.saturating_sub(*count);
            }
        }
        self.0.retain(|(_, count)| *count > 0);
    }

    /// The range of element ⌊percent · (n − 1) / 100⌋ of the ascending numbers; `None` where there are none.
    #[must_use]
    pub fn at(&self, percent: u8) -> Option<i16> {
        let count: u64 = self.0.iter().map(|(_, count)| count).sum();
        let rank = u128::from(count.checked_sub(1)?) * u128::from(percent) / 100;
        let mut before = 0_u128;
        self.0.iter().find_map(|(range, count)| {
            before += u128::from(*count);
            (before > rank).then_some(*range)
        })
    }

    /// Ranges and counts, ascending.
    #[must_use]
    pub fn list(&self) -> &[(i16, u64)] {
        &self.0
    }

    /// Takes ranges and counts; `None` where they do not ascend.
    #[must_use]
    pub fn from_list(list: Vec<(i16, u64)>) -> Option<Self> {
        list.windows(2)
            .all(|pair| pair[0].0 < pair[1].0)
            .then_some(Self(list))
    }

    fn find(&self, range: i16) -> Result<usize, usize> {
        self.0.binary_search_by_key(&range, |(known, _)| *known)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_shown_with_few_digits() {
        for (number, expected) in [
            ("0", "0"),
            ("5", "5"),
            ("-5", "-5"),
            ("19.9", "19.9"),
            ("950", "950"),
            ("4250.5", "4250"),
            ("0.000000000001", "0.000000000001"),
            ("999999999999999999.999999999999", "1000000000000000000"),
        ] {
            let shown = shown(range_of(Decimal::parse(number).unwrap()));
            let off = (shown.units() - Decimal::parse(number).unwrap().units()).abs();
            assert!(off * 100 <= shown.units().abs(), "{number} is shown as {shown}");
            if number.len() < 20 {
                assert_eq!(shown.to_string(), expected, "{number}");
            }
        }
    }

    #[test]
    fn a_full_cell_counts_in_the_ranges_it_has() {
        let mut ranks = Ranks::default();
        for range in 0..i16::try_from(RANGES_MAX).unwrap() {
            assert!(ranks.has_room(range));
            ranks.add(range);
        }
        assert!(ranks.has_room(7) && !ranks.has_room(-1));
    }

    proptest! {
        #[test]
        fn what_is_shown_is_within_a_hundredth(units in prop_oneof![-1_000_i128..1_000, -(10_i128.pow(30))..10_i128.pow(30), -(10_i128.pow(15))..10_i128.pow(15)]) {
            let range = range_of(Decimal::from_units(units));
            let shown = shown(range);
            prop_assert!((shown.units() - units).abs() * 1_000 <= units.abs() * 8);
            prop_assert_eq!(range_of(shown), range, "it lies in its own range");
        }

        #[test]
        fn ranges_ascend_with_numbers(a in -(10_i128.pow(30))..10_i128.pow(30), b in -(10_i128.pow(18))..10_i128.pow(18)) {
            let range = |units| range_of(Decimal::from_units(units));
            prop_assert!((a < b) <= (range(a) <= range(b)));
        }

        #[test]
        fn what_leaves_was_never_there(a in prop::collection::vec(-300..300_i16, 0..50), b in prop::collection::vec(-300..300_i16, 0..50)) {
            let count = |list: &[i16]| {
                let mut ranks = Ranks::default();
                list.iter().for_each(|range| ranks.add(*range));
                ranks
            };
            let mut both = count(&a);
            both.join(&count(&b));
            let mut all = [a.clone(), b.clone()].concat();
            prop_assert_eq!(&both, &count(&all));
            all.sort_unstable();
            for percent in [50, 90, 95, 99] {
                let expected = all.len().checked_sub(1).map(|last| all[last * usize::from(percent) / 100]);
                prop_assert_eq!(both.at(percent), expected);
            }
            both.leave(&count(&b));
            prop_assert_eq!(both, count(&a));
        }
    }
}
