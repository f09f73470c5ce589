//! One term: what the instance that holds the lease knows and does, from taking it to losing it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;
use roomcast_chassis::fetch::Url;
use roomcast_chassis::jetstream::{ACK_TIMEOUT, ApiError, At, Outgoing, PublishError, StoredMessage, code};
use roomcast_proto::device::{Device, Devices, Holder};
use roomcast_proto::ids::Tenant;
use roomcast_proto::subject::{
    SINKS_POSITION, SinkJob, SinkTarget, devices_key, header, parse_devices_key, stream,
};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::attempt::{self, Ended};
use super::plan::{JOBS_MAX, Known, Planned, Position, plan};
use super::recipients::principal;
use super::roster::{Roster, Whose};
use super::waiting::{Lane, Waiting};
use super::{Shared, devices};
use crate::now_micros;
use crate::queues::place::life;

/// Messages read at once, and bytes, about.
const READ_AT_ONCE: usize = 500;
const READ_BYTES: usize = 1 << 20;
/// What waits in all; then nothing more is read from `STATE`, where the newest of each key goes on standing.
const WAITING_MAX: usize = 100_000;
/// Nothing has come: the next look.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// NATS did not answer: the next try.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How often it is asked whether `STATE` is the same stream still, and the position is written where no job follows from what was read.
const LIFE_EVERY: Duration = Duration::from_secs(2);
const POSITION_EVERY: Duration = Duration::from_secs(10);
/// A job whose last attempt has not begun so long after its time is given up without it.
pub(super) const LATE: Duration = Duration::from_secs(10);
/// How often devices whose time is over are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// Without an answer of NATS for longer than that nobody knows whether the rights in force are the newest.
const UNSURE_AFTER: Duration = Duration::from_secs(2);
/// Devices taken out of the bucket in one turn because they were revoked.
const REVOKED_AT_ONCE: usize = 20;

/// Why a turn came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    /// Another instance has written the position: this one's term is over, whatever it believes.
    #[error("another instance sends")]
    Another,
    /// NATS, or what it holds.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The batch was not stored, or nobody knows.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// A job's position, how the attempt has ended, and whether the job is gone from the stream.
type Attempted = (u64, Ended, bool);

/// What the holder of the lease knows.
pub(super) struct Term {
    shared: Arc<Shared>,
    clock: Instant,
    position: Position,
    /// Of the position's key, to compare with.
    revision: u64,
    /// Whether the position is what is stored; not after a write without an answer.
    sure: bool,
    roster: Roster,
    devices_next: u64,
    waiting: Waiting,
    jobs_next: u64,
    attempts: JoinSet<Attempted>,
    begun: HashMap<Id, u64>,
    /// Jobs that are over and still in the stream.
    over: BTreeSet<u64>,
    life_due: Instant,
    position_due: Instant,
    sweep_due: Instant,
    /// Under which rights all devices were looked at for revoked ones.
    generation: u64,
}

impl Term {
    /// Begins one: reads the position, or where there is none, begins at the end of `STATE`: what stands is no news.
    pub(super) async fn begin(shared: Arc<Shared>) -> Result<Self, Stop> {
        let now = Instant::now();
        let mut term = Self {
            shared,
            clock: now,
            position: Position::default(),
            revision: 0,
            sure: false,
            roster: Roster::default(),
            devices_next: 1,
            waiting: Waiting::default(),
            jobs_next: 1,
            attempts: JoinSet::new(),
            begun: HashMap::new(),
            over: BTreeSet::new(),
            life_due: now,
            position_due: now + POSITION_EVERY,
            sweep_due: now + SWEEP_EVERY,
            generation: 0,
        };
        term.look().await?;
        tracing::info!(
            position = term.position.next,
            "sends notifications, from position {} of {} on",
            term.position.next,
            stream::STATE
        );
        Ok(term)
    }

