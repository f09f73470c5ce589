//! Readiness: named latches that say whether this process can do its work, and why not.
//!
//! Whoever needs something before work can begin takes a [`Latch`]; the process is ready when all latches are.
//! `/readyz` lists those that are not, with their reasons; `/startupz` is true from the first time all were.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;

/// All latches of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Readiness {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    latches: Mutex<Latches>,
    report: watch::Sender<Report>,
}

#[derive(Debug, Default)]
struct Latches {
    next: u64,
    by_id: BTreeMap<u64, (String, State)>,
    started: bool,
}

#[derive(Clone, Debug)]
enum State {
    NotReady(String),
    Ready,
    Degraded(String),
}

/// What is true now; the body of `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Report {
    /// Whether all latches are ready. Before the first is taken nothing is known, and it is not.
    pub ready: bool,
    /// Whether all latches were ready at least once since the start.
    pub started: bool,
    /// Latches that are not ready, with their reasons.
    pub waiting: BTreeMap<String, String>,
    /// Latches that are ready but have something to say.
    pub degraded: BTreeMap<String, String>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// Starts without latches, and not ready: whoever waits before the first is taken must not be told at once.
    #[must_use]
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                latches: Mutex::default(),
                report: watch::Sender::new(Report::default()),
            }),
        }
    }

    /// Takes a latch, which is not ready for this reason until told otherwise.
    ///
    /// A name that exists already gets a latch of its own; both must be ready.
    pub fn latch(&self, name: impl Into<String>, reason: impl Into<String>) -> Latch {
        let id = self.inner.change(|latches| {
            latches.next += 1;
            latches
                .by_id
                .insert(latches.next, (name.into(), State::NotReady(reason.into())));
            latches.next
        });
        Latch {
            held: Arc::new(Held {
                id,
                readiness: Arc::clone(&self.inner),
            }),
        }
    }

    /// What is true now.
    #[must_use]
    pub fn report(&self) -> Report {
        self.inner.report.borrow().clone()
    }

    /// Whether all latches are ready now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.inner.report.borrow().ready
    }

    /// Waits until all latches are ready at the same time.
    ///
    /// # Cancel safety
    /// Safe: it holds nothing.
    pub async fn ready(&self) {
        let mut changes = self.inner.report.subscribe();
        // The sender lives in `self`, so the wait cannot end with an error.
        let _ = changes.wait_for(|report| report.ready).await;
    }

    /// Follows the report.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Report> {
        self.inner.report.subscribe()
    }
}

impl Inner {
    fn change<T>(&self, change: impl FnOnce(&mut Latches) -> T) -> T {
        let mut latches = self.latches.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut latches);
        let mut report = Report::default();
        for (name, state) in latches.by_id.values() {
            match state {
                State::NotReady(reason) => report.waiting.insert(name.clone(), reason.clone()),
                State::Degraded(note) => report.degraded.insert(name.clone(), note.clone()),
                State::Ready => None,
            };
        }
        report.ready = report.waiting.is_empty();
        latches.started |= report.ready;
        report.started = latches.started;
        // Sent under the lock, so that reports leave in the order of the changes.
        self.report.send_if_modified(|before| {
            let changed = *before != report;
            *before = report;
            changed
        });
        result
    }
}

/// One condition of readiness. Clones are the same latch; when the last one is dropped without a last word the
/// latch is not ready for good, because nobody watches its condition any more.
#[derive(Clone, Debug)]
pub struct Latch {
    held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    id: u64,
    readiness: Arc<Inner>,
}

impl Latch {
    /// Says that the condition holds.
    pub fn ready(&self) {
        self.set(State::Ready);
    }

    /// Says that it does not, and why, in words for `/readyz`. No secrets, no addresses of clients.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(State::NotReady(reason.into()));
    }

    /// Says that it holds, with something an operator should know.
    pub fn degraded(&self, note: impl Into<String>) {
        self.set(State::Degraded(note.into()));
    }

    /// Takes the latch out: its condition no longer matters. For parts that end on purpose.
    pub fn remove(self) {
        self.held
            .readiness
            .change(|latches| latches.by_id.remove(&self.held.id));
    }

    fn set(&self, state: State) {
        self.held.readiness.change(|latches| {
            if let Some((_, held)) = latches.by_id.get_mut(&self.held.id) {
                *held = state;
            }
        });
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.readiness.change(|latches| {
            if let Some((_, state)) = latches.by_id.get_mut(&self.id) {
                *state = State::NotReady("the part that watched this has ended".to_owned());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_all_latches_are_and_started_stays() {
        let readiness = Readiness::new();
        assert!(!readiness.is_ready(), "nothing has begun");
        let nats = readiness.latch("nats", "connecting");
        let ring = readiness.latch("ring", "warming");
        assert!(!readiness.is_ready());
        assert_eq!(readiness.report().waiting["nats"], "connecting");
        nats.ready();
        ring.degraded("half warm");
        let report = readiness.report();
        assert!(report.ready && report.started);
        assert_eq!(report.degraded["ring"], "half warm");
        nats.not_ready("connection lost");
        let report = readiness.report();
        assert!(!report.ready && report.started);
    }

    #[test]
    fn a_dropped_latch_is_not_ready_and_a_removed_one_is_gone() {
        let readiness = Readiness::new();
        let kept = readiness.latch("kept", "");
        kept.ready();
        let clone = kept.clone();
        drop(kept);
        assert!(readiness.is_ready(), "a clone still watches");
        drop(clone);
        assert!(readiness.report().waiting["kept"].contains("ended"));
        let other = Readiness::new();
        other.latch("gone", "").remove();
        assert!(other.is_ready());
    }

    #[tokio::test]
    async fn ready_wakes_those_who_wait() {
        let readiness = Readiness::new();
        let latch = readiness.latch("x", "not yet");
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        latch.ready();
        waiting.await.unwrap();
    }
}
