//! P11: some clients never read a byte. What do the others notice, and what does the gateway hold?

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use roomcast_load::cpu;
use roomcast_load::histogram::Histogram;
use roomcast_load::swarm::{Conduct, Plan, Swarm};

use super::Bench;
use super::load::Load;
use super::publisher::Publisher;
use super::system::{RATE, READY_WITHIN, System};
use super::watch::all_well;

/// All clients, and how many of them never read.
const CLIENTS: usize = 5_000;
const NEVER: usize = 500;
/// Everybody's room, and one that only those in question are in: it fills what the kernel holds for them before the time that counts.
const EVERYBODY: usize = 0;
const THEIRS: usize = 1;
/// Events a second to everybody, each larger than usual, so that what is not read piles up.
const RATE_TO_ALL: u32 = 10;
const BYTES: usize = 1_024;
/// More than the kernel holds for a socket that is not read (the gateway's send buffer of 256 KiB, which it doubles), less than makes
/// the outbox overflow: what never reads is stuck when the time begins that counts, and is closed within it.
const FILL_EVENTS: usize = 24;
const FILL_BYTES: usize = 30_000;
/// Bytes that may wait for one client in the gateway by default.
const OUTBOX_BYTES: f64 = 1_048_576.0;
/// A gateway that wrote nothing for so long has nothing left that it could write.
const SETTLED: Duration = Duration::from_millis(200);
/// How often the transcript says something.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What the clients that read saw, and what the gateway held.
struct Seen {
    latencies: Histogram,
    rss_grown_bytes: f64,
    transcript: Vec<String>,
}

struct World {
    system: System,
    readers: Swarm,
    load: Load,
    fast: usize,
    all: usize,
}

impl World {
    fn start(load: &Load) -> anyhow::Result<Self> {
        let system = System::start(None, &[])?;
        let all = load.connections.unwrap_or(CLIENTS);
        let fast = all - NEVER.min(all / 2);
        let load = Load {
            bytes: load.bytes.max(BYTES),
            ..*load
        };
        let readers = system.swarm(&load, system.clients(&load, 0..fast, |_| vec![EVERYBODY])?)?;
        Ok(Self {
            system,
            readers,
            load,
            fast,
            all,
        })
    }

    /// Opens the clients in question and fills what the kernel holds for them.
    async fn others(&self, conduct: Conduct) -> anyhow::Result<Swarm> {
        let rooms = |_| vec![EVERYBODY, THEIRS];
        let swarm = Swarm::start(Plan {
            address: self.system.gateway()?,
            host: None,
            tls: None,
            dashboards: self.system.clients(&self.load, self.fast..self.all, rooms)?,
            rate: Some(RATE),
            encoding: self.load.encoding(),
            conduct,
            returns: false,
        });
        swarm.ready(READY_WITHIN)?;
        let everybody = self.all as f64;
        self.system
            .until("roomcast_gateway_connections", &[], |now| now == everybody)
            .await?;
        // Those who do not read cannot say that they are in.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut publisher = Publisher::new(&self.system, THEIRS + 1, FILL_BYTES)?;
        publisher.at_once(THEIRS..THEIRS + 1, FILL_EVENTS).await?;
        self.settled().await?;
        Ok(swarm)
    }

