//! Whose room is read from the stream next, when only one may be: tenants take turns, and within a tenant those who ask.
//!
//! So whoever asks for one room waits for one room of each other, however many the others ask for.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use roomcast_proto::ids::Tenant;

use crate::hub::Waiter;

/// Lines of things that wait, one for each name; names take turns.
#[derive(Debug)]
struct Lines<K, L> {
    order: VecDeque<K>,
    lines: HashMap<K, L>,
}

impl<K, L> Default for Lines<K, L> {
    fn default() -> Self {
        Self {
            order: VecDeque::new(),
            lines: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash, L: Default> Lines<K, L> {
    fn line(&mut self, name: K) -> &mut L {
        if !self.lines.contains_key(&name) {
            self.order.push_back(name.clone());
        }
        self.lines.entry(name).or_default()
    }

    /// Takes one from the line whose turn it is; `take` also says whether that line is empty then.
    fn next<T>(&mut self, take: impl FnOnce(&mut L) -> (Option<T>, bool)) -> Option<T> {
        let name = self.order.pop_front()?;
        let (taken, is_empty) = take(self.lines.get_mut(&name)?);
        if is_empty {
            self.lines.remove(&name);
        } else {
            self.order.push_back(name);
        }
        taken
    }
}

/// See the module. Holds what it is given; whoever fills it counts.
#[derive(Debug)]
pub struct Turns<T> {
    tenants: Lines<Tenant, Lines<Waiter, VecDeque<T>>>,
    len: usize,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self {
            tenants: Lines::default(),
            len: 0,
        }
    }
}

impl<T> Turns<T> {
    /// Puts something at the end of its asker's line.
    pub fn push(&mut self, tenant: &Tenant, waiter: Waiter, what: T) {
        self.tenants.line(tenant.clone()).line(waiter).push_back(what);
        self.len += 1;
    }

    /// Takes what comes next.
    pub fn pop(&mut self) -> Option<T> {
        let taken = self.tenants.next(|askers| {
            let taken = askers.next(|line| {
                let taken = line.pop_front();
                (taken, line.is_empty())
            });
            (taken, askers.order.is_empty())
        });
        self.len -= usize::from(taken.is_some());
        taken
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waiter(ticket: u64) -> Waiter {
        Waiter { shard: 0, ticket }
    }

    fn tenant(name: &str) -> Tenant {
        Tenant::parse(name).unwrap()
    }

    #[test]
    fn who_asks_for_much_waits_for_those_who_ask_for_little() {
        let mut turns = Turns::default();
        for n in 0..100 {
            turns.push(&tenant("loud"), waiter(1), format!("loud1-{n}"));
        }
        turns.push(&tenant("loud"), waiter(2), "loud2-0".to_owned());
        turns.push(&tenant("calm"), waiter(3), "calm-0".to_owned());
        let order: Vec<String> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(order[..4], ["loud1-0", "calm-0", "loud2-0", "loud1-1"]);
        assert_eq!((order.len(), turns.len()), (102, 0));
        assert!(turns.tenants.lines.is_empty(), "nothing is kept of who was here");
    }

    proptest! {
        #[test]
        fn nobody_starves_and_nothing_is_lost(asked in prop::collection::vec((0_u8..4, 0_u64..6), 1..200)) {
            let mut turns = Turns::default();
            for (number, (of, by)) in asked.iter().enumerate() {
                // A waiter belongs to one tenant.
                turns.push(&tenant(&format!("t{of}")), waiter(u64::from(*of) * 10 + by), (*of, *by, number));
            }
            let order: Vec<_> = std::iter::from_fn(|| turns.pop()).collect();
            prop_assert_eq!(order.len(), asked.len());
            let tenants: std::collections::HashSet<u8> = asked.iter().map(|(of, _)| *of).collect();
            // The first of every tenant is among the first so many.
            for tenant in &tenants {
                prop_assert!(order.iter().take(tenants.len()).any(|(of, _, _)| of == tenant));
            }
            for pair in order.windows(2) {
                let (a, b) = (pair[0], pair[1]);
                prop_assert!((a.0, a.1) != (b.0, b.1) || a.2 < b.2, "each line keeps its order");
            }
        }
    }
}
