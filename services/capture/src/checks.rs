//! Whether a database is as the mapping needs it, and what to run where it is not. Pure: what the catalogue says comes in.

mod facts;

use std::fmt;

use roomcast_access::yaml::At;

pub use facts::{Facts, Found, FoundColumn, Publication, find};

use crate::mapping::{Columns, Mapping, Name, Table, Types};
use crate::outbox;
use crate::sql::{shown, shown_table};

/// Oldest PostgreSQL that is supported: the first that says which columns a publication has.
pub const VERSION_MIN: u32 = 150_000;
/// The first whose standbys keep copies of logical slots.
const FAILOVER_VERSION_MIN: u32 = 170_000;

/// Something that is not as the mapping needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the mapping asks for it; line 0 where no line does.
    pub at: At,
    /// What is wrong.
    pub what: String,
    /// What mends it: SQL to run, or what to do.
    pub run: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at.line > 0 {
            write!(f, "line {}, column {}: ", self.at.line, self.at.column)?;
        }
        write!(f, "{}; to mend it: {}", self.what, self.run)
    }
}

/// Everything that is not as the mapping needs it; empty when capture may begin.
#[must_use]
pub fn judge(mapping: &Mapping, facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut say = |at: At, what: String, run: String| problems.push(Problem { at, what, run });
    if facts.version < VERSION_MIN {
        say(
            At::default(),
            format!("PostgreSQL is {}, this needs 15 or later", facts.version / 10_000),
            "upgrade the database".to_owned(),
        );
        return problems;
    }
    if facts.standby {
        say(
            At::default(),
            "this server is a standby".to_owned(),
            "point ROOMCAST_CAPTURE_DATABASE at the primary".to_owned(),
        );
        return problems;
    }
    if facts.wal_level != "logical" {
        say(
            At::default(),
            format!("wal_level is {}, must be logical", facts.wal_level),
            "ALTER SYSTEM SET wal_level = logical; then restart PostgreSQL".to_owned(),
        );
    }
    if let Some(at) = mapping.failover
        && facts.version < FAILOVER_VERSION_MIN
    {
        say(
            at,
            format!(
                "PostgreSQL is {}, whose standbys keep no copy of a slot: failover needs 17 or later",
                facts.version / 10_000
            ),
            "take `failover` out of the mapping, or upgrade the database".to_owned(),
        );
    }
    let names: Vec<&Name> = names(mapping).collect();
    let Some(publication) = &facts.publication else {
        let tables: Vec<String> = names.iter().map(|name| shown_table(name)).collect();
        say(
            At::default(),
            format!("there is no publication {}", mapping.publication),
            format!(
                "CREATE PUBLICATION {} FOR TABLE {};",
                shown(&mapping.publication),
                tables.join(", ")
            ),
        );
        problems.extend(names.iter().filter_map(|name| absent(name, facts)));
        return problems;
    };
    problems.extend(publishes(mapping, publication));
    for name in names {
        let Some(found) = find(name, facts) else {
            problems.extend(absent(name, facts));
            continue;
        };
        if let Some(problem) = published(mapping, publication, name, found) {
            problems.push(problem);
            continue;
        }
        match mapping.tables.iter().find(|table| table.name == *name) {
            Some(table) => problems.extend(of_table(mapping, table, found, facts)),
            None => problems.extend(of_outbox(mapping, name, found, facts)),
        }
    }
    problems
}

fn names(mapping: &Mapping) -> impl Iterator<Item = &Name> {
    mapping
        .tables
        .iter()
        .map(|table| &table.name)
        .chain(mapping.outbox.as_ref())
}

fn absent(name: &Name, facts: &Facts) -> Option<Problem> {
    if find(name, facts).is_some() {
        return None;
    }
    let wanted = name.to_string();
    let near = roomcast_access::yaml::nearest(&wanted, facts.known.iter().map(String::as_str));
    Some(Problem {
        at: name.at,
        what: format!("there is no table {wanted}"),
        run: match near {
            Some(near) => format!("write {near} in the mapping if that is meant, or create the table"),
            None => "create the table, or leave it out of the mapping".to_owned(),
        },
    })
}

/// What the publication leaves out that a type is mapped for.
fn publishes(mapping: &Mapping, publication: &Publication) -> Option<Problem> {
    let wants =
        |of: fn(&Types) -> &Option<String>| mapping.tables.iter().any(|table| of(&table.types).is_some());
    let lacking: Vec<&str> = [
        (
            "insert",
            wants(|types| &types.insert) || mapping.outbox.is_some(),
            publication.insert,
        ),
        ("update", wants(|types| &types.update), publication.update),
        ("delete", wants(|types| &types.delete), publication.delete),
        ("truncate", wants(|types| &types.truncate), publication.truncate),
    ]
    .into_iter()
    .filter(|(_, wanted, has)| *wanted && !has)
    .map(|(name, _, _)| name)
    .collect();
    (!lacking.is_empty()).then(|| Problem {
        at: At::default(),
        what: format!(
            "the publication {} does not publish {}",
            mapping.publication,
            lacking.join(", ")
        ),
        run: format!(
            "ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate');",
            shown(&mapping.publication)
        ),
    })
}

