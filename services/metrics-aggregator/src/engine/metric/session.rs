//! Sessions of groups as events come and time passes: what an event joins, what closes, what is forgotten.

use std::collections::BTreeSet;

use super::{Due, Metric};
use crate::definition::SPARK_PARTS;
use crate::engine::cell::{Totals, find};
use crate::engine::chunk::part_hash;
use crate::engine::session::{SILENCE_MICROS, Session, touched};
use crate::engine::window::closed_life;

/// The place of [`Due::All`] for sessions.
pub(crate) const ALL_SESSIONS: i64 = i64::MIN;
/// The place of a change that is none of a session: one that was not state may be now.
const ROOM: i64 = i64::MAX;
/// Changed sessions that are remembered one by one; beyond, all are published again.
const DUE_MAX: usize = 1_000;

impl Metric {
    /// The slot of the session that an event of a group belongs to; two that it lies between become one.
    pub(super) fn join(&mut self, place: u32, at: i64, gap: i64) -> i64 {
        let now = self.place.unwrap_or(i64::MIN);
        let group = &mut self.groups[place as usize];
        let newest_end = |sessions: &[Session]| sessions.last().map(|session| session.last + gap);
        let end_before = newest_end(&group.sessions);
        let range = touched(&group.sessions, at, gap);
        let was_closed = group.sessions[range.clone()]
            .iter()
            .any(|session| session.last + gap <= now);
        let swallowed = (range.len() > 1).then(|| group.sessions.remove(range.start + 1));
        let slot = match group.sessions.get_mut(range.start).filter(|_| !range.is_empty()) {
            Some(session) => {
                session.start = session.start.min(at);
                session.last = swallowed.map_or(session.last, |other| other.last).max(at);
                session.slot
            }
            None => {
                let session = Session {
                    slot: at,
                    start: at,
                    last: at,
                };
                group.sessions.insert(range.start, session);
                at
            }
        };
        let end = newest_end(&group.sessions);
        if end != end_before {
            self.open.remove(&(end_before.unwrap_or(i64::MIN), place));
            self.open
                .extend(end.filter(|end| *end > now).map(|end| (end, place)));
        }
        // Also one that is open again, or has another start: what is published under the old one has to go.
        if was_closed && self.definition.publish.is_some() {
            self.session_due(place, slot);
        }
        let silent = self.groups[place as usize].before_silence();
        if silent > 0 {
            self.groups[place as usize].forget(silent);
        }
        if let Some(other) = swallowed {
            self.swallow(place, slot, other.slot);
        }
        slot
    }

    /// Moves what is in one slot of a group to another.
    fn swallow(&mut self, place: u32, into: i64, from: i64) {
        let counts = self
            .chunks
            .move_values(place, &self.groups[place as usize], from, into);
        for (leg, count) in counts.into_iter().enumerate() {
            let group = &mut self.groups[place as usize];
            let (how, cells) = (group.how[leg], &mut group.legs[leg]);
            let Ok(at) = find(cells, from) else { continue };
            let gone = cells.remove(at);
            let found = find(cells, into);
            let target = self.cell(place, leg, into, found);
            let mut sum = Totals::from(&*target);
            sum.join((&gone).into(), how);
            target.sum = count.map_or(sum.sum, i128::from);
            target.events = sum.events;
            target.seq = target.seq.max(gone.seq);
            if let Some(rare) = gone.rare {
                target.rare().capped |= rare.capped;
                target.rare().ranks.join(&rare.ranks);
                if target.rare().top.join(rare.top) {
                    target.rare().capped = true;
                }
                if let Some(carried) = rare.carried {
                    target.carry(how, carried);
                }
            }
        }
        let group = &self.groups[place as usize];
        for slot in [from, into] {
            self.chunks.touch(part_hash(group.hash, group.part_of(slot)));
        }
        if let Some(Due::Some(groups)) = self.closed.get_mut(&from) {
            groups.remove(&place);
        }
    }

    /// Marks the closed sessions that show a changed one, itself among them.
    pub(super) fn sessions_altered(&mut self, place: u32, slot: i64) {
        let Some(gap) = self.frames.gap() else { return };
        let now = self.place.unwrap_or(i64::MIN);
        let sessions = &self.groups[place as usize].sessions;
        let first = sessions.partition_point(|session| session.slot < slot);
        let closed: Vec<i64> = sessions[first..]
            .iter()
            .take(SPARK_PARTS)
            .filter(|session| session.last + gap <= now)
            .map(|session| session.slot)
            .collect();
        for slot in closed {
            self.session_due(place, slot);
        }
    }

    fn session_due(&mut self, place: u32, slot: i64) {
        if self.closed.contains_key(&ALL_SESSIONS) {
            return;
        }
        if self.closed.len() >= DUE_MAX {
            self.closed.clear();
            self.closed.insert(ALL_SESSIONS, Due::All);
            return;
        }
        let due = self.closed.entry(slot);
        if let Due::Some(groups) = due.or_insert_with(|| Due::Some(BTreeSet::new())) {
            groups.insert(place);
        }
    }

    /// Closes the sessions that end by `now`.
    pub(super) fn close_sessions(&mut self, now: i64) {
        if self.room_at.take_if(|at| *at <= self.as_of).is_some() {
            self.closed
                .entry(ROOM)
                .or_insert_with(|| Due::Some(BTreeSet::new()));
        }
        if self.place.is_some_and(|place| place >= now) {
            return;
        }
        self.place = Some(now);
        while let Some((_, place)) = self.open.first().filter(|(end, _)| *end <= now).copied() {
            self.open.pop_first();
            if self.definition.publish.is_none() {
                continue;
            }
            let group = &mut self.groups[place as usize];
            if !group.changed {
                group.changed = true;
                self.changed.push(place);
            }
            if let Some(slot) = group.sessions.last().map(|session| session.slot) {
                self.session_due(place, slot);
            }
        }
        let horizon = self.frames.horizon(now, self.definition.lateness_micros);
        if horizon > self.horizon {
            self.horizon = horizon;
            self.prune();
        }
    }

    /// Lists the open sessions anew from those of the groups.
    pub(super) fn find_open(&mut self) {
        let Some(gap) = self.frames.gap() else { return };
        let now = self.place.unwrap_or(i64::MIN);
        self.open = (0..)
            .zip(&self.groups)
            .filter_map(|(place, group)| Some((group.sessions.last()?.last + gap, place)))
            .filter(|(end, _)| *end > now)
            .collect();
    }

    /// Forgets silent groups, and sessions that nothing shows any more: beyond the 24 before the oldest that is still kept as state
    /// or open to corrections. What stays in stored chunks is forgotten again when they are read.
    pub(super) fn prune_sessions(&mut self, gap: i64) {
        let (horizon, as_of) = (self.horizon, self.as_of);
        self.drop_groups(|_, group| {
            let sessions = &group.sessions;
            let needed = |session: &Session| {
                let end = session.last + gap;
                end > horizon || end + closed_life(end - session.start) > as_of
            };
            let silent = sessions
                .last()
                .is_none_or(|session| session.last.saturating_add(SILENCE_MICROS) < horizon);
            let first = sessions.iter().position(needed).unwrap_or(sessions.len());
            let count = if silent {
                sessions.len()
            } else {
                first.saturating_sub(SPARK_PARTS).max(group.before_silence())
            };
            group.forget(count)
        });
        self.chunks.retain_slots(&self.groups);
    }
}
