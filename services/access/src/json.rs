//! JSON objects from strangers, read without the freedoms that make two readers see two things.
//!
//! Used for the header and the claims of a token and for key files. A member that appears twice is refused at any
//! depth, because readers disagree on which of the two counts.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads one JSON object and nothing after it.
///
/// # Errors
/// As [`members`].
pub(crate) fn object(bytes: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    members(bytes, &[]).map(|read| read.others)
}

/// The members of an object.
pub(crate) struct Members<const N: usize> {
    /// Those that were asked for, in the order of their names.
    pub(crate) named: [Option<Value>; N],
    /// All others.
    pub(crate) others: Map<String, Value>,
}

/// The same, with a place of its own for each member that is asked for: no tree is built of them, nor a name kept.
///
/// Nesting is limited to 128 levels and numbers to what a double holds, both by the reader underneath.
///
/// # Errors
/// Not UTF-8, not JSON, not an object, something after it, or a member twice at any depth.
pub(crate) fn members<const N: usize>(
    bytes: &[u8],
    names: &[&str; N],
) -> Result<Members<N>, serde_json::Error> {
    // Once for all, instead of string by string.
    let text = std::str::from_utf8(bytes).map_err(|_| de::Error::custom("not UTF-8"))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = reader.deserialize_map(Named(names))?;
    reader.end()?;
    Ok(read)
}

fn twice<E: de::Error>() -> E {
    de::Error::custom("a member appears twice")
}

struct Named<'n, const N: usize>(&'n [&'n str; N]);

impl<'de, const N: usize> Visitor<'de> for Named<'_, N> {
    type Value = Members<N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Members<N>, A::Error> {
        let mut read = Members {
            named: [const { None }; N],
            others: Map::new(),
        };
        while let Some(name) = members.next_key_seed(Place(self.0))? {
            let value = |members: &mut A| members.next_value_seed(Strict);
            match name {
                Ok(at) if read.named[at].is_some() => return Err(twice()),
                Ok(at) => read.named[at] = Some(value(&mut members)?),
                Err(name) if read.others.contains_key(&name) => return Err(twice()),
                Err(name) => drop(read.others.insert(name, value(&mut members)?)),
            }
        }
        Ok(read)
    }
}

/// Finds a name among those that are asked for; else it is the name itself.
struct Place<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Result<usize, String>;

    fn deserialize<D: de::Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Place<'_> {
    type Value = Result<usize, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let at = self.0.iter().position(|asked| *asked == name);
        Ok(at.ok_or_else(|| name.to_owned()))
    }
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| de::Error::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Strict)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if map.contains_key(&name) {
                return Err(twice());
            }
            let value = members.next_value_seed(Strict)?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::{members, object};

    #[test]
    fn only_plain_objects_pass() {
        let deep = format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200));
        let rows: [(&[u8], bool); 15] = [
            (b"{}", true),
            (b" {\"a\":[1,-2,0.5,\"x\",null,true,{\"b\":1}]} ", true),
            (b"{\"a\":1,\"b\":{\"a\":1}}", true),
            (b"{\"a\":1,\"a\":1}", false),
            (b"{\"a\":1,\"\\u0061\":1}", false),
            (b"{\"x\":{\"a\":1,\"a\":2}}", false),
            (b"{\"x\":[{\"a\":1,\"a\":2}]}", false),
            (b"[]", false),
            (b"null", false),
            (b"", false),
            (b"{} {}", false),
            (b"{\"a\":1e400}", false),
            (b"{\"a\":NaN}", false),
            (b"{\"a\":\"\xff\"}", false),
            (deep.as_bytes(), false),
        ];
        for (text, good) in rows {
            assert_eq!(object(text).is_ok(), good, "{}", String::from_utf8_lossy(text));
            let some = members(text, &["a", "x"]);
            assert_eq!(some.is_ok(), good, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn who_asks_by_name_gets_the_same_members() {
        let text = br#"{"c":[1,{"a":2}],"\u0061":"x\n","b":null,"d":{"a":1}}"#;
        let mut all = object(text).unwrap();
        let some = members(text, &["a", "b", "e"]).unwrap();
        let named = ["a", "b", "e"].map(|name| all.remove(name));
        assert_eq!((some.named, some.others), (named, all));
    }
}
