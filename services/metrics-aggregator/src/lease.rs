//! Who works which shard: leases in the bucket, decided here, kept by `serve`.
//!
//! A lease is only thrift: two instances on one shard are harmless and wasteful, because the state write compares. So nothing here has
//! to be exact; it has to spread the shards evenly, find the dead within seconds and not flap. Pure: what was read comes in, what to
//! write goes out. No clock is compared between machines: a lease is alive while its position in the bucket keeps changing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// A lease that was not renewed for this long is free.
pub const TTL: Duration = Duration::from_secs(5);
/// How often leases are renewed and looked at.
pub const EVERY: Duration = Duration::from_secs(1);

/// A lease as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who works the shard; empty: nobody.
    pub holder: String,
    /// Who would like to: the holder gives the shard up if it has more than its share, and it is kept for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted_by: Option<String>,
}

/// What is known of one shard's lease.
#[derive(Debug, Clone)]
struct Seen {
    seq: u64,
    lease: Lease,
    /// When its position last changed, as seen here.
    changed: Instant,
    /// Whether it changed while we looked; the first sight of a lease says nothing about its age.
    alive: bool,
}

/// One thing to do with a lease; each is a write that compares its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Write our name; begin to work the shard when it succeeds.
    Take(u32),
    /// Write our name again.
    Renew(u32),
    /// Stop working the shard, then write nobody's name, kept for somebody.
    Give(u32, String),
    /// Write that we would like to have it.
    Ask(u32),
    /// Stop working the shard: somebody else holds it.
    Leave(u32),
}

/// All leases as one instance sees them.
#[derive(Debug)]
pub struct Leases {
    instance: String,
    shards: BTreeSet<u32>,
    seen: BTreeMap<u32, Seen>,
    held: BTreeSet<u32>,
}

impl Leases {
    /// Begins without any. `shards` are those there is work for.
    #[must_use]
    pub fn new(instance: String, shards: BTreeSet<u32>) -> Self {
        Self {
            instance,
            shards,
            seen: BTreeMap::new(),
            held: BTreeSet::new(),
        }
    }

    /// There is work for these shards as well.
    pub fn add(&mut self, shards: impl IntoIterator<Item = u32>) {
        self.shards.extend(shards);
    }

    /// The shards worked here.
    #[must_use]
    pub fn held(&self) -> &BTreeSet<u32> {
        &self.held
    }

    /// The position a write must compare with.
    #[must_use]
    pub fn seq(&self, shard: u32) -> u64 {
        self.seen.get(&shard).map_or(0, |seen| seen.seq)
    }

    /// A lease was read. Older reads than what is known are ignored.
    pub fn observe(&mut self, shard: u32, seq: u64, lease: Lease, now: Instant) {
        match self.seen.get_mut(&shard) {
            Some(seen) if seen.seq >= seq => {}
            Some(seen) => {
                *seen = Seen {
                    seq,
                    lease,
                    changed: now,
                    alive: true,
                }
            }
            None => {
                self.seen.insert(
                    shard,
                    Seen {
                        seq,
                        lease,
                        changed: now,
                        alive: false,
                    },
                );
            }
        }
    }

    /// A write of ours was stored.
    pub fn stored(&mut self, wish: &Wish, seq: u64, lease: Lease, now: Instant) {
        match wish {
            Wish::Take(shard) | Wish::Renew(shard) => {
                self.held.insert(*shard);
            }
            Wish::Give(shard, _) | Wish::Leave(shard) => {
                self.held.remove(shard);
            }
            Wish::Ask(_) => {}
        }
        let (Wish::Take(shard)
        | Wish::Renew(shard)
        | Wish::Give(shard, _)
        | Wish::Ask(shard)
        | Wish::Leave(shard)) = wish;
        self.seen.insert(
            *shard,
            Seen {
                seq,
                lease,
                changed: now,
                alive: true,
            },
        );
    }

