//! Logs: readable lines for people, JSON for machines, both on standard error.
//!
//! `error` = someone must act; `warn` = it recovered; `info` = the life of the process; `debug` = one client.
//! Never tokens, payloads or addresses. Lines that belong to a trace name it.

mod repeats;

use std::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};

use tracing::{Event, Subscriber};
use tracing_subscriber::filter::FilterExt;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::Reader;
use crate::process::Context;
use crate::shutdown::Stage;
use crate::trace::{self, Traces};
use repeats::Repeats;

/// The NATS client repeats at `info` what our own lines say; `ROOMCAST_LOG=info,async_nats=info` shows it. Steps of traces are not for lines,
/// which name them by their ids.
const QUIET: &str = "async_nats=warn,roomcast::step=off";

/// What each place in the code has logged lately.
static REPEATS: LazyLock<Repeats> = LazyLock::new(Repeats::default);

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line each.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged and how.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// The filter, e.g. `info,roomcast_ingest=debug`.
    pub filter: String,
    /// The shape.
    pub format: LogFormat,
}

impl LogSettings {
    /// Reads `ROOMCAST_LOG` and `ROOMCAST_LOG_FORMAT`.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let filter = reader.parse(
            "ROOMCAST_LOG",
            "info",
            "a level (error, warn, info, debug, trace) or a filter like info,roomcast_ingest=debug",
            "What is logged: a level, or levels by part.",
            |text| EnvFilter::try_new(text).is_ok().then(|| text.to_owned()),
        );
        let format = reader.choice(
            "ROOMCAST_LOG_FORMAT",
            &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            "How log lines look: text for people, json for machines.",
        );
        Self {
            filter: filter.unwrap_or_else(|| "info".to_owned()),
            format: format.unwrap_or(LogFormat::Text),
        }
    }
}

/// What is logged now, and the way to change it; nothing before [`init`].
static FILTER: Mutex<Option<Reloadable>> = Mutex::new(None);

struct Reloadable {
    text: String,
    handle: reload::Handle<EnvFilter, Registry>,
}

/// Why the filter stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The text is no filter.
    #[error("expected a level (error, warn, info, debug, trace) or a filter like info,roomcast_ingest=debug")]
    Unreadable,
    /// This process does not log by [`init`].
    #[error("what is logged cannot be changed in this process")]
    Fixed,
}

/// Starts logging for the whole process, and the making of steps where there are traces; a second call changes nothing (tests start many
/// services in one).
pub(crate) fn init(settings: &LogSettings, traces: Option<&Traces>) {
    let filter = parsed(&settings.filter).unwrap_or_else(|| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match settings.format {
        LogFormat::Text => lines
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .map_event_format(|inner| InTrace { inner, json: false })
            .boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .map_event_format(|inner| InTrace { inner, json: true })
            .boxed(),
    };
    // A filter of the lines alone: whatever is logged, steps are made.
    let lines = tracing_subscriber::registry().with(lines.with_filter(filter.and(repeats::Limit)));
    let started = match traces {
        Some(traces) => lines.with(traces.layer()).try_init(),
        None => lines.try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started before; the first settings stay");
        return;
    }
    *FILTER.lock().unwrap_or_else(PoisonError::into_inner) = Some(Reloadable {
        text: settings.filter.clone(),
        handle,
    });
}

/// Tells from now on what was not logged because it repeats.
///
/// # Errors
/// Where a metric cannot be declared.
pub(crate) fn watch(context: &Context) -> Result<(), prometheus::Error> {
    let stage = context.shutdown.stage(Stage::Close);
    stage.spawn(repeats::watch(&context.metrics, stage.token())?);
    Ok(())
}

/// Adds trace and step to the lines that are logged within one.
struct InTrace<F> {
    inner: F,
    json: bool,
}

impl<S, N, F> FormatEvent<S, N> for InTrace<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some((trace, step)) = trace::ids() else {
            return self.inner.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end();
        match line.strip_suffix('}').filter(|_| self.json) {
            Some(line) => writeln!(writer, "{line},\"trace_id\":\"{trace}\",\"span_id\":\"{step}\"}}"),
            None => writeln!(writer, "{line} trace_id={trace} span_id={step}"),
        }
    }
}

/// What is logged now; `None` where [`init`] was not called.
#[must_use]
pub fn filter() -> Option<String> {
    let filter = FILTER.lock().unwrap_or_else(PoisonError::into_inner);
    filter.as_ref().map(|filter| filter.text.clone())
}

/// Changes what is logged, until the process ends or it is changed again. Answers what was logged before.
///
/// # Errors
/// [`FilterError`]; then nothing has changed.
pub fn set_filter(text: &str) -> Result<String, FilterError> {
    let new = parsed(text).ok_or(FilterError::Unreadable)?;
    let mut filter = FILTER.lock().unwrap_or_else(PoisonError::into_inner);
    let current = filter.as_mut().ok_or(FilterError::Fixed)?;
    current.handle.reload(new).map_err(|_| FilterError::Fixed)?;
    Ok(std::mem::replace(&mut current.text, text.to_owned()))
}

fn parsed(text: &str) -> Option<EnvFilter> {
    EnvFilter::try_new(format!("{QUIET},{text}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, because what is logged is the process's.
    #[test]
    fn what_is_logged_can_be_changed_while_it_runs() {
        assert_eq!(filter(), None);
        assert_eq!(set_filter("debug"), Err(FilterError::Fixed));
        init(
            &LogSettings {
                filter: "warn".to_owned(),
                format: LogFormat::Text,
            },
            None,
        );
        let logged = || tracing::enabled!(tracing::Level::DEBUG);
        assert!(!logged());
        assert_eq!(set_filter("debug"), Ok("warn".to_owned()));
        assert!(logged());
        assert_eq!(set_filter("=="), Err(FilterError::Unreadable));
        assert_eq!(filter().as_deref(), Some("debug"));
        assert_eq!(set_filter("warn"), Ok("debug".to_owned()));
        assert!(!logged());
    }
}
