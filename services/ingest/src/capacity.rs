//! How much work is in flight: requests and their bytes, over both doors together.
//!
//! Memory is bounded by it: each request's bytes are counted before they are kept. What does not fit is refused at once,
//! because a publisher that is told to wait knows more than one that waits.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::IngestMetrics;
use crate::quota::Share;

/// The bound on work in flight. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Capacity {
    requests: Arc<Semaphore>,
    kibibytes: Arc<Semaphore>,
    metrics: IngestMetrics,
}

/// There is no room; answer `unavailable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("as much as may be is being worked on")]
pub struct Full;

/// One request in flight; dropping it makes room.
#[derive(Debug)]
pub struct Place {
    _request: OwnedSemaphorePermit,
    bytes: Option<OwnedSemaphorePermit>,
    share: Option<Share>,
    kibibytes: Arc<Semaphore>,
    metrics: IngestMetrics,
}

impl Capacity {
    /// `bytes_max` is counted in KiB.
    #[must_use]
    pub fn new(requests_max: usize, bytes_max: usize, metrics: IngestMetrics) -> Self {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS)));
        Self {
            requests: semaphore(requests_max),
            kibibytes: semaphore(bytes_max / 1024),
            metrics,
        }
    }

    /// Takes a place for a request of which nothing is kept yet.
    ///
    /// # Errors
    /// [`Full`].
    pub fn enter(&self) -> Result<Place, Full> {
        let request = Arc::clone(&self.requests)
            .try_acquire_owned()
            .map_err(|_| self.full())?;
        self.metrics.in_flight.inc();
        let (kibibytes, metrics) = (Arc::clone(&self.kibibytes), self.metrics.clone());
        Ok(Place {
            _request: request,
            bytes: None,
            share: None,
            kibibytes,
            metrics,
        })
    }

    fn full(&self) -> Full {
        self.metrics.full.inc();
        Full
    }
}

impl Place {
    /// Holds the share of its sender as long as the place is held.
    pub fn hold(&mut self, share: Option<Share>) {
        self.share = share;
    }

    /// Makes sure that the place covers `bytes` in all, before they are kept.
    ///
    /// # Errors
    /// [`Full`]; what was covered before stays covered.
    pub fn cover(&mut self, bytes: usize) -> Result<(), Full> {
        let held = self.bytes.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.div_ceil(1024).saturating_sub(held);
        if more == 0 {
            return Ok(());
        }
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let Ok(permit) = Arc::clone(&self.kibibytes).try_acquire_many_owned(more) else {
            self.metrics.full.inc();
            return Err(Full);
        };
        match &mut self.bytes {
            Some(bytes) => bytes.merge(permit),
            None => self.bytes = Some(permit),
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_bytes_are_bounded_and_come_back() {
        let capacity = Capacity::new(2, 4096, IngestMetrics::for_tests());
        let mut first = capacity.enter().unwrap();
        let mut second = capacity.enter().unwrap();
        assert_eq!(capacity.enter().map(drop), Err(Full));
        first.cover(1).unwrap();
        first.cover(1024).unwrap();
        first.cover(1025).unwrap();
        assert_eq!(second.cover(2049), Err(Full));
        second.cover(2048).unwrap();
        drop(first);
        second.cover(4096).unwrap();
        drop(second);
        capacity.enter().unwrap().cover(4096).unwrap();
    }
}
