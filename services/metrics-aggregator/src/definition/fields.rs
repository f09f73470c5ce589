//! Keys, texts, counts and durations: what every part of a file is read with.

use roomcast_access::yaml::{At, Node, Value};

use super::read::{DAY, HOUR, LIST_MAX, MINUTE, Reader, SECOND};
use crate::engine::decimal::Decimal;

impl Reader<'_> {
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
                .filter_map(|item| Some((item.at, self.mistakes.text(item, what)?.to_owned())))
                .collect(),
            _ => self
                .mistakes
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

    /// A number from 0 to 100.
    pub(super) fn percent(&mut self, node: &Node) -> Option<Decimal> {
        let number = match &node.value {
            Value::Whole(whole) => Decimal::parse(&whole.to_string()).ok(),
            Value::Number(text) | Value::Text(text) => Decimal::parse(text).ok(),
            _ => None,
        };
        let found = number.filter(|number| (Decimal::ZERO..=Decimal::from_count(100)).contains(number));
        if found.is_none() {
            self.mistakes.add(node.at, "expected a number from 0 to 100");
        }
        found
    }

    /// A duration such as `250ms`, `30s`, `10m`, `24h`, `7d`, in microseconds.
    pub(super) fn duration(&mut self, node: &Node, min: i64, max: i64) -> Option<i64> {
        let text = self.mistakes.text(node, "a duration such as 10m")?;
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
