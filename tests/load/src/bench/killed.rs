//! A gateway with thousands of clients is killed with SIGKILL. How soon are all of them back at another one, complete, and what do
//! those notice who were there all the time?

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use roomcast_load::elsewhere;
use roomcast_load::histogram::Histogram;
use roomcast_load::swarm::Swarm;

use super::Bench;
use super::cores::Apart;
use super::load::Load;
use super::publisher::Publisher;
use super::system::{Floor, RATE, READY_WITHIN, System};
use super::watch::all_well;

/// Clients of the gateway that is killed, and of the one that stays; rooms over which both are spread.
const CLIENTS: usize = 5_000;
const OTHERS: usize = 1_000;
const ROOMS: usize = 50;
/// Events a second, all rooms together, before, during and after: with fewer, two or three slow ones would decide the p99 of a return of
/// two seconds; with more the publisher, who waits for each answer, would gather them.
const EVENTS: u32 = 200;
/// How long it is quiet before.
const QUIET: Duration = Duration::from_secs(4);
/// How often the transcript looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A dead process's sockets end at once; a busy client notices a little later.
const LOST_WITHIN: Duration = Duration::from_secs(10);
/// "In seconds": all are back within these.
const BACK_SECONDS: f64 = 5.0;
/// The latency of the others may grow so much.
const GROWTH_MAX: f64 = 1.2;

/// What goes on while somebody publishes; answers are kept in this order.
enum Phase {
    /// Nothing that is measured.
    Between,
    Quiet,
    /// The clients come back.
    Return,
    /// Nothing more.
    Over,
}

/// What one kill did.
struct Seen {
    /// Latencies of the others: before; while as many come back to a floor instead, which is what the load client itself costs; while
    /// the dead process's sockets end, which is the kernel's work; from then until the last is back.
    latencies: [Histogram; 4],
    back: Duration,
    turned_away: u64,
    transcript: Vec<String>,
}

struct World {
    /// The gateway that stays has a core of its own, and so has the floor beside it.
    apart: Apart,
    system: System,
    killed: Swarm,
    others: Swarm,
    /// A [`Phase`].
    phase: Arc<AtomicUsize>,
}

impl World {
    fn start(load: &Load) -> anyhow::Result<Self> {
        let apart = Apart::begin()?;
        let system = System::that_restarts()?;
        apart.give(system.stack.pid("gateway-2"))?;
        let (clients, rooms) = (
            load.connections.unwrap_or(CLIENTS),
            load.rooms.unwrap_or(ROOMS).max(1),
        );
        let others = OTHERS.min(clients);
        let swarm = |index: usize, name: &str, count: usize| {
            let clients = system.clients_named(name, load, 0..count, |i| vec![i % rooms])?;
            System::swarm_of(system.gateway_at(index)?, Some(RATE), load, clients)
        };
        let killed = swarm(0, "viewer", clients)?;
        // They would be elsewhere: what they cost themselves is not the gateways' doing. So would be the gateway that is killed: what its
        // kernel does to end thousands of sockets, and who starts it again.
        killed.give_way()?;
        elsewhere::process(system.stack.pid("gateway-1"))?;
        elsewhere::process(system.stack.supervisor())?;
        Ok(Self {
            apart,
            killed,
            others: swarm(1, "other", others)?,
            system,
            phase: Arc::new(AtomicUsize::new(Phase::Between as usize)),
        })
    }

