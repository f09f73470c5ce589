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
            headers: headers(&decode(&hdrs)?)?,
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

/// A NATS header block, `NATS/1.0` and its lines.
fn headers(block: &[u8]) -> Result<HeaderMap, ApiError> {
    let malformed = |what: &str| ApiError::Malformed(format!("header block: {what}"));
    let mut headers = HeaderMap::new();
    if block.is_empty() {
        return Ok(headers);
    }
    let text = std::str::from_utf8(block).map_err(|_| malformed("not UTF-8"))?;
    let mut lines = text.split("\r\n");
    if !lines.next().is_some_and(|first| first.starts_with("NATS/1.0")) {
        return Err(malformed("does not begin with NATS/1.0"));
    }
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| malformed("a line without a colon"))?;
        let name: HeaderName = name.trim().parse().map_err(|_| malformed("a bad name"))?;
        let value: HeaderValue = value.trim().parse().map_err(|_| malformed("a bad value"))?;
        headers.append(name, value);
    }
    Ok(headers)
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

    #[test]
    fn header_blocks_keep_order_and_repeats() {
        let read = headers(b"NATS/1.0\r\nRc-Kind: a\r\nNats-Sequence: 9\r\nNats-Sequence:7\r\n\r\n").unwrap();
        assert_eq!(read.get_last("Rc-Kind").unwrap().as_str(), "a");
        assert_eq!(read.get_last("Nats-Sequence").unwrap().as_str(), "7");
        assert_eq!(read.get_all("Nats-Sequence").count(), 2);
        assert!(headers(b"").unwrap().is_empty());
        for bad in [
            &b"HTTP/1.1\r\n\r\n"[..],
            b"NATS/1.0\r\nno colon\r\n\r\n",
            b"NATS/1.0\r\n\xff: x\r\n\r\n",
        ] {
            assert!(headers(bad).is_err(), "{bad:?}");
        }
    }
}
