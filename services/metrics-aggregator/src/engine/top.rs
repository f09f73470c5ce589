//! How often each key came: exact while they are few, then space-saving.
//!
//! A key that finds no room takes the place, and the count, of the one that came least (Metwally, Agrawal, El Abbadi: Efficient
//! Computation of Frequent and Top-k Elements in Data Streams). So no count is too low, and a key that came more often than all that
//! came divided by the keys there is room for is among them.

/// Keys of one cell, exact up to here.
pub const KEYS_MAX: usize = 1_000;
/// Bytes of the keys of one cell: with its counts a cell stays below what one item of stored state may have.
pub const BYTES_MAX: usize = 40 * 1024;

/// A key and how often it came, at most.
pub type Counted = (Box<str>, u64);

/// Counts by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Top {
    /// Ascending keys.
    counts: Vec<Counted>,
    bytes: usize,
}

impl Top {
    /// Counts a key. True where another had to give way, so that counts may be too high from now on.
    pub fn add(&mut self, key: Box<str>, count: u64) -> bool {
        let at = match self.find(&key) {
            Ok(at) => {
                self.counts[at].1 += count;
                return false;
            }
            Err(at) => at,
        };
        if self.counts.len() < KEYS_MAX && self.bytes + key.len() <= BYTES_MAX {
            self.bytes += key.len();
            self.counts.insert(at, (key, count));
            return false;
        }
        let mut inherited = 0;
        while self.counts.len() >= KEYS_MAX || self.bytes + key.len() > BYTES_MAX {
            let Some(least) = self.least() else { break };
            let (gone, count) = self.counts.remove(least);
            self.bytes -= gone.len();
            inherited = count;
        }
        self.bytes += key.len();
        let at = self.find(&key).unwrap_or_else(|at| at);
        self.counts.insert(at, (key, inherited + count));
        true
    }

    /// Counts what another counted. True as for [`Top::add`].
    pub fn join(&mut self, other: Self) -> bool {
        let mut gave_way = false;
        for (key, count) in other.counts {
            gave_way |= self.add(key, count);
        }
        gave_way
    }

    /// Keys and counts, ascending keys.
    #[must_use]
    pub fn list(&self) -> &[Counted] {
        &self.counts
    }

    /// Takes keys and counts; `None` where they do not ascend.
    #[must_use]
    pub fn from_list(counts: Vec<Counted>) -> Option<Self> {
        let bytes = counts.iter().map(|(key, _)| key.len()).sum();
        counts
            .windows(2)
            .all(|pair| pair[0].0 < pair[1].0)
            .then_some(Self { counts, bytes })
    }

    fn find(&self, key: &str) -> Result<usize, usize> {
        self.counts.binary_search_by(|(known, _)| (**known).cmp(key))
    }

    /// Which came least; of several the last by key.
    fn least(&self) -> Option<usize> {
        let all = self.counts.iter().enumerate();
        all.min_by_key(|(at, (_, count))| (*count, usize::MAX - at))
            .map(|(at, _)| at)
    }
}

/// The `n` keys that came most often, over some cells: counts descending, then keys by their bytes.
#[must_use]
pub fn most<'a>(cells: impl Iterator<Item = &'a Top>, n: usize) -> Vec<(&'a str, u64)> {
    let mut all: std::collections::HashMap<&str, u64> = std::collections::HashMap::new();
    for (key, count) in cells.flat_map(|top| top.list()) {
        *all.entry(key).or_default() += count;
    }
    let mut all: Vec<(&str, u64)> = all.into_iter().collect();
    let order = |a: &(&str, u64), b: &(&str, u64)| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0));
    if all.len() > n {
        all.select_nth_unstable_by(n, order);
        all.truncate(n);
    }
    all.sort_unstable_by(order);
    all
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_descend_then_keys_ascend() {
        let (mut a, mut b) = (Top::default(), Top::default());
        for (key, count) in [("b", 2), ("a", 2), ("ç", 3), ("z", 1)] {
            assert!(!a.add(key.into(), count));
        }
        assert!(!b.add("z".into(), 4) && !b.add("a".into(), 1));
        let shown = |n| most([&a, &b].into_iter(), n);
        assert_eq!(shown(9), [("z", 5), ("a", 3), ("ç", 3), ("b", 2)]);
        assert_eq!(shown(2), [("z", 5), ("a", 3)]);
        assert_eq!(shown(0), []);
    }

    #[test]
    fn long_keys_find_less_room() {
        let mut top = Top::default();
        let long = |n: usize| format!("{n:0>1000}").into_boxed_str();
        let gave_way = (0..50).filter(|n| top.add(long(*n), 1)).count();
        assert_eq!((top.list().len(), gave_way), (40, 10));
        assert!(top.bytes <= BYTES_MAX);
    }

    proptest! {
        // A case is thousands of events; what varies within one is more than between them.
        #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

        /// Far more keys than there is room for: what came often is there, and no count is too low or too high by more than the least.
        #[test]
        fn what_came_often_is_there(often in prop::collection::vec(0..20_u32, 1_000..1_300), seed: u64) {
            let mut rng = seed | 1;
            let mut noise = || {
                rng ^= rng << 13;
                rng ^= rng >> 7;
                rng ^= rng << 17;
                u32::try_from(rng % 5_000).unwrap() + 1_000
            };
            let (mut top, mut exact, mut all) = (Top::default(), HashMap::<u32, u64>::new(), 0_u64);
            for key in often.iter().copied().flat_map(|key| [key, noise(), noise()]) {
                top.add(key.to_string().into(), 1);
                *exact.entry(key).or_default() += 1;
                all += 1;
            }
            prop_assert!(top.list().len() == KEYS_MAX);
            let bound = all / KEYS_MAX as u64;
            for (key, count) in top.list() {
                let true_count = exact.get(&key.parse::<u32>().unwrap()).copied().unwrap_or(0);
                prop_assert!(*count >= true_count && *count <= true_count + bound, "{key}: {count}, {true_count}");
            }
            for (key, count) in &exact {
                prop_assert!(*count <= bound || top.find(&key.to_string()).is_ok(), "{key}: {count}");
            }
        }
    }
}
