//! One timer wheel for all sockets of a shard: a deadline costs eight bytes and no allocation of its own.
//!
//! The shard keeps for each connection the one instant at which it must be looked at next. When a deadline moves
//! later nothing is done: the old entry fires, the shard sees that it is too early and enters the new one. Time is
//! an argument, in milliseconds of the shard's own clock.

/// Length of one tick. Deadlines here are seconds; a quarter of a tenth of the shortest is fine enough.
const TICK_MILLIS: u64 = 50;
/// Ticks of one turn: 25.6 s. What is due later waits in the slot it falls on and is entered again, once a turn.
const SLOTS: usize = 512;

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: u32,
    /// Tick at which it is due; ticks wrap after six years.
    due: u32,
}

/// The wheel.
#[derive(Debug)]
pub struct Wheel {
    slots: Vec<Vec<Entry>>,
    /// The last tick that was looked at.
    now: u32,
    len: usize,
}

impl Wheel {
    /// A wheel that starts at `now_millis`.
    #[must_use]
    pub fn new(now_millis: u64) -> Self {
        Self {
            slots: vec![Vec::new(); SLOTS],
            now: tick(now_millis),
            len: 0,
        }
    }

    /// Entries waiting, stale ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fires `key` at the first tick that is not before `due_millis`.
    pub fn insert(&mut self, key: u32, due_millis: u64) {
        let due = tick(due_millis.saturating_add(TICK_MILLIS - 1)).max(self.now + 1);
        self.slots[due as usize % SLOTS].push(Entry { key, due });
        self.len += 1;
    }

    /// Moves on to `now_millis` and appends the keys that are due to `fired`. Costs the slots passed, at most one turn.
    pub fn advance(&mut self, now_millis: u64, fired: &mut Vec<u32>) {
        let to = tick(now_millis);
        let steps = to
            .saturating_sub(self.now)
            .min(u32::try_from(SLOTS).unwrap_or(u32::MAX));
        let first = to - steps;
        self.now = self.now.max(to);
        for at in first + 1..=to {
            let slot = &mut self.slots[at as usize % SLOTS];
            let before = slot.len();
            slot.retain(|entry| {
                let waits = entry.due > to;
                if !waits {
                    fired.push(entry.key);
                }
                waits
            });
            self.len -= before - slot.len();
        }
    }

    /// Milliseconds until the next slot that holds anything; `None` when nothing waits.
    #[must_use]
    pub fn next_in(&self, now_millis: u64) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let steps = (1..=SLOTS).find(|step| !self.slots[(self.now as usize + step) % SLOTS].is_empty())?;
        let at = (u64::from(self.now) + steps as u64) * TICK_MILLIS;
        Some(at.saturating_sub(now_millis))
    }
}

fn tick(millis: u64) -> u32 {
    u32::try_from(millis / TICK_MILLIS).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fire(wheel: &mut Wheel, now: u64) -> Vec<u32> {
        let mut fired = Vec::new();
        wheel.advance(now, &mut fired);
        fired.sort_unstable();
        fired
    }

    #[test]
    fn keys_fire_when_due_and_not_before() {
        let mut wheel = Wheel::new(1_000);
        wheel.insert(1, 1_200);
        wheel.insert(2, 1_230);
        wheel.insert(3, 400); // already over: the next tick
        assert_eq!(wheel.next_in(1_000), Some(50));
        assert_eq!(fire(&mut wheel, 1_050), [3]);
        assert_eq!(fire(&mut wheel, 1_199), [] as [u32; 0]);
        assert_eq!(fire(&mut wheel, 1_200), [1]);
        assert_eq!(wheel.next_in(1_210), Some(40));
        assert_eq!(fire(&mut wheel, 1_250), [2]);
        assert_eq!((wheel.next_in(1_250), wheel.is_empty()), (None, true));
    }

    #[test]
    fn deadlines_beyond_a_turn_and_jumps_of_the_clock_are_kept() {
        let mut wheel = Wheel::new(0);
        wheel.insert(1, 60_000);
        wheel.insert(2, 100);
        assert_eq!(fire(&mut wheel, 30_000), [2]);
        assert_eq!(fire(&mut wheel, 59_900), [] as [u32; 0]);
        assert_eq!(
            fire(&mut wheel, 10_000),
            [] as [u32; 0],
            "time that goes back does nothing"
        );
        assert_eq!(fire(&mut wheel, 600_000), [1]);
    }

    proptest! {
        #[test]
        fn every_key_fires_once_within_a_tick_of_its_time(
            due in prop::collection::vec(0_u64..120_000, 0..50),
            steps in prop::collection::vec(1_u64..5_000, 1..60),
        ) {
            let mut wheel = Wheel::new(0);
            for (key, at) in due.iter().enumerate() {
                wheel.insert(u32::try_from(key).unwrap(), *at);
            }
            let (mut now, mut fired_at) = (0, vec![None; due.len()]);
            for step in steps {
                let before = now;
                now += step;
                for key in fire(&mut wheel, now) {
                    prop_assert_eq!(fired_at[key as usize].replace((before, now)), None);
                }
            }
            for (key, at) in due.iter().enumerate() {
                match fired_at[key] {
                    Some((before, fired)) => prop_assert!(*at <= fired && before < at + 2 * TICK_MILLIS),
                    None => prop_assert!(at + TICK_MILLIS > now),
                }
            }
        }
    }
}
