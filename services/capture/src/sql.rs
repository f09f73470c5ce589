//! Names and texts as SQL takes them.

use crate::mapping::Name;

/// Words that are no names unless quoted: what PostgreSQL 17's `pg_get_keywords()` has under `R` and `T`. In order.
const RESERVED: [&str; 101] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

/// A name for SQL that we run: always in quotes, so that no word of a later PostgreSQL is taken for another thing than the name. Without
/// them a column called `user` reads as who is connected.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table for SQL that we run.
#[must_use]
pub fn quoted_table(name: &Name) -> String {
    format!("{}.{}", quoted(&name.schema), quoted(&name.table))
}

/// A name for SQL that an operator reads and runs: in quotes only where it must be.
#[must_use]
pub fn shown(name: &str) -> String {
    let plain = name.bytes().enumerate().all(|(index, byte)| {
        byte.is_ascii_lowercase() || byte == b'_' || (index > 0 && byte.is_ascii_digit())
    });
    if plain && !name.is_empty() && RESERVED.binary_search(&name).is_err() {
        name.to_owned()
    } else {
        quoted(name)
    }
}

/// A table for SQL that an operator reads and runs.
#[must_use]
pub fn shown_table(name: &Name) -> String {
    format!("{}.{}", shown(&name.schema), shown(&name.table))
}

/// A text.
#[must_use]
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_they_must_be() {
        assert!(RESERVED.is_sorted());
        for (name, to_run, to_read) in [
            ("tickets", "\"tickets\"", "tickets"),
            ("t2", "\"t2\"", "t2"),
            ("2t", "\"2t\"", "\"2t\""),
            ("Tickets", "\"Tickets\"", "\"Tickets\""),
            ("a\"b", "\"a\"\"b\"", "\"a\"\"b\""),
            ("", "\"\"", "\"\""),
            ("user", "\"user\"", "\"user\""),
            ("left", "\"left\"", "\"left\""),
            ("users", "\"users\"", "users"),
            ("name", "\"name\"", "name"),
        ] {
            assert_eq!((quoted(name).as_str(), shown(name).as_str()), (to_run, to_read));
        }
        assert_eq!(literal("it's"), "'it''s'");
    }
}
