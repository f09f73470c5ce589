//! `roomcast-load`: the bench and its parts.
#![expect(clippy::print_stdout, reason = "a bench prints")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures of a bench: positive and far below 2^52"
)]

mod bench;
mod cluster;

use std::net::SocketAddr;
use std::process::ExitCode;

use bench::ingest::Door;
use bench::load::Load;
use bench::{Bench, Length, bells, capture, catchup, fanout, growth, ingest, killed, slow, storm};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};

/// More sockets than any bench has.
const SOCKETS: usize = 16_000;

#[derive(Parser)]
#[command(about = "Measures Roomcast against the floor of the same machine in the same run.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The floor: one epoll thread that writes a ready frame to every socket, and nothing else.
    Floor {
        /// Address to listen on.
        #[arg(long)]
        listen: SocketAddr,
        /// Frames a second to every socket.
        #[arg(long, default_value_t = 0)]
        rate: u32,
        /// Size of a frame's payload.
        #[arg(long, default_value_t = 420)]
        frame_bytes: usize,
    },
    /// Runs the budgets and writes tests/load/RESULTS.md.
    Bench {
        /// One short round of each instead of three, and fewer clients.
        #[arg(long)]
        quick: bool,
        /// Ten million events instead of one in the long run; takes half an hour more, and 8 GB of disk.
        #[arg(long, conflicts_with = "quick")]
        full: bool,
        /// Only these, e.g. P1,P6,growth; writes no file.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
    },
    /// P1: what a delivery costs, beside the floor (1,000 connections, 20 events a second).
    Fanout(Load),
    /// P2: a room so busy that events gather (1,000 connections, 400 events a second).
    Busy(Load),
    /// P3, P4: what a connection costs: memory when idle, CPU of the handshake.
    Idle {
        #[command(flatten)]
        load: Load,
        /// Runs `COMMAND PID` beside the connecting (PID: the gateway's), e.g. a profiler; waits for its end.
        #[arg(long)]
        beside: Option<String>,
    },
    /// P6: thousands of sockets are reset and all come back at once with their cursors (5,000 over 50 rooms).
    Storm(Load),
    /// Notifications: 5,000 users back at once with their own rooms and counters, marks on other tabs, memory with 200 each.
    Bells(Load),
    /// A gateway is killed with all its clients (5,000); they go to another one, where 1,000 others are measured.
    Kill(Load),
    /// P7: what an event costs ingest that comes by one door.
    Ingest {
        /// The door.
        #[arg(value_enum)]
        door: Door,
        /// How many events.
        #[arg(long, default_value_t = 20_000)]
        events: usize,
        /// How many NATS servers: 1, or 3 with a copy of everything on each.
        #[arg(long, default_value = "1", value_parser = PossibleValuesParser::new(["1", "3"]).try_map(|nodes| nodes.parse::<u32>()))]
        nats_nodes: u32,
        /// Runs `COMMAND PID` beside it (PID: ingest's), e.g. a profiler; waits for its end.
        #[arg(long)]
        beside: Option<String>,
    },
    /// P9: an aggregator comes back that was away; then a gateway with a full ring to read (P10).
    Catchup {
        /// Events that it missed.
        #[arg(long, default_value_t = 1_000_000)]
        events: usize,
        /// How often.
        #[arg(long, default_value_t = 1)]
        rounds: usize,
    },
    /// What a change of a database costs ingest, and how long it takes from the commit to the stream.
    Capture {
        /// Rows of one transaction.
        #[arg(long, default_value_t = 1_000_000)]
        rows: usize,
        /// How often.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// P10: how long each service takes to be ready.
    Start {
        /// How often.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// P11: a tenth of the clients never reads (500 of 5,000).
    Slow(Load),
    /// Load on a cluster that runs somewhere: hold, storm, slow or soak, with a page of results (deploy/operations/load.md).
    Cluster(Box<cluster::Against>),
    /// Growth: ten to a hundred thousand rooms, and memory over a long run.
    Growth {
        #[command(flatten)]
        load: Load,
        /// Events of the long run.
        #[arg(long, default_value_t = 10_000_000)]
        events: usize,
        /// Only the long run.
        #[arg(long)]
        long_run: bool,
    },
}

fn main() -> ExitCode {
    // The figures are what counts: a failure is said in one line, without a backtrace.
    run().unwrap_or_else(|error| {
        eprintln!("roomcast-load: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> anyhow::Result<ExitCode> {
    let command = match Arguments::parse().command {
        Command::Floor {
            listen,
            rate,
            frame_bytes,
        } => {
            roomcast_load::floor::run(listen, rate, frame_bytes)?;
            return Ok(ExitCode::SUCCESS);
        }
        command => command,
    };
    // Before anything is started, because what is started may have as many as this process. Where these are too few, who opens that many
    // says so.
    drop(roomcast_chassis::descriptors::make_room(SOCKETS));
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let command = match command {
            Command::Cluster(against) => {
                let clean = Box::pin(cluster::run(*against)).await?;
                return Ok(if clean {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                });
            }
            command => command,
        };
        bench::guard::watch();
        if let Command::Bench { quick, full, only } = command {
            let length = match (quick, full) {
                (true, _) => Length::Quick,
                (false, true) => Length::Full,
                (false, false) => Length::Usual,
            };
            let (text, failures) = bench::run(length, &only).await?;
            println!("{text}");
            return Ok(if failures == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        let mut bench = Bench::new(false);
        Box::pin(one(command, &mut bench)).await?;
        println!("{}", bench.report.table());
        Ok(ExitCode::SUCCESS)
    })
}

async fn one(command: Command, bench: &mut Bench) -> anyhow::Result<()> {
    match command {
        Command::Fanout(load) => {
            let (connections, rate) = (load.connections.unwrap_or(1_000), load.rate.unwrap_or(20));
            fanout::against_floor(bench, &load, connections, rate, &[load.encoding]).await
        }
        Command::Busy(load) => fanout::busy(bench, &load).await,
        Command::Idle { load, beside } => bench::idle(&load, beside.as_deref()).await,
        Command::Bells(load) => {
            Box::pin(bells::run(bench, &load)).await?;
            Box::pin(bells::memory(bench, &load)).await
        }
        Command::Kill(load) => killed::run(bench, &load).await,
        Command::Storm(load) => storm::run(bench, &load).await,
        Command::Ingest {
            door,
            events,
            nats_nodes,
            beside,
        } => ingest::one_door(bench, door, events, nats_nodes, beside.as_deref()).await,
        Command::Catchup { events, rounds } => catchup::run(bench, events, rounds, 3).await,
        Command::Capture { rows, rounds } => capture::run(bench, rows, rounds).await,
        Command::Start { rounds } => catchup::starts(bench, rounds).await,
        Command::Slow(load) => slow::run(bench, &load).await,
        Command::Growth {
            load,
            events,
            long_run,
        } => {
            if !long_run {
                growth::rooms(bench, &load).await?;
            }
            growth::memory(bench, &load, events).await
        }
        Command::Floor { .. } | Command::Bench { .. } | Command::Cluster(_) => Ok(()),
    }
}
