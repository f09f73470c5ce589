//! Answers over HTTP that are not written yet: what they hold together, and which of them give way.
//!
//! Each is made at once and taken as slowly as its client likes. Together they hold half of what may wait in the process (`backlog`), and
//! those to one token an eighth of that; one alone may be longer. Beyond that those go that have had their time, the fattest first; where
//! that is not enough, there is no room for one more. Called by the routes with each answer; the connection of one that goes is cut by
//! `accept`.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use roomcast_proto::refusal::{Code, Refusal};
use slab::Slab;
use tokio_util::sync::CancellationToken;

use crate::backlog::{self, Backlog};

/// Shorter ones are not counted: the head of an answer is as long.
const BYTES_MIN: usize = 1_024;
/// A client that takes an answer at this rate, 1 Mbit/s, is never cut, bytes a second.
const RATE_MIN: u64 = 128 * 1_024;
/// Of what all answers may hold, those to one token hold no more than one part of so many: who asks for much is not in others' way.
const SHARES: usize = 8;
/// When to ask again where there is no room, milliseconds.
const RETRY_MILLIS: u64 = 1_000;

/// The answers of the process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Unwritten(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    backlog: Backlog,
    patience: Duration,
    began: Instant,
    /// Tokens are told apart by their hashes: of this process alone.
    hashes: RandomState,
    answers: Mutex<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    bytes: usize,
    waiting: Slab<Waiting>,
    /// Of `bytes`, those to each token.
    own: HashMap<u64, usize>,
}

#[derive(Debug)]
struct Waiting {
    /// 0: it gives way, and holds nothing as soon as its connection is cut.
    bytes: usize,
    /// Whose it is.
    whose: u64,
    since_millis: u64,
    cut: CancellationToken,
}

/// There is no room for one more answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl NoRoom {
    /// What is answered instead.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        let detail = "too many answers wait for clients that read slowly";
        Refusal::new(Code::Unavailable, detail).retry_after_ms(RETRY_MILLIS)
    }
}

/// An answer that is counted for as long as anybody holds it.
struct Counted {
    bytes: Bytes,
    key: usize,
    unwritten: Unwritten,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut answers = self.unwritten.answers();
        if let Some(waiting) = answers.waiting.try_remove(self.key) {
            self.unwritten.free(&mut answers, waiting.whose, waiting.bytes);
        }
    }
}

impl Unwritten {
    /// No answers yet. `patience`: what each has, beside what its length takes at a rate of 1 Mbit/s, before it may have to give way.
    #[must_use]
    pub fn new(backlog: Backlog, patience: Duration) -> Self {
        Self(Arc::new(Inner {
            backlog,
            patience,
            began: Instant::now(),
            hashes: RandomState::new(),
            answers: Mutex::default(),
        }))
    }

    /// Who is asked for by this token; strangers are one.
    #[must_use]
    pub fn whose(&self, token: &[u8]) -> u64 {
        self.0.hashes.hash_one(token)
    }

    /// Counts an answer until its bytes are dropped; `cut` is cancelled where it has to give way. How many others have to for this one.
    ///
    /// # Errors
    /// [`NoRoom`]; nobody had to go.
    pub fn hold(
        &self,
        bytes: Bytes,
        whose: u64,
        cut: &CancellationToken,
        now: Instant,
    ) -> Result<(Bytes, usize), NoRoom> {
        let mut answers = self.answers();
        let own = answers.own.get(&whose).copied().unwrap_or(0);
        if own > 0 && bytes.len() >= BYTES_MIN && own + bytes.len() > self.0.backlog.answers_max() / SHARES {
            return Err(NoRoom);
        }
        let gone = self.make_room(&mut answers, bytes.len(), now)?;
        Ok((self.count(answers, bytes, whose, cut, now), gone))
    }

    /// The same for one that has to be written whatever waits: it says what was done, or takes the place of a longer one that was counted.
    #[must_use]
    pub fn hold_anyway(&self, bytes: Bytes, whose: u64, cut: &CancellationToken, now: Instant) -> Bytes {
        self.count(self.answers(), bytes, whose, cut, now)
    }

