//! The body of a `POST`: JSON, bounded, there in time.

use std::time::Duration;

use axum::extract::Request;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use roomcast_proto::limits::CLIENT_MESSAGE_BYTES_MAX;
use roomcast_proto::refusal::{Code, Refusal};

/// Time in which a body must have arrived.
const BODY_WITHIN: Duration = Duration::from_secs(5);

/// Reads the body; who it is must have been asked before.
///
/// # Errors
/// `unsupported_type`, `too_large`, `request_timeout`.
pub(crate) async fn json(request: Request) -> Result<Bytes, Refusal> {
    is_json(request.headers())?;
    let body = axum::body::to_bytes(request.into_body(), CLIENT_MESSAGE_BYTES_MAX);
    match tokio::time::timeout(BODY_WITHIN, body).await {
        Err(_) => Err(Refusal::new(
            Code::RequestTimeout,
            "the body did not arrive in time",
        )),
        Ok(Err(_)) => Err(Refusal::new(
            Code::TooLarge,
            format!("a body has at most {CLIENT_MESSAGE_BYTES_MAX} bytes"),
        )),
        Ok(Ok(body)) => Ok(body),
    }
}

fn is_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence
        .eq_ignore_ascii_case("application/json")
        .then_some(())
        .ok_or_else(|| Refusal::new(Code::UnsupportedType, "a body is application/json"))
}
