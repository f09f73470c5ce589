//! One change of a row as an event, as the mapping says. Pure: no I/O, no clock.
//!
//! The result is the event's JSON as any publisher would send it; ingest decides about it like about every other.

mod withdrawal;

use std::borrow::Cow;
use std::sync::Arc;

use roomcast_cel::predicate::{Computed, Literal, Outcome, Verdict};
use roomcast_cel::row::{Field, Path};

use crate::mapping::{Columns, Named, Part, Table};
use crate::pgoutput::{Before, Cell, Relation, Row};
use crate::value::{Kind, Type, write_text};

/// PostgreSQL's number of `numeric`: text in events, a number in expressions.
const NUMERIC: u32 = 1700;
/// How the event of a value that is gone ends: it has no data.
const WITHDRAWN: &[u8] = b",\"withdrawn\":true}";

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// It is new.
    Insert,
    /// It changed.
    Update,
    /// It is gone.
    Delete,
    /// Its table was emptied; there is no row.
    Truncate,
    /// It was there before the first change was read.
    Snapshot,
}

impl Op {
    /// The name in `data.op`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Truncate => "truncate",
            Self::Snapshot => "snapshot",
        }
    }
}

/// A change of a row.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// What happened.
    pub op: Op,
    /// The row as it is; `None` for a row that is gone.
    pub row: Option<&'a Row>,
    /// The row as it was, where the database says.
    pub before: Option<&'a Before>,
}

/// What names the event.
#[derive(Debug, Clone, Copy)]
pub struct Stamp<'a> {
    /// Its id.
    pub id: &'a str,
    /// When the change was committed, RFC 3339.
    pub time: &'a str,
    /// Its `source`.
    pub source: &'a str,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// An event was written.
    Event,
    /// The mapping has no event type for what happened.
    NotMapped,
    /// `where` is false.
    Filtered,
    /// `where` cannot be decided about this row.
    Undecided,
}

/// Columns that the mapping cannot do without and the table does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the table {table} no longer has {}, which the mapping needs for its room, key or expressions", columns.join(", "))]
pub struct Unbound {
    /// The table.
    pub table: String,
    /// The columns.
    pub columns: Vec<String>,
}

/// A column that is kept: its name as a JSON key, and its place in a row.
#[derive(Debug)]
struct Kept {
    key: Vec<u8>,
    name: String,
    index: usize,
}

/// Where the value of a path comes from.
#[derive(Debug, Clone, Copy)]
enum Source {
    Op,
    Type,
    Row(usize),
    Old(usize),
}

/// A piece of the room's name.
#[derive(Debug)]
enum Piece {
    Text(String),
    Column(usize),
}

/// A table of the mapping as the stream describes it now.
#[derive(Debug)]
pub struct Bound {
    table: Arc<Table>,
    name: String,
    types: Vec<(Type, u32)>,
    identity: Vec<bool>,
    kept: Vec<Kept>,
    old: Vec<Kept>,
    room: Vec<Piece>,
    state: Vec<usize>,
    sources: Vec<Source>,
    missing: Vec<String>,
}

/// What is known of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen<'a> {
    Absent,
    Unchanged,
    Null,
    Text(&'a str),
}

impl<'a> From<&'a Cell> for Seen<'a> {
    fn from(cell: &'a Cell) -> Self {
        match cell {
            Cell::Null => Self::Null,
            Cell::Unchanged => Self::Unchanged,
            Cell::Text(text) => Self::Text(text.as_str()),
        }
    }
}

impl Bound {
    /// Finds the mapping's columns in the table.
    ///
    /// # Errors
    /// [`Unbound`]: no event can be made of this table's rows before the mapping is mended.
    pub fn new(table: Arc<Table>, relation: &Relation) -> Result<Self, Unbound> {
        let find = |name: &str| relation.columns.iter().position(|column| column.name == name);
        let absent: Vec<String> = table
            .needed()
            .filter(|(name, _)| find(name).is_none())
            .map(|(name, _)| name.to_owned())
            .collect();
        if !absent.is_empty() {
            return Err(Unbound {
                table: table.name.to_string(),
                columns: absent,
            });
        }
        let kept = keep(&table.columns, relation);
        let old = keep(&table.old, relation);
        let listed = [&table.columns, &table.old]
            .into_iter()
            .flat_map(|columns| match columns {
                Columns::All => [].iter(),
                Columns::These(list) => list.iter(),
            });
        let missing = listed.filter(|named| find(&named.name).is_none());
        let mut missing: Vec<String> = missing.map(|named| named.name.clone()).collect();
        missing.dedup();
        let place = |named: &Named| find(&named.name).unwrap_or_default();
        let piece = |part: &Part| match part {
            Part::Text(text) => Piece::Text(text.clone()),
            Part::Column(named) => Piece::Column(place(named)),
        };
        let source = |path: &Path| match path {
            Path::Data(members) if members.len() == 2 => {
                let index = find(&members[1]).unwrap_or_default();
                if members[0] == "old" {
                    Source::Old(index)
                } else {
                    Source::Row(index)
                }
            }
            Path::Data(_) => Source::Op,
            Path::Attribute(_) => Source::Type,
        };
        Ok(Self {
            name: table.name.to_string(),
            types: relation
                .columns
                .iter()
                .map(|column| (Type::of(column.type_oid), column.type_oid))
                .collect(),
            identity: relation.columns.iter().map(|column| column.key).collect(),
            kept,
            old,
            room: table.room.iter().map(piece).collect(),
            state: table.state.iter().map(place).collect(),
            sources: table.paths.iter().map(|(path, _)| source(path)).collect(),
            missing,
            table,
        })
    }

