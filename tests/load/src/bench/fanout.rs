//! P1: what a delivery costs, one event at a time. P2: in busy rooms, where several leave in one write.

use std::time::Duration;

use super::Bench;
use super::load::{Load, Written};
use super::publisher::Publisher;
use super::system::{Floor, System};
use super::watch::{Spent, all_well, watch};

/// Before and after the time that is watched, the publisher runs already and still.
const LEAD: u64 = 1;
/// Bytes of a frame that the floor adds to what it is told.
const FLOOR_HEADER_BYTES: usize = 4;
/// How many events a flush carries when P2 holds.
const FLUSH_EVENTS: f64 = 8.0;

/// Watches the gateway while events come at a rate to the first of the rooms that clients are in.
async fn gateway(system: &System, load: &Load, connections: usize, rate: u32) -> anyhow::Result<Spent> {
    let seconds = load.seconds.unwrap_or(10);
    let rooms = load.rooms.unwrap_or(1).max(1);
    let swarm = system.swarm(load, system.clients(load, 0..connections, |i| vec![i % rooms])?)?;
    let mut publisher = Publisher::new(system, rooms, load.bytes)?;
    let total = u64::from(rate) * (seconds + 2 * LEAD);
    let publishing = publisher.steady(0..rooms, rate, |sent| sent >= total);
    let watching = async {
        tokio::time::sleep(Duration::from_secs(LEAD)).await;
        watch(system.gateway_pid(), &swarm, Duration::from_secs(seconds)).await
    };
    let (published, spent) = tokio::join!(publishing, watching);
    published?;
    all_well(&swarm)?;
    Ok(spent)
}

/// Watches the floor with the same connections, rate and size of frame.
async fn floor(connections: usize, rate: u32, frame_bytes: usize, seconds: u64) -> anyhow::Result<Spent> {
    let floor = Floor::start(rate, frame_bytes.saturating_sub(FLOOR_HEADER_BYTES))?;
    let swarm = floor.swarm(connections)?;
    tokio::time::sleep(Duration::from_secs(LEAD)).await;
    Ok(watch(floor.pid(), &swarm, Duration::from_secs(seconds)).await)
}

/// What one way of writing frames cost, round by round.
struct Cost {
    encoding: Written,
    micros: Vec<f64>,
    ratios: Vec<f64>,
    lone: Vec<f64>,
}

/// Gateway, in each of the encodings, and floor in turn, with the same connections and rate; the floor's frames are as large as those
/// of the first encoding.
///
/// # Errors
/// When a part cannot be started, or a client missed an event.
pub async fn against_floor(
    bench: &mut Bench,
    load: &Load,
    connections: usize,
    rate: u32,
    encodings: &[Written],
) -> anyhow::Result<()> {
    let system = System::start(None, &[])?;
    let mut floors = Vec::new();
    let mut costs: Vec<Cost> = encodings
        .iter()
        .map(|encoding| Cost {
            encoding: *encoding,
            micros: Vec::new(),
            ratios: Vec::new(),
            lone: Vec::new(),
        })
        .collect();
    for round in 1..=load.rounds {
        let mut all = Vec::new();
        for cost in &costs {
            let load = Load {
                encoding: cost.encoding,
                ..*load
            };
            all.push(gateway(&system, &load, connections, rate).await?);
            system.nobody().await?;
        }
        let frame_bytes = all.first().map_or(0, |spent| spent.frame_bytes);
        let least = floor(connections, rate, frame_bytes, load.seconds.unwrap_or(10)).await?;
        for (cost, spent) in costs.iter_mut().zip(all) {
            let ratio = spent.micros_per_frame / least.micros_per_frame;
            bench.say(&format!(
                "  {connections} × {rate}/s, {}, round {round}: {:.2} µs ({} frames of {} B), floor {:.2} µs ({} frames), ratio {ratio:.2}; {}",
                cost.encoding,
                spent.micros_per_frame,
                spent.frames,
                spent.frame_bytes,
                least.micros_per_frame,
                least.frames,
                spent.latencies
            ));
            cost.micros.push(spent.micros_per_frame);
            cost.ratios.push(ratio);
            cost.lone.push(spent.latencies.millis(0.5));
        }
        floors.push(least.micros_per_frame);
    }
    let report = &mut bench.report;
    report.note("P1", format!("floor, {connections} × {rate}/s"), floors, "µs");
    for cost in costs {
        let of = format!("{connections} × {rate}/s, {}", cost.encoding);
        report.note("P1", format!("gateway CPU per delivery, {of}"), cost.micros, "µs");
        report.at_most("P1", format!("ratio to the floor, {of}"), cost.ratios, "×", 1.25);
        report.note(
            "P1",
            format!("POST → frame of a lone event, p50, {of}"),
            cost.lone,
            "ms",
        );
    }
    Ok(())
}

/// A room with so many events that they gather.
///
/// # Errors
/// When a part cannot be started, or a client missed an event.
pub async fn busy(bench: &mut Bench, load: &Load) -> anyhow::Result<()> {
    let (connections, rate) = (load.connections.unwrap_or(1_000), load.rate.unwrap_or(400));
    let system = System::start(None, &[])?;
    let (mut costs, mut gathered, mut delays) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=load.rounds {
        let spent = gateway(&system, load, connections, rate).await?;
        system.nobody().await?;
        bench.say(&format!(
            "  {connections} × {rate}/s, round {round}: {:.2} µs ({} frames, {:.1} in a read); {}",
            spent.micros_per_frame, spent.frames, spent.frames_per_read, spent.latencies
        ));
        costs.push(spent.micros_per_frame);
        gathered.push(spent.frames_per_read);
        delays.push(spent.latencies.millis(0.99));
    }
    let of = format!("{connections} × {rate}/s");
    bench
        .report
        .at_most("P2", format!("gateway CPU per delivery, {of}"), costs, "µs", 1.0);
    bench.report.at_least(
        "P2",
        format!("events in one read of a client (a flush, or more where it reads late), {of}"),
        gathered,
        "",
        FLUSH_EVENTS,
    );
    bench
        .report
        .note("P2", format!("POST → frame, p99, {of}"), delays, "ms");
    Ok(())
}
