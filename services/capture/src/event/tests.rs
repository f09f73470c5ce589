use serde_json::{Value, json};

use super::*;
use crate::mapping::Mapping;
use crate::pgoutput::Column;
use crate::pgoutput::tests::text;

const MAPPING: &str = r#"version: 1
source: shop
tables:
  - table: tickets
    room: "shop.{shop}"
    audience: staff
    types: { insert: t:new, update: t:changed, delete: t:gone, snapshot: t:there }
    columns: [id, status, total, body]
    old: [status]
    where: data.row.internal == false
    fields:
      open: data.op != "delete" && data.row.status != "done"
      was: data.old.status
      size: "data.row.total > 99.5 ? 'large' : 'small'"
      ticket: data.row.id
      kind: type
  - table: prices
    room: prices
    audience: all
    types: { insert: price, update: price, delete: price, truncate: prices:none }
    columns: all
"#;

fn table(index: usize) -> Arc<Table> {
    let mapping = Mapping::parse(MAPPING, "m.yaml", None).unwrap();
    Arc::new(mapping.tables[index].clone())
}

fn relation(columns: &[(&str, u32, bool)]) -> Relation {
    let columns = columns.iter().map(|(name, type_oid, key)| Column {
        name: (*name).to_owned(),
        type_oid: *type_oid,
        key: *key,
    });
    Relation {
        oid: 1,
        schema: "public".to_owned(),
        name: "tickets".to_owned(),
        columns: columns.collect(),
    }
}

fn tickets() -> Relation {
    relation(&[
        ("id", 20, true),
        ("status", 25, false),
        ("shop", 23, false),
        ("internal", 16, false),
        ("total", 1700, false),
        ("body", 25, false),
    ])
}

fn row(cells: &[&str]) -> Row {
    let cell = |value: &&str| match *value {
        "NULL" => Cell::Null,
        "UNCHANGED" => Cell::Unchanged,
        other => text(other),
    };
    cells.iter().map(cell).collect()
}

const STAMP: Stamp<'_> = Stamp {
    id: "1-0-1",
    time: "2026-11-21T17:00:00Z",
    source: "postgres/shop",
};

fn written(bound: &Bound, change: Change<'_>) -> Result<Value, Made> {
    let mut out = Vec::new();
    match bound.write(&change, &STAMP, &mut out) {
        Made::Event => Ok(serde_json::from_slice(&out).unwrap()),
        other => {
            assert!(out.is_empty());
            Err(other)
        }
    }
}

fn check(op: Op, now: Option<&[&str]>, before: Option<Before>, expected: Result<Value, Made>) {
    let bound = Bound::new(table(0), &tickets()).unwrap();
    let now = now.map(row);
    let change = Change {
        op,
        row: now.as_ref(),
        before: before.as_ref(),
    };
    assert_eq!(
        written(&bound, change).map(|event| event["data"].clone()),
        expected
    );
}

#[test]
fn an_insert_keeps_the_columns_that_are_named() {
    let bound = Bound::new(table(0), &tickets()).unwrap();
    let now = row(&["7", "new", "42", "f", "100.00", "NULL"]);
    let change = Change {
        op: Op::Insert,
        row: Some(&now),
        before: None,
    };
    let expected = json!({
        "specversion": "1.0", "id": "1-0-1", "source": "postgres/shop", "type": "t:new", "time": "2026-11-21T17:00:00Z",
        "room": "shop.42", "audience": "staff",
        "data": {
            "op": "insert", "table": "public.tickets",
            "row": { "id": 7, "status": "new", "total": "100.00", "body": null },
            "open": true, "size": "large", "ticket": 7, "kind": "t:new",
        },
    });
    assert_eq!(written(&bound, change), Ok(expected));
}

#[test]
fn updates_say_what_was_and_what_is_not_known() {
    let full = || Some(Before::Full(row(&["7", "new", "42", "f", "5", "long"])));
    let row = |unchanged: bool| {
        if unchanged {
            json!({ "id": 7, "status": "done", "total": "5" })
        } else {
            json!({ "id": 7, "status": "done", "total": "5", "body": "long" })
        }
    };
    let now: &[&str] = &["7", "done", "42", "f", "5", "UNCHANGED"];
    check(
        Op::Update,
        Some(now),
        full(),
        Ok(json!({
            "op": "update", "table": "public.tickets", "row": row(false), "old": { "status": "new" },
            "open": false, "was": "new", "size": "small", "ticket": 7, "kind": "t:changed",
        })),
    );
    // Without the old row the database does not say the large value: it is named instead.
    check(
        Op::Update,
        Some(now),
        None,
        Ok(json!({
            "op": "update", "table": "public.tickets", "row": row(true), "unchanged": ["body"],
            "open": false, "size": "small", "ticket": 7, "kind": "t:changed",
        })),
    );
}

