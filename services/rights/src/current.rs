//! What is in force now, for whoever asks, and how sure that is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use roomcast_access::{InForce, Policy};
use tokio::sync::watch;

/// What is in force now. Cheap to clone; all clones see the same.
#[derive(Debug, Clone)]
pub struct Current {
    receiver: watch::Receiver<Arc<InForce>>,
    heard: Arc<Heard>,
}

/// When both buckets were last known to be read to their ends.
#[derive(Debug)]
pub(crate) struct Heard {
    start: Instant,
    /// Milliseconds after `start`; 0: never.
    at: AtomicU64,
}

impl Current {
    /// A policy that nobody changes and no grants or revocations: for tests and tools. It is as sure as it ever will be.
    #[must_use]
    pub fn fixed(policy: Policy) -> Self {
        Self::of(InForce::of(policy))
    }

    /// The same with grants and revocations.
    #[must_use]
    pub fn of(in_force: InForce) -> Self {
        Self::new(in_force).1
    }

    /// The end that changes it, and the one that is asked.
    pub(crate) fn new(in_force: InForce) -> (watch::Sender<Arc<InForce>>, Self) {
        let (sender, receiver) = watch::channel(Arc::new(in_force));
        let heard = Arc::new(Heard {
            start: Instant::now(),
            at: AtomicU64::new(0),
        });
        (sender, Self { receiver, heard })
    }

    /// What is in force.
    #[must_use]
    pub fn now(&self) -> Arc<InForce> {
        Arc::clone(&self.receiver.borrow())
    }

    /// The generation of what is in force: what was decided under another one must be decided again.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.receiver.borrow().generation
    }

    /// Waits for the next change and answers it; `None` when there will be none, because the process ends.
    ///
    /// # Cancel safety
    /// Safe; what changed meanwhile is answered by the next call.
    pub async fn changed(&mut self) -> Option<Arc<InForce>> {
        self.receiver.changed().await.ok()?;
        Some(Arc::clone(&self.receiver.borrow_and_update()))
    }

    /// For how long nobody can say whether this is still in force: the time since NATS last said that there is nothing newer.
    #[must_use]
    pub fn unsure_for(&self) -> Duration {
        let at = Duration::from_millis(self.heard.at.load(Ordering::Relaxed));
        self.heard.start.elapsed().saturating_sub(at)
    }

    pub(crate) fn heard(&self) -> Arc<Heard> {
        Arc::clone(&self.heard)
    }
}

impl Heard {
    /// A question that was sent at `asked` was answered: there is nothing newer.
    pub(crate) fn since(&self, asked: Instant) {
        let at = asked.saturating_duration_since(self.start).as_millis();
        self.at
            .fetch_max(u64::try_from(at).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
