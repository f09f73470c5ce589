use std::collections::HashMap;

use proptest::prelude::*;
use roomcast_access::{Policy, Principal};

use super::*;

const POLICY: &str = "
version: 1
roles:
  staff: { permissions: [see] }
  admin: { inherits: [staff] }
rooms:
  - { room: a, subscribe: see }
  - { room: b, subscribe: see }
  - { room: c, subscribe: see }
  - { room: quick, subscribe: see, flush_ms: 0 }
  - { room: short, subscribe: see, flush_ms: 5 }
";

fn permit(role: &str, room: &str) -> Arc<Subscribe> {
    let policy = Policy::parse(POLICY, "policy.yaml").unwrap();
    let principal = Principal {
        tenant: Tenant::default(),
        subject: "u1".into(),
        roles: vec![role.to_owned()],
        claims: serde_json::Map::new(),
        expires_at: 0,
        issued_at: None,
        token_id: None,
    };
    let room = Room::parse(room).unwrap();
    Arc::new(policy.rights(&principal).subscribe(&room).unwrap())
}

fn member(connection: u32) -> Member {
    Member {
        connection,
        slot: 0,
        skip: Position::default(),
        behind: false,
        encoding: if connection.is_multiple_of(8) {
            Encoding::Protobuf
        } else {
            Encoding::Json
        },
    }
}

#[test]
fn a_member_is_as_small_as_the_fan_out_counts_on() {
    assert_eq!(size_of::<Member>(), 32);
}

#[test]
fn a_rooms_own_window_counts_unless_nothing_waits_any_more() {
    // The second offer at one instant is still in hand; the fourth would wait for a whole window.
    let due = |room: &str, usual: u64| {
        let mut members = Members::default();
        let permit = permit("staff", room);
        members.join(&permit, member(1), 0);
        let at = members.find(permit.tenant(), permit.room()).unwrap();
        let turns: Vec<_> = (0..4)
            .map(|_| members.offer(at, &[], 1_000, usual).unwrap())
            .collect();
        match turns[3] {
            Turn::From(due) => Some(due - 1_000),
            Turn::AtOnce => None,
            other => panic!("{other:?}"),
        }
    };
    for (room, usual, expected) in [
        ("a", 20, Some(20)),
        ("a", 1_000, Some(1_000)),
        ("short", 20, Some(5)),
        ("quick", 20, None),
        ("a", 0, None),
        ("short", 0, None),
    ] {
        assert_eq!(due(room, usual), expected, "{room}, usually {usual}");
    }
}

#[test]
fn pages_of_rooms_follow_each_other_without_hole_or_double() {
    let mut members = Members::default();
    for (connection, room) in [(1, "c"), (2, "a"), (3, "b"), (4, "a"), (8, "a")] {
        members.join(&permit("staff", room), member(connection), 0);
    }
    let page = |tenant: Option<&Tenant>, after: Option<&str>, limit| -> Vec<(String, usize)> {
        let after = after.map(|room| ("main".to_owned(), room.to_owned()));
        let page = members.page(tenant, after, limit).into_iter();
        page.map(|(_, room, count)| (room.as_str().to_owned(), count))
            .collect()
    };
    let named = |rooms: &[(&str, usize)]| -> Vec<(String, usize)> {
        rooms
            .iter()
            .map(|(room, count)| ((*room).to_owned(), *count))
            .collect()
    };
    assert_eq!(page(None, None, 2), named(&[("a", 3), ("b", 1)]));
    assert_eq!(page(None, Some("b"), 2), named(&[("c", 1)]));
    assert_eq!(page(None, Some("c"), 2), named(&[]));
    assert_eq!(page(Some(&Tenant::parse("acme").unwrap()), None, 2), named(&[]));
    assert_eq!(
        page(Some(&Tenant::default()), Some("aa"), 9),
        named(&[("b", 1), ("c", 1)])
    );
}

#[test]
fn one_permit_in_two_encodings_is_two_classes_of_one_room() {
    let mut members = Members::default();
    let (json, _) = members.join(&permit("staff", "a"), member(1), 0);
    let (protobuf, first) = members.join(&permit("staff", "a"), member(8), 0);
    let (again, _) = members.join(&permit("staff", "a"), member(16), 0);
    assert!(!first && json.class != protobuf.class && protobuf.class == again.class);
    assert!(
        members.leave(json).emptied.is_none(),
        "the room has members still"
    );
    assert!(members.leave(again).emptied.is_none());
    assert!(members.leave(protobuf).emptied.is_some());
}

#[test]
fn equal_permits_share_a_class_and_the_first_and_last_are_told() {
    let mut members = Members::default();
    let (_, first) = members.join(&permit("staff", "a"), member(1), 0);
    let (second, again) = members.join(&permit("staff", "a"), member(2), 0);
    let (third, _) = members.join(&permit("admin", "a"), member(3), 0);
    assert!(first && !again);
    let at = members
        .find(&Tenant::default(), &Room::parse("a").unwrap())
        .unwrap();
    let sizes: Vec<usize> = members
        .room(at)
        .unwrap()
        .classes
        .iter()
        .map(|(_, class)| class.members.len())
        .collect();
    assert_eq!(sizes, [2, 1]);
    assert!(members.leave(third).emptied.is_none());
    assert!(members.leave(second).emptied.is_none());
    let (seat, _) = members.join(&permit("staff", "a"), member(4), 0);
    // The first one is moved to the seat of none: it has index 0 and leaves last.
    assert_eq!(
        members
            .leave(Seat { index: 0, ..seat })
            .moved
            .map(|(moved, _)| moved.connection),
        Some(4)
    );
    assert!(members.leave(Seat { index: 0, ..seat }).emptied.is_some());
    assert!(
        members
            .find(&Tenant::default(), &Room::parse("a").unwrap())
            .is_none()
    );
    assert_eq!(
        (members.rooms(), members.leave(seat).emptied.is_some()),
        (0, false)
    );
}

proptest! {
    /// Against a plain list: whoever joined and did not leave is there, once, on the seat that was last told.
    #[test]
    fn seats_stay_right_through_any_joins_and_leaves(steps in prop::collection::vec((0_usize..3, 0_usize..2, any::<bool>(), any::<prop::sample::Index>()), 0..80)) {
        let rooms = ["a", "b", "c"];
        let roles = ["staff", "admin"];
        let mut members = Members::default();
        let mut seats: HashMap<u32, (usize, Seat)> = HashMap::new();
        for (n, (room, role, join, pick)) in steps.into_iter().enumerate() {
            let connection = u32::try_from(n).unwrap();
            if join || seats.is_empty() {
                let (seat, first) = members.join(&permit(roles[role], rooms[room]), member(connection), 0);
                prop_assert_eq!(first, seats.values().all(|(other, _)| *other != room));
                seats.insert(connection, (room, seat));
            } else {
                let mut keys: Vec<u32> = seats.keys().copied().collect();
                keys.sort_unstable();
                let leaving = keys[pick.index(keys.len())];
                let (room, seat) = seats.remove(&leaving).unwrap();
                prop_assert_eq!(members.member_mut(seat).map(|member| member.connection), Some(leaving));
                let left = members.leave(seat);
                if let Some((moved, seat)) = left.moved {
                    seats.get_mut(&moved.connection).unwrap().1 = seat;
                }
                prop_assert_eq!(left.emptied.is_some(), seats.values().all(|(other, _)| *other != room));
            }
            for (connection, (_, seat)) in &seats {
                prop_assert_eq!(members.member_mut(*seat).map(|member| member.connection), Some(*connection));
            }
        }
    }
}
