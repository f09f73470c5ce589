//! Compares what a metric says about the data of events with their schemas: fields that are not there, comparisons that never hold,
//! aggregates of what is no number.
//!
//! Only what a schema says for certain is a mistake. Whatever is open (`anyOf`, `$ref` to elsewhere, members of any name) may be anything.

use roomcast_access::yaml::{Found, Node, Value as Yaml, nearest};
use roomcast_schemas::{Catalog, Mode};
use serde_json::Value;

use super::read::Reader;
use super::{Aggregate, Leg};
use crate::engine::decimal::Decimal;
use crate::engine::predicate::{Comparison, Expr, Literal, Operand};
use crate::engine::row::Path;

/// References that are followed; more than any schema that is not a loop has on the way to one field.
const REFERENCES_MAX: usize = 16;

const NULL: u8 = 1;
const FLAG: u8 = 2;
const NUMBER: u8 = 4;
const TEXT: u8 = 8;
const COMPOUND: u8 = 16;
const ANY: u8 = 31;
const NAMES: [(u8, &str); 5] = [
    (NULL, "null"),
    (FLAG, "true or false"),
    (NUMBER, "a number"),
    (TEXT, "a text"),
    (COMPOUND, "an object or a list"),
];

/// What a field may be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shape {
    /// Which kinds of value.
    kinds: u8,
    /// The only texts it may be; `None`: any.
    texts: Option<Vec<String>>,
}

impl Shape {
    const OPEN: Self = Self {
        kinds: ANY,
        texts: None,
    };

    fn or(mut self, other: Self) -> Self {
        // Texts of whichever may be a text at all.
        self.texts = match (self.kinds & TEXT > 0, other.kinds & TEXT > 0) {
            (true, true) => self
                .texts
                .zip(other.texts)
                .map(|(own, more)| [own, more].concat()),
            (true, false) => self.texts,
            (false, _) => other.texts,
        };
        self.kinds |= other.kinds;
        self
    }

    /// Reads what a schema says about a value.
    fn of(schema: &Value) -> Self {
        let Value::Object(words) = schema else {
            return Self::OPEN;
        };
        let listed = words.get("enum").and_then(Value::as_array).cloned();
        if let Some(values) = listed.or_else(|| words.get("const").map(|value| vec![value.clone()])) {
            let texts = values
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
            return Self {
                kinds: values.iter().fold(0, |kinds, value| kinds | kind_of(value)),
                texts: Some(texts),
            };
        }
        let kind = |name: &Value| match name.as_str() {
            Some("null") => NULL,
            Some("boolean") => FLAG,
            Some("number" | "integer") => NUMBER,
            Some("string") => TEXT,
            Some("object" | "array") => COMPOUND,
            _ => ANY,
        };
        let kinds = match words.get("type") {
            Some(Value::Array(names)) => names.iter().fold(0, |kinds, name| kinds | kind(name)),
            Some(name) => kind(name),
            None => ANY,
        };
        Self { kinds, texts: None }
    }

    fn said(&self) -> String {
        let names: Vec<&str> = NAMES
            .iter()
            .filter(|(kind, _)| self.kinds & kind > 0)
            .map(|(_, name)| *name)
            .collect();
        names.join(" or ")
    }
}

fn kind_of(value: &Value) -> u8 {
    match value {
        Value::Null => NULL,
        Value::Bool(_) => FLAG,
        Value::Number(_) => NUMBER,
        Value::String(_) => TEXT,
        Value::Array(_) | Value::Object(_) => COMPOUND,
    }
}

/// What is known of a field.
enum Known {
    /// It may be this.
    As(Shape),
    /// No event of these types has it; the names there are instead.
    Absent(Vec<String>),
}

/// The schema of a member, or the names there are.
fn member<'a>(document: &'a Value, schema: &'a Value, name: &str) -> Result<Option<&'a Value>, Vec<String>> {
    let schema = followed(document, schema);
    let Some(words) = schema.and_then(Value::as_object) else {
        return Ok(None);
    };
    let properties = words.get("properties").and_then(Value::as_object);
    if let Some(found) = properties.and_then(|properties| properties.get(name)) {
        return Ok(followed(document, found));
    }
    // Whatever else there is may bring members of its own.
    let open = [
        "allOf",
        "anyOf",
        "oneOf",
        "if",
        "patternProperties",
        "dependentSchemas",
        "$dynamicRef",
    ];
    let more = words
        .get("additionalProperties")
        .is_some_and(|more| *more != Value::Bool(false));
    match properties {
        Some(properties) if !more && !open.iter().any(|word| words.contains_key(*word)) => {
            Err(properties.keys().cloned().collect())
        }
        _ => Ok(None),
    }
}

/// Follows references inside the document; `None` where one leads elsewhere.
fn followed<'a>(document: &'a Value, mut schema: &'a Value) -> Option<&'a Value> {
    for _ in 0..REFERENCES_MAX {
        match schema.get("$ref").and_then(Value::as_str) {
            None => return Some(schema),
            Some(reference) => schema = document.pointer(reference.strip_prefix('#')?)?,
        }
    }
    None
}

