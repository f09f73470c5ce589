//! How a message looks to a client of server-sent events: the JSON of the socket in `data:`, where the client then stands
//! in `id:`.
//!
//! One cursor counts for all rooms of the connection, because everything is written in the hub's order: what stands behind
//! an `id` was written after everything up to it. A message without a cursor has no `id`, and the client keeps the one before.
//! All events have the default type, so one reader does for socket, stream and poll.

use bytes::{BufMut, Bytes, BytesMut};

/// Sent when nothing else is: proxies end what is silent, and the kernel finds out that a peer has vanished.
pub const COMMENT: &[u8] = b":\n\n";

/// One event, ready for the socket.
#[must_use]
pub fn event(cursor: Option<&str>, text: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(text.len() + cursor.map_or(0, str::len) + 32);
    if let Some(cursor) = cursor {
        put_field(&mut out, "id", cursor.as_bytes());
    }
    put_data(&mut out, text);
    out.freeze()
}

/// The last event of a stream. `retry_after_ms`: when the browser is to come back; without it, when it likes.
#[must_use]
pub fn farewell(retry_after_ms: Option<u64>, text: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(text.len() + 64);
    if let Some(millis) = retry_after_ms {
        put_field(&mut out, "retry", millis.to_string().as_bytes());
    }
    put_data(&mut out, text);
    out.freeze()
}

fn put_field(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_u8(b'\n');
}

/// An event's own JSON may be spread over lines; each of them is a `data:` of its own, and the client joins them again.
fn put_data(out: &mut BytesMut, text: &[u8]) {
    for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
        put_field(out, "data", line);
    }
    out.put_u8(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What clients in other languages are tested with.
    #[test]
    fn vectors_are_written_as_they_stand() {
        let vectors: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("../../../proto/vectors/streams.json")).unwrap();
        for vector in vectors {
            let frame = vector["frame"].as_str().unwrap().as_bytes();
            let made = match vector["retry"].as_u64() {
                Some(millis) => farewell(Some(millis), frame),
                None => event(vector["id"].as_str(), frame),
            };
            assert_eq!(made, vector["text"].as_str().unwrap(), "{}", vector["name"]);
        }
    }

    #[test]
    fn an_event_is_fields_and_an_empty_line() {
        let rows: [(Option<&str>, &str, &str); 4] = [
            (Some("e.1.2.3"), r#"{"a":1}"#, "id: e.1.2.3\ndata: {\"a\":1}\n\n"),
            (None, "{}", "data: {}\n\n"),
            (None, "{\n \"a\":1\n}", "data: {\ndata:  \"a\":1\ndata: }\n\n"),
            // A lone carriage return ends a line, too, for readers of event streams.
            (
                None,
                "{\r\n\"a\":\r1}",
                "data: {\ndata: \ndata: \"a\":\ndata: 1}\n\n",
            ),
        ];
        for (cursor, text, expected) in rows {
            assert_eq!(event(cursor, text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(farewell(Some(1800), b"{}"), "retry: 1800\ndata: {}\n\n");
        assert_eq!(farewell(None, b"{}"), "data: {}\n\n");
    }
}
