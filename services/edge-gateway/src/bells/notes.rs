//! The notifications of one room, as little of each as counting needs: 24 bytes.
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

/// Room for one of so many more is taken at once.
const SPARE: usize = 16;

/// Names are compared by their hashes: of this process alone, so that nobody can choose ids that look alike.
static NAMES: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// 48 bits of a number, in as many bytes as they need, the highest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Short([u8; 6]);

impl Short {
    fn of(number: u64) -> Self {
        let [_, _, bytes @ ..] = number.to_be_bytes();
        Self(bytes)
    }
}

/// What stands for an id or a key in memory. Two of the few hundred of a user meet once in 10^9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(Short);

impl Name {
    /// The name of a text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(Short::of(NAMES.hash_one(text)))
    }
}

/// One value of a key for one audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// Its position in the stream of state: 48 bits last for 280 million million values.
    rev: Short,
    key: Name,
    id: Name,
    /// Unix seconds from which on it does not hold, rounded up, as bytes; the greatest number: it has no end.
    ends_secs: [u8; 4],
    audience: AudienceId,
    priority: Priority,
}

impl Entry {
    fn ends_secs(&self) -> u32 {
        u32::from_be_bytes(self.ends_secs)
    }
}

/// What a message says about a room's notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    rev: u64,
    key: Name,
    /// `None`: a role that the policy does not know, so nobody sees it.
    audience: Option<AudienceId>,
    /// `None`: the value is withdrawn, or it is no notification any more.
    note: Option<Note>,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Note {
    id: Name,
    /// See [`Entry::ends_secs`].
    ends_secs: u32,
    priority: Priority,
}

impl Change {
    /// Reads a delivery; `None`: it is about no notification, by its key. What stands there instead of one is another matter: it ends the
    /// one before.
    #[must_use]
    pub fn of(delivery: &Arc<Delivery>) -> Option<Self> {
        let Kind::State { key, withdrawn } = &delivery.kind else {
            return None;
        };
        if !may_be_one(key) {
            return None;
        }
        let note = match withdrawn {
            true => None,
            false => Note::of(delivery),
        };
        Some(Self {
            rev: delivery.position.rev,
            key: Name::of(key),
            audience: delivery.audience,
            note,
        })
    }

    /// Its position in the stream of state.
    #[must_use]
    pub fn rev(&self) -> u64 {
        self.rev
    }

    /// What is kept of it: nothing of a withdrawal, and nothing of what nobody sees.
    fn entry(&self) -> Option<Entry> {
        let note = self.note?;
        Some(Entry {
            rev: Short::of(self.rev),
            key: self.key,
            id: note.id,
            ends_secs: note.ends_secs.to_be_bytes(),
            audience: self.audience?,
            priority: note.priority,
        })
    }

    /// One whose notification is called `n<rev>`.
    #[cfg(test)]
    pub(super) fn made(rev: u64, key: &str, audience: Option<AudienceId>, withdrawn: bool) -> Self {
        let note = Note {
            id: Name::of(&format!("n{rev}")),
            ends_secs: u32::MAX,
            priority: Priority::High,
        };
        Self {
            rev,
            key: Name::of(key),
            audience,
            note: (!withdrawn).then_some(note),
        }
    }
}

