//! A gateway without sockets and NATS: the real machines, driven as `spine_driver`, `reads` and `shard` drive them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use roomcast_access::KeySet;
use roomcast_access::{Policy, Principal, TokenRules, Verifier};
use roomcast_chassis::metrics::Metrics;
use roomcast_proto::cursor::{Cursor, Cursors, Position, time_bits};
use roomcast_proto::frame::{CaughtUp, ClientFrame, RoomAnswer, ServerFrame, server_frame};
use roomcast_proto::ids::Tenant;
use roomcast_rights::Current;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::log::{self, CREATED};
use super::{Mistake, Shared};
use crate::bucket::Rate;
use crate::delivery::Delivery;
use crate::gate::{Admitted, Gate};
use crate::hub::{Hub, HubSettings, Incoming, Outcome, Part, Read, Recovery, ToShard, Waiter};
use crate::members::Member;
use crate::place::Place;
use crate::session::{About, From, Handshake, Limits, Now, Opening, Session};
use crate::spine::{Holes, InfoAnswer, Placed, ReadAnswer, Spine, Ticket, Wish};

pub(super) const PORT: u16 = 8080;
const TICK: Duration = Duration::from_millis(20);
/// Who does not answer for so long does not answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(400);
/// Small, so that returning clients need the log as well.
const RING_BYTES: usize = 12 * 1024;
const UNIX_MILLIS: i64 = 1_790_000_000_000;
const POLICY: &str = "version: 1\nroles:\n  staff: { permissions: [see] }\nrooms:\n  - { room: a, subscribe: see }\n  - { room: b, subscribe: see }\n";

enum In {
    Log(Value),
    LogGone,
    Accepted(u64, UnboundedSender<String>),
    Said(u64, String),
    Gone(u64),
}

