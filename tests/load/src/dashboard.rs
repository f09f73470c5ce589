//! One client of the swarm: its rooms, where it stands in each, and whether what it is sent is what it must be sent.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use roomcast_proto::frame::{ClientFrame, Connect, Encoding, Pong, RoomRequest, client_frame};

use crate::heard::Heard;
use crate::histogram::Histogram;

/// What all clients of a swarm have seen, readable from any thread.
#[derive(Debug, Default)]
pub struct Tally {
    /// Sockets upgraded.
    pub open: AtomicU64,
    /// `connected` messages.
    pub connected: AtomicU64,
    /// Clients that heard `caughtUp` from every room they asked for, counted anew with each wave.
    pub back: AtomicU64,
    /// Events.
    pub events: AtomicU64,
    /// What the last counters said.
    pub unread: AtomicU64,
    /// Bytes of event frames.
    pub event_bytes: AtomicU64,
    /// Reads that brought at least one event.
    pub reads: AtomicU64,
    /// Sockets that ended by the other side.
    pub ended: AtomicU64,
    /// `error` messages, rooms that were refused, answers to the upgrade that were neither 101 nor "later".
    pub refused: AtomicU64,
    /// Answers to the upgrade that said "later", and sockets that broke before one: they come again.
    pub turned_away: AtomicU64,
    /// Rooms answered `complete`.
    pub complete: AtomicU64,
    /// Rooms answered `incomplete`.
    pub incomplete: AtomicU64,
    /// Numbers of a room that were passed over.
    pub gaps: AtomicU64,
    /// Numbers of a room that came again, or late.
    pub doubles: AtomicU64,
    /// How many events each room owes a client before `caughtUp`; set by whoever measures, before the wave.
    pub owed: AtomicU64,
    /// `caughtUp` messages that came before all that was owed.
    pub short: AtomicU64,
    latencies: Mutex<Histogram>,
}

impl Tally {
    /// Takes the latencies noted since the last call: from when an event was due to be published to its arrival here.
    #[must_use]
    pub fn latencies(&self) -> Histogram {
        self.latencies
            .lock()
            .map(|mut noted| std::mem::take(&mut *noted))
            .unwrap_or_default()
    }

    fn note(&self, micros: u64) {
        if let Ok(mut noted) = self.latencies.lock() {
            noted.record(micros);
        }
    }
}

/// Where a client stands in one room.
#[derive(Debug, Default)]
struct Place {
    room: Box<str>,
    cursor: String,
    /// The number of its last event; 0 before the first.
    last: u64,
    /// Events since the last hello.
    fresh: u64,
    caught_up: bool,
}

/// One client.
#[derive(Debug, Default)]
pub struct Dashboard {
    token: String,
    places: Vec<Place>,
    /// Whether it wants counters, and has had them since its last hello; without them it is not back.
    bell: Option<bool>,
}

impl Dashboard {
    /// A client with a token that follows some rooms.
    #[must_use]
    pub fn new(token: String, rooms: impl IntoIterator<Item = String>) -> Self {
        let places = rooms.into_iter().map(|room| Place {
            room: room.into(),
            ..Place::default()
        });
        Self {
            token,
            places: places.collect(),
            bell: None,
        }
    }

    /// The same, with a bell.
    #[must_use]
    pub fn counted(mut self) -> Self {
        self.bell = Some(false);
        self
    }

    /// Its first message, with a cursor for every room it has been in.
    pub fn hello(&mut self, encoding: Encoding) -> Vec<u8> {
        self.bell = self.bell.map(|_| false);
        let rooms = self.places.iter_mut().map(|place| {
            (place.fresh, place.caught_up) = (0, false);
            RoomRequest {
                room: place.room.to_string(),
                cursor: (!place.cursor.is_empty()).then(|| place.cursor.clone()),
                presence: None,
            }
        });
        let connect = Connect {
            rooms: rooms.collect(),
            token: Some(self.token.clone()),
            client: "bench".to_owned(),
            counters: self.bell.map(|_| true),
        };
        written(encoding, Some(1), client_frame::Body::Connect(connect))
    }

