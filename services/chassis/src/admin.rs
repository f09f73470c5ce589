//! The admin port: `/livez`, `/readyz`, `/startupz`, `/metrics`, open to whoever reaches it (loopback by default).
//!
//! What else a service puts there (`/admin/v1/…`) is mounted with [`Admin::mount`] and brings its own checks: `roomcast-admin` does
//! both.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::http::{self, HttpMetrics, Limits};
use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::openapi::{Operation, Shape};
use crate::readiness::{Readiness, Report};
use crate::routes::Routes;

/// Connections the admin port holds at once: a few scrapers and probes, never a crowd.
const CONNECTIONS_MAX: usize = 64;

/// The admin port of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admin {
    metrics: Metrics,
    readiness: Readiness,
    mounted: Arc<OnceLock<Router>>,
}

impl Admin {
    /// Makes it; nothing is served yet.
    #[must_use]
    pub fn new(metrics: Metrics, readiness: Readiness) -> Self {
        Self {
            metrics,
            readiness,
            mounted: Arc::default(),
        }
    }

    /// Adds the service's own routes, once; also while the port is already served.
    ///
    /// # Errors
    /// Gives the router back where one is mounted already.
    pub fn mount(&self, router: Router) -> Result<(), Router> {
        self.mounted.set(router)
    }

    /// The routes that are open to whoever reaches the port.
    #[must_use]
    pub fn routes() -> Routes<Self> {
        let probe = |path, id, summary| {
            let operation = Operation::new("health", id, summary)
                .open()
                .answers_json::<Report>(200, "It holds.")
                .answers_json::<Report>(503, "It does not; why not.");
            (path, operation)
        };
        let text = || Shape::Written(serde_json::json!({ "type": "string" }));
        let live_operation = Operation::new(
            "health",
            "live",
            "Says that the process runs and its runtime answers.",
        )
        .open()
        .answers(200, "It does.", "text/plain", text());
        let figures = Operation::new("health", "metrics", "Every metric, as Prometheus reads it.")
            .open()
            .answers(200, "The metrics.", "text/plain", text())
            .answers_nothing(500, "They cannot be written; the log says why.");
        let (ready_path, ready_operation) = probe(
            "/readyz",
            "ready",
            "Says whether the process can do its work, and why not.",
        );
        let (started_path, started_operation) =
            probe("/startupz", "started", "Says whether the process was ready once.");
        Routes::new()
            .get("/livez", live_operation, live)
            .get(ready_path, ready_operation, ready)
            .get(started_path, started_operation, started)
            .get("/metrics", figures, metrics)
    }

    /// The routes as one router.
    pub fn router(&self) -> Router {
        Self::routes()
            .into_router()
            .fallback(mounted)
            .with_state(self.clone())
    }
}

/// Serves the admin port until `shutdown`.
pub async fn serve(listener: TcpListener, admin: Admin, http: HttpMetrics, shutdown: CancellationToken) {
    let limits = Limits {
        connections_max: CONNECTIONS_MAX,
        drain: std::time::Duration::from_secs(1),
        ..Limits::default()
    };
    http::serve(listener, "admin", admin.router(), limits, http, shutdown).await;
}

/// The process runs and its runtime answers.
async fn live() -> &'static str {
    "live\n"
}

async fn ready(State(admin): State<Admin>) -> Response {
    let report = admin.readiness.report();
    answer(report.ready, &report)
}

async fn started(State(admin): State<Admin>) -> Response {
    let report = admin.readiness.report();
    answer(report.started, &report)
}

fn answer(holds: bool, report: &Report) -> Response {
    let status = if holds {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, [(header::CACHE_CONTROL, "no-store")], axum::Json(report)).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn mounted(State(admin): State<Admin>, request: Request) -> Response {
    match admin.mounted.get() {
        Some(router) => router.clone().oneshot(request).await.into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
