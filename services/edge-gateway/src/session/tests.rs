mod properties;

use std::collections::BTreeMap;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use roomcast_access::{Acl, InForce, KeySet, Policy, TokenRules, Verifier};
use roomcast_rights::Current;
use serde_json::{Value, json};

use super::*;
use crate::asking::What;
use crate::gate::NotAdmitted;

const NOW: Now = Now {
    millis: 5_000,
    unix_millis: 1_800_000_000_000,
};
const LIMITS: Limits = Limits {
    cursors: Cursors::plain(),
    ping_every: limits::PING_EVERY,
    subscriptions_max: 3,
    rooms_max: 128,
    message_bytes_max: 65_536,
    activity: Rate {
        per_second: 1,
        burst: 5,
    },
    requests: Rate {
        per_second: 20,
        burst: 60,
    },
};
const POLICY: &str = "
version: 1
roles:
  user:  { permissions: [see] }
  staff: { inherits: [user], permissions: [work] }
rooms:
  - { room: hall,  presence: work, subscribe: see, auto_join: true }
  - { room: desk,  client_publish: work, subscribe: work }
commands: [{ command: a.b, allow: work }]
activity: { room: hall, audience: staff }
";

/// Signs tokens and checks them.
struct Issuer {
    gate: Gate,
    verifier: Verifier,
    key: Ed25519KeyPair,
}

impl Issuer {
    fn new() -> Self {
        roomcast_chassis::process::install_crypto();
        let key = Ed25519KeyPair::generate().unwrap();
        let x = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
        let jwks = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x }] }).to_string();
        let rules = TokenRules {
            issuer: "i".into(),
            audience: "roomcast".into(),
        };
        let verifier = Verifier::new(rules, KeySet::from_jwks(&jwks).unwrap());
        Self {
            gate: Gate::new(
                verifier.clone(),
                Current::fixed(Policy::parse(POLICY, "policy.yaml").unwrap()),
            ),
            verifier,
            key,
        }
    }

    /// A token for `seconds` from [`NOW`].
    fn token(&self, user: &str, role: &str, seconds: i64) -> String {
        let claims = json!({ "iss": "i", "aud": "roomcast", "sub": user, "roles": [role], "exp": NOW.unix_secs() + seconds });
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(json!({ "alg": "EdDSA", "kid": "k" })), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()).as_ref());
        format!("{signed}.{signature}")
    }

    /// The same keys under something else in force.
    fn under(&self, in_force: InForce) -> Gate {
        Gate::new(self.verifier.clone(), Current::of(in_force))
    }

    fn accept(&self, first: &Value) -> Result<(Session, Opening), Failed> {
        Handshake::default().accept(
            ClientFrame::from_json(&first.to_string()),
            &self.gate,
            LIMITS,
            NOW,
        )
    }

    fn session(&self, role: &str, seconds: i64) -> (Session, Opening) {
        let token = self.token("u1", role, seconds);
        self.accept(&json!({ "id": 1, "connect": { "token": token, "client": "t" } }))
            .unwrap()
    }

    /// What a message makes a session wish, in short words.
    fn say(&self, session: &mut Session, now: Now, message: &Value) -> Vec<String> {
        let mut wishes = Vec::new();
        session.message(
            ClientFrame::from_json(&message.to_string()),
            &self.gate,
            now,
            &mut wishes,
        );
        wishes.iter().map(short).collect()
    }
}

