//! Schemas as TypeScript: a pure function of the schemas, in the order of their names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use roomcast_schemas::{Catalog, Schema};
use serde_json::{Map, Value};

/// The whole file.
pub(super) fn write(catalog: &Catalog) -> String {
    let mut file = File {
        text: "// Written by `roomcast types` from the schemas of events. Changes are made there.\n"
            .to_owned(),
        names: BTreeSet::from(["EventData".to_owned()]),
    };
    let mut map = String::new();
    for (kind, versions) in catalog.kinds() {
        let name = file.name(&words(kind));
        file.kind(&name, versions);
        let about = versions
            .first()
            .map(|newest| about(&newest.document))
            .unwrap_or_default();
        comment(&mut map, &about, 1);
        let _ = writeln!(map, "  {}: {name};", quoted(kind));
    }
    let _ = write!(
        file.text,
        "\n/** The data of every type of event that has a schema. */\nexport type EventData = {{\n{map}}};\n"
    );
    file.text
}

struct File {
    text: String,
    /// What is taken already.
    names: BTreeSet<String>,
}

impl File {
    /// A name that nothing else has yet.
    fn name(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut next = 2;
        while !self.names.insert(name.clone()) {
            name = format!("{wanted}{next}");
            next += 1;
        }
        name
    }

    fn kind(&mut self, name: &str, versions: &[Schema]) {
        let [only] = versions else {
            let each: Vec<String> = versions
                .iter()
                .map(|schema| {
                    let of_version = self.name(&format!("{name}V{}", schema.version));
                    self.schema(&of_version, schema);
                    of_version
                })
                .collect();
            let _ = write!(self.text, "\nexport type {name} = {};\n", each.join(" | "));
            return;
        };
        self.schema(name, only);
    }

    /// One schema and what it refers to, each under a name of its own.
    fn schema(&mut self, name: &str, schema: &Schema) {
        let mut referred = BTreeSet::new();
        referrals(&schema.document, &mut referred);
        let named: BTreeMap<String, String> = referred
            .into_iter()
            .map(|pointer| {
                let last = pointer.rsplit('/').next().unwrap_or_default();
                let part = match pointer.as_str() {
                    "" => name.to_owned(),
                    _ => self.name(&format!("{name}{}", words(last))),
                };
                (pointer, part)
            })
            .collect();
        for (pointer, part) in named.iter().filter(|(pointer, _)| !pointer.is_empty()) {
            if let Some(found) = schema.document.pointer(pointer) {
                self.declare(part, &about(found), found, &named);
            }
        }
        let words = format!("Data of `{}`, version {}.", schema.kind, schema.version);
        let about = match about(&schema.document) {
            about if about.is_empty() => words,
            about => format!("{words} {about}"),
        };
        self.declare(name, &about, &schema.document, &named);
    }

    fn declare(&mut self, name: &str, about: &str, schema: &Value, named: &BTreeMap<String, String>) {
        self.text.push('\n');
        comment(&mut self.text, about, 0);
        let _ = writeln!(
            self.text,
            "export type {name} = {};",
            Writer { named }.whole(schema, 0)
        );
    }
}

/// The pointers that stand behind `$ref`, without `#`.
fn referrals(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(target) = members.get("$ref").and_then(Value::as_str) {
                found.insert(target.trim_start_matches('#').to_owned());
            }
            members.values().for_each(|value| referrals(value, found));
        }
        Value::Array(elements) => elements.iter().for_each(|value| referrals(value, found)),
        _ => {}
    }
}

/// How tightly a type holds together, so that brackets stand where they are needed.
#[derive(PartialEq, PartialOrd)]
enum Binds {
    Union,
    Intersection,
    Tight,
}

struct Type {
    text: String,
    binds: Binds,
}

impl Type {
    fn tight(text: impl Into<String>) -> Self {
        let binds = Binds::Tight;
        Self {
            text: text.into(),
            binds,
        }
    }

    /// The text, in brackets where it holds less than is needed.
    fn at_least(self, binds: &Binds) -> String {
        if self.binds >= *binds {
            self.text
        } else {
            format!("({})", self.text)
        }
    }

    fn union(types: Vec<Type>) -> Self {
        let mut kept: Vec<Type> = Vec::new();
        for one in types {
            if one.text == "unknown" {
                return one;
            }
            if one.text != "never" && !kept.iter().any(|other| other.text == one.text) {
                kept.push(one);
            }
        }
        match kept.len() {
            0 => Self::tight("never"),
            1 => kept.remove(0),
            _ => {
                let texts = kept.into_iter().map(|one| one.at_least(&Binds::Intersection));
                Self {
                    text: texts.collect::<Vec<_>>().join(" | "),
                    binds: Binds::Union,
                }
            }
        }
    }

