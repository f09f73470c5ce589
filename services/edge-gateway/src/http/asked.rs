//! What a request asks: its user, its parameters, its body. The same words of refusal on every route.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use http::{HeaderMap, Uri};
use roomcast_access::Subscribe;
use roomcast_proto::ids::Room;
use roomcast_proto::limits::HISTORY_EVENTS_MAX;
use roomcast_proto::refusal::{Code, Refusal};

use super::{Desk, unix_secs};
use crate::allowance::{self, Operation};
use crate::asking::{RIGHTS_CHANGED, unavailable};
use crate::gate::{self, Admitted};
use crate::upgrade;

/// The room of a path.
pub(super) type RoomPath = Result<Path<String>, PathRejection>;

/// The user, by the `Authorization` header alone: a token in a query was refused before.
pub(crate) fn admit(desk: &Desk, headers: &HeaderMap) -> Result<Admitted, Refusal> {
    let token = upgrade::bearer(headers)?.ok_or_else(gate::no_token)?;
    desk.gate.admit(token, unix_secs()).map_err(gate::refusal)
}

/// Decides again about a user whose request has waited. Whether anything may have changed.
///
/// # Errors
/// `expired`, `unauthenticated`: its token has ended or was revoked.
pub(super) fn again(desk: &Desk, admitted: &mut Admitted) -> Result<bool, Refusal> {
    desk.gate.again(admitted, unix_secs()).map_err(gate::refusal)
}

/// The same after something was read: what was read under other rights than those of now is shown to nobody.
///
/// # Errors
/// As [`again`]; `unavailable`, to ask again.
pub(super) fn unchanged(desk: &Desk, admitted: &mut Admitted) -> Result<(), Refusal> {
    match again(desk, admitted)? {
        false => Ok(()),
        true => Err(unavailable(RIGHTS_CHANGED)),
    }
}

/// Counts one request of a user.
pub(super) fn allow_one(desk: &Desk, admitted: &Admitted, operation: Operation) -> Result<(), Refusal> {
    desk.allowance
        .take(admitted.rights.tenant(), &admitted.user, operation)
        .map_err(allowance::too_many)
}

pub(super) fn subscribe(desk: &Desk, admitted: &Admitted, room: Room) -> Result<Subscribe, Refusal> {
    let permit = admitted.rights.subscribe(&room);
    permit.map_err(|_| forbidden(desk, admitted, "subscribe"))
}

/// The refusal of what there is no right to, put on record.
pub(crate) fn forbidden(desk: &Desk, admitted: &Admitted, what: &'static str) -> Refusal {
    desk.gate.forbade(what, admitted);
    Refusal::forbidden()
}

/// A name that is none is refused like a room that is not there.
pub(super) fn path_room(room: RoomPath) -> Result<Room, Refusal> {
    let Path(name) = room.map_err(|_| Refusal::forbidden())?;
    Room::parse(&name).map_err(|_| Refusal::forbidden())
}

/// A parameter that may be there once.
pub(super) fn parameter(uri: &Uri, name: &str) -> Result<Option<String>, Refusal> {
    let mut values = parameters(uri, name)?;
    match values.len() {
        0 | 1 => Ok(values.pop()),
        _ => Err(bad(format!("{name} is given twice"))),
    }
}

/// A parameter that may be there several times.
pub(super) fn parameters(uri: &Uri, name: &str) -> Result<Vec<String>, Refusal> {
    let pairs = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .filter(|(key, _)| upgrade::percent_decoded(key) == name.as_bytes())
        .map(|(_, value)| {
            String::from_utf8(upgrade::percent_decoded(value))
                .map_err(|_| bad(format!("{name} is not UTF-8")))
        })
        .collect()
}

/// A count of events.
pub(super) fn number(uri: &Uri, name: &str, default: u32, least: u32) -> Result<usize, Refusal> {
    let value = match parameter(uri, name)? {
        None => default,
        Some(text) => text
            .parse()
            .ok()
            .filter(|value| (least..=HISTORY_EVENTS_MAX).contains(value))
            .ok_or_else(|| bad(format!("{name} is a number from {least} to {HISTORY_EVENTS_MAX}")))?,
    };
    usize::try_from(value).map_err(|_| bad(format!("{name} is too large")))
}

pub(super) fn bad(detail: impl Into<String>) -> Refusal {
    Refusal::new(Code::BadRequest, detail)
}
