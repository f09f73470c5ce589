//! `roomcast-metrics-try`: folds the events of its input into metrics that are not in force, and prints what they would have shown, as
//! JSON. `roomcast metrics try` reads the events and starts it.
//!
//! Arguments: the metrics file, the policy's or `-`, begin and end as Unix microseconds. Input: one stored event a line,
//! `{"seq", "stored", "subject", "event"}`. Exit codes: 64 arguments, 65 a file with mistakes, 70 input that is none.

use std::io::{BufRead, Write};
use std::process::ExitCode;

use bytes::Bytes;
use roomcast_access::Policy;
use roomcast_metrics_aggregator::definition::Definitions;
use roomcast_metrics_aggregator::trial::Trial;
use serde::Deserialize;
use serde_json::value::RawValue;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Deserialize)]
struct Line<'a> {
    seq: u64,
    stored: i64,
    subject: String,
    #[serde(borrow)]
    event: &'a RawValue,
}

/// An exit code and what to say.
type Failed = (u8, String);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            let _ = writeln!(std::io::stderr(), "{message}");
            ExitCode::from(code)
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Failed> {
    let [metrics, policy, begin, end] = arguments else {
        return Err((
            64,
            "usage: roomcast-metrics-try METRICS POLICY|- BEGIN END".to_owned(),
        ));
    };
    let micros = |text: &str| {
        let number = text.parse::<i64>();
        number.map_err(|_| (64, format!("{text:?} are no Unix microseconds")))
    };
    let (begin, end) = (micros(begin)?, micros(end)?);
    let read =
        |path: &str| std::fs::read_to_string(path).map_err(|error| (65, format!("{path}:1:1: {error}")));
    let lines = |mistakes: Vec<roomcast_access::Mistake>| {
        let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        (65, lines.join("\n"))
    };
    let policy = match policy.as_str() {
        "-" => None,
        path => Some(Policy::parse(&read(path)?, path).map_err(lines)?),
    };
    let definitions = Definitions::parse(&read(metrics)?, metrics, policy.as_ref()).map_err(lines)?;
    let ours = |error: &dyn std::fmt::Display| (70, error.to_string());
    let mut trial = Trial::new(&definitions, begin).map_err(|error| ours(&error))?;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| ours(&error))?;
        let stored: Line<'_> = serde_json::from_str(&line).map_err(|error| ours(&error))?;
        let event = Bytes::copy_from_slice(stored.event.get().as_bytes());
        trial.stored(stored.seq, stored.stored, &stored.subject, event);
    }
    let report = serde_json::to_string(&trial.finish(end)).map_err(|error| ours(&error))?;
    writeln!(std::io::stdout(), "{report}").map_err(|error| ours(&error))
}
