//! Figures, their spread, and what they are held against.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use roomcast_load::elsewhere;

/// What became of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Others are read against it.
    Noted,
    Met,
    Missed,
    /// Its measurement failed.
    Failed,
}

impl Verdict {
    fn of(met: bool) -> Self {
        if met { Self::Met } else { Self::Missed }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Noted => "",
            Self::Met => "met",
            Self::Missed => "**missed**",
            Self::Failed => "**not measured**",
        }
    }
}

/// What is said where the scheduler keeps priorities within a session.
pub const WITHIN_SESSION: &str = "The kernel groups processes by session (`kernel.sched_autogroup_enabled=1`): the lowest priority counts within one only, so that its own threads for the disk wait for the clients that come back; with 0 the p99s of storms (P6, kill) mean more.";

/// Why a budget is missed where it is, as profiles of a two-core machine showed it, and what would mend it.
const WHY: [(&str, &str); 5] = [
    (
        "P2",
        "the kernel's write is nearly all of it, so it goes with the machine: at the floor's 5.7 µs a delivery it is 0.93, at its 7.7 it is 1.17.",
    ),
    (
        "P4",
        "at a pace the kernel alone takes most of the budget for the same exchange: the floor's row with a hello, where nothing is understood: two writes and two wake-ups of an idle thread. The rest is some 100,000 instructions spread over 200 KiB of code, each line of it run once: the first cache (32 KiB) holds neither it nor the kernel's, so a handshake by itself waits for both, and those that are let in together share them, as from some five hundred a second on. By instructions the token's claims, read strictly, are 12 %, the hello 10, where four rooms stand 14, joining them 11, the answer 15, the upgrade 8. A client that sends `connect` right behind its request, as the gateway lets it, saves a write and a wake-up.",
    ),
    (
        "P6",
        "publisher, NATS, ingest and all clients share one core here, and the gateway has the other: the slowest of a hundred answers waits for the disk behind them, whose interrupts are worked off on the core that the clients take. Ingest on another machine does not.",
    ),
    (
        "P7",
        "an event that comes by itself has an answer of its own from the stream, two messages at NATS; a batch of 100 shares them. Events of different requests in one batch were tried: a batch costs the server 5 ms.",
    ),
    (
        "kill",
        "the slowest few of some hundred events decide, most of which wait in ingest and NATS: for the disk, and for the core that all clients share.",
    ),
];

/// One figure.
struct Line {
    budget: &'static str,
    what: String,
    values: Vec<f64>,
    unit: &'static str,
    held_against: String,
    verdict: Verdict,
}

/// All figures of one run.
pub struct Report {
    lines: Vec<Line>,
    transcripts: Vec<(String, String)>,
    quick: bool,
}

/// The middle of a list; 0 of an empty one.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

impl Line {
    fn measured(&self) -> String {
        if self.values.is_empty() {
            return "–".to_owned();
        }
        let fold = |start, pick: fn(f64, f64) -> f64| self.values.iter().copied().fold(start, pick);
        let (low, high) = (fold(f64::MAX, f64::min), fold(f64::MIN, f64::max));
        let spread = if self.values.len() > 1 {
            format!(" ({} … {})", shown(low), shown(high))
        } else {
            String::new()
        };
        format!("{}{spread} {}", shown(median(&self.values)), self.unit)
            .trim_end()
            .to_owned()
    }
}

