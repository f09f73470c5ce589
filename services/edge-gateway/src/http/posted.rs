//! The body of a `POST`: JSON, bounded, there in time; a message of the socket without its name.

use axum::extract::Request;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::LengthLimitError;
use roomcast_proto::frame::{ClientFrame, client_frame};
use roomcast_proto::refusal::{Code, Refusal};
use serde::de::DeserializeOwned;

use super::Desk;
use super::asked::{again, bad};
use crate::gate::Admitted;
use crate::limit::Limit;

/// Reads the body of a user who was admitted by the head, and decides about them again: it may have taken its time.
///
/// # Errors
/// `unsupported_type`, `too_large`, `request_timeout`, `bad_request`; `expired`, `unauthenticated`.
pub(crate) async fn json(desk: &Desk, request: Request, admitted: &mut Admitted) -> Result<Bytes, Refusal> {
    let body = body(desk, request).await?;
    again(desk, admitted)?;
    Ok(body)
}

async fn body(desk: &Desk, request: Request) -> Result<Bytes, Refusal> {
    is_json(request.headers())?;
    let body = axum::body::to_bytes(request.into_body(), desk.message_bytes_max);
    match tokio::time::timeout(desk.body_within, body).await {
        Err(_) => {
            desk.metrics.limited(Limit::Body);
            Err(Refusal::new(
                Code::RequestTimeout,
                "the body did not arrive in time",
            ))
        }
        // Cut off, or not framed as it says.
        Ok(Err(error)) if !is_too_long(&error) => Err(bad("the body cannot be read to its end")),
        Ok(Err(_)) => {
            desk.metrics.limited(Limit::Message);
            let detail = format!("a body has at most {} bytes", desk.message_bytes_max);
            Err(Refusal::new(Code::TooLarge, detail))
        }
        Ok(Ok(body)) => Ok(body),
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<LengthLimitError>)
}

/// Reads a body that is the message `name` of the socket, without the name.
///
/// # Errors
/// `bad_encoding`, `bad_json`.
pub(crate) fn message(name: &str, body: &[u8]) -> Result<client_frame::Body, Refusal> {
    match ClientFrame::from_json(&format!("{{\"{name}\":{}}}", text(body)?)) {
        Ok(ClientFrame {
            body: Some(message),
            id: None,
        }) => Ok(message),
        Ok(_) => Err(not_one_object()),
        Err(bad) => Err(Refusal::new(Code::BadJson, bad.refusal.detail)),
    }
}

/// Reads a body that is one object of this request's own, all of whose members are known.
///
/// # Errors
/// `bad_encoding`, `bad_json`.
pub(crate) fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_str(text(body)?)
        .map_err(|error| Refusal::new(Code::BadJson, format!("the body: {error}")))
}

/// A list would be read as the members in their order.
fn text(body: &[u8]) -> Result<&str, Refusal> {
    let text =
        std::str::from_utf8(body).map_err(|_| Refusal::new(Code::BadEncoding, "the body must be UTF-8"))?;
    match text.trim_start().starts_with('{') {
        true => Ok(text),
        false => Err(not_one_object()),
    }
}

/// The body is not what is taken here.
pub(crate) fn not_one_object() -> Refusal {
    Refusal::new(Code::BadJson, "one object is expected")
}

/// A refusal in the words of the socket, which says where in its frame: here the body begins one name deeper.
pub(crate) fn in_body(refusal: Refusal) -> Refusal {
    let inner = |pointer: String| match pointer.get(1..).and_then(|rest| rest.find('/')) {
        Some(at) => pointer[at + 1..].to_owned(),
        None => String::new(),
    };
    Refusal {
        pointer: refusal.pointer.map(inner),
        ..refusal
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What clients in other languages are tested with.
    #[test]
    fn vectors_are_read_as_the_messages_of_a_socket() {
        let vectors: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("../../../../proto/vectors/posts.json")).unwrap();
        for vector in vectors {
            let (name, body) = (
                vector["message"].as_str().unwrap(),
                vector["body"].as_str().unwrap(),
            );
            let found = message(name, body.as_bytes());
            match vector["refused"].as_str() {
                Some(code) => assert_eq!(found.unwrap_err().code.as_str(), code, "{vector}"),
                None => {
                    let frame = ClientFrame::from_json(vector["frame"].as_str().unwrap()).unwrap();
                    assert_eq!(found.ok(), frame.body, "{vector}");
                }
            }
        }
        assert_eq!(message("mark", b"\xff").unwrap_err().code, Code::BadEncoding);
    }

    #[test]
    fn a_pointer_into_a_frame_becomes_one_into_the_body() {
        for (frame, body) in [
            ("/command/key", "/key"),
            ("/mark/ids/0", "/ids/0"),
            ("/mark", ""),
            ("", ""),
        ] {
            let refusal = in_body(Refusal::new(Code::BadRequest, "x").at(frame));
            assert_eq!(refusal.pointer.as_deref(), Some(body), "{frame}");
        }
        assert_eq!(in_body(Refusal::forbidden()), Refusal::forbidden());
    }
}
