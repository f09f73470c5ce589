//! `roomcast metrics try`: what metrics and rules would have shown over the events that the stream keeps, before they are in force.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use roomcast_chassis::jetstream::{ApiError, At, JetStream, StoredMessage};
use roomcast_chassis::process::Failure;
use roomcast_proto::accounts::API_OUTSIDE_CORE;
use roomcast_proto::event::rfc3339;
use roomcast_proto::subject::{EVENTS_ALL, stream};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::dev_env::{self, DevEnv};
use crate::span::Span;
use crate::terminal::{Colour, Stream, harmless, print, say};
use crate::{check, duration, find, streams};

/// Marks of a line of numbers, from the least to the greatest.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Values printed of a metric.
const VALUES_MAX: usize = 10;
/// Notifications printed of a rule.
const NOTICES_MAX: usize = 5;

/// Works with metric definitions.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Say what metrics and rules would have shown over past events. Changes nothing.
    Try(TryOptions),
}

/// Says what each metric of a file would have shown, what each rule would have said, how large the state of each metric is, and how long
/// filling it takes, over the events that were stored since then. Nothing is changed or published.
///
/// The events are read beside the aggregator, without filter, as the NATS user `reader` (ROOMCAST_NATS_READER_USER and
/// ROOMCAST_NATS_READER_PASSWORD, in .roomcast/dev.env or the environment). Numbers of windows that began before `--from` miss what
/// came before; so do all of { total: true }.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    roomcast metrics try metrics.yaml --from 24h\n  \
    roomcast metrics try metrics.yaml --from 7d --policy policy.yaml --schemas schemas --json")]
