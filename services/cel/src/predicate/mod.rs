//! `where`: a condition on one event, compiled once and evaluated without a heap.
//!
//! A subset of CEL with CEL's meaning: an absent field is an error, `==` across types is false, `<` across types is an error,
//! `false && error` is false and `true || error` is true, whichever stands first. Numbers compare as exact decimals.

mod parse;

use std::cmp::Ordering;

pub use parse::{Parsed, Wrong, parse, parse_after, parse_computed};

use crate::decimal::{Decimal, Exact};
use crate::row::Field;

/// A condition. Fields are places in the definition's own list of paths.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// All of them.
    All(Vec<Expr>),
    /// Any of them.
    Any(Vec<Expr>),
    /// The opposite.
    Not(Box<Expr>),
    /// A comparison.
    Compare(Comparison, Operand, Operand),
    /// Equal to one of these.
    In(Operand, Vec<Literal>),
    /// Whether the field is there (null counts as there).
    Has(usize),
    /// The operand itself, which must be true or false.
    Truth(Operand),
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A field of the event.
    Field(usize),
    /// A value written in the condition.
    Literal(Literal),
}

/// A value written in the condition.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// null
    Null,
    /// true or false
    Flag(bool),
    /// A number as written, and as a decimal if it is one.
    Number(String, Option<Decimal>),
    /// A text.
    Text(String),
}

/// A value that is computed from an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Computed {
    /// A field or a literal as it is.
    Operand(Operand),
    /// Whether this holds.
    Condition(Expr),
    /// The first value if this holds, else the second.
    Choice(Expr, Box<Computed>, Box<Computed>),
}

/// What was computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome<'a> {
    /// The field at this place.
    Field(usize),
    /// What is written in the file.
    Literal(&'a Literal),
    /// A condition's.
    Flag(bool),
    /// A condition that cannot be decided.
    Error,
}

impl Computed {
    /// Computes. `field` gives the field at a place.
    pub fn evaluate<'f, 'r: 'f>(&self, field: &impl Fn(usize) -> &'f Field<'r>) -> Outcome<'_> {
        match self {
            Self::Operand(Operand::Field(place)) => Outcome::Field(*place),
            Self::Operand(Operand::Literal(literal)) => Outcome::Literal(literal),
            Self::Condition(condition) => match condition.evaluate(field) {
                Verdict::True => Outcome::Flag(true),
                Verdict::False => Outcome::Flag(false),
                Verdict::Error => Outcome::Error,
            },
            Self::Choice(condition, then, otherwise) => match condition.evaluate(field) {
                Verdict::True => then.evaluate(field),
                Verdict::False => otherwise.evaluate(field),
                Verdict::Error => Outcome::Error,
            },
        }
    }
}

/// What a condition says about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It cannot be decided.
    Error,
}

impl From<bool> for Verdict {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// Two comparable views of a field or literal.
enum Side<'a> {
    Null,
    Flag(bool),
    Number(&'a str, Option<Decimal>),
    Text(&'a str),
    Compound,
}

impl Expr {
    /// Decides about an event. `field` gives the field at a place.
    pub fn evaluate<'f, 'r: 'f>(&self, field: &impl Fn(usize) -> &'f Field<'r>) -> Verdict {
        match self {
            Self::All(parts) => fold(parts, field, Verdict::False, Verdict::True),
            Self::Any(parts) => fold(parts, field, Verdict::True, Verdict::False),
            Self::Not(part) => match part.evaluate(field) {
                Verdict::True => Verdict::False,
                Verdict::False => Verdict::True,
                Verdict::Error => Verdict::Error,
            },
            Self::Compare(how, left, right) => match (side(left, field), side(right, field)) {
                (Some(left), Some(right)) => compare(*how, &left, &right),
                _ => Verdict::Error,
            },
            Self::In(operand, list) => match side(operand, field) {
                Some(Side::Compound) => Verdict::False,
                Some(value) => list
                    .iter()
                    .any(|literal| equal(&value, &of_literal(literal)) == Some(true))
                    .into(),
                None => Verdict::Error,
            },
            Self::Has(place) => (*field(*place) != Field::Absent).into(),
            Self::Truth(operand) => match side(operand, field) {
                Some(Side::Flag(flag)) => flag.into(),
                _ => Verdict::Error,
            },
        }
    }
}

/// `&&` and `||`: one part that decides, decides, whatever the others are.
fn fold<'f, 'r: 'f>(
    parts: &[Expr],
    field: &impl Fn(usize) -> &'f Field<'r>,
    decides: Verdict,
    otherwise: Verdict,
) -> Verdict {
    let mut result = otherwise;
    for part in parts {
        match part.evaluate(field) {
            verdict if verdict == decides => return decides,
            Verdict::Error => result = Verdict::Error,
            _ => {}
        }
    }
    result
}

