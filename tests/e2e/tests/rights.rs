//! No byte to the wrong eye: every gate, every actor, every byte.
//!
//! Each event and value carries a mark of its room, audience and tenant. Actors of all kinds knock at every gate before, while and
//! after these are published; everything they receive (frames, bodies, headers, reasons) is searched for marks. Marks that an actor
//! may see must be there too, or the search would prove nothing.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use roomcast_harness::client::Client;
use roomcast_harness::rover::Way;
use roomcast_harness::stack::Stack;
use roomcast_harness::stream::{Stream, path};
use serde_json::{Value, json};

use crate::world::calm;

/// Rooms and audiences in which something is published, with who may see it in which tenant.
struct Place {
    room: &'static str,
    audience: &'static str,
    seen_by: &'static [&'static str],
}

/// `seen_by` names actors of tenant `main`; in the other tenant only `stranger` reads, with an administrator's role.
const PLACES: [Place; 9] = [
    Place {
        room: "lobby",
        audience: "all",
        seen_by: &["guest", "clerk", "owner", "boss"],
    },
    Place {
        room: "lobby",
        audience: "staff",
        seen_by: &["clerk", "boss"],
    },
    Place {
        room: "lobby",
        audience: "admin",
        seen_by: &["boss"],
    },
    Place {
        room: "bookings",
        audience: "staff",
        seen_by: &["clerk", "boss"],
    },
    Place {
        room: "bookings",
        audience: "admin",
        seen_by: &["boss"],
    },
    Place {
        room: "vault",
        audience: "all",
        seen_by: &["boss"],
    },
    Place {
        room: "property.42",
        audience: "all",
        seen_by: &["owner"],
    },
    Place {
        room: "property.43",
        audience: "all",
        seen_by: &["boss"],
    },
    Place {
        room: "os_dashboard",
        audience: "admin",
        seen_by: &["boss"],
    },
];

const ROOMS: [&str; 6] = [
    "lobby",
    "bookings",
    "vault",
    "property.42",
    "property.43",
    "os_dashboard",
];

/// A person with a token, and every byte that reached them, by the way it came.
struct Actor {
    name: &'static str,
    token: String,
    /// Over sockets, and of rooms read over HTTP.
    bytes: String,
    streamed: String,
    polled: String,
}

fn actors(stack: &Stack) -> Vec<Actor> {
    let person = |name: &'static str, roles: &[&str], claims: Value| Actor {
        name,
        token: stack.signer.token_with(name, roles, 3600, &claims),
        bytes: String::new(),
        streamed: String::new(),
        polled: String::new(),
    };
    vec![
        person("nobody", &[], json!({})),
        person("guest", &["user"], json!({})),
        person("clerk", &["staff"], json!({})),
        person("owner", &["owner"], json!({ "property_ids": ["42"] })),
        person("boss", &["admin"], json!({ "property_ids": ["43"] })),
        // Claims that are no room's part, or would be a wider one.
        person(
            "trickster",
            &["owner"],
            json!({ "property_ids": ["*", ">", "4?", "42.x", "", "42 "] }),
        ),
        person("publisher", &["desk"], json!({})),
        person(
            "stranger",
            &["admin"],
            json!({ "tenant": "acme", "property_ids": ["42", "43"] }),
        ),
    ]
}

fn mark(tenant: &str, place: &Place, class: &str, round: &str) -> String {
    format!(
        "mark-{tenant}-{}-{}-{class}-{round}-end",
        place.room, place.audience
    )
}

