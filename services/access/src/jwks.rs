//! The keys of an issuer that publishes them at an address (JWKS), and when to fetch them.
//!
//! Only decides: the time is an argument and fetching is for the service that asks [`Endpoint::begin`] now and then and
//! brings back what was answered. The address comes from the settings; nothing here or anywhere follows one from a token.
//!
//! A token with an unknown key id may be honest: its key was published a moment ago. So it is refused for good only when
//! a fetch that began after the token came has been answered without its key. That is remembered by token, not by key id:
//! else a stranger who guesses the next key id would have it refused in advance.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use crate::keys::{KeySet, KeysError, VerifyKey};

/// Most tokens with unknown keys that are remembered, of those that wait for a fetch and of those that had theirs (8 bytes
/// each). One more is told to come back, as if it were the first time.
pub const MISSED_MAX: usize = 4_096;

/// How often keys are fetched, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// The least time between the beginnings of two fetches, whatever strangers send and whatever fails.
    pub interval_secs: u64,
    /// How old keys become before they are fetched again; so long at most does a key that was taken back count, while fetches succeed.
    pub refresh_secs: u64,
}

/// What a token with an unknown key id may hope for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hope {
    /// Keys will be fetched, or what is known of them is out of date: the token may be good.
    Soon,
    /// They were fetched after this token came, without its key.
    None,
}

/// What a finished fetch meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// Other keys than before, or the first ones; or none any more, where the issuer says so ([`Endpoint::is_empty`]).
    Changed,
    /// The same keys.
    Same,
    /// An answer that is no set of usable keys; the last good ones stay.
    Unusable(KeysError),
    /// No answer; the last good keys stay.
    Away,
}

/// One issuer's endpoint: the last good keys and the state of fetching. Clones are the same endpoint.
#[derive(Debug, Clone)]
pub struct Endpoint(Arc<RwLock<State>>);

#[derive(Debug)]
struct State {
    schedule: Schedule,
    keys: Option<KeySet>,
    /// Whether there ever was a key among them.
    had_keys: bool,
    /// The answer the keys were read from.
    answer: Vec<u8>,
    changes: u64,
    began_at: Option<Duration>,
    good_at: Option<Duration>,
    /// Whether a fetch has begun and not ended.
    under_way: bool,
    /// Whether the last fetch brought no keys.
    failed: bool,
    /// Whether a key was asked for that is not there.
    wanted: bool,
    hashing: RandomState,
    /// Tokens without a key since the last fetch began.
    waiting: HashSet<u64>,
    /// Those that the fetch under way is for.
    asked: HashSet<u64>,
    /// Those whose key was not in an answer that was asked for after they came.
    absent: HashSet<u64>,
}

impl Endpoint {
    /// An endpoint that was never asked; a fetch is due.
    #[must_use]
    pub fn new(schedule: Schedule) -> Self {
        Self(Arc::new(RwLock::new(State {
            schedule,
            keys: None,
            had_keys: false,
            answer: Vec::new(),
            changes: 0,
            began_at: None,
            good_at: None,
            under_way: false,
            failed: false,
            wanted: false,
            hashing: RandomState::new(),
            waiting: HashSet::new(),
            asked: HashSet::new(),
            absent: HashSet::new(),
        })))
    }

    /// Whether to fetch now; if so, the fetch counts as begun and [`Endpoint::finish`] must follow. `now`: since any fixed
    /// moment, by a clock that nobody sets.
    #[must_use]
    pub fn begin(&self, now: Duration) -> bool {
        let mut state = self.write();
        let refresh = Duration::from_secs(state.schedule.refresh_secs);
        let aged = state.good_at.is_none_or(|at| now.saturating_sub(at) >= refresh);
        // Of an issuer without keys nobody can come in: what it publishes next is not waited for longer than need be.
        let wanting = state.wanted || state.failed || state.is_empty();
        let due = !state.under_way && state.rested(now) && (wanting || aged);
        if due {
            state.under_way = true;
            state.wanted = false;
            state.began_at = Some(now);
            // A fetch that failed has answered nobody: those it was for are asked for again.
            let waiting = std::mem::take(&mut state.waiting);
            remember(&mut state.asked, waiting);
        }
        due
    }

    /// Ends the fetch that began: with the answer's body, or nothing where none came.
    pub fn finish(&self, now: Duration, answer: Option<&[u8]>) -> Fetched {
        // Read before the lock is taken: tokens are checked meanwhile.
        let read = answer.map(|bytes| {
            let text = std::str::from_utf8(bytes).map_err(|e| KeysError::Unreadable(e.to_string()))?;
            KeySet::from_endpoint(text).map(|keys| (bytes, keys))
        });
        let mut state = self.write();
        state.under_way = false;
        state.failed = !matches!(read, Some(Ok(_)));
        match read {
            None => Fetched::Away,
            Some(Err(error)) => Fetched::Unusable(error),
            Some(Ok((bytes, keys))) => {
                state.good_at = Some(now);
                let asked = std::mem::take(&mut state.asked);
                if state.absent.len() + asked.len() > MISSED_MAX {
                    state.absent.clear();
                }
                remember(&mut state.absent, asked);
                if state.keys.is_some() && state.answer == bytes {
                    return Fetched::Same;
                }
                state.had_keys |= keys.count() > 0;
                state.keys = Some(keys);
                state.answer = bytes.to_vec();
                state.changes += 1;
                Fetched::Changed
            }
        }
    }

    /// Says that this token came with a key id that is not here. A fetch will follow, no sooner than the interval allows,
    /// unless one did already.
    #[must_use]
    pub fn missed(&self, token: &str) -> Hope {
        let mut state = self.write();
        let token = state.hashing.hash_one(token);
        if state.failed || state.keys.is_none() {
            return Hope::Soon;
        }
        if state.absent.contains(&token) {
            return Hope::None;
        }
        if !state.asked.contains(&token) {
            remember(&mut state.waiting, [token]);
            state.wanted = true;
        }
        Hope::Soon
    }

    /// Whether a key was fetched once.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.read().had_keys
    }

    /// Whether the issuer publishes no key, as far as is known: all that it had are taken back.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    /// How often the keys changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.read().changes
    }

    pub(crate) fn key(&self, kid: &str) -> Option<VerifyKey> {
        self.read().keys.as_ref()?.get(kid).cloned()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether the last good answer was a set without keys.
    fn is_empty(&self) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.count() == 0)
    }

    /// Whether the interval since the last beginning is over.
    fn rested(&self, now: Duration) -> bool {
        let interval = Duration::from_secs(self.schedule.interval_secs);
        self.began_at.is_none_or(|at| now.saturating_sub(at) >= interval)
    }
}

/// Adds as many as there is room for.
fn remember(set: &mut HashSet<u64>, tokens: impl IntoIterator<Item = u64>) {
    let room = MISSED_MAX.saturating_sub(set.len());
    set.extend(tokens.into_iter().take(room));
}

#[cfg(test)]
mod tests;
