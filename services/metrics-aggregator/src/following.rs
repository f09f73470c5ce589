//! The definitions in force, followed while the service runs.
//!
//! What has mistakes never replaces what has none. `holder` gives the shards that a change concerns to new workers; the others hear
//! nothing of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{IntCounterVec, IntGauge};
use roomcast_admin::Audit;
use roomcast_chassis::followed::Followed;
use roomcast_chassis::metrics::Metrics;
use roomcast_chassis::process::{Context, Failure};
use roomcast_chassis::shutdown::Stage;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::definition::Definitions;
use crate::settings::Settings;

/// The definitions in force. Cheap to clone; all clones see the same.
#[derive(Debug, Clone)]
pub struct InForce {
    current: watch::Receiver<Arc<Definitions>>,
    mistakes: Arc<Mutex<Vec<String>>>,
}

impl InForce {
    /// What is in force now.
    #[must_use]
    pub fn now(&self) -> Arc<Definitions> {
        Arc::clone(&self.current.borrow())
    }

    /// The mistakes of the newest file, while what was before it is in force: none, where the newest is.
    #[must_use]
    pub fn mistakes(&self) -> Vec<String> {
        self.mistakes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until something else is in force than when this clone looked last; never again where nobody follows the file any more.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn changed(&mut self) -> Arc<Definitions> {
        if self.current.changed().await.is_err() {
            return std::future::pending().await;
        }
        Arc::clone(&self.current.borrow_and_update())
    }
}

/// The shards in which something else is worked under `new` than under `old`: those that another file leaves alone are not among them.
#[must_use]
pub fn changed_shards(old: &Definitions, new: &Definitions) -> BTreeSet<u32> {
    let shards = |definitions: &Definitions| -> Vec<u32> {
        let metrics = definitions.metrics.iter().map(|metric| metric.shard);
        metrics
            .chain(definitions.rules.iter().map(|rule| rule.shard))
            .collect()
    };
    let differs = |shard: &u32| {
        old.of_shard(*shard) != new.of_shard(*shard)
            || old.rules_of_shard(*shard) != new.rules_of_shard(*shard)
    };
    let all = shards(old).into_iter().chain(shards(new));
    all.collect::<BTreeSet<u32>>()
        .into_iter()
        .filter(differs)
        .collect()
}

/// Reads the definitions and goes on following their file until the process ends.
///
/// # Errors
/// Exit code 65 with every mistake as `file:line:column`; a metric that cannot be declared (70).
pub fn follow(settings: &Settings, audit: &Audit, context: &Context) -> Result<InForce, Failure> {
    let counts = Counts::new(&context.metrics)?;
    let text = settings.text()?;
    let definitions = settings.parse(&text)?;
    warn(&definitions);
    counts.in_force(&definitions);
    let (sender, current) = watch::channel(Arc::new(definitions));
    let in_force = InForce {
        current,
        mistakes: Arc::default(),
    };
    let follower = Follower {
        settings: settings.clone(),
        sender,
        mistakes: Arc::clone(&in_force.mistakes),
        counts,
        audit: audit.clone(),
    };
    let stage = context.shutdown.stage(Stage::Finish);
    stage.spawn(follower.run(Followed::new(Ok(text)), stage.token()));
    Ok(in_force)
}

struct Follower {
    settings: Settings,
    sender: watch::Sender<Arc<Definitions>>,
    mistakes: Arc<Mutex<Vec<String>>>,
    counts: Counts,
    audit: Audit,
}

/// What the file says, or why it cannot be read.
type Read = Result<String, String>;

impl Follower {
    async fn run(self, mut file: Followed<Read>, ending: CancellationToken) {
        let settings = self.settings.clone();
        let read = move || settings.text().map_err(|failure| failure.message);
        while let Some(Some(said)) = ending.run_until_cancelled(file.changed(read.clone())).await {
            self.look(said).await;
        }
    }

    /// Puts in force what was read, if it is good.
    async fn look(&self, read: Read) {
        let settings = self.settings.clone();
        let parse = move || {
            let text = read?;
            settings.parse(&text).map_err(|failure| failure.message)
        };
        let Ok(parsed) = tokio::task::spawn_blocking(parse).await else {
            return;
        };
        match parsed {
            Ok(definitions) => self.taken(definitions),
            Err(mistakes) => self.broken(&mistakes),
        }
    }

    fn taken(&self, definitions: Definitions) {
        let (metrics, rules) = (definitions.metrics.len(), definitions.rules.len());
        let shards = changed_shards(&self.sender.borrow(), &definitions).len();
        warn(&definitions);
        self.counts.in_force(&definitions);
        self.counts.looked("taken", false);
        self.say(Vec::new());
        let note = json!({ "outcome": "taken", "metrics": metrics, "rules": rules });
        self.audit.record("metrics", None, &note);
        tracing::info!(
            metrics,
            rules,
            shards,
            "other definitions are in force: {metrics} metrics, {rules} rules; {shards} shards change"
        );
        self.sender.send_replace(Arc::new(definitions));
    }

