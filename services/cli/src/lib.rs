//! `roomcast`: the hand of developers and operators.
//!
//! `dev` runs the whole system on one machine; `simulate` publishes a scenario's events, `record` writes
//! down those of a day for it; `token`, `publish`, `tail`, `top`, `explain`, `try`,
//! `metrics`, `replay`, `check` and `types` are
//! the tools one reaches for beside it; `streams` creates what the services only verify. Nothing here is part of a running service.

mod arguments;
mod audit;
mod check;
mod dev;
mod dev_env;
mod duration;
mod explain;
mod find;
mod gateways;
mod http;
mod ingest;
mod metrics;
mod publish;
mod record;
mod replay;
mod scenario;
mod shop;
mod simulate;
mod span;
mod streams;
mod tail;
mod tenant;
mod terminal;
mod token;
mod top;
mod trial;
mod types;

use std::process::ExitCode;

use clap::Parser;
use roomcast_chassis::process::{Exit, Failure};

use arguments::{Arguments, Command};

/// Reads the command line, runs the command, and says how it ended.
///
/// Exit codes: 0 done, 64 wrong arguments, 65 a wrong file, 69 something needed cannot be used, 70 a mistake of ours.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(ended) = dev::child::become_program(std::env::args_os()) {
        return ended.into();
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            // Where nobody reads why, the exit code says it.
            let _ = error.print();
            return Exit::Settings.into();
        }
        Err(help) => {
            terminal::written(help.print());
            return ended(Ok(()));
        }
    };
    roomcast_chassis::process::install_crypto();
    // One thread: the kernel ties the life of a child to the thread that started it, and this one lives to the end.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::internal(format!("cannot start: {error}"))),
    };
    ended(runtime.block_on(run(arguments)))
}

/// The end of a command. What could not be written is missing, whatever else went well.
fn ended(result: Result<(), Failure>) -> ExitCode {
    let missing = terminal::unwritten().map(|why| Failure::unavailable(format!("standard output: {why}")));
    let missing = missing.map(|failure| report(&failure));
    match result {
        Ok(()) => missing.unwrap_or_else(|| Exit::Ok.into()),
        Err(failure) => report(&failure),
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Dev(options) => Box::pin(dev::run(*options)).await,
        Command::Simulate(options) => Box::pin(simulate::run(options)).await,
        Command::Record(options) => Box::pin(record::run(options)).await,
        Command::Token(options) => token::run(&options),
        Command::Publish(options) => Box::pin(publish::run(options)).await,
        Command::Tail(options) => Box::pin(tail::run(options)).await,
        Command::Top(options) => Box::pin(top::run(options)).await,
        Command::Explain(options) => Box::pin(explain::run(options)).await,
        Command::Try(options) => Box::pin(trial::run(options)).await,
        Command::Metrics(options) => Box::pin(metrics::run(options)).await,
        Command::Replay(options) => Box::pin(replay::run(options)).await,
        Command::Audit(options) => Box::pin(audit::run(options)).await,
        Command::Check(options) => check::run(&options).await,
        Command::Tenant(options) => tenant::run(&options).await,
        Command::Types(options) => types::run(&options),
        Command::Streams(options) => Box::pin(streams::run(options)).await,
    }
}

fn report(failure: &Failure) -> ExitCode {
    if !failure.message.is_empty() {
        terminal::complain(&failure.message);
    }
    failure.exit.into()
}
