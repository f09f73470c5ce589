//! P9: an aggregator that was away for a million events. P10: how long each service takes to be ready. P8: what groups hold.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use roomcast_harness::http::Http;
use roomcast_load::cpu;
use roomcast_load::tokens::Algorithm;

use super::owned::Service;
use super::system::System;
use super::{Bench, scrape};

/// Groups of the budget's definition.
const GROUPS: usize = 1_000;
/// Events that the budget speaks of, and the time it gives for them.
const BUDGET_EVENTS: usize = 1_000_000;
const BUDGET_SECONDS: f64 = 10.0;
/// Events of one POST.
const BATCH: usize = 1_000;
/// POSTs at a time.
const LANES: usize = 4;
/// How often the number is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// After this nobody believes in it.
const CURRENT_WITHIN: Duration = Duration::from_secs(120);
/// Recent events that a gateway reads into memory when it starts.
const RING_EVENTS: f64 = 200_000.0;
/// Groups of the budget of memory.
const MANY_GROUPS: usize = 100_000;

/// The budget's definition, and one number over everything, which tells that nothing was left out.
const METRICS: &str = "version: 1
timezone: UTC
metrics:
  - { name: sum, from: { room: \"load.*\", type: load }, value: sum(data.amount), group_by: [data.group], window: { total: true } }
  - { name: count, from: { room: \"load.*\", type: load }, value: count(), group_by: [data.group], window: { total: true } }
  - { name: all, from: { room: \"load.*\", type: load }, value: count(), window: { total: true }, publish: { room: load, audience: all } }
";

/// As many groups as a metric may have, without a window and with one.
const METRICS_OF_MANY_GROUPS: &str = "version: 1
timezone: UTC
metrics:
  - { name: total, from: { room: \"load.*\", type: load }, value: sum(data.amount), group_by: [data.group], groups_max: 100000, window: { total: true } }
  - { name: daily, from: { room: \"load.*\", type: load }, value: sum(data.amount), group_by: [data.group], groups_max: 100000, window: { tumbling: day } }
  - { name: all, from: { room: \"load.*\", type: load }, value: count(), window: { total: true }, publish: { room: load, audience: all } }
";

/// Publishes events over `groups` groups, as fast as they are taken.
async fn publish(system: &System, events: usize, groups: usize) -> anyhow::Result<()> {
    let ingests = system.stack.ingests();
    let ingest = ingests.first().ok_or_else(|| anyhow::anyhow!("no ingest"))?;
    let url = format!("{ingest}/v1/events");
    let token = system
        .issuer
        .token(Algorithm::Eddsa, "loader", "loader", &["0".to_owned()])?;
    let event = |i: usize| {
        let group = i % groups;
        format!(
            "{{\"type\":\"load\",\"room\":\"load.0\",\"data\":{{\"amount\":\"{}.50\",\"group\":\"g{group}\"}}}}",
            i % 977
        )
    };
    // Ingest gives each its own id, so one body may be sent again and again.
    let body = |n: usize| {
        let events: Vec<String> = (n * BATCH..(n + 1) * BATCH).map(event).collect();
        format!("[{}]", events.join(","))
    };
    let bodies: Vec<String> = (0..groups.div_ceil(BATCH).min(events / BATCH).max(1))
        .map(body)
        .collect();
    let bodies = &bodies;
    let lanes = (0..LANES).map(|lane| {
        let (http, url, token) = (system.stack.http.clone(), url.clone(), token.clone());
        async move {
            for n in (lane..events / BATCH).step_by(LANES) {
                let body = bodies[n % bodies.len()].clone();
                let answer = http.post(&url, &token, "application/json", body).await?;
                anyhow::ensure!(
                    answer.json()["stored"] == BATCH,
                    "{} {}",
                    answer.status,
                    answer.text().chars().take(500).collect::<String>()
                );
            }
            anyhow::Ok(())
        }
    });
    try_join_all(lanes).await.map(drop)
}

/// Waits until the number over everything, as a dashboard sees it, is `events`.
async fn current(system: &System, events: u64) -> anyhow::Result<()> {
    let gateways = system.stack.gateways();
    let url = format!(
        "{}/v1/state?room=load",
        gateways.first().map_or("", |g| g.as_str())
    );
    let token = system.issuer.token(Algorithm::Eddsa, "viewer", "viewer", &[])?;
    let start = Instant::now();
    loop {
        let said = system.stack.http.get(&url, Some(&token)).await?.json();
        let values = said["state"].as_array().cloned().unwrap_or_default();
        let all = values.iter().find_map(|value| {
            let data = [&value["event"]["data"], &value["data"]]
                .into_iter()
                .find(|data| data["metric"] == "all")?;
            data["value"].as_str()?.parse::<u64>().ok()
        });
        if all == Some(events) {
            return Ok(());
        }
        anyhow::ensure!(
            start.elapsed() < CURRENT_WITHIN,
            "{events} events are stored, the number over all of them is {all:?}"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// An aggregator is away while `events` are published, and comes back; `rounds` times over. Then, as the stream is full of events, a
/// gateway is started that has to read the newest of them, `starts` times.
///
/// # Errors
/// When a part cannot be started, or the number is not exact.
pub async fn run(bench: &mut Bench, events: usize, rounds: usize, starts: usize) -> anyhow::Result<()> {
    let system = System::start(None, &[])?;
    let http = Http::default();
    let aggregator = Service::aggregator(&system, METRICS)?;
    publish(&system, BATCH, GROUPS).await?;
    let mut total = BATCH as u64;
    let (running, _) = aggregator.start(&http).await?;
    current(&system, total).await?;
    drop(running);
    let (mut times, mut costs) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let begun = Instant::now();
        publish(&system, events, GROUPS).await?;
        total += events as u64;
        let published = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let (running, ready) = aggregator.start(&http).await?;
        current(&system, total).await?;
        let took = begun.elapsed().as_secs_f64();
        let micros = cpu::read(running.pid()).cpu_ns as f64 / 1000.0 / events as f64;
        drop(running);
        bench.say(&format!(
            "  round {round}: {events} events published in {published:.1} s; back, ready after {:.2} s, current after {took:.2} s, {micros:.2} µs of CPU per event",
            ready.as_secs_f64()
        ));
        times.push(took);
        costs.push(micros);
    }
    let of = format!("aggregator away for {events} events, {GROUPS} groups");
    let what = format!("{of}: current again");
    // With fewer the time is mostly that of the start.
    if events >= BUDGET_EVENTS {
        bench.report.at_most("P9", what, times, "s", BUDGET_SECONDS);
    } else {
        bench.report.note("P9", what, times, "s");
    }
    bench
        .report
        .note("P9", format!("{of}: its CPU per event"), costs, "µs");
    full_ring(bench, &system, &http, total, starts).await
}

async fn full_ring(
    bench: &mut Bench,
    system: &System,
    http: &Http,
    stored: u64,
    rounds: usize,
) -> anyhow::Result<()> {
    let gateway = Service::like(system, "gateway")?;
    let wanted = RING_EVENTS.min(stored as f64);
    let (mut times, mut in_ring) = (Vec::new(), 0.0);
    for _ in 0..rounds {
        let (running, ready) = gateway.start(http).await?;
        in_ring = scrape::value(&gateway.metrics(http).await?, "roomcast_gateway_ring_events", &[]);
        drop(running);
        anyhow::ensure!(
            in_ring >= wanted,
            "ready with {in_ring} events in memory instead of {wanted}"
        );
        times.push(ready.as_secs_f64());
    }
    bench.say(&format!(
        "  gateway with {in_ring} events to read ready after {times:.2?} s"
    ));
    bench.report.at_most(
        "P10",
        format!("gateway ready, {in_ring} events to read into memory"),
        times,
        "s",
        5.0,
    );
    Ok(())
}

/// Starts one more of each service beside an empty system.
///
/// # Errors
/// When one does not become ready.
pub async fn starts(bench: &mut Bench, rounds: usize) -> anyhow::Result<()> {
    let system = System::start(None, &[])?;
    let http = Http::default();
    let services = [
        ("gateway", Service::like(&system, "gateway")?),
        ("ingest", Service::like(&system, "ingest")?),
        ("aggregator", Service::aggregator(&system, METRICS)?),
    ];
    for (name, service) in services {
        let mut times = Vec::new();
        for _ in 0..rounds.max(3) {
            let (running, ready) = service.start(&http).await?;
            drop(running);
            times.push(ready.as_secs_f64());
        }
        bench.say(&format!("  {name} ready after {times:.2?} s"));
        bench
            .report
            .at_most("P10", format!("{name} ready, empty stream"), times, "s", 1.0);
    }
    Ok(())
}

/// What an aggregator holds for as many groups as a metric may have.
///
/// # Errors
/// When a part cannot be started, or the number is not exact.
pub async fn groups(bench: &mut Bench, rounds: usize) -> anyhow::Result<()> {
    let mut held = Vec::new();
    for _ in 0..rounds {
        let system = System::start(None, &[])?;
        let http = Http::default();
        publish(&system, BATCH, 1).await?;
        let aggregator = Service::aggregator(&system, METRICS_OF_MANY_GROUPS)?;
        let (running, _) = aggregator.start(&http).await?;
        current(&system, BATCH as u64).await?;
        let before = cpu::read(running.pid()).rss_bytes;
        publish(&system, MANY_GROUPS, MANY_GROUPS).await?;
        current(&system, (BATCH + MANY_GROUPS) as u64).await?;
        let after = cpu::read(running.pid()).rss_bytes;
        held.push(after.saturating_sub(before) as f64 / 1e6);
        drop(running);
    }
    bench.say(&format!("  {MANY_GROUPS} groups: {held:.1?} MB"));
    bench.report.at_most(
        "P8",
        format!("RSS that {MANY_GROUPS} groups add, total and one tumbling window"),
        held,
        "MB",
        100.0,
    );
    Ok(())
}
