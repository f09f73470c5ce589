//! The stream of changes.

use pgwire_replication::Lsn as WireLsn;
use pgwire_replication::client::{ReplicationClient, ReplicationEvent};

use super::{Error, of_wire};
use crate::database::Database;
use crate::follow::{Follow, Item, Left};

/// The stream of changes.
pub struct Stream {
    pub(super) client: ReplicationClient,
    pub(super) database: Database,
    pub(super) follow: Follow,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({})", self.database)
    }
}

impl Stream {
    /// Waits for the next message and puts what comes out of it into `items`, perhaps nothing.
    ///
    /// # Errors
    /// The stream has ended, or cannot be followed: begin again.
    ///
    /// # Cancel safety
    /// Safe: a message is taken whole or not at all.
    pub async fn next(&mut self, items: &mut Vec<Item>) -> Result<(), Error> {
        let event = match self.client.recv().await {
            Ok(Some(event)) => event,
            Ok(None) => {
                return Err(Error::Unreachable(
                    self.database.to_string(),
                    "it has ended the stream".to_owned(),
                ));
            }
            Err(error) => return Err(of_wire(&error, &self.database)),
        };
        match event {
            ReplicationEvent::XLogData { data, .. } => self.follow.message(data, items)?,
            ReplicationEvent::Begin {
                final_lsn,
                commit_time_micros,
                ..
            } => self.follow.begin(final_lsn.as_u64(), commit_time_micros),
            ReplicationEvent::Commit { lsn, end_lsn, .. } => {
                items.push(self.follow.commit(lsn.as_u64(), end_lsn.as_u64()));
            }
            ReplicationEvent::KeepAlive { wal_end, .. } => items.extend(self.follow.idle(wal_end.as_u64())),
            _ => {}
        }
        Ok(())
    }

    /// Tells the database what it need not keep.
    pub fn confirm(&self, lsn: u64) {
        self.client.update_applied_lsn(WireLsn::from_u64(lsn));
    }

    /// What was left out since the last call.
    pub fn left(&mut self) -> Left {
        self.follow.left()
    }
}
