//! What an answer looks like: JSON that nobody stores, or a problem.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use roomcast_access::permit::View;
use roomcast_proto::cursor::Cursor;
use roomcast_proto::refusal::{Code, Refusal};

use super::Desk;
use crate::delivery::Delivery;
use crate::error::problem;

/// Around a list and what is in it: quotes, brackets, the end of the answer.
const LIST_BYTES: usize = 16;

pub(super) async fn finish(answer: impl Future<Output = Result<Bytes, Refusal>>) -> Response {
    match answer.await {
        Err(refusal) => problem(&refusal),
        Ok(body) => json(body),
    }
}

/// A body of JSON that no cache keeps.
pub(super) fn json(body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    let fixed: [(HeaderName, &'static str); 3] = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Begins the answer about one room.
pub(super) fn open(desk: &Desk, view: &View, cursor: Cursor) -> BytesMut {
    let cursor = desk.hub.cursors().write(view.tenant(), &cursor);
    BytesMut::from(format!("{{\"room\":\"{}\",\"cursor\":\"{cursor}\"", view.room()).as_bytes())
}

pub(super) fn put_list(body: &mut BytesMut, name: &str, deliveries: &[Arc<Delivery>], view: &View) {
    let seen = deliveries.iter().filter_map(|delivery| delivery.for_class(view));
    let seen: Vec<_> = seen.collect();
    // No more than is counted while it waits to be written.
    body.reserve(seen.iter().map(|seen| seen.body().len() + 1).sum::<usize>() + name.len() + LIST_BYTES);
    body.put_slice(format!(",\"{name}\":[").as_bytes());
    for (n, seen) in seen.iter().enumerate() {
        if n > 0 {
            body.put_u8(b',');
        }
        body.put_slice(seen.body());
    }
    body.put_u8(b']');
}

pub(super) fn close(mut body: BytesMut) -> Bytes {
    body.put_u8(b'}');
    body.freeze()
}

pub(super) fn nothing_here() -> Refusal {
    Refusal::new(Code::NotFound, "there is nothing at this address")
}

pub(super) fn unavailable() -> Refusal {
    Refusal::new(Code::Unavailable, "the room cannot be read at the moment").retry_after_ms(1_000)
}
