//! What folding an event costs, its JSON read first as the aggregator does.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a bench stops at the first surprise"
)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::Criterion;
use roomcast_metrics_aggregator::definition::Definitions;
use roomcast_metrics_aggregator::engine::row::Event;
use roomcast_metrics_aggregator::engine::shard::Shard;
use roomcast_proto::event::{View, rfc3339};

const NOW: i64 = 1_770_000_000_000_000;
const GROUPS: usize = 1_000;
const CASES: [(&str, &str); 3] = [
    (
        "sum by group",
        "value: sum(data.amount), group_by: [data.group], window: { total: true }",
    ),
    (
        "sum by group where",
        "where: data.currency == \"TRY\", value: sum(data.amount), group_by: [data.group], window: { sliding: 24h, step: 1m }",
    ),
    (
        "distinct",
        "value: distinct(data.group), window: { tumbling: day }",
    ),
];

fn stored(i: usize) -> String {
    format!(
        "{{\"specversion\":\"1.0\",\"id\":\"{i}\",\"source\":\"roomcast://main/load\",\"type\":\"load\",\"time\":\"{}\",\"room\":\"load\",\"audience\":\"all\",\"priority\":\"medium\",\"data\":{{\"amount\":\"{}.50\",\"group\":\"g{}\",\"currency\":\"TRY\"}}}}",
        rfc3339(NOW),
        i % 977,
        i % GROUPS
    )
}

fn main() {
    let criterion = &mut Criterion::default().configure_from_args();
    let events: Vec<String> = (0..GROUPS * 4).map(stored).collect();
    for (name, rest) in CASES {
        let text = format!(
            "version: 1\ntimezone: UTC\nmetrics:\n  - {{ name: m, from: {{ room: load, type: load }}, {rest} }}\n"
        );
        let definitions = Definitions::parse(&text, "bench", None).expect("the definitions hold");
        let metrics = definitions.metrics.iter().map(Arc::clone).collect();
        let Ok(mut shard) = Shard::load(metrics, None, NOW) else {
            panic!("an empty shard loads")
        };
        let mut seq = 0;
        criterion.bench_function(&format!("fold: {name}"), |b| {
            b.iter(|| {
                let json = &events[seq % events.len()];
                seq += 1;
                let view = View::parse(black_box(json.as_bytes())).unwrap();
                let event = Event {
                    seq: seq as u64,
                    stored_micros: NOW,
                    time_micros: NOW,
                    room: "load",
                    audience: "all",
                    kind: &view.kind,
                    source: &view.source,
                    id: &view.id,
                    subject: None,
                    priority: "medium",
                    data: view.data.map(serde_json::value::RawValue::get),
                };
                shard.fold(&event, &mut |_| ());
            });
        });
    }
    criterion.final_summary();
}
