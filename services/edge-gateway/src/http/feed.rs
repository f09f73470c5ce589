//! `GET /v1/feed`, `POST /v1/marks` and `POST /v1/preferences`: notifications of those without a socket. The rights, the limits and the words are the socket's.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Uri};
use roomcast_proto::frame::{FeedQuery, client_frame};
use roomcast_proto::refusal::{Code, Refusal};

use super::answered::finish;
use super::asked::{admit, allow_one, bad, parameter, unchanged};
use super::{Desk, posted};
use crate::allowance::Operation;
use crate::asking::{Done, What};
use crate::feed::Want;
use crate::gate::Admitted;
use crate::{preferences, session};

/// `GET /v1/feed`
pub(super) async fn feed(State(desk): State<Desk>, uri: Uri, headers: HeaderMap) -> Response {
    finish(async {
        let admitted = admit(&desk, &headers)?;
        allow_one(&desk, &admitted, Operation::Feed)?;
        let limit = match parameter(&uri, "limit")? {
            None => 0,
            Some(text) => text.parse().map_err(|_| bad("limit is a number"))?,
        };
        let query = FeedQuery {
            before: parameter(&uri, "before")?,
            limit,
            filter: parameter(&uri, "filter")?.unwrap_or_default().into(),
        };
        let want = Want::page(&query, |text| {
            desk.hub.cursors().read(admitted.rights.tenant(), text).ok()
        });
        // An address has no places to point at.
        let want = want.map_err(|refusal| Refusal {
            pointer: None,
            ..refusal
        });
        told(&desk, admitted, "feed", want).await
    })
    .await
}

/// `POST /v1/marks`
pub(super) async fn marks(State(desk): State<Desk>, request: Request) -> Response {
    finish(async {
        let mut admitted = admit(&desk, request.headers())?;
        allow_one(&desk, &admitted, Operation::Mark)?;
        let body = posted::json(&desk, request, &mut admitted).await?;
        let client_frame::Body::Mark(mark) = posted::message("mark", &body)? else {
            return Err(posted::not_one_object());
        };
        let want = Want::mark(mark, |text| {
            desk.hub.cursors().read(admitted.rights.tenant(), text).ok()
        });
        told(&desk, admitted, "mark", want.map_err(posted::in_body)).await
    })
    .await
}

/// `POST /v1/preferences`
pub(super) async fn preferences(State(desk): State<Desk>, request: Request) -> Response {
    finish(async {
        let mut admitted = admit(&desk, request.headers())?;
        allow_one(&desk, &admitted, Operation::Preferences)?;
        let body = posted::json(&desk, request, &mut admitted).await?;
        let client_frame::Body::Preferences(frame) = posted::message("preferences", &body)? else {
            return Err(posted::not_one_object());
        };
        let set = preferences::read(&frame).map_err(posted::in_body)?;
        let who = session::who(&admitted, &desk.gate.rights().now().policy);
        let asked = What::Preferences(set);
        let done = Arc::clone(&desk.asking)
            .carry_out(&desk.hub, who, asked, None)
            .await;
        let Done::Preferences(kept) = done.map_err(posted::in_body)? else {
            return Err(Refusal::new(Code::Internal, "preferences are preferences"));
        };
        serde_json::to_vec(&kept)
            .map(Bytes::from)
            .map_err(|_| Refusal::new(Code::Internal, "the preferences cannot be written"))
    })
    .await
}

/// The message `feed` of the socket, without its name.
async fn told(
    desk: &Desk,
    mut admitted: Admitted,
    what: &'static str,
    want: Result<Want, Refusal>,
) -> Result<Bytes, Refusal> {
    let want = want.inspect_err(|refusal| desk.asking.count(what, refusal.code.as_str()))?;
    let who = session::who(&admitted, &desk.gate.rights().now().policy);
    let asked = What::Feed(session::notifications(&admitted, want));
    let Done::Feed(page) = Arc::clone(&desk.asking)
        .carry_out(&desk.hub, who, asked, None)
        .await?
    else {
        return Err(Refusal::new(Code::Internal, "notifications are a feed"));
    };
    // What was read for this user may be somebody else's by now.
    unchanged(desk, &mut admitted)?;
    serde_json::to_vec(&page)
        .map(Bytes::from)
        .map_err(|_| Refusal::new(Code::Internal, "the feed cannot be written"))
}
