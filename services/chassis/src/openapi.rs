//! An OpenAPI 3.1 document, made of the descriptions that routes carry.
//!
//! Schemas of answers come from the very types that are written (`schemars`); what is written by hand is described by
//! hand. Knows no product words: names of refusals come in as arguments.

use std::collections::BTreeMap;

use bytes::Bytes;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use crate::build;
use crate::routes::Described;

/// The media type of refusals.
const PROBLEM: &str = "application/problem+json";

/// The shape of a body.
#[derive(Clone, Debug)]
pub enum Shape {
    /// The schema itself.
    Written(Value),
    /// That of a type of ours.
    Of(fn(&mut SchemaGenerator) -> Schema),
}

impl Shape {
    /// The shape of a type.
    #[must_use]
    pub fn of<T: JsonSchema>() -> Self {
        Self::Of(SchemaGenerator::subschema_for::<T>)
    }

    fn resolve(&self, generator: &mut SchemaGenerator) -> Value {
        match self {
            Self::Written(value) => value.clone(),
            Self::Of(make) => make(generator).to_value(),
        }
    }
}

impl From<Value> for Shape {
    fn from(value: Value) -> Self {
        Self::Written(value)
    }
}

/// Whether an operation asks for a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Access {
    #[default]
    Token,
    Either,
    Open,
}

/// A body by its media type.
#[derive(Clone, Debug)]
struct Content {
    media: &'static str,
    shape: Shape,
}

/// One answer of an operation.
#[derive(Clone, Debug, Default)]
struct Answer {
    words: String,
    content: Vec<Content>,
    /// Codes of refusal with this status; empty for other answers.
    codes: Vec<&'static str>,
}

/// What one method of one path does, for the document.
#[derive(Clone, Debug)]
pub struct Operation {
    id: &'static str,
    summary: &'static str,
    about: Option<&'static str>,
    tag: &'static str,
    access: Access,
    parameters: Vec<Value>,
    body: Vec<Content>,
    body_required: bool,
    answers: BTreeMap<u16, Answer>,
}

impl Operation {
    /// `id` is unique in the service and a name in any language; `summary` is one sentence.
    #[must_use]
    pub fn new(tag: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            summary,
            about: None,
            tag,
            access: Access::Token,
            parameters: Vec::new(),
            body: Vec::new(),
            body_required: true,
            answers: BTreeMap::new(),
        }
    }

    /// More than one sentence.
    #[must_use]
    pub fn about(mut self, text: &'static str) -> Self {
        self.about = Some(text);
        self
    }

    /// Asks for no token.
    #[must_use]
    pub fn open(mut self) -> Self {
        self.access = Access::Open;
        self
    }

    /// A token may come with the request or in another way, which the description says.
    #[must_use]
    pub fn token_optional(mut self) -> Self {
        self.access = Access::Either;
        self
    }

    /// A part of the path.
    #[must_use]
    pub fn path(self, name: &'static str, words: &'static str, schema: Value) -> Self {
        self.parameter("path", name, words, true, schema)
    }

    /// A parameter of the query that may be left out.
    #[must_use]
    pub fn query(self, name: &'static str, words: &'static str, schema: Value) -> Self {
        self.parameter("query", name, words, false, schema)
    }

    /// A parameter of the query that must be there.
    #[must_use]
    pub fn query_required(self, name: &'static str, words: &'static str, schema: Value) -> Self {
        self.parameter("query", name, words, true, schema)
    }

    /// A header that may be left out.
    #[must_use]
    pub fn header(self, name: &'static str, words: &'static str, schema: Value) -> Self {
        self.parameter("header", name, words, false, schema)
    }

    fn parameter(
        mut self,
        place: &str,
        name: &'static str,
        words: &'static str,
        required: bool,
        schema: Value,
    ) -> Self {
        self.parameters.push(json!({
            "name": name, "in": place, "required": required, "description": words, "schema": schema,
        }));
        self
    }

    /// A body; several calls are several media types.
    #[must_use]
    pub fn takes(mut self, media: &'static str, shape: impl Into<Shape>) -> Self {
        self.body.push(Content {
            media,
            shape: shape.into(),
        });
        self
    }

    /// A JSON body of a type of ours.
    #[must_use]
    pub fn takes_json<T: JsonSchema>(self) -> Self {
        self.takes("application/json", Shape::of::<T>())
    }

    /// The body may be left out.
    #[must_use]
    pub fn body_optional(mut self) -> Self {
        self.body_required = false;
        self
    }

    /// An answer; several calls with one status are several media types.
    #[must_use]
    pub fn answers(mut self, status: u16, words: &str, media: &'static str, shape: impl Into<Shape>) -> Self {
        let answer = self.answers.entry(status).or_default();
        words.clone_into(&mut answer.words);
        answer.content.push(Content {
            media,
            shape: shape.into(),
        });
        self
    }

    /// An answer in JSON, of a type of ours.
    #[must_use]
    pub fn answers_json<T: JsonSchema>(self, status: u16, words: &str) -> Self {
        self.answers(status, words, "application/json", Shape::of::<T>())
    }

    /// An answer without a body.
    #[must_use]
    pub fn answers_nothing(mut self, status: u16, words: &str) -> Self {
        words.clone_into(&mut self.answers.entry(status).or_default().words);
        self
    }

    /// Refusals, as (status, code): `application/problem+json` of the document's schema `Problem`.
    #[must_use]
    pub fn refuses(mut self, refusals: impl IntoIterator<Item = (u16, &'static str)>) -> Self {
        for (status, code) in refusals {
            let codes = &mut self.answers.entry(status).or_default().codes;
            if !codes.contains(&code) {
                codes.push(code);
            }
        }
        self
    }

    fn render(&self, generators: &mut Generators) -> Value {
        let mut out = json!({
            "operationId": self.id, "summary": self.summary, "tags": [self.tag], "parameters": self.parameters,
        });
        if let Some(about) = self.about {
            out["description"] = about.into();
        }
        match self.access {
            Access::Token => {}
            Access::Either => out["security"] = json!([{}, { "bearer": [] }]),
            Access::Open => out["security"] = json!([]),
        }
        if !self.body.is_empty() {
            out["requestBody"] = json!({ "required": self.body_required, "content": contents(&self.body, &mut generators.read) });
        }
        let answers = self
            .answers
            .iter()
            .map(|(status, answer)| (status.to_string(), answer.render(&mut generators.written)));
        out["responses"] = Value::Object(answers.collect());
        out
    }
}

