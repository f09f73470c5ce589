//! `roomcast-faults`: breaks what NATS stores on, under traffic, and keeps account of every acknowledged event.
#![expect(clippy::print_stdout, reason = "a command prints")]

mod faults;
mod image;
mod rig;
mod table;
mod traffic;

use std::fmt::Write as _;
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use clap::Parser;
use faults::{BETWEEN, Fault};
use image::Image;
use rig::{Rig, Setup};
use roomcast_harness::repository;
use table::{Expected, Row, table};
use traffic::Traffic;

#[derive(Parser)]
#[command(about = "Does to NATS and ingest what machines do, and writes tests/faults/RESULTS.md.")]
struct Arguments {
    /// One run of each instead of three.
    #[arg(long)]
    quick: bool,
    /// Only faults whose name holds this; writes no file.
    #[arg(long)]
    only: Option<String>,
}

const ONE: Setup = Setup {
    nodes: 1,
    images: true,
    sync_always: true,
};
const THREE: Setup = Setup { nodes: 3, ..ONE };
const LATE: Setup = Setup {
    sync_always: false,
    ..ONE
};

/// Every line of the table: what, on which rig, expected what.
const LINES: [(&str, Fault, Setup, Expected); 20] = [
    ("kill -9 of ingest × 3", Fault::KillIngest, ONE, Expected::Nothing),
    ("kill -9 of NATS", Fault::KillLeader, ONE, Expected::Nothing),
    ("SIGSTOP of NATS for 9 s", Fault::Freeze, ONE, Expected::Nothing),
    (
        "every fsync 200 ms slower",
        Fault::SlowFsync,
        ONE,
        Expected::Nothing,
    ),
    ("an fsync fails", Fault::FsyncFails, ONE, Expected::Nothing),
    ("disk full and back", Fault::DiskFull, ONE, Expected::Nothing),
    ("power cut", Fault::PowerCut, ONE, Expected::Nothing),
    (
        "power cut without `sync_interval: always`, to show that a cut is one",
        Fault::PowerCut,
        LATE,
        Expected::Loss,
    ),
    (
        "kill -9 of ingest × 3",
        Fault::KillIngest,
        THREE,
        Expected::Nothing,
    ),
    ("leader step-down × 5", Fault::StepDown, THREE, Expected::Nothing),
    (
        "kill -9 of the leading node",
        Fault::KillLeader,
        THREE,
        Expected::Nothing,
    ),
    (
        "kill -9 of all nodes at once",
        Fault::KillAll,
        THREE,
        Expected::Nothing,
    ),
    (
        "SIGSTOP of the leading node for 9 s",
        Fault::Freeze,
        THREE,
        Expected::Nothing,
    ),
    (
        "every fsync of the leading node 200 ms slower",
        Fault::SlowFsync,
        THREE,
        Expected::Nothing,
    ),
    (
        "an fsync of the leading node fails",
        Fault::FsyncFails,
        THREE,
        Expected::Nothing,
    ),
    (
        "disk of the leading node full and back",
        Fault::DiskFull,
        THREE,
        Expected::Nothing,
    ),
    (
        "disks of all nodes full and back",
        Fault::AllDisksFull,
        THREE,
        Expected::Nothing,
    ),
    (
        "power cut of the leading node",
        Fault::PowerCutOfOne,
        THREE,
        Expected::Nothing,
    ),
    (
        "power cut of all nodes at once",
        Fault::PowerCut,
        THREE,
        Expected::Nothing,
    ),
    (
        "power cut of all nodes without `sync_interval: always`, likewise",
        Fault::PowerCut,
        Setup {
            sync_always: false,
            ..THREE
        },
        Expected::Loss,
    ),
];

/// What this machine lets us do.
struct Machine {
    images: Result<(), String>,
    strace: Result<(), String>,
}

impl Machine {
    fn look() -> Self {
        let strace = || {
            let found = Command::new("strace").arg("-V").output();
            anyhow::ensure!(
                found.is_ok_and(|output| output.status.success()),
                "strace is missing: make tools"
            );
            Ok(())
        };
        let images = Image::can().map_err(|error| {
            let reason = format!("{error:#}");
            let first = reason.lines().next().unwrap_or_default();
            format!("needs root, loop devices and ext4 ({first})")
        });
        Self {
            images,
            strace: strace().map_err(|error: anyhow::Error| error.to_string()),
        }
    }

    fn cannot(&self, fault: Fault) -> Option<&str> {
        let needs = [
            (fault.needs_images(), &self.images),
            (fault.needs_strace(), &self.strace),
        ];
        needs
            .into_iter()
            .find_map(|(needed, can)| can.as_ref().err().filter(|_| needed).map(String::as_str))
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    tokio::runtime::Runtime::new()?.block_on(async {
        tokio::select! {
            outcome = run(&arguments) => outcome,
            // Servers are ended and file systems unmounted on the way out.
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::FAILURE),
        }
    })
}

