//! What the engine's state takes in memory, a unit of each kind: held to what METRICS.md says of it. Counted by an allocator, in a
//! process of its own, where nothing else allocates.

use std::alloc::System;
use std::process::Command;
use std::sync::Arc;

use roomcast_metrics_aggregator::definition::Definitions;
use roomcast_metrics_aggregator::engine::metric::Outcome;
use roomcast_metrics_aggregator::engine::row::Event;
use roomcast_metrics_aggregator::engine::shard::Shard;
use serde_json::value::RawValue;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// 2026-02-02, a Monday.
const NOW: i64 = 1_769_990_400_000_000;
const MINUTE: i64 = 60_000_000;

/// Bytes that are allocated now.
fn held() -> usize {
    let stats = HEAP.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// One line of the table of METRICS.md.
struct Row {
    /// What one of it is, as METRICS.md calls it.
    unit: &'static str,
    /// A metric's value, window and groups.
    metric: &'static str,
    /// How many are made.
    count: usize,
    /// When the event that makes one comes, in minutes, and its data.
    event: fn(usize) -> (i64, String),
}

const ROWS: [Row; 8] = [
    Row {
        unit: "a group",
        metric: "value: sum(data.x), group_by: [data.k], groups_max: 4000, window: { total: true }",
        count: 4_000,
        event: |i| (0, format!(r#"{{"k":"group-{i:04}","x":"12.50"}}"#)),
    },
    Row {
        unit: "a group's session",
        metric: "value: sum(data.x), group_by: [data.k], groups_max: 4000, window: { session: 30m }",
        count: 4_000,
        event: |i| (0, format!(r#"{{"k":"group-{i:04}","x":"12.50"}}"#)),
    },
    Row {
        unit: "a window, or a step of a sliding one, of a group",
        metric: "value: sum(data.x), group_by: [data.k], window: { sliding: 24h, step: 1m }",
        count: 14_400,
        event: |i| {
            let (minute, group) = (i64::try_from(i / 10).unwrap(), i % 10);
            (minute, format!(r#"{{"k":"g{group}","x":"12.50"}}"#))
        },
    },
    Row {
        unit: "a value of `distinct` or `active`",
        metric: "value: distinct(data.k), window: { total: true }",
        count: 9_000,
        event: |i| (0, format!(r#"{{"k":"customer-{i}"}}"#)),
    },
    Row {
        unit: "a key of `gauge`",
        metric: "value: \"gauge(data.k, data.open == true)\", window: { total: true }",
        count: 9_000,
        event: |i| (0, format!(r#"{{"k":"ticket-{i}","open":{}}}"#, i % 3 > 0)),
    },
    Row {
        unit: "a range of a percentile",
        metric: "value: p95(data.x), window: { total: true }",
        count: 2_000,
        event: |i| {
            let mut x = 1.0_f64;
            (0..i).for_each(|_| x *= 1.017);
            (0, format!(r#"{{"x":"{x:.6}"}}"#))
        },
    },
    Row {
        unit: "a value of `top`",
        metric: "value: \"top(10, data.k)\", window: { total: true }",
        count: 1_000,
        event: |i| (0, format!(r#"{{"k":"product-{i:04}"}}"#)),
    },
    Row {
        unit: "a text of `first` or `last`, 20 bytes long",
        metric: "value: last(data.s), group_by: [data.k], groups_max: 4000, window: { total: true }",
        count: 4_000,
        event: |i| (0, format!(r#"{{"k":"group-{i:04}","s":"twenty bytes of text"}}"#)),
    },
];

/// What a row's units take together.
fn taken(row: &Row) -> usize {
    let text = format!(
        "version: 1\ntimezone: UTC\nmetrics:\n  - {{ name: m, from: {{ room: r, type: t }}, {} }}\n",
        row.metric
    );
    let definitions = Definitions::parse(&text, "memory", None).unwrap();
    let metrics = definitions.metrics.iter().map(Arc::clone).collect();
    let Ok(mut shard) = Shard::load(metrics, None, NOW) else {
        panic!("an empty shard loads")
    };
    shard.advance(NOW);
    let before = held();
    for i in 0..row.count {
        let (minutes, data) = (row.event)(i);
        let data = RawValue::from_string(data).unwrap();
        let at = NOW + minutes * MINUTE;
        let event = Event {
            seq: i as u64 + 1,
            stored_micros: at,
            time_micros: at,
            room: "r",
            audience: "all",
            kind: "t",
            source: "s",
            id: "i",
            subject: None,
            priority: "medium",
            data: Some(data.get()),
        };
        shard.advance(at);
        shard.fold(&event, &mut |outcome| {
            assert_eq!(outcome, Outcome::Folded, "{}", row.unit)
        });
    }
    held().saturating_sub(before)
}

/// Set in the process that counts.
const COUNTING: &str = "TEST_COUNTS_MEMORY";

/// The bytes that METRICS.md says of a unit.
fn said(unit: &str) -> usize {
    let line = include_str!("../../METRICS.md")
        .lines()
        .find_map(|line| line.strip_prefix(&format!("| {unit} | ")));
    let bytes = line.and_then(|line| line.split(' ').next());
    let bytes = bytes.unwrap_or_else(|| panic!("METRICS.md says nothing of {unit}"));
    bytes.replace(',', "").parse().unwrap()
}

#[test]
fn state_takes_what_is_said() {
    if std::env::var_os(COUNTING).is_some() {
        let lines = ROWS.map(|row| format!("{}|{}", row.unit, taken(&row).div_ceil(row.count)));
        println!("\n{}", lines.join("\n"));
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "memory::state_takes_what_is_said", "--nocapture"])
        .env(COUNTING, "1")
        .output()
        .unwrap();
    let (table, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{table}{errors}");
    for row in &ROWS {
        let line = table
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{}|", row.unit)));
        let taken: usize = line
            .unwrap_or_else(|| panic!("{} was not counted: {table}", row.unit))
            .parse()
            .unwrap();
        let said = said(row.unit);
        assert!(
            said / 2 < taken && taken <= said,
            "{}: {taken} bytes, METRICS.md says {said}",
            row.unit
        );
    }
}
