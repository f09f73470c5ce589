use super::*;

const GOOD: &str = r#"version: 1
source: shop
slot_lost: snapshot
outbox: roomcast_outbox
tables:
  - table: tickets
    room: tickets
    audience: staff
    types: { insert: ticket:created, update: ticket:changed, delete: ticket:deleted, snapshot: ticket:present }
    columns: [id, status, title]
    old: [status]
    where: data.row.internal == false
    fields:
      open: data.op != "delete" && data.row.status != "done"
      moved: "data.row.status == data.old.status ? 'no' : 'yes'"
  - table: sales.orders
    room: "shop.{shop_id}"
    audience: all
    types: { insert: order:placed }
    columns: all
    state: [id]
    priority: high
"#;

fn policy() -> Policy {
    let text = "version: 1\nroles:\n  staff: { permissions: [see] }\nrooms:\n  - { room: tickets, subscribe: see }\n  \
                - { room: 'shop.{shop}', subscribe: see }\n";
    Policy::parse(text, "policy.yaml").unwrap()
}

#[test]
fn a_good_file_is_understood() {
    let mapping = Mapping::parse(GOOD, "capture.yaml", Some(&policy())).unwrap();
    assert_eq!(
        (mapping.slot.as_str(), mapping.publication.as_str()),
        ("roomcast", "roomcast")
    );
    assert_eq!(mapping.event_source(), "postgres/shop");
    assert_eq!(
        mapping.outbox.as_ref().unwrap().to_string(),
        "public.roomcast_outbox"
    );
    assert_eq!(mapping.snapshots().count(), 1);
    let [tickets, orders] = mapping.tables.as_slice() else {
        panic!("two tables");
    };
    assert_eq!(tickets.name.to_string(), "public.tickets");
    let needed: Vec<&str> = tickets.needed().map(|(name, _)| name).collect();
    assert_eq!(needed, ["internal", "status", "status"]);
    let of_old = tickets.needed_of_old().unwrap();
    assert_eq!(
        of_old.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        ["status", "status"]
    );
    assert_eq!(orders.columns, Columns::All);
    assert_eq!(orders.room.len(), 2);
    assert_eq!(
        orders.needed().map(|(name, _)| name).collect::<Vec<_>>(),
        ["shop_id", "id"]
    );
}

/// The good file with one line replaced: every mistake of it.
#[track_caller]
fn check(line: &str, instead: &str, expected: &[&str]) {
    assert!(GOOD.contains(line), "{line}");
    let text = GOOD.replacen(line, instead, 1);
    let found = match Mapping::parse(&text, "c.yaml", Some(&policy())) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(found.len(), expected.len(), "{instead}: {found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{instead}: {found}");
    }
}

#[test]
fn every_mistake_has_its_place_and_a_suggestion() {
    check("version: 1", "version: 2", &["c.yaml:1:10: expected version 1"]);
    check(
        "source: shop",
        "source: a b",
        &["c.yaml:2:9: \"a b\" is not a name"],
    );
    check("source: shop\n", "", &["c.yaml:1:1: the file needs `source`"]);
    check(
        "slot_lost: snapshot",
        "slot_lost: snapshots",
        &["c.yaml:3:12: slot_lost is stop or snapshot, not \"snapshots\"; did you mean \"snapshot\"?"],
    );
    check(
        "slot_lost: snapshot",
        "failover: yes",
        &["c.yaml:3:11: failover is true or false"],
    );
    check(
        "slot_lost: snapshot",
        "slot: Mine",
        &["c.yaml:3:7: \"Mine\" is not a slot's name"],
    );
    check(
        "slot_lost: snapshot",
        "slots: x",
        &["c.yaml:3:1: unknown key \"slots\" in the file; did you mean \"slot\"?"],
    );
    check(
        "roomcast_outbox",
        "tickets",
        &["c.yaml:4:9: public.tickets is mapped already, in line 6"],
    );
    check(
        "table: tickets",
        "table: a.b.c",
        &["c.yaml:6:12: \"a.b.c\" is not a table"],
    );
    check(
        "room: tickets",
        "room: ticket",
        &["c.yaml:7:11: no entry of the policy makes the room ticket"],
    );
    check(
        "room: tickets",
        "room: 'tickets.{'",
        &["c.yaml:7:11: \"tickets.{\" has a { without"],
    );
    check("room: tickets", "room: a..b", &["c.yaml:7:11: "]);
    check(
        "audience: staff",
        "audience: stafff",
        &["c.yaml:8:15: no role \"stafff\" in the policy; did you mean \"staff\"?"],
    );
    check(
        "insert: ticket:created",
        "inserted: ticket:created",
        &["c.yaml:9:14: unknown key \"inserted\" in `types`; did you mean \"insert\"?"],
    );
    check(
        "{ insert: order:placed }",
        "{}",
        &["c.yaml:19:12: nothing is published"],
    );
    check(
        "{ insert: order:placed }",
        "{ truncate: order:none }",
        &[
            "c.yaml:19:12: an emptied table has no row, so `truncate` needs",
            "c.yaml:19:12: an emptied table has no row, so `truncate` does not go",
        ],
    );
    check(
        "[id, status, title]",
        "[id, id]",
        &["c.yaml:10:19: the column id is listed twice"],
    );
    check(
        "[id, status, title]",
        "some",
        &["c.yaml:10:14: expected a list of columns, found text"],
    );
    check(
        "data.row.internal == false",
        "data.row.internal = false",
        &["c.yaml:12:30: "],
    );
    check(
        "data.row.internal == false",
        "data.internal == false",
        &["c.yaml:12:12: data.internal is not there; an expression reads"],
    );
    check("open: data", "row: data", &["c.yaml:14:7: a field's name is"]);
    check("      open:", "      opén:", &["c.yaml:14:7: a field's name is"]);
    check(
        "data.op != \"delete\" &&",
        "data.op != \"delete\" ?",
        &["c.yaml:14:"],
    );
    check(
        "state: [id]",
        "state: []",
        &["c.yaml:21:12: `state` needs the columns"],
    );
    check(
        "priority: high",
        "priority: hihg",
        &["c.yaml:22:15: no priority \"hihg\"; did you mean \"high\"?"],
    );
    check(GOOD, "", &["c.yaml:1:1: the file is empty"]);
    check(
        GOOD,
        "version: 1\nsource: x\n",
        &["c.yaml:1:1: nothing is mapped"],
    );
    check(
        GOOD,
        "version: 1\nsource: x\ntables: []\n",
        &["c.yaml:3:9: expected 1 to 200 tables, found 0"],
    );
}