/// Publishes one event and one value in every place of both tenants.
async fn publish_all(stack: &Stack, round: &str) -> anyhow::Result<()> {
    for tenant in ["main", "acme"] {
        let claims = json!({ "tenant": tenant, "property_ids": ["42", "43"] });
        let desk = stack.signer.token_with("desk", &["desk"], 3600, &claims);
        let mut batch = Vec::new();
        for place in &PLACES {
            for class in ["event", "state"] {
                let text = mark(tenant, place, class, round);
                let mut event = json!({
                    "room": place.room, "audience": place.audience, "type": "secret", "delivery": class,
                    "data": { "text": text, "secret": format!("hidden-{text}") },
                });
                if class == "state" {
                    // Keys may tell as much as values.
                    event["statekey"] = json!(format!("key-{text}"));
                }
                batch.push(event);
            }
        }
        let answer = stack.publish(0, &desk, &json!(batch)).await?;
        anyhow::ensure!(
            answer.status == 200 && answer.json()["refused"] == 0,
            "{}",
            answer.text()
        );
    }
    Ok(())
}

impl Actor {
    fn take(&mut self, client: &mut Client) {
        self.bytes.extend(client.raw.drain(..));
        if let Some((_, reason)) = &client.closed {
            self.bytes.push_str(reason);
        }
    }

    async fn get(&mut self, stack: &Stack, url: &str) -> anyhow::Result<(u16, Value)> {
        let answer = stack.http.get(url, Some(&self.token)).await?;
        self.bytes
            .push_str(&format!("{:?}{}", answer.headers, answer.text()));
        Ok((answer.status, answer.json()))
    }

    /// Every way of asking over HTTP, for every room.
    async fn ask(&mut self, stack: &Stack, gateway: &str, cursor: &str) -> anyhow::Result<()> {
        for room in ROOMS {
            self.get(stack, &format!("{gateway}/v1/rooms/{room}/snapshot?events=300"))
                .await?;
            self.get(stack, &format!("{gateway}/v1/rooms/{room}/events?limit=300"))
                .await?;
            self.get(
                stack,
                &format!("{gateway}/v1/rooms/{room}/events?limit=300&before={cursor}"),
            )
            .await?;
            self.get(stack, &format!("{gateway}/v1/state?room={room}"))
                .await?;
        }
        Ok(())
    }

    /// Follows every room as a stream. `None`: refused.
    async fn stream(&mut self, gateway: &str, cursor: Option<&str>) -> Option<Stream> {
        match Stream::follow(gateway, &self.token, &ROOMS, cursor).await {
            Ok(stream) => {
                self.streamed.push_str(&stream.head);
                Some(stream)
            }
            Err(error) => {
                self.streamed.push_str(&error.to_string());
                None
            }
        }
    }

    /// Reads what a stream says until it is silent.
    async fn read(&mut self, stream: &mut Stream) -> anyhow::Result<()> {
        while stream.next(Duration::from_millis(300)).await?.is_some() {}
        self.streamed.push_str(&std::mem::take(&mut stream.raw));
        Ok(())
    }

    /// Polls every room from a cursor until nothing more comes; answers where it stands then.
    async fn poll(
        &mut self,
        stack: &Stack,
        gateway: &str,
        cursor: Option<&str>,
    ) -> anyhow::Result<Option<String>> {
        let mut cursor = cursor.map(str::to_owned);
        loop {
            let cursors: Vec<&str> = cursor.as_deref().into_iter().collect();
            let url = format!("{gateway}{}&wait=0", path("poll", &ROOMS, &cursors));
            let answer = stack.http.get(&url, Some(&self.token)).await?;
            self.polled
                .push_str(&format!("{:?}{}", answer.headers, answer.text()));
            let answer = answer.json();
            cursor = answer["cursor"].as_str().map(str::to_owned);
            if answer["more"] != true {
                return Ok(cursor);
            }
        }
    }

