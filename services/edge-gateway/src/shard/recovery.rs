//! Rooms opened, left and read back: what the hub answers becomes frames in the order the contract has.
//!
//! A member joins in the same instant in which what it missed is queued, and remembers the position that covers: live
//! events that are not after it are skipped, those after it queue up behind. So there is nothing to merge, nothing is
//! missed between the two and nothing is sent twice.

use std::sync::Arc;

use roomcast_access::Subscribe;
use roomcast_proto::close::Close;
use roomcast_proto::cursor::{Cursor, Position};
use roomcast_proto::frame::{RoomAnswer, ServerFrame, Subscribed, server_frame};
use roomcast_proto::ids::{Room, Tenant};
use roomcast_proto::refusal::{Code, Refusal};

use super::{Shard, Ticket, input};
use crate::allowance::{self, Operation};
use crate::connection::{Connection, Waiting};
use crate::hub::{self, Outcome, Recovered, Recovery, Rewind, Waiter};
use crate::members::Member;
use crate::metrics::Ending;
use crate::session::{About, Asked, From, Kind, OpenRoom, Opening};

/// A room that can be opened now.
pub(super) type Opened = (Arc<Subscribe>, Recovered);

impl Shard {
    /// Opens rooms when all of them can be; else waits for the hub. Nothing is kept of an attempt that has to wait.
    pub(super) fn open(&mut self, key: u32, opening: Opening) {
        self.open_with(key, opening, None);
    }

