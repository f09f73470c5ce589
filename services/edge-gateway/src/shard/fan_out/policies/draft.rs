//! Policies, people and messages of chance, and who gets what of them, decided as plainly as the contract says it.

use std::collections::BTreeSet;

use roomcast_access::{Policy, Principal, Rights};
use roomcast_proto::ids::{Audience, Room, Tenant};
use roomcast_proto::subject;
use serde_json::{Map, Value, json};

use super::{NOW, ROOMS};
use crate::hub::Incoming;

const ROLES: [&str; 4] = ["user", "staff", "owner", "boss"];
const PERMISSIONS: [&str; 4] = ["p0", "p1", "p2", "p3"];
const ENTRIES: [&str; 5] = ["a", "b.c", "d.{own}", "d.{other}", "d.1"];
const NAMES: [&str; 5] = ["a", "b", "0", "x/y", "t~u"];

/// What is written into a policy file, kept to decide by.
pub(super) struct Draft {
    /// By role: what it inherits and what it permits.
    roles: Vec<(Vec<usize>, BTreeSet<&'static str>)>,
    /// By entry: who may follow, who may read the past, and what is taken out unless one has a permission.
    entries: Vec<(&'static str, &'static str, Option<&'static str>, Vec<Removal>)>,
}

/// A permission, and what is taken out for those without it: paths into the data.
type Removal = (&'static str, Vec<Vec<&'static str>>);

/// A person, as the reference knows it.
pub(super) struct Person {
    pub(super) roles: Vec<usize>,
    own: Vec<&'static str>,
    other: Vec<&'static str>,
}

/// One message that was stored or sent.
pub(super) struct Message {
    pub(super) room: &'static str,
    pub(super) audience: &'static str,
    /// `Some`: a state value.
    pub(super) key: Option<&'static str>,
    pub(super) ephemeral: bool,
    expires: Option<i64>,
    pub(super) event: Value,
}

fn some<T: Copy>(random: &mut fastrand::Rng, from: &[T]) -> Vec<T> {
    from.iter().copied().filter(|_| random.bool()).collect()
}

fn one<T: Copy>(random: &mut fastrand::Rng, from: &[T]) -> T {
    from[random.usize(..from.len())]
}

impl Draft {
    pub(super) fn random(random: &mut fastrand::Rng) -> Self {
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

    pub(super) fn text(&self) -> String {
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

    pub(super) fn may_follow(&self, person: &Person, room: &str) -> bool {
        let entries = self.about(person, room);
        entries.iter().any(|entry| self.permits(person, entry.1))
    }

    pub(super) fn may_read_history(&self, person: &Person, room: &str) -> bool {
        let entries = self.about(person, room);
        entries
            .iter()
            .any(|entry| self.permits(person, entry.2.unwrap_or(entry.1)))
    }

    /// What the person is given of a message; `None`: nothing.
    pub(super) fn given(&self, person: &Person, message: &Message) -> Option<Value> {
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
    pub(super) fn random(random: &mut fastrand::Rng) -> Self {
        let roles: Vec<usize> = (0..ROLES.len()).collect();
        Self {
            roles: some(random, &roles),
            own: some(random, &["1", "2"]),
            other: some(random, &["1", "2"]),
        }
    }

    pub(super) fn rights(&self, policy: &Policy) -> Rights {
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
    pub(super) fn random(random: &mut fastrand::Rng, number: usize, marks: &mut u32) -> Self {
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

    pub(super) fn incoming(&self) -> Incoming {
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
pub(super) fn marks_in(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => members.values().for_each(|value| marks_in(value, found)),
        Value::Array(items) => items.iter().for_each(|item| marks_in(item, found)),
        Value::String(text) if text.starts_with('m') => drop(found.insert(text.clone())),
        Value::Number(number) => drop(found.insert(number.to_string())),
        _ => {}
    }
}
