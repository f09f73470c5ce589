//! P7: what an event costs ingest. P8: what it costs the aggregator.

use std::time::Duration;

use futures_util::future::try_join_all;
use roomcast_load::cpu;
use serde_json::{Value, json};

use roomcast_load::tokens::Algorithm;

use super::Bench;
use super::cores::Apart;
use super::load::Load;
use super::system::System;

/// The aggregator's share: two metrics of the kinds that P8 speaks of, over every room.
const METRICS: &str = "version: 1
timezone: Europe/Istanbul
metrics:
  - { name: sum, from: { room: \"load.*\", type: load }, value: sum(data.amount), group_by: [data.group], window: { total: true } }
  - { name: count, from: { room: \"load.*\", type: load }, value: count(), group_by: [data.group], window: { total: true } }
";

fn load_event(i: usize) -> Value {
    json!({ "type": "load", "room": format!("load.{}", i % 50), "data": { "amount": "12.50", "group": format!("g{}", i % 1000), "fill": "x".repeat(60) } })
}

/// Publishers at the same time that each wait for their answers: a usual number, few, and as many as one that does not wait for each
/// answer stands for.
const AT_ONCE: usize = 32;
const FEW: usize = 8;
const MANY: usize = 512;

/// What a business would say of such an event.
const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "x-roomcast-type": "load",
  "type": "object",
  "required": ["amount", "group"],
  "properties": {
    "amount": { "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?$" },
    "group": { "type": "string", "minLength": 1, "maxLength": 64 },
    "fill": { "type": "string", "maxLength": 1000 },
    "kind": { "enum": ["tour", "car", "transfer"] }
  }
}"#;

/// Batches of 100 over HTTP, single POSTs on a kept connection, NATS requests; then with a schema; ingest has a core of its own. Then
/// the aggregator's share, which runs only then: on two cores it would be measured in the others, too.
///
/// # Errors
/// When a part cannot be started or an event is refused.
pub async fn run(bench: &mut Bench, load: &Load) -> anyhow::Result<()> {
    let apart = Apart::begin()?;
    let system = System::start(None, &[])?;
    let ingest = system.stack.pid("ingest-1");
    apart.give(ingest)?;
    let (mut batches, mut singles, mut few_singles) = (Vec::new(), Vec::new(), Vec::new());
    let (mut requests, mut many_requests) = (Vec::new(), Vec::new());
    let size = usize::try_from(load.seconds.unwrap_or(10))?;
    // A first part of each warms up.
    for round in 0..=load.rounds {
        let size = if round == 0 { 1 } else { size };
        let events = size * 2_000;
        let batch = per_event(ingest, events, http_batches(&system, events)).await?;
        let events = size * 400;
        let single = per_event(ingest, events, http_singles(&system, events, AT_ONCE)).await?;
        let few = per_event(ingest, events, http_singles(&system, events, FEW)).await?;
        let request = per_event(ingest, events, nats_requests(&system, events, AT_ONCE)).await?;
        let many = per_event(ingest, events, nats_requests(&system, events, MANY)).await?;
        if round > 0 {
            bench.say(&format!(
                "  round {round}: batches {batch:.1}, singles {single:.1} ({few:.1} with {FEW} at a time), NATS {request:.1} ({many:.1} with {MANY} at a time) µs per event"
            ));
            batches.push(batch);
            singles.push(single);
            few_singles.push(few);
            requests.push(request);
            many_requests.push(many);
        }
    }
    let rows = [
        ("HTTP batches of 100".to_owned(), batches, 40.0),
        ("single POST on a kept connection".to_owned(), singles, 60.0),
        ("NATS request".to_owned(), requests, 17.0),
        (format!("NATS request, {MANY} at a time"), many_requests, 17.0),
    ];
    for (name, costs, bound) in rows {
        let what = format!("ingest CPU per event, {name}");
        bench.report.at_most("P7", what, costs, "µs", bound);
    }
    let what =
        "ingest CPU per event, single POST, 8 at a time instead of 32: idle threads are woken for each";
    bench.report.note("P7", what, few_singles, "µs");
    drop(system);
    checked(bench, load, size * 2_000, &apart).await?;
    drop(apart);
    folds(bench, load, size * 2_000).await
}

/// What the aggregator makes of batches.
async fn folds(bench: &mut Bench, load: &Load, events: usize) -> anyhow::Result<()> {
    let system = System::start(Some(METRICS), &[])?;
    let aggregator = system.stack.pid("aggregator-1");
    let mut folds = Vec::new();
    for round in 0..=load.rounds {
        let events = if round == 0 { 2_000 } else { events };
        let before = cpu::read(aggregator).cpu_ns;
        http_batches(&system, events).await?;
        // It may still be folding.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let fold = (cpu::read(aggregator).cpu_ns - before) as f64 / 1000.0 / events as f64;
        if round > 0 {
            bench.say(&format!("  round {round}: aggregator {fold:.1} µs per event"));
            folds.push(fold);
        }
    }
    bench.report.note(
        "P8",
        "aggregator CPU per event, sum + count by 1,000 groups, reading and writing state included",
        folds,
        "µs",
    );
    Ok(())
}

/// The same by batches, each event checked against a schema.
async fn checked(bench: &mut Bench, load: &Load, events: usize, apart: &Apart) -> anyhow::Result<()> {
    let folder = super::guard::folder()?;
    std::fs::write(folder.path().join("load.json"), SCHEMA)?;
    let system = System::that_checks(folder.path())?;
    let ingest = system.stack.pid("ingest-1");
    apart.give(ingest)?;
    let mut costs = Vec::new();
    for round in 0..=load.rounds {
        let events = if round == 0 { 2_000 } else { events };
        let cost = per_event(ingest, events, http_batches(&system, events)).await?;
        if round > 0 {
            bench.say(&format!(
                "  round {round}: batches checked by a schema {cost:.1} µs per event"
            ));
            costs.push(cost);
        }
    }
    let what = "ingest CPU per event, HTTP batches of 100, checked by a schema";
    bench.report.at_most("P7", what, costs, "µs", 80.0);
    Ok(())
}

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Door {
    /// HTTP batches of 100.
    Batches,
    /// Single POSTs on 32 kept connections.
    Singles,
    /// Single POSTs on 8.
    FewSingles,
    /// NATS requests, 32 at a time.
    Nats,
    /// NATS requests, 512 at a time.
    ManyNats,
}

/// What an event costs that comes by one door, where ingest has a core of its own. `beside`: a command that is run with ingest's process
/// id meanwhile, after a first part that warms up.
///
/// # Errors
/// When a part cannot be started or an event is refused.
pub async fn one_door(
    bench: &mut Bench,
    door: Door,
    events: usize,
    nats_nodes: u32,
    beside: Option<&str>,
) -> anyhow::Result<()> {
    let apart = Apart::begin()?;
    let system = System::on_nodes(nats_nodes)?;
    let ingest = system.stack.pid("ingest-1");
    apart.give(ingest)?;
    for (events, beside) in [(events / 10, None), (events, beside)] {
        let running = beside
            .map(|command| super::idle::beside(command, ingest))
            .transpose()?;
        let before = cpu::read(ingest).cpu_ns;
        match door {
            Door::Batches => http_batches(&system, events).await?,
            Door::Singles => http_singles(&system, events, AT_ONCE).await?,
            Door::FewSingles => http_singles(&system, events, FEW).await?,
            Door::Nats => nats_requests(&system, events, AT_ONCE).await?,
            Door::ManyNats => nats_requests(&system, events, MANY).await?,
        }
        let spent = cpu::read(ingest).cpu_ns - before;
        bench.say(&format!(
            "  {events} events: {:.2} µs each",
            spent as f64 / 1000.0 / events as f64
        ));
        if let Some(mut running) = running {
            running.wait()?;
        }
    }
    Ok(())
}

fn token(system: &System) -> anyhow::Result<String> {
    let rooms: Vec<String> = (0..50).map(|room| room.to_string()).collect();
    system.issuer.token(Algorithm::Eddsa, "loader", "loader", &rooms)
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
    let token = token(system)?;
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

/// `at_once`: publishers that each wait for an answer before they go on.
async fn http_singles(system: &System, events: usize, at_once: usize) -> anyhow::Result<()> {
    let token = token(system)?;
    let url = format!("{}/v1/events", system.stack.ingests()[0]);
    let lanes = (0..at_once).map(|lane| {
        let (http, url, token) = (system.stack.http.clone(), url.clone(), token.clone());
        async move {
            for i in 0..events / at_once {
                let body = load_event(i * at_once + lane).to_string();
                let answer = http.post(&url, &token, "application/json", body).await?;
                anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            }
            anyhow::Ok(())
        }
    });
    try_join_all(lanes).await.map(drop)
}

/// `at_once`: as for [`http_singles`].
async fn nats_requests(system: &System, events: usize, at_once: usize) -> anyhow::Result<()> {
    let nats = system.stack.nats("publisher").await;
    let lanes = (0..at_once).map(|lane| {
        let nats = nats.clone();
        async move {
            for i in 0..events / at_once {
                let event = load_event(i * at_once + lane);
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