fn published(mapping: &Mapping, publication: &Publication, name: &Name, found: &Found) -> Option<Problem> {
    let of = shown(&mapping.publication);
    if found.partitioned && !publication.via_root {
        return Some(Problem {
            at: name.at,
            what: format!("{name} is partitioned, and its changes come under the names of its partitions"),
            run: format!("ALTER PUBLICATION {of} SET (publish_via_partition_root = true);"),
        });
    }
    (!found.published).then(|| Problem {
        at: name.at,
        what: format!("{name} is not in the publication {}", mapping.publication),
        run: format!("ALTER PUBLICATION {of} ADD TABLE {};", shown_table(name)),
    })
}

fn of_table(mapping: &Mapping, table: &Table, found: &Found, facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    let listed = |columns: &Columns| match columns {
        Columns::All => Vec::new(),
        Columns::These(list) => list
            .iter()
            .map(|named| (named.name.clone(), named.at))
            .collect::<Vec<_>>(),
    };
    let needed = table.needed().map(|(name, at)| (name.to_owned(), at));
    let mut named: Vec<(String, At)> = listed(&table.columns);
    named.extend(listed(&table.old));
    named.extend(needed);
    named.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.cmp(&b.1)));
    named.dedup_by(|a, b| a.0 == b.0);
    named.sort_by_key(|(_, at)| *at);
    for (column, at) in &named {
        problems.extend(of_column(mapping, table, found, column, *at));
    }
    if !problems.is_empty() {
        return problems;
    }
    problems.extend(identity(table, found));
    if table.types.snapshot.is_some() && found.row_security {
        problems.push(hidden(&table.name, "has a snapshot", facts));
    }
    if table.types.snapshot.is_some() && !found.readable {
        problems.push(Problem {
            at: table.name.at,
            what: format!("{} may not read {}, which has a snapshot", facts.user, table.name),
            run: format!(
                "GRANT SELECT ON {} TO {};",
                shown_table(&table.name),
                shown(&facts.user)
            ),
        });
    }
    problems
}

fn of_column(mapping: &Mapping, table: &Table, found: &Found, column: &str, at: At) -> Option<Problem> {
    match found.columns.iter().find(|known| known.name == column) {
        Some(known) if known.published => None,
        Some(_) => {
            let mut all: Vec<String> = found
                .columns
                .iter()
                .filter(|known| known.published)
                .map(|known| shown(&known.name))
                .collect();
            all.push(shown(column));
            Some(Problem {
                at,
                what: format!(
                    "the publication {} leaves the column {column} of {} out",
                    mapping.publication, table.name
                ),
                // SET TABLE would take every other table out.
                run: format!(
                    "ALTER PUBLICATION {of} DROP TABLE {name}; ALTER PUBLICATION {of} ADD TABLE {name} ({});",
                    all.join(", "),
                    of = shown(&mapping.publication),
                    name = shown_table(&table.name),
                ),
            })
        }
        None => {
            let known = found.columns.iter().map(|known| known.name.as_str());
            let near = roomcast_access::yaml::nearest(column, known);
            Some(Problem {
                at,
                what: format!("{} has no column {column}", table.name),
                run: match near {
                    Some(near) => format!("write {near} in the mapping if that is meant"),
                    None => format!(
                        "add the column, or leave it out of the mapping; there are {}",
                        found
                            .columns
                            .iter()
                            .map(|known| known.name.as_str())
                            .collect::<Vec<_>>()
                            .join(", ")
                    ),
                },
            })
        }
    }
}

