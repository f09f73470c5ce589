//! Whom a notification is for, and what each of them may see of it. No I/O: rights and clock come in as arguments.

use std::borrow::Cow;
use std::sync::Arc;

use async_nats::HeaderValue;
use roomcast_access::redact;
use roomcast_access::{InForce, Principal, Subscribe};
use roomcast_chassis::jetstream::StoredMessage;
use roomcast_chassis::trace::Trail;
use roomcast_proto::device::{Device, Holder};
use roomcast_proto::ids::{Room, Tenant};
use roomcast_proto::notification::KEY_PREFIX;
use roomcast_proto::preferences::Preferences;
use roomcast_proto::readstate::{Level, ReadState};
use roomcast_proto::subject::{header, parse_placed};
use roomcast_sinks::notice::Notice;

/// A notification as `STATE` holds it.
#[derive(Debug, Clone)]
pub struct Notification {
    /// Whose.
    pub tenant: Tenant,
    /// Its room.
    pub room: Room,
    /// The name of the role it is for, or `all`.
    audience: String,
    /// Unix milliseconds from which on it does not hold.
    expires_millis: Option<i64>,
    /// What it says.
    pub notice: Notice,
    /// The event.
    pub message: StoredMessage,
}

impl Notification {
    /// Reads a message of `STATE`; `None`: it is no notification, or one that was withdrawn.
    #[must_use]
    pub fn read(message: StoredMessage) -> Option<Self> {
        let text = |name: &str| message.headers.get_last(name).map(HeaderValue::as_str);
        // Most of what is read are numbers: the key alone tells, before anything is parsed.
        let key = text(header::KEY)?.strip_prefix('"')?;
        if !key.starts_with(KEY_PREFIX) || text(header::WITHDRAWN) == Some("1") {
            return None;
        }
        let expires_millis = text(header::EXPIRES).and_then(|text| text.parse().ok());
        let placed = parse_placed(&message.subject)?;
        Some(Self {
            tenant: Tenant::parse(placed.tenant).ok()?,
            room: Room::parse(placed.room).ok()?,
            audience: placed.audience.to_owned(),
            expires_millis,
            notice: Notice::read(&message.payload)?,
            message,
        })
    }

    /// Seconds for which it still holds; `None`: it does not.
    #[must_use]
    pub fn holds_for_secs(&self, now_millis: i64) -> Option<i64> {
        let left = self
            .expires_millis
            .map_or(i64::MAX, |expires| expires.saturating_sub(now_millis));
        (left > 0).then_some(left / 1_000)
    }

    /// Whether it is in the feed of a device's user, as of now: the room opens by itself or is the user's own, and the audience is one of
    /// the user's. The same as a gateway decides, from the token that registered the device and what is in force.
    #[must_use]
    pub fn is_seen_by(&self, device: &Device, in_force: &InForce, now_secs: i64) -> Option<Subscribe> {
        let principal = principal(&self.tenant, &device.holder);
        let rights = in_force.decide(&principal, now_secs).ok()?.rights;
        let own = rights.personal_room() == Some(&self.room);
        if !own && !rights.auto_join().contains(&self.room) {
            return None;
        }
        let permit = rights.subscribe(&self.room).ok()?;
        let audience = in_force.policy.audience(&self.audience)?;
        permit.audiences().contains(audience).then_some(permit)
    }

    /// What a push to the holder of the permit says: with everything taken out that the policy takes out. `trail`: the step of the attempt.
    /// `None`: nothing can be said.
    #[must_use]
    pub fn push_text(&self, permit: &Subscribe, trail: Option<&Trail>) -> Option<Vec<u8>> {
        let seen: Cow<'_, [u8]> = redact::apply(&self.message.payload, permit.redaction()).ok()?;
        Notice::read(&seen)?.push_text(trail.map(Trail::parent))
    }

