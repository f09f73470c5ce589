//! Whatever a client says in whatever order: what always holds of its session.

use proptest::prelude::*;

use super::*;

const ROOMS: [&str; 6] = ["hall", "desk", "user.u1", "user.u2", "absent", "not a room"];
const ROLES: [&str; 3] = ["user", "staff", "nobody"];

/// One message, with or without an id.
fn message() -> impl Strategy<Value = Value> {
    let room = prop::sample::select(&ROOMS[..]);
    let body = prop_oneof![
        4 => room.clone().prop_map(|room| json!({ "subscribe": { "room": room } })),
        2 => room.clone().prop_map(|room| json!({ "unsubscribe": { "room": room } })),
        1 => room.clone().prop_map(|room| json!({ "history": { "room": room, "limit": 7 } })),
        1 => room.prop_map(|room| json!({ "publish": { "room": room, "type": "t", "data": {} } })),
        2 => prop::sample::select(&ROLES[..]).prop_map(|role| json!({ "refresh": { "role": role } })),
        1 => Just(json!({ "pong": {} })),
        1 => Just(json!({ "fly": {} })),
        1 => Just(json!({ "subscribe": 7 })),
    ];
    (body, prop::option::of(1_u32..100)).prop_map(|(mut body, id)| {
        if let Some(id) = id {
            body["id"] = id.into();
        }
        body
    })
}

/// Carries wishes out as a shard would, at once. Answers how often this request was answered.
fn carry_out(session: &mut Session, wishes: Vec<Wish>, id: Option<u32>) -> usize {
    let mut answers = 0;
    let mut answered = |to: Option<u32>| answers += usize::from(to.is_some() && to == id);
    for wish in wishes {
        match wish {
            Wish::Say(frame) => answered(frame.id),
            Wish::Open(opening) => {
                answered(opening.id);
                for asked in opening.rooms {
                    let Ok(permit) = asked.permit else { continue };
                    if let Some(slot) = session.slot(permit.room()) {
                        session.close(slot);
                    }
                    opened(session, permit.room().as_str(), asked.requested);
                }
            }
            Wish::Leave(room) | Wish::Evict(room) => {
                if let Some(slot) = session.slot(&room) {
                    session.close(slot);
                }
            }
            Wish::Read(reading) => answered(reading.id),
            Wish::Presence(to, _) => answered(to),
            Wish::Ask(_) => answered(id),
            Wish::End(close) => panic!("{close:?}"),
            Wish::Exchange(_) | Wish::Tell(_) | Wish::Watch(_) | Wish::Count(..) | Wish::Met(_) => {}
        }
    }
    answers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Each request has one answer, none is given to what had no id, no room is open without a right to it or twice, and no more
    /// are asked for than allowed.
    #[test]
    fn a_session_answers_once_and_opens_nothing_it_may_not(messages in prop::collection::vec(message(), 1..50)) {
        let issuer = Issuer::new();
        let (mut session, opening) = issuer.session("staff", 600);
        let first = carry_out(&mut session, vec![Wish::Open(opening)], Some(1));
        prop_assert_eq!(first, 1);
        let mut now = NOW;
        for mut message in messages {
            // A second between two messages, so that the rate has no say.
            now = Now { millis: now.millis + 1_000, unix_millis: now.unix_millis + 1_000 };
            if let Some(role) = message["refresh"]["role"].as_str() {
                message["refresh"] = json!({ "token": issuer.token("u1", role, 3_600) });
            }
            let frame = ClientFrame::from_json(&message.to_string());
            // A frame without an id that cannot be read ends the connection, as it should.
            if message["id"].is_null() && frame.is_err() {
                continue;
            }
            let id = message["id"].as_u64().and_then(|id| u32::try_from(id).ok());
            let is_pong = message["pong"].is_object();
            let mut wishes = Vec::new();
            session.message(frame, &issuer.gate, now, &mut wishes);
            let answers = carry_out(&mut session, wishes, id);
            prop_assert_eq!(answers, usize::from(id.is_some() && !is_pong), "{}", message);
            for (at, open) in session.rooms.iter().enumerate() {
                prop_assert!(session.rights().subscribe(&open.room).is_ok(), "{} is open after {}", open.room, message);
                prop_assert_eq!(session.slot(&open.room), Some(at), "{} is open twice", open.room);
            }
            let requested = session.rooms.iter().filter(|open| open.requested).count();
            prop_assert!(requested <= LIMITS.subscriptions_max, "{} rooms", requested);
        }
    }
}
