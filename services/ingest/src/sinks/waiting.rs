//! What waits to be sent, and which of it is tried next. Decides without clock and I/O: the jobs themselves lie in NATS.
//!
//! Receivers that share a fate share a lane: a webhook, the devices at one push service. A lane has so many attempts under way at most, so
//! one that hangs holds up itself alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use roomcast_proto::ids::Tenant;
use roomcast_proto::subject::{SinkJob, SinkTarget};

/// Attempts under way, over all lanes.
pub const ATTEMPTS_MAX: usize = 64;
/// Attempts under way of one lane. A push service that takes 100 ms is sent 160 pushes a second.
const LANE_ATTEMPTS_MAX: usize = 16;
/// Lanes of push services: those whose hosts' hashes meet share one.
const PUSH_LANES: u64 = 64;
/// What waits for one webhook at most, and for one device.
pub const WEBHOOK_JOBS_MAX: usize = 10_000;
const DEVICE_JOBS_MAX: usize = 50;

/// Receivers that share a fate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// A webhook.
    Webhook(String),
    /// Push services, by their host's hash.
    Push(u64),
}

impl Lane {
    /// That of a push service.
    #[must_use]
    pub fn of_host(host: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        host.hash(&mut hasher);
        Self::Push(hasher.finish() % PUSH_LANES)
    }
}

/// A job and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// What it is.
    pub what: SinkJob,
    /// When it was written, Unix microseconds: its age counts from then.
    pub since_micros: i64,
    /// Attempts that were made by this instance.
    pub attempts: u32,
    lane: Lane,
    due: u64,
}

#[derive(Debug, Default)]
struct Queue {
    /// When each may be tried, and its position.
    due: BTreeSet<(u64, u64)>,
    under_way: usize,
}

/// All jobs, by their position in the stream.
#[derive(Debug, Default)]
pub struct Waiting {
    jobs: HashMap<u64, Job>,
    since: BTreeSet<(i64, u64)>,
    /// Those that were tried, and wait for another attempt.
    tried: BTreeSet<(i64, u64)>,
    lanes: BTreeMap<Lane, Queue>,
    targets: HashMap<(Tenant, SinkTarget), usize>,
    under_way: usize,
}

impl Waiting {
    /// Adds the job at a position, to be tried at once. `now`: any milliseconds, the same clock everywhere here.
    pub fn add(&mut self, position: u64, what: SinkJob, since_micros: i64, lane: Lane, now: u64) {
        if self.jobs.contains_key(&position) {
            return;
        }
        let target = (what.tenant.clone(), what.target.clone());
        *self.targets.entry(target).or_default() += 1;
        self.since.insert((since_micros, position));
        self.lanes
            .entry(lane.clone())
            .or_default()
            .due
            .insert((now, position));
        let job = Job {
            what,
            since_micros,
            attempts: 0,
            lane,
            due: now,
        };
        self.jobs.insert(position, job);
    }

    /// Of the jobs that may be tried now the one that may be for the longest time; it is under way from here on.
    pub fn next(&mut self, now: u64) -> Option<(u64, Job)> {
        if self.under_way >= ATTEMPTS_MAX {
            return None;
        }
        let open = self
            .lanes
            .values_mut()
            .filter(|queue| queue.under_way < LANE_ATTEMPTS_MAX);
        let first = |queue: &Queue| queue.due.first().copied();
        let queue = open
            .filter(|queue| first(queue).is_some_and(|(due, _)| due <= now))
            .min_by_key(|queue| first(queue))?;
        let (_, position) = queue.due.pop_first()?;
        queue.under_way += 1;
        self.under_way += 1;
        let job = self.jobs.get_mut(&position)?;
        self.tried.remove(&(job.since_micros, position));
        job.attempts += 1;
        Some((position, job.clone()))
    }

