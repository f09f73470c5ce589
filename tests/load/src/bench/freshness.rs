//! P5: from a publisher's POST to the frame in a client's hand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::Semaphore;

use roomcast_load::histogram::Histogram;
use roomcast_load::swarm::{Swarm, now_micros};
use roomcast_load::tokens::Algorithm;

use super::Bench;
use super::load::Load;
use super::publisher::event;
use super::system::System;
use super::watch::all_well;

const ROOMS: usize = 50;
const CLIENTS: usize = 1_000;
const RATE: u32 = 500;
/// POSTs at a time.
const LANES: usize = 64;

/// 500 single POSTs a second on kept connections, 50 rooms, 20 clients in each; every acknowledged event is on disk.
///
/// # Errors
/// When a part cannot be started or an event is refused.
pub async fn run(bench: &mut Bench, load: &Load) -> anyhow::Result<()> {
    let (rooms, clients) = (
        load.rooms.unwrap_or(ROOMS).max(1),
        load.connections.unwrap_or(CLIENTS),
    );
    let (rate, seconds) = (load.rate.unwrap_or(RATE), load.seconds.unwrap_or(10));
    let system = System::start(None, &[])?;
    let swarm = system.swarm(load, system.clients(load, 0..clients, |i| vec![i % rooms])?)?;
    let names: Vec<String> = (0..rooms).map(|room| room.to_string()).collect();
    let token = system
        .issuer
        .token(Algorithm::Eddsa, "loader", "loader", &names)?;
    let ingests = system.stack.ingests();
    let ingest = ingests.first().ok_or_else(|| anyhow::anyhow!("no ingest"))?;
    let url = format!("{ingest}/v1/events");
    let (mut p50, mut p99, mut all) = (Vec::new(), Vec::new(), Histogram::default());
    for round in 0..=load.rounds {
        let mut every = tokio::time::interval(Duration::from_secs(1) / rate);
        let lanes = Arc::new(Semaphore::new(LANES));
        let mut running = Vec::new();
        for i in 0..u64::from(rate) * seconds {
            every.tick().await;
            // Stamped when it is due, so that waiting for a lane counts.
            let due = now_micros();
            let lane = Arc::clone(&lanes).acquire_owned().await?;
            let (http, url, token) = (system.stack.http.clone(), url.clone(), token.clone());
            let event = event(usize::try_from(i)? % rooms, load.bytes, None, due);
            running.push(tokio::spawn(async move {
                let answer = http.post(&url, &token, "application/json", event).await;
                drop(lane);
                answer.map(|a| (a.status, a.json()))
            }));
        }
        for answer in running {
            let (status, body): (u16, Value) = answer.await??;
            anyhow::ensure!(status == 200 && body["status"] == "stored", "{status} {body}");
        }
        let latencies = arrived(&swarm, u64::from(rate) * seconds * (clients / rooms) as u64).await?;
        bench.say(&format!("  round {round}: {latencies}"));
        // The first round warms up.
        if round > 0 {
            p50.push(latencies.millis(0.5));
            p99.push(latencies.millis(0.99));
            all.merge(&latencies);
        }
    }
    all_well(&swarm)?;
    let of = format!("{rate}/s, {rooms} rooms, {clients} clients, fsync each");
    let report = &mut bench.report;
    report.at_most("P5", format!("POST → frame, p50, {of}"), p50, "ms", 5.0);
    report.at_most("P5", format!("POST → frame, p99, {of}"), p99, "ms", 25.0);
    report.note(
        "P5",
        "the same, p99.9 of all rounds",
        vec![all.millis(0.999)],
        "ms",
    );
    report.note("P5", "the same, the latest of all", vec![all.millis(1.0)], "ms");
    Ok(())
}

/// Waits until every frame has arrived, and takes their latencies.
async fn arrived(swarm: &Swarm, frames: u64) -> anyhow::Result<Histogram> {
    let (start, mut latencies) = (Instant::now(), Histogram::default());
    while latencies.count() < frames {
        anyhow::ensure!(
            start.elapsed() < Duration::from_secs(5),
            "{} of {frames} frames arrived",
            latencies.count()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
        latencies.merge(&swarm.tally.latencies());
    }
    anyhow::ensure!(
        latencies.count() == frames,
        "{} frames instead of {frames}",
        latencies.count()
    );
    Ok(latencies)
}
