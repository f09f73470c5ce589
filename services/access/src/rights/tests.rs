//! Rights under the contract's example, and against a model so plain that it can be read as the rule.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use roomcast_proto::ids::{Audience, Room, Tenant};
use serde_json::{Map, Value, json};

use crate::policy::Policy;
use crate::principal::Principal;
use crate::rights::Rights;

const EXAMPLE: &str = crate::policy::EXAMPLE;

fn principal(subject: &str, roles: &[&str], claims: Value) -> Principal {
    let claims = match claims {
        Value::Object(claims) => claims,
        _ => Map::new(),
    };
    Principal {
        tenant: Tenant::default(),
        subject: subject.into(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        claims,
        expires_at: 1_000,
        issued_at: None,
        token_id: None,
    }
}

fn rights(roles: &[&str], claims: Value) -> Rights {
    Policy::parse(EXAMPLE, "policy.yaml")
        .unwrap()
        .rights(&principal("u1", roles, claims))
}

fn room(name: &str) -> Room {
    Room::parse(name).unwrap()
}

fn names(rooms: &[Room]) -> Vec<&str> {
    rooms.iter().map(Room::as_str).collect()
}

#[test]
fn who_may_subscribe_where() {
    let ids = json!({ "property_ids": [42, "43", 4.5, "a b", null, "a.b", "*"] });
    for (roles, name, expected) in [
        (&["user"][..], "notifications", true),
        (&["user"], "os_dashboard", false),
        (&["staff"], "os_dashboard", true),
        (&["staff"], "financial_updates", false),
        (&["admin"], "financial_updates", true),
        (&["SUPER_ADMIN"], "financial_updates", true),
        (&["super_admin"], "absent", false),
        (&["Staff"], "os_dashboard", false),
        (&["unknown", "staff"], "os_dashboard", true),
        (&[], "notifications", false),
        (&["all"], "notifications", false),
        (&["property_owner"], "property.42", true),
        (&["property_owner"], "property.43", true),
        (&["property_owner"], "property.44", false),
        (&["property_owner"], "property", false),
        (&["property_owner"], "property.42.x", false),
        (&["staff"], "property.42", false),
        (&[], "user.u1", true),
        (&["super_admin"], "user.u2", false),
    ] {
        let rights = rights(roles, ids.clone());
        assert_eq!(
            rights.subscribe(&room(name)).is_ok(),
            expected,
            "{roles:?} {name}"
        );
        assert_eq!(
            rights.history(&room(name)).is_ok(),
            expected,
            "history: {roles:?} {name}"
        );
        assert_eq!(rights.skipped_values(), 5);
    }
}

#[test]
fn a_claim_of_a_wrong_type_opens_nothing() {
    for (claim, opens, skipped) in [
        (json!("42"), true, 0),
        (json!(42), true, 0),
        (json!(["42"]), true, 0),
        (json!([["42"]]), false, 1),
        (json!({ "42": "42" }), false, 1),
        (json!(true), false, 1),
        (json!(null), false, 1),
        (json!(42.0), false, 1),
        (json!("{property_ids}"), false, 1),
        (json!([]), false, 0),
    ] {
        let rights = rights(&["property_owner"], json!({ "property_ids": claim }));
        assert_eq!(rights.subscribe(&room("property.42")).is_ok(), opens, "{claim}");
        assert_eq!(rights.skipped_values(), skipped, "{claim}");
    }
}

#[test]
fn who_may_publish_where() {
    let ids = json!({ "property_ids": ["42"] });
    for (roles, name, audience, expected) in [
        (&["property_manager"][..], "property.42", "all", true),
        (&["property_manager"], "property.42", "staff", true),
        (&["property_manager"], "property.42", "nobody", false),
        (&["property_manager"], "property.43", "all", false),
        (&["property_owner"], "property.42", "all", false),
        (&["super_admin"], "notifications", "all", false),
        (&["super_admin"], "user.u1", "all", false),
    ] {
        let rights = rights(roles, ids.clone());
        let audience = Audience::parse(audience).unwrap();
        for permit in [
            rights.publish(&room(name), &audience),
            rights.client_publish(&room(name), &audience),
        ] {
            assert_eq!(permit.is_ok(), expected, "{roles:?} {name} {audience}");
            if let Ok(permit) = permit {
                assert_eq!((permit.room().as_str(), permit.publisher()), (name, "u1"));
            }
        }
    }
}

#[test]
fn a_listed_publisher_writes_what_its_roles_may_and_reads_nothing() {
    let text = EXAMPLE
        .replace("roles: [staff] }]", "roles: [property_manager] }]")
        .replace(
            "commands:",
            "  - { room: \"user.{user}\", publish: property.manage }\ncommands:",
        );
    let policy = Policy::parse(&text, "policy.yaml").unwrap();
    let main = Tenant::default();
    let erp = policy.publisher(&main, "erp").unwrap();
    let all = Audience::all();
    assert_eq!(
        erp.publish(&room("property.7"), &all).unwrap().publisher(),
        "nats/erp"
    );
    assert!(erp.publish(&room("property.7.x"), &all).is_err());
    assert!(erp.publish(&room("notifications"), &all).is_err());
    assert!(erp.publish(&room("user.u1"), &all).is_ok());
    assert!(erp.client_publish(&room("user.u1"), &all).is_err());
    for name in ["property.7", "notifications", "user.erp"] {
        assert!(
            erp.subscribe(&room(name)).is_err() && erp.history(&room(name)).is_err(),
            "{name}"
        );
        assert!(erp.presence(&room(name)).is_err());
    }
    assert!(erp.auto_join().is_empty() && erp.personal_room().is_none());
    assert_eq!(
        erp.publish_patterns(),
        [vec![Some("property"), None], vec![Some("user"), None]]
    );
    assert!(policy.publisher(&main, "other").is_none());
    assert!(policy.publisher(&Tenant::parse("acme").unwrap(), "erp").is_none());
}

#[test]
fn audiences_follow_inheritance_upwards() {
    let policy = Policy::parse(EXAMPLE, "policy.yaml").unwrap();
    for (role, audience, reached) in [
        ("admin", "staff", true),
        ("admin", "user", true),
        ("admin", "admin", true),
        ("admin", "super_admin", false),
        ("staff", "admin", false),
        ("staff", "property_owner", false),
        ("super_admin", "property_owner", true),
        ("user", "all", true),
        ("unknown", "all", true),
        ("unknown", "user", false),
    ] {
        let rights = policy.rights(&principal("u1", &[role], json!({})));
        let id = policy.audience(audience).unwrap();
        assert_eq!(rights.audiences().contains(id), reached, "{audience} to {role}");
        assert_eq!(
            rights.subscribe(&room("user.u1")).unwrap().audiences(),
            rights.audiences()
        );
    }
}

/// `"*"` is every permission and no role: events for a role it does not inherit stay away.
#[test]
fn the_wildcard_adds_no_audience() {
    let text = "version: 1\nroles: { root: { permissions: [\"*\"] }, staff: { permissions: [a.view] } }\n\
                rooms: [{ room: a, subscribe: a.view, publish: a.write }]\n";
    let policy = Policy::parse(text, "p").unwrap();
    let root = policy.rights(&principal("u1", &["root"], json!({})));
    assert!(root.subscribe(&room("a")).is_ok() && root.hold_everything());
    assert!(!root.audiences().contains(policy.audience("staff").unwrap()));
    assert!(
        root.publish(&room("a"), &Audience::parse("staff").unwrap())
            .is_ok()
    );
    assert!(policy.knows_room(&room("a")) && !policy.knows_room(&room("b")));
}

#[test]
fn redactions_follow_the_permission_and_have_a_class() {
    let ids = json!({ "property_ids": ["42"] });
    let owner = rights(&["property_owner"], ids.clone())
        .subscribe(&room("property.42"))
        .unwrap();
    let pointers: Vec<String> = owner.redaction().iter().map(ToString::to_string).collect();
    assert_eq!(pointers, ["/amount", "/customer/email"]);
    assert!(!owner.class().is_whole() && owner.history());
    let admin = rights(&["admin"], ids.clone())
        .subscribe(&room("property.42"))
        .unwrap();
    assert!(admin.redaction().is_empty() && admin.class().is_whole());
    let manager = rights(&["property_manager"], ids.clone())
        .history(&room("property.42"))
        .unwrap();
    assert_eq!(manager.class(), owner.class());
    assert!(
        rights(&["property_owner"], ids)
            .subscribe(&room("user.u1"))
            .unwrap()
            .class()
            .is_whole()
    );
}

/// Two entries open the same room; the one without a redaction does not undo the other's.
#[test]
fn rights_add_up_over_entries_and_redactions_too() {
    let text = "version: 1\nroles: { a: { permissions: [x.view, y.view] }, b: { permissions: [money.view] } }\nrooms:\n\
                - { room: \"p.{mine}\", subscribe: x.view, redact: [{ unless: money.view, remove: [/b, /a] }] }\n\
                - { room: \"p.{ours}\", subscribe: y.view, redact: [{ unless: money.view, remove: [/a, /c] }] }\n\
                - { room: p.1, publish: x.view, history: money.view }\n";
    let policy = Policy::parse(text, "p").unwrap();
    let classes: Vec<_> = [
        json!({ "mine": 1 }),
        json!({ "ours": 1 }),
        json!({ "mine": 1, "ours": 1 }),
    ]
    .into_iter()
    .map(|claims| {
        let rights = policy.rights(&principal("u1", &["a"], claims));
        assert!(rights.publish(&room("p.1"), &Audience::all()).is_ok());
        let permit = rights.subscribe(&room("p.1")).unwrap();
        (
            permit.class(),
            permit
                .redaction()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
        )
    })
    .collect();
    assert_eq!(classes[0].1, ["/b", "/a"]);
    assert_eq!(classes[1].1, ["/a", "/c"]);
    assert_eq!(classes[2].1, ["/a", "/b", "/c"]);
    assert!(classes[0].0 != classes[1].0 && classes[1].0 != classes[2].0);
    assert!(
        policy
            .rights(&principal("u1", &["a"], json!({})))
            .subscribe(&room("p.1"))
            .is_err()
    );
}

#[test]
fn rooms_open_by_themselves_up_to_the_limit() {
    assert_eq!(
        names(&rights(&["staff"], json!({})).auto_join()),
        ["notifications", "os_dashboard"]
    );
    assert_eq!(
        names(&rights(&["user"], json!({})).auto_join()),
        ["notifications"]
    );
    let text = "version: 1\nroles: { a: { permissions: [x.view] } }\nrooms:\n\
                - { room: \"p.{x}.{y}\", subscribe: x.view, auto_join: true }\n\
                - { room: last, subscribe: x.view, auto_join: true }\n";
    let policy = Policy::parse(text, "p").unwrap();
    let many: Vec<u32> = (0..1_000).collect();
    let few = policy.rights(&principal("u1", &["a"], json!({ "x": [2, 1, 2], "y": "k" })));
    assert_eq!(names(&few.auto_join()), ["p.1.k", "p.2.k", "last"]);
    assert_eq!(few.auto_join_left_off(), 0);
    let full = policy.rights(&principal("u1", &["a"], json!({ "x": many, "y": many })));
    assert_eq!(full.auto_join().len(), 512);
    assert_eq!(full.auto_join_left_off(), 1_000_000 + 1 - 512);
    assert!(full.auto_join().iter().all(|room| full.subscribe(room).is_ok()));
}

#[test]
fn commands_and_presence_ask_for_their_permission() {
    for (role, command, presence) in [
        ("super_admin", true, true),
        ("admin", false, true),
        ("staff", false, false),
    ] {
        let rights = rights(&[role], json!({}));
        assert_eq!(rights.command("delivery.update").is_ok(), command, "{role}");
        assert!(rights.command("delivery").is_err());
        assert_eq!(rights.presence(&room("os_dashboard")).is_ok(), presence, "{role}");
        assert!(rights.presence(&room("notifications")).is_err());
        assert!(rights.presence(&room("user.u1")).is_err());
    }
}

/// Who shows whom: a role in common, inherited ones included; `all` is everybody's and shows nobody.
#[test]
fn rooms_show_presence_where_the_policy_says_so_and_roles_in_common_show_people_to_each_other() {
    let policy = Policy::parse(EXAMPLE, "policy.yaml").unwrap();
    for (name, shown) in [
        ("os_dashboard", true),
        ("notifications", false),
        ("nowhere", false),
        ("user.u1", false),
    ] {
        assert_eq!(policy.shows_presence(&room(name)), shown, "{name}");
    }
    let of = |roles: &[&str]| {
        let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        policy.audiences_of(&roles)
    };
    for (one, other, share) in [
        (&["staff"][..], &["staff"][..], true),
        (&["staff"], &["property_owner"], true),
        (&["super_admin"], &["property_owner"], true),
        (&["staff"], &["no_such_role"], false),
        (&["staff"], &[], false),
        (&[], &[], false),
    ] {
        assert_eq!(of(one).share_role(of(other)), share, "{one:?} {other:?}");
        assert_eq!(of(other).share_role(of(one)), share, "{other:?} {one:?}");
        assert_eq!(of(one), rights(one, json!({})).audiences(), "{one:?}");
    }
    assert!(of(&[]).without_roles() && !of(&["staff"]).without_roles());
}

/// Some permissions stand for rights that no room asks for; they are asked by name.
#[test]
fn a_permission_may_be_asked_by_name() {
    for (role, permission, expected) in [
        ("admin", "financial.view", true),
        ("admin", "notifications.view", true),
        ("admin", "events.backfill", false),
        ("admin", "*", false),
        ("super_admin", "events.backfill", true),
        ("unknown", "notifications.view", false),
    ] {
        assert_eq!(
            rights(&[role], json!({})).permits(permission),
            expected,
            "{role} {permission}"
        );
    }
}

/// What a room asks for: the permission to subscribe, the permission to publish.
type Entry = (Option<u8>, Option<u8>);

/// A policy as a list of facts; role n may inherit only roles before it, so there are no cycles.
#[derive(Debug, Clone)]
struct Facts {
    /// Per role: inherited roles, permissions, wildcard.
    roles: Vec<(BTreeSet<usize>, BTreeSet<u8>, bool)>,
    rooms: BTreeMap<&'static str, Entry>,
}

const PATTERNS: [&str; 6] = ["r1", "r2", "p.{c1}", "p.{c2}", "{c1}.{c2}", "p.1"];
const ROOMS: [&str; 9] = ["r1", "r2", "r3", "p.1", "p.2", "p.p", "1.2", "user.u1", "user.1"];

impl Facts {
    fn yaml(&self) -> String {
        let mut text = "version: 1\nroles:\n".to_owned();
        for (index, (inherits, permissions, everything)) in self.roles.iter().enumerate() {
            let inherits: Vec<String> = inherits.iter().map(|role| format!("role{role}")).collect();
            let mut permissions: Vec<String> = permissions.iter().map(|p| format!("p{p}")).collect();
            permissions.extend(everything.then(|| "\"*\"".to_owned()));
            text += &format!(
                "  role{index}: {{ inherits: [{}], permissions: [{}] }}\n",
                inherits.join(", "),
                permissions.join(", ")
            );
        }
        text += "  known: { permissions: [p0, p1, p2, p3] }\nrooms:\n";
        for (pattern, (subscribe, publish)) in &self.rooms {
            text += &format!("  - room: \"{pattern}\"\n");
            for (key, permission) in [("subscribe", subscribe), ("publish", publish)] {
                text += &permission.map_or_else(String::new, |p| format!("    {key}: p{p}\n"));
            }
        }
        if self.rooms.is_empty() {
            text + "  []\n"
        } else {
            text
        }
    }

    fn closure(&self, role: usize) -> BTreeSet<usize> {
        let mut all: BTreeSet<usize> = self.roles[role]
            .0
            .iter()
            .flat_map(|parent| self.closure(*parent))
            .collect();
        all.insert(role);
        all
    }

    fn may(&self, roles: &BTreeSet<usize>, permission: Option<u8>) -> bool {
        permission.is_some_and(|p| {
            roles
                .iter()
                .any(|role| self.roles[*role].2 || self.roles[*role].1.contains(&p))
        })
    }

    /// The rooms that a pattern opens, written out.
    fn rooms_of(pattern: &str, claims: &BTreeMap<&'static str, BTreeSet<&'static str>>) -> BTreeSet<String> {
        let mut rooms = BTreeSet::from([pattern.to_owned()]);
        for claim in ["c1", "c2"] {
            let hole = format!("{{{claim}}}");
            rooms = rooms
                .into_iter()
                .flat_map(|room| {
                    let values: Vec<&str> = if room.contains(&hole) {
                        claims.get(claim).into_iter().flatten().copied().collect()
                    } else {
                        vec![""]
                    };
                    values
                        .into_iter()
                        .map(|value| room.replace(&hole, value))
                        .collect::<Vec<_>>()
                })
                .collect();
        }
        rooms
    }
}

fn facts() -> impl Strategy<Value = Facts> {
    let role = (
        prop::collection::btree_set(0..4_usize, 0..3),
        prop::collection::btree_set(0..4_u8, 0..3),
        prop::bool::weighted(0.1),
    );
    let rooms = prop::collection::btree_map(
        prop::sample::select(&PATTERNS[..]),
        (prop::option::of(0..4_u8), prop::option::of(0..4_u8)),
        0..6,
    );
    (prop::collection::vec(role, 4), rooms).prop_map(|(mut roles, rooms)| {
        for (index, role) in roles.iter_mut().enumerate() {
            role.0.retain(|parent| *parent < index);
        }
        Facts { roles, rooms }
    })
}

proptest! {
    #[test]
    fn rights_are_those_of_the_plain_model(
        facts in facts(),
        held in prop::collection::btree_set(0..4_usize, 0..3),
        claims in prop::collection::btree_map(
            prop::sample::select(&["c1", "c2"][..]),
            prop::collection::btree_set(prop::sample::select(&["1", "2", "p", "user"][..]), 0..4),
            0..3,
        ),
    ) {
        let text = facts.yaml();
        let policy = Policy::parse(&text, "p").map_err(|e| TestCaseError::fail(format!("{e:?}\n{text}")))?;
        let roles: Vec<String> = held.iter().map(|role| format!("role{role}")).collect();
        let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
        let rights = policy.rights(&principal("u1", &roles, json!(claims)));
        let closure: BTreeSet<usize> = held.iter().flat_map(|role| facts.closure(*role)).collect();
        for role in 0..4 {
            let id = policy.audience(&format!("role{role}")).unwrap();
            prop_assert_eq!(rights.audiences().contains(id), closure.contains(&role));
        }
        for name in ROOMS {
            let open = |right: fn(&Entry) -> Option<u8>| {
                !name.starts_with("user.") && facts.rooms.iter().any(|(pattern, entry)| {
                    facts.may(&closure, right(entry)) && Facts::rooms_of(pattern, &claims).contains(name)
                })
            };
            let subscribe = open(|entry| entry.0) || name == "user.u1";
            prop_assert_eq!(rights.subscribe(&room(name)).is_ok(), subscribe, "subscribe {}", name);
            let publish = rights.publish(&room(name), &Audience::all()).is_ok();
            prop_assert_eq!(publish, open(|entry| entry.1), "publish {}", name);
        }
    }

    #[test]
    fn every_user_has_a_room_of_its_own(one in "[A-Za-z0-9_@:=. é-]{1,130}", other in "[A-Za-z0-9_@:=. é-]{1,130}") {
        let policy = Policy::parse(EXAMPLE, "p").unwrap();
        let mine = policy.rights(&principal(&one, &["super_admin"], json!({})));
        prop_assert!(mine.subscribe(&Room::personal(&one)).is_ok());
        prop_assert_eq!(mine.subscribe(&Room::personal(&other)).is_ok(), one == other);
    }

    #[test]
    fn any_claim_is_borne(text in "\\PC{0,40}", number in any::<f64>()) {
        let claims = json!({ "property_ids": [text, number, { "a": [text] }] });
        let rights = rights(&["super_admin"], claims);
        prop_assert!(rights.auto_join().iter().all(|room| rights.subscribe(room).is_ok()));
    }
}
