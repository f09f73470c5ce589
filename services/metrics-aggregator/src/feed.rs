//! One reader for all shards of this instance that read the same rooms: an event comes over the wire once, whatever the number of shards.
//!
//! A feed reads ahead into a ring of batches, and each shard takes them at its own pace. A shard that keeps the others waiting for more
//! than a second in all is cast off and goes on with a reader of its own; so does one that begins elsewhere than the feed is. A shard
//! without company is a feed of one. Where there are several the feed reads what an event says, and the shards need not.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_nats::Client;
use futures_util::FutureExt;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::reader::{Broken, Delivered, Frame, Reader};

/// Shards that begin within this time begin together.
const GATHER: Duration = Duration::from_millis(30);
/// Shards whose positions are further apart than this do not share: the one ahead would wait for the one behind.
const NEAR: u64 = 20_000;
/// What a feed reads ahead of its slowest shard: events, and bytes of them as they are stored. What they say is as much again.
const AHEAD_EVENTS: usize = 16_384;
const AHEAD_BYTES: usize = 16 << 20;
/// Frames of one batch.
const BATCH: usize = 256;
/// For so long in all a shard may keep the others waiting.
const PATIENCE: Duration = Duration::from_secs(1);

/// All feeds of an instance. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Feeds {
    client: Client,
    api_prefix: Arc<str>,
    by_filters: Arc<Mutex<HashMap<Vec<String>, Weak<Feed>>>>,
}

impl Feeds {
    /// None yet.
    #[must_use]
    pub fn new(client: Client, api_prefix: Arc<str>) -> Self {
        Self {
            client,
            api_prefix,
            by_filters: Arc::default(),
        }
    }

    /// What comes from `start` (at least 1) on: with others, where that is possible.
    ///
    /// # Errors
    /// [`Broken`], for whatever reason.
    pub async fn open(&self, mut filters: Vec<String>, start: u64) -> Result<Source, Broken> {
        filters.sort_unstable();
        let tap = self.join(&filters, start);
        let Some(mut tap) = tap else {
            return self.alone(&filters, start).await;
        };
        let pending_at_start = tap.opened().await?;
        Ok(Source {
            pending_at_start,
            way: Way::Feed(tap),
            feeds: self.clone(),
            filters,
        })
    }

    async fn alone(&self, filters: &[String], start: u64) -> Result<Source, Broken> {
        let reader = Reader::open(&self.client, &self.api_prefix, filters, start).await?;
        Ok(Source {
            pending_at_start: reader.pending_at_start,
            way: Way::Reader(Box::new(reader)),
            feeds: self.clone(),
            filters: filters.to_vec(),
        })
    }

    /// A place in the feed of these filters, which is made where there is none. `None`: it is elsewhere.
    fn join(&self, filters: &[String], start: u64) -> Option<Tap> {
        let mut by_filters = self.by_filters.lock().unwrap_or_else(PoisonError::into_inner);
        by_filters.retain(|_, feed| feed.strong_count() > 0);
        let known = by_filters.get(filters).and_then(Weak::upgrade);
        if let Some(feed) = known.filter(|feed| !feed.ring().is_over()) {
            return Tap::new(feed, start);
        }
        let feed = Arc::new(Feed::new(start));
        by_filters.insert(filters.to_vec(), Arc::downgrade(&feed));
        let tap = Tap::new(Arc::clone(&feed), start);
        let (client, prefix, filters) = (
            self.client.clone(),
            Arc::clone(&self.api_prefix),
            filters.to_vec(),
        );
        tokio::spawn(async move {
            let ended = feed.run(&client, &prefix, &filters).await;
            feed.ring().state = State::Over(ended.err().unwrap_or_else(|| Broken::new("nobody listens")));
            feed.newest.send_modify(|_| {});
        });
        tap
    }
}

/// Where a shard's events come from.
#[derive(Debug)]
pub struct Source {
    /// Events that were waiting when it was opened.
    pub pending_at_start: u64,
    way: Way,
    feeds: Feeds,
    filters: Vec<String>,
}

#[derive(Debug)]
enum Way {
    Feed(Tap),
    Reader(Box<Reader>),
}

impl Source {
    /// The next thing that happens. [`Frame::CastOff`]: call [`Source::go_alone`] before the next one.
    ///
    /// # Errors
    /// [`Broken`].
    ///
    /// # Cancel safety
    /// As [`Reader::next`].
    pub async fn next(&mut self) -> Result<Frame, Broken> {
        match &mut self.way {
            Way::Feed(tap) => tap.next().await,
            Way::Reader(reader) => reader.next().await,
        }
    }

