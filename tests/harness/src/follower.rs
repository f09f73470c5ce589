//! A dashboard that never gives up: follows rooms across reconnects, on whichever gateway answers, and notes what it saw.
//!
//! It does what the SDK does and nothing more: stores cursors from `event` and `caughtUp`, comes back with them, tries the next
//! gateway when one is gone. It does not remove doubles: those are what the tests look for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use roomcast_proto::frame::Encoding;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::account::Seen;
use crate::client::{Client, Frame};
use crate::eventually;

/// Whom and what to follow.
#[derive(Debug, Clone)]
pub struct Following {
    /// Addresses, tried in turn.
    pub gateways: Vec<String>,
    /// Which of them comes first.
    pub first: usize,
    /// What is spoken.
    pub encoding: Encoding,
    /// The bearer's token.
    pub token: String,
    /// Rooms, beside those the policy joins.
    pub rooms: Vec<String>,
    /// Where to begin; empty: at the head.
    pub cursors: HashMap<String, String>,
}

/// What a follower has seen.
#[derive(Debug, Default)]
pub struct Sighting {
    /// Events by room, in order, over all connections.
    pub seen: HashMap<String, Seen>,
    /// When each event came, by id.
    pub arrivals: HashMap<String, Instant>,
    /// The newest state value of each (room, key).
    pub state: HashMap<(String, String), Value>,
    /// State values older than one that was seen before: `revision` or `as_of` went back.
    pub went_back: Vec<String>,
    /// Connections that were answered with `connected`.
    pub connections: usize,
    /// How connections ended.
    pub closes: Vec<(u16, String)>,
    /// `disconnect` messages.
    pub disconnects: Vec<Value>,
    /// Answers other than `complete` to a cursor of ours.
    pub incomplete: Vec<Value>,
    /// Where each room stands.
    pub cursors: HashMap<String, String>,
    /// Longest time from the end of a connection to the next `connected`.
    pub longest_away: Duration,
}

/// A follower at work; it ends with this value.
pub struct Follower {
    task: JoinHandle<()>,
    sighting: Arc<Mutex<Sighting>>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    /// Starts following, and returns when the first connection has caught up in every room that was asked for.
    ///
    /// # Panics
    /// When that takes longer than 15 s.
    pub async fn start(following: Following) -> Self {
        let sighting = Arc::new(Mutex::new(Sighting {
            cursors: following.cursors.clone(),
            ..Sighting::default()
        }));
        let (rooms, shared) = (following.rooms.clone(), Arc::clone(&sighting));
        let task = tokio::spawn(async move { follow(following, &shared).await });
        let follower = Self { task, sighting };
        eventually("a follower has caught up", Duration::from_secs(15), || async {
            let sighting = follower.look();
            rooms.iter().all(|room| sighting.cursors.contains_key(room))
        })
        .await;
        follower
    }

    /// What it has seen so far.
    ///
    /// # Panics
    /// When the follower itself panicked.
    pub fn look(&self) -> MutexGuard<'_, Sighting> {
        self.sighting.lock().expect("the follower did not panic")
    }

    /// How many events of a room it has seen.
    pub fn count(&self, room: &str) -> usize {
        self.look().seen.get(room).map_or(0, Seen::len)
    }
}

async fn follow(following: Following, shared: &Mutex<Sighting>) {
    let mut at = following.first;
    let mut gone_since: Option<Instant> = None;
    loop {
        let gateway = &following.gateways[at % following.gateways.len()];
        at += 1;
        let cursors = lock(shared).cursors.clone();
        // Rooms that the policy joined are asked for too: their cursors count.
        let mut rooms: Vec<&str> = following.rooms.iter().map(String::as_str).collect();
        rooms.extend(
            cursors
                .keys()
                .map(String::as_str)
                .filter(|room| following.rooms.iter().all(|asked| asked != room)),
        );
        let connecting = Client::connect_as(following.encoding, gateway, &following.token, &rooms, &cursors);
        let Ok((client, connected)) = connecting.await else {
            // A gateway that is down refuses at once; the pause keeps this from being a busy loop.
            tokio::time::sleep(Duration::from_millis(50)).await;
            gone_since.get_or_insert_with(Instant::now);
            continue;
        };
        lock(shared).connected(&connected, &cursors, gone_since.take());
        let hint = listen(client, shared).await;
        gone_since = Some(Instant::now());
        tokio::time::sleep(hint).await;
    }
}

