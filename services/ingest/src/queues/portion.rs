//! One queued message, read and decided upon: who sent it, and what each of its events is. No I/O.

use bytes::Bytes;
use roomcast_chassis::jetstream::StoredMessage;
use roomcast_chassis::trace::{SpanKind, Step, Trail, messaging};
use roomcast_proto::event::Draft;
use roomcast_proto::ids::{Tenant, event_id_of};
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::{self, BadInbound};

use super::place::Place;
use crate::accept::{Accepted, Arrival, Queued, Sender};
use crate::claim::{last, tenant_of};
use crate::door_http::BACKFILL;
use crate::intake::{Intake, Shape};

/// One event of a queued message.
#[derive(Debug)]
pub struct Element {
    /// Where it stood.
    pub place: Place,
    /// Its bytes.
    pub bytes: Bytes,
    /// What was decided about it.
    pub decided: Result<Accepted, Refusal>,
    /// Its step in the trace of its publisher; it ends when the element is dropped.
    #[expect(dead_code, reason = "being there is all it does")]
    pub step: Step,
}

/// A queued message.
#[derive(Debug)]
pub struct Read {
    /// Whose it is.
    pub tenant: Tenant,
    /// Who sent it, as dead letters and the streams name it.
    pub publisher: String,
    /// Its subject.
    pub origin: String,
    /// Whose share its events are counted against.
    pub sender: Sender,
    /// Its events, or one that stands for the whole.
    pub elements: Vec<Element>,
}

/// The publisher is not in the policy: what it has queued waits until it is, or until somebody takes it away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("NATS user {user} of tenant {tenant} is not among the policy's publishers")]
pub struct NotListed {
    /// The tenant.
    pub tenant: Tenant,
    /// The NATS user.
    pub user: String,
}

/// Reads one message of the queue `life`.
///
/// Everything is decided as of the instant at which it was queued, so that whoever reads it again decides the same.
///
/// # Errors
/// [`NotListed`].
pub fn read(
    intake: &Intake,
    life: &Place,
    message: &StoredMessage,
    now_micros: i64,
) -> Result<Read, NotListed> {
    let place = |index| Place {
        position: message.sequence,
        index,
        ..life.clone()
    };
    let whole = |sender: Sender, refusal| Read {
        tenant: sender.tenant.clone(),
        publisher: sender.publisher.to_string(),
        origin: message.subject.clone(),
        sender,
        elements: vec![Element {
            place: place(0),
            bytes: message.payload.clone(),
            decided: Err(refusal),
            step: Step::default(),
        }],
    };
    let (inbound, user) = match subject::parse_queued(&message.subject) {
        Ok(read) => read,
        Err(bad) => {
            let detail = bad.to_string();
            let user = message.subject.split('.').nth(2).unwrap_or("?");
            let (tenant, code) = match bad {
                BadInbound::Shape => (tenant_of(&message.subject), Code::BadRequest),
                BadInbound::Tenant(_) => (None, Code::Forbidden),
                BadInbound::Room(tenant, _) => (Some(tenant), Code::BadRoom),
                BadInbound::Audience(tenant, _) => (Some(tenant), Code::UnknownAudience),
            };
            // Without a tenant there is nobody to keep it for; only a stream with strange subjects leads here.
            let sender = Sender::stranger(tenant.unwrap_or_default(), &format!("nats/{user}"));
            return Ok(whole(sender, Refusal::new(code, detail)));
        }
    };
    let tenant = inbound.tenant.clone();
    let policy = intake.rights.now();
    let Some(sender) = Sender::of_nats_user(&tenant, user, &policy.policy) else {
        let user = user.to_owned();
        return Err(NotListed { tenant, user });
    };
    let backfill = last(Some(&message.headers), BACKFILL) == Some("1");
    if backfill && !sender.may_backfill() {
        return Ok(whole(sender, Refusal::forbidden()));
    }
    let drafts = if Shape::OneOrBatch.is_batch(&message.payload) {
        match Draft::parse_batch(&message.payload) {
            Ok(drafts) => drafts,
            Err(refusal) => return Ok(whole(sender, refusal)),
        }
    } else {
        vec![(0..message.payload.len(), Draft::parse(&message.payload))]
    };
    let queued_millis = u64::try_from(message.time_micros.div_euclid(1_000)).unwrap_or_default();
    let decide = |(index, (range, draft)): (usize, (std::ops::Range<usize>, Result<Draft<'_>, Refusal>))| {
        let place = place(index);
        let draft = draft.map(|draft| draft.or_id(event_id_of(queued_millis, &place.to_string())));
        let arrival = Arrival {
            sender: &sender,
            room: Some(&inbound.room),
            audience: Some(&inbound.audience),
            backfill,
            now_micros: message.time_micros,
            queued: Some(Queued {
                place: &place,
                drained_micros: now_micros,
            }),
        };
        let mut decided = intake
            .decide(draft, &arrival)
            .map_err(|not_taken| not_taken.refusal);
        Element {
            bytes: message.payload.slice(range),
            step: decided
                .as_mut()
                .map_or_else(|_| Step::default(), |accepted| behind(message, accepted)),
            decided,
            place,
        }
    };
    let elements = drafts.into_iter().enumerate().map(decide).collect();
    Ok(Read {
        tenant,
        publisher: sender.publisher.to_string(),
        origin: message.subject.clone(),
        sender,
        elements,
    })
}

/// Begins the step of an event whose publisher traces it; what is stored of the event is behind it.
fn behind(message: &StoredMessage, accepted: &mut Accepted) -> Step {
    let sent = || Trail::read(|name| last(Some(&message.headers), name));
    let Some(trail) = accepted.trail().cloned().or_else(sent) else {
        return Step::default();
    };
    let step = Step::begin("process inq", SpanKind::Consumer, Some(&trail));
    step.set(|| messaging("process", "inq"));
    if let Some(trail) = step.trail() {
        accepted.follows(&trail);
    }
    step
}
