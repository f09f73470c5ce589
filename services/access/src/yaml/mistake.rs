//! Mistakes in a file: where they are, what they are, and what was probably meant.

use std::fmt;

/// Most mistakes reported at once; whoever has more mends these first.
pub const MISTAKES_MAX: usize = 100;

/// One mistake in a file that an operator wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file, as the caller named it.
    pub file: String,
    /// Line, counted from 1; 0 when the mistake has no place, such as an empty file.
    pub line: u64,
    /// Column in characters, counted from 1; 0 when the mistake has no place.
    pub column: u64,
    /// What is wrong.
    pub message: String,
    /// The name that was probably meant.
    pub suggestion: Option<String>,
}

/// `policy.yaml:3:5: unknown key "inherit" in a role; did you mean "inherits"?`
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => write!(f, "{}: {}", self.file, self.message)?,
            (line, column) => write!(f, "{}:{line}:{column}: {}", self.file, self.message)?,
        }
        self.suggestion
            .as_ref()
            .map_or(Ok(()), |meant| write!(f, "; did you mean {meant:?}?"))
    }
}

impl std::error::Error for Mistake {}

/// A place in the file, counted from 1; 0 where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct At {
    /// Line.
    pub line: u64,
    /// Column in characters.
    pub column: u64,
}

/// Collects mistakes, so that all are reported at once.
#[derive(Debug)]
pub struct Mistakes<'a> {
    file: &'a str,
    text: &'a str,
    list: Vec<Mistake>,
}

impl<'a> Mistakes<'a> {
    /// None so far. `file` is only the name that mistakes carry, `text` what stands in it.
    #[must_use]
    pub fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            text,
            list: Vec::new(),
        }
    }

    /// Adds a mistake.
    pub fn add(&mut self, at: At, message: impl Into<String>) {
        self.push(at, message.into(), None);
    }

    /// Adds a mistake about a name; the nearest of `known`, if near enough, becomes the suggestion.
    pub fn unknown<'k>(
        &mut self,
        at: At,
        message: impl Into<String>,
        name: &str,
        known: impl IntoIterator<Item = &'k str>,
    ) {
        let suggestion = nearest(name, known).map(str::to_owned);
        self.push(at, message.into(), suggestion);
    }

    /// Adds a mistake inside a text. `offset` counts characters of the text; the place is exact where the text stands in the
    /// file as it is (bare or in quotes, without escapes), else that of the whole text.
    pub fn inside(&mut self, at: At, text: &str, offset: usize, message: &str) {
        let line = usize::try_from(at.line.saturating_sub(1))
            .ok()
            .and_then(|n| self.text.lines().nth(n));
        let before = usize::try_from(at.column.saturating_sub(1)).unwrap_or(0);
        let rest: String = line
            .map(|line| line.chars().skip(before).collect())
            .unwrap_or_default();
        let skipped = if rest.starts_with(text) {
            Some(0)
        } else {
            rest.get(1..)
                .is_some_and(|rest| rest.starts_with(text))
                .then_some(1)
        };
        match skipped {
            Some(skipped) => {
                let column = at.column + skipped + u64::try_from(offset).unwrap_or(0);
                self.add(At { column, ..at }, message);
            }
            None => self.add(at, format!("character {}: {message}", offset + 1)),
        }
    }

    fn push(&mut self, at: At, message: String, suggestion: Option<String>) {
        if self.list.len() < MISTAKES_MAX {
            self.list.push(Mistake {
                file: self.file.to_owned(),
                line: at.line,
                column: at.column,
                message,
                suggestion,
            });
        }
    }

    /// Whether none was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many were found.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// All of them, in the order of the file.
    #[must_use]
    pub fn finish(mut self) -> Vec<Mistake> {
        self.list.sort_by_key(|mistake| (mistake.line, mistake.column));
        self.list.dedup();
        self.list
    }
}

/// The known name that differs from `name` in about a third of its letters, the nearest if there are several.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = name.chars().count().div_ceil(3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be inserted, removed, replaced or swapped with their neighbour, letter case aside.
/// Names beyond 64 letters count as far from everything, which bounds the work.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let lower = |text: &str| text.chars().flat_map(char::to_lowercase).collect::<Vec<_>>();
    let (a, b) = (lower(a), lower(b));
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut rows: Vec<Vec<usize>> = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn near_names_are_suggested_and_far_ones_are_not() {
        let known = ["inherits", "permissions", "subscribe", "publish", "staff"];
        for (name, expected) in [
            ("inherit", Some("inherits")),
            ("Permissions", Some("permissions")),
            ("subcsribe", Some("subscribe")),
            ("pubish", Some("publish")),
            ("stuff", Some("staff")),
            ("colour", None),
            ("", None),
            ("xyz", None),
        ] {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
    }
}
