use super::*;

const MAPPING: &str = r#"version: 1
source: shop
outbox: roomcast_outbox
tables:
  - table: tickets
    room: "shop.{shop}"
    audience: staff
    types: { insert: t:new, update: t:changed, delete: t:gone, snapshot: t:there }
    columns: [id, status]
    old: [status]
"#;

fn column(name: &str) -> FoundColumn {
    FoundColumn {
        name: name.to_owned(),
        type_oid: 25,
        key: name == "id",
        primary: name == "id",
        published: true,
    }
}

fn good() -> Facts {
    let table = |name: &str, columns: &[&str], identity_full| Found {
        schema: "public".to_owned(),
        table: name.to_owned(),
        identity_full,
        readable: true,
        published: true,
        columns: columns.iter().map(|name| column(name)).collect(),
        ..Found::default()
    };
    Facts {
        version: 150_014,
        wal_level: "logical".to_owned(),
        user: "capture".to_owned(),
        publication: Some(Publication {
            insert: true,
            update: true,
            delete: true,
            truncate: true,
            via_root: false,
        }),
        tables: vec![
            table("tickets", &["id", "status", "shop", "secret"], true),
            table("roomcast_outbox", &["id", "type", "room", "data"], false),
        ],
        known: vec!["public.tickets".to_owned(), "public.orders".to_owned()],
        ..Facts::default()
    }
}

#[track_caller]
fn check(spoil: impl FnOnce(&mut Facts), expected: &[&str]) {
    let mapping = Mapping::parse(MAPPING, "m.yaml", None).unwrap();
    let mut facts = good();
    spoil(&mut facts);
    let found: Vec<String> = judge(&mapping, &facts).iter().map(ToString::to_string).collect();
    assert_eq!(found, expected);
}

#[test]
fn everything_says_what_to_run() {
    check(|_| {}, &[]);
    check(
        |facts| facts.version = 140_000,
        &["PostgreSQL is 14, this needs 15 or later; to mend it: upgrade the database"],
    );
    let fails_over = |version: u32, expected: &[&str]| {
        let mapping = MAPPING.replacen("source:", "failover: true\nsource:", 1);
        let mapping = Mapping::parse(&mapping, "capture.yaml", None).unwrap();
        let facts = Facts { version, ..good() };
        let found: Vec<String> = judge(&mapping, &facts).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    };
    fails_over(170_000, &[]);
    fails_over(
        160_004,
        &[
            "line 2, column 11: PostgreSQL is 16, whose standbys keep no copy of a slot: failover needs 17 or later; to mend it: take `failover` \
         out of the mapping, or upgrade the database",
        ],
    );
    check(
        |facts| facts.standby = true,
        &["this server is a standby; to mend it: point ROOMCAST_CAPTURE_DATABASE at the primary"],
    );
    check(
        |facts| facts.wal_level = "replica".to_owned(),
        &[
            "wal_level is replica, must be logical; to mend it: ALTER SYSTEM SET wal_level = logical; then restart PostgreSQL",
        ],
    );
    check(
        |facts| facts.publication = None,
        &[
            "there is no publication roomcast; to mend it: CREATE PUBLICATION roomcast FOR TABLE public.tickets, public.roomcast_outbox;",
        ],
    );
    check(
        |facts| facts.tables[0].table = "ticket".to_owned(),
        &[
            "line 5, column 12: there is no table public.tickets; to mend it: write public.tickets in the mapping if that is meant, or create \
         the table",
        ],
    );
    check(
        |facts| facts.tables[0].published = false,
        &[
            "line 5, column 12: public.tickets is not in the publication roomcast; to mend it: ALTER PUBLICATION roomcast ADD TABLE \
         public.tickets;",
        ],
    );
    check(
        |facts| facts.tables[0].partitioned = true,
        &[
            "line 5, column 12: public.tickets is partitioned, and its changes come under the names of its partitions; to mend it: ALTER \
         PUBLICATION roomcast SET (publish_via_partition_root = true);",
        ],
    );
    check(
        |facts| facts.tables[0].columns[1].published = false,
        &[
            "line 9, column 19: the publication roomcast leaves the column status of public.tickets out; to mend it: ALTER PUBLICATION roomcast \
         DROP TABLE public.tickets; ALTER PUBLICATION roomcast ADD TABLE public.tickets (id, shop, secret, status);",
        ],
    );
    check(
        |facts| facts.tables[0].columns[1].name = "state".to_owned(),
        &[
            "line 9, column 19: public.tickets has no column status; to mend it: write state in the mapping if that is meant",
        ],
    );
    check(
        |facts| facts.tables[0].columns[2].name = "branch".to_owned(),
        &[
            "line 6, column 11: public.tickets has no column shop; to mend it: add the column, or leave it out of the mapping; there are id, \
         status, branch, secret",
        ],
    );
    check(
        |facts| facts.tables[0].readable = false,
        &[
            "line 5, column 12: capture may not read public.tickets, which has a snapshot; to mend it: GRANT SELECT ON public.tickets TO \
         capture;",
        ],
    );
    check(
        |facts| {
            facts
                .tables
                .iter_mut()
                .for_each(|table| table.row_security = true)
        },
        &[
            "line 5, column 12: row-level security hides rows of public.tickets, which has a snapshot, from capture; to mend it: ALTER ROLE \
         capture BYPASSRLS;",
            "line 3, column 9: row-level security hides rows of public.roomcast_outbox, which is read again when a slot is lost, from \
         capture; to mend it: ALTER ROLE capture BYPASSRLS;",
        ],
    );
    check(
        |facts| facts.tables[0].identity_full = false,
        &[
            "line 10, column 11: public.tickets does not send the old value of status; to mend it: ALTER TABLE public.tickets REPLICA IDENTITY \
         FULL;",
        ],
    );
    check(
        |facts| {
            facts.tables[0].identity_full = false;
            facts.tables[0].columns[0].key = false;
        },
        &[
            "line 5, column 12: public.tickets has no replica identity, so PostgreSQL refuses to change its rows while it is published (a \
             primary key would do as well); to mend it: ALTER TABLE public.tickets REPLICA IDENTITY FULL;",
        ],
    );
    check(
        |facts| {
            if let Some(publication) = &mut facts.publication {
                publication.delete = false;
            }
        },
        &[
            "the publication roomcast does not publish delete; to mend it: ALTER PUBLICATION roomcast SET (publish = 'insert, update, \
             delete, truncate');",
        ],
    );
    check(
        |facts| drop(facts.tables[1].columns.remove(2)),
        &[
            "line 3, column 9: the outbox public.roomcast_outbox has no column room in the publication roomcast; to mend it: create it as \
         deploy/postgres/outbox.sql has it",
        ],
    );
    check(
        |facts| facts.tables[1].readable = false,
        &[
            "line 3, column 9: capture may not read the outbox public.roomcast_outbox, which is read again when a slot is lost; to mend it: \
         GRANT SELECT ON public.roomcast_outbox TO capture;",
        ],
    );
}

