//! Stores events one after the other: none is sent before all earlier ones are where they belong.
//!
//! In atomic batches, whatever the number of replicas: a batch is stored whole and in order, or not at all. Alone, an event is waited for.
//! Pipelining would be as fast on three nodes, and would let a later event pass one that has to be sent again.

use std::time::Instant;

use roomcast_chassis::jetstream::{At, StoredMessage};
use roomcast_proto::event::Delivery;
use roomcast_proto::refusal::Refusal;
use roomcast_proto::subject::stream as names;

use super::steps::message;
use super::{BATCH_MAX, Inner, Placed, Store};
use crate::accept::Placement;
use crate::error::{unavailable, unknown};

impl Store {
    /// Stores as many as can be stored until `until`, in order. One result each, as far as it came; behind a temporary refusal nothing was
    /// sent, but for a batch that had no answer, and of its events that is said.
    ///
    /// # Cancel safety
    /// Dropped, what was sent may be stored; the same ids give the one result.
    pub async fn take_in_order(
        &self,
        placements: &[&Placement],
        until: Instant,
    ) -> Vec<Result<Placed, Refusal>> {
        self.inner.in_order(placements, until).await
    }

    /// Judges an event of which the stream is known to hold one with the same id.
    ///
    /// # Errors
    /// `conflict`; `unknown`: ask again.
    pub async fn judge_stored(&self, placement: &Placement, seq: u64) -> Result<Placed, Refusal> {
        self.inner.compare(placement, names::EVENTS, seq, false).await
    }

    /// The value that a state event would replace, read from the leader.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn state_now(&self, placement: &Placement) -> Result<Option<StoredMessage>, Refusal> {
        let held = self
            .inner
            .jetstream
            .message(names::STATE, At::Last(&placement.subject));
        held.await.map_err(|error| {
            tracing::debug!(%error, "a state value cannot be read: {error}");
            unavailable("a state value cannot be read")
        })
    }
}

/// What became of a batch.
enum Run {
    Stored,
    Apart { perhaps_stored: bool },
}

impl Inner {
    /// As [`Store::take_in_order`].
    pub(super) async fn in_order(
        &self,
        placements: &[&Placement],
        until: Instant,
    ) -> Vec<Result<Placed, Refusal>> {
        let mut results = Vec::with_capacity(placements.len());
        while let Some(rest) = placements.get(results.len()..).filter(|rest| !rest.is_empty()) {
            let run = self.run(rest);
            let perhaps_stored = match self.place_run(&rest[..run], until, &mut results).await {
                Run::Stored => continue,
                Run::Apart { perhaps_stored } => perhaps_stored,
            };
            for (index, placement) in rest[..run].iter().enumerate() {
                let placed = match self.too_late(until) {
                    Some(_) if perhaps_stored => Err(unknown(&placement.msg_id)),
                    Some(why) => Err(unavailable(why)),
                    None => self.place(placement, perhaps_stored).await,
                };
                let stop = placed.as_ref().is_err_and(|refusal| refusal.code.temporary());
                results.push(placed);
                if stop {
                    // The batch with those behind it had no answer, or they were not sent.
                    let behind = rest[index + 1..run].iter().filter(|_| perhaps_stored);
                    results.extend(behind.map(|placement| Err(unknown(&placement.msg_id))));
                    return results;
                }
            }
        }
        results
    }

    /// Why nothing more may be begun.
    fn too_late(&self, until: Instant) -> Option<&'static str> {
        let late = || (Instant::now() >= until).then_some("it takes too long");
        self.standing.closed().or_else(late)
    }

    /// How many of the first placements may go together: events whose id is new to this instance.
    fn run(&self, placements: &[&Placement]) -> usize {
        let fresh = |placement: &&&Placement| {
            placement.class == Delivery::Event && self.recent.is_new(&placement.msg_id)
        };
        let run = placements.iter().take(BATCH_MAX).take_while(fresh).count();
        run.max(1)
    }

    async fn place_run(
        &self,
        run: &[&Placement],
        until: Instant,
        results: &mut Vec<Result<Placed, Refusal>>,
    ) -> Run {
        let apart = Run::Apart {
            perhaps_stored: false,
        };
        if run.len() < 2 {
            return apart;
        }
        let left = until.saturating_duration_since(Instant::now());
        let Ok(Ok(_place)) = tokio::time::timeout(left, self.batch_places.acquire()).await else {
            return apart;
        };
        if self.too_late(until).is_some() {
            return apart;
        }
        let messages = run.iter().map(|placement| message(placement)).collect();
        match self.batch(messages).await {
            Ok(placed) => {
                results.extend(placed.map(Ok));
                Run::Stored
            }
            Err(perhaps_stored) => Run::Apart { perhaps_stored },
        }
    }
}