fn short(wish: &Wish) -> String {
    match wish {
        Wish::Say(frame) => {
            let json: Value = serde_json::from_str(&frame.to_json()).unwrap();
            match json["error"]["code"].as_str() {
                Some(code) => format!("refuse {code}"),
                None => format!(
                    "say {}",
                    json.as_object().unwrap().keys().find(|key| *key != "id").unwrap()
                ),
            }
        }
        Wish::Met(limit) => format!("met {}", limit.as_str()),
        Wish::Open(opening) => format!("open {}", names(opening).join(",")),
        Wish::Leave(room) => format!("leave {room}"),
        Wish::Evict(room) => format!("evict {room}"),
        Wish::Exchange(permits) => {
            let rooms: Vec<&str> = permits.iter().map(|permit| permit.room().as_str()).collect();
            format!("exchange {}", rooms.join(","))
        }
        Wish::Tell(frame) => {
            let json: Value = serde_json::from_str(&frame.to_json()).unwrap();
            format!("tell {}", json.as_object().unwrap().keys().next().unwrap())
        }
        Wish::Read(reading) => format!("read {} {}", reading.permit.room(), reading.limit),
        Wish::Ask(ask) => match &ask.what {
            What::Command(order) => {
                format!("command {} {} ms", order.permit.name(), order.timeout.as_millis())
            }
            What::Publish(post) => format!("publish {} {}", post.room, post.audience),
            What::Feed(request) => {
                let rooms: Vec<_> = request
                    .permits
                    .iter()
                    .map(|permit| permit.room().as_str())
                    .collect();
                format!("feed {}", rooms.join(" "))
            }
            What::Activity(post) => format!("activity {} {}", post.room, post.audience),
            What::Preferences(set) => format!("preferences {}", json!(set)),
        },
        Wish::Presence(_, room) => format!("presence {room}"),
        Wish::Watch(room) => format!("watch {room}"),
        Wish::Listen => "listen".to_owned(),
        Wish::Count(what, code) => format!("count {what} {code}"),
        Wish::Forbade(what) => format!("forbade {what}"),
        Wish::End(close) => format!("end {}", close.code()),
    }
}

fn names(opening: &Opening) -> Vec<String> {
    let word = |asked: &Asked| {
        if asked.permit.is_ok() {
            asked.name.clone()
        } else {
            format!("!{}", asked.name)
        }
    };
    opening.rooms.iter().map(word).collect()
}

/// What the shard does when a room was opened.
fn opened(session: &mut Session, room: &str, requested: bool) {
    let room = Room::parse(room).unwrap();
    session.rooms.push(OpenRoom {
        room,
        seat: Seat::NONE,
        requested,
        present: false,
        watched: false,
        behind: None,
    });
}

#[test]
fn connect_opens_what_was_asked_for_what_the_policy_joins_and_the_users_own() {
    let issuer = Issuer::new();
    let token = issuer.token("u1", "staff", 60);
    let rooms = json!([{ "room": "desk" }, { "room": "desk" }, { "room": "absent", "cursor": "x" }]);
    let (_, opening) = issuer
        .accept(&json!({ "id": 9, "connect": { "token": token, "client": "t", "rooms": rooms } }))
        .unwrap();
    assert_eq!((opening.id, opening.kind), (Some(9), Kind::Connected));
    assert_eq!(names(&opening), ["desk", "!absent", "hall", "user.u1"]);
    assert_eq!(opening.rooms[1].from, From::Unreadable);
    assert_eq!(
        opening
            .rooms
            .iter()
            .map(|asked| asked.requested)
            .collect::<Vec<_>>(),
        [true, true, false, false]
    );
}

#[test]
fn the_first_message_is_connect_with_a_good_token() {
    let issuer = Issuer::new();
    let good = issuer.token("u1", "staff", 60);
    let old = issuer.token("u1", "staff", -60);
    let many: Vec<Value> = (0..4).map(|n| json!({ "room": format!("r{n}") })).collect();
    let rows = [
        (json!({ "pong": {} }), Close::Protocol, Code::BadFrame),
        (
            json!({ "id": 1, "fly": {} }),
            Close::Protocol,
            Code::UnknownMessage,
        ),
        (
            json!({ "id": 1, "connect": { "client": "t" } }),
            Close::BadToken,
            Code::Unauthenticated,
        ),
        (
            json!({ "id": 1, "connect": { "token": "", "client": "t" } }),
            Close::BadToken,
            Code::Unauthenticated,
        ),
        (
            json!({ "id": 1, "connect": { "token": old, "client": "t" } }),
            Close::Expired,
            Code::Expired,
        ),
        (
            json!({ "id": 1, "connect": { "token": good, "client": "t", "rooms": many } }),
            Close::Limit,
            Code::Limit,
        ),
    ];
    for (first, close, code) in rows {
        let failed = issuer.accept(&first).unwrap_err();
        assert_eq!((failed.close, failed.refusal.code), (close, code), "{first}");
    }
    let admitted = issuer.gate.admit(&good, NOW.unix_secs()).ok();
    let frame = ClientFrame::from_json(&json!({ "id": 1, "connect": { "client": "t" } }).to_string());
    assert!(
        Handshake { admitted }
            .accept(frame, &issuer.gate, LIMITS, NOW)
            .is_ok(),
        "the token came with the upgrade"
    );
}

