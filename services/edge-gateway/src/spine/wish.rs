//! What a spine takes and what it wants: its whole vocabulary.

/// What a hole in the stream means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holes {
    /// Every position is kept until it is too old: history before the first kept position is lost, and clients are told.
    Lost,
    /// Only the latest message of a subject is kept: a position that is gone was replaced, and the newer one follows.
    Replaced,
}

/// A message and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed<M> {
    /// Its position.
    pub sequence: u64,
    /// When it was stored, Unix microseconds.
    pub time_micros: i64,
    /// What it costs to keep.
    pub bytes: usize,
    /// The message.
    pub message: M,
}

/// Names a request, so that an answer that comes too late is not taken for another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(pub(super) u64);

/// Something to be done for the spine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish<M> {
    /// The next message, in order, exactly once.
    Deliver {
        /// The message.
        placed: Placed<M>,
        /// Whether it came by a repair.
        repaired: bool,
    },
    /// These positions hold nothing any more.
    Skip {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// Read up to [`super::READ_MESSAGES`] from here on, from any replica.
    Read {
        /// For [`super::Spine::on_read`].
        ticket: Ticket,
        /// The first position wanted.
        from: u64,
    },
    /// Read the first message at or after this position from the leader.
    AskLeader {
        /// For [`super::Spine::on_leader`].
        ticket: Ticket,
        /// The first position wanted.
        from: u64,
    },
    /// Ask any replica for the last position.
    Probe {
        /// For [`super::Spine::on_probe`].
        ticket: Ticket,
    },
    /// Ask for the stream's identity and ends.
    Info {
        /// For [`super::Spine::on_info`].
        ticket: Ticket,
    },
    /// The stream is not the one that was delivered so far; what follows has no connection with it.
    Reset {
        /// Why.
        cause: Cause,
        /// The position that comes next.
        next: u64,
    },
}

/// Why a stream cannot be continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It was made anew under the same name.
    Recreated,
    /// It ends before what was delivered: positions are used a second time.
    Regressed,
    /// What comes next is no longer kept.
    HistoryLost,
}

impl Cause {
    /// All of them, for counters.
    pub const ALL: [Self; 3] = [Self::Recreated, Self::Regressed, Self::HistoryLost];

    /// The metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recreated => "recreated",
            Self::Regressed => "regressed",
            Self::HistoryLost => "history_lost",
        }
    }
}

/// What a repair read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadAnswer<M> {
    /// The messages, ascending.
    pub messages: Vec<Placed<M>>,
    /// Whether the replica has more.
    pub more: bool,
}

/// The stream's identity and ends, from its leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InfoAnswer {
    /// When it was created; names it together with its name.
    pub created: String,
    /// The oldest position kept; of an empty stream, the one after the last.
    pub first: u64,
    /// The last position given out.
    pub last: u64,
}
