//! The position up to which `STATE` was read, and what is written together with it.

use std::time::Instant;

use async_nats::HeaderMap;
use bytes::Bytes;
use roomcast_chassis::jetstream::{ACK_TIMEOUT, ApiError, At, Outgoing, code};
use roomcast_proto::subject::{SINKS_POSITION, header, stream};

use super::super::plan::{JOBS_MAX, Known, Planned, Position, plan};
use super::super::verdict::keep_dead;
use super::{LIFE_EVERY, POSITION_EVERY, Stop, Term, UNSURE_AFTER, WAITING_MAX};
use crate::now_micros;
use crate::queues::place::life;

impl Term {
    /// Looks whether the position is known, and whether it is one of this `STATE`.
    pub(super) async fn look(&mut self) -> Result<(), Stop> {
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

    /// Reads what is new in `STATE` and writes the jobs that follow from it.
    pub(super) async fn read(&mut self) -> Result<bool, Stop> {
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
        // After it, so that whoever registered before a notification was stored is told of it.
        self.read_all_devices().await?;
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
            if !keep_dead(&self.shared, job, why, event.clone()).await {
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
            headers: one.headers,
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
}
