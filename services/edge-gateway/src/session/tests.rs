mod properties;
mod rights;
mod two_way;

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
    let rows: [(Value, &[&str]); 24] = [
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
            &["leave desk", "say unsubscribed"],
        ),
        (
            json!({ "id": 1, "unsubscribe": { "room": "a b" } }),
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
