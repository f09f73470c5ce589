//! P3: what an idle connection holds. P4: what it costs to let one in.

use std::fmt;
use std::process::{Child, Command};
use std::time::Duration;

use roomcast_load::cpu;
use roomcast_load::tokens::Algorithm;

use super::Bench;
use super::load::{Load, Users};
use super::system::{Floor, System};

/// How long a gateway rests before it counts as empty, and before memory counts as settled.
const SETTLE: Duration = Duration::from_secs(5);
/// Connections where memory is measured: as many as a gateway takes. With few, what a process holds for all of them would count.
const CONNECTIONS: usize = 10_000;
/// Connections where handshakes are measured.
const HANDSHAKES: usize = 5_000;
/// Rooms that each opens.
const ROOMS: usize = 3;
/// Rooms that there are.
const ROOMS_IN_ALL: usize = 50;
/// CPU of a handshake without its signature check, and of the check, microseconds.
const HANDSHAKE_MICROS: f64 = 50.0;

fn signature_micros(algorithm: Algorithm) -> f64 {
    match algorithm {
        Algorithm::Hs256 => 2.0,
        Algorithm::Rs256 => 13.0,
        Algorithm::Eddsa => 34.0,
        Algorithm::Es256 => 50.0,
    }
}

/// What connections cost that are authenticated, in three rooms, and quiet.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// RSS of the gateway before the first of them, bytes.
    pub empty_bytes: f64,
    /// RSS that each adds once all are settled, bytes.
    pub connection_bytes: f64,
    /// CPU of each from the TCP handshake until it has caught up, microseconds.
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

/// The rooms of client `i`.
fn rooms(count: usize) -> impl Fn(usize) -> Vec<usize> {
    move |i| {
        (0..ROOMS.min(count))
            .map(|room| (i + room * 17) % count)
            .collect()
    }
}

/// Connects clients to a system of its own. `beside`: a command that is run with the gateway's process id meanwhile.
///
/// # Errors
/// When a part cannot be started, or not all clients get in.
pub async fn measure(load: &Load, beside: Option<&str>) -> anyhow::Result<Cost> {
    let system = System::start(None, &[])?;
    let pid = system.gateway_pid();
    let connections = load.connections.unwrap_or(CONNECTIONS);
    let clients = system.clients(load, 0..connections, rooms(load.rooms.unwrap_or(ROOMS_IN_ALL)))?;
    tokio::time::sleep(SETTLE).await;
    let running = beside.map(|command| start(command, pid)).transpose()?;
    let empty = cpu::read(pid);
    let swarm = system.swarm(load, clients)?;
    let opened = cpu::read(pid);
    tokio::time::sleep(SETTLE).await;
    let settled = cpu::read(pid);
    if let Some(mut running) = running {
        running.wait()?;
    }
    super::watch::all_well(&swarm)?;
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
    let before = cpu::read(floor.pid()).cpu_ns;
    let _swarm = floor.swarm(connections)?;
    Ok((cpu::read(floor.pid()).cpu_ns - before) as f64 / 1000.0 / connections as f64)
}

/// The budget of memory.
///
/// # Errors
/// When the gateway cannot be started.
pub async fn memory(bench: &mut Bench, load: &Load) -> anyhow::Result<()> {
    let (mut each, mut empty) = (Vec::new(), Vec::new());
    let connections = load.connections.unwrap_or(CONNECTIONS);
    for _ in 0..load.rounds {
        let cost = measure(load, None).await?;
        bench.say(&format!("  {connections} connections: {cost}"));
        each.push(cost.connection_bytes);
        empty.push(cost.empty_bytes / 1_048_576.0);
    }
    let of =
        format!("RSS per idle connection in {ROOMS} rooms and its user's own, {connections} connections");
    bench.report.at_most("P3", of, each, "B", 4096.0);
    bench
        .report
        .at_most("P3", "RSS of an empty gateway", empty, "MiB", 20.0);
    Ok(())
}

/// The budgets of handshakes, by the token's signature; the floor's beside them.
///
/// # Errors
/// When the gateway cannot be started.
pub async fn handshakes(bench: &mut Bench, load: &Load) -> anyhow::Result<()> {
    let connections = load.connections.unwrap_or(HANDSHAKES);
    let system = System::start(None, &[])?;
    let pid = system.gateway_pid();
    let mut cases: Vec<(Algorithm, Users, Vec<f64>)> = Algorithm::ALL
        .map(|algorithm| (algorithm, Users::Distinct, Vec::new()))
        .into();
    cases.push((Algorithm::Eddsa, Users::One, Vec::new()));
    let mut floors = Vec::new();
    for _ in 0..load.rounds {
        for (algorithm, users, costs) in &mut cases {
            let load = Load {
                algorithm: *algorithm,
                users: *users,
                ..*load
            };
            let clients = system.clients(&load, 0..connections, rooms(ROOMS_IN_ALL))?;
            let before = cpu::read(pid).cpu_ns;
            let swarm = system.swarm(&load, clients)?;
            costs.push((cpu::read(pid).cpu_ns - before) as f64 / 1000.0 / connections as f64);
            super::watch::all_well(&swarm)?;
            drop(swarm);
            system.nobody().await?;
        }
        floors.push(floor(connections)?);
        let said: Vec<String> = cases
            .iter()
            .map(|(algorithm, users, costs)| {
                let whose = if *users == Users::One { " (one user)" } else { "" };
                format!(
                    "{algorithm}{whose} {:.1}",
                    costs.last().copied().unwrap_or_default()
                )
            })
            .collect();
        bench.say(&format!(
            "  handshakes: {} µs; the floor's {:.1} µs",
            said.join(", "),
            floors.last().copied().unwrap_or_default()
        ));
    }
    bench.report.note(
        "P4",
        "the floor's handshake: accept and an answer, nothing read of it",
        floors,
        "µs",
    );
    for (algorithm, users, costs) in cases {
        let check = signature_micros(algorithm);
        let what = format!(
            "CPU of upgrade, token ({algorithm}, {check} µs of it the signature), policy, connect with {ROOMS} rooms"
        );
        match users {
            Users::Distinct => bench.report.at_most(
                "P4",
                format!("{what}, each its own user"),
                costs,
                "µs",
                HANDSHAKE_MICROS + check,
            ),
            Users::One => bench
                .report
                .note("P4", format!("{what}, all one user"), costs, "µs"),
        }
    }
    Ok(())
}