fn field(catalog: &Catalog, types: &[String], names: &[String]) -> Known {
    let mut known: Option<Shape> = None;
    let mut instead: Vec<String> = Vec::new();
    for kind in types {
        let versions = catalog.kinds().find(|(name, _)| name == kind);
        let Some((_, versions)) = versions.filter(|(_, all)| all.iter().any(|one| one.mode != Mode::Off))
        else {
            return Known::As(Shape::OPEN);
        };
        for version in versions {
            let mut schema = Some(&version.document);
            let mut absent = None;
            for (depth, name) in names.iter().enumerate() {
                let Some(inside) = schema else { break };
                match member(&version.document, inside, name) {
                    Ok(found) => schema = found,
                    Err(others) => {
                        let above = &names[..depth];
                        let named = |other| [above, &[other]].concat().join(".");
                        absent = Some(others.into_iter().map(named).collect::<Vec<_>>());
                        break;
                    }
                }
            }
            match absent {
                Some(others) => instead.extend(others),
                None => {
                    let shape = schema.map_or(Shape::OPEN, Shape::of);
                    known = Some(match known {
                        Some(before) => before.or(shape),
                        None => shape,
                    });
                }
            }
        }
    }
    known.map_or(Known::Absent(instead), Known::As)
}

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

#[cfg(test)]
mod tests {
    use std::path::Path as File;

    use roomcast_access::Policy;
    use roomcast_schemas::{Schema, folder};

    use super::super::Definitions;
    use super::*;

