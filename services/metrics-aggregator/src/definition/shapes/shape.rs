//! What schemas say a field may be.

use roomcast_schemas::{Catalog, Mode};
use serde_json::Value;

/// References that are followed; more than any schema that is not a loop has on the way to one field.
const REFERENCES_MAX: usize = 16;

pub(super) const NULL: u8 = 1;
pub(super) const FLAG: u8 = 2;
pub(super) const NUMBER: u8 = 4;
pub(super) const TEXT: u8 = 8;
pub(super) const COMPOUND: u8 = 16;
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
pub(super) struct Shape {
    /// Which kinds of value.
    pub(super) kinds: u8,
    /// The only texts it may be; `None`: any.
    pub(super) texts: Option<Vec<String>>,
}

impl Shape {
    pub(super) const OPEN: Self = Self {
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

    pub(super) fn said(&self) -> String {
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
pub(super) enum Known {
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

pub(super) fn field(catalog: &Catalog, types: &[String], names: &[String]) -> Known {
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
