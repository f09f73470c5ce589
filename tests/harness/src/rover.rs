//! A dashboard that changes its transport and its gateway as it likes, and keeps account of what it saw.
//!
//! It does what an SDK does: it keeps a cursor per room from `event` and `caughtUp`, whichever way they came, and the one cursor of
//! streams and polls as long as it stays with those. It does not remove doubles: those are what the tests look for.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;

use crate::account::Seen;
use crate::client::Client;
use crate::http::Http;
use crate::stream::{Stream, path};

/// A transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// WebSocket.
    Socket,
    /// Server-sent events.
    Stream,
    /// Polling, held.
    Poll,
}

/// See the module.
pub struct Rover {
    token: String,
    rooms: Vec<String>,
    http: Http,
    /// Where it stands in each room.
    cursors: HashMap<String, String>,
    /// Where it stands in all of them, as streams and polls say it.
    place: Option<String>,
    /// Events by room, in the order in which they came.
    pub seen: HashMap<String, Seen>,
    /// Events of all rooms, in the order in which they came on streams and polls.
    pub merged: Vec<String>,
    /// Answers other than `complete` to a cursor.
    pub incomplete: Vec<Value>,
    /// How often it used each way with one cursor for all rooms.
    pub with_one_cursor: usize,
    /// Visits.
    pub visits: usize,
}

impl Rover {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(token: String, rooms: &[&str]) -> Self {
        Self {
            token,
            rooms: rooms.iter().map(|room| (*room).to_owned()).collect(),
            http: Http::default(),
            cursors: HashMap::new(),
            place: None,
            seen: HashMap::new(),
            merged: Vec::new(),
            incomplete: Vec::new(),
            with_one_cursor: 0,
            visits: 0,
        }
    }

    /// How many events it has seen.
    #[must_use]
    pub fn count(&self) -> usize {
        self.seen.values().map(Seen::len).sum()
    }

    /// Connects and reads until it has seen `events` more or the time is over, then breaks off wherever it stands.
    ///
    /// # Errors
    /// When the gateway refuses, or says what cannot be read.
    pub async fn visit(
        &mut self,
        gateway: &str,
        way: Way,
        events: usize,
        within: Duration,
    ) -> anyhow::Result<()> {
        self.visits += 1;
        let (enough, deadline) = (self.count() + events, tokio::time::Instant::now() + within);
        match way {
            Way::Socket => self.on_socket(gateway, enough, deadline).await,
            Way::Stream => self.on_stream(gateway, enough, deadline).await,
            Way::Poll => self.on_poll(gateway, enough, deadline).await,
        }
    }

    async fn on_socket(
        &mut self,
        gateway: &str,
        enough: usize,
        deadline: tokio::time::Instant,
    ) -> anyhow::Result<()> {
        let rooms = self.known_rooms();
        let names: Vec<&str> = rooms.iter().map(String::as_str).collect();
        let (mut client, connected) = Client::connect(gateway, &self.token, &names, &self.cursors).await?;
        self.began(&connected["rooms"]);
        self.place = None;
        while self.count() < enough {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let Some(frame) = client.next(left).await? else {
                break;
            };
            self.frame(&frame);
        }
        Ok(())
    }

    async fn on_stream(
        &mut self,
        gateway: &str,
        enough: usize,
        deadline: tokio::time::Instant,
    ) -> anyhow::Result<()> {
        let mut stream = Stream::open(gateway, &self.path("sse"), Some(&self.token), &[]).await?;
        let connected = stream
            .until("connected", Duration::from_secs(10), |_| true)
            .await?;
        self.began(&connected[0]["connected"]["rooms"]);
        while self.count() < enough {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let Some(frame) = stream.next(left).await? else {
                break;
            };
            self.merge(&frame);
            if let Some(id) = &stream.last_id {
                self.place = Some(id.clone());
            }
            self.frame(&frame);
        }
        Ok(())
    }

    async fn on_poll(
        &mut self,
        gateway: &str,
        enough: usize,
        deadline: tokio::time::Instant,
    ) -> anyhow::Result<()> {
        while self.count() < enough && tokio::time::Instant::now() < deadline {
            let url = format!("{gateway}{}&wait=1", self.path("poll"));
            let answer = self.http.get(&url, Some(&self.token)).await?;
            if answer.status == 429 {
                let millis = answer.json()["retryAfterMs"].as_u64().unwrap_or(1_000);
                tokio::time::sleep(Duration::from_millis(millis)).await;
                continue;
            }
            anyhow::ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
            let answer = answer.json();
            self.began(&answer["rooms"]);
            for frame in answer["frames"].as_array().into_iter().flatten() {
                self.merge(frame);
                self.frame(frame);
            }
            self.place = answer["cursor"].as_str().map(str::to_owned);
            if let Some(place) = self.place.as_ref().filter(|_| answer["more"] == false) {
                // Everything was said: this is what `caughtUp` says on the others.
                self.cursors
                    .values_mut()
                    .for_each(|cursor| cursor.clone_from(place));
            }
        }
        Ok(())
    }

    /// With the one cursor where there is one, else with each room's own.
    fn path(&mut self, route: &str) -> String {
        let rooms = self.known_rooms();
        let names: Vec<&str> = rooms.iter().map(String::as_str).collect();
        if let Some(place) = &self.place {
            self.with_one_cursor += 1;
            return path(route, &names, &[place]);
        }
        let cursor = |room: &String| self.cursors.get(room).map_or("", String::as_str);
        let cursors: Vec<&str> = rooms.iter().map(cursor).collect();
        path(route, &names, &cursors)
    }

    /// Those asked for, then those that the policy joined: their cursors count as well.
    fn known_rooms(&self) -> Vec<String> {
        let mut rooms = self.rooms.clone();
        let mut joined: Vec<String> = self
            .cursors
            .keys()
            .filter(|room| !rooms.contains(room))
            .cloned()
            .collect();
        joined.sort();
        rooms.extend(joined);
        rooms
    }

    /// How rooms were answered. A room that is new begins where it says.
    fn began(&mut self, rooms: &Value) {
        for room in rooms.as_array().into_iter().flatten() {
            let (Some(name), Some(cursor)) = (room["room"].as_str(), room["cursor"].as_str()) else {
                self.incomplete.push(room.clone());
                continue;
            };
            if self.cursors.contains_key(name) && room["recovery"] != "complete" {
                self.incomplete.push(room.clone());
            }
            self.cursors
                .entry(name.to_owned())
                .or_insert_with(|| cursor.to_owned());
        }
    }

    fn merge(&mut self, frame: &Value) {
        let event = &frame["event"];
        if event["event"]["delivery"] == "state" {
            return;
        }
        if let (Some(id), true) = (
            frame["event"]["event"]["id"].as_str(),
            frame["event"]["cursor"].is_string(),
        ) {
            self.merged.push(id.to_owned());
        }
    }

    fn frame(&mut self, frame: &Value) {
        let body = ["event", "caughtUp"].iter().find_map(|name| frame.get(*name));
        let Some((body, room)) = body.and_then(|body| Some((body, body["room"].as_str()?))) else {
            return;
        };
        if let Some(cursor) = body["cursor"].as_str() {
            self.cursors.insert(room.to_owned(), cursor.to_owned());
        }
        let event = &body["event"];
        if let Some(id) = event["id"].as_str().filter(|_| event["delivery"] != "state") {
            self.seen.entry(room.to_owned()).or_default().event(id);
        }
    }
}
