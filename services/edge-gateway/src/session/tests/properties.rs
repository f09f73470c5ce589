//! Whatever a client says in whatever order, and however its rights change meanwhile: what always holds of its session.

use proptest::prelude::*;

use super::*;

const ROOMS: [&str; 6] = ["hall", "desk", "user.u1", "user.u2", "absent", "not a room"];
const ROLES: [&str; 3] = ["user", "staff", "nobody"];
/// What may be in force after the first policy: nobody's desk, no joining, no presence, no commands; everybody's desk, joined.
const OTHERS: [&str; 2] = [
    "
version: 1
roles:
  user:  { permissions: [see] }
  staff: { inherits: [user], permissions: [work] }
rooms:
  - { room: hall, subscribe: work }
",
    "
version: 1
roles:
  user:  { permissions: [see, work] }
  staff: { inherits: [user] }
rooms:
  - { room: hall, subscribe: see, presence: see, history: work }
  - { room: desk, client_publish: see, subscribe: see, auto_join: true }
commands: [{ command: a.b, allow: see }]
activity: { room: desk, audience: user }
",
];

/// What happens to a session.
#[derive(Clone, Debug)]
enum Step {
    /// One message, with or without an id.
    Says(Value),
    /// Another policy and other grants are in force, of which one may end everything.
    Change {
        policy: usize,
        granted: bool,
        revoked: bool,
    },
}

