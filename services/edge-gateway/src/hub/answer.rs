//! What the hub tells shards, and what it answers to those who come back or look back.

use std::sync::Arc;

use roomcast_proto::cursor::Cursor;
use roomcast_proto::frame::RoomAnswer;
use roomcast_proto::refusal::Refusal;

use crate::delivery::Delivery;

/// How a shard is reached. Called from the hub's task: it must not block; it wakes the shard's thread if that sleeps.
pub type ShardSender = Box<dyn Fn(ToShard) + Send + Sync>;

/// What the hub tells every shard, in the same order.
#[derive(Debug, Clone)]
pub enum ToShard {
    /// An event for the members of a room. The ring and the state cache held it before this was sent: a member that recovered at
    /// head `h` skips what is not after `h` in its own stream.
    Deliver(Arc<Delivery>),
    /// What was waited for is there: ask again. Only to the shard that waits.
    Ready {
        /// The shard's own number for what waits.
        ticket: u64,
    },
    /// NATS has not answered for 5 s, or does again.
    Status {
        /// Whether what clients see may be old.
        stale: bool,
        /// Since when, Unix milliseconds.
        since_millis: i64,
    },
    /// No answer from NATS for 10 s: close every connection with 4005; new upgrades are refused until it is back.
    CloseAll,
    /// The streams are not what they were (made anew, cut, or behind): nothing that members hold is continued. Close with 4005; their
    /// cursors are then answered with `incomplete`.
    Reset,
}

/// Who waits: a shard's number ([`crate::hub::Hub::attach`]) and the shard's own number for what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Waiter {
    /// Which shard.
    pub shard: usize,
    /// Which of its requests; unique in the shard.
    pub ticket: u64,
}

/// Why old events cannot be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gap {
    /// The cursor is of other streams, or of another life of these.
    Epoch,
    /// The cursor is beyond what is stored, and nothing came within 5 s.
    Ahead,
    /// What was missed is no longer kept.
    Expired,
    /// What was missed is kept, but too far back to be read.
    TooFar,
}

impl Gap {
    /// All of them, for counters.
    pub const ALL: [Self; 4] = [Self::Epoch, Self::Ahead, Self::Expired, Self::TooFar];

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Epoch => "epoch",
            Self::Ahead => "ahead",
            Self::Expired => "expired",
            Self::TooFar => "too_far",
        }
    }
}

/// What a returning client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Exactly what was missed.
    Complete,
    /// No old events, all state.
    Incomplete {
        /// Why.
        reason: Gap,
    },
    /// There was no cursor: no old events, all state.
    Fresh,
}

impl Outcome {
    /// How one room begins, in the words of the wire.
    #[must_use]
    pub fn of_room(room: &str, begun: Result<(Self, String), &Refusal>) -> RoomAnswer {
        let room = room.to_owned();
        let (outcome, start) = match begun {
            Ok(begun) => begun,
            Err(refusal) => {
                return RoomAnswer {
                    room,
                    error: Some(refusal.into()),
                    ..RoomAnswer::default()
                };
            }
        };
        let reason = match outcome {
            Self::Incomplete { reason } => Some(reason.as_str().to_owned()),
            Self::Complete | Self::Fresh => None,
        };
        RoomAnswer {
            room,
            cursor: Some(start),
            recovery: Some(outcome.as_str().to_owned()),
            reason,
            error: None,
        }
    }

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Incomplete { .. } => "incomplete",
            Self::Fresh => "fresh",
        }
    }
}

/// Everything a client gets between `subscribed` and live, all at one cut.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// Which of the three.
    pub recovery: Outcome,
    /// Where delivery starts: the cursor in `subscribed`.
    pub start: Cursor,
    /// Missed events, ascending, visible ones only. Their cursors never overtake the state below.
    pub events: Vec<Arc<Delivery>>,
    /// The newest visible value of each key that changed, by position, without cursors: what is lost here is sent again. Withdrawn
    /// ones only where the client may hold the key.
    pub state: Vec<Arc<Delivery>>,
    /// The cut: the cursor of `caughtUp`. Live deliveries that are not after it are in here already.
    pub head: Cursor,
}

/// The answer to a recovery.
#[derive(Debug, Clone)]
pub enum Recovery<T = Recovered> {
    /// Here it is.
    Done(T),
    /// Something has to be read first; [`ToShard::Ready`] says when to ask again.
    Wait,
    /// It could not be read in time: refuse with `unavailable`, the client may try again.
    Unavailable,
    /// It would have to be read, and the user has had too much read: `rate`, to try again after so many milliseconds.
    Rate(u64),
}

/// How much of the past a fresh subscriber wants: the fewer of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewind {
    /// So many events at most.
    pub count: usize,
    /// Only events stored since, Unix microseconds.
    pub since_micros: Option<i64>,
}

/// One page of history.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// Ascending.
    pub events: Vec<Arc<Delivery>>,
    /// Ask again with `before` set to this.
    pub cursor: Option<Cursor>,
    /// Whether nothing older is kept.
    pub complete: bool,
}

/// The answer to a request for history.
#[derive(Debug, Clone)]
pub enum History {
    /// Here it is.
    Done(HistoryPage),
    /// Something has to be read first; [`ToShard::Ready`] says when to ask again.
    Wait,
    /// It could not be read in time: refuse with `unavailable`.
    Unavailable,
    /// As [`Recovery::Rate`].
    Rate(u64),
}

/// State, or state and the newest events, of a room at one cut: the first paint.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Where to go on: subscribe with it.
    pub cursor: Cursor,
    /// The newest visible value of every key, by position.
    pub state: Vec<Arc<Delivery>>,
    /// The newest visible events, ascending.
    pub events: Vec<Arc<Delivery>>,
}

/// It cannot be answered at the moment: `unavailable`, temporary; or `rate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not available at the moment")]
pub struct Unavailable {
    /// Set where it is the user's rate: when to try again, milliseconds.
    pub rate_millis: Option<u64>,
}
