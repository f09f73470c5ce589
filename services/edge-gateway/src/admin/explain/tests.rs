//! What connections are told about, and whether it is what they get.

use roomcast_access::InForce;

use super::super::trial::tests::{POLICY, holder, in_force};
use super::*;

/// Roles, and rooms that are open.
type Who<'a> = (&'a [&'a str], &'a [&'a str]);

fn event(audience: &str, policy: &Policy, expires_millis: Option<i64>, body: &[u8]) -> Arc<Delivery> {
    let address = crate::delivery::Address {
        tenant: Tenant::default(),
        room: Room::parse("desk").unwrap(),
        audience: policy.audience(audience),
        audience_name: Audience::parse(audience).unwrap(),
        meter: crate::delivery::Meter::default(),
    };
    let position = roomcast_proto::cursor::Position::default();
    Arc::new(Delivery::new(
        address,
        Kind::Event,
        position,
        None,
        expires_millis,
        body,
    ))
}

#[test]
fn everybody_is_told_why() {
    let in_force = in_force(POLICY);
    #[track_caller]
    fn check(
        in_force: &InForce,
        room: &str,
        audience: &str,
        who: (&[&str], &[&str]),
        expected: (Reason, &str),
    ) {
        let policy = &in_force.policy;
        let subject = Subject {
            room: Room::parse(room).unwrap(),
            audience: audience.to_owned(),
            number: policy.audience(audience),
            roles: policy
                .roles_of_audience(audience)
                .into_iter()
                .map(str::to_owned)
                .collect(),
            event: None,
        };
        let told = subject.tell(&holder(in_force, who.0, who.1), 0);
        assert_eq!(
            (told.reason, told.why.as_str()),
            expected,
            "{room} {audience} {who:?}"
        );
        assert_eq!(
            told.gets,
            matches!(told.reason, Reason::Follows | Reason::Recovers)
        );
    }
    let rows: [(&str, &str, Who<'_>, (Reason, &str)); 9] = [
        (
            "hall",
            "all",
            (&["user"], &["hall"]),
            (Reason::Follows, "hall asks for see, which it has"),
        ),
        (
            "desk",
            "staff",
            (&["boss"], &["desk"]),
            (
                Reason::Follows,
                "desk asks for work, which it has; staff reaches boss",
            ),
        ),
        (
            "desk",
            "all",
            (&["staff"], &["hall"]),
            (
                Reason::NotFollowing,
                "it has not opened the room; desk asks for work, which it has",
            ),
        ),
        (
            "desk",
            "all",
            (&["user"], &["hall"]),
            (Reason::Permission, "desk asks for work, which it lacks"),
        ),
        (
            "desk",
            "boss",
            (&["staff"], &["desk"]),
            (Reason::Audience, "boss is boss; it has staff"),
        ),
        (
            "flat.2",
            "all",
            (&["user"], &[]),
            (Reason::Claims, "flat.{ids} opens other rooms for its claims"),
        ),
        (
            "cellar",
            "all",
            (&["boss"], &[]),
            (
                Reason::Nobody,
                "no entry of the policy lets anybody follow cellar",
            ),
        ),
        (
            "user.u1",
            "all",
            (&[], &["user.u1"]),
            (Reason::Follows, "user.u1 is its own"),
        ),
        (
            "user.u2",
            "all",
            (&["boss"], &[]),
            (Reason::NotOwn, "user.u2 is somebody else's own room"),
        ),
    ];
    for (room, audience, who, expected) in rows {
        check(&in_force, room, audience, who, expected);
    }
}

#[test]
fn of_an_event_it_counts_what_becomes_of_it() {
    let in_force = in_force(POLICY);
    let policy = &in_force.policy;
    let tell = |event: Arc<Delivery>, roles: &[&str]| {
        let subject = Subject {
            room: Room::parse("desk").unwrap(),
            audience: "staff".to_owned(),
            number: event.audience,
            roles: vec!["boss".to_owned(), "staff".to_owned()],
            event: Some(event),
        };
        let told = subject.tell(&holder(&in_force, roles, &["desk"]), 1_000);
        (told.reason, told.without)
    };
    let good = br#"{"id":"e1","data":{"price":1}}"#;
    let without = vec!["/price".to_owned()];
    assert_eq!(
        tell(event("staff", policy, None, good), &["staff"]),
        (Reason::Follows, without)
    );
    assert_eq!(
        tell(event("staff", policy, None, good), &["boss"]),
        (Reason::Follows, vec![])
    );
    assert_eq!(
        tell(event("staff", policy, Some(1_001), good), &["boss"]).0,
        Reason::Follows
    );
    assert_eq!(
        tell(event("staff", policy, Some(1_000), good), &["boss"]).0,
        Reason::Expired
    );
    assert_eq!(
        tell(event("staff", policy, None, b"x"), &["staff"]).0,
        Reason::Unreadable
    );
}
