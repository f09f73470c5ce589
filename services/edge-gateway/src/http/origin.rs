//! Pages of other origins: who may ask, and what a browser is told before it asks (CORS). Origins are compared exactly.

use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, VARY,
};
use http::{HeaderMap, HeaderValue};

/// What our own requests carry beyond what a page may always send.
const HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, if-none-match, last-event-id");
/// What a page may read of our answers beyond what it always may.
const EXPOSED: HeaderValue = HeaderValue::from_static("etag, retry-after");
/// Seconds for which a browser need not ask again.
const AGE_SECONDS: HeaderValue = HeaderValue::from_static("600");

/// Whether this asks for permission, and nothing else.
pub(super) fn is_preflight(headers: &HeaderMap) -> bool {
    headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Grants a preflight what the route can do.
pub(super) fn grant(response: &mut Response, method: &'static str) {
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(method));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, AGE_SECONDS);
}

/// Lets the page of `origin`, which was checked, read an answer.
pub(super) fn allow(response: &mut Response, origin: Option<&HeaderValue>) {
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
}
