//! Why following a database has ended for now.

use roomcast_capture::session;

/// Why a session has ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// Asked to.
    #[error("asked to end")]
    Asked,
    /// Another instance follows this database.
    #[error("another instance follows the database")]
    Standby,
    /// The database is not as the mapping needs it.
    #[error("the database is not as the mapping needs it:\n  {0}")]
    Problems(String),
    /// An operator has to decide.
    #[error("{0}")]
    Stopped(String),
    /// The database, or the way there.
    #[error(transparent)]
    Database(#[from] session::Error),
    /// What was read could not be stored in time.
    #[error("changes could not be stored for a minute: {0}")]
    Store(String),
    /// The position could not be read or written.
    #[error("the position: {0}")]
    Position(String),
}

impl Ended {
    /// The label; a closed set.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Asked | Self::Standby => "none",
            Self::Problems(_) => "problems",
            Self::Stopped(_) => "stopped",
            Self::Database(session::Error::Unreachable(..)) => "unreachable",
            Self::Database(session::Error::Stuck(_) | session::Error::RowTooLarge { .. }) => "stuck",
            Self::Database(_) => "refused",
            Self::Store(_) => "store",
            Self::Position(_) => "position",
        }
    }
}
