//! Logs: readable lines for people, JSON for machines, both on standard error.
//!
//! `error` = someone must act; `warn` = it recovered; `info` = the life of the process; `debug` = one client.
//! Never tokens, payloads or addresses.

use tracing_subscriber::EnvFilter;

use crate::config::Reader;

/// The NATS client repeats at `info` what our own lines say; `ROOMCAST_LOG=info,async_nats=info` shows it.
const QUIET: &str = "async_nats=warn";

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

/// Starts logging for the whole process; a second call changes nothing (tests start many services in one).
pub fn init(settings: &LogSettings) {
    let filter = format!("{QUIET},{}", settings.filter);
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match settings.format {
        LogFormat::Text => lines
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started before; the first settings stay");
    }
}
