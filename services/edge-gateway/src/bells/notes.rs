//! The notifications of one room, as little of each as counting needs: 32 bytes.
//!
//! Filled from the room's state at a cut and kept current by what comes live after it. Every audience's value is here; who counts says
//! which it may see. Reads no clock.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};

use roomcast_access::{AudienceId, AudienceSet};
use roomcast_proto::event::{Priority, View};
use roomcast_proto::frame::Counters;
use roomcast_proto::notification::is_notification;

use crate::delivery::{Delivery, Kind};
use crate::feed::{NOTIFICATIONS_MAX, may_be_one};

/// Names are compared by their hashes: of this process alone, so that nobody can choose ids that look alike.
static NAMES: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// What stands for an id or a key in memory. Two of a user's few hundred meet once in 10^14.
#[must_use]
pub fn name(text: &str) -> u64 {
    NAMES.hash_one(text)
}

/// One value of a key for one audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// Its position in the stream of state.
    rev: u64,
    key: u64,
    id: u64,
    /// Unix seconds from which on it does not hold, rounded up; the greatest number: it has no end.
    ends_secs: u32,
    audience: Option<AudienceId>,
    priority: Priority,
}

/// What a message says about a room's notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    entry: Entry,
    withdrawn: bool,
}

impl Change {
    /// Reads a delivery; `None`: it is about no notification.
    #[must_use]
    pub fn of(delivery: &Arc<Delivery>) -> Option<Self> {
        let Kind::State { key, withdrawn } = &delivery.kind else {
            return None;
        };
        if !may_be_one(key) {
            return None;
        }
        let mut entry = Entry {
            rev: delivery.position.rev,
            key: name(key),
            id: 0,
            ends_secs: u32::MAX,
            audience: delivery.audience,
            priority: Priority::default(),
        };
        if !withdrawn {
            let body = delivery.body_bytes();
            let view = View::parse(&body)
                .ok()
                .filter(|view| is_notification(&view.kind))?;
            entry.id = name(&view.id);
            let priority = view.priority.as_deref().and_then(Priority::from_name);
            entry.priority = priority.unwrap_or_default();
            let ends = delivery.expires_millis.map(|millis| millis.div_euclid(1_000) + 1);
            entry.ends_secs = ends.map_or(u32::MAX, |secs| u32::try_from(secs.max(0)).unwrap_or(u32::MAX));
        }
        Some(Self {
            entry,
            withdrawn: *withdrawn,
        })
    }

    /// Its position in the stream of state.
    #[must_use]
    pub fn rev(&self) -> u64 {
        self.entry.rev
    }

