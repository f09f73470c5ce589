//! `roomcast audit verify`: the record of what was done, read whole and held against itself and against logged heads.

mod chain;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use roomcast_chassis::jetstream::JetStream;
use roomcast_chassis::process::Failure;
use roomcast_proto::accounts::API_IN_CORE;
use roomcast_proto::subject::stream::AUDIT;

use crate::span::Span;
use crate::streams;
use crate::terminal::{Colour, Stream, harmless, print};
use chain::{Chains, Head, Verdict};

/// One read of many entries.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Looks after the audit record.
///
/// Connects as the administrator of account CORE: ROOMCAST_NATS_USER and ROOMCAST_NATS_PASSWORD in the environment.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    ROOMCAST_NATS_USER=admin ROOMCAST_NATS_PASSWORD=… roomcast audit verify --nats nats://127.0.0.1:4222 --heads ingest.log")]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Read every entry and say what is missing, changed or out of its order.
    ///
    /// Entries of one process are numbered, and each holds the digest of the one before, so what was taken out or changed in the
    /// middle shows. Services log where their record stands every hour and at their end: with those logs, what was cut off or
    /// written anew as a whole shows, too. What the leader has and no replica gives makes the command fail: a part is never called whole.
    Verify(Verify),
}

#[derive(Args, Debug)]
struct Verify {
    /// Address of NATS; several of one cluster separated by commas.
    #[arg(long, value_name = "URL", default_value = "nats://127.0.0.1:4222")]
    nats: String,
    /// Logs of services; the heads in them are compared with the record.
    #[arg(long, value_name = "FILE")]
    heads: Vec<PathBuf>,
}

/// Does it.
///
/// # Errors
/// 65: a log cannot be read. 69: NATS cannot be used or a part of the record cannot be read, or the record is not whole.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let Action::Verify(options) = options.action;
    let mut heads = Vec::new();
    for file in &options.heads {
        let text =
            std::fs::read(file).map_err(|error| Failure::file(format!("{}:1:1: {error}", file.display())))?;
        heads.extend(Head::all_in(&String::from_utf8_lossy(&text)));
    }
    let logged = heads.len();
    let client = streams::connect_from_environment(&options.nats).await?;
    let jetstream = JetStream::new(client, API_IN_CORE).with_timeout(CALL_TIMEOUT);
    let Verdict {
        entries,
        lives,
        findings,
    } = read(&jetstream, heads).await?;
    let counted = format!("{entries} entries of {lives} processes, {logged} logged heads");
    if findings.is_empty() {
        print(&format!(
            "{} {counted}",
            Stream::Out.paint(Colour::Green, "whole")
        ));
        return Ok(());
    }
    for finding in &findings {
        print(&harmless(finding));
    }
    Err(Failure::unavailable(format!(
        "the audit record is not whole: {counted}"
    )))
}

async fn read(jetstream: &JetStream, heads: Vec<Head>) -> Result<Verdict, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::unavailable(format!("stream {AUDIT}: {error}"));
    let info = jetstream.stream_info(AUDIT).await;
    let info = info.map_err(|error| failed(&error))?;
    let state = info
        .ok_or_else(|| Failure::unavailable(format!("stream {AUDIT} does not exist")))?
        .state;
    let mut chains = Chains::new(state.first_seq, heads);
    let mut span = Span::new(jetstream, AUDIT, state.first_seq, state.last_seq);
    loop {
        let messages = span.page().await.map_err(|error| failed(&error))?;
        if messages.is_empty() {
            return Ok(chains.finish(state.last_seq));
        }
        for message in &messages {
            chains.follow(message.sequence, &message.subject, &message.payload);
        }
    }
}
