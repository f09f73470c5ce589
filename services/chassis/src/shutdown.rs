//! Ordered shutdown: four stages, each ended in turn, all within one deadline.
//!
//! A part spawns its tasks on the stage where they must end. When shutdown is requested (by a signal, or by a part
//! that failed) the stages' tokens are cancelled one after the other, each only when the tasks of the one before
//! have ended or its share of the time is over.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::process::{Exit, Failure};

/// When a task has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// First: what lets new work in (listeners, queue subscriptions).
    Accept,
    /// Second: what serves those already in (connections, requests being worked on). Gets the most time.
    Drain,
    /// Third: what finishes behind them (flushes, acknowledgements, audit).
    Finish,
    /// Last: what the others needed until the end (NATS, the admin port).
    Close,
}

impl Stage {
    /// All stages in their order.
    pub const ALL: [Self; 4] = [Self::Accept, Self::Drain, Self::Finish, Self::Close];
}

/// How far into the whole drain time each stage may reach, in percent: what a stage does not use goes to the next.
const REACH_PERCENT: [u32; 4] = [10, 80, 95, 100];

/// The shutdown of one process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    requested: CancellationToken,
    stages: [StageTasks; 4],
    failure: Mutex<Option<Failure>>,
}

/// The token and the tasks of one stage.
#[derive(Clone, Debug, Default)]
pub struct StageTasks {
    token: CancellationToken,
    tracker: TaskTracker,
}

impl StageTasks {
    /// Cancelled when the stage's turn has come; then end.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// The tasks that are waited for; also usable to track tasks spawned elsewhere.
    #[must_use]
    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// Spawns a task that the stage waits for. It should end soon after [`StageTasks::token`] is cancelled.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(task)
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// Nothing requested yet.
    #[must_use]
    pub fn new() -> Self {
        let inner = Inner {
            requested: CancellationToken::new(),
            stages: Default::default(),
            failure: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The tasks of a stage.
    #[must_use]
    pub fn stage(&self, stage: Stage) -> &StageTasks {
        &self.inner.stages[stage as usize]
    }

    /// Spawns a task the process cannot live without: if it fails or panics, the process stops with that reason.
    pub fn spawn_vital<F>(&self, stage: Stage, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let shutdown = self.clone();
        let task = tokio::spawn(task);
        self.stage(stage).spawn(async move {
            match task.await {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => shutdown.fail(failure),
                Err(ended) => shutdown.fail(Failure::internal(format!("{name} panicked: {ended}"))),
            }
        });
    }

    /// Asks for an orderly end. The first request counts.
    pub fn request(&self) {
        self.inner.requested.cancel();
    }

    /// Asks for an orderly end because something failed; the first failure becomes the exit code.
    pub fn fail(&self, failure: Failure) {
        match failure.exit {
            Exit::Ok => tracing::info!("stopping: {failure}"),
            _ => tracing::error!(code = failure.exit as u8, "stopping: {failure}"),
        }
        self.inner
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(failure);
        self.request();
    }

    /// The failure that ended the process, if one did.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.inner
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether an end was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.inner.requested.is_cancelled()
    }

    /// Waits until an end is asked for.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn requested(&self) {
        self.inner.requested.cancelled().await;
    }

    /// A token that is cancelled when an end is asked for, before the first stage.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.inner.requested.clone()
    }

    /// Ends the stages one after the other, all within `deadline`. Answers whether every task ended in its time;
    /// those that did not are left to the end of the runtime.
    pub async fn run(&self, deadline: Duration) -> bool {
        self.request();
        let start = Instant::now();
        let mut clean = true;
        for (stage, reach) in Stage::ALL.into_iter().zip(reaches(deadline)) {
            let tasks = self.stage(stage);
            tasks.token.cancel();
            tasks.tracker.close();
            if tokio::time::timeout_at(start + reach, tasks.tracker.wait())
                .await
                .is_err()
            {
                clean = false;
                let left = tasks.tracker.len();
                tracing::warn!(
                    ?stage,
                    left,
                    "{left} tasks of stage {stage:?} did not end in time"
                );
            }
        }
        clean
    }
}

/// When each stage's time is over, counted from the start of the shutdown.
fn reaches(deadline: Duration) -> [Duration; 4] {
    REACH_PERCENT.map(|percent| deadline * percent / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_share_the_deadline() {
        let seconds = |secs: f64| Duration::from_secs_f64(secs);
        assert_eq!(
            reaches(seconds(30.0)),
            [seconds(3.0), seconds(24.0), seconds(28.5), seconds(30.0)]
        );
        assert_eq!(
            reaches(seconds(1.0)),
            [seconds(0.1), seconds(0.8), seconds(0.95), seconds(1.0)]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn stages_end_in_order_and_each_waits_for_the_one_before() {
        let shutdown = Shutdown::new();
        let (ended, mut order) = tokio::sync::mpsc::unbounded_channel();
        // Spawned in reverse, and the earlier stages are the slower ones.
        for (millis, stage) in [
            (0, Stage::Close),
            (1, Stage::Finish),
            (400, Stage::Drain),
            (50, Stage::Accept),
        ] {
            let (token, ended) = (shutdown.stage(stage).token(), ended.clone());
            shutdown.stage(stage).spawn(async move {
                token.cancelled().await;
                tokio::time::sleep(Duration::from_millis(millis)).await;
                ended.send(stage).unwrap();
            });
        }
        assert!(shutdown.run(Duration::from_secs(10)).await);
        drop(ended);
        for expected in Stage::ALL {
            assert_eq!(order.recv().await, Some(expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_never_ends_costs_its_stage_only() {
        let shutdown = Shutdown::new();
        shutdown.stage(Stage::Drain).spawn(std::future::pending::<()>());
        let close = shutdown.stage(Stage::Close).token();
        let closed = shutdown
            .stage(Stage::Close)
            .spawn(async move { close.cancelled().await });
        let start = Instant::now();
        assert!(!shutdown.run(Duration::from_secs(10)).await);
        assert_eq!(start.elapsed(), Duration::from_secs(8));
        assert!(closed.is_finished());
    }

    #[tokio::test]
    async fn a_vital_task_that_fails_or_panics_stops_the_process_with_its_reason() {
        let shutdown = Shutdown::new();
        shutdown.spawn_vital(Stage::Drain, "reader", async {
            Err(Failure::unavailable("the stream is gone"))
        });
        shutdown.requested().await;
        assert_eq!(shutdown.failure().unwrap().to_string(), "the stream is gone");
        let shutdown = Shutdown::new();
        shutdown.spawn_vital(Stage::Drain, "folder", async { panic!("on purpose") });
        shutdown.requested().await;
        assert!(
            shutdown
                .failure()
                .unwrap()
                .to_string()
                .starts_with("folder panicked")
        );
    }
}
