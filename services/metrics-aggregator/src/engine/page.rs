//! The examples of METRICS.md, run.

use roomcast_proto::metric::{Skipped, Update, closed_key};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::definition::rule::Measure;
use crate::definition::{Definitions, Unit};
use crate::engine::row::Event;
use crate::engine::shard::Shard;
use crate::engine::testing::event_of;

const PAGE: &str = include_str!("../../METRICS.md");
const DAY: i64 = 1_780_272_000_000_000; // 2026-06-01T00:00:00Z
const MINUTE: i64 = 60_000_000;

/// The fenced blocks of a kind.
fn blocks(kind: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in PAGE.lines() {
        match &mut open {
            Some(block) if line == "```" => {
                blocks.push(std::mem::take(block));
                open = None;
            }
            Some(block) => {
                block.push_str(line);
                block.push('\n');
            }
            None if line.strip_prefix("```") == Some(kind) => open = Some(String::new()),
            None => {}
        }
    }
    blocks
}

/// `12:05`, or `06-08T12:05`, as an instant.
fn instant(text: &str) -> Option<i64> {
    if text.len() == 11 {
        return roomcast_proto::event::micros_of_rfc3339(&format!("2026-{text}:00Z"));
    }
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| (text.len() == 2).then(|| text.parse::<i64>().ok()).flatten();
    Some(DAY + (number(hour)? * 60 + number(minute)?) * MINUTE)
}

fn run(example: &str) {
    let is_event = |line: &&str| line.split(' ').next().and_then(instant).is_some();
    let spec: Vec<String> = example
        .lines()
        .filter(|line| !is_event(line) && !line.starts_with('='))
        .map(|line| format!("    {line}\n"))
        .collect();
    let text = format!(
        "version: 1\ntimezone: UTC\nmetrics:\n  - name: m\n    from: {{ room: r }}\n    publish: {{ room: b, audience: all }}\n{}",
        spec.concat()
    );
    let definitions =
        Definitions::parse(&text, "page", None).unwrap_or_else(|wrong| panic!("{example}{wrong:?}"));
    let mut shard = Shard::load(definitions.metrics, None, DAY).unwrap();
    shard.go_live();
    let mut now = DAY;
    for (line, seq) in example.lines().filter(is_event).zip(1..) {
        let (time, data) = line.split_once(' ').unwrap();
        let time_micros = instant(time).unwrap();
        now = now.max(time_micros);
        let data: Box<RawValue> = serde_json::from_str(data).unwrap();
        shard.advance(now);
        let event = Event {
            seq,
            stored_micros: now,
            time_micros,
            ..event_of(&data)
        };
        shard.fold(&event, &mut |_| {});
    }
    let mut shown = std::collections::HashMap::new();
    let mut checked = 0_i64;
    for line in example.lines().filter_map(|line| line.strip_prefix("= ")) {
        let mut words = line.split(' ');
        let value = words.next().unwrap();
        let (mut says, mut skipped, mut direction) = (Vec::new(), Vec::new(), None);
        let (mut key, mut expected) = ("m".to_owned(), vec![(Measure::Value, value.to_owned())]);
        while let (Some(word), Some(what)) = (words.next(), words.next()) {
            match word {
                "at" => now = instant(what).unwrap(),
                "of" => key = format!("m/{what}"),
                "for" => key = closed_key("m", "[]", instant(what).unwrap()),
                "before" => expected.push((Measure::Previous, what.to_owned())),
                "change" => expected.push((Measure::ChangePercent, what.to_owned())),
                "is" => direction = Some(what),
                "says" => says.push(what),
                "skipped" => skipped.push(what),
                other => panic!("{other} in {example}"),
            }
        }
        // A second between two looks, for `at_most_every`.
        shard.advance(now + checked * 1_000_000);
        for out in shard.render() {
            shown.insert(out.key, out.body);
        }
        let body = shown.get(&key).cloned().flatten();
        let body = body.unwrap_or_else(|| panic!("no {key} in {shown:?} of {example}"));
        let update: Update = serde_json::from_str(&body).unwrap();
        let told: Value = serde_json::from_str(&body).unwrap();
        assert!(says.iter().all(|what| told[what] == true), "{told} of {example}");
        assert!(
            direction.is_none_or(|wanted| told["direction"] == wanted),
            "{told} of {example}"
        );
        if !skipped.is_empty() {
            let status = shown.get("status/m").cloned().flatten().unwrap();
            let status: Value = serde_json::from_str(&status).unwrap();
            assert!(
                skipped.iter().all(|reason| status["skipped"][reason] == 1),
                "{status} of {example}"
            );
        }
        for (measure, expected) in expected {
            let got = match measure {
                Measure::Previous => update.previous.clone(),
                Measure::ChangePercent => update.change_percent.clone(),
                _ => update.value.clone(),
            };
            assert_eq!(
                got.as_deref(),
                Some(expected.as_str()),
                "{measure:?} of {key} in {example}"
            );
        }
        checked += 1;
    }
    assert!(checked > 0, "nothing is said in {example}");
}

#[test]
fn every_example_is_true() {
    let examples = blocks("example");
    for example in &examples {
        run(example);
    }
    let files = blocks("yaml");
    for file in &files {
        if let Err(wrong) = Definitions::parse(file, "page", None) {
            panic!("{file}{wrong:?}");
        }
    }
    assert!(examples.len() >= 28 && files.len() >= 3);
}

#[test]
fn the_page_names_every_key_and_every_aggregate() {
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../../../proto/schemas/metrics.schema.json")).unwrap();
    let defs = &schema["$defs"];
    for keys in [
        &schema["properties"],
        &defs["metric"]["properties"],
        &defs["metric"]["properties"]["publish"]["properties"],
        &defs["rule"]["properties"],
        &defs["rule"]["properties"]["notify"]["properties"],
    ] {
        for key in keys.as_object().unwrap().keys() {
            assert!(
                PAGE.contains(&format!("`{key}")) || PAGE.contains(&format!("{key}:")),
                "{key}"
            );
        }
    }
    for unit in Unit::ALL {
        assert!(
            PAGE.contains(&format!("`{}`", unit.0)) || PAGE.contains(&format!(": {} }}", unit.0)),
            "{}",
            unit.0
        );
    }
    for window in ["tumbling", "to_date", "sliding", "session", "total"] {
        assert!(
            blocks("example")
                .iter()
                .any(|example| example.contains(&format!("{{ {window}: "))),
            "{window}"
        );
    }
    // All members of what is published, the seldom ones too.
    let update = r#"{"metric":"m","group":[],"window":{"start":null,"end":null},"value":null,"previous":null,"change":null,"change_percent":null,"direction":null,"sparkline":[],"top":[],"events":0,"as_of":"","revision":0,"approximate":true,"error":"e","stalled":true,"no_data":true,"incomplete_since":"i"}"#;
    let update: Update = serde_json::from_str(update).unwrap();
    let (update, skipped) = (
        serde_json::to_value(update).unwrap(),
        serde_json::to_value(Skipped::default()).unwrap(),
    );
    for member in [&update, &skipped]
        .into_iter()
        .flat_map(|value| value.as_object().unwrap().keys())
    {
        assert!(PAGE.contains(&format!("`{member}`")), "{member}");
    }
    for aggregate in [
        "count", "sum", "avg", "min", "max", "first", "last", "distinct", "p50", "p90", "p95", "p99", "top",
        "rate", "gauge", "active",
    ] {
        assert!(PAGE.contains(&format!("`{aggregate}(")), "{aggregate}");
    }
}
