//! Attempts under way: begun as receivers let themselves be sent to, and what follows from their ends.

use std::sync::Arc;
use std::time::Duration;

use roomcast_chassis::fetch::Url;
use roomcast_proto::device::Device;
use roomcast_proto::subject::{SinkJob, SinkTarget, stream};
use tokio::task::{Id, JoinError};

use super::super::attempt::{self, Ended};
use super::super::verdict;
use super::super::waiting::Lane;
use super::{AGAIN_AFTER, LATE, Stop, Term, now_secs};
use crate::now_micros;

/// What became of an attempt.
pub(super) struct Attempted {
    /// The job's position.
    position: u64,
    /// How it has ended.
    ended: Ended,
    /// Whether the receiver answered; `None`: nothing was sent.
    answered: Option<bool>,
    /// Whether the job is gone from the stream.
    gone: bool,
}

impl Term {
    /// Reads the jobs that were written, by this instance or one before it.
    pub(super) async fn follow_jobs(&mut self) -> Result<(), Stop> {
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
                let push = self.shared.config.push.as_ref();
                let listed = url.as_ref().zip(push).and_then(|(url, push)| push.listed(url));
                let host = url.as_ref().map_or("", |url| url.host());
                listed.map_or_else(|| Lane::of_host(host, &self.lane_keys), Lane::Listed)
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

    /// Begins as many as receivers let themselves be sent to.
    pub(super) fn begin_attempts(&mut self) {
        if !self.shared.lease.is_held() || !self.devices.is_whole() {
            return;
        }
        let give_up = i64::try_from((self.shared.config.give_up + LATE).as_micros()).unwrap_or(i64::MAX);
        while let Some((position, job)) = self
            .waiting
            .overdue(now_micros().saturating_sub(give_up), self.now())
        {
            let (shared, life) = (Arc::clone(&self.shared), self.position.life.clone());
            let ending = async move {
                let ended = match job.verdict.clone() {
                    Some(decided) => verdict::carry_out(&shared, position, &job, decided, &life).await,
                    None => verdict::too_late(&shared, position, &job, &life).await,
                };
                (ended, None)
            };
            self.spawn(position, ending);
        }
        while let Some((position, job)) = self.waiting.next(self.now()) {
            let (shared, device, life) = (
                Arc::clone(&self.shared),
                self.device(&job.what),
                self.position.life.clone(),
            );
            let attempt = async move {
                // Its receiver has said no already.
                match job.verdict.clone() {
                    Some(decided) => {
                        let ended = verdict::carry_out(&shared, position, &job, decided, &life).await;
                        (ended, None)
                    }
                    None => attempt::attempt(&shared, position, &job, device, &life).await,
                }
            };
            self.spawn(position, attempt);
        }
        if self.waiting.is_held_up(self.now()) {
            self.shared.metrics.pause("busy");
        }
    }

    fn spawn(
        &mut self,
        position: u64,
        attempt: impl Future<Output = (Ended, Option<bool>)> + Send + 'static,
    ) {
        let shared = Arc::clone(&self.shared);
        let task = self.attempts.spawn(async move {
            let (ended, answered) = attempt.await;
            // At once: only in between would a crash send it again.
            let gone = matches!(ended, Ended::Over(_))
                && shared
                    .jetstream
                    .delete_message(stream::SINKS, position)
                    .await
                    .is_ok();
            Attempted {
                position,
                ended,
                answered,
                gone,
            }
        });
        self.begun.insert(task.id(), position);
    }

    /// Follows an attempt that has ended, in whichever way.
    pub(super) async fn ended(&mut self, ended: Result<(Id, Attempted), JoinError>) {
        let Attempted {
            position,
            ended,
            answered,
            gone,
        } = match ended {
            Ok((id, ended)) => {
                self.begun.remove(&id);
                ended
            }
            Err(error) => match self.begun.remove(&error.id()) {
                Some(position) => Attempted {
                    position,
                    ended: Ended::Again(AGAIN_AFTER),
                    answered: None,
                    gone: false,
                },
                None => return,
            },
        };
        if let Some(answered) = answered {
            self.waiting.heard(position, answered);
        }
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
            Ended::Decided(verdict, pause) => self.waiting.decided(position, due(pause), verdict),
        }
    }

    /// Takes away what is over and could not be taken away at once.
    pub(super) async fn take_away(&mut self) {
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
