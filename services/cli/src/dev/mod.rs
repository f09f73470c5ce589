//! `roomcast dev`: the whole system on one machine, from nothing to a signed-in page, and everything gone again at the end.
//!
//! In order: ports, folder, NATS, streams, ingest, history of the scenario, aggregator, gateway, live events. It ends when it is
//! asked to, or when one of its processes does; gateways first, NATS last.

pub(crate) mod child;
mod family;
mod files;
mod greeting;
mod home;
mod nats;
mod ports;
mod postgres;
mod ready;
mod running;
mod services;
mod system;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use roomcast_chassis::process::Failure;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::terminal::{complain, say};
use family::Family;
use home::Home;
use ports::Choice;
use services::{DRAIN, parse_setting};
use system::System;

/// Beyond the drain time a process is not waiting for clients any more but hanging.
const GRACE: Duration = Duration::from_secs(DRAIN.as_secs() + 3);
/// Process ids by name, beside the file with the addresses.
const PIDS: &str = ".roomcast/pids.json";

/// Runs the whole system on this machine: NATS, ingest, aggregator, gateway, and a scenario's simulator. Ctrl-C ends it in order.
///
/// It finds nats-server on PATH, in .tools/bin (where `make tools` puts it) or where ROOMCAST_NATS_SERVER says, and the services
/// beside this binary. Addresses and credentials go to .roomcast/dev.env of the working directory (mode 0600, removed at the end),
/// which `roomcast publish`, `roomcast tail` and every example publisher read. ROOMCAST_LOG sets how much the services say,
/// ROOMCAST_TRACES_ENDPOINT where they send traces.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    roomcast dev --scenario bookings\n  \
    roomcast dev --policy policy.yaml --metrics metrics.yaml --dir state\n  \
    roomcast dev --gateways 2 --aggregators 2 --ports free --json")]
pub(crate) struct Options {
    /// A scenario, by name or folder: its policy, metrics, page and events. Where it has a database and PostgreSQL is installed, one is
    /// started, and rows are written instead of events.
    #[arg(long, value_name = "NAME|DIR")]
    scenario: Option<String>,
    /// Seed of the scenario's events.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How much faster than the scenario says its live events come.
    #[arg(long, default_value_t = 1.0, value_parser = crate::simulate::parse_speed)]
    speed: f64,
    /// How much of the past an empty stream gets first, of a scenario.
    #[arg(long, value_name = "DURATION", default_value = "48h", value_parser = crate::duration::parse)]
    history: Duration,
    /// A policy, instead of the scenario's.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Metric definitions, instead of the scenario's.
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
    /// Event schemas, instead of the scenario's.
    #[arg(long, value_name = "DIR")]
    schemas: Option<PathBuf>,
    /// How many gateways.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    gateways: u32,
    /// How many ingests.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    ingests: u32,
    /// How many aggregators.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    aggregators: u32,
    /// How many NATS nodes: 1, or 3 with three copies of everything.
    #[arg(long, default_value = "1", value_parser = ["1", "3"], conflicts_with = "nats")]
    nats_nodes: String,
    /// Use a NATS server that is there already; it must have the accounts that this command writes for its own (nats/nats-1.conf).
    #[arg(long, value_name = "URL", requires = "nats_users")]
    nats: Option<String>,
    /// The users of that server: lines name=password for admin, ingest, agg, gw, publisher, backend, reader, sys.
    #[arg(long, value_name = "FILE", requires = "nats")]
    nats_users: Option<PathBuf>,
    /// Where the state lies; absent: a temporary folder, removed at the end.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The default ports, or any that are free.
    #[arg(long, value_enum, default_value = "default")]
    ports: Choice,
    /// Start a process that dies again, after 200 ms on the same ports, instead of ending.
    #[arg(long)]
    restart: bool,
    /// Print one line of JSON on standard output when all are ready; everything else goes to standard error.
    #[arg(long)]
    json: bool,
    /// A setting for the gateways, e.g. ROOMCAST_CONNECTIONS_MAX=20000; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_setting)]
    gateway_env: Vec<(String, String)>,
    /// A setting for the ingests.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_setting)]
    ingest_env: Vec<(String, String)>,
    /// A setting for the aggregators.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_setting)]
    aggregator_env: Vec<(String, String)>,
}

/// Runs until it is asked to end or cannot go on.
///
/// # Errors
/// 64, 65, 69: what is wrong before anything starts, or the exit code of the service that found it. 70: a process died.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let asked = Signals::listen()?;
    let home = Home::open(options.dir.as_deref())?;
    let mut family = Family::new(PathBuf::from(PIDS), GRACE, asked.hurry.clone());
    let ended = tokio::select! {
        ended = System::run(&options, &home, &mut family) => ended,
        () = asked.end.cancelled() => Ok(()),
    };
    match &ended {
        Ok(()) => say("ending"),
        // Said now: what follows are the last lines of the processes that end in order.
        Err(failure) => complain(&failure.message),
    }
    family.stop().await;
    ended.map_err(|failure| Failure {
        message: String::new(),
        ..failure
    })
}

/// What the outside asks for.
struct Signals {
    end: CancellationToken,
    /// Asked a second time.
    hurry: CancellationToken,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let failed = |error| Failure::internal(format!("signals: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut hang_up = signal(SignalKind::hangup()).map_err(failed)?;
        let tokens = Self {
            end: CancellationToken::new(),
            hurry: CancellationToken::new(),
        };
        let (end, hurry) = (tokens.end.clone(), tokens.hurry.clone());
        tokio::spawn(async move {
            for token in [end, hurry] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hang_up.recv() => {}
                }
                token.cancel();
            }
        });
        Ok(tokens)
    }
}