#[test]
fn a_row_that_is_gone_is_what_it_was() {
    check(
        Op::Delete,
        None,
        Some(Before::Full(row(&["7", "new", "42", "f", "5", "NULL"]))),
        Ok(json!({
            "op": "delete", "table": "public.tickets", "row": { "id": 7, "status": "new", "total": "5", "body": null },
            "open": false, "was": "new", "size": "small", "ticket": 7, "kind": "t:gone",
        })),
    );
    // Of the other columns the key says nothing, so the condition cannot be decided: nothing is published.
    check(
        Op::Delete,
        None,
        Some(Before::Key(row(&["7", "NULL", "NULL", "NULL", "NULL", "NULL"]))),
        Err(Made::Undecided),
    );
}

#[test]
fn what_is_not_mapped_or_filtered_makes_nothing() {
    check(Op::Truncate, None, None, Err(Made::NotMapped));
    check(
        Op::Insert,
        Some(&["7", "new", "42", "t", "5", "x"]),
        None,
        Err(Made::Filtered),
    );
    check(
        Op::Insert,
        Some(&["7", "new", "42", "NULL", "5", "x"]),
        None,
        Err(Made::Filtered),
    );
}

#[test]
fn an_emptied_table_has_no_row() {
    let bound = Bound::new(table(1), &relation(&[("id", 23, true)])).unwrap();
    let change = Change {
        op: Op::Truncate,
        row: None,
        before: None,
    };
    let data = json!({ "op": "truncate", "table": "public.prices" });
    assert_eq!(written(&bound, change).unwrap()["data"], data);
}

#[test]
fn state_is_withdrawn_when_the_row_is_gone() {
    let mut state = (*table(1)).clone();
    state.state = vec![crate::mapping::Named {
        name: "id".to_owned(),
        at: state.name.at,
    }];
    let bound = Bound::new(
        Arc::new(state),
        &relation(&[("id", 23, true), ("price", 1700, false)]),
    )
    .unwrap();
    let (now, gone) = (row(&["5", "9.90"]), Before::Key(row(&["5", "NULL"])));
    let put = written(
        &bound,
        Change {
            op: Op::Insert,
            row: Some(&now),
            before: None,
        },
    )
    .unwrap();
    assert_eq!(
        (&put["delivery"], &put["statekey"], &put["data"]["row"]),
        (&json!("state"), &json!("5"), &json!({ "id": 5, "price": "9.90" }))
    );
    let withdrawn = written(
        &bound,
        Change {
            op: Op::Delete,
            row: None,
            before: Some(&gone),
        },
    )
    .unwrap();
    assert_eq!(
        (
            &withdrawn["withdrawn"],
            &withdrawn["statekey"],
            withdrawn.get("data")
        ),
        (&json!(true), &json!("5"), None)
    );
}

#[test]
fn changes_of_the_definition() {
    // A column that is only kept may go; a new one changes nothing; one that is needed may not go.
    let mut fewer = tickets();
    fewer.columns.remove(5);
    fewer.columns.insert(
        0,
        Column {
            name: "added".to_owned(),
            type_oid: 25,
            key: false,
        },
    );
    let bound = Bound::new(table(0), &fewer).unwrap();
    assert_eq!(bound.missing(), ["body"]);
    let now = row(&["x", "7", "new", "42", "f", "5"]);
    let change = Change {
        op: Op::Insert,
        row: Some(&now),
        before: None,
    };
    let event = written(&bound, change).unwrap();
    assert_eq!(
        event["data"]["row"],
        json!({ "id": 7, "status": "new", "total": "5" })
    );
    fewer
        .columns
        .retain(|column| column.name != "shop" && column.name != "internal");
    let unbound = Bound::new(table(0), &fewer).unwrap_err();
    assert_eq!(unbound.columns, ["shop", "internal"]);
}

