//! One connection to a database: what is there, the slot, the snapshot, and then the stream.
//!
//! All of it goes over one replication connection, which takes SQL until the stream begins; so what was looked at is what is followed,
//! and no fail-over falls in between. Driven by ingest.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use pgwire_replication::client::{QueryRow, ReplicationClient, ReplicationEvent};
use pgwire_replication::config::ReplicationConfig;
use pgwire_replication::{Lsn as WireLsn, PgWireError};
use serde::Deserialize;

use crate::begin::Slot;
use crate::checks::{Facts, Found, FoundColumn, Publication, explain, find, literal, quoted};
use crate::database::Database;
use crate::follow::{Follow, Item, Left, Stuck};
use crate::mapping::{Mapping, Name};
use crate::pgoutput::{Cell, Relation, Row, Text};
use crate::position::{Lsn, Timelines};
use crate::tls::{self, Tls};

/// Time for connecting, and for one question.
const CALL: Duration = Duration::from_secs(20);
/// Messages of the stream that wait for us; beyond, the database waits.
const BUFFERED_MAX: usize = 128;
/// Largest message of the stream: a row with all its published columns.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Rows of a snapshot read at once.
const ROWS_AT_ONCE: u32 = 200;
/// How often the database hears what is stored, at most.
const STATUS_EVERY: Duration = Duration::from_millis(500);
/// As the values must be written for [`crate::value`], whatever the server's settings are.
const OPTIONS: &str = "-c TimeZone=UTC -c DateStyle=ISO -c IntervalStyle=iso_8601 -c extra_float_digits=1 -c bytea_output=hex \
                       -c statement_timeout=0 -c idle_in_transaction_session_timeout=0";

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
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({})", self.database)
    }
}

