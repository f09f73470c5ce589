//! Lines, and tables as lines.

use crate::terminal::{Colour, paint};

/// Between two columns.
const GAP: &str = "  ";
/// Columns whose cells are words and begin on the left, beside the first.
const WORDS: [&str; 4] = ["STATE", "WHY", "GATEWAY", "USER"];

/// How a line is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Title,
    Head,
    Warn,
    Bad,
}

/// A line without colour, and how it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) tone: Tone,
}

impl Line {
    pub(super) fn plain(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            tone: Tone::Plain,
        }
    }

    pub(super) fn title(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            tone: Tone::Title,
        }
    }

    /// At most so many characters, the last of a line that is cut an ellipsis; with colour where there is some.
    pub(super) fn painted(&self, columns: usize, coloured: bool) -> String {
        let mut text = self.text.clone();
        if text.chars().count() > columns {
            text = text.chars().take(columns.saturating_sub(1)).collect();
            text.push('…');
        }
        match self.tone {
            Tone::Plain => text,
            Tone::Title => paint(coloured, Colour::Bold, &text),
            Tone::Head => paint(coloured, Colour::Dim, &text),
            Tone::Warn => paint(coloured, Colour::Yellow, &text),
            Tone::Bad => paint(coloured, Colour::Red, &text),
        }
    }
}

/// A head and rows of as many cells.
#[derive(Debug)]
pub(super) struct Table {
    head: &'static [&'static str],
    rows: Vec<(Tone, Vec<String>)>,
}

impl Table {
    pub(super) fn new(head: &'static [&'static str]) -> Self {
        Self {
            head,
            rows: Vec::new(),
        }
    }

    pub(super) fn row(&mut self, row: (Tone, Vec<String>)) {
        self.rows.push(row);
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Every column as wide as its widest cell; words on the left, numbers on the right.
    pub(super) fn lines(&self) -> Vec<Line> {
        let widest = |at: usize| {
            let cells = self.rows.iter().filter_map(|(_, cells)| cells.get(at));
            let cells = cells.map(|cell| cell.chars().count());
            cells
                .chain(self.head.get(at).map(|name| name.chars().count()))
                .max()
        };
        let widths: Vec<usize> = (0..self.head.len()).filter_map(widest).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>, tone| {
            let cells = cells.zip(&widths).zip(self.head).enumerate();
            let padded = cells.map(|(at, ((cell, width), name))| {
                if at == 0 || WORDS.contains(name) {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
            let text = padded.collect::<Vec<_>>().join(GAP).trim_end().to_owned();
            Line { text, tone }
        };
        let head = line(&mut self.head.iter().copied(), Tone::Head);
        let rows = self
            .rows
            .iter()
            .map(|(tone, cells)| line(&mut cells.iter().map(String::as_str), *tone));
        std::iter::once(head).chain(rows).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest() {
        let mut table = Table::new(&["NAME", "STATE", "N/s"]);
        table.row((Tone::Plain, vec!["a".into(), "ready".into(), "1,000".into()]));
        table.row((Tone::Bad, vec!["a long ü one".into(), "x".into(), "–".into()]));
        let lines = table.lines();
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "NAME          STATE    N/s",
                "a             ready  1,000",
                "a long ü one  x          –",
            ]
        );
        let tones: Vec<Tone> = lines.iter().map(|line| line.tone).collect();
        assert_eq!(tones, [Tone::Head, Tone::Plain, Tone::Bad]);
    }

    #[test]
    fn a_line_is_cut_before_it_is_painted() {
        let line = Line {
            text: "größer".to_owned(),
            tone: Tone::Bad,
        };
        assert_eq!(line.painted(6, false), "größer");
        assert_eq!(line.painted(4, false), "grö…");
        assert_eq!(line.painted(4, true), "\x1b[31mgrö…\x1b[0m");
    }
}
