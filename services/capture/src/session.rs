//! One connection to a database: what is there, the slot, the snapshot, and then the stream.
//!
//! All of it goes over one replication connection, which takes SQL until the stream begins; so what was looked at is what is followed,
//! and no fail-over falls in between. Driven by ingest.

mod facts;
mod rows;
mod slot;
mod stream;

use std::time::Duration;

use pgwire_replication::PgWireError;
use pgwire_replication::client::{QueryRow, ReplicationClient};
use pgwire_replication::config::ReplicationConfig;

pub use facts::primary_keys;
pub use rows::Snapshot;
pub use stream::Stream;

use crate::checks::explain;
use crate::database::Database;
use crate::follow::{Catalogue, Follow, Stuck};
use crate::mapping::Mapping;
use crate::position::Timelines;
use crate::sql::{literal, quoted};
use crate::tls::{self, Tls};

/// Time for connecting, and for one question.
const CALL: Duration = Duration::from_secs(20);
/// Messages of the stream that wait for us; beyond, the database waits.
const BUFFERED_MAX: usize = 128;
/// Largest message of the stream: a row with all its published columns.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// How often the database hears what is stored, at most.
const STATUS_EVERY: Duration = Duration::from_millis(500);
/// As the values must be written for [`crate::value`], whatever the server's settings are; and rows that the user may not see are refused,
/// not left out.
const OPTIONS: &str = "-c TimeZone=UTC -c DateStyle=ISO -c IntervalStyle=iso_8601 -c extra_float_digits=1 -c bytea_output=hex \
                       -c row_security=off -c statement_timeout=0 -c idle_in_transaction_session_timeout=0";

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be reached, or the connection broke.
    #[error("PostgreSQL at {0}: {1}")]
    Unreachable(String, String),
    /// It refuses; the text says what to run.
    #[error("PostgreSQL refuses: {0}")]
    Refused(String),
    /// An answer is not what was asked for.
    #[error("PostgreSQL's answer to {0:?} is not understood")]
    Answer(&'static str),
    /// The stream cannot be followed any further.
    #[error(transparent)]
    Stuck(#[from] Stuck),
    /// A row is larger than may be.
    #[error(
        "a row of {bytes} bytes is larger than the {limit} that one may have; to mend it: leave its large columns out of the publication, \
             ALTER PUBLICATION … (columns)"
    )]
    RowTooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
}

/// A connection that takes SQL.
pub struct Session {
    client: ReplicationClient,
    database: Database,
    /// As the facts had it; the stream goes by it.
    catalogue: Catalogue,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({})", self.database)
    }
}

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// `Unreachable`, `Refused`.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn open(database: &Database, mapping: &Mapping) -> Result<Self, Error> {
        let (host, port) = match &database.tls {
            None => (database.host.as_str(), database.port),
            Some(tls) => ("127.0.0.1", door(database, tls).await?),
        };
        let config = ReplicationConfig::new(
            host,
            &database.user,
            &database.password,
            &database.name,
            quoted(&mapping.slot),
            quoted(&mapping.publication),
        )
        .with_port(port)
        .with_options(OPTIONS)
        .with_application_name(format!("roomcast-{}", mapping.source))
        .with_buffer_size(BUFFERED_MAX)
        .with_max_message_size(MESSAGE_BYTES_MAX)
        .with_status_interval(STATUS_EVERY);
        let client = within(ReplicationClient::connect_gated(config), database).await?;
        let mut session = Self {
            client,
            database: database.clone(),
            catalogue: Catalogue::default(),
        };
        // Connecting goes on behind the scenes; the first question shows whether it worked.
        session.ask("SELECT 1").await?;
        Ok(session)
    }

    async fn ask(&mut self, sql: &str) -> Result<Vec<QueryRow>, Error> {
        within(self.client.simple_query(sql), &self.database).await
    }

    /// Runs SQL of a tool, e.g. what makes tables; several statements are one transaction.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn run(&mut self, sql: &str) -> Result<(), Error> {
        self.ask(sql).await.map(drop)
    }

    /// Which database cluster it is, and its timelines.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn identity(&mut self) -> Result<(String, Timelines), Error> {
        let identity = within(self.client.identify_system(), &self.database).await?;
        let mut history = String::new();
        if identity.timeline > 1 {
            let file = within(self.client.timeline_history(identity.timeline), &self.database).await?;
            history = String::from_utf8_lossy(&file.content).into_owned();
        }
        Ok((identity.system_id, Timelines::new(identity.timeline, &history)))
    }

    /// Takes the lock that only one capture of a slot holds, for as long as this connection lives; `false`: another has it.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn lock(&mut self, mapping: &Mapping) -> Result<bool, Error> {
        let key = literal(&format!("roomcast capture {}", mapping.slot));
        let sql = format!("SELECT pg_try_advisory_lock(hashtextextended({key}, 0))");
        let rows = self.ask(&sql).await?;
        Ok(flag(&rows, 0))
    }

    /// Begins the stream, where the slot is.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn start(mut self, mut follow: Follow) -> Result<Stream, Error> {
        follow.know(self.catalogue);
        within(self.client.start(), &self.database).await?;
        within(self.client.wait_started(), &self.database).await?;
        Ok(Stream {
            client: self.client,
            database: self.database,
            follow,
        })
    }
}

async fn door(database: &Database, tls: &Tls) -> Result<u16, Error> {
    let unreachable = |why: String| Error::Unreachable(database.to_string(), why);
    match tokio::time::timeout(CALL, tls::door(database, tls)).await {
        Ok(opened) => opened.map_err(|error| unreachable(error.to_string())),
        Err(_) => Err(unreachable(format!("no answer within {} s", CALL.as_secs()))),
    }
}

async fn within<T>(
    call: impl Future<Output = Result<T, PgWireError>>,
    database: &Database,
) -> Result<T, Error> {
    match tokio::time::timeout(CALL, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(of_wire(&error, database)),
        Err(_) => Err(Error::Unreachable(
            database.to_string(),
            format!("no answer within {} s", CALL.as_secs()),
        )),
    }
}

fn of_wire(error: &PgWireError, database: &Database) -> Error {
    match error {
        PgWireError::Server(said) | PgWireError::Auth(said) => {
            Error::Refused(explain(said, &database.user, &database.name).unwrap_or_else(|| said.clone()))
        }
        PgWireError::MessageTooLarge {
            payload_bytes,
            limit_bytes,
        } => Error::RowTooLarge {
            bytes: *payload_bytes,
            limit: *limit_bytes,
        },
        other => Error::Unreachable(database.to_string(), other.to_string()),
    }
}

fn text(rows: &[QueryRow], row: usize, column: usize) -> Option<&str> {
    let value = rows.get(row)?.get(column)?.as_ref()?;
    std::str::from_utf8(value).ok()
}

fn flag(rows: &[QueryRow], column: usize) -> bool {
    text(rows, 0, column) == Some("t")
}