    fn make_room(&self, answers: &mut Answers, bytes: usize, now: Instant) -> Result<usize, NoRoom> {
        if bytes < BYTES_MIN {
            return Ok(0);
        }
        let excess = (answers.bytes + bytes).saturating_sub(self.0.backlog.answers_max());
        if excess == 0 || answers.bytes == 0 {
            return Ok(0);
        }
        let patience = u64::try_from(self.0.patience.as_millis()).unwrap_or(u64::MAX);
        let too_long = |waiting: &Waiting| {
            let takes = (waiting.bytes as u64).saturating_mul(1_000) / RATE_MIN;
            waiting
                .since_millis
                .saturating_add(patience)
                .saturating_add(takes)
                <= self.millis(now)
        };
        let waiting: Vec<_> = answers
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.bytes > 0 && too_long(waiting))
            .map(|(key, waiting)| {
                let key = u32::try_from(key).unwrap_or(u32::MAX);
                (waiting.bytes, waiting.since_millis, key)
            })
            .collect();
        let all: usize = waiting.iter().map(|(bytes, ..)| bytes).sum();
        // One that is longer than all may be together needs only to be alone.
        let excess = excess.min(answers.bytes);
        if all < excess {
            return Err(NoRoom);
        }
        let mut gone = 0;
        for key in backlog::who_goes(waiting, excess) {
            if let Some(waiting) = answers.waiting.get_mut(key as usize) {
                waiting.cut.cancel();
                let (bytes, whose) = (std::mem::take(&mut waiting.bytes), waiting.whose);
                self.free(answers, whose, bytes);
                gone += 1;
            }
        }
        Ok(gone)
    }

    fn count(
        &self,
        mut answers: MutexGuard<'_, Answers>,
        bytes: Bytes,
        whose: u64,
        cut: &CancellationToken,
        now: Instant,
    ) -> Bytes {
        if bytes.len() < BYTES_MIN {
            return bytes;
        }
        answers.bytes += bytes.len();
        *answers.own.entry(whose).or_default() += bytes.len();
        self.0
            .backlog
            .answers_changed(i64::try_from(bytes.len()).unwrap_or(0));
        let key = answers.waiting.insert(Waiting {
            bytes: bytes.len(),
            whose,
            since_millis: self.millis(now),
            cut: cut.clone(),
        });
        drop(answers);
        Bytes::from_owner(Counted {
            bytes,
            key,
            unwritten: self.clone(),
        })
    }

    fn free(&self, answers: &mut Answers, whose: u64, bytes: usize) {
        answers.bytes -= bytes;
        if let Some(own) = answers.own.get_mut(&whose) {
            *own -= bytes;
            if *own == 0 {
                answers.own.remove(&whose);
            }
        }
        self.0.backlog.answers_changed(-i64::try_from(bytes).unwrap_or(0));
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.0.began).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.0.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use prometheus::IntGauge;

    use super::*;

    const KIB: usize = 1_024;
    const PATIENCE: Duration = Duration::from_secs(5);

    /// Of 100 KiB for answers.
    fn unwritten() -> (Unwritten, IntGauge) {
        let gauge = IntGauge::new("waits", "waits").unwrap();
        let backlog = Backlog::new(200 * KIB, 2, gauge.clone());
        (Unwritten::new(backlog, PATIENCE), gauge)
    }

    /// One of so many KiB to somebody else each time: itself with what cuts it, and how many went for it.
    fn hold(
        unwritten: &Unwritten,
        kib: usize,
        now: Instant,
    ) -> Result<(Bytes, CancellationToken, usize), NoRoom> {
        let (cut, whose) = (CancellationToken::new(), unwritten.answers().waiting.vacant_key());
        let (bytes, gone) = unwritten.hold(vec![7; kib * KIB].into(), whose as u64, &cut, now)?;
        Ok((bytes, cut, gone))
    }

    #[test]
    fn an_answer_is_counted_until_its_last_byte_is_dropped() {
        let (unwritten, gauge) = unwritten();
        let now = Instant::now();
        let (mut bytes, _, _) = hold(&unwritten, 60, now).unwrap();
        assert_eq!(gauge.get(), 60 * 1_024);
        assert_eq!(hold(&unwritten, 41, now).unwrap_err(), NoRoom);
        drop(bytes.split_to(59 * KIB));
        assert_eq!(hold(&unwritten, 41, now).unwrap_err(), NoRoom);
        let (small, _) = unwritten
            .hold(vec![7; 100].into(), 0, &CancellationToken::new(), now)
            .unwrap();
        assert_eq!((small.len(), gauge.get()), (100, 60 * 1_024));
        let done = unwritten.hold_anyway(vec![7; 41 * KIB].into(), 9, &CancellationToken::new(), now);
        assert_eq!(gauge.get(), 101 * 1_024);
        drop(done);
        drop(bytes);
        assert_eq!(gauge.get(), 0);
        assert!(hold(&unwritten, 41, now).is_ok());
    }

    #[test]
    fn who_had_its_time_gives_way_the_fattest_first() {
        let (unwritten, gauge) = unwritten();
        let begun = Instant::now();
        // 30 KiB take a quarter of a second more.
        let later = begun + PATIENCE + Duration::from_millis(250);
        let (_lean, lean, _) = hold(&unwritten, 20, begun).unwrap();
        let (fat_bytes, fat, _) = hold(&unwritten, 30, begun).unwrap();
        let (_young, young, _) = hold(&unwritten, 50, begun + PATIENCE / 2).unwrap();
        assert_eq!(hold(&unwritten, 60, later).unwrap_err(), NoRoom);
        assert_eq!(
            hold(&unwritten, 30, begun + PATIENCE + Duration::from_millis(200)).unwrap_err(),
            NoRoom
        );
        assert!(!lean.is_cancelled() && !fat.is_cancelled());
        let (new, _, gone) = hold(&unwritten, 30, later).unwrap();
        assert_eq!(
            (
                gone,
                lean.is_cancelled(),
                fat.is_cancelled(),
                young.is_cancelled()
            ),
            (1, false, true, false)
        );
        // What goes is counted no longer, and not twice when it is gone.
        assert_eq!(gauge.get(), 100 * 1_024);
        drop(fat_bytes);
        assert_eq!(gauge.get(), 100 * 1_024);
        drop(new);
        assert_eq!(gauge.get(), 70 * 1_024);
    }

    #[test]
    fn one_that_is_longer_than_all_may_be_is_served_alone() {
        let (unwritten, gauge) = unwritten();
        let begun = Instant::now();
        let later = begun + 2 * PATIENCE;
        let (long, _, _) = hold(&unwritten, 300, begun).unwrap();
        assert_eq!(hold(&unwritten, 1, begun).unwrap_err(), NoRoom);
        let (_next, _, gone) = hold(&unwritten, 300, later).unwrap();
        assert_eq!((gone, gauge.get()), (1, 300 * 1_024));
        drop(long);
        assert_eq!(gauge.get(), 300 * 1_024);
    }

    #[test]
    fn one_token_has_an_eighth_of_it() {
        let (unwritten, _) = unwritten();
        let (now, cut) = (Instant::now(), CancellationToken::new());
        let hold = |kib: usize, whose| unwritten.hold(vec![7; kib * KIB].into(), whose, &cut, now);
        let (first, _) = hold(10, 1).unwrap();
        assert_eq!(hold(3, 1).unwrap_err(), NoRoom);
        let (second, _) = hold(2, 1).unwrap();
        assert!(hold(12, 2).is_ok());
        drop((first, second));
        // Alone it may be longer.
        let (long, _) = hold(30, 1).unwrap();
        assert_eq!(hold(1, 1).unwrap_err(), NoRoom);
        drop(long);
        assert!(hold(1, 1).is_ok());
    }
}