/// A table of a snapshot.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// How the stream would describe it.
    pub relation: Relation,
    select: String,
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
            quoted_slot(&mapping.slot),
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

    /// What the catalogue says about the mapping's tables.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn facts(&mut self, mapping: &Mapping) -> Result<Facts, Error> {
        const SERVER: &str = "SELECT current_setting('server_version_num'), current_setting('wal_level'), current_user, \
                              pg_is_in_recovery()";
        let rows = self.ask(SERVER).await?;
        let mut facts = Facts {
            version: text(&rows, 0, 0)
                .and_then(|text| text.parse().ok())
                .ok_or(Error::Answer("server_version_num"))?,
            wal_level: text(&rows, 0, 1).unwrap_or_default().to_owned(),
            user: text(&rows, 0, 2).unwrap_or_default().to_owned(),
            standby: flag(&rows, 3),
            ..Facts::default()
        };
        if facts.version < crate::checks::VERSION_MIN {
            return Ok(facts);
        }
        let publication = literal(&mapping.publication);
        let rows = self
            .ask(&format!(
                "SELECT pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot FROM pg_publication WHERE pubname = {publication}"
            ))
            .await?;
        facts.publication = rows.first().map(|_| Publication {
            insert: flag(&rows, 0),
            update: flag(&rows, 1),
            delete: flag(&rows, 2),
            truncate: flag(&rows, 3),
            via_root: flag(&rows, 4),
        });
        let names = mapping
            .tables
            .iter()
            .map(|table| &table.name)
            .chain(&mapping.outbox);
        let wanted: Vec<String> = names
            .map(|name| format!("({}, {})", literal(&name.schema), literal(&name.table)))
            .collect();
        let rows = self
            .ask(&format!(
                "SELECT json_build_object('schema', n.nspname, 'table', c.relname, 'partitioned', c.relkind = 'p', 'identity_full', \
                 c.relreplident = 'f', 'readable', has_table_privilege(c.oid, 'SELECT'), 'published', p.tablename IS NOT NULL, \
                 'row_filter', p.rowfilter, 'columns', (SELECT json_agg(json_build_object('name', a.attname, 'type_oid', \
                 a.atttypid::int8, 'published', a.attname = ANY(p.attnames), 'key', EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND a.attnum = ANY(i.indkey) AND \
                 CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END), 'primary', EXISTS (SELECT \
                 FROM pg_index i WHERE i.indrelid = c.oid AND a.attnum = ANY(i.indkey) AND i.indisprimary)) ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = \
                 c.oid AND a.attnum > 0 AND NOT a.attisdropped)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN \
                 pg_publication_tables p ON p.pubname = {publication} AND p.schemaname = n.nspname AND p.tablename = c.relname WHERE \
                 c.relkind IN ('r', 'p') AND (n.nspname, c.relname) IN ({})",
                wanted.join(", ")
            ))
            .await?;
        for row in &rows {
            let json = row
                .first()
                .and_then(Option::as_ref)
                .ok_or(Error::Answer("tables"))?;
            let found: FoundJson = serde_json::from_slice(json).map_err(|_| Error::Answer("tables"))?;
            facts.tables.push(found.into());
        }
        let rows = self
            .ask(
                "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN \
                 ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') ORDER BY 1 LIMIT 1000",
            )
            .await?;
        facts.known = (0..rows.len())
            .filter_map(|row| text(&rows, row, 0).map(str::to_owned))
            .collect();
        Ok(facts)
    }

    /// The slot, if there is one of the name.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn slot(&mut self, mapping: &Mapping) -> Result<Option<Slot>, Error> {
        let rows = self
            .ask(&format!(
                "SELECT coalesce(s.plugin = 'pgoutput', false), coalesce(s.database, ''), s.wal_status = 'lost', \
                 coalesce(s.confirmed_flush_lsn, '0/0'), s.active_pid, coalesce(a.application_name, '?'), coalesce(host(a.client_addr), \
                 'this machine'), coalesce((to_jsonb(s) ->> 'failover')::bool, false) FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = {}",
                literal(&mapping.slot)
            ))
            .await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let at = |column| text(&rows, 0, column);
        let held_by = at(4).map(|pid| {
            let (name, from) = (at(5).unwrap_or("?"), at(6).unwrap_or("?"));
            format!("process {pid} ({name}, from {from})")
        });
        Ok(Some(Slot {
            is_ours: flag(&rows, 0),
            database: at(1).unwrap_or_default().to_owned(),
            lost: flag(&rows, 2),
            confirmed: at(3).and_then(Lsn::parse).map_or(0, |lsn| lsn.0),
            held_by,
            failover: flag(&rows, 7),
        }))
    }

    /// Bytes of the log that the slot keeps the database from removing, and bytes that were not confirmed; `None` without a slot.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn lag(&mut self, mapping: &Mapping) -> Result<Option<(u64, u64)>, Error> {
        let rows = self
            .ask(&format!(
                "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int8, pg_wal_lsn_diff(pg_current_wal_lsn(), \
                 confirmed_flush_lsn)::int8 FROM pg_replication_slots WHERE slot_name = {}",
                literal(&mapping.slot)
            ))
            .await?;
        let number = |column| text(&rows, 0, column).and_then(|text| text.parse().ok());
        Ok(number(0).zip(number(1)))
    }

    /// Drops the slot.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn drop_slot(&mut self, mapping: &Mapping) -> Result<(), Error> {
        let sql = format!("SELECT pg_drop_replication_slot({})", literal(&mapping.slot));
        self.ask(&sql).await.map(drop)
    }

    /// Has standbys keep a copy of the slot, from now on.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn let_fail_over(&mut self, mapping: &Mapping) -> Result<(), Error> {
        let slot = quoted_slot(&mapping.slot);
        let sql = format!("ALTER_REPLICATION_SLOT {slot} (FAILOVER true)");
        self.ask(&sql).await.map(drop)
    }

    /// Makes the slot and begins to read the tables as they are at its beginning; gives that place.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn create_slot(&mut self, mapping: &Mapping) -> Result<u64, Error> {
        self.ask("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await?;
        let failover = mapping.failover.map_or("", |_| ", FAILOVER true");
        let sql = format!(
            "CREATE_REPLICATION_SLOT {} LOGICAL pgoutput (SNAPSHOT 'use'{failover})",
            quoted_slot(&mapping.slot)
        );
        let rows = self.ask(&sql).await?;
        text(&rows, 0, 1)
            .and_then(Lsn::parse)
            .map(|lsn| lsn.0)
            .ok_or(Error::Answer("CREATE_REPLICATION_SLOT"))
    }

    /// Begins to read one table of the snapshot. `condition`: SQL, for an outbox.
    ///
    /// # Errors
    /// As [`Session::open`]; `Answer` for a table that is not in the facts.
    pub async fn open_rows(
        &mut self,
        name: &Name,
        facts: &Facts,
        condition: &str,
    ) -> Result<Snapshot, Error> {
        let found = find(name, facts).ok_or(Error::Answer("snapshot"))?;
        let relation = found.relation();
        let columns: Vec<String> = relation
            .columns
            .iter()
            .map(|column| quoted(&column.name))
            .collect();
        let mut conditions: Vec<String> = found
            .row_filter
            .iter()
            .map(|filter| format!("({filter})"))
            .collect();
        if !condition.is_empty() {
            conditions.push(condition.to_owned());
        }
        let filter = if conditions.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", conditions.join(" AND "))
        };
        let snapshot = Snapshot {
            relation,
            select: format!(
                "DECLARE roomcast_rows NO SCROLL CURSOR FOR SELECT {} FROM {}{filter}",
                columns.join(", "),
                crate::checks::qualified(name)
            ),
        };
        self.ask(&snapshot.select).await?;
        Ok(snapshot)
    }

    /// Some of its rows; none when there are no more.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn rows(&mut self) -> Result<Vec<Row>, Error> {
        let rows = self
            .ask(&format!("FETCH FORWARD {ROWS_AT_ONCE} FROM roomcast_rows"))
            .await?;
        rows.into_iter().map(row).collect()
    }

    /// Ends with the table.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn close_rows(&mut self) -> Result<(), Error> {
        self.ask("CLOSE roomcast_rows").await.map(drop)
    }

    /// Ends the snapshot.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn end_snapshot(&mut self) -> Result<(), Error> {
        self.ask("COMMIT").await.map(drop)
    }

    /// Begins the stream, where the slot is.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn start(mut self, follow: Follow) -> Result<Stream, Error> {
        within(self.client.start(), &self.database).await?;
        within(self.client.wait_started(), &self.database).await?;
        Ok(Stream {
            client: self.client,
            database: self.database,
            follow,
        })
    }
}