    /// Connects with every room (and cursors, which may be another's), subscribes again, asks for history.
    async fn knock(&mut self, gateway: &str, cursors: &HashMap<String, String>) -> anyhow::Result<Client> {
        let (mut client, connected) = Client::connect(gateway, &self.token, &ROOMS, cursors).await?;
        let opened = connected["rooms"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|answer| answer["error"].is_null());
        let mut behind: HashSet<String> = opened
            .filter_map(|answer| answer["room"].as_str().map(str::to_owned))
            .collect();
        let all = |frame: &Value| {
            frame["caughtUp"]["room"]
                .as_str()
                .is_some_and(|room| behind.remove(room))
                && behind.is_empty()
        };
        client
            .until("caughtUp in every room", Duration::from_secs(10), all)
            .await?;
        for room in ROOMS {
            client
                .request("subscribe", json!({ "room": room, "cursor": cursors.get(room) }))
                .await?;
            client
                .request("history", json!({ "room": room, "limit": 300 }))
                .await?;
        }
        self.take(&mut client);
        Ok(client)
    }

    /// On which ways it received a mark.
    fn has(&self, mark: &str) -> [bool; 3] {
        [&self.bytes, &self.streamed, &self.polled].map(|bytes| bytes.contains(mark))
    }
}

#[test]
fn nobody_receives_a_byte_of_what_is_not_theirs_on_any_gate() {
    calm(|stack| async move {
        let gateways = stack.gateways();
        let mut actors = actors(stack);
        // The cursor of one who sees everything, from before anything was published: the most that could be stolen.
        let boss = &actors[4].token;
        let (mut probe, _) = Client::connect(&gateways[0], boss, &ROOMS, &HashMap::new()).await?;
        for room in ["lobby", "bookings", "vault", "property.43", "os_dashboard"] {
            if !probe.cursors.contains_key(room) {
                probe.caught_up(room).await?;
            }
        }
        let mut stolen = probe.cut();
        stolen.insert("property.42".to_owned(), stolen["vault"].clone());
        // Their own ones.
        let mut places = Vec::new();
        for actor in &mut actors {
            places.push(actor.poll(stack, &gateways[0], None).await?);
        }
        publish_all(stack, "before").await?;

        // Connect, subscribe, history; live while more is published; state and history and snapshot after it.
        let (mut sockets, mut streams) = (Vec::new(), Vec::new());
        for (index, actor) in actors.iter_mut().enumerate() {
            streams.push(actor.stream(&gateways[(index + 1) % 2], None).await);
            sockets.push(actor.knock(&gateways[index % 2], &HashMap::new()).await?);
        }
        publish_all(stack, "live").await?;
        // A last event that everybody here may see, except those who see nothing: behind it nothing of the round is under way.
        crate::world::publish(
            stack,
            &json!({ "id": "bell", "room": "lobby", "type": "bell", "data": {} }),
        )
        .await?;
        for (actor, socket) in actors.iter_mut().zip(&mut sockets) {
            let hears = ["guest", "clerk", "owner", "boss", "trickster"].contains(&actor.name);
            let within = Duration::from_secs(if hears { 10 } else { 1 });
            let heard = socket
                .until("the bell", within, |frame| {
                    frame["event"]["event"]["id"] == "bell"
                })
                .await;
            assert_eq!(heard.is_ok(), hears, "{}: {:?}", actor.name, heard.err());
            // Rooms are independent; what is under way in another one arrives at once.
            while socket.next(Duration::from_millis(300)).await?.is_some() {}
            actor.take(socket);
        }
        for (actor, stream) in actors.iter_mut().zip(&mut streams) {
            if let Some(stream) = stream {
                let rings = |frame: &Value| frame["event"]["event"]["id"] == "bell";
                if actor.name != "stranger" && actor.name != "publisher" {
                    stream.until("the bell", Duration::from_secs(20), rings).await?;
                }
                actor.read(stream).await?;
            }
        }
        for (index, actor) in actors.iter_mut().enumerate() {
            for gateway in &gateways {
                actor.ask(stack, gateway, &stolen["vault"]).await?;
                actor.poll(stack, gateway, None).await?;
                actor.poll(stack, gateway, Some(&stolen["vault"])).await?;
                actor.poll(stack, gateway, places[index].as_deref()).await?;
            }
            for cursor in [Some(&stolen["vault"]), places[index].as_ref()] {
                let gateway = &gateways[index % 2];
                if let Some(mut stream) = actor.stream(gateway, cursor.map(String::as_str)).await {
                    stream.caught_up(&["lobby"]).await?;
                    actor.read(&mut stream).await?;
                }
            }
            // Coming back with somebody else's cursors, to the other gateway.
            let mut back = actor.knock(&gateways[(index + 1) % 2], &stolen).await?;
            while back.next(Duration::from_millis(300)).await?.is_some() {}
            actor.take(&mut back);
        }

        let (mut leaked, mut missing, mut checked) = (Vec::new(), Vec::new(), 0);
        for actor in &actors {
            for tenant in ["main", "acme"] {
                for place in &PLACES {
                    for (class, round) in [
                        ("event", "before"),
                        ("event", "live"),
                        ("state", "before"),
                        ("state", "live"),
                    ] {
                        let mark = mark(tenant, place, class, round);
                        let may = match tenant {
                            "main" => {
                                place.seen_by.contains(&actor.name)
                                    || (actor.name == "trickster" && place.seen_by.len() == 4)
                            }
                            _ => actor.name == "stranger",
                        };
                        for (way, has) in WAYS.into_iter().zip(actor.has(&mark)) {
                            checked += 1;
                            match (may, has) {
                                (false, true) => {
                                    leaked.push(format!("{} received {mark}: {way}", actor.name))
                                }
                                (true, false) => {
                                    missing.push(format!("{} did not receive {mark}: {way}", actor.name));
                                }
                                _ => {}
                            }
                        }
                    }
                }
            }
            // What redaction takes out of a room is nowhere either, for those without the permission.
            let may_see_hidden = ["boss", "stranger"].contains(&actor.name);
            let (main, acme) = (
                actor.has("hidden-mark-main-property"),
                actor.has("hidden-mark-acme-property"),
            );
            for (way, hidden) in WAYS
                .into_iter()
                .zip(main.into_iter().zip(acme).map(|(main, acme)| main || acme))
            {
                if hidden != may_see_hidden {
                    leaked.push(format!(
                        "{}: sees the redacted member of a property: {hidden}, {way}",
                        actor.name
                    ));
                }
            }
        }
        assert!(leaked.is_empty(), "leaked:\n{}", leaked.join("\n"));
        assert!(
            missing.is_empty(),
            "the search proves nothing, not received:\n{}",
            missing.join("\n")
        );
        let bytes = actors
            .iter()
            .flat_map(|actor| [&actor.bytes, &actor.streamed, &actor.polled]);
        let bytes: usize = bytes.map(String::len).sum();
        crate::world::say(&format!(
            "    rights: {} actors, {checked} marks looked for in {bytes} bytes, none leaked",
            actors.len()
        ));
        Ok(())
    });
}

