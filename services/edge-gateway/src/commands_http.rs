//! `POST /v1/commands/{name}`: a command for those without a socket. The rights, the words and the way are those of the socket.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use roomcast_chassis::trace::Trail;
use roomcast_proto::frame::{self, client_frame};
use roomcast_proto::refusal::{Code, Refusal};

use crate::allowance::{self, Operation};
use crate::asking::{Done, What};
use crate::error::problem;
use crate::http::{Desk, admit, posted};
use crate::session;

type Name = Result<Path<String>, PathRejection>;

/// Answers `{"data": …}` or a problem.
pub async fn command(State(desk): State<Desk>, name: Name, request: Request) -> Response {
    match carried_out(&desk, name, request).await {
        Err(refusal) => problem(&refusal),
        Ok(data) => {
            let mut body = Vec::with_capacity(data.len() + 9);
            body.extend_from_slice(b"{\"data\":");
            body.extend_from_slice(&data);
            body.push(b'}');
            let mut response = Response::new(Body::from(body));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            response
        }
    }
}

async fn carried_out(desk: &Desk, name: Name, request: Request) -> Result<Bytes, Refusal> {
    let mut admitted = admit(desk, request.headers())?;
    let trail = Trail::read(|name| request.headers().get(name)?.to_str().ok());
    desk.allowance
        .take(admitted.rights.tenant(), &admitted.user, Operation::Command)
        .map_err(allowance::too_many)?;
    // A name that is none is refused like a command that is not there.
    let Path(name) = name.map_err(|_| Refusal::forbidden())?;
    let body = posted::json(desk, request, &mut admitted).await?;
    // The body is the message of the socket, without its name: `{data, key, timeoutMs?}`.
    let client_frame::Body::Command(command) = posted::message("command", &body)? else {
        return Err(posted::not_one_object());
    };
    let order = session::order(&admitted, frame::Command { name, ..command });
    let order = order.inspect_err(|refusal| {
        if refusal.code == Code::Forbidden {
            desk.gate.forbade("command", &admitted);
        }
    });
    let order = order.map_err(posted::in_body)?;
    let done = Arc::clone(&desk.asking).carry_out(
        &desk.hub,
        session::who(&admitted, &desk.gate.rights().now().policy),
        What::Command(order),
        trail.as_ref(),
    );
    match done.await? {
        Done::Result(data) => Ok(data),
        Done::Published(_) | Done::Feed(_) | Done::Preferences(_) => {
            Err(Refusal::new(Code::Internal, "a command has a result"))
        }
    }
}
