//! What is published of sessions: the open ones under their group's key, the closed ones under that with their start.

use std::collections::{BTreeMap, HashMap};
use std::mem::take;
use std::ops::Range;
use std::sync::Arc;

use roomcast_proto::metric::{Group as GroupName, closed_key, current_key};

use super::content::{Part, View};
use super::{Closed, Outgoing};
use crate::definition::{Publish, SPARK_PARTS};
use crate::engine::cell::Group;
use crate::engine::metric::{ALL_SESSIONS, Due, Metric};
use crate::engine::session::{SILENCE_MICROS, Session};
use crate::engine::window::closed_life;

/// A closed session that is kept as state.
struct Kept<'a> {
    end: i64,
    place: u32,
    group: &'a Group,
    session: Session,
    until: i64,
}

impl Metric {
    /// The slot of a group's open session.
    pub(super) fn open_session(&self, group: &Group) -> Option<i64> {
        let gap = self.frames.gap()?;
        let newest = group.sessions.last()?;
        (newest.last + gap > self.place?).then_some(newest.slot)
    }

    /// The groups whose open sessions are state: the largest, and `~other`.
    pub(super) fn open_sessions(&self) -> Vec<Arc<str>> {
        let mut ranked = Vec::new();
        let mut other = None;
        for (_, place) in &self.open {
            let group = &self.groups[*place as usize];
            let Some(slot) = self.open_session(group) else {
                continue;
            };
            if &*group.key == GroupName::OTHER {
                other = Some(Arc::clone(&group.key));
            } else {
                let sums = self.part(Some(group), &Part::Slots(slot..slot + 1));
                ranked.push((self.size(&sums), &group.key));
            }
        }
        self.largest(ranked).chain(other).collect()
    }

    /// The closed sessions that are state: those that ended last, as many as there may be groups.
    ///
    /// Answers also when one of them makes room for another.
    fn kept_sessions(&self) -> (Vec<Kept<'_>>, Option<i64>) {
        let (Some(gap), Some(now)) = (self.frames.gap(), self.place) else {
            return (Vec::new(), None);
        };
        let mut kept = Vec::new();
        for (place, group) in (0..).zip(&self.groups) {
            for session in &group.sessions {
                let end = session.last + gap;
                let until = end + closed_life(end - session.start);
                if end <= now && until > self.as_of {
                    kept.push(Kept {
                        end,
                        place,
                        group,
                        session: *session,
                        until,
                    });
                }
            }
        }
        let most = self.definition.groups_published_max;
        let order =
            |a: &Kept<'_>, b: &Kept<'_>| b.end.cmp(&a.end).then_with(|| a.group.key.cmp(&b.group.key));
        let mut room_at = None;
        if kept.len() > most {
            kept.select_nth_unstable_by(most, order);
            kept.truncate(most);
            room_at = kept.iter().map(|kept| kept.until).min();
        }
        kept.sort_unstable_by(order);
        (kept, room_at)
    }

    pub(super) fn render_sessions(&mut self, publish: &Publish, out: &mut Vec<Outgoing>) {
        let due = take(&mut self.closed);
        if due.is_empty() {
            return;
        }
        let changed = |slot: i64, place: u32| match due.get(&slot) {
            Some(Due::Some(groups)) => groups.contains(&place),
            _ => due.contains_key(&ALL_SESSIONS),
        };
        let mut known = take(&mut self.closed_published);
        let mut published: BTreeMap<i64, HashMap<Arc<str>, i64>> = BTreeMap::new();
        let (sessions, room_at) = self.kept_sessions();
        for kept in sessions {
            let (key, start) = (&kept.group.key, kept.session.start);
            let before = known.get_mut(&start).and_then(|groups| groups.remove(key));
            if before.is_none() || changed(kept.session.slot, kept.place) {
                let update = self.update(key, kept.session.slot);
                let key = closed_key(&self.definition.name, key, start);
                out.push(self.outgoing(publish, key, update, Some(kept.until)));
            }
            let groups = published.entry(start).or_default();
            groups.insert(Arc::clone(key), kept.until);
        }
        for (start, groups) in known {
            for (gone, _) in groups.into_iter().filter(|(_, until)| *until > self.as_of) {
                out.push(self.withdrawal(publish, closed_key(&self.definition.name, &gone, start)));
            }
        }
        self.room_at = room_at;
        self.closed_published = published;
        self.closed_in_flight.insert(ALL_SESSIONS);
    }

    /// The keys under which sessions have values now.
    pub(super) fn produced_sessions(&self, keys: &mut BTreeMap<String, Option<Closed>>) {
        let name = &self.definition.name;
        keys.extend(
            self.open_sessions()
                .iter()
                .map(|key| (current_key(name, key), None)),
        );
        for kept in self.kept_sessions().0 {
            let closed = Closed {
                place: kept.session.start,
                group: Arc::clone(&kept.group.key),
                until: kept.until,
            };
            keys.insert(
                closed_key(name, &kept.group.key, kept.session.start),
                Some(closed),
            );
        }
    }

    /// What an update of a session is made from.
    pub(super) fn session_view(&self, group: Option<&Group>, slot: i64, gap: i64) -> View {
        let sessions = group.map_or(&[][..], |group| &group.sessions);
        let at = sessions.partition_point(|session| session.slot < slot);
        let own = sessions.get(at).filter(|session| session.slot == slot);
        let part = |session: &Session| Part::Slots(session.slot..session.slot + 1);
        let before = at.checked_sub(1).and_then(|before| sessions.get(before));
        let shown = &sessions[(at + 1).saturating_sub(SPARK_PARTS)..(at + 1).min(sessions.len())];
        let mut spark: Vec<Option<Part>> = vec![None; SPARK_PARTS - shown.len()];
        spark.extend(shown.iter().map(|session| Some(part(session))));
        let bounds: Option<Range<i64>> = own.map(|session| session.start..session.last + gap);
        // A missing event may have joined it to another; without one before, the one that was may be missing.
        let start = own.map_or(slot, |session| session.start);
        let reach = match before {
            _ if self.definition.compare.is_none() => start - gap,
            Some(before) => before.start - gap,
            None => start - SILENCE_MICROS,
        };
        View {
            current: own.is_some_and(|own| self.place.is_some_and(|now| own.last + gap > now)),
            bounds,
            own: own.map_or(Part::Slots(slot..slot), part),
            before: before.map(part),
            spark,
            reach,
        }
    }
}
