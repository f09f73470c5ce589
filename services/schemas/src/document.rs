//! One schema: a file that says what the data of one type looks like, in one version.
//!
//! Understood first and compiled afterwards, so that every mistake has its line, a word that nobody knows is one, and nothing is
//! compiled that could make a check endless. References stay inside their file; nothing is ever fetched.

use std::collections::HashMap;
use std::fmt;

use jsonschema::{Draft, PatternOptions, ValidationOptions, Validator};
use roomcast_access::Mistake;
use roomcast_access::yaml::Mistakes;
use roomcast_proto::limits::ATTRIBUTE_BYTES_MAX;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::keywords::{Applies, Holds, KEYWORDS, holds};
use crate::place::{Places, escaped};
use crate::weight::{Endless, LOOKS_MAX, Uses, weigh};

/// Most schemas in one file, each part of one counted.
const PARTS_MAX: usize = 1_000;
/// Bytes that one `pattern` may take when compiled. The engine is linear in the text, whatever the pattern.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// Longest text of a mistake that is shown, characters.
const WORDS_MAX: usize = 300;
/// The one version of JSON Schema that is read.
const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
const TYPE: &str = "x-roomcast-type";
const VERSION: &str = "x-roomcast-version";
const MODE: &str = "x-roomcast-mode";
const OURS: [&str; 3] = [TYPE, VERSION, MODE];

/// What happens to an event that breaks its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Nothing: it is not checked.
    Off,
    /// It is taken, counted, and the first one is told in the log.
    Warn,
    /// It is refused.
    Enforce,
}

impl Mode {
    const ALL: [Mode; 3] = [Mode::Off, Mode::Warn, Mode::Enforce];

    /// The word in a file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::Warn => "warn",
            Mode::Enforce => "enforce",
        }
    }
}

/// One version of what the data of one type looks like.
pub struct Schema {
    /// The event type it is of.
    pub kind: String,
    /// Its version; the highest is the newest.
    pub version: u32,
    /// What happens to who breaks it.
    pub mode: Mode,
    /// `$id`: the name that an event's `dataschema` gives.
    pub id: Option<String>,
    /// The file, as it was named.
    pub file: String,
    /// All of it.
    pub document: Value,
    validator: Validator,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {} ({})", self.kind, self.version, self.file)
    }
}

impl Schema {
    /// Reads a schema. `file` is the name that mistakes carry.
    ///
    /// # Errors
    /// Every mistake with its line and column.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Mistakes::new(file, text);
        let read = read(text, &mut mistakes);
        match read {
            Some(read) if mistakes.is_empty() => Ok(Self {
                file: file.to_owned(),
                ..read
            }),
            _ => Err(mistakes.finish()),
        }
    }

    /// What is wrong with data: where in it, and why, without showing it; `None` where nothing is.
    pub(crate) fn wrong_in(&self, data: &Value) -> Option<(String, String)> {
        if self.validator.is_valid(data) {
            return None;
        }
        let error = self.validator.validate(data).err()?;
        let words = error.masked_with("the value").to_string();
        Some((error.instance_path().to_string(), shortened(&words)))
    }
}

fn shortened(words: &str) -> String {
    match words.char_indices().nth(WORDS_MAX) {
        Some((cut, _)) => format!("{}…", &words[..cut]),
        None => words.to_owned(),
    }
}

/// The schema without its file's name; with mistakes it is of no use.
fn read(text: &str, mistakes: &mut Mistakes<'_>) -> Option<Schema> {
    if text.trim().is_empty() {
        mistakes.add(
            at(1, 1),
            format!("the file is empty; it needs a schema with {TYPE:?}"),
        );
        return None;
    }
    let raw: &RawValue = match serde_json::from_str(text) {
        Ok(raw) => raw,
        Err(error) => {
            let words = error.to_string();
            let words = words.split(" at line ").next().unwrap_or(&words);
            mistakes.add(at(error.line(), error.column()), format!("not JSON: {words}"));
            return None;
        }
    };
    let places = Places::of(raw);
    for (at, words) in &places.mistakes {
        mistakes.add(*at, words.clone());
    }
    if !mistakes.is_empty() {
        return None;
    }
    let document: Value = match serde_json::from_str(text) {
        Ok(document) => document,
        Err(error) => {
            mistakes.add(at(error.line(), error.column()), error.to_string());
            return None;
        }
    };
    let Value::Object(members) = &document else {
        mistakes.add(at(1, 1), format!("a schema is an object with {TYPE:?}"));
        return None;
    };
    let mut walk = Walk {
        places: &places,
        mistakes,
        parts: Vec::new(),
        by_pointer: HashMap::new(),
        references: Vec::new(),
    };
    let kind = walk.kind(members.get(TYPE));
    let version = walk.version(members.get(VERSION));
    let mode = walk.mode(members.get(MODE));
    let id = walk.id(members.get("$id"));
    walk.draft(members.get("$schema"));
    walk.schema(&document, "");
    walk.refer();
    walk.weigh();
    if !mistakes.is_empty() {
        return None;
    }
    let validator = match compile(&document) {
        Ok(validator) => validator,
        Err((pointer, words)) => {
            mistakes.add(places.at(&pointer), words);
            return None;
        }
    };
    Some(Schema {
        kind,
        version,
        mode,
        id,
        file: String::new(),
        document,
        validator,
    })
}