    fn broken(&self, mistakes: &str) {
        self.counts.looked("broken", true);
        let lines: Vec<String> = mistakes.lines().map(str::to_owned).collect();
        let count = lines.len();
        self.say(lines);
        let note = json!({ "outcome": "broken", "mistakes": count });
        self.audit.record("metrics", None, &note);
        tracing::error!(
            mistakes = count,
            "the definitions have mistakes, those before stay in force:\n{mistakes}"
        );
    }

    fn say(&self, mistakes: Vec<String>) {
        *self.mistakes.lock().unwrap_or_else(PoisonError::into_inner) = mistakes;
    }
}

fn warn(definitions: &Definitions) {
    for warning in &definitions.warnings {
        tracing::warn!("{warning}");
    }
}

/// What is counted about the file.
#[derive(Debug)]
struct Counts {
    metrics: IntGauge,
    broken: IntGauge,
    reloads: IntCounterVec,
}

impl Counts {
    fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let made = Self {
            metrics: metrics.gauge("roomcast_aggregator_definitions", "Metrics that are defined.")?,
            broken: metrics.gauge(
                "roomcast_aggregator_definitions_broken",
                "1 while the newest metrics.yaml has mistakes and the one before is in force.",
            )?,
            reloads: metrics.counter_vec(
                "roomcast_aggregator_definitions_reloads_total",
                "Times metrics.yaml was looked at because it changed, by outcome: taken, broken (mistakes in it, or unreadable).",
                &["outcome"],
            )?,
        };
        for outcome in ["taken", "broken"] {
            made.reloads.with_label_values(&[outcome]);
        }
        Ok(made)
    }

    fn in_force(&self, definitions: &Definitions) {
        self.metrics
            .set(i64::try_from(definitions.metrics.len()).unwrap_or(i64::MAX));
    }

    fn looked(&self, outcome: &str, broken: bool) {
        self.reloads.with_label_values(&[outcome]).inc();
        self.broken.set(i64::from(broken));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "version: 1
timezone: UTC
metrics:
  - { name: revenue, from: { room: bookings, type: done }, value: sum(data.amount), window: { total: true }, publish: { room: board, audience: staff } }
  - { name: customers, from: { room: bookings, type: new }, value: distinct(data.customer), window: { tumbling: day } }
  - { name: new, from: { room: bookings, type: new }, value: count(), window: { total: true } }
  - { name: done, from: { room: bookings, type: done }, value: count(), window: { total: true } }
  - { name: conversion, ratio: { of: done, to: new } }
rules:
  - { alert: many, when: new.value > 5, notify: { room: alerts, audience: staff, priority: high, title: Many } }
";

    /// What a change of the file makes other: the shards of these metrics, and no more.
    #[test]
    fn only_shards_change_in_which_something_else_is_worked() {
        let read = |text: &str| Definitions::parse(text, "metrics.yaml", None).unwrap();
        let old = read(FILE);
        let line = |name: &str| {
            let begin = format!("  - {{ name: {name},");
            let line = FILE.lines().find(|line| line.starts_with(&begin)).unwrap();
            format!("{line}\n")
        };
        let added =
            "  - { name: more, from: { room: bookings }, value: count(), window: { total: true } }\nrules:";
        let rows: [(&str, String, &[&str]); 9] = [
            ("nothing", FILE.to_owned(), &[]),
            ("a comment", format!("# Ours.\n{FILE}"), &[]),
            ("added", FILE.replace("rules:", added), &["more"]),
            ("removed", FILE.replace(&line("customers"), ""), &["customers"]),
            (
                "its meaning",
                FILE.replace("sum(data.amount)", "max(data.amount)"),
                &["revenue"],
            ),
            (
                "who sees it",
                FILE.replace(
                    "audience: staff } }\n  - { name: customers",
                    "audience: all } }\n  - { name: customers",
                ),
                &["revenue"],
            ),
            // A ratio folds both of its metrics itself.
            (
                "one of two",
                FILE.replace("type: done }, value: count()", "type: gone }, value: count()"),
                &["done", "conversion"],
            ),
            ("a rule", FILE.replace("> 5", "> 6"), &["new"]),
            (
                "the zone",
                FILE.replace("UTC", "Asia/Tokyo"),
                &["revenue", "customers", "new", "done", "conversion"],
            ),
        ];
        for (what, text, metrics) in rows {
            let new = read(&text);
            let shards: BTreeSet<u32> = [&old, &new]
                .into_iter()
                .flat_map(|file| &file.metrics)
                .filter(|metric| metrics.contains(&metric.name.as_str()))
                .map(|metric| metric.shard)
                .collect();
            assert_eq!(changed_shards(&old, &new), shards, "{what}");
        }
    }
}
