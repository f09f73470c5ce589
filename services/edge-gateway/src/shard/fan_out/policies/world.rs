//! A hub that has been handed messages of chance, and what it chooses of them.

use std::sync::Arc;
use std::sync::mpsc::channel;

use roomcast_access::{Policy, Principal, Subscribe};
use roomcast_chassis::metrics::Metrics;
use roomcast_proto::cursor::{Cursor, Position};
use roomcast_proto::event::micros_of_rfc3339;
use roomcast_proto::ids::{Room, Tenant};
use serde_json::Map;

use super::draft::Message;
use super::{NOW, ROOMS};
use crate::delivery::Delivery;
use crate::hub::{Hub, HubSettings, Read, Recovery, ToShard, Waiter};

/// What was chosen for somebody, in its order.
pub(super) type Chosen = Vec<Arc<Delivery>>;

pub(super) struct World {
    pub(super) hub: Arc<Hub>,
    pub(super) live: Vec<Arc<Delivery>>,
    pub(super) messages: Vec<Message>,
    runtime: tokio::runtime::Runtime,
}

pub(super) fn waiter(ticket: u64) -> Waiter {
    Waiter { shard: 0, ticket }
}

impl World {
    pub(super) fn new(random: &mut fastrand::Rng, policy: Policy) -> Self {
        let names = move |name: &str| policy.audience(name);
        let metrics = Metrics::new("test").unwrap();
        let hub = Hub::new(HubSettings::default(), Box::new(names), &metrics).unwrap();
        let (tell, told) = channel();
        hub.attach(Box::new(move |message| drop(tell.send(message))));
        hub.reset_state("s", 1, None);
        hub.reset_events("e", 1, 1, None);
        hub.open();
        let mut world = Self {
            hub,
            live: Vec::new(),
            messages: Vec::new(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap(),
        };
        // Rooms that somebody has read keep their state in memory.
        world.load();
        let (mut seq, mut rev, mut marks) = (0, 0, 0);
        for number in 0..random.usize(1..24) {
            let message = Message::random(random, number, &mut marks);
            let at = micros_of_rfc3339("2026-01-01T00:00:00Z").unwrap();
            let incoming = message.incoming();
            if message.key.is_some() {
                rev += 1;
                world.hub.state_value(rev, at, &incoming);
            } else if message.ephemeral {
                world.hub.ephemeral(&incoming);
            } else {
                seq += 1;
                world.hub.event(seq, at, &incoming, false);
            }
            world.messages.push(message);
        }
        let delivered = told.try_iter().filter_map(|told| match told {
            ToShard::Deliver(delivery) => Some(delivery),
            _ => None,
        });
        world.live = delivered.collect();
        world
    }

    /// Answers reads of state, as if nothing was stored before.
    fn load(&self) {
        let everybody = Policy::parse(
            "version: 1\nroles:\n  every: { permissions: [p0] }\nrooms:\n  - { room: a, subscribe: p0 }\n  - { room: b.c, subscribe: p0 }\n  - { room: d.1, subscribe: p0 }\n  - { room: d.2, subscribe: p0 }\n",
            "policy.yaml",
        )
        .unwrap();
        let rights = everybody.rights(&Principal {
            tenant: Tenant::default(),
            subject: "u1".into(),
            roles: vec!["every".to_owned()],
            claims: Map::new(),
            expires_at: i64::MAX,
            issued_at: None,
            token_id: None,
        });
        for (ticket, room) in (1..).zip(ROOMS) {
            let permit = rights.subscribe(&Room::parse(room).unwrap()).unwrap();
            let _ = self.hub.recover(&permit, None, waiter(ticket), NOW);
            self.hub.hold(&permit);
        }
        let mut reads = self.hub.take_reads().unwrap();
        while let Ok(read) = reads.try_recv() {
            if let Read::State(place) = read {
                self.hub.loaded(&place.key, self.hub.life(), Some(Vec::new()));
            }
        }
    }

    /// What the hub chose for this user at every gate of a room, beside live.
    pub(super) fn recovered(&self, permit: &Arc<Subscribe>) -> (Vec<Chosen>, Chosen, Chosen) {
        let start = Cursor {
            epoch: self.hub.epoch().unwrap(),
            position: Position { seq: 0, rev: 0 },
            time_bits: 0,
        };
        let Recovery::Done(one) = self.hub.recover(permit, Some(start), waiter(90), NOW) else {
            panic!("the room is in memory");
        };
        let together = self.hub.recover_all(
            std::slice::from_ref(permit),
            &[Some(start)],
            usize::MAX,
            waiter(91),
            NOW,
        );
        let Recovery::Done(together) = together else {
            panic!("the room is in memory");
        };
        let page = together.page(usize::MAX, usize::MAX);
        let plain =
            |all: &[(usize, Arc<Delivery>)]| all.iter().map(|(_, one)| Arc::clone(one)).collect::<Vec<_>>();
        let snapshot = self
            .runtime
            .block_on(self.hub.snapshot_async(permit, 300, || NOW))
            .unwrap();
        let events = vec![one.events, plain(&page.events), snapshot.events];
        // Of state the three gates must agree, too.
        assert_eq!(ids(&one.state), ids(&plain(&together.state)));
        (events, one.state, snapshot.state)
    }
}

fn ids(deliveries: &[Arc<Delivery>]) -> Vec<(u64, u64)> {
    let place = |one: &Arc<Delivery>| (one.position.seq, one.position.rev);
    deliveries.iter().map(place).collect()
}
