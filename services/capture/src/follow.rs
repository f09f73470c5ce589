//! A replication stream as events, each with its place. A state machine: what the database says goes in, items come out.
//!
//! Called by [`crate::session`] for everything that is received. Holds one transaction's name and the tables' columns, never rows; a
//! transaction of a million rows passes through row by row.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use crate::event::{Bound, Change, Made, Op, Stamp, Unbound};
use crate::mapping::{Mapping, Table};
use crate::outbox::Outbox;
use crate::pgoutput::{self, Before, Malformed, Message, Relation, Row};
use crate::position::{Place, Timelines, event_id};

/// What is kept of an event that is larger than any may be: ingest refuses it and keeps its beginning.
pub const LINE_KEPT_MAX: usize = 96 * 1024;
/// Microseconds from 1970 to 2000, from which PostgreSQL counts.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// An event, ready to be taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its JSON; of one that is too large, the beginning.
    pub bytes: Bytes,
    /// How many bytes it has.
    pub original_bytes: usize,
    /// Its place.
    pub place: Place,
    /// Its number, of an outbox row.
    pub number: Option<u64>,
}

/// What comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An event.
    Event(Line),
    /// Everything up to here has come out; once stored, the database need not keep it.
    Passed {
        /// The last commit.
        place: Place,
        /// What may be confirmed.
        confirm: u64,
        /// Whether everything that was stored beyond the beginning has come by.
        caught_up: bool,
    },
}

/// Which tables of the mapping the database had, by their numbers, which stay when a name changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalogue {
    /// A position in the log that was reached before it was looked at.
    pub lsn: u64,
    /// Schema and name by number.
    pub tables: HashMap<u32, (String, String)>,
}

/// What was left out since it was last asked, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Left {
    /// The mapping has no type for what happened.
    pub not_mapped: u64,
    /// `where` is false.
    pub filtered: u64,
    /// `where` cannot be decided.
    pub undecided: u64,
    /// Stored already.
    pub repeated: u64,
}

impl Left {
    fn count(&mut self, made: Made) {
        match made {
            Made::Event => {}
            Made::NotMapped => self.not_mapped += 1,
            Made::Filtered => self.filtered += 1,
            Made::Undecided => self.undecided += 1,
        }
    }
}

/// Why it cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    /// The stream is not what it should be.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A row of a table that was not described.
    #[error("the replication stream has a row of the table {0}, which it did not describe")]
    Undescribed(u32),
    /// The table changed, and the mapping does not fit it any more.
    #[error("{0}; to mend it: change the mapping or the table, and start again: nothing is confirmed before")]
    Unbound(#[from] Unbound),
    /// A table of the mapping has another name now.
    #[error(
        "the table {from} is called {to} now, which the mapping does not have; to mend it: write {to} in the mapping, or give the table its \
         old name back, and start again: nothing is confirmed before"
    )]
    Renamed {
        /// Its name in the mapping.
        from: String,
        /// Its name now.
        to: String,
    },
    /// The outbox lacks a column.
    #[error(
        "the outbox no longer has the column {0}; to mend it: put it back as deploy/postgres/outbox.sql has it"
    )]
    Outbox(&'static str),
}

#[derive(Debug)]
enum Target {
    Table(Box<Bound>),
    Outbox(Outbox),
    Ignored,
}

#[derive(Debug)]
struct Transaction {
    lsn: u64,
    timeline: u32,
    time: String,
    index: u64,
}

/// Where to go on.
#[derive(Debug, Clone, Default)]
pub struct From {
    /// Everything up to here is stored.
    pub place: Place,
    /// What is stored beyond.
    pub stored: HashSet<Place>,
    /// Outbox rows that are stored beyond, by their numbers.
    pub numbers: HashSet<u64>,
}

impl From {
    /// Whether nothing is stored beyond its place.
    #[must_use]
    pub fn is_covered(&self) -> bool {
        self.stored.is_empty() && self.numbers.is_empty()
    }
}

/// The state machine.
#[derive(Debug)]
pub struct Follow {
    mapping: Arc<Mapping>,
    tables: Vec<Arc<Table>>,
    source: String,
    timelines: Timelines,
    from: From,
    catalogue: Catalogue,
    targets: HashMap<u32, Target>,
    transaction: Option<Transaction>,
    left: Left,
    scratch: Vec<u8>,
}

