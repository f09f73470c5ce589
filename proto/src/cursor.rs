//! A client's place in a room: `<epoch>.<seq>.<rev>.<t>`, or the same sealed.
//!
//! Opaque to clients; [`Cursors`] writes and reads the text. `epoch` names the pair of streams, `seq` and `rev` are positions in `EVENTS` and `STATE` up to which the room has
//! been delivered, `t` is the low 16 bits of the millisecond in which message `seq` was stored: sequences are reused after a disaster,
//! the time of a sequence hardly ever is.

use std::fmt;

use aws_lc_rs::digest;

mod text;

pub use text::{BadKeys, CursorText, Cursors};

/// Longest cursor text accepted.
pub const CURSOR_BYTES_MAX: usize = 128;

/// Names one life of the two streams: changes when either is made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(u32);

impl Epoch {
    /// Made from the names and creation times (RFC 3339, as the server gives them) of `EVENTS` and `STATE`.
    #[must_use]
    pub fn of_streams(events_created: &str, state_created: &str) -> Self {
        let text = format!("EVENTS\n{events_created}\nSTATE\n{state_created}");
        let sum = digest::digest(&digest::SHA256, text.as_bytes());
        let b = sum.as_ref();
        Self(u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// Positions in both streams; 0 is before the first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Position {
    /// Position in `EVENTS`.
    pub seq: u64,
    /// Position in `STATE`.
    pub rev: u64,
}

/// A place in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// Which life of the streams.
    pub epoch: Epoch,
    /// Where in them.
    pub position: Position,
    /// Low bits of the time of message `seq`; 0 when `seq` is 0.
    pub time_bits: u16,
}

/// Low bits of a storage time for [`Cursor::time_bits`]. `time_micros`: Unix microseconds.
#[must_use]
pub fn time_bits(time_micros: i64) -> u16 {
    // The low 16 bits are the point: they tell two lives of one sequence apart.
    u16::try_from((time_micros.div_euclid(1000)) & 0xffff).unwrap_or(0)
}

/// Text that is not a cursor of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub struct NotACursor;

/// Reads the text where there is one tenant. A cursor has no `Display`: what leaves goes through [`Cursors`], which knows whether it must
/// be sealed.
fn read_plain(text: &str) -> Result<Cursor, NotACursor> {
    if text.len() > CURSOR_BYTES_MAX {
        return Err(NotACursor);
    }
    let mut parts = text.split('.');
    let mut next = || parts.next().ok_or(NotACursor);
    let (epoch, seq, rev, bits) = (next()?, next()?, next()?, next()?);
    let cursor = Cursor {
        epoch: Epoch(u32::from_str_radix(epoch, 16).map_err(|_| NotACursor)?),
        position: Position {
            seq: seq.parse().map_err(|_| NotACursor)?,
            rev: rev.parse().map_err(|_| NotACursor)?,
        },
        time_bits: u16::from_str_radix(bits, 16).map_err(|_| NotACursor)?,
    };
    // One text per cursor: no signs, no leading zeros, no capitals, no fifth part.
    if CursorText::plain(&cursor).as_str() == text {
        Ok(cursor)
    } else {
        Err(NotACursor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_our_own_text_is_a_cursor() {
        let rows = [
            ("00c0ffee.1041.77.a2", true),
            ("00c0ffee.0.0.0", true),
            ("00c0ffee.18446744073709551615.1.ffff", true),
            ("00c0ffee.18446744073709551616.1.0", false),
            ("00c0ffee.1041.77", false),
            ("00c0ffee.1041.77.a2.1", false),
            ("00C0FFEE.1041.77.a2", false),
            ("c0ffee.1041.77.a2", false),
            ("00c0ffee.+1.77.a2", false),
            ("00c0ffee.01.77.a2", false),
            ("00c0ffee.1.77.0a2", false),
            ("00c0ffee.-1.77.a2", false),
            ("", false),
            ("....", false),
            ("garbage", false),
        ];
        for (text, good) in rows {
            assert_eq!(read_plain(text).is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn another_creation_time_is_another_epoch() {
        let a = Epoch::of_streams("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
        assert_eq!(
            a,
            Epoch::of_streams("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z")
        );
        assert_ne!(
            a,
            Epoch::of_streams("2026-01-01T00:00:00Z", "2026-01-01T00:00:02Z")
        );
    }

    proptest! {
        #[test]
        fn text_and_value_agree(epoch: u32, seq: u64, rev: u64, time_bits: u16) {
            let cursor = Cursor { epoch: Epoch(epoch), position: Position { seq, rev }, time_bits };
            let text = CursorText::plain(&cursor);
            prop_assert_eq!(text.as_str(), format!("{epoch:08x}.{seq}.{rev}.{time_bits:x}"));
            prop_assert_eq!(read_plain(text.as_str()), Ok(cursor));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,140}") {
            let _ = read_plain(&text);
        }

        #[test]
        fn time_bits_never_panic(time: i64) {
            let _ = time_bits(time);
        }
    }
}
