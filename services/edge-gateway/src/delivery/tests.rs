use roomcast_access::{Policy, Principal, Subscribe};
use roomcast_proto::frame::{EventPush, ServerFrame, event_json, server_frame};

use super::*;

/// For all in a room, in whose policy nobody is.
pub(crate) fn address(room: &str) -> Address {
    Address {
        tenant: Tenant::default(),
        room: Room::parse(room).unwrap(),
        audience: None,
        audience_name: Audience::all(),
        meter: Meter::default(),
    }
}

fn delivery(audience: Option<AudienceId>, expires_millis: Option<i64>, body: &[u8]) -> Arc<Delivery> {
    let address = Address {
        audience,
        ..address("bookings")
    };
    let mark = Some(Mark {
        epoch: Epoch::of_streams("a", "b"),
        time_bits: 0xb0,
        cursors: Cursors::plain(),
    });
    Arc::new(Delivery::new(
        address,
        Kind::Event,
        Position { seq: 1042, rev: 77 },
        mark,
        expires_millis,
        body,
    ))
}

fn permit(rooms: &str) -> (Policy, Subscribe) {
    let text = format!(
        "version: 1\nroles:\n  staff: {{ permissions: [see] }}\n  admin: {{ inherits: [staff], permissions: [money] }}\nrooms:\n  - {rooms}\n"
    );
    let policy = Policy::parse(&text, "policy.yaml").unwrap();
    let rights = policy.rights(&Principal {
        tenant: Tenant::default(),
        subject: "u1".into(),
        roles: vec!["staff".to_owned()],
        claims: serde_json::Map::new(),
        expires_at: i64::MAX,
        issued_at: None,
        token_id: None,
    });
    let subscribe = rights.subscribe(&Room::parse("bookings").unwrap()).unwrap();
    (policy, subscribe)
}

#[test]
fn the_frame_is_the_ready_event_behind_a_websocket_header() {
    // Below, at and above the limits of the three header forms.
    for bytes in [
        10, 40, 41, 42, 43, 44, 60, 200, 65_400, 65_460, 65_461, 65_470, 70_000,
    ] {
        let body = vec![b'x'; bytes];
        let made = delivery(Some(AudienceId::ALL), None, &body);
        let cursor = Cursors::plain()
            .write(&made.tenant, &made.cursor().unwrap())
            .to_string();
        let text = event_json("bookings", Some(&cursor), &body);
        assert_eq!(made.text(), text);
        assert_eq!((made.body(), &made.body_bytes()[..]), (&body[..], &body[..]));
        check_header(made.frame(Encoding::Json), 0x81, text.len());
        let push = EventPush {
            room: "bookings".to_owned(),
            cursor: Some(cursor),
            event: body.into(),
        };
        let message = ServerFrame::push(server_frame::Body::Event(push)).to_protobuf();
        let frame = made.frame(Encoding::Protobuf);
        assert!(frame.ends_with(&message));
        check_header(frame, 0x82, message.len());
        // Made once: the second client is given the same bytes.
        assert_eq!(made.frame(Encoding::Protobuf).as_ptr(), frame.as_ptr());
    }
}

#[track_caller]
fn check_header(frame: &[u8], kind: u8, payload_bytes: usize) {
    let header = &frame[..frame.len() - payload_bytes];
    assert_eq!(header[0], kind);
    let length = match &header[1..] {
        [short @ 0..=125] => usize::from(*short),
        [126, a, b] => usize::from(u16::from_be_bytes([*a, *b])),
        [127, long @ ..] => usize::try_from(u64::from_be_bytes(long.try_into().unwrap())).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(length, payload_bytes);
    let shortest = match length {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    };
    assert_eq!(header.len(), shortest, "{length}");
}

#[test]
fn without_a_mark_there_is_no_cursor() {
    let bare = delivery(None, None, b"{}").at(Position { seq: 5, rev: 6 }, None);
    assert_eq!(bare.text(), event_json("bookings", None, b"{}"));
    let (head, body) = (b"\x82\x10\x5a\x0e\x0a\x08bookings\x1a\x02", b"{}");
    assert_eq!(bare.frame(Encoding::Protobuf)[..], [&head[..], body].concat());
    assert_eq!(
        (bare.cursor(), bare.position.rev, bare.body()),
        (None, 6, &b"{}"[..])
    );
}

#[test]
fn only_members_of_the_audience_see_it_and_only_in_time() {
    let (policy, permit) = permit("{ room: bookings, subscribe: see }");
    let rows = [
        (policy.audience("all"), None, true),
        (policy.audience("staff"), None, true),
        (policy.audience("admin"), None, false),
        (policy.audience("stranger"), None, false),
        (policy.audience("all"), Some(1_001), true),
        (policy.audience("all"), Some(1_000), false),
    ];
    for (number, (audience, expires, visible)) in rows.into_iter().enumerate() {
        assert_eq!(
            delivery(audience, expires, b"{}").visible(&permit, 1_000),
            visible,
            "row {number}"
        );
    }
}

#[test]
fn a_class_gets_one_frame_without_what_is_taken_out() {
    let rule = "{ room: bookings, subscribe: see, redact: [{ unless: money, remove: [/amount] }] }";
    let (_, permit) = permit(rule);
    let whole = delivery(
        Some(AudienceId::ALL),
        None,
        br#"{"id":"1","data":{"amount":5,"n":1}}"#,
    );
    let made = whole.for_class(&permit).unwrap();
    assert_eq!(made.body(), br#"{"id":"1","data":{"n":1}}"#);
    assert_eq!(made.cursor(), whole.cursor());
    let protobuf = made.frame(Encoding::Protobuf);
    assert!(protobuf.ends_with(made.body()) && protobuf.len() < whole.frame(Encoding::Protobuf).len());
    assert!(Arc::ptr_eq(&made, &whole.for_class(&permit).unwrap()));
    assert!(
        delivery(Some(AudienceId::ALL), None, b"not JSON")
            .for_class(&permit)
            .is_none()
    );
}

#[test]
fn a_value_that_may_not_be_seen_any_more_is_withdrawn_without_its_data() {
    let body = br#"{"specversion":"1.0","id":"a\"1","source":"/s","type":"t","time":"2026-01-31T14:05:00Z","room":"a","delivery":"state","statekey":"k","datacontenttype":"application/json","expirytime":"2030-01-01T00:00:00Z","data":{"secret":1}}"#;
    let value = |withdrawn| {
        let key = "k".into();
        Delivery::new(
            address("a"),
            Kind::State { key, withdrawn },
            Position { seq: 0, rev: 5 },
            None,
            None,
            body,
        )
    };
    let withdrawal = value(false).withdrawal().unwrap();
    assert!(matches!(&withdrawal.kind, Kind::State { key, withdrawn: true } if &**key == "k"));
    let said: serde_json::Value = serde_json::from_slice(withdrawal.body()).unwrap();
    assert_eq!(
        said,
        serde_json::json!({
            "specversion": "1.0", "id": "a\"1-withdrawn", "source": "/s", "type": "t", "time": "2026-01-31T14:05:00Z", "room": "a",
            "delivery": "state", "statekey": "k", "withdrawn": true,
        })
    );
    assert!(value(true).withdrawal().is_none());
    let event = Delivery::new(address("a"), Kind::Event, Position::default(), None, None, body);
    assert!(event.withdrawal().is_none());
}