/// Reads until the connection ends; answers how long the server wants it to stay away.
async fn listen(mut client: Client, shared: &Mutex<Sighting>) -> Duration {
    let mut hint = Duration::ZERO;
    // What came before the answer to `connect` would be a mistake of the gateway; it is noted all the same.
    for frame in std::mem::take(&mut client.early) {
        lock(shared).frame(&frame);
    }
    loop {
        match client.next(Duration::from_secs(60)).await {
            Ok(Some(frame)) => {
                client.raw.clear();
                if let Some(millis) = frame["disconnect"]["retryAfterMs"].as_u64() {
                    hint = Duration::from_millis(millis);
                }
                lock(shared).frame(&frame);
            }
            Ok(None) if client.closed.is_none() => {}
            Ok(None) | Err(_) => {
                let closed = client.closed.take().unwrap_or((1006, String::new()));
                lock(shared).closes.push(closed);
                return hint;
            }
        }
    }
}

fn lock(shared: &Mutex<Sighting>) -> MutexGuard<'_, Sighting> {
    shared.lock().expect("nobody panics with this lock")
}

impl Sighting {
    fn connected(
        &mut self,
        connected: &Value,
        cursors: &HashMap<String, String>,
        gone_since: Option<Instant>,
    ) {
        self.connections += 1;
        self.longest_away = self
            .longest_away
            .max(gone_since.map_or(Duration::ZERO, |since| since.elapsed()));
        for answer in connected["rooms"].as_array().into_iter().flatten() {
            let had_cursor = answer["room"]
                .as_str()
                .is_some_and(|room| cursors.contains_key(room));
            if had_cursor && answer["recovery"] != "complete" {
                self.incomplete.push(answer.clone());
            }
        }
    }

    fn frame(&mut self, frame: &Frame) {
        if frame.get("disconnect").is_some() {
            self.disconnects.push(frame["disconnect"].clone());
        }
        let body = [&frame["event"], &frame["caughtUp"]]
            .into_iter()
            .find(|body| body.is_object());
        let Some((body, room)) = body.and_then(|body| Some((body, body["room"].as_str()?))) else {
            return;
        };
        if let Some(cursor) = body["cursor"].as_str() {
            self.cursors.insert(room.to_owned(), cursor.to_owned());
        }
        let event = &body["event"];
        if event["delivery"] == "state" {
            self.value(room, event);
        } else if let Some(id) = event["id"].as_str() {
            self.seen.entry(room.to_owned()).or_default().event(id);
            self.arrivals.entry(id.to_owned()).or_insert_with(Instant::now);
        }
    }

    fn value(&mut self, room: &str, event: &Value) {
        let key = event["statekey"].as_str().unwrap_or_default().to_owned();
        let before = self.state.insert((room.to_owned(), key.clone()), event.clone());
        if let Some(before) = before
            && went_back(&before["data"], &event["data"])
        {
            self.went_back
                .push(format!("{key}: {} after {}", event["data"], before["data"]));
        }
    }
}

/// Whether a metric's update is older than the one before: for one key neither `revision` nor `as_of` ever goes back.
fn went_back(before: &Value, after: &Value) -> bool {
    let revision = |data: &Value| data["revision"].as_u64();
    let as_of = |data: &Value| {
        data["as_of"]
            .as_str()
            .map(|text| text.trim_end_matches('Z').to_owned())
    };
    revision(after) < revision(before) || as_of(after) < as_of(before)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_older_update_is_noticed() {
        let rows = [
            ((3, "2026-01-01T00:00:01Z"), (3, "2026-01-01T00:00:01Z"), false),
            ((3, "2026-01-01T00:00:01Z"), (4, "2026-01-01T00:00:01.5Z"), false),
            ((3, "2026-01-01T00:00:01Z"), (2, "2026-01-01T00:00:02Z"), true),
            (
                (3, "2026-01-01T00:00:01.000001Z"),
                (3, "2026-01-01T00:00:01Z"),
                true,
            ),
        ];
        for (before, after, expected) in rows {
            let data = |(revision, as_of): (u64, &str)| json!({ "revision": revision, "as_of": as_of });
            assert_eq!(
                went_back(&data(before), &data(after)),
                expected,
                "{before:?} {after:?}"
            );
        }
    }

    #[test]
    fn doubles_are_kept_and_cursors_are_taken_from_event_and_caught_up() {
        let mut sighting = Sighting::default();
        let event = |id: &str, cursor: &str| json!({ "event": { "room": "r", "cursor": cursor, "event": { "id": id } } });
        for frame in [
            event("a", "c1"),
            event("a", "c1"),
            json!({ "caughtUp": { "room": "r", "cursor": "c2" } }),
        ] {
            sighting.frame(&frame);
        }
        assert_eq!(sighting.seen["r"].len(), 2);
        assert_eq!(sighting.cursors["r"], "c2");
        let answer = json!({ "rooms": [{ "room": "r", "recovery": "incomplete", "reason": "epoch" }, { "room": "s", "recovery": "fresh" }] });
        let cursors = sighting.cursors.clone();
        sighting.connected(&answer, &cursors, None);
        assert_eq!(sighting.incomplete.len(), 1);
    }
}