impl Follow {
    /// Begins.
    #[must_use]
    pub fn new(mapping: Arc<Mapping>, timelines: Timelines, from: From) -> Self {
        Self {
            tables: mapping.tables.iter().cloned().map(Arc::new).collect(),
            source: mapping.event_source(),
            mapping,
            timelines,
            from,
            catalogue: Catalogue::default(),
            targets: HashMap::new(),
            transaction: None,
            left: Left::default(),
            scratch: Vec::new(),
        }
    }

    /// Says which tables the database has under the names of the mapping. What was committed before that was looked at may have come
    /// under other names.
    pub fn know(&mut self, catalogue: Catalogue) {
        self.catalogue = catalogue;
    }

    /// What was left out since the last call.
    pub fn left(&mut self) -> Left {
        std::mem::take(&mut self.left)
    }

    /// A transaction begins. `committed`: microseconds since 2000.
    pub fn begin(&mut self, lsn: u64, committed: i64) {
        self.transaction = Some(Transaction {
            lsn,
            timeline: self.timelines.of(lsn),
            time: time(committed),
            index: 0,
        });
    }

    /// It ends.
    pub fn commit(&mut self, lsn: u64, end: u64) -> Item {
        self.transaction = None;
        Item::Passed {
            place: Place::through(lsn),
            confirm: end,
            caught_up: self.from.is_covered(),
        }
    }

    /// The database has nothing of ours up to `end`; `None` inside a transaction.
    #[must_use]
    pub fn idle(&self, end: u64) -> Option<Item> {
        self.transaction.is_none().then_some(Item::Passed {
            place: Place::default(),
            confirm: end,
            caught_up: self.from.is_covered(),
        })
    }

    /// A message of the plugin; what comes out is put into `items`.
    ///
    /// # Errors
    /// [`Stuck`]: the session has to end, with nothing confirmed of this message.
    pub fn message(&mut self, bytes: Bytes, items: &mut Vec<Item>) -> Result<(), Stuck> {
        match pgoutput::read(bytes)? {
            Message::Relation(relation) => self.describe(&relation)?,
            Message::Insert { relation, row } => self.row(relation, Op::Insert, Some(row), None, items)?,
            Message::Update {
                relation,
                before,
                row,
            } => self.row(relation, Op::Update, Some(row), before, items)?,
            Message::Delete { relation, before } => {
                self.row(relation, Op::Delete, None, Some(before), items)?
            }
            Message::Truncate { relations } => {
                for relation in relations {
                    self.row(relation, Op::Truncate, None, None, items)?;
                }
            }
            Message::Other => {}
        }
        Ok(())
    }

    fn describe(&mut self, relation: &Relation) -> Result<(), Stuck> {
        let target = match self.bind(&relation.schema, &relation.name, relation)? {
            Target::Ignored => self.renamed(relation)?,
            target => target,
        };
        self.targets.insert(relation.oid, target);
        Ok(())
    }

    /// What the mapping has under a name.
    fn bind(&self, schema: &str, name: &str, relation: &Relation) -> Result<Target, Stuck> {
        let table = self
            .tables
            .iter()
            .find(|table| table.name.schema == schema && table.name.table == name);
        if let Some(table) = table {
            let bound = Bound::new(Arc::clone(table), relation)?;
            if !bound.missing().is_empty() {
                let (table, missing) = (&table.name, bound.missing().join(", "));
                tracing::warn!(%table, missing, "the table {table} no longer has {missing}; its events come without");
            }
            return Ok(Target::Table(Box::new(bound)));
        }
        match &self.mapping.outbox {
            Some(outbox) if outbox.schema == schema && outbox.table == name => {
                Ok(Target::Outbox(Outbox::new(relation).map_err(Stuck::Outbox)?))
            }
            _ => Ok(Target::Ignored),
        }
    }

