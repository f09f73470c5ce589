//! The mapping file: which tables' changes become which events. Read and checked without a database; what only the database knows is
//! checked in [`crate::checks`].

mod read;
#[cfg(test)]
mod tests;

use roomcast_access::yaml::At;
use roomcast_access::{Mistake, Policy};
use roomcast_cel::predicate::{Computed, Expr};
use roomcast_cel::row::Path;
use roomcast_proto::ids::{Audience, Tenant};

/// Tables of one file at most.
pub const TABLES_MAX: usize = 200;
/// Computed fields of one table at most.
pub const FIELDS_MAX: usize = 32;

/// What a file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Mapping {
    /// Whose events they are.
    pub tenant: Tenant,
    /// The database's name in ids and in `source`: one token.
    pub source: String,
    /// The replication slot.
    pub slot: String,
    /// The publication.
    pub publication: String,
    /// Where the file says `failover: true`: standbys keep a copy of the slot. Needs PostgreSQL 17.
    pub failover: Option<At>,
    /// What to do when the slot is gone.
    pub slot_lost: SlotLost,
    /// The tables, in the order of the file.
    pub tables: Vec<Table>,
    /// The table whose rows are events themselves.
    pub outbox: Option<Name>,
}

/// What to do when the database no longer has the slot and changes may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotLost {
    /// Nothing, until an operator decides.
    Stop,
    /// A new slot, with a new snapshot of the tables that have one.
    Snapshot,
}

/// A table's name, and where the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The schema.
    pub schema: String,
    /// The table.
    pub table: String,
    /// Where it stands.
    pub at: At,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// A column's name, and where the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The column.
    pub name: String,
    /// Where it stands.
    pub at: At,
}

/// Which columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Columns {
    /// All that the publication has, also those that are added later.
    All,
    /// These.
    These(Vec<Named>),
}

/// Event types by what happened to a row; `None`: it is not published.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Types {
    /// A new row.
    pub insert: Option<String>,
    /// A changed row.
    pub update: Option<String>,
    /// A row that is gone.
    pub delete: Option<String>,
    /// The table was emptied.
    pub truncate: Option<String>,
    /// A row that was there before the first change was read.
    pub snapshot: Option<String>,
}

/// A part of a room's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As written.
    Text(String),
    /// A column's value.
    Column(Named),
}

/// A computed field of the event's data.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Computed,
}

/// What becomes of the changes of one table.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The table.
    pub name: Name,
    /// The room, perhaps by the row.
    pub room: Vec<Part>,
    /// Who of the room gets it.
    pub audience: Audience,
    /// The event types.
    pub types: Types,
    /// The columns in `data.row`.
    pub columns: Columns,
    /// The columns in `data.old`.
    pub old: Columns,
    /// Computed fields.
    pub fields: Vec<Field>,
    /// Rows that are published; `None`: all.
    pub condition: Option<Expr>,
    /// What `fields` and `condition` name; their places are what operands hold.
    pub paths: Vec<(Path, At)>,
    /// How many of `paths` belong to `condition`: the first ones.
    pub condition_paths: usize,
    /// The columns of the key, where the event is the row's state.
    pub state: Vec<Named>,
    /// The priority, if not medium.
    pub priority: Option<String>,
}

impl Mapping {
    /// Reads a file's text. With a policy, rooms and audiences are looked up in it.
    ///
    /// # Errors
    /// Every mistake, with its place and what was probably meant.
    pub fn parse(text: &str, file: &str, policy: Option<&Policy>) -> Result<Self, Vec<Mistake>> {
        read::mapping(text, file, policy)
    }

    /// What stands in `source` of its events.
    #[must_use]
    pub fn event_source(&self) -> String {
        format!("postgres/{}", self.source)
    }

    /// The tables whose rows of before are published once.
    pub fn snapshots(&self) -> impl Iterator<Item = &Table> {
        self.tables.iter().filter(|table| table.types.snapshot.is_some())
    }
}

impl Table {
    /// Columns without whose value no event of the table can be made: those of the room, the key, and what is computed from.
    pub fn needed(&self) -> impl Iterator<Item = (&str, At)> {
        let room = self.room.iter().filter_map(|part| match part {
            Part::Column(named) => Some((named.name.as_str(), named.at)),
            Part::Text(_) => None,
        });
        let state = self.state.iter().map(|named| (named.name.as_str(), named.at));
        let computed = self
            .paths
            .iter()
            .filter_map(|(path, at)| column_of(path).map(|name| (name, *at)));
        room.chain(state).chain(computed)
    }

    /// Columns of a deleted row, or of one with `state` that an update moves, without which its event cannot be made, sent to its room, or
    /// decided upon: those of the room, the key and `where`. What else is computed from columns that the database does not send is left out
    /// of the event.
    pub fn needed_of_deleted(&self) -> impl Iterator<Item = (&str, At)> {
        let condition = self.condition_paths;
        let room = self.room.iter().filter_map(|part| match part {
            Part::Column(named) => Some((named.name.as_str(), named.at)),
            Part::Text(_) => None,
        });
        let state = self.state.iter().map(|named| (named.name.as_str(), named.at));
        let conditional = self
            .paths
            .iter()
            .take(condition)
            .filter_map(|(path, at)| column_of(path).map(|name| (name, *at)));
        room.chain(state).chain(conditional)
    }

    /// Columns of the row as it was that an update's event holds or is computed from, or `None` for all of them.
    #[must_use]
    pub fn needed_of_old(&self) -> Option<Vec<(&str, At)>> {
        let Columns::These(list) = &self.old else {
            return None;
        };
        let kept = list.iter().map(|named| (named.name.as_str(), named.at));
        let computed = self.paths.iter().filter_map(|(path, at)| match path {
            Path::Data(members) if members.len() == 2 && members[0] == "old" => {
                Some((members[1].as_str(), *at))
            }
            _ => None,
        });
        Some(kept.chain(computed).collect())
    }
}

/// The column that `data.row.x` or `data.old.x` names.
fn column_of(path: &Path) -> Option<&str> {
    match path {
        Path::Data(members) if members.len() == 2 => Some(members[1].as_str()),
        _ => None,
    }
}
