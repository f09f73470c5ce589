//! What waits to be sent, and which of it is tried next. Decides without clock and I/O: the jobs themselves lie in NATS.
//!
//! Receivers that share a fate share a lane: a webhook, the devices at one push service. A lane has a few attempts of its own, which nobody
//! can take from it, and more of what all lanes share while its receiver answers. So receivers that hang, however many, hold up nobody else:
//! each has no more than its own, until one of these is answered.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};

use roomcast_proto::ids::Tenant;
use roomcast_proto::subject::{SinkJob, SinkTarget};

/// Attempts under way that a lane has for itself alone, and all that it has while its receiver hangs.
pub const LANE_OWN: usize = 2;
/// Attempts under way of one lane. A push service that takes 100 ms is sent 160 pushes a second.
const LANE_ATTEMPTS_MAX: usize = 16;
/// Attempts under way beyond those that lanes have for themselves, over all lanes. With 64 webhooks and [`PUSH_LANES`], each with its own, at
/// most 320 are under way.
const SHARED_ATTEMPTS_MAX: usize = 64;
/// Lanes of push services that are on no list: those whose hosts' hashes meet share one.
const PUSH_LANES: u64 = 64;
/// What waits for one webhook at most, and for one device.
pub const WEBHOOK_JOBS_MAX: usize = 10_000;
const DEVICE_JOBS_MAX: usize = 50;

/// Receivers that share a fate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// A webhook.
    Webhook(String),
    /// Push services of a host that the operator lists, by its place in the list.
    Listed(usize),
    /// Other push services, by their host's hash: devices name them.
    Push(u64),
}

impl Lane {
    /// That of a push service on no list. `keys` are secret: nobody chooses with whom theirs shares a lane.
    #[must_use]
    pub fn of_host(host: &str, keys: &RandomState) -> Self {
        Self::Push(keys.hash_one(host) % PUSH_LANES)
    }
}

/// What is decided of a job and could not be carried out yet. Nothing is sent for it any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It becomes a dead letter, for this reason.
    Dead(String),
    /// Its device is forgotten.
    Forget {
        /// Whose it is, as the token spells them.
        user: String,
        /// Unix milliseconds at which it was registered; registered again since, it is not forgotten.
        at: i64,
    },
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
    /// What is left to do with it, where that is decided.
    pub verdict: Option<Verdict>,
    lane: Lane,
    due: u64,
}

/// One lane.
#[derive(Debug, Default)]
struct Queue {
    /// When each that waits may be tried, and its position.
    due: BTreeSet<(u64, u64)>,
    /// Those of them that were tried before, by when they were written.
    tried: BTreeSet<(i64, u64)>,
    /// Those that were not.
    fresh: BTreeSet<(i64, u64)>,
    under_way: usize,
    /// The receiver hangs: it was silent when it was last spoken to.
    silent: bool,
}

impl Queue {
    fn put(&mut self, position: u64, job: &Job) {
        self.due.insert((job.due, position));
        let waits = match job.attempts {
            0 => &mut self.fresh,
            _ => &mut self.tried,
        };
        waits.insert((job.since_micros, position));
    }

    fn take(&mut self, position: u64, job: &Job) {
        self.due.remove(&(job.due, position));
        self.fresh.remove(&(job.since_micros, position));
        self.tried.remove(&(job.since_micros, position));
    }

    /// The first that may be tried now: since when, and its position.
    fn first(&self, now: u64) -> Option<(u64, u64)> {
        self.due.first().copied().filter(|(due, _)| *due <= now)
    }

    /// Whether it may begin another attempt while `shared` are under way of what all share.
    fn may_begin(&self, shared: usize) -> bool {
        let more = !self.silent && self.under_way < LANE_ATTEMPTS_MAX && shared < SHARED_ATTEMPTS_MAX;
        self.under_way < LANE_OWN || more
    }
}

