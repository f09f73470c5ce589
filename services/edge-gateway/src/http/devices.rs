//! Devices of users that web pushes go to: `GET /v1/devices`, `POST /v1/devices`, `DELETE /v1/devices/{device}`.
//!
//! Ingest keeps them and pushes; here is who asks. What a device may be told of is decided from the token that registered it, anew at each
//! notification, so a page registers at each load and removes its device when its user signs out.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use roomcast_proto::device::{
    Holder, List, Listed, Register, Registered, Remove, Removed, Subscription, Verb,
};
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::Service;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::answered::finish;
use super::asked::{admit, allow_one};
use super::{Desk, posted};
use crate::allowance::Operation;
use crate::gate::Admitted;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    subscription: Subscription,
    name: Option<String>,
}

/// `GET /v1/devices`
pub(super) async fn list(State(desk): State<Desk>, headers: HeaderMap) -> Response {
    finish(async {
        let admitted = entered(&desk, &headers)?;
        let question = List {
            user: user(&admitted),
        };
        ask::<_, Listed>(&desk, &admitted, Verb::List, &question).await
    })
    .await
}

/// `POST /v1/devices`
pub(super) async fn register(State(desk): State<Desk>, request: Request) -> Response {
    finish(async {
        let mut admitted = entered(&desk, request.headers())?;
        let wanted: Wanted = posted::object(&posted::json(&desk, request, &mut admitted).await?)?;
        let principal = &admitted.principal;
        let policy = &desk.gate.rights().now().policy;
        let question = Register {
            holder: Holder {
                user: user(&admitted),
                roles: principal.roles.clone(),
                claims: policy.named_claims(&principal.claims),
                issued_at: principal.issued_at,
                token_id: principal.token_id.clone(),
            },
            subscription: wanted.subscription,
            name: wanted.name,
        };
        ask::<_, Registered>(&desk, &admitted, Verb::Register, &question).await
    })
    .await
}

/// `DELETE /v1/devices/{device}`
pub(super) async fn remove(
    State(desk): State<Desk>,
    headers: HeaderMap,
    device: Result<Path<String>, PathRejection>,
) -> Response {
    finish(async {
        let admitted = entered(&desk, &headers)?;
        let question = Remove {
            user: user(&admitted),
            // What is no name is no device of anybody's, and answered like one that is gone.
            device: device.map(|Path(device)| device).unwrap_or_default(),
        };
        ask::<_, Removed>(&desk, &admitted, Verb::Remove, &question).await
    })
    .await
}

fn entered(desk: &Desk, headers: &HeaderMap) -> Result<Admitted, Refusal> {
    let admitted = admit(desk, headers)?;
    allow_one(desk, &admitted, Operation::Device)?;
    Ok(admitted)
}

fn user(admitted: &Admitted) -> String {
    admitted.principal.subject.as_ref().to_owned()
}

async fn ask<Q: Serialize + Sync, A: DeserializeOwned + Serialize>(
    desk: &Desk,
    admitted: &Admitted,
    verb: Verb,
    question: &Q,
) -> Result<Bytes, Refusal> {
    let tenant = admitted.rights.tenant();
    let answer: A = desk
        .asking
        .service(tenant, Service::Devices, verb.as_str(), question)
        .await?;
    serde_json::to_vec(&answer)
        .map(Bytes::from)
        .map_err(|_| Refusal::new(Code::Internal, "the answer cannot be written"))
}
