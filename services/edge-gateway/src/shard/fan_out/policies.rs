//! Random policies, random events, every gate: what each user is given equals a reference that is as plain as the contract.
//!
//! The hub is the real one; so are the permits, the choice of what is visible, the redaction and the bytes of every encoding. All users,
//! of two policies one after the other, are served from the same deliveries in turn, so that a form made for one class and given to
//! another would show. The seed that proptest prints plays a run again.

mod draft;
mod gates;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use roomcast_access::Policy;
use roomcast_proto::ids::Room;
use serde_json::Value;

use super::*;
use crate::hub::History;
use draft::{Draft, Message, Person, marks_in};
use gates::{ENCODINGS, Given, read, written};
use world::{World, waiter};

const ROOMS: [&str; 4] = ["a", "b.c", "d.1", "d.2"];
const NOW: i64 = 1_000_000;

/// Everything that one person gets of one room under one policy, against the reference.
fn check(world: &World, draft: &Draft, policy: &Policy, person: &Person, room: &'static str) {
    let rights = person.rights(policy);
    let name = Room::parse(room).unwrap();
    let permit = rights.subscribe(&name).ok().map(Arc::new);
    assert_eq!(permit.is_some(), draft.may_follow(person, room), "{room}");
    let history = rights.history(&name).ok();
    assert_eq!(history.is_some(), draft.may_read_history(person, room), "{room}");

    let of_room: Vec<&Message> = world
        .messages
        .iter()
        .filter(|message| message.room == room)
        .collect();
    let given = |message: &&&Message| draft.given(person, message);
    let live: Vec<Value> = of_room.iter().filter_map(|message| given(&message)).collect();
    let stored = of_room
        .iter()
        .filter(|message| message.key.is_none() && !message.ephemeral);
    let stored: Vec<Value> = stored.filter_map(|message| given(&message)).collect();
    // One value for each key and audience is kept; of those the newest that one may see.
    let mut kept: BTreeMap<(&str, &str), (usize, &Message)> = BTreeMap::new();
    for (at, message) in of_room.iter().enumerate() {
        if let Some(key) = message.key {
            kept.insert((key, message.audience), (at, message));
        }
    }
    let mut newest: BTreeMap<&str, (usize, Value)> = BTreeMap::new();
    for ((key, _), (at, message)) in kept {
        if let Some(value) = draft.given(person, message)
            && newest.get(key).is_none_or(|(before, _)| *before < at)
        {
            newest.insert(key, (at, value));
        }
    }
    let mut state: Vec<(usize, Value)> = newest.into_values().collect();
    state.sort_by_key(|(at, _)| *at);
    let state: Vec<Value> = state.into_iter().map(|(_, value)| value).collect();

    let mut all: Vec<(Given, &[Value])> = Vec::new();
    let permit_of_history = history.map(|history| {
        let page = world.hub.history(&history, None, 300, waiter(92), NOW, || Ok(()));
        let History::Done(page) = page else {
            panic!("the room is in memory");
        };
        let bodies: Vec<Bytes> = page
            .events
            .iter()
            .filter_map(|event| event.for_class(&history))
            .map(|seen| seen.body_bytes())
            .collect();
        Given {
            gate: "history".to_owned(),
            events: bodies
                .iter()
                .map(|body| serde_json::from_slice(body).unwrap())
                .collect(),
            bytes: bodies.concat(),
        }
    });
    all.extend(permit_of_history.map(|given| (given, &stored[..])));
    if let Some(permit) = permit {
        let (events, values, snapshot) = world.recovered(&permit);
        for (gate, events) in ["resume", "stream", "snapshot"].iter().zip(events) {
            all.extend(
                written(gate, &events, &permit)
                    .into_iter()
                    .map(|given| (given, &stored[..])),
            );
        }
        for (gate, values) in [("values", values), ("state", snapshot)] {
            all.extend(
                written(gate, &values, &permit)
                    .into_iter()
                    .map(|given| (given, &state[..])),
            );
        }
        let now = Now {
            millis: 0,
            unix_millis: NOW,
        };
        for encoding in ENCODINGS {
            let class = PermitClass {
                permit: Arc::clone(&permit),
                encoding,
                members: Vec::new(),
                told_millis: 0,
                told: None,
            };
            let of_room = world.live.iter().filter(|one| one.room == name);
            let resolve = |one: &Arc<Delivery>| world.hub.resolve_withdrawn(&permit, one, NOW);
            let mut bytes = Vec::new();
            for one in of_room {
                let batch = std::slice::from_ref(one);
                if let Some(encoded) = encode(&class, batch, resolve, now, &mut Tally::default()).unwrap() {
                    bytes.extend_from_slice(&encoded.wire);
                }
            }
            let given = Given {
                gate: format!("live, {encoding:?}"),
                events: read(encoding, &bytes),
                bytes,
            };
            all.push((given, &live));
        }
    }
    let mut secret = BTreeSet::new();
    world
        .messages
        .iter()
        .for_each(|message| marks_in(&message.event, &mut secret));
    let mut open = BTreeSet::new();
    live.iter().for_each(|event| marks_in(event, &mut open));
    for (given, expected) in all {
        assert_eq!(
            given.events,
            expected,
            "{}, {room}: {:?}\n{}",
            given.gate,
            person.roles,
            draft.text()
        );
        let text = String::from_utf8_lossy(&given.bytes);
        for mark in secret.difference(&open) {
            assert!(
                !text.contains(mark.as_str()),
                "{}, {room}: {mark} in {text}",
                given.gate
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn every_gate_gives_each_user_what_the_policy_says_and_nothing_else(seed in any::<u64>()) {
        let mut random = fastrand::Rng::with_seed(seed);
        let drafts = [Draft::random(&mut random), Draft::random(&mut random)];
        let policies = drafts.each_ref().map(|draft| Policy::parse(&draft.text(), "policy.yaml").unwrap());
        let world = World::new(&mut random, policies[0].clone());
        for _ in 0..3 {
            let people: Vec<Person> = (0..4).map(|_| Person::random(&mut random)).collect();
            for (draft, policy) in drafts.iter().zip(&policies) {
                for person in &people {
                    for room in ROOMS {
                        check(&world, draft, policy, person, room);
                    }
                }
            }
        }
    }
}