async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let machine = Machine::look();
    let runs = if arguments.quick { 1 } else { 3 };
    let (mut rows, mut transcript): (Vec<Row>, String) = Default::default();
    let mut rig: Option<(Setup, Rig)> = None;
    for (number, (name, fault, setup, expected)) in LINES.into_iter().enumerate() {
        if arguments.only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let mut row = Row::new(name, setup.nodes, expected);
        if let Some(why) = machine.cannot(fault) {
            rows.push(row.skipped(why));
            continue;
        }
        for run in 1..=runs {
            let setup = Setup {
                images: machine.images.is_ok(),
                ..setup
            };
            // What loses its streams is of no use to the next.
            if expected == Expected::Loss || rig.as_ref().is_none_or(|(before, _)| *before != setup) {
                drop(rig.take());
                rig = Some((setup, Rig::start(setup).await?));
            }
            let (_, rig) = rig.as_mut().context("a rig")?;
            let said = one(rig, fault, &format!("f{number}r{run}"), expected, &mut row).await?;
            let line = format!("{name}, {} nodes, run {run}: {said}", setup.nodes);
            println!("{line}");
            let _ = writeln!(transcript, "{line}");
        }
        rows.push(row);
    }
    let text = report(&rows, &transcript);
    println!("\n{text}");
    if arguments.only.is_none() {
        std::fs::write(repository().join("tests/faults/RESULTS.md"), &text)?;
    }
    let broken = rows
        .iter()
        .filter(|row| !row.is_good() && !row.is_skipped())
        .count();
    let skipped = rows.iter().filter(|row| row.is_skipped()).count();
    println!("{} faults, {broken} broken, {skipped} not run", rows.len());
    Ok(if broken == 0 && skipped == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One run of one fault: traffic, the fault, traffic, the account.
async fn one(
    rig: &mut Rig,
    fault: Fault,
    run: &str,
    expected: Expected,
    row: &mut Row,
) -> anyhow::Result<String> {
    let traffic = Traffic::start(run, &rig.url, &rig.token);
    traffic.more(BETWEEN).await;
    let before = traffic.acknowledged();
    let (told, said) = if expected == Expected::Loss {
        // The streams themselves may be gone, and publishers would wait for ever.
        let said = fault.strike(rig, &traffic).await?;
        (traffic.cut(), said)
    } else {
        let said = fault.strike(rig, &traffic).await?;
        traffic.more(BETWEEN).await;
        rig.is_ready().await;
        (traffic.finish().await?, said)
    };
    let mut said = said;
    let stored = if expected == Expected::Loss && !rig.has_events().await {
        Vec::new()
    } else {
        if let Some(behind) = rig.is_whole().await? {
            said = [said, behind].join("; ");
        }
        stored(rig, run).await?
    };
    let lost_before = row.lost();
    row.add(&told, &stored);
    let (acknowledged, lost) = (told.acknowledged.len(), row.lost() - lost_before);
    let said = if said.is_empty() {
        said
    } else {
        format!("; {said}")
    };
    Ok(format!(
        "{before} acknowledged before, {acknowledged} in all, {} found, {lost} lost{said}",
        stored.len()
    ))
}

/// The ids of a run's events in the order of the stream.
async fn stored(rig: &Rig, run: &str) -> anyhow::Result<Vec<String>> {
    let (mut found, mut next) = (Vec::new(), 1);
    let prefix = format!("{run}-");
    loop {
        let batch = rig.streams.direct_batch("EVENTS", next, 500, None).await?;
        let Some(last) = batch.messages.last() else {
            return Ok(found);
        };
        next = last.sequence + 1;
        for message in &batch.messages {
            let event: serde_json::Value = serde_json::from_slice(&message.payload)?;
            let id = event["id"].as_str().unwrap_or_default();
            if id.starts_with(&prefix) {
                found.push(id.to_owned());
            }
        }
    }
}

fn report(rows: &[Row], transcript: &str) -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(repository())
            .output();
        output.map_or_else(
            |_| String::new(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    };
    format!(
        "# What `make faults` found last\n\n{}, commit {}, Linux {}. Six publishers, three with single events and three with batches of 20, repeat with the same id until they are \
         answered; afterwards the stream is read back and compared with what they were told. A power cut is the file system's own shutdown \
         without a flush of its log, then kill -9, then a new mount; a disk that lies about flushes is not modelled.\n\n{}\n\
         Run by run:\n\n```\n{}```\n",
        said("date", &["-u", "+%Y-%m-%d"]),
        said("git", &["rev-parse", "--short", "HEAD"]),
        said("uname", &["-r"]),
        table(rows),
        transcript,
    )
}
