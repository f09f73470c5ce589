//! Letters of events that were stored in part, and of those that were not.

use roomcast_proto::event::Draft;
use roomcast_proto::ids::Tenant;
use serde_json::{Value, json};

use super::*;
use crate::accept::{May, Sender};

fn stored() -> Taken {
    Ok(Receipt {
        outcome: Outcome::Stored,
        id: "e".to_owned(),
        cursor: None,
    })
}

fn refused(code: Code) -> Taken {
    Err(NotTaken::new(Refusal::new(code, ""), Some("e".to_owned())))
}

/// For some of its users it is stored, not for these.
fn left(code: Code, users: &[&str]) -> Taken {
    let users = users.iter().map(|user| (*user).to_owned()).collect();
    Err(NotTaken::in_part(Refusal::new(code, ""), "e".to_owned(), users))
}

/// The letters of these events as code, which events, and JSON.
fn kept(door: Door, shape: Shape, events: &[Value], taken: &[Taken]) -> Vec<(Code, Range<usize>, Value)> {
    let sender = Sender {
        tenant: Tenant::default(),
        publisher: "desk".into(),
        may: May::Administrator,
    };
    let body = match shape {
        Shape::One => events[0].to_string(),
        _ => Value::from(events).to_string(),
    };
    let places: Vec<_> = match shape {
        Shape::One => std::iter::once(0..body.len()).collect(),
        _ => {
            let drafts = Draft::parse_batch(body.as_bytes()).unwrap();
            drafts.into_iter().map(|(place, _)| place).collect()
        }
    };
    let lines = places.into_iter().map(|place| Line {
        original_bytes: place.len(),
        place,
    });
    let lines: Vec<Line> = lines.collect();
    let request = Request {
        door,
        sender: &sender,
        room: None,
        audience: None,
        backfill: false,
        origin: "/v1/events",
        shape,
        body: Bytes::from(body),
        original: (door == Door::Http && shape == Shape::Together)
            .then(|| Bytes::from_static(b"\"trigger\"")),
    };
    let letters = letters(&request, &lines, taken);
    let read = |letter: Kept| {
        assert_eq!(letter.original_bytes, letter.bytes.len());
        let json = serde_json::from_slice(&letter.bytes).unwrap();
        (letter.refusal.code, letter.of, json)
    };
    letters.into_iter().map(read).collect()
}

#[test]
fn a_letter_holds_what_is_left_and_only_once() {
    use Code::{Conflict, TooManyKeys, Unavailable, Unknown};
    let one = || json!({ "type": "t", "users": "u1,u2,somebody-else", "data": { "n": 1 } });
    let room = || json!({ "id": "e", "type": "t", "room": "bookings" });
    let with_id = |mut event: Value| {
        event["id"] = json!("e");
        event
    };
    let for_users = |users: &str| {
        let mut event = with_id(one());
        event["users"] = json!(users);
        event
    };
    let both = || [room(), one()];
    let (http, again) = (Door::Http, Door::Replay);
    // An event by itself.
    let check = |door, taken: Taken, expected: Option<(Code, Value)>| {
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(code, json)| (code, 0..1, json))
            .collect();
        assert_eq!(
            kept(door, Shape::One, &[one()], std::slice::from_ref(&taken)),
            expected,
            "{door:?} {taken:?}"
        );
    };
    check(http, stored(), None);
    check(http, refused(Conflict), Some((Conflict, one())));
    check(http, refused(Unavailable), None);
    check(http, left(Conflict, &["u2"]), Some((Conflict, for_users("u2"))));
    check(http, left(Unavailable, &["u2"]), None);
    check(
        http,
        left(Conflict, &["a,b", " 5%"]),
        Some((Conflict, for_users("a%2Cb,%205%25"))),
    );
    check(again, refused(Conflict), None);
    check(again, refused(Unknown), None);
    check(again, left(Conflict, &["u2"]), Some((Conflict, for_users("u2"))));
    check(
        again,
        left(Unavailable, &["u2"]),
        Some((Unavailable, for_users("u2"))),
    );
    check(again, left(Unknown, &["u2"]), Some((Unknown, for_users("u2"))));

    // A batch: each by itself; of a letter all that is left, once something of it is stored.
    let check = |door, taken: [Taken; 2], expected: &[(Code, usize, Value)]| {
        let found = kept(door, Shape::Batch, &both(), &taken);
        let expected = expected
            .iter()
            .cloned()
            .map(|(code, of, json)| (code, of..of + 1, json));
        assert_eq!(found, expected.collect::<Vec<_>>(), "{door:?} {taken:?}");
    };
    check(http, [stored(), refused(Unavailable)], &[]);
    check(
        http,
        [refused(Conflict), refused(Unavailable)],
        &[(Conflict, 0, room())],
    );
    check(again, [refused(Conflict), refused(Unavailable)], &[]);
    check(
        again,
        [stored(), refused(Unavailable)],
        &[(Unavailable, 1, one())],
    );
    check(
        again,
        [stored(), refused(Unknown)],
        &[(Unknown, 1, with_id(one()))],
    );
    check(
        again,
        [refused(Conflict), left(Unavailable, &["u1"])],
        &[(Conflict, 0, room()), (Unavailable, 1, for_users("u1"))],
    );

    // A trigger: one letter, as it came or what is left of it.
    let check = |door, taken: [Taken; 2], expected: Option<(Code, Value)>| {
        let found = kept(door, Shape::Together, &both(), &taken);
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(code, json)| (code, 0..2, json))
            .collect();
        assert_eq!(found, expected, "{door:?} {taken:?}");
    };
    check(http, [stored(), stored()], None);
    check(
        http,
        [refused(TooManyKeys), refused(Conflict)],
        Some((TooManyKeys, json!("trigger"))),
    );
    check(http, [refused(TooManyKeys), refused(Unavailable)], None);
    check(
        http,
        [refused(TooManyKeys), stored()],
        Some((TooManyKeys, json!([room()]))),
    );
    check(
        http,
        [stored(), left(Conflict, &["u2"])],
        Some((Conflict, json!([for_users("u2")]))),
    );
    check(
        http,
        [refused(TooManyKeys), left(Conflict, &["u2"])],
        Some((TooManyKeys, json!([room(), for_users("u2")]))),
    );
    check(again, [refused(TooManyKeys), refused(Conflict)], None);
    check(
        again,
        [stored(), left(Unknown, &["u1"])],
        Some((Unknown, json!([for_users("u1")]))),
    );
}

