//! What a part of a file has to be: a text, or a map of known keys.

use std::collections::HashMap;

use super::{Mistakes, Node, Value};

/// The values of a map by their known keys.
pub type Found<'n> = HashMap<&'static str, &'n Node>;

impl Mistakes<'_> {
    /// The known keys of a map with their values; unknown and missing keys become mistakes.
    pub fn fields<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        known: &[&'static str],
        required: &[&str],
    ) -> Option<Found<'n>> {
        let Value::Map(members) = &node.value else {
            self.add(
                node.at,
                format!("expected {what} as a map, found {}", node.value.kind()),
            );
            return None;
        };
        let mut found = HashMap::with_capacity(members.len());
        for (key, value) in members {
            let Some(name) = self.text(key, "a key") else {
                continue;
            };
            match known.iter().find(|known| **known == name) {
                Some(known) => {
                    found.insert(*known, value);
                }
                None => {
                    let message = format!("unknown key {name:?} in {what}");
                    self.unknown(key.at, message, name, known.iter().copied());
                }
            }
        }
        for missing in required.iter().filter(|key| !found.contains_key(**key)) {
            self.add(node.at, format!("{what} needs `{missing}`"));
        }
        Some(found)
    }

    /// The text; anything else becomes a mistake.
    pub fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) => Some(text),
            other => {
                let hint = match other {
                    Value::Whole(_) | Value::Number(_) | Value::Flag(_) => {
                        "; put it in quotes if it is a name"
                    }
                    _ => "",
                };
                self.add(
                    node.at,
                    format!("expected {what} as text, found {}{hint}", other.kind()),
                );
                None
            }
        }
    }
}
