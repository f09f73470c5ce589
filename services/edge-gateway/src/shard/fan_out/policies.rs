//! Random policies, random events, every gate: what each user is given equals a reference that is as plain as the contract.
//!
//! The hub is the real one; so are the permits, the choice of what is visible, the redaction and the bytes of every encoding. All users,
//! of two policies one after the other, are served from the same deliveries in turn, so that a form made for one class and given to
//! another would show. The seed that proptest prints plays a run again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::channel;

use proptest::prelude::*;
use roomcast_access::{Policy, Principal, Rights, Subscribe};
use roomcast_chassis::metrics::Metrics;
use roomcast_proto::cursor::Position;
use roomcast_proto::event::micros_of_rfc3339;
use roomcast_proto::ids::{Audience, Room, Tenant};
use roomcast_proto::subject;
use serde_json::{Map, Value, json};

use super::*;
use crate::hub::{History, Hub, HubSettings, Incoming, Read, Recovery, ToShard, Waiter};

const ROLES: [&str; 4] = ["user", "staff", "owner", "boss"];
const PERMISSIONS: [&str; 4] = ["p0", "p1", "p2", "p3"];
const ENTRIES: [&str; 5] = ["a", "b.c", "d.{own}", "d.{other}", "d.1"];
const ROOMS: [&str; 4] = ["a", "b.c", "d.1", "d.2"];
const NAMES: [&str; 5] = ["a", "b", "0", "x/y", "t~u"];
const NOW: i64 = 1_000_000;

