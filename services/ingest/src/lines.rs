//! NDJSON cut into portions of whole lines, whatever the pieces it arrives in. Pure: bytes in, portions out.
//!
//! Called by [`crate::long_body`]. A portion is worked on like a batch and has the bounds of one; a line that is longer than an event may
//! be is kept as far as a dead letter keeps it and counted to its end.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use roomcast_proto::event::Draft;
use roomcast_proto::limits::EVENT_BYTES_MAX;
use roomcast_proto::refusal::{Code, Refusal};

use crate::dead_letter::KEPT_BYTES_MAX;

/// Where a line stands in its portion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its bytes, or the beginning of one that is too long; without the line's end.
    pub place: Range<usize>,
    /// How many bytes it has.
    pub original_bytes: usize,
}

impl Line {
    /// What the line says.
    ///
    /// # Errors
    /// As [`Draft::parse`].
    pub fn draft<'a>(&self, portion: &'a [u8]) -> Result<Draft<'a>, Refusal> {
        if self.original_bytes > EVENT_BYTES_MAX {
            let bytes = self.original_bytes;
            let detail = format!("an event has at most {EVENT_BYTES_MAX} bytes, this one has {bytes}");
            return Err(Refusal::new(Code::TooLarge, detail));
        }
        Draft::parse(portion.get(self.place.clone()).unwrap_or_default())
    }
}

/// Some whole lines, blank ones left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Portion {
    /// The lines' bytes.
    pub bytes: Bytes,
    /// Where each stands.
    pub lines: Vec<Line>,
}

/// Collects lines until a portion is full.
#[derive(Debug)]
pub struct Lines {
    lines_max: usize,
    bytes_max: usize,
    line_kept_max: usize,
    bytes: BytesMut,
    lines: Vec<Line>,
    start: usize,
    line_bytes: usize,
}

impl Lines {
    /// Portions of at most so many lines, in at most so many bytes.
    #[must_use]
    pub fn new(lines_max: usize, bytes_max: usize) -> Self {
        Self {
            lines_max,
            bytes_max,
            line_kept_max: KEPT_BYTES_MAX.min(bytes_max),
            bytes: BytesMut::new(),
            lines: Vec::new(),
            start: 0,
            line_bytes: 0,
        }
    }

    /// Takes bytes off `piece` until the portion is full and something else than blanks follows. Returns whether it is so;
    /// otherwise `piece` is used up.
    pub fn fill(&mut self, piece: &mut Bytes) -> bool {
        while !piece.is_empty() {
            if self.is_full() {
                let blank = piece.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                let _ = piece.split_to(blank);
                if !piece.is_empty() {
                    return true;
                }
                break;
            }
            let end = piece.iter().position(|byte| *byte == b'\n');
            let part = piece.split_to(end.map_or(piece.len(), |end| end + 1));
            let text = part.strip_suffix(b"\n").unwrap_or(&part);
            let room = self.line_kept_max - (self.bytes.len() - self.start);
            self.bytes.extend_from_slice(&text[..text.len().min(room)]);
            self.line_bytes += text.len();
            if end.is_some() {
                self.end_line();
            }
        }
        false
    }

    /// The lines collected; a line without an end stays, unless the body is over.
    pub fn take(&mut self, over: bool) -> Portion {
        if over {
            self.end_line();
        }
        let rest = self.bytes.split_off(self.start);
        let bytes = std::mem::replace(&mut self.bytes, rest);
        self.start = 0;
        Portion {
            bytes: bytes.freeze(),
            lines: std::mem::take(&mut self.lines),
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the line that has no end yet; most of a long one are not held.
    #[must_use]
    pub fn line_bytes(&self) -> usize {
        self.line_bytes
    }

    /// One more line might not fit.
    fn is_full(&self) -> bool {
        let between = self.bytes.len() == self.start && self.line_bytes == 0;
        let full = self.lines.len() >= self.lines_max
            || !self.lines.is_empty() && self.start + self.line_kept_max > self.bytes_max;
        between && full
    }

    fn end_line(&mut self) {
        let place = self.start..self.bytes.len();
        let text = &self.bytes[place.clone()];
        let whole = text.len() == self.line_bytes;
        if whole && text.iter().all(u8::is_ascii_whitespace) {
            self.bytes.truncate(self.start);
        } else {
            let carriage_return = usize::from(whole && text.ends_with(b"\r"));
            self.lines.push(Line {
                place: place.start..place.end - carriage_return,
                original_bytes: self.line_bytes - carriage_return,
            });
            self.start = place.end;
        }
        self.line_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All portions' lines as text, with their true lengths.
    fn portions(text: &[u8], piece: usize, lines_max: usize, bytes_max: usize) -> Vec<Vec<(String, usize)>> {
        let mut lines = Lines::new(lines_max, bytes_max);
        let mut found = Vec::new();
        let mut keep = |portion: Portion| {
            assert!(portion.bytes.len() <= bytes_max && portion.lines.len() <= lines_max);
            let text = |line: &Line| {
                let bytes = &portion.bytes[line.place.clone()];
                (String::from_utf8_lossy(bytes).into_owned(), line.original_bytes)
            };
            found.push(portion.lines.iter().map(text).collect::<Vec<_>>());
        };
        for piece in text.chunks(piece) {
            let mut piece = Bytes::copy_from_slice(piece);
            while lines.fill(&mut piece) {
                keep(lines.take(false));
            }
            assert!(lines.held_bytes() <= bytes_max);
        }
        keep(lines.take(true));
        found.retain(|lines| !lines.is_empty());
        found
    }

    #[track_caller]
    fn check(text: &str, lines_max: usize, expected: &[&[&str]]) {
        for piece in [1, 2, 3, 1000] {
            let found = portions(text.as_bytes(), piece, lines_max, 1 << 20);
            let found: Vec<Vec<&str>> = found
                .iter()
                .map(|lines| lines.iter().map(|(text, _)| text.as_str()).collect())
                .collect();
            assert_eq!(found, expected, "{text:?} in pieces of {piece}");
        }
    }

    #[test]
    fn lines_are_whole_and_blank_ones_count_nothing() {
        check("a\nb\n", 10, &[&["a", "b"]]);
        check("a\nb", 10, &[&["a", "b"]]);
        check("a\r\n\r\n  \n\nb\r\n", 10, &[&["a", "b"]]);
        check("a\nb\nc", 2, &[&["a", "b"], &["c"]]);
        check("a\nb\n\n \n", 2, &[&["a", "b"]]);
        check("", 2, &[]);
        check("\n\n", 2, &[]);
        check(" a \n", 2, &[&[" a "]]);
    }

    #[test]
    fn a_long_line_is_kept_in_part_and_counted_whole() {
        let text = format!("a\n{}\nb\n", "x".repeat(300_000));
        let found = portions(text.as_bytes(), 5_000, 10, 200_000).concat();
        let lengths: Vec<_> = found.iter().map(|(text, bytes)| (text.len(), *bytes)).collect();
        assert_eq!(lengths, [(1, 1), (KEPT_BYTES_MAX, 300_000), (1, 1)]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost_or_reordered(
            lines in proptest::collection::vec("[a-c]{0,9}", 0..40), piece in 1_usize..20, lines_max in 1_usize..8, bytes_max in 16_usize..64,
        ) {
            let text = lines.join("\n");
            let found: Vec<String> = portions(text.as_bytes(), piece, lines_max, bytes_max)
                .into_iter().flatten().map(|(text, _)| text).collect();
            let expected: Vec<String> = lines.into_iter().filter(|line| !line.is_empty()).collect();
            proptest::prop_assert_eq!(found, expected);
        }
    }
}
