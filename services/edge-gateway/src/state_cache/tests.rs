use roomcast_access::{Policy, Principal, Rights, Subscribe};
use roomcast_proto::cursor::{Cursors, Epoch, Position};
use roomcast_proto::ids::{Audience, Room, Tenant};

use super::*;
use crate::delivery::{Address, Mark};

const POLICY: &str = "
version: 1
roles:
  staff: { permissions: [see] }
  admin: { inherits: [staff], permissions: [] }
rooms:
  - { room: board, subscribe: see }
";

struct Board {
    cache: StateCache,
    policy: Policy,
    key: Arc<str>,
}

impl Board {
    fn new() -> Self {
        let policy = Policy::parse(POLICY, "policy.yaml").unwrap();
        let mut cache = StateCache::new(usize::MAX);
        let key: Arc<str> = "main.board".into();
        cache.finish(&key, []);
        Self { cache, policy, key }
    }

    fn permit(&self, role: &str) -> Subscribe {
        rights(&self.policy, role)
            .subscribe(&Room::parse("board").unwrap())
            .unwrap()
    }

    fn value(&self, key: &str, audience: &str, rev: u64, withdrawn: bool) -> Delivery {
        let address = Address {
            tenant: Tenant::default(),
            room: Room::parse("board").unwrap(),
            audience: self.policy.audience(audience),
            audience_name: Audience::parse(audience).unwrap(),
            meter: crate::delivery::Meter::default(),
        };
        let kind = Kind::State {
            key: key.into(),
            withdrawn,
        };
        let mark = Some(Mark {
            epoch: Epoch::of_streams("a", "b"),
            time_bits: 0,
            cursors: Cursors::plain(),
        });
        let body = format!("{{\"{key}\":{rev}}}");
        Delivery::new(
            address,
            kind,
            Position { seq: 0, rev },
            mark,
            None,
            body.as_bytes(),
        )
    }

    fn set(&mut self, key: &str, audience: &str, rev: u64, withdrawn: bool, ends: Option<i64>) {
        let value = Arc::new(self.value(key, audience, rev, withdrawn));
        let room = Arc::clone(&self.key);
        self.cache.apply(&room, value, ends);
    }

    /// Positions of what a member gets, `-` before withdrawals.
    fn seen(&mut self, role: &str, rev: u64, withdrawn: bool) -> Vec<i64> {
        let permit = self.permit(role);
        let values = self.cache.values_after("main.board", rev);
        let changed = newest(&values, &permit, rev, withdrawn, 0);
        assert!(changed.iter().all(|value| value.cursor().is_none()));
        let sign = |value: &Delivery| {
            if matches!(value.kind, Kind::State { withdrawn: true, .. }) {
                -1
            } else {
                1
            }
        };
        changed
            .iter()
            .map(|value| sign(value) * i64::try_from(value.position.rev).unwrap())
            .collect()
    }
}

fn rights(policy: &Policy, role: &str) -> Rights {
    policy.rights(&Principal {
        tenant: Tenant::default(),
        subject: "u1".into(),
        roles: vec![role.to_owned()],
        claims: serde_json::Map::new(),
        expires_at: i64::MAX,
        issued_at: None,
        token_id: None,
    })
}

#[test]
fn everybody_gets_the_newest_they_may_see() {
    let mut board = Board::new();
    board.set("a", "staff", 1, false, None);
    board.set("a", "admin", 2, false, None);
    board.set("b", "staff", 3, false, None);
    assert_eq!(board.seen("admin", 0, false), [2, 3]);
    assert_eq!(board.seen("staff", 0, false), [1, 3]);
    assert_eq!(board.seen("staff", 1, false), [3]);
    assert!(board.seen("admin", 3, false).is_empty());
}