/// What an update of a row with state makes: the withdrawal as `type room key`, and the event as `room key` or why there is none.
#[track_caller]
fn check_moved(
    more: &str,
    before: Option<Before>,
    now: &[&str],
    expected: (Option<&str>, Result<&str, Made>),
) {
    let text = format!(
        "version: 1\nsource: shop\ntables:\n  - table: prices\n    room: \"shop.{{shop}}\"\n    audience: all\n    columns: all\n    \
         state: [id]\n{more}"
    );
    let mapping = Mapping::parse(&text, "m.yaml", None).unwrap();
    let relation = relation(&[
        ("id", 23, true),
        ("shop", 23, false),
        ("active", 16, false),
        ("name", 25, false),
    ]);
    let bound = Bound::new(Arc::new(mapping.tables[0].clone()), &relation).unwrap();
    let now = row(now);
    let change = Change {
        op: Op::Update,
        row: Some(&now),
        before: before.as_ref(),
    };
    let mut out = Vec::new();
    let withdrawn = bound.withdraw(&change, &STAMP, &mut out).then(|| {
        let event: Value = serde_json::from_slice(&out).unwrap();
        let members: Vec<&str> = event.as_object().unwrap().keys().map(String::as_str).collect();
        let all = "audience delivery id room source specversion statekey time type withdrawn";
        assert_eq!(members.join(" "), all, "no data leaves with it");
        assert_eq!(
            (&event["id"], &event["withdrawn"], &event["delivery"]),
            (&json!("1-0-1-withdrawn"), &json!(true), &json!("state"))
        );
        let of = |name: &str| event[name].as_str().unwrap().to_owned();
        format!("{} {} {}", of("type"), of("room"), of("statekey"))
    });
    assert_eq!(out.is_empty(), withdrawn.is_none());
    let made = written(&bound, change).map(|event| {
        assert_eq!((&event["id"], event.get("withdrawn")), (&json!("1-0-1"), None));
        format!(
            "{} {}",
            event["room"].as_str().unwrap(),
            event["statekey"].as_str().unwrap()
        )
    });
    let made = made.as_deref().map_err(|made| *made);
    assert_eq!((withdrawn.as_deref(), made), expected);
}

#[test]
fn state_is_withdrawn_from_where_a_row_was() {
    const ALL: &str = "    types: { insert: p:new, update: p:changed, delete: p:gone }\n";
    const KEPT: &str = "    types: { insert: p:new, update: p:changed }\n";
    let full = |cells: &[&str]| Some(Before::Full(row(cells)));
    let was = || full(&["5", "42", "t", "a"]);
    // It stays where it is, whatever else changes.
    check_moved(ALL, was(), &["5", "42", "f", "b"], (None, Ok("shop.42 5")));
    check_moved(ALL, None, &["5", "42", "f", "b"], (None, Ok("shop.42 5")));
    // Another key, another room, both.
    let gone = |place: &'static str| Some(place);
    check_moved(
        ALL,
        was(),
        &["6", "42", "t", "a"],
        (gone("p:gone shop.42 5"), Ok("shop.42 6")),
    );
    check_moved(
        ALL,
        was(),
        &["5", "43", "t", "a"],
        (gone("p:gone shop.42 5"), Ok("shop.43 5")),
    );
    check_moved(
        ALL,
        was(),
        &["6", "43", "t", "a"],
        (gone("p:gone shop.42 5"), Ok("shop.43 6")),
    );
    // Without a type for deleted rows it has that of the update.
    check_moved(
        KEPT,
        was(),
        &["6", "42", "t", "a"],
        (gone("p:changed shop.42 5"), Ok("shop.42 6")),
    );
    // Only the key is sent, and only where it changes; the room is taken as unchanged.
    let key = Some(Before::Key(row(&["5", "NULL", "NULL", "NULL"])));
    check_moved(
        ALL,
        key,
        &["6", "42", "t", "a"],
        (gone("p:gone shop.42 5"), Ok("shop.42 6")),
    );
    // In a room without a name nothing was ever stored.
    let nowhere = full(&["5", "NULL", "t", "a"]);
    check_moved(ALL, nowhere, &["5", "42", "t", "a"], (None, Ok("shop.42 5")));
    check_moved(
        ALL,
        was(),
        &["5", "NULL", "t", "a"],
        (gone("p:gone shop.42 5"), Ok("shop. 5")),
    );
    // Updates that are not mapped change nothing.
    let inserts = "    types: { insert: p:new, delete: p:gone }\n";
    check_moved(
        inserts,
        was(),
        &["6", "42", "t", "a"],
        (None, Err(Made::NotMapped)),
    );
}

