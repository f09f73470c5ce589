//! `GET /v1/sse`: a stream of server-sent events. Decided here, answered by a shard, which owns the socket from then on.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Method, Uri};

use super::Desk;
use super::asked::{bad, parameter};
use super::following::Following;
use roomcast_proto::refusal::Code;

use crate::allowance::Operation;
use crate::error::problem;

/// Keeps nginx and its kin from collecting a stream before they pass it on.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The head of the stream; with a [`Following`] beside it, what stands behind the head is the shard's.
///
/// The stream ends with the connection, so that the same ready bytes go to every client.
pub(super) async fn sse(State(desk): State<Desk>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    // HEAD wants to know what GET would say; it follows nothing.
    let stays = method == Method::GET;
    let read = match parameter(&uri, "ticket") {
        Err(refusal) => Err(refusal),
        Ok(None) => Following::read(&desk, &uri, &headers, Some(Operation::Subscribe)),
        // HEAD would take it for nothing.
        Ok(Some(_)) if !stays => Err(bad("a ticket is for GET")),
        Ok(Some(ticket)) => Following::read_with(&desk, &ticket, &uri, &headers).await,
    };
    let following = read.and_then(|mut following| {
        if stays {
            following.stay(&desk)?;
        }
        Ok(following)
    });
    let following = match following {
        Ok(following) => following,
        Err(refusal) => {
            let mut response = problem(&refusal);
            if refusal.code == Code::Unauthenticated {
                // Who tries tickets opens a connection for each, and of those there are so many a second.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            return response;
        }
    };
    let mut response = Response::new(Body::empty());
    let fixed: [(HeaderName, &'static str); 5] = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (ACCEL_BUFFERING, "no"),
        (CONNECTION, "close"),
    ];
    for (name, value) in fixed {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    if stays {
        response.extensions_mut().insert(following);
    }
    response
}