#[test]
fn a_withdrawn_value_ends_only_its_own_audiences() {
    let mut board = Board::new();
    board.set("a", "staff", 1, false, None);
    board.set("a", "admin", 2, false, None);
    board.set("a", "admin", 3, true, None);
    assert_eq!(board.seen("admin", 2, true), [1], "staff's value holds again");
    assert!(
        board.seen("staff", 2, true).is_empty(),
        "nothing changed for staff"
    );
    board.set("a", "staff", 4, true, None);
    assert_eq!(board.seen("admin", 3, true), [-4]);
    assert!(
        board.seen("admin", 0, false).is_empty(),
        "a fresh client holds nothing that could be withdrawn"
    );
    let permit = board.permit("admin");
    assert!(board.cache.newest(&permit, "main.board", "a", 0).is_none());
}

#[test]
fn older_values_never_replace_newer_ones() {
    let mut board = Board::new();
    board.cache = StateCache::new(usize::MAX);
    let key = Arc::clone(&board.key);
    board.set("a", "staff", 9, false, None);
    assert!(
        board.cache.loaded_to(&key).is_none() && board.cache.sizes().1 == 0,
        "nobody asked for this room"
    );
    board.cache.begin(&key);
    board.set("a", "staff", 9, false, None);
    let (old, other) = (
        board.value("a", "staff", 5, false),
        board.value("b", "staff", 6, false),
    );
    board.cache.finish(&key, [(old, None), (other, None)]);
    assert_eq!(board.seen("staff", 0, false), [6, 9]);
}

#[test]
fn values_end_by_themselves() {
    let mut board = Board::new();
    board.set("a", "staff", 1, false, Some(1_000));
    board.set("b", "staff", 2, false, Some(1_000));
    board.set("b", "staff", 3, false, None);
    board.cache.expire(999);
    assert_eq!(board.seen("staff", 0, false), [1, 3]);
    board.cache.expire(1_000);
    assert_eq!(
        board.seen("staff", 0, false),
        [3],
        "the value that replaced one that ends does not end"
    );
    assert_eq!(board.cache.sizes().1, 1);
}

#[test]
fn rooms_with_members_stay_and_others_go_by_use() {
    let mut board = Board::new();
    let key = Arc::clone(&board.key);
    board.cache.hold(&key);
    for room in ["main.x", "main.y", "main.z"] {
        board.cache.finish(&room.into(), []);
    }
    board.cache.values_after("main.x", 0);
    board.cache.bytes_max = ROOM_BYTES;
    board.cache.finish(&"main.w".into(), []);
    let loaded: Vec<bool> = ["main.board", "main.x", "main.y", "main.z", "main.w"]
        .iter()
        .map(|room| board.cache.loaded_to(room).is_some())
        .collect();
    assert_eq!(loaded, [true, false, false, false, true]);
    board.cache.bytes_max = 0;
    board.cache.release(&key);
    assert_eq!(board.cache.loaded_to("main.w"), None);
    assert_eq!(board.cache.sizes(), (1, 0, ROOM_BYTES), "the last one stays");
}

/// Rooms with members weigh more than all others may: who asks for one more room still finds it when it has been read.
#[test]
fn a_room_that_was_read_is_there_for_who_waits_for_it() {
    let mut board = Board::new();
    let key = Arc::clone(&board.key);
    board.cache.hold(&key);
    board.set("a", "staff", 1, false, None);
    board.cache.bytes_max = 1;
    let asked: Arc<str> = "main.asked".into();
    board.cache.begin(&asked);
    let read = board.value("k", "staff", 2, false);
    board.cache.finish(&asked, [(read, None)]);
    assert_eq!(board.cache.loaded_to(&asked), Some(2));
}

/// A user's own room, read when somebody asked for it.
struct Own {
    board: Board,
    key: Arc<str>,
}

impl Own {
    fn new() -> Self {
        let mut own = Self {
            board: Board::new(),
            key: "main.user.u1".into(),
        };
        own.board.cache.rest(0);
        own.board.cache.hold(&own.key);
        own.read(&[(1, "all"), (2, "all")]);
        own
    }

    fn read(&mut self, values: &[(u64, &str)]) {
        self.board.cache.begin(&self.key);
        let values: Vec<_> = values
            .iter()
            .map(|(rev, audience)| (self.board.value(&rev.to_string(), audience, *rev, false), None))
            .collect();
        self.board.cache.finish(&self.key, values);
    }