fn message() -> impl Strategy<Value = Value> {
    let room = || prop::sample::select(&ROOMS[..]);
    let cursor = prop::sample::select(&["", "garbage", "k3f9.1041.77.a2", "0.0.0.0"][..]);
    let body = prop_oneof![
        4 => (room(), any::<bool>()).prop_map(|(room, presence)| json!({ "subscribe": { "room": room, "presence": presence } })),
        2 => (room(), cursor.clone()).prop_map(|(room, cursor)| json!({ "subscribe": { "room": room, "cursor": cursor } })),
        1 => (room(), prop::option::of(0_u32..3), prop::option::of(0_u32..3)).prop_map(|(room, count, seconds)| {
            json!({ "subscribe": { "room": room, "rewind": { "count": count, "seconds": seconds } } })
        }),
        2 => room().prop_map(|room| json!({ "unsubscribe": { "room": room } })),
        2 => (room(), prop::option::of(cursor.clone())).prop_map(|(room, before)| {
            json!({ "history": { "room": room, "limit": 7, "before": before } })
        }),
        1 => room().prop_map(|room| json!({ "publish": { "room": room, "type": "t", "data": {} } })),
        2 => room().prop_map(|room| json!({ "presence": { "room": room } })),
        2 => (prop::sample::select(&["a.b", "a.c", ""][..]), prop::sample::select(&["k", ""][..]))
            .prop_map(|(name, key)| json!({ "command": { "name": name, "key": key, "data": {} } })),
        1 => prop::option::of(cursor.clone()).prop_map(|before| json!({ "feed": { "before": before, "limit": 3 } })),
        1 => prop::sample::select(&["seen", "read", "eaten"][..]).prop_map(|level| json!({ "mark": { "ids": ["n1"], "as": level } })),
        1 => cursor.prop_map(|up_to| json!({ "mark": { "upTo": up_to, "as": "read" } })),
        2 => prop::sample::select(&["click", ""][..]).prop_map(|kind| json!({ "activity": { "kind": kind, "detail": "d" } })),
        2 => prop::sample::select(&ROLES[..]).prop_map(|role| json!({ "refresh": { "role": role } })),
        1 => Just(json!({ "counters": {} })),
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

fn step() -> impl Strategy<Value = Step> {
    let change = (0..=OTHERS.len(), any::<bool>(), prop::bool::weighted(0.05)).prop_map(
        |(policy, granted, revoked)| Step::Change {
            policy,
            granted,
            revoked,
        },
    );
    prop_oneof![8 => message().prop_map(Step::Says), 1 => change]
}

/// Whether a wish is one that the session's rights of now allow. What only tells or takes away always is.
fn allowed(session: &Session, wish: &Wish) -> bool {
    let rights = session.rights();
    match wish {
        Wish::Read(reading) => rights.history(reading.permit.room()).is_ok(),
        Wish::Presence(_, room) | Wish::Watch(room) => rights.presence(room).is_ok(),
        Wish::Exchange(permits) => permits.iter().all(|permit| {
            session.slot(permit.room()).is_some()
                && rights.subscribe(permit.room()).is_ok_and(|now| now == **permit)
        }),
        Wish::Open(opening) => (opening.rooms.iter()).all(|asked| match &asked.permit {
            Ok(permit) => rights.subscribe(permit.room()).is_ok_and(|now| now == **permit),
            Err(refusal) => *refusal == Refusal::forbidden(),
        }),
        Wish::Ask(ask) => match &ask.what {
            What::Command(order) => rights.command(order.permit.name()).is_ok(),
            What::Publish(post) => rights.client_publish(&post.room, &post.audience).is_ok(),
            What::Feed(request) => {
                (request.permits.iter()).all(|permit| rights.subscribe(permit.room()).is_ok())
            }
            // Where it goes is the policy's word, not the user's; how it is told is its own affair.
            What::Activity(_) | What::Preferences(_) => true,
        },
        _ => true,
    }
}

/// Carries wishes out as a shard would, at once. Answers how often this request was answered.
fn carry_out(session: &mut Session, wishes: Vec<Wish>, id: Option<u32>) -> Result<usize, TestCaseError> {
    let mut answers = 0;
    let mut answered = |to: Option<u32>| answers += usize::from(to.is_some() && to == id);
    for wish in wishes {
        prop_assert!(allowed(session, &wish), "not allowed: {}", short(&wish));
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
            Wish::Ask(ask) => answered(ask.id),
            Wish::Listen => answered(session.take_counters_id()),
            Wish::End(close) => return Err(TestCaseError::fail(format!("ended: {close:?}"))),
            Wish::Tell(frame) => prop_assert!(frame.id.is_none(), "a push has no id"),
            Wish::Exchange(_) | Wish::Watch(_) | Wish::Count(..) | Wish::Forbade(_) | Wish::Met(_) => {}
        }
    }
    Ok(answers)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Each request has one answer, none is given to what had no id, nothing is wished that the rights of the moment do not allow, no
    /// room is open without a right to it or twice, none that opens by itself is shut after a change, and no more are asked for than
    /// allowed. Who is revoked is ended, and nothing else is done for it.
    #[test]
    fn a_session_answers_once_and_opens_nothing_it_may_not(steps in prop::collection::vec(step(), 1..60)) {
        let issuer = Issuer::new();
        let (mut session, opening) = issuer.session("staff", 600);
        prop_assert_eq!(carry_out(&mut session, vec![Wish::Open(opening)], Some(1))?, 1);
        let (mut now, mut generation) = (NOW, 1);
        let mut gate = issuer.under((*issuer.gate.rights().now()).clone());
        for step in steps {
            // A second between two steps, so that the rate has no say.
            now = Now { millis: now.millis + 1_000, unix_millis: now.unix_millis + 1_000 };
            match step.clone() {
                Step::Says(mut message) => {
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
                    session.message(frame, &gate, now, &mut wishes);
                    let answers = carry_out(&mut session, wishes, id)?;
                    prop_assert_eq!(answers, usize::from(id.is_some() && !is_pong), "{}", message);
                }
                Step::Change { policy, granted, revoked } => {
                    generation += 1;
                    let text = policy.checked_sub(1).map_or(POLICY, |other| OTHERS[other]);
                    let entries = [("grant.main.u1.staff", "{}"), ("user.main.u1", "{}")];
                    let entries = [&entries[..usize::from(granted)], &entries[2 - usize::from(revoked)..]].concat();
                    let before = gate.rights().now().policy.clone();
                    let after = in_force(text, &entries, generation, Some(&before));
                    gate = issuer.under(after.clone());
                    let mut wishes = Vec::new();
                    let verdict = session.rights_changed(&after, now, &mut wishes);
                    prop_assert_eq!(verdict == Verdict::Revoked, revoked);
                    if revoked {
                        prop_assert_eq!(wishes.iter().map(short).collect::<Vec<_>>(), ["end 4501"]);
                        return Ok(());
                    }
                    carry_out(&mut session, wishes, None)?;
                    prop_assert_eq!(session.rights_generation(), generation);
                    for room in session.rights().auto_join() {
                        prop_assert!(session.slot(&room).is_some(), "{} opens by itself", room);
                    }
                }
            }
            for (at, open) in session.rooms.iter().enumerate() {
                prop_assert!(session.rights().subscribe(&open.room).is_ok(), "{} is open after {step:?}", open.room);
                prop_assert_eq!(session.slot(&open.room), Some(at), "{} is open twice", open.room);
            }
            let requested = session.rooms.iter().filter(|open| open.requested).count();
            prop_assert!(requested <= LIMITS.subscriptions_max, "{} rooms", requested);
        }
    }
}
