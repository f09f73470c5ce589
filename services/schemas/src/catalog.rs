//! All schemas, and the decision about one event's data.

use std::collections::BTreeMap;

use roomcast_access::Mistake;
use serde_json::Value;

use crate::{Mode, Schema};

/// All schemas, by the type they are of.
#[derive(Debug, Default)]
pub struct Catalog {
    /// The newest version first; never empty.
    kinds: BTreeMap<String, Vec<Schema>>,
}

/// What an event carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data<'a> {
    /// JSON; `null` where there is none.
    Json(&'a str),
    /// Bytes that are no JSON.
    Bytes,
}

/// How an event breaks its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// What is to happen: [`Mode::Warn`] or [`Mode::Enforce`].
    pub mode: Mode,
    /// JSON pointer into the event.
    pub pointer: String,
    /// Why, without showing what the event holds.
    pub detail: String,
}

impl Catalog {
    /// Puts schemas together.
    ///
    /// # Errors
    /// Two that are the same version of a type, that have the same `$id`, or versions of one type with different modes.
    pub fn new(schemas: Vec<Schema>) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let mut kinds: BTreeMap<String, Vec<Schema>> = BTreeMap::new();
        for schema in schemas {
            let others = kinds.entry(schema.kind.clone()).or_default();
            if let Some(message) = others.iter().find_map(|other| clash(&schema, other)) {
                mistakes.push(Mistake {
                    file: schema.file.clone(),
                    line: 1,
                    column: 1,
                    message,
                    suggestion: None,
                });
            }
            others.push(schema);
            others.sort_by_key(|schema| std::cmp::Reverse(schema.version));
        }
        if mistakes.is_empty() {
            Ok(Self { kinds })
        } else {
            Err(mistakes)
        }
    }

    /// How many schemas there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kinds.values().map(Vec::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// All types in the order of their names, each with its versions, the newest first.
    pub fn kinds(&self) -> impl Iterator<Item = (&str, &[Schema])> {
        self.kinds
            .iter()
            .map(|(kind, versions)| (kind.as_str(), versions.as_slice()))
    }

    /// Decides about the data of an event of a type. `dataschema` is the attribute of that name. Costs a look into a map where the type has
    /// no schema, else reading the data and one walk along a schema, of every version in turn until one holds.
    ///
    /// # Errors
    /// The breach. With `dataschema`, of the version that it names; else of the newest, when no version holds.
    pub fn check(&self, kind: &str, dataschema: Option<&str>, data: Data<'_>) -> Result<(), Breach> {
        let Some(versions) = self.kinds.get(kind) else {
            return Ok(());
        };
        let Some(newest) = versions.first().filter(|newest| newest.mode != Mode::Off) else {
            return Ok(());
        };
        let breach = |pointer: String, detail: String| Breach {
            mode: newest.mode,
            pointer,
            detail,
        };
        let named = match dataschema {
            Some(id) if versions.iter().any(|schema| schema.id.is_some()) => {
                let found = versions.iter().find(|schema| schema.id.as_deref() == Some(id));
                let none = || {
                    breach(
                        "/dataschema".to_owned(),
                        format!("the type {kind} has no schema of this name"),
                    )
                };
                Some(found.ok_or_else(none)?)
            }
            _ => None,
        };
        let Data::Json(text) = data else {
            return Err(breach(
                "/data_base64".to_owned(),
                "the schema of the type is one of JSON".to_owned(),
            ));
        };
        let data: Value = serde_json::from_str(text).map_err(|error| {
            breach(
                "/data".to_owned(),
                format!("holds what no schema can check: {error}"),
            )
        })?;
        let versions = named.map_or(versions.as_slice(), std::slice::from_ref);
        let mut first = None;
        for schema in versions {
            match schema.wrong_in(&data) {
                None => return Ok(()),
                Some(wrong) if first.is_none() => first = Some((schema.version, wrong)),
                Some(_) => {}
            }
        }
        let Some((version, (pointer, words))) = first else {
            return Ok(());
        };
        let which = match versions.len() {
            1 => format!("version {version} of the schema of {kind}"),
            all => format!("all {all} versions of the schema of {kind}, version {version}"),
        };
        let pointer = format!("/data{pointer}");
        // Also in the words: an answer over NATS has no member for it.
        let detail = format!("breaks {which} at {pointer}: {words}");
        Err(breach(pointer, detail))
    }
}

fn clash(one: &Schema, other: &Schema) -> Option<String> {
    let (file, kind) = (&other.file, &one.kind);
    if one.version == other.version {
        return Some(format!(
            "{file} is version {} of {kind} as well; x-roomcast-version tells them apart",
            one.version
        ));
    }
    if one.id.is_some() && one.id == other.id {
        return Some(format!("{file} has the same $id"));
    }
    (one.mode != other.mode).then(|| {
        let (mine, theirs) = (one.mode.as_str(), other.mode.as_str());
        format!("all versions of a type have one x-roomcast-mode: {mine} here, {theirs} in {file}")
    })
}

#[cfg(test)]
mod tests;