    /// We no longer work a shard.
    pub fn left(&mut self, shard: u32) {
        self.held.remove(&shard);
    }

    /// What a wish writes; `None` for one that writes nothing.
    #[must_use]
    pub fn value(&self, wish: &Wish) -> Option<(u32, Lease)> {
        let me = || self.instance.clone();
        match wish {
            Wish::Take(shard) | Wish::Renew(shard) => Some((
                *shard,
                Lease {
                    holder: me(),
                    wanted_by: None,
                },
            )),
            Wish::Give(shard, to) => Some((
                *shard,
                Lease {
                    holder: String::new(),
                    wanted_by: Some(to.clone()).filter(|to| !to.is_empty()),
                },
            )),
            Wish::Ask(shard) => {
                let holder = self
                    .seen
                    .get(shard)
                    .map(|seen| seen.lease.holder.clone())
                    .unwrap_or_default();
                Some((
                    *shard,
                    Lease {
                        holder,
                        wanted_by: Some(me()),
                    },
                ))
            }
            Wish::Leave(_) => None,
        }
    }

    /// What to do now.
    #[must_use]
    pub fn wishes(&self, now: Instant) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let live = self.live(now);
        // Everybody has between `least` and `most`.
        let (least, most) = (
            self.shards.len() / live.len().max(1),
            self.shards.len().div_ceil(live.len().max(1)),
        );
        let mut mine = 0;
        for shard in &self.held {
            let lease = self.seen.get(shard).map(|seen| &seen.lease);
            let holder = lease.map_or("", |lease| lease.holder.as_str());
            if holder != self.instance {
                wishes.push(Wish::Leave(*shard));
                continue;
            }
            mine += 1;
            match lease
                .and_then(|lease| lease.wanted_by.clone())
                .filter(|other| *other != self.instance)
            {
                Some(other) if self.held.len() > least => wishes.push(Wish::Give(*shard, other)),
                _ => wishes.push(Wish::Renew(*shard)),
            }
        }
        let free: Vec<u32> = self
            .shards
            .iter()
            .copied()
            .filter(|shard| self.is_free(*shard, now))
            .collect();
        let take = most.saturating_sub(mine).min(free.len());
        wishes.extend(free.iter().take(take).map(|shard| Wish::Take(*shard)));
        if mine + take < least {
            wishes.extend(self.to_ask_for(least).map(Wish::Ask));
        }
        wishes
    }

    /// Instances that hold or want something and are alive, ourselves included.
    fn live(&self, now: Instant) -> BTreeSet<&str> {
        let fresh = self
            .seen
            .values()
            .filter(|seen| now.duration_since(seen.changed) < TTL);
        let names =
            fresh.flat_map(|seen| [Some(seen.lease.holder.as_str()), seen.lease.wanted_by.as_deref()]);
        names
            .flatten()
            .filter(|name| !name.is_empty())
            .chain([self.instance.as_str()])
            .collect()
    }

    fn is_free(&self, shard: u32, now: Instant) -> bool {
        if self.held.contains(&shard) {
            return false;
        }
        let Some(seen) = self.seen.get(&shard) else {
            return true;
        };
        let expired = now.duration_since(seen.changed) >= TTL;
        let kept_for_me = seen
            .lease
            .wanted_by
            .as_ref()
            .is_none_or(|other| *other == self.instance);
        // Our own name from before a restart: nobody else has it.
        let was_mine = seen.lease.holder == self.instance && !seen.alive;
        expired || was_mine || (seen.lease.holder.is_empty() && kept_for_me)
    }

    /// A shard of whoever holds the most, if that is more than its share and nobody has asked yet.
    fn to_ask_for(&self, least: usize) -> Option<u32> {
        let asked = self
            .seen
            .values()
            .any(|seen| seen.lease.wanted_by.as_deref() == Some(&self.instance));
        if asked {
            return None;
        }
        let mut by_holder: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for shard in self.shards.iter().filter(|shard| !self.held.contains(shard)) {
            let untaken = |seen: &&Seen| !seen.lease.holder.is_empty() && seen.lease.wanted_by.is_none();
            if let Some(seen) = self.seen.get(shard).filter(untaken) {
                by_holder.entry(&seen.lease.holder).or_default().push(*shard);
            }
        }
        let richest = by_holder.into_values().max_by_key(Vec::len)?;
        (richest.len() > least)
            .then(|| richest.first().copied())
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bucket with compare-and-set, and some instances that run in turn.
    struct World {
        bucket: BTreeMap<u32, (u64, Lease)>,
        seq: u64,
        now: Instant,
        instances: Vec<Leases>,
    }

    impl World {
        fn new(names: &[&str]) -> Self {
            let shards: BTreeSet<u32> = (0..16).collect();
            let instances = names
                .iter()
                .map(|name| Leases::new((*name).to_owned(), shards.clone()))
                .collect();
            Self {
                bucket: BTreeMap::new(),
                seq: 0,
                now: Instant::now(),
                instances,
            }
        }

        fn round(&mut self) {
            self.now += EVERY;
            for leases in &mut self.instances {
                for (shard, (seq, lease)) in &self.bucket {
                    leases.observe(*shard, *seq, lease.clone(), self.now);
                }
                for wish in leases.wishes(self.now) {
                    let Some((shard, value)) = leases.value(&wish) else {
                        if let Wish::Leave(shard) = wish {
                            leases.left(shard);
                        }
                        continue;
                    };
                    let stored = self.bucket.get(&shard).map_or(0, |(seq, _)| *seq);
                    if stored == leases.seq(shard) {
                        self.seq += 1;
                        self.bucket.insert(shard, (self.seq, value.clone()));
                        leases.stored(&wish, self.seq, value, self.now);
                    }
                }
            }
        }

        fn counts(&self) -> Vec<usize> {
            self.instances.iter().map(|leases| leases.held().len()).collect()
        }

        fn check(&self) {
            let mut all: Vec<u32> = self
                .instances
                .iter()
                .flat_map(|leases| leases.held().iter().copied())
                .collect();
            all.sort_unstable();
            assert_eq!(all, (0..16).collect::<Vec<_>>(), "each shard has one holder");
        }
    }

    #[test]
    fn one_instance_takes_everything_at_once() {
        let mut world = World::new(&["a"]);
        world.round();
        assert_eq!(world.counts(), [16]);
    }

    #[test]
    fn shards_spread_evenly_when_instances_come_and_go() {
        let mut world = World::new(&["a"]);
        world.round();
        let shards: BTreeSet<u32> = (0..16).collect();
        world.instances.push(Leases::new("b".to_owned(), shards.clone()));
        for _ in 0..40 {
            world.round();
        }
        assert_eq!(world.counts(), [8, 8]);
        world.instances.push(Leases::new("c".to_owned(), shards));
        for _ in 0..40 {
            world.round();
        }
        let mut counts = world.counts();
        counts.sort_unstable();
        assert_eq!(counts, [5, 5, 6]);
        world.check();
        // The first dies without a word.
        world.instances.remove(0);
        for _ in 0..12 {
            world.round();
        }
        assert_eq!(world.counts(), [8, 8]);
        world.check();
    }

    #[test]
    fn an_instance_that_comes_back_under_its_name_goes_on_at_once() {
        let mut world = World::new(&["a"]);
        world.round();
        world.instances[0] = Leases::new("a".to_owned(), (0..16).collect());
        world.round();
        assert_eq!(world.counts(), [16]);
    }

    #[test]
    fn the_dead_are_found_after_the_time_to_live_and_not_before() {
        let mut world = World::new(&["a"]);
        world.round();
        world.instances[0] = Leases::new("b".to_owned(), (0..16).collect());
        for _ in 0..5 {
            world.round();
            assert_eq!(world.counts(), [0]);
        }
        world.round();
        assert_eq!(world.counts(), [16]);
    }
}
