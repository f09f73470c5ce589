//! What operators ask a shard: looked up in its own turn, because nobody else may touch its sockets.
//!
//! A question is a function that the shard's thread runs between two turns; each is bounded by what the shard holds and
//! by the page asked for. Who asks waits for the answer with a deadline.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use roomcast_proto::close::Close;
use roomcast_proto::frame::{ServerFrame, Unsubscribed, server_frame};
use roomcast_proto::ids::{Room, Tenant};
use roomcast_proto::refusal::Code;
use tokio::sync::oneshot;

use super::inbox::{Handle, Inbox};
use super::{Shard, input};
use crate::connection::{Connection, Stage};
use crate::encoding::Encoding;
use crate::gate::Admitted;
use crate::session::{Now, Session};

/// A function to run on the shard's thread.
pub(crate) struct Question(Box<dyn FnOnce(&mut Shard) + Send>);

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Question")
    }
}

impl Question {
    pub(super) fn answer(self, shard: &mut Shard) {
        (self.0)(shard);
    }
}

/// Which connections are meant; what is `None` does not matter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only those of this user.
    pub user: Option<String>,
    /// Only those of this tenant.
    pub tenant: Option<Tenant>,
    /// Only those that are in this room, of the tenant above or of the usual one.
    pub room: Option<Room>,
    /// Only those that write so.
    pub encoding: Option<Encoding>,
    /// Only those that do not read as fast as they are written to, or only the others.
    pub slow: Option<bool>,
}

/// One connection, as it is at the moment.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its number; what clients know it by is [`Seen::name`].
    pub number: u64,
    /// Where it comes from.
    pub address: IpAddr,
    /// How it writes.
    pub encoding: Encoding,
    /// Since when, Unix milliseconds.
    pub since_millis: i64,
    /// Who it is, once that is known.
    pub user: Option<Known>,
    /// Frames and bytes that wait for its socket.
    pub waiting: (usize, usize),
    /// Since how many milliseconds its socket has taken nothing although bytes wait.
    pub stuck_millis: u64,
}

/// What is known of a connection that was authenticated.
#[derive(Clone, Debug)]
pub struct Known {
    /// The token's subject.
    pub user: Arc<str>,
    /// The tenant.
    pub tenant: Tenant,
    /// The roles that count.
    pub roles: Arc<[String]>,
    /// When the token ends, Unix seconds.
    pub expires_at: i64,
    /// Rooms that are open.
    pub rooms: usize,
}

impl Seen {
    /// What clients know it by.
    #[must_use]
    pub fn name(&self) -> String {
        input::shown(self.number)
    }
}

/// The user of a connection, with all that decides what it gets.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The connection's number.
    pub number: u64,
    /// Who it is, and what it may.
    pub admitted: Admitted,
    /// Its rooms, each with whether its recovery still runs.
    pub rooms: Vec<(Room, bool)>,
}

impl Holder {
    /// What clients know the connection by.
    #[must_use]
    pub fn name(&self) -> String {
        input::shown(self.number)
    }
}

/// A connection with its rooms.
#[derive(Clone, Debug)]
pub struct SeenWhole {
    /// The connection.
    pub seen: Seen,
    /// Its rooms by name, each with whether the client asked for it and whether its recovery still runs.
    pub rooms: Vec<(Room, bool, bool)>,
}

/// A connection's number from its name. `None`: it is the name of none.
#[must_use]
pub fn number(name: &str) -> Option<u64> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let hex = name
        .strip_prefix('c')
        .filter(|hex| hex.len() == 16 && hex.bytes().all(is_hex))?;
    u64::from_str_radix(hex, 16).ok()
}

/// What a shard holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sockets that have not said what they want.
    pub newcomers: usize,
    /// Connections that have not shown a token.
    pub strangers: usize,
    /// Authenticated connections, by [`Encoding`].
    pub sessions: [usize; 3],
    /// Those for which bytes wait.
    pub blocked: usize,
    /// Rooms with members here.
    pub rooms: usize,
}

