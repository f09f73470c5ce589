//! What this instance works at the moment, for whoever asks beside it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The shards that are worked here. Written by [`crate::holder`]; clones are the same board.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<BTreeMap<u32, Arc<AtomicBool>>>>);

impl Board {
    /// A shard is worked from now on; `caught_up` says whether it is current.
    pub fn begin(&self, shard: u32, caught_up: Arc<AtomicBool>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(shard, caught_up);
    }

    /// A shard is worked no longer.
    pub fn end(&self, shard: u32) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&shard);
    }

    /// The shards with whether they are current.
    #[must_use]
    pub fn held(&self) -> BTreeMap<u32, bool> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter()
            .map(|(shard, caught_up)| (*shard, caught_up.load(Ordering::Relaxed)))
            .collect()
    }
}
