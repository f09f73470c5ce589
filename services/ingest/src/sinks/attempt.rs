//! One attempt at one job: whether it is still to be sent, sent, and what follows from the answer.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use roomcast_chassis::jetstream::{ACK_TIMEOUT, ApiError, At};
use roomcast_proto::ascii_json;
use roomcast_proto::device::Device;
use roomcast_proto::readstate::ReadState;
use roomcast_proto::subject::{
    SinkJob, SinkTarget, UNDELIVERED, devices_key, header, read_state_key, stream, undelivered,
};
use roomcast_sinks::attempt::{Next, next};
use roomcast_sinks::notice::Notice;
use roomcast_sinks::send::{Push, Sent, WITHIN};

use super::recipients::Notification;
use super::waiting::Job;
use super::{Shared, devices};
use crate::key_value::KeyValueError;
use crate::now_micros;

/// What could not be begun, or not be brought to its end, is tried again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Without an answer of NATS for longer than that nobody knows whether the rights in force are the newest.
const UNSURE_AFTER: Duration = Duration::from_secs(2);
/// Characters of a dead letter's explanation.
const DETAIL_CHARS_MAX: usize = 200;

/// How an attempt has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// There will be no other; one of [`super::metrics::ENDS`].
    Over(&'static str),
    /// Another one after this.
    Again(Duration),
    /// Nothing was sent.
    NotBegun(Duration),
}

/// Nothing was sent, because NATS did not answer.
struct Silent;

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

/// Makes it. `device`: that of the job, where it still counts; `life`: that of `STATE`.
///
/// # Cancel safety
/// Dropped, it may have been sent.
pub(super) async fn attempt(
    shared: &Shared,
    position: u64,
    job: &Job,
    device: Option<Device>,
    life: &str,
) -> Ended {
    let ready = match &job.what.target {
        SinkTarget::Webhook(name) => webhook(shared, position, name, &job.what).await,
        SinkTarget::Device { .. } => push(shared, position, &job.what, device.as_ref(), life).await,
    };
    match ready {
        Err(Silent) => {
            shared.metrics.pause("unavailable");
            Ended::NotBegun(AGAIN_AFTER)
        }
        Ok(Ready::NotBegun) => Ended::NotBegun(AGAIN_AFTER),
        Ok(Ready::Over(end)) => Ended::Over(end),
        Ok(Ready::Send(sent, event)) => {
            shared.metrics.attempt(&job.what.target, sent.label);
            follow(shared, job, device.as_ref(), sent, event).await
        }
    }
}

/// Gives a job up whose time was over before there was room for another attempt: its receiver hangs, and more comes than it lets go.
///
/// # Cancel safety
/// Dropped, it may be a dead letter already.
pub(super) async fn too_late(shared: &Shared, position: u64, job: &Job) -> Ended {
    let (stream, at) = match &job.what.target {
        SinkTarget::Webhook(_) => (stream::SINKS, position),
        SinkTarget::Device { .. } => (stream::STATE, job.what.position),
    };
    let event = match shared.jetstream.message(stream, At::Sequence(at)).await {
        Ok(Some(message)) => message.payload,
        Ok(None) => return Ended::Over("superseded"),
        Err(_) => return Ended::Again(AGAIN_AFTER),
    };
    let why = format!(
        "it lets others wait for longer than they may; attempts: {}",
        job.attempts
    );
    match keep_dead(shared, &job.what, &why, event).await {
        true => Ended::Over("dead"),
        false => Ended::Again(AGAIN_AFTER),
    }
}

/// Whether an attempt begun now ends while the lease is surely held: nobody else sends the same.
fn may_begin(shared: &Shared) -> bool {
    shared.lease.is_held_for(WITHIN)
}

async fn webhook(shared: &Shared, position: u64, name: &str, job: &SinkJob) -> Result<Ready, Silent> {
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
        return Ok(dead(shared, job, "there is no such webhook any more", event).await);
    };
    if !may_begin(shared) {
        return Ok(Ready::NotBegun);
    }
    let id = notice.delivery_id(&job.tenant);
    let now_secs = now_micros().div_euclid(1_000_000);
    let (url, secrets) = (&webhook.url, &webhook.secrets);
    let sent = shared
        .sender
        .webhook(url, secrets, &id, event.clone(), now_secs)
        .await;
    Ok(Ready::Send(sent, event))
}

