//! What a running service works with, and the drive from its start to its end.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Exit, Failure};
use crate::admin::Admin;
use crate::config::Reader;
use crate::http::HttpMetrics;
use crate::metrics::Metrics;
use crate::nats::{Connector, NatsSettings};
use crate::readiness::Readiness;
use crate::shutdown::{Shutdown, Stage};
use crate::telemetry::LogSettings;
use crate::trace::TraceSettings;

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

/// The settings every service has.
#[derive(Clone, Debug)]
pub struct Common {
    /// `ROOMCAST_LOG…`
    pub log: LogSettings,
    /// `ROOMCAST_TRACES_…`
    pub traces: Arc<TraceSettings>,
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
            traces: Arc::new(TraceSettings::read(reader)),
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
    instance: Arc<str>,
}

impl Context {
    /// Makes a context with nothing running; [`super::run`] does it for processes, tests do it for themselves.
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
            instance: instance(common.admin_listen.port()).into(),
            service,
            common,
            metrics,
            readiness,
            shutdown,
        })
    }

    /// A name for this instance of the service: host and admin port, the same after a restart, another one beside it.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Runs the service on the current runtime until shutdown is requested or something fails, then ends the
    /// stages in order within [`Common::drain`].
    ///
    /// `serve` sets the service up and returns when that is done: the tasks it spawned on stages go on, and only then can the
    /// process be ready. An error from it stops the process. While it still runs at shutdown it counts as part of
    /// [`Stage::Drain`].
    pub async fn drive<Serving>(self, serve: impl FnOnce(Self) -> Serving) -> Exit
    where
        Serving: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let process = self.readiness.latch("process", "starting");
        let (shutdown, drain) = (self.shutdown.clone(), self.common.drain);
        let (ready, ending, set_up) = (process.clone(), shutdown.clone(), serve(self));
        shutdown.spawn_vital(Stage::Drain, "serve", async move {
            set_up.await?;
            if !ending.is_requested() {
                ready.ready();
            }
            Ok(())
        });
        shutdown.requested().await;
        process.not_ready("shutting down");
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

/// A port that the system chooses names nobody; then process and count stand for it.
fn instance(admin_port: u16) -> String {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    match admin_port {
        0 => {
            let (process, made) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
            format!("{host}-{process}-{made}")
        }
        port => format!("{host}-{port}"),
    }
}
