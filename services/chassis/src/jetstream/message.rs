//! A stored message, as the API's three ways of reading give it.

use async_nats::{HeaderMap, HeaderName, HeaderValue, Message};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;

use super::ApiError;

/// One message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its position.
    pub sequence: u64,
    /// The subject it was stored under.
    pub subject: String,
    /// When it was stored, microseconds since the Unix epoch.
    pub time_micros: i64,
    /// Its headers. Read them with `get_last`: the first value may be a publisher's forgery. Messages read by direct
    /// get carry the server's `Nats-Stream`, `Nats-Sequence` … besides.
    pub headers: HeaderMap,
    /// Its body.
    pub payload: Bytes,
}

/// Whether an answer to a direct get is a stored message, whatever status a publisher wrote into it. A status of the server's own has
/// no position.
pub(super) fn is_stored(answer: &Message) -> bool {
    let headers = answer.headers.as_ref();
    let has = |name: &str| headers.is_some_and(|headers| headers.get_last(name).is_some());
    has("Nats-Sequence") && has("Nats-Subject")
}

impl StoredMessage {
    /// Reads an answer to a direct get: position and subject stand in headers the server appended.
    pub(super) fn from_direct(message: Message) -> Result<Self, ApiError> {
        let headers = message.headers.unwrap_or_default();
        let text = |name: &str| {
            let value = headers.get_last(name).map(HeaderValue::as_str);
            value.ok_or_else(|| ApiError::Malformed(format!("no {name} in a direct answer")))
        };
        let sequence = text("Nats-Sequence")?;
        Ok(Self {
            sequence: sequence
                .parse()
                .map_err(|_| ApiError::Malformed(format!("Nats-Sequence {sequence:?}")))?,
            subject: text("Nats-Subject")?.to_owned(),
            time_micros: micros(text("Nats-Time-Stamp")?)?,
            payload: message.payload,
            headers,
        })
    }
}

/// The answer of STREAM.MSG.GET.
#[derive(Debug, Deserialize)]
pub(super) struct Got {
    message: GotMessage,
}

#[derive(Debug, Deserialize)]
struct GotMessage {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    time: String,
}

impl TryFrom<Got> for StoredMessage {
    type Error = ApiError;

    fn try_from(got: Got) -> Result<Self, ApiError> {
        let GotMessage {
            subject,
            seq,
            hdrs,
            data,
            time,
        } = got.message;
        let decode = |text: &str| {
            STANDARD
                .decode(text)
                .map_err(|error| ApiError::Malformed(format!("base64 in a message: {error}")))
        };
        Ok(Self {
            sequence: seq,
            subject,
            time_micros: micros(&time)?,
            headers: headers(&decode(&hdrs)?),
            payload: decode(&data)?.into(),
        })
    }
}

/// RFC 3339 to microseconds since the Unix epoch.
fn micros(time: &str) -> Result<i64, ApiError> {
    let time: jiff::Timestamp = time
        .parse()
        .map_err(|_| ApiError::Malformed(format!("time {time:?} of a message")))?;
    Ok(time.as_microsecond())
}

/// A NATS header block, `NATS/1.0` and its lines. Any publisher writes one, and the server stores it as it is: what cannot be read is
/// left out, or one such message would hold up whoever reads the stream.
fn headers(block: &[u8]) -> HeaderMap {
    let fields = block.split(|byte| *byte == b'\n').skip(1).filter_map(|line| {
        let (name, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
        let name: HeaderName = name.trim().parse().ok()?;
        let value: HeaderValue = value.trim().parse().ok()?;
        Some((name, value))
    });
    let mut headers = HeaderMap::new();
    fields.for_each(|(name, value)| headers.append(name, value));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_microseconds() {
        assert_eq!(micros("1970-01-01T00:00:01.5Z"), Ok(1_500_000));
        assert_eq!(
            micros("2026-11-20T10:00:00.123456789Z"),
            Ok(1_795_168_800_123_456)
        );
        assert!(micros("yesterday").is_err());
    }

    #[track_caller]
    fn check(block: &[u8], expected: &[(&str, &str)]) {
        let read = headers(block);
        let found = read
            .iter()
            .flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        let mut found: Vec<(&str, &str)> = found
            .map(|(name, value)| (name.as_ref(), value.as_str()))
            .collect();
        // The map keeps the order of one name's values only.
        found.sort_by_key(|(name, _)| *name);
        assert_eq!(found, expected, "{block:?}");
    }

    #[test]
    fn header_blocks_keep_repeats_and_lose_what_cannot_be_read() {
        check(b"", &[]);
        check(b"NATS/1.0\r\n\r\n", &[]);
        check(
            b"NATS/1.0\r\nRc-Kind: a\r\nNats-Sequence: 9\r\nNats-Sequence:7\r\n\r\n",
            &[("Nats-Sequence", "9"), ("Nats-Sequence", "7"), ("Rc-Kind", "a")],
        );
        let a: &[(&str, &str)] = &[("A", "b")];
        check(b"NATS/1.0 404 Message Not Found\r\nA: b\r\n\r\n", a);
        check(b"HTTP/1.1\r\nA: b\r\n\r\n", a);
        check(b"NATS/1.0\r\nno colon\r\nA: b\r\n\r\n", a);
        check(b"NATS/1.0\r\n\r\nA: b\r\n\r\n", a);
        check(b"NATS/1.0\r\nX: \xff\r\nA: b\r\n\r\n", a);
        check(b"NATS/1.0\r\nX: a\rb\r\nA: b\r\n\r\n", a);
        check(b"NATS/1.0\r\n\xc3\xa4: x\r\nA: b\r\n\r\n", a);
    }
}
