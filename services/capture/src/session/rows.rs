//! The rows that a snapshot holds, some at a time.

use bytes::Bytes;
use pgwire_replication::client::QueryRow;

use super::{Error, Session};
use crate::checks::{Facts, find};
use crate::mapping::Name;
use crate::pgoutput::{Cell, Relation, Row, Text};
use crate::sql::{quoted, quoted_table};

/// Rows of a snapshot read at once.
const ROWS_AT_ONCE: u32 = 200;

/// A table of a snapshot.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// How the stream would describe it.
    pub relation: Relation,
    select: String,
}

impl Session {
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
                quoted_table(name)
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
