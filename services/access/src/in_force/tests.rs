//! What is decided again is what would be decided afresh, whatever changed in between.

use proptest::prelude::*;
use proptest::sample::subsequence;
use roomcast_proto::ids::{Room, Tenant};
use serde_json::{Map, json};

use super::*;
use crate::rights::why::Why;

const NOW: i64 = 1_000;
const ROLES: [&str; 4] = ["user", "staff", "owner", "admin"];
const PERMISSIONS: [&str; 3] = ["see", "work", "own"];
const ROOMS: [&str; 4] = ["hall", "desk", "flat.{ids}", "vault"];

/// A role: permissions, inherited roles. A room: what it asks for, whether it opens by itself, whether something is hidden in it.
type Role = (Vec<&'static str>, Vec<&'static str>);
type Entry = (usize, bool, bool);

fn policy_text(roles: &[(&'static str, Role)], rooms: &[(&'static str, Entry)]) -> String {
    let mut text = "version: 1\nrole_aliases: { BOSS: admin }\nroles:\n".to_owned();
    // Whoever grants everything else, so that nothing is asked for that nobody could have.
    text.push_str("  root: { permissions: [see, work, own, \"*\"] }\n  admin: {}\n");
    for (name, (permissions, inherits)) in roles.iter().filter(|(name, _)| *name != "admin") {
        text.push_str(&format!(
            "  {name}: {{ permissions: {permissions:?}, inherits: {inherits:?} }}\n"
        ));
    }
    text.push_str("rooms:\n");
    for (name, (asked, auto_join, hidden)) in rooms {
        let hide = match hidden {
            true => ", redact: [{ unless: own, remove: [/secret] }]",
            false => "",
        };
        text.push_str(&format!(
            "  - {{ room: \"{name}\", subscribe: {}, auto_join: {auto_join}{hide} }}\n",
            PERMISSIONS[asked % 3]
        ));
    }
    text
}

fn policies() -> impl Strategy<Value = String> {
    let role = (
        subsequence(PERMISSIONS.to_vec(), 0..=3),
        // Upwards only, so that there are no circles.
        subsequence(vec!["root", "admin"], 0..=1),
    );
    let roles = subsequence(ROLES.to_vec(), 1..=4)
        .prop_shuffle()
        .prop_flat_map(move |names| {
            let bodies = prop::collection::vec(role.clone(), names.len());
            bodies.prop_map(move |bodies| names.iter().copied().zip(bodies).collect::<Vec<_>>())
        });
    let rooms = subsequence(ROOMS.to_vec(), 1..=4)
        .prop_shuffle()
        .prop_flat_map(|names| {
            let bodies = prop::collection::vec((0..3_usize, any::<bool>(), any::<bool>()), names.len());
            bodies.prop_map(move |bodies| names.iter().copied().zip(bodies).collect::<Vec<_>>())
        });
    (roles, rooms).prop_map(|(roles, rooms)| policy_text(&roles, &rooms))
}

