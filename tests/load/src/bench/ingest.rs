//! P7: what an event costs ingest. P8: what it costs the aggregator.

use std::time::Duration;

use futures_util::future::try_join_all;
use roomcast_load::cpu;
use serde_json::{Value, json};

use super::Effort;
use super::report::Report;
use super::system::System;

fn load_event(i: usize) -> Value {
    json!({ "type": "load", "room": format!("load.{}", i % 50), "data": { "amount": "12.50", "group": format!("g{}", i % 1000), "fill": "x".repeat(60) } })
}

/// Batches of 100 over HTTP, single POSTs on a kept connection, NATS requests; then the aggregator's share.
///
/// # Errors
/// When a part cannot be started or an event is refused.
pub async fn run(report: &mut Report, effort: Effort, say: &impl Fn(&str)) -> anyhow::Result<()> {
    let system = System::start(true)?;
    let (ingest, aggregator) = (system.stack.pid("ingest-1"), system.stack.pid("aggregator-1"));
    let (mut batches, mut singles, mut requests, mut folds) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let size = usize::try_from(effort.seconds)?;
    for _ in 0..effort.rounds {
        let before = cpu::read(aggregator).cpu_ns;
        let events = size * 2_000;
        batches.push(per_event(ingest, events, http_batches(&system, events)).await?);
        // The aggregator may still be folding.
        tokio::time::sleep(Duration::from_secs(2)).await;
        folds.push((cpu::read(aggregator).cpu_ns - before) as f64 / 1000.0 / events as f64);
        let events = size * 200;
        singles.push(per_event(ingest, events, http_singles(&system, events)).await?);
        requests.push(per_event(ingest, events, nats_requests(&system, events)).await?);
    }
    say(&format!(
        "  batches {batches:.1?}, singles {singles:.1?}, NATS {requests:.1?}, aggregator {folds:.1?} µs per event"
    ));
    report.at_most(
        "P7",
        "ingest CPU per event, HTTP batches of 100",
        batches,
        "µs",
        40.0,
    );
    report.at_most(
        "P7",
        "ingest CPU per event, single POST on a kept connection",
        singles,
        "µs",
        60.0,
    );
    report.at_most("P7", "ingest CPU per event, NATS request", requests, "µs", 17.0);
    report.note(
        "P8",
        "aggregator CPU per event, sum + count by 1,000 groups, reading and writing state included",
        folds,
        "µs",
    );
    Ok(())
}

async fn per_event(
    pid: u32,
    events: usize,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<f64> {
    let before = cpu::read(pid).cpu_ns;
    work.await?;
    Ok((cpu::read(pid).cpu_ns - before) as f64 / 1000.0 / events as f64)
}

async fn http_batches(system: &System, events: usize) -> anyhow::Result<()> {
    let token = system.token("loader", "loader");
    let url = format!("{}/v1/events", system.stack.ingests()[0]);
    let lanes = (0..4).map(|lane| {
        let (http, url, token) = (system.stack.http.clone(), url.clone(), token.clone());
        async move {
            for batch in 0..events / 400 {
                let list: Vec<Value> = (0..100)
                    .map(|i| load_event(batch * 400 + lane * 100 + i))
                    .collect();
                let body = serde_json::to_string(&list)?;
                let answer = http.post(&url, &token, "application/json", body).await?;
                anyhow::ensure!(
                    answer.json()["stored"] == 100,
                    "{} {}",
                    answer.status,
                    answer.text()
                );
            }
            anyhow::Ok(())
        }
    });
    try_join_all(lanes).await.map(drop)
}

async fn http_singles(system: &System, events: usize) -> anyhow::Result<()> {
    let token = system.token("loader", "loader");
    let url = format!("{}/v1/events", system.stack.ingests()[0]);
    let lanes = (0..8).map(|lane| {
        let (http, url, token) = (system.stack.http.clone(), url.clone(), token.clone());
        async move {
            for i in 0..events / 8 {
                let body = load_event(i * 8 + lane).to_string();
                let answer = http.post(&url, &token, "application/json", body).await?;
                anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            }
            anyhow::Ok(())
        }
    });
    try_join_all(lanes).await.map(drop)
}

async fn nats_requests(system: &System, events: usize) -> anyhow::Result<()> {
    let nats = system.stack.nats("publisher").await;
    let lanes = (0..32).map(|lane| {
        let nats = nats.clone();
        async move {
            for i in 0..events / 32 {
                let event = load_event(i * 32 + lane);
                let subject = format!("in.{}.all", event["room"].as_str().unwrap_or_default());
                let answer = nats.request(subject, event.to_string().into()).await?;
                anyhow::ensure!(
                    answer.payload.starts_with(b"{\"status\":\"stored\""),
                    "{:?}",
                    answer.payload
                );
            }
            anyhow::Ok(())
        }
    });
    try_join_all(lanes).await.map(drop)
}
