//! Policies as operators write them, good and broken.

use proptest::prelude::*;

use super::Policy;

/// The example of the contract, word for word.
pub(crate) const EXAMPLE: &str = r#"version: 1
role_aliases: { SUPER_ADMIN: super_admin }
roles:
  user:             { permissions: [notifications.view] }
  staff:            { inherits: [user], permissions: [dashboard.view] }
  property_owner:   { inherits: [user], permissions: [property.view] }
  property_manager: { inherits: [property_owner], permissions: [property.manage] }
  admin:            { inherits: [staff, property_manager], permissions: [financial.view, presence.view] }
  super_admin:      { inherits: [admin], permissions: ["*"] }
rooms:
  - { room: notifications,          subscribe: notifications.view, auto_join: true }
  - { room: os_dashboard,           subscribe: dashboard.view,     auto_join: true, presence: presence.view }
  - { room: financial_updates,      subscribe: financial.view }
  - room: property.{property_ids}   # a claim; a list claim opens one room per value
    subscribe: property.view
    publish: property.manage        # for services over HTTP and NATS
    client_publish: property.manage # for users over their socket
    redact: [{ unless: financial.view, remove: [/amount, /customer/email] }]   # pointers into data; events and state alike
commands:   [{ command: delivery.update, allow: delivery.manage }]
activity:   { room: activity, audience: admin }
publishers: [{ nats: main/erp, roles: [staff] }]   # a NATS user that is not listed may not publish
"#;

/// The mistakes of a policy as text, without the file's name.
fn mistakes(text: &str) -> Vec<String> {
    match Policy::parse(text, "p") {
        Ok(_) => Vec::new(),
        Err(list) => list
            .iter()
            .map(|mistake| mistake.to_string().replacen("p:", "", 1))
            .collect(),
    }
}

/// A policy with `roles` and `rooms` of one line each, the first mistake of which must be `expected`.
fn check(text: &str, expected: &[&str]) {
    let found = mistakes(text);
    assert_eq!(found, expected, "\n{text}\nfound:\n{}", found.join("\n"));
}

#[test]
fn the_example_has_no_mistakes() {
    check(EXAMPLE, &[]);
    let policy = Policy::parse(EXAMPLE, "policy.yaml").unwrap();
    let names: Vec<&str> = policy.audiences().collect();
    assert_eq!(
        names,
        [
            "all",
            "user",
            "staff",
            "property_owner",
            "property_manager",
            "admin",
            "super_admin"
        ]
    );
    assert_eq!(policy.audience("all").map(|id| id.index()), Some(0));
    assert_eq!(policy.audience("staff").map(|id| id.index()), Some(2));
    assert_eq!(policy.audience("SUPER_ADMIN"), None);
    assert_eq!(policy.audience("nobody"), None);
    assert_eq!(policy.activity().map(|to| to.room.as_str()), Some("activity"));
    assert_eq!(policy.publishers().count(), 1);
}

