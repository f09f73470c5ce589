//! What the metrics of a shard need of one event: the fields they name, found in one pass over its data.
//!
//! Called once per event by the shard, before any metric looks at it. Nothing is copied but texts with escapes.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// An event as the core sees it. Times are Unix microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// Position in the stream.
    pub seq: u64,
    /// When it was stored.
    pub stored_micros: i64,
    /// Its own time.
    pub time_micros: i64,
    /// Its room.
    pub room: &'a str,
    /// Its audience.
    pub audience: &'a str,
    /// CloudEvents `type`.
    pub kind: &'a str,
    /// CloudEvents `source`.
    pub source: &'a str,
    /// CloudEvents `id`.
    pub id: &'a str,
    /// CloudEvents `subject`.
    pub subject: Option<&'a str>,
    /// `priority`.
    pub priority: &'a str,
    /// `data`, as JSON text.
    pub data: Option<&'a str>,
}

/// An attribute of the event that definitions may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// `type`
    Type,
    /// `source`
    Source,
    /// `subject`
    Subject,
    /// `id`
    Id,
    /// `room`
    Room,
    /// `audience`
    Audience,
    /// `priority`
    Priority,
}

impl Attribute {
    /// All of them by name.
    pub const ALL: [(&'static str, Self); 7] = [
        ("type", Self::Type),
        ("source", Self::Source),
        ("subject", Self::Subject),
        ("id", Self::Id),
        ("room", Self::Room),
        ("audience", Self::Audience),
        ("priority", Self::Priority),
    ];
}

/// What a definition names: an attribute, or a path below `data`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Path {
    /// An attribute.
    Attribute(Attribute),
    /// Members below `data`, at least one.
    Data(Vec<String>),
}

impl Path {
    /// Reads `data.x.y` or the name of an attribute.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((_, attribute)) = Attribute::ALL.into_iter().find(|(name, _)| *name == text) {
            return Some(Self::Attribute(attribute));
        }
        let members: Vec<String> = text
            .strip_prefix("data.")?
            .split('.')
            .map(str::to_owned)
            .collect();
        members
            .iter()
            .all(|name| is_identifier(name))
            .then_some(Self::Data(members))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attribute(attribute) => {
                let name = Attribute::ALL
                    .iter()
                    .find(|(_, a)| a == attribute)
                    .map_or("", |(name, _)| *name);
                f.write_str(name)
            }
            Self::Data(members) => write!(f, "data.{}", members.join(".")),
        }
    }
}

/// A name as CEL has it: a letter or `_`, then letters, digits, `_`.
#[must_use]
pub fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// One field of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field<'a> {
    /// Not there.
    Absent,
    /// null
    Null,
    /// true or false
    Flag(bool),
    /// A number, as written.
    Number(&'a str),
    /// A text.
    Text(Cow<'a, str>),
    /// An object or array.
    Compound,
}

impl<'a> Field<'a> {
    fn of_json(text: &'a str) -> Self {
        match text.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't') => Self::Flag(true),
            Some(b'f') => Self::Flag(false),
            Some(b'{' | b'[') => Self::Compound,
            Some(b'"') => {
                let inner = &text[1..text.len() - 1];
                if inner.contains('\\') {
                    // It was parsed before, so it is valid; a text that is not would be no text.
                    serde_json::from_str(text).map_or(Self::Absent, |owned| Self::Text(Cow::Owned(owned)))
                } else {
                    Self::Text(Cow::Borrowed(inner))
                }
            }
            Some(_) => Self::Number(text),
            None => Self::Absent,
        }
    }
}

/// The paths that the metrics of one shard name, each once.
#[derive(Debug, Default)]
pub struct Paths {
    attributes: Vec<(Attribute, usize)>,
    data: Node,
    list: Vec<Path>,
}

#[derive(Debug, Default)]
struct Node {
    leaf: Option<usize>,
    children: Vec<(String, Node)>,
}