fn entries() -> impl Strategy<Value = Vec<(String, String)>> {
    let until = prop_oneof![
        Just("{}".to_owned()),
        Just(r#"{"until":999}"#.to_owned()),
        Just(r#"{"until":1001}"#.to_owned())
    ];
    let grant = (
        prop::sample::select(vec!["staff", "owner", "root", "gone"]),
        until,
    )
        .prop_map(|(role, value)| (format!("grant.main.u1.{role}"), value));
    let other = prop::sample::select(vec![
        ("user.main.u2", "{}"),
        ("user.main.u1", "{}"),
        ("token.main.j1", "{}"),
        ("before.main", r#"{"before":500}"#),
        ("before.main.u1", r#"{"before":501}"#),
    ])
    .prop_map(|(key, value)| (key.to_owned(), value.to_owned()));
    prop::collection::vec(prop_oneof![3 => grant, 1 => other], 0..4)
}

fn principals() -> impl Strategy<Value = Principal> {
    let roles = subsequence(vec!["user", "staff", "owner", "BOSS", "root", "nobody"], 0..=3);
    let ids = subsequence(vec!["1", "2", "3"], 0..=2);
    (
        roles,
        ids,
        prop::option::of(499..502_i64),
        prop::option::of(Just("j1".to_owned())),
    )
        .prop_map(|(roles, ids, issued_at, token_id)| {
            let mut claims = Map::new();
            claims.insert("ids".to_owned(), json!(ids));
            Principal {
                tenant: Tenant::default(),
                subject: "u1".into(),
                roles: roles.into_iter().map(str::to_owned).collect(),
                claims,
                expires_at: 2_000,
                issued_at,
                token_id,
            }
        })
}

fn in_force(text: &str, entries: &[(String, String)], generation: u64, before: Option<&Policy>) -> InForce {
    let mut acl = Acl::default();
    for (key, value) in entries {
        acl.put(key, value.as_bytes()).unwrap();
    }
    InForce {
        policy: Policy::parse_after(text, "p", before)
            .unwrap_or_else(|mistakes| panic!("{mistakes:?}\n{text}")),
        acl: Arc::new(acl),
        generation,
    }
}

/// Everything that rights say, by names alone: numbers differ between processes.
fn told(decided: &Decided, policy: &Policy) -> Vec<String> {
    let rights = &decided.rights;
    let mut lines = vec![format!("{:?}", decided.roles)];
    for name in [
        "hall", "desk", "flat.1", "flat.2", "vault", "user.u1", "user.u2", "other",
    ] {
        let room = Room::parse(name).unwrap();
        let seen = rights.subscribe(&room).map(|permit| {
            let audiences = policy
                .audiences()
                .filter(|name| {
                    policy
                        .audience(name)
                        .is_some_and(|id| permit.audiences().contains(id))
                })
                .collect::<Vec<_>>();
            (
                audiences.join(","),
                format!("{:?}", permit.redaction()),
                permit.history(),
            )
        });
        lines.push(format!("{name}: {seen:?} {:?}", rights.history(&room).is_ok()));
    }
    lines.push(format!("{:?}", rights.auto_join()));
    lines
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn deciding_again_is_deciding_afresh(
        texts in (policies(), policies()),
        same in any::<bool>(),
        acls in (entries(), entries()),
        who in principals(),
    ) {
        let old = in_force(&texts.0, &acls.0, 1, None);
        let mut new = in_force(&texts.1, &acls.1, 2, Some(&old.policy));
        if same {
            new.policy = old.policy.clone();
        }
        // The process that starts now knows nothing of the old policy.
        let text = if same { &texts.0 } else { &texts.1 };
        let afresh = in_force(text, &acls.1, 1, None);
        let expected = afresh.decide(&who, NOW).map(|decided| told(&decided, &afresh.policy)).map_err(|Revoked(cause)| cause);
        if let Ok(before) = old.decide(&who, NOW) {
            let again = new.again(&who, &before, NOW).map(|again| match again {
                Again::Same => before.clone(),
                Again::Changed(decided) => decided,
            });
            let again = again.map(|decided| told(&decided, &new.policy)).map_err(|Revoked(cause)| cause);
            prop_assert_eq!(&again, &expected);
        }
        let decided = new.decide(&who, NOW).map(|decided| told(&decided, &new.policy)).map_err(|Revoked(cause)| cause);
        prop_assert_eq!(decided, expected);
    }

    /// What operators are told is what was decided: why a room is open or closed, all rooms that are open, all roles of an audience.
    #[test]
    fn what_operators_are_told_is_what_was_decided(text in policies(), acl in entries(), who in principals()) {
        let in_force = in_force(&text, &acl, 1, None);
        let Ok(decided) = in_force.decide(&who, NOW) else { return Ok(()) };
        let (open, left_off) = decided.rights.rooms();
        prop_assert_eq!(left_off, 0);
        for name in ["hall", "desk", "flat.1", "flat.2", "flat.3", "flat.4", "vault", "user.u1", "user.u2", "other"] {
            let room = Room::parse(name).unwrap();
            let (why, may) = (decided.rights.why(&room), decided.rights.subscribe(&room).is_ok());
            prop_assert_eq!(why.is_open(), may, "{}: {:?}\n{}", name, why, text);
            prop_assert_eq!(open.contains(&room), may && name != "user.u1", "{}", name);
            // Whoever is told what is missing has it with that permission.
            if let Why::Permission { lacks } = &why {
                for lacking in lacks {
                    let more = format!("  more: {{ permissions: [{lacking}] }}\nrooms:\n");
                    let more = Policy::parse(&text.replace("rooms:\n", &more), "p").unwrap();
                    let mut richer = who.clone();
                    richer.roles.push("more".to_owned());
                    let granted = in_force.acl.granted(&who, NOW);
                    let why = more.rights_with(&richer, granted).why(&room);
                    prop_assert!(!matches!(why, Why::Permission { .. } | Why::Nobody), "{}: {:?}", name, why);
                }
            }
        }
        for audience in in_force.policy.audiences() {
            let belongs = decided.rights.audiences().contains(in_force.policy.audience(audience).unwrap());
            let roles = in_force.policy.roles_of_audience(audience);
            let by_role = decided.roles.iter().any(|role| roles.contains(&role.as_str()));
            prop_assert_eq!(belongs, by_role || audience == "all", "{} {:?}\n{}", audience, roles, text);
        }
    }

    /// An event that was given its number under one policy means the same audience under the next.
    #[test]
    fn audiences_keep_their_numbers(texts in prop::collection::vec(policies(), 2..5)) {
        let mut known = std::collections::HashMap::new();
        let mut before: Option<Policy> = None;
        for text in &texts {
            let policy = Policy::parse_after(text, "p", before.as_ref()).unwrap();
            for name in policy.audiences() {
                let id = policy.audience(name).unwrap();
                prop_assert_eq!(*known.entry(name.to_owned()).or_insert(id), id);
            }
            let distinct: std::collections::HashSet<_> = known.values().collect();
            prop_assert_eq!(distinct.len(), known.len());
            before = Some(policy);
        }
    }
}

#[test]
fn numbers_run_out_and_that_is_a_mistake() {
    let with = |from: usize| {
        let roles: String = (from..from + 100)
            .map(|n| format!("  r{n}: {{ permissions: [see] }}\n"))
            .collect();
        format!("version: 1\nroles:\n{roles}rooms: [{{ room: hall, subscribe: see }}]\n")
    };
    let first = Policy::parse(&with(0), "p").unwrap();
    assert!(Policy::parse_after(&with(27), "p", Some(&first)).is_ok());
    let mistakes = Policy::parse_after(&with(28), "p", Some(&first)).unwrap_err();
    assert_eq!(
        mistakes[0].to_string(),
        "p: more than 127 different role names since this process started; restart it to take this policy"
    );
}
