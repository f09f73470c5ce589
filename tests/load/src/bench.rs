//! The budgets, each beside the floor of the same run. Prints progress, writes `tests/load/RESULTS.md`.

pub mod bells;
pub mod capture;
pub mod catchup;
mod cores;
pub mod fanout;
mod folds;
mod freshness;
pub mod growth;
pub mod guard;
pub mod idle;
pub mod ingest;
pub mod killed;
pub mod load;
mod numbers;
mod owned;
mod publisher;
mod report;
mod scrape;
pub mod slow;
pub mod storm;
mod system;
mod watch;

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use load::{Load, Written};
use report::Report;
use roomcast_load::elsewhere;

/// A run under way: says how far it is, and keeps the figures.
pub struct Bench {
    /// The figures so far.
    pub report: Report,
    began: Instant,
}

impl Bench {
    /// Nothing measured yet.
    #[must_use]
    pub fn new(quick: bool) -> Self {
        Self {
            report: Report::new(quick),
            began: Instant::now(),
        }
    }

    /// Says something, with the time since the beginning.
    pub fn say(&self, what: &str) {
        println!("[{:>4} s] {what}", self.began.elapsed().as_secs());
    }
}

/// How long and how often.
#[derive(Debug, Clone, Copy)]
struct Effort {
    /// Interleaved rounds of each measurement.
    rounds: usize,
    /// Length of one measurement, seconds.
    seconds: u64,
    /// Connections where there are many; the budgets' own where `None`.
    many: Option<usize>,
    /// The most rooms; the rule's own number where `None`.
    rooms: Option<usize>,
    /// Events that an aggregator misses.
    away_events: usize,
    /// Events of the long run.
    long_events: usize,
    /// How long a stage may take before it counts as wedged.
    within: Duration,
}

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// One short round of each.
    Quick,
    /// Three rounds.
    Usual,
    /// The same, and what only shows after a long time.
    Full,
}

const USUAL: Effort = Effort {
    rounds: 3,
    seconds: 6,
    many: None,
    rooms: None,
    away_events: 1_000_000,
    long_events: 1_000_000,
    within: Duration::from_secs(300),
};
/// Ten million events through one gateway: as many as the rule names, and as long as all else together.
const FULL: Effort = Effort {
    long_events: 10_000_000,
    within: Duration::from_secs(1_800),
    ..USUAL
};
const QUICK: Effort = Effort {
    rounds: 1,
    seconds: 2,
    many: Some(2_000),
    rooms: Some(1_000),
    away_events: 50_000,
    long_events: 50_000,
    within: Duration::from_secs(120),
};

/// A stage that does not even hear that its time is over holds its thread: so much later the run ends.
const HARD: Duration = Duration::from_secs(60);

/// The stages: the budgets they measure, by which `--only` finds them, and what they do.
const STAGES: [(&str, &str); 11] = [
    ("P1", "fan-out against the floor"),
    ("P2", "busy rooms"),
    ("P3", "memory of idle connections"),
    ("P4", "handshakes"),
    ("P5", "freshness"),
    ("P6", "return storm"),
    ("P7", "ingest and aggregator"),
    ("P8", "folds, numbers and groups"),
    ("P9", "catch-up, and a gateway with a full ring (P10)"),
    ("P10", "starts"),
    ("P11", "clients that never read"),
];
/// Not a budget's number, but measured like one.
const OTHERS: [(&str, &str); 5] = [
    ("bells", "notifications: a return storm with bells, marks"),
    ("held", "notifications: memory of users with many"),
    ("CDC", "a database that is followed"),
    ("kill", "a gateway killed with all its clients"),
    ("growth", "many rooms, long runs"),
];

