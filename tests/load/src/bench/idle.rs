//! P3: what an idle connection holds. P4: what it costs to let one in.

use std::fmt;
use std::process::{Child, Command};
use std::time::Duration;

use roomcast_load::cpu;
use roomcast_load::swarm::{Plan, Swarm};

use super::Effort;
use super::report::Report;
use super::system::{Floor, RATE, System};

/// How long a gateway rests before it counts as empty, and before memory counts as settled.
const SETTLE: Duration = Duration::from_secs(5);
/// Connections of the bench; with few, what a process holds for all of them together would count.
const CONNECTIONS: usize = 8_000;

/// What connections cost that are authenticated, in three rooms, and quiet.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// RSS of the gateway before the first of them, bytes.
    pub empty_bytes: f64,
    /// RSS that each adds once all are settled, bytes.
    pub connection_bytes: f64,
    /// CPU of each from the TCP handshake to `connected`, microseconds.
    pub handshake_micros: f64,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let empty = self.empty_bytes / 1_048_576.0;
        write!(
            f,
            "{:.0} B each, {:.1} µs per handshake, {empty:.1} MiB empty",
            self.connection_bytes, self.handshake_micros
        )
    }
}

/// Connects clients to a system of its own. `beside`: a command that is run with the gateway's process id meanwhile.
///
/// # Errors
/// When a part cannot be started, or not all clients get in.
pub async fn measure(connections: usize, beside: Option<&str>) -> anyhow::Result<Cost> {
    let system = System::start(false)?;
    let pid = system.stack.pid("gateway-1");
    tokio::time::sleep(SETTLE).await;
    let running = beside.map(|command| start(command, pid)).transpose()?;
    let empty = cpu::read(pid);
    let swarm = system.swarm(connections, |_| vec![0, 1, 2])?;
    let opened = cpu::read(pid);
    tokio::time::sleep(SETTLE).await;
    let settled = cpu::read(pid);
    if let Some(mut running) = running {
        running.wait()?;
    }
    drop(swarm);
    Ok(Cost {
        empty_bytes: empty.rss_bytes as f64,
        connection_bytes: settled.rss_bytes.saturating_sub(empty.rss_bytes) as f64 / connections as f64,
        handshake_micros: (opened.cpu_ns - empty.cpu_ns) as f64 / 1000.0 / connections as f64,
    })
}

fn start(command: &str, pid: u32) -> anyhow::Result<Child> {
    let line = format!("{command} {pid}");
    let child = Command::new("sh").args(["-c", &line]).spawn()?;
    // A profiler needs a moment to attach.
    std::thread::park_timeout(Duration::from_secs(1));
    Ok(child)
}

/// CPU of each handshake with the floor, microseconds, at the same pace.
///
/// # Errors
/// When the floor cannot be started.
pub fn floor(connections: usize) -> anyhow::Result<f64> {
    let floor = Floor::start(0, 420)?;
    let before = cpu::read(floor.pid());
    let swarm = Swarm::start(Plan {
        address: floor.address,
        connections,
        rate: RATE,
        hello: Box::new(|_| None),
    });
    swarm.ready(connections as u64, false, Duration::from_secs(60))?;
    let after = cpu::read(floor.pid());
    Ok((after.cpu_ns - before.cpu_ns) as f64 / 1000.0 / connections as f64)
}

/// The budgets of a connection.
///
/// # Errors
/// When the gateway cannot be started.
pub async fn run(report: &mut Report, effort: Effort, say: &impl Fn(&str)) -> anyhow::Result<()> {
    let connections = CONNECTIONS;
    let (mut each, mut empty, mut handshakes, mut floors) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        let cost = measure(connections, None).await?;
        let floor = floor(connections)?;
        say(&format!(
            "  {connections} connections: {cost}; the floor's handshake {floor:.1} µs"
        ));
        floors.push(floor);
        each.push(cost.connection_bytes);
        empty.push(cost.empty_bytes / 1_048_576.0);
        handshakes.push(cost.handshake_micros);
    }
    report.at_most(
        "P3",
        format!("RSS per idle connection in three rooms, {connections} connections"),
        each,
        "B",
        4096.0,
    );
    report.at_most("P3", "RSS of an empty gateway", empty, "MiB", 20.0);
    report.note(
        "P4",
        "CPU of the floor's handshake: accept and an answer, nothing read of it",
        floors,
        "µs",
    );
    report.at_most(
        "P4",
        "CPU of upgrade, token (EdDSA, 34 µs of it the signature), policy, connect with three rooms",
        handshakes,
        "µs",
        84.0,
    );
    Ok(())
}
