//! P8: what folding costs, in one thread, without NATS: the aggregator's own engine on events as they stand in the stream.

use std::fs;
use std::sync::Arc;

use roomcast_load::swarm::now_micros;
use roomcast_metrics_aggregator::definition::Definitions;
use roomcast_metrics_aggregator::engine::row::Event;
use roomcast_metrics_aggregator::engine::shard::Shard;
use roomcast_proto::event::View;

use super::Bench;

const GROUPS: usize = 1_000;
/// CPU time of one measurement.
const CPU_NS: u64 = 1_000_000_000;

/// Each row: what it is, its definitions, the budget in folds a second (an event that reaches a metric is one fold).
const CASES: [(&str, &str, f64); 2] = [
    (
        "sum and count by 1,000 groups",
        "  - { name: sum, from: { room: load, type: load }, value: sum(data.amount), group_by: [data.group], window: { total: true } }
  - { name: count, from: { room: load, type: load }, value: count(), group_by: [data.group], window: { total: true } }
",
        1_000_000.0,
    ),
    (
        "sum and p95 by 1,000 groups over 24 h sliding by 1 min, with a compiled where",
        "  - { name: sum, from: { room: load, type: load }, where: data.currency == \"TRY\", value: sum(data.amount), group_by: [data.group], window: { sliding: 24h, step: 1m } }
  - { name: p95, from: { room: load, type: load }, where: data.currency == \"TRY\", value: p95(data.amount), group_by: [data.group], window: { sliding: 24h, step: 1m } }
",
        500_000.0,
    ),
];

/// Folds as many events as a second takes, reading each from its JSON as the aggregator does.
///
/// # Errors
/// When the definitions are not accepted.
pub fn run(bench: &mut Bench, rounds: usize) -> anyhow::Result<()> {
    let now = i64::try_from(now_micros())?;
    let events: Vec<String> = (0..10_000).map(|i| event(i, now)).collect();
    for (name, metrics, bound) in CASES {
        let text = format!("version: 1\ntimezone: UTC\nmetrics:\n{metrics}");
        let definitions = Definitions::parse(&text, "bench", None).map_err(|mistakes| {
            anyhow::anyhow!(
                "{}",
                mistakes
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("\n")
            )
        })?;
        let mut rates = Vec::new();
        for _ in 0..rounds {
            rates.push(folds_per_second(&definitions, &events, now)?);
        }
        bench.say(&format!("  {name}: {rates:.0?} folds/s"));
        bench.report.at_least(
            "P8",
            format!("folds per second and core, {name}, reading the event's JSON included"),
            rates,
            "/s",
            bound,
        );
    }
    Ok(())
}

fn event(i: usize, now: i64) -> String {
    format!(
        "{{\"specversion\":\"1.0\",\"id\":\"{i}\",\"source\":\"roomcast://main/load\",\"type\":\"load\",\"time\":\"{}\",\"room\":\"load\",\"audience\":\"all\",\"priority\":\"medium\",\"data\":{{\"amount\":\"{}.50\",\"group\":\"g{}\",\"currency\":\"TRY\"}}}}",
        roomcast_proto::event::rfc3339(now),
        i % 977,
        i % GROUPS
    )
}

fn folds_per_second(definitions: &Definitions, events: &[String], now: i64) -> anyhow::Result<f64> {
    let metrics: Vec<_> = definitions.metrics.iter().map(Arc::clone).collect();
    let count = metrics.len();
    let mut shard = Shard::load(metrics, None, now).map_err(|_| anyhow::anyhow!("an empty shard loads"))?;
    let (mut seq, mut folded) = (0_u64, 0_u64);
    let began = thread_cpu_ns();
    while thread_cpu_ns() - began < CPU_NS {
        for json in events {
            let view = View::parse(json.as_bytes())?;
            seq += 1;
            let event = Event {
                seq,
                stored_micros: now,
                time_micros: view.time_micros().unwrap_or(now),
                room: "load",
                audience: "all",
                kind: &view.kind,
                source: &view.source,
                id: &view.id,
                subject: None,
                priority: "medium",
                data: view.data.map(serde_json::value::RawValue::get),
            };
            shard.fold(&event, &mut |_| folded += 1);
        }
    }
    let seconds = (thread_cpu_ns() - began) as f64 / 1e9;
    anyhow::ensure!(
        folded >= seq * count as u64,
        "{folded} outcomes of {seq} events in {count} metrics"
    );
    Ok((seq * count as u64) as f64 / seconds)
}

/// CPU time of this thread.
pub fn thread_cpu_ns() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace()
        .next()
        .and_then(|ns| ns.parse().ok())
        .unwrap_or_default()
}
