//! Each scenario as `roomcast dev` runs it: what is published reaches a follower, and numbers move.

use std::path::Path;

use serde_json::Value;

use crate::system::{Dev, complaint, eventually, roomcast, runs};

/// Little of the past, and a live that need not be waited for.
fn start(scenario: &str) -> Option<Dev> {
    Dev::start(&["--scenario", scenario, "--history", "10m", "--speed", "50"])
}

/// The next `count` events of a room.
fn tail(folder: &Path, room: &str, count: u32) -> Vec<Value> {
    let output = roomcast(folder, &["tail", room, "--json", "--count", &count.to_string()]);
    assert!(output.status.success(), "{room}: {}", complaint(&output));
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Ends it, and looks whether all went well.
fn end(mut dev: Dev) {
    dev.signal("INT");
    let (status, said) = dev.ended();
    assert_eq!(status.code(), Some(0), "{said}");
    dev.assert_nothing_is_left();
}

fn check(scenario: &str, events: &str, numbers: &str) {
    if let Some(dev) = start(scenario) {
        look(&dev, events, numbers);
        end(dev);
    }
}

/// What is published comes, and numbers move.
fn look(dev: &Dev, events: &str, numbers: &str) {
    let folder = dev.folder.path();
    assert!(
        tail(folder, events, 3)
            .iter()
            .all(|frame| frame["event"]["data"].is_object())
    );
    eventually("a number moves", || shown(folder, numbers).next().is_some());
}

/// The numbers among some frames of a room: more than there are metrics, since each tells its status first.
fn shown(folder: &Path, room: &str) -> impl Iterator<Item = Value> {
    let events = tail(folder, room, 20)
        .into_iter()
        .map(|mut frame| frame["event"].take());
    events.filter(|event| event["type"] == "metric.updated")
}

#[test]
fn bookings() {
    check("bookings", "bookings", "os_dashboard");
}

#[test]
fn deliveries() {
    check("deliveries", "deliveries", "dashboard");
}

#[test]
fn property() {
    check("property", "os_dashboard", "os_dashboard");
}

/// What was recorded of it is told again, everything but time and id as it was.
#[test]
fn restaurant_and_a_day_recorded_and_told_again() {
    let Some(dev) = start("restaurant") else { return };
    look(&dev, "admin", "numbers");
    let folder = dev.folder.path();
    let run = |arguments: &[&str]| {
        let output = roomcast(folder, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", complaint(&output));
    };
    let recorded = |name: &str| {
        run(&["record", "--since", "10m", "--out", name]);
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let events = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.collect::<Vec<_>>()
    };
    let day = recorded("day.ndjson");
    assert!(!day.is_empty());
    run(&["simulate", "--from", "day.ndjson", "--speed", "1000"]);
    let both = recorded("both.ndjson");
    for event in &day {
        let same = |other: &&Value| {
            ["type", "room", "audience", "data"]
                .iter()
                .all(|member| other[member] == event[member])
        };
        let again = both
            .iter()
            .filter(same)
            .filter(|other| other["id"] != event["id"]);
        assert!(again.count() > 0, "{event}");
    }
    end(dev);
}

/// The shop writes rows; what the page shows comes from its database, in the words of the mapping, and nothing is told twice.
#[test]
fn repair_lives_on_a_database() {
    let Some(dev) = start("repair") else { return };
    let folder = dev.folder.path();
    if dev.ready["pids"]["postgres-1"].is_null() {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "apt-get install postgresql"
        );
        eprintln!("SKIPPED: PostgreSQL is not here: apt-get install postgresql");
        return end(dev);
    }
    assert!(runs(dev.pid("postgres-1")));
    let frames = tail(folder, "tickets", 5);
    for frame in &frames {
        let event = &frame["event"];
        assert_eq!(
            (&event["source"], &event["data"]["table"]),
            (&"postgres/shop".into(), &"public.tickets".into()),
            "{event}"
        );
        if event["type"] == "ticket:changed" {
            assert!(event["data"]["old"]["status"].is_string(), "{event}");
        }
    }
    assert_eq!(tail(folder, "orders", 1)[0]["event"]["source"], "postgres/shop");
    // What rows cannot say the shop's site still does.
    assert_eq!(tail(folder, "activity", 1)[0]["event"]["type"], "ticket:viewed");
    eventually("the open repairs are counted", || {
        shown(folder, "dashboard").any(|event| event["data"]["metric"] == "active_repairs")
    });
    end(dev);
}
