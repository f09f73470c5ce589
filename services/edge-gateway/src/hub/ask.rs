//! The doors of the hub for those who come back or look back: shards ask and are told when to ask again, tasks wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use roomcast_access::{History as HistoryPermit, Subscribe};
use roomcast_proto::cursor::Cursor;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Hub;
use super::answer::{
    History, HistoryPage, Outcome, Recovered, Recovery, Rewind, Snapshot, ToShard, Unavailable, Waiter,
};
use super::stock::{Looked, Stock};
use super::waits::WAIT_MILLIS;
use super::wants::{Part, Read, WantedPart};
use crate::delivery::{Delivery, Kind};
use crate::place::Place;
use crate::state_cache::{self, Values};
use crate::sync::{Mutex, MutexGuard};

/// The longest a task waits for a read, a little more than the hub gives it.
pub(super) const READ_WITHIN: Duration = Duration::from_millis(WAIT_MILLIS.unsigned_abs() + 1_000);
/// Tasks are waiters of this "shard".
const TASKS: usize = usize::MAX;

pub(super) const UNREAD: Unavailable = Unavailable { rate_millis: None };

pub(super) fn over_rate(wait_millis: u64) -> Unavailable {
    Unavailable {
        rate_millis: Some(wait_millis),
    }
}

/// Tasks that wait.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

impl Hub {
    /// What a subscriber gets before live; callable from any thread, blocks for microseconds.
    ///
    /// After [`Recovery::Wait`] the same waiter asks again when it is told ([`ToShard::Ready`]), within 5 s at the latest; if it is
    /// gone by then, [`Hub::forget`].
    pub fn recover(
        &self,
        permit: &Subscribe,
        from: Option<Cursor>,
        waiter: Waiter,
        now_millis: i64,
    ) -> Recovery {
        self.recover_page(permit, from, usize::MAX, waiter, now_millis)
    }

    /// The same with at most so many events; where there are that many, there may be more after the last.
    pub fn recover_page(
        &self,
        permit: &Subscribe,
        from: Option<Cursor>,
        events_max: usize,
        waiter: Waiter,
        now_millis: i64,
    ) -> Recovery {
        let found = match self.is_sure() {
            true => self.ask(|stock| stock.recover(permit, from, events_max, waiter, now_millis)),
            false => Looked::Unavailable,
        };
        self.finish(permit, found, from, now_millis)
    }

    /// The same for several rooms of one request, each from its own cursor.
    pub fn recover_pages(
        &self,
        rooms: &[(&Subscribe, Option<Cursor>)],
        events_max: usize,
        waiter: Waiter,
        now_millis: i64,
    ) -> Vec<Recovery> {
        let found: Vec<Looked> = match self.is_sure() {
            true => self.ask(|stock| {
                let look = |(permit, from): &(&Subscribe, _)| {
                    stock.recover(permit, *from, events_max, waiter, now_millis)
                };
                rooms.iter().map(look).collect()
            }),
            false => rooms.iter().map(|_| Looked::Unavailable).collect(),
        };
        let rooms = rooms.iter().zip(found);
        rooms
            .map(|((permit, from), found)| self.finish(permit, found, *from, now_millis))
            .collect()
    }

    /// What a fresh subscriber gets that wants a part of the past. `deep` is asked once before the stream is read for it; what it says
    /// is [`Recovery::Rate`].
    pub fn rewind(
        &self,
        permit: &Subscribe,
        rewind: Rewind,
        waiter: Waiter,
        now_millis: i64,
        deep: impl FnOnce() -> Result<(), u64>,
    ) -> Recovery {
        let found = match self.is_sure() {
            true => self.ask(|stock| stock.rewind(permit, rewind, waiter, now_millis, deep)),
            false => Looked::Unavailable,
        };
        self.finish(permit, found, None, now_millis)
    }

    /// What takes time with the size of a room is done here, after the lock.
    fn finish(&self, permit: &Subscribe, found: Looked, from: Option<Cursor>, now_millis: i64) -> Recovery {
        let outcome = |word| self.metrics.recoveries.with_label_values(&[word]).inc();
        match found {
            Looked::Found(found) => {
                let recovered = found.finish(permit, now_millis);
                self.count(&recovered, from);
                Recovery::Done(recovered)
            }
            Looked::Wait => Recovery::Wait,
            Looked::Unavailable => {
                outcome("unavailable");
                Recovery::Unavailable
            }
            Looked::Rate(wait_millis) => {
                outcome("rate");
                Recovery::Rate(wait_millis)
            }
        }
    }

    /// A page of the visible events before a cursor (or the newest), ascending. Waiting is as in [`Hub::recover`]. `deep` is asked once
    /// before the stream is read for it; what it says is [`History::Rate`].
    pub fn history(
        &self,
        permit: &HistoryPermit,
        before: Option<Cursor>,
        limit: usize,
        waiter: Waiter,
        now_millis: i64,
        deep: impl FnOnce() -> Result<(), u64>,
    ) -> History {
        match self.is_sure() {
            true => self.ask(|stock| stock.history(permit, before, limit.max(1), waiter, now_millis, deep)),
            false => History::Unavailable,
        }
    }

