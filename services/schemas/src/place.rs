//! Where each value of a JSON text stands, so that a mistake can be shown with line and column.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use roomcast_access::yaml::At;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Deepest nesting of a schema's file: what people write has less than twenty.
const DEPTH_MAX: usize = 64;

/// The places of all values, by JSON pointer.
#[derive(Debug, Default)]
pub(crate) struct Places {
    found: HashMap<String, At>,
    /// Members that stand twice in their object, and what is nested too deeply: place and words.
    pub(crate) mistakes: Vec<(At, String)>,
}

/// An object's members in the order of the text, twice those that stand there twice.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<String, &'de RawValue>()? {
                    members.push((Cow::Owned(member.0), member.1));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Collect).map(Members)
    }
}

impl Places {
    /// Finds them; `raw` is the whole text.
    pub(crate) fn of(raw: &RawValue) -> Self {
        let mut places = Self::default();
        let lines = Lines::of(raw.get());
        places.walk(raw, String::new(), 0, &lines);
        places
    }

    /// Where the value at a pointer stands; the nearest value around it, where there is none.
    pub(crate) fn at(&self, pointer: &str) -> At {
        let mut pointer = pointer;
        loop {
            if let Some(at) = self.found.get(pointer) {
                return *at;
            }
            match pointer.rfind('/') {
                Some(cut) => pointer = &pointer[..cut],
                None => return At::default(),
            }
        }
    }

    fn walk(&mut self, raw: &RawValue, pointer: String, depth: usize, lines: &Lines<'_>) {
        let at = lines.at(raw.get());
        if depth > DEPTH_MAX {
            let words = format!("nested deeper than {DEPTH_MAX}");
            self.mistakes.push((at, words));
            return;
        }
        match raw.get().as_bytes().first() {
            Some(b'{') => {
                let members: Vec<_> =
                    serde_json::from_str(raw.get()).map_or_else(|_| Vec::new(), |Members(members)| members);
                for (name, value) in members {
                    let inner = format!("{pointer}/{}", escaped(&name));
                    if self.found.contains_key(&inner) {
                        self.mistakes
                            .push((lines.at(value.get()), format!("{name:?} stands here twice")));
                    }
                    self.walk(value, inner, depth + 1, lines);
                }
            }
            Some(b'[') => {
                let elements: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
                for (index, value) in elements.into_iter().enumerate() {
                    self.walk(value, format!("{pointer}/{index}"), depth + 1, lines);
                }
            }
            _ => {}
        }
        self.found.insert(pointer, at);
    }
}

/// A member's name as a part of a JSON pointer.
pub(crate) fn escaped(name: &str) -> Cow<'_, str> {
    if name.contains(['~', '/']) {
        Cow::Owned(name.replace('~', "~0").replace('/', "~1"))
    } else {
        Cow::Borrowed(name)
    }
}

/// Where the lines of a text begin.
struct Lines<'a> {
    text: &'a str,
    begins: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let after = |(at, _)| at + 1;
        let begins = std::iter::once(0)
            .chain(text.match_indices('\n').map(after))
            .collect();
        Self { text, begins }
    }

    /// The place of a part of the text.
    fn at(&self, part: &str) -> At {
        let offset = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let line = self.begins.partition_point(|begin| *begin <= offset);
        let begin = self.begins.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let column = self
            .text
            .get(begin..offset)
            .map_or(0, |before| before.chars().count())
            + 1;
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        At {
            line: count(line),
            column: count(column),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> Places {
        Places::of(serde_json::from_str::<&RawValue>(text).unwrap())
    }

    #[test]
    fn every_value_has_its_line_and_column() {
        let places = places("{\n  \"é\": [1,\n    {\"a/b\": true}]\n}");
        for (pointer, line, column) in [
            ("", 1, 1),
            ("/é", 2, 8),
            ("/é/0", 2, 9),
            ("/é/1", 3, 5),
            ("/é/1/a~1b", 3, 13),
            ("/é/1/absent/more", 3, 5),
            ("/absent", 1, 1),
        ] {
            assert_eq!(places.at(pointer), At { line, column }, "{pointer}");
        }
        assert_eq!(places.mistakes, []);
    }

    #[test]
    fn what_stands_twice_or_too_deep_is_a_mistake() {
        let twice = places("{\"a\": 1,\n \"a\": 2}");
        assert_eq!(twice.mistakes[0].0, At { line: 2, column: 7 });
        let deep = format!("{}{}", "[".repeat(DEPTH_MAX + 2), "]".repeat(DEPTH_MAX + 2));
        assert_eq!(places(&deep).mistakes.len(), 1);
        let fits = format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
        assert_eq!(places(&fits).mistakes, []);
    }
}
