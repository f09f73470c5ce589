use serde_json::json;

use super::*;

const POLICY: &str = r#"
version: 1
roles:
  user:  { permissions: [news.view] }
  staff: { inherits: [user], permissions: [bookings.publish, chat.write] }
  pusher: { permissions: [personal.publish] }
  filler: { permissions: [bookings.publish, events.backfill] }
  root:  { permissions: ["*"] }
rooms:
  - { room: bookings, subscribe: news.view, publish: bookings.publish }
  - { room: chat, subscribe: news.view, client_publish: chat.write }
  - { room: "user.{user}", publish: personal.publish }
publishers:
  - { nats: main/erp, roles: [staff] }
"#;

/// 2026-01-01T00:00:00Z
const NOW: i64 = 1_767_225_600_000_000;

fn policy() -> Policy {
    Policy::parse(POLICY, "policy.yaml").unwrap()
}

fn schemas() -> Catalog {
    let texts = [
        r#"{"x-roomcast-type":"checked","type":"object","required":["n"],"properties":{"n":{"type":"integer"}}}"#,
        r#"{"x-roomcast-type":"watched","x-roomcast-mode":"warn","type":"object","required":["n"]}"#,
    ];
    let parse = |text: &&str| roomcast_schemas::Schema::parse("s.json", text).unwrap();
    Catalog::new(texts.iter().map(parse).collect()).unwrap()
}

fn principal(role: &str) -> Principal {
    Principal {
        tenant: Tenant::default(),
        subject: "desk".into(),
        roles: vec![role.to_owned()],
        claims: serde_json::Map::new(),
        expires_at: i64::MAX,
        issued_at: None,
        token_id: None,
    }
}

fn sender(who: &str) -> Sender {
    let policy = policy();
    match who.split_once(':') {
        Some(("nats", user)) => Sender::of_nats_user(&Tenant::default(), user, &policy).unwrap(),
        Some(("client", role)) => Sender::of_user(&principal(role), policy.rights(&principal(role))),
        _ if who == "aggregator" => Sender::aggregator(&Tenant::default()),
        Some(("admin", subject)) => Sender::administrator(&Tenant::default(), subject),
        _ => Sender::of_token(&principal(who), policy.rights(&principal(who))),
    }
}

fn decided(who: &str, event: &serde_json::Value, backfill: bool) -> Result<Accepted, Refusal> {
    let sender = sender(who);
    let text = event.to_string();
    let arrival = Arrival {
        sender: &sender,
        room: None,
        audience: None,
        backfill,
        now_micros: NOW,
        queued: None,
    };
    decide(Draft::parse(text.as_bytes())?, &arrival, &policy(), &schemas())
}

#[test]
fn rights_decide_who_publishes_where() {
    #[track_caller]
    fn check(who: &str, room: &str, audience: &str, kind: &str, expected: Option<Code>) {
        let event = json!({ "type": kind, "room": room, "audience": audience, "data": { "title": "t" } });
        assert_eq!(
            decided(who, &event, false).err().map(|refusal| refusal.code),
            expected,
            "{who} {room} {audience}"
        );
    }
    check("staff", "bookings", "all", "t", None);
    check("staff", "bookings", "staff", "t", None);
    check("nats:erp", "bookings", "staff", "t", None);
    check("staff", "bookings", "boss", "t", Some(Code::UnknownAudience));
    check("staff", "secret", "all", "t", Some(Code::Forbidden));
    check("user", "bookings", "all", "t", Some(Code::Forbidden));
    check("user", "bookings", "boss", "t", Some(Code::Forbidden));
    check("stranger", "bookings", "all", "t", Some(Code::Forbidden));
    check("root", "bookings", "all", "t", None);
    check("root", "secret", "all", "t", Some(Code::UnknownRoom));
    check("staff", "chat", "all", "t", Some(Code::Forbidden));
    check("client:staff", "chat", "all", "t", None);
    check("client:staff", "bookings", "all", "t", Some(Code::Forbidden));
    check("staff", "user.u1", "all", "t", Some(Code::Forbidden));
    check("pusher", "user.u1", "all", "t", None);
    check("aggregator", "bookings", "staff", "notification.alert", None);
    check(
        "aggregator",
        "bookings",
        "boss",
        "notification.alert",
        Some(Code::UnknownAudience),
    );
    check(
        "aggregator",
        "secret",
        "staff",
        "notification.alert",
        Some(Code::Forbidden),
    );
    check(
        "aggregator",
        "bookings",
        "staff",
        "booking:new",
        Some(Code::Forbidden),
    );
    check("admin:ops", "bookings", "staff", "t", None);
    check("admin:ops", "user.u1", "all", "t", None);
    check("admin:ops", "bookings", "boss", "t", Some(Code::UnknownAudience));
    check("admin:ops", "secret", "all", "t", Some(Code::UnknownRoom));
    check("staff", "a b", "all", "t", Some(Code::BadRoom));
}

