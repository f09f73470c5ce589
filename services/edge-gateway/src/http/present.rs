//! `GET /v1/presence`: who is in a room, for those without a socket.

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Uri};
use roomcast_proto::ids::Room;
use roomcast_proto::presence::USERS_SHOWN_MAX;
use roomcast_proto::refusal::{Code, Refusal};

use super::Desk;
use super::answered::finish;
use super::asked::{admit, allow_one, bad, forbidden, parameter};
use crate::allowance::Operation;
use crate::presence_driver;

/// Answers `{room, users, total}`, unless this gateway is cut off from the others.
pub(super) async fn presence(State(desk): State<Desk>, uri: Uri, headers: HeaderMap) -> Response {
    finish(async {
        let admitted = admit(&desk, &headers)?;
        allow_one(&desk, &admitted, Operation::Presence)?;
        let room = parameter(&uri, "room")?.ok_or_else(|| bad("expected ?room=<room>"))?;
        // A name that is none is refused like a room that is not there.
        let room = Room::parse(&room).map_err(|_| Refusal::forbidden())?;
        let permit = admitted
            .rights
            .presence(&room)
            .map_err(|_| forbidden(&desk, &admitted, "presence"))?;
        if !desk.hub.is_sure() || !desk.roll_call.is_current() {
            return Err(presence_driver::unknown());
        }
        let set = desk.roll_call.set(&permit, &admitted.user, USERS_SHOWN_MAX);
        serde_json::to_vec(&set)
            .map(Bytes::from)
            .map_err(|_| Refusal::new(Code::Internal, "the answer cannot be written"))
    })
    .await
}
