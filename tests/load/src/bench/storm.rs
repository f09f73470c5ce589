//! P6: thousands of clients lose their sockets at one moment and are all back at once, each with its cursor.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use roomcast_load::cpu;
use roomcast_load::histogram::Histogram;
use roomcast_load::swarm::Swarm;

use super::Bench;
use super::cores::Apart;
use super::load::Load;
use super::publisher::Publisher;
use super::system::{Floor, READY_WITHIN, System};
use super::watch::all_well;

/// Clients, and rooms over which they are spread; one more room is the publisher's own.
const CLIENTS: usize = 5_000;
const ROOMS: usize = 50;
/// Missed events, and the CPU that each client may then cost, microseconds.
const CASES: [(usize, f64); 2] = [(20, 90.0), (100, 200.0)];
/// Less memory for recent events than any storm misses.
const SMALL_RING: [&str; 3] = [
    "ROOMCAST_RING_BYTES=1048576",
    "ROOMCAST_RING_TENANT_BYTES=1048576",
    "ROOMCAST_RING_ROOM_EVENTS=1",
];
/// Events a second of the publisher whose answers are timed.
const ACKS_RATE: u32 = 200;
/// How long it publishes into the quiet.
const QUIET: Duration = Duration::from_secs(3);
/// A gateway lets 5,000 in at once and 2,500 a second after that. A storm uses that up; the next one is measured as the first was.
pub(super) const REST: Duration = Duration::from_millis(2_200);

/// What a storm cost.
struct Storm {
    micros_each: f64,
    took: Duration,
    turned_away: u64,
    /// Reads of the stream for events, and for state.
    event_reads: f64,
    state_reads: f64,
    acks: Histogram,
}

struct World {
    /// As the peers were measured that the budget is of: the gateway, or the floor, has a core of its own.
    apart: Apart,
    system: System,
    swarm: Swarm,
    publisher: Publisher,
    acks: Publisher,
    rooms: usize,
    /// When the gateway lets as many in at once as it ever does.
    rested: Instant,
}

impl World {
    fn start(load: &Load, gateway: &[&str]) -> anyhow::Result<Self> {
        let apart = Apart::begin()?;
        let system = System::start(None, gateway)?;
        apart.give(system.gateway_pid())?;
        let rooms = load.rooms.unwrap_or(ROOMS).max(1);
        let clients = system.clients(load, 0..load.connections.unwrap_or(CLIENTS), |i| vec![i % rooms])?;
        let swarm = system.swarm(load, clients)?;
        // They would be elsewhere: what they cost themselves keeps neither publisher nor gateway waiting.
        swarm.give_way()?;
        Ok(Self {
            publisher: Publisher::new(&system, rooms, load.bytes)?,
            acks: Publisher::new(&system, rooms + 1, load.bytes)?,
            apart,
            system,
            swarm,
            rooms,
            rested: Instant::now(),
        })
    }

    /// Times the publisher's answers until `done`.
    async fn answers(&mut self, done: impl Fn() -> bool) -> anyhow::Result<Histogram> {
        let own = self.rooms..self.rooms + 1;
        self.acks.steady(own, ACKS_RATE, |_| done()).await
    }

    async fn quiet(&mut self) -> anyhow::Result<Histogram> {
        let begun = Instant::now();
        self.answers(|| begun.elapsed() > QUIET).await
    }

    /// Waits until the gateway has all that is stored.
    async fn gateway_has_all(&self) -> anyhow::Result<()> {
        let stored = (self.publisher.stored + self.acks.stored) as f64;
        let labels = ["stream=\"events\""];
        self.system
            .until("roomcast_gateway_spine_delivered_total", &labels, |now| {
                now >= stored
            })
            .await
    }

    async fn reads(&self, kind: &str) -> anyhow::Result<f64> {
        let label = format!("kind=\"{kind}\"");
        let labels = [label.as_str()];
        self.system
            .metric("gateway", "roomcast_gateway_stream_reads_total", &labels)
            .await
    }

