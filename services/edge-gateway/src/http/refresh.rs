//! `POST /v1/refresh`: a newer token for a stream, which cannot say `refresh` itself, at whichever gateway it is.
//!
//! Polls need none: each brings its token. A stream that is nowhere ends with its token, and comes back by its cursor.

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use roomcast_proto::frame::Refreshed;
use roomcast_proto::refusal::{Code, Refusal};
use serde::Deserialize;

use super::answered::finish;
use super::asked::{admit, allow_one};
use super::{Desk, posted};
use crate::allowance::Operation;
use crate::elsewhere::refresh_among;
use crate::{shard, upgrade};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    connection: String,
}

/// The token of the request takes the place of the stream's.
pub(super) async fn refresh(State(desk): State<Desk>, request: Request) -> Response {
    finish(async {
        let mut admitted = admit(&desk, request.headers())?;
        // Another gateway verifies it for itself.
        let token = upgrade::bearer(request.headers())?.unwrap_or_default().to_owned();
        allow_one(&desk, &admitted, Operation::Refresh)?;
        let wanted: Wanted = posted::object(&posted::json(&desk, request, &mut admitted).await?)?;
        // A name that is none is refused like a connection that is not there.
        let number = shard::number(&wanted.connection).ok_or_else(Refusal::forbidden)?;
        if let Some(refreshed) = refresh_among(&desk.shards, number, &admitted).await {
            return written(&refreshed);
        }
        let passed = match desk.roll_call.has_others() {
            true => desk.elsewhere.refresh(&wanted.connection, &token).await,
            false => None,
        };
        passed.map_or_else(|| Err(Refusal::forbidden()), |refreshed| written(&refreshed))
    })
    .await
}

fn written(refreshed: &Refreshed) -> Result<Bytes, Refusal> {
    serde_json::to_vec(refreshed)
        .map(Bytes::from)
        .map_err(|_| Refusal::new(Code::Internal, "the answer cannot be written"))
}
