//! The budgets, each beside the floor of the same run. Prints progress, writes `tests/load/RESULTS.md`.

mod fanout;
mod folds;
mod freshness;
mod ingest;
mod report;
mod system;

use std::time::Instant;

use report::Report;

/// How long and how often.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Interleaved rounds of each measurement.
    pub rounds: usize,
    /// Length of one measurement, seconds.
    pub seconds: u64,
    /// Connections of the memory measurement.
    pub idle_connections: usize,
}

/// Runs everything and returns the report's text.
///
/// # Errors
/// When something cannot be started; a missed budget is a line of the report, not an error.
pub async fn run(quick: bool) -> anyhow::Result<String> {
    let effort = if quick {
        Effort {
            rounds: 1,
            seconds: 4,
            idle_connections: 2_000,
        }
    } else {
        Effort {
            rounds: 3,
            seconds: 10,
            idle_connections: 8_000,
        }
    };
    let start = Instant::now();
    let mut report = Report::new(quick);
    let say = |what: &str| println!("[{:>4} s] {what}", start.elapsed().as_secs());

    say("P1 fan-out against the floor");
    fanout::run(&mut report, effort, &say).await?;
    say("P3 memory of idle connections");
    fanout::idle(&mut report, effort, &say).await?;
    say("P5 freshness");
    freshness::run(&mut report, effort, &say).await?;
    say("P7 ingest, P8 metrics");
    Box::pin(ingest::run(&mut report, effort, &say)).await?;
    folds::run(&mut report, effort, &say)?;
    say("done");
    report.write()
}
