//! Lines that repeat: of each place in the code at most so many in a while are logged, the rest is counted and told of in one line.
//!
//! A broken neighbour makes the same line thousands of times a second; nobody reads them, and the disk that takes them may be the one
//! that is full. Lines of `debug` and `trace` are not limited: who asked for them wants all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounterVec;
use tokio_util::sync::CancellationToken;
use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata};
use tracing_subscriber::layer::{Context, Filter};

use crate::metrics::Metrics;

/// Lines of one place that are logged in one [`WHILE`]: as many as the shards of an instance twice over, which all say the same at the start.
const LINES_MAX: u32 = 40;
/// How long that counts, and how often what was left out is told of.
const WHILE: Duration = Duration::from_secs(10);

/// What each place has logged lately; as many entries as there are places in the code that log.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    places: Mutex<HashMap<Identifier, Place>>,
}

#[derive(Debug)]
struct Place {
    metadata: &'static Metadata<'static>,
    since: Instant,
    lines: u32,
    left_out: u64,
}

/// Lines of one place that were not logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    level: Level,
    /// File and line.
    place: (&'static str, u32),
    count: u64,
}

impl Repeats {
    /// Whether a line is logged at `now`; else it is counted.
    fn admits(&self, metadata: &'static Metadata<'static>, now: Instant) -> bool {
        if *metadata.level() > Level::INFO {
            return true;
        }
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match places.entry(metadata.callsite()) {
            Entry::Occupied(place) => place.into_mut(),
            Entry::Vacant(place) => place.insert(Place {
                metadata,
                since: now,
                lines: 0,
                left_out: 0,
            }),
        };
        if now.duration_since(place.since) >= WHILE {
            (place.since, place.lines) = (now, 0);
        }
        if place.lines < LINES_MAX {
            place.lines += 1;
            return true;
        }
        place.left_out += 1;
        false
    }

    /// What was left out since this was asked last.
    fn left_out(&self) -> Vec<LeftOut> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let left_out = places.values_mut().filter(|place| place.left_out > 0);
        left_out
            .map(|place| LeftOut {
                level: *place.metadata.level(),
                place: (
                    place.metadata.file().unwrap_or_default(),
                    place.metadata.line().unwrap_or_default(),
                ),
                count: std::mem::take(&mut place.left_out),
            })
            .collect()
    }

    /// Counts and tells what was left out.
    fn tell(&self, counter: &IntCounterVec) {
        for LeftOut {
            level,
            place: (file, line),
            count,
        } in self.left_out()
        {
            let label = level.as_str().to_ascii_lowercase();
            counter.with_label_values(&[&label]).inc_by(count);
            let place = format!("{file}:{line}");
            tracing::warn!(
                place,
                count,
                "{count} more lines like the last of {place} were left out"
            );
        }
    }
}

/// Lets through what [`REPEATS`](super::REPEATS) admits.
pub(super) struct Limit;

impl<S> Filter<S> for Limit {
    fn enabled(&self, _metadata: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        true
    }

    fn callsite_enabled(&self, _metadata: &'static Metadata<'static>) -> Interest {
        // Not always: the registry asserts that a line which is refused as an event was asked for before, and that is skipped then.
        Interest::sometimes()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // Its neighbour's counts.
        Some(LevelFilter::TRACE)
    }

    fn event_enabled(&self, event: &Event<'_>, _context: &Context<'_, S>) -> bool {
        super::REPEATS.admits(event.metadata(), Instant::now())
    }
}

/// Tells what is left out, every while and at the end.
///
/// # Errors
/// Where the metric cannot be declared.
pub(super) fn watch(
    metrics: &Metrics,
    ending: CancellationToken,
) -> Result<impl Future<Output = ()> + use<>, prometheus::Error> {
    let counter = metrics.counter_vec(
        "roomcast_log_lines_left_out_total",
        "Lines that were not logged because their place in the code had logged enough for the moment; the log says which.",
        &["level"],
    )?;
    for level in ["error", "warn", "info"] {
        counter.with_label_values(&[level]);
    }
    Ok(async move {
        loop {
            let last = tokio::select! {
                () = ending.cancelled() => true,
                () = tokio::time::sleep(WHILE) => false,
            };
            super::REPEATS.tell(&counter);
            if last {
                return;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing::subscriber::with_default;
    use tracing_subscriber::EnvFilter;
    use tracing_subscriber::layer::{Layer, SubscriberExt};

    use super::*;

    /// Remembers the metadata of what it hears.
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<&'static Metadata<'static>>>>);

    impl<S: tracing::Subscriber> Layer<S> for Heard {
        fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
            self.0.lock().unwrap().push(event.metadata());
        }
    }

    /// As it is put together for a process: what is left out stops nobody, and the next line of another place is logged.
    #[test]
    fn lines_are_left_out_of_a_process() {
        let heard = Heard::default();
        let lines = heard.clone().with_filter(Limit);
        let process = tracing_subscriber::registry()
            .with(EnvFilter::new("info"))
            .with(lines);
        with_default(process, || {
            for _ in 0..3 * LINES_MAX {
                tracing::info!("the same again");
                tracing::debug!("nobody asked for this");
            }
            tracing::info!("another place");
        });
        assert_eq!(heard.0.lock().unwrap().len(), LINES_MAX as usize + 1);
    }

    #[test]
    fn a_place_logs_so_many_lines_in_a_while_and_the_rest_is_told() {
        let heard = Heard::default();
        with_default(tracing_subscriber::registry().with(heard.clone()), || {
            for _ in 0..2 {
                tracing::warn!("a neighbour is away");
            }
            tracing::info!("another place");
            tracing::debug!("what somebody asked for");
        });
        let heard = heard.0.lock().unwrap();
        let [warned, again, other, debug] = heard[..] else {
            panic!("four lines");
        };
        assert_eq!(warned.callsite(), again.callsite());

        let (repeats, begin) = (Repeats::default(), Instant::now());
        let admitted = |metadata, at, of: u32| (0..of).filter(|_| repeats.admits(metadata, at)).count();
        // (place, seconds since the beginning, lines, how many of them are logged)
        let rows = [
            (warned, 0, 100, 40),
            (warned, 9, 5, 0),
            (other, 9, 5, 5),
            (debug, 9, 1_000, 1_000),
            (warned, 10, 41, 40),
        ];
        for (metadata, secs, lines, logged) in rows {
            let at = begin + Duration::from_secs(secs);
            assert_eq!(admitted(metadata, at, lines), logged, "{metadata:?} at {secs} s");
        }
        let left_out = repeats.left_out();
        let place = (file!(), warned.line().unwrap());
        let level = Level::WARN;
        assert_eq!(
            left_out,
            [LeftOut {
                level,
                place,
                count: 66
            }]
        );
        assert_eq!(repeats.left_out(), [], "told once");
    }
}
