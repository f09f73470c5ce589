//! What follows from what was read: a job for each webhook and device a notification is for, and the position up to which that is.
//! Decides without clock and I/O.

use std::collections::HashMap;

use async_nats::HeaderMap;
use bytes::Bytes;
use roomcast_access::InForce;
use roomcast_chassis::jetstream::StoredMessage;
use roomcast_chassis::trace::{TRACE_PARENT, TRACE_STATE};
use roomcast_proto::ids::Tenant;
use roomcast_proto::subject::{SinkJob, SinkTarget};
use roomcast_sinks::config::Config;
use serde::{Deserialize, Serialize};

use super::recipients::Notification;
use super::roster::Roster;
use super::waiting::Waiting;

/// Jobs of one batch: with its position, half of what the server takes, so that it holds up nobody for long.
pub const JOBS_MAX: usize = 500;
/// Bytes of one batch, about.
const BYTES_MAX: usize = 2 << 20;

/// Up to where `STATE` was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Which life of the stream.
    pub life: String,
    /// The first position of which not everything has become jobs.
    pub next: u64,
    /// The device, by user and id, up to which the message at `next` has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<(String, String)>,
    /// When the newest message that was read was stored, Unix microseconds.
    #[serde(default)]
    pub read_micros: i64,
    /// What was stored up to then was read in another life of the stream.
    #[serde(default)]
    pub since_micros: i64,
}

/// One job to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// What it is.
    pub job: SinkJob,
    /// Where the notification's trace goes on, whoever sends it.
    pub headers: HeaderMap,
    /// What is kept with it: for a webhook the event, because a newer one may take its place in `STATE`; for a device, which is shown what
    /// stands then, the life of `STATE`.
    pub payload: Bytes,
}

/// What is to be written.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Jobs.
    pub jobs: Vec<Planned>,
    /// Those for which as much waits as may: dead letters.
    pub full: Vec<(SinkJob, Bytes)>,
    /// The position after them.
    pub position: Position,
    /// How many of the jobs each target has.
    planned: HashMap<(Tenant, SinkTarget), usize>,
}

/// What is known while planning.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The operator's file.
    pub config: &'a Config,
    /// The devices.
    pub roster: &'a Roster,
    /// What waits already.
    pub waiting: &'a Waiting,
    /// Who may see what.
    pub in_force: &'a InForce,
    /// Unix milliseconds.
    pub now_millis: i64,
}

/// Plans the jobs of messages of `STATE`, in their order, from a position on: as many as fit into a batch, perhaps in the middle of a
/// notification that is for many.
#[must_use]
pub fn plan(messages: Vec<StoredMessage>, from: &Position, known: Known<'_>) -> Plan {
    let mut plan = Plan {
        position: from.clone(),
        ..Plan::default()
    };
    let mut bytes = 0;
    for message in messages {
        let sequence = message.sequence;
        let after = plan
            .position
            .after
            .take()
            .filter(|_| sequence == plan.position.next);
        plan.position.next = sequence;
        plan.position.read_micros = plan.position.read_micros.max(message.time_micros);
        let fresh = message.time_micros > plan.position.since_micros;
        let notification = Some(message).filter(|_| fresh).and_then(Notification::read);
        let holds = |one: &Notification| one.holds_for_secs(known.now_millis).is_some();
        if let Some(notification) = notification.filter(holds) {
            let full = plan.jobs.len() + known.config.webhooks.len() >= JOBS_MAX || bytes >= BYTES_MAX;
            if full && !plan.jobs.is_empty() {
                plan.position.after = after;
                return plan;
            }
            if after.is_none() {
                bytes += plan.webhooks(&notification, known);
            }
            if !plan.devices(&notification, after, known) {
                return plan;
            }
        }
        plan.position.next = sequence + 1;
    }
    plan
}

impl Plan {
    /// Bytes of what was added.
    fn webhooks(&mut self, notification: &Notification, known: Known<'_>) -> usize {
        let before = self.jobs.len();
        let payload = &notification.message.payload;
        for webhook in &known.config.webhooks {
            if webhook.filter.takes(&notification.tenant, &notification.notice) {
                self.add(
                    SinkTarget::Webhook(webhook.name.clone()),
                    payload,
                    notification,
                    known,
                );
            }
        }
        (self.jobs.len() - before) * payload.len()
    }

    /// `false`: the batch is full, and not all are in it.
    fn devices(
        &mut self,
        notification: &Notification,
        after: Option<(String, String)>,
        known: Known<'_>,
    ) -> bool {
        if known.config.push.is_none() {
            return true;
        }
        let now_secs = known.now_millis.div_euclid(1_000);
        let payload = Bytes::from(self.position.life.clone());
        for (user, device) in known.roster.of_tenant(&notification.tenant, now_secs) {
            let place = (user, device.device.as_str());
            if after
                .as_ref()
                .is_some_and(|(user, device)| place <= (user, device))
            {
                continue;
            }
            if notification
                .is_seen_by(device, known.in_force, now_secs)
                .is_none()
            {
                continue;
            }
            if self.jobs.len() >= JOBS_MAX {
                return false;
            }
            let target = SinkTarget::Device {
                user: user.to_owned(),
                device: device.device.clone(),
            };
            self.add(target, &payload, notification, known);
            self.position.after = Some((user.to_owned(), device.device.clone()));
        }
        self.position.after = None;
        true
    }

    fn add(&mut self, target: SinkTarget, payload: &Bytes, notification: &Notification, known: Known<'_>) {
        let tenant = &notification.tenant;
        let planned = self.planned.entry((tenant.clone(), target.clone())).or_default();
        *planned += 1;
        let room = known.waiting.room(tenant, &target) >= *planned;
        let job = SinkJob {
            tenant: tenant.clone(),
            target,
            position: notification.message.sequence,
        };
        match room {
            true => self.jobs.push(Planned {
                job,
                headers: trace(&notification.message.headers),
                payload: payload.clone(),
            }),
            false => self.full.push((job, notification.message.payload.clone())),
        }
    }
}

fn trace(headers: &HeaderMap) -> HeaderMap {
    let mut trace = HeaderMap::new();
    for name in [TRACE_PARENT, TRACE_STATE] {
        if let Some(value) = headers.get_last(name) {
            trace.insert(name, value.clone());
        }
    }
    trace
}

#[cfg(test)]
mod tests;
