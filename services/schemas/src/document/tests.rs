use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parse(text: &str) -> Result<Schema, Vec<String>> {
    Schema::parse("s.json", text).map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

/// A schema of the type `t` with these members; what is wrong with it, in part.
#[track_caller]
fn check(members: &str, expected: Option<&str>) {
    let text = format!("{{\"x-roomcast-type\": \"t\",\n {members}}}");
    match (parse(&text), expected) {
        (Ok(_), None) => {}
        (Err(found), Some(part)) => {
            assert!(
                found.iter().any(|mistake| mistake.contains(part)),
                "{text}: {found:?}"
            );
        }
        (found, _) => panic!("{text}: {found:?}, expected {expected:?}"),
    }
}

#[test]
fn what_is_written_is_understood() {
    let text = r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","$id":"urn:x","x-roomcast-type":"a:b",
        "x-roomcast-version":3,"x-roomcast-mode":"warn","x-owner":"desk","type":"object"}"#;
    let schema = parse(text).unwrap();
    assert_eq!(
        (
            schema.kind.as_str(),
            schema.version,
            schema.mode,
            schema.id.as_deref()
        ),
        ("a:b", 3, Mode::Warn, Some("urn:x"))
    );
    let least = parse(r#"{"x-roomcast-type":"t"}"#).unwrap();
    assert_eq!((least.version, least.mode, least.id), (1, Mode::Enforce, None));
}

#[test]
fn mistakes_have_their_place() {
    for (text, expected) in [
        ("", "s.json:1:1: the file is empty"),
        ("{\n \"x", "s.json:2:"),
        ("[]", "s.json:1:1: a schema is an object"),
        ("{}", "s.json:1:1: \"x-roomcast-type\" is missing"),
        (
            "{\"x-roomcast-type\": \"\"}",
            "s.json:1:21: x-roomcast-type is the type",
        ),
        (
            "{\"x-roomcast-type\": \"t\", \"x-roomcast-type\": \"u\"}",
            "stands here twice",
        ),
    ] {
        let found = parse(text).unwrap_err();
        assert!(
            found[0].starts_with(expected) || found[0].contains(expected),
            "{text}: {found:?}"
        );
    }
    check("\"type\": \"object\"", None);
    check("\"type\": \"strng\"", Some("s.json:2:10: "));
    check("\"minLength\": \"a\"", Some("s.json:2:15: "));
    check("\"proprties\": {}", Some("did you mean \"properties\"?"));
    check("\"properties\": {\"a\": {\"requird\": []}}", Some("s.json:2:"));
    check("\"properties\": []", Some("properties holds schemas by name"));
    check("\"allOf\": {}", Some("allOf is a list of schemas"));
    check("\"items\": 3", Some("a schema is an object, true or false"));
    check(
        "\"x-roomcast-mode\": \"enforced\"",
        Some("did you mean \"enforce\"?"),
    );
    check("\"x-roomcast-version\": 0", Some("a whole number from 1"));
    check("\"x-roomcast-typ\": 0", Some("did you mean \"x-roomcast-type\"?"));
    check(
        "\"items\": {\"x-roomcast-type\": \"u\"}",
        Some("at the top of the file only"),
    );
    check("\"items\": {\"$id\": \"u\"}", Some("$id stands at the top"));
    check("\"$id\": \"a b\"", Some("$id is an address"));
    check(
        "\"$schema\": \"http://json-schema.org/draft-07/schema#\"",
        Some("only https://json-schema.org/draft/2020-12"),
    );
    check("\"definitions\": {}", Some("definitions is not understood here"));
    check("\"format\": \"datetime\"", Some("format is one that"));
    check("\"format\": \"date-time\"", None);
    check("\"pattern\": \"[\"", Some("s.json:2:"));
    // No look-around and no back-references: a check of a text is linear in it.
    check("\"pattern\": \"(a)\\\\1\"", Some("s.json:2:"));
    check("\"pattern\": \"^(?=a)\"", Some("s.json:2:"));
    check("\"pattern\": \"(a{1000}){1000}\"", Some("s.json:2:"));
    check("\"x-anything\": {\"of\": \"one's own\"}", None);
}

#[test]
fn references_stay_inside_the_file() {
    let money = "\"$defs\": {\"money\": {\"type\": \"number\"}}";
    check(
        &format!("{money}, \"properties\": {{\"a\": {{\"$ref\": \"#/$defs/money\"}}}}"),
        None,
    );
    check(
        &format!("{money}, \"items\": {{\"$ref\": \"#/$defs/mony\"}}"),
        Some("there is no schema at #/$defs/mony"),
    );
    for elsewhere in [
        "https://example.com/a.json",
        "file:///etc/passwd",
        "other.json",
        "#anchor",
        "//x/#/y",
    ] {
        check(
            &format!("\"items\": {{\"$ref\": \"{elsewhere}\"}}"),
            Some("nothing is fetched"),
        );
    }
    check("\"items\": {\"$ref\": \"#\"}", None);
    check(
        "\"x-mine\": {}, \"items\": {\"$ref\": \"#/x-mine\"}",
        Some("there is no schema at"),
    );
}

#[test]
fn what_would_never_end_or_take_for_ever_is_refused() {
    check("\"$ref\": \"#\"", Some("a check would not end"));
    check(
        "\"$defs\": {\"a\": {\"anyOf\": [{\"$ref\": \"#/$defs/b\"}]}, \"b\": {\"not\": {\"$ref\": \"#/$defs/a\"}}}",
        Some("would not end"),
    );
    // A tree is looked at once a level, whatever its depth.
    check(
        "\"properties\": {\"left\": {\"$ref\": \"#\"}, \"right\": {\"$ref\": \"#\"}}",
        None,
    );
    check(
        "\"items\": {\"allOf\": [{\"$ref\": \"#\"}, {\"$ref\": \"#\"}]}",
        Some("more than 10000 times"),
    );
    let twice = |n: usize| {
        format!(
            "\"a{n}\": {{\"allOf\": [{{\"$ref\": \"#/$defs/a{}\"}}, {{\"$ref\": \"#/$defs/a{}\"}}]}}",
            n + 1,
            n + 1
        )
    };
    let doubling: Vec<String> = (0..20).map(twice).collect();
    check(
        &format!(
            "\"$ref\": \"#/$defs/a0\", \"$defs\": {{{}, \"a20\": true}}",
            doubling.join(", ")
        ),
        Some("more than 10000 times"),
    );
    let many = vec!["true"; PARTS_MAX + 1].join(",");
    check(&format!("\"anyOf\": [{many}]"), Some("more than 1000 schemas"));
    let deep = format!(
        "{}{}{}",
        "\"not\": {".repeat(70),
        "\"type\": \"null\"",
        "}".repeat(70)
    );
    check(&deep, Some("nested deeper"));
}

/// The longest way that is allowed through one file compiles and checks on a thread with little stack.
#[test]
fn a_long_chain_needs_no_deep_stack() {
    let link = |n: usize| format!("\"a{n}\": {{\"$ref\": \"#/$defs/a{}\"}}", n + 1);
    let links: Vec<String> = (0..PARTS_MAX - 3).map(link).collect();
    let text = format!(
        "{{\"x-roomcast-type\": \"t\", \"$ref\": \"#/$defs/a0\", \"$defs\": {{{}, \"a{}\": {{\"type\": \"string\"}}}}}}",
        links.join(", "),
        PARTS_MAX - 3
    );
    let schema = parse(&text).unwrap();
    assert!(schema.wrong_in(&json!("a")).is_none() && schema.wrong_in(&json!(1)).is_some());
}

#[test]
fn the_worst_text_and_the_worst_pattern_end_at_once() {
    let schema = parse(r#"{"x-roomcast-type":"t","pattern":"^(a+)+$","uniqueItems":true}"#).unwrap();
    let text = format!("{}!", "a".repeat(60_000));
    assert!(schema.wrong_in(&json!(text)).is_some());
    let many: Vec<String> = (0..8_000).map(|n| n.to_string()).collect();
    assert!(schema.wrong_in(&json!(many)).is_none());
}

proptest! {
    /// Whatever bytes a file holds, it is understood or refused.
    #[test]
    fn any_text_is_answered(text in ".{0,200}") {
        let _ = parse(&text);
    }

    /// Whatever stands behind a known word.
    #[test]
    fn any_value_behind_any_word_is_answered(word in 0..KEYWORDS.len(), value in prop_oneof![
        Just("null"), Just("-1"), Just("1e300"), Just("\"#\""), Just("[]"), Just("[{}]"), Just("{}"), Just("{\"a\":[]}"),
        Just("{\"a\":{}}"), Just("true"), Just("[null]"), Just("\"\\u0000\""),
    ]) {
        if let Ok(schema) = parse(&format!("{{\"x-roomcast-type\":\"t\",\"{}\":{value}}}", KEYWORDS[word].0)) {
            let _ = schema.wrong_in(&json!({"a": [1, "b", null]}));
        }
    }
}
