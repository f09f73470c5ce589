//! `POST /v1/publish`, `POST /v1/activity`: a user's own event and what it is doing, for those without a socket.
//!
//! The rights, the words and the way are those of the socket; only the rate of activity is the user's instead of a connection's.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use roomcast_chassis::trace::Trail;
use roomcast_proto::frame::{Published, client_frame};
use roomcast_proto::refusal::{Code, Refusal};

use super::answered::finish;
use super::asked::{admit, allow_one};
use super::{Desk, posted};
use crate::allowance::Operation;
use crate::asking::{Done, What};
use crate::gate::Admitted;
use crate::session;

/// Answers `{"eventId": …}`.
pub(super) async fn publish(State(desk): State<Desk>, request: Request) -> Response {
    finish(async {
        let mut admitted = admit(&desk, request.headers())?;
        let trail = Trail::read(|name| request.headers().get(name)?.to_str().ok());
        allow_one(&desk, &admitted, Operation::Publish)?;
        let body = posted::json(&desk, request, &mut admitted).await?;
        let client_frame::Body::Publish(publish) = posted::message("publish", &body)? else {
            return Err(posted::not_one_object());
        };
        let post = session::own_event(&admitted, publish)
            .map_err(|refusal| refused(&desk, &admitted, "publish", refusal))?;
        let event_id = stored(&desk, &admitted, What::Publish(post), trail.as_ref()).await?;
        serde_json::to_vec(&Published { event_id })
            .map(Bytes::from)
            .map_err(|_| Refusal::new(Code::Internal, "the answer cannot be written"))
    })
    .await
}

/// Answers `{}`, once it is stored.
pub(super) async fn activity(State(desk): State<Desk>, request: Request) -> Response {
    finish(async {
        let mut admitted = admit(&desk, request.headers())?;
        allow_one(&desk, &admitted, Operation::Activity)?;
        let body = posted::json(&desk, request, &mut admitted).await?;
        let client_frame::Body::Activity(activity) = posted::message("activity", &body)? else {
            return Err(posted::not_one_object());
        };
        let post = session::doing(&admitted, &activity, &desk.gate.rights().now().policy)
            .map_err(|refusal| refused(&desk, &admitted, "activity", refusal))?;
        stored(&desk, &admitted, What::Activity(post), None).await?;
        Ok(Bytes::from_static(b"{}"))
    })
    .await
}

/// Has it published; answers the event's id.
async fn stored(
    desk: &Desk,
    admitted: &Admitted,
    what: What,
    trail: Option<&Trail>,
) -> Result<String, Refusal> {
    let who = session::who(admitted, &desk.gate.rights().now().policy);
    let done = Arc::clone(&desk.asking).carry_out(&desk.hub, who, what, trail);
    match done.await? {
        Done::Published(id) => Ok(id),
        Done::Result(_) | Done::Feed(_) | Done::Preferences(_) => {
            Err(Refusal::new(Code::Internal, "an event has an id"))
        }
    }
}

/// Counts what was not let through as the socket does, and puts on record that there is no right to it.
fn refused(desk: &Desk, admitted: &Admitted, what: &'static str, refusal: Refusal) -> Refusal {
    desk.asking.count(what, refusal.code.as_str());
    if refusal.code == Code::Forbidden {
        desk.gate.forbade(what, admitted);
    }
    posted::in_body(refusal)
}