#[test]
fn every_mistake_has_its_place_and_its_words() {
    let good =
        "version: 1\nroles: { staff: { permissions: [a.view] } }\nrooms: [{ room: a, subscribe: a.view }]\n";
    check(good, &[]);
    // What stands behind the good text is added to it.
    let with = |more: &str| format!("{good}{more}");
    check(
        "",
        &["1:1: the policy is empty; it needs `version: 1`, `roles` and `rooms`"],
    );
    check(
        "   \n# nothing\n",
        &["3:1: the policy is empty; it needs `version: 1`, `roles` and `rooms`"],
    );
    check("version: 1\nroles:\n  a: [\n", &["3:6: unclosed bracket '['"]);
    check("- 1", &["1:1: expected the policy as a map, found a list"]);
    check("just text", &["1:1: expected the policy as a map, found text"]);
    check(
        "version: 1\nversion: 1\nroles: {a: }\nrooms: []",
        &["2:1: duplicate mapping key: version"],
    );
    check(
        "version: 2\nroles: {a: }\nrooms: []",
        &["1:10: expected version 1, the only one there is"],
    );
    check("roles: {a: }\nrooms: []", &["1:1: the policy needs `version`"]);
    check(
        "version: 1\nroles: {}\nrooms: []",
        &["2:8: a policy without roles lets nobody do anything"],
    );
    check(
        "version: 1\nroles:\nrooms:\n",
        &[
            "2:6: expected `roles` as a map, found nothing",
            "3:6: expected `rooms` as a list, found nothing",
        ],
    );
    check(
        &with("romos: []"),
        &["4:1: unknown key \"romos\" in the policy; did you mean \"rooms\"?"],
    );
    check(
        &with("commands: [{ command: x, alow: a.view }]"),
        &[
            "4:12: a command needs `allow`",
            "4:26: unknown key \"alow\" in a command; did you mean \"allow\"?",
        ],
    );
    check(
        &with(
            "commands: [{ command: x y, allow: a.view }, { command: z, allow: a.view }, { command: z, allow: a.view }]",
        ),
        &[
            "4:23: bad command name \"x y\": 1 to 128 printable characters without spaces, * or >, no empty part between dots",
            "4:87: the command \"z\" is listed twice",
        ],
    );
    check(
        &with("activity: { room: user.u1, audience: staff }"),
        &["4:19: activity cannot go to a personal room"],
    );
    check(&with("triggers: { room: a }"), &[]);
    check(
        &with("triggers: { room: user.u1 }"),
        &["4:19: a trigger for a role cannot go to a personal room"],
    );
    check(
        &with("activity: { room: a b, audience: staff }"),
        &["4:19: bad room \"a b\": tokens of 1 to 64 letters, digits, - or _ joined by dots"],
    );
    check(
        &with("activity: { room: act, audience: staf }"),
        &["4:34: unknown audience \"staf\": an audience is a role or `all`; did you mean \"staff\"?"],
    );
    check(
        &with("publishers: [{ nats: erp, roles: [staff] }]"),
        &["4:22: \"erp\" is not written <tenant>/<user>, such as main/erp"],
    );
    check(
        &with("publishers: [{ nats: GW/erp, roles: [staff] }]"),
        &["4:22: bad tenant \"GW\": GW, AGG, CORE, SYS and READER are names of our own accounts"],
    );
    check(
        &with("publishers: [{ nats: main/e.rp, roles: [staff] }]"),
        &["4:22: bad NATS user \"e.rp\": 1 to 64 letters, digits, - or _"],
    );
    check(
        &with("publishers: [{ nats: main/erp, roles: [stuff] }, { nats: main/erp, roles: [] }]"),
        &[
            "4:40: `publishers` names the role \"stuff\", which is not defined; did you mean \"staff\"?",
            "4:50: the publisher \"main/erp\" is listed twice",
        ],
    );
    check(
        &with("role_aliases: { STAFF: stafff, staff: staff }"),
        &[
            "4:24: `role_aliases` names the role \"stafff\", which is not defined; did you mean \"staff\"?",
            "4:32: \"staff\" is a role already and cannot be an alias",
        ],
    );
}

#[test]
fn roles_are_checked() {
    let with = |roles: &str| format!("version: 1\nroles:\n{roles}\nrooms: []\n");
    check(
        &with("  a: { inherit: [b] }\n  b: {}"),
        &["3:8: unknown key \"inherit\" in a role; did you mean \"inherits\"?"],
    );
    check(
        &with(
            "  a: { inherits: [b] }\n  b: { inherits: [c] }\n  c: { inherits: [a] }\n  d: { inherits: [a, d] }",
        ),
        &[
            "3:3: roles inherit each other in a circle: a → b → c → a",
            "6:3: roles inherit each other in a circle: d → d",
        ],
    );
    check(
        &with("  staff: {}\n  admin: { inherits: [stafff, xyzzy] }"),
        &[
            "4:23: `inherits` names the role \"stafff\", which is not defined; did you mean \"staff\"?",
            "4:31: `inherits` names the role \"xyzzy\", which is not defined",
        ],
    );
    check(
        &with("  all: {}\n  a b: {}\n  7: {}"),
        &[
            "3:3: `all` is the audience of everybody and cannot be a role",
            "4:3: bad role name \"a b\": a role is an audience, too: 1 to 64 letters, digits, - or _",
            "5:3: expected a role's name as text, found a number; put it in quotes if it is a name",
        ],
    );
    check(
        &with("  a: { permissions: [a.*, \"x y\", 7] }"),
        &[
            "3:22: bad permission \"a.*\": `\"*\"` alone is the only wildcard, and only a role can have it",
            "3:27: bad permission \"x y\": 1 to 64 letters, digits or _ . : -",
            "3:34: expected a permission as text, found a number; put it in quotes if it is a name",
        ],
    );
    check(
        &with("  a: { permissions: x }"),
        &["3:21: expected `permissions` as a list, found text"],
    );
    let many: String = (0..128).map(|n| format!("  r{n}: {{}}\n")).collect();
    check(&with(&many), &[" 128 roles are too many; at most 127"]);
}

