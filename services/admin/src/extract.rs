//! What handlers read: JSON bodies and parameters, whose mistakes are refused in our own words.

use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use roomcast_proto::refusal::{Code, Refusal};
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// A body that says it is JSON, unread.
#[derive(Clone, Debug)]
pub struct RawJson(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for RawJson {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let json = request.headers().get(CONTENT_TYPE).is_some_and(|kind| {
            let kind = kind.to_str().unwrap_or_default();
            let essence = kind.split(';').next().unwrap_or_default();
            essence.trim().eq_ignore_ascii_case("application/json")
        });
        if !json {
            return Err(Problem::new(
                Code::UnsupportedType,
                "expected Content-Type: application/json",
            ));
        }
        // The door has read it, within its bounds.
        Bytes::from_request(request, state)
            .await
            .map(Self)
            .map_err(|_| Problem::new(Code::BadRequest, "the body ended before it was whole"))
    }
}

/// A JSON body. The type should say `deny_unknown_fields`: what is misspelt must not count as left out.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let RawJson(body) = RawJson::from_request(request, state).await?;
        serde_json::from_slice(&body).map(Self).map_err(|error| {
            Problem(Refusal::new(
                Code::BadJson,
                format!("the body is not what is expected here: {error}"),
            ))
        })
    }
}

/// The parameters of a query; unknown ones as with [`Json`].
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|error| Problem::new(Code::BadRequest, error.body_text()))
    }
}

/// The parts of the path: one as text, several as a tuple.
#[derive(Clone, Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        axum::extract::Path::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(parts)| Self(parts))
            .map_err(|error| Problem::new(Code::BadRequest, error.body_text()))
    }
}