async fn stage(bench: &mut Bench, name: &str, effort: Effort) -> anyhow::Result<()> {
    let usual = Load::usual(effort.rounds, effort.seconds);
    let many = Load {
        connections: effort.many,
        ..usual
    };
    // Where a few slow events, or a neighbour on the same host, decide what a round says.
    let oftener = Load {
        rounds: effort.rounds * 2 - 1,
        ..many
    };
    match name {
        "P1" => {
            let (few, all) = (&[Written::Json][..], &[Written::Json, Written::Protobuf][..]);
            fanout::against_floor(bench, &usual, 1_000, 20, all).await?;
            fanout::against_floor(bench, &usual, effort.many.unwrap_or(5_000), 10, few).await
        }
        "P2" => fanout::busy(bench, &usual).await,
        "P3" => idle::memory(bench, &many).await,
        "P4" => idle::handshakes(bench, &oftener).await,
        "P5" => freshness::run(bench, &usual).await,
        "P6" => storm::run(bench, &many).await,
        "P7" => Box::pin(ingest::run(bench, &usual)).await,
        "P8" => {
            folds::run(bench, effort.rounds)?;
            numbers::writes(bench, effort.rounds)?;
            numbers::many(bench, effort.rounds)?;
            Box::pin(numbers::frames(bench, effort.rounds)).await?;
            catchup::groups(bench, 1).await
        }
        // Publishing a million events takes longer than all else here: once.
        "P9" => catchup::run(bench, effort.away_events, 1, effort.rounds).await,
        "P10" => catchup::starts(bench, effort.rounds).await,
        // Long enough for those who do not read to be given up: five seconds after nothing went out any more.
        "P11" => {
            let seconds = Some(effort.seconds.max(if effort.many.is_some() { 0 } else { 8 }));
            slow::run(bench, &Load { seconds, ..many }).await
        }
        "bells" => Box::pin(bells::run(bench, &many)).await,
        "held" => Box::pin(bells::memory(bench, &many)).await,
        // A million at once is for a run of its own: a lone node stores some thousands a second.
        "CDC" => capture::run(bench, effort.away_events / 10, effort.rounds).await,
        "kill" => Box::pin(killed::run(bench, &oftener)).await,
        _ => {
            let rooms = Load {
                rooms: effort.rooms,
                seconds: Some(effort.seconds.min(3)),
                ..usual
            };
            growth::rooms(bench, &rooms).await?;
            growth::memory(bench, &usual, effort.long_events).await
        }
    }
}

/// Runs all stages, or those named in `only`, and returns the report's text. A stage that fails is a line of the report, and the others
/// go on. A run of all stages writes the results.
///
/// # Errors
/// When the results cannot be written.
pub async fn run(length: Length, only: &[String]) -> anyhow::Result<(String, usize)> {
    let effort = match length {
        Length::Quick => QUICK,
        Length::Usual => USUAL,
        Length::Full => FULL,
    };
    let mut bench = Bench::new(length == Length::Quick);
    if elsewhere::is_within_session() {
        println!("{}", report::WITHIN_SESSION);
    }
    let chosen = |name: &str| only.is_empty() || only.iter().any(|wanted| wanted.eq_ignore_ascii_case(name));
    for (name, what) in STAGES.into_iter().chain(OTHERS) {
        if !chosen(name) {
            continue;
        }
        bench.say(&format!("{name} {what}"));
        guard::stage(&format!("{name} {what}"), effort.within + HARD);
        // The harness panics where a part cannot be started; to the other stages that is one more that failed.
        let staged = AssertUnwindSafe(Box::pin(stage(&mut bench, name, effort))).catch_unwind();
        let outcome = match tokio::time::timeout(effort.within, staged).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(anyhow::anyhow!(
                "a part could not be started; what it said stands above"
            )),
            Err(_) => Err(anyhow::anyhow!("not over after {:?}", effort.within)),
        };
        if let Err(error) = outcome {
            bench.say(&format!("{name} failed: {error:#}"));
            bench.report.failed(name, what, &error);
        }
    }
    guard::over();
    bench.say("done");
    let failures = bench.report.failures();
    let text = if only.is_empty() {
        bench.report.write(bench.began.elapsed())?
    } else {
        bench.report.table()
    };
    Ok((text, failures))
}

/// Prints what a connection costs where the gateway has a core of its own. `beside`: a command that is run with the gateway's process
/// id while clients connect.
///
/// # Errors
/// When the system cannot be started.
pub async fn idle(load: &Load, beside: Option<&str>) -> anyhow::Result<()> {
    let apart = cores::Apart::begin()?;
    for _ in 0..load.rounds {
        let cost = idle::measure(load, beside, Some(&apart)).await?;
        let floor = idle::floor(load.connections.unwrap_or(8_000), idle::Least::Upgrade, &apart)?;
        println!("{cost}; the floor's handshake {floor:.1} µs");
    }
    Ok(())
}