#[test]
fn a_deleted_row_must_say_what_its_event_needs() {
    // Without old values of updates, only deleted rows need more than the key: the room's column.
    let mapping = Mapping::parse(&MAPPING.replace("    old: [status]\n", ""), "m.yaml", None).unwrap();
    let mut facts = good();
    facts.tables[0].identity_full = false;
    let found: Vec<String> = judge(&mapping, &facts).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "line 6, column 11: public.tickets does not send shop of rows that are deleted; to mend it: ALTER TABLE public.tickets REPLICA \
         IDENTITY FULL;"
        ]
    );
}

#[test]
fn a_row_with_state_must_say_where_it_was() {
    let check = |table: &str, expected: Option<&str>| {
        let text = format!(
            "version: 1\nsource: shop\ntables:\n  - table: tickets\n    audience: staff\n    columns: [id]\n{table}"
        );
        let mapping = Mapping::parse(&text, "m.yaml", None).unwrap();
        let mut facts = good();
        assert_eq!(judge(&mapping, &facts), [], "with all of the old row");
        facts.tables[0].identity_full = false;
        let found: Vec<String> = judge(&mapping, &facts).iter().map(ToString::to_string).collect();
        let expected = expected.map(|expected| {
            format!("{expected}, so the `state` of a row that moves could not be withdrawn; to mend it: ALTER TABLE public.tickets REPLICA IDENTITY FULL;")
        });
        assert_eq!(found, Vec::from_iter(expected), "{table}");
    };
    let by_key = "    room: tickets\n    types: { insert: t, update: t }\n    state: [id]\n";
    check(by_key, None);
    check(
        &by_key.replace("room: tickets", "room: \"shop.{shop}\""),
        Some("line 7, column 11: public.tickets does not send the old value of shop"),
    );
    check(
        &by_key.replace("[id]", "[secret]"),
        Some("line 9, column 13: public.tickets does not send the old value of secret"),
    );
    check(
        &format!("{by_key}    where: data.row.status == 'open'\n"),
        Some("line 10, column 12: public.tickets does not send the old value of status"),
    );
    check(&format!("{by_key}    where: data.row.id > 5\n"), None);
    check(
        &by_key
            .replace(", update: t", "")
            .replace("room: tickets", "room: \"shop.{shop}\""),
        None,
    );
    check(
        &by_key.replace("    state: [id]\n", "    where: data.row.status == 'open'\n"),
        None,
    );
}

#[test]
fn errors_of_the_database_say_what_to_run() {
    for (error, expected) in [
        (
            "permission denied to start WAL sender (SQLSTATE 42501)",
            "ALTER ROLE capture REPLICATION;",
        ),
        (
            "logical decoding requires wal_level >= logical",
            "ALTER SYSTEM SET wal_level = logical",
        ),
        ("all replication slots are in use", "pg_drop_replication_slot"),
        (
            "no pg_hba.conf entry for host \"10.0.0.1\"",
            "host shop capture <our address>/32",
        ),
        (
            "password authentication failed for user \"capture\"",
            "CREATE ROLE capture LOGIN REPLICATION",
        ),
        (
            "query would be affected by row-level security policy for table \"tickets\"",
            "ALTER ROLE capture BYPASSRLS;",
        ),
        ("database \"shop\" does not exist", "there is no database shop"),
    ] {
        let said = explain(error, "capture", "shop").unwrap();
        assert!(said.contains(expected), "{error}: {said}");
    }
    assert_eq!(explain("something else", "capture", "shop"), None);
}