    /// Why a push is not wanted, from what the user said and did: `muted` (by type, room, quiet hours, or without anything outside of the
    /// page) or `read`; `None`: it is.
    #[must_use]
    pub fn is_unwanted(&self, state: &ReadState, now: jiff::Timestamp) -> Option<&'static str> {
        let Preferences { desktop, .. } = &state.preferences;
        let announced = state
            .preferences
            .announces(&self.notice.kind, self.room.as_str(), now);
        if *desktop == Some(false) || !announced {
            return Some("muted");
        }
        let mark = state.marks.get(&self.notice.id);
        mark.filter(|mark| mark.level >= Level::Read).map(|_| "read")
    }
}

/// Who a device's user was by the token that registered it; how long the device counts is another matter.
pub(super) fn principal(tenant: &Tenant, holder: &Holder) -> Principal {
    Principal {
        tenant: tenant.clone(),
        subject: Arc::from(holder.user.as_str()),
        roles: holder.roles.clone(),
        claims: holder.claims.clone(),
        expires_at: i64::MAX,
        issued_at: holder.issued_at,
        token_id: holder.token_id.clone(),
    }
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;
    use roomcast_access::Policy;
    use roomcast_proto::ids::Audience;
    use roomcast_proto::subject::state;
    use serde_json::{Value, json};

    use super::*;
    use crate::sinks::roster::tests::device;

    const POLICY: &str = r#"
version: 1
roles:
  user:  { permissions: [news.view] }
  staff: { inherits: [user] }
  boss:  { inherits: [staff], permissions: [money.view] }
rooms:
  - { room: notifications, subscribe: news.view, auto_join: true, redact: [{ unless: money.view, remove: [/body] }] }
  - { room: vault, subscribe: money.view, auto_join: true }
  - { room: bookings, subscribe: news.view }
"#;

    fn message(room: &str, audience: &str, more: Value) -> StoredMessage {
        let mut event = json!({
            "specversion": "1.0", "id": "n1", "source": "s", "type": "notification.late", "room": room, "audience": audience,
            "statekey": "notification/n1", "data": { "title": "Late", "body": "1,000 EUR" },
        });
        event
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let mut headers = HeaderMap::new();
        headers.insert(header::KEY, r#""notification/n1""#);
        headers.insert(header::EXPIRES, "10000");
        let (room, audience) = (Room::parse(room).unwrap(), Audience::parse(audience).unwrap());
        StoredMessage {
            sequence: 7,
            subject: state(&Tenant::default(), &room, &audience, "notification/n1"),
            time_micros: 0,
            headers,
            payload: event.to_string().into(),
        }
    }

    fn notification(room: &str, audience: &str) -> Notification {
        Notification::read(message(room, audience, json!({}))).unwrap()
    }

    fn in_force() -> InForce {
        InForce::of(Policy::parse(POLICY, "policy.yaml").unwrap())
    }

    fn of(user: &str, role: &str) -> Device {
        let mut device = device("d1", user, 0, 0);
        device.holder.roles = vec![role.to_owned()];
        device
    }

    #[test]
    fn only_notifications_that_stand_are_read() {
        let withdrawn = {
            let mut message = message("notifications", "all", json!({}));
            message.headers.insert(header::WITHDRAWN, "1");
            message
        };
        let number = {
            let mut message = message("notifications", "all", json!({}));
            message.headers.insert(header::KEY, r#""revenue""#);
            message
        };
        let pretender = message("notifications", "all", json!({ "type": "booking:new" }));
        for message in [withdrawn, number, pretender] {
            assert!(Notification::read(message).is_none());
        }
        let one = notification("notifications", "all");
        assert_eq!(
            (one.notice.id.as_str(), one.room.as_str()),
            ("n1", "notifications")
        );
        let rows = [(0, Some(10)), (9_500, Some(0)), (10_000, None), (20_000, None)];
        for (now, expected) in rows {
            assert_eq!(one.holds_for_secs(now), expected, "{now}");
        }
    }

    #[test]
    fn a_device_is_told_what_its_users_feed_holds() {
        let in_force = in_force();
        let rows = [
            ("notifications", "all", "u1", "user", true),
            ("notifications", "staff", "u1", "user", false),
            ("notifications", "staff", "u1", "staff", true),
            ("notifications", "staff", "u1", "boss", true),
            ("notifications", "nobody", "u1", "boss", false),
            ("notifications", "all", "u1", "nobody", false),
            ("vault", "all", "u1", "staff", false),
            ("vault", "all", "u1", "boss", true),
            // It may be opened, and does not open by itself: it is in no feed.
            ("bookings", "all", "u1", "boss", false),
            ("user.u1", "all", "u1", "nobody", true),
            ("user.u2", "all", "u1", "boss", false),
        ];
        for (room, audience, user, role, seen) in rows {
            let permit = notification(room, audience).is_seen_by(&of(user, role), &in_force, 0);
            assert_eq!(permit.is_some(), seen, "{room} {audience} {user} {role}");
        }
    }

    #[test]
    fn who_was_revoked_is_told_nothing_and_who_was_granted_a_role_is() {
        let acl = |key: &str, value: &str| {
            let mut acl = roomcast_access::Acl::default();
            acl.put(key, value.as_bytes()).unwrap();
            InForce {
                acl: Arc::new(acl),
                ..in_force()
            }
        };
        let one = notification("notifications", "staff");
        let revoked = acl("user.main.u1", r#"{"name":"u1"}"#);
        assert!(one.is_seen_by(&of("u1", "staff"), &revoked, 0).is_none());
        assert!(one.is_seen_by(&of("u2", "staff"), &revoked, 0).is_some());
        let granted = acl("grant.main.u1.staff", r#"{"name":"u1"}"#);
        assert!(one.is_seen_by(&of("u1", "user"), &granted, 0).is_some());
    }

    #[test]
    fn what_a_role_may_not_see_is_in_no_push() {
        let (one, in_force) = (notification("notifications", "all"), in_force());
        let text = |role: &str| {
            let permit = one.is_seen_by(&of("u1", role), &in_force, 0).unwrap();
            String::from_utf8(one.push_text(&permit, None).unwrap()).unwrap()
        };
        assert!(text("boss").contains("1,000 EUR"));
        let staff = text("staff");
        assert!(staff.contains("Late") && !staff.contains("EUR"), "{staff}");
    }

    #[test]
    fn preferences_and_marks_are_heeded() {
        let one = notification("notifications", "all");
        let rows = [
            (r#"{"version":1,"marks":{}}"#, None),
            (r#"{"version":1,"marks":{"n1":{"as":"seen","at":5}}}"#, None),
            (
                r#"{"version":1,"marks":{"n1":{"as":"read","at":5}}}"#,
                Some("read"),
            ),
            (r#"{"version":1,"marks":{"n2":{"as":"read","at":5}}}"#, None),
            (
                r#"{"version":1,"marks":{},"preferences":{"desktop":false}}"#,
                Some("muted"),
            ),
            (
                r#"{"version":1,"marks":{},"preferences":{"desktop":true,"sounds":false}}"#,
                None,
            ),
            (
                r#"{"version":1,"marks":{},"preferences":{"mute":{"types":["notification.late"]}}}"#,
                Some("muted"),
            ),
            (
                r#"{"version":1,"marks":{},"preferences":{"mute":{"rooms":["bookings"]}}}"#,
                None,
            ),
            (
                r#"{"version":1,"marks":{},"preferences":{"quiet":{"from":"22:00","to":"07:00","zone":"UTC"}}}"#,
                Some("muted"),
            ),
        ];
        let night = "2026-01-31T23:00:00Z".parse().unwrap();
        for (state, expected) in rows {
            let state: ReadState = serde_json::from_str(state).unwrap();
            assert_eq!(one.is_unwanted(&state, night), expected, "{state:?}");
        }
    }
}
