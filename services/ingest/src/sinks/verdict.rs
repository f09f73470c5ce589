//! What is decided of a job, carried out: a dead letter, or a device that is forgotten. Nothing is sent to a receiver from here.

use async_nats::HeaderMap;
use bytes::Bytes;
use roomcast_chassis::jetstream::{ACK_TIMEOUT, At};
use roomcast_proto::ascii_json;
use roomcast_proto::subject::{SinkJob, SinkTarget, UNDELIVERED, devices_key, header, stream, undelivered};
use roomcast_sinks::notice::Notice;

use super::attempt::{AGAIN_AFTER, Ended, Silent};
use super::waiting::{Job, Verdict};
use super::{Shared, devices};
use crate::key_value::KeyValueError;
use crate::now_micros;

/// Characters of a dead letter's explanation.
const DETAIL_CHARS_MAX: usize = 200;

/// Gives a job up whose time was over before there was room for another attempt: its receiver hangs, and more comes than it lets go.
///
/// # Cancel safety
/// Dropped, it may be a dead letter already.
pub(super) async fn too_late(shared: &Shared, position: u64, job: &Job, life: &str) -> Ended {
    let why = format!(
        "it lets others wait for longer than they may; attempts: {}",
        job.attempts
    );
    carry_out(shared, position, job, Verdict::Dead(why), life).await
}

/// Carries out what is decided of a job; nothing is sent to its receiver. `life`: that of `STATE`.
///
/// # Cancel safety
/// Dropped, it may be done.
pub(super) async fn carry_out(
    shared: &Shared,
    position: u64,
    job: &Job,
    verdict: Verdict,
    life: &str,
) -> Ended {
    let carried_out = match &verdict {
        Verdict::Dead(why) => match event(shared, position, job, life).await {
            Ok(Some(event)) => keep_dead(shared, &job.what, why, event).await.then_some("dead"),
            Ok(None) => Some("superseded"),
            Err(Silent) => None,
        },
        Verdict::Forget { user, at } => forget(shared, &job.what, user, *at).await.ok().map(|()| "gone"),
    };
    match carried_out {
        Some(end) => Ended::Over(end),
        None => Ended::Decided(verdict, AGAIN_AFTER),
    }
}

/// The event a job is for, from the leader; `None`: the job is gone, or the event.
async fn event(shared: &Shared, position: u64, job: &Job, life: &str) -> Result<Option<Bytes>, Silent> {
    let message = async |stream, at| shared.jetstream.message(stream, At::Sequence(at)).await;
    let Some(kept) = message(stream::SINKS, position).await? else {
        return Ok(None);
    };
    let message = match &job.what.target {
        SinkTarget::Webhook(_) => Some(kept),
        SinkTarget::Device { .. } if kept.payload != life => None,
        SinkTarget::Device { .. } => message(stream::STATE, job.what.position).await?,
    };
    Ok(message.map(|message| message.payload))
}

/// Forgets the device of a job, of this user as the token spells them, unless it was registered again after `at`.
pub(super) async fn forget(shared: &Shared, job: &SinkJob, user: &str, at: i64) -> Result<(), KeyValueError> {
    let SinkTarget::Device { device, .. } = &job.target else {
        return Ok(());
    };
    let key = devices_key(&job.tenant, user);
    let now_secs = now_micros().div_euclid(1_000_000);
    devices::forget(&shared.devices, &key, device, at, now_secs).await
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