    fn comes(&mut self, key: &str, audience: &str, rev: u64, withdrawn: bool) -> Delivery {
        let value = || self.board.value(key, audience, rev, withdrawn);
        let (value, same) = (value(), value());
        self.board.cache.apply(&self.key, Arc::new(value), None);
        same
    }

    fn rests(&mut self, millis: i64) {
        let now_millis = self.board.cache.now_millis + millis;
        self.board.cache.rest(now_millis);
    }

    fn is_here(&self) -> bool {
        self.board.cache.loaded_to(&self.key).is_some()
    }
}

#[test]
fn a_users_own_room_is_emptied_after_the_last_who_asked() {
    let mut own = Own::new();
    let empty = ROOM_BYTES * 2;
    own.rests(OWN_MILLIS - 1);
    own.board.cache.values_after(&own.key, 0);
    own.rests(1);
    assert!(own.is_here(), "it was asked for just now");
    own.rests(OWN_MILLIS - 1);
    assert!(!own.is_here());
    assert_eq!(own.board.cache.sizes(), (2, 0, empty), "nothing of it is left");
    let (idle, held) = (own.board.cache.idle.len(), own.board.cache.own.len());
    assert_eq!(
        (idle, held, own.board.cache.idle_bytes),
        (1, 0, ROOM_BYTES),
        "the board alone"
    );

    // What comes meanwhile is not kept, and a room that is read again is whole.
    own.comes("3", "all", 3, false);
    assert_eq!(own.board.cache.sizes().2, empty);
    own.read(&[(1, "all"), (2, "all"), (3, "all")]);
    assert_eq!(own.board.cache.values_after(&own.key, 0).len(), 3);
    // Nobody is there any more: it goes as all rooms do, by what they weigh.
    own.board.cache.release(&own.key);
    own.rests(OWN_MILLIS);
    assert!(own.is_here());
}

/// Rooms that were empty when their user came fill up as well.
#[test]
fn an_own_room_whose_first_value_comes_later_is_emptied_too() {
    let mut own = Own::new();
    own.board.cache.remove("main.user.u1");
    own.board.cache.hold(&own.key);
    own.read(&[]);
    own.rests(OWN_MILLIS);
    assert!(own.is_here(), "nothing would be won");
    own.comes("1", "all", 1, false);
    own.rests(OWN_MILLIS);
    assert!(!own.is_here());
}

#[test]
fn what_holds_after_a_withdrawal_is_known_or_said_not_to_be() {
    let mut own = Own::new();
    let key = Arc::clone(&own.key);
    let knows = |own: &mut Own, audience: &str, rev: u64| {
        let withdrawn = own.comes("1", audience, rev, true);
        own.board.cache.knows_after(&key, &withdrawn)
    };
    assert!(knows(&mut own, "all", 3), "it is here");
    own.rests(OWN_MILLIS);
    assert!(!own.is_here());
    assert!(knows(&mut own, "all", 4), "nobody else has a value");
    assert!(!knows(&mut own, "staff", 5), "all may have one");
    assert!(!knows(&mut own, "all", 6), "staff may have one by now");
    // Read again, it stays, because there are two to whom its values belong.
    own.read(&[(7, "all"), (8, "staff")]);
    own.rests(OWN_MILLIS);
    own.rests(OWN_MILLIS);
    assert!(own.is_here());
    assert!(knows(&mut own, "all", 9));
    // A read that fails leaves what was known.
    let mut own = Own::new();
    own.rests(OWN_MILLIS);
    own.board.cache.begin(&key);
    own.comes("9", "all", 9, false);
    own.board.cache.abandon(&key);
    assert_eq!((own.is_here(), own.board.cache.sizes().1), (false, 0));
    assert!(knows(&mut own, "all", 10));
    let other = own.comes("1", "all", 11, true);
    assert!(!own.board.cache.knows_after("main.unknown", &other));
}

