//! What schemas say of metrics, by file and by scenario.

use std::path::Path as File;

use roomcast_access::Policy;
use roomcast_schemas::{Catalog, Schema, folder};

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
        let flat = format!("version: 1\ntimezone: UTC\nmetrics:\n  -\n    {{ name: m, {keys}{window} }}\n");
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
        let parse = |text: &str| Definitions::parse_with(text, "metrics.yaml", Some(&policy), Some(&catalog));
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