    fn open_with(&mut self, key: u32, mut opening: Opening, ticket: Option<u64>) {
        let Some(session) = self
            .connections
            .get_mut(key as usize)
            .and_then(Connection::session)
        else {
            return;
        };
        session.decide_opening(&mut opening);
        // What a connection asks for with its first words; later it asks for one room at a time, and is refused before. A stream's were
        // looked at with its request.
        if opening.kind == Kind::Connected && ticket.is_none() {
            for _ in opening.rooms.iter().filter(|asked| asked.permit.is_err()) {
                self.shared.gate.forbade("subscribe", session.admitted());
            }
        }
        // Reading deep is counted by user, all others ask for nothing by name.
        let deep = opening
            .rooms
            .iter()
            .any(|asked| matches!(asked.from, From::Rewind { .. }));
        let user = if deep {
            session.user().to_owned()
        } else {
            String::new()
        };
        let waited = ticket.is_some();
        let ticket = ticket.unwrap_or_else(|| self.new_ticket());
        if opening.kind == Kind::Stream {
            return self.open_stream(key, opening, ticket);
        }
        let waiter = self.waiter(ticket);
        let found = self.recover(&opening.rooms, &user, waiter);
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return;
        };
        let Some(found) = found else {
            self.tickets.insert(ticket, Ticket::Opening(key));
            connection.waiting = Some(Box::new(Waiting {
                ticket,
                opening,
                queue: Vec::new(),
            }));
            return;
        };
        if waited {
            self.tickets.remove(&ticket);
            self.shared.hub.forget(waiter);
        }
        match opening.kind {
            Kind::Connected => self.connected(key, &opening, found),
            Kind::Subscribed => self.subscribed(key, &opening, found),
            Kind::Exchanged => self.exchanged(key, &opening, found),
            Kind::Stream => {}
        }
    }

    /// Asks the hub for rooms. `None`: it has to read first for one of them.
    fn recover(&self, rooms: &[Asked], user: &str, waiter: Waiter) -> Option<Vec<Result<Opened, Refusal>>> {
        let (hub, now) = (&self.shared.hub, self.now.unix_millis);
        let permitted = rooms
            .iter()
            .filter_map(|asked| Some((&**asked.permit.as_ref().ok()?, asked.from)));
        let from = permitted.filter_map(|(permit, from)| match from {
            From::At(cursor) => Some((permit, Some(cursor))),
            From::Fresh | From::Unreadable => Some((permit, None)),
            From::Rewind { .. } => None,
        });
        let from: Vec<_> = from.collect();
        let mut recoveries = hub
            .recover_pages(&from, self.page_and_one(), waiter, now)
            .into_iter();
        let (mut found, mut wait) = (Vec::with_capacity(rooms.len()), false);
        for asked in rooms {
            let permit = match &asked.permit {
                Ok(permit) => permit,
                Err(refusal) => {
                    found.push(Err(refusal.clone()));
                    continue;
                }
            };
            let recovery = match asked.from {
                From::Rewind { .. } if !permit.history() => {
                    found.push(Err(Refusal::forbidden()));
                    continue;
                }
                From::Rewind { count, seconds } => self.rewind(permit, (count, seconds), user, waiter),
                _ => recoveries.next().unwrap_or(Recovery::Unavailable),
            };
            found.push(match recovery {
                Recovery::Wait => {
                    wait = true;
                    continue;
                }
                Recovery::Unavailable => Err(unavailable()),
                Recovery::Rate(wait_millis) => Err(allowance::too_many(wait_millis)),
                Recovery::Done(mut recovered) => {
                    if asked.from == From::Unreadable {
                        recovered.recovery = Outcome::Incomplete {
                            reason: hub::Gap::Epoch,
                        };
                    }
                    Ok((Arc::clone(permit), recovered))
                }
            });
        }
        (!wait).then_some(found)
    }

    /// Asks for a part of the past: so many events at most, of so many seconds at most.
    fn rewind(
        &self,
        permit: &Subscribe,
        (count, seconds): (usize, Option<u32>),
        user: &str,
        waiter: Waiter,
    ) -> Recovery {
        let now = self.now.unix_millis;
        let since = |seconds: u32| {
            now.saturating_sub(i64::from(seconds) * 1_000)
                .saturating_mul(1_000)
        };
        let rewind = Rewind {
            count,
            since_micros: seconds.map(since),
        };
        let allowance = &self.shared.allowance;
        let deep = || allowance.take(permit.tenant(), user, Operation::DeepHistory);
        self.shared.hub.rewind(permit, rewind, waiter, now, deep)
    }

    fn connected(&mut self, key: u32, opening: &Opening, found: Vec<Result<Opened, Refusal>>) {
        self.say_connected(key, opening, &found);
        for (asked, found) in opening.rooms.iter().zip(found) {
            if let Ok((permit, recovered)) = found {
                self.join(key, &permit, recovered, asked.requested);
            }
        }
    }

    pub(super) fn say_connected(&mut self, key: u32, opening: &Opening, found: &[Result<Opened, Refusal>]) {
        let answers = opening
            .rooms
            .iter()
            .zip(found)
            .map(|(asked, found)| self.answer(asked, found))
            .collect();
        let hub = &self.shared.hub;
        let now = self.now;
        let Some(connection) = self.connections.get_mut(key as usize) else {
            return;
        };
        let about = About {
            connection: input::name(connection),
            epoch: hub.epoch().map(|epoch| epoch.to_string()).unwrap_or_default(),
            resume_seconds: hub.resume_seconds(),
            stale: self.stale,
        };
        let after = connection.accepted.elapsed();
        let Some(session) = connection.session() else {
            return;
        };
        let connected = session.connected(about, answers, now);
        tracing::debug!(user = session.user(), rooms = connected.rooms.len(), "connected");
        self.say(
            key,
            &ServerFrame::answer(opening.id, server_frame::Body::Connected(connected)),
        );
        self.shared.metrics.connected(after);
    }

    fn subscribed(&mut self, key: u32, opening: &Opening, found: Vec<Result<Opened, Refusal>>) {
        for (asked, found) in opening.rooms.iter().zip(found) {
            let answer = self.answer(asked, &found);
            match found {
                // Nobody asked for it, so nobody would ask again: the client comes back and has it then.
                Err(refusal) if opening.id.is_none() && refusal.code.temporary() => {
                    return self.ending.push((key, Ending::Closed(Close::Resync)));
                }
                Err(refusal) => {
                    if opening.id.is_some() {
                        self.say(key, &ServerFrame::refuse(opening.id, &refusal));
                    }
                }
                Ok((permit, recovered)) => {
                    let subscribed = Subscribed {
                        room: answer.room,
                        cursor: answer.cursor.unwrap_or_default(),
                        recovery: answer.recovery.unwrap_or_default(),
                        reason: answer.reason,
                    };
                    self.say(
                        key,
                        &ServerFrame::answer(opening.id, server_frame::Body::Subscribed(subscribed)),
                    );
                    self.join(key, &permit, recovered, asked.requested);
                }
            }
        }
    }

    /// How one room is answered, counted.
    fn answer(&self, asked: &Asked, found: &Result<Opened, Refusal>) -> RoomAnswer {
        let begun = found.as_ref().map(|(permit, recovered)| {
            let start = self.write_cursor(permit.tenant(), &recovered.start);
            (recovered.recovery, start)
        });
        let outcome = found.as_ref().map_or_else(
            |refusal| refusal.code.as_str(),
            |(_, recovered)| recovered.recovery.as_str(),
        );
        self.shared.metrics.subscribed(outcome);
        Outcome::of_room(&asked.name, begun)
    }

    /// Makes a connection a member and queues what it missed.
    fn join(&mut self, key: u32, permit: &Arc<Subscribe>, recovered: Recovered, requested: bool) {
        // A room that is open already is opened anew: the client says where it stands.
        self.leave(key, permit.room());
        if let Some(slot) = self.take_seat(key, permit, recovered.head.position, requested) {
            self.catch_up(key, slot, permit, recovered);
        }
    }

    /// Makes a connection a member of a room that it is not in. What is not after `skip` it is sent in another way. Answers its slot.
    pub(super) fn take_seat(
        &mut self,
        key: u32,
        permit: &Arc<Subscribe>,
        skip: Position,
        requested: bool,
    ) -> Option<usize> {
        let connection = self.connections.get_mut(key as usize)?;
        let encoding = connection.encoding;
        let session = connection.session()?;
        let slot = session.rooms.len();
        let member = Member {
            connection: key,
            slot: u32::try_from(slot).unwrap_or(u32::MAX),
            skip,
            behind: false,
            encoding,
        };
        let (seat, first) = self.members.join(permit, member, self.now.millis);
        session.rooms.push(OpenRoom {
            room: permit.room().clone(),
            seat,
            requested,
            present: false,
            watched: false,
            behind: None,
        });
        if first {
            self.shared.hub.hold(permit);
        }
        self.count_in(key, slot);
        Some(slot)
    }

    /// The hub has read what was waited for.
    pub(super) fn ticket_ready(&mut self, ticket: u64) {
        match self.tickets.get(&ticket).copied() {
            None => {}
            Some(Ticket::Page(key)) => {
                self.tickets.remove(&ticket);
                if let Some(connection) = self.connections.get_mut(key as usize) {
                    connection.page_ticket = 0;
                    self.pages.push_back(key);
                }
            }
            Some(Ticket::Reading(key)) => {
                self.tickets.remove(&ticket);
                let reading = self
                    .connections
                    .get_mut(key as usize)
                    .and_then(|connection| connection.reading.take());
                if let Some(reading) = reading {
                    self.read_on(key, reading.1, ticket);
                }
            }
            Some(Ticket::Opening(key)) => {
                let waiting = self
                    .connections
                    .get_mut(key as usize)
                    .and_then(|connection| connection.waiting.take());
                let Some(waiting) = waiting else { return };
                let Waiting {
                    opening, mut queue, ..
                } = *waiting;
                self.open_with(key, opening, Some(ticket));
                self.carry_out(key, &mut queue);
            }
        }
    }

    /// Leaves a room, if it is open.
    pub(super) fn leave(&mut self, key: u32, room: &Room) {
        let Some(session) = self
            .connections
            .get_mut(key as usize)
            .and_then(Connection::session)
        else {
            return;
        };
        let Some(slot) = session.slot(room) else { return };
        let open = session.close(slot);
        let (tenant, user) = (session.tenant().clone(), Arc::clone(session.user_name()));
        if let Some(moved) = session.rooms.get(slot)
            && let Some(member) = self.members.member_mut(moved.seat)
        {
            member.slot = u32::try_from(slot).unwrap_or(u32::MAX);
        }
        self.absent(key, &tenant, &user, &open);
        self.give_up(open.seat);
    }

    /// One more event than is sent at once: so it shows that there are more.
    pub(super) fn page_and_one(&self) -> usize {
        self.shared.limits.page_events.saturating_add(1)
    }

    /// A cursor as the clients of a tenant are given it.
    pub(super) fn write_cursor(&self, tenant: &Tenant, cursor: &Cursor) -> String {
        let text = self.shared.hub.cursors().write(tenant, cursor);
        text.as_str().to_owned()
    }

    /// Who waits with a ticket of this shard.
    pub(super) fn waiter(&self, ticket: u64) -> Waiter {
        Waiter {
            shard: self.number,
            ticket,
        }
    }

    pub(super) fn new_ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }
}

pub(super) fn unavailable() -> Refusal {
    Refusal::new(Code::Unavailable, "the room cannot be read at the moment").retry_after_ms(1_000)
}
