//! `roomcast simulate`, and the simulator inside `roomcast dev`: a scenario's events, or those of a recorded day, published.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use roomcast_chassis::process::Failure;
use roomcast_proto::ids::new_event_id;
use tokio_util::sync::CancellationToken;

use crate::dev_env::{self, DevEnv};
use crate::duration::shown;
use crate::ingest::{BATCH, Credential, EVENT, Ingest};
use crate::scenario::{Again, Generator, Recorded, Scenario, Told};
use crate::shop::Shop;
use crate::terminal::say;
use crate::{find, terminal};

/// Events per request: what one atomic batch of the stream takes well.
const BATCH_EVENTS: usize = 100;
/// A line of progress at most this often.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// Publishes a scenario's events to ingest: first a history if asked to, then live, until Ctrl-C. Or those of a file that `roomcast record`
/// wrote, once, at the pace at which they happened: under new ids and with the time of now, everything else as it was.
///
/// Where to and as whom is read from .roomcast/dev.env of the working directory; ROOMCAST_INGEST and ROOMCAST_TOKEN override it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    roomcast simulate --scenario bookings\n  \
    roomcast simulate --scenario bookings --seed 42 --speed 10\n  \
    roomcast simulate --scenario bookings --history 48h --once\n  \
    roomcast simulate --from day.ndjson --speed 10")]
pub(crate) struct Options {
    /// A scenario, by name or folder.
    #[arg(long, value_name = "NAME|DIR", required_unless_present = "from")]
    scenario: Option<String>,
    /// A file with an event a line, instead of a scenario.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scenario", "seed", "history", "once"])]
    from: Option<PathBuf>,
    /// The same seed tells the same stories.
    #[arg(long, default_value_t = 2)]
    seed: u64,
    /// How much faster than the scenario or the file says live goes.
    #[arg(long, default_value_t = 1.0, value_parser = parse_speed)]
    speed: f64,
    /// Publish so much of the past first, at once.
    #[arg(long, value_name = "DURATION", value_parser = crate::duration::parse)]
    history: Option<Duration>,
    /// End after the history; without one, after one story.
    #[arg(long)]
    once: bool,
    /// Print the events instead of publishing them.
    #[arg(long)]
    print: bool,
}

pub(crate) fn parse_speed(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|speed| (0.01..=1_000.0).contains(speed))
        .ok_or_else(|| "a number from 0.01 to 1000".to_owned())
}

/// Runs the command.
///
/// # Errors
/// 64: no such scenario. 65: the scenario or the file is wrong, or ingest refuses its events. 69: nowhere to publish to, or no such file.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let ending = stop.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        ending.cancel();
    });
    let sink = if options.print {
        Sink::Print
    } else {
        let env = DevEnv::load()?;
        Sink::Ingest(Box::new(Ingest::new(
            &env.require(dev_env::INGEST)?,
            Credential::Fixed(env.require(dev_env::TOKEN)?),
        )))
    };
    let name = match (&options.from, &options.scenario) {
        (Some(path), _) => return again(Recorded::open(path)?, &sink, options.speed, &stop).await,
        (None, Some(name)) => name,
        (None, None) => return Err(Failure::settings("name a --scenario, or a file with --from")),
    };
    let scenario = Arc::new(Scenario::load(&find::scenario(name)?)?);
    let now = now_micros();
    let past = options.history.map_or(0, |history| {
        i64::try_from(history.as_micros()).unwrap_or_default()
    });
    let mut simulator = Simulator::new(scenario, options.seed, now - past, now);
    if past > 0 {
        let published = simulator.history(&sink, &stop).await?;
        say(&format!(
            "{} events of history in {}",
            published.events,
            shown(published.took)
        ));
    }
    if stop.is_cancelled() || (options.once && past > 0) {
        return Ok(());
    }
    simulator.live(&sink, options.speed, options.once, &stop).await
}

/// Publishes a recorded day once, each event when it is due; what is due at once goes together.
async fn again(mut day: Recorded, sink: &Sink, speed: f64, stop: &CancellationToken) -> Result<(), Failure> {
    let began = tokio::time::Instant::now();
    let mut events: u64 = 0;
    let mut next = day.next();
    while let Some(first) = next? {
        let due = |event: &Again| began + Duration::from_micros(event.after_micros).div_f64(speed);
        tokio::select! {
            () = tokio::time::sleep_until(due(&first)) => {}
            () = stop.cancelled() => break,
        }
        let line = first.line;
        let mut batch = vec![first.event(&new_event_id(), now_micros())];
        // What is no event waits for its turn as an event does: what stands before it is published.
        next = loop {
            match day.next() {
                Ok(Some(event))
                    if batch.len() < BATCH_EVENTS && due(&event) <= tokio::time::Instant::now() =>
                {
                    batch.push(event.event(&new_event_id(), now_micros()));
                }
                later => break later,
            }
        };
        events += batch.len() as u64;
        let put = match (sink, batch.len()) {
            (Sink::Print, _) | (_, 1) => sink.put(EVENT, batch.join("\n"), stop).await,
            _ => sink.put(BATCH, format!("[{}]", batch.join(",")), stop).await,
        };
        if !put.map_err(|failure| day.wrong(line, &format!("from here on: {}", failure.message)))? {
            break;
        }
    }
    say(&format!("{events} events in {}", shown(began.elapsed())));
    Ok(())
}