const WAYS: [&str; 3] = ["socket and HTTP", "stream", "poll"];

/// The whole answer as bytes, without the clock.
fn shape(answer: &roomcast_harness::http::Answer, room: &str) -> String {
    let mut headers: Vec<String> = answer
        .headers
        .iter()
        .filter(|(name, _)| *name != "date")
        .map(|(name, value)| format!("{name}: {value:?}"))
        .collect();
    headers.sort();
    format!("{} {headers:?} {}", answer.status, answer.text()).replace(room, "ROOM")
}

#[test]
fn what_is_absent_and_what_is_forbidden_are_one_answer_byte_for_byte() {
    calm(|stack| async move {
        // Same length, so that a length cannot tell either: one that exists and one that does not, at every depth.
        let pairs = [
            ("vault", "vaulx"),
            ("bookings", "bookingx"),
            ("property.42", "property.4x"),
            ("property.42", "propertx.42"),
            ("user.boss", "user.bosx"),
        ];
        let gateway = &stack.gateways()[0];
        let mut clients = Vec::new();
        for roles in [&["user"][..], &[]] {
            for (index, (forbidden, absent)) in pairs.into_iter().enumerate() {
                // A user for each pair: history of one user is rationed, and who asks too fast is told so, whatever the room.
                let user = format!("curious-{}-{index}", roles.len());
                let token = stack.signer.token(&user, roles);
                for path in [
                    "/v1/rooms/ROOM/snapshot?events=5",
                    "/v1/rooms/ROOM/events?limit=5",
                    "/v1/state?room=ROOM",
                    "/v1/metrics?room=ROOM",
                    "/v1/metrics/m?room=ROOM",
                    "/v1/sse?room=ROOM",
                    "/v1/poll?room=ROOM",
                ] {
                    let url = |room: &str| format!("{gateway}{}", path.replace("ROOM", room));
                    let there = stack.http.get(&url(forbidden), Some(&token)).await?;
                    let not = stack.http.get(&url(absent), Some(&token)).await?;
                    assert_eq!(there.status, 403, "{forbidden} {path}: {}", there.text());
                    assert_eq!(shape(&there, forbidden), shape(&not, absent), "{path}");
                }
                // Beside a room that is open: what streams and polls say of the other.
                if !roles.is_empty() {
                    for gate in [Way::Stream, Way::Poll] {
                        let there = beside(stack, gate, &token, forbidden).await?;
                        assert_eq!(
                            there,
                            beside(stack, gate, &token, absent).await?,
                            "{forbidden} {gate:?}"
                        );
                        assert!(
                            there.contains("forbidden") && !there.contains("\"cursor\""),
                            "{there}"
                        );
                    }
                }
                let mut texts = Vec::new();
                for room in [forbidden, absent] {
                    let (mut client, _) = Client::connect(gateway, &token, &[room], &HashMap::new()).await?;
                    for name in ["subscribe", "history"] {
                        let answer = client.request(name, json!({ "room": room })).await?;
                        assert_eq!(answer["error"]["code"], "forbidden", "{name} {room}: {answer}");
                    }
                    texts.push(normal(&client.raw, room));
                    clients.push(client);
                }
                assert_eq!(texts[0], texts[1], "{forbidden} and {absent}");
            }
        }
        // Publishing likewise.
        let token = stack.signer.token("curious", &["user"]);
        let mut answers = Vec::new();
        for room in ["vault", "vaulx"] {
            let event = json!({ "id": "curious", "room": room, "type": "t", "data": {} });
            answers.push(shape(&stack.publish(0, &token, &event).await?, room));
        }
        assert_eq!(answers[0], answers[1]);
        Ok(())
    });
}

