//! How state is stored: a compact binary form with a version, written and read here and nowhere else.
//!
//! Whole numbers are LEB128, signed ones zigzag. Reading checks everything: what does not fit is [`Corrupt`], never a panic.

mod chunk;
mod head;

pub use chunk::{read_chunk, write_chunk};
pub use head::{StoredMetric, read_metric, write_metric};

/// The version of heads and chunks as they are written.
pub const FORMAT: u8 = 5;
/// The oldest version that is still read: 1 had no carried values and did not say which stream it was folded from, 2 nothing that was
/// only believed, 3 no rules, 4 no sketches.
pub const FORMAT_OLDEST: u8 = 1;
/// The first version with sketches of distinct values.
const SKETCHES_SINCE: u8 = 5;

/// Stored bytes that are not what this version writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stored state is damaged or of another version: {0}")]
pub struct Corrupt(pub &'static str);

/// Builds stored bytes.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// The bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    /// A whole number.
    pub fn unsigned(&mut self, mut number: u128) {
        loop {
            let low = u8::try_from(number & 0x7f).unwrap_or(0);
            number >>= 7;
            if number == 0 {
                self.0.push(low);
                return;
            }
            self.0.push(low | 0x80);
        }
    }

    /// A signed number.
    pub fn signed(&mut self, number: i128) {
        self.unsigned(((number << 1) ^ (number >> 127)).cast_unsigned());
    }

    /// A length or count.
    pub fn count(&mut self, count: usize) {
        self.unsigned(count as u128);
    }

    /// Bytes with their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// Bytes without their length.
    pub fn fixed(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// A signed number that may be absent.
    pub fn optional(&mut self, number: Option<i64>) {
        match number {
            None => self.0.push(0),
            Some(number) => {
                self.0.push(1);
                self.signed(number.into());
            }
        }
    }
}

/// Reads stored bytes.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Begins at the first byte.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether everything was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Some bytes.
    ///
    /// # Errors
    /// [`Corrupt`] where there are not so many; as for all methods here.
    pub fn fixed(&mut self, len: usize) -> Result<&'a [u8], Corrupt> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Corrupt("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn byte(&mut self) -> Result<u8, Corrupt> {
        Ok(self.fixed(1)?[0])
    }

    /// A whole number.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn unsigned(&mut self) -> Result<u128, Corrupt> {
        let mut number = 0_u128;
        for shift in (0..133).step_by(7) {
            let byte = self.byte()?;
            let bits = u128::from(byte & 0x7f);
            if shift == 126 && bits > 3 {
                return Err(Corrupt("a number is too large"));
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Corrupt("a number is too long"))
    }

    /// A signed number.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn signed(&mut self) -> Result<i128, Corrupt> {
        let number = self.unsigned()?;
        Ok((number >> 1).cast_signed() ^ -((number & 1).cast_signed()))
    }

    /// A signed number of 64 bits.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn signed64(&mut self) -> Result<i64, Corrupt> {
        i64::try_from(self.signed()?).map_err(|_| Corrupt("a number is too large"))
    }

    /// A whole number of 64 bits.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn unsigned64(&mut self) -> Result<u64, Corrupt> {
        u64::try_from(self.unsigned()?).map_err(|_| Corrupt("a number is too large"))
    }

    /// A count of things that take at least one byte each.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn count(&mut self) -> Result<usize, Corrupt> {
        let count = usize::try_from(self.unsigned()?).map_err(|_| Corrupt("a count is too large"))?;
        if count > self.0.len() {
            Err(Corrupt("a count is larger than what follows"))
        } else {
            Ok(count)
        }
    }

    /// Text with its length.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn text(&mut self) -> Result<&'a str, Corrupt> {
        let len = self.count()?;
        std::str::from_utf8(self.fixed(len)?).map_err(|_| Corrupt("text is not UTF-8"))
    }

    /// A signed number that may be absent.
    ///
    /// # Errors
    /// [`Corrupt`].
    pub fn optional(&mut self) -> Result<Option<i64>, Corrupt> {
        match self.byte()? {
            0 => Ok(None),
            1 => self.signed64().map(Some),
            _ => Err(Corrupt("a flag is neither 0 nor 1")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::chunk::{
        read_cells, read_keys, read_sessions, read_sketch, read_slots, write_sketch, write_slots,
    };
    use super::*;
    use crate::engine::cell::How;
    use crate::engine::chunk::Slots;
    use crate::engine::sketch::{RANK_MAX, REGISTERS, Sketch};

    #[test]
    fn cells_of_the_first_version_are_read() {
        let mut out = Writer::default();
        out.count(2);
        for (slot, events, capped, sum, seq) in [(7, 3_u128, 1, -5, 40), (2, 9, 0, 6, -1)] {
            out.signed(slot);
            out.unsigned(events << 1 | capped);
            out.signed(sum);
            out.signed(seq);
        }
        let cells = read_cells(&mut Reader::new(&out.finish()), FORMAT_OLDEST, How::Add, false).unwrap();
        let read: Vec<_> = cells
            .iter()
            .map(|cell| (cell.slot, cell.events, cell.capped(), cell.sum, cell.seq))
            .collect();
        assert_eq!(read, [(7, 3, true, -5, 40), (9, 9, false, 6, 39)]);
    }

    proptest! {
        #[test]
        fn numbers_come_back(unsigned: u128, signed: i128, optional: Option<i64>) {
            let mut out = Writer::default();
            out.unsigned(unsigned);
            out.signed(signed);
            out.optional(optional);
            let bytes = out.finish();
            let mut input = Reader::new(&bytes);
            prop_assert_eq!(input.unsigned(), Ok(unsigned));
            prop_assert_eq!(input.signed(), Ok(signed));
            prop_assert_eq!(input.optional(), Ok(optional));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn slots_come_back(gaps in prop::collection::vec(1_i64..40, 1..200), first in -1_000_000_i64..1_000_000, dense: bool) {
            let mut at = first;
            let slots: Slots = gaps.iter().map(|gap| { at += if dense { gap % 3 + 1 } else { *gap }; at }).collect();
            let mut out = Writer::default();
            write_slots(&mut out, &slots);
            prop_assert_eq!(read_slots(&mut Reader::new(&out.finish())), Ok(slots));
        }

        #[test]
        fn sketches_come_back(registers in prop::collection::btree_map(0..u16::try_from(REGISTERS).unwrap(), 1..=RANK_MAX, 0..300), more in prop_oneof![Just(0), Just(u16::try_from(REGISTERS).unwrap())]) {
            let mut registers = registers;
            for register in 0..more {
                registers.entry(register).or_insert(1);
            }
            let sketch = Sketch::from_registers(registers.into_iter().collect()).unwrap();
            let mut out = Writer::default();
            write_sketch(&mut out, &sketch);
            let bytes = out.finish();
            prop_assert!(bytes.len() < 16 * 1024, "one finds room in a chunk");
            prop_assert_eq!(read_sketch(&mut Reader::new(&bytes)), Ok(sketch));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_metric(&mut Reader::new(&bytes));
            let _ = read_slots(&mut Reader::new(&bytes));
            let _ = read_sessions(&mut Reader::new(&bytes));
            let _ = read_keys(&mut Reader::new(&bytes), 0);
            let _ = read_sketch(&mut Reader::new(&bytes));
            let _ = read_cells(&mut Reader::new(&bytes), FORMAT, How::Ranked, false);
            let _ = read_cells(&mut Reader::new(&bytes), FORMAT, How::Add, true);
            let _ = read_cells(&mut Reader::new(&bytes), FORMAT, How::Top, false);
            let _ = read_cells(&mut Reader::new(&bytes), FORMAT_OLDEST, How::Add, false);
        }
    }
}
