//! What one reader reads ahead for several shards, and how far each of them is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::Client;
use futures_util::FutureExt;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::delivered::{Delivered, Frame};
use crate::reader::{Broken, Reader};

/// Shards that begin within this time begin together.
const GATHER: Duration = Duration::from_millis(30);
/// What a feed reads ahead of its slowest shard: events, and bytes of them as they are stored.
const AHEAD_EVENTS: usize = 16_384;
const AHEAD_BYTES: usize = 16 << 20;
/// Frames of one batch.
const BATCH: usize = 256;
/// For so long in all a shard may keep the others waiting.
const PATIENCE: Duration = Duration::from_secs(1);

/// What one reader reads for several shards.
#[derive(Debug)]
pub(super) struct Feed {
    ring: Mutex<Ring>,
    /// The number of the newest batch; also moves when the feed opens or ends.
    pub(super) newest: watch::Sender<u64>,
    /// A shard took a batch, left, or asks for a probe.
    pub(super) wanted: Notify,
}

#[derive(Debug)]
pub(super) struct Ring {
    pub(super) state: State,
    pub(super) batches: VecDeque<Batch>,
    /// Number of the first of them.
    pub(super) first: u64,
    events: usize,
    bytes: usize,
    /// Every matching event behind this position is in the ring, or still to come.
    pub(super) base: u64,
    /// Position of the newest event in it.
    pub(super) newest: u64,
    /// Events behind that one.
    pub(super) pending: u64,
    pub(super) taps: BTreeMap<u64, Progress>,
    pub(super) next_tap: u64,
    /// Where the stream ended when a shard asked whether anything is left.
    pub(super) probe: Option<u64>,
}

#[derive(Debug)]
pub(super) enum State {
    /// It waits for others before it begins.
    Gathering,
    /// It has no answer yet.
    Opening,
    /// It reads; so many events were waiting at first.
    Open(u64),
    /// It has ended.
    Over(Broken),
}

#[derive(Debug)]
pub(super) struct Batch {
    pub(super) frames: Arc<Vec<Frame>>,
    bytes: usize,
    events: usize,
}

/// How far a shard is.
#[derive(Debug)]
pub(super) struct Progress {
    /// The batch it takes next.
    pub(super) next: u64,
    /// For how long it kept the others waiting.
    pub(super) debt: Duration,
}

impl Ring {
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over(_))
    }

    pub(super) fn is_full(&self) -> bool {
        self.events >= AHEAD_EVENTS || self.bytes >= AHEAD_BYTES
    }

    /// Drops what every shard has taken.
    fn drop_taken(&mut self) {
        let needed = self.taps.values().map(|tap| tap.next).min();
        while needed.is_some_and(|needed| self.first < needed)
            && let Some(batch) = self.batches.pop_front()
        {
            self.first += 1;
            self.events -= batch.events;
            self.bytes -= batch.bytes;
            let last = batch.frames.iter().rev().find_map(Frame::seq);
            self.base = last.unwrap_or(self.base).max(self.base);
        }
    }

    /// Several shards read it.
    fn is_shared(&self) -> bool {
        self.taps.len() > 1
    }

    fn push(&mut self, frames: Vec<Frame>) {
        let events = frames.iter().filter_map(Frame::event);
        let (mut count, mut bytes) = (0, 0);
        for event in events {
            count += 1;
            bytes += event.payload.len();
            self.newest = event.seq;
            self.pending = event.pending;
        }
        self.events += count;
        self.bytes += bytes;
        self.batches.push_back(Batch {
            frames: Arc::new(frames),
            bytes,
            events: count,
        });
    }
}

impl Feed {
    pub(super) fn new(start: u64) -> Self {
        let base = start.max(1) - 1;
        Self {
            ring: Mutex::new(Ring {
                state: State::Gathering,
                batches: VecDeque::new(),
                first: 0,
                events: 0,
                bytes: 0,
                base,
                newest: base,
                pending: 0,
                taps: BTreeMap::new(),
                next_tap: 0,
                probe: None,
            }),
            newest: watch::Sender::new(0),
            wanted: Notify::new(),
        }
    }

    pub(super) fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads until nobody listens.
    pub(super) async fn run(
        &self,
        client: &Client,
        api_prefix: &str,
        filters: &[String],
    ) -> Result<(), Broken> {
        tokio::time::sleep(GATHER).await;
        // Who comes from here on and is further behind is elsewhere.
        let start = self.close_gate();
        let mut reader = Reader::open(client, api_prefix, filters, start).await?;
        self.ring().state = State::Open(reader.pending_at_start);
        self.newest.send_modify(|_| {});
        loop {
            if !self.has_room().await {
                break;
            }
            let probe = self.ring().probe.take();
            if let Some(last) = probe {
                reader.probe(last).await?;
            }
            let first = tokio::select! {
                frame = reader.next() => frame?,
                () = self.wanted.notified() => continue,
            };
            let mut frames = vec![first];
            let mut ended = None;
            while frames.len() < BATCH
                && let Some(frame) = reader.next().now_or_never()
            {
                match frame {
                    Ok(frame) => frames.push(frame),
                    Err(broken) => {
                        ended = Some(broken);
                        break;
                    }
                }
            }
            let shared = self.ring().is_shared();
            if shared {
                frames
                    .iter_mut()
                    .filter_map(Frame::event_mut)
                    .for_each(Delivered::read_for_all);
            }
            self.ring().push(frames);
            self.newest.send_modify(|newest| *newest += 1);
            if let Some(broken) = ended {
                return Err(broken);
            }
        }
        reader.close().await;
        Ok(())
    }

    /// Where reading begins; from here on that does not move.
    fn close_gate(&self) -> u64 {
        let mut ring = self.ring();
        ring.state = State::Opening;
        ring.base + 1
    }

    /// Waits until there is room to read ahead. False where nobody listens any more.
    async fn has_room(&self) -> bool {
        loop {
            let (slowest, debt) = {
                let mut ring = self.ring();
                ring.drop_taken();
                let slowest = ring.taps.iter().min_by_key(|(_, tap)| tap.next);
                let Some((id, tap)) = slowest else { return false };
                let (id, debt) = (*id, tap.debt);
                if !ring.is_full() {
                    return true;
                }
                if debt >= PATIENCE && ring.taps.len() > 1 {
                    ring.taps.remove(&id);
                    self.newest.send_modify(|_| {});
                    continue;
                }
                (id, debt)
            };
            let waited = Instant::now();
            // One without company is waited for as long as it takes.
            let left = PATIENCE.saturating_sub(debt).max(Duration::from_millis(10));
            let _ = tokio::time::timeout(left, self.wanted.notified()).await;
            if let Some(tap) = self.ring().taps.get_mut(&slowest) {
                tap.debt += waited.elapsed();
            }
        }
    }
}
