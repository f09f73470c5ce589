//! The doors of the hub for those who follow several rooms with one cursor: streams ask as shards do, polls are held.

use std::sync::Arc;
use std::time::Duration;

use roomcast_access::Subscribe;
use roomcast_proto::cursor::Cursor;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Hub;
use super::answer::{Recovery, Unavailable, Waiter};
use super::ask::{Gone, READ_WITHIN, UNREAD, over_rate};
use super::stock::{Found, Looked};
use super::together::Together;
use crate::place::Place;

/// How long a held request rests after it was woken for nothing.
const REST: Duration = Duration::from_millis(100);

impl Hub {
    /// What a client gets in rooms that it follows together, each from its cursor, before live: of each room at most `events_max`
    /// events, so that a page of fewer shows that there are more. Waiting is as in [`Hub::recover`].
    pub fn recover_all(
        &self,
        permits: &[Arc<Subscribe>],
        from: &[Option<Cursor>],
        events_max: usize,
        waiter: Waiter,
        now_millis: i64,
    ) -> Recovery<Together> {
        let found = match self.is_sure() {
            true => self.ask(|stock| stock.recover_all(permits, from, events_max, waiter, now_millis)),
            false => Looked::Unavailable,
        };
        match found {
            Looked::Found(found) => {
                let all = finish(found, permits, from, now_millis);
                self.count_all(&all, from);
                Recovery::Done(all)
            }
            Looked::Wait => Recovery::Wait,
            Looked::Unavailable => {
                self.metrics.recoveries.with_label_values(&["unavailable"]).inc();
                Recovery::Unavailable
            }
            Looked::Rate(wait_millis) => Recovery::Rate(wait_millis),
        }
    }

    /// The same for a request that is held: answers as soon as there is something new, after `hold` in any case.
    ///
    /// # Errors
    /// A room could not be read within 5 s.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn news_async(
        &self,
        permits: &[Arc<Subscribe>],
        from: &[Option<Cursor>],
        events_max: usize,
        hold: Duration,
        now_millis: impl Fn() -> i64,
    ) -> Result<Together, Unavailable> {
        let waiter = self.new_waiter();
        let _guard = Gone { hub: self, waiter };
        let rooms: Vec<_> = permits.iter().map(|permit| Place::of(permit).key).collect();
        let until = Instant::now() + hold;
        let (mut from, mut read_until, mut woken) = (from.to_vec(), None, false);
        loop {
            if self.accepting().is_err() || !self.is_sure() {
                return Err(UNREAD);
            }
            let (told, ready) = oneshot::channel();
            self.tasks.lock().insert(waiter.ticket, told);
            let (now, over) = (now_millis(), Instant::now() >= until);
            let found = self.ask(|stock| {
                let found = stock.recover_all(permits, &from, events_max, waiter, now);
                if !over && matches!(found, Looked::Found(_)) {
                    // Under the same lock, so that nothing happens between the two.
                    stock.forget(waiter);
                    stock.watches.watch(waiter, rooms.clone());
                }
                found
            });
            match found {
                Looked::Found(found) => {
                    let all = finish(found, permits, &from, now);
                    if over || all.is_news() {
                        self.count_all(&all, &from);
                        return Ok(all);
                    }
                    // Nothing was said, so everything was said up to here.
                    from.fill(Some(all.head));
                    read_until = None;
                    if woken {
                        // It was for others in the room; a busy room is not to be looked through at each of its events.
                        tokio::time::sleep(REST.min(until - Instant::now())).await;
                    }
                    woken = tokio::time::timeout_at(until, ready).await.is_ok();
                }
                Looked::Wait => {
                    let until = *read_until.get_or_insert_with(|| Instant::now() + READ_WITHIN);
                    if tokio::time::timeout_at(until, ready).await.is_err() {
                        return Err(UNREAD);
                    }
                }
                Looked::Unavailable => return Err(UNREAD),
                Looked::Rate(wait_millis) => return Err(over_rate(wait_millis)),
            }
        }
    }

    /// A poll that found nothing new is no recovery.
    fn count_all(&self, all: &Together, from: &[Option<Cursor>]) {
        if !all.is_news() {
            return;
        }
        for room in &all.rooms {
            self.count_room(room.recovery);
        }
        let farthest = from.iter().flatten().min_by_key(|from| from.position.seq);
        if let Some(from) = farthest.filter(|_| all.is_complete()) {
            self.count_replay(all.events(), *from, all.head);
        }
    }
}

/// What takes time with the size of the rooms is done here, after the lock.
fn finish(
    (found, head): (Vec<Found>, Cursor),
    permits: &[Arc<Subscribe>],
    from: &[Option<Cursor>],
    now_millis: i64,
) -> Together {
    let recovered = found
        .into_iter()
        .zip(permits)
        .map(|(found, permit)| found.finish(permit, now_millis));
    Together::new(recovered.collect(), from, head)
}