fn at(line: usize, column: usize) -> roomcast_access::yaml::At {
    let count = |n: usize| u64::try_from(n.max(1)).unwrap_or(1);
    roomcast_access::yaml::At {
        line: count(line),
        column: count(column),
    }
}

fn options<'a>() -> ValidationOptions<'a> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .offline()
        .should_validate_formats(true)
        // A publisher's pattern would be compiled with each check.
        .with_format("regex", |_: &str| true)
        .with_pattern_options(
            PatternOptions::regex()
                .size_limit(PATTERN_BYTES_MAX)
                .dfa_size_limit(PATTERN_BYTES_MAX),
        )
}

/// Compiles it; else the place and the words of what is wrong.
fn compile(document: &Value) -> Result<Validator, (String, String)> {
    let mut document = document.clone();
    if let Value::Object(members) = &mut document {
        // A name is for publishers; here it would only be another way to refer to itself.
        members.remove("$id");
    }
    options().build(&document).map_err(|error| {
        let words = shortened(&error.masked_with("this").to_string());
        (error.instance_path().to_string(), words)
    })
}

struct Walk<'a, 'm> {
    places: &'a Places,
    mistakes: &'a mut Mistakes<'m>,
    /// Every schema of the file; the first is the whole.
    parts: Vec<Uses>,
    by_pointer: HashMap<String, usize>,
    /// Who refers to what, and where that stands.
    references: Vec<(usize, String, String)>,
}

impl Walk<'_, '_> {
    fn wrong(&mut self, pointer: &str, words: impl Into<String>) {
        self.mistakes.add(self.places.at(pointer), words);
    }

    fn kind(&mut self, value: Option<&Value>) -> String {
        match value {
            Some(Value::String(kind)) if good_name(kind) => kind.clone(),
            Some(_) => {
                let words =
                    format!("{TYPE} is the type of an event: text of at most {ATTRIBUTE_BYTES_MAX} bytes");
                self.wrong(&format!("/{TYPE}"), words);
                String::new()
            }
            None => {
                self.wrong(
                    "",
                    format!("{TYPE:?} is missing: the type of the events whose data this describes"),
                );
                String::new()
            }
        }
    }

    fn version(&mut self, value: Option<&Value>) -> u32 {
        let version = match value {
            None => Some(1),
            Some(value) => value
                .as_u64()
                .and_then(|n| u32::try_from(n).ok())
                .filter(|n| *n > 0),
        };
        version.unwrap_or_else(|| {
            self.wrong(
                &format!("/{VERSION}"),
                format!("{VERSION} is a whole number from 1"),
            );
            1
        })
    }

    fn mode(&mut self, value: Option<&Value>) -> Mode {
        let Some(value) = value else { return Mode::Enforce };
        let word = value.as_str().unwrap_or_default();
        let known = Mode::ALL.into_iter().find(|mode| mode.as_str() == word);
        known.unwrap_or_else(|| {
            let names = Mode::ALL.map(Mode::as_str);
            let at = self.places.at(&format!("/{MODE}"));
            self.mistakes
                .unknown(at, format!("{MODE} is one of {}", names.join(", ")), word, names);
            Mode::Enforce
        })
    }

    fn id(&mut self, value: Option<&Value>) -> Option<String> {
        match value? {
            Value::String(id) if good_name(id) && !id.contains([' ', '#']) => Some(id.clone()),
            _ => {
                self.wrong(
                    "/$id",
                    "$id is an address without blanks and fragment: what events name in dataschema",
                );
                None
            }
        }
    }

    fn draft(&mut self, value: Option<&Value>) {
        if value.is_some_and(|value| value.as_str().map(|draft| draft.trim_end_matches('#')) != Some(DRAFT)) {
            self.wrong("/$schema", format!("only {DRAFT} is read"));
        }
    }

    /// Takes one schema and all it holds; its place in the list, `None` when there are too many.
    fn schema(&mut self, value: &Value, pointer: &str) -> Option<usize> {
        if self.parts.len() > PARTS_MAX {
            return None;
        }
        if self.parts.len() == PARTS_MAX {
            self.wrong(pointer, format!("more than {PARTS_MAX} schemas in one file"));
        }
        let index = self.parts.len();
        self.parts.push(Uses::default());
        self.by_pointer.insert(pointer.to_owned(), index);
        match value {
            Value::Bool(_) => {}
            Value::Object(members) => {
                for (word, value) in members {
                    self.member(index, word, value, pointer);
                }
            }
            _ => self.wrong(pointer, "a schema is an object, true or false"),
        }
        Some(index)
    }