#[test]
fn a_nats_user_that_is_not_listed_is_nobody() {
    assert!(Sender::of_nats_user(&Tenant::default(), "crm", &policy()).is_none());
    assert!(Sender::of_nats_user(&Tenant::parse("acme").unwrap(), "erp", &policy()).is_none());
}

#[test]
fn only_ids_that_tell_their_age_are_late_and_back_fill_lets_them_pass() {
    #[track_caller]
    fn check(age_secs: i64, backfill: bool, delivery: &str, late: bool) {
        let made = u64::try_from(NOW / 1_000_000 - age_secs).unwrap();
        let id = uuid::Builder::from_unix_timestamp_millis(made * 1000, &[7; 10])
            .into_uuid()
            .to_string();
        let event = json!({ "type": "t", "room": "bookings", "id": id, "delivery": delivery });
        let code = decided("staff", &event, backfill)
            .err()
            .map(|refusal| refusal.code);
        assert_eq!(code, late.then_some(Code::Late), "{age_secs}");
    }
    check(0, false, "event", false);
    check(-60, false, "event", false);
    check(90, false, "event", false);
    check(91, false, "event", true);
    check(91, true, "event", false);
    check(91, false, "ephemeral", false);
    let old = json!({ "type": "t", "room": "bookings", "id": "order-17", "time": "2020-01-01T00:00:00Z" });
    assert!(
        decided("staff", &old, false).is_ok(),
        "an event's time never makes it late"
    );
    assert!(sender("filler").may_backfill() && sender("root").may_backfill());
    assert!(!sender("staff").may_backfill() && !sender("nats:erp").may_backfill());
}

#[test]
fn headers_are_made_from_nothing_and_fit_the_class() {
    #[track_caller]
    fn check(event: serde_json::Value, subject: &str, expected: &[(&str, &str)]) {
        let mut event = event;
        event["type"] = "t".into();
        event["room"] = "bookings".into();
        event["id"] = "e1".into();
        let accepted = decided("staff", &event, false).unwrap();
        let outgoing = accepted.placements[0].outgoing();
        assert_eq!(outgoing.subject, subject);
        for (name, value) in expected {
            assert_eq!(
                outgoing.headers.get_last(*name).map(|v| v.as_str()),
                Some(*value),
                "{name}"
            );
        }
        let stored = usize::from(!subject.starts_with("eph")) * 2;
        assert_eq!(
            outgoing.headers.len(),
            1 + expected.len() + stored,
            "{:?}",
            outgoing.headers
        );
    }
    check(json!({}), "evt.06.main.bookings.all", &[]);
    check(
        json!({ "expirytime": "2026-01-01T00:00:01.5Z" }),
        "evt.06.main.bookings.all",
        &[("Rc-Expires", "1767225601500")],
    );
    check(
        json!({ "delivery": "ephemeral" }),
        "eph.06.main.bookings.all",
        &[],
    );
    check(
        json!({ "delivery": "state", "statekey": "Süd 1\"" }),
        "st.06.main.bookings.all.S=C3=BCd=201=22",
        &[("Rc-Key", "\"S\\u00fcd 1\\\"\"")],
    );
    check(
        json!({ "delivery": "state", "statekey": "k", "expirytime": "2026-01-01T00:00:01.5Z" }),
        "st.06.main.bookings.all.k",
        &[
            ("Rc-Key", "\"k\""),
            ("Rc-Expires", "1767225601500"),
            ("Nats-TTL", "2"),
        ],
    );
    check(
        json!({ "delivery": "state", "statekey": "k", "withdrawn": true }),
        "st.06.main.bookings.all.k",
        &[("Rc-Key", "\"k\""), ("Rc-Withdrawn", "1"), ("Nats-TTL", "604800")],
    );
}