    /// One whose notification is called `n<rev>`.
    #[cfg(test)]
    pub(super) fn made(rev: u64, key: &str, audience: Option<AudienceId>, withdrawn: bool) -> Self {
        Self {
            entry: Entry {
                rev,
                key: name(key),
                id: name(&format!("n{rev}")),
                ends_secs: u32::MAX,
                audience,
                priority: Priority::High,
            },
            withdrawn,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Notes {
    /// By position.
    entries: Vec<Entry>,
    /// Several audiences hold a value of one key, or did.
    mixed: bool,
}

impl Notes {
    /// Takes in what is later than everything before it.
    pub fn apply(&mut self, change: Change) {
        let Change { entry, withdrawn } = change;
        let of_key = |held: &Entry| held.key == entry.key;
        self.entries
            .retain(|held| !(of_key(held) && held.audience == entry.audience));
        if withdrawn {
            return;
        }
        self.mixed |= self.entries.iter().any(of_key);
        self.entries.push(entry);
    }

    /// Drops what has ended; whether anything has.
    pub fn expire(&mut self, now_secs: u32) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.ends_secs > now_secs);
        before != self.entries.len()
    }

    /// How many values are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The newest that these audiences see, newest first, as many as a user sees at all.
    fn newest(&self, audiences: AudienceSet) -> impl Iterator<Item = &Entry> {
        let mut keys: Vec<u64> = Vec::new();
        let seen = move |entry: &&Entry| {
            if !entry
                .audience
                .is_some_and(|audience| audiences.contains(audience))
            {
                return false;
            }
            if !self.mixed {
                return true;
            }
            // Of several audiences' values of a key the newest counts.
            let is_new = !keys.contains(&entry.key);
            keys.push(entry.key);
            is_new
        };
        self.entries.iter().rev().filter(seen).take(NOTIFICATIONS_MAX)
    }
}

/// Counts what is not read of the newest that a user sees in these rooms. `read`: names of what it has read, ascending.
#[must_use]
pub fn count<'a>(rooms: impl Iterator<Item = (&'a Notes, AudienceSet)>, read: &[u64]) -> Counters {
    let mut newest: Vec<&Entry> = Vec::with_capacity(NOTIFICATIONS_MAX);
    for (notes, audiences) in rooms {
        newest.extend(notes.newest(audiences));
    }
    newest.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.rev));
    newest.truncate(NOTIFICATIONS_MAX);
    let mut counters = Counters::default();
    for entry in newest
        .into_iter()
        .filter(|entry| read.binary_search(&entry.id).is_err())
    {
        counters.unread += 1;
        *match entry.priority {
            Priority::Critical => &mut counters.critical,
            Priority::High => &mut counters.high,
            Priority::Medium => &mut counters.medium,
            Priority::Low => &mut counters.low,
        } += 1;
    }
    counters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(rev: u64, key: &str, audience: Option<AudienceId>, withdrawn: bool) -> Change {
        Change::made(rev, key, audience, withdrawn)
    }

    fn unread(notes: &Notes, read: &[u64]) -> u32 {
        let mut read: Vec<u64> = read.iter().map(|rev| name(&format!("n{rev}"))).collect();
        read.sort_unstable();
        let counters = count([(notes, AudienceSet::EVERYBODY)].into_iter(), &read);
        assert_eq!(counters.unread, counters.high);
        counters.unread
    }

    #[test]
    fn an_entry_is_as_small_as_said() {
        assert_eq!(size_of::<Entry>(), 32);
    }

    #[test]
    fn a_newer_value_takes_the_place_of_the_older_and_a_withdrawal_ends_it() {
        let all = Some(AudienceId::ALL);
        let mut notes = Notes::default();
        notes.apply(change(1, "a", all, false));
        notes.apply(change(2, "b", all, false));
        assert_eq!((unread(&notes, &[]), unread(&notes, &[1])), (2, 1));
        notes.apply(change(3, "a", all, false));
        assert_eq!(
            (unread(&notes, &[1]), unread(&notes, &[3])),
            (2, 1),
            "the newer one is unread"
        );
        notes.apply(change(4, "b", all, true));
        assert_eq!(unread(&notes, &[]), 1);
        // For an audience that nobody here belongs to.
        notes.apply(change(5, "c", None, false));
        assert_eq!((unread(&notes, &[]), notes.len()), (1, 2));
        notes.apply(change(6, "a", None, false));
        assert_eq!(
            unread(&notes, &[]),
            1,
            "what another audience holds does not take its place"
        );
    }

    #[test]
    fn what_has_ended_is_gone_and_only_the_newest_count() {
        let mut notes = Notes::default();
        for rev in 1..=250 {
            let mut one = change(rev, &rev.to_string(), Some(AudienceId::ALL), false);
            one.entry.ends_secs = if rev > 240 { 100 } else { u32::MAX };
            notes.apply(one);
        }
        assert_eq!(unread(&notes, &[]), 200);
        assert_eq!(unread(&notes, &(40..=60).collect::<Vec<_>>()), 190);
        assert!(!notes.expire(99));
        assert!(notes.expire(100) && !notes.expire(100));
        assert_eq!((unread(&notes, &[]), notes.len()), (200, 240));
    }
}