    /// Everybody has an event, loses the socket, misses `missed` events and comes back.
    async fn storm(&mut self, missed: usize) -> anyhow::Result<Storm> {
        self.publisher.at_once(0..self.rooms, 1).await?;
        self.gateway_has_all().await?;
        // The event is on its way to the last of them.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let tally = std::sync::Arc::clone(&self.swarm.tally);
        self.swarm.reset()?;
        self.system.nobody().await?;
        self.publisher.at_once(0..self.rooms, missed).await?;
        self.gateway_has_all().await?;
        tokio::time::sleep_until(self.rested.into()).await;
        let counts = || [&tally.events, &tally.complete, &tally.turned_away].map(|count| count.load(Relaxed));
        let before = counts();
        let (events_before, state_before) = (self.reads("events").await?, self.reads("state").await?);
        tally.owed.store(missed as u64, Relaxed);
        let pid = self.system.gateway_pid();
        let cpu_before = cpu::read(pid).cpu_ns;
        self.swarm.come_back()?;
        let over = AtomicBool::new(false);
        let clients = self.swarm.clients();
        let waiting = async {
            let begun = Instant::now();
            while tally.back.load(Relaxed) < clients && begun.elapsed() < READY_WITHIN {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            over.store(true, Ordering::Relaxed);
        };
        let own = self.rooms..self.rooms + 1;
        let publishing = self.acks.steady(own, ACKS_RATE, |_| over.load(Ordering::Relaxed));
        let (acks, ()) = tokio::join!(publishing, waiting);
        let took = self.swarm.ready(Duration::from_secs(1))?;
        let cpu_after = cpu::read(pid).cpu_ns;
        let after = counts();
        let [events, complete, turned_away] = [0, 1, 2].map(|n| after[n] - before[n]);
        tally.owed.store(0, Relaxed);
        self.rested = Instant::now() + REST;
        all_well(&self.swarm)?;
        anyhow::ensure!(
            complete == clients && events == clients * missed as u64,
            "{complete} of {clients} came back complete, with {events} events instead of {}; {} incomplete",
            clients * missed as u64,
            tally.incomplete.load(Relaxed)
        );
        Ok(Storm {
            micros_each: (cpu_after - cpu_before) as f64 / 1000.0 / clients as f64,
            took,
            turned_away,
            event_reads: self.reads("events").await? - events_before,
            state_reads: self.reads("state").await? - state_before,
            acks: acks?,
        })
    }
}

/// The floor's own storm: its clients lose their sockets and open them again at once. CPU of each, microseconds, and how long it took.
async fn floor(world: &mut World, clients: usize) -> anyhow::Result<(f64, Duration, Histogram)> {
    let floor = Floor::start(0, 420)?;
    world.apart.give(floor.pid())?;
    let swarm = floor.swarm(clients)?;
    swarm.give_way()?;
    swarm.reset()?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = cpu::read(floor.pid()).cpu_ns;
    swarm.come_back()?;
    let tally = std::sync::Arc::clone(&swarm.tally);
    let acks = world
        .answers(|| tally.open.load(Relaxed) >= clients as u64)
        .await?;
    let took = swarm.ready(READY_WITHIN)?;
    let micros = (cpu::read(floor.pid()).cpu_ns - before) as f64 / 1000.0 / clients as f64;
    Ok((micros, took, acks))
}

/// Storms of both sizes and the floor's, in turn.
///
/// # Errors
/// When a part cannot be started, or a client did not come back complete.
pub async fn run(bench: &mut Bench, load: &Load) -> anyhow::Result<()> {
    let clients = load.connections.unwrap_or(CLIENTS);
    let mut world = World::start(load, &[])?;
    // Of each round: quiet, beside the floor's storm, in ours.
    let mut answers = [const { Vec::new() }; 3];
    let mut waits = Vec::new();
    let mut cpu = CASES.map(|_| Vec::new());
    let mut times = CASES.map(|_| Vec::new());
    let mut ratios = CASES.map(|_| Vec::new());
    let (mut floor_cpu, mut floor_times) = (Vec::new(), Vec::new());
    let (mut event_reads, mut state_reads, mut turned_away) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=load.rounds {
        let quiet = world.quiet().await?;
        let (micros, least, beside) = floor(&mut world, clients).await?;
        let mut ours = Histogram::default();
        floor_cpu.push(micros);
        floor_times.push(least.as_secs_f64());
        bench.say(&format!(
            "  round {round}, floor: {:.2} s, {micros:.1} µs each",
            least.as_secs_f64()
        ));
        for (n, (missed, _)) in CASES.into_iter().enumerate() {
            let storm = world.storm(missed).await?;
            bench.say(&format!(
                "  round {round}, {missed} missed: {:.2} s, {:.1} µs each, {} turned away, {} reads of events and {} of state; answers {}",
                storm.took.as_secs_f64(),
                storm.micros_each,
                storm.turned_away,
                storm.event_reads,
                storm.state_reads,
                storm.acks
            ));
            cpu[n].push(storm.micros_each);
            times[n].push(storm.took.as_secs_f64());
            ratios[n].push(storm.took.as_secs_f64() / least.as_secs_f64());
            event_reads.push(storm.event_reads / world.rooms as f64);
            state_reads.push(storm.state_reads / world.rooms as f64);
            turned_away.push(storm.turned_away as f64);
            ours.merge(&storm.acks);
        }
        for (values, latencies) in answers.iter_mut().zip([&quiet, &beside, &ours]) {
            values.push(latencies.millis(0.99));
        }
        waits.push(ours.millis(0.99) / quiet.millis(0.99));
    }
    let report = &mut bench.report;
    let all = format!("{clients} back at once");
    report.note("P6", format!("the floor: CPU each, {all}"), floor_cpu, "µs");
    report.note("P6", format!("the floor: all open, {all}"), floor_times, "s");
    for (n, (missed, bound)) in CASES.into_iter().enumerate() {
        let of = format!("{all}, {missed} missed");
        let take = |list: &mut Vec<f64>| std::mem::take(list);
        report.at_most(
            "P6",
            format!("gateway CPU each, {of}"),
            take(&mut cpu[n]),
            "µs",
            bound,
        );
        report.note("P6", format!("all caught up, {of}"), take(&mut times[n]), "s");
        report.at_most(
            "P6",
            format!("time to the floor's, {of}"),
            take(&mut ratios[n]),
            "×",
            2.5,
        );
    }
    report.at_most("P6", "reads of events per room and storm", event_reads, "", 1.0);
    report.note("P6", "reads of state per room and storm", state_reads, "");
    report.note("P6", "told to come again later, per storm", turned_away, "");
    for (values, when) in answers.into_iter().zip([
        "quiet",
        "in the floor's storm: what the load client itself costs",
        "in the storm",
    ]) {
        report.note("P6", format!("publisher's answer, p99, {when}"), values, "ms");
    }
    report.at_most("P6", "publisher's answer, p99, to quiet", waits, "×", 3.0);
    drop(world);
    // Clients that wait for the stream for too long are refused, and these do not come again: then that is one line of the report.
    if let Err(error) = beyond_memory(bench, load).await {
        bench.say(&format!("  beyond memory: {error:#}"));
        bench
            .report
            .failed("P6", "a storm of which the gateway remembers nothing", &error);
    }
    Ok(())
}

/// The same where the gateway remembers next to nothing: what was missed is read from the stream, once for all who want it.
async fn beyond_memory(bench: &mut Bench, load: &Load) -> anyhow::Result<()> {
    let mut world = World::start(load, &SMALL_RING)?;
    let (mut cpu, mut times, mut reads) = (Vec::new(), Vec::new(), Vec::new());
    let (missed, _) = CASES[1];
    for round in 1..=load.rounds {
        let storm = world.storm(missed).await?;
        bench.say(&format!(
            "  round {round}, {missed} missed, 1 MiB of recent events: {:.2} s, {:.1} µs each, {} turned away, {} reads of events",
            storm.took.as_secs_f64(),
            storm.micros_each,
            storm.turned_away,
            storm.event_reads
        ));
        cpu.push(storm.micros_each);
        times.push(storm.took.as_secs_f64());
        reads.push(storm.event_reads / world.rooms as f64);
    }
    let of = format!(
        "{} back at once, {missed} missed, 1 MiB of recent events in memory",
        load.connections.unwrap_or(CLIENTS)
    );
    let report = &mut bench.report;
    report.note("P6", format!("gateway CPU each, {of}"), cpu, "µs");
    report.note("P6", format!("all caught up, {of}"), times, "s");
    report.at_most(
        "P6",
        format!("reads of events per room and storm, {of}"),
        reads,
        "",
        1.0,
    );
    Ok(())
}
