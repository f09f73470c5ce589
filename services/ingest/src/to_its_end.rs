//! Work that is brought to its end although whoever asked for it goes away.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// A future that goes on as a task where it is dropped before its end. Until then it runs where it is awaited: a task for each request
/// would be a wake-up of another thread for each.
pub(crate) struct ToItsEnd<F>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    /// Gone with its end.
    work: Option<Pin<Box<F>>>,
    under_way: TaskTracker,
    runtime: Handle,
}

impl<F> ToItsEnd<F>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    /// Called in a runtime. Whoever waits for the tasks of `under_way` waits for what goes on.
    pub(crate) fn new(work: F, under_way: &TaskTracker) -> Self {
        Self {
            work: Some(Box::pin(work)),
            under_way: under_way.clone(),
            runtime: Handle::current(),
        }
    }
}

impl<F> Future for ToItsEnd<F>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // Out of here while it runs: what panics is not run again.
        let Some(mut work) = self.work.take() else {
            return Poll::Pending;
        };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<F> Drop for ToItsEnd<F>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            drop(self.under_way.spawn_on(work, &self.runtime));
        }
    }
}