    /// The oldest job that was tried and still waits although it was written before `since_micros`: its lane was too busy for it, and nobody
    /// waits for it any more. It is under way from here on, beside what its lane may have.
    pub fn overdue(&mut self, since_micros: i64, now: u64) -> Option<(u64, Job)> {
        if self.under_way >= ATTEMPTS_MAX {
            return None;
        }
        let is_due = |position| self.jobs.get(position).is_some_and(|job| job.due <= now);
        let mut late = self.tried.range(..(since_micros, 0));
        let (since, position) = late.find(|(_, position)| is_due(position)).copied()?;
        self.tried.remove(&(since, position));
        let job = self.jobs.get(&position)?;
        let queue = self.lanes.get_mut(&job.lane)?;
        queue.due.remove(&(job.due, position));
        queue.under_way += 1;
        self.under_way += 1;
        Some((position, job.clone()))
    }

    /// An attempt has ended, and there will be another one at `due`. `counts`: it was one, and not given up before anything was sent.
    pub fn again(&mut self, position: u64, due: u64, counts: bool) {
        let Some(job) = self.jobs.get_mut(&position) else {
            return;
        };
        if !counts {
            job.attempts = job.attempts.saturating_sub(1);
        }
        job.due = due;
        if job.attempts > 0 {
            self.tried.insert((job.since_micros, position));
        }
        if let Some(queue) = self.lanes.get_mut(&job.lane) {
            queue.due.insert((due, position));
            queue.under_way -= 1;
            self.under_way -= 1;
        }
    }

    /// An attempt has ended, and there will be no other. Whose job it was; `None`: there is none such.
    pub fn done(&mut self, position: u64) -> Option<SinkTarget> {
        let job = self.jobs.remove(&position)?;
        self.since.remove(&(job.since_micros, position));
        let target = (job.what.tenant, job.what.target);
        if let Some(count) = self.targets.get_mut(&target) {
            *count -= 1;
            if *count == 0 {
                self.targets.remove(&target);
            }
        }
        if let Some(queue) = self.lanes.get_mut(&job.lane) {
            queue.under_way -= 1;
            self.under_way -= 1;
            if queue.due.is_empty() && queue.under_way == 0 {
                self.lanes.remove(&job.lane);
            }
        }
        Some(target.1)
    }

    /// How many more a target may have waiting.
    #[must_use]
    pub fn room(&self, tenant: &Tenant, target: &SinkTarget) -> usize {
        let most = match target {
            SinkTarget::Webhook(_) => WEBHOOK_JOBS_MAX,
            SinkTarget::Device { .. } => DEVICE_JOBS_MAX,
        };
        let waiting = self.targets.get(&(tenant.clone(), target.clone()));
        most.saturating_sub(waiting.copied().unwrap_or(0))
    }