struct TryOptions {
    /// The metric definitions.
    metrics: PathBuf,
    /// How far back: 30m, 24h, 3d.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration::parse)]
    from: Duration,
    /// A policy, so that audiences are checked too.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The folder of the events' schemas, so that fields and comparisons are checked too.
    #[arg(long, value_name = "DIR")]
    schemas: Option<PathBuf>,
    /// Address of NATS, instead of ROOMCAST_NATS.
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What the program beside us found; the parts that are shown.
#[derive(Deserialize)]
struct Report {
    events: u64,
    metrics: Vec<Metric>,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Metric {
    name: String,
    folded: u64,
    skipped: serde_json::Map<String, Value>,
    values: Vec<Shown>,
    closed: Vec<serde::de::IgnoredAny>,
    state_bytes: u64,
    fold_seconds: f64,
}

#[derive(Deserialize)]
struct Shown {
    group: Value,
    value: Option<String>,
    previous: Option<String>,
    change_percent: Option<String>,
    sparkline: Vec<Option<String>>,
    #[serde(default)]
    approximate: bool,
}

#[derive(Deserialize)]
struct Rule {
    alert: String,
    count: usize,
    notices: Vec<Notice>,
}

#[derive(Deserialize)]
struct Notice {
    at: String,
    data: Value,
}

/// Works.
///
/// # Errors
/// 65: a mistake in a file. 69: NATS or the program beside us cannot be used.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let Action::Try(options) = options.action;
    let (policy, schemas) = (options.policy.as_deref(), options.schemas.as_deref());
    let checked = check::metrics_checked(&options.metrics, policy, schemas).await?;
    for warning in checked.map_err(|mistakes| Failure::file(mistakes.join("\n")))? {
        // Beside what is found, which may be read by a program.
        say(&format!(
            "{} {warning}",
            Stream::Error.paint(Colour::Yellow, "look at")
        ));
    }
    let env = DevEnv::load()?;
    let url = match &options.nats {
        Some(url) => url.clone(),
        None => env.require(dev_env::NATS)?,
    };
    let (user, password) = (
        env.require(dev_env::NATS_READER_USER)?,
        env.require(dev_env::NATS_READER_PASSWORD)?,
    );
    let client = streams::connect(&url, Some((&user, &password))).await?;
    let jetstream = JetStream::new(client, API_OUTSIDE_CORE);
    let end = micros(SystemTime::now());
    let begin = end.saturating_sub(i64::try_from(options.from.as_micros()).unwrap_or(i64::MAX));
    let unreadable = |error: ApiError| Failure::unavailable(format!("events cannot be read: {error}"));
    let began = Instant::now();
    let found = since(&jetstream, begin).await.map_err(unreadable)?;
    let begin = found.as_ref().map_or(begin, |(_, oldest)| begin.max(*oldest));
    let span = found.map(|((first, last), _)| Span::new(&jetstream, stream::EVENTS, first, last));
    let answer = fold(&options, span, (begin, end)).await?;
    let took = began.elapsed();
    if options.json {
        print(&answer);
        return Ok(());
    }
    let report: Report =
        serde_json::from_str(&answer).map_err(|error| Failure::internal(error.to_string()))?;
    let bold = |text: &str| Stream::Out.paint(Colour::Bold, text);
    print(&bold(&format!(
        "{} events from {} to {}, read and folded in {}",
        report.events,
        rfc3339(begin),
        rfc3339(end),
        duration::shown(took)
    )));
    for metric in &report.metrics {
        print("");
        metric.print();
    }
    for rule in &report.rules {
        print("");
        rule.print();
    }
    Ok(())
}

/// The first position that was stored at an instant or after it and the last one, and when the oldest event there is was stored.
async fn since(jetstream: &JetStream, instant: i64) -> Result<Option<((u64, u64), i64)>, ApiError> {
    let next = |from: u64| async move {
        let at = At::Next {
            from,
            subject: EVENTS_ALL,
        };
        jetstream.message(stream::EVENTS, at).await
    };
    let info = jetstream.stream_info(stream::EVENTS).await?;
    let state = info.map(|info| info.state).unwrap_or_default();
    let (mut low, mut high) = (state.first_seq, state.last_seq + 1);
    let Some(oldest) = next(low).await? else {
        return Ok(None);
    };
    while low < high {
        let middle = low + (high - low) / 2;
        match next(middle).await? {
            Some(message) if message.time_micros < instant => low = message.sequence + 1,
            _ => high = middle,
        }
    }
    Ok((low <= state.last_seq).then_some(((low, state.last_seq), oldest.time_micros)))
}

/// Gives the events to the program that folds them; answers what it says.
async fn fold(
    options: &TryOptions,
    span: Option<Span<'_>>,
    (begin, end): (i64, i64),
) -> Result<String, Failure> {
    let program = find::service("roomcast-metrics-try")?;
    let failed =
        |error: &dyn std::fmt::Display| Failure::unavailable(format!("{}: {error}", program.display()));
    let none = PathBuf::from("-");
    let mut child = Command::new(&program)
        .arg(&options.metrics)
        .arg(options.policy.as_ref().unwrap_or(&none))
        .args([begin.to_string(), end.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(&error))?;
    let input = child.stdin.take();
    let feeding = feed(span, end, input);
    let (fed, output) = tokio::join!(feeding, child.wait_with_output());
    let output = output.map_err(|error| failed(&error))?;
    match output.status.code() {
        Some(0) => {
            fed.map_err(|error| failed(&error))?;
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        Some(65) => Err(Failure::file(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )),
        _ => Err(failed(&String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Writes the events up to an instant, one a line.
async fn feed(
    span: Option<Span<'_>>,
    end: i64,
    input: Option<tokio::process::ChildStdin>,
) -> Result<(), String> {
    let (Some(mut span), Some(mut input)) = (span, input) else {
        return Ok(());
    };
    loop {
        let page = span.page().await;
        let messages = page.map_err(|error| format!("events cannot be read: {error}"))?;
        let mut text = String::new();
        for message in messages.iter().take_while(|message| message.time_micros <= end) {
            text.extend(line(message));
        }
        input
            .write_all(text.as_bytes())
            .await
            .map_err(|error| error.to_string())?;
        if messages.last().is_none_or(|last| last.time_micros > end) {
            break;
        }
    }
    input.shutdown().await.map_err(|error| error.to_string())
}

/// A stored event as the program reads it; what is no JSON is no event.
fn line(message: &StoredMessage) -> Option<String> {
    let event: &RawValue = serde_json::from_slice(&message.payload).ok()?;
    let subject = json!(message.subject);
    // The event as it was written, so that no number changes; between its members a line may end.
    let event = event.get().replace(['\n', '\r'], " ");
    Some(format!(
        "{{\"seq\":{},\"stored\":{},\"subject\":{subject},\"event\":{event}}}\n",
        message.sequence, message.time_micros
    ))
}

fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

impl Metric {
    fn print(&self) {
        let bold = Stream::Out.paint(Colour::Bold, &self.name);
        let skipped: Vec<String> = self
            .skipped
            .iter()
            .filter(|(_, count)| count.as_u64().unwrap_or(0) > 0)
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        let skipped = match skipped.is_empty() {
            true => String::new(),
            false => format!(", skipped {}", skipped.join(", ")),
        };
        print(&format!(
            "{bold}  {} folded{skipped} · {} closed windows · state {} · filled in {:.2} s",
            self.folded,
            self.closed.len(),
            bytes(self.state_bytes),
            self.fold_seconds
        ));
        for value in self.values.iter().take(VALUES_MAX) {
            value.print();
        }
        if self.values.len() > VALUES_MAX {
            print(&format!("  and {} more", self.values.len() - VALUES_MAX));
        }
    }
}

impl Shown {
    fn print(&self) {
        let group = match &self.group {
            Value::Array(values) if values.is_empty() => String::new(),
            group => format!("{} ", harmless(&group.to_string())),
        };
        let value = harmless(self.value.as_deref().unwrap_or("–"));
        let about = if self.approximate { "≈ " } else { "" };
        let before = match (&self.previous, &self.change_percent) {
            (Some(previous), Some(percent)) => format!("  before {} ({percent} %)", harmless(previous)),
            (Some(previous), None) => format!("  before {}", harmless(previous)),
            _ => String::new(),
        };
        print(&format!(
            "  {group}{about}{value}{before}  {}",
            bars(&self.sparkline)
        ));
    }
}

impl Rule {
    fn print(&self) {
        let bold = Stream::Out.paint(Colour::Bold, &self.alert);
        print(&format!("{bold}  would have spoken {} times", self.count));
        for notice in self.notices.iter().take(NOTICES_MAX) {
            let title = harmless(notice.data["title"].as_str().unwrap_or_default());
            print(&format!("  {}  {title}", notice.at));
        }
        if self.count > NOTICES_MAX {
            print(&format!("  and {} more", self.count - NOTICES_MAX));
        }
    }
}

/// Numbers as a line of bars; a place without a number is empty.
fn bars(numbers: &[Option<String>]) -> String {
    let numbers: Vec<Option<f64>> = numbers
        .iter()
        .map(|number| number.as_deref().and_then(|text| text.parse().ok()))
        .collect();
    let known = || numbers.iter().flatten().copied();
    let (least, most) = (known().fold(0.0, f64::min), known().fold(0.0, f64::max));
    let span = most - least;
    let bar = |number: &Option<f64>| match number {
        None => ' ',
        Some(_) if span <= 0.0 => BARS[0],
        Some(number) => {
            let share = (number - least) / span;
            let place = BARS.iter().enumerate().rev();
            let of = |at: usize| at as f64 / (BARS.len() - 1) as f64 - 0.5 / (BARS.len() - 1) as f64;
            place
                .map(|(at, bar)| (of(at), *bar))
                .find(|(from, _)| share >= *from)
                .map_or(BARS[0], |(_, bar)| bar)
        }
    };
    numbers.iter().map(bar).collect()
}

fn bytes(count: u64) -> String {
    match count {
        0..1_024 => format!("{count} B"),
        1_024..1_048_576 => format!("{} KiB", count / 1_024),
        _ => format!("{} MiB", count / 1_048_576),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_bars() {
        let check = |numbers: &[Option<&str>], expected: &str| {
            let numbers: Vec<Option<String>> = numbers.iter().map(|n| n.map(str::to_owned)).collect();
            assert_eq!(bars(&numbers), expected, "{numbers:?}");
        };
        check(&[], "");
        check(&[None, Some("0"), Some("0")], " ▁▁");
        check(&[Some("0"), Some("7"), None, Some("3.5")], "▁█ ▅");
        check(&[Some("-5"), Some("5"), Some("open")], "▁█ ");
    }
}
