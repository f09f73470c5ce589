//! The schemas in force, followed while the service runs.
//!
//! [`Schemas::now`] is what [`crate::accept`] decides by. What has mistakes never replaces what has none.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{IntCounter, IntCounterVec, IntGauge};
use roomcast_access::Mistake;
use roomcast_admin::Audit;
use roomcast_chassis::followed::Followed;
use roomcast_chassis::metrics::Metrics;
use roomcast_chassis::process::{Context, Failure};
use roomcast_chassis::shutdown::Stage;
use roomcast_schemas::folder::{self, Files};
use roomcast_schemas::{Breach, Catalog};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What is in force. Cheap to clone; all clones see the same.
#[derive(Debug, Clone)]
pub struct Schemas {
    current: watch::Receiver<Arc<Catalog>>,
    /// Types of which a breach was told since the schemas last changed: at most as many as there are.
    told: Arc<Mutex<HashSet<String>>>,
    metrics: Arc<SchemaMetrics>,
}

#[derive(Debug)]
struct SchemaMetrics {
    in_force: IntGauge,
    broken: IntGauge,
    reloads: IntCounterVec,
    warnings: IntCounter,
}

/// Reads the folder, where there is one.
///
/// # Errors
/// Exit code 65 with every mistake as `file:line:column`.
pub fn load(folder: Option<&Path>) -> Result<Catalog, Failure> {
    let Some(folder) = folder else {
        return Ok(Catalog::default());
    };
    folder::load(folder).map_err(|mistakes| Failure::file(lines(&mistakes)))
}

impl Schemas {
    /// Reads the folder and goes on following it until the process ends; without one nothing is checked, ever.
    ///
    /// # Errors
    /// As [`load`]; a metric that cannot be declared (70).
    pub fn follow(folder: Option<PathBuf>, audit: &Audit, context: &Context) -> Result<Self, Failure> {
        let metrics = Arc::new(SchemaMetrics::new(&context.metrics)?);
        let read = folder.as_deref().map(folder::read).transpose();
        let read = read
            .map_err(|mistake| Failure::file(mistake.to_string()))?
            .unwrap_or_default();
        let catalog = folder::parse(&read).map_err(|mistakes| Failure::file(lines(&mistakes)))?;
        metrics.count(&catalog);
        let (sender, current) = watch::channel(Arc::new(catalog));
        let schemas = Self {
            current,
            told: Arc::default(),
            metrics,
        };
        if let Some(folder) = folder {
            let follower = Follower {
                folder,
                sender,
                schemas: schemas.clone(),
                audit: audit.clone(),
            };
            let stage = context.shutdown.stage(Stage::Finish);
            stage.spawn(follower.run(Followed::new(Ok(read)), stage.token()));
        }
        Ok(schemas)
    }

    /// What is in force now.
    #[must_use]
    pub fn now(&self) -> Arc<Catalog> {
        Arc::clone(&self.current.borrow())
    }

    /// An event was taken although it breaks its schema: counted, and the first of its type told.
    pub fn warn(&self, kind: &str, breach: &Breach) {
        self.metrics.warnings.inc();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(kind.to_owned()) {
            let detail = &breach.detail;
            tracing::warn!(
                kind,
                detail,
                "an event {detail}; others of this type are only counted"
            );
        }
    }
}

struct Follower {
    folder: PathBuf,
    sender: watch::Sender<Arc<Catalog>>,
    schemas: Schemas,
    audit: Audit,
}

/// What the folder holds, or why it cannot be read.
type Read = Result<Files, Mistake>;

impl Follower {
    async fn run(self, mut files: Followed<Read>, ending: CancellationToken) {
        let folder = self.folder.clone();
        let read = move || folder::read(&folder);
        while let Some(Some(said)) = ending.run_until_cancelled(files.changed(read.clone())).await {
            self.look(said).await;
        }
    }

    /// Puts in force what was read, if it is good.
    async fn look(&self, read: Read) {
        let parse = move || {
            read.map_err(|mistake| vec![mistake])
                .and_then(|files| folder::parse(&files))
        };
        let Ok(parsed) = tokio::task::spawn_blocking(parse).await else {
            return;
        };
        let metrics = &self.schemas.metrics;
        match parsed {
            Ok(catalog) => {
                metrics.reloads.with_label_values(&["taken"]).inc();
                metrics.broken.set(0);
                metrics.count(&catalog);
                self.audit.record(
                    "schemas",
                    None,
                    &json!({ "outcome": "taken", "schemas": catalog.len() }),
                );
                tracing::info!(schemas = catalog.len(), "{} schemas are in force", catalog.len());
                self.schemas
                    .told
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clear();
                self.sender.send_replace(Arc::new(catalog));
            }
            Err(mistakes) => {
                metrics.reloads.with_label_values(&["broken"]).inc();
                metrics.broken.set(1);
                let note = json!({ "outcome": "broken", "mistakes": mistakes.len() });
                self.audit.record("schemas", None, &note);
                tracing::error!(
                    mistakes = mistakes.len(),
                    "the schemas have mistakes, those before stay in force:\n{}",
                    lines(&mistakes)
                );
            }
        }
    }
}

impl SchemaMetrics {
    fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let made = Self {
            in_force: metrics.gauge(
                "roomcast_ingest_schemas",
                "Schemas in force, each version of a type counted.",
            )?,
            broken: metrics.gauge(
                "roomcast_ingest_schemas_broken",
                "1 while the newest schemas have mistakes and those before are in force.",
            )?,
            reloads: metrics.counter_vec(
                "roomcast_ingest_schemas_reloads_total",
                "Folders of schemas looked at because they changed, by outcome: taken, broken (a mistake in them, or unreadable).",
                &["outcome"],
            )?,
            warnings: metrics.counter(
                "roomcast_ingest_schema_warnings_total",
                "Events that break their schema and were taken, because it only warns.",
            )?,
        };
        for outcome in ["taken", "broken"] {
            made.reloads.with_label_values(&[outcome]);
        }
        Ok(made)
    }

    fn count(&self, catalog: &Catalog) {
        self.in_force
            .set(i64::try_from(catalog.len()).unwrap_or(i64::MAX));
    }
}

/// Mistakes, one a line.
fn lines(mistakes: &[Mistake]) -> String {
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
