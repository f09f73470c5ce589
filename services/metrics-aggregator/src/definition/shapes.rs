//! Compares what a metric says about the data of events with their schemas: fields that are not there, comparisons that never hold,
//! aggregates of what is no number.
//!
//! Only what a schema says for certain is a mistake. Whatever is open (`anyOf`, `$ref` to elsewhere, members of any name) may be anything.

mod shape;
#[cfg(test)]
mod tests;

use roomcast_access::yaml::{Found, Node, Value as Yaml, nearest};

use super::read::Reader;
use super::{Aggregate, Leg};
use crate::engine::decimal::Decimal;
use crate::engine::predicate::{Comparison, Expr, Literal, Operand};
use crate::engine::row::Path;

use self::shape::{COMPOUND, FLAG, Known, NULL, NUMBER, Shape, TEXT, field};

impl Reader<'_> {
    /// What is wrong with a leg by the schemas of its types.
    pub(super) fn shapes(&mut self, found: &Found<'_>, leg: &Leg) {
        let Some(catalog) = self.schemas.filter(|_| !leg.types.is_empty()) else {
            return;
        };
        let mut shapes = Vec::new();
        for path in &leg.paths {
            let Path::Data(names) = path else {
                // Attributes are texts; `subject` may be absent.
                shapes.push(Shape {
                    kinds: TEXT | NULL,
                    texts: None,
                });
                continue;
            };
            match field(catalog, &leg.types, names) {
                Known::As(shape) => shapes.push(shape),
                Known::Absent(instead) => {
                    shapes.push(Shape::OPEN);
                    let near = nearest(&names.join("."), instead.iter().map(String::as_str));
                    let meant = near
                        .map(|near| format!("; did you mean data.{near}?"))
                        .unwrap_or_default();
                    let types = leg.types.join(", ");
                    self.of_field(
                        found,
                        path,
                        &format!("the schema of {types} has no {path}{meant}"),
                    );
                }
            }
        }
        for expr in leg.condition.iter().chain(&leg.holds) {
            self.expression(found, leg, &shapes, expr);
        }
        self.aggregated(found, leg, &shapes);
    }

    fn expression(&mut self, found: &Found<'_>, leg: &Leg, shapes: &[Shape], expr: &Expr) {
        match expr {
            Expr::All(parts) | Expr::Any(parts) => {
                for part in parts {
                    self.expression(found, leg, shapes, part);
                }
            }
            Expr::Not(part) => self.expression(found, leg, shapes, part),
            Expr::Has(_) | Expr::Truth(Operand::Literal(_)) => {}
            Expr::Truth(Operand::Field(place)) => {
                let shape = &shapes[*place];
                if shape.kinds & FLAG == 0 {
                    let path = &leg.paths[*place];
                    self.of_field(
                        found,
                        path,
                        &format!("{path} is {}, and no condition", shape.said()),
                    );
                }
            }
            Expr::In(Operand::Field(place), list) => {
                for literal in list {
                    self.compared(found, leg, shapes, Comparison::Equal, *place, literal);
                }
            }
            Expr::In(Operand::Literal(_), _) => {}
            Expr::Compare(how, Operand::Field(place), Operand::Literal(literal))
            | Expr::Compare(how, Operand::Literal(literal), Operand::Field(place)) => {
                self.compared(found, leg, shapes, *how, *place, literal);
            }
            Expr::Compare(_, Operand::Field(one), Operand::Field(other)) => {
                if shapes[*one].kinds & shapes[*other].kinds == 0 {
                    let (path, with) = (&leg.paths[*one], &leg.paths[*other]);
                    let message = format!(
                        "{path} is {} and {with} {}",
                        shapes[*one].said(),
                        shapes[*other].said()
                    );
                    self.of_field(found, path, &message);
                }
            }
            Expr::Compare(..) => {}
        }
    }

    fn compared(
        &mut self,
        found: &Found<'_>,
        leg: &Leg,
        shapes: &[Shape],
        how: Comparison,
        place: usize,
        literal: &Literal,
    ) {
        let (shape, path) = (&shapes[place], &leg.paths[place]);
        let (kind, shown) = match literal {
            Literal::Null => (NULL, "null".to_owned()),
            Literal::Flag(flag) => (FLAG, flag.to_string()),
            Literal::Number(text, _) => (NUMBER, text.clone()),
            Literal::Text(text) => (TEXT, format!("{text:?}")),
        };
        // Comparing with null asks whether there is a value, which a field that may be absent can be asked.
        if kind == NULL {
            return;
        }
        if shape.kinds & kind == 0 {
            let what = match how {
                Comparison::Equal => "never equal to",
                Comparison::NotEqual => "always different from",
                _ => "not to be compared with",
            };
            self.of_field(
                found,
                path,
                &format!("{path} is {}, {what} {shown}", shape.said()),
            );
            return;
        }
        if let (Literal::Text(text), Some(texts), Comparison::Equal | Comparison::NotEqual) =
            (literal, &shape.texts, how)
            && !texts.contains(text)
        {
            let near = nearest(text, texts.iter().map(String::as_str));
            let meant = near
                .map(|near| format!("; did you mean {near:?}?"))
                .unwrap_or_default();
            self.of_field(
                found,
                path,
                &format!("{path} is never {text:?}, but {}{meant}", texts.join(", ")),
            );
        }
    }

    fn aggregated(&mut self, found: &Found<'_>, leg: &Leg, shapes: &[Shape]) {
        let (place, numbers) = match leg.aggregate {
            Aggregate::Sum(place)
            | Aggregate::Avg(place)
            | Aggregate::Min(place)
            | Aggregate::Max(place)
            | Aggregate::Percentile(place, _) => (place, true),
            Aggregate::First(place)
            | Aggregate::Last(place)
            | Aggregate::Distinct(place)
            | Aggregate::Gauge(place)
            | Aggregate::Top(place, _) => (place, false),
            Aggregate::Count | Aggregate::Rate(_) => return self.grouped(found, leg, shapes),
        };
        let (shape, path) = (&shapes[place], &leg.paths[place]);
        let no_text = shape
            .texts
            .as_ref()
            .is_some_and(|texts| !texts.iter().any(|text| Decimal::parse(text).is_ok()));
        let fits = if numbers {
            shape.kinds & NUMBER > 0 || (shape.kinds & TEXT > 0 && !no_text)
        } else {
            shape.kinds & (FLAG | NUMBER | TEXT) > 0
        };
        if !fits {
            let wanted = if numbers {
                "a number is needed"
            } else {
                "one value is needed"
            };
            self.of_field(found, path, &format!("{path} is {}, {wanted}", shape.said()));
        }
        self.grouped(found, leg, shapes);
    }

    fn grouped(&mut self, found: &Found<'_>, leg: &Leg, shapes: &[Shape]) {
        for place in &leg.group_by {
            let (shape, path) = (&shapes[*place], &leg.paths[*place]);
            if shape.kinds == COMPOUND {
                self.of_field(found, path, &format!("{path} is {}, and no group", shape.said()));
            }
        }
    }

    /// Adds a mistake where a field is written first.
    fn of_field(&mut self, found: &Found<'_>, path: &Path, message: &str) {
        let path = path.to_string();
        let nodes = ["where", "value", "group_by"]
            .iter()
            .filter_map(|key| found.get(key).copied());
        let texts = nodes.flat_map(|node| match &node.value {
            Yaml::List(items) => items.iter().collect::<Vec<&Node>>(),
            _ => vec![node],
        });
        let mut last = None;
        for node in texts {
            let Yaml::Text(text) = &node.value else { continue };
            last = Some(node.at);
            if let Some(offset) = written(text, &path) {
                self.mistakes.inside(node.at, text, offset, message);
                return;
            }
        }
        if let Some(at) = last {
            self.mistakes.add(at, message);
        }
    }
}

/// Where a field stands in a text, in characters; not where a longer one begins so.
fn written(text: &str, path: &str) -> Option<usize> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    text.match_indices(path)
        .find(|(at, _)| !text[at + path.len()..].starts_with(part) && !text[..*at].ends_with(part))
        .map(|(at, _)| text[..at].chars().count())
}
