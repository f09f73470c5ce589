//! Keys, texts, counts and durations: what every part of a file is read with.

use std::collections::HashMap;

use roomcast_access::yaml::{At, Node, Value};

use super::read::{DAY, Found, HOUR, LIST_MAX, MINUTE, Reader, SECOND};

impl Reader<'_> {
    /// The known keys of a map with their values; unknown and missing keys become mistakes.
    pub(super) fn fields<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        known: &[&'static str],
        required: &[&str],
    ) -> Option<Found<'n>> {
        let Value::Map(members) = &node.value else {
            self.mistakes.add(
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
                    self.mistakes
                        .unknown(key.at, message, name, known.iter().copied());
                }
            }
        }
        for missing in required.iter().filter(|key| !found.contains_key(**key)) {
            self.mistakes.add(node.at, format!("{what} needs `{missing}`"));
        }
        Some(found)
    }

    pub(super) fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) => Some(text),
            other => {
                let hint = match other {
                    Value::Whole(_) | Value::Number | Value::Flag(_) => "; put it in quotes if it is a name",
                    _ => "",
                };
                self.mistakes.add(
                    node.at,
                    format!("expected {what} as text, found {}{hint}", other.kind()),
                );
                None
            }
        }
    }

    /// One text, or a list of texts.
    pub(super) fn texts(&mut self, node: &Node, what: &str) -> Vec<(At, String)> {
        match &node.value {
            Value::List(items) if items.is_empty() || items.len() > LIST_MAX => {
                self.mistakes.add(
                    node.at,
                    format!("expected 1 to {LIST_MAX} entries, found {}", items.len()),
                );
                Vec::new()
            }
            Value::List(items) => items
                .iter()
                .filter_map(|item| Some((item.at, self.text(item, what)?.to_owned())))
                .collect(),
            _ => self
                .text(node, what)
                .map(|text| (node.at, text.to_owned()))
                .into_iter()
                .collect(),
        }
    }

    pub(super) fn count(&mut self, node: &Node, max: i64) -> Option<usize> {
        match node.value {
            Value::Whole(count) if (1..=max).contains(&count) => usize::try_from(count).ok(),
            _ => {
                self.mistakes
                    .add(node.at, format!("expected a whole number from 1 to {max}"));
                None
            }
        }
    }

    /// A duration such as `250ms`, `30s`, `10m`, `24h`, `7d`, in microseconds.
    pub(super) fn duration(&mut self, node: &Node, min: i64, max: i64) -> Option<i64> {
        let text = self.text(node, "a duration such as 10m")?;
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let unit = match &text[digits..] {
            "ms" => Some(1_000),
            "s" => Some(SECOND),
            "m" => Some(MINUTE),
            "h" => Some(HOUR),
            "d" => Some(DAY),
            _ => None,
        };
        let micros = text[..digits]
            .parse::<i64>()
            .ok()
            .zip(unit)
            .and_then(|(count, unit)| count.checked_mul(unit));
        match micros {
            Some(micros) if (min..=max).contains(&micros) => Some(micros),
            Some(_) => {
                let message = format!("{text} is outside {} to {}", show(min), show(max));
                self.mistakes.add(node.at, message);
                None
            }
            None => {
                self.mistakes.add(
                    node.at,
                    format!("{text:?} is not a duration such as 250ms, 30s, 10m, 24h or 7d"),
                );
                None
            }
        }
    }
}

fn show(micros: i64) -> String {
    let units = [(DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (SECOND, "s")];
    let unit = units
        .into_iter()
        .find(|(unit, _)| micros >= *unit && micros % unit == 0);
    unit.map_or_else(
        || format!("{}ms", micros / 1_000),
        |(unit, name)| format!("{}{name}", micros / unit),
    )
}