async fn push(
    shared: &Shared,
    position: u64,
    job: &SinkJob,
    device: Option<&Device>,
    life: &str,
) -> Result<Ready, Silent> {
    let (Some(config), Some(device)) = (&shared.config.push, device) else {
        return Ok(Ready::Over("gone"));
    };
    let Some(message) = shared
        .jetstream
        .message(stream::SINKS, At::Sequence(position))
        .await?
    else {
        return Ok(Ready::Over("superseded"));
    };
    if message.payload != life {
        return Ok(Ready::Over("superseded"));
    }
    // What stands now is pushed, or nothing: an older one behind a newer one would take its place on the device.
    let message = shared
        .jetstream
        .message(stream::STATE, At::Sequence(job.position))
        .await?;
    let Some(notification) = message.and_then(Notification::read) else {
        return Ok(Ready::Over("superseded"));
    };
    let key = read_state_key(&job.tenant, &device.holder.user);
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
    let Some(text) = notification.push_text(&permit) else {
        let event = notification.message.payload;
        return Ok(dead(shared, job, "its names are too long for a push", event).await);
    };
    if !may_begin(shared) {
        return Ok(Ready::NotBegun);
    }
    let push = Push {
        topic: notification.notice.topic(&job.tenant),
        priority: notification.notice.priority(),
        ttl_secs,
    };
    let sender = &shared.sender;
    let sent = sender
        .push(&device.subscription, &config.vapid, &text, &push, now_secs)
        .await;
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
            match forget(shared, &job.what, device).await {
                Ok(()) => Ended::Over("gone"),
                Err(_) => Ended::Again(AGAIN_AFTER),
            }
        }
        Next::GiveUp => {
            let why = format!("last answer: {}; attempts: {}", sent.label, job.attempts);
            match keep_dead(shared, &job.what, &why, event).await {
                true => Ended::Over("dead"),
                false => Ended::Again(AGAIN_AFTER),
            }
        }
    }
}

async fn forget(shared: &Shared, job: &SinkJob, device: &Device) -> Result<(), KeyValueError> {
    let key = devices_key(&job.tenant, &device.holder.user);
    let now_secs = now_micros().div_euclid(1_000_000);
    devices::forget(&shared.devices, &key, &device.device, device.at, now_secs).await
}

/// Keeps a dead letter, named by its job: kept twice within the stream's window, it is one. Whether it is kept.
///
/// # Cancel safety
/// Dropped, it may be kept.
pub(super) async fn keep_dead(shared: &Shared, job: &SinkJob, why: &str, event: Bytes) -> bool {
    let origin = match &job.target {
        SinkTarget::Webhook(name) => format!("webhook/{name}"),
        SinkTarget::Device { user, device } => format!("push/{user}/{device}"),
    };
    let why: String = why.chars().take(DETAIL_CHARS_MAX).collect();
    let source = Notice::read(&event)
        .map(|notice| notice.source)
        .unwrap_or_default();
    let mut headers = HeaderMap::new();
    headers.insert(header::MSG_ID, job.subject().as_str());
    headers.insert(header::REASON, UNDELIVERED);
    headers.insert(header::DETAIL, ascii_json(&why).as_str());
    headers.insert(header::ORIGIN, ascii_json(&origin).as_str());
    headers.insert(header::PUBLISHER, ascii_json(&source).as_str());
    let kept = shared
        .jetstream
        .publish(undelivered(&job.tenant), headers, event, ACK_TIMEOUT)
        .await;
    match kept {
        Ok(_) => {
            // Of devices there may be thousands; they are counted.
            if let SinkTarget::Webhook(name) = &job.target {
                tracing::warn!(webhook = %name, tenant = %job.tenant, "webhook {name} was not told of a notification: {why}");
            }
            true
        }
        Err(error) => {
            tracing::debug!(%error, "a dead letter is not kept yet: {error}");
            false
        }
    }
}