/// What was asked of the log.
enum Asked {
    Read(&'static str, Ticket),
    Leader(&'static str, Ticket),
    Probe(&'static str, Ticket),
    Info(&'static str, Ticket),
    State(Place, u64),
    Events(Place, u64, u64, u64),
    Time(u64),
}

/// A client's connection, as much of it as matters here.
struct Client {
    say: UnboundedSender<String>,
    session: Option<Session>,
    waiting: Option<(u64, Opening)>,
    rooms: Vec<(Arc<roomcast_access::Subscribe>, Member)>,
    /// Joined at the next tick: the planted mistake.
    later: Vec<(Arc<roomcast_access::Subscribe>, Member)>,
}

struct Gateway {
    shared: Shared,
    hub: Arc<Hub>,
    gate: Gate,
    admitted: Admitted,
    inbox: Receiver<ToShard>,
    reads: tokio::sync::mpsc::Receiver<Read>,
    spines: BTreeMap<&'static str, Spine<Incoming>>,
    caught_up: BTreeSet<&'static str>,
    to_log: Option<UnboundedSender<Value>>,
    asked: HashMap<u64, (Duration, Asked)>,
    next: u64,
    clients: BTreeMap<u64, Client>,
    tickets: HashMap<u64, u64>,
    random: fastrand::Rng,
}

pub(super) async fn serve(shared: Shared) -> turmoil::Result {
    let (tell, told) = unbounded_channel();
    let listener = turmoil::net::TcpListener::bind(("0.0.0.0", PORT)).await?;
    let accepting = tell.clone();
    tokio::task::spawn_local(async move {
        let mut number = 0;
        while let Ok((stream, _)) = listener.accept().await {
            number += 1;
            tokio::task::spawn_local(client(number, stream, accepting.clone()));
        }
    });
    tokio::task::spawn_local(follow(tell));
    Gateway::new(shared).run(told).await;
    Ok(())
}

/// Lines of a client in and out.
async fn client(number: u64, stream: turmoil::net::TcpStream, tell: UnboundedSender<In>) {
    let (reading, mut writing) = stream.into_split();
    let (say, mut said) = unbounded_channel::<String>();
    let _ = tell.send(In::Accepted(number, say));
    tokio::task::spawn_local(async move {
        while let Some(line) = said.recv().await {
            if writing.write_all(format!("{line}\n").as_bytes()).await.is_err() {
                return;
            }
        }
    });
    let mut lines = BufReader::new(reading).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let _ = tell.send(In::Said(number, line));
    }
    let _ = tell.send(In::Gone(number));
}

/// Keeps a connection to the log.
async fn follow(tell: UnboundedSender<In>) {
    loop {
        if let Ok(stream) = turmoil::net::TcpStream::connect(("log", log::PORT)).await {
            let (reading, mut writing) = stream.into_split();
            let (ask, mut asked) = unbounded_channel::<String>();
            let _ = tell.send(In::Accepted(0, ask));
            tokio::task::spawn_local(async move {
                while let Some(line) = asked.recv().await {
                    if writing.write_all(format!("{line}\n").as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
            let mut lines = BufReader::new(reading).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = tell.send(In::Log(serde_json::from_str(&line).unwrap()));
            }
        }
        let _ = tell.send(In::LogGone);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Gateway {
    fn new(shared: Shared) -> Self {
        let policy = Policy::parse(POLICY, "policy.yaml").unwrap();
        let names = Policy::parse(POLICY, "policy.yaml").unwrap();
        let settings = HubSettings {
            ring_bytes_max: RING_BYTES,
            ring_room_events_min: 2,
            ..HubSettings::default()
        };
        let metrics = Metrics::new("simulation").unwrap();
        let hub = Hub::new(settings, Box::new(move |name| names.audience(name)), &metrics).unwrap();
        let (tell, inbox) = std::sync::mpsc::channel();
        hub.attach(Box::new(move |message| drop(tell.send(message))));
        let (last_event, last_value) = shared.log.borrow().ends();
        // As after a restart: the newest events are read into the ring, values when somebody asks for them.
        let next = last_event.saturating_sub(20).max(1);
        hub.reset_state(CREATED, last_value + 1, None);
        hub.reset_events(CREATED, 1, next, None);
        let spine = |holes, next| Spine::new(holes, CREATED.to_owned(), next, 0);
        let spines = BTreeMap::from([
            ("events", spine(Holes::Lost, next)),
            ("state", spine(Holes::Replaced, last_value + 1)),
        ]);
        let verifier = Verifier::new(
            TokenRules { issuer: "i".to_owned(), audience: "roomcast".to_owned() },
            KeySet::from_jwks(r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#).unwrap(),
        );
        let rights = Current::fixed(policy);
        let principal = Arc::new(principal());
        let decided = rights.now().decide(&principal, UNIX_MILLIS / 1_000).unwrap();
        let admitted = Admitted {
            user: Arc::clone(&principal.subject),
            roles: decided.roles,
            rights: decided.rights,
            expires_at: i64::MAX / 4_000,
            ends_at: i64::MAX / 4_000,
            generation: decided.generation,
            principal,
        };
        let elapsed = u64::try_from(turmoil::elapsed().as_millis()).unwrap();
        Self {
            random: fastrand::Rng::with_seed(shared.seed ^ elapsed),
            gate: Gate::new(verifier, rights),
            reads: hub.take_reads().unwrap(),
            shared,
            hub,
            admitted,
            inbox,
            spines,
            caught_up: BTreeSet::new(),
            to_log: None,
            asked: HashMap::new(),
            next: 1,
            clients: BTreeMap::new(),
            tickets: HashMap::new(),
        }
    }

    async fn run(mut self, mut told: UnboundedReceiver<In>) {
        let mut ticks = tokio::time::interval(TICK);
        let mut log: Option<UnboundedSender<String>> = None;
        let (say, mut said) = unbounded_channel();
        self.to_log = Some(say);
        loop {
            tokio::select! {
                Some(message) = told.recv() => match message {
                    In::Accepted(0, connection) => {
                        log = Some(connection);
                        let now = millis();
                        self.each_spine(|spine, out| spine.on_interrupted(now, out));
                    }
                    In::LogGone => log = None,
                    In::Log(message) => self.heard(&message),
                    In::Accepted(number, say) => self.accept(number, say),
                    In::Said(number, line) => self.said(number, &line),
                    In::Gone(number) => self.gone(number),
                },
                Some(read) = self.reads.recv() => self.read(&read),
                Some(question) = said.recv() => if let Some(log) = &log {
                    let _ = log.send(Value::to_string(&question));
                },
                _ = ticks.tick() => self.tick(),
            }
            // A shard's thread may be behind the hub's.
            if self.random.u32(0..3) == 0 {
                self.deliver();
            }
        }
    }

    fn tick(&mut self) {
        let now = millis();
        let over: Vec<u64> = self
            .asked
            .iter()
            .filter(|(_, (until, _))| turmoil::elapsed() >= *until)
            .map(|(ask, _)| *ask)
            .collect();
        for ask in over {
            self.answered(ask, None);
        }
        self.each_spine(|spine, out| spine.on_tick(now, out));
        // Once each, as the drivers' latches are.
        let current = self.spines.iter().filter(|(_, spine)| spine.is_current());
        self.caught_up.extend(current.map(|(stream, _)| *stream));
        if self.caught_up.len() == self.spines.len() {
            self.hub.open();
        }
        self.hub.tick(unix_millis(), now);
        self.deliver();
        for client in self.clients.values_mut() {
            for (permit, mut member) in client.later.drain(..) {
                member.skip = self.hub.head().position;
                client.rooms.push((permit, member));
            }
        }
    }

    fn each_spine(&mut self, mut change: impl FnMut(&mut Spine<Incoming>, &mut Vec<Wish<Incoming>>)) {
        for stream in ["events", "state"] {
            let mut out = Vec::new();
            if let Some(spine) = self.spines.get_mut(stream) {
                change(spine, &mut out);
            }
            self.fulfil(stream, out);
        }
    }

    /// As `spine_driver` does.
    fn fulfil(&mut self, stream: &'static str, wishes: Vec<Wish<Incoming>>) {
        for wish in wishes {
            match wish {
                Wish::Deliver { placed, .. } if stream == "events" => {
                    self.hub
                        .event(placed.sequence, placed.time_micros, &placed.message, false);
                }
                Wish::Deliver { placed, .. } => {
                    self.hub
                        .state_value(placed.sequence, placed.time_micros, &placed.message);
                }
                Wish::Skip { to, .. } if stream == "events" => self.hub.skip_events(to),
                Wish::Skip { to, .. } => self.hub.skip_state(to),
                Wish::Read { ticket, from } => {
                    self.ask(
                        Asked::Read(stream, ticket),
                        json!({ "what": "read", "stream": stream, "from": from }),
                    );
                }
                Wish::AskLeader { ticket, from } => {
                    self.ask(
                        Asked::Leader(stream, ticket),
                        json!({ "what": "leader", "stream": stream, "from": from }),
                    );
                }
                Wish::Probe { ticket } => {
                    self.ask(
                        Asked::Probe(stream, ticket),
                        json!({ "what": "probe", "stream": stream }),
                    );
                }
                Wish::Info { ticket } => {
                    self.ask(
                        Asked::Info(stream, ticket),
                        json!({ "what": "info", "stream": stream }),
                    );
                }
                Wish::Reset { cause, .. } => panic!("nothing was lost, but {stream} is given up: {cause:?}"),
            }
        }
    }

    fn ask(&mut self, asked: Asked, mut question: Value) {
        let ask = self.number();
        question["ask"] = ask.into();
        self.asked
            .insert(ask, (turmoil::elapsed() + ANSWER_WITHIN, asked));
        if let Some(log) = &self.to_log {
            let _ = log.send(question);
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// As `reads` does, without its attempts: what is not answered is refused, and the client comes again.
    fn read(&mut self, read: &Read) {
        match read {
            Read::State(place) => {
                let question = json!({ "what": "room", "stream": "state", "room": place.room.as_str() });
                self.ask(Asked::State(place.clone(), self.hub.life()), question);
            }
            Read::Events(place, _) => {
                let Some(wanted) = self.hub.wanted_part(&place.key) else {
                    return;
                };
                let question = json!({ "what": "room", "stream": "events", "room": place.room.as_str(),
                                       "from": wanted.from, "to": wanted.to });
                let asked = Asked::Events(place.clone(), self.hub.life(), wanted.from, wanted.to);
                self.ask(asked, question);
            }
            Read::Time(seq) => {
                self.ask(
                    Asked::Time(*seq),
                    json!({ "what": "read", "stream": "events", "from": seq }),
                );
            }
        }
    }

    fn heard(&mut self, message: &Value) {
        if let Some(ask) = message["ask"].as_u64() {
            return self.answered(ask, Some(&message["answer"]));
        }
        let stream = if message["live"] == "events" {
            "events"
        } else {
            "state"
        };
        let (now, mut out) = (millis(), Vec::new());
        if let Some(spine) = self.spines.get_mut(stream) {
            spine.on_live(placed(message), now, &mut out);
        }
        self.fulfil(stream, out);
    }

    fn answered(&mut self, ask: u64, answer: Option<&Value>) {
        let Some((_, asked)) = self.asked.remove(&ask) else {
            return;
        };
        let (now, mut out) = (millis(), Vec::new());
        if answer.is_some() {
            self.hub.answered(now);
        }
        let messages = || -> Vec<Placed<Incoming>> {
            let list = answer.and_then(|answer| answer["messages"].as_array());
            list.into_iter().flatten().map(placed).collect()
        };
        let stream = match &asked {
            Asked::Read(stream, _)
            | Asked::Leader(stream, _)
            | Asked::Probe(stream, _)
            | Asked::Info(stream, _) => stream,
            _ => "",
        };
        let spine = self.spines.get_mut(stream);
        match (asked, spine) {
            (Asked::Read(_, ticket), Some(spine)) => {
                let read = answer.map(|answer| ReadAnswer {
                    messages: messages(),
                    more: answer["more"] == true,
                });
                spine.on_read(ticket, read, now, &mut out);
            }
            (Asked::Leader(_, ticket), Some(spine)) => {
                let read =
                    answer.map(|answer| answer["message"].is_object().then(|| placed(&answer["message"])));
                spine.on_leader(ticket, read, now, &mut out);
            }
            (Asked::Probe(_, ticket), Some(spine)) => {
                spine.on_probe(
                    ticket,
                    answer.and_then(|answer| answer["last"].as_u64()),
                    now,
                    &mut out,
                );
            }
            (Asked::Info(_, ticket), Some(spine)) => {
                let info = answer.map(|answer| InfoAnswer {
                    created: CREATED.to_owned(),
                    first: 1,
                    last: answer["last"].as_u64().unwrap_or_default(),
                });
                spine.on_info(ticket, info, now, &mut out);
            }
            (Asked::State(place, life), _) => {
                let value = |m: Placed<Incoming>| self.hub.old_value(m.sequence, m.time_micros, &m.message);
                let values = answer.map(|_| messages().into_iter().filter_map(value).collect());
                self.hub.loaded(&place.key, life, values);
            }
            (Asked::Events(place, life, from, to), _) => {
                let event = |m: Placed<Incoming>| {
                    let event = self.hub.old_event(m.sequence, m.time_micros, &m.message)?;
                    Some((Arc::new(event), m.time_micros))
                };
                let part = answer.map(|_| Part {
                    from,
                    to,
                    events: messages().into_iter().filter_map(event).collect(),
                    cut: false,
                });
                self.hub.read_part(&place.key, life, part, unix_millis());
            }
            (Asked::Time(seq), _) => {
                let same = |m: &Placed<Incoming>| m.sequence == seq;
                let found = messages()
                    .into_iter()
                    .find(same)
                    .map(|m| time_bits(m.time_micros));
                self.hub.timed(seq, found);
            }
            _ => {}
        }
        match stream {
            "events" => self.fulfil("events", out),
            _ => self.fulfil("state", out),
        }
    }

    fn accept(&mut self, number: u64, say: UnboundedSender<String>) {
        // Not ready: the sender goes, and with it the connection.
        if self.hub.accepting().is_err() {
            return;
        }
        let client = Client {
            say,
            session: None,
            waiting: None,
            rooms: Vec::new(),
            later: Vec::new(),
        };
        self.clients.insert(number, client);
    }

    fn gone(&mut self, number: u64) {
        let Some(client) = self.clients.remove(&number) else {
            return;
        };
        if let Some((ticket, _)) = client.waiting {
            self.tickets.remove(&ticket);
            self.hub.forget(Waiter { shard: 0, ticket });
        }
        for (permit, _) in client.rooms {
            self.hub.release(&permit);
        }
    }

    fn said(&mut self, number: u64, line: &str) {
        let Some(client) = self
            .clients
            .get_mut(&number)
            .filter(|client| client.session.is_none())
        else {
            return;
        };
        let handshake = Handshake {
            admitted: Some(self.admitted.clone()),
        };
        let limits = Limits {
            subscriptions_max: 16,
            rooms_max: 16,
            message_bytes_max: 65_536,
            requests: Rate {
                per_second: 1_000,
                burst: 1_000,
            },
            ping_every: Duration::from_secs(25),
            cursors: Cursors::plain(),
        };
        let now = Now {
            millis: 1,
            unix_millis: unix_millis(),
        };
        let (session, opening) = handshake
            .accept(ClientFrame::from_json(line), &self.gate, limits, now)
            .unwrap();
        client.session = Some(session);
        let ticket = self.number();
        self.open(number, ticket, opening);
    }

    /// As `shard::recovery` does: all rooms at once or none.
    fn open(&mut self, number: u64, ticket: u64, mut opening: Opening) {
        // A personal room is nobody's concern here.
        opening.rooms.retain(|asked| !asked.name.starts_with("user."));
        let waiter = Waiter { shard: 0, ticket };
        let (mut found, mut wait) = (Vec::new(), false);
        for asked in &opening.rooms {
            let permit = asked.permit.as_ref().unwrap();
            let from = match asked.from {
                From::At(cursor) => Some(cursor),
                _ => None,
            };
            match self.hub.recover(permit, from, waiter, unix_millis()) {
                Recovery::Wait => wait = true,
                Recovery::Unavailable | Recovery::Rate(_) => found.push(None),
                Recovery::Done(recovered) => found.push(Some((Arc::clone(permit), recovered))),
            }
        }
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        if wait {
            self.tickets.insert(ticket, number);
            client.waiting = Some((ticket, opening));
            return;
        }
        self.tickets.remove(&ticket);
        self.hub.forget(waiter);
        let answer = |(asked, found): (&crate::session::Asked, &Option<_>)| {
            let mut answer = RoomAnswer {
                room: asked.name.clone(),
                ..RoomAnswer::default()
            };
            let found: &Option<(Arc<roomcast_access::Subscribe>, crate::hub::Recovered)> = found;
            match found {
                None => answer.error = Some((&unavailable()).into()),
                Some((_, recovered)) => {
                    let (word, reason) = match recovered.recovery {
                        Outcome::Complete => ("complete", None),
                        Outcome::Fresh => ("fresh", None),
                        Outcome::Incomplete { reason } => ("incomplete", Some(reason.as_str().to_owned())),
                    };
                    answer.recovery = Some(word.to_owned());
                    answer.reason = reason;
                    answer.cursor = Some(written(recovered.start));
                }
            }
            answer
        };
        let answers = opening.rooms.iter().zip(&found).map(answer).collect();
        let about = About {
            connection: "c1".to_owned(),
            epoch: String::new(),
            resume_seconds: 1,
            stale: false,
        };
        let now = Now {
            millis: 1,
            unix_millis: unix_millis(),
        };
        let connected = client.session.as_ref().unwrap().connected(about, answers, now);
        say(
            client,
            &ServerFrame::answer(opening.id, server_frame::Body::Connected(connected)),
        );
        for (permit, recovered) in found.into_iter().flatten() {
            let caught_up = ServerFrame::push(server_frame::Body::CaughtUp(CaughtUp {
                room: permit.room().as_str().to_owned(),
                cursor: written(recovered.head),
            }));
            let mistake = self.shared.mistake;
            if mistake == Some(Mistake::CursorBeforeWrite) {
                say(client, &caught_up);
            }
            for delivery in recovered.events.iter().chain(&recovered.state) {
                push(client, &permit, delivery);
            }
            if mistake != Some(Mistake::CursorBeforeWrite) {
                say(client, &caught_up);
            }
            let member = Member {
                connection: 0,
                slot: 0,
                skip: match mistake {
                    Some(Mistake::NoSkip) => Position::default(),
                    _ => recovered.head.position,
                },
                behind: false,
                encoding: crate::encoding::Encoding::Json,
            };
            self.hub.hold(&permit);
            if mistake == Some(Mistake::HistoryBeforeLive) {
                client.later.push((permit, member));
            } else {
                client.rooms.push((permit, member));
            }
        }
    }

    /// As `shard::fan_out` does.
    fn deliver(&mut self) {
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                ToShard::Deliver(delivery) => {
                    for client in self.clients.values() {
                        let here = |(permit, member): &&(Arc<roomcast_access::Subscribe>, Member)| {
                            *permit.room() == delivery.room
                                && delivery.visible(permit, unix_millis())
                                && !member.has(&delivery)
                        };
                        if let Some((permit, _)) = client.rooms.iter().find(here) {
                            push(client, permit, &delivery);
                        }
                    }
                }
                ToShard::Ready { ticket } => {
                    let Some(number) = self.tickets.get(&ticket).copied() else {
                        continue;
                    };
                    let waiting = self
                        .clients
                        .get_mut(&number)
                        .and_then(|client| client.waiting.take());
                    if let Some((ticket, opening)) = waiting {
                        self.open(number, ticket, opening);
                    }
                }
                ToShard::CloseAll | ToShard::Reset => panic!("nothing was lost, but {message:?}"),
                _ => {}
            }
        }
    }
}

fn say(client: &Client, frame: &ServerFrame) {
    let _ = client.say.send(frame.to_json());
}

fn push(client: &Client, permit: &roomcast_access::Subscribe, delivery: &Arc<Delivery>) {
    let seen = delivery.for_class(permit).unwrap();
    let frame = seen.frame(crate::encoding::Encoding::Json);
    let header = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let _ = client
        .say
        .send(String::from_utf8(frame[header..].to_vec()).unwrap());
}

fn placed(message: &Value) -> Placed<Incoming> {
    let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
    Placed {
        sequence: message["seq"].as_u64().unwrap(),
        time_micros: message["time"].as_i64().unwrap(),
        bytes: 200,
        message: Incoming {
            subject: text("subject"),
            expires_millis: None,
            withdrawn: false,
            payload: text("payload").into_bytes().into(),
        },
    }
}

fn principal() -> Principal {
    Principal {
        tenant: Tenant::default(),
        subject: "u1".into(),
        roles: vec!["staff".to_owned()],
        claims: serde_json::Map::new(),
        expires_at: i64::MAX / 4_000,
        issued_at: None,
        token_id: None,
    }
}

fn unavailable() -> roomcast_proto::refusal::Refusal {
    roomcast_proto::refusal::Refusal::new(roomcast_proto::refusal::Code::Unavailable, "not at the moment")
}

fn written(cursor: Cursor) -> String {
    Cursors::plain()
        .write(&Tenant::default(), &cursor)
        .as_str()
        .to_owned()
}

fn millis() -> i64 {
    i64::try_from(turmoil::elapsed().as_millis()).unwrap()
}

fn unix_millis() -> i64 {
    UNIX_MILLIS + millis()
}
