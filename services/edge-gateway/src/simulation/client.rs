//! A client that loses its connection often, and keeps account of what it was sent.

use std::collections::BTreeMap;
use std::time::Duration;

use roomcast_proto::cursor::Cursors;
use roomcast_proto::ids::Tenant;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::log::Log;
use super::{GATEWAYS, ROOMS, Shared, gateway};

/// Everything one client has been sent of one room.
#[derive(Debug, Default)]
struct Heard {
    /// Where it began.
    start: Option<u64>,
    cursor: Option<String>,
    events: Vec<u64>,
    values: BTreeMap<String, u64>,
    /// Those of them that came live, with a cursor.
    placed: BTreeMap<String, u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Account {
    rooms: BTreeMap<String, Heard>,
    wrong: Option<String>,
    /// Rooms opened with what was missed.
    pub recovered: u64,
}

impl Account {
    fn wrong(&mut self, why: String) {
        self.wrong.get_or_insert(why);
    }

    fn opened(&mut self, answer: &Value) {
        let room = answer["room"].as_str().unwrap_or_default().to_owned();
        match answer["recovery"].as_str() {
            Some("fresh") => {
                let start = answer["cursor"].as_str().unwrap_or_default();
                let start = Cursors::plain().read(&Tenant::default(), start).unwrap();
                let heard = self.rooms.entry(room).or_default();
                // Nothing was kept of a room whose first connection was lost before anything came.
                heard.start = Some(start.position.seq);
                heard.events.clear();
                heard.values.clear();
            }
            Some("complete") => self.recovered += 1,
            // The room may not be readable at the moment: the client comes again.
            None if answer["error"]["code"] == "unavailable" => {}
            _ => self.wrong(format!("nothing was lost, but: {answer}")),
        }
    }

    fn take(&mut self, frame: &Value) {
        for answer in frame["connected"]["rooms"].as_array().into_iter().flatten() {
            if ROOMS.contains(&answer["room"].as_str().unwrap_or_default()) {
                self.opened(answer);
            }
        }
        if let Some(cursor) = frame["caughtUp"]["cursor"].as_str() {
            let room = frame["caughtUp"]["room"].as_str().unwrap_or_default();
            self.rooms.entry(room.to_owned()).or_default().cursor = Some(cursor.to_owned());
        }
        if frame["event"].is_object() {
            self.event(&frame["event"]);
        }
    }

    fn event(&mut self, push: &Value) {
        let room = push["room"].as_str().unwrap_or_default().to_owned();
        let event = &push["event"];
        let id: u64 = event["id"].as_str().and_then(|id| id.parse().ok()).unwrap();
        let heard = self.rooms.entry(room.clone()).or_default();
        if let Some(cursor) = push["cursor"].as_str() {
            heard.cursor = Some(cursor.to_owned());
        }
        let Some(key) = event["statekey"].as_str() else {
            let before = heard.events.last().copied();
            heard.events.push(id);
            if before.is_some_and(|before| before >= id) {
                self.wrong(format!("{room}: event {id} after {before:?}"));
            }
            return;
        };
        heard.values.insert(key.to_owned(), id);
        // Values of a recovery carry no cursor: when it breaks off, a gateway that is behind may send an older one for a moment.
        let before = push["cursor"]
            .as_str()
            .and_then(|_| heard.placed.insert(key.to_owned(), id));
        if before.is_some_and(|before| before > id) {
            self.wrong(format!("{room}: value {id} of {key} after {before:?}"));
        }
    }

    /// Whether everything has come, once and in order.
    pub fn verdict(&self, log: &Log) -> Result<(), String> {
        if let Some(wrong) = &self.wrong {
            return Err(wrong.clone());
        }
        for room in ROOMS {
            let heard = self.rooms.get(room).ok_or(format!("{room} was never opened"))?;
            let expected = log.events_after(room, heard.start.unwrap_or_default());
            if heard.events != expected {
                let missing: Vec<_> = expected
                    .iter()
                    .filter(|id| !heard.events.contains(id))
                    .take(5)
                    .collect();
                return Err(format!("{room}: missing {missing:?} of {}", expected.len()));
            }
            if heard.values != log.newest(room) {
                return Err(format!(
                    "{room}: {:?} instead of {:?}",
                    heard.values,
                    log.newest(room)
                ));
            }
        }
        Ok(())
    }
}

/// The client: connects to any gateway, reads for a while, loses the connection, comes back with its cursors.
pub(super) async fn live(shared: Shared, number: u64, until: Duration) -> turmoil::Result {
    let mut random = fastrand::Rng::with_seed(shared.seed.wrapping_mul(31) + number);
    while turmoil::elapsed() < until {
        let patience = match random.u32(0..3) {
            _ if shared.is_calm() => until,
            0 => Duration::from_millis(random.u64(1..60)),
            _ => Duration::from_millis(random.u64(60..1_500)),
        };
        let lines_max = if shared.is_calm() || random.bool() {
            usize::MAX
        } else {
            random.usize(1..12)
        };
        let gateway = GATEWAYS[random.usize(0..GATEWAYS.len())];
        let left = until.saturating_sub(turmoil::elapsed());
        let _ = tokio::time::timeout(patience.min(left), connect(&shared, number, gateway, lines_max)).await;
        tokio::time::sleep(Duration::from_millis(random.u64(1..40))).await;
    }
    Ok(())
}

async fn connect(shared: &Shared, number: u64, gateway: &str, lines_max: usize) -> std::io::Result<()> {
    let at = usize::try_from(number).unwrap();
    let stream = turmoil::net::TcpStream::connect((gateway, gateway::PORT)).await?;
    let (reading, mut writing) = stream.into_split();
    let rooms: Vec<Value> = {
        let accounts = shared.accounts.borrow();
        let cursor = |room: &str| {
            accounts[at]
                .rooms
                .get(room)
                .and_then(|heard| heard.cursor.clone())
        };
        ROOMS
            .iter()
            .map(|room| json!({ "room": room, "cursor": cursor(room) }))
            .collect()
    };
    let connect = json!({ "id": 1, "connect": { "rooms": rooms } });
    writing.write_all(format!("{connect}\n").as_bytes()).await?;
    let mut lines = BufReader::new(reading).lines();
    for _ in 0..lines_max {
        let Some(line) = lines.next_line().await? else {
            break;
        };
        let frame: Value = serde_json::from_str(&line).unwrap();
        let unreadable = frame["connected"]["rooms"]
            .as_array()
            .is_some_and(|rooms| rooms.iter().any(|room| room["error"].is_object()));
        shared.accounts.borrow_mut()[at].take(&frame);
        if frame["disconnect"].is_object() || unreadable {
            break;
        }
    }
    Ok(())
}
