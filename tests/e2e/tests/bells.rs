//! The bell under a storm: gateways die again and again, devices change transport and gateway, and everybody is told everything once.
//!
//! A device here does what the contract says a client does: what its rooms begin with is shown without a sound, what comes live or was
//! missed is announced, unless it was shown before. The account is kept for each device and each notification.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use roomcast_harness::client::{Client, Frame};
use roomcast_harness::http::Http;
use roomcast_harness::stack::Stack;
use roomcast_harness::stream::{Stream, path};
use serde_json::{Value, json};

use crate::world::{calm, faulty, publish};

const KIND: &str = "notification.storm";
const USERS: usize = 4;
/// Notifications made before any device is there.
const OLD: usize = 3;
/// Notifications made in the storm.
const NEW: usize = 60;
const KILLS: usize = 4;
const WITHIN: Duration = Duration::from_secs(90);

#[derive(Clone, Copy, Debug)]
enum Way {
    Socket,
    Stream,
    Poll,
}

/// Each user's devices: tabs that keep to their way, and one that changes it.
const DEVICES: [&[Way]; 5] = [
    &[Way::Socket],
    &[Way::Socket],
    &[Way::Stream],
    &[Way::Poll],
    &[Way::Stream, Way::Poll, Way::Socket],
];

#[derive(Default)]
struct Account {
    /// Every id that was shown.
    known: BTreeSet<String>,
    /// In their order, doubles too.
    announced: Vec<String>,
    cursors: HashMap<String, String>,
    counters: Value,
    lives: usize,
    /// Answers other than `complete` to cursors of its own.
    incomplete: Vec<Value>,
    loaded: bool,
}

impl Account {
    fn frame(&mut self, frame: &Frame, personal: &str) {
        for name in ["event", "caughtUp"] {
            if let (Some(room), Some(cursor)) = (frame[name]["room"].as_str(), frame[name]["cursor"].as_str())
            {
                self.cursors.insert(room.to_owned(), cursor.to_owned());
            }
        }
        if frame["counters"].is_object() {
            self.counters = frame["counters"].clone();
        }
        let event = &frame["event"]["event"];
        if event["type"] == KIND {
            let id = event["id"].as_str().unwrap_or_default().to_owned();
            if self.known.insert(id.clone()) && self.loaded {
                self.announced.push(id);
            }
        }
        self.loaded |= frame["caughtUp"]["room"] == personal;
    }

    fn begun(&mut self, rooms: &Value, had: &HashMap<String, String>) {
        self.lives += 1;
        for room in rooms.as_array().into_iter().flatten() {
            let known = room["room"].as_str().is_some_and(|name| had.contains_key(name));
            if known && room["recovery"] != "complete" {
                self.incomplete.push(room.clone());
            }
        }
    }
}

/// One device, from one life to the next.
struct Device {
    user: String,
    token: String,
    ways: &'static [Way],
    account: Arc<Mutex<Account>>,
}

impl Device {
    fn personal(&self) -> String {
        format!("user.{}", self.user)
    }

    fn frame(&self, frame: &Frame) {
        let personal = self.personal();
        self.account.lock().unwrap().frame(frame, &personal);
    }

    fn begun(&self, rooms: &Value, had: &HashMap<String, String>) {
        self.account.lock().unwrap().begun(rooms, had);
    }

