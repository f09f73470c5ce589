//! What the catalogue says about a mapping's tables.

use std::collections::HashMap;

use serde::Deserialize;

use super::{Error, Session, flag, text};
use crate::checks::{Facts, Found, FoundColumn, Publication};
use crate::mapping::Mapping;
use crate::position::Lsn;
use crate::sql::literal;

impl Session {
    /// What the catalogue says about the mapping's tables.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn facts(&mut self, mapping: &Mapping) -> Result<Facts, Error> {
        const SERVER: &str = "SELECT current_setting('server_version_num'), current_setting('wal_level'), current_user, \
                              pg_is_in_recovery(), CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn() END";
        let rows = self.ask(SERVER).await?;
        let mut facts = Facts {
            version: text(&rows, 0, 0)
                .and_then(|text| text.parse().ok())
                .ok_or(Error::Answer("server_version_num"))?,
            wal_level: text(&rows, 0, 1).unwrap_or_default().to_owned(),
            user: text(&rows, 0, 2).unwrap_or_default().to_owned(),
            standby: flag(&rows, 3),
            lsn: text(&rows, 0, 4).and_then(Lsn::parse).map_or(0, |lsn| lsn.0),
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
                "SELECT json_build_object('oid', c.oid::int8, 'schema', n.nspname, 'table', c.relname, 'partitioned', c.relkind = 'p', 'identity_full', \
                 c.relreplident = 'f', 'readable', has_table_privilege(c.oid, 'SELECT'), 'row_security', \
                 row_security_active(c.oid), 'published', p.tablename IS NOT NULL, \
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
        self.catalogue = facts.catalogue();
        Ok(facts)
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

#[derive(Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what the catalogue says, one thing each"
)]
struct FoundJson {
    oid: u32,
    schema: String,
    table: String,
    partitioned: bool,
    identity_full: bool,
    readable: bool,
    row_security: bool,
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
            oid: found.oid,
            schema: found.schema,
            table: found.table,
            partitioned: found.partitioned,
            identity_full: found.identity_full,
            readable: found.readable,
            row_security: found.row_security,
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
