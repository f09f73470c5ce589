//! What the gateway's decisions cost: an event out of the log, encoded, and the walk over who gets it.
#![expect(clippy::unwrap_used, reason = "a bench stops at the first surprise")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion};
use roomcast_access::{AudienceId, Policy, Principal};
use roomcast_edge_gateway::delivery::{Address, Delivery, Kind, Mark, Meter};
use roomcast_edge_gateway::encoding::Encoding;
use roomcast_edge_gateway::members::{Member, Members};
use roomcast_edge_gateway::spine::{Holes, Placed, Spine};
use roomcast_proto::cursor::{Cursors, Epoch, Position};
use roomcast_proto::ids::{Audience, Room, Tenant};

const POLICY: &str = "version: 1\nroles: { staff: { permissions: [see] } }\nrooms: [{ room: \"bookings.{rooms}\", subscribe: see }]\n";
/// Members of a shard.
const MEMBERS: u32 = 1_000;

fn room(n: usize) -> Room {
    Room::parse(&format!("bookings.{n}")).unwrap()
}

fn delivery(n: usize, body: &[u8]) -> Delivery {
    let address = Address {
        tenant: Tenant::default(),
        room: room(n),
        audience: Some(AudienceId::ALL),
        audience_name: Audience::all(),
        meter: Meter::default(),
    };
    let mark = Mark {
        epoch: Epoch::of_streams("a", "b"),
        time_bits: 0xb0,
        cursors: Cursors::plain(),
    };
    let position = Position { seq: 1_042, rev: 77 };
    Delivery::new(address, Kind::Event, position, Some(mark), None, body)
}

/// A shard with all its members in room 0 and each in one of `rooms` others.
fn members(rooms: usize) -> Members {
    let policy = Policy::parse(POLICY, "policy.yaml").unwrap();
    let names: Vec<String> = (0..=rooms).map(|n| n.to_string()).collect();
    let mut claims = serde_json::Map::new();
    claims.insert("rooms".to_owned(), names.into());
    let rights = policy.rights(&Principal {
        tenant: Tenant::default(),
        subject: "u1".into(),
        roles: vec!["staff".to_owned()],
        claims,
        expires_at: i64::MAX,
        issued_at: None,
        token_id: None,
    });
    let mut members = Members::default();
    let mut join = |n: usize, connection: u32| {
        let permit = Arc::new(rights.subscribe(&room(n)).unwrap());
        let member = Member {
            connection,
            slot: 0,
            skip: Position::default(),
            behind: false,
            encoding: Encoding::Json,
        };
        members.join(&permit, member, 0);
    };
    for connection in 0..MEMBERS {
        join(0, connection);
    }
    for n in 1..=rooms {
        join(n, u32::try_from(n).unwrap() % MEMBERS);
    }
    members
}

fn main() {
    let criterion = &mut Criterion::default().configure_from_args();
    let body = format!(
        "{{\"specversion\":\"1.0\",\"id\":\"1\",\"data\":{{\"fill\":\"{}\"}}}}",
        "x".repeat(240)
    );
    criterion.bench_function("delivery: encode an event of 300 bytes", |b| {
        b.iter(|| delivery(0, black_box(body.as_bytes())));
    });
    let made = delivery(0, body.as_bytes());
    for rooms in [10, 10_000] {
        let members = members(rooms);
        criterion.bench_function(
            &format!("members: walk over {MEMBERS} in one of {rooms} rooms"),
            |b| {
                b.iter(|| {
                    let at = members.find(&made.tenant, &made.room).unwrap();
                    let classes = members.room(at).unwrap().classes.iter();
                    let wanting = classes.flat_map(|(_, class)| &class.members);
                    wanting.filter(|member| !member.has(black_box(&made))).count()
                });
            },
        );
    }
    let live = |sequence| Placed {
        sequence,
        time_micros: 1_770_000_000_000_000,
        bytes: 300,
        message: (),
    };
    criterion.bench_function("spine: 1,000 messages in order", |b| {
        let begin = || Spine::new(Holes::Lost, "2026-01-01T00:00:00Z".to_owned(), 1, 0);
        b.iter_batched(
            begin,
            |mut spine| {
                let mut wishes = Vec::new();
                for sequence in 1..=1_000 {
                    spine.on_live(live(sequence), 1, &mut wishes);
                    wishes.clear();
                }
                spine.next()
            },
            BatchSize::SmallInput,
        );
    });
    criterion.final_summary();
}