/// All jobs, by their position in the stream.
#[derive(Debug, Default)]
pub struct Waiting {
    jobs: HashMap<u64, Job>,
    since: BTreeSet<(i64, u64)>,
    lanes: BTreeMap<Lane, Queue>,
    targets: HashMap<(Tenant, SinkTarget), usize>,
    /// Attempts under way beyond those that lanes have for themselves.
    shared: usize,
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
        let job = Job {
            what,
            since_micros,
            attempts: 0,
            verdict: None,
            lane,
            due: now,
        };
        let queue = self.lanes.entry(job.lane.clone()).or_default();
        queue.put(position, &job);
        self.jobs.insert(position, job);
    }

    /// A job that may be tried now, of the lane with the fewest attempts under way the one that may be for the longest time; it is under way
    /// from here on.
    pub fn next(&mut self, now: u64) -> Option<(u64, Job)> {
        let open = self.lanes.values().filter(|queue| queue.may_begin(self.shared));
        let first = open.filter_map(|queue| Some((queue.under_way, queue.first(now)?)));
        let (_, (_, position)) = first.min()?;
        self.begin(position);
        let job = self.jobs.get_mut(&position)?;
        job.attempts += 1;
        Some((position, job.clone()))
    }

    /// A job that still waits although it was written before `since_micros`, because its lane was too busy for it: one that was tried, or any
    /// whose receiver hangs. It is under way from here on, beside what its lane may have.
    pub fn overdue(&mut self, since_micros: i64, now: u64) -> Option<(u64, Job)> {
        if self.shared >= SHARED_ATTEMPTS_MAX {
            return None;
        }
        let is_due = |position: &u64| self.jobs.get(position).is_some_and(|job| job.due <= now);
        let mut late = self.lanes.values().flat_map(|queue| {
            let untried = queue.fresh.range(..(since_micros, 0)).filter(|_| queue.silent);
            queue.tried.range(..(since_micros, 0)).chain(untried)
        });
        let (_, position) = late.find(|(_, position)| is_due(position)).copied()?;
        self.begin(position);
        Some((position, self.jobs.get(&position)?.clone()))
    }

    fn begin(&mut self, position: u64) {
        let Some(job) = self.jobs.get(&position) else {
            return;
        };
        if let Some(queue) = self.lanes.get_mut(&job.lane) {
            queue.take(position, job);
            queue.under_way += 1;
            self.shared += usize::from(queue.under_way > LANE_OWN);
        }
    }

    /// What an attempt under way has shown of its receiver: whether it answers.
    pub fn heard(&mut self, position: u64, answers: bool) {
        let lane = self.jobs.get(&position).map(|job| &job.lane);
        if let Some(queue) = lane.and_then(|lane| self.lanes.get_mut(lane)) {
            queue.silent = !answers;
        }
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
        if let Some(queue) = self.lanes.get_mut(&job.lane) {
            self.shared -= usize::from(queue.under_way > LANE_OWN);
            queue.under_way -= 1;
            queue.put(position, job);
        }
    }

    /// It is decided what becomes of a job under way, and that could not be carried out: it is tried again at `due`.
    pub fn decided(&mut self, position: u64, due: u64, verdict: Verdict) {
        if let Some(job) = self.jobs.get_mut(&position) {
            job.verdict = Some(verdict);
        }
        self.again(position, due, true);
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
            self.shared -= usize::from(queue.under_way > LANE_OWN);
            queue.under_way -= 1;
            // Of one that hangs it is remembered: what comes for it next has the lane's own attempts and no more.
            if queue.due.is_empty() && queue.under_way == 0 && !queue.silent {
                self.lanes.remove(&job.lane);
            }
        }
        Some(target.1)
    }

    /// Whether something may be tried now that finds no room.
    #[must_use]
    pub fn is_held_up(&self, now: u64) -> bool {
        self.lanes.values().any(|queue| queue.first(now).is_some())
    }

    /// How many webhooks hang, and how many push services.
    #[must_use]
    pub fn hanging(&self) -> (usize, usize) {
        let silent = self.lanes.iter().filter(|(_, queue)| queue.silent);
        let (webhooks, pushes): (Vec<_>, Vec<_>) =
            silent.partition(|(lane, _)| matches!(lane, Lane::Webhook(_)));
        (webhooks.len(), pushes.len())
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
mod tests;