    /// Kills, and watches until all are back. The publisher goes on meanwhile.
    async fn kill(&self, transcript: &mut Vec<String>) -> anyhow::Result<(Duration, [Histogram; 2])> {
        let (tally, clients) = (Arc::clone(&self.killed.tally), self.killed.clients());
        drop(self.others.tally.latencies());
        let pid = self.system.stack.pid("gateway-1");
        let begun = Instant::now();
        let mut said =
            |what: String| transcript.push(format!("{:>6.2} s  {what}", begun.elapsed().as_secs_f64()));
        self.system.stack.signal("gateway-1", "KILL");
        said(format!(
            "SIGKILL to gateway-1 (process {pid}) with {clients} clients"
        ));
        tokio::task::block_in_place(|| self.killed.lost(LOST_WITHIN))?;
        let dying = self.others.tally.latencies();
        said("all sockets have ended; each client waits 50 ms to 1 s and goes to gateway-2".to_owned());
        self.phase.store(Phase::Return as usize, Relaxed);
        self.killed.come_to(self.system.gateway_at(1)?)?;
        let mut look = Instant::now() + LOOK_EVERY;
        loop {
            let back = tally.back.load(Relaxed);
            if back >= clients {
                break;
            }
            anyhow::ensure!(begun.elapsed() < READY_WITHIN, "{back} of {clients} are back");
            if Instant::now() >= look {
                look += LOOK_EVERY;
                said(format!("{back} are back"));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let took = begun.elapsed();
        self.phase.store(Phase::Between as usize, Relaxed);
        said(format!("all {clients} are back"));
        Ok((took, [dying, self.others.tally.latencies()]))
    }

    /// What it did, and the latencies of the publisher's answers before and while the clients come back: no gateway has a part in them.
    async fn run(&self, load: &Load) -> anyhow::Result<(Seen, [Histogram; 2])> {
        let rooms = load.rooms.unwrap_or(ROOMS).max(1);
        let mut publisher = Publisher::new(&self.system, rooms, load.bytes)?;
        let phase = Arc::clone(&self.phase);
        // A task of its own: waiting for swarms holds up this one.
        let publishing = tokio::spawn(async move {
            let mut answers = [(); Phase::Over as usize].map(|()| Histogram::default());
            loop {
                let now = phase.load(Relaxed);
                let Some(of_phase) = answers.get_mut(now) else {
                    return anyhow::Ok(answers);
                };
                let until = |_| phase.load(Relaxed) != now;
                of_phase.merge(&publisher.steady(0..rooms, EVENTS, until).await?);
            }
        });
        let seen = self.watch().await;
        self.phase.store(Phase::Over as usize, Relaxed);
        let [_, quiet, coming_back] = publishing.await??;
        Ok((seen?, [quiet, coming_back]))
    }

    async fn watch(&self) -> anyhow::Result<Seen> {
        // The first second warms up.
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(self.others.tally.latencies());
        self.phase.store(Phase::Quiet as usize, Relaxed);
        tokio::time::sleep(QUIET).await;
        self.phase.store(Phase::Between as usize, Relaxed);
        let quiet = self.others.tally.latencies();
        let beside = self.floor().await?;
        let tally = &self.killed.tally;
        let counts =
            || [&tally.complete, &tally.incomplete, &tally.turned_away].map(|count| count.load(Relaxed));
        let (before, events) = (counts(), tally.events.load(Relaxed));
        let mut transcript = Vec::new();
        let (back, [dying, storm]) = self.kill(&mut transcript).await?;
        let after = counts();
        let [complete, incomplete, turned_away] = [0, 1, 2].map(|n| after[n] - before[n]);
        // What was on its way has arrived.
        tokio::time::sleep(Duration::from_millis(300)).await;
        all_well(&self.killed)?;
        all_well(&self.others)?;
        anyhow::ensure!(
            complete == self.killed.clients() && incomplete == 0,
            "{complete} of {} came back complete, {incomplete} incomplete",
            self.killed.clients()
        );
        transcript.push(format!(
            "{complete} recoveries complete, {incomplete} incomplete, {turned_away} told to come again later; {} events to them since the kill, none missed, none twice, none out of order",
            tally.events.load(Relaxed) - events
        ));
        let clients = self.others.clients();
        for (when, latencies) in [
            ("before", &quiet),
            ("while as many open sockets at a floor", &beside),
            ("while the dead process's sockets end", &dying),
            ("from then until the last is back", &storm),
        ] {
            transcript.push(format!("the {clients} of gateway-2, {when}: {latencies}"));
        }
        Ok(Seen {
            latencies: [quiet, beside, dying, storm],
            back,
            turned_away,
            transcript,
        })
    }

    /// As many clients of a floor lose it and come back to another one.
    async fn floor(&self) -> anyhow::Result<Histogram> {
        let clients = usize::try_from(self.killed.clients())?;
        let swarm = tokio::task::block_in_place(|| {
            let dies = Floor::start(0, 420)?;
            elsewhere::process(dies.pid())?;
            let swarm = dies.swarm(clients)?;
            swarm.give_way()?;
            drop(dies);
            swarm.lost(LOST_WITHIN)?;
            anyhow::Ok(swarm)
        })?;
        let stays = Floor::start(0, 420)?;
        self.apart.give(stays.pid())?;
        drop(self.others.tally.latencies());
        swarm.come_to(stays.address)?;
        tokio::task::block_in_place(|| swarm.ready(READY_WITHIN))?;
        Ok(self.others.tally.latencies())
    }
}

/// Kills a gateway in a system of its own, once a round.
///
/// # Errors
/// When a part cannot be started, a client did not come back complete, or anybody missed an event.
pub async fn run(bench: &mut Bench, load: &Load) -> anyhow::Result<()> {
    let names = [
        "before",
        "while as many open sockets at a floor",
        "while the dead process's sockets end",
        "from then until all are back",
    ];
    let mut p99 = names.map(|_| Vec::new());
    let (mut ratios, mut times, mut turned_away) = (Vec::new(), Vec::new(), Vec::new());
    let (mut to_floor, mut answers) = (Vec::new(), [Vec::new(), Vec::new()]);
    for round in 1..=load.rounds {
        let world = World::start(load)?;
        let (seen, answered) = world.run(load).await?;
        for (values, latencies) in p99.iter_mut().zip(&seen.latencies) {
            values.push(latencies.millis(0.99));
        }
        // The dead process's sockets end in the kernel of its machine, which is another one.
        let [before, beside, _, since] = seen.latencies.each_ref().map(|latencies| latencies.millis(0.99));
        ratios.push(since / before);
        to_floor.push(since / beside);
        for (values, latencies) in answers.iter_mut().zip(&answered) {
            values.push(latencies.millis(0.99));
        }
        times.push(seen.back.as_secs_f64());
        turned_away.push(seen.turned_away as f64);
        bench.say(&format!(
            "  round {round}: all back after {:.2} s; the others' p99: {:.2} ms before, {:.2} ms beside a floor's storm, {:.2} ms while sockets end, {:.2} ms until then",
            seen.back.as_secs_f64(),
            seen.latencies[0].millis(0.99),
            seen.latencies[1].millis(0.99),
            seen.latencies[2].millis(0.99),
            seen.latencies[3].millis(0.99)
        ));
        bench
            .report
            .transcript("A gateway is killed with all its clients", &seen.transcript);
    }
    let clients = load.connections.unwrap_or(CLIENTS);
    let of = format!("a gateway with {clients} clients killed, {EVENTS} events/s");
    let report = &mut bench.report;
    report.at_most(
        "kill",
        format!("{of}: all back at another, complete"),
        times,
        "s",
        BACK_SECONDS,
    );
    report.note("kill", "told to come again later", turned_away, "");
    for (name, values) in names.into_iter().zip(p99) {
        report.note(
            "kill",
            format!("POST → frame of the {} others, p99, {name}", OTHERS.min(clients)),
            values,
            "ms",
        );
    }
    for (when, values) in ["before", "while they come back"].into_iter().zip(answers) {
        let what = format!("publisher's answer, p99, {when}: what of it is before any gateway");
        report.note("kill", what, values, "ms");
    }
    report.at_most(
        "kill",
        "p99 of the others from the end of those sockets until all are back, to before",
        ratios,
        "×",
        GROWTH_MAX,
    );
    report.note(
        "kill",
        "the same to that beside a floor's storm, which is what this machine and the load client cost",
        to_floor,
        "×",
    );
    Ok(())
}
