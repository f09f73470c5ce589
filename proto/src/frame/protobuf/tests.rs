use proptest::prelude::*;

use super::super::{
    Activity, CaughtUp, Command, CommandResult, Connect, Connected, Counters, Disconnect, ErrorBody,
    EventPush, FeedPage, FeedQuery, History, HistoryPage, Mark, Ping, PlacedEvent, Pong, Preferences,
    PresenceQuery, PresenceSet, PresentUser, Publish, Published, Refresh, Rewind, Roles, RoomAnswer,
    RoomRequest, Status, Subscribe, Subscribed, Unsubscribe, Unsubscribed, put_event_json, server_frame,
};
use super::*;

#[test]
fn every_message_of_a_client_has_a_number_in_the_range_and_no_other_has() {
    for number in 1..=200_u32 {
        let mut bytes = Vec::new();
        encode_varint(u64::from((number << 3) | 2), &mut bytes);
        bytes.push(0);
        let read = ClientFrame::from_protobuf(&bytes).map_err(|bad| bad.refusal.code);
        match number {
            ID => assert_eq!(read, Err(Code::BadFrame)),
            _ if MESSAGES.contains(&number) => {
                assert!(read.is_ok_and(|frame| frame.body.is_some()), "{number}")
            }
            _ => assert_eq!(read, Err(Code::UnknownMessage), "{number}"),
        }
    }
}

#[test]
fn json_inside_a_message_is_as_deep_as_its_json_form_may_be() {
    let publish = |data: String| ClientFrame {
        id: Some(1),
        body: Some(client_frame::Body::Publish(Publish {
            data: data.into(),
            ..Publish::default()
        })),
    };
    for depth in [1, 29, 30, 31, 32, 60_000] {
        let frame = publish("[".repeat(depth) + &"]".repeat(depth));
        let protobuf = ClientFrame::from_protobuf(&frame.to_protobuf());
        assert_eq!(protobuf.is_ok(), depth <= 30, "{depth}");
        if depth < 100 {
            assert_eq!(
                protobuf.is_ok(),
                ClientFrame::from_json(&frame.to_json()).is_ok(),
                "{depth}"
            );
        }
    }
    for bad in ["{", "1 2", "'a'", "\u{0}"] {
        let refused = ClientFrame::from_protobuf(&publish(bad.to_owned()).to_protobuf()).unwrap_err();
        assert_eq!(
            (refused.id, refused.refusal.code),
            (Some(1), Code::BadFrame),
            "{bad}"
        );
    }
    let trimmed = ClientFrame::from_protobuf(&publish(" {\"a\": 1.50}\n".to_owned()).to_protobuf()).unwrap();
    assert_eq!(trimmed, publish("{\"a\": 1.50}".to_owned()));
}

#[test]
fn unknown_groups_nested_without_end_are_refused() {
    // Inside `connect`: a group that opens a group that opens … (field 100, wire type 3).
    let open: Vec<u8> = [0xa3, 0x06].repeat(30_000);
    let mut bytes = vec![0x12];
    encode_varint(open.len() as u64, &mut bytes);
    bytes.extend(open);
    assert_eq!(
        ClientFrame::from_protobuf(&bytes).unwrap_err().refusal.code,
        Code::BadFrame
    );
    assert!(ServerFrame::from_protobuf(&bytes).is_err());
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z.]{0,9}", any::<String>()]
}

