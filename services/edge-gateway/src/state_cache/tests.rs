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
