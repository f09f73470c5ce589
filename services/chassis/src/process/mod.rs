//! The life of a process: arguments, settings, logs, admin port, the service itself, signals, exit code.
//!
//! A service's `main` is one call of [`run`].

mod arguments;
mod context;
mod exit;
mod health;

use std::future::Future;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

pub use context::{Common, Context, Service};
pub use exit::{Exit, Failure};

use crate::config::{Environment, Listed, Mistakes, Reader};
use crate::shutdown::{Shutdown, Stage};
use crate::trace::Traces;
use crate::{admin, build, descriptors, telemetry, trace};
use arguments::{Command, command, help, printed};

/// Makes one crypto provider the process's own, for TLS and for tokens; without it both panic at first use.
///
/// Called by [`run`]; tests and tools that do without [`run`] call it first. A second call changes nothing.
pub fn install_crypto() {
    // Err means "there is one already", which is ours or the caller's own choice.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
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
        Command::Run | Command::Check | Command::Print | Command::Health => {}
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
        Command::Health => match health::health(common.admin_listen) {
            Ok(()) => Exit::Ok.into(),
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
    let (context, traces) = match opened(service, common) {
        Ok(opened) => opened,
        Err(failure) => return complain(service, &failure),
    };
    telemetry::init(&context.common.log, traces.as_ref());
    log_panics();
    descriptors::raise();
    tracing::info!("{} starts", build::line(service.name));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(service, &Failure::internal(format!("no runtime: {error}"))),
    };
    let exit = runtime.block_on(async {
        match prepared(&context, traces).await {
            Ok(()) => context.drive(serve).await,
            Err(failure) => complain(service, &failure),
        }
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

/// Makes the context, and what goes into the process's logs and traces.
fn opened(service: &'static Service, common: Common) -> Result<(Context, Option<Traces>), Failure> {
    let context = Context::new(service, common)?;
    let traces = trace::open(&context)?;
    Ok((context, traces))
}

/// Opens the admin port and listens to signals.
async fn prepared(context: &Context, traces: Option<Traces>) -> Result<(), Failure> {
    telemetry::watch(context)?;
    if let Some(traces) = traces {
        traces.run(context);
    }
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
    Ok(())
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

fn say(text: &str) -> Exit {
    // A reader that closed the pipe has read enough.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
    Exit::Ok
}

fn complain(service: &Service, failure: &Failure) -> Exit {
    let _ = writeln!(std::io::stderr().lock(), "{}: {failure}", service.name);
    failure.exit
}
