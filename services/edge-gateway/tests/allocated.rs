//! What a user's notifications take of memory, counted by the allocator: a program of its own, because it counts for the whole process.
#![expect(clippy::expect_used, reason = "a test stops at the first surprise")]

use std::alloc::System;
use std::sync::Arc;

use roomcast_access::{Policy, Principal, Subscribe};
use roomcast_edge_gateway::bells::{Bells, Change, Entering, Record, Want};
use roomcast_edge_gateway::delivery::{Address, Delivery, Kind, Mark, Meter};
use roomcast_edge_gateway::place::Place;
use roomcast_edge_gateway::state_cache::{OWN_MILLIS, StateCache};
use roomcast_proto::cursor::{Cursors, Epoch, Position};
use roomcast_proto::ids::{Audience, Tenant, escape};
use roomcast_proto::notification::KEY_PREFIX;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const USERS: usize = 1_000;
/// As many as a user sees.
const NOTIFICATIONS: u64 = 200;
/// What a user with that many may take above a connection, bytes.
const BYTES_MAX: usize = 8_192;
/// The bytes of other rooms' state in memory, as is usual.
const STATE_BYTES: usize = 64 << 20;

fn permit(policy: &Policy, user: &str) -> Arc<Subscribe> {
    let rights = policy.rights(&Principal {
        tenant: Tenant::default(),
        subject: user.into(),
        roles: vec!["user".to_owned()],
        claims: serde_json::Map::new(),
        expires_at: i64::MAX,
        issued_at: None,
        token_id: None,
    });
    let own = rights.personal_room().cloned();
    Arc::new(
        rights
            .subscribe(&own.expect("a personal room"))
            .expect("it is open"),
    )
}

/// A notification as it is read from the stream.
fn notification(policy: &Policy, place: &Place, rev: u64) -> Delivery {
    let address = Address {
        tenant: place.tenant.clone(),
        room: place.room.clone(),
        audience: policy.audience("all"),
        audience_name: Audience::all(),
        meter: meter(),
    };
    let kind = Kind::State {
        key: escape(&format!("{KEY_PREFIX}n{rev}")).into(),
        withdrawn: false,
    };
    let body = format!(
        r#"{{"specversion":"1.0","id":"n{rev}","source":"/desk","type":"notification.load","time":"2026-01-01T00:00:00Z","room":"{}","priority":"high","data":{{"title":"A booking is late","body":"The guide has not arrived; the guests have.","group":"late"}}}}"#,
        place.room
    );
    let mark = Mark {
        epoch: Epoch::of_streams("a", "b"),
        time_bits: 0,
        cursors: Cursors::plain(),
    };
    Delivery::new(
        address,
        kind,
        Position { seq: 0, rev },
        Some(mark),
        None,
        body.as_bytes(),
    )
}

/// One for all, as a hub has it.
fn meter() -> Meter {
    static METER: std::sync::OnceLock<Meter> = std::sync::OnceLock::new();
    *METER.get_or_init(Meter::default)
}

/// What is held of one user's notifications.
struct Holder {
    cache: StateCache,
    bells: Bells<u64>,
    now_millis: i64,
}

impl Holder {
    /// A user comes: its room is read, it is given what it missed, and counted.
    fn come(&mut self, policy: &Policy, n: u64, read: u64) {
        let user = format!("u{n}");
        let permit = permit(policy, &user);
        let place = Place::of(&permit);
        let values = (1..=NOTIFICATIONS).map(|rev| (notification(policy, &place, rev), None));
        self.cache.begin(&place.key);
        self.cache.finish(&place.key, values);
        self.cache.hold(&place.key);
        let values = self.cache.values_after(&place.key, 0);
        let entering = Entering {
            name: n,
            to: n,
            tenant: Tenant::default(),
            user: user.as_str().into(),
            permits: vec![permit],
        };
        self.bells.enter(entering, 0);
        let marks: Vec<String> = (1..=read)
            .map(|rev| format!(r#""n{rev}":{{"as":"read","at":1}}"#))
            .collect();
        let record = format!(r#"{{"version":{read},"marks":{{{}}}}}"#, marks.join(","));
        while let Some(want) = self.bells.take_want() {
            match want {
                Want::Room(of, _) => {
                    self.bells
                        .room_read(of, NOTIFICATIONS, values.iter().filter_map(Change::of));
                }
                Want::Record(of, ..) => {
                    let record: Record = serde_json::from_str(&record).expect("a record");
                    self.bells.record_read(of, record);
                }
            }
        }
        let mut unread = None;
        self.bells
            .round(|_, _, bell| unread = Some(u64::from(bell.counters.unread)));
        assert_eq!(unread, Some(NOTIFICATIONS - read));
    }

    /// Time goes by until nothing more is given back.
    fn rest(&mut self) {
        self.now_millis += OWN_MILLIS;
        let mut before = usize::MAX;
        while self.cache.sizes().2 < before {
            before = self.cache.sizes().2;
            self.cache.rest(self.now_millis);
        }
    }
}

#[test]
fn a_user_with_many_notifications_takes_little() {
    let policy =
        "version: 1\nroles: { user: { permissions: [see] } }\nrooms: [{ room: hall, subscribe: see }]\n";
    let policy = Policy::parse(policy, "policy.yaml").expect("a policy");
    let mut holder = Holder {
        cache: StateCache::new(STATE_BYTES),
        bells: Bells::default(),
        now_millis: 0,
    };
    // What is made once is not a user's.
    holder.come(&policy, 0, 0);
    for (what, read, first) in [
        ("none is read", 0, 1),
        ("all are read", NOTIFICATIONS, 1 + USERS as u64),
    ] {
        let region = Region::new(ALLOCATOR);
        for n in first..first + USERS as u64 {
            holder.come(&policy, n, read);
        }
        holder.rest();
        let counted = region.change();
        let each = (counted.bytes_allocated - counted.bytes_deallocated) / USERS;
        println!("{what}: {each} bytes for each of {USERS} users with {NOTIFICATIONS} notifications");
        assert!(each <= BYTES_MAX, "{what}: {each} bytes, more than {BYTES_MAX}");
    }
}
