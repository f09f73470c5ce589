//! A real PostgreSQL whose changes become events.

use std::collections::BTreeMap;
use std::time::Duration;

use roomcast_capture::Mapping;
use roomcast_capture::database::Database;
use roomcast_capture::session::Session;
use roomcast_capture::sql::shown;
use roomcast_chassis::process;
use roomcast_harness::eventually;
use roomcast_harness::postgres::Postgres;
use roomcast_harness::secured::authority;
use serde_json::{Value, json};

use crate::fixture::Ingest;

/// A database may take its time on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) const POLICY: &str = r#"
version: 1
roles:
  staff: { permissions: [see] }
rooms:
  - { room: tickets, subscribe: see }
  - { room: orders, subscribe: see }
  - { room: "shop.{shop}", subscribe: see }
"#;

pub(crate) const TICKETS: &str = "
source: shop
tables:
  - table: tickets
    room: tickets
    audience: staff
    types: { insert: ticket:created, update: ticket:changed, delete: ticket:deleted, snapshot: ticket:present, truncate: ticket:none }
    columns: [id, status, total, note]
    old: [status]
    fields: { open: \"data.op != 'delete' && data.row.status != 'done'\" }
";

pub(crate) const TABLE: &str = "CREATE TABLE tickets (id bigint PRIMARY KEY, status text, total numeric, note text, secret text DEFAULT 'hidden'); \
                     ALTER TABLE tickets REPLICA IDENTITY FULL; CREATE PUBLICATION roomcast FOR TABLE tickets";

/// An ingest that follows a database by a mapping.
pub(crate) async fn following(postgres: &Postgres, mapping: &str) -> Option<(Ingest, tempfile::TempDir)> {
    let dir = tempfile::tempdir().unwrap();
    let ingest = Ingest::start_with(
        POLICY,
        &settings(postgres, mapping, &dir)
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect::<Vec<_>>(),
    )
    .await?;
    Some((ingest, dir))
}

/// A database of its own whose tickets are followed.
pub(crate) async fn tickets_followed() -> Option<(Postgres, Ingest, tempfile::TempDir)> {
    let postgres = Postgres::start().await?;
    postgres.sql(TABLE);
    let (ingest, dir) = following(&postgres, TICKETS).await?;
    until_following(&ingest).await;
    Some((postgres, ingest, dir))
}

pub(crate) fn settings(
    postgres: &Postgres,
    mapping: &str,
    dir: &tempfile::TempDir,
) -> [(&'static str, String); 2] {
    let file = dir.path().join("capture.yaml");
    std::fs::write(&file, format!("version: 1\n{mapping}")).unwrap();
    [
        ("ROOMCAST_CAPTURE_FILE", file.display().to_string()),
        ("ROOMCAST_CAPTURE_DATABASE", postgres.address("postgres")),
    ]
}

pub(crate) async fn until_following(ingest: &Ingest) {
    eventually("the database is followed", SOON, || async {
        ingest.metric("roomcast_capture_following") > 0.0
    })
    .await;
}

/// The stored events as `(type, data)`, in order.
async fn events(ingest: &Ingest) -> Vec<(String, Value)> {
    let read = |message: &roomcast_chassis::jetstream::StoredMessage| {
        let mut event: Value = serde_json::from_slice(&message.payload).unwrap();
        (event["type"].as_str().unwrap().to_owned(), event["data"].take())
    };
    ingest.stored("EVENTS").await.iter().map(read).collect()
}

pub(crate) async fn until_stored(ingest: &Ingest, count: usize) -> Vec<(String, Value)> {
    eventually("so many events are stored", SOON, || async {
        ingest.stored("EVENTS").await.len() >= count
    })
    .await;
    events(ingest).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_before_and_changes_after_make_one_history() {
    let Some(postgres) = Postgres::start().await else {
        return;
    };
    postgres.sql(TABLE);
    postgres.sql("INSERT INTO tickets SELECT i, 'new', 1.50, NULL FROM generate_series(1, 300) i");
    let Some((ingest, _dir)) = following(&postgres, TICKETS).await else {
        return;
    };
    until_following(&ingest).await;
    let long = "x".repeat(9_000);
    // Large and hard to compress, so that it is kept apart from the row.
    postgres.sql("UPDATE tickets SET note = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 400) i) WHERE id = 1");
    postgres.sql("UPDATE tickets SET status = 'done', total = 12345678901234567890.10 WHERE id = 1");
    postgres.sql("DELETE FROM tickets WHERE id = 2");
    postgres.sql("ALTER TABLE tickets ADD COLUMN later text; INSERT INTO tickets VALUES (301, 'new', 0, 'short', 'x', 'y')");
    postgres.sql(&format!(
        "INSERT INTO tickets VALUES (302, 'new', 0, '{}')",
        "y".repeat(70_000)
    ));
    postgres.sql(&format!("INSERT INTO tickets VALUES (303, 'new', 0, '{long}')"));
    let found = until_stored(&ingest, 305).await;
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for (kind, _) in &found {
        *kinds.entry(kind).or_default() += 1;
    }
    let expected = [
        ("ticket:changed", 2),
        ("ticket:created", 2),
        ("ticket:deleted", 1),
        ("ticket:present", 300),
    ];
    // One more is too large and is a dead letter.
    assert_eq!(kinds, BTreeMap::from(expected));
    assert!(ingest.dead_letter("too_large").await.is_some());
    assert!(found[..300].iter().all(|(kind, _)| kind == "ticket:present"));
    let changed = &found[301].1;
    assert_eq!(changed["row"]["total"], "12345678901234567890.10");
    assert_eq!(
        changed["row"]["note"].as_str().unwrap().len(),
        400 * 32,
        "unchanged, and known from the old row"
    );
    assert_eq!(
        (&changed["old"]["status"], &changed["open"]),
        (&Value::from("new"), &Value::from(false))
    );
    assert_eq!(found[302].1["row"]["id"], 2);
    let text = found.iter().map(|(_, data)| data.to_string()).collect::<String>();
    assert!(
        !text.contains("hidden"),
        "a column that is not named never leaves the database"
    );
}

/// Without quotes, a column called `user` reads as who is connected, and `order` is no table.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_words_of_sql_are_names() {
    const MAPPING: &str = "
source: shop
tables:
  - table: order
    room: orders
    audience: staff
    types: { insert: order:created, update: order:changed, delete: order:deleted, snapshot: order:present, truncate: order:none }
    columns: [id, user, limit, Strange Name]
";
    let Some(postgres) = Postgres::start().await else {
        return;
    };
    postgres.sql(
        "CREATE TABLE \"order\" (id bigint PRIMARY KEY, \"user\" text, \"limit\" int, \"Strange Name\" text); \
         ALTER TABLE \"order\" REPLICA IDENTITY FULL; CREATE PUBLICATION roomcast FOR TABLE \"order\"; \
         INSERT INTO \"order\" VALUES (1, 'ann', 10, 'a')",
    );
    let Some((ingest, _dir)) = following(&postgres, MAPPING).await else {
        return;
    };
    until_following(&ingest).await;
    postgres.sql("INSERT INTO \"order\" VALUES (2, 'ben', 20, 'b')");
    let found = until_stored(&ingest, 2).await;
    let row = |id: u8, user: &str, limit: u8, name: &str| json!({ "id": id, "user": user, "limit": limit, "Strange Name": name });
    assert_eq!(found[0].0, "order:present");
    assert_eq!(found[0].1["row"], row(1, "ann", 10, "a"));
    assert_eq!(found[1].1["row"], row(2, "ben", 20, "b"));
    // What operators are shown is quoted wherever this server wants it.
    let words =
        postgres.ask("SELECT string_agg(word, ' ') FROM pg_get_keywords() WHERE catcode IN ('R', 'T')");
    for word in words.split(' ') {
        assert_eq!(shown(word), format!("\"{word}\""));
    }
}

/// Another ingest on the same NATS that follows the database, as a process.
pub(crate) fn process(ingest: &Ingest, more: &[(&'static str, String)]) -> tokio::process::Child {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_roomcast-ingest"));
    command
        .env_clear()
        .envs(ingest.environment())
        .envs(more.iter().map(|(name, value)| (*name, value)))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true);
    command.spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_stored_once_through_crashes_of_all() {
    let Some(mut postgres) = Postgres::start().await else {
        return;
    };
    postgres.sql(TABLE);
    let Some(ingest) = Ingest::start_with(POLICY, &[]).await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let more = settings(&postgres, TICKETS, &dir);
    let insert = |from: u32, to: u32| {
        format!("INSERT INTO tickets SELECT i, 'new', i, NULL FROM generate_series({from}, {to}) i")
    };
    let mut first = process(&ingest, &more);
    eventually("the slot is made", SOON, || async {
        postgres.ask("SELECT count(*) FROM pg_replication_slots WHERE active") == "1"
    })
    .await;
    postgres.sql(&insert(1, 500));
    until_stored(&ingest, 500).await;
    // The database dies and comes back.
    postgres.kill();
    postgres.start_again().await;
    postgres.sql(&insert(501, 700));
    until_stored(&ingest, 700).await;
    // Another one waits for its turn, and the one that follows is killed in the middle of a transaction.
    let mut second = process(&ingest, &more);
    postgres.sql(&insert(701, 5_000));
    until_stored(&ingest, 800).await;
    first.kill().await.unwrap();
    postgres.sql(&insert(5_001, 5_100));
    let found = until_stored(&ingest, 5_100).await;
    let ids = found.iter().map(|(_, data)| data["row"]["id"].as_u64().unwrap());
    let mut ids: Vec<u64> = ids.collect();
    // A batch that was cut off is stored again event by event: each row once, and rows of one batch perhaps in another order.
    ids.sort_unstable();
    assert!(
        ids.iter().copied().eq(1..=5_100),
        "each once: {} are stored",
        ids.len()
    );
    second.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_says_what_to_run() {
    let Some(postgres) = Postgres::start_with(&["wal_level=replica"]).await else {
        return;
    };
    postgres.sql("CREATE TABLE tickets (id bigint PRIMARY KEY, status text); CREATE ROLE nobody LOGIN");
    let mapping =
        roomcast_capture::Mapping::parse(&format!("version: 1\n{TICKETS}"), "capture.yaml", None).unwrap();
    let open = async |user: &str| {
        let database = roomcast_capture::database::Database::parse(&postgres.address(user)).unwrap();
        roomcast_capture::session::Session::open(&database, &mapping).await
    };
    let refused = open("nobody").await.unwrap_err().to_string();
    assert!(refused.contains("ALTER ROLE nobody REPLICATION;"), "{refused}");
    let absent = open("absent").await.unwrap_err().to_string();
    assert!(
        absent.contains("CREATE ROLE absent LOGIN REPLICATION"),
        "{absent}"
    );
    let mut session = open("postgres").await.unwrap();
    let problems = async |session: &mut roomcast_capture::session::Session| {
        let facts = session.facts(&mapping).await.unwrap();
        let found = roomcast_capture::checks::judge(&mapping, &facts);
        found
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let said = problems(&mut session).await;
    assert!(said.contains("ALTER SYSTEM SET wal_level = logical"), "{said}");
    assert!(
        said.contains("CREATE PUBLICATION roomcast FOR TABLE public.tickets;"),
        "{said}"
    );
    // What it says is what mends it.
    postgres.sql("CREATE PUBLICATION roomcast FOR TABLE public.tickets (id)");
    let said = problems(&mut session).await;
    assert!(
        said.contains("line 9, column 27: public.tickets has no column total"),
        "{said}"
    );
    assert!(
        said.contains("leaves the column status of public.tickets out"),
        "{said}"
    );
    postgres.sql("ALTER TABLE tickets ADD total numeric; ALTER TABLE tickets ADD note text");
    postgres.sql("ALTER PUBLICATION roomcast DROP TABLE public.tickets");
    postgres.sql("ALTER PUBLICATION roomcast ADD TABLE public.tickets");
    let said = problems(&mut session).await;
    assert!(
        said.contains("ALTER TABLE public.tickets REPLICA IDENTITY FULL;"),
        "{said}"
    );
    postgres.sql("ALTER TABLE public.tickets REPLICA IDENTITY FULL");
    let said = problems(&mut session).await;
    assert_eq!(said.lines().count(), 1, "only wal_level is left: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_slot_stops_until_an_operator_decides() {
    let Some((postgres, ingest, _dir)) = tickets_followed().await else {
        return;
    };
    postgres.sql("INSERT INTO tickets VALUES (1, 'new', 0, NULL)");
    until_stored(&ingest, 1).await;
    eventually("the slot can be dropped", SOON, || async {
        postgres.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots");
        let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active";
        postgres.try_sql(drop).is_ok() && postgres.ask("SELECT count(*) FROM pg_replication_slots") == "0"
    })
    .await;
    eventually("it says that it has stopped", SOON, || async {
        ingest.metric("roomcast_capture_failures_total{reason=\"stopped\"}") > 0.0
    })
    .await;
    assert_eq!(ingest.metric("roomcast_capture_following"), 0.0);
    assert_eq!(postgres.ask("SELECT count(*) FROM pg_replication_slots"), "0");
}

/// Over TLS or not at all, and who answers is who should.
#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_a_database_is_verified_or_not_taken() {
    let Some(postgres) = Postgres::start().await else {
        return;
    };
    postgres.sql(TABLE);
    let mapping = Mapping::parse(&format!("version: 1\n{TICKETS}"), "capture.yaml", None).unwrap();
    let address =
        |parameters: &str| format!("{}?sslmode=verify-full{parameters}", postgres.address("postgres"));
    let ours = format!("&sslrootcert={}", authority().display());
    let said = async |parameters: &str| {
        process::install_crypto();
        let database = Database::parse(&address(parameters)).unwrap();
        let opened = Session::open(&database, &mapping).await;
        opened.map_or_else(|error| error.to_string(), |_| "open".to_owned())
    };
    let refused = said(&ours).await;
    assert!(
        refused.contains("it speaks no TLS; to mend it: ALTER SYSTEM SET ssl = on"),
        "{refused}"
    );
    postgres.secure();
    eventually("it speaks TLS", SOON, || async { said(&ours).await == "open" }).await;
    let strangers = said(&format!("&sslrootcert={}", file!())).await;
    assert!(strangers.contains("sslrootcert"), "{strangers}");
    let unknown = said("").await;
    assert!(
        unknown.contains("its certificate must be for 127.0.0.1") || unknown.contains("no certificate"),
        "{unknown}"
    );

    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(&postgres, TICKETS, &dir);
    settings[1].1 = address(&ours);
    let settings = [
        (settings[0].0, settings[0].1.as_str()),
        (settings[1].0, settings[1].1.as_str()),
    ];
    let Some(ingest) = Ingest::start_with(POLICY, &settings).await else {
        return;
    };
    until_following(&ingest).await;
    postgres.sql("INSERT INTO tickets VALUES (1, 'new', 1, repeat('x', 30000))");
    let found = until_stored(&ingest, 1).await;
    assert_eq!(found[0].1["row"]["note"].as_str().map(str::len), Some(30_000));
    let ways = postgres.ask(
        "SELECT DISTINCT s.ssl FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.application_name = 'roomcast-shop'",
    );
    assert_eq!(ways, "t");
}

const PARTS: &str = "
source: shop
tables:
  - table: parts
    room: tickets
    audience: staff
    types: { insert: p:new, update: p:changed, delete: p:gone, truncate: p:none, snapshot: p:there }
    columns: all
";

/// A partitioned table is one table, whatever its partitions are; and however often one row changes in one commit, it is in order.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_one_table_and_a_busy_row_stays_in_order() {
    let Some(postgres) = Postgres::start().await else {
        return;
    };
    postgres.sql("CREATE TABLE parts (id bigint, region text, n bigint, PRIMARY KEY (id, region)) PARTITION BY LIST (region)");
    postgres.sql("CREATE TABLE parts_eu PARTITION OF parts FOR VALUES IN ('eu'); CREATE TABLE parts_us PARTITION OF parts FOR VALUES IN ('us')");
    postgres.sql("CREATE PUBLICATION roomcast FOR TABLE parts WITH (publish_via_partition_root = true)");
    postgres.sql("INSERT INTO parts VALUES (1, 'eu', 0), (2, 'us', 0)");
    let Some((ingest, _dir)) = following(&postgres, PARTS).await else {
        return;
    };
    until_following(&ingest).await;
    postgres.sql("UPDATE parts SET region = 'us' WHERE id = 1");
    postgres.sql("CREATE TABLE parts_asia PARTITION OF parts FOR VALUES IN ('asia')");
    postgres.sql("INSERT INTO parts VALUES (3, 'asia', 0)");
    postgres.sql("DO $$ BEGIN FOR i IN 1..700 LOOP UPDATE parts SET n = i WHERE id = 3; END LOOP; END $$");
    // Emptying one partition alone is nothing that PostgreSQL tells.
    postgres.sql("TRUNCATE parts_us");
    postgres.sql("TRUNCATE parts");
    let found = until_stored(&ingest, 706).await;
    let kinds: Vec<&str> = found.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(
        kinds[..5],
        ["p:there", "p:there", "p:gone", "p:new", "p:new"],
        "a move is a delete and an insert"
    );
    assert_eq!(found[2].1["row"], serde_json::json!({ "id": 1, "region": "eu" }));
    assert_eq!(
        (&found[4].1["table"], &found[4].1["row"]["region"]),
        (&"public.parts".into(), &"asia".into())
    );
    let busy: Vec<i64> = found[5..705]
        .iter()
        .map(|(_, data)| data["row"]["n"].as_i64().unwrap())
        .collect();
    assert!(busy.iter().copied().eq(1..=700), "{busy:?}");
    assert_eq!(
        found[705],
        (
            "p:none".to_owned(),
            serde_json::json!({ "op": "truncate", "table": "public.parts" })
        )
    );
    assert_eq!(found.len(), 706);
}