/// Whether the database sends of old rows what events of them need.
fn identity(table: &Table, found: &Found) -> Option<Problem> {
    if found.identity_full {
        return None;
    }
    let in_key = |name: &str| {
        found
            .columns
            .iter()
            .any(|column| column.name == name && column.key)
    };
    let full = |at: At, what: String| {
        Some(Problem {
            at,
            what,
            run: format!("ALTER TABLE {} REPLICA IDENTITY FULL;", shown_table(&table.name)),
        })
    };
    let has_key = found.columns.iter().any(|column| column.key);
    if (table.types.update.is_some() || table.types.delete.is_some()) && !has_key {
        return full(
            table.name.at,
            format!(
                "{} has no replica identity, so PostgreSQL refuses to change its rows while it is published (a primary key would do as well)",
                table.name
            ),
        );
    }
    if table.types.update.is_some() {
        match table.needed_of_old() {
            None => return full(table.name.at, format!("{} does not send old rows", table.name)),
            Some(list) => {
                if let Some((name, at)) = list.into_iter().find(|(name, _)| !in_key(name)) {
                    return full(
                        at,
                        format!("{} does not send the old value of {name}", table.name),
                    );
                }
            }
        }
    }
    // By these an update is known to move a row, and the value that it had is withdrawn.
    if table.types.update.is_some()
        && !table.state.is_empty()
        && let Some((name, at)) = table.needed_of_deleted().find(|(name, _)| !in_key(name))
    {
        return full(
            at,
            format!(
                "{} does not send the old value of {name}, so the `state` of a row that moves could not be withdrawn",
                table.name
            ),
        );
    }
    if table.types.delete.is_some()
        && let Some((name, at)) = table.needed_of_deleted().find(|(name, _)| !in_key(name))
    {
        return full(
            at,
            format!("{} does not send {name} of rows that are deleted", table.name),
        );
    }
    None
}

fn of_outbox(mapping: &Mapping, name: &Name, found: &Found, facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    for column in outbox::NEEDED {
        let there = found
            .columns
            .iter()
            .any(|known| known.name == column && known.published);
        if !there {
            problems.push(Problem {
                at: name.at,
                what: format!(
                    "the outbox {name} has no column {column} in the publication {}",
                    mapping.publication
                ),
                run: "create it as deploy/postgres/outbox.sql has it".to_owned(),
            });
        }
    }
    if !found.readable {
        problems.push(Problem {
            at: name.at,
            what: format!(
                "{} may not read the outbox {name}, which is read again when a slot is lost",
                facts.user
            ),
            run: format!("GRANT SELECT ON {} TO {};", shown_table(name), shown(&facts.user)),
        });
    }
    if found.row_security {
        problems.push(hidden(name, "is read again when a slot is lost", facts));
    }
    problems
}

/// A table whose rows the user sees only in part, while the stream has them all.
fn hidden(name: &Name, why_read: &str, facts: &Facts) -> Problem {
    Problem {
        at: name.at,
        what: format!(
            "row-level security hides rows of {name}, which {why_read}, from {}",
            facts.user
        ),
        run: format!("ALTER ROLE {} BYPASSRLS;", shown(&facts.user)),
    }
}

/// What a database's own error means, and what to run; `None` where its text has to do.
#[must_use]
pub fn explain(error: &str, user: &str, database: &str) -> Option<String> {
    let user = shown(user);
    let has = |text: &str| error.contains(text);
    if has("permission denied to start WAL sender")
        || has("permission denied to use replication slots")
        || has("must be superuser or replication role")
        || has("permission denied to create replication slot")
    {
        return Some(format!(
            "{user} has no right to replicate; to mend it: ALTER ROLE {user} REPLICATION;"
        ));
    }
    if has("row-level security policy") {
        return Some(format!(
            "row-level security hides rows from {user}; to mend it: ALTER ROLE {user} BYPASSRLS;"
        ));
    }
    if has("wal_level") {
        return Some(
            "wal_level is not logical; to mend it: ALTER SYSTEM SET wal_level = logical; then restart PostgreSQL".to_owned(),
        );
    }
    if has("all replication slots are in use") {
        return Some(
            "every replication slot is taken; to mend it: drop one that nobody uses, SELECT pg_drop_replication_slot(slot_name) FROM \
             pg_replication_slots WHERE NOT active, or raise max_replication_slots and restart PostgreSQL"
                .to_owned(),
        );
    }
    if has("max_wal_senders") {
        return Some(
            "every WAL sender is taken; to mend it: raise max_wal_senders and restart PostgreSQL".to_owned(),
        );
    }
    if has("no pg_hba.conf entry") {
        return Some(format!(
            "the server lets {user} not in from here; to mend it: add a line to pg_hba.conf such as \
             `host {database} {user} <our address>/32 scram-sha-256`, then SELECT pg_reload_conf();"
        ));
    }
    if has("password authentication failed") || (has("role") && has("does not exist")) {
        return Some(format!(
            "the server does not take this user and password; to mend it: CREATE ROLE {user} LOGIN REPLICATION PASSWORD '…'; or ALTER ROLE \
             {user} PASSWORD '…';"
        ));
    }
    if has("database") && has("does not exist") {
        return Some(format!(
            "there is no database {database}; mend ROOMCAST_CAPTURE_DATABASE"
        ));
    }
    None
}

#[cfg(test)]
mod tests;