/// Where events go.
#[derive(Debug)]
pub(crate) enum Sink {
    Ingest(Box<Ingest>),
    /// Rows of its database, and only what those cannot say to ingest.
    Shop(Box<Shop>),
    Print,
}

impl Sink {
    /// Says what happens now.
    async fn tell(&self, told: &Told, stop: &CancellationToken) -> Result<bool, Failure> {
        if let Self::Shop(shop) = self
            && let Some(statement) = shop.statement(&told.data)
        {
            return shop.write(&statement, stop).await;
        }
        let event = Generator::event(told, &new_event_id(), now_micros());
        self.put(EVENT, event, stop).await
    }

    /// `false`: stopped meanwhile, or nobody reads.
    async fn put(&self, kind: &str, body: String, stop: &CancellationToken) -> Result<bool, Failure> {
        let ingest = match self {
            Self::Print => return Ok(terminal::print(&body)),
            Self::Ingest(ingest) => ingest,
            Self::Shop(shop) => &shop.site,
        };
        let stored = ingest.post_until_stored(kind, body.into(), stop).await;
        stored.map_err(|refused| Failure::file(refused.to_string()))
    }
}

/// What a history came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) events: u64,
    pub(crate) took: Duration,
}

/// Publishes what a [`Generator`] tells, when it is due.
#[derive(Debug)]
pub(crate) struct Simulator {
    generator: Generator,
    live_from: i64,
    /// The first event after history, already told.
    kept: Option<Told>,
}

impl Simulator {
    /// History from `start` to `live_from` (Unix microseconds), then live.
    pub(crate) fn new(scenario: Arc<Scenario>, seed: u64, start: i64, live_from: i64) -> Self {
        Self {
            generator: Generator::new(scenario, seed, start, live_from),
            live_from,
            kept: None,
        }
    }

    /// Publishes the history, in order, in batches; each event at its own time under a new id.
    ///
    /// # Errors
    /// 65: ingest refused an event.
    pub(crate) async fn history(
        &mut self,
        sink: &Sink,
        stop: &CancellationToken,
    ) -> Result<Published, Failure> {
        let began = Instant::now();
        let mut spoke = began;
        let mut published = Published {
            events: 0,
            took: Duration::ZERO,
        };
        loop {
            let batch = self.batch();
            if batch.is_empty() {
                break;
            }
            published.events += batch.len() as u64;
            let goes_on = match sink {
                Sink::Ingest(_) | Sink::Shop(_) => {
                    sink.put(BATCH, format!("[{}]", batch.join(",")), stop).await?
                }
                Sink::Print => sink.put(EVENT, batch.join("\n"), stop).await?,
            };
            if !goes_on {
                break;
            }
            if spoke.elapsed() >= PROGRESS_EVERY {
                spoke = Instant::now();
                say(&format!("  … {} events of history", published.events));
            }
        }
        published.took = began.elapsed();
        Ok(published)
    }

    /// The next events of history, as JSON; none when it is over.
    fn batch(&mut self) -> Vec<String> {
        let mut batch = Vec::with_capacity(BATCH_EVENTS);
        while batch.len() < BATCH_EVENTS && self.kept.is_none() {
            let Some(told) = self.generator.next() else { break };
            if told.at < self.live_from {
                batch.push(Generator::event(&told, &new_event_id(), told.at));
            } else {
                self.kept = Some(told);
            }
        }
        batch
    }

    /// Publishes one event after the other when it is due, until stopped; `one_story` ends with the first story's last event.
    ///
    /// # Errors
    /// 65: ingest refused an event.
    pub(crate) async fn live(
        &mut self,
        sink: &Sink,
        speed: f64,
        one_story: bool,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let began = tokio::time::Instant::now();
        let first = now_micros().max(self.live_from);
        loop {
            let Some(told) = self.kept.take().or_else(|| self.generator.next()) else {
                return Ok(());
            };
            let due =
                Duration::from_micros(u64::try_from(told.at - first).unwrap_or_default()).div_f64(speed);
            tokio::select! {
                () = tokio::time::sleep_until(began + due) => {}
                () = stop.cancelled() => return Ok(()),
            }
            if !sink.tell(&told, stop).await? || (one_story && told.last) {
                return Ok(());
            }
        }
    }
}

/// The system's clock, Unix microseconds.
pub(crate) fn now_micros() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_comes_in_full_batches_and_ends_where_live_begins() {
        let scenario = Arc::new(Scenario::load(&find::scenario("bookings").unwrap()).unwrap());
        let now = 1_790_000_000_000_000;
        let mut simulator = Simulator::new(scenario, 1, now - 3_600_000_000, now);
        let sizes: Vec<usize> =
            std::iter::from_fn(|| Some(simulator.batch().len()).filter(|size| *size > 0)).collect();
        assert!(
            sizes.len() > 2 && sizes[..sizes.len() - 1].iter().all(|size| *size == BATCH_EVENTS),
            "{sizes:?}"
        );
        assert!(simulator.kept.as_ref().is_some_and(|told| told.at >= now));
        assert_eq!(simulator.batch().len(), 0);
    }

    #[test]
    fn speeds_have_bounds() {
        assert_eq!(parse_speed("10"), Ok(10.0));
        for bad in ["0", "-1", "inf", "NaN", "x", "1001"] {
            assert!(parse_speed(bad).is_err(), "{bad}");
        }
    }
}
