//! Figures, their spread, and what they are held against.

use std::fmt::Write as _;
use std::process::Command;

/// One measured figure.
struct Line {
    budget: &'static str,
    what: String,
    values: Vec<f64>,
    unit: &'static str,
    held_against: String,
    met: Option<bool>,
}

/// All figures of one run.
pub struct Report {
    lines: Vec<Line>,
    quick: bool,
}

/// The middle of a list; 0 of an empty one.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// The value below which a share of sorted latencies lies, milliseconds.
#[must_use]
pub fn percentile_ms(sorted_micros: &[u32], share: f64) -> f64 {
    let index = (sorted_micros.len() as f64 * share) as usize;
    sorted_micros
        .get(index.min(sorted_micros.len().saturating_sub(1)))
        .map_or(f64::NAN, |us| f64::from(*us) / 1000.0)
}

impl Report {
    /// An empty report.
    #[must_use]
    pub fn new(quick: bool) -> Self {
        Self {
            lines: Vec::new(),
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
        let met = Some(median(&values) <= bound);
        self.lines.push(Line {
            budget,
            what: what.into(),
            values,
            unit,
            held_against: format!("≤ {bound}"),
            met,
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
        let met = Some(median(&values) >= bound);
        self.lines.push(Line {
            budget,
            what: what.into(),
            values,
            unit,
            held_against: format!("≥ {bound}"),
            met,
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
            met: None,
        });
    }

    fn text(&self) -> String {
        let said = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output();
            output
                .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
                .unwrap_or_default()
        };
        let mut out = String::from("# What `make bench` measured last\n\n");
        let _ = writeln!(
            out,
            "{}, commit {}, {} cores, {}, {}. Median (lowest … highest) of {}. CPU is user and system time of the server process as the kernel counts it; the floor is one epoll thread that writes a ready frame per delivery and nothing else, interleaved with what it is held against.\n",
            said("date", &["-u", "+%Y-%m-%d"]),
            said("git", &["rev-parse", "--short", "HEAD"]),
            std::thread::available_parallelism().map_or(0, usize::from),
            said("uname", &["-sr"]),
            said("sh", &["-c", "grep -m1 'model name' /proc/cpuinfo | cut -d: -f2"]),
            if self.quick {
                "one short round"
            } else {
                "three interleaved rounds"
            }
        );
        out.push_str("| budget | what | measured | held against | |\n|---|---|---|---|---|\n");
        for line in &self.lines {
            let (low, high) = line
                .values
                .iter()
                .fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
            let spread = if line.values.len() > 1 {
                format!(" ({low:.2} … {high:.2})")
            } else {
                String::new()
            };
            let verdict = match line.met {
                Some(true) => "met",
                Some(false) => "missed",
                None => "",
            };
            let _ = writeln!(
                out,
                "| {} | {} | {:.2}{spread} {} | {} | {verdict} |",
                line.budget,
                line.what,
                median(&line.values),
                line.unit,
                line.held_against
            );
        }
        out
    }

    /// Writes `tests/load/RESULTS.md` and returns its text.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self) -> anyhow::Result<String> {
        let text = self.text();
        std::fs::write(
            roomcast_harness::repository().join("tests/load/RESULTS.md"),
            &text,
        )?;
        Ok(text)
    }
}
