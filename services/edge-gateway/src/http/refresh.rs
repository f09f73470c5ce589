//! `POST /v1/refresh`: a newer token for a stream of this gateway, which cannot say `refresh` itself.
//!
//! Polls need none: each brings its token. A stream elsewhere is not looked for; it ends with its token, and comes back by its cursor.

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
use crate::shard;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    connection: String,
}

/// The token of the request takes the place of the stream's.
pub(super) async fn refresh(State(desk): State<Desk>, request: Request) -> Response {
    finish(async {
        let admitted = admit(&desk, request.headers())?;
        allow_one(&desk, &admitted, Operation::Refresh)?;
        let wanted: Wanted = posted::object(&posted::json(&desk, request).await?)?;
        // A name that is none is refused like a connection that is not there.
        let number = shard::number(&wanted.connection).ok_or_else(Refusal::forbidden)?;
        let mut answers = Vec::with_capacity(desk.shards.len());
        for shard in desk.shards.iter() {
            answers.push(shard.refresh(number, admitted.clone()));
        }
        for answer in answers {
            // A shard that is gone has no connections any more.
            if let Ok(Some(refreshed)) = answer.await {
                return written(&refreshed);
            }
        }
        Err(Refusal::forbidden())
    })
    .await
}

fn written(refreshed: &Refreshed) -> Result<Bytes, Refusal> {
    serde_json::to_vec(refreshed)
        .map(Bytes::from)
        .map_err(|_| Refusal::new(Code::Internal, "the answer cannot be written"))
}
