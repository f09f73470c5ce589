//! What `check` and `metrics try` say about metrics, by policy and schemas, before anything runs.

use std::path::Path;

use crate::system::{complaint, has_aggregator, repository, roomcast};

const POLICY: &str = "version: 1
roles:
  staff: { permissions: [desk.see] }
  admin: { inherits: [staff], permissions: [money.see] }
rooms:
  - { room: orders, subscribe: desk.see, redact: [{ unless: money.see, remove: [/amount] }] }
  - { room: board, subscribe: desk.see }
";
const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema", "x-roomcast-type": "order", "type": "object",
  "properties": { "amount": { "type": "number" }, "paid": { "type": "boolean" }, "kind": { "enum": ["car", "tour"] } }
}"#;

fn metric(rest: &str) -> String {
    format!(
        "version: 1\ntimezone: UTC\nmetrics:\n  - {{ name: m, from: {{ room: orders, type: order }}, {rest} }}\n"
    )
}

fn written(folder: &Path, metrics: &str) {
    std::fs::create_dir_all(folder.join("schemas")).unwrap();
    std::fs::write(folder.join("schemas/order.json"), SCHEMA).unwrap();
    std::fs::write(folder.join("policy.yaml"), POLICY).unwrap();
    std::fs::write(folder.join("metrics.yaml"), metrics).unwrap();
}

/// Each row: the file, and what is said about it by both commands, with its place.
#[test]
fn mistakes_in_metrics_have_their_place_and_a_suggestion() {
    if !has_aggregator() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let total = "window: { total: true }";
    for (file, says) in [
        (String::new(), "metrics.yaml:1:1: the file is empty"),
        ("version: [1\n".to_owned(), "metrics.yaml:1:10: unclosed bracket"),
        (
            metric(&format!("value: count(), {total}, lable: 1")),
            "metrics.yaml:4:94: unknown key \"lable\" in a metric",
        ),
        (
            metric(&format!(
                "value: count(), {total}, publish: {{ room: board, audience: adnim }}"
            )),
            "no role \"adnim\" in the policy; did you mean \"admin\"?",
        ),
        (
            metric(&format!("value: sum(data.amuont), {total}")),
            "metrics.yaml:4:64: the schema of order has no data.amuont; did you mean data.amount?",
        ),
        (
            metric(&format!("where: data.paid == 1, value: count(), {total}")),
            "metrics.yaml:4:60: data.paid is true or false, never equal to 1",
        ),
        (
            metric(&format!("where: data.kind == \"tuor\", value: count(), {total}")),
            "did you mean \"tour\"?",
        ),
        (
            metric(&format!("value: sum(data.paid), {total}")),
            "data.paid is true or false, a number is needed",
        ),
        (
            metric(&format!("where: data.amount = 1, value: count(), {total}")),
            "`=` is not supported",
        ),
    ] {
        written(folder.path(), &file);
        let files = ["--policy", "policy.yaml", "--schemas", "schemas"];
        for arguments in [&["check", "--metrics"][..], &["metrics", "try"]] {
            let arguments = [arguments, &["metrics.yaml"], &files].concat();
            let output = roomcast(folder.path(), &arguments);
            let said = String::from_utf8_lossy(&output.stdout).into_owned() + &complaint(&output);
            assert_eq!(output.status.code(), Some(65), "{arguments:?} {file}: {said}");
            assert!(said.contains(says), "{arguments:?} {file}: {said}");
        }
    }
}

/// What is wrong in the policy is said of the policy, and hides nothing of what is wrong in the metrics.
#[test]
fn each_file_has_its_own_mistakes() {
    if !has_aggregator() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    written(
        folder.path(),
        &metric("value: count(), window: { total: true }, lable: 1"),
    );
    let policy = POLICY.replace("inherits", "inherit");
    std::fs::write(folder.path().join("policy.yaml"), policy).unwrap();
    let output = roomcast(folder.path(), &["check", "--json"]);
    assert_eq!(output.status.code(), Some(65), "{}", complaint(&output));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for (file, says) in [
        ("policy.yaml", "unknown key \"inherit\""),
        ("metrics.yaml", "unknown key \"lable\""),
    ] {
        let mut files = said["files"].as_array().unwrap().iter();
        let found = files.find(|found| found["file"].as_str().unwrap().ends_with(file));
        let mistakes = found.unwrap()["mistakes"].as_array().unwrap();
        assert_eq!(mistakes.len(), 1, "{said}");
        assert!(mistakes[0].as_str().unwrap().contains(says), "{said}");
    }
}

/// Without schemas nothing is known of fields; and what tells some people what redaction hides from them is warned of by both.
#[test]
fn what_may_be_meant_is_warned_of() {
    if !has_aggregator() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let shown = "window: { total: true }, publish: { room: board, audience: staff }";
    let warning = "\"m\" is made of data.amount, which the policy takes out of orders for staff; they see this number in board";
    written(
        folder.path(),
        &metric(&format!("value: sum(data.amuont), {shown}")),
    );
    let output = roomcast(folder.path(), &["check", "--metrics", "metrics.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    written(
        folder.path(),
        &metric(&format!("value: sum(data.amount), {shown}")),
    );
    let files = ["metrics.yaml", "--policy", "policy.yaml", "--schemas", "schemas"];
    // There is no NATS to try it over; what is said of the file is said first.
    for (arguments, code) in [(&["check", "--metrics"][..], 0), (&["metrics", "try"], 69)] {
        let arguments = [arguments, &files].concat();
        let output = roomcast(folder.path(), &arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &complaint(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(warning), "{arguments:?}: {said}");
    }
}

/// What ships is right, and nothing of it has to be looked at.
#[test]
fn the_metrics_of_all_scenarios_pass() {
    if !has_aggregator() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["bookings", "property", "repair", "deliveries", "restaurant"] {
        let scenario = repository().join("deploy/scenarios").join(name);
        let output = roomcast(
            folder.path(),
            &["check", "--scenario", scenario.to_str().unwrap(), "--json"],
        );
        assert_eq!(output.status.code(), Some(0), "{name}: {}", complaint(&output));
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let files = said["files"].as_array().unwrap();
        assert!(
            files
                .iter()
                .any(|file| file["file"].as_str().unwrap().ends_with("metrics.yaml")),
            "{name}: {said}"
        );
    }
}