    /// Goes on until the lease is lost, another instance sends, or `ending`; attempts that have begun are finished.
    pub(super) async fn run(mut self, ending: &CancellationToken) {
        while !ending.is_cancelled() && self.shared.lease.is_held() {
            let mut pause = LOOK_EVERY;
            match self.turn().await {
                Ok(true) => pause = Duration::ZERO,
                Ok(false) => {}
                Err(Stop::Another) => break,
                Err(error) => {
                    tracing::debug!(%error, "sending stands still: {error}");
                    self.shared.metrics.pause("unavailable");
                    pause = AGAIN_AFTER;
                }
            }
            self.begin_attempts();
            self.show();
            let pause = tokio::time::sleep(pause);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    Some(ended) = self.attempts.join_next_with_id(), if !self.attempts.is_empty() => {
                        self.ended(ended).await;
                        self.begin_attempts();
                    }
                    () = &mut pause => break,
                    () = ending.cancelled() => break,
                }
            }
        }
        while let Some(ended) = self.attempts.join_next_with_id().await {
            self.ended(ended).await;
        }
        self.take_away().await;
    }

    /// Milliseconds of this term.
    fn now(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn show(&self) {
        let oldest = self.waiting.oldest_micros();
        let age = oldest.map_or(0, |oldest| now_micros().saturating_sub(oldest) / 1_000_000);
        let metrics = &self.shared.metrics;
        metrics.oldest_seconds.set(age.max(0));
        metrics
            .users
            .set(i64::try_from(self.roster.users()).unwrap_or(i64::MAX));
    }

    /// Whether something was read.
    async fn turn(&mut self) -> Result<bool, Stop> {
        self.take_away().await;
        self.look().await?;
        self.follow_devices().await?;
        self.drop_revoked().await;
        let read = self.read().await?;
        self.follow_jobs().await?;
        Ok(read)
    }

    /// Looks whether the position is known, and whether it is one of this `STATE`.
    async fn look(&mut self) -> Result<(), Stop> {
        if !self.sure {
            let held = self
                .shared
                .jetstream
                .message(stream::SINKS, At::Last(SINKS_POSITION))
                .await?;
            if let Some(held) = held {
                self.revision = held.sequence;
                self.position = serde_json::from_slice(&held.payload).map_err(|error| {
                    tracing::error!(%error, "{SINKS_POSITION} cannot be read: {error}");
                    ApiError::Malformed(error.to_string())
                })?;
            }
            self.sure = true;
        }
        if Instant::now() < self.life_due {
            return Ok(());
        }
        let Some(info) = self.shared.jetstream.stream_info(stream::STATE).await? else {
            return Err(ApiError::Malformed("there is no STATE".to_owned()).into());
        };
        let life = life(stream::STATE, &info.created);
        if self.position.life.is_empty() {
            let position = Position {
                life: life.as_ref().to_owned(),
                next: info.state.last_seq + 1,
                ..Position::default()
            };
            self.write(Vec::new(), position).await?;
        } else if self.position.life != *life {
            tracing::warn!("STATE was made anew; what it holds from before was sent before");
            let position = Position {
                life: life.as_ref().to_owned(),
                next: 1,
                since_micros: self.position.read_micros,
                read_micros: self.position.read_micros,
                after: None,
            };
            self.write(Vec::new(), position).await?;
        }
        self.life_due = Instant::now() + LIFE_EVERY;
        Ok(())
    }

    /// Reads what is new in the bucket of devices.
    async fn follow_devices(&mut self) -> Result<(), Stop> {
        if self.shared.config.push.is_none() {
            return Ok(());
        }
        loop {
            let read = self.portion(stream::DEVICES, self.devices_next).await?;
            let Some(last) = read.last() else {
                break;
            };
            self.devices_next = last.sequence + 1;
            for message in &read {
                let Some((tenant, user)) = parse_devices_key(&message.subject) else {
                    continue;
                };
                match serde_json::from_slice::<Devices>(&message.payload) {
                    Ok(record) => self.roster.put((tenant, user.to_owned()), record),
                    Err(error) => {
                        tracing::error!(%error, "a user's devices cannot be read: {error}");
                    }
                }
            }
        }
        if Instant::now() >= self.sweep_due {
            self.sweep_due = Instant::now() + SWEEP_EVERY;
            self.roster.sweep(now_secs());
        }
        Ok(())
    }

    /// Takes devices out whose user or token was revoked. A revocation is remembered for as long as a token lives, and a device counts for
    /// longer than that.
    async fn drop_revoked(&mut self) {
        let in_force = self.shared.rights.now();
        if in_force.generation == self.generation {
            return;
        }
        let now_secs = now_secs();
        let is_revoked =
            |tenant: &Tenant, holder: &Holder| in_force.check(&principal(tenant, holder), now_secs).is_err();
        let revoked = self
            .roster
            .all()
            .filter(|((tenant, _), device)| is_revoked(tenant, &device.holder));
        let mut revoked: Vec<(Whose, Device)> = revoked
            .take(REVOKED_AT_ONCE + 1)
            .map(|(whose, device)| (whose.clone(), device.clone()))
            .collect();
        let all = revoked.len() <= REVOKED_AT_ONCE;
        revoked.truncate(REVOKED_AT_ONCE);
        for ((tenant, _), device) in revoked {
            let key = devices_key(&tenant, &device.holder.user);
            let forgotten =
                devices::forget(&self.shared.devices, &key, &device.device, device.at, now_secs).await;
            match forgotten {
                Ok(()) => self.shared.metrics.revoked.inc(),
                // Looked at again with the next turn.
                Err(_) => return,
            }
        }
        if all {
            self.generation = in_force.generation;
        }
    }

    /// Reads what is new in `STATE` and writes the jobs that follow from it.
    async fn read(&mut self) -> Result<bool, Stop> {
        if self.waiting.len() + JOBS_MAX > WAITING_MAX {
            self.shared.metrics.pause("full");
            return Ok(false);
        }
        if self.shared.rights.unsure_for() > UNSURE_AFTER {
            self.shared.metrics.pause("unsure");
            return Ok(false);
        }
        let read = self.portion(stream::STATE, self.position.next).await?;
        if read.is_empty() {
            return Ok(false);
        }
        let in_force = self.shared.rights.now();
        let known = Known {
            config: &self.shared.config,
            roster: &self.roster,
            waiting: &self.waiting,
            in_force: &in_force,
            now_millis: now_micros().div_euclid(1_000),
        };
        let plan = plan(read, &self.position, known);
        for (job, event) in &plan.full {
            let why = "as much waits for it as may";
            if !attempt::keep_dead(&self.shared, job, why, event.clone()).await {
                return Err(ApiError::Timeout.into());
            }
            self.shared.metrics.ended(&job.target, "dead");
        }
        if plan.jobs.is_empty() && Instant::now() < self.position_due {
            // Read again after a crash, and nothing follows from it then either.
            self.position = plan.position;
            return Ok(true);
        }
        self.write(plan.jobs, plan.position).await?;
        Ok(true)
    }

    /// Writes jobs and position together, where nobody else has written the position.
    async fn write(&mut self, jobs: Vec<Planned>, position: Position) -> Result<(), Stop> {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::EXPECTED_LAST_SUBJECT_SEQUENCE,
            self.revision.to_string().as_str(),
        );
        let value = serde_json::to_vec(&position).map_err(|error| ApiError::Malformed(error.to_string()))?;
        let jobs = jobs.into_iter().map(|one| Outgoing {
            subject: one.job.subject(),
            headers: HeaderMap::new(),
            payload: one.payload,
        });
        let last = Outgoing {
            subject: SINKS_POSITION.to_owned(),
            headers,
            payload: Bytes::from(value),
        };
        let mut batch: Vec<Outgoing> = jobs.collect();
        let jetstream = &self.shared.jetstream;
        let written = match batch.is_empty() {
            true => {
                let Outgoing {
                    subject,
                    headers,
                    payload,
                } = last;
                jetstream.publish(subject, headers, payload, ACK_TIMEOUT).await
            }
            false => {
                batch.push(last);
                jetstream.publish_batch(batch).await
            }
        };
        match written {
            Ok(ack) => {
                self.revision = ack.seq;
                self.position = position;
                self.position_due = Instant::now() + POSITION_EVERY;
                Ok(())
            }
            Err(error) => {
                // All of it is stored, or nothing; what the position says is so.
                self.sure = false;
                match error.err_code() {
                    Some(code::WRONG_LAST_SEQUENCE) => Err(Stop::Another),
                    _ => Err(error.into()),
                }
            }
        }
    }

    /// Reads the jobs that were written, by this instance or one before it.
    async fn follow_jobs(&mut self) -> Result<(), Stop> {
        loop {
            let read = self.portion(stream::SINKS, self.jobs_next).await?;
            let Some(last) = read.last() else {
                return Ok(());
            };
            self.jobs_next = last.sequence + 1;
            let now = self.now();
            for message in &read {
                let Some(job) = SinkJob::parse(&message.subject) else {
                    continue;
                };
                let lane = self.lane(&job);
                self.shared.metrics.waiting(&job.target, 1);
                self.waiting
                    .add(message.sequence, job, message.time_micros, lane, now);
            }
        }
    }

    fn lane(&self, job: &SinkJob) -> Lane {
        match &job.target {
            SinkTarget::Webhook(name) => Lane::Webhook(name.clone()),
            SinkTarget::Device { .. } => {
                let url = self
                    .device(job)
                    .and_then(|device| Url::parse(&device.subscription.endpoint).ok());
                Lane::of_host(url.as_ref().map_or("", |url| url.host()))
            }
        }
    }

    fn device(&self, job: &SinkJob) -> Option<Device> {
        let SinkTarget::Device { user, device } = &job.target else {
            return None;
        };
        let whose = (job.tenant.clone(), user.clone());
        self.roster.device(&whose, device, now_secs()).cloned()
    }

    async fn portion(&self, stream: &str, from: u64) -> Result<Vec<StoredMessage>, ApiError> {
        let jetstream = &self.shared.jetstream;
        let read = jetstream
            .direct_portion(stream, from, READ_AT_ONCE, READ_BYTES)
            .await?;
        Ok(read.messages)
    }

    fn begin_attempts(&mut self) {
        if !self.shared.lease.is_held() {
            return;
        }
        let give_up = i64::try_from((self.shared.config.give_up + LATE).as_micros()).unwrap_or(i64::MAX);
        while let Some((position, job)) = self
            .waiting
            .overdue(now_micros().saturating_sub(give_up), self.now())
        {
            let shared = Arc::clone(&self.shared);
            let ending = async move { attempt::too_late(&shared, position, &job).await };
            self.spawn(position, ending);
        }
        while let Some((position, job)) = self.waiting.next(self.now()) {
            let (shared, device, life) = (
                Arc::clone(&self.shared),
                self.device(&job.what),
                self.position.life.clone(),
            );
            let attempt = async move { attempt::attempt(&shared, position, &job, device, &life).await };
            self.spawn(position, attempt);
        }
    }

    fn spawn(&mut self, position: u64, attempt: impl Future<Output = Ended> + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        let task = self.attempts.spawn(async move {
            let ended = attempt.await;
            // At once: only in between would a crash send it again.
            let gone = matches!(ended, Ended::Over(_))
                && shared
                    .jetstream
                    .delete_message(stream::SINKS, position)
                    .await
                    .is_ok();
            (position, ended, gone)
        });
        self.begun.insert(task.id(), position);
    }

    async fn ended(&mut self, ended: Result<(Id, Attempted), JoinError>) {
        let (position, ended, gone) = match ended {
            Ok((id, ended)) => {
                self.begun.remove(&id);
                ended
            }
            Err(error) => match self.begun.remove(&error.id()) {
                Some(position) => (position, Ended::Again(AGAIN_AFTER), false),
                None => return,
            },
        };
        let due = |pause: Duration| self.now() + u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        match ended {
            Ended::Over(end) => {
                if !gone {
                    self.over.insert(position);
                }
                if let Some(target) = self.waiting.done(position) {
                    self.shared.metrics.ended(&target, end);
                    self.shared.metrics.waiting(&target, -1);
                }
            }
            Ended::Again(pause) => self.waiting.again(position, due(pause), true),
            Ended::NotBegun(pause) => self.waiting.again(position, due(pause), false),
        }
    }

    /// Takes away what is over and could not be taken away at once.
    async fn take_away(&mut self) {
        while let Some(position) = self.over.first().copied() {
            if self
                .shared
                .jetstream
                .delete_message(stream::SINKS, position)
                .await
                .is_err()
            {
                return;
            }
            self.over.remove(&position);
        }
    }
}

fn now_secs() -> i64 {
    now_micros().div_euclid(1_000_000)
}
