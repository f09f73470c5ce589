//! The life of a process: arguments, settings, logs, admin port, the service itself, signals, exit code.
//!
//! A service's `main` is one call of [`run`].

use std::fmt;
use std::future::Future;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::{self, Admin};
use crate::build;
use crate::config::{Environment, Listed, Mistakes, Reader};
use crate::http::HttpMetrics;
use crate::metrics::Metrics;
use crate::nats::{Connector, NatsSettings};
use crate::readiness::Readiness;
use crate::shutdown::{Shutdown, Stage};
use crate::telemetry::{self, LogSettings};

/// What a service is, apart from what it does.
#[derive(Debug)]
pub struct Service {
    /// The binary's name, e.g. `roomcast-ingest`; without `roomcast-` it labels every metric.
    pub name: &'static str,
    /// One sentence for `--help`.
    pub about: &'static str,
    /// Default port of the admin listener, on 127.0.0.1.
    pub admin_port: u16,
    /// Default of `ROOMCAST_NATS_API`.
    pub jetstream_api: &'static str,
}

impl Service {
    fn label(&self) -> &'static str {
        self.name.strip_prefix("roomcast-").unwrap_or(self.name)
    }
}

/// Exit codes, after sysexits.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Ended as asked.
    Ok = 0,
    /// The settings or arguments are wrong.
    Settings = 64,
    /// A file an operator wrote is wrong: `file:line:column` was printed.
    File = 65,
    /// Something this process needs cannot be used: NATS too old, a stream that differs, an address in use.
    Unavailable = 69,
    /// A mistake of ours, or an end that had to cut tasks off.
    Internal = 70,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a process ends: exit code and the words for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What is wrong and how to mend it; may have several lines.
    pub message: String,
}

impl Failure {
    /// The settings are wrong in a way only the service can see.
    pub fn settings(message: impl fmt::Display) -> Self {
        Self {
            exit: Exit::Settings,
            message: message.to_string(),
        }
    }

    /// A file is wrong; the message says `file:line:column`.
    pub fn file(message: impl fmt::Display) -> Self {
        Self {
            exit: Exit::File,
            message: message.to_string(),
        }
    }

    /// Something needed cannot be used.
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self {
            exit: Exit::Unavailable,
            message: message.to_string(),
        }
    }

    /// A mistake of ours.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self {
            exit: Exit::Internal,
            message: message.to_string(),
        }
    }
}

impl From<prometheus::Error> for Failure {
    fn from(error: prometheus::Error) -> Self {
        Self::internal(format!("a metric cannot be declared: {error}"))
    }
}

impl From<Mistakes> for Failure {
    fn from(mistakes: Mistakes) -> Self {
        Self::settings(mistakes)
    }
}

/// The settings every service has.
#[derive(Clone, Debug)]
pub struct Common {
    /// `ROOMCAST_LOG…`
    pub log: LogSettings,
    /// `ROOMCAST_ADMIN_LISTEN`
    pub admin_listen: SocketAddr,
    /// `ROOMCAST_NATS_…`
    pub nats: NatsSettings,
    /// `ROOMCAST_DRAIN_SECONDS`
    pub drain: Duration,
    /// `ROOMCAST_REPLICAS`: 1 or 3
    pub replicas: u8,
}

impl Common {
    /// Reads them, with the service's defaults.
    pub fn read(reader: &mut Reader<'_>, service: &Service) -> Self {
        let admin_default = SocketAddr::from((Ipv4Addr::LOCALHOST, service.admin_port));
        Self {
            nats: NatsSettings::read(reader, service.jetstream_api),
            replicas: reader
                .choice(
                    "ROOMCAST_REPLICAS",
                    &[("3", 3), ("1", 1)],
                    "Copies every stream must have; 1 only where NATS is a single node.",
                )
                .unwrap_or(3),
            admin_listen: reader.address(
                "ROOMCAST_ADMIN_LISTEN",
                admin_default,
                "Address of /livez, /readyz, /startupz and /metrics.",
            ),
            log: LogSettings::read(reader),
            drain: reader.seconds(
                "ROOMCAST_DRAIN_SECONDS",
                30,
                1..=3600,
                "Seconds between SIGTERM and the end of the process at the latest.",
            ),
        }
    }
}

/// What a running service works with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    /// Which service this is.
    pub service: &'static Service,
    /// Its common settings.
    pub common: Common,
    /// The registry; declare metrics here.
    pub metrics: Metrics,
    /// The latches; take one for each condition of readiness.
    pub readiness: Readiness,
    /// The end; spawn tasks on its stages.
    pub shutdown: Shutdown,
    /// The admin port's routes; mount more here.
    pub admin: Admin,
    /// Metrics for [`crate::http::serve`].
    pub http: HttpMetrics,
    /// Makes NATS connections.
    pub nats: Connector,
}

