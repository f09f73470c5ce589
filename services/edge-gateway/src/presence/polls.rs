//! Who is in a room by polling it: as one connection, however many polls, from the first until a while after the last.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::{Place, Presence};

/// So long after a poll its user is still there: the next one comes after 6 s, when polls are not held.
pub const BETWEEN_MILLIS: u64 = 10_000;

/// Until when who counts as polling what. As many as there are users in rooms at most, each of whom is a member.
#[derive(Debug, Default)]
pub(super) struct Polls {
    until: HashMap<(Place, Arc<str>), u64>,
    ends: BTreeSet<(u64, Place, Arc<str>)>,
}

impl Polls {
    /// Moves an end to a later time; false where there is none.
    fn go_on(&mut self, place: &Place, user: &Arc<str>, until: u64) -> bool {
        let Some(end) = self.until.get_mut(&(place.clone(), Arc::clone(user))) else {
            return false;
        };
        if *end < until {
            self.ends.remove(&(*end, place.clone(), Arc::clone(user)));
            self.ends.insert((until, place.clone(), Arc::clone(user)));
            *end = until;
        }
        true
    }
}

impl Presence {
    /// A user asks what is new in a room, and is answered after `hold` milliseconds at most.
    pub fn polled(
        &mut self,
        place: &Place,
        user: &Arc<str>,
        roles: &Arc<[String]>,
        unix_millis: i64,
        (now, hold): (u64, u64),
    ) {
        let until = now.saturating_add(hold).saturating_add(BETWEEN_MILLIS);
        if self.polls.go_on(place, user, until) {
            self.roles_changed(place, user, roles);
        } else if self.enter(place, user, roles, unix_millis) {
            self.polls.until.insert((place.clone(), Arc::clone(user)), until);
            self.polls.ends.insert((until, place.clone(), Arc::clone(user)));
        }
    }

    /// Those whose next poll has not come have left.
    pub(super) fn end_polls(&mut self, now: u64) {
        while self.polls.ends.first().is_some_and(|(end, ..)| *end <= now) {
            if let Some((_, place, user)) = self.polls.ends.pop_first() {
                self.polls.until.remove(&(place.clone(), Arc::clone(&user)));
                self.leave(&place, &user, now);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn polling(&self) -> usize {
        assert_eq!(self.polls.until.len(), self.polls.ends.len());
        self.polls.until.len()
    }
}
