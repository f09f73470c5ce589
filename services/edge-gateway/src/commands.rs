//! A command's way: the key is claimed at ingest, then a backend is asked, then its answer is kept and given.
//!
//! A repeat, at any gateway, finds the claim or the result. What a client hears is exact: `unavailable` only where certainly no
//! backend was asked, `unknown` wherever one may have been.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use roomcast_access::permit::Command;
use roomcast_chassis::trace::Step;
use roomcast_proto::ascii_json;
use roomcast_proto::command::{
    Claim, Claimed, Finish, Finished, Outcome, RESULT_BYTES_MAX, Release, Released, TIMEOUT_MAX, Verb,
    content_hash, header,
};
use roomcast_proto::frame::too_deep;
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::Service;
use serde_json::value::RawValue;

use crate::asking::{Asking, NoAnswer, Place, RETRY_MS, Slot, Who, command_subject, unavailable};

/// A command that its sender may send.
#[derive(Debug)]
pub struct Order {
    /// The decision.
    pub permit: Command,
    /// Its data, JSON.
    pub data: Bytes,
    /// The idempotency key.
    pub key: String,
    /// How long the client waits, at most [`TIMEOUT_MAX`].
    pub timeout: Duration,
}

/// Carries a command out, as a part of `step`. The client is told after its own time at the latest; a later answer is kept all the same.
///
/// # Errors
/// `conflict`, `unavailable`, `unknown`, `too_large`.
pub async fn run(
    asking: &Arc<Asking>,
    who: &Who,
    order: Order,
    place: &Place,
    step: &Step,
) -> Result<Bytes, Refusal> {
    let within = order.timeout;
    let work = through(Arc::clone(asking), who.clone(), order, place.slot());
    let work = tokio::spawn(step.run(work));
    match tokio::time::timeout(within, work).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(Refusal::new(Code::Internal, "the command was given up")),
        Err(_) => Err(unknown()),
    }
}

async fn through(asking: Arc<Asking>, who: Who, order: Order, _slot: Arc<Slot>) -> Result<Bytes, Refusal> {
    let tenant = order.permit.tenant().clone();
    let claim = Claim {
        user: who.user.as_ref().to_owned(),
        name: order.permit.name().to_owned(),
        key: order.key.clone(),
        hash: content_hash(&order.data),
    };
    let claimed = asking.service(&tenant, Service::Commands, Verb::Claim.as_str(), &claim);
    let (id, first) = match claimed.await? {
        Claimed::Done(outcome) => return given(outcome),
        Claimed::New(id) => (id, true),
        Claimed::Again(id) => (id, false),
    };
    match ask_backend(&asking, &who, order, &id).await {
        Heard::Answer(outcome) => {
            let finish = Finish { claim, id, outcome };
            let finished =
                asking.service::<_, Finished>(&tenant, Service::Commands, Verb::Finish.as_str(), &finish);
            // An answer that is not kept is not given either: the next one could be another.
            given(finished.await.map_err(|_| unknown())?.outcome)
        }
        Heard::Nobody if first => {
            let release = Release { claim, id };
            let released =
                asking.service::<_, Released>(&tenant, Service::Commands, Verb::Release.as_str(), &release);
            match released.await {
                Ok(Released { released: true }) => {
                    Err(unavailable("nobody carries out this command at the moment"))
                }
                _ => Err(unknown()),
            }
        }
        Heard::Nobody | Heard::Nothing => Err(unknown()),
    }
}

/// What came of asking a backend.
#[derive(Debug)]
enum Heard {
    Answer(Outcome),
    /// None is there.
    Nobody,
    /// It may have been done: no answer in time, or one that says it failed, or none that can be read.
    Nothing,
}

async fn ask_backend(asking: &Asking, who: &Who, order: Order, id: &str) -> Heard {
    let mut headers = HeaderMap::new();
    headers.insert(header::ID, id);
    headers.insert(header::USER, ascii_json(&who.user).as_str());
    headers.insert(header::ROLES, ascii_json(&who.roles).as_str());
    let subject = command_subject(&order.permit);
    match asking.request(subject, headers, order.data, TIMEOUT_MAX).await {
        Ok(answer) => judge(&answer),
        Err(NoAnswer::Nobody) => Heard::Nobody,
        Err(NoAnswer::Silence) => Heard::Nothing,
    }
}

fn judge(answer: &Message) -> Heard {
    let failed = answer
        .headers
        .as_ref()
        .is_some_and(|headers| headers.get_last(header::FAILED).is_some());
    if failed {
        return Heard::Nothing;
    }
    if answer.payload.len() > RESULT_BYTES_MAX {
        return Heard::Answer(Outcome::TooLarge);
    }
    let data = serde_json::from_slice::<Box<RawValue>>(&answer.payload);
    match data {
        Ok(data) if !too_deep(&answer.payload) => Heard::Answer(Outcome::Data(data)),
        _ => {
            tracing::warn!(subject = %answer.subject, "a backend's answer is not JSON, or nested too deeply");
            Heard::Nothing
        }
    }
}

fn given(outcome: Outcome) -> Result<Bytes, Refusal> {
    match outcome {
        Outcome::Data(data) => Ok(Bytes::from(String::from(Box::<str>::from(data)))),
        Outcome::TooLarge => Err(Refusal::new(
            Code::TooLarge,
            format!("it was done; the answer is larger than {RESULT_BYTES_MAX} bytes"),
        )),
    }
}

fn unknown() -> Refusal {
    Refusal::new(
        Code::Unknown,
        "it is not known whether it was done; ask again with the same key",
    )
    .retry_after_ms(RETRY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(payload: &str, failed: bool, expected: &str) {
        let mut headers = HeaderMap::new();
        if failed {
            headers.insert(header::FAILED, "500");
        }
        let answer = Message {
            subject: "_INBOX.x".into(),
            reply: None,
            payload: Bytes::from(payload.to_owned()),
            headers: Some(headers),
            status: None,
            description: None,
            length: payload.len(),
        };
        let said = match judge(&answer) {
            Heard::Answer(Outcome::Data(data)) => data.get().to_owned(),
            Heard::Answer(Outcome::TooLarge) => "too large".to_owned(),
            Heard::Nobody => "nobody".to_owned(),
            Heard::Nothing => "nothing".to_owned(),
        };
        assert_eq!(said, expected, "{payload:.80}");
    }

    #[test]
    fn what_a_backend_answers_is_a_result_or_nothing() {
        check(r#"{"a": 1.50}"#, false, r#"{"a": 1.50}"#);
        check("null", false, "null");
        check("", false, "nothing");
        check("done", false, "nothing");
        check("{} {}", false, "nothing");
        check("{}", true, "nothing");
        check(
            &format!("\"{}\"", "x".repeat(RESULT_BYTES_MAX)),
            false,
            "too large",
        );
        check(&format!("{}{}", "[".repeat(40), "]".repeat(40)), false, "nothing");
    }
}