#[test]
fn messages_become_wishes() {
    let issuer = Issuer::new();
    let (mut session, _) = issuer.session("user", 60);
    opened(&mut session, "hall", false);
    let rows: [(Value, &[&str]); 23] = [
        (
            json!({ "id": 1, "subscribe": { "room": "hall" } }),
            &["open hall"],
        ),
        (
            json!({ "id": 1, "subscribe": { "room": "user.u1" } }),
            &["open user.u1"],
        ),
        (
            json!({ "id": 1, "subscribe": { "room": "user.u2" } }),
            &["forbade subscribe", "refuse forbidden"],
        ),
        (
            json!({ "id": 1, "subscribe": { "room": "desk" } }),
            &["forbade subscribe", "refuse forbidden"],
        ),
        (
            json!({ "id": 1, "subscribe": { "room": "a b" } }),
            &["forbade subscribe", "refuse forbidden"],
        ),
        (json!({ "subscribe": { "room": "desk" } }), &["forbade subscribe"]),
        (
            json!({ "id": 1, "unsubscribe": { "room": "hall" } }),
            &["leave hall", "say unsubscribed"],
        ),
        (
            json!({ "id": 1, "unsubscribe": { "room": "desk" } }),
            &["say unsubscribed"],
        ),
        (
            json!({ "id": 1, "history": { "room": "hall" } }),
            &["read hall 50"],
        ),
        (
            json!({ "id": 1, "history": { "room": "hall", "limit": 9999 } }),
            &["read hall 300"],
        ),
        (
            json!({ "id": 1, "history": { "room": "hall", "before": "x" } }),
            &["refuse bad_request"],
        ),
        (
            json!({ "id": 1, "history": { "room": "desk" } }),
            &["forbade history", "refuse forbidden"],
        ),
        (json!({ "pong": {} }), &[]),
        (json!({ "id": 1, "feed": { "limit": 1 } }), &["feed hall user.u1"]),
        (
            json!({ "id": 1, "preferences": { "set": { "sounds": false } } }),
            &[r#"preferences {"sounds":false}"#],
        ),
        (json!({ "id": 1, "preferences": {} }), &["preferences null"]),
        (
            json!({ "id": 1, "preferences": { "set": 7 } }),
            &["count preferences bad_request", "refuse bad_request"],
        ),
        (json!({ "id": 1, "counters": { "version": 3 } }), &["listen"]),
        // The first that is known is the answer of the one that waits.
        (json!({ "id": 2, "counters": {} }), &["refuse rate"]),
        (json!({ "counters": {} }), &["listen"]),
        (json!({ "id": 1, "fly": {} }), &["refuse unknown_message"]),
        (json!({ "id": 1, "subscribe": 7 }), &["refuse bad_frame"]),
        (json!([]), &["refuse bad_frame", "end 4503"]),
    ];
    for (message, expected) in rows {
        assert_eq!(issuer.say(&mut session, NOW, &message), expected, "{message}");
    }
    assert_eq!(
        issuer.say(&mut session, NOW, &json!({ "id": 1, "connect": {} })),
        ["refuse bad_frame", "end 4503"]
    );
}

#[test]
fn limits_on_rooms_and_requests_hold() {
    let issuer = Issuer::new();
    let (mut session, _) = issuer.session("staff", 60);
    for room in ["a", "b", "c"] {
        opened(&mut session, room, true);
    }
    opened(&mut session, "hall", false);
    assert_eq!(
        issuer.say(
            &mut session,
            NOW,
            &json!({ "id": 1, "subscribe": { "room": "desk" } })
        ),
        ["refuse limit", "met subscriptions"]
    );
    opened(&mut session, "desk", true);
    session.close(0);
    let again = issuer.say(
        &mut session,
        NOW,
        &json!({ "id": 1, "subscribe": { "room": "desk" } }),
    );
    assert_eq!(again, ["open desk"], "a room that is open is not counted twice");
    let said = (0..100).map(|_| issuer.say(&mut session, NOW, &json!({ "pong": {} })));
    assert_eq!(
        said.filter(|wishes| wishes == &["met requests", "end 4006"])
            .count(),
        100 - 57,
        "60 less connect and two subscribes"
    );
    let later = Now {
        millis: NOW.millis + 1_000,
        ..NOW
    };
    assert_eq!(
        issuer.say(&mut session, later, &json!({ "pong": {} })),
        Vec::<String>::new()
    );
}

#[test]
fn a_token_warns_a_minute_before_its_end_and_ends_with_its_leeway() {
    let issuer = Issuer::new();
    let (mut session, _) = issuer.session("staff", 100);
    let mut at = |secs: i64| {
        let mut wishes = Vec::new();
        session.passes(
            Now {
                unix_millis: NOW.unix_millis + secs * 1000,
                ..NOW
            },
            &mut wishes,
        );
        (
            wishes.iter().map(short).collect::<Vec<_>>(),
            session.next_at() - NOW.unix_secs(),
        )
    };
    assert_eq!(at(39), (vec![], 40));
    assert_eq!(at(40), (vec!["say expiring".to_owned()], 130));
    assert_eq!(at(41), (vec![], 130));
    assert_eq!(at(129), (vec![], 130));
    assert_eq!(at(130).0, ["end 4003"]);
}

#[test]
fn a_refresh_decides_everything_again_and_only_for_the_same_user() {
    let issuer = Issuer::new();
    let (mut session, mut opening) = issuer.session("staff", 60);
    opened(&mut session, "desk", true);
    let refresh = |token: String| json!({ "id": 1, "refresh": { "token": token } });
    for (token, answer) in [
        ("nonsense".to_owned(), "refuse unauthenticated"),
        (issuer.token("u1", "staff", -60), "refuse expired"),
        (issuer.token("u2", "staff", 60), "refuse forbidden"),
    ] {
        assert_eq!(issuer.say(&mut session, NOW, &refresh(token)), [answer]);
    }
    let less = issuer.say(&mut session, NOW, &refresh(issuer.token("u1", "user", 600)));
    assert_eq!(
        less,
        [
            "say refreshed",
            "evict desk",
            "tell unsubscribed",
            "open hall,user.u1"
        ]
    );
    assert_eq!(session.ends_at(), NOW.unix_secs() + 630);
    // What waited for the hub meanwhile is decided under the new rights.
    opening.rooms.push(asked(
        "desk",
        From::Fresh,
        &issuer
            .gate
            .admit(&issuer.token("u1", "staff", 60), NOW.unix_secs())
            .unwrap()
            .rights,
        true,
    ));
    assert_eq!(names(&opening), ["hall", "user.u1", "desk"]);
    session.decide_opening(&mut opening);
    assert_eq!(names(&opening), ["hall", "user.u1", "!desk"]);
}

/// What is in force, as one generation after another.
fn in_force(policy: &str, entries: &[(&str, &str)], generation: u64, before: Option<&Policy>) -> InForce {
    let mut acl = Acl::default();
    for (key, value) in entries {
        acl.put(key, value.as_bytes()).unwrap();
    }
    InForce {
        policy: Policy::parse_after(policy, "policy.yaml", before).unwrap(),
        acl: Arc::new(acl),
        generation,
    }
}

#[test]
fn a_change_of_rights_closes_opens_and_tells() {
    let issuer = Issuer::new();
    let gate_policy = issuer.gate.rights().now().policy.clone();
    #[track_caller]
    fn check(session: &mut Session, now: &InForce, verdict: Verdict, expected: &[&str]) {
        let mut wishes = Vec::new();
        assert_eq!(session.rights_changed(now, NOW, &mut wishes), verdict);
        assert_eq!(wishes.iter().map(short).collect::<Vec<_>>(), expected);
        assert_eq!(
            session.rights_generation() == now.generation,
            verdict != Verdict::Revoked
        );
    }
    let (mut session, _) = issuer.session("user", 60);
    opened(&mut session, "hall", false);
    opened(&mut session, "user.u1", false);
    let at = |generation, entries: &[(&str, &str)]| InForce {
        policy: gate_policy.clone(),
        ..in_force(POLICY, entries, generation, None)
    };
    // Somebody else's, or nothing the policy knows.
    let others = [("user.main.u2", "{}"), ("grant.main.u1.unknown", "{}")];
    check(&mut session, &at(2, &others), Verdict::Same, &[]);
    let granted = [("grant.main.u1.staff", "{}")];
    check(
        &mut session,
        &at(3, &granted),
        Verdict::Changed,
        &["tell roles", "exchange hall,user.u1"],
    );
    opened(&mut session, "desk", true);
    check(
        &mut session,
        &at(4, &[]),
        Verdict::Changed,
        &[
            "tell roles",
            "evict desk",
            "tell unsubscribed",
            "exchange hall,user.u1",
        ],
    );
    session.rooms.retain(|open| open.room.as_str() != "desk");
    let other = POLICY.replace("hall", "lobby").replace("desk", "hall");
    check(
        &mut session,
        &in_force(&other, &[], 5, Some(&gate_policy)),
        Verdict::Changed,
        &[
            "evict hall",
            "tell unsubscribed",
            "exchange user.u1",
            "open lobby",
        ],
    );
    let revoked = [("user.main.u1", "{}")];
    check(&mut session, &at(6, &revoked), Verdict::Revoked, &["end 4501"]);
}

#[test]
fn a_revoked_token_opens_nothing_whichever_way_it_comes() {
    let issuer = Issuer::new();
    let token = issuer.token("u1", "staff", 60);
    let admitted = issuer.gate.admit(&token, NOW.unix_secs()).unwrap();
    let policy = Policy::parse(POLICY, "policy.yaml").unwrap();
    let revoked = in_force(POLICY, &[("user.main.u1", "{}")], 9, Some(&policy));
    assert!(admitted.clone().decide_again(&revoked, NOW.unix_secs()).is_err());
    let refused = NotAdmitted::from(revoked.decide(&admitted.principal, NOW.unix_secs()).unwrap_err());
    // The words are those for a token that never was one.
    assert_eq!(gate::refusal(refused), gate::no_token());
    assert_eq!(refused.close(), Close::Revoked);
    assert_eq!(refused.reason(), "revoked_user");
}

/// Rooms and permits of a client, as the shard keeps them.
fn carry_out(open: &mut BTreeMap<String, Subscribe>, wishes: Vec<Wish>) {
    for wish in wishes {
        match wish {
            Wish::Evict(room) => drop(open.remove(room.as_str())),
            Wish::Exchange(permits) => {
                for permit in permits {
                    let held = open.get_mut(permit.room().as_str()).expect("open");
                    *held = (*permit).clone();
                }
            }
            Wish::Open(opening) => {
                for asked in opening.rooms {
                    if let Ok(permit) = asked.permit {
                        open.insert(asked.name, (*permit).clone());
                    }
                }
            }
            _ => {}
        }
    }
}

/// From any policy to any other one: what is open afterwards is what a new connection that asks for the same would have open, under
/// the same permits.
#[test]
fn after_a_change_everything_is_as_if_the_client_had_just_come() {
    let issuer = Issuer::new();
    let hidden = "subscribe: see, auto_join: true, redact: [{ unless: work, remove: [/price] }] }";
    let policies = [
        POLICY.to_owned(),
        POLICY.replace("subscribe: see, auto_join: true }", hidden),
        POLICY.replace("inherits: [user], permissions: [work]", "permissions: [work]"),
        POLICY.replace("subscribe: work }", "subscribe: see, auto_join: true }"),
        POLICY.replace(
            "user:  { permissions: [see] }",
            "user:  { permissions: [see, work] }",
        ),
        POLICY.replace("hall", "lobby"),
    ];
    let entries: [&[(&str, &str)]; 4] = [
        &[],
        &[("grant.main.u1.staff", "{}")],
        &[("grant.main.u1.user", "{}"), ("user.main.u2", "{}")],
        &[("user.main.u1", "{}")],
    ];
    let names = ["hall", "desk", "lobby", "user.u1"];
    let mut changes = 0;
    for role in ["user", "staff", "nobody"] {
        let token = issuer.token("u1", role, 60);
        let fresh = issuer.gate.admit(&token, NOW.unix_secs()).unwrap();
        for (old, old_entries) in policies
            .iter()
            .flat_map(|old| entries.map(|entries| (old, entries)))
        {
            let before = in_force(old, old_entries, 2, None);
            let mut admitted = fresh.clone();
            if admitted.decide_again(&before, NOW.unix_secs()).is_err() {
                continue;
            }
            for (new, new_entries) in policies
                .iter()
                .flat_map(|new| entries.map(|entries| (new, entries)))
            {
                let handshake = Handshake {
                    admitted: Some(admitted.clone()),
                };
                let rooms: Vec<Value> = names.iter().map(|room| json!({ "room": room })).collect();
                let connect = json!({ "id": 1, "connect": { "client": "t", "rooms": rooms } });
                let limits = Limits {
                    subscriptions_max: 9,
                    ..LIMITS
                };
                let frame = ClientFrame::from_json(&connect.to_string());
                let gate = issuer.under(before.clone());
                let (mut session, opening) = handshake.accept(frame, &gate, limits, NOW).unwrap();
                let mut open = BTreeMap::new();
                carry_out(&mut open, vec![Wish::Open(opening)]);
                for room in open.keys() {
                    opened(&mut session, room, true);
                }
                let after = in_force(new, new_entries, 3, Some(&before.policy));
                let mut wishes = Vec::new();
                let verdict = session.rights_changed(&after, NOW, &mut wishes);
                let afresh = after.decide(&admitted.principal, NOW.unix_secs());
                changes += 1;
                let Ok(afresh) = afresh else {
                    assert_eq!(verdict, Verdict::Revoked);
                    continue;
                };
                carry_out(&mut open, wishes);
                for name in names {
                    let room = Room::parse(name).unwrap();
                    let expected = afresh.rights.subscribe(&room).ok();
                    let joins = afresh.rights.auto_join().contains(&room) || room.is_personal();
                    match open.get(name) {
                        Some(held) => assert_eq!(Some(held), expected.as_ref(), "{role} {old} {new} {name}"),
                        // Not asked for again by itself, unless the policy joins it.
                        None => assert!(!(joins && expected.is_some()), "{role} {old} {new} {name}"),
                    }
                }
            }
        }
    }
    assert!(changes > 1_000, "{changes}");
}

#[test]
fn commands_publishes_and_activity_are_decided_before_anybody_is_asked() {
    let issuer = Issuer::new();
    let long = "k".repeat(129);
    let rows = [
        (
            "staff",
            json!({ "command": { "name": "a.b", "key": "k" } }),
            vec!["command a.b 10000 ms"],
        ),
        (
            "staff",
            json!({ "command": { "name": "a.b", "key": "k", "timeoutMs": 5 } }),
            vec!["command a.b 5 ms"],
        ),
        (
            "staff",
            json!({ "command": { "name": "a.b", "key": "k", "timeoutMs": 3_600_000 } }),
            vec!["command a.b 30000 ms"],
        ),
        (
            "staff",
            json!({ "command": { "name": "a.b", "key": "" } }),
            vec!["count command bad_request", "refuse bad_request"],
        ),
        (
            "staff",
            json!({ "command": { "name": "a.b", "key": long } }),
            vec!["count command bad_request", "refuse bad_request"],
        ),
        (
            "staff",
            json!({ "command": { "name": "a.c", "key": "k" } }),
            vec!["count command forbidden", "forbade command", "refuse forbidden"],
        ),
        (
            "user",
            json!({ "command": { "name": "a.b", "key": "k" } }),
            vec!["count command forbidden", "forbade command", "refuse forbidden"],
        ),
        (
            "staff",
            json!({ "publish": { "room": "desk", "type": "t", "data": 1 } }),
            vec!["publish desk all"],
        ),
        (
            "user",
            json!({ "publish": { "room": "desk", "type": "t", "data": 1 } }),
            vec!["count publish forbidden", "forbade publish", "refuse forbidden"],
        ),
        (
            "staff",
            json!({ "publish": { "room": "hall", "type": "t", "data": 1 } }),
            vec!["count publish forbidden", "forbade publish", "refuse forbidden"],
        ),
        (
            "staff",
            json!({ "publish": { "room": "user.u1", "type": "t", "data": 1 } }),
            vec!["count publish forbidden", "forbade publish", "refuse forbidden"],
        ),
        (
            "staff",
            json!({ "publish": { "room": "a b", "type": "t", "data": 1 } }),
            vec!["count publish forbidden", "forbade publish", "refuse forbidden"],
        ),
        (
            "staff",
            json!({ "publish": { "room": "desk", "type": "user.activity", "data": 1 } }),
            vec!["count publish forbidden", "forbade publish", "refuse forbidden"],
        ),
        (
            "user",
            json!({ "activity": { "kind": "page", "detail": "x" } }),
            vec!["activity hall staff"],
        ),
        (
            "staff",
            json!({ "presence": { "room": "hall" } }),
            vec!["presence hall"],
        ),
        (
            "staff",
            json!({ "subscribe": { "room": "hall", "presence": true } }),
            vec!["open hall", "watch hall"],
        ),
        (
            "user",
            json!({ "subscribe": { "room": "hall", "presence": true } }),
            vec!["open hall"],
        ),
        (
            "user",
            json!({ "presence": { "room": "hall" } }),
            vec!["forbade presence", "refuse forbidden"],
        ),
        (
            "staff",
            json!({ "presence": { "room": "desk" } }),
            vec!["forbade presence", "refuse forbidden"],
        ),
        (
            "user",
            json!({ "feed": { "limit": 5 } }),
            vec!["feed hall user.u1"],
        ),
        (
            "user",
            json!({ "mark": { "ids": ["a"], "as": "read" } }),
            vec!["feed hall user.u1"],
        ),
        (
            "user",
            json!({ "mark": { "ids": ["a"], "as": "unread" } }),
            vec!["count mark bad_request", "refuse bad_request"],
        ),
        (
            "user",
            json!({ "feed": { "filter": { "colour": 1 } } }),
            vec!["count feed bad_request", "refuse bad_request"],
        ),
        (
            "user",
            json!({ "feed": { "before": "garbage" } }),
            vec!["count feed bad_request", "refuse bad_request"],
        ),
        (
            "user",
            json!({ "activity": { "kind": "", "detail": "x" } }),
            vec!["count activity bad_request", "refuse bad_request"],
        ),
        (
            "user",
            json!({ "activity": { "kind": "page", "detail": "x".repeat(257) } }),
            vec!["count activity bad_request", "refuse bad_request"],
        ),
    ];
    for (role, mut message, expected) in rows {
        message["id"] = json!(7);
        let (mut session, _) = issuer.session(role, 3_600);
        assert_eq!(
            issuer.say(&mut session, NOW, &message),
            expected,
            "{role} {message:.120}"
        );
    }
    // More activity than is taken is dropped and counted; after a rest there is room again.
    let (mut session, _) = issuer.session("user", 3_600);
    let doing = json!({ "activity": { "kind": "page", "detail": "x" } });
    let taken = (0..8)
        .filter(|_| issuer.say(&mut session, NOW, &doing) == ["activity hall staff"])
        .count();
    assert_eq!(taken, 5);
    assert_eq!(
        issuer.say(&mut session, NOW, &doing),
        ["count activity rate", "met activity"]
    );
    let later = Now {
        millis: NOW.millis + 1_000,
        ..NOW
    };
    assert_eq!(issuer.say(&mut session, later, &doing), ["activity hall staff"]);
}
