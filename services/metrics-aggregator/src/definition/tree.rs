//! A YAML file as a tree in which every key and value knows its place, and the mistakes found in it.
//!
//! Read as a tree first and understood afterwards, so that one mistake does not hide the next.

use std::fmt;

use roomcast_access::Mistake;
use serde::de::{self, Deserialize, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

/// Largest definitions file: some thousand metrics.
const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Deepest nesting; a well-formed file needs 6.
const DEPTH_MAX: usize = 24;
/// Most mistakes reported at once; whoever has more mends these first.
const MISTAKES_MAX: usize = 100;

/// A place in the file, counted from 1; 0 where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct At {
    pub(super) line: u64,
    pub(super) column: u64,
}

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: At,
    pub(super) value: Value,
}

/// What stands there.
#[derive(Debug)]
pub(super) enum Value {
    Nothing,
    Flag(bool),
    Whole(i64),
    Number,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Value {
    /// What it is, in an operator's words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Flag(_) => "true or false",
            Self::Whole(_) | Self::Number => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// Reads YAML text.
///
/// # Errors
/// The place and the reason, if it is not YAML, has a key twice, or is too large or too deep.
pub(super) fn read(text: &str) -> Result<Node, (At, String)> {
    if text.len() > FILE_BYTES_MAX {
        return Err((At::default(), "the file is larger than 1 MiB".to_owned()));
    }
    let mut options = serde_saphyr::Options::default();
    options.strict_booleans = true;
    options.with_snippet = false;
    if let Some(budget) = &mut options.budget {
        budget.max_depth = DEPTH_MAX;
        budget.max_nodes = FILE_BYTES_MAX;
    }
    options.alias_limits.max_total_replayed_events = 100_000;
    let root: Spanned<Value> = serde_saphyr::from_str_with_options(text, options)
        .map_err(|e| (e.location().map(place).unwrap_or_default(), explain(&e)))?;
    Ok(node(root))
}

/// The error's words without the place, which is told separately, on one line.
fn explain(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    // Advice to programmers, not to the author of the file.
    let text = text.split(", set DuplicateKeyPolicy").next().unwrap_or(text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn place(location: Location) -> At {
    At {
        line: location.line(),
        column: location.column(),
    }
}

fn node(spanned: Spanned<Value>) -> Node {
    Node {
        at: place(spanned.referenced),
        value: spanned.value,
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: de::Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_some<D: de::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Flag(flag))
    }

    fn visit_i64<E>(self, whole: i64) -> Result<Value, E> {
        Ok(Value::Whole(whole))
    }

    fn visit_u64<E>(self, whole: u64) -> Result<Value, E> {
        Ok(i64::try_from(whole).map_or(Value::Number, Value::Whole))
    }

    fn visit_i128<E>(self, _: i128) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(node(item));
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some((name, value)) = members.next_entry()? {
            map.push((node(name), node(value)));
        }
        Ok(Value::Map(map))
    }
}

/// Collects mistakes, so that all are reported at once.
pub(super) struct Mistakes<'a> {
    file: &'a str,
    text: &'a str,
    list: Vec<Mistake>,
}

impl<'a> Mistakes<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            text,
            list: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, at: At, message: impl Into<String>) {
        self.push(at, message.into(), None);
    }

    /// Adds a mistake about a name; the nearest of `known`, if near enough, becomes the suggestion.
    pub(super) fn unknown<'k>(
        &mut self,
        at: At,
        message: String,
        name: &str,
        known: impl IntoIterator<Item = &'k str>,
    ) {
        self.push(at, message, nearest(name, known).map(str::to_owned));
    }

    /// Adds a mistake inside a text. `offset` counts characters of the text; the place is exact where the text stands in the
    /// file as it is (bare or in quotes, without escapes), else that of the whole text.
    pub(super) fn inside(&mut self, at: At, text: &str, offset: usize, message: &str) {
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
            let file = self.file.to_owned();
            self.list.push(Mistake {
                file,
                line: at.line,
                column: at.column,
                message,
                suggestion,
            });
        }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// All of them, in the order of the file.
    pub(super) fn finish(mut self) -> Vec<Mistake> {
        self.list.sort_by_key(|mistake| (mistake.line, mistake.column));
        self.list.dedup();
        self.list
    }
}

/// The known name that differs from `name` in about a third of its letters, the nearest if there are several.
fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let allowed = name.chars().count().div_ceil(3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| {
            (
                distance(&name.to_lowercase(), &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, remove, replace or swap with their neighbour. Names beyond 64 letters count as far from everything, which
/// bounds the work.
fn distance(from: &str, to: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (from.chars().take(65).collect(), to.chars().take(65).collect());
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
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
