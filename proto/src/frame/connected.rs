//! The JSON form of `connected`, written member by member.
//!
//! The one long message that everybody is told who comes in, thousands at a moment when a gateway was killed; what writes any message
//! costs three times as much. A property holds it to what that writes.

use super::{ClientLimits, Connected, RoomAnswer, put_json};

/// Writes the message behind what `out` holds already.
pub(super) fn put_connected(out: &mut Vec<u8>, connected: &Connected) {
    // Named one by one, so that a new member is not forgotten here.
    let Connected {
        connection,
        user,
        roles,
        epoch,
        ping_seconds,
        expires_at,
        server_time,
        status,
        rooms,
        limits,
    } = connected;
    put_text(out, "{\"connection\":", connection);
    put_text(out, ",\"user\":", user);
    put(out, ",\"roles\":", roles);
    put_text(out, ",\"epoch\":", epoch);
    put(out, ",\"pingSeconds\":", ping_seconds);
    put_text(out, ",\"expiresAt\":", expires_at);
    put_text(out, ",\"serverTime\":", server_time);
    put_text(out, ",\"status\":", status);
    out.extend_from_slice(b",\"rooms\":[");
    for (n, room) in rooms.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        put_room(out, room);
    }
    out.extend_from_slice(b"],\"limits\":");
    match limits {
        None => out.extend_from_slice(b"null"),
        Some(limits) => put_limits(out, limits),
    }
    out.push(b'}');
}

fn put_room(out: &mut Vec<u8>, answer: &RoomAnswer) {
    let RoomAnswer {
        room,
        cursor,
        recovery,
        reason,
        error,
    } = answer;
    put_text(out, "{\"room\":", room);
    let texts = [
        (",\"cursor\":", cursor),
        (",\"recovery\":", recovery),
        (",\"reason\":", reason),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            put_text(out, name, text);
        }
    }
    if let Some(error) = error {
        put(out, ",\"error\":", error);
    }
    out.push(b'}');
}

fn put_limits(out: &mut Vec<u8>, limits: &ClientLimits) {
    let ClientLimits {
        resume_seconds,
        subscriptions,
        message_bytes,
        event_bytes,
    } = limits;
    put(out, "{\"resumeSeconds\":", resume_seconds);
    put(out, ",\"subscriptions\":", subscriptions);
    put(out, ",\"messageBytes\":", message_bytes);
    put(out, ",\"eventBytes\":", event_bytes);
    out.push(b'}');
}

fn put<M: serde::Serialize>(out: &mut Vec<u8>, name: &str, value: &M) {
    out.extend_from_slice(name.as_bytes());
    put_json(out, value);
}

/// Nearly all texts are of letters, digits and a few marks: what needs no escape is copied.
fn put_text(out: &mut Vec<u8>, name: &str, text: &str) {
    out.extend_from_slice(name.as_bytes());
    let escapes = |b: u8| !(b' '..=b'~').contains(&b) || matches!(b, b'"' | b'\\');
    // To the end, found or not: so many bytes are looked at together.
    if text.bytes().fold(false, |found, b| found | escapes(b)) {
        return put_json(out, text);
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::ErrorBody;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z0-9.:_-]{0,30}", "[\u{0}-\u{7f}]{0,8}", ".{0,8}"]
    }

    fn error() -> impl Strategy<Value = ErrorBody> {
        (text(), text(), any::<bool>(), any::<Option<u64>>()).prop_map(
            |(code, message, temporary, retry_after_ms)| ErrorBody {
                code,
                message,
                temporary,
                retry_after_ms,
            },
        )
    }

    fn answer() -> impl Strategy<Value = RoomAnswer> {
        let maybe = || prop::option::of(text());
        (text(), maybe(), maybe(), maybe(), prop::option::of(error())).prop_map(
            |(room, cursor, recovery, reason, error)| RoomAnswer {
                room,
                cursor,
                recovery,
                reason,
                error,
            },
        )
    }

    proptest! {
        #[test]
        fn it_is_written_as_any_message_is(
            texts in prop::array::uniform6(text()),
            roles in prop::collection::vec(text(), 0..4),
            rooms in prop::collection::vec(answer(), 0..4),
            limits: Option<[u32; 4]>,
            ping_seconds: u32,
        ) {
            let [connection, user, epoch, expires_at, server_time, status] = texts;
            let limits = limits.map(|[resume_seconds, subscriptions, message_bytes, event_bytes]| ClientLimits {
                resume_seconds,
                subscriptions,
                message_bytes,
                event_bytes,
            });
            let connected =
                Connected { connection, user, roles, epoch, ping_seconds, expires_at, server_time, status, rooms, limits };
            let (mut written, mut ready) = (Vec::new(), Vec::new());
            put_json(&mut written, &connected);
            put_connected(&mut ready, &connected);
            prop_assert_eq!(String::from_utf8(ready), String::from_utf8(written));
        }
    }
}