/// A JSON value as it may stand in a frame: any text of it, kept as it is.
fn json() -> impl Strategy<Value = Bytes> {
    let value = prop_oneof![
        Just("null".to_owned()),
        Just("{\"a\": 1.50}".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        text().prop_map(|text| serde_json::to_string(&[text]).unwrap()),
    ];
    value.prop_map(Bytes::from)
}

fn client_body() -> impl Strategy<Value = client_frame::Body> {
    use client_frame::Body as B;
    let given = (
        text(),
        prop::option::of(text()),
        any::<u32>(),
        any::<bool>(),
        json(),
        prop::collection::vec(text(), 0..4),
    );
    (0..14, given).prop_map(|(which, (room, cursor, number, flag, json, many))| match which {
        0 => B::Connect(Connect {
            token: cursor.clone(),
            client: room,
            rooms: many
                .into_iter()
                .map(|room| RoomRequest {
                    room,
                    cursor: cursor.clone(),
                    presence: flag.then_some(number > 9),
                })
                .collect(),
            counters: flag.then_some(number > 9),
        }),
        1 => {
            let rewind = flag.then_some(Rewind {
                count: Some(number),
                seconds: None,
            });
            B::Subscribe(Subscribe {
                room,
                cursor,
                rewind,
                presence: flag,
            })
        }
        2 => B::Unsubscribe(Unsubscribe { room }),
        3 => B::History(History {
            room,
            before: cursor,
            limit: number,
        }),
        4 => B::Publish(Publish {
            r#type: room.clone(),
            room,
            data: json,
            event_id: cursor,
        }),
        5 => B::Command(Command {
            key: room.clone(),
            name: room,
            data: json,
            timeout_ms: number,
        }),
        6 => B::Presence(PresenceQuery { room }),
        7 => B::Feed(FeedQuery {
            before: cursor,
            limit: number,
            filter: json,
        }),
        8 => B::Mark(Mark {
            ids: many,
            up_to: cursor,
            r#as: room,
        }),
        9 => B::Preferences(Preferences { set: json }),
        10 => B::Activity(Activity {
            kind: room.clone(),
            detail: room,
        }),
        11 => B::Refresh(Refresh { token: room }),
        12 => B::Counters(crate::frame::CountersQuery {}),
        _ => B::Pong(Pong {}),
    })
}

fn server_body() -> impl Strategy<Value = server_frame::Body> {
    use server_frame::Body as B;
    let given = (
        text(),
        prop::option::of(text()),
        any::<u32>(),
        any::<bool>(),
        json(),
        prop::collection::vec(text(), 0..4),
    );
    (0..19, given).prop_map(|(which, (room, cursor, number, flag, json, many))| {
        let wait = flag.then_some(u64::from(number) << 20);
        let error = || ErrorBody {
            code: room.clone(),
            message: room.clone(),
            temporary: flag,
            retry_after_ms: wait,
        };
        let placed = || {
            many.iter()
                .map(|cursor| PlacedEvent {
                    cursor: cursor.clone(),
                    event: json.clone(),
                })
                .collect()
        };
        let counters = Counters {
            version: u64::from(number) << 20,
            unread: number,
            ..Counters::default()
        };
        match which {
            0 => B::Connected(Connected {
                user: room.clone(),
                rooms: vec![RoomAnswer {
                    room: room.clone(),
                    cursor,
                    error: flag.then(error),
                    ..RoomAnswer::default()
                }],
                roles: many,
                ping_seconds: number,
                ..Connected::default()
            }),
            1 => B::Subscribed(Subscribed {
                cursor: room.clone(),
                recovery: room.clone(),
                room,
                reason: cursor,
            }),
            2 => B::Unsubscribed(Unsubscribed {
                room,
                code: cursor.clone(),
                reason: cursor,
            }),
            3 => B::History(HistoryPage {
                events: placed(),
                room,
                cursor,
                complete: flag,
            }),
            4 => B::Published(Published { event_id: room }),
            5 => B::Result(CommandResult { data: json }),
            6 => B::Presence(PresenceSet {
                users: vec![PresentUser {
                    user: room.clone(),
                    connections: number,
                    ..PresentUser::default()
                }],
                room,
                total: number,
            }),
            7 => B::Feed(FeedPage {
                notifications: placed(),
                counters: flag.then_some(counters),
                version: u64::from(number),
                marks: Vec::new(),
                groups: vec![crate::frame::NotificationGroup {
                    group: room,
                    total: number,
                    unread: number / 2,
                }],
            }),
            8 => B::Event(EventPush {
                room,
                cursor,
                event: json,
            }),
            9 => B::CaughtUp(CaughtUp {
                cursor: room.clone(),
                room,
            }),
            10 => B::Counters(counters),
            11 => B::Roles(Roles { roles: many }),
            12 => B::Status(Status {
                status: room.clone(),
                since: room,
            }),
            13 => B::Disconnect(Disconnect {
                code: number,
                reason: room,
                reconnect: flag,
                retry_after_ms: wait,
            }),
            14 => B::Error(error()),
            15 => B::Thinned(crate::frame::Thinned {
                state: number,
                ephemeral: number / 2,
            }),
            16 => B::Preferences(crate::frame::PreferencesKept {
                version: u64::from(number) << 20,
                preferences: json,
            }),
            _ => B::Ping(Ping {}),
        }
    })
}

proptest! {
    #[test]
    fn client_frames_are_one_value_in_both_forms(id: Option<u32>, body in client_body()) {
        let frame = ClientFrame { id, body: Some(body) };
        prop_assert_eq!(&ClientFrame::from_protobuf(&frame.to_protobuf()).unwrap(), &frame);
        prop_assert_eq!(ClientFrame::from_json(&frame.to_json()).unwrap(), frame);
    }

    #[test]
    fn server_frames_are_one_value_in_both_forms(id: Option<u32>, body in server_body()) {
        let frame = ServerFrame { id, body: Some(body) };
        prop_assert_eq!(&ServerFrame::from_protobuf(&frame.to_protobuf()).unwrap(), &frame);
        prop_assert_eq!(ServerFrame::from_json(&frame.to_json()).unwrap(), frame);
    }

    /// A later version adds fields: beside the message, in it, before it and after it.
    #[test]
    fn unknown_fields_change_nothing(id: Option<u32>, body in server_body(), number in 100_u32..1000, bytes: Vec<u8>) {
        let frame = ServerFrame { id, body: Some(body) };
        let mut unknown = Vec::new();
        encode_varint(u64::from((number << 3) | 2), &mut unknown);
        encode_varint(bytes.len() as u64, &mut unknown);
        unknown.extend(&bytes);
        let known = frame.to_protobuf();
        for both in [[&known[..], &unknown].concat(), [&unknown[..], &known].concat()] {
            prop_assert_eq!(&ServerFrame::from_protobuf(&both).unwrap(), &frame);
        }
        let pong = [&unknown[..], &[0x72, u8::try_from(unknown.len().min(100)).unwrap()], &unknown[..unknown.len().min(100)]].concat();
        if unknown.len() <= 100 {
            prop_assert_eq!(ClientFrame::from_protobuf(&pong).unwrap().body, Some(client_frame::Body::Pong(Pong {})));
        }
    }

    #[test]
    fn the_ready_event_is_the_event_message(room in "[a-z.]{1,200}", cursor: Option<String>, size in 1_usize..70_000) {
        let event = Bytes::from("x".repeat(size));
        let push = EventPush { room: room.clone(), cursor: cursor.clone(), event: event.clone() };
        let mut ready = BytesMut::new();
        put_event_protobuf(&mut ready, &room, cursor.as_deref(), &event);
        prop_assert_eq!(ready.len(), event_protobuf_bytes(&room, cursor.as_deref(), &event));
        prop_assert_eq!(&ready[..], ServerFrame::push(server_frame::Body::Event(push)).to_protobuf());
        let mut json = BytesMut::new();
        put_event_json(&mut json, &room, cursor.as_deref(), &event);
        // The event is encoded once: the same bytes in both.
        prop_assert!(ready.ends_with(&event) && json.ends_with(&[&event[..], b"}}"].concat()));
    }

    #[test]
    fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = ClientFrame::from_protobuf(&bytes);
        let _ = ServerFrame::from_protobuf(&bytes);
    }

    /// What is read can be written, in both forms, and is the same again.
    #[test]
    fn what_is_read_comes_back(mut bytes in client_body().prop_map(|body| ClientFrame { id: Some(7), body: Some(body) }.to_protobuf()), at: prop::sample::Index, byte: u8) {
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(frame) = ClientFrame::from_protobuf(&bytes) {
            prop_assert_eq!(&ClientFrame::from_protobuf(&frame.to_protobuf()).unwrap(), &frame);
            prop_assert_eq!(ClientFrame::from_json(&frame.to_json()).unwrap().to_json(), frame.to_json());
        }
    }
}
