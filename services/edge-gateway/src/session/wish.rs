//! What a session wants done, in the words the shard understands.

use std::sync::Arc;

use roomcast_access::{History, Subscribe};
use roomcast_proto::close::Close;
use roomcast_proto::cursor::{Cursor, Cursors};
use roomcast_proto::frame::ServerFrame;
use roomcast_proto::ids::{Room, Tenant};
use roomcast_proto::refusal::{Code, Refusal};

use crate::asking::Ask;
use crate::limit::Limit;

/// What the shard is to do for a session.
#[derive(Debug)]
pub enum Wish {
    /// Send this.
    Say(ServerFrame),
    /// Recover rooms, answer, send what was missed, join.
    Open(Opening),
    /// Leave a room's members, because the client asks for it.
    Leave(Room),
    /// Leave a room's members at once, because the right to it has ended.
    Evict(Room),
    /// Take these permits for rooms that are open, from now on.
    Exchange(Vec<Arc<Subscribe>>),
    /// Send this at once, not behind rooms that are being recovered.
    Tell(ServerFrame),
    /// Read history and answer.
    Read(Reading),
    /// Say who is in a room.
    Presence(Option<u32>, Room),
    /// Say so whenever it changes, as long as the room is open.
    Watch(Room),
    /// Have its user's unread notifications counted, and say so whenever they change.
    Listen,
    /// Have others do something, and answer when they have.
    Ask(Box<Ask>),
    /// Count something that was asked and refused.
    Count(&'static str, Code),
    /// Put on record that there is no right to what was asked.
    Forbade(&'static str),
    /// Count that the client met a limit.
    Met(Limit),
    /// End the connection.
    End(Close),
}

/// Rooms to be opened by one answer.
#[derive(Debug)]
pub struct Opening {
    /// The rights it was decided under; see [`super::Session::decide_opening`].
    pub generation: u32,
    /// The request to answer.
    pub id: Option<u32>,
    /// Which answer it is.
    pub kind: Kind,
    /// The rooms, in the order of the answer.
    pub rooms: Vec<Asked>,
}

/// What the request for a stream says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamRequest {
    /// The rooms that were asked for, each with where the client stands in it.
    pub rooms: Vec<(String, Option<String>)>,
    /// Where it stands in those that the policy joins, if it said so for all.
    pub cursor: Option<String>,
    /// The version of the counters that it has, where it wants to be told of them; 0: it has none.
    pub counters: Option<u64>,
    /// The rooms of which it wants to be told who is there.
    pub presence: Vec<String>,
}

/// The answer that opens rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `connected`, with all rooms in it.
    Connected,
    /// The same for a stream, whose rooms have one cursor: all of them begin at one cut.
    Stream,
    /// `subscribed`, one for each room.
    Subscribed,
    /// None: permits of open rooms were exchanged, and the state they show is sent.
    Exchanged,
}

/// One room a client asked for, or that the policy joins by itself.
#[derive(Debug)]
pub struct Asked {
    /// The name as the client wrote it.
    pub name: String,
    /// The decision.
    pub permit: Result<Arc<Subscribe>, Refusal>,
    /// Where the client stands.
    pub from: From,
    /// Whether the client asked for it; else the policy joined it.
    pub requested: bool,
    /// Where permits are exchanged: the one before. What it showed and this one does not is withdrawn.
    pub before: Option<Arc<Subscribe>>,
}

/// Where a client stands in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// It has nothing.
    Fresh,
    /// It says it is here.
    At(Cursor),
    /// It has nothing and wants a part of the past: so many events at most, of the last so many seconds at most.
    Rewind {
        /// At least 1.
        count: usize,
        /// At least 1.
        seconds: Option<u32>,
    },
    /// It sent a text that is no cursor of ours: answered like one of another epoch.
    Unreadable,
}

impl From {
    /// Reads what a client says.
    #[must_use]
    pub fn read(cursors: Cursors, tenant: &Tenant, cursor: Option<&str>) -> Self {
        match cursor.map(|text| cursors.read(tenant, text)) {
            None => Self::Fresh,
            Some(Ok(cursor)) => Self::At(cursor),
            Some(Err(_)) => Self::Unreadable,
        }
    }
}

/// A request for history that may be answered.
#[derive(Debug)]
pub struct Reading {
    /// The rights it was decided under; see [`super::Session::may_still_read`].
    pub generation: u32,
    /// The request to answer.
    pub id: Option<u32>,
    /// The decision.
    pub permit: History,
    /// Events before this.
    pub before: Option<Cursor>,
    /// At most so many.
    pub limit: usize,
}
