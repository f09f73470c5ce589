//! `roomcast-load`: the bench and its parts.
#![expect(clippy::print_stdout, reason = "a bench prints")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures of a bench: positive and far below 2^52"
)]

mod bench;

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

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
        /// One short round of each instead of three.
        #[arg(long)]
        quick: bool,
    },
    /// Only what a connection costs: memory when idle (P3) and CPU of the handshake (P4). Writes no file.
    Idle {
        /// How many connections.
        #[arg(long, default_value_t = 8_000)]
        connections: usize,
        /// Repeats on fresh systems.
        #[arg(long, default_value_t = 1)]
        rounds: usize,
        /// Runs `COMMAND PID` beside the connecting (PID: the gateway's), e.g. a profiler; waits for its end.
        #[arg(long)]
        beside: Option<String>,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Floor {
            listen,
            rate,
            frame_bytes,
        } => roomcast_load::floor::run(listen, rate, frame_bytes),
        Command::Bench { quick } => {
            let runtime = tokio::runtime::Runtime::new()?;
            let report = runtime.block_on(bench::run(quick))?;
            println!("{report}");
            Ok(())
        }
        Command::Idle {
            connections,
            rounds,
            beside,
        } => {
            let runtime = tokio::runtime::Runtime::new()?;
            runtime.block_on(bench::idle(connections, rounds, beside.as_deref()))
        }
    }
}
