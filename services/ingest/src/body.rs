//! The body of an HTTP request: what it is, and its bytes, bounded and by a deadline.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header;
use http_body_util::BodyExt;
use roomcast_proto::refusal::{Code, Refusal};

use crate::capacity::{Full, Place};
use crate::dead_letter::KEPT_BYTES_MAX;
use crate::intake::Shape;

/// What a body may be.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Bytes.
    pub bytes_max: usize,
    /// Time until its last byte is here.
    pub within: Duration,
}

/// What was read of a body.
#[derive(Debug)]
pub struct Read {
    /// All of it, or the beginning of one that is too large.
    pub bytes: Bytes,
    /// How many bytes it has; more than `bytes` when that is the beginning only.
    pub original_bytes: usize,
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// There is no room for it now.
    Full(Full),
    /// It ended before it was whole.
    Broken,
    /// It did not arrive in time.
    Late,
}

/// Reads a body; of one that is too large only the beginning, for the dead letter. `place` covers the bytes before they
/// are kept.
///
/// # Errors
/// [`Unread`]; the connection should be closed then.
///
/// # Cancel safety
/// Dropped, what was read is lost.
pub async fn read(
    body: Body,
    headers: &HeaderMap,
    limits: &BodyLimits,
    place: &mut Place,
) -> Result<Read, Unread> {
    let length = headers.get(header::CONTENT_LENGTH);
    let stated = length.and_then(|text| text.to_str().ok()?.parse::<usize>().ok());
    let too_large = stated.is_some_and(|bytes| bytes > limits.bytes_max);
    let bytes_max = if too_large {
        KEPT_BYTES_MAX.min(limits.bytes_max)
    } else {
        limits.bytes_max
    };
    let reading = collect(body, stated, bytes_max, place);
    tokio::time::timeout(limits.within, reading)
        .await
        .unwrap_or(Err(Unread::Late))
}

async fn collect(
    mut body: Body,
    stated: Option<usize>,
    bytes_max: usize,
    place: &mut Place,
) -> Result<Read, Unread> {
    let mut bytes = BytesMut::new();
    if let Some(stated) = stated {
        place.cover(stated.min(bytes_max)).map_err(Unread::Full)?;
        // A promise is not memory: at most this much is set aside before the bytes are here.
        bytes.reserve(stated.min(bytes_max).min(64 * 1024));
    }
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else {
            continue;
        };
        let fitting = &data[..data.len().min(bytes_max - bytes.len())];
        place.cover(bytes.len() + fitting.len()).map_err(Unread::Full)?;
        bytes.extend_from_slice(fitting);
        if fitting.len() < data.len() {
            let original_bytes = stated.unwrap_or(0).max(bytes_max + 1);
            return Ok(Read {
                bytes: bytes.freeze(),
                original_bytes,
            });
        }
    }
    let original_bytes = bytes.len();
    Ok(Read {
        bytes: bytes.freeze(),
        original_bytes,
    })
}

/// What the body is, by its head.
///
/// # Errors
/// `unsupported_type`.
pub fn content(headers: &HeaderMap) -> Result<Shape, Refusal> {
    let unsupported = |detail: &str| Refusal::new(Code::UnsupportedType, detail);
    let plain = headers
        .get(header::CONTENT_ENCODING)
        .is_none_or(|encoding| encoding == "identity");
    if !plain {
        return Err(unsupported("the body must not be encoded"));
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else {
        return Err(unsupported(
            "one Content-Type is needed: application/json or a CloudEvents one",
        ));
    };
    let text = only.to_str().unwrap_or_default().to_ascii_lowercase();
    let (media, parameters) = text.split_once(';').unwrap_or((&text, ""));
    let charset = parameters
        .split(';')
        .filter_map(|parameter| parameter.trim().strip_prefix("charset="));
    if charset
        .map(|charset| charset.trim_matches('"'))
        .any(|charset| charset != "utf-8")
    {
        return Err(unsupported("the charset must be utf-8"));
    }
    match media.trim() {
        "application/json" => Ok(Shape::OneOrBatch),
        "application/cloudevents+json" => Ok(Shape::One),
        "application/cloudevents-batch+json" => Ok(Shape::Batch),
        _ => Err(unsupported(
            "application/json, application/cloudevents+json and application/cloudevents-batch+json are accepted",
        )),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_head_says_what_the_body_is() {
        #[track_caller]
        fn check(types: &[&str], encoding: Option<&str>, expected: Option<Shape>) {
            let mut headers = HeaderMap::new();
            for value in types {
                headers.append(header::CONTENT_TYPE, HeaderValue::from_str(value).unwrap());
            }
            if let Some(encoding) = encoding {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_str(encoding).unwrap());
            }
            assert_eq!(content(&headers).ok(), expected, "{types:?} {encoding:?}");
        }
        check(&["application/json"], None, Some(Shape::OneOrBatch));
        check(
            &["Application/JSON; Charset=UTF-8"],
            None,
            Some(Shape::OneOrBatch),
        );
        check(
            &["application/json; charset=\"utf-8\""],
            Some("identity"),
            Some(Shape::OneOrBatch),
        );
        check(&["application/cloudevents+json"], None, Some(Shape::One));
        check(
            &["application/cloudevents-batch+json; charset=utf-8"],
            None,
            Some(Shape::Batch),
        );
        check(&["application/json; charset=latin1"], None, None);
        check(&["application/json"], Some("gzip"), None);
        check(&["application/json", "application/json"], None, None);
        check(&["text/plain"], None, None);
        check(&["application/x-www-form-urlencoded"], None, None);
        check(&[], None, None);
    }
}
