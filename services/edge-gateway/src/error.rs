//! A refusal as an HTTP answer: RFC 9457, the same on every route.

use axum::body::Body;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use roomcast_proto::refusal::{Code, Refusal};

/// Turns a refusal into its answer.
#[must_use]
pub fn problem(refusal: &Refusal) -> Response {
    let mut response = Response::new(Body::from(refusal.problem_json()));
    *response.status_mut() =
        StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if matches!(refusal.code, Code::Unauthenticated | Code::Expired) {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(millis) = refusal.retry_after_ms {
        // Whole seconds, rounded up: 0 would mean at once.
        headers.insert(RETRY_AFTER, HeaderValue::from(millis.div_ceil(1000).max(1)));
    }
    response
}
