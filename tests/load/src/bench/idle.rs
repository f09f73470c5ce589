//! P3: what an idle connection holds. P4: what it costs to let one in.

use std::fmt;
use std::process::{Child, Command};
use std::time::Duration;

use roomcast_load::dashboard::Dashboard;
use roomcast_load::tokens::{Algorithm, Issuer};
use roomcast_load::{cpu, floor};

use super::Bench;
use super::cores::Apart;
use super::load::{Load, Users, Written};
use super::report::median;
use super::system::{Floor, System};

/// How long a gateway rests before it counts as empty, and before memory counts as settled.
const SETTLE: Duration = Duration::from_secs(3);
/// Connections where memory is measured: as many as a gateway takes. With few, what a process holds for all of them would count.
const CONNECTIONS: usize = 10_000;
/// Connections where handshakes are measured.
const HANDSHAKES: usize = 5_000;
/// Rooms that each opens.
const ROOMS: usize = 3;
/// Rooms that there are.
const ROOMS_IN_ALL: usize = 50;
/// New connections a second where handshakes are measured: as many as a gateway lets in by default (`ROOMCAST_CONNECT_RATE`). With less
/// to do each costs more, the floor's too: what one handshake leaves in the processor's caches is gone before the next one comes.
const PACE: usize = 2_500;
/// CPU of a handshake without the check of its token's signature, microseconds.
const HANDSHAKE_MICROS: f64 = 50.0;

/// The budget of a handshake: with what that check may take beside, microseconds.
fn bound_micros(algorithm: Algorithm) -> f64 {
    let check = match algorithm {
        Algorithm::Hs256 => 2.0,
        Algorithm::Rs256 => 13.0,
        Algorithm::Eddsa => 34.0,
        Algorithm::Es256 => 50.0,
    };
    HANDSHAKE_MICROS + check
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

/// Connects clients to a system of its own. `command`: one that is run with the gateway's process id meanwhile. `apart`: where the
/// gateway has a core of its own.
///
/// # Errors
/// When a part cannot be started, or not all clients get in.
pub async fn measure(load: &Load, command: Option<&str>, apart: Option<&Apart>) -> anyhow::Result<Cost> {
    let system = System::start(None, &[])?;
    let pid = system.gateway_pid();
    if let Some(apart) = apart {
        apart.give(pid)?;
    }
    let connections = load.connections.unwrap_or(CONNECTIONS);
    let clients = system.clients(load, 0..connections, rooms(load.rooms.unwrap_or(ROOMS_IN_ALL)))?;
    tokio::time::sleep(SETTLE).await;
    let running = command.map(|command| beside(command, pid)).transpose()?;
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

/// Runs a command with a process id, e.g. a profiler, and gives it a moment.
///
/// # Errors
/// When there is no shell.
pub fn beside(command: &str, pid: u32) -> anyhow::Result<Child> {
    let line = format!("{command} {pid}");
    let child = Command::new("sh").args(["-c", &line]).spawn()?;
    // A profiler needs a moment to attach.
    std::thread::park_timeout(Duration::from_secs(1));
    Ok(child)
}

/// What a client of the floor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Least {
    /// It asks for an upgrade, at the gateway's pace.
    Upgrade,
    /// It says hello as well when it is open, as a gateway's does, and waits for an answer.
    Hello,
    /// The same; all come at once.
    HelloAtOnce,
}

/// CPU of each handshake with the floor, microseconds.
///
/// # Errors
/// When the floor cannot be started.
pub fn floor(connections: usize, least: Least, apart: &Apart) -> anyhow::Result<f64> {
    let floor = Floor::start(0, 420)?;
    apart.give(floor.pid())?;
    let issuer = Issuer::new()?;
    let client = |i: usize| {
        let token = issuer.token(Algorithm::Hs256, &format!("viewer{i}"), "viewer", &[])?;
        anyhow::Ok(Dashboard::new(token, floor::ROOMS.map(str::to_owned)))
    };
    let clients = (0..connections)
        .filter(|_| least != Least::Upgrade)
        .map(client)
        .collect::<anyhow::Result<Vec<_>>>()?;
    let before = cpu::read(floor.pid()).cpu_ns;
    let _swarm = match least {
        Least::Upgrade => floor.swarm_at(PACE, connections)?,
        Least::Hello => floor.greeted(clients, Some(PACE))?,
        Least::HelloAtOnce => floor.greeted(clients, None)?,
    };
    Ok((cpu::read(floor.pid()).cpu_ns - before) as f64 / 1000.0 / connections as f64)
}

/// The budget of memory, in both encodings.
///
/// # Errors
/// When the gateway cannot be started.
pub async fn memory(bench: &mut Bench, load: &Load) -> anyhow::Result<()> {
    let connections = load.connections.unwrap_or(CONNECTIONS);
    let encodings = [Written::Json, Written::Protobuf];
    let (mut each, mut empty) = (encodings.map(|_| Vec::new()), Vec::new());
    for _ in 0..load.rounds {
        for (encoding, each) in encodings.into_iter().zip(&mut each) {
            let load = Load { encoding, ..*load };
            let cost = measure(&load, None, None).await?;
            bench.say(&format!("  {connections} connections, {encoding}: {cost}"));
            each.push(cost.connection_bytes);
            empty.push(cost.empty_bytes / 1_048_576.0);
        }
    }
    let report = &mut bench.report;
    for (encoding, each) in encodings.into_iter().zip(each) {
        let of = format!(
            "RSS per idle connection in {ROOMS} rooms and its user's own, {connections} connections, {encoding}"
        );
        report.at_most("P3", of, each, "B", 4096.0);
    }
    report.at_most("P3", "RSS of an empty gateway", empty, "MiB", 20.0);
    Ok(())
}

/// One kind of handshake that is measured.
struct Case {
    algorithm: Algorithm,
    users: Users,
    /// The users were never here: what their own rooms hold is read from the stream first.
    strangers: bool,
    /// They come all at once instead of at a pace: nothing sleeps between two of them.
    at_once: bool,
    costs: Vec<f64>,
}

impl Case {
    fn of(algorithm: Algorithm, users: Users, strangers: bool) -> Self {
        Self {
            algorithm,
            users,
            strangers,
            at_once: false,
            costs: Vec::new(),
        }
    }

    fn at_once(self) -> Self {
        Self {
            at_once: true,
            ..self
        }
    }

    fn whose(&self) -> &'static str {
        match (self.users, self.strangers, self.at_once) {
            (_, _, true) => "each its own user, all at once",
            (Users::One, ..) => "all one user",
            (Users::Distinct, true, _) => "each a user who was never here",
            (Users::Distinct, false, _) => "each its own user",
        }
    }

    /// CPU of each handshake of a wave, microseconds.
    async fn wave(&self, system: &System, load: &Load, round: usize) -> anyhow::Result<f64> {
        let connections = load.connections.unwrap_or(HANDSHAKES);
        let load = Load {
            algorithm: self.algorithm,
            users: self.users,
            ..*load
        };
        let name = if self.strangers {
            format!("stranger{round}-")
        } else {
            "viewer".to_owned()
        };
        let clients = system.clients_named(&name, &load, 0..connections, rooms(ROOMS_IN_ALL))?;
        let before = cpu::read(system.gateway_pid()).cpu_ns;
        let swarm = if self.at_once {
            system.swarm_at_once(&load, clients)?
        } else {
            system.swarm_at(PACE, &load, clients)?
        };
        let spent = cpu::read(system.gateway_pid()).cpu_ns - before;
        super::watch::all_well(&swarm)?;
        drop(swarm);
        system.nobody().await?;
        if self.at_once {
            tokio::time::sleep(super::storm::REST).await;
        }
        Ok(spent as f64 / 1000.0 / connections as f64)
    }
}