    /// What a table is whose name the mapping does not have.
    ///
    /// The log tells each change under the name of its time, so what was committed before the catalogue was looked at goes by the
    /// catalogue: a table that has its name of the mapping by now is followed. One that is followed and then loses its name ends the
    /// session: only the next one's catalogue and mapping say whether it goes on, or another table has taken its place.
    fn renamed(&self, relation: &Relation) -> Result<Target, Stuck> {
        let to = format!("{}.{}", relation.schema, relation.name);
        let mapped = self.catalogue.tables.get(&relation.oid);
        let followed = match self.targets.get(&relation.oid) {
            Some(Target::Table(bound)) => Some(bound.name().to_owned()),
            Some(Target::Outbox(_)) => self.mapping.outbox.as_ref().map(ToString::to_string),
            Some(Target::Ignored) | None => None,
        };
        let transaction = self.transaction.as_ref();
        if transaction.is_some_and(|transaction| transaction.lsn <= self.catalogue.lsn) {
            if let Some((schema, name)) = mapped {
                return self.bind(schema, name, relation);
            }
            if let Some(from) = followed {
                tracing::warn!(
                    from,
                    to,
                    "the table {from} was renamed to {to}, which the mapping does not have; its changes are left out"
                );
            }
            return Ok(Target::Ignored);
        }
        match mapped
            .map(|(schema, name)| format!("{schema}.{name}"))
            .or(followed)
        {
            Some(from) => Err(Stuck::Renamed { from, to }),
            None => Ok(Target::Ignored),
        }
    }

    fn row(
        &mut self,
        relation: u32,
        op: Op,
        row: Option<Row>,
        before: Option<Before>,
        items: &mut Vec<Item>,
    ) -> Result<(), Stuck> {
        let target = self.targets.get(&relation).ok_or(Stuck::Undescribed(relation))?;
        let Some(transaction) = &mut self.transaction else {
            return Err(Malformed::Unknown('?').into());
        };
        let place = Place {
            lsn: transaction.lsn,
            index: transaction.index,
        };
        transaction.index += 1;
        self.scratch.clear();
        let change = Change {
            op,
            row: row.as_ref(),
            before: before.as_ref(),
        };
        let id = event_id(transaction.timeline, place);
        let stamp = Stamp {
            id: &id,
            time: &transaction.time,
            source: &self.source,
        };
        let withdrawn = match target {
            Target::Table(bound) if place >= self.from.place => bound
                .withdraw(&change, &stamp, &mut self.scratch)
                .then(|| line(&self.scratch, place, None)),
            _ => None,
        };
        let repeated = match place.cmp(&self.from.place) {
            Ordering::Less => true,
            // Both events of a change have its place, and perhaps only the withdrawal is stored.
            Ordering::Equal => withdrawn.is_none(),
            Ordering::Greater => !self.from.stored.is_empty() && self.from.stored.remove(&place),
        };
        if repeated {
            self.left.repeated += 1;
            return Ok(());
        }
        let is_withdrawn = withdrawn.is_some();
        items.extend(withdrawn.map(Item::Event));
        self.scratch.clear();
        let line = match target {
            Target::Ignored => None,
            Target::Table(bound) => match bound.write(&change, &stamp, &mut self.scratch) {
                Made::Event => Some(line(&self.scratch, place, None)),
                _ if is_withdrawn => None,
                made => {
                    self.left.count(made);
                    None
                }
            },
            // Rows of an outbox are only ever added; that they are cleaned up later is no event.
            Target::Outbox(outbox) => match row.as_ref().filter(|_| op == Op::Insert) {
                Some(row)
                    if outbox
                        .number(row)
                        .is_some_and(|number| self.from.numbers.remove(&number)) =>
                {
                    self.left.repeated += 1;
                    None
                }
                Some(row) => {
                    outbox.write(row, &self.source, &transaction.time, &mut self.scratch);
                    Some(line(&self.scratch, place, outbox.number(row)))
                }
                None => None,
            },
        };
        items.extend(line.map(Item::Event));
        Ok(())
    }
}

/// An event of a row that was there before: `index` counts them over the whole snapshot at `lsn`.
#[must_use]
pub fn snapshot_id(timeline: u32, lsn: u64, index: u64) -> String {
    format!("{timeline}-{lsn:X}-snapshot-{index}")
}

/// Makes a line of an event's JSON.
#[must_use]
pub fn line(event: &[u8], place: Place, number: Option<u64>) -> Line {
    Line {
        bytes: Bytes::copy_from_slice(&event[..event.len().min(LINE_KEPT_MAX)]),
        original_bytes: event.len(),
        place,
        number,
    }
}

/// A time in microseconds since 2000 as RFC 3339.
fn time(micros: i64) -> String {
    time_of_unix(micros.saturating_add(EPOCH_MICROS))
}

/// A time in microseconds since 1970 as RFC 3339.
#[must_use]
pub fn time_of_unix(micros: i64) -> String {
    Timestamp::from_microsecond(micros)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .to_string()
}

#[cfg(test)]
mod tests;
