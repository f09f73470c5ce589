//! Sequence accounting: what was acknowledged, what each client saw, and whether the two agree.

use std::collections::{HashMap, HashSet};

/// What one client saw of one room, in the order it saw it: event ids.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    ids: Vec<String>,
}

impl Seen {
    /// Notes one event.
    pub fn event(&mut self, id: &str) {
        self.ids.push(id.to_owned());
    }

    /// Notes every event of a room among frames, live or replayed.
    pub fn frames(&mut self, room: &str, frames: &[serde_json::Value]) {
        for frame in frames {
            if frame["event"]["room"] == room
                && let Some(id) = frame["event"]["event"]["id"].as_str()
            {
                self.event(id);
            }
        }
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether this id was seen.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.ids.iter().any(|seen| seen == id)
    }
}

/// The verdict on one client. All zero is the promise.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Stored and acknowledged, never seen.
    pub lost: Vec<String>,
    /// Seen more than once.
    pub doubled: Vec<String>,
    /// Seen before one that is stored earlier.
    pub reordered: Vec<String>,
    /// Seen, and not in the stream.
    pub phantom: Vec<String>,
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// Compares what a client saw with the stream's own order. `stored`: ids in stream order, from the client's first position on.
#[must_use]
pub fn judge(stored: &[String], seen: &Seen) -> Verdict {
    let place: HashMap<&str, usize> = stored
        .iter()
        .enumerate()
        .map(|(i, id)| (id.as_str(), i))
        .collect();
    let mut verdict = Verdict::default();
    let mut met: HashSet<&str> = HashSet::new();
    let mut highest = None;
    for id in &seen.ids {
        let Some(at) = place.get(id.as_str()) else {
            verdict.phantom.push(id.clone());
            continue;
        };
        if !met.insert(id) {
            verdict.doubled.push(id.clone());
        } else if highest.is_some_and(|highest| *at < highest) {
            verdict.reordered.push(id.clone());
        } else {
            highest = Some(*at);
        }
    }
    verdict.lost = stored
        .iter()
        .filter(|id| !met.contains(id.as_str()))
        .cloned()
        .collect();
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checker is checked: each kind of damage to a clean history is found.
    #[test]
    fn every_kind_of_damage_is_found() {
        let ids = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let check = |stored: &str, seen: &str| judge(&ids(stored), &Seen { ids: ids(seen) });
        let rows = [
            ("a b c", "a b c", "", "", "", ""),
            ("a b c", "a c", "b", "", "", ""),
            ("a b c", "a b b c", "", "b", "", ""),
            ("a b c", "a c b", "", "", "b", ""),
            ("a b c", "a b c x", "", "", "", "x"),
            ("a b c", "", "a b c", "", "", ""),
        ];
        for (stored, seen, lost, doubled, reordered, phantom) in rows {
            let verdict = check(stored, seen);
            let expected = Verdict {
                lost: ids(lost),
                doubled: ids(doubled),
                reordered: ids(reordered),
                phantom: ids(phantom),
            };
            assert_eq!(verdict, expected, "{stored} / {seen}");
            assert_eq!(verdict.is_clean(), stored == seen);
        }
    }
}
