//! Growth: a delivery costs the same with ten rooms and with a hundred thousand, and memory stays where it is however long it goes on.

use std::time::Duration;

use roomcast_load::cpu;

use super::Bench;
use super::load::Load;
use super::publisher::Publisher;
use super::system::{RATE as RATE_OF_CLIENTS, System};
use super::watch::{all_well, watch};

/// Clients; all are in the one room that is measured, and each in its part of the others.
const CLIENTS: usize = 1_000;
const RATE: u32 = 20;
/// Events that go to other rooms meanwhile, a second.
const RATE_ELSEWHERE: u32 = 20;
/// Rooms of the runs that are held against the first.
const ROOMS: [usize; 3] = [10, 1_000, 100_000];
/// Rooms that clients open in a second before the measurement.
const ROOMS_OPENED_A_SECOND: usize = 6_000;
/// A delivery may cost so much more with more rooms; less cannot be told from noise.
const GROWTH_MAX: f64 = 1.1;
/// Bytes of recent events in memory during the long run: full early, so that what grows after it is a leak.
const RING: &str = "ROOMCAST_RING_BYTES=16777216";
/// How many looks at memory make one of the long run's figures.
const LOOKS: usize = 20;

/// CPU of a delivery, microseconds, while there are so many rooms.
async fn per_delivery(load: &Load, rooms: usize) -> anyhow::Result<f64> {
    let system = System::start(None, &[])?;
    let clients = load.connections.unwrap_or(CLIENTS);
    // Room 0 is everybody's; of the others each client has its share, none is shared.
    let share = (rooms - 1).div_ceil(clients);
    let of_client = |i: usize| {
        let first = 1 + i * share;
        std::iter::once(0)
            .chain(first..(first + share).min(rooms))
            .collect()
    };
    // Every room that is opened for the first time has its state read; more at once would be told to come again.
    let rate = (ROOMS_OPENED_A_SECOND / (share + 1)).clamp(1, RATE_OF_CLIENTS);
    let swarm = system.swarm_at(rate, load, system.clients(load, 0..clients, of_client)?)?;
    let seconds = load.seconds.unwrap_or(10);
    let total = u64::from(RATE) * (seconds + 2);
    let mut measured = Publisher::new(&system, 1, load.bytes)?;
    // A token names a few rooms only: those of the first clients stand for all.
    let elsewhere = 1..rooms.min(50);
    let mut others = Publisher::new(&system, elsewhere.end, load.bytes)?;
    let publishing = measured.steady(0..1, RATE, |sent| sent >= total);
    let beside = others.steady(elsewhere, RATE_ELSEWHERE, |sent| sent >= total);
    let watching = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        watch(system.gateway_pid(), &swarm, Duration::from_secs(seconds)).await
    };
    let (published, besides, spent) = tokio::join!(publishing, beside, watching);
    published?;
    besides?;
    all_well(&swarm)?;
    Ok(spent.micros_per_frame)
}

/// The same traffic with more and more rooms.
///
/// # Errors
/// When a part cannot be started, or a client missed an event.
pub async fn rooms(bench: &mut Bench, load: &Load) -> anyhow::Result<()> {
    let most = load.rooms.unwrap_or(ROOMS[2]).max(ROOMS[0] + 1);
    let mut counts = vec![ROOMS[0], ROOMS[1], most];
    counts.retain(|rooms| *rooms <= most);
    counts.dedup();
    let mut costs = vec![Vec::new(); counts.len()];
    for round in 1..=load.rounds {
        for (rooms, costs) in counts.iter().zip(&mut costs) {
            costs.push(per_delivery(load, *rooms).await?);
        }
        let said: Vec<String> = counts
            .iter()
            .zip(&costs)
            .map(|(rooms, costs)| {
                format!(
                    "{:.2} µs with {rooms} rooms",
                    costs.last().copied().unwrap_or_default()
                )
            })
            .collect();
        bench.say(&format!("  round {round}: {}", said.join(", ")));
    }
    let few = costs.remove(0);
    bench.report.note(
        "growth",
        format!("gateway CPU per delivery, {} rooms", ROOMS[0]),
        few.clone(),
        "µs",
    );
    for (rooms, costs) in counts[1..].iter().zip(costs) {
        let ratios = costs.iter().zip(&few).map(|(more, few)| more / few).collect();
        bench.report.at_most(
            "growth",
            format!("the same with {rooms} rooms, to {} rooms", ROOMS[0]),
            ratios,
            "×",
            GROWTH_MAX,
        );
    }
    Ok(())
}

/// Sends `events` through one gateway, as fast as they are taken, and looks at its memory on the way.
///
/// # Errors
/// When a part cannot be started, or a client missed an event.
pub async fn memory(bench: &mut Bench, load: &Load, events: usize) -> anyhow::Result<()> {
    /// Rooms, and clients in each.
    const ROOMS: usize = 50;
    let system = System::start(None, &[RING])?;
    let clients = load.connections.unwrap_or(ROOMS);
    let swarm = system.swarm(load, system.clients(load, 0..clients, |i| vec![i % ROOMS])?)?;
    let mut publisher = Publisher::new(&system, ROOMS, load.bytes)?;
    let part = (events / LOOKS / ROOMS).max(1);
    let mut resident = Vec::new();
    for look in 1..=LOOKS {
        publisher.at_once(0..ROOMS, part).await?;
        resident.push(cpu::read(system.gateway_pid()).rss_bytes as f64 / 1_048_576.0);
        if look % 5 == 0 {
            bench.say(&format!(
                "  {} events: {:.1} MiB",
                look * part * ROOMS,
                resident.last().copied().unwrap_or_default()
            ));
        }
    }
    all_well(&swarm)?;
    // The first half fills the ring and warms the allocator.
    let half = resident.split_off(LOOKS / 2);
    let (first, last) = half.split_at(half.len() / 2);
    let mean = |list: &[f64]| list.iter().sum::<f64>() / list.len() as f64;
    let of = format!("{} events through one gateway", LOOKS * part * ROOMS);
    bench
        .report
        .note("growth", format!("RSS after {of}"), vec![mean(last)], "MiB");
    bench.report.at_most(
        "growth",
        format!("RSS of the last quarter to the one before, {of}"),
        vec![mean(last) / mean(first)],
        "×",
        1.03,
    );
    Ok(())
}