    fn intersection(types: Vec<Type>) -> Self {
        let mut parts: Vec<Type> = types.into_iter().filter(|one| one.text != "unknown").collect();
        match parts.len() {
            0 => Self::tight("unknown"),
            1 => parts.remove(0),
            _ => {
                let mut texts: Vec<String> = Vec::new();
                for text in parts.into_iter().map(|one| one.at_least(&Binds::Tight)) {
                    if !texts.contains(&text) {
                        texts.push(text);
                    }
                }
                Self {
                    text: texts.join(" & "),
                    binds: Binds::Intersection,
                }
            }
        }
    }
}

struct Writer<'a> {
    /// What is referred to and how it is called.
    named: &'a BTreeMap<String, String>,
}

impl Writer<'_> {
    fn whole(&self, schema: &Value, indent: usize) -> String {
        self.of(schema, indent).text
    }

    fn of(&self, schema: &Value, indent: usize) -> Type {
        let Value::Object(members) = schema else {
            return Type::tight(if schema == &Value::Bool(false) {
                "never"
            } else {
                "unknown"
            });
        };
        let mut parts = Vec::new();
        if let Some(target) = members.get("$ref").and_then(Value::as_str) {
            let name = self.named.get(target.trim_start_matches('#'));
            parts.push(Type::tight(name.map_or("unknown", String::as_str)));
        }
        parts.push(self.own(members, indent));
        for schema in list(members.get("allOf")) {
            parts.push(self.of(schema, indent));
        }
        for word in ["anyOf", "oneOf"] {
            if members.contains_key(word) {
                let each = list(members.get(word))
                    .iter()
                    .map(|schema| self.of(schema, indent));
                parts.push(Type::union(each.collect()));
            }
        }
        Type::intersection(parts)
    }

    /// What the words of the schema itself say.
    fn own(&self, members: &Map<String, Value>, indent: usize) -> Type {
        if let Some(value) = members.get("const") {
            return Type::tight(literal(value));
        }
        if let Some(Value::Array(values)) = members.get("enum") {
            return Type::union(values.iter().map(|value| Type::tight(literal(value))).collect());
        }
        let kinds: Vec<&str> = match members.get("type") {
            Some(Value::String(kind)) => vec![kind],
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
            // Who describes members or elements means an object or an array.
            _ if [
                "properties",
                "required",
                "additionalProperties",
                "patternProperties",
            ]
            .iter()
            .any(|word| members.contains_key(*word)) =>
            {
                vec!["object"]
            }
            _ if ["items", "prefixItems"]
                .iter()
                .any(|word| members.contains_key(*word)) =>
            {
                vec!["array"]
            }
            _ => return Type::tight("unknown"),
        };
        let of_kind = |kind: &str| match kind {
            "integer" | "number" => Type::tight("number"),
            "object" => Type::tight(self.object(members, indent)),
            "array" => Type::tight(self.array(members, indent)),
            other => Type::tight(other),
        };
        Type::union(kinds.into_iter().map(of_kind).collect())
    }

    fn object(&self, members: &Map<String, Value>, indent: usize) -> String {
        let none = Map::new();
        let properties = members
            .get("properties")
            .and_then(Value::as_object)
            .unwrap_or(&none);
        let required: Vec<&str> = list(members.get("required"))
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let rest = match (
            members.get("additionalProperties"),
            members.get("patternProperties"),
        ) {
            (None | Some(Value::Bool(true)), _) | (_, Some(_)) => "unknown".to_owned(),
            (Some(schema), None) => self.whole(schema, indent),
        };
        let mut names: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
        names.extend(&required);
        if names.is_empty() {
            // Not `Record`, which may not be a type's own alias, and may be the name of an event's type.
            return format!("{{ [key: string]: {rest} }}");
        }
        let mut text = "{\n".to_owned();
        for name in names {
            let schema = properties.get(name).unwrap_or(&Value::Bool(true));
            comment(&mut text, &about(schema), indent + 1);
            let optional = if required.contains(&name) { "" } else { "?" };
            let space = "  ".repeat(indent + 1);
            let _ = writeln!(
                text,
                "{space}{}{optional}: {};",
                member(name),
                self.whole(schema, indent + 1)
            );
        }
        let _ = write!(text, "{}}}", "  ".repeat(indent));
        text
    }

    fn array(&self, members: &Map<String, Value>, indent: usize) -> String {
        let items = members
            .get("items")
            .map_or_else(|| Type::tight("unknown"), |schema| self.of(schema, indent));
        let first = list(members.get("prefixItems"));
        if first.is_empty() {
            return format!("{}[]", items.at_least(&Binds::Tight));
        }
        let sure = members.get("minItems").and_then(Value::as_u64).unwrap_or(0);
        let mut elements: Vec<String> = first
            .iter()
            .zip(0_u64..)
            .map(|(schema, index)| {
                let element = self.of(schema, indent);
                if index < sure {
                    element.text
                } else {
                    format!("{}?", element.at_least(&Binds::Tight))
                }
            })
            .collect();
        if items.text != "never" {
            elements.push(format!("...{}[]", items.at_least(&Binds::Tight)));
        }
        format!("[{}]", elements.join(", "))
    }
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// JSON is TypeScript.
fn literal(value: &Value) -> String {
    value.to_string()
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A member's name, in quotes where TypeScript wants them.
fn member(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$');
    let good = !name.is_empty() && name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit());
    if good { name.to_owned() } else { quoted(name) }
}

