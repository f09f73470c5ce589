//! Its clients: what they say, what they are answered and pushed, as `shard` does it.

use std::sync::Arc;
use std::time::Duration;

use roomcast_proto::cursor::{Cursor, Cursors, Position};
use roomcast_proto::frame::{CaughtUp, ClientFrame, RoomAnswer, ServerFrame, server_frame};
use roomcast_proto::ids::Tenant;
use tokio::sync::mpsc::UnboundedSender;

use super::{Client, Gateway, unix_millis};
use crate::bucket::Rate;
use crate::delivery::Delivery;
use crate::hub::{Outcome, Recovery, ToShard, Waiter};
use crate::members::Member;
use crate::session::{About, From, Handshake, Limits, Now, Opening};
use crate::simulation::Mistake;

impl Gateway {
    pub(super) fn accept(&mut self, number: u64, say: UnboundedSender<String>) {
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

    pub(super) fn gone(&mut self, number: u64) {
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

    pub(super) fn said(&mut self, number: u64, line: &str) {
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
            activity: Rate {
                per_second: 1,
                burst: 5,
            },
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
    pub(super) fn deliver(&mut self) {
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

fn unavailable() -> roomcast_proto::refusal::Refusal {
    roomcast_proto::refusal::Refusal::new(roomcast_proto::refusal::Code::Unavailable, "not at the moment")
}

fn written(cursor: Cursor) -> String {
    Cursors::plain()
        .write(&Tenant::default(), &cursor)
        .as_str()
        .to_owned()
}