#[test]
fn events_that_are_one_have_one_answer() {
    use Code::{Conflict, TooManyKeys, Unavailable};
    let known = Ok(Receipt {
        outcome: Outcome::Duplicate,
        id: "e".to_owned(),
        cursor: Some("c".to_owned()),
    });
    let whole = together(&[known, stored()]).unwrap();
    assert_eq!(
        (whole.outcome, whole.cursor.as_deref()),
        (Outcome::Stored, Some("c"))
    );
    let rows = [
        ([refused(TooManyKeys), refused(Conflict)], TooManyKeys, false),
        ([refused(TooManyKeys), refused(Unavailable)], Unavailable, false),
        ([refused(TooManyKeys), stored()], TooManyKeys, true),
        ([stored(), left(Conflict, &["u1"])], Conflict, true),
        ([refused(TooManyKeys), left(Conflict, &["u1"])], TooManyKeys, true),
    ];
    for (taken, code, in_part) in rows {
        let not_taken = together(&taken).unwrap_err();
        assert_eq!(
            (not_taken.refusal.code, not_taken.left.is_some()),
            (code, in_part),
            "{taken:?}"
        );
        let says = not_taken.refusal.detail.matches("under the id \"e\"").count();
        assert_eq!(says, usize::from(in_part), "{not_taken:?}");
    }
    assert_eq!(together(&[]).unwrap_err().refusal.code, Code::Unavailable);
}

/// Events that are refused, for whose letters there is no room: what is stored in part is told as it is, and its letter stays.
#[test]
fn without_room_for_letters_what_is_stored_in_part_is_told_all_the_same() {
    use Code::{Conflict, Rate, TooManyKeys};
    let apart = |taken: &[Taken]| (0..taken.len()).map(|one| one..one + 1).collect();
    let whole = |taken: &[Taken]| std::iter::once(0..taken.len()).collect();
    type Letters = fn(&[Taken]) -> Vec<Range<usize>>;
    type Row = (Letters, [Taken; 2], [Option<Code>; 2], usize);
    let rows: [Row; 5] = [
        (
            apart,
            [refused(Conflict), refused(TooManyKeys)],
            [Some(Rate), Some(Rate)],
            0,
        ),
        (
            apart,
            [refused(Conflict), left(Conflict, &["u1"])],
            [Some(Rate), Some(Conflict)],
            1,
        ),
        (
            whole,
            [refused(Conflict), refused(TooManyKeys)],
            [Some(Rate), Some(Rate)],
            0,
        ),
        (whole, [stored(), refused(Conflict)], [None, Some(Conflict)], 1),
        (
            whole,
            [refused(TooManyKeys), left(Conflict, &["u1"])],
            [Some(TooManyKeys), Some(Conflict)],
            1,
        ),
    ];
    for (of, mut taken, codes, letters) in rows {
        let said = format!("{taken:?}");
        let letter = |of| Kept {
            of,
            refusal: Refusal::new(Conflict, ""),
            bytes: Bytes::new(),
            original_bytes: 0,
        };
        let mut kept: Vec<Kept> = of(&taken).into_iter().map(letter).collect();
        over(&mut kept, &mut taken, &Refusal::new(Rate, ""));
        let told = taken
            .each_ref()
            .map(|one| one.as_ref().err().map(|one| one.refusal.code));
        assert_eq!((told, kept.len()), (codes, letters), "{said}");
    }
}

proptest::proptest! {
    /// Whatever subjects are called, those and no others are read again.
    #[test]
    fn subjects_are_read_back(users in proptest::collection::vec("[a%, \u{a0}é/0-9]{1,6}", 1..5)) {
        let mut users = users;
        users.dedup();
        let taken = left(Code::Conflict, &users.iter().map(String::as_str).collect::<Vec<_>>());
        let letters = kept(Door::Http, Shape::One, &[json!({ "type": "t", "users": "x" })], &[taken]);
        let text = letters[0].2["users"].as_str().unwrap().to_owned();
        let decoded = |part: &str| {
            let mut bytes = Vec::new();
            let mut rest = part.trim().as_bytes();
            while let Some((first, others)) = rest.split_first() {
                let coded = *first == b'%';
                bytes.push(if coded { u8::from_str_radix(std::str::from_utf8(&others[..2]).unwrap(), 16).unwrap() } else { *first });
                rest = if coded { &others[2..] } else { others };
            }
            String::from_utf8(bytes).unwrap()
        };
        proptest::prop_assert_eq!(text.split(',').map(decoded).collect::<Vec<_>>(), users);
    }
}