/// The primary keys of tables, by `schema.table`.
#[must_use]
pub fn primary_keys(facts: &Facts) -> HashMap<String, Vec<String>> {
    let key = |found: &Found| {
        let columns = found.columns.iter().filter(|column| column.primary);
        let names = columns.map(|column| column.name.clone()).collect();
        (format!("{}.{}", found.schema, found.table), names)
    };
    facts.tables.iter().map(key).collect()
}

/// The stream of changes.
pub struct Stream {
    client: ReplicationClient,
    database: Database,
    follow: Follow,
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

async fn door(database: &Database, tls: &Tls) -> Result<u16, Error> {
    let unreachable = |why: String| Error::Unreachable(database.to_string(), why);
    match tokio::time::timeout(CALL, tls::door(database, tls)).await {
        Ok(opened) => opened.map_err(|error| unreachable(error.to_string())),
        Err(_) => Err(unreachable(format!("no answer within {} s", CALL.as_secs()))),
    }
}

/// Slots are named without quotes in the grammar of replication commands unless they must have them.
fn quoted_slot(name: &str) -> String {
    format!("\"{name}\"")
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

fn row(cells: QueryRow) -> Result<Row, Error> {
    let cell = |value: Option<Bytes>| match value {
        None => Ok(Cell::Null),
        Some(bytes) => Text::new(bytes)
            .map(Cell::Text)
            .map_err(|_| Error::Answer("snapshot")),
    };
    cells.into_iter().map(cell).collect()
}

#[derive(Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what the catalogue says, one thing each"
)]
struct FoundJson {
    schema: String,
    table: String,
    partitioned: bool,
    identity_full: bool,
    readable: bool,
    published: bool,
    row_filter: Option<String>,
    columns: Option<Vec<ColumnJson>>,
}

#[derive(Deserialize)]
struct ColumnJson {
    name: String,
    type_oid: u32,
    key: bool,
    primary: bool,
    published: Option<bool>,
}

impl From<FoundJson> for Found {
    fn from(found: FoundJson) -> Self {
        let column = |column: ColumnJson| FoundColumn {
            name: column.name,
            type_oid: column.type_oid,
            key: column.key,
            primary: column.primary,
            published: column.published.unwrap_or(false),
        };
        Self {
            schema: found.schema,
            table: found.table,
            partitioned: found.partitioned,
            identity_full: found.identity_full,
            readable: found.readable,
            published: found.published,
            columns: found
                .columns
                .unwrap_or_default()
                .into_iter()
                .map(column)
                .collect(),
            row_filter: found.row_filter,
        }
    }
}