impl Context {
    /// Makes a context with nothing running; [`run`] does it for processes, tests do it for themselves.
    ///
    /// # Errors
    /// Where a metric cannot be declared, which is a mistake in the code.
    pub fn new(service: &'static Service, common: Common) -> Result<Self, prometheus::Error> {
        let metrics = Metrics::new(service.label())?;
        let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
        Ok(Self {
            admin: Admin::new(metrics.clone(), readiness.clone()),
            http: HttpMetrics::new(&metrics)?,
            nats: Connector::new(
                service.name,
                common.nats.clone(),
                &metrics,
                readiness.clone(),
                shutdown.clone(),
            )?,
            service,
            common,
            metrics,
            readiness,
            shutdown,
        })
    }

    /// Runs the service on the current runtime until shutdown is requested or something fails, then ends the
    /// stages in order within [`Common::drain`].
    ///
    /// `serve` sets the service up and may return when that is done: the tasks it spawned on stages go on. An error
    /// from it stops the process. While it still runs at shutdown it counts as part of [`Stage::Drain`].
    pub async fn drive<Serving>(self, serve: impl FnOnce(Self) -> Serving) -> Exit
    where
        Serving: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let shutdown = self.shutdown.clone();
        let (drain, readiness) = (self.common.drain, self.readiness.clone());
        let live = readiness.latch("process", "starting");
        live.ready();
        shutdown.spawn_vital(Stage::Drain, "serve", serve(self));
        shutdown.requested().await;
        live.not_ready("shutting down");
        tracing::info!(
            drain_secs = drain.as_secs(),
            "stopping, at most {} s",
            drain.as_secs()
        );
        let clean = shutdown.run(drain).await;
        match shutdown.failure() {
            Some(failure) => failure.exit,
            None if clean => Exit::Ok,
            None => Exit::Internal,
        }
    }
}

/// Makes one crypto provider the process's own, for TLS and for tokens; without it both panic at first use.
///
/// Called by [`run`]; tests and tools that do without [`run`] call it first. A second call changes nothing.
pub fn install_crypto() {
    // Err means "there is one already", which is ours or the caller's own choice.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Run,
    Check,
    Print,
    Version,
    Help,
}

/// Runs a service from start to end and answers its exit code: the whole of a `main`.
///
/// `read` reads the service's own settings (the common ones are read before). `check` verifies offline what the
/// settings point to (`--check-config`). `serve` is the service; see [`Context::drive`].
pub fn run<S, Serving>(
    service: &'static Service,
    read: impl FnOnce(&mut Reader<'_>) -> S,
    check: impl FnOnce(&S) -> Result<(), Failure>,
    serve: impl FnOnce(S, Context) -> Serving,
) -> ExitCode
where
    Serving: Future<Output = Result<(), Failure>> + Send + 'static,
{
    install_crypto();
    let command = match command(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(unknown) => {
            return complain(service, &Failure::settings(format!("{unknown}; see --help"))).into();
        }
    };
    match command {
        Command::Version => return say(&build::line(service.name)).into(),
        Command::Help => return say(&help(service, read)).into(),
        Command::Run | Command::Check | Command::Print => {}
    }
    let environment = Environment::from_process();
    let (common, settings, listed) = match settings(&environment, service, read) {
        Ok(read) => read,
        Err(mistakes) => return complain(service, &mistakes.into()).into(),
    };
    match command {
        Command::Print => say(&printed(&listed)).into(),
        Command::Check => match check(&settings) {
            Ok(()) => say("the settings and the files they name are right").into(),
            Err(failure) => complain(service, &failure).into(),
        },
        _ => started(service, common, |context| serve(settings, context)).into(),
    }
}

/// Reads common and own settings of an environment in one go.
///
/// # Errors
/// All mistakes of both.
pub fn settings<S>(
    environment: &Environment,
    service: &Service,
    read: impl FnOnce(&mut Reader<'_>) -> S,
) -> Result<(Common, S, Vec<Listed>), Mistakes> {
    let mut reader = Reader::new(environment);
    let own = read(&mut reader);
    let common = Common::read(&mut reader, service);
    let listed = reader.finish()?;
    Ok((common, own, listed))
}

fn started<Serving>(service: &'static Service, common: Common, serve: impl FnOnce(Context) -> Serving) -> Exit
where
    Serving: Future<Output = Result<(), Failure>> + Send + 'static,
{
    telemetry::init(&common.log);
    log_panics();
    tracing::info!("{} starts", build::line(service.name));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(service, &Failure::internal(format!("no runtime: {error}"))),
    };
    let exit = runtime.block_on(async {
        let context = match prepared(service, common).await {
            Ok(context) => context,
            Err(failure) => return complain(service, &failure),
        };
        context.drive(serve).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    tracing::info!(
        code = exit as u8,
        "{} ended with exit code {}",
        service.name,
        exit as u8
    );
    exit
}

/// Makes the context, opens the admin port and listens to signals.
async fn prepared(service: &'static Service, common: Common) -> Result<Context, Failure> {
    let context = Context::new(service, common)?;
    let address = context.common.admin_listen;
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::unavailable(format!("the admin port {address} cannot be opened: {error}"))
    })?;
    let stage = context.shutdown.stage(Stage::Close);
    stage.spawn(admin::serve(
        listener,
        context.admin.clone(),
        context.http.clone(),
        stage.token(),
    ));
    let watch = watch_signals(context.shutdown.clone());
    tokio::spawn(watch.map_err(|error| Failure::internal(format!("signals cannot be watched: {error}")))?);
    Ok(context)
}

/// The first SIGTERM or SIGINT asks for an orderly end, the second ends at once.
fn watch_signals(shutdown: Shutdown) -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        let mut seen = false;
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if seen {
                tracing::warn!("{name} again: ending at once");
                std::process::exit(130);
            }
            seen = true;
            tracing::info!("{name} received");
            shutdown.request();
        }
    })
}

