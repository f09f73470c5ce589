//! What a change of a database costs ingest, and how long it takes from its commit to the stream.

use std::time::{Duration, Instant};

use roomcast_chassis::jetstream::JetStream;
use roomcast_harness::postgres::Postgres;
use roomcast_load::cpu;
use roomcast_proto::accounts::API_IN_CORE;
use roomcast_proto::subject::stream::EVENTS;
use serde_json::Value;

use super::Bench;
use super::system::System;

const TABLE: &str = "CREATE TABLE orders (id bigint PRIMARY KEY, customer text, amount numeric(12, 2), status text, made timestamptz DEFAULT now()); \
                     CREATE PUBLICATION roomcast FOR TABLE orders";
const MAPPING: &str = "version: 1
source: bench
tables:
  - table: orders
    room: load
    audience: all
    types: { insert: load, update: load }
    columns: all
";
/// How long all rows of a round may take.
const WITHIN: Duration = Duration::from_secs(900);
/// How often the memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Single commits of a round whose way is timed.
const SINGLES: usize = 200;
/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(10);

/// One transaction of `rows` rows a round, and single commits after it.
///
/// # Errors
/// When there is no PostgreSQL, or what was committed is not stored in time.
pub async fn run(bench: &mut Bench, rows: usize, rounds: usize) -> anyhow::Result<()> {
    let postgres = Postgres::start().await;
    let postgres =
        postgres.ok_or_else(|| anyhow::anyhow!("PostgreSQL is missing: apt-get install postgresql"))?;
    postgres.sql(TABLE);
    let system = System::that_follows(&postgres.address("postgres"), MAPPING)?;
    let ingest = system.stack.pid("ingest-1");
    until(&system, "roomcast_capture_following", &[], 1.0).await?;
    let (mut speeds, mut memory, mut waits) = (Vec::new(), Vec::new(), Vec::new());
    // A first round warms up.
    for round in 0..=rounds {
        let rows = if round == 0 { rows / 20 } else { rows };
        let before = stored(&system).await?;
        let spent = cpu::read(ingest).cpu_ns;
        let began = Instant::now();
        postgres.sql(&format!(
            "INSERT INTO orders SELECT i, 'customer ' || i % 1000, i % 10000 / 100.0, 'open' FROM generate_series({}, {}) i",
            round * 100_000_000,
            round * 100_000_000 + rows - 1
        ));
        let mut peak = 0;
        let mut looked = Instant::now();
        while stored(&system).await? < before + rows as f64 {
            anyhow::ensure!(began.elapsed() < WITHIN, "not stored within {WITHIN:?}");
            while looked.elapsed() < Duration::from_millis(500) {
                peak = peak.max(cpu::read(ingest).rss_bytes);
                tokio::time::sleep(LOOK_EVERY).await;
            }
            looked = Instant::now();
        }
        let spent_ns = cpu::read(ingest).cpu_ns - spent;
        let wait = singles(&system, &postgres, round).await?;
        if round > 0 {
            let speed = rows as f64 * 1e9 / spent_ns as f64;
            let mib = peak as f64 / f64::from(1 << 20);
            bench.say(&format!(
                "  round {round}: {rows} rows of one commit in {:.1} s, {speed:.0} rows/s per core, {mib:.0} MiB; single commits {wait:.1} ms",
                began.elapsed().as_secs_f64()
            ));
            speeds.push(speed);
            memory.push(mib);
            waits.push(wait);
        }
    }
    let report = &mut bench.report;
    report.at_least(
        "CDC",
        "rows a second and core of ingest, one transaction",
        speeds,
        "",
        20_000.0,
    );
    report.at_most("CDC", "most memory of ingest meanwhile", memory, "MiB", 64.0);
    report.at_most("CDC", "commit to stream, single rows, p50", waits, "ms", 20.0);
    Ok(())
}

/// The median time from a commit, as the database has it, to the stream, as NATS has it, milliseconds.
async fn singles(system: &System, postgres: &Postgres, round: usize) -> anyhow::Result<f64> {
    let client = system.stack.nats_admin().await;
    let jetstream = JetStream::new(client, API_IN_CORE);
    let last = async || -> anyhow::Result<u64> {
        let info = jetstream.stream_info(EVENTS).await?;
        Ok(info.map_or(0, |info| info.state.last_seq))
    };
    let first = last().await? + 1;
    for n in 0..SINGLES {
        postgres.sql(&format!(
            "INSERT INTO orders VALUES ({}, 'one', 1, 'open')",
            round * 100_000_000 + 50_000_000 + n
        ));
        tokio::time::sleep(PAUSE).await;
    }
    let (mut waits, mut next) = (Vec::new(), first);
    let began = Instant::now();
    while waits.len() < SINGLES {
        anyhow::ensure!(began.elapsed() < WITHIN, "not stored within {WITHIN:?}");
        for message in jetstream
            .direct_batch(EVENTS, next, SINGLES, None)
            .await?
            .messages
        {
            next = message.sequence + 1;
            let event: Value = serde_json::from_slice(&message.payload)?;
            let committed: jiff::Timestamp = event["time"].as_str().unwrap_or_default().parse()?;
            let micros = message.time_micros - committed.as_microsecond();
            waits.push(micros as f64 / 1000.0);
        }
    }
    Ok(super::report::median(&waits))
}

async fn stored(system: &System) -> anyhow::Result<f64> {
    let labels = ["door=\"capture\"", "outcome=\"stored\""];
    system
        .metric("ingest", "roomcast_ingest_events_total", &labels)
        .await
}

async fn until(system: &System, metric: &str, labels: &[&str], least: f64) -> anyhow::Result<()> {
    let began = Instant::now();
    while system.metric("ingest", metric, labels).await? < least {
        anyhow::ensure!(began.elapsed() < WITHIN, "{metric} is not {least}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
