//! A user's own events: what it publishes, and what it is doing. Ingest decides once more by its own policy.

use async_nats::HeaderMap;
use bytes::{BufMut, Bytes, BytesMut};
use roomcast_access::Policy;
use roomcast_proto::ascii_json;
use roomcast_proto::event::ACTIVITY_TYPE;
use roomcast_proto::ids::{Audience, Room, new_event_id};
use roomcast_proto::refusal::Refusal;
use roomcast_proto::subject::{header, inbound_for_tenant};
use serde::Serialize;

use crate::asking::{Asking, Who};

/// Longest `kind` and `detail` of an activity, bytes.
pub const ACTIVITY_BYTES_MAX: usize = 256;

/// An event to be published.
#[derive(Debug, PartialEq)]
pub struct Post {
    /// Where it goes.
    pub room: Room,
    /// Who gets it.
    pub audience: Audience,
    /// The event, in short form, with its id.
    pub event: Bytes,
}

impl Post {
    /// What a user publishes. Without `id` it gets one, so that an attempt of ours can be repeated.
    #[must_use]
    pub fn own(room: Room, kind: &str, id: Option<String>, data: &Bytes) -> Self {
        let id = id.unwrap_or_else(new_event_id);
        Self {
            room,
            audience: Audience::all(),
            event: event(kind, &id, "medium", data),
        }
    }

    /// What a user is doing; `None` where the policy wants no activity, so nobody may say any.
    #[must_use]
    pub fn activity(policy: &Policy, user: &str, kind: &str, detail: &str) -> Option<Self> {
        #[derive(Serialize)]
        struct Data<'a> {
            user: &'a str,
            kind: &'a str,
            detail: &'a str,
        }
        let to = policy.activity()?;
        let data = ascii_json(&Data { user, kind, detail });
        Some(Self {
            room: to.room.clone(),
            audience: to.audience.clone(),
            event: event(ACTIVITY_TYPE, &new_event_id(), "low", data.as_bytes()),
        })
    }
}

fn event(kind: &str, id: &str, priority: &str, data: &[u8]) -> Bytes {
    let mut event = BytesMut::with_capacity(data.len() + 128);
    event.put_slice(
        format!(
            "{{\"type\":{},\"id\":{},\"priority\":\"{priority}\",\"data\":",
            ascii_json(&kind),
            ascii_json(&id)
        )
        .as_bytes(),
    );
    event.put_slice(if data.is_empty() { b"null" } else { data });
    event.put_u8(b'}');
    event.freeze()
}

/// For whom a gateway publishes, as ingest reads it.
#[derive(Serialize)]
struct User<'a> {
    sub: &'a str,
    roles: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    claims: Option<&'a serde_json::Map<String, serde_json::Value>>,
}

/// Publishes. Answers the event's id, also where it was stored before.
///
/// # Errors
/// Ingest's refusal; `unavailable`, `unknown`.
pub async fn run(asking: &Asking, who: &Who, post: Post) -> Result<String, Refusal> {
    let user = User {
        sub: &who.user,
        roles: &who.roles,
        claims: who.claims.as_deref(),
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::USER, ascii_json(&user).as_str());
    let subject = inbound_for_tenant(&who.tenant, &post.room, &post.audience);
    asking.publish(subject, headers, post.event).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_made_without_touching_its_data() {
        let room = Room::parse("chat").unwrap();
        let post = Post::own(
            room.clone(),
            "a\"b",
            Some("é".into()),
            &Bytes::from_static(b"{ \"n\": 1.0 }"),
        );
        assert_eq!(
            &post.event[..],
            br#"{"type":"a\"b","id":"\u00e9","priority":"medium","data":{ "n": 1.0 }}"#
        );
        let read: serde_json::Value =
            serde_json::from_slice(&Post::own(room, "t", None, &Bytes::new()).event).unwrap();
        assert_eq!(read["data"], serde_json::Value::Null);
        assert_eq!(read["id"].as_str().map(str::len), Some(36));
    }
}
