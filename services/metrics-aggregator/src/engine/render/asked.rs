//! The windows of one group for whoever asks, also of groups that are not among the largest and so not state.

use roomcast_proto::metric::{Group as GroupName, Update, closed_key, current_key};

use crate::engine::metric::Metric;
use crate::engine::session::Session;
use crate::engine::window::closed_life;

/// Most windows of one answer.
const WINDOWS_MAX: usize = 200;

impl Metric {
    /// The updates of a group as keys name it, each with the key that it has where it is state: of the current window and of the closed ones
    /// that are kept, the newest first; none where there is no such group.
    pub(crate) fn windows_of(&self, name: &str) -> Vec<(String, Update)> {
        let Some(group) = self.key_of(name) else {
            return Vec::new();
        };
        let update = |(place, closed): (i64, Option<i64>)| {
            let metric = &self.definition.name;
            let key = match closed {
                Some(start) => closed_key(metric, &group, start),
                None => current_key(metric, &group),
            };
            (key, self.update(&group, place))
        };
        let updates = self.places_of(&group).into_iter().take(WINDOWS_MAX).map(update);
        updates
            .filter(|(_, update)| update.events > 0 || update.previous.is_some())
            .collect()
    }

    /// The group that keys name so.
    fn key_of(&self, name: &str) -> Option<String> {
        if let Some(group) = GroupName::of_key(name) {
            return self.group(group.as_json()).map(|group| group.key.to_string());
        }
        // A value that is too long for a key stands there as a digest, which nobody can read back.
        let wanted = format!("/{name}");
        let mut groups = self.groups.iter();
        let found = groups.find(|group| name.contains("==") && current_key("", &group.key) == wanted);
        found.map(|group| group.key.to_string())
    }

    /// Where its windows are, and since when those that are closed began.
    fn places_of(&self, group: &str) -> Vec<(i64, Option<i64>)> {
        let (Some(now), Some(known)) = (self.place, self.group(group)) else {
            return Vec::new();
        };
        let current = self.current_place(group);
        if let Some(gap) = self.frames.gap() {
            // Open ones have an end that lies ahead.
            let kept = |session: &&Session| {
                let end = session.last + gap;
                end + closed_life(end - session.start) > self.as_of
            };
            let sessions = known.sessions.iter().rev().filter(kept);
            let closed = |session: &Session| (Some(session.slot) != current).then_some(session.start);
            return sessions.map(|session| (session.slot, closed(session))).collect();
        }
        let closed = self.frames.closes().then(|| self.frames.alive(now, self.as_of));
        let closed = closed
            .into_iter()
            .flatten()
            .filter_map(|place| Some((place, Some(self.frames.bounds(place)?.start))));
        current
            .map(|place| (place, None))
            .into_iter()
            .chain(closed)
            .collect()
    }
}