/// The value of an operand; `None` where the field is absent.
fn side<'a, 'f: 'a, 'r: 'f>(
    operand: &'a Operand,
    field: &impl Fn(usize) -> &'f Field<'r>,
) -> Option<Side<'a>> {
    Some(match operand {
        Operand::Literal(literal) => of_literal(literal),
        Operand::Field(place) => match field(*place) {
            Field::Absent => return None,
            Field::Null => Side::Null,
            Field::Flag(flag) => Side::Flag(*flag),
            Field::Number(text) => Side::Number(text, Decimal::parse(text).ok()),
            Field::Text(text) => Side::Text(text),
            Field::Compound => Side::Compound,
        },
    })
}

fn of_literal(literal: &Literal) -> Side<'_> {
    match literal {
        Literal::Null => Side::Null,
        Literal::Flag(flag) => Side::Flag(*flag),
        Literal::Number(text, decimal) => Side::Number(text, *decimal),
        Literal::Text(text) => Side::Text(text),
    }
}

fn compare(how: Comparison, left: &Side<'_>, right: &Side<'_>) -> Verdict {
    match how {
        Comparison::Equal => equal(left, right).map_or(Verdict::Error, Verdict::from),
        Comparison::NotEqual => equal(left, right).map_or(Verdict::Error, |equal| Verdict::from(!equal)),
        _ => match order(left, right) {
            None => Verdict::Error,
            Some(order) => match how {
                Comparison::Less => order.is_lt(),
                Comparison::LessOrEqual => order.is_le(),
                Comparison::Greater => order.is_gt(),
                _ => order.is_ge(),
            }
            .into(),
        },
    }
}

/// Equality across all types; `None` for two objects or arrays, which are not compared here.
fn equal(left: &Side<'_>, right: &Side<'_>) -> Option<bool> {
    match (left, right) {
        (Side::Null, Side::Null) => Some(true),
        (Side::Compound, Side::Compound) => None,
        _ => Some(order(left, right) == Some(Ordering::Equal)),
    }
}

