//! The command line.

use clap::{Parser, Subcommand};

/// The hand of developers and operators of Roomcast.
#[derive(Parser, Debug)]
#[command(
    name = "roomcast",
    version,
    about = "The hand of developers and operators of Roomcast.",
    after_help = "Exit codes: 0 done · 64 wrong arguments · 65 a wrong file · 69 something needed cannot be used · 70 a mistake of ours.\n\
                  Colour only on terminals; NO_COLOR switches it off.\n\n\
                  Examples:\n  \
                  roomcast dev --scenario bookings\n  \
                  roomcast publish --room bookings --audience staff --type booking:new --data '{\"id\":\"bk-1\"}'\n  \
                  roomcast tail bookings os_dashboard"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run the whole system on this machine: NATS, ingest, aggregator, gateway, and a scenario's simulator.
    Dev(Box<crate::dev::Options>),
    /// Publish a scenario's events: first its history if asked to, then live; or a recorded day.
    Simulate(crate::simulate::Options),
    /// Write what was published to a file, for `simulate --from`.
    Record(crate::record::Options),
    /// Sign a token with a key file and print it.
    Token(crate::token::Options),
    /// Publish one event.
    Publish(crate::publish::Options),
    /// Follow rooms: every event as a line, across reconnects, nothing missed and nothing twice.
    Tail(crate::tail::Options),
    /// Show the running system in the terminal: gateways, rates, slow clients, the fullest rooms.
    Top(crate::top::Options),
    /// Say who gets an event and why, and who does not and why not.
    Explain(crate::explain::Options),
    /// Try a policy against who is connected now: who would lose and gain which rooms.
    Try(crate::trial::Options),
    /// Try metric definitions against past events: what they would have shown, and what they cost.
    Metrics(crate::metrics::Options),
    /// Show what was refused, and take it again, as it was sent or mended; each at most once.
    Replay(crate::replay::Options),
    /// Read the record of what was done and say whether it is whole.
    Audit(crate::audit::Options),
    /// Check policies, metric definitions, schemas and scenarios without starting anything.
    Check(crate::check::Options),
    /// Add and remove tenants in the configuration of NATS and in the policy; exchange their keys without a gap.
    Tenant(crate::tenant::Options),
    /// Write TypeScript from the schemas of events.
    Types(crate::types::Options),
    /// Create and verify the streams and buckets on a NATS server.
    Streams(crate::streams::Options),
}

#[cfg(test)]
mod tests;
