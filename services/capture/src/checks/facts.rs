//! What a database's catalogue says.

use crate::follow::Catalogue;
use crate::mapping::Name;
use crate::pgoutput::{Column, Relation};

/// What the catalogue says.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// `server_version_num`.
    pub version: u32,
    /// `wal_level`.
    pub wal_level: String,
    /// A position in the log that was reached before the catalogue was looked at.
    pub lsn: u64,
    /// Who is connected.
    pub user: String,
    /// Whether it is a standby.
    pub standby: bool,
    /// The publication, if there is one of the name.
    pub publication: Option<Publication>,
    /// The tables of the mapping that are there.
    pub tables: Vec<Found>,
    /// Names of tables there are, for suggestions.
    pub known: Vec<String>,
}

/// What a publication publishes.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "one per column of the catalogue")]
pub struct Publication {
    /// New rows.
    pub insert: bool,
    /// Changed rows.
    pub update: bool,
    /// Rows that are gone.
    pub delete: bool,
    /// Emptied tables.
    pub truncate: bool,
    /// Partitions under the name of their table.
    pub via_root: bool,
}

/// A table of the mapping as the database has it.
#[derive(Debug, Clone, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what the catalogue says, one thing each"
)]
pub struct Found {
    /// Its number, which stays when its name changes.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Whether it is partitioned.
    pub partitioned: bool,
    /// Whether the old row is sent whole: `REPLICA IDENTITY FULL`.
    pub identity_full: bool,
    /// Whether the user may read it.
    pub readable: bool,
    /// Whether row-level security hides rows from the user.
    pub row_security: bool,
    /// Whether it is in the publication.
    pub published: bool,
    /// Its columns: name, type, whether in the replica identity, whether in the publication.
    pub columns: Vec<FoundColumn>,
    /// The publication's condition on its rows.
    pub row_filter: Option<String>,
}

/// A column of a table.
#[derive(Debug, Clone, Default)]
pub struct FoundColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_oid: u32,
    /// Whether it is in the replica identity.
    pub key: bool,
    /// Whether it is in the primary key.
    pub primary: bool,
    /// Whether the publication has it.
    pub published: bool,
}

impl Facts {
    /// Which tables of the mapping there are.
    #[must_use]
    pub fn catalogue(&self) -> Catalogue {
        let named = |found: &Found| (found.oid, (found.schema.clone(), found.table.clone()));
        Catalogue {
            lsn: self.lsn,
            tables: self.tables.iter().map(named).collect(),
        }
    }
}

impl Found {
    /// The table as the stream will describe it.
    #[must_use]
    pub fn relation(&self) -> Relation {
        let published = self.columns.iter().filter(|column| column.published);
        Relation {
            oid: self.oid,
            schema: self.schema.clone(),
            name: self.table.clone(),
            columns: published
                .map(|column| Column {
                    name: column.name.clone(),
                    type_oid: column.type_oid,
                    key: column.key || self.identity_full,
                })
                .collect(),
        }
    }
}

/// The table of the mapping with this name, as the database has it.
#[must_use]
pub fn find<'a>(name: &Name, facts: &'a Facts) -> Option<&'a Found> {
    facts
        .tables
        .iter()
        .find(|found| found.schema == name.schema && found.table == name.table)
}
