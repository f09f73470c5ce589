//! P1: what a delivery costs, one event at a time. P2: in busy rooms, where several leave in one write.

use std::time::Duration;

use super::Bench;
use super::load::Load;
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

/// Gateway and floor in turn, with the same connections, rate and size of frame.
///
/// # Errors
/// When a part cannot be started, or a client missed an event.
pub async fn against_floor(
    bench: &mut Bench,
    load: &Load,
    connections: usize,
    rate: u32,
) -> anyhow::Result<()> {
    let (mut ours, mut floors, mut ratios, mut lone) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let system = System::start(None, &[])?;
    for round in 1..=load.rounds {
        let spent = gateway(&system, load, connections, rate).await?;
        system.nobody().await?;
        let least = floor(connections, rate, spent.frame_bytes, load.seconds.unwrap_or(10)).await?;
        let ratio = spent.micros_per_frame / least.micros_per_frame;
        bench.say(&format!(
            "  {connections} × {rate}/s, round {round}: {:.2} µs ({} frames of {} B), floor {:.2} µs ({} frames), ratio {ratio:.2}; {}",
            spent.micros_per_frame,
            spent.frames,
            spent.frame_bytes,
            least.micros_per_frame,
            least.frames,
            spent.latencies
        ));
        ours.push(spent.micros_per_frame);
        floors.push(least.micros_per_frame);
        ratios.push(ratio);
        lone.push(spent.latencies.millis(0.5));
    }
    let of = format!("{connections} × {rate}/s");
    bench
        .report
        .note("P1", format!("gateway CPU per delivery, {of}"), ours, "µs");
    bench.report.note("P1", format!("floor, {of}"), floors, "µs");
    bench
        .report
        .at_most("P1", format!("ratio to the floor, {of}"), ratios, "×", 1.25);
    bench.report.note(
        "P1",
        format!("POST → frame of a lone event, p50, {of}"),
        lone,
        "ms",
    );
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
