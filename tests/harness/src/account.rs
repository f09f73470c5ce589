//! Sequence accounting: what was acknowledged, what was stored, what each client saw, and whether they agree.

use std::collections::{HashMap, HashSet};
use std::fmt;

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

    /// How often this id was seen.
    #[must_use]
    pub fn times(&self, id: &str) -> usize {
        self.ids.iter().filter(|seen| *seen == id).count()
    }

    /// The ids in the order they were seen.
    #[must_use]
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// What was seen of some events only.
    #[must_use]
    pub fn only(&self, wanted: impl Fn(&str) -> bool) -> Self {
        Self {
            ids: self.ids.iter().filter(|id| wanted(id)).cloned().collect(),
        }
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

/// What is wrong with a stream, given what publishers were told. All empty is the promise.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Acknowledged and not stored.
    pub lost: Vec<String>,
    /// Stored more than once.
    pub doubled: Vec<String>,
    /// Stored before an event that the same publisher had acknowledged earlier.
    pub reordered: Vec<String>,
}

impl Ledger {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// Compares the stream with what publishers were told. `acknowledged`: publisher and id, in the order of the acknowledgements.
#[must_use]
pub fn audit(stored: &[String], acknowledged: &[(usize, String)]) -> Ledger {
    let mut ledger = Ledger::default();
    let mut place: HashMap<&str, usize> = HashMap::new();
    for (at, id) in stored.iter().enumerate() {
        if place.insert(id, at).is_some() {
            ledger.doubled.push(id.clone());
        }
    }
    let mut last: HashMap<usize, usize> = HashMap::new();
    for (publisher, id) in acknowledged {
        let Some(at) = place.get(id.as_str()) else {
            ledger.lost.push(id.clone());
            continue;
        };
        if last.insert(*publisher, *at).is_some_and(|before| *at < before) {
            ledger.reordered.push(id.clone());
        }
    }
    ledger
}

/// One line of the table that a fault leaves behind. Sums over all clients.
#[derive(Debug, Default, Clone)]
pub struct Row {
    /// What was done.
    pub fault: String,
    /// Events that publishers were told are stored.
    pub acknowledged: usize,
    /// Attempts that had to be repeated.
    pub repeats: u64,
    /// Events in the stream.
    pub stored: usize,
    /// Clients.
    pub clients: usize,
    /// Events that reached clients.
    pub delivered: usize,
    /// Returns of clients.
    pub returns: usize,
    /// Of the stream and of all clients.
    pub lost: usize,
    /// Likewise.
    pub doubled: usize,
    /// Likewise.
    pub reordered: usize,
    /// Seen by a client, and not in the stream.
    pub phantom: usize,
    /// Longest time a client was away, in milliseconds.
    pub away_millis: u128,
}

impl Row {
    /// Heads of the columns of the lines that [`Row`] displays.
    pub const HEAD: &'static str = "fault                              acked repeats  stored clients delivered returns  lost doubled reordered phantom  away ms";

    /// Adds what the stream's own account found.
    pub fn ledger(&mut self, ledger: &Ledger) {
        self.lost += ledger.lost.len();
        self.doubled += ledger.doubled.len();
        self.reordered += ledger.reordered.len();
    }

    /// Adds one client.
    pub fn client(&mut self, seen: usize, returns: usize, verdict: &Verdict) {
        self.clients += 1;
        self.delivered += seen;
        self.returns += returns;
        self.lost += verdict.lost.len();
        self.doubled += verdict.doubled.len();
        self.reordered += verdict.reordered.len();
        self.phantom += verdict.phantom.len();
    }

    /// Whether nothing was lost, doubled, reordered or made up.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.reordered + self.phantom == 0
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<33}{:>7}{:>8}{:>8}{:>8}{:>10}{:>8}{:>6}{:>8}{:>10}{:>8}{:>9}",
            self.fault,
            self.acknowledged,
            self.repeats,
            self.stored,
            self.clients,
            self.delivered,
            self.returns,
            self.lost,
            self.doubled,
            self.reordered,
            self.phantom,
            self.away_millis
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// The checker is checked: each kind of damage to a clean history is found.
    #[test]
    fn every_kind_of_damage_at_a_client_is_found() {
        let check = |stored: &str, seen: &str| judge(&ids(stored), &Seen { ids: ids(seen) });
        let rows = [
            ("a b c", "a b c", "", "", "", ""),
            ("a b c", "a c", "b", "", "", ""),
            ("a b c", "b c", "a", "", "", ""),
            ("a b c", "a b", "c", "", "", ""),
            ("a b c", "a b b c", "", "b", "", ""),
            ("a b c", "a b c a", "", "a", "", ""),
            ("a b c", "a c b", "", "", "b", ""),
            ("a b c", "a b c x", "", "", "", "x"),
            ("a b c", "", "a b c", "", "", ""),
            ("a b c d", "a c c b x", "d", "c", "b", "x"),
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
            let mut row = Row::default();
            row.client(ids(seen).len(), 0, &verdict);
            assert_eq!(row.is_clean(), stored == seen);
        }
    }

    #[test]
    fn every_kind_of_damage_in_the_stream_is_found() {
        let rows = [
            ("a1 b1 a2", "a1 b1 a2", "", "", ""),
            ("a1 b1 a2", "b1 a1 a2", "", "", ""),
            ("a1 a2 unanswered", "a1 a2", "", "", ""),
            ("a1 b1", "a1 b1 a2", "a2", "", ""),
            ("a1 b1 a1", "a1 b1", "", "a1", ""),
            ("a2 a1", "a1 a2", "", "", "a2"),
        ];
        for (stored, acknowledged, lost, doubled, reordered) in rows {
            let publisher = |id: &String| (usize::from(id.starts_with('b')), id.clone());
            let acknowledged: Vec<_> = ids(acknowledged).iter().map(publisher).collect();
            let ledger = audit(&ids(stored), &acknowledged);
            let expected = Ledger {
                lost: ids(lost),
                doubled: ids(doubled),
                reordered: ids(reordered),
            };
            assert_eq!(ledger, expected, "{stored} / {acknowledged:?}");
            let mut row = Row::default();
            row.ledger(&ledger);
            assert_eq!(row.is_clean(), expected.is_clean());
        }
    }
}