/// Panics go to the log like everything else, with their place.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("(no message)");
        tracing::error!(place, "panic at {place}: {message}");
    }));
}

fn command(arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut command = Command::Run;
    for argument in arguments {
        let asked = match argument.as_str() {
            "--check-config" => Command::Check,
            "--print-config" => Command::Print,
            "--version" | "-V" => Command::Version,
            "--help" | "-h" => Command::Help,
            unknown => return Err(format!("unknown argument {unknown:?}")),
        };
        if command != Command::Run && command != asked {
            return Err(format!("{argument} cannot be combined with another argument"));
        }
        command = asked;
    }
    Ok(command)
}

fn help<S>(service: &Service, read: impl FnOnce(&mut Reader<'_>) -> S) -> String {
    let environment = Environment::default();
    let mut reader = Reader::new(&environment);
    read(&mut reader);
    Common::read(&mut reader, service);
    let mut text = format!(
        "{name}: {about}\n\nUsage: {name} [--check-config | --print-config | --version | --help]\n\n  \
         --check-config  say whether the settings and the files they name are right, and end\n  \
         --print-config  print all settings as they are in force, secrets masked, and end\n  \
         --version       print version and commit, and end\n  --help          print this, and end\n\n\
         Exit codes: 0 ended as asked, 64 wrong settings, 65 wrong file, 69 something needed cannot be used, 70 our \
         mistake.\n\nSettings are environment variables; NAME= means not set.\n",
        name = service.name,
        about = service.about,
    );
    for listed in reader.listed() {
        let default = listed
            .default
            .as_deref()
            .map_or_else(String::new, |default| format!(" [{default}]"));
        text.push_str(&format!("\n  {}{default}\n      {}\n", listed.name, listed.doc));
    }
    text.trim_end().to_owned()
}

fn printed(listed: &[Listed]) -> String {
    let line = |listed: &Listed| match (&listed.value, listed.set) {
        (Some(value), true) => format!("{}={value}", listed.name),
        (Some(value), false) => format!("{}={value}  # default", listed.name),
        (None, _) => format!("# {} is not set", listed.name),
    };
    listed.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn say(text: &str) -> Exit {
    // A reader that closed the pipe has read enough.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
    Exit::Ok
}

fn complain(service: &Service, failure: &Failure) -> Exit {
    let _ = writeln!(std::io::stderr().lock(), "{}: {failure}", service.name);
    failure.exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(arguments: &[&str], expected: Result<Command, &str>) {
        let found = command(arguments.iter().map(|argument| (*argument).to_owned()));
        match (&found, &expected) {
            (Err(found), Err(part)) => assert!(found.contains(part), "{found}"),
            _ => assert_eq!(found, expected.map_err(str::to_owned)),
        }
    }

    #[test]
    fn arguments_are_few_and_unknown_ones_are_mistakes() {
        check(&[], Ok(Command::Run));
        check(&["--check-config"], Ok(Command::Check));
        check(&["--print-config"], Ok(Command::Print));
        check(&["-V"], Ok(Command::Version));
        check(&["--help", "--help"], Ok(Command::Help));
        check(&["--check-confg"], Err("unknown argument \"--check-confg\""));
        check(&["--help", "--version"], Err("cannot be combined"));
        check(&["run"], Err("unknown argument"));
    }
}