/// How far an own room is stays known without its values, until nobody holds it and memory is short.
#[test]
fn how_far_an_emptied_room_is_remains_known() {
    let mut own = Own::new();
    let key = Arc::clone(&own.key);
    let unchanged = |own: &Own, expected: u64| {
        (0..=9).find(|rev| own.board.cache.is_unchanged_since(&own.key, *rev)) == Some(expected)
    };
    assert!(
        (0..=9).all(|rev| !own.board.cache.is_unchanged_since(&key, rev)),
        "its values are here"
    );
    own.rests(OWN_MILLIS);
    assert!(!own.is_here() && unchanged(&own, 2));
    own.comes("1", "all", 3, false);
    own.comes("2", "all", 4, true);
    assert!(unchanged(&own, 4));
    own.board.cache.release(&key);
    assert_eq!(own.board.cache.sizes().2, ROOM_BYTES * 2, "nobody is there");
    own.comes("3", "all", 5, false);
    assert!(unchanged(&own, 5));
    // Read while something comes: what is newer than what was read counts.
    own.board.cache.begin(&key);
    own.comes("3", "all", 7, false);
    assert!(unchanged(&own, 7));
    own.read(&[(1, "all"), (5, "all")]);
    own.board.cache.hold(&key);
    own.rests(OWN_MILLIS);
    assert!(unchanged(&own, 7));
    // A room that was never read, one that is everybody's, and one that had to go.
    own.board.cache.hold(&"main.user.u2".into());
    own.board.cache.release("main.board");
    for other in ["main.user.u2", "main.board", "main.user.u3"] {
        assert!(!own.board.cache.is_unchanged_since(other, u64::MAX), "{other}");
    }
    own.board.cache.release(&key);
    own.board.cache.bytes_max = 1;
    own.board.cache.finish(&"main.user.u4".into(), []);
    assert!(!own.board.cache.is_unchanged_since(&key, u64::MAX));
    // Another stream: nothing is known any more.
    let mut own = Own::new();
    own.rests(OWN_MILLIS);
    own.board.cache.clear();
    assert!(!own.board.cache.is_unchanged_since(&key, u64::MAX));
}

/// Rooms that nobody holds are emptied before they go.
#[test]
fn a_room_that_was_left_is_emptied_first_where_memory_is_short() {
    let mut own = Own::new();
    own.board.cache.release(&own.key);
    own.board.cache.bytes_max = 2 * ROOM_BYTES;
    own.board.cache.finish(&"main.user.u4".into(), []);
    assert!(!own.is_here());
    assert!(own.board.cache.is_unchanged_since(&own.key, 2));
    let withdrawn = own.comes("1", "all", 3, true);
    assert!(own.board.cache.knows_after(&own.key, &withdrawn));
}

#[test]
fn thousands_that_rest_are_emptied_step_by_step_and_by_what_all_rooms_weigh() {
    let mut board = Board::new();
    board.cache.rest(0);
    for n in 0..30 {
        let key: Arc<str> = format!("main.user.u{n}").into();
        board.cache.hold(&key);
        let values: Vec<_> = (1..=100)
            .map(|rev| (board.value(&rev.to_string(), "all", rev, false), None))
            .collect();
        board.cache.finish(&key, values);
    }
    let left: Vec<usize> = (0..4)
        .map(|_| {
            board.cache.rest(OWN_MILLIS);
            board.cache.sizes().1
        })
        .collect();
    assert_eq!(left, [2_000, 1_000, 0, 0]);
    assert_eq!(board.cache.dropped(), (0, 30, 0));
    // Those that were read last are there for who waits for them.
    board.cache.bytes_max = 1;
    for n in 0..3 {
        let value = board.value("k", "all", 1, false);
        board
            .cache
            .finish(&format!("main.user.u{n}").into(), [(value, None)]);
    }
    let here = (0..3).filter(|n| board.cache.loaded_to(&format!("main.user.u{n}")).is_some());
    assert_eq!(here.collect::<Vec<_>>(), [2]);
}