/// What is written into a policy file, kept to decide by.
struct Draft {
    /// By role: what it inherits and what it permits.
    roles: Vec<(Vec<usize>, BTreeSet<&'static str>)>,
    /// By entry: who may follow, who may read the past, and what is taken out unless one has a permission.
    entries: Vec<(&'static str, &'static str, Option<&'static str>, Vec<Removal>)>,
}

/// A permission, and what is taken out for those without it: paths into the data.
type Removal = (&'static str, Vec<Vec<&'static str>>);

/// A person, as the reference knows it.
struct Person {
    roles: Vec<usize>,
    own: Vec<&'static str>,
    other: Vec<&'static str>,
}

/// One message that was stored or sent.
struct Message {
    room: &'static str,
    audience: &'static str,
    /// `Some`: a state value.
    key: Option<&'static str>,
    ephemeral: bool,
    expires: Option<i64>,
    event: Value,
}

fn some<T: Copy>(random: &mut fastrand::Rng, from: &[T]) -> Vec<T> {
    from.iter().copied().filter(|_| random.bool()).collect()
}

fn one<T: Copy>(random: &mut fastrand::Rng, from: &[T]) -> T {
    from[random.usize(..from.len())]
}

impl Draft {
    fn random(random: &mut fastrand::Rng) -> Self {
        let roles = (0..ROLES.len()).map(|role| {
            let below: Vec<usize> = (0..role).collect();
            let mut permits: BTreeSet<&str> = some(random, &PERMISSIONS).into_iter().collect();
            if random.u8(..8) == 0 {
                permits.insert("*");
            }
            (some(random, &below), permits)
        });
        let roles = roles.collect();
        let entries = ENTRIES.map(|name| {
            let removals = (0..random.usize(..4)).map(|_| {
                let paths = (0..random.usize(1..4)).map(|_| {
                    let length = random.usize(1..4);
                    (0..length).map(|_| one(random, &NAMES)).collect()
                });
                let paths = paths.collect();
                (one(random, &PERMISSIONS), paths)
            });
            let removals = removals.collect();
            let history = random.bool().then(|| one(random, &PERMISSIONS));
            (name, one(random, &PERMISSIONS), history, removals)
        });
        Self {
            roles,
            entries: entries.into(),
        }
    }

    fn text(&self) -> String {
        // A permission that no role has would be a mistake.
        let mut text = "version: 1\nroles:\n  every: { permissions: [p0, p1, p2, p3] }\n".to_owned();
        for (name, (inherits, permits)) in ROLES.iter().zip(&self.roles) {
            let inherits: Vec<&str> = inherits.iter().map(|role| ROLES[*role]).collect();
            let permits: Vec<&str> = permits.iter().copied().collect();
            text += &format!(
                "  {name}: {}\n",
                json!({ "inherits": inherits, "permissions": permits })
            );
        }
        text += "rooms:\n";
        for (name, subscribe, history, removals) in &self.entries {
            let mut entry = json!({ "room": name, "subscribe": subscribe });
            if let Some(history) = history {
                entry["history"] = json!(history);
            }
            let pointer = |path: &Vec<&str>| {
                let parts = path.iter().map(|name| name.replace('~', "~0").replace('/', "~1"));
                parts.map(|part| format!("/{part}")).collect::<String>()
            };
            let redact = removals.iter().map(|(unless, paths)| {
                let pointers: Vec<String> = paths.iter().map(pointer).collect();
                json!({ "unless": unless, "remove": pointers })
            });
            let redact: Vec<Value> = redact.collect();
            if !redact.is_empty() {
                entry["redact"] = json!(redact);
            }
            text += &format!("  - {entry}\n");
        }
        text
    }

    /// The person's roles, with all that they inherit.
    fn roles_of(&self, person: &Person) -> BTreeSet<usize> {
        let mut all: BTreeSet<usize> = person.roles.iter().copied().collect();
        loop {
            let more: Vec<usize> = all.iter().flat_map(|role| self.roles[*role].0.clone()).collect();
            let before = all.len();
            all.extend(more);
            if all.len() == before {
                return all;
            }
        }
    }

    fn permits(&self, person: &Person, permission: &str) -> bool {
        let roles = self.roles_of(person);
        let mut held = roles.iter().flat_map(|role| &self.roles[*role].1);
        held.any(|one| *one == permission || *one == "*")
    }

    /// The entries that say something about a room for this person.
    fn about(
        &self,
        person: &Person,
        room: &str,
    ) -> Vec<&(&'static str, &'static str, Option<&'static str>, Vec<Removal>)> {
        let of = |values: &[&str]| values.iter().any(|value| room == format!("d.{value}"));
        let is = |name: &str| match name {
            "d.{own}" => of(&person.own),
            "d.{other}" => of(&person.other),
            plain => plain == room,
        };
        self.entries.iter().filter(|entry| is(entry.0)).collect()
    }

    fn may_follow(&self, person: &Person, room: &str) -> bool {
        let entries = self.about(person, room);
        entries.iter().any(|entry| self.permits(person, entry.1))
    }

    fn may_read_history(&self, person: &Person, room: &str) -> bool {
        let entries = self.about(person, room);
        entries
            .iter()
            .any(|entry| self.permits(person, entry.2.unwrap_or(entry.1)))
    }

    /// What the person is given of a message; `None`: nothing.
    fn given(&self, person: &Person, message: &Message) -> Option<Value> {
        let roles = self.roles_of(person);
        let is_meant = message.audience == "all" || roles.iter().any(|role| ROLES[*role] == message.audience);
        if !is_meant || message.expires.is_some_and(|expires| expires <= NOW) {
            return None;
        }
        let entries = self.about(person, message.room);
        let removals = entries.iter().flat_map(|entry| &entry.3);
        let removals = removals.filter(|(unless, _)| !self.permits(person, unless));
        let paths: Vec<&Vec<&str>> = removals.flat_map(|(_, paths)| paths).collect();
        let mut event = message.event.clone();
        if !paths.is_empty() {
            let event = event.as_object_mut().unwrap();
            event.remove("data_base64");
            if let Some(data) = event.get_mut("data") {
                take_out(data, &mut Vec::new(), &paths);
            }
        }
        Some(event)
    }
}

fn take_out(value: &mut Value, at: &mut Vec<String>, paths: &[&Vec<&str>]) {
    let is_named = |at: &[String]| paths.iter().any(|path| path.as_slice() == at);
    match value {
        Value::Object(members) => {
            for (name, mut value) in std::mem::take(members) {
                at.push(name.clone());
                if !is_named(at) {
                    take_out(&mut value, at, paths);
                    members.insert(name, value);
                }
                at.pop();
            }
        }
        Value::Array(items) => {
            for (index, mut item) in std::mem::take(items).into_iter().enumerate() {
                at.push(index.to_string());
                if !is_named(at) {
                    take_out(&mut item, at, paths);
                    items.push(item);
                }
                at.pop();
            }
        }
        _ => {}
    }
}

impl Person {
    fn random(random: &mut fastrand::Rng) -> Self {
        let roles: Vec<usize> = (0..ROLES.len()).collect();
        Self {
            roles: some(random, &roles),
            own: some(random, &["1", "2"]),
            other: some(random, &["1", "2"]),
        }
    }

    fn rights(&self, policy: &Policy) -> Rights {
        let claims = json!({ "own": self.own, "other": self.other });
        policy.rights(&Principal {
            tenant: Tenant::default(),
            subject: "u1".into(),
            roles: self.roles.iter().map(|role| ROLES[*role].to_owned()).collect(),
            claims: claims.as_object().cloned().unwrap_or_default(),
            expires_at: i64::MAX,
            issued_at: None,
            token_id: None,
        })
    }
}

/// A value with a mark of its own in each leaf.
fn data(random: &mut fastrand::Rng, marks: &mut u32, depth: usize) -> Value {
    let mut mark = || {
        *marks += 1;
        *marks
    };
    match random.u8(..if depth == 0 { 2 } else { 6 }) {
        0 => json!(format!("m{}m", mark())),
        1 => json!(900_000_000 + mark()),
        2 => {
            let items = (0..random.usize(..4)).map(|_| data(random, marks, depth - 1));
            Value::Array(items.collect())
        }
        _ => {
            let names = some(random, &NAMES);
            let members = names
                .into_iter()
                .map(|name| (name.to_owned(), data(random, marks, depth - 1)));
            Value::Object(members.collect::<Map<_, _>>())
        }
    }
}

impl Message {
    fn random(random: &mut fastrand::Rng, number: usize, marks: &mut u32) -> Self {
        let kind = random.u8(..4);
        let room = one(random, &ROOMS);
        let audience = one(random, &["all", "user", "staff", "owner", "boss", "nobody"]);
        let mut event = json!({
            "specversion": "1.0", "id": format!("e{number}"), "source": "/s", "type": "t", "room": room, "audience": audience,
            "note": format!("kept-{number}"),
        });
        if random.u8(..8) == 0 {
            *marks += 1;
            event["data_base64"] = json!(format!("m{marks}m"));
        } else if random.u8(..8) > 0 {
            event["data"] = data(random, marks, 3);
        }
        Self {
            room,
            audience,
            key: (kind == 0).then(|| one(random, &["k", "l"])),
            ephemeral: kind == 1,
            expires: (random.u8(..5) == 0).then(|| if random.bool() { NOW } else { NOW + 1 }),
            event,
        }
    }

    fn incoming(&self) -> Incoming {
        let (tenant, room) = (Tenant::default(), Room::parse(self.room).unwrap());
        let audience = Audience::parse(self.audience).unwrap();
        let subject = match self.key {
            Some(key) => subject::state(&tenant, &room, &audience, key),
            None if self.ephemeral => subject::ephemeral(&tenant, &room, &audience),
            None => subject::event(&tenant, &room, &audience),
        };
        Incoming {
            subject,
            expires_millis: self.expires,
            withdrawn: false,
            payload: self.event.to_string().into(),
            trail: None,
        }
    }
}

/// Every leaf's mark in a value.
fn marks_in(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => members.values().for_each(|value| marks_in(value, found)),
        Value::Array(items) => items.iter().for_each(|item| marks_in(item, found)),
        Value::String(text) if text.starts_with('m') => drop(found.insert(text.clone())),
        Value::Number(number) => drop(found.insert(number.to_string())),
        _ => {}
    }
}

/// The events in what is on the wire, read as a client does.
fn read(encoding: Encoding, wire: &[u8]) -> Vec<Value> {
    let of_push = |text: &str| serde_json::from_str::<Value>(text).unwrap()["event"]["event"].clone();
    if encoding == Encoding::Sse {
        let text = std::str::from_utf8(wire).unwrap();
        let events = text.split("\n\n").filter(|event| !event.is_empty());
        let data = events.map(|event| {
            event
                .lines()
                .find_map(|line| line.strip_prefix("data: "))
                .unwrap()
        });
        return data.map(of_push).collect();
    }
    let (mut rest, mut found) = (wire, Vec::new());
    while !rest.is_empty() {
        let (start, length) = match rest[1] {
            126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
            length => (2, usize::from(length)),
        };
        let payload = &rest[start..start + length];
        rest = &rest[start + length..];
        found.push(match encoding {
            Encoding::Protobuf => match ServerFrame::from_protobuf(payload).unwrap().body {
                Some(server_frame::Body::Event(push)) => serde_json::from_slice(&push.event).unwrap(),
                other => panic!("{other:?}"),
            },
            _ => of_push(std::str::from_utf8(payload).unwrap()),
        });
    }
    found
}

/// What a gate gave out.
struct Given {
    gate: String,
    events: Vec<Value>,
    bytes: Vec<u8>,
}

const ENCODINGS: [Encoding; 3] = [Encoding::Json, Encoding::Protobuf, Encoding::Sse];

/// Deliveries that were chosen for a user, as each gate writes them.
fn written(gate: &str, chosen: &[Arc<Delivery>], permit: &Subscribe) -> Vec<Given> {
    let seen: Vec<Arc<Delivery>> = chosen.iter().filter_map(|one| one.for_class(permit)).collect();
    let frames = ENCODINGS.map(|encoding| {
        let bytes: Vec<u8> = seen.iter().flat_map(|one| one.frame(encoding).to_vec()).collect();
        Given {
            gate: format!("{gate}, {encoding:?}"),
            events: read(encoding, &bytes),
            bytes,
        }
    });
    // A poll holds the frames of a socket without their headers; what is read over HTTP is the events themselves.
    let texts: Vec<Bytes> = seen.iter().map(|one| one.text()).collect();
    let of_push = |text: &Bytes| serde_json::from_slice::<Value>(text).unwrap()["event"]["event"].clone();
    let poll = Given {
        gate: format!("{gate}, poll"),
        events: texts.iter().map(of_push).collect(),
        bytes: texts.concat(),
    };
    let bodies: Vec<Bytes> = seen.iter().map(|one| one.body_bytes()).collect();
    let http = Given {
        gate: format!("{gate}, HTTP"),
        events: bodies
            .iter()
            .map(|body| serde_json::from_slice(body).unwrap())
            .collect(),
        bytes: bodies.concat(),
    };
    frames.into_iter().chain([poll, http]).collect()
}

/// What was chosen for somebody, in its order.
type Chosen = Vec<Arc<Delivery>>;

struct World {
    hub: Arc<Hub>,
    live: Vec<Arc<Delivery>>,
    messages: Vec<Message>,
    runtime: tokio::runtime::Runtime,
}

fn waiter(ticket: u64) -> Waiter {
    Waiter { shard: 0, ticket }
}

impl World {
    fn new(random: &mut fastrand::Rng, policy: Policy) -> Self {
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
    fn recovered(&self, permit: &Arc<Subscribe>) -> (Vec<Chosen>, Chosen, Chosen) {
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