impl Paths {
    /// The place of `path` in a row; added if it is new.
    pub fn place(&mut self, path: &Path) -> usize {
        if let Some(place) = self.list.iter().position(|known| known == path) {
            return place;
        }
        let place = self.list.len();
        self.list.push(path.clone());
        match path {
            Path::Attribute(attribute) => self.attributes.push((*attribute, place)),
            Path::Data(members) => {
                let mut node = &mut self.data;
                for name in members {
                    let at = match node.children.iter().position(|(known, _)| known == name) {
                        Some(at) => at,
                        None => {
                            node.children.push((name.clone(), Node::default()));
                            node.children.len() - 1
                        }
                    };
                    node = &mut node.children[at].1;
                }
                node.leaf = Some(place);
            }
        }
        place
    }

    /// The fields of an event, in the order of their places.
    #[must_use]
    pub fn row<'a>(&self, event: &Event<'a>) -> Vec<Field<'a>> {
        let mut row = vec![Field::Absent; self.list.len()];
        for (attribute, place) in &self.attributes {
            let text = match attribute {
                Attribute::Type => Some(event.kind),
                Attribute::Source => Some(event.source),
                Attribute::Subject => event.subject,
                Attribute::Id => Some(event.id),
                Attribute::Room => Some(event.room),
                Attribute::Audience => Some(event.audience),
                Attribute::Priority => Some(event.priority),
            };
            row[*place] = text.map_or(Field::Absent, |text| Field::Text(Cow::Borrowed(text)));
        }
        if let Some(data) = event.data {
            fill(&self.data, data, &mut row);
        }
        row
    }
}

fn fill<'a>(node: &Node, text: &'a str, row: &mut [Field<'a>]) {
    if let Some(place) = node.leaf {
        row[place] = Field::of_json(text);
    }
    if !node.children.is_empty() && text.starts_with('{') {
        let mut reader = serde_json::Deserializer::from_str(text);
        // Ingest stored valid JSON; of anything else the fields read so far stand and the rest is absent.
        let _ = reader.deserialize_map(Members { node, row });
    }
}

struct Members<'n, 'r, 'a> {
    node: &'n Node,
    row: &'r mut [Field<'a>],
}

impl<'a> Visitor<'a> for Members<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(wanted) = map.next_key_seed(Name(self.node))? {
            match wanted {
                Some(child) => fill(child, map.next_value::<&'a RawValue>()?.get(), self.row),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Finds the child that a member's name means, without copying the name.
struct Name<'n>(&'n Node);

impl<'n, 'de> DeserializeSeed<'de> for Name<'n> {
    type Value = Option<&'n Node>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'n> Visitor<'_> for Name<'n> {
    type Value = Option<&'n Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self
            .0
            .children
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, node)| node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pass_finds_all_fields() {
        let mut paths = Paths::default();
        let names = [
            "data.a",
            "data.b.c",
            "data.b",
            "type",
            "subject",
            "data.x.y.z",
            "data.t",
            "data.\\",
        ];
        for name in &names[..7] {
            paths.place(&Path::parse(name).unwrap());
        }
        assert_eq!(Path::parse(names[7]), None);
        assert_eq!(paths.place(&Path::parse("data.b.c").unwrap()), 1);
        let data: Box<RawValue> = serde_json::from_str(
            r#"{"z":[{"a":1}],"a":1.50,"b":{"q":0,"c":null},"x":{"y":7},"\u0074":"\u00e9\n"}"#,
        )
        .unwrap();
        let event = Event {
            seq: 1,
            stored_micros: 0,
            time_micros: 0,
            room: "r",
            audience: "all",
            kind: "booking:new",
            source: "s",
            id: "i",
            subject: None,
            priority: "medium",
            data: Some(data.get()),
        };
        let expected = [
            Field::Number("1.50"),
            Field::Null,
            Field::Compound,
            Field::Text("booking:new".into()),
            Field::Absent,
            Field::Absent,
            Field::Text("é\n".into()),
        ];
        assert_eq!(paths.row(&event), expected);
    }

    #[test]
    fn paths_follow_the_grammar() {
        for (text, good) in [
            ("data.x", true),
            ("type", true),
            ("data", false),
            ("data.", false),
            ("data.a-b", false),
            ("data.1", false),
            ("data.a.b_2", true),
            ("Data.x", false),
            ("time", false),
        ] {
            assert_eq!(Path::parse(text).is_some(), good, "{text}");
        }
    }
}
