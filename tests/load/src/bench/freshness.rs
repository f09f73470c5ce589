//! P5: from a publisher's POST to the frame in a client's hand.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;

use super::Effort;
use super::fanout::event;
use super::report::{Report, percentile_ms};
use super::system::System;

const ROOMS: usize = 50;
const CLIENTS: usize = 1_000;
const RATE: u32 = 500;

/// 500 single POSTs a second on kept connections, 50 rooms, 20 clients in each; every acknowledged event is on disk.
///
/// # Errors
/// When a part cannot be started or an event is refused.
pub async fn run(report: &mut Report, effort: Effort, say: &impl Fn(&str)) -> anyhow::Result<()> {
    let system = System::start(false)?;
    let swarm = system.swarm(CLIENTS, |i| vec![i % ROOMS])?;
    let token = system.token("loader", "loader");
    let url = format!(
        "{}/v1/events",
        system
            .stack
            .ingests()
            .first()
            .ok_or_else(|| anyhow::anyhow!("no ingest"))?
    );
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for round in 0..=effort.rounds {
        let mut every = tokio::time::interval(Duration::from_secs(1) / RATE);
        let lanes = Arc::new(Semaphore::new(64));
        let mut running = Vec::new();
        for i in 0..(u64::from(RATE) * effort.seconds) {
            every.tick().await;
            let lane = Arc::clone(&lanes).acquire_owned().await?;
            let (http, url, token) = (system.stack.http.clone(), url.clone(), token.clone());
            let room = usize::try_from(i)? % ROOMS;
            running.push(tokio::spawn(async move {
                let answer = http.post(&url, &token, "application/json", event(room)).await;
                drop(lane);
                answer.map(|a| (a.status, a.json()))
            }));
        }
        for answer in running {
            let (status, body): (u16, Value) = answer.await??;
            anyhow::ensure!(status == 200 && body["status"] == "stored", "{status} {body}");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let latencies = swarm.tally.latencies();
        let expected = u64::from(RATE) * effort.seconds * (CLIENTS / ROOMS) as u64;
        anyhow::ensure!(
            latencies.len() as u64 == expected,
            "{} of {expected} frames arrived",
            latencies.len()
        );
        let (half, most) = (percentile_ms(&latencies, 0.5), percentile_ms(&latencies, 0.99));
        say(&format!(
            "  round {round}: p50 {half:.2} ms, p99 {most:.2} ms, {} frames",
            latencies.len()
        ));
        // The first round warms up.
        if round > 0 {
            p50.push(half);
            p99.push(most);
        }
    }
    report.at_most(
        "P5",
        "POST → frame, p50, 500/s, 50 rooms, 1,000 clients, fsync each",
        p50,
        "ms",
        5.0,
    );
    report.at_most("P5", "POST → frame, p99", p99, "ms", 25.0);
    Ok(())
}
