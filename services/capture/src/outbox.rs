//! Rows that are events themselves: the table an application writes in the same transaction as its own.
//!
//! Each row has a number of the database's, and the event's id is made of it; so it is the same whichever way the row is read, from the
//! stream or, after a slot was lost, from the table.

use crate::pgoutput::{Cell, Relation, Row};
use crate::value::{Type, write_text};

/// Columns an outbox must have.
pub const NEEDED: [&str; 4] = ["id", "type", "room", "data"];
/// Columns it may have, which become the attributes of the same name.
const OPTIONAL: [&str; 5] = ["audience", "subject", "priority", "delivery", "traceparent"];

/// The outbox as the stream describes it now.
#[derive(Debug)]
pub struct Outbox {
    id: usize,
    data: (usize, Type),
    time: Option<(usize, Type)>,
    attributes: Vec<(&'static str, usize)>,
}

impl Outbox {
    /// Finds the columns.
    ///
    /// # Errors
    /// The first column it lacks.
    pub fn new(relation: &Relation) -> Result<Self, &'static str> {
        let find = |name: &str| relation.columns.iter().position(|column| column.name == name);
        if let Some(missing) = NEEDED.into_iter().find(|name| find(name).is_none()) {
            return Err(missing);
        }
        let place = |name: &str| find(name).unwrap_or_default();
        let typed = |index: usize| (index, Type::of(relation.columns[index].type_oid));
        let attributes = ["type", "room"].into_iter().chain(OPTIONAL);
        Ok(Self {
            id: place("id"),
            data: typed(place("data")),
            time: find("created_at").map(typed),
            attributes: attributes.filter_map(|name| Some((name, find(name)?))).collect(),
        })
    }

    /// The row's number, if it has one.
    #[must_use]
    pub fn number(&self, row: &Row) -> Option<u64> {
        text(row, self.id)?.parse().ok()
    }

    /// Writes the event. `committed`: its time where the row has none, RFC 3339.
    pub fn write(&self, row: &Row, source: &str, committed: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"specversion\":\"1.0\",\"id\":");
        write_text(&format!("outbox-{}", text(row, self.id).unwrap_or_default()), out);
        out.extend_from_slice(b",\"source\":");
        write_text(source, out);
        out.extend_from_slice(b",\"time\":");
        match self
            .time
            .and_then(|(index, kind)| Some((text(row, index)?, kind)))
        {
            Some((time, kind)) => kind.write(time, out),
            None => write_text(committed, out),
        }
        for (name, index) in &self.attributes {
            if let Some(value) = text(row, *index) {
                out.extend_from_slice(b",\"");
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b"\":");
                write_text(value, out);
            }
        }
        if let Some(data) = text(row, self.data.0) {
            out.extend_from_slice(b",\"data\":");
            self.data.1.write(data, out);
        }
        out.push(b'}');
    }
}

fn text(row: &Row, index: usize) -> Option<&str> {
    match row.get(index)? {
        Cell::Text(text) => Some(text.as_str()),
        Cell::Null | Cell::Unchanged => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pgoutput::Column;
    use crate::pgoutput::tests::text as cell;

    fn relation(columns: &[(&str, u32)]) -> Relation {
        let columns = columns.iter().map(|(name, type_oid)| Column {
            name: (*name).to_owned(),
            type_oid: *type_oid,
            key: *name == "id",
        });
        Relation {
            oid: 1,
            schema: "public".to_owned(),
            name: "outbox".to_owned(),
            columns: columns.collect(),
        }
    }

    #[test]
    fn a_row_is_an_event() {
        let outbox = Outbox::new(&relation(&[
            ("id", 20),
            ("type", 25),
            ("room", 25),
            ("audience", 25),
            ("data", 3802),
            ("priority", 25),
            ("traceparent", 25),
            ("created_at", 1184),
        ]))
        .unwrap();
        let row = vec![
            cell("17"),
            cell("order:placed"),
            cell("orders"),
            cell("staff"),
            cell(r#"{"id": 5, "total": 1.50}"#),
            Cell::Null,
            cell("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            cell("2026-11-21 17:00:00.25+00"),
        ];
        assert_eq!(outbox.number(&row), Some(17));
        let mut out = Vec::new();
        outbox.write(&row, "postgres/shop", "2026-11-21T17:00:01Z", &mut out);
        let event: Value = serde_json::from_slice(&out).unwrap();
        let expected = json!({
            "specversion": "1.0", "id": "outbox-17", "source": "postgres/shop", "time": "2026-11-21T17:00:00.25Z",
            "type": "order:placed", "room": "orders", "audience": "staff",
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "data": { "id": 5, "total": 1.50 },
        });
        assert_eq!(event, expected);
    }

    #[test]
    fn a_column_that_is_missing_is_named() {
        let lacking = Outbox::new(&relation(&[("id", 20), ("type", 25), ("data", 3802)]));
        assert_eq!(lacking.unwrap_err(), "room");
    }
}