    /// The waiter is gone (its connection closed).
    pub fn forget(&self, waiter: Waiter) {
        self.stock().forget(waiter);
    }

    /// What the holder of `permit` is to be sent for a withdrawn value: the newest value of the key it may see, or the withdrawal
    /// itself when none holds. What is sent has the withdrawal's cursor. `None`: the room is not in memory and somebody else may have a
    /// value of the key, so the holder has to come back, with a cursor from before the withdrawal.
    #[must_use]
    pub fn resolve_withdrawn(
        &self,
        permit: &Subscribe,
        withdrawn: &Arc<Delivery>,
        now_millis: i64,
    ) -> Option<Arc<Delivery>> {
        let Kind::State { key, withdrawn: true } = &withdrawn.kind else {
            return Some(Arc::clone(withdrawn));
        };
        let place = Place::of(permit);
        let stock = self.stock();
        if !stock.state.knows_after(&place.key, withdrawn) {
            return None;
        }
        let holds = stock.state.newest(permit, &place.key, key, now_millis).cloned();
        // A value that came after it is on its way by itself; sent here as well, it would be followed by older ones.
        let Some(holds) = holds.filter(|holds| holds.position.rev < withdrawn.position.rev) else {
            return Some(Arc::clone(withdrawn));
        };
        drop(stock);
        Some(Arc::new(holds.at(withdrawn.position, withdrawn.mark())))
    }

    /// The room has its first member in a shard: its state stays in memory, or is remembered to have been whole.
    pub fn hold(&self, permit: &Subscribe) {
        self.stock().state.hold(&Place::of(permit).key);
    }

    /// The room's last member in a shard is gone.
    pub fn release(&self, permit: &Subscribe) {
        self.stock().state.release(&Place::of(permit).key);
    }

