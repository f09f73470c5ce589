//! Rows of before that a capture that goes on has not published: of tables that are new in the mapping, or all where that was interrupted.
//!
//! The slot stays, because it has what changed since. A table's rows are read as they are at one place in the log, the stream is followed up
//! to exactly that place, and there they are published; so what is known of a row never goes back.

use std::sync::Arc;
use std::time::Duration;

use roomcast_capture::checks::Facts;
use roomcast_capture::follow::{Follow, From};
use roomcast_capture::position::Timelines;
use roomcast_capture::session::{self, Session};
use tokio_util::sync::CancellationToken;

use super::{Capture, Ended, GoingOn};

/// How often, and how many times, it is asked whether the database has noticed that a stream has ended.
const FREE_EVERY: Duration = Duration::from_millis(100);
const FREE_ATTEMPTS: u32 = 100;

/// What is needed beside the session that has the lock.
struct Beside {
    /// Reads the tables as they are at `lsn`.
    session: Session,
    lsn: u64,
    /// For the stream up to there.
    stream: Session,
}

impl Capture {
    /// Publishes them. `session` holds the lock and is not used for more than questions; `from` is where to go on, before and after.
    pub(super) async fn rows_of_before(
        &self,
        session: &mut Session,
        facts: &Facts,
        timelines: &Timelines,
        mut going_on: GoingOn,
        mut from: From,
        ending: &CancellationToken,
    ) -> Result<(GoingOn, From), Ended> {
        let mapping = &self.mapping;
        let missing = |name: &&_| !going_on.snapshots.contains(name);
        if mapping.outbox.as_ref().filter(missing).is_some() {
            // Known by their numbers, wherever the stream is.
            session.read_now().await?;
            self.outbox_rows(session, facts, &mut going_on, &mut from).await?;
            session.end_snapshot().await?;
        }
        if going_on.snapshots.has_all(mapping) {
            return Ok((going_on, from));
        }
        let Beside {
            session: mut beside,
            lsn,
            stream,
        } = match self.beside(&going_on.position.system, timelines).await {
            Ok(beside) => beside,
            Err(error) => {
                tracing::warn!(
                    %error,
                    "rows that were there before are not published yet, and changes are followed without; it is tried again at the next \
                     start: {error}"
                );
                return Ok((going_on, from));
            }
        };
        tracing::info!(
            source = mapping.source,
            "capture goes on up to where rows that were there before are read, and publishes them there"
        );
        let follow = Follow::new(Arc::clone(mapping), timelines.clone(), from);
        let stream = stream.start(follow).await?;
        self.metrics.following.set(1);
        let mut going_on = self.store_stream(stream, going_on, lsn, ending).await?;
        self.snapshot(&mut beside, facts, &mut going_on, lsn).await?;
        beside.end_snapshot().await?;
        self.until_free(session).await?;
        Ok((going_on, From::default()))
    }

    async fn beside(&self, system: &str, timelines: &Timelines) -> Result<Beside, session::Error> {
        let mut session = self.another(system, timelines).await?;
        let mut stream = self.another(system, timelines).await?;
        // A stream goes by the names that its own session has seen.
        stream.facts(&self.mapping).await?;
        let lsn = session.read_beside().await?;
        Ok(Beside { session, lsn, stream })
    }

    /// One more session with the same database: not with one that took over since, whose log is another.
    async fn another(&self, system: &str, timelines: &Timelines) -> Result<Session, session::Error> {
        let mut session = Session::open(&self.database, &self.mapping).await?;
        let (found, found_timelines) = session.identity().await?;
        if (found.as_str(), &found_timelines) != (system, timelines) {
            let why = "another server has taken over meanwhile".to_owned();
            return Err(session::Error::Unreachable(self.database.to_string(), why));
        }
        Ok(session)
    }

    /// Waits until the database has noticed that the slot is free again.
    async fn until_free(&self, session: &mut Session) -> Result<(), Ended> {
        for _ in 0..FREE_ATTEMPTS {
            let slot = session.slot(&self.mapping).await?;
            if slot.is_none_or(|slot| slot.held_by.is_none()) {
                break;
            }
            tokio::time::sleep(FREE_EVERY).await;
        }
        Ok(())
    }
}