/// All that is said of a room by one who follows it beside the lobby.
async fn beside(stack: &Stack, gate: Way, token: &str, room: &str) -> anyhow::Result<String> {
    let (gateway, rooms) = (&stack.gateways()[1], ["lobby", room]);
    let said: Vec<Value> = if gate == Way::Stream {
        let mut stream = Stream::follow(gateway, token, &rooms, None).await?;
        let frames = stream.caught_up(&["lobby"]).await?;
        let connected = frames[0]["connected"]["rooms"].as_array().cloned();
        [connected.unwrap_or_default(), frames[1..].to_vec()].concat()
    } else {
        let url = format!("{gateway}{}&wait=0", path("poll", &rooms, &[]));
        let answer = stack.http.get(&url, Some(token)).await?.json();
        let list = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
        [list("rooms"), list("frames")].concat()
    };
    let said = said.iter().map(Value::to_string);
    let of_room = said.filter(|text| text.contains(&format!("\"{room}\"")));
    Ok(of_room.collect::<String>().replace(room, "ROOM"))
}

/// The refusals among frames, without what differs by connection.
fn normal(raw: &[String], room: &str) -> Vec<String> {
    let mut out = Vec::new();
    for text in raw {
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        match frame.get("connected") {
            Some(connected) => {
                let of_room = connected["rooms"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|answer| answer["room"] == room);
                out.extend(of_room.map(|answer| answer.to_string().replace(room, "ROOM")));
            }
            None if frame.get("error").is_some() => out.push(text.replace(room, "ROOM")),
            None => {}
        }
    }
    out
}