#[test]
fn rooms_are_checked() {
    let with = |rooms: &str| {
        format!("version: 1\nroles:\n  a: {{ permissions: [bookings.view] }}\nrooms:\n{rooms}\n")
    };
    check(
        &with("  - { room: x, subscribe: booking.view }\n  - { room: y, subscribe: nothing.like.it }"),
        &[
            "5:27: no role grants the permission \"booking.view\"; did you mean \"bookings.view\"?",
            "6:27: no role grants the permission \"nothing.like.it\"",
        ],
    );
    check(
        &with("  - { room: x, auto_join: true }"),
        &["5:27: `auto_join` needs `subscribe`: nobody could join this room"],
    );
    check(
        &with("  - { room: x, subscribe: bookings.view, auto_join: yes }"),
        &["5:53: expected `auto_join` as true or false, found text"],
    );
    check(
        &with("  - { subscribe: bookings.view }"),
        &["5:5: a room needs `room`"],
    );
    check(
        &with("  - { room: \"x.{y\" }\n  - { room: x.* }\n  - { room: user.u1 }\n  - { room: \"{sub}\" }"),
        &[
            "5:13: bad room \"x.{y\": `{y`: a claim fills exactly one token, written {claim} between the dots",
            "6:13: bad room \"x.*\": `*`: rooms have no wildcards; {claim} opens one room per value of a claim",
            "7:13: bad room \"user.u1\": `user` is reserved for personal rooms, which belong to their user alone; `user.{user}` says who may publish to them",
            "8:13: bad room \"{sub}\": `sub` has a meaning of its own in every token and cannot stand in a room",
        ],
    );
    check(
        &with("  - { room: x }\n  - { room: y }\n  - { room: x }"),
        &["7:13: the room \"x\" has an entry on line 5 already"],
    );
    check(
        &with("  - { room: x, subscribe: \"*\" }"),
        &["5:27: bad permission \"*\": `\"*\"` alone is the only wildcard, and only a role can have it"],
    );
    check(
        &with("  - room: x\n    redact: [{ unless: bookings.view, remove: [amount, /a~2, /ok] }]"),
        &[
            "6:48: bad pointer \"amount\": a pointer begins with / and points into data, such as /customer/email",
            "6:56: bad pointer \"/a~2\": ~ must be written ~0 and / inside a name ~1",
        ],
    );
    check(
        &with("  - room: x\n    redact: [{ unless: bookings.view, remove: [] }, { remove: [/a] }]"),
        &["6:47: `remove` names nothing", "6:53: a redaction needs `unless`"],
    );
    check(
        &with("  - { room: \"user.{user}\", publish: bookings.view }"),
        &[],
    );
    check(
        &with("  - { room: \"user.{user}\", subscribe: bookings.view }"),
        &[
            "5:13: a personal room is read by its own user and nobody else; only `publish` and `client_publish` can be said here",
        ],
    );
    check(
        &with("  - x\n  - 5"),
        &[
            "5:5: expected a room as a map, found text",
            "6:5: expected a room as a map, found a number",
        ],
    );
}

/// With a role that has `"*"` a permission need not be named by another role; a slip of the pen is still found.
#[test]
fn a_wildcard_role_grants_what_no_other_names() {
    let with = |asked: &str| {
        format!(
            "version: 1\nroles:\n  a: {{ permissions: [bookings.view] }}\n  b: {{ permissions: [\"*\"] }}\n\
             rooms:\n  - {{ room: x, subscribe: {asked} }}\n"
        )
    };
    check(&with("reports.manage"), &[]);
    check(
        &with("booking.view"),
        &[
            "6:27: no role but one with \"*\" grants the permission \"booking.view\" (if it is meant, name it beside \"*\"); did you mean \"bookings.view\"?",
        ],
    );
}