impl Note {
    fn of(delivery: &Delivery) -> Option<Self> {
        let body = delivery.body_bytes();
        let view = View::parse(&body)
            .ok()
            .filter(|view| is_notification(&view.kind))?;
        let priority = view.priority.as_deref().and_then(Priority::from_name);
        let ends = delivery.expires_millis.map(|millis| millis.div_euclid(1_000) + 1);
        Some(Self {
            id: Name::of(&view.id),
            ends_secs: ends.map_or(u32::MAX, |secs| u32::try_from(secs.max(0)).unwrap_or(u32::MAX)),
            priority: priority.unwrap_or_default(),
        })
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
    /// All that a room holds at one position, ascending: of each key one value for each audience.
    pub fn of(changes: impl Iterator<Item = Change>) -> Self {
        let mut entries: Vec<Entry> = changes.filter_map(|change| change.entry()).collect();
        entries.shrink_to_fit();
        let mut keys: Vec<Name> = entries.iter().map(|entry| entry.key).collect();
        keys.sort_unstable();
        Self {
            mixed: keys.windows(2).any(|pair| pair[0] == pair[1]),
            entries,
        }
    }

    /// Takes in what is later than everything before it.
    pub fn apply(&mut self, change: Change) {
        let of_key = |held: &Entry| held.key == change.key;
        self.entries
            .retain(|held| !(of_key(held) && Some(held.audience) == change.audience));
        if let Some(entry) = change.entry() {
            self.mixed |= self.entries.iter().any(of_key);
            if self.entries.len() == self.entries.capacity() {
                // Twice as much, as vectors take by themselves, would be as much again for nothing.
                self.entries.reserve_exact(1 + self.entries.len() / SPARE);
            }
            self.entries.push(entry);
        }
        self.give_back();
    }

    /// Drops what has ended; whether anything has.
    pub fn expire(&mut self, now_secs: u32) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.ends_secs() > now_secs);
        self.give_back();
        before != self.entries.len()
    }

    fn give_back(&mut self) {
        let fits = 2 + self.entries.len() + self.entries.len() / (SPARE / 2);
        if self.entries.capacity() > fits {
            self.entries.shrink_to_fit();
        }
    }

    /// How many values are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The newest that these audiences see, newest first, as many as a user sees at all.
    fn newest(&self, audiences: AudienceSet) -> impl Iterator<Item = &Entry> {
        let mut keys: Vec<Name> = Vec::new();
        let seen = move |entry: &&Entry| {
            if !audiences.contains(entry.audience) {
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
pub fn count<'a>(rooms: impl Iterator<Item = (&'a Notes, AudienceSet)>, read: &[Name]) -> Counters {
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
    use roomcast_proto::cursor::Position;

    use super::*;
    use crate::delivery::Address;
    use crate::delivery::tests::address;

    fn change(rev: u64, key: &str, audience: Option<AudienceId>, withdrawn: bool) -> Change {
        Change::made(rev, key, audience, withdrawn)
    }

    fn unread(notes: &Notes, read: &[u64]) -> u32 {
        let mut read: Vec<Name> = read.iter().map(|rev| Name::of(&format!("n{rev}"))).collect();
        read.sort_unstable();
        let counters = count([(notes, AudienceSet::EVERYBODY)].into_iter(), &read);
        assert_eq!(counters.unread, counters.high);
        counters.unread
    }

    fn bytes(notes: &Notes) -> usize {
        notes.entries.capacity() * size_of::<Entry>()
    }

    #[test]
    fn an_entry_is_as_small_as_said() {
        assert_eq!(size_of::<Entry>(), 24);
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
        assert_eq!((unread(&notes, &[]), notes.len()), (1, 1));
        notes.apply(change(6, "a", None, false));
        assert_eq!(
            unread(&notes, &[]),
            1,
            "what another audience holds does not take its place"
        );
    }

    #[test]
    fn another_kind_of_value_in_its_place_ends_a_notification() {
        let delivery = |rev, key: &str, kind: &str| {
            let body = format!(
                r#"{{"id":"n{rev}","source":"/s","type":"{kind}","time":"2026-01-31T14:05:00Z","data":{{}}}}"#
            );
            let key = roomcast_proto::ids::escape(key).into();
            let position = Position {
                rev,
                ..Position::default()
            };
            let value = Kind::State {
                key,
                withdrawn: false,
            };
            Arc::new(Delivery::new(
                Address {
                    audience: Some(AudienceId::ALL),
                    ..address("a")
                },
                value,
                position,
                None,
                None,
                body.as_bytes(),
            ))
        };
        let mut notes = Notes::default();
        for (rev, key, kind, expected) in [
            (1, "notification/x", "notification.alert", Some(1)),
            (2, "notification/y", "notification.alert", Some(2)),
            (3, "booking/x", "alert.resolved", None),
            (4, "notification/x", "alert.resolved", Some(1)),
        ] {
            let change = Change::of(&delivery(rev, key, kind));
            assert_eq!(change.is_some(), expected.is_some(), "{key} {kind}");
            change.into_iter().for_each(|change| notes.apply(change));
            assert_eq!(notes.len(), expected.unwrap_or(2), "{key} {kind}");
        }
    }

    #[test]
    fn what_has_ended_is_gone_and_only_the_newest_count() {
        let mut notes = Notes::default();
        for rev in 1..=250 {
            let mut one = change(rev, &rev.to_string(), Some(AudienceId::ALL), false);
            one.note.as_mut().unwrap().ends_secs = if rev > 240 { 100 } else { u32::MAX };
            notes.apply(one);
        }
        assert_eq!(unread(&notes, &[]), 200);
        assert_eq!(unread(&notes, &(40..=60).collect::<Vec<_>>()), 190);
        assert!(!notes.expire(99));
        assert!(notes.expire(100) && !notes.expire(100));
        assert_eq!((unread(&notes, &[]), notes.len()), (200, 240));
    }

    /// However they come and go: what is held for nothing is a small part of what is held.
    #[test]
    fn notes_take_little_more_than_they_are() {
        let all = Some(AudienceId::ALL);
        let read = (1..=200).map(|rev| change(rev, &rev.to_string(), all, false));
        let mut notes = Notes::of(read);
        assert_eq!(bytes(&notes), 200 * 24);
        for rev in 201..=400 {
            notes.apply(change(rev, &rev.to_string(), all, false));
            assert!(bytes(&notes) <= (notes.len() + notes.len() / 8 + 2) * 24);
        }
        for rev in 1..=399_u64 {
            notes.apply(change(400 + rev, &rev.to_string(), all, true));
            assert!(bytes(&notes) <= (notes.len() + notes.len() / 8 + 2) * 24, "{rev}");
        }
        assert_eq!((unread(&notes, &[]), notes.len()), (1, 1));
    }

    #[test]
    fn a_room_that_is_read_is_what_came_one_by_one() {
        let role = |n: u64| Some(AudienceId::ALL).filter(|_| !n.is_multiple_of(3));
        let changes: Vec<Change> = (1..=60)
            .map(|n| change(n, &(n % 7).to_string(), role(n), n % 5 == 0))
            .collect();
        let mut one_by_one = Notes::default();
        let mut newest: Vec<Change> = Vec::new();
        for change in &changes {
            one_by_one.apply(*change);
            newest.retain(|held| held.key != change.key || held.audience != change.audience);
            newest.push(*change);
        }
        let read = Notes::of(newest.into_iter());
        assert_eq!((read.entries, read.mixed), (one_by_one.entries, false));
    }
}