    async fn live(self, gateways: Vec<String>, first: usize) {
        for life in 0.. {
            let way = self.ways[life % self.ways.len()];
            let gateway = &gateways[(first + life) % gateways.len()];
            // A gateway that is down, or goes down: the next one.
            let stay = Duration::from_millis(200 + life as u64 * 373 % 1_300);
            if self.visit(gateway, way, stay).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Until the connection ends, or for as long as this device stays with one.
    async fn visit(&self, gateway: &str, way: Way, stay: Duration) -> anyhow::Result<()> {
        let had = self.account.lock().unwrap().cursors.clone();
        let stay = match self.ways.len() {
            1 => Instant::now() + Duration::from_secs(3_600),
            _ => Instant::now() + stay,
        };
        let (rooms, cursors): (Vec<&str>, Vec<&str>) =
            had.iter().map(|(room, cursor)| (&**room, &**cursor)).unzip();
        match way {
            Way::Socket => {
                let mut client = Client::open(gateway).await?;
                let asked: Vec<Value> = had
                    .iter()
                    .map(|(room, cursor)| json!({ "room": room, "cursor": cursor }))
                    .collect();
                let connect =
                    json!({ "token": self.token, "client": "storm", "rooms": asked, "counters": true });
                let answer = client.request("connect", connect).await?;
                self.begun(&answer["connected"]["rooms"], &had);
                for frame in std::mem::take(&mut client.early) {
                    self.frame(&frame);
                }
                while let Some(frame) = client
                    .next(stay.saturating_duration_since(Instant::now()))
                    .await?
                {
                    client.raw.clear();
                    self.frame(&frame);
                }
            }
            Way::Stream => {
                let path = format!("{}&counters=0", path("sse", &rooms, &cursors));
                let mut stream = Stream::open(gateway, &path, Some(&self.token), &[]).await?;
                while let Some(frame) = stream
                    .next(stay.saturating_duration_since(Instant::now()))
                    .await?
                {
                    stream.raw.clear();
                    if frame["connected"].is_object() {
                        self.begun(&frame["connected"]["rooms"], &had);
                    }
                    self.frame(&frame);
                }
            }
            Way::Poll => {
                let known = self.account.lock().unwrap().counters["version"].as_u64();
                let path = path("poll", &rooms, &cursors);
                let url = format!("{gateway}{path}&counters={}&wait=5", known.unwrap_or(0));
                let answer = Http::default().get(&url, Some(&self.token)).await?;
                anyhow::ensure!(answer.status == 200, "{}", answer.text());
                let answer = answer.json();
                self.begun(&answer["rooms"], &had);
                for frame in answer["frames"].as_array().into_iter().flatten() {
                    self.frame(frame);
                }
                // Everything up to here, in all rooms.
                if let Some(cursor) = answer["cursor"].as_str() {
                    let mut account = self.account.lock().unwrap();
                    account.loaded |= answer["more"] == false;
                    for room in answer["rooms"].as_array().into_iter().flatten() {
                        if let Some(room) = room["room"].as_str() {
                            account.cursors.insert(room.to_owned(), cursor.to_owned());
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

fn user(n: usize) -> String {
    format!("storm-{n}")
}

async fn notify(stack: &Stack, id: &str) -> anyhow::Result<()> {
    let users: Vec<String> = (0..USERS).map(user).collect();
    let priority = ["critical", "high", "medium", "low"][id.len() % 4];
    let event = json!({
        "id": id, "type": KIND, "users": users.join(","), "priority": priority, "data": { "title": id },
    });
    // Ingest lives through this test; only gateways die.
    publish(stack, &event).await.map(drop)
}

async fn feed(stack: &Stack, user: &str) -> anyhow::Result<Value> {
    let token = stack.signer.token(user, &["user"]);
    let answer = Http::default()
        .get(&format!("{}/v1/feed?limit=1", stack.gateways()[0]), Some(&token))
        .await?;
    anyhow::ensure!(answer.status == 200, "{}", answer.text());
    Ok(answer.json())
}

/// The counters without their version: gateways' versions tell of all that they have heard.
fn counts(counters: &Value) -> Vec<Option<u64>> {
    ["unread", "critical", "high", "medium", "low"]
        .iter()
        .map(|name| counters[name].as_u64())
        .collect()
}

#[test]
fn in_a_storm_of_kills_everybody_is_told_everything_once_and_the_counters_are_true() {
    faulty(|stack| async move {
        for n in 0..OLD {
            notify(stack, &format!("old-{n}")).await?;
        }
        let gateways = stack.gateways();
        let (mut accounts, mut tasks) = (Vec::new(), tokio::task::JoinSet::new());
        for n in 0..USERS {
            for (at, ways) in DEVICES.into_iter().enumerate() {
                let account = Arc::new(Mutex::new(Account::default()));
                let device = Device {
                    user: user(n),
                    token: stack.signer.token(&user(n), &["user"]),
                    ways,
                    account: Arc::clone(&account),
                };
                accounts.push((n, at, account));
                tasks.spawn(device.live(gateways.clone(), n + at));
            }
        }
        let all = |test: &dyn Fn(usize, &Account) -> bool| {
            accounts
                .iter()
                .all(|(n, _, account)| test(*n, &account.lock().unwrap()))
        };
        let deadline = Instant::now() + WITHIN;
        while !all(&|_, account| account.loaded && account.counters.is_object()) {
            anyhow::ensure!(Instant::now() < deadline, "not everybody came in");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }

        for n in 0..NEW {
            notify(stack, &format!("new-{n}")).await?;
            if n % (NEW / KILLS) == NEW / KILLS / 2 {
                stack.signal(
                    &format!("gateway-{}", 1 + n / (NEW / KILLS) % gateways.len()),
                    "KILL",
                );
            }
            tokio::time::sleep(Duration::from_millis(80)).await;
        }
        // One device of each reads half of them; the others hear of it by their counters alone.
        let mut expected = Vec::new();
        for n in 0..USERS {
            let token = stack.signer.token(&user(n), &["user"]);
            let ids: Vec<String> = (0..NEW / 2).map(|at| format!("new-{at}/{}", user(n))).collect();
            let body = json!({ "ids": ids, "as": "read" });
            let deadline = Instant::now() + WITHIN;
            loop {
                let url = format!("{}/v1/marks", gateways[n % gateways.len()]);
                let answer = Http::default()
                    .post(&url, &token, "application/json", body.to_string())
                    .await;
                if answer.is_ok_and(|answer| answer.status == 200) {
                    break;
                }
                anyhow::ensure!(Instant::now() < deadline, "{} cannot mark", user(n));
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        for n in 0..USERS {
            let counters = feed(stack, &user(n)).await.context("a feed after the storm")?["counters"].clone();
            anyhow::ensure!(
                counters["unread"].as_u64() >= Some((OLD + NEW / 2) as u64),
                "{counters}"
            );
            expected.push(counters);
        }
        let announced: Vec<BTreeSet<String>> = (0..USERS)
            .map(|n| (0..NEW).map(|at| format!("new-{at}/{}", user(n))).collect())
            .collect();
        let agrees = |n: usize, account: &Account| {
            account.announced.len() >= NEW && counts(&account.counters) == counts(&expected[n])
        };
        let deadline = Instant::now() + WITHIN;
        while !all(&agrees) {
            if Instant::now() >= deadline {
                for (n, at, account) in &accounts {
                    let account = account.lock().unwrap();
                    if !agrees(*n, &account) {
                        let missing: Vec<&String> = announced[*n].difference(&account.known).collect();
                        anyhow::bail!(
                            "device {at} of {}: missing {missing:?}, counters {} instead of {}",
                            user(*n),
                            account.counters,
                            expected[*n]
                        );
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        tasks.shutdown().await;
        for (n, at, account) in &accounts {
            let account = account.lock().unwrap();
            let once: BTreeSet<String> = account.announced.iter().cloned().collect();
            assert_eq!(once, announced[*n], "device {at} of {}", user(*n));
            assert_eq!(account.announced.len(), once.len(), "twice");
            assert!(account.incomplete.is_empty(), "{:?}", account.incomplete);
            assert!(
                account.known.iter().filter(|id| id.starts_with("old-")).count() == OLD,
                "what still held was shown, unannounced"
            );
        }
        let lives: usize = accounts
            .iter()
            .map(|(_, _, account)| account.lock().unwrap().lives)
            .sum();
        anyhow::ensure!(lives > accounts.len(), "nobody ever had to come back");
        Ok(())
    });
}

#[test]
fn what_is_set_or_marked_on_one_device_is_pushed_to_all_over_every_transport() {
    calm(|stack| async move {
        let (gateways, user) = (stack.gateways(), "pushed-ada");
        let token = stack.signer.token(user, &["user"]);
        let event = json!({
            "id": "p-1", "type": "notification.pushed", "users": user, "priority": "critical", "data": { "title": "t" },
        });
        publish(stack, &event).await?;
        let mut socket = Client::open(&gateways[0]).await?;
        socket
            .request(
                "connect",
                json!({ "token": token, "client": "t", "rooms": [], "counters": true }),
            )
            .await?;
        let mut late = Client::open(&gateways[1]).await?;
        late.request("connect", json!({ "token": token, "client": "t", "rooms": [] }))
            .await?;
        let mut stream = Stream::open(&gateways[1], "/v1/sse?counters=0", Some(&token), &[]).await?;
        let counted = |frame: &Frame| frame["counters"]["critical"] == 1;
        socket.until("counters", WITHIN, counted).await?;
        let heard = stream.until("counters", WITHIN, counted).await?;
        let version = heard.last().expect("one")["counters"]["version"].clone();
        // Asked for on an open socket, the first is the answer.
        let asked = late.request("counters", json!({ "version": 1 })).await?;
        assert_eq!(asked["counters"]["critical"], 1, "{asked}");
        // A poll with the version that it has is held; with an older or a newer one it is answered at once.
        let poll = async |version: u64, wait: u32| {
            let url = format!("{}/v1/poll?counters={version}&wait={wait}", gateways[1]);
            let answer = Http::default().get(&url, Some(&token)).await?;
            anyhow::ensure!(answer.status == 200, "{}", answer.text());
            Ok(answer.json())
        };
        let of = |answer: &Value, name: &str| {
            let frames = answer["frames"].as_array().cloned().unwrap_or_default();
            frames
                .into_iter()
                .find(|frame| frame[name].is_object())
                .map_or(Value::Null, |frame| frame[name].clone())
        };
        let version = version.as_u64().context("a version")?;
        for other in [0, version - 1, version + 1_000_000_000] {
            let answer = poll(other, 20).await?;
            assert_eq!(of(&answer, "counters")["critical"], 1, "{answer}");
        }

        // A mark at one gateway; everybody hears.
        let mark = json!({ "ids": [format!("p-1/{user}")], "as": "read" });
        // The push may come before the answer.
        socket.early.clear();
        let answer = socket.request("mark", mark).await?;
        assert_eq!(answer["feed"]["counters"]["critical"], 0, "{answer}");
        let gone = |frame: &Frame| frame["counters"].is_object() && frame["counters"]["critical"] == 0;
        if !socket.early.iter().any(gone) {
            socket.until("the counters after the mark", WITHIN, gone).await?;
        }
        late.until("the counters after the mark", WITHIN, gone).await?;
        stream.until("the counters after the mark", WITHIN, gone).await?;
        let answer = poll(version, 20).await?;
        assert_eq!(of(&answer, "counters")["critical"], 0, "{answer}");

        // Preferences: a mistake says where, and changes nothing; what is set is everybody's.
        let wrong = late
            .request(
                "preferences",
                json!({ "set": { "quiet": { "from": "22:00", "to": "07:00", "zone": "Nowhere" } } }),
            )
            .await?;
        assert_eq!(wrong["error"]["code"], "bad_request", "{wrong}");
        let set = json!({ "mute": { "rooms": ["bookings"] }, "quiet": { "from": "22:00", "to": "07:00", "zone": "Europe/Istanbul" } });
        let url = format!("{}/v1/preferences", gateways[1]);
        let body = json!({ "set": set }).to_string();
        let answer = Http::default()
            .post(&url, &token, "application/json", body)
            .await?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let expected = json!({
            "mute": { "types": [], "rooms": ["bookings"] },
            "quiet": { "from": "22:00", "to": "07:00", "zone": "Europe/Istanbul" },
        });
        assert_eq!(answer.json()["preferences"], expected);
        let set_now = |frame: &Frame| frame["preferences"]["preferences"] == expected;
        for client in [&mut socket, &mut late] {
            client.until("preferences", WITHIN, set_now).await?;
        }
        stream.until("preferences", WITHIN, set_now).await?;
        assert_eq!(of(&poll(0, 20).await?, "preferences")["preferences"], expected);
        let taken_back = late
            .request("preferences", json!({ "set": { "mute": null, "quiet": null } }))
            .await?;
        assert_eq!(
            taken_back["preferences"]["preferences"],
            json!({}),
            "{taken_back}"
        );
        socket
            .until("preferences", WITHIN, |frame| {
                frame["preferences"].is_object() && frame["preferences"]["preferences"] == json!({})
            })
            .await?;
        // Who asks for nothing is told nothing of them.
        let mut quiet = Client::open(&gateways[0]).await?;
        quiet
            .request("connect", json!({ "token": token, "client": "t", "rooms": [] }))
            .await?;
        quiet.request("feed", json!({ "limit": 1 })).await?;
        anyhow::ensure!(
            quiet.early.iter().all(|frame| frame.get("counters").is_none()),
            "nobody asked"
        );
        Ok(())
    });
}