impl Answer {
    fn render(&self, generator: &mut SchemaGenerator) -> Value {
        let mut content = contents(&self.content, generator);
        let mut words = self.words.clone();
        if !self.codes.is_empty() {
            if words.is_empty() {
                words = format!("Refused: {}.", self.codes.join(", "));
            }
            let schema = json!({
                "$ref": "#/components/schemas/Problem", "properties": { "code": { "enum": self.codes } },
            });
            content.insert(PROBLEM.to_owned(), json!({ "schema": schema }));
        }
        let mut out = json!({ "description": words });
        if !content.is_empty() {
            out["content"] = Value::Object(content);
        }
        out
    }
}

/// A type may be read otherwise than it is written: what is left out when it is written, what may be left out when it is read.
struct Generators {
    /// What we write; types with names are components of the document.
    written: SchemaGenerator,
    /// What we read; whole where it stands.
    read: SchemaGenerator,
}

impl Generators {
    fn new() -> Self {
        let components =
            |settings: &mut SchemaSettings| settings.definitions_path = "/components/schemas".into();
        let whole = |settings: &mut SchemaSettings| settings.inline_subschemas = true;
        Self {
            written: SchemaSettings::draft2020_12()
                .with(components)
                .for_serialize()
                .into_generator(),
            read: SchemaSettings::draft2020_12()
                .with(whole)
                .for_deserialize()
                .into_generator(),
        }
    }
}

fn contents(list: &[Content], generator: &mut SchemaGenerator) -> Map<String, Value> {
    let one = |content: &Content| {
        let schema = content.shape.resolve(generator);
        (content.media.to_owned(), json!({ "schema": schema }))
    };
    list.iter().map(one).collect()
}

/// Makes a document.
#[derive(Clone, Debug)]
pub struct Document {
    title: String,
    about: String,
    problem: Value,
    described: Vec<Described>,
}

impl Document {
    /// `problem` is the schema of a refusal.
    #[must_use]
    pub fn new(title: impl Into<String>, about: impl Into<String>, problem: Value) -> Self {
        Self {
            title: title.into(),
            about: about.into(),
            problem,
            described: Vec::new(),
        }
    }

