//! JSON objects from strangers, read without the freedoms that make two readers see two things.
//!
//! Used for the header and the claims of a token and for key files. A member that appears twice is refused at any
//! depth, because readers disagree on which of the two counts.

use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads one JSON object and nothing after it.
///
/// Nesting is limited to 128 levels and numbers to what a double holds, both by the reader underneath.
///
/// # Errors
/// Not UTF-8, not JSON, not an object, something after it, or a member twice at any depth.
pub(crate) fn object(bytes: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict.deserialize(&mut reader)?;
    reader.end()?;
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(de::Error::custom("expected an object")),
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
                return Err(de::Error::custom("a member appears twice"));
            }
            let value = members.next_value_seed(Strict)?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::object;

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
        }
    }
}
