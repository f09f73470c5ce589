//! A backend's trigger: made into the events it means, which are taken together or not at all.

use bytes::Bytes;
use roomcast_proto::refusal::Refusal;
use roomcast_proto::trigger::Trigger;

use crate::accept::Sender;
use crate::answer::Answer;
use crate::intake::{Intake, Request, Shape};
use crate::now_micros;

/// Where triggers are posted; also the origin of their dead letters, by which they are known when they are taken again.
pub const PATH: &str = "/v1/triggers";

/// Takes a trigger that came over HTTP.
///
/// # Cancel safety
/// As [`Intake::take`].
pub async fn take(intake: &Intake, sender: &Sender, backfill: bool, body: Bytes) -> Answer {
    let mut request = Request::posted(sender, backfill, PATH, Shape::Together, Bytes::new());
    request.original = Some(body.clone());
    match events(intake, &body) {
        Ok(events) => request.body = events,
        Err(refusal) => return intake.refused_whole(&request, refusal).await,
    }
    match intake.take(request, now_micros()).await {
        Answer::Refused(refusal) => Answer::Refused(in_its_words(refusal)),
        Answer::One(Err(mut not_taken)) => {
            not_taken.refusal = in_its_words(not_taken.refusal);
            Answer::One(Err(not_taken))
        }
        answer => answer,
    }
}

/// The events of a trigger, as the batch that the intake takes together.
///
/// # Errors
/// What is wrong with the trigger.
pub fn events(intake: &Intake, body: &[u8]) -> Result<Bytes, Refusal> {
    let in_force = intake.rights.now();
    let trigger = Trigger::parse(body, in_force.policy.trigger_room())?;
    Ok(Bytes::from(trigger.batch()))
}

/// A trigger has a role where an event has an audience.
fn in_its_words(mut refusal: Refusal) -> Refusal {
    if refusal.pointer.as_deref() == Some("/audience") {
        refusal.pointer = Some("/role".to_owned());
    }
    refusal
}
