//! The words of a schema: those of JSON Schema 2020-12 that are understood here, and what stands behind each.

/// Where a subschema is put to use, seen from the schema that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applies {
    /// On the same value.
    Here,
    /// On one member of an object.
    OneMember,
    /// On any member, or on the names of all.
    AnyMember,
    /// On one element of an array.
    OneElement,
    /// On any element.
    AnyElement,
    /// Where it is referred to.
    Nowhere,
}

/// What stands behind a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Anything but a schema.
    Plain,
    /// One schema.
    One(Applies),
    /// A list of schemas.
    List(Applies),
    /// Schemas by name.
    Map(Applies),
    /// The place of another schema of the same file.
    Reference,
    /// What names or fetches schemas in ways that are not understood here.
    Refused,
}

use Applies::{AnyElement, AnyMember, Here, Nowhere, OneElement, OneMember};
use Holds::{List, Map, One, Plain, Reference, Refused};

pub(crate) const KEYWORDS: [(&str, Holds); 59] = [
    ("$schema", Plain),
    ("$id", Plain),
    ("$ref", Reference),
    ("$comment", Plain),
    ("$defs", Map(Nowhere)),
    ("$anchor", Refused),
    ("$dynamicAnchor", Refused),
    ("$dynamicRef", Refused),
    ("$vocabulary", Refused),
    ("allOf", List(Here)),
    ("anyOf", List(Here)),
    ("oneOf", List(Here)),
    ("not", One(Here)),
    ("if", One(Here)),
    ("then", One(Here)),
    ("else", One(Here)),
    ("dependentSchemas", Map(Here)),
    ("properties", Map(OneMember)),
    ("patternProperties", Map(AnyMember)),
    ("additionalProperties", One(AnyMember)),
    ("unevaluatedProperties", One(AnyMember)),
    ("propertyNames", One(AnyMember)),
    ("prefixItems", List(OneElement)),
    ("items", One(AnyElement)),
    ("contains", One(AnyElement)),
    ("unevaluatedItems", One(AnyElement)),
    ("contentSchema", One(Nowhere)),
    ("type", Plain),
    ("enum", Plain),
    ("const", Plain),
    ("multipleOf", Plain),
    ("maximum", Plain),
    ("exclusiveMaximum", Plain),
    ("minimum", Plain),
    ("exclusiveMinimum", Plain),
    ("maxLength", Plain),
    ("minLength", Plain),
    ("pattern", Plain),
    ("maxItems", Plain),
    ("minItems", Plain),
    ("uniqueItems", Plain),
    ("maxContains", Plain),
    ("minContains", Plain),
    ("maxProperties", Plain),
    ("minProperties", Plain),
    ("required", Plain),
    ("dependentRequired", Plain),
    ("format", Plain),
    ("contentEncoding", Plain),
    ("contentMediaType", Plain),
    ("title", Plain),
    ("description", Plain),
    ("default", Plain),
    ("deprecated", Plain),
    ("readOnly", Plain),
    ("writeOnly", Plain),
    ("examples", Plain),
    ("definitions", Refused),
    ("dependencies", Refused),
];

/// What a word holds; `None` for one that is not known.
pub(crate) fn holds(word: &str) -> Option<Holds> {
    KEYWORDS
        .iter()
        .find(|(known, _)| *known == word)
        .map(|(_, holds)| *holds)
}