    fn member(&mut self, of: usize, word: &str, value: &Value, pointer: &str) {
        let inner = format!("{pointer}/{}", escaped(word));
        let top = pointer.is_empty();
        if word.starts_with("x-") {
            self.extension(word, &inner, top);
            return;
        }
        match holds(word) {
            None => self.unknown(word, &inner),
            Some(Holds::Plain) if matches!(word, "$id" | "$schema") && !top => {
                self.wrong(&inner, format!("{word} stands at the top of the file only"));
            }
            Some(Holds::Plain) if word == "format" => self.format(value, &inner),
            Some(Holds::Plain) => {}
            Some(Holds::Refused) => {
                self.wrong(
                    &inner,
                    format!("{word} is not understood here; use $defs, $ref and dependentSchemas"),
                );
            }
            Some(Holds::One(applies)) => {
                let part = self.schema(value, &inner);
                self.uses(of, applies, part);
            }
            Some(Holds::List(applies)) => match value {
                Value::Array(elements) => {
                    for (index, element) in elements.iter().enumerate() {
                        let part = self.schema(element, &format!("{inner}/{index}"));
                        self.uses(of, applies, part);
                    }
                }
                _ => self.wrong(&inner, format!("{word} is a list of schemas")),
            },
            Some(Holds::Map(applies)) => match value {
                Value::Object(members) => {
                    for (name, member) in members {
                        let part = self.schema(member, &format!("{inner}/{}", escaped(name)));
                        self.uses(of, applies, part);
                    }
                }
                _ => self.wrong(&inner, format!("{word} holds schemas by name")),
            },
            Some(Holds::Reference) => self.reference(of, value, inner),
        }
    }

    fn extension(&mut self, word: &str, pointer: &str, top: bool) {
        if !word.starts_with("x-roomcast-") || (top && OURS.contains(&word)) {
            return;
        }
        let at = self.places.at(pointer);
        match OURS.contains(&word) {
            true => self
                .mistakes
                .add(at, format!("{word} stands at the top of the file only")),
            false => self
                .mistakes
                .unknown(at, format!("unknown word {word:?}"), word, OURS),
        }
    }

    fn unknown(&mut self, word: &str, pointer: &str) {
        let known = KEYWORDS
            .iter()
            .filter(|(_, holds)| *holds != Holds::Refused)
            .map(|(word, _)| *word);
        let words = format!("unknown word {word:?} in a schema; words of one's own begin with x-");
        self.mistakes.unknown(self.places.at(pointer), words, word, known);
    }

    fn format(&mut self, value: &Value, pointer: &str) {
        let known = value
            .as_str()
            .is_some_and(|name| name == "regex" || options().is_known_format(Draft::Draft202012, name));
        if !known {
            self.wrong(
                pointer,
                "format is one that JSON Schema 2020-12 defines, like date-time, date, email, uri or uuid",
            );
        }
    }

    fn uses(&mut self, of: usize, applies: Applies, part: Option<usize>) {
        let (Some(part), Some(uses)) = (part, self.parts.get_mut(of)) else {
            return;
        };
        match applies {
            Applies::Here => uses.here.push(part),
            Applies::OneMember => uses.one_member.push(part),
            Applies::AnyMember => uses.any_member.push(part),
            Applies::OneElement => uses.one_element.push(part),
            Applies::AnyElement => uses.any_element.push(part),
            Applies::Nowhere => {}
        }
    }

    fn reference(&mut self, of: usize, value: &Value, pointer: String) {
        let target = value
            .as_str()
            .and_then(|target| target.strip_prefix('#'))
            .filter(|target| target.is_empty() || target.starts_with('/'));
        match target {
            // Percent-encoding is for what hardly anybody has in a name.
            Some(target) if !target.contains('%') => self.references.push((of, target.to_owned(), pointer)),
            _ => self.wrong(
                &pointer,
                "$ref stays inside the file, like #/$defs/money; nothing is fetched",
            ),
        }
    }

    /// Ties references to what they refer to.
    fn refer(&mut self) {
        for (of, target, pointer) in std::mem::take(&mut self.references) {
            match self.by_pointer.get(&target).copied() {
                Some(part) => self.uses(of, Applies::Here, Some(part)),
                None => self.wrong(&pointer, format!("there is no schema at #{target}")),
            }
        }
    }

    fn weigh(&mut self) {
        if !self.mistakes.is_empty() {
            return;
        }
        match weigh(&self.parts) {
            Ok(looks) if looks <= LOOKS_MAX => {}
            Ok(_) => self.wrong(
                "",
                format!(
                    "a check could look at one value more than {LOOKS_MAX} times: schemas that use themselves or each other \
                     more than once on the same value double with each level"
                ),
            ),
            Err(Endless(part)) => {
                let found = self.by_pointer.iter().find(|(_, index)| **index == part);
                let pointer = found.map_or_else(String::new, |(pointer, _)| pointer.clone());
                self.wrong(&pointer, "this schema refers to itself without going deeper into the data: a check would not end");
            }
        }
    }
}

fn good_name(name: &str) -> bool {
    (1..=ATTRIBUTE_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests;
