//! A shard's place in a feed: where it joins, what it takes next.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::ring::{Feed, Progress, State};
use crate::delivered::Frame;
use crate::reader::Broken;

/// Shards whose positions are further apart than this do not share: the one ahead would wait for the one behind.
const NEAR: u64 = 20_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Tap {
    pub(super) feed: Arc<Feed>,
    id: u64,
    newest: watch::Receiver<u64>,
    batch: Arc<Vec<Frame>>,
    at: usize,
    next: u64,
    /// Everything up to here was taken, or is of no interest.
    pub(super) after: u64,
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.feed.ring().taps.remove(&self.id);
        self.feed.wanted.notify_one();
    }
}

impl Tap {
    pub(super) fn new(feed: Arc<Feed>, start: u64) -> Option<Self> {
        let after = start.max(1) - 1;
        let newest = feed.newest.subscribe();
        let mut ring = feed.ring();
        match ring.state {
            State::Gathering if after.abs_diff(ring.base) <= NEAR => {
                ring.base = ring.base.min(after);
                ring.newest = ring.newest.min(after);
            }
            State::Opening | State::Open(_)
                if ring.base <= after && after <= ring.newest.saturating_add(NEAR) => {}
            _ => return None,
        }
        let (id, next) = (ring.next_tap, ring.first);
        ring.next_tap += 1;
        let debt = Duration::ZERO;
        ring.taps.insert(id, Progress { next, debt });
        drop(ring);
        Some(Self {
            feed,
            id,
            newest,
            batch: Arc::default(),
            at: 0,
            next,
            after,
        })
    }

    /// Waits until the feed reads. Answers how many events are waiting, as far as is known: 0 only where that is certain.
    pub(super) async fn opened(&mut self) -> Result<u64, Broken> {
        loop {
            self.newest.mark_unchanged();
            {
                let ring = self.feed.ring();
                match &ring.state {
                    State::Open(pending) if ring.first == 0 && ring.batches.is_empty() => {
                        return Ok(*pending);
                    }
                    State::Open(_) => return Ok(ring.pending.max(1)),
                    State::Over(broken) => return Err(broken.clone()),
                    State::Gathering | State::Opening => {}
                }
            }
            let _ = self.newest.changed().await;
        }
    }

    pub(super) async fn next(&mut self) -> Result<&Frame, Broken> {
        let at = loop {
            if let Some(at) = self.rest() {
                break at;
            }
            self.newest.mark_unchanged();
            if !self.turn()? {
                if !self.feed.ring().taps.contains_key(&self.id) {
                    return Ok(&Frame::CastOff);
                }
                let _ = self.newest.changed().await;
            }
        };
        self.batch
            .get(at)
            .ok_or_else(|| Broken::new("a batch is too short"))
    }

    /// Where in its batch the next frame is that it has not taken.
    fn rest(&mut self) -> Option<usize> {
        while let Some(frame) = self.batch.get(self.at) {
            let at = self.at;
            self.at += 1;
            match frame.seq() {
                Some(seq) if seq <= self.after => {}
                Some(seq) => {
                    self.after = seq;
                    return Some(at);
                }
                None => return Some(at),
            }
        }
        None
    }

    /// Takes the next batch, where there is one.
    fn turn(&mut self) -> Result<bool, Broken> {
        let mut ring = self.feed.ring();
        let Some(at) = self.next.checked_sub(ring.first) else {
            return Ok(false);
        };
        let batch = usize::try_from(at).ok().and_then(|at| ring.batches.get(at));
        let Some(frames) = batch.map(|batch| Arc::clone(&batch.frames)) else {
            return match &ring.state {
                State::Over(broken) => Err(broken.clone()),
                _ => Ok(false),
            };
        };
        let was_full = ring.is_full();
        let Some(progress) = ring.taps.get_mut(&self.id) else {
            return Ok(false);
        };
        self.next += 1;
        progress.next = self.next;
        drop(ring);
        (self.batch, self.at) = (frames, 0);
        if was_full {
            self.feed.wanted.notify_one();
        }
        Ok(true)
    }
}