/// The order of two values of the same type; `None` across types and for what has no order.
fn order(left: &Side<'_>, right: &Side<'_>) -> Option<Ordering> {
    match (left, right) {
        (Side::Flag(a), Side::Flag(b)) => Some(a.cmp(b)),
        (Side::Text(a), Side::Text(b)) => Some(a.cmp(b)),
        (Side::Number(_, Some(a)), Side::Number(_, Some(b))) => Some(a.cmp(b)),
        (Side::Number(a, _), Side::Number(b, _)) => Some(Exact::parse(a)?.cmp(&Exact::parse(b)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::row::{Event, Paths};

    fn check(text: &str, data: &str) -> Verdict {
        let parsed = parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"));
        let mut paths = Paths::default();
        for path in &parsed.paths {
            paths.place(path);
        }
        let data: Box<RawValue> = serde_json::from_str(data).unwrap();
        let event = Event {
            seq: 1,
            stored_micros: 0,
            time_micros: 0,
            room: "bookings",
            audience: "staff",
            kind: "booking:new",
            source: "s",
            id: "i",
            subject: None,
            priority: "medium",
            data: Some(data.get()),
        };
        let row = paths.row(&event);
        parsed.expr.evaluate(&|place| &row[place])
    }

    #[test]
    fn computed_values() {
        let fields = [Field::Text("done".into()), Field::Absent, Field::Number("7")];
        let names = ["data.s", "data.a", "data.n"].map(|name| crate::row::Path::parse(name).unwrap());
        let check = |text: &str, expected: Option<&str>| {
            let (computed, paths) = parse_computed(text, names.to_vec()).unwrap();
            assert_eq!(paths.len(), 3, "{text}");
            let found = match computed.evaluate(&|place| &fields[place]) {
                Outcome::Field(place) => Some(format!("field {place}")),
                Outcome::Literal(Literal::Text(text)) => Some(text.clone()),
                Outcome::Literal(other) => Some(format!("{other:?}")),
                Outcome::Flag(flag) => Some(flag.to_string()),
                Outcome::Error => None,
            };
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        check("data.s", Some("field 0"));
        check("'x'", Some("x"));
        check("data.s != 'done'", Some("false"));
        check("data.s == 'done' ? 'closed' : 'open'", Some("closed"));
        check("data.n > 8 ? 'a' : data.n > 6 ? 'b' : 'c'", Some("b"));
        check("data.n > 8 ? 'a' : data.n", Some("field 2"));
        check("data.a == 1 ? 'a' : 'b'", None);
        check("data.a == 1", None);
        for wrong in ["", "data.s ?", "data.s ? 1", "data.s ? 1 : ", "1 2", "data.s : 1"] {
            assert!(parse_computed(wrong, Vec::new()).is_err(), "{wrong}");
        }
        assert!(parse("data.s ? 1 : 2").is_err(), "a condition is no choice");
    }

    #[test]
    fn conditions_mean_what_cel_means() {
        use Verdict::{Error, False, True};
        let data = r#"{"currency":"TRY","amount":10.50,"big":123456789012345678901234567890,"n":null,"f":true,"o":{"k":1},"s":"5","neg":-3}"#;
        let rows = [
            (r#"data.currency == "TRY""#, True),
            ("data.currency == 'EUR'", False),
            ("data.currency != 'EUR'", True),
            ("data.amount == 10.5", True),
            ("data.amount == 10.500000000000000000001", False),
            ("data.amount > 10.499999999999999999999", True),
            ("data.amount == '10.5'", False),
            ("data.amount != '10.5'", True),
            ("data.amount < '11'", Error),
            ("data.s < 6", Error),
            ("data.big > 1e29", True),
            ("data.big == 1.2345678901234567890123456789e29", True),
            ("data.neg < -2.5", True),
            ("data.n == null", True),
            ("data.n == 0", False),
            ("data.n < 1", Error),
            ("data.absent == null", Error),
            ("data.absent == 1", Error),
            ("has(data.absent)", False),
            ("has(data.n)", True),
            ("has(data.o.k) && data.o.k == 1", True),
            ("has(data.o.x) && data.o.x == 1", False),
            ("data.absent == 1 && false", False),
            ("false && data.absent == 1", False),
            ("data.absent == 1 || true", True),
            ("true || data.absent == 1", True),
            ("data.absent == 1 && true", Error),
            ("data.absent == 1 || false", Error),
            ("!(data.absent == 1)", Error),
            ("!data.f", False),
            ("data.f", True),
            ("data.f == true", True),
            ("data.f > false", True),
            ("data.s", Error),
            ("data.currency in ['EUR', 'TRY']", True),
            ("data.currency in ['EUR', 1, null]", False),
            ("data.currency in []", False),
            ("data.absent in [1]", Error),
            ("data.o in [1]", False),
            ("data.o == 1", False),
            ("data.o == data.o", Error),
            ("type == 'booking:new' && room == 'bookings'", True),
            ("subject == 'x'", Error),
            ("has(subject)", False),
            ("audience in ['staff'] && priority != \"low\"", True),
            ("1 < 2 && 2 >= 2 && 'a' < 'b'", True),
            ("'\\u00e9\\n' == 'é\\n'", True),
            ("data.currency == 'EUR' || data.amount > 5 && data.f", True),
            ("(data.currency == 'EUR' || data.amount > 5) && !data.f", False),
        ];
        for (text, expected) in rows {
            assert_eq!(check(text, data), expected, "{text}");
        }
    }
}