/// `booking:new` → `BookingNew`: a type's name.
fn words(name: &str) -> String {
    let mut out = String::new();
    for part in name.split(|c: char| !c.is_ascii_alphanumeric()) {
        let mut letters = part.chars();
        out.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    }
    if out.is_empty() || out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, 'T');
    }
    out
}

/// What a schema says about itself.
fn about(schema: &Value) -> String {
    let text = |word: &str| {
        schema
            .get(word)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .trim()
    };
    let (title, description) = (text("title"), text("description"));
    match (title.is_empty(), description.is_empty()) {
        (false, false) => format!("{}. {description}", title.trim_end_matches('.')),
        (false, true) => title.to_owned(),
        _ => description.to_owned(),
    }
}

fn comment(text: &mut String, about: &str, indent: usize) {
    let words: Vec<&str> = about.split_whitespace().collect();
    if !words.is_empty() {
        // What would end the comment does not.
        let about = words.join(" ").replace("*/", "*\\/");
        let _ = writeln!(text, "{}/** {about} */", "  ".repeat(indent));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The type of one schema.
    #[track_caller]
    fn check(schema: &str, expected: &str) {
        let text = format!(
            "{{\"x-roomcast-type\":\"t\",\"properties\":{{\"a\":{schema}}},\"$defs\":{{\"money\":{{\"type\":\"string\"}}}}}}"
        );
        let schema = Schema::parse("s.json", &text).unwrap();
        let text = write(&Catalog::new(vec![schema]).unwrap());
        assert!(text.contains(&format!("  a?: {expected};\n")), "{text}");
    }

    #[test]
    fn each_kind_of_schema_has_its_type() {
        check("true", "unknown");
        check("false", "never");
        check("{}", "unknown");
        check(r#"{"type":"string","maxLength":3}"#, "string");
        check(r#"{"type":["integer","null"]}"#, "number | null");
        check(r#"{"type":["integer","number"]}"#, "number");
        check(r#"{"enum":["a",1,null,"a"]}"#, "\"a\" | 1 | null");
        check(r#"{"const":{"b":[1]}}"#, "{\"b\":[1]}");
        check(r#"{"items":{"enum":[1,2]}}"#, "(1 | 2)[]");
        check(r#"{"type":"array"}"#, "unknown[]");
        check(
            r#"{"prefixItems":[{"type":"string"},{"type":["string","null"]}],"minItems":1,"items":false}"#,
            "[string, (string | null)?]",
        );
        check(
            r#"{"prefixItems":[true],"items":{"type":"number"}}"#,
            "[unknown?, ...number[]]",
        );
        check(r#"{"type":"object"}"#, "{ [key: string]: unknown }");
        check(
            r#"{"additionalProperties":{"type":"number"}}"#,
            "{ [key: string]: number }",
        );
        check(
            r#"{"additionalProperties":{"properties":{"b":true}}}"#,
            "{ [key: string]: {\n    b?: unknown;\n  } }",
        );
        check(
            r#"{"items":{"additionalProperties":{"type":["string","null"]}}}"#,
            "{ [key: string]: string | null }[]",
        );
        check(
            r#"{"properties":{"b-c":{"type":"null"},"d":true},"required":["d","e"]}"#,
            "{\n    \"b-c\"?: null;\n    d: unknown;\n    e: unknown;\n  }",
        );
        check(
            r##"{"anyOf":[{"type":"string"},{"type":"number"}],"allOf":[{"$ref":"#/$defs/money"}]}"##,
            "TMoney & (string | number)",
        );
        check(r##"{"$ref":"#"}"##, "T");
        check(
            r##"{"$ref":"#/properties/a/items","items":{"type":"null"}}"##,
            "TItems & null[]",
        );
        check(r#"{"not":{"type":"string"}}"#, "unknown");
    }

    #[test]
    fn names_are_those_of_types_and_never_twice() {
        for (kind, name) in [
            ("booking:new", "BookingNew"),
            ("stats:updated", "StatsUpdated"),
            ("orderCreated", "OrderCreated"),
            ("7", "T7"),
            (":", "T"),
        ] {
            assert_eq!(words(kind), name);
        }
        let parse = |text: &str| Schema::parse("s.json", text).unwrap();
        let all = vec![
            parse(r#"{"x-roomcast-type":"a:b","type":"string"}"#),
            parse(r#"{"x-roomcast-type":"a.b","type":"number","title":"Ends */ here."}"#),
            parse(r#"{"x-roomcast-type":"c","type":"null"}"#),
            parse(r#"{"x-roomcast-type":"c","x-roomcast-version":2,"type":"string"}"#),
        ];
        let text = write(&Catalog::new(all).unwrap());
        for part in [
            "/** Data of `a.b`, version 1. Ends *\\/ here. */\nexport type AB = number;",
            "export type AB2 = string;",
            "export type C = CV2 | CV1;",
            "  \"a:b\": AB2;\n  \"c\": C;\n};\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