/// What ends later than the server can count to, it would delete at once; readers go by the time itself.
#[test]
fn the_server_ends_what_ends_within_ten_years() {
    // The decisions here are made at the first instant of 2026.
    for (ends, ttl) in [
        ("2026-01-01T00:00:00.000001Z", Some("1")),
        ("2035-12-30T00:00:00Z", Some("315360000")),
        ("2035-12-30T00:00:00.000001Z", None),
        ("2262-04-11T23:47:17Z", None),
        ("9999-12-30T00:00:00Z", None),
    ] {
        let event = json!({ "type": "t", "room": "bookings", "delivery": "state", "statekey": "k", "expirytime": ends });
        let headers = decided("staff", &event, false).unwrap().placements[0]
            .outgoing()
            .headers;
        assert_eq!(
            headers.get_last("Nats-TTL").map(|value| value.as_str()),
            ttl,
            "{ends}"
        );
        assert!(headers.get_last("Rc-Expires").is_some(), "{ends}");
    }
}

#[test]
fn users_get_a_copy_each_in_their_own_room() {
    let event = json!({ "type": "t", "id": "e1", "users": "u1,a%40b" });
    let accepted = decided("pusher", &event, false).unwrap();
    let subjects: Vec<&str> = accepted
        .placements
        .iter()
        .map(|placement| placement.subject.as_str())
        .collect();
    assert_eq!(accepted.id, "e1");
    assert!(
        subjects[0].ends_with(".main.user.u1.all") && subjects[1].ends_with(".main.user.a=40b.all"),
        "{subjects:?}"
    );
    let copy: serde_json::Value = serde_json::from_slice(&accepted.placements[1].payload).unwrap();
    assert_eq!(
        (copy["id"].as_str(), copy["room"].as_str()),
        (Some("e1/a@b"), Some("user.a=40b"))
    );
    assert_ne!(accepted.placements[0].msg_id, accepted.placements[1].msg_id);
    assert_eq!(decided("staff", &event, false).unwrap_err().code, Code::Forbidden);
}

#[test]
fn an_expired_event_is_refused() {
    let event = json!({ "type": "t", "room": "bookings", "expirytime": "2025-12-31T23:59:59Z" });
    assert_eq!(
        decided("staff", &event, false).unwrap_err().code,
        Code::EventExpired
    );
}

