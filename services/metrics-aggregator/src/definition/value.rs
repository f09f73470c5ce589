//! `value`: what is computed, as written.

use roomcast_access::yaml::{Node, Value};

use super::parts::place;
use super::read::{DAY, HOUR, MINUTE, Reader, SECOND};
use super::{Aggregate, STEPS_MAX, Window};
use crate::engine::predicate::{self, Expr};
use crate::engine::row::Path;

/// Makes an aggregate of a field's place.
type OfField = fn(usize) -> Aggregate;

const SUPPORTED: &str = "there are count(), rate(minute), active(data.user, 15m), gauge(data.id, data.status == \"open\"), top(5, \
     data.category), and sum, avg, min, max, first, last, distinct, p50, p90, p95 and p99 of a field";
const OF_FIELD: [(&str, OfField); 11] = [
    ("sum", Aggregate::Sum),
    ("avg", Aggregate::Avg),
    ("min", Aggregate::Min),
    ("max", Aggregate::Max),
    ("first", Aggregate::First),
    ("last", Aggregate::Last),
    ("distinct", Aggregate::Distinct),
    ("p50", |place| Aggregate::Percentile(place, 50)),
    ("p90", |place| Aggregate::Percentile(place, 90)),
    ("p95", |place| Aggregate::Percentile(place, 95)),
    ("p99", |place| Aggregate::Percentile(place, 99)),
];
const PER: [(&str, i64); 4] = [
    ("second", SECOND),
    ("minute", MINUTE),
    ("hour", HOUR),
    ("day", DAY),
];

/// Most keys that a top shows.
const TOP_MAX: usize = 100;

/// A value, understood.
pub(super) struct Valued {
    pub(super) aggregate: Aggregate,
    /// The condition of a gauge.
    pub(super) holds: Option<Expr>,
    /// The window that comes with it.
    pub(super) window: Option<Window>,
}

impl From<Aggregate> for Valued {
    fn from(aggregate: Aggregate) -> Self {
        Self {
            aggregate,
            holds: None,
            window: None,
        }
    }
}

impl Reader<'_> {
    pub(super) fn value(&mut self, node: &Node, paths: &mut Vec<Path>) -> Option<Valued> {
        let text = self.mistakes.text(node, "a value such as sum(data.amount)")?;
        let Some((name, rest)) = text.split_once('(') else {
            self.mistakes.add(
                node.at,
                format!("expected a function, found {text:?}; {SUPPORTED}"),
            );
            return None;
        };
        let Some(argument) = rest.trim_end().strip_suffix(')').map(str::trim) else {
            self.mistakes
                .add(node.at, format!("{text:?} has no closing parenthesis"));
            return None;
        };
        let of_field = OF_FIELD.iter().find(|(known, _)| *known == name.trim());
        match (name.trim(), argument) {
            ("count", "") => Some(Aggregate::Count.into()),
            ("count", _) => {
                self.mistakes.add(
                    node.at,
                    "count() takes no field; use `where: has(..)` to count events that have one",
                );
                None
            }
            ("rate", unit) => {
                let per = PER.iter().find(|(known, _)| *known == unit);
                if per.is_none() {
                    let message = format!("rate takes second, minute, hour or day, not {unit:?}");
                    let known = PER.iter().map(|(known, _)| *known);
                    self.mistakes.unknown(node.at, message, unit, known);
                }
                per.map(|(_, micros)| Aggregate::Rate(*micros).into())
            }
            ("active", rest) => self.active(node, rest, paths),
            ("gauge", _) => {
                let before = text.len() - rest.len();
                self.gauge(node, text, before, paths)
            }
            (_, field) if of_field.is_some() => {
                let place = self.field(node, field, paths)?;
                of_field.map(|(_, aggregate)| aggregate(place).into())
            }
            ("top", rest) => {
                let written = rest.split_once(',').map(|(n, field)| (n.trim().parse(), field));
                let Some((Ok(n @ 1..=TOP_MAX), field)) = written else {
                    let message =
                        format!("top takes a number from 1 to {TOP_MAX} and a field: top(5, data.category)");
                    self.mistakes.add(node.at, message);
                    return None;
                };
                let place = self.field(node, field.trim(), paths)?;
                Some(Aggregate::Top(place, n).into())
            }
            (name, _) => {
                let message = format!("no aggregate {name:?}; {SUPPORTED}");
                let more = ["count", "rate", "active", "gauge", "top"];
                let known = OF_FIELD.iter().map(|(known, _)| *known).chain(more);
                self.mistakes.unknown(node.at, message, name, known);
                None
            }
        }
    }

    fn field(&mut self, node: &Node, field: &str, paths: &mut Vec<Path>) -> Option<usize> {
        let path = Path::parse(field);
        if path.is_none() {
            self.mistakes
                .add(node.at, format!("{field:?} is not a field such as data.amount"));
        }
        path.map(|path| place(paths, path))
    }

    /// Different values of the last span: those of a sliding window of that size, with as fine a step as there may be.
    fn active(&mut self, node: &Node, arguments: &str, paths: &mut Vec<Path>) -> Option<Valued> {
        let Some((field, span)) = arguments.split_once(',') else {
            self.mistakes
                .add(node.at, "active takes a field and a span: active(data.user, 15m)");
            return None;
        };
        let place = self.field(node, field.trim(), paths);
        let span = Node {
            at: node.at,
            value: Value::Text(span.trim().to_owned()),
        };
        let size = self.duration(&span, MINUTE, 366 * DAY)?;
        // The least number of whole seconds that the span is a multiple of, in not too many steps.
        let least = (size - 1) / (STEPS_MAX * SECOND) + 1;
        let seconds = (least..=size / SECOND / 24).find(|seconds| size % (seconds * SECOND) == 0);
        let Some(step) = seconds.map(|seconds| seconds * SECOND) else {
            let message = "this span has no steps of whole seconds; take one such as 15m or 24h";
            self.mistakes.add(node.at, message);
            return None;
        };
        Some(Valued {
            window: Some(Window::Sliding { size, step }),
            ..Aggregate::Distinct(place?).into()
        })
    }

    /// `text` from byte `before` on are a gauge's arguments with the closing parenthesis.
    fn gauge(&mut self, node: &Node, text: &str, before: usize, paths: &mut Vec<Path>) -> Option<Valued> {
        let arguments = text[before..].trim_end().strip_suffix(')').unwrap_or_default();
        let Some((key, condition)) = arguments.split_once(',') else {
            let message =
                "gauge takes what names a thing and a condition: gauge(data.id, data.status == \"open\")";
            self.mistakes.add(node.at, message);
            return None;
        };
        let place = self.field(node, key.trim(), paths)?;
        match predicate::parse_after(condition, paths.clone()) {
            Ok(parsed) => {
                *paths = parsed.paths;
                Some(Valued {
                    holds: Some(parsed.expr),
                    ..Aggregate::Gauge(place).into()
                })
            }
            Err(wrong) => {
                let offset = text[..before + key.len() + 1].chars().count() + wrong.offset;
                self.mistakes.inside(node.at, text, offset, &wrong.message);
                None
            }
        }
    }
}