/// Three figures, or all before the point.
fn shown(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

impl Report {
    /// An empty report.
    #[must_use]
    pub fn new(quick: bool) -> Self {
        Self {
            lines: Vec::new(),
            transcripts: Vec::new(),
            quick,
        }
    }

    /// A figure with an upper bound.
    pub fn at_most(
        &mut self,
        budget: &'static str,
        what: impl Into<String>,
        values: Vec<f64>,
        unit: &'static str,
        bound: f64,
    ) {
        let verdict = Verdict::of(median(&values) <= bound);
        self.lines.push(Line {
            budget,
            what: what.into(),
            values,
            unit,
            held_against: format!("≤ {bound}"),
            verdict,
        });
    }

    /// A figure with a lower bound.
    pub fn at_least(
        &mut self,
        budget: &'static str,
        what: impl Into<String>,
        values: Vec<f64>,
        unit: &'static str,
        bound: f64,
    ) {
        let verdict = Verdict::of(median(&values) >= bound);
        self.lines.push(Line {
            budget,
            what: what.into(),
            values,
            unit,
            held_against: format!("≥ {bound}"),
            verdict,
        });
    }

    /// A figure that others are read against.
    pub fn note(
        &mut self,
        budget: &'static str,
        what: impl Into<String>,
        values: Vec<f64>,
        unit: &'static str,
    ) {
        self.lines.push(Line {
            budget,
            what: what.into(),
            values,
            unit,
            held_against: String::new(),
            verdict: Verdict::Noted,
        });
    }

    /// A measurement that came to no figure.
    pub fn failed(&mut self, budget: &'static str, what: &str, why: &anyhow::Error) {
        // One line, whatever a server answered.
        let why: String = format!("{why:#}").chars().take(300).collect();
        self.lines.push(Line {
            budget,
            what: format!("{what}: {}", why.replace(['\n', '|'], " ")),
            values: Vec::new(),
            unit: "",
            held_against: String::new(),
            verdict: Verdict::Failed,
        });
    }

    /// What happened, moment by moment, below the table. Of several with one title the last is kept.
    pub fn transcript(&mut self, title: &str, lines: &[String]) {
        self.transcripts.retain(|(known, _)| known != title);
        self.transcripts.push((title.to_owned(), lines.join("\n")));
    }

    /// How many measurements came to no figure.
    #[must_use]
    pub fn failures(&self) -> usize {
        let failed = |line: &&Line| line.verdict == Verdict::Failed;
        self.lines.iter().filter(failed).count()
    }

    /// Table and transcripts.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::from("| budget | what | measured | held against | |\n|---|---|---|---|---|\n");
        for line in &self.lines {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} |",
                line.budget,
                line.what,
                line.measured(),
                line.held_against,
                line.verdict.word()
            );
        }
        let missed = |budget: &str| {
            let of = |line: &Line| line.budget == budget && line.verdict == Verdict::Missed;
            self.lines.iter().any(of)
        };
        for (budget, why) in WHY.iter().filter(|(budget, _)| missed(budget)) {
            let _ = write!(out, "\nWhere {budget} is missed: {why}\n");
        }
        for (title, text) in &self.transcripts {
            let _ = write!(out, "\n## {title}\n\n```text\n{text}\n```\n");
        }
        out
    }

    fn text(&self, took: Duration) -> String {
        let said = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output();
            output
                .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
                .unwrap_or_default()
        };
        let mut out = String::from("# What `make bench` measured last\n\n");
        let _ = writeln!(
            out,
            "{}, commit {}{}, {} cores, {}, {}, in {} s. Median (lowest … highest) of {}. CPU is user and system time of the server process as the kernel counts it; the floor is one epoll thread that writes a ready frame per delivery and nothing else, interleaved with what it is held against. Clients that come back in a storm (P6, bells, kill), the gateway that is killed, and who starts it again stand for other machines: theirs is the lowest priority (`SCHED_IDLE`), at the floor's storm as at the gateway's; publishers and the clients whose latency is measured have the usual one. Where what one request costs is measured (P4, P7), and in storms (P6, kill), the server has a core of its own, and all else another, as the peers were measured that the budgets come from. {}\n",
            said("date", &["-u", "+%Y-%m-%d"]),
            said("git", &["rev-parse", "--short", "HEAD"]),
            if said("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty() {
                ""
            } else {
                " with changes"
            },
            std::thread::available_parallelism().map_or(0, usize::from),
            said("uname", &["-sr"]),
            said("sh", &["-c", "grep -m1 'model name' /proc/cpuinfo | cut -d: -f2"]),
            took.as_secs(),
            if self.quick {
                "one short round"
            } else {
                "three interleaved rounds, five of P4 and kill"
            },
            if elsewhere::is_within_session() {
                WITHIN_SESSION
            } else {
                "The kernel does not group processes by session."
            }
        );
        out.push_str(&self.table());
        out
    }

    /// Writes `tests/load/RESULTS.md` and returns its text; `took`: the whole run.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, took: Duration) -> anyhow::Result<String> {
        let text = self.text(took);
        std::fs::write(
            roomcast_harness::repository().join("tests/load/RESULTS.md"),
            &text,
        )?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_median_spread_and_whether_the_budget_is_met() {
        let mut report = Report::new(false);
        report.at_most("P1", "a", vec![3.0, 1.0, 2.0], "µs", 2.0);
        report.at_most("P1", "b", vec![2.345], "µs", 2.0);
        report.at_least("P2", "c", vec![7.0, 9.0, 800.4], "", 8.0);
        report.note("P2", "d", vec![12.345], "s");
        report.failed("P3", "e", &anyhow::anyhow!("x\ny | z"));
        let rows = [
            "| P1 | a | 2.00 (1.00 … 3.00) µs | ≤ 2 | met |",
            "| P1 | b | 2.35 µs | ≤ 2 | **missed** |",
            "| P2 | c | 9.00 (7.00 … 800) | ≥ 8 | met |",
            "| P2 | d | 12.3 s |  |  |",
            "| P3 | e: x y   z | – |  | **not measured** |",
        ];
        let table = report.table();
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(lines, rows);
        assert_eq!(report.failures(), 1);
    }

    #[test]
    fn a_transcript_stands_below_the_table_once() {
        let mut report = Report::new(false);
        report.note("P1", "a", vec![1.0], "s");
        for line in ["first", "second"] {
            report.transcript("What happened", &[line.to_owned(), "end".to_owned()]);
        }
        let table = report.table();
        let (_, below) = table.split_once("| P1 | a | 1.00 s |  |  |\n").unwrap();
        assert_eq!(below, "\n## What happened\n\n```text\nsecond\nend\n```\n");
    }

    #[test]
    fn a_missed_budget_says_why() {
        for (value, says) in [(2.0, false), (2.1, true)] {
            let mut report = Report::new(false);
            report.at_most("P4", "a", vec![value], "µs", 2.0);
            report.at_most("P1", "b", vec![value], "µs", 2.0);
            let table = report.table();
            assert_eq!(table.contains("\nWhere P4 is missed: "), says, "{table}");
            assert!(!table.contains("P1 is missed"), "{table}");
        }
    }

    #[test]
    fn what_is_no_number_meets_no_budget() {
        let mut report = Report::new(false);
        report.at_most("P1", "a", vec![f64::NAN], "µs", 2.0);
        assert!(report.table().contains("missed"));
    }
}