#[test]
fn state_is_withdrawn_when_where_no_longer_holds() {
    let only = |condition: &str| {
        format!("    types: {{ insert: p, update: p, delete: p }}\n    where: {condition}\n")
    };
    let (active, full) = (only("data.row.active"), |cells: &[&str]| {
        Some(Before::Full(row(cells)))
    });
    let (was, was_not) = (|| full(&["5", "42", "t", "a"]), || full(&["5", "42", "f", "a"]));
    let gone = Some("p shop.42 5");
    check_moved(
        &active,
        was(),
        &["5", "42", "f", "a"],
        (gone, Err(Made::Filtered)),
    );
    check_moved(
        &active,
        was(),
        &["5", "43", "f", "a"],
        (gone, Err(Made::Filtered)),
    );
    check_moved(&active, was(), &["5", "43", "t", "a"], (gone, Ok("shop.43 5")));
    // It was not there.
    check_moved(
        &active,
        was_not(),
        &["5", "42", "f", "b"],
        (None, Err(Made::Filtered)),
    );
    check_moved(
        &active,
        was_not(),
        &["6", "43", "t", "a"],
        (None, Ok("shop.43 6")),
    );
    // Cannot be decided any more; or never could.
    let above = only("data.row.name > 'b'");
    let (high, none) = (
        || full(&["5", "42", "t", "c"]),
        || full(&["5", "42", "t", "NULL"]),
    );
    check_moved(
        &above,
        high(),
        &["5", "42", "t", "NULL"],
        (gone, Err(Made::Undecided)),
    );
    check_moved(
        &above,
        none(),
        &["5", "42", "f", "NULL"],
        (None, Err(Made::Undecided)),
    );
    // The database did not say what it was: perhaps it was there.
    check_moved(&active, None, &["5", "42", "f", "a"], (gone, Err(Made::Filtered)));
    check_moved(&active, None, &["5", "42", "t", "a"], (None, Ok("shop.42 5")));
    check_moved(
        &only("data.row.id == 5"),
        None,
        &["6", "42", "t", "a"],
        (None, Err(Made::Filtered)),
    );
    // A condition on the change alone says nothing about where the row was.
    check_moved(
        &only("data.op == 'insert'"),
        was(),
        &["5", "42", "f", "b"],
        (None, Err(Made::Filtered)),
    );
    let renamed = only("data.old.name != data.row.name");
    check_moved(
        &renamed,
        was(),
        &["5", "42", "f", "a"],
        (None, Err(Made::Filtered)),
    );
}

/// A field that names a column has the value that the column has in the row.
#[test]
fn a_number_is_computed_as_it_stands_in_the_row() {
    let text = "version: 1\nsource: shop\ntables:\n  - { table: t, room: r, audience: all, types: { insert: t }, columns: [v], fields: { v2: \
                data.row.v, one: \"data.row.v == 1 ? data.row.v : data.row.v\" } }\n";
    let mapping = Mapping::parse(text, "m.yaml", None).unwrap();
    for (oid, cell, expected) in [
        (20, "5", json!(5)),
        (20, "-5", json!(-5)),
        (20, "9007199254740991", json!(9_007_199_254_740_991_u64)),
        (20, "-9007199254740992", json!("-9007199254740992")),
        (701, "1.5", json!(1.5)),
        (701, "NaN", json!("NaN")),
        (1700, "5", json!("5")),
        (1700, "-5.00", json!("-5.00")),
    ] {
        let bound = Bound::new(
            Arc::new(mapping.tables[0].clone()),
            &relation(&[("v", oid, true)]),
        )
        .unwrap();
        let now = row(&[cell]);
        let change = Change {
            op: Op::Insert,
            row: Some(&now),
            before: None,
        };
        let data = written(&bound, change).unwrap()["data"].take();
        let found = [&data["row"]["v"], &data["v2"], &data["one"]];
        assert_eq!(found, [&expected; 3], "{oid} {cell}");
    }
}