impl Handle {
    /// Runs a function on the shard's thread. The receiver fails when the shard is gone.
    pub(super) fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Shard) -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (answer, answered) = oneshot::channel();
        self.send(Inbox::Look(Question(Box::new(move |shard| {
            // Who asked may have stopped waiting.
            let _ = answer.send(look(shard));
        }))));
        answered
    }

    /// What the shard holds.
    pub fn counts(&self) -> oneshot::Receiver<Counts> {
        self.look(|shard| shard.counts())
    }

    /// The first `limit` connections after number `after`, ascending, that `filter` means. Costs a look at each connection, or at
    /// each member of the room asked for.
    pub fn connections(
        &self,
        filter: Filter,
        after: Option<u64>,
        limit: usize,
    ) -> oneshot::Receiver<Vec<Seen>> {
        self.look(move |shard| shard.seen_page(&filter, after, limit))
    }

    /// The first `limit` users after connection `after`, ascending, that `filter` means, with their rights. Costs a look at each
    /// connection, and some pointers for each that is answered.
    pub fn holders(
        &self,
        filter: Filter,
        after: Option<u64>,
        limit: usize,
    ) -> oneshot::Receiver<Vec<Holder>> {
        self.look(move |shard| shard.holders_page(&filter, after, limit))
    }

    /// One connection.
    pub fn connection(&self, number: u64) -> oneshot::Receiver<Option<SeenWhole>> {
        self.look(move |shard| shard.seen_whole(number))
    }

    /// Ends a connection as `close` says. Answers it as it was; `None` when it is not here or ends already.
    pub fn disconnect(&self, number: u64, close: Close) -> oneshot::Receiver<Option<Seen>> {
        self.look(move |shard| {
            let (key, seen) = shard.seen_one(number)?;
            shard.end(key, close);
            shard.settle();
            Some(seen)
        })
    }

    /// Takes a connection out of a room and tells it so. Answers it as it was; `None` when it is not here, or not in the room.
    pub fn unsubscribe(&self, number: u64, room: Room) -> oneshot::Receiver<Option<Seen>> {
        self.look(move |shard| shard.put_out(number, &room))
    }

    /// The first `limit` rooms after `after`, by tenant and name, each with its members here. Costs a look at each room.
    pub fn rooms(
        &self,
        tenant: Option<Tenant>,
        after: Option<(String, String)>,
        limit: usize,
    ) -> oneshot::Receiver<Vec<(Tenant, Room, usize)>> {
        self.look(move |shard| shard.members.page(tenant.as_ref(), after, limit))
    }

    /// All rooms with their members here, in no order. Costs a look at each room, and its name's copy.
    pub fn all_rooms(&self, tenant: Option<Tenant>) -> oneshot::Receiver<Vec<(Tenant, Room, usize)>> {
        self.look(move |shard| shard.members.counted(tenant.as_ref()))
    }
}

impl Shard {
    fn counts(&self) -> Counts {
        let mut counts = Counts {
            newcomers: self.newcomers.len(),
            rooms: self.members.rooms(),
            ..Counts::default()
        };
        for (_, connection) in &self.connections {
            match &connection.stage {
                Stage::Handshake { .. } => counts.strangers += 1,
                Stage::Session(_) => counts.sessions[connection.encoding as usize] += 1,
                _ => continue,
            }
            counts.blocked += usize::from(connection.is_blocked());
        }
        counts
    }

    fn seen_page(&self, filter: &Filter, after: Option<u64>, limit: usize) -> Vec<Seen> {
        let page = self.first_of(filter, after, limit);
        page.filter_map(|connection| seen(connection, self.now)).collect()
    }

    fn holders_page(&self, filter: &Filter, after: Option<u64>, limit: usize) -> Vec<Holder> {
        let holder = |connection: &Connection| match &connection.stage {
            Stage::Session(session) => Some(Holder {
                number: connection.name,
                admitted: session.admitted().clone(),
                rooms: session
                    .rooms
                    .iter()
                    .map(|open| (open.room.clone(), open.behind.is_some()))
                    .collect(),
            }),
            _ => None,
        };
        let page = self.first_of(filter, after, limit);
        page.filter_map(holder).collect()
    }

