//! One attempt at one job: whether it is still to be sent, sent, and what follows from the answer.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use roomcast_chassis::jetstream::{ApiError, At};
use roomcast_chassis::trace::{KeyValue, SpanKind, Step, Trail};
use roomcast_proto::device::Device;
use roomcast_proto::readstate::ReadState;
use roomcast_proto::subject::{SinkJob, SinkTarget, read_state_key, stream};
use roomcast_sinks::attempt::{Next, Outcome, next};
use roomcast_sinks::notice::Notice;
use roomcast_sinks::send::{Hook, Push, Sent, WITHIN};

use super::Shared;
use super::recipients::Notification;
use super::verdict::{forget, keep_dead};
use super::waiting::{Job, Verdict};
use crate::key_value::KeyValueError;
use crate::now_micros;

/// What could not be begun, or not be brought to its end, is tried again after this.
pub(super) const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Without an answer of NATS for longer than that nobody knows whether the rights in force are the newest.
const UNSURE_AFTER: Duration = Duration::from_secs(2);
/// How an attempt has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// There will be no other; one of [`super::metrics::ENDS`].
    Over(&'static str),
    /// Another one after this.
    Again(Duration),
    /// Nothing was sent.
    NotBegun(Duration),
    /// There will be no other, and what follows from that is tried again after this.
    Decided(Verdict, Duration),
}

/// NATS did not answer: nothing was sent, or nothing is known.
pub(super) struct Silent;

impl From<ApiError> for Silent {
    fn from(_: ApiError) -> Self {
        Self
    }
}

impl From<KeyValueError> for Silent {
    fn from(_: KeyValueError) -> Self {
        Self
    }
}