    /// The table's name in the mapping.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Columns that the mapping keeps and the table no longer has: their events lack them.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Writes the event, if the mapping makes one of the change. `out` grows by the event's JSON, or not at all.
    pub fn write(&self, change: &Change<'_>, stamp: &Stamp<'_>, out: &mut Vec<u8>) -> Made {
        let types = &self.table.types;
        let kind = match change.op {
            Op::Insert => &types.insert,
            Op::Update => &types.update,
            Op::Delete => &types.delete,
            Op::Truncate => &types.truncate,
            Op::Snapshot => &types.snapshot,
        };
        let Some(kind) = kind.as_deref() else {
            return Made::NotMapped;
        };
        let values = self.values(&self.sources, change, kind);
        match self.verdict(&values) {
            Verdict::True => {}
            Verdict::False => return Made::Filtered,
            // An emptied table has no row to ask about.
            Verdict::Error if change.op == Op::Truncate => {}
            Verdict::Error => return Made::Undecided,
        }
        let seen = |index| self.seen(change, index);
        self.write_head(kind, stamp, &self.room(seen), out);
        if !self.state.is_empty() {
            write_state(&self.key(seen), out);
            if change.op == Op::Delete {
                out.extend_from_slice(WITHDRAWN);
                return Made::Event;
            }
        }
        out.extend_from_slice(b",\"data\":{\"op\":\"");
        out.extend_from_slice(change.op.as_str().as_bytes());
        out.extend_from_slice(b"\",\"table\":");
        write_text(&self.name, out);
        if change.op != Op::Truncate {
            self.write_rows(change, out);
        }
        let field = |place: usize| values.get(place).unwrap_or(&Field::Absent);
        for computed in &self.table.fields {
            self.write_computed(&computed.name, &computed.value, &field, out);
        }
        out.extend_from_slice(b"}}");
        Made::Event
    }

    /// What the paths hold that expressions name.
    fn values<'a>(&self, sources: &[Source], change: &Change<'a>, kind: &'a str) -> Vec<Field<'a>> {
        let field = |source: &Source| self.field(*source, change, kind);
        sources.iter().map(field).collect()
    }

    /// What `where` says of them; true where there is none.
    fn verdict(&self, values: &[Field<'_>]) -> Verdict {
        let field = |place: usize| values.get(place).unwrap_or(&Field::Absent);
        let condition = self.table.condition.as_ref();
        condition.map_or(Verdict::True, |condition| condition.evaluate(&field))
    }

    /// The attributes that every event has.
    fn write_head(&self, kind: &str, stamp: &Stamp<'_>, room: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"specversion\":\"1.0\"");
        put("id", stamp.id, out);
        put("source", stamp.source, out);
        put("type", kind, out);
        put("time", stamp.time, out);
        put("room", room, out);
        put("audience", self.table.audience.as_str(), out);
        if let Some(priority) = &self.table.priority {
            put("priority", priority, out);
        }
    }

    fn write_rows(&self, change: &Change<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"row\":");
        self.write_object(&self.kept, |index| self.seen(change, index), out);
        if change.op == Op::Update && !self.old.is_empty() && change.before.is_some() {
            out.extend_from_slice(b",\"old\":");
            self.write_object(&self.old, |index| self.seen_before(change, index), out);
        }
        let mut unchanged = self
            .kept
            .iter()
            .filter(|kept| self.seen(change, kept.index) == Seen::Unchanged)
            .peekable();
        if unchanged.peek().is_some() {
            let names: Vec<&str> = unchanged.map(|kept| kept.name.as_str()).collect();
            out.extend_from_slice(b",\"unchanged\":");
            // Into memory it cannot fail.
            let _ = serde_json::to_writer(&mut *out, &names);
        }
    }

