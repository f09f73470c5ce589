//! Two streams as a cluster serves them on a bad day: live messages that are lost, repeated or late, answers that are old, late, or
//! never come, and now and then a change of leader, in which nothing is republished and nobody answers for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use roomcast_proto::ids::{Audience, Room, Tenant};
use roomcast_proto::subject;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::{ROOMS, Shared};

pub(super) const PORT: u16 = 4222;
/// When the streams were made.
pub(super) const CREATED: &str = "2026-01-01T00:00:00Z";

/// One stored message.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub room: &'static str,
    pub key: Option<String>,
    pub wire: Value,
}

pub(crate) struct Log {
    random: fastrand::Rng,
    events: Vec<Stored>,
    /// By position; an older value of the same key is gone.
    values: BTreeMap<u64, Stored>,
    last_value: u64,
    subscribers: Vec<UnboundedSender<Value>>,
    /// No leader until then, on the simulation's clock.
    no_leader_until: Duration,
    /// How often in a row the ends of the streams were told too low.
    lies: u32,
}

/// A node that has just come back says for a while that the streams end earlier; not for as long as a stream does that lost its end.
const LIES_MAX: u32 = 3;

impl Log {
    pub fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            events: Vec::new(),
            values: BTreeMap::new(),
            last_value: 0,
            subscribers: Vec::new(),
            no_leader_until: Duration::ZERO,
            lies: 0,
        }
    }

    /// The last positions of both.
    pub fn ends(&self) -> (u64, u64) {
        (self.events.len() as u64, self.last_value)
    }

    /// The positions of a room's events after `seq`.
    pub fn events_after(&self, room: &str, seq: u64) -> Vec<u64> {
        let after = |(at, stored): (usize, &Stored)| {
            let at = at as u64 + 1;
            (stored.room == room && at > seq).then_some(at)
        };
        self.events.iter().enumerate().filter_map(after).collect()
    }

    /// The newest value of each key of a room.
    pub fn newest(&self, room: &str) -> BTreeMap<String, u64> {
        let of_room = self.values.iter().filter(|(_, stored)| stored.room == room);
        of_room
            .filter_map(|(rev, stored)| Some((stored.key.clone()?, *rev)))
            .collect()
    }

    fn one_in(&mut self, n: u32, calm: bool) -> bool {
        !calm && self.random.u32(0..n) == 0
    }

    fn store(&mut self, now: Duration) -> Value {
        let room = ROOMS[self.random.usize(0..ROOMS.len())];
        let (tenant, name, all) = (Tenant::default(), Room::parse(room).unwrap(), Audience::all());
        let time = i64::try_from(now.as_micros()).unwrap() + 1_790_000_000_000_000;
        if self.random.u32(0..3) > 0 {
            let seq = self.events.len() as u64 + 1;
            let payload = json!({ "specversion": "1.0", "id": seq.to_string(), "source": "s", "type": "t" });
            let wire = json!({ "live": "events", "seq": seq, "time": time, "payload": payload.to_string(),
                               "subject": subject::event(&tenant, &name, &all) });
            self.events.push(Stored {
                room,
                key: None,
                wire: wire.clone(),
            });
            return wire;
        }
        let key = format!("k{}", self.random.u32(0..4));
        self.last_value += 1;
        let rev = self.last_value;
        let payload = json!({ "specversion": "1.0", "id": rev.to_string(), "source": "s", "type": "t", "delivery": "state",
                              "statekey": key });
        let wire = json!({ "live": "state", "seq": rev, "time": time, "payload": payload.to_string(),
                           "subject": subject::state(&tenant, &name, &all, &key) });
        let same =
            |_: &u64, stored: &mut Stored| !(stored.room == room && stored.key.as_deref() == Some(&key));
        self.values.retain(same);
        self.values.insert(
            rev,
            Stored {
                room,
                key: Some(key),
                wire: wire.clone(),
            },
        );
        wire
    }

    fn of(&self, stream: &str) -> Vec<(u64, &Stored)> {
        match stream {
            "events" => (1..).zip(&self.events).collect(),
            _ => self.values.iter().map(|(rev, stored)| (*rev, stored)).collect(),
        }
    }

    fn last(&self, stream: &str) -> u64 {
        if stream == "events" {
            self.events.len() as u64
        } else {
            self.last_value
        }
    }

    /// Up to where a replica sees that may be behind.
    fn sees_to(&mut self, stream: &str, calm: bool) -> u64 {
        let last = self.last(stream);
        if self.one_in(4, calm) {
            self.random.u64(last.saturating_sub(15)..=last)
        } else {
            last
        }
    }

    /// What is said of the end of a stream: it may be a lie, also that there is nothing at all, but not for long.
    fn says_last(&mut self, stream: &str, calm: bool) -> u64 {
        let last = self.last(stream);
        if self.lies >= LIES_MAX || !self.one_in(3, calm) {
            self.lies = 0;
            return last;
        }
        self.lies += 1;
        match self.one_in(3, calm) {
            true => 0,
            false => self.random.u64(last.saturating_sub(30)..=last),
        }
    }

    /// The answer to a question, or none.
    fn answer(&mut self, asked: &Value, now: Duration, calm: bool) -> Option<Value> {
        let (what, stream) = (
            asked["what"].as_str()?,
            asked["stream"].as_str().unwrap_or("events"),
        );
        let from = asked["from"].as_u64().unwrap_or(1);
        let leader_away = now < self.no_leader_until && !calm;
        if self.one_in(7, calm) || (leader_away && matches!(what, "leader" | "info" | "room")) {
            return None;
        }
        let to = self.sees_to(stream, calm);
        let said = self.says_last(stream, calm);
        // A replica that has just started knows of nothing.
        let knows_nothing = self.one_in(10, calm);
        let most = if calm { 500 } else { self.random.usize(1..8) };
        let between = |low: u64, high: u64, room: Option<&str>| -> Vec<Value> {
            let here = |(at, stored): &(u64, &Stored)| {
                (low..=high).contains(at) && room.is_none_or(|room| stored.room == room)
            };
            let found = self.of(stream).into_iter().filter(here);
            found.map(|(_, stored)| stored.wire.clone()).collect()
        };
        Some(match what {
            "info" => json!({ "last": said }),
            "probe" => {
                let last = between(1, to, None).last().map(|message| message["seq"].clone());
                if knows_nothing {
                    json!({ "last": null })
                } else {
                    json!({ "last": last })
                }
            }
            "leader" => json!({ "message": between(from, to, None).first() }),
            "read" => {
                let found = between(from, to, None);
                json!({ "more": found.len() > most, "messages": found.into_iter().take(most).collect::<Vec<_>>() })
            }
            // These are asked of the leader, or compared with what it says.
            "room" => {
                let high = asked["to"].as_u64().unwrap_or(u64::MAX);
                json!({ "messages": between(from, high, asked["room"].as_str()) })
            }
            _ => return None,
        })
    }
}