/// What is about to be sent, or why nothing is.
enum Ready {
    Send(Sent, Bytes),
    Over(&'static str),
    NotBegun,
}

/// Makes it: how it has ended, and whether the receiver answered, where anything was sent. `device`: that of the job, where it still counts;
/// `life`: that of `STATE`.
///
/// # Cancel safety
/// Dropped, it may have been sent.
pub(super) async fn attempt(
    shared: &Shared,
    position: u64,
    job: &Job,
    device: Option<Device>,
    life: &str,
) -> (Ended, Option<bool>) {
    let ready = match &job.what.target {
        SinkTarget::Webhook(name) => webhook(shared, position, name, job).await,
        SinkTarget::Device { .. } => push(shared, position, job, device.as_ref(), life).await,
    };
    let ended = match ready {
        Err(Silent) => {
            shared.metrics.pause("unavailable");
            Ended::NotBegun(AGAIN_AFTER)
        }
        Ok(Ready::NotBegun) => Ended::NotBegun(AGAIN_AFTER),
        Ok(Ready::Over(end)) => Ended::Over(end),
        Ok(Ready::Send(sent, event)) => {
            shared.metrics.attempt(&job.what.target, sent.label);
            let ended = follow(shared, job, device.as_ref(), sent, event).await;
            return (ended, sent.is_answered());
        }
    };
    (ended, None)
}

/// Whether an attempt begun now ends while the lease is surely held: nobody else sends the same.
fn may_begin(shared: &Shared) -> bool {
    shared.lease.is_held_for(WITHIN)
}

/// Begins the step of an attempt, where the notification it is for has a trace: its job's message says so.
fn step(name: &'static str, headers: &HeaderMap, job: &Job, notice: &Notice) -> Step {
    let trail = Trail::read(|name| headers.get_last(name).map(async_nats::HeaderValue::as_str));
    let Some(trail) = trail else {
        return Step::default();
    };
    let step = Step::begin(name, SpanKind::Client, Some(&trail));
    step.set(|| {
        [
            KeyValue::new("http.request.method", "POST"),
            KeyValue::new(
                "http.request.resend_count",
                i64::from(job.attempts.saturating_sub(1)),
            ),
            KeyValue::new("cloudevents.event_id", notice.id.clone()),
            KeyValue::new("cloudevents.event_type", notice.kind.clone()),
            KeyValue::new("roomcast.tenant", job.what.tenant.to_string()),
        ]
    });
    step
}

/// Says in the step how the attempt went, and ends it.
fn end(step: Step, sent: &Sent) {
    step.set(|| [KeyValue::new("roomcast.answer", sent.label)]);
    if sent.outcome != Outcome::Taken {
        step.failed(sent.label);
    }
}

async fn webhook(shared: &Shared, position: u64, name: &str, job: &Job) -> Result<Ready, Silent> {
    // From the leader: an instance before this one may have sent it and taken it away a moment ago.
    let Some(message) = shared
        .jetstream
        .message(stream::SINKS, At::Sequence(position))
        .await?
    else {
        return Ok(Ready::Over("superseded"));
    };
    let event = message.payload;
    let webhook = shared.config.webhooks.iter().find(|webhook| webhook.name == name);
    let (Some(webhook), Some(notice)) = (webhook, Notice::read(&event)) else {
        return Ok(dead(shared, &job.what, "there is no such webhook any more", event).await);
    };
    if !may_begin(shared) {
        return Ok(Ready::NotBegun);
    }
    let step = step("post webhook", &message.headers, job, &notice);
    step.set(|| [KeyValue::new("roomcast.webhook", name.to_owned())]);
    let id = notice.delivery_id(&job.what.tenant);
    let hook = Hook {
        id: &id,
        body: event.clone(),
        trail: step.trail(),
    };
    let now_secs = now_micros().div_euclid(1_000_000);
    let sent = shared
        .sender
        .webhook(&webhook.url, &webhook.secrets, &hook, now_secs);
    let sent = step.run(sent).await;
    end(step, &sent);
    Ok(Ready::Send(sent, event))
}

async fn push(
    shared: &Shared,
    position: u64,
    job: &Job,
    device: Option<&Device>,
    life: &str,
) -> Result<Ready, Silent> {
    let what = &job.what;
    let (Some(config), Some(device)) = (&shared.config.push, device) else {
        return Ok(Ready::Over("gone"));
    };
    let Some(kept) = shared
        .jetstream
        .message(stream::SINKS, At::Sequence(position))
        .await?
    else {
        return Ok(Ready::Over("superseded"));
    };
    if kept.payload != life {
        return Ok(Ready::Over("superseded"));
    }
    // What stands now is pushed, or nothing: an older one behind a newer one would take its place on the device.
    let message = shared
        .jetstream
        .message(stream::STATE, At::Sequence(what.position))
        .await?;
    let Some(notification) = message.and_then(Notification::read) else {
        return Ok(Ready::Over("superseded"));
    };
    let key = read_state_key(&what.tenant, &device.holder.user);
    let held = shared.read_states.read(&key).await?;
    let state: ReadState = held
        .and_then(|held| serde_json::from_slice(&held).ok())
        .unwrap_or_default();
    let now_micros = now_micros();
    let now = jiff::Timestamp::from_microsecond(now_micros).unwrap_or_default();
    if let Some(unwanted) = notification.is_unwanted(&state, now) {
        return Ok(Ready::Over(unwanted));
    }
    let Some(ttl_secs) = notification.holds_for_secs(now_micros.div_euclid(1_000)) else {
        return Ok(Ready::Over("expired"));
    };
    // Last, so that rights which have just ended count.
    if shared.rights.unsure_for() > UNSURE_AFTER {
        shared.metrics.pause("unsure");
        return Ok(Ready::NotBegun);
    }
    let now_secs = now_micros.div_euclid(1_000_000);
    let Some(permit) = notification.is_seen_by(device, &shared.rights.now(), now_secs) else {
        return Ok(Ready::Over("forbidden"));
    };
    let step = step("post push", &kept.headers, job, &notification.notice);
    let Some(text) = notification.push_text(&permit, step.trail().as_ref()) else {
        let event = notification.message.payload;
        return Ok(dead(shared, what, "its names are too long for a push", event).await);
    };
    if !may_begin(shared) {
        return Ok(Ready::NotBegun);
    }
    let push = Push {
        topic: notification.notice.topic(&what.tenant),
        priority: notification.notice.priority(),
        ttl_secs,
    };
    let sender = &shared.sender;
    let sent = sender.push(&device.subscription, &config.vapid, &text, &push, now_secs);
    let sent = step.run(sent).await;
    end(step, &sent);
    Ok(Ready::Send(sent, notification.message.payload))
}

async fn dead(shared: &Shared, job: &SinkJob, why: &str, event: Bytes) -> Ready {
    match keep_dead(shared, job, why, event).await {
        true => Ready::Over("dead"),
        false => Ready::NotBegun,
    }
}

/// What follows from an answer.
async fn follow(shared: &Shared, job: &Job, device: Option<&Device>, sent: Sent, event: Bytes) -> Ended {
    let age = u64::try_from(now_micros().saturating_sub(job.since_micros)).unwrap_or_default();
    let age = Duration::from_micros(age);
    match next(
        sent.outcome,
        job.attempts,
        age,
        shared.config.give_up,
        fastrand::f64(),
    ) {
        Next::Done => Ended::Over("sent"),
        Next::Again(pause) => Ended::Again(pause),
        Next::Forget => {
            let Some(device) = device else {
                return Ended::Over("gone");
            };
            let (user, at) = (device.holder.user.clone(), device.at);
            match forget(shared, &job.what, &user, at).await {
                Ok(()) => Ended::Over("gone"),
                Err(_) => Ended::Decided(Verdict::Forget { user, at }, AGAIN_AFTER),
            }
        }
        Next::GiveUp => {
            let why = format!("last answer: {}; attempts: {}", sent.label, job.attempts);
            match keep_dead(shared, &job.what, &why, event).await {
                true => Ended::Over("dead"),
                false => Ended::Decided(Verdict::Dead(why), AGAIN_AFTER),
            }
        }
    }
}
