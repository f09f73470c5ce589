//! A shop that writes rows into its database and knows nothing of events: what the simulator is where there is a PostgreSQL.
//!
//! What a story says as a change of a row (`table`, `op`, `row`) is written as one; what a row cannot say goes to ingest, as from the
//! shop's site.

use std::collections::HashMap;
use std::time::Duration;

use roomcast_capture::Mapping;
use roomcast_capture::database::Database;
use roomcast_capture::session::{Error, Session, primary_keys};
use roomcast_capture::sql::{literal, quoted};
use roomcast_chassis::process::Failure;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::ingest::Ingest;

/// Statements of one transaction of the past.
const ROWS_AT_ONCE: usize = 200;
/// Pause before a database that is away is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// Primary keys by `schema.table`.
type Keys = HashMap<String, Vec<String>>;

/// The shop.
#[derive(Debug)]
pub(crate) struct Shop {
    database: Database,
    mapping: Mapping,
    keys: Keys,
    session: Mutex<Option<Session>>,
    /// Where its site publishes.
    pub(crate) site: Ingest,
}

impl Shop {
    /// Connects as the owner of the tables, which `mapping` names.
    ///
    /// # Errors
    /// 69: the database does not answer.
    pub(crate) async fn open(database: Database, mapping: Mapping, site: Ingest) -> Result<Self, Failure> {
        let mut session = Session::open(&database, &mapping).await.map_err(away)?;
        let keys = primary_keys(&session.facts(&mapping).await.map_err(away)?);
        Ok(Self {
            database,
            mapping,
            keys,
            session: Mutex::new(Some(session)),
            site,
        })
    }

    /// The statement that does what an event's data says; `None`: it is no change of a row of this shop.
    pub(crate) fn statement(&self, data: &str) -> Option<String> {
        statement(data, &self.keys)
    }

    /// Writes the past, in portions.
    ///
    /// # Errors
    /// As [`Shop::write`].
    pub(crate) async fn fill(&self, data: impl Iterator<Item = String>) -> Result<(), Failure> {
        let never = CancellationToken::new();
        let mut some = Vec::with_capacity(ROWS_AT_ONCE);
        for statement in data.filter_map(|data| self.statement(&data)) {
            some.push(statement);
            if some.len() == ROWS_AT_ONCE {
                self.write(&some.join(";"), &never).await?;
                some.clear();
            }
        }
        if some.is_empty() {
            return Ok(());
        }
        self.write(&some.join(";"), &never).await.map(drop)
    }

    /// Runs a statement, however long the database is away; `false`: stopped meanwhile. Running it twice does no harm.
    ///
    /// # Errors
    /// 65: the database refuses it.
    pub(crate) async fn write(&self, sql: &str, stop: &CancellationToken) -> Result<bool, Failure> {
        let mut held = self.session.lock().await;
        loop {
            let ended = match held.as_mut() {
                Some(session) => session.run(sql).await,
                None => match Session::open(&self.database, &self.mapping).await {
                    Ok(session) => {
                        *held = Some(session);
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            match ended {
                Ok(()) => return Ok(true),
                Err(Error::Refused(why)) if held.is_some() => {
                    return Err(Failure::file(format!("the shop's database refuses: {why}")));
                }
                // It is away, or just starting.
                Err(_) => *held = None,
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = stop.cancelled() => return Ok(false),
            }
        }
    }

    /// Whether its changes are followed.
    ///
    /// # Errors
    /// 69: the database does not answer.
    pub(crate) async fn is_followed(&self) -> Result<bool, Failure> {
        let mut session = Session::open(&self.database, &self.mapping).await.map_err(away)?;
        let slot = session.slot(&self.mapping).await.map_err(away)?;
        Ok(slot.is_some_and(|slot| slot.held_by.is_some()))
    }
}

fn away(error: Error) -> Failure {
    Failure::unavailable(error.to_string())
}

/// Sets the row, whether or not it is there: a story may begin before the database does.
fn statement(data: &str, keys: &Keys) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        op: String,
        table: String,
        row: Map<String, Value>,
    }
    let Said { op, table, row } = serde_json::from_str(data).ok()?;
    let key = keys.get(&table).filter(|key| !key.is_empty())?;
    if op != "insert" && op != "update" {
        return None;
    }
    let (schema, name) = table.split_once('.')?;
    let table = format!("{}.{}", quoted(schema), quoted(name));
    let list = |names: &[String], write: fn(&String) -> String| {
        names.iter().map(write).collect::<Vec<_>>().join(", ")
    };
    let columns: Vec<String> = row.keys().map(|column| quoted(column)).collect();
    let others: Vec<String> = row
        .keys()
        .filter(|column| !key.contains(column))
        .map(|column| quoted(column))
        .collect();
    let resolved = if others.is_empty() {
        "NOTHING".to_owned()
    } else {
        format!(
            "UPDATE SET {}",
            list(&others, |column| format!("{column} = EXCLUDED.{column}"))
        )
    };
    let (columns, key) = (columns.join(", "), list(key, |column| quoted(column)));
    let row = literal(&Value::Object(row).to_string());
    Some(format!(
        "INSERT INTO {table} ({columns}) SELECT {columns} FROM json_populate_record(NULL::{table}, {row}) ON CONFLICT ({key}) DO {resolved}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_a_row_is_written_as_one() {
        let keys = Keys::from([
            ("public.t".to_owned(), vec!["id".to_owned()]),
            ("s.u".to_owned(), Vec::new()),
        ]);
        let check = |data: &str, expected: Option<&str>| {
            assert_eq!(statement(data, &keys).as_deref(), expected, "{data}")
        };
        check(
            r#"{"op":"update","table":"public.t","row":{"id":"1","name":"O'Hara"},"old":{"name":"x"}}"#,
            Some(
                r#"INSERT INTO "public"."t" ("id", "name") SELECT "id", "name" FROM json_populate_record(NULL::"public"."t", '{"id":"1","name":"O''Hara"}') ON CONFLICT ("id") DO UPDATE SET "name" = EXCLUDED."name""#,
            ),
        );
        check(
            r#"{"op":"insert","table":"public.t","row":{"id":"1"}}"#,
            Some(
                r#"INSERT INTO "public"."t" ("id") SELECT "id" FROM json_populate_record(NULL::"public"."t", '{"id":"1"}') ON CONFLICT ("id") DO NOTHING"#,
            ),
        );
        check(r#"{"op":"insert","table":"public.other","row":{"id":"1"}}"#, None);
        check(r#"{"op":"insert","table":"s.u","row":{"id":"1"}}"#, None);
        check(r#"{"op":"delete","table":"public.t","row":{"id":"1"}}"#, None);
        check(r#"{"customer":"Ada"}"#, None);
    }
}