    fn write_object<'a>(&self, columns: &[Kept], seen: impl Fn(usize) -> Seen<'a>, out: &mut Vec<u8>) {
        out.push(b'{');
        let start = out.len();
        for kept in columns {
            let value = seen(kept.index);
            if matches!(value, Seen::Absent | Seen::Unchanged) {
                continue;
            }
            if out.len() > start {
                out.push(b',');
            }
            out.extend_from_slice(&kept.key);
            match value {
                Seen::Text(text) => self.types[kept.index].0.write(text, out),
                _ => out.extend_from_slice(b"null"),
            }
        }
        out.push(b'}');
    }

    /// The value as the change leaves it; of a row that is gone, as it was.
    fn seen<'a>(&self, change: &Change<'a>, index: usize) -> Seen<'a> {
        match change.row.and_then(|row| row.get(index)) {
            Some(Cell::Unchanged) => match self.seen_before(change, index) {
                Seen::Absent => Seen::Unchanged,
                before => before,
            },
            Some(cell) => cell.into(),
            None if change.row.is_none() => self.seen_before(change, index),
            None => Seen::Absent,
        }
    }

    fn seen_before<'a>(&self, change: &Change<'a>, index: usize) -> Seen<'a> {
        let cell = match change.before {
            Some(Before::Full(row)) => row.get(index),
            Some(Before::Key(row)) if self.identity.get(index) == Some(&true) => row.get(index),
            _ => None,
        };
        cell.map_or(Seen::Absent, Seen::from)
    }

    fn room<'a>(&self, seen: impl Fn(usize) -> Seen<'a>) -> String {
        let mut room = String::new();
        for piece in &self.room {
            match piece {
                Piece::Text(text) => room.push_str(text),
                // Without a value the name is none, and ingest keeps the event as a dead letter that says so.
                Piece::Column(index) => {
                    if let Seen::Text(text) = seen(*index) {
                        room.push_str(text);
                    }
                }
            }
        }
        room
    }

    fn key<'a>(&self, seen: impl Fn(usize) -> Seen<'a>) -> String {
        let values = self.state.iter().map(|index| match seen(*index) {
            Seen::Text(text) => text,
            _ => "",
        });
        values.collect::<Vec<_>>().join("/")
    }

    /// A field that cannot be computed is left out.
    fn write_computed<'f, 'r: 'f>(
        &self,
        name: &str,
        value: &Computed,
        field: &impl Fn(usize) -> &'f Field<'r>,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        let flag = |flag: bool| if flag { "true" } else { "false" };
        match value.evaluate(field) {
            Outcome::Flag(value) => out.extend_from_slice(flag(value).as_bytes()),
            Outcome::Literal(Literal::Null) => out.extend_from_slice(b"null"),
            Outcome::Literal(Literal::Flag(value)) => out.extend_from_slice(flag(*value).as_bytes()),
            Outcome::Literal(Literal::Number(text, _)) => out.extend_from_slice(text.as_bytes()),
            Outcome::Literal(Literal::Text(text)) => write_text(text, out),
            Outcome::Field(place) => match field(place) {
                Field::Null => out.extend_from_slice(b"null"),
                Field::Flag(value) => out.extend_from_slice(flag(*value).as_bytes()),
                Field::Text(text) => write_text(text, out),
                // As it would stand in the row: never a number that somebody would round.
                Field::Number(text) => match self.sources.get(place) {
                    Some(Source::Row(index) | Source::Old(index)) => self.types[*index].0.write(text, out),
                    _ => write_text(text, out),
                },
                Field::Absent | Field::Compound => out.truncate(start),
            },
            Outcome::Error => out.truncate(start),
        }
    }

    fn field<'a>(&self, source: Source, change: &Change<'a>, kind: &'a str) -> Field<'a> {
        let (seen, index) = match source {
            Source::Op => return Field::Text(Cow::Borrowed(change.op.as_str())),
            Source::Type => return Field::Text(Cow::Borrowed(kind)),
            Source::Row(index) => (self.seen(change, index), index),
            Source::Old(index) => (self.seen_before(change, index), index),
        };
        let text = match seen {
            Seen::Absent | Seen::Unchanged => return Field::Absent,
            Seen::Null => return Field::Null,
            Seen::Text(text) => text,
        };
        let (kind, oid) = self.types[index];
        if kind.array {
            return Field::Compound;
        }
        match kind.kind {
            Kind::Flag => Field::Flag(text == "t"),
            Kind::Whole | Kind::Float => Field::Number(text),
            Kind::Json => Field::Compound,
            Kind::Text if oid == NUMERIC => Field::Number(text),
            Kind::Text => Field::Text(Cow::Borrowed(text)),
            Kind::Binary | Kind::Instant | Kind::Local => {
                let mut json = Vec::new();
                kind.write(text, &mut json);
                serde_json::from_slice(&json).map_or(Field::Absent, |text| Field::Text(Cow::Owned(text)))
            }
        }
    }
}

fn put(name: &str, text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    write_text(text, out);
}

fn write_state(key: &str, out: &mut Vec<u8>) {
    put("delivery", "state", out);
    put("statekey", key, out);
}

fn keep(columns: &Columns, relation: &Relation) -> Vec<Kept> {
    let kept = |index: usize, name: &str| {
        let mut key = Vec::new();
        write_text(name, &mut key);
        key.push(b':');
        Kept {
            key,
            name: name.to_owned(),
            index,
        }
    };
    let all = relation.columns.iter().enumerate();
    match columns {
        Columns::All => all.map(|(index, column)| kept(index, &column.name)).collect(),
        Columns::These(list) => list
            .iter()
            .filter_map(|named| {
                let index = relation
                    .columns
                    .iter()
                    .position(|column| column.name == named.name)?;
                Some(kept(index, &named.name))
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests;
