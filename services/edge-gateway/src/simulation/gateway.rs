//! A gateway without sockets and NATS: the real machines, driven as `spine_driver`, `reads` and `shard` drive them.

mod clients;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use roomcast_access::KeySet;
use roomcast_access::{Policy, Principal, TokenRules, Verifier};
use roomcast_chassis::metrics::Metrics;
use roomcast_proto::cursor::time_bits;
use roomcast_proto::ids::Tenant;
use roomcast_rights::Current;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Shared;
use super::log::{self, CREATED};
use crate::gate::{Admitted, Gate};
use crate::hub::{Hub, HubSettings, Incoming, Part, Read, ToShard};
use crate::members::Member;
use crate::place::Place;
use crate::session::{Opening, Session};
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
            trail: None,
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

fn millis() -> i64 {
    i64::try_from(turmoil::elapsed().as_millis()).unwrap()
}

fn unix_millis() -> i64 {
    UNIX_MILLIS + millis()
}