    /// Takes a message in; `now`: Unix microseconds. Returns what to answer.
    pub fn hear(&mut self, heard: Heard<'_>, now: u64, encoding: Encoding, tally: &Tally) -> Option<Vec<u8>> {
        match heard {
            Heard::Event {
                room,
                cursor,
                number,
                sent,
            } => {
                tally.events.fetch_add(1, Relaxed);
                if let Some(sent) = sent {
                    tally.note(now.saturating_sub(sent));
                }
                if let Some(place) = self.place(room) {
                    place.event(cursor, number, tally);
                }
            }
            Heard::CaughtUp { room, cursor } => {
                if let Some(place) = self.place(room) {
                    take(&mut place.cursor, cursor);
                    // A quiet room is told newer places from time to time; only the first counts.
                    if !std::mem::replace(&mut place.caught_up, true) {
                        if place.fresh < tally.owed.load(Relaxed) {
                            tally.short.fetch_add(1, Relaxed);
                        }
                        if self.places.iter().all(|place| place.caught_up) && self.bell != Some(false) {
                            tally.back.fetch_add(1, Relaxed);
                        }
                    }
                }
            }
            Heard::Counters(unread) => {
                tally.unread.store(u64::from(unread), Relaxed);
                let is_first = self.bell.replace(true) == Some(false);
                if is_first && self.places.iter().all(|place| place.caught_up) {
                    tally.back.fetch_add(1, Relaxed);
                }
            }
            Heard::Connected(answers) => {
                tally.connected.fetch_add(1, Relaxed);
                for answer in answers {
                    if self.place(answer.room.as_bytes()).is_none() {
                        continue;
                    }
                    match answer.recovery.as_deref() {
                        Some("complete") => tally.complete.fetch_add(1, Relaxed),
                        Some("incomplete") => tally.incomplete.fetch_add(1, Relaxed),
                        Some(_) => 0,
                        None => tally.refused.fetch_add(1, Relaxed),
                    };
                }
            }
            Heard::Ping => return Some(written(encoding, None, client_frame::Body::Pong(Pong {}))),
            Heard::Refused => drop(tally.refused.fetch_add(1, Relaxed)),
            Heard::Disconnect | Heard::Other => {}
        }
        None
    }

    fn place(&mut self, room: &[u8]) -> Option<&mut Place> {
        self.places.iter_mut().find(|place| place.room.as_bytes() == room)
    }
}

impl Place {
    fn event(&mut self, cursor: Option<&[u8]>, number: Option<u64>, tally: &Tally) {
        self.fresh += 1;
        if let Some(cursor) = cursor {
            take(&mut self.cursor, cursor);
        }
        let Some(number) = number else { return };
        if number <= self.last {
            tally.doubles.fetch_add(1, Relaxed);
        } else if self.last > 0 && number > self.last + 1 {
            tally.gaps.fetch_add(number - self.last - 1, Relaxed);
        }
        self.last = self.last.max(number);
    }
}

fn take(cursor: &mut String, newer: &[u8]) {
    cursor.clear();
    cursor.push_str(std::str::from_utf8(newer).unwrap_or_default());
}

fn written(encoding: Encoding, id: Option<u32>, body: client_frame::Body) -> Vec<u8> {
    let frame = ClientFrame { id, body: Some(body) };
    let payload = match encoding {
        Encoding::Json => frame.to_json().into_bytes(),
        Encoding::Protobuf => frame.to_protobuf(),
    };
    crate::wire::message(encoding, &payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64) -> Heard<'static> {
        Heard::Event {
            room: b"load.0",
            cursor: Some(b"c"),
            number: Some(number),
            sent: Some(90),
        }
    }

    fn caught_up() -> Heard<'static> {
        Heard::CaughtUp {
            room: b"load.0",
            cursor: b"d",
        }
    }

    /// (gaps, doubles, caughtUp before all was there, clients back) after some events and a `caughtUp` that owed two.
    fn check(numbers: &[u64], expected: (u64, u64, u64, u64)) {
        let tally = Tally::default();
        tally.owed.store(2, Relaxed);
        let mut client = Dashboard::new("t".into(), ["load.0".into()]);
        client.hello(Encoding::Json);
        for number in numbers {
            client.hear(event(*number), 100, Encoding::Json, &tally);
        }
        client.hear(caught_up(), 100, Encoding::Json, &tally);
        client.hear(caught_up(), 100, Encoding::Json, &tally);
        let got = [&tally.gaps, &tally.doubles, &tally.short, &tally.back].map(|count| count.load(Relaxed));
        assert_eq!(got, <[u64; 4]>::from(expected), "{numbers:?}");
        assert_eq!(tally.latencies().count(), numbers.len() as u64);
    }

    #[test]
    fn what_is_missed_doubled_or_owed_is_seen() {
        check(&[7, 8], (0, 0, 0, 1));
        check(&[7, 9], (1, 0, 0, 1));
        check(&[7, 8, 8], (0, 1, 0, 1));
        check(&[8, 7], (0, 1, 0, 1));
        check(&[7], (0, 0, 1, 1));
        check(&[], (0, 0, 1, 1));
    }

    #[test]
    fn a_client_comes_back_with_the_newest_cursor_it_was_given() {
        let tally = Tally::default();
        let mut client = Dashboard::new("t".into(), ["load.0".into()]);
        let said = |hello: Vec<u8>| String::from_utf8_lossy(&hello).into_owned();
        assert!(!said(client.hello(Encoding::Json)).contains("cursor"));
        client.hear(event(1), 100, Encoding::Json, &tally);
        assert!(said(client.hello(Encoding::Json)).contains("\"cursor\":\"c\""));
        client.hear(caught_up(), 100, Encoding::Json, &tally);
        assert!(said(client.hello(Encoding::Protobuf)).contains('d'));
        assert!(client.hear(Heard::Ping, 0, Encoding::Json, &tally).is_some());
    }
}