/// The host: stores something every few milliseconds until it is calm, and serves gateways.
pub(super) async fn serve(shared: Shared) -> turmoil::Result {
    let world = shared.clone();
    tokio::task::spawn_local(async move {
        while !world.is_calm() {
            let pause = world.log.borrow_mut().random.u64(1..60);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            publish(&world);
        }
    });
    let listener = turmoil::net::TcpListener::bind(("0.0.0.0", PORT)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::task::spawn_local(one(stream, shared.clone()));
    }
}

fn publish(shared: &Shared) {
    let (calm, now) = (shared.is_calm(), turmoil::elapsed());
    let mut log = shared.log.borrow_mut();
    let message = log.store(now);
    if now >= log.no_leader_until && log.one_in(150, calm) {
        log.no_leader_until = now + Duration::from_millis(log.random.u64(100..900));
    }
    let mut copies = vec![message];
    if now < log.no_leader_until || log.one_in(7, calm) {
        copies.clear();
    }
    if log.one_in(9, calm) && !log.events.is_empty() {
        let count = log.events.len();
        let at = log.random.usize(0..count);
        copies.push(log.events[at].wire.clone());
    }
    for message in copies {
        let late = log
            .one_in(8, calm)
            .then(|| Duration::from_millis(log.random.u64(1..150)));
        for subscriber in log.subscribers.clone() {
            let message = message.clone();
            match late {
                None => drop(subscriber.send(message)),
                Some(late) => drop(tokio::task::spawn_local(async move {
                    tokio::time::sleep(late).await;
                    let _ = subscriber.send(message);
                })),
            }
        }
    }
}

/// One gateway's connection.
async fn one(stream: turmoil::net::TcpStream, shared: Shared) {
    let (reading, mut writing) = stream.into_split();
    let (say, mut said) = unbounded_channel::<Value>();
    shared.log.borrow_mut().subscribers.push(say.clone());
    tokio::task::spawn_local(async move {
        while let Some(message) = said.recv().await {
            if writing
                .write_all(format!("{message}\n").as_bytes())
                .await
                .is_err()
            {
                return;
            }
        }
    });
    let mut lines = BufReader::new(reading).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let asked: Value = serde_json::from_str(&line).unwrap();
        let (calm, now) = (shared.is_calm(), turmoil::elapsed());
        let late = {
            let mut log = shared.log.borrow_mut();
            let longest = if calm { 3 } else { 250 };
            Duration::from_millis(log.random.u64(0..longest))
        };
        let (say, shared) = (say.clone(), shared.clone());
        tokio::task::spawn_local(async move {
            // What it says is what it knew when it was asked.
            let answer = shared.log.borrow_mut().answer(&asked, now, calm);
            tokio::time::sleep(late).await;
            if let Some(answer) = answer {
                let _ = say.send(json!({ "ask": asked["ask"], "answer": answer }));
            }
        });
    }
    shared
        .log
        .borrow_mut()
        .subscribers
        .retain(|other| !other.same_channel(&say));
}
