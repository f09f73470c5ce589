//! The heads of answers: the one that makes a WebSocket of a connection, as the HTTP library and as a shard writes it, and refusals.

use axum::body::Body;
use axum::response::Response;
use http::header::{
    ALLOW, CONNECTION, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use roomcast_proto::refusal::{Code, Refusal};

use crate::error::problem;
use crate::upgrade;

/// The answer by which a connection becomes a WebSocket.
pub(super) fn switched(agreed: &upgrade::Upgrade) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&agreed.accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(encoding) = agreed.encoding {
        let name = HeaderValue::from_static(encoding.subprotocol());
        headers.insert(SEC_WEBSOCKET_PROTOCOL, name);
    }
    response
}

/// The same as bytes, for a shard that answers by itself.
pub(crate) fn switched_head(agreed: &upgrade::Upgrade) -> Vec<u8> {
    let mut head = Vec::with_capacity(256);
    head.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: ",
    );
    head.extend_from_slice(agreed.accept.as_bytes());
    if let Some(encoding) = agreed.encoding {
        head.extend_from_slice(b"\r\nsec-websocket-protocol: ");
        head.extend_from_slice(encoding.subprotocol().as_bytes());
    }
    head.extend_from_slice(b"\r\n\r\n");
    head
}

/// The time as `Date` says it: what hyper does not write says it itself (RFC 9110 §6.6.1).
pub(super) fn date() -> Option<HeaderValue> {
    let date = DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&Timestamp::now())
        .ok()?;
    HeaderValue::try_from(date).ok()
}

/// A head as it stands on the wire.
pub(super) fn head_of(status: &str, headers: &HeaderMap) -> Vec<u8> {
    let mut head = Vec::with_capacity(256);
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(status.as_bytes());
    head.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// A refused upgrade ends the connection: what follows such a request is not to be trusted.
pub(super) fn refused(refusal: &Refusal) -> Response {
    let mut response = problem(refusal);
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    if refusal.code == Code::MethodNotAllowed {
        headers.insert(ALLOW, HeaderValue::from_static("GET"));
    }
    if refusal.code.temporary() && !headers.contains_key(RETRY_AFTER) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_switch_say_the_same() {
        use roomcast_proto::frame::Encoding;
        for encoding in [None, Some(Encoding::Json), Some(Encoding::Protobuf)] {
            let agreed = upgrade::Upgrade {
                accept: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned(),
                encoding,
                token: None,
            };
            let written = head_of("101 Switching Protocols", switched(&agreed).headers());
            assert_eq!(
                String::from_utf8(switched_head(&agreed)).unwrap(),
                String::from_utf8(written).unwrap()
            );
        }
    }
}