    /// The first connections after a number, ascending.
    fn first_of(
        &self,
        filter: &Filter,
        after: Option<u64>,
        limit: usize,
    ) -> impl Iterator<Item = &Connection> {
        let mut first: BTreeMap<u64, usize> = BTreeMap::new();
        let mut look = |key: usize| {
            let Some(connection) = self.connections.get(key) else {
                return;
            };
            if after.is_some_and(|after| connection.name <= after) || !means(filter, connection) {
                return;
            }
            first.insert(connection.name, key);
            if first.len() > limit {
                first.pop_last();
            }
        };
        match &filter.room {
            None => self.connections.iter().for_each(|(key, _)| look(key)),
            Some(room) => {
                let tenant = filter.tenant.clone().unwrap_or_default();
                let entry = self
                    .members
                    .find(&tenant, room)
                    .and_then(|at| self.members.room(at));
                let members = entry
                    .into_iter()
                    .flat_map(|entry| &entry.classes)
                    .flat_map(|(_, class)| &class.members);
                members.for_each(|member| look(member.connection as usize));
            }
        }
        first.into_values().filter_map(|key| self.connections.get(key))
    }

    /// A connection that is open, by its number.
    pub(super) fn seen_one(&self, number: u64) -> Option<(u32, Seen)> {
        let (key, connection) = self
            .connections
            .iter()
            .find(|(_, connection)| connection.name == number)?;
        Some((u32::try_from(key).ok()?, seen(connection, self.now)?))
    }

    fn seen_whole(&self, number: u64) -> Option<SeenWhole> {
        let (key, seen) = self.seen_one(number)?;
        let mut rooms: Vec<(Room, bool, bool)> = match &self.connections.get(key as usize)?.stage {
            Stage::Session(session) => session
                .rooms
                .iter()
                .map(|open| (open.room.clone(), open.requested, open.behind.is_some()))
                .collect(),
            _ => Vec::new(),
        };
        rooms.sort_unstable_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
        Some(SeenWhole { seen, rooms })
    }

    fn put_out(&mut self, number: u64, room: &Room) -> Option<Seen> {
        let (key, seen) = self.seen_one(number)?;
        let session = self.connections.get_mut(key as usize)?.session()?;
        session.slot(room)?;
        self.leave(key, room);
        let said = Unsubscribed {
            room: room.as_str().to_owned(),
            code: Some(Code::Forbidden.as_str().to_owned()),
            reason: Some("an administrator closed the room for you".to_owned()),
        };
        self.say(key, &ServerFrame::push(server_frame::Body::Unsubscribed(said)));
        self.settle();
        Some(seen)
    }
}

fn means(filter: &Filter, connection: &Connection) -> bool {
    if filter
        .encoding
        .is_some_and(|encoding| encoding != connection.encoding)
    {
        return false;
    }
    if filter.slow.is_some_and(|slow| slow != connection.is_blocked()) {
        return false;
    }
    let (user, tenant) = (filter.user.as_deref(), filter.tenant.as_ref());
    match &connection.stage {
        Stage::Session(session) => {
            user.is_none_or(|user| user == session.user())
                && tenant.is_none_or(|tenant| tenant == session.rights().tenant())
        }
        Stage::Closing { .. } => false,
        _ => user.is_none() && tenant.is_none(),
    }
}

/// A connection as it is; `None` when it ends already.
fn seen(connection: &Connection, now: Now) -> Option<Seen> {
    let known = |session: &Session| Known {
        user: session.user().into(),
        tenant: session.rights().tenant().clone(),
        roles: session.roles(),
        expires_at: session.expires_at(),
        rooms: session.rooms.len(),
    };
    let user = match &connection.stage {
        Stage::Closing { .. } => return None,
        Stage::Session(session) => Some(known(session)),
        _ => None,
    };
    let age = i64::try_from(connection.accepted.elapsed().as_millis()).unwrap_or(i64::MAX);
    Some(Seen {
        number: connection.name,
        address: connection.place.address(),
        encoding: connection.encoding,
        since_millis: now.unix_millis.saturating_sub(age),
        user,
        waiting: connection.waiting_bytes(),
        stuck_millis: match connection.stuck_at {
            0 => 0,
            at => now.millis.saturating_sub(at),
        },
    })
}
