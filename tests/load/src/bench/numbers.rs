//! P8, what is around folding: what writing state costs, many metrics at once, and how soon an event is a number on a screen.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roomcast_harness::client::Client;
use roomcast_harness::http::Http;
use roomcast_load::swarm::now_micros;
use roomcast_load::tokens::Algorithm;
use roomcast_metrics_aggregator::definition::Definitions;
use roomcast_metrics_aggregator::engine::row::Event;
use roomcast_metrics_aggregator::engine::shard::Shard;
use roomcast_proto::event::View;
use roomcast_proto::ids::SHARDS;

use super::Bench;
use super::folds::thread_cpu_ns;
use super::owned::Service;
use super::system::System;

/// Events a second, and how often state is written at most, as the worker does.
const RATE: usize = 1_000;
const FLUSHES_PER_SECOND: usize = 7;
const GROUPS: usize = 1_000;
/// Metrics of the second row, and how many of them an event matches.
const METRICS: usize = 1_000;
const MATCHING: usize = 10;
const MANY_RATE: f64 = 5_000.0;
const BETWEEN_WRITES: usize = 750;
/// Events of the third row, one after the other.
const FRAMES: u64 = 200;
/// Where an update may wait 150 ms.
const FRAME_MS: f64 = 30.0 + 150.0;
const EVERY_150: &str = "version: 1
timezone: UTC
metrics:
  - { name: all, from: { room: load.0, type: load }, value: count(), window: { total: true }, publish: { room: load, audience: all, at_most_every: 150ms } }
";
const SOON: Duration = Duration::from_secs(20);

fn definitions(metrics: &str) -> anyhow::Result<Definitions> {
    let text = format!("version: 1\ntimezone: UTC\nmetrics:\n{metrics}");
    Definitions::parse(&text, "bench", None).map_err(|mistakes| {
        let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", lines.join("\n"))
    })
}

fn stored(i: usize, now: i64) -> String {
    format!(
        "{{\"specversion\":\"1.0\",\"id\":\"{i}\",\"source\":\"roomcast://main/load\",\"type\":\"load\",\"time\":\"{}\",\"room\":\"load\",\"audience\":\"all\",\"priority\":\"medium\",\"data\":{{\"amount\":\"{}.50\",\"group\":\"g{}\"}}}}",
        roomcast_proto::event::rfc3339(now),
        i % 977,
        i % GROUPS
    )
}

fn fold(shard: &mut Shard, json: &str, room: &str, seq: u64, now: i64) -> anyhow::Result<()> {
    let view = View::parse(json.as_bytes())?;
    let event = Event {
        seq,
        stored_micros: now,
        time_micros: view.time_micros().unwrap_or(now),
        room,
        audience: "all",
        kind: &view.kind,
        source: &view.source,
        id: &view.id,
        subject: None,
        priority: "medium",
        data: view.data.map(serde_json::value::RawValue::get),
    };
    shard.fold(&event, &mut |_| {});
    Ok(())
}

/// What making the bytes of each state write costs at 1,000 events a second, and how many they are.
///
/// # Errors
/// When the definitions are not accepted.
pub fn writes(bench: &mut Bench, rounds: usize) -> anyhow::Result<()> {
    let now = i64::try_from(now_micros())?;
    let definitions = definitions(
        "  - { name: sum, from: { room: load, type: load }, value: sum(data.amount), group_by: [data.group], window: { total: true } }
  - { name: count, from: { room: load, type: load }, value: count(), group_by: [data.group], window: { total: true } }
",
    )?;
    let (mut shares, mut sizes) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let metrics: Vec<_> = definitions.metrics.iter().map(Arc::clone).collect();
        let mut shard =
            Shard::load(metrics, None, now).map_err(|_| anyhow::anyhow!("an empty shard loads"))?;
        let (mut seq, mut spent, mut bytes) = (0_usize, 0, 0);
        let seconds = 20;
        for _ in 0..seconds * FLUSHES_PER_SECOND {
            for _ in 0..RATE / FLUSHES_PER_SECOND {
                seq += 1;
                fold(&mut shard, &stored(seq, now), "load", seq as u64, now)?;
            }
            let began = thread_cpu_ns();
            let flush = shard.flush();
            spent += thread_cpu_ns() - began;
            bytes += flush.head.len() + flush.chunks.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        }
        shares.push(spent as f64 / (seconds as f64 * 1e9) * 100.0);
        sizes.push(bytes as f64 / (seconds * FLUSHES_PER_SECOND) as f64 / 1024.0);
    }
    let of =
        format!("{RATE} events/s, sum and count by {GROUPS} groups, {FLUSHES_PER_SECOND} writes a second");
    bench.say(&format!(
        "  state writes: {shares:.2?} % of a core, {sizes:.1?} KiB each"
    ));
    bench.report.at_most(
        "P8",
        format!("making state writes, {of}"),
        shares,
        "% of a core",
        5.0,
    );
    bench
        .report
        .note("P8", format!("bytes of a state write, {of}"), sizes, "KiB");
    Ok(())
}