    /// Adds descriptions.
    #[must_use]
    pub fn with(mut self, described: &[Described]) -> Self {
        self.described.extend_from_slice(described);
        self
    }

    /// The document.
    #[must_use]
    pub fn value(&self) -> Value {
        let mut generators = Generators::new();
        let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
        let mut tags: Vec<&str> = Vec::new();
        for Described {
            path,
            method,
            operation,
        } in &self.described
        {
            let rendered = operation.render(&mut generators);
            paths
                .entry(path)
                .or_default()
                .insert(method.name().to_owned(), rendered);
            if !tags.contains(&operation.tag) {
                tags.push(operation.tag);
            }
        }
        let mut schemas = generators.written.take_definitions(true);
        schemas.insert("Problem".to_owned(), self.problem.clone());
        let tags: Vec<Value> = tags.iter().map(|tag| json!({ "name": tag })).collect();
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": self.title, "description": self.about, "version": build::VERSION,
                "license": { "name": "Apache 2.0", "identifier": "Apache-2.0" },
            },
            "servers": [{ "url": "/" }],
            "security": [{ "bearer": [] }],
            "tags": tags,
            "paths": paths,
            "components": {
                "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
                "schemas": schemas,
            },
        })
    }

    /// The same as text.
    #[must_use]
    pub fn text(&self) -> Bytes {
        self.value().to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::{Method, Routes};

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Inner {
        /// How many.
        count: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Outer {
        inner: Vec<Inner>,
    }

    fn document() -> Value {
        let get = Operation::new("things", "getThing", "Reads a thing.")
            .path("id", "Which.", json!({ "type": "string" }))
            .takes_json::<Inner>()
            .answers_json::<Outer>(200, "The thing.")
            .refuses([(404, "not_found"), (403, "forbidden"), (404, "not_found")]);
        let delete = Operation::new("things", "deleteThing", "Takes a thing away.")
            .open()
            .answers_nothing(204, "Gone.");
        let routes: Routes =
            Routes::new()
                .get("/things/{id}", get, async || "")
                .delete("/things/{id}", delete, async || ());
        assert_eq!(routes.descriptions().len(), 2);
        assert_eq!(routes.descriptions()[1].method, Method::Delete);
        Document::new("T", "A.", json!({ "type": "object" }))
            .with(routes.descriptions())
            .value()
    }

    #[test]
    fn operations_of_one_path_stand_together() {
        let document = document();
        let path = &document["paths"]["/things/{id}"];
        assert_eq!(path["get"]["operationId"], "getThing");
        assert_eq!(path["delete"]["security"], json!([]));
        assert_eq!(
            path["delete"]["responses"]["204"],
            json!({ "description": "Gone." })
        );
        assert_eq!(document["tags"], json!([{ "name": "things" }]));
    }

    #[test]
    fn schemas_come_from_types_and_refer_into_the_document() {
        let document = document();
        let schema = &document["paths"]["/things/{id}"]["get"]["responses"]["200"]["content"]["application/json"]
            ["schema"];
        assert_eq!(schema["$ref"], "#/components/schemas/Outer");
        let schemas = &document["components"]["schemas"];
        assert_eq!(
            schemas["Outer"]["properties"]["inner"]["items"]["$ref"],
            "#/components/schemas/Inner"
        );
        assert_eq!(
            schemas["Inner"]["properties"]["count"]["description"],
            "How many."
        );
    }

    #[test]
    fn what_is_left_out_is_said_of_what_is_written_and_of_what_is_read() {
        let document = document();
        let written = &document["components"]["schemas"]["Inner"];
        assert_eq!(written["required"], json!(["count"]));
        let body = &document["paths"]["/things/{id}"]["get"]["requestBody"]["content"]["application/json"];
        assert_eq!(
            body["schema"]["properties"]["note"]["type"],
            json!(["string", "null"])
        );
    }

    #[test]
    fn refusals_name_their_codes_once() {
        let document = document();
        let refused = &document["paths"]["/things/{id}"]["get"]["responses"]["404"];
        assert_eq!(refused["description"], "Refused: not_found.");
        let schema = &refused["content"][PROBLEM]["schema"];
        assert_eq!(schema["properties"]["code"]["enum"], json!(["not_found"]));
    }
}
