//! What counting needs of a user's record: which notifications are read, by name, and how the user wants to be told.

use std::fmt;

use bytes::Bytes;
use roomcast_proto::readstate::{KeptMark, Level};
use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::notes::Name;

/// A record as ingest keeps it, read without keeping any id.
#[derive(Debug, Default, Deserialize)]
pub struct Record {
    /// Up to which position of the bucket this is what it holds.
    #[serde(skip)]
    pub at: u64,
    /// Grows with each change; begins anew where an operator took the record away.
    pub version: u64,
    /// What is read.
    #[serde(default)]
    pub marks: ReadNames,
    /// JSON; `None`: nothing was ever set.
    #[serde(default)]
    pub preferences: Option<Box<RawValue>>,
}

impl Record {
    /// What a key of the bucket holds; of most users nothing is kept, and of some nothing any more. `None`: it cannot be read, and somebody
    /// has to look at it.
    #[must_use]
    pub fn read(held: Option<&Bytes>) -> Option<Self> {
        let Some(held) = held.filter(|held| !held.is_empty()) else {
            return Some(Self::default());
        };
        let read = serde_json::from_slice(held);
        read.inspect_err(
            |error| tracing::error!(%error, "what is kept of a user's marks cannot be read: {error}"),
        )
        .ok()
    }
}

/// Names of notifications that are read or archived, ascending.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReadNames(pub Box<[Name]>);

impl<'de> Deserialize<'de> for ReadNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Marks;
        impl<'de> Visitor<'de> for Marks {
            type Value = ReadNames;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("marks by id")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ReadNames, A::Error> {
                let mut read = Vec::new();
                while let Some(id) = map.next_key_seed(ByName)? {
                    let mark: KeptMark = map.next_value()?;
                    if mark.level >= Level::Read {
                        read.push(id);
                    }
                }
                read.sort_unstable();
                Ok(ReadNames(read.into()))
            }
        }
        deserializer.deserialize_map(Marks)
    }
}

/// Reads a text as its name.
struct ByName;

impl<'de> DeserializeSeed<'de> for ByName {
    type Value = Name;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Name, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for ByName {
    type Value = Name;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id")
    }
    fn visit_str<E>(self, text: &str) -> Result<Name, E> {
        Ok(Name::of(text))
    }
}

#[cfg(test)]
mod tests {
    use roomcast_proto::readstate::{Marking, ReadState};

    use super::*;

    #[test]
    fn what_ingest_keeps_is_read_by_name() {
        let mut state = ReadState::default();
        for (id, level) in [("a", Level::Seen), ("b\"", Level::Read), ("c", Level::Archived)] {
            let id = id.to_owned();
            state.mark(level, &[Marking { id, at: 5 }]);
        }
        let read: Record = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
        let mut names = [Name::of("b\""), Name::of("c")];
        names.sort_unstable();
        assert_eq!((read.version, &*read.marks.0), (3, &names[..]));
        assert!(read.preferences.is_none());
        let set = serde_json::from_str(r#"{"sounds":false}"#).unwrap();
        state.prefer(&set).unwrap();
        let read: Record = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
        assert_eq!(read.preferences.unwrap().get(), r#"{"sounds":false}"#);
        let empty: Record = serde_json::from_str(r#"{"version":0,"marks":{}}"#).unwrap();
        assert_eq!(empty.marks, ReadNames::default());
    }

    #[test]
    fn nothing_is_an_empty_record_and_what_cannot_be_read_is_none() {
        let version = |held: Option<&'static str>| {
            let held = held.map(|held| Bytes::from_static(held.as_bytes()));
            Record::read(held.as_ref()).map(|record| record.version)
        };
        let rows = [
            (None, Some(0)),
            // What an operator's tool leaves behind of a key that was deleted.
            (Some(""), Some(0)),
            (Some(r#"{"version":4,"marks":{}}"#), Some(4)),
            (Some("[]"), None),
        ];
        for (held, expected) in rows {
            assert_eq!(version(held), expected, "{held:?}");
        }
    }
}
