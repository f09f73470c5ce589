//! The budgets, each beside the floor of the same run. Prints progress, writes `tests/load/RESULTS.md`.

mod fanout;
mod folds;
mod freshness;
mod idle;
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
        }
    } else {
        Effort {
            rounds: 3,
            seconds: 10,
        }
    };
    let start = Instant::now();
    let mut report = Report::new(quick);
    let say = |what: &str| println!("[{:>4} s] {what}", start.elapsed().as_secs());

    say("P1 fan-out against the floor");
    fanout::run(&mut report, effort, &say).await?;
    say("P3 memory of idle connections");
    idle::run(&mut report, effort, &say).await?;
    say("P5 freshness");
    freshness::run(&mut report, effort, &say).await?;
    say("P7 ingest, P8 metrics");
    Box::pin(ingest::run(&mut report, effort, &say)).await?;
    folds::run(&mut report, effort, &say)?;
    say("done");
    report.write()
}

/// Prints what a connection costs, `rounds` times. `beside`: a command that is run with the gateway's process id while
/// clients connect.
///
/// # Errors
/// When the system cannot be started.
pub async fn idle(connections: usize, rounds: usize, beside: Option<&str>) -> anyhow::Result<()> {
    for _ in 0..rounds {
        let cost = idle::measure(connections, beside).await?;
        let floor = idle::floor(connections)?;
        println!("{connections} connections: {cost}; the floor's handshake {floor:.1} µs");
    }
    Ok(())
}
