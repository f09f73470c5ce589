//! What would become of connections, and how it is counted.

use roomcast_access::Principal;
use roomcast_proto::ids::Tenant;

use super::*;
use crate::gate::Admitted;

pub const POLICY: &str = "
version: 1
roles:
  user:  { permissions: [see] }
  staff: { inherits: [user], permissions: [work] }
  boss:  { inherits: [staff], permissions: [money] }
rooms:
  - { room: hall, subscribe: see, auto_join: true }
  - { room: desk, subscribe: work, redact: [{ unless: money, remove: [/price] }] }
  - { room: \"flat.{ids}\", subscribe: see }
";

pub fn in_force(text: &str) -> InForce {
    InForce::of(Policy::parse(text, "p").unwrap())
}

/// User `u1` with roles and the claim `ids: [1]`, following rooms.
pub fn holder(in_force: &InForce, roles: &[&str], rooms: &[&str]) -> Holder {
    let mut claims = serde_json::Map::new();
    claims.insert("ids".to_owned(), serde_json::json!(["1"]));
    let principal = Arc::new(Principal {
        tenant: Tenant::default(),
        subject: "u1".into(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        claims,
        expires_at: 10,
        issued_at: None,
        token_id: None,
    });
    let decided = in_force.decide(&principal, 0).unwrap();
    Holder {
        number: 1,
        admitted: Admitted {
            user: Arc::clone(&principal.subject),
            roles: decided.roles,
            rights: decided.rights,
            expires_at: 10,
            ends_at: 40,
            generation: 1,
            principal,
        },
        rooms: rooms
            .iter()
            .map(|room| (Room::parse(room).unwrap(), false))
            .collect(),
    }
}

#[test]
fn what_would_change_is_said_and_nothing_else() {
    let now = in_force(POLICY);
    #[track_caller]
    fn check(
        now: &InForce,
        (from, to): (&str, &str),
        roles: &[&str],
        follows: &[&str],
        expected: Option<&str>,
    ) {
        assert!(POLICY.contains(from), "{from}");
        let mut then = now.clone();
        then.policy = Policy::parse_after(&POLICY.replace(from, to), "p", Some(&now.policy)).unwrap();
        let said = change(&holder(now, roles, follows), &then, 0).map(|change| {
            let loses = change
                .loses
                .iter()
                .map(|lost| format!("-{}{}", lost.room, if lost.closed { "!" } else { "" }));
            let gains = change
                .gains
                .iter()
                .map(|gained| format!("+{}{}", gained.room, if gained.opened { "!" } else { "" }));
            let differs = change.differs.iter().map(|room| format!("~{room}"));
            let mut all: Vec<String> = loses.chain(gains).chain(differs).collect();
            if change.roles != change.then {
                all.push(change.then.join(","));
            }
            all.join(" ")
        });
        assert_eq!(said.as_deref(), expected, "{from} -> {to}: {roles:?} {follows:?}");
    }
    let nothing = ("version: 1", "version: 1");
    check(&now, nothing, &["boss"], &["hall", "desk"], None);
    let wider = (
        "inherits: [staff], permissions: [money]",
        "inherits: [staff], permissions: [money, work]",
    );
    check(&now, wider, &["boss"], &["desk"], None);
    let closed = ("subscribe: work", "subscribe: money");
    check(&now, closed, &["staff"], &["desk"], Some("-desk!"));
    check(&now, closed, &["staff"], &["hall"], Some("-desk"));
    check(&now, closed, &["boss"], &["desk"], None);
    let opened = ("subscribe: work,", "subscribe: see, auto_join: true,");
    check(&now, opened, &["user"], &["hall"], Some("+desk!"));
    check(&now, opened, &["staff"], &["desk"], None);
    let hidden = ("unless: money", "unless: see");
    check(&now, hidden, &["staff"], &["desk"], Some("~desk"));
    check(&now, hidden, &["user"], &["hall"], None);
    let claimed = ("flat.{ids}", "flat.{houses}");
    check(&now, claimed, &["user"], &["flat.1"], Some("-flat.1!"));
}

#[test]
fn all_are_counted_and_a_page_is_shown() {
    let change = |name: u64| Change {
        connection: format!("c{name:016x}"),
        user: "u".to_owned(),
        tenant: "main".to_owned(),
        roles: Vec::new(),
        then: Vec::new(),
        loses: vec![Lost {
            room: "desk".to_owned(),
            closed: name.is_multiple_of(2),
        }],
        gains: Vec::new(),
        differs: vec![format!("r{name}")],
    };
    let mut outcome = Outcome::default();
    for name in 1..=2_000 {
        outcome.add(name, change(name), Some(3), 2);
    }
    assert_eq!(
        (outcome.changed, outcome.rooms.len(), outcome.others),
        (2_000, ROOMS_MAX, 1_001)
    );
    let desk = outcome.rooms["main.desk"];
    assert_eq!((desk.lose, desk.closed, desk.gain), (2_000, 1_000, 0));
    let shown: Vec<&str> = outcome.changes.iter().map(|change| &*change.connection).collect();
    assert_eq!(shown, ["c0000000000000004", "c0000000000000005"]);
    assert_eq!(outcome.next.as_deref(), Some("c0000000000000005"));
}