    /// [`Hub::recover`] for HTTP routes.
    ///
    /// # Errors
    /// It could not be read within 5 s.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn recover_async(
        &self,
        permit: &Subscribe,
        from: Option<Cursor>,
        now_millis: impl Fn() -> i64,
    ) -> Result<Recovered, Unavailable> {
        self.wait_for(|waiter| match self.recover(permit, from, waiter, now_millis()) {
            Recovery::Done(recovered) => Some(Ok(recovered)),
            Recovery::Wait => None,
            Recovery::Unavailable => Some(Err(UNREAD)),
            Recovery::Rate(wait_millis) => Some(Err(over_rate(wait_millis))),
        })
        .await
    }

    /// [`Hub::history`] for HTTP routes.
    ///
    /// # Errors
    /// It could not be read within 5 s.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn history_async(
        &self,
        permit: &HistoryPermit,
        before: Option<Cursor>,
        limit: usize,
        now_millis: impl Fn() -> i64,
        deep: impl Fn() -> Result<(), u64>,
    ) -> Result<HistoryPage, Unavailable> {
        self.wait_for(
            |waiter| match self.history(permit, before, limit, waiter, now_millis(), &deep) {
                History::Done(page) => Some(Ok(page)),
                History::Wait => None,
                History::Unavailable => Some(Err(UNREAD)),
                History::Rate(wait_millis) => Some(Err(over_rate(wait_millis))),
            },
        )
        .await
    }

    /// State and the newest `events` events in memory (0: state alone), at one cut.
    ///
    /// # Errors
    /// The state could not be read within 5 s.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn snapshot_async(
        &self,
        permit: &Subscribe,
        events: usize,
        now_millis: impl Fn() -> i64,
    ) -> Result<Snapshot, Unavailable> {
        self.wait_for(|waiter| {
            if !self.is_sure() {
                return Some(Err(UNREAD));
            }
            let now_millis = now_millis();
            let (cursor, values, events) =
                self.ask(|stock| stock.snapshot(permit, events, waiter, now_millis))?;
            let state = state_cache::newest(&values, permit, 0, false, now_millis);
            Some(Ok(Snapshot {
                cursor,
                state,
                events,
            }))
        })
        .await
    }

    /// The newest visible value of every key of the room.
    ///
    /// # Errors
    /// It could not be read within 5 s.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn state_async(
        &self,
        permit: &Subscribe,
        now_millis: impl Fn() -> i64,
    ) -> Result<Snapshot, Unavailable> {
        self.snapshot_async(permit, 0, now_millis).await
    }

    /// All values of the room at one cut, whosever they are, and its position in the stream of state: for what is counted here. What of
    /// them somebody may be told is the caller's to decide.
    ///
    /// # Errors
    /// The state could not be read within 5 s.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn whole_async(
        &self,
        place: &Place,
        now_millis: impl Fn() -> i64,
    ) -> Result<(u64, Values), Unavailable> {
        self.wait_for(|waiter| {
            if !self.is_sure() {
                return Some(Err(UNREAD));
            }
            let now_millis = now_millis();
            let (cursor, values) = self.ask(|stock| stock.whole(place, waiter, now_millis))?;
            Some(Ok((cursor.position.rev, values)))
        })
        .await
    }

    pub(super) fn new_waiter(&self) -> Waiter {
        Waiter {
            shard: TASKS,
            ticket: self.tasks.next.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Asks until there is an answer, at most 5 s and a little.
    async fn wait_for<T>(
        &self,
        mut ask: impl FnMut(Waiter) -> Option<Result<T, Unavailable>>,
    ) -> Result<T, Unavailable> {
        let waiter = self.new_waiter();
        let _guard = Gone { hub: self, waiter };
        let deadline = Instant::now() + READ_WITHIN;
        loop {
            let (told, ready) = oneshot::channel();
            self.tasks.lock().insert(waiter.ticket, told);
            if let Some(answer) = ask(waiter) {
                return answer;
            }
            // Told, or the sender was replaced: either way ask again.
            if tokio::time::timeout_at(deadline, ready).await.is_err() {
                return Err(UNREAD);
            }
        }
    }

    /// Answers from the stock, and passes on what has to be read for it.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&mut Stock) -> T) -> T {
        let mut stock = self.stock();
        let answer = question(&mut stock);
        let reads = stock.take_reads();
        drop(stock);
        for read in reads {
            if let Err(refused) = self.reads.try_send(read) {
                self.give_up(&refused.into_inner());
            }
        }
        answer
    }

    /// Tells waiters to ask again.
    pub(super) fn wake(&self, waiters: &[Waiter]) {
        if waiters.is_empty() {
            return;
        }
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        for waiter in waiters {
            if waiter.shard == TASKS {
                if let Some(told) = self.tasks.lock().remove(&waiter.ticket) {
                    let _ = told.send(());
                }
            } else if let Some(shard) = shards.get(waiter.shard) {
                shard(ToShard::Ready {
                    ticket: waiter.ticket,
                });
            }
        }
    }

    fn count(&self, recovered: &Recovered, from: Option<Cursor>) {
        self.count_room(recovered.recovery);
        if let (Outcome::Complete, Some(from)) = (recovered.recovery, from) {
            self.count_replay(recovered.events.len(), from, recovered.head);
        }
    }

    pub(super) fn count_room(&self, recovery: Outcome) {
        let metrics = &self.metrics;
        match recovery {
            Outcome::Complete => metrics.complete.inc(),
            Outcome::Fresh => metrics.fresh.inc(),
            Outcome::Incomplete { reason } => {
                metrics.recoveries.with_label_values(&[reason.as_str()]).inc();
            }
        }
    }

    pub(super) fn count_replay(&self, events: usize, from: Cursor, head: Cursor) {
        // Counts of events and positions, far below what a float holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "a histogram of magnitudes")]
        let (events, positions) = (
            events as f64,
            head.position.seq.saturating_sub(from.position.seq) as f64,
        );
        self.metrics.replayed.observe(events);
        self.metrics.replay_positions.observe(positions);
    }

    /// Which life of the streams reads are for.
    pub(crate) fn life(&self) -> u64 {
        self.stock().life
    }

    /// A read that nobody will make.
    pub(crate) fn give_up(&self, read: &Read) {
        self.metrics.reads.with_label_values(&["any", "refused"]).inc();
        self.stock().give_up(read);
    }

    /// The events to be read for a room.
    pub(crate) fn wanted_part(&self, key: &str) -> Option<WantedPart> {
        self.stock().wanted_part(key)
    }

    /// A room's state was read, or not.
    pub(crate) fn loaded(&self, key: &Arc<str>, life: u64, values: Option<Vec<(Delivery, Option<i64>)>>) {
        let waiters = self.stock().loaded(key, life, values);
        self.wake(&waiters);
    }

    /// A room's events were read, or not.
    pub(crate) fn read_part(&self, key: &Arc<str>, life: u64, part: Option<Part>, now_millis: i64) {
        let waiters = self.stock().read_part(key, life, part, now_millis);
        self.wake(&waiters);
    }

    /// A message's time was read, or not.
    pub(crate) fn timed(&self, seq: u64, time_bits: Option<u16>) {
        let waiters = self.stock().timed(seq, time_bits);
        self.wake(&waiters);
    }
}

impl Tasks {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets a task's waiter when the task ends, however it ends.
pub(super) struct Gone<'a> {
    pub(super) hub: &'a Hub,
    pub(super) waiter: Waiter,
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.hub.forget(self.waiter);
        self.hub.tasks.lock().remove(&self.waiter.ticket);
    }
}