    /// How many there are, under way or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// When the oldest was written, Unix microseconds.
    #[must_use]
    pub fn oldest_micros(&self) -> Option<i64> {
        self.since.first().map(|(since, _)| *since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(name: &str, position: u64) -> SinkJob {
        SinkJob {
            tenant: Tenant::default(),
            target: SinkTarget::Webhook(name.to_owned()),
            position,
        }
    }

    fn lane(name: &str) -> Lane {
        Lane::Webhook(name.to_owned())
    }

    fn positions(waiting: &mut Waiting, now: u64) -> Vec<u64> {
        std::iter::from_fn(|| waiting.next(now).map(|(position, _)| position)).collect()
    }

    #[test]
    fn what_may_be_tried_for_the_longest_time_comes_first() {
        let mut waiting = Waiting::default();
        for (position, name) in [(1, "a"), (2, "b"), (3, "a")] {
            waiting.add(
                position,
                hook(name, position),
                100 - i64::try_from(position).unwrap(),
                lane(name),
                position,
            );
        }
        waiting.add(3, hook("a", 3), 0, lane("a"), 0);
        assert_eq!((waiting.len(), waiting.oldest_micros()), (3, Some(97)));
        assert_eq!(positions(&mut waiting, 0), [0; 0]);
        assert_eq!(positions(&mut waiting, 2), [1, 2]);
        waiting.again(1, 50, true);
        waiting.done(2);
        assert_eq!(positions(&mut waiting, 49), [3]);
        let (_, job) = waiting.next(50).unwrap();
        assert_eq!((job.what.position, job.attempts), (1, 2));
        // Not begun after all: that was no attempt.
        waiting.again(1, 60, false);
        assert_eq!(waiting.next(60).unwrap().1.attempts, 2);
        waiting.done(1);
        waiting.done(3);
        waiting.done(3);
        assert!(waiting.len() == 0 && waiting.lanes.is_empty() && waiting.targets.is_empty());
        assert_eq!((waiting.under_way, waiting.oldest_micros()), (0, None));
    }

    #[test]
    fn a_receiver_that_hangs_holds_up_itself_alone() {
        let mut waiting = Waiting::default();
        for position in 0..200 {
            waiting.add(position, hook("hangs", position), 0, lane("hangs"), 0);
        }
        for position in 200..210 {
            waiting.add(position, hook("fine", position), 0, lane("fine"), 5);
        }
        let begun = positions(&mut waiting, 10);
        assert_eq!(
            begun.iter().filter(|position| **position < 200).count(),
            LANE_ATTEMPTS_MAX
        );
        assert_eq!(begun.iter().filter(|position| **position >= 200).count(), 10);
        assert_eq!(positions(&mut waiting, 1_000), [0; 0]);
        waiting.done(begun[0]);
        assert_eq!(positions(&mut waiting, 1_000).len(), 1);
        // All together have a bound, too.
        for name in 0..10_u64 {
            for position in 0..20 {
                let (name, position) = (format!("w{name}"), 1_000 + name * 100 + position);
                waiting.add(position, hook(&name, position), 0, lane(&name), 0);
            }
        }
        positions(&mut waiting, 1_000);
        assert_eq!(waiting.under_way, ATTEMPTS_MAX);
    }

    #[test]
    fn what_a_busy_lane_keeps_past_its_time_is_given_up() {
        let mut waiting = Waiting::default();
        let all = LANE_ATTEMPTS_MAX as u64 + 2;
        for position in 0..all {
            let since = i64::try_from(position).unwrap();
            waiting.add(position, hook("hangs", position), since, lane("hangs"), 0);
        }
        let begun = positions(&mut waiting, 0);
        // Not tried yet, however old: they have an attempt.
        assert_eq!(waiting.overdue(1_000, 1_000), None);
        for position in &begun {
            waiting.again(*position, 50, true);
        }
        assert_eq!(waiting.overdue(1_000, 49), None, "it has a time of its own");
        assert_eq!(waiting.overdue(0, 50), None, "its time is not over");
        assert_eq!(waiting.overdue(1, 50).map(|(position, _)| position), Some(0));
        assert_eq!(waiting.overdue(1, 50), None);
        // NATS did not take it away.
        waiting.again(0, 60, true);
        assert_eq!(waiting.overdue(1, 59), None);
        assert_eq!(waiting.overdue(3, 60).map(|(position, _)| position), Some(0));
        waiting.done(0);
        let tried = positions(&mut waiting, 60);
        assert_eq!(tried.len(), LANE_ATTEMPTS_MAX, "{tried:?}");
        assert!(!tried.contains(&0));
        let rest = std::iter::from_fn(|| waiting.overdue(1_000, 60)).count();
        assert_eq!(rest, 1, "one was tried and found no room again");
    }

    #[test]
    fn a_target_has_so_much_waiting_at_most() {
        let mut waiting = Waiting::default();
        let device = SinkTarget::Device {
            user: "u1".to_owned(),
            device: "d1".to_owned(),
        };
        let main = Tenant::default();
        assert_eq!(waiting.room(&main, &device), DEVICE_JOBS_MAX);
        for position in 0..60 {
            let job = SinkJob {
                tenant: main.clone(),
                target: device.clone(),
                position,
            };
            waiting.add(position, job, 0, Lane::of_host("push.example"), 0);
        }
        assert_eq!(waiting.room(&main, &device), 0);
        assert_eq!(waiting.room(&main, &hook("a", 0).target), WEBHOOK_JOBS_MAX);
        assert_eq!(Lane::of_host("a.example"), Lane::of_host("a.example"));
    }
}
