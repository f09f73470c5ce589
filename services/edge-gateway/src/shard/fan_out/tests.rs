use std::collections::{BTreeMap, BinaryHeap};

use proptest::prelude::*;
use roomcast_access::{Policy, Principal, Subscribe};
use roomcast_proto::cursor::{Epoch, Position};
use roomcast_proto::ids::{Audience, Room, Tenant};

use super::*;
use crate::delivery::Address;
use crate::members::{Members, Seat};

const WINDOW: u64 = 20;
const ROOMS: [&str; 2] = ["a", "b"];
const ROLES: [&str; 2] = ["staff", "admin"];

fn policy() -> Policy {
    let text = "
version: 1
roles:
  staff: { permissions: [see] }
  admin: { inherits: [staff] }
rooms:
  - { room: a, subscribe: see }
  - { room: b, subscribe: see }
";
    Policy::parse(text, "policy.yaml").unwrap()
}

fn permit(policy: &Policy, role: &str, room: &str) -> Arc<Subscribe> {
    let principal = Principal {
        tenant: Tenant::default(),
        subject: "u1".into(),
        roles: vec![role.to_owned()],
        claims: serde_json::Map::new(),
        expires_at: i64::MAX,
        issued_at: None,
        token_id: None,
    };
    let rights = policy.rights(&principal);
    Arc::new(rights.subscribe(&Room::parse(room).unwrap()).unwrap())
}

fn delivery(policy: &Policy, room: &str, audience: &str, kind: Kind, position: Position) -> Arc<Delivery> {
    let address = Address {
        tenant: Tenant::default(),
        room: Room::parse(room).unwrap(),
        audience: policy.audience(audience),
        audience_name: Audience::parse(audience).unwrap(),
        meter: crate::delivery::Meter::default(),
    };
    let mark = Some(crate::delivery::Mark {
        epoch: Epoch::of_streams("a", "b"),
        time_bits: 1,
        cursors: roomcast_proto::cursor::Cursors::plain(),
    })
    .filter(|_| kind != Kind::Ephemeral);
    Arc::new(Delivery::new(address, kind, position, mark, None, b"{}"))
}

fn value(key: &str) -> Kind {
    Kind::State {
        key: key.into(),
        withdrawn: false,
    }
}

#[test]
fn of_each_key_the_newest_value_is_left_where_it_stands() {
    let policy = policy();
    let kinds = [
        value("k"),
        Kind::Event,
        value("l"),
        value("k"),
        Kind::Ephemeral,
        value("k"),
        Kind::Event,
    ];
    let made = |(n, kind)| delivery(&policy, "a", "all", kind, Position { seq: 0, rev: n });
    let events: Vec<_> = (0..).zip(kinds).map(made).collect();
    let events: Vec<_> = events.iter().collect();
    let left = |events: &[&Arc<Delivery>]| -> Vec<u64> {
        newest_values(events)
            .iter()
            .map(|event| event.position.rev)
            .collect()
    };
    assert_eq!(left(&events), [1, 2, 4, 5, 6]);
    assert_eq!(left(&events[..1]), [0]);
    assert_eq!(left(&[]), [] as [u64; 0]);
}

/// A shard without sockets: rooms, members, the rhythm of flushes, and what each member is written.
struct Model {
    policy: Policy,
    members: Members,
    gathering: BinaryHeap<Reverse<(u64, usize)>>,
    now: u64,
    head: Position,
    /// By position: when it was offered.
    offered: BTreeMap<(u64, u64), u64>,
    seats: BTreeMap<u32, (usize, Seat)>,
    /// What each connection was written: with the window, and what it would be without.
    written: BTreeMap<u32, Vec<Arc<Delivery>>>,
    expected: BTreeMap<u32, Vec<Arc<Delivery>>>,
}

impl Model {
    fn new() -> Self {
        Self {
            policy: policy(),
            members: Members::default(),
            gathering: BinaryHeap::new(),
            now: 1_000,
            head: Position::default(),
            offered: BTreeMap::new(),
            seats: BTreeMap::new(),
            written: BTreeMap::new(),
            expected: BTreeMap::new(),
        }
    }

    fn write(&mut self, at: usize, events: &[Arc<Delivery>], expected: bool) {
        let now = Now::default();
        let mut tally = Tally::default();
        for (_, class) in &self.members.room(at).unwrap().classes {
            if expected {
                for event in events.iter().filter(|event| event.visible(&class.permit, 0)) {
                    for member in class.members.iter().filter(|member| !member.has(event)) {
                        self.expected
                            .entry(member.connection)
                            .or_default()
                            .push(Arc::clone(event));
                    }
                }
                continue;
            }
            let as_it_is = |event: &Arc<Delivery>| Some(Arc::clone(event));
            for (event, _) in seen(class, events, as_it_is, now, &mut tally).unwrap() {
                for member in class.members.iter().filter(|member| !member.has(&event)) {
                    self.written
                        .entry(member.connection)
                        .or_default()
                        .push(Arc::clone(&event));
                }
            }
        }
        if !expected {
            for event in events {
                let since = self.offered[&(event.position.seq, event.position.rev)];
                assert!(self.now <= since + WINDOW, "waited from {since} to {}", self.now);
            }
        }
    }

    fn flush(&mut self, at: usize) {
        let events = self.members.take_gathered(at, self.now, WINDOW);
        self.write(at, &events, false);
    }

