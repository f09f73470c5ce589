//! The keys of an issuer that publishes them at an address (JWKS), and when to fetch them.
//!
//! Only decides: the time is an argument and fetching is for the service that asks [`Endpoint::begin`] now and then and
//! brings back what was answered. The address comes from the settings; nothing here or anywhere follows one from a token.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::keys::{KeySet, KeysError, VerifyKey};

/// How often keys are fetched, seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// The least time between the beginnings of two fetches, whatever strangers send and whatever fails.
    pub interval_secs: u64,
    /// How old keys become before they are fetched again; so long at most does a key that was taken back count.
    pub refresh_secs: u64,
}

/// What a token with an unknown key id may hope for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hope {
    /// Keys will be fetched, or what is known of them is out of date: the token may be good.
    Soon,
    /// They were fetched lately, without that key.
    None,
}

/// What a finished fetch meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// Other keys than before, or the first ones.
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
    /// The answer the keys were read from.
    answer: Vec<u8>,
    changes: u64,
    began_at: Option<i64>,
    good_at: Option<i64>,
    /// Whether a fetch has begun and not ended.
    under_way: bool,
    /// Whether the last fetch brought no keys.
    failed: bool,
    /// Whether a key was asked for that is not there.
    wanted: bool,
}

impl Endpoint {
    /// An endpoint that was never asked; a fetch is due.
    #[must_use]
    pub fn new(schedule: Schedule) -> Self {
        Self(Arc::new(RwLock::new(State {
            schedule,
            keys: None,
            answer: Vec::new(),
            changes: 0,
            began_at: None,
            good_at: None,
            under_way: false,
            failed: false,
            wanted: false,
        })))
    }

    /// Whether to fetch now; if so, the fetch counts as begun and [`Endpoint::finish`] must follow. `now`: seconds.
    #[must_use]
    pub fn begin(&self, now: i64) -> bool {
        let mut state = self.write();
        let aged = state
            .good_at
            .is_none_or(|at| now.abs_diff(at) >= state.schedule.refresh_secs);
        let due = !state.under_way && state.rested(now) && (state.wanted || state.failed || aged);
        if due {
            state.under_way = true;
            state.wanted = false;
            state.began_at = Some(now);
        }
        due
    }

    /// Ends the fetch that began: with the answer's body, or nothing where none came.
    pub fn finish(&self, now: i64, answer: Option<&[u8]>) -> Fetched {
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
                if state.keys.is_some() && state.answer == bytes {
                    return Fetched::Same;
                }
                state.keys = Some(keys);
                state.answer = bytes.to_vec();
                state.changes += 1;
                Fetched::Changed
            }
        }
    }

    /// Says that a token came with a key id that is not here.
    #[must_use]
    pub fn missed(&self, now: i64) -> Hope {
        let mut state = self.write();
        if state.rested(now) {
            state.wanted = true;
        }
        if state.wanted || state.under_way || state.failed || state.keys.is_none() {
            Hope::Soon
        } else {
            Hope::None
        }
    }

    /// Whether keys were fetched once.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.read().keys.is_some()
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
    /// Whether the interval since the last beginning is over. Differences count in both directions: a clock that was set
    /// back must not stop fetching for as long as it was wrong.
    fn rested(&self, now: i64) -> bool {
        self.began_at
            .is_none_or(|at| now.abs_diff(at) >= self.schedule.interval_secs)
    }
}

#[cfg(test)]
mod tests;