    fn catalog() -> Catalog {
        let schema = |kind: &str, rest: &str| {
            let text = format!(
                "{{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\",\"x-roomcast-type\":\"{kind}\",\"type\":\"object\",{rest}}}"
            );
            Schema::parse(kind, &text).unwrap_or_else(|wrong| panic!("{wrong:?}"))
        };
        Catalog::new(vec![
            schema(
                "order",
                r##""properties":{
                    "amount":{"type":["number","null"]}, "price":{"type":"string"}, "paid":{"type":"boolean"},
                    "kind":{"enum":["car","tour",7]}, "lines":{"type":"array"}, "any":true,
                    "customer":{"$ref":"#/$defs/customer"}
                },"$defs":{"customer":{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"}}}}"##,
            ),
            schema("row", r#""properties":{"amount":{"type":"string"},"extra":{"type":"number"}}"#),
            schema("open", r#""properties":{"x":{"type":"number"}},"additionalProperties":{"type":"string"}"#),
        ])
        .unwrap()
    }

    /// Each row: the metric's keys, and the mistake, or none; `at:` where it stands at the field itself.
    #[test]
    fn what_schemas_say_is_a_mistake_and_what_they_leave_open_is_not() {
        let rows: [(&str, Option<&str>); 31] = [
            ("from: { room: r, type: order }, value: sum(data.amount)", None),
            ("from: { room: r, type: order }, value: sum(data.price)", None),
            (
                "from: { room: r, type: order }, value: sum(data.amuont)",
                Some("at: the schema of order has no data.amuont; did you mean data.amount?"),
            ),
            (
                "from: { room: r, type: order }, value: sum(data.paid)",
                Some("at: data.paid is true or false, a number is needed"),
            ),
            (
                "from: { room: r, type: order }, value: p95(data.lines)",
                Some("at: data.lines is an object or a list, a number is needed"),
            ),
            ("from: { room: r, type: order }, value: avg(data.kind)", None),
            (
                "from: { room: r, type: order }, value: distinct(data.lines)",
                Some("at: data.lines is an object or a list, one value is needed"),
            ),
            (
                "from: { room: r, type: order }, value: count(), group_by: [data.lines]",
                Some("at: data.lines is an object or a list, and no group"),
            ),
            (
                "from: { room: r, type: order }, value: count(), group_by: [data.custmer.name]",
                Some("at: the schema of order has no data.custmer.name"),
            ),
            (
                "from: { room: r, type: order }, value: count(), group_by: [data.customer.nam]",
                Some("at: the schema of order has no data.customer.nam; did you mean data.customer.name?"),
            ),
            (
                "from: { room: r, type: order }, value: count(), group_by: [data.customer.name]",
                None,
            ),
            ("from: { room: r, type: order }, value: max(data.any)", None),
            ("from: { room: r, type: order }, value: max(data.any.thing)", None),
            (
                "from: { room: r, type: order }, value: count(), where: data.paid",
                None,
            ),
            (
                "from: { room: r, type: order }, value: count(), where: data.price",
                Some("at: data.price is a text, and no condition"),
            ),
            (
                "from: { room: r, type: order }, value: count(), where: data.amount > 10",
                None,
            ),
            (
                "from: { room: r, type: order }, value: count(), where: data.amount > \"10\"",
                Some("at: data.amount is null or a number, not to be compared with \"10\""),
            ),
            (
                "from: { room: r, type: order }, value: count(), where: data.paid || 10 == data.price",
                Some("at: data.price is a text, never equal to 10"),
            ),
            (
                "from: { room: r, type: order }, value: count(), where: '!(data.customer.age != \"x\")'",
                Some("at: data.customer.age is a number, always different from \"x\""),
            ),
            (
                "from: { room: r, type: order }, value: count(), where: data.price != null",
                None,
            ),
            (
                "from: { room: r, type: order }, value: count(), where: data.kind == \"tuor\"",
                Some("at: data.kind is never \"tuor\", but car, tour; did you mean \"tour\"?"),
            ),
            (
                "from: { room: r, type: order }, value: count(), where: data.kind == 7",
                None,
            ),
            (
                "from: { room: r, type: order }, value: count(), where: 'data.kind in [\"car\", \"bus\"]'",
                Some("at: data.kind is never \"bus\", but car, tour"),
            ),
            (
                "from: { room: r, type: order }, value: count(), where: data.paid == data.price",
                Some("at: data.paid is true or false and data.price a text"),
            ),
            (
                "from: { room: r, type: order }, value: 'gauge(data.price, data.paid == \"yes\")', window: { total: true }",
                Some("data.paid is true or false, never equal to \"yes\""),
            ),
            // One of the types has it, so an event may.
            (
                "from: { room: r, type: [order, row] }, value: sum(data.extra)",
                None,
            ),
            (
                "from: { room: r, type: [order, row] }, value: count(), where: data.amount == \"1\"",
                None,
            ),
            (
                "from: { room: r, type: [order, unknown] }, value: sum(data.amuont)",
                None,
            ),
            ("from: { room: r, type: open }, value: sum(data.y)", None),
            ("from: { room: r }, value: sum(data.amuont)", None),
            (
                "from: { room: r, type: order }, value: count(), where: id == 7",
                Some("at: id is null or a text, never equal to 7"),
            ),
        ];
        let catalog = catalog();
        for (keys, expected) in rows {
            let window = if keys.contains("window") {
                ""
            } else {
                ", window: { tumbling: day }"
            };
            let flat =
                format!("version: 1\ntimezone: UTC\nmetrics:\n  -\n    {{ name: m, {keys}{window} }}\n");
            let said = match Definitions::parse_with(&flat, "m", None, Some(&catalog)) {
                Ok(_) => None,
                Err(mistakes) => Some(
                    mistakes
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join("\n"),
                ),
            };
            match expected {
                None => assert_eq!(said, None, "{keys}"),
                Some(expected) => {
                    let said = said.unwrap_or_default();
                    let exact = expected.strip_prefix("at: ");
                    let words = exact.unwrap_or(expected);
                    assert!(said.contains(words), "{keys}: {said}");
                    assert_eq!(said.lines().count(), 1, "{keys}: {said}");
                    if exact.is_some() {
                        // Exactly where the field is written.
                        let column: usize = said.split(':').nth(2).unwrap().parse().unwrap();
                        let line = flat.lines().nth(4).unwrap();
                        assert!(line[column - 1..].starts_with(field_of(words)), "{keys}: {said}");
                    }
                }
            }
        }
    }

    /// The field a mistake is about.
    fn field_of(words: &str) -> &str {
        let found = words
            .split([' ', ';'])
            .find(|word| word.starts_with("data.") || *word == "id");
        found.unwrap()
    }

    /// Metrics of all scenarios fit their schemas; and a schema that is never asked would be no check.
    #[test]
    fn the_metrics_of_all_scenarios_fit_their_schemas() {
        let scenarios = File::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/scenarios");
        let mut count = 0;
        for entry in std::fs::read_dir(scenarios).unwrap() {
            let folder = entry.unwrap().path();
            let Ok(text) = std::fs::read_to_string(folder.join("metrics.yaml")) else {
                continue;
            };
            let catalog = folder::load(&folder.join("schemas")).unwrap();
            let policy = std::fs::read_to_string(folder.join("policy.yaml")).unwrap();
            let policy = Policy::parse(&policy, "policy.yaml").unwrap();
            let parse =
                |text: &str| Definitions::parse_with(text, "metrics.yaml", Some(&policy), Some(&catalog));
            let definitions = parse(&text).unwrap_or_else(|wrong| panic!("{}: {wrong:#?}", folder.display()));
            for leg in definitions.metrics.iter().flat_map(|metric| &metric.legs) {
                for path in &leg.paths {
                    let Path::Data(_) = path else { continue };
                    let field = path.to_string();
                    // Rows of a database have no type, and so no schema.
                    count += usize::from(parse(&text.replace(&field, &format!("{field}zzz"))).is_err());
                }
            }
        }
        assert!(count >= 3, "{count} fields have a schema");
    }
}