    /// Waits until the gateway writes nothing any more.
    async fn settled(&self) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut before = f64::NAN;
        loop {
            let now = self
                .system
                .metric("gateway", "roomcast_gateway_bytes_out_total", &[])
                .await?;
            if now == before {
                return Ok(());
            }
            before = now;
            anyhow::ensure!(start.elapsed() < READY_WITHIN, "the gateway still writes");
            tokio::time::sleep(SETTLED).await;
        }
    }

    /// Publishes to everybody for a while and listens with those who read.
    async fn listen(&self, publisher: &mut Publisher) -> anyhow::Result<Seen> {
        let pid = self.system.gateway_pid();
        let rate = self.load.rate.unwrap_or(RATE_TO_ALL);
        let total = u64::from(rate) * self.load.seconds.unwrap_or(10);
        drop(self.readers.tally.latencies());
        let before = self.readers.tally.events.load(Relaxed);
        let least = cpu::read(pid).rss_bytes;
        let mut most = least;
        let (began, closes) = (Instant::now(), self.closes().await?);
        let mut transcript = Vec::new();
        let looking = async {
            let mut tell = began;
            loop {
                let now = cpu::read(pid).rss_bytes;
                most = most.max(now);
                if Instant::now() >= tell {
                    tell += TELL_EVERY;
                    transcript.push(format!(
                        "{:>6.2} s  gateway at {:.1} MiB, {} told to come back (4002)",
                        began.elapsed().as_secs_f64(),
                        now as f64 / 1_048_576.0,
                        self.closes().await? - closes
                    ));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let publishing = publisher.steady(EVERYBODY..EVERYBODY + 1, rate, |sent| sent >= total);
        tokio::select! {
            published = publishing => drop(published?),
            failed = looking => return failed,
        }
        let owed = total * self.fast as u64;
        let start = Instant::now();
        loop {
            let came = self.readers.tally.events.load(Relaxed) - before;
            if came >= owed {
                break;
            }
            anyhow::ensure!(
                start.elapsed() < Duration::from_secs(10),
                "{came} of {owed} events came"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        all_well(&self.readers)?;
        let latencies = self.readers.tally.latencies();
        transcript.push(format!(
            "{:>6.2} s  all {owed} events are with the {} that read, none missed, none twice: {latencies}",
            began.elapsed().as_secs_f64(),
            self.fast
        ));
        Ok(Seen {
            latencies,
            rss_grown_bytes: (most - least) as f64,
            transcript,
        })
    }

    /// How many were told that they are too slow, so far.
    async fn closes(&self) -> anyhow::Result<f64> {
        let too_slow = ["reason=\"too_slow\""];
        self.system
            .metric("gateway", "roomcast_gateway_closes_total", &too_slow)
            .await
    }

    async fn gone(&self) -> anyhow::Result<()> {
        let readers = self.fast as f64;
        self.system
            .until("roomcast_gateway_connections", &[], |now| now == readers)
            .await
    }
}

/// In turn: without the others, with others that read, with others that never read.
///
/// # Errors
/// When a part cannot be started, or one of those that read missed an event.
pub async fn run(bench: &mut Bench, load: &Load) -> anyhow::Result<()> {
    let world = World::start(load)?;
    let never = world.all - world.fast;
    let mut publisher = Publisher::new(&world.system, 1, world.load.bytes)?;
    let names = ["without them", "with them reading", "with them never reading"];
    let mut p99 = names.map(|_| Vec::new());
    let (mut ratios, mut held, mut closed) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=load.rounds {
        let closes = world.closes().await?;
        let mut transcript = Vec::new();
        for (n, conduct) in [None, Some(Conduct::Reads), Some(Conduct::NeverReads)]
            .into_iter()
            .enumerate()
        {
            let others = match conduct {
                Some(conduct) => Some(world.others(conduct).await?),
                None => None,
            };
            let seen = world.listen(&mut publisher).await?;
            if let Some(others) = &others
                && conduct == Some(Conduct::NeverReads)
            {
                let read = others.tally.events.load(Relaxed) + others.tally.connected.load(Relaxed);
                anyhow::ensure!(read == 0, "those who never read have read {read} messages");
                held.push(seen.rss_grown_bytes / never as f64);
            }
            bench.say(&format!(
                "  round {round}, {}: {}; the gateway grew by {:.1} MiB",
                names[n],
                seen.latencies,
                seen.rss_grown_bytes / 1_048_576.0
            ));
            p99[n].push(seen.latencies.millis(0.99));
            transcript.push(format!(
                "{} clients that read, {never} more: {}",
                world.fast, names[n]
            ));
            transcript.extend(seen.transcript);
            drop(others);
            world.gone().await?;
        }
        closed.push(world.closes().await? - closes);
        bench.report.transcript("Clients that never read", &transcript);
        ratios.push(p99[2][round - 1] / p99[0][round - 1]);
    }
    let of = format!("{} clients that read, {never} more", world.fast);
    let report = &mut bench.report;
    for (name, values) in names.into_iter().zip(p99) {
        report.note("P11", format!("POST → frame, p99, {of}: {name}"), values, "ms");
    }
    report.at_most(
        "P11",
        format!("p99 of {of}: never reading, to without them"),
        ratios,
        "×",
        1.2,
    );
    report.at_most(
        "P11",
        "RSS that one who never reads adds at most",
        held,
        "B",
        OUTBOX_BYTES,
    );
    report.note(
        "P11",
        format!("of {never}, told to come back (4002) in the time"),
        closed,
        "",
    );
    Ok(())
}