/// How many events a second one core takes with 1,000 metrics in all shards, when each shard is given every event.
///
/// # Errors
/// When the definitions are not accepted.
pub fn many(bench: &mut Bench, rounds: usize) -> anyhow::Result<()> {
    let now = i64::try_from(now_micros())?;
    let metric = |n: usize| {
        let room = n / MATCHING;
        let value = [
            "count()",
            "sum(data.amount)",
            "max(data.amount)",
            "distinct(data.group)",
        ][n % 4];
        format!(
            "  - {{ name: m{n}, from: {{ room: load.{room}, type: load }}, value: '{value}', window: {{ tumbling: hour }} }}\n"
        )
    };
    let definitions = definitions(&(0..METRICS).map(metric).collect::<String>())?;
    let rooms = METRICS / MATCHING;
    let events: Vec<(String, String)> = (0..3_000)
        .map(|i| (stored(i, now), format!("load.{}", i % rooms)))
        .collect();
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let mut shards = Vec::new();
        for shard in 0..SHARDS {
            shards.push(
                Shard::load(definitions.of_shard(shard), None, now)
                    .map_err(|_| anyhow::anyhow!("an empty shard loads"))?,
            );
        }
        let (mut seq, began) = (0_u64, thread_cpu_ns());
        while thread_cpu_ns() - began < 1_000_000_000 {
            // State is written as often as the worker does, by the clock of 5,000 events a second.
            for some in events.chunks(BETWEEN_WRITES) {
                for (json, room) in some {
                    seq += 1;
                    for shard in &mut shards {
                        fold(shard, json, room, seq, now)?;
                    }
                }
                for shard in &mut shards {
                    shard.advance(now);
                    drop(shard.flush());
                }
            }
        }
        rates.push(seq as f64 / ((thread_cpu_ns() - began) as f64 / 1e9));
    }
    bench.say(&format!(
        "  {METRICS} metrics, {MATCHING} of them match: {rates:.0?} events/s"
    ));
    bench.report.at_least(
        "P8",
        format!("events per second and core, {METRICS} metrics in {SHARDS} shards, {MATCHING} of them match, state writes included"),
        rates,
        "/s",
        MANY_RATE,
    );
    Ok(())
}

/// From a publisher's POST to the number in a client's hand, one event after the other.
///
/// # Errors
/// When a part cannot be started, or a number does not come.
pub async fn frames(bench: &mut Bench, rounds: usize) -> anyhow::Result<()> {
    let mut worst = Vec::new();
    for _ in 0..rounds {
        let system = System::start(None, &[])?;
        let http = Http::default();
        let aggregator = Service::aggregator(&system, EVERY_150)?;
        let (running, _) = aggregator.start(&http).await?;
        let (gateways, ingests) = (system.stack.gateways(), system.stack.ingests());
        let (Some(gateway), Some(ingest)) = (gateways.first(), ingests.first()) else {
            anyhow::bail!("no gateway or no ingest");
        };
        let token = |name: &str, rooms: &[String]| system.issuer.token(Algorithm::Eddsa, name, name, rooms);
        let (loader, viewer) = (token("loader", &["0".to_owned()])?, token("viewer", &[])?);
        let (mut client, _) = Client::connect(gateway, &viewer, &["load"], &HashMap::new()).await?;
        client.caught_up("load").await?;
        let mut took = Vec::new();
        for n in 1..=FRAMES {
            let body = "{\"type\":\"load\",\"room\":\"load.0\",\"data\":{}}".to_owned();
            let wanted = n.to_string();
            let began = Instant::now();
            let url = format!("{ingest}/v1/events");
            let answer = system
                .stack
                .http
                .post(&url, &loader, "application/json", body)
                .await?;
            anyhow::ensure!(answer.status == 200, "{}", answer.text());
            client
                .until("the number", SOON, |frame| {
                    let data = &frame["event"]["event"]["data"];
                    data["metric"] == "all" && data["value"].as_str() == Some(&wanted)
                })
                .await?;
            took.push(began.elapsed().as_secs_f64() * 1_000.0);
            // Not in step with anything.
            tokio::time::sleep(Duration::from_millis(20 + n * 37 % 200)).await;
        }
        drop(running);
        took.sort_by(f64::total_cmp);
        worst.push(took[took.len() * 99 / 100 - 1]);
        bench.say(&format!(
            "  event to number: p50 {:.1} ms, p99 {:.1} ms",
            took[took.len() / 2],
            took[took.len() * 99 / 100 - 1]
        ));
    }
    bench.report.at_most(
        "P8",
        "POST → number on a client's screen, p99, updates 150 ms apart at least".to_owned(),
        worst,
        "ms",
        FRAME_MS,
    );
    Ok(())
}
