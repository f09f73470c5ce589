//! Refusals as HTTP answers, and their place in the document.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use roomcast_chassis::openapi::Operation;
use roomcast_proto::refusal::{Code, Refusal};

/// A refusal that a handler answers with: `Result<Json<T>, Problem>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(pub Refusal);

impl Problem {
    /// A refusal without pointer or hint.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self(Refusal::new(code, detail))
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        problem(&self.0)
    }
}

/// RFC 9457. The code is in the answer's extensions as well, for the record.
#[must_use]
pub fn problem(refusal: &Refusal) -> Response {
    let mut response = Response::new(Body::from(refusal.problem_json()));
    *response.status_mut() =
        StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.extensions_mut().insert(refusal.code);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if matches!(refusal.code, Code::Unauthenticated | Code::Expired) {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(millis) = refusal.retry_after_ms {
        headers.insert(RETRY_AFTER, HeaderValue::from(millis.div_ceil(1_000).max(1)));
    }
    harden(&mut response);
    response
}

/// Nothing of the admin port is kept by anybody, nor guessed at.
pub(crate) fn harden(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// Adds to an operation's description what the door may answer instead of the handler.
#[must_use]
pub fn guarded(operation: Operation) -> Operation {
    let refusals = [
        Code::BadRequest,
        Code::Unauthenticated,
        Code::Expired,
        Code::BadOrigin,
        Code::RequestTimeout,
        Code::TooLarge,
        Code::Unavailable,
        // A change that goes on after its time for an answer.
        Code::Unknown,
    ];
    operation.refuses(refusals.map(Code::listed))
}
