//! A YAML file of an operator as a tree in which every key and value knows its place, and the mistakes found in it.
//!
//! Read as a tree first and understood afterwards, so that one mistake does not hide the next. The policy, the list of issuers, the
//! definitions of metrics and the mapping of a database are read with it.

mod mistake;
mod shape;

use std::fmt;

use serde::de::{self, Deserialize, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

pub(crate) use mistake::distance;
pub use mistake::{At, MISTAKES_MAX, Mistake, Mistakes, nearest};
pub use shape::Found;

/// Largest file in bytes: some thousand rooms or metrics.
const FILE_BYTES_MAX: usize = 1024 * 1024;
/// Deepest nesting; a well-formed policy needs 7.
const DEPTH_MAX: usize = 24;

/// A value and where it stands.
#[derive(Debug)]
pub struct Node {
    /// Where.
    pub at: At,
    /// What.
    pub value: Value,
}

/// What stands there.
#[derive(Debug)]
pub enum Value {
    /// Nothing, or null.
    Nothing,
    /// true or false.
    Flag(bool),
    /// A whole number.
    Whole(i64),
    /// Another number, as it is written shortest.
    Number(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Keys and values in the order of the file.
    Map(Vec<(Node, Node)>),
}

impl Value {
    /// What it is, in an operator's words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Flag(_) => "true or false",
            Self::Whole(_) | Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// Reads a file, and begins the list of what is wrong with what it says. `file` is only the name that mistakes carry.
///
/// # Errors
/// The one mistake there is, if it is not YAML, has a key twice, or is too large or too deep.
pub fn read<'a>(text: &'a str, file: &'a str) -> Result<(Node, Mistakes<'a>), Vec<Mistake>> {
    let mut mistakes = Mistakes::new(file, text);
    match tree(text) {
        Ok(root) => Ok((root, mistakes)),
        Err((at, message)) => {
            mistakes.add(at, message);
            Err(mistakes.finish())
        }
    }
}

fn tree(text: &str) -> Result<Node, (At, String)> {
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
        Ok(i64::try_from(whole).map_or_else(|_| Value::Number(whole.to_string()), Value::Whole))
    }

    fn visit_i128<E>(self, whole: i128) -> Result<Value, E> {
        Ok(Value::Number(whole.to_string()))
    }

    fn visit_u128<E>(self, whole: u128) -> Result<Value, E> {
        Ok(Value::Number(whole.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Number(number.to_string()))
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