    /// The next thing, where it is there already.
    pub fn ready(&mut self) -> Option<Result<Frame, Broken>> {
        self.next().now_or_never()
    }

    /// Goes on with a reader of its own, at the same place.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn go_alone(&mut self) -> Result<(), Broken> {
        if let Way::Feed(tap) = &self.way {
            *self = self.feeds.alone(&self.filters, tap.after + 1).await?;
        }
        Ok(())
    }

    /// As [`Reader::probe`].
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn probe(&mut self, last_seq: u64) -> Result<(), Broken> {
        match &mut self.way {
            Way::Reader(reader) => reader.probe(last_seq).await,
            Way::Feed(tap) => {
                let mut ring = tap.feed.ring();
                ring.probe = ring.probe.max(Some(last_seq));
                drop(ring);
                tap.feed.wanted.notify_one();
                Ok(())
            }
        }
    }

    /// Lets the server forget the consumer now rather than later.
    pub async fn close(self) {
        if let Way::Reader(reader) = self.way {
            reader.close().await;
        }
    }
}

/// What one reader reads for several shards.
#[derive(Debug)]
struct Feed {
    ring: Mutex<Ring>,
    /// The number of the newest batch; also moves when the feed opens or ends.
    newest: watch::Sender<u64>,
    /// A shard took a batch, left, or asks for a probe.
    wanted: Notify,
}

#[derive(Debug)]
struct Ring {
    state: State,
    batches: VecDeque<Batch>,
    /// Number of the first of them.
    first: u64,
    events: usize,
    bytes: usize,
    /// Every matching event behind this position is in the ring, or still to come.
    base: u64,
    /// Position of the newest event in it.
    newest: u64,
    /// Events behind that one.
    pending: u64,
    taps: BTreeMap<u64, Progress>,
    next_tap: u64,
    /// Where the stream ended when a shard asked whether anything is left.
    probe: Option<u64>,
}

#[derive(Debug)]
enum State {
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
struct Batch {
    frames: Arc<[Frame]>,
    bytes: usize,
    events: usize,
}

/// How far a shard is.
#[derive(Debug)]
struct Progress {
    /// The batch it takes next.
    next: u64,
    /// For how long it kept the others waiting.
    debt: Duration,
}

impl Ring {
    fn is_over(&self) -> bool {
        matches!(self.state, State::Over(_))
    }

    fn is_full(&self) -> bool {
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
            frames: frames.into(),
            bytes,
            events: count,
        });
    }
}

impl Feed {
    fn new(start: u64) -> Self {
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

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads until nobody listens.
    async fn run(&self, client: &Client, api_prefix: &str, filters: &[String]) -> Result<(), Broken> {
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

/// A shard's place in a feed.
#[derive(Debug)]
struct Tap {
    feed: Arc<Feed>,
    id: u64,
    newest: watch::Receiver<u64>,
    batch: Option<Arc<[Frame]>>,
    at: usize,
    next: u64,
    /// Everything up to here was taken, or is of no interest.
    after: u64,
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.feed.ring().taps.remove(&self.id);
        self.feed.wanted.notify_one();
    }
}

impl Tap {
    fn new(feed: Arc<Feed>, start: u64) -> Option<Self> {
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
            batch: None,
            at: 0,
            next,
            after,
        })
    }

    /// Waits until the feed reads. Answers how many events are waiting, as far as is known: 0 only where that is certain.
    async fn opened(&mut self) -> Result<u64, Broken> {
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

    async fn next(&mut self) -> Result<Frame, Broken> {
        loop {
            while let Some(frame) = self.batch.as_ref().and_then(|batch| batch.get(self.at)) {
                self.at += 1;
                match frame.seq() {
                    Some(seq) if seq <= self.after => {}
                    Some(seq) => {
                        self.after = seq;
                        return Ok(frame.clone());
                    }
                    None => return Ok(frame.clone()),
                }
            }
            self.newest.mark_unchanged();
            if !self.turn()? {
                if !self.feed.ring().taps.contains_key(&self.id) {
                    return Ok(Frame::CastOff);
                }
                let _ = self.newest.changed().await;
            }
        }
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
        (self.batch, self.at) = (Some(frames), 0);
        if was_full {
            self.feed.wanted.notify_one();
        }
        Ok(true)
    }
}