    /// Stored, offered, and written where it is time.
    fn publish(&mut self, room: &str, audience: &str, kind: Kind) {
        match kind {
            Kind::Event => self.head.seq += 1,
            Kind::State { .. } | Kind::Ephemeral => self.head.rev += 1,
        }
        let event = delivery(&self.policy, room, audience, kind, self.head);
        self.offered.insert((self.head.seq, self.head.rev), self.now);
        let Some(at) = self.members.find(&event.tenant, &event.room) else {
            return;
        };
        let events = [event];
        self.write(at, &events, true);
        match self.members.offer(at, &events, self.now, WINDOW).unwrap() {
            Turn::AtOnce => self.write(at, &events, false),
            Turn::From(due) => self.gathering.push(Reverse((due, at))),
            Turn::Full => self.flush(at),
            Turn::Waits => {}
        }
    }

    fn pass(&mut self, millis: u64) {
        let to = self.now + millis;
        while let Some(Reverse((due, at))) = self
            .gathering
            .peek()
            .copied()
            .filter(|Reverse((due, _))| *due <= to)
        {
            self.gathering.pop();
            self.now = self.now.max(due);
            if self.members.is_due(at, due) {
                self.flush(at);
            }
        }
        self.now = to;
    }

    /// What the hub would have answered covers everything up to the head, so that is skipped.
    fn join(&mut self, connection: u32, role: &str, room: usize) {
        let member = Member {
            connection,
            slot: 0,
            skip: self.head,
            behind: false,
            encoding: Encoding::Json,
        };
        let permit = permit(&self.policy, role, ROOMS[room]);
        let (seat, _) = self.members.join(&permit, member, 0);
        self.seats.insert(connection, (room, seat));
    }

    /// Leaves, after everything that waits was written: what a client that leaves does not hear is its own choice.
    fn leave(&mut self, connection: u32) {
        self.pass(WINDOW);
        let Some((_, seat)) = self.seats.remove(&connection) else {
            return;
        };
        if let Some((moved, seat)) = self.members.leave(seat).moved {
            self.seats.get_mut(&moved.connection).unwrap().1 = seat;
        }
    }
}

fn positions(list: &[Arc<Delivery>], kind: impl Fn(&Kind) -> bool) -> Vec<Position> {
    let of_kind = list.iter().filter(|event| kind(&event.kind));
    of_kind.map(|event| event.position).collect()
}

/// The key of a value.
fn key(event: &Delivery) -> Option<&str> {
    match &event.kind {
        Kind::State { key, .. } => Some(key),
        _ => None,
    }
}

proptest! {
    /// Whatever comes, joins, leaves and however time passes: each member is written the events it would be written
    /// without a window, in the same order, each within the window; of each key the same last value; and whoever is cut
    /// off behind any frame has, for its cursor, every value that is not replaced later.
    #[test]
    fn a_window_changes_when_and_not_what(
        steps in prop::collection::vec((0_u8..10, 0_usize..2, 0_usize..2, 0_u64..30), 0..150)
    ) {
        let mut model = Model::new();
        for (n, (what, room, role, size)) in (0_u32..).zip(steps) {
            let audience = ["all", "admin"][role];
            match what {
                0..=2 => model.publish(ROOMS[room], audience, Kind::Event),
                3 | 4 => model.publish(ROOMS[room], audience, value(["k", "l"][usize::from(size > 15)])),
                5 => model.publish(ROOMS[room], audience, Kind::Ephemeral),
                6 => model.join(n, ROLES[role], room),
                7 => {
                    if let Some(connection) = model.seats.keys().nth(role).copied() {
                        model.leave(connection);
                    }
                }
                _ => model.pass(size),
            }
        }
        model.pass(WINDOW);
        for (connection, expected) in &model.expected {
            let written = &model.written[connection];
            prop_assert_eq!(positions(written, |kind| *kind == Kind::Event), positions(expected, |kind| *kind == Kind::Event));
            // One that has just joined may hear an ephemeral event of the moment before.
            let heard = positions(written, |kind| *kind == Kind::Ephemeral);
            for position in positions(expected, |kind| *kind == Kind::Ephemeral) {
                prop_assert_eq!(heard.iter().filter(|heard| **heard == position).count(), 1);
            }
            let order = |event: &Arc<Delivery>| (event.position.seq, event.position.rev);
            prop_assert!(written.is_sorted_by_key(order));
            for name in ["k", "l"] {
                let last = |list: &[Arc<Delivery>]| list.iter().rfind(|event| key(event) == Some(name)).map(|event| event.position);
                prop_assert_eq!(last(written), last(expected));
            }
            for cut in written {
                for name in ["k", "l"] {
                    let of_key = || expected.iter().filter(|event| key(event) == Some(name));
                    let due = of_key().rfind(|event| event.position.rev <= cut.position.rev);
                    let newer = of_key().any(|event| event.position.rev > cut.position.rev);
                    let has = |due: &Arc<Delivery>| written.iter().any(|event| event.position == due.position);
                    prop_assert!(newer || due.is_none_or(has));
                }
            }
        }
        for connection in model.written.keys() {
            let heard = &model.written[connection];
            let more = positions(heard, |kind| *kind != Kind::Ephemeral);
            prop_assert!(more.is_empty() || model.expected.contains_key(connection));
        }
    }
}