#[test]
fn all_mistakes_come_at_once() {
    let text = EXAMPLE
        .replace(
            "inherits: [user], permissions: [dashboard.view]",
            "inherit: [user], permissions: [dashboard.view]",
        )
        .replace("audience: admin", "audience: adnim")
        .replace("/amount", "amount")
        .replace("subscribe: financial.view", "subcsribe: financial.view");
    check(
        &text,
        &[
            "5:23: unknown key \"inherit\" in a role; did you mean \"inherits\"?",
            "13:37: unknown key \"subcsribe\" in a room; did you mean \"subscribe\"?",
            "18:49: bad pointer \"amount\": a pointer begins with / and points into data, such as /customer/email",
            "20:41: unknown audience \"adnim\": an audience is a role or `all`; did you mean \"admin\"?",
        ],
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        let _ = Policy::parse(&text, "p");
    }

    #[test]
    fn no_change_of_the_example_makes_the_reader_panic(
        at in 0..EXAMPLE.len(), len in 0..40_usize, put in "[\\[\\]{}:,*&!|>'\"#\\-a-z\n ]{0,12}",
    ) {
        let mut text = EXAMPLE.to_owned();
        let end = (at + len).min(text.len());
        text.replace_range(at..end, &put);
        if let Err(mistakes) = Policy::parse(&text, "p") {
            prop_assert!(!mistakes.is_empty());
        }
    }
}

#[test]
fn a_room_may_say_how_long_its_events_wait_for_each_other() {
    use roomcast_proto::ids::{Room, Tenant};
    let policy = |rooms: &str| format!("version: 1\nroles: {{ a: {{ permissions: [x] }} }}\nrooms:\n{rooms}");
    let rule = ": the milliseconds that events of this room wait for each other while it is busy; 0: each leaves at once";
    for (value, found) in [
        ("21", "21"),
        ("-1", "-1"),
        ("70000", "70000"),
        ("1.5", "a number"),
        ("true", "true or false"),
        ("20ms", "text"),
        ("", "nothing"),
    ] {
        let text = policy(&format!("  - {{ room: r, subscribe: x, flush_ms: {value} }}\n"));
        let expected = format!("4:38: expected `flush_ms` from 0 to 20, found {found}{rule}");
        let mistakes = mistakes(&text);
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        // Nothing stands nowhere.
        assert_eq!(
            mistakes[0].split_once(' ').unwrap().1,
            expected.split_once(' ').unwrap().1
        );
    }
    let personal = policy("  - { room: 'user.{user}', publish: x, flush_ms: 5 }\n");
    assert_eq!(mistakes(&personal).len(), 1);

    let rooms = "  - { room: quick, subscribe: x, flush_ms: 0 }
  - { room: usual, subscribe: x }
  - { room: 'desk.{user}', subscribe: x, flush_ms: 7 }
  - { room: 'desk.{other}', subscribe: x, flush_ms: 5 }
  - { room: 'desk.u1', subscribe: x, flush_ms: 20 }
";
    let policy = Policy::parse(&policy(rooms), "p").unwrap();
    let mut claims = serde_json::Map::new();
    claims.insert("user".to_owned(), "u2".into());
    let rights = policy.rights(&crate::Principal {
        tenant: Tenant::default(),
        subject: "u1".into(),
        roles: vec!["a".to_owned()],
        claims,
        expires_at: i64::MAX,
        issued_at: None,
        token_id: None,
    });
    for (room, expected) in [
        ("quick", Some(0)),
        ("usual", None),
        // The same for everybody in the room, whoever may enter it by which entry.
        ("desk.u1", Some(5)),
        ("desk.u2", Some(5)),
        ("user.u1", None),
    ] {
        let permit = rights.subscribe(&Room::parse(room).unwrap()).unwrap();
        assert_eq!(permit.flush_millis(), expected, "{room}");
    }
}
