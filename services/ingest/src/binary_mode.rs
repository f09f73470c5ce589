//! CloudEvents binary mode over HTTP: the event's attributes are `ce-…` headers, its data is the body.
//!
//! Called by [`crate::door_http`]; how headers and body become an event is [`roomcast_proto::binary`]'s.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue};
use roomcast_proto::binary::{PREFIX, structured};
use roomcast_proto::refusal::{Code, Refusal};

/// Whether the headers carry attributes.
#[must_use]
pub fn is_meant(headers: &HeaderMap) -> bool {
    headers.keys().any(is_attribute)
}

fn is_attribute(name: &HeaderName) -> bool {
    name.as_str().starts_with(PREFIX)
}

/// The event as JSON.
///
/// # Errors
/// As [`structured`]; `unsupported_type` for a `Content-Type` that is no text.
pub fn event(headers: &HeaderMap, body: &[u8]) -> Result<Bytes, Refusal> {
    let content_type = headers
        .get(CONTENT_TYPE)
        .map(|value| value.to_str())
        .transpose()
        .map_err(|_| Refusal::new(Code::UnsupportedType, "Content-Type is not ASCII"))?;
    let attributes = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix(PREFIX)?;
        Some((name, value.as_bytes()))
    });
    structured(attributes, content_type, body).map(Bytes::from)
}

/// The request as it came, for its dead letter: the headers that are part of the event, an empty line, the body.
#[must_use]
pub fn original(headers: &HeaderMap, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(256 + body.len());
    for (name, value) in headers {
        if is_attribute(name) || name == CONTENT_TYPE {
            out.put_slice(name.as_str().as_bytes());
            out.put_slice(b": ");
            out.put_slice(value.as_bytes());
            out.put_slice(b"\r\n");
        }
    }
    out.put_slice(b"\r\n");
    out.put_slice(body);
    out.freeze()
}

/// The event of what [`original`] made; `None`: these bytes are not of binary mode.
///
/// # Errors
/// As [`event`].
#[must_use]
pub fn from_original(bytes: &Bytes) -> Option<Result<Bytes, Refusal>> {
    let is_head = [PREFIX.as_bytes(), CONTENT_TYPE.as_str().as_bytes()]
        .iter()
        .any(|name| bytes.starts_with(name));
    let end = is_head
        .then(|| bytes.windows(4).position(|four| four == b"\r\n\r\n"))
        .flatten()?;
    let mut headers = HeaderMap::new();
    for line in bytes[..end].split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|byte| *byte == b':')?;
        let value = line.get(colon + 2..)?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        headers.append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(event(&headers, &bytes[end + 4..]))
}
