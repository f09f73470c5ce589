//! `POST /v1/commands/{name}`: a command for those without a socket. The rights, the words and the way are those of the socket.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use roomcast_proto::frame::{self, ClientFrame, client_frame};
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
    let admitted = admit(desk, request.headers())?;
    desk.allowance
        .take(admitted.rights.tenant(), &admitted.user, Operation::Command)
        .map_err(allowance::too_many)?;
    // A name that is none is refused like a command that is not there.
    let Path(name) = name.map_err(|_| Refusal::forbidden())?;
    let body = posted::json(request).await?;
    let command = read(&body)?;
    let order =
        session::order(&admitted, frame::Command { name, ..command }).map_err(|refusal| {
            match refusal.pointer {
                Some(_) => Refusal {
                    pointer: Some("/key".to_owned()),
                    ..refusal
                },
                None => refusal,
            }
        })?;
    let done = Arc::clone(&desk.asking).carry_out(
        &desk.hub,
        session::who(&admitted, &desk.gate.rights().now().policy),
        What::Command(order),
    );
    match done.await? {
        Done::Result(data) => Ok(data),
        Done::Published(_) | Done::Feed(_) => Err(Refusal::new(Code::Internal, "a command has a result")),
    }
}

/// The body is the message of the socket, without its name: `{data, key, timeoutMs?}`.
fn read(body: &[u8]) -> Result<frame::Command, Refusal> {
    let text =
        std::str::from_utf8(body).map_err(|_| Refusal::new(Code::BadEncoding, "the body must be UTF-8"))?;
    let frame = ClientFrame::from_json(&format!("{{\"command\":{text}}}"));
    match frame {
        Ok(ClientFrame {
            body: Some(client_frame::Body::Command(command)),
            id: None,
        }) => Ok(command),
        Ok(_) => Err(Refusal::new(Code::BadJson, "one object is expected")),
        Err(bad) => Err(Refusal::new(Code::BadJson, bad.refusal.detail)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_the_message_of_the_socket() {
        let good = read(br#"{"data": {"a":1.0}, "key":"k", "timeoutMs": 5}"#).unwrap();
        assert_eq!(
            (&good.data[..], good.key.as_str(), good.timeout_ms),
            (&br#"{"a":1.0}"#[..], "k", 5)
        );
        let rows: [(&[u8], Code); 6] = [
            (b"", Code::BadJson),
            (b"[]", Code::BadJson),
            (b"{\"key\":1}", Code::BadJson),
            (b"{},\"id\":1", Code::BadJson),
            (b"{}}{", Code::BadJson),
            (b"\xff", Code::BadEncoding),
        ];
        for (body, code) in rows {
            assert_eq!(read(body).unwrap_err().code, code, "{body:?}");
        }
    }
}