/// What waited is judged as of when it was queued, and what it leaves behind ends when it should from now on.
#[test]
fn what_waited_in_a_queue_is_decided_as_of_when_it_was_queued() {
    let sender = sender("nats:erp");
    let place = Place {
        life: "a1".into(),
        position: 7,
        index: 0,
    };
    let decided = |event: &serde_json::Value, waited_secs: i64| {
        let text = event.to_string();
        let arrival = Arrival {
            sender: &sender,
            room: None,
            audience: None,
            backfill: false,
            now_micros: NOW,
            queued: Some(Queued {
                place: &place,
                drained_micros: NOW + waited_secs * 1_000_000,
            }),
        };
        let draft = Draft::parse(text.as_bytes()).unwrap().or_id("made".to_owned());
        decide(draft, &arrival, &policy(), &schemas())
    };
    let event = |name: &str, value: serde_json::Value| {
        let mut event = json!({ "type": "t", "room": "bookings" });
        event[name] = value;
        event
    };
    let plain = decided(&event("data", json!(1)), 3_600).unwrap();
    let stored: serde_json::Value = serde_json::from_slice(&plain.placements[0].payload).unwrap();
    assert_eq!(
        (plain.id.as_str(), &stored["time"]),
        ("made", &json!("2026-01-01T00:00:00Z"))
    );
    assert!(
        plain.placements[0]
            .outgoing()
            .headers
            .get_last(header::QUEUED)
            .is_none()
    );
    assert_eq!(decided(&event("id", json!("given")), 0).unwrap().id, "given");
    // Ids of that minute, however long they waited, and not older ones.
    let id = |secs: i64| {
        let millis = u64::try_from(NOW / 1_000 - secs * 1_000).unwrap();
        event("id", json!(roomcast_proto::ids::event_id_of(millis, "x")))
    };
    assert!(decided(&id(60), 3_600).is_ok());
    assert_eq!(decided(&id(100), 0).unwrap_err().code, Code::Late);
    assert!(decided(&event("expirytime", json!("2026-01-01T00:00:10Z")), 3_600).is_ok());
    let ephemeral = decided(&event("delivery", json!("ephemeral")), 0).unwrap_err();
    assert_eq!(
        (ephemeral.code, ephemeral.pointer.as_deref()),
        (Code::BadEvent, Some("/delivery"))
    );
    let mut state = event("expirytime", json!("2026-01-01T00:01:00Z"));
    state["delivery"] = json!("state");
    state["statekey"] = json!("k");
    for (waited_secs, ttl) in [(0, "60"), (20, "40"), (3_600, "1")] {
        let headers = decided(&state, waited_secs).unwrap().placements[0]
            .outgoing()
            .headers;
        assert_eq!(
            headers.get_last(header::TTL).unwrap().as_str(),
            ttl,
            "{waited_secs}"
        );
        assert_eq!(headers.get_last(header::QUEUED).unwrap().as_str(), "a1.7.0");
    }
}

#[test]
fn data_is_checked_after_the_rights() {
    #[track_caller]
    fn check(who: &str, event: &serde_json::Value, expected: Result<bool, (Code, Option<&str>)>) {
        let mut whole = json!({ "room": "bookings" });
        whole
            .as_object_mut()
            .unwrap()
            .extend(event.as_object().unwrap().clone());
        let found = decided(who, &whole, false);
        let found = found.as_ref().map(|accepted| accepted.breach.is_some());
        let found = found.map_err(|refusal| (refusal.code, refusal.pointer.as_deref()));
        assert_eq!(found, expected, "{who} {event}");
    }
    let schema = |pointer| Err((Code::Schema, Some(pointer)));
    check(
        "staff",
        &json!({ "type": "checked", "data": { "n": 1 } }),
        Ok(false),
    );
    check(
        "staff",
        &json!({ "type": "checked", "data": { "n": "1" } }),
        schema("/data/n"),
    );
    check(
        "staff",
        &json!({ "type": "checked", "data": {} }),
        schema("/data"),
    );
    check("staff", &json!({ "type": "checked" }), schema("/data"));
    check(
        "staff",
        &json!({ "type": "checked", "data_base64": "AA==" }),
        schema("/data_base64"),
    );
    check(
        "user",
        &json!({ "type": "checked", "data": {} }),
        Err((Code::Forbidden, None)),
    );
    check("staff", &json!({ "type": "watched", "data": {} }), Ok(true));
    check(
        "staff",
        &json!({ "type": "watched", "data": { "n": null } }),
        Ok(false),
    );
    check("staff", &json!({ "type": "unknown" }), Ok(false));
    let withdrawn = json!({ "type": "checked", "delivery": "state", "statekey": "k", "withdrawn": true });
    check("staff", &withdrawn, Ok(false));
}
