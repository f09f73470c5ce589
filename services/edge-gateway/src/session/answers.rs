//! What a client is answered, and what is said without being asked.

use roomcast_proto::close::Close;
use roomcast_proto::frame::{BadFrame, Ping, ServerFrame, server_frame};
use roomcast_proto::refusal::{Code, Refusal};

use super::Wish;
use crate::limit::Limit;

/// A message that cannot be read ends the connection, because what follows it cannot be trusted either; one that can
/// be answered, or that is only unknown, is answered.
pub(super) fn refused_frame(bad: BadFrame, wishes: &mut Vec<Wish>) {
    let end = bad.id.is_none() && bad.refusal.code == Code::BadFrame;
    wishes.push(Wish::Say(ServerFrame::refuse(bad.id, &bad.refusal)));
    if end {
        wishes.push(Wish::End(Close::Protocol));
    }
}

/// One message too many ends the connection.
pub(super) fn too_many(wishes: &mut Vec<Wish>) {
    wishes.push(Wish::Met(Limit::Requests));
    wishes.push(Wish::End(Close::Rate));
}

pub(super) fn refuse(id: Option<u32>, refusal: &Refusal, wishes: &mut Vec<Wish>) {
    answer_to(id, server_frame::Body::Error(refusal.into()), wishes);
}

/// Refuses what there is no right to, and has it put on record.
pub(super) fn forbid(id: Option<u32>, what: &'static str, wishes: &mut Vec<Wish>) {
    wishes.push(Wish::Forbade(what));
    refuse(id, &Refusal::forbidden(), wishes);
}

/// A message without `id` gets no answer.
pub(super) fn answer_to(id: Option<u32>, body: server_frame::Body, wishes: &mut Vec<Wish>) {
    if id.is_some() {
        wishes.push(Wish::Say(ServerFrame::answer(id, body)));
    }
}

/// The question every client is asked every 25 s.
#[must_use]
pub fn ping() -> ServerFrame {
    ServerFrame::push(server_frame::Body::Ping(Ping {}))
}

/// `ok` or `stale`.
#[must_use]
pub fn status_word(stale: bool) -> &'static str {
    if stale { "stale" } else { "ok" }
}

/// Unix milliseconds as RFC 3339 in UTC.
#[must_use]
pub fn rfc3339(unix_millis: i64) -> String {
    roomcast_proto::event::rfc3339(unix_millis.saturating_mul(1_000))
}
