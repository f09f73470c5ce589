//! How many requests may be held at the same time.

use std::sync::Arc;

use prometheus::IntGauge;
use roomcast_proto::refusal::{Code, Refusal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// When to come back to a gateway that holds as many as it may, milliseconds.
const RETRY_MS: u64 = 5_000;

/// Places for held requests. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Holds {
    places: Arc<Semaphore>,
    count: IntGauge,
}

/// One of the places; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    _place: OwnedSemaphorePermit,
    count: IntGauge,
}

impl Holds {
    /// So many places, with the gauge of those that are taken.
    #[must_use]
    pub fn new(most: usize, count: IntGauge) -> Self {
        Self {
            places: Arc::new(Semaphore::new(most)),
            count,
        }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// `unavailable` when all are taken: `wait=0` is answered all the same.
    pub(super) fn take(&self) -> Result<Held, Refusal> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let detail = "as many requests are held as may be; ask with wait=0";
            Refusal::new(Code::Unavailable, detail).retry_after_ms(RETRY_MS)
        })?;
        self.count.inc();
        Ok(Held {
            _place: place,
            count: self.count.clone(),
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.count.dec();
    }
}