/// The budgets of handshakes, by the token's signature, whose check alone is timed in the same run for who wants to compare the machine with
/// the budget's; the floor's beside them. The gateway has a core of its own, and so has the floor.
///
/// # Errors
/// When the gateway cannot be started.
pub async fn handshakes(bench: &mut Bench, load: &Load) -> anyhow::Result<()> {
    let apart = Apart::begin()?;
    let system = System::start(None, &[])?;
    apart.give(system.gateway_pid())?;
    let usual = |algorithm| Case::of(algorithm, Users::Distinct, false);
    let mut cases: Vec<Case> = Algorithm::ALL.map(usual).into();
    cases.push(Case::of(Algorithm::Eddsa, Users::One, false));
    cases.push(Case::of(Algorithm::Eddsa, Users::Distinct, true));
    cases.extend(Algorithm::ALL.map(|algorithm| usual(algorithm).at_once()));
    let mut floors = [Least::Upgrade, Least::Hello, Least::HelloAtOnce].map(|least| (least, Vec::new()));
    let mut checks = Algorithm::ALL.map(|algorithm| (algorithm, Vec::new()));
    // The first wave finds everything cold.
    usual(Algorithm::Eddsa).wave(&system, load, 0).await?;
    for round in 1..=load.rounds {
        for case in &mut cases {
            let cost = case.wave(&system, load, round).await?;
            case.costs.push(cost);
        }
        for (algorithm, micros) in &mut checks {
            micros.push(median(&system.issuer.check_micros(*algorithm)?));
        }
        for (least, costs) in &mut floors {
            costs.push(floor(load.connections.unwrap_or(HANDSHAKES), *least, &apart)?);
        }
        let said: Vec<String> = cases
            .iter()
            .map(|case| {
                let cost = case.costs.last().copied().unwrap_or_default();
                format!("{cost:.1} µs {}, {}", case.algorithm, case.whose())
            })
            .collect();
        let [upgrade, hello, at_once] = floors.each_ref().map(|(_, costs)| costs[round - 1]);
        bench.say(&format!(
            "  round {round}, handshakes: {}; the floor's {upgrade:.1} µs, {hello:.1} µs with a hello, {at_once:.1} µs all at once",
            said.join("; "),
        ));
    }
    let [(_, upgrades), (_, hellos), (_, at_once)] = floors;
    let report = &mut bench.report;
    report.note(
        "P4",
        "the floor: a socket and a ready answer to its request",
        upgrades,
        "µs",
    );
    let what = "the floor: the same, and a ready answer to a hello: what the kernel alone costs";
    report.note("P4", what, hellos, "µs");
    report.note("P4", "the floor: the same, all at once", at_once, "µs");
    for (algorithm, micros) in checks {
        report.note(
            "P4",
            format!("a check of a signature alone, {algorithm}"),
            micros,
            "µs",
        );
    }
    for case in cases {
        let what = format!(
            "CPU of upgrade, token ({}), policy, connect with {ROOMS} rooms; {}",
            case.algorithm,
            case.whose()
        );
        match (case.users, case.strangers) {
            (Users::Distinct, false) => {
                report.at_most("P4", what, case.costs, "µs", bound_micros(case.algorithm));
            }
            _ => report.note("P4", what, case.costs, "µs"),
        }
    }
    Ok(())
}
