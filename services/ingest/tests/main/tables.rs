//! What happens to followed tables and their rows: rows that move, tables that get another name, rows that a policy hides.

use std::collections::BTreeMap;
use std::time::Duration;

use roomcast_capture::Mapping;
use roomcast_capture::checks::judge;
use roomcast_capture::database::Database;
use roomcast_capture::session::Session;
use roomcast_harness::eventually;
use roomcast_harness::postgres::Postgres;
use serde_json::Value;

use crate::capture::{
    POLICY, SOON, TABLE, TICKETS, following, process, settings, until_following, until_stored,
};
use crate::fixture::Ingest;

/// Longer than the longest pause before a database is tried again.
const AGAIN: Duration = Duration::from_secs(90);

const PRICES: &str = "
source: shop
tables:
  - table: prices
    room: \"shop.{shop_id}\"
    audience: staff
    types: { insert: price, update: price, delete: price:gone, snapshot: price }
    columns: [id, cents]
    where: data.row.active
    state: [id]
";

/// What holds in each room: `room/key` with the price, or `gone`.
async fn state(ingest: &Ingest) -> BTreeMap<String, String> {
    let read = |message: &roomcast_chassis::jetstream::StoredMessage| {
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        let of = |name: &str| event[name].as_str().unwrap();
        let value = match event["withdrawn"] == true {
            true => {
                assert_eq!((of("type"), event.get("data")), ("price:gone", None));
                "gone".to_owned()
            }
            false => event["data"]["row"]["cents"].to_string(),
        };
        (format!("{}/{}", of("room"), of("statekey")), value)
    };
    ingest.stored("STATE").await.iter().map(read).collect()
}

async fn written(ingest: &Ingest) -> u64 {
    let info = ingest.streams.stream_info("STATE").await.ok().flatten();
    info.map_or(0, |info| info.state.last_seq)
}

async fn until_state(ingest: &Ingest, messages: u64, expected: &[(&str, &str)]) {
    let expected = expected
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let expected: BTreeMap<String, String> = expected.collect();
    eventually("the rooms have what is in the table", SOON, || async {
        state(ingest).await == expected
    })
    .await;
    assert_eq!(written(ingest).await, messages, "each is stored once");
}

/// A row was shown for good where it was before its key or its room changed, or `where` no longer held.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_moves_is_where_it_is_and_nowhere_else() {
    let Some(postgres) = Postgres::start().await else {
        return;
    };
    postgres.sql("CREATE TABLE prices (id bigint PRIMARY KEY, shop_id int, active bool, cents int); CREATE PUBLICATION roomcast FOR TABLE prices");
    let Some(ingest) = Ingest::start_with(POLICY, &[]).await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let more = settings(&postgres, PRICES, &dir);
    // Without the old row nobody would know where it was; that is said before.
    let mapping = Mapping::parse(&format!("version: 1\n{PRICES}"), "capture.yaml", None).unwrap();
    let database = Database::parse(&postgres.address("postgres")).unwrap();
    let mut session = Session::open(&database, &mapping).await.unwrap();
    let problems = judge(&mapping, &session.facts(&mapping).await.unwrap());
    let [problem] = problems.as_slice() else {
        panic!("one problem: {problems:?}");
    };
    assert!(
        problem.what.contains("does not send the old value of shop_id"),
        "{problem}"
    );
    postgres.sql(&problem.run);
    assert_eq!(judge(&mapping, &session.facts(&mapping).await.unwrap()), []);
    drop(session);

    postgres.sql("INSERT INTO prices SELECT i, 42, true, i FROM generate_series(1, 4) i");
    let mut first = process(&ingest, &more);
    until_state(
        &ingest,
        4,
        &[
            ("shop.42/1", "1"),
            ("shop.42/2", "2"),
            ("shop.42/3", "3"),
            ("shop.42/4", "4"),
        ],
    )
    .await;
    postgres.sql("UPDATE prices SET id = 9 WHERE id = 1");
    postgres.sql("UPDATE prices SET shop_id = 43 WHERE id = 2");
    postgres.sql("UPDATE prices SET active = false WHERE id = 3");
    let moved = [
        ("shop.42/1", "gone"),
        ("shop.42/2", "gone"),
        ("shop.42/3", "gone"),
        ("shop.42/4", "4"),
        ("shop.42/9", "1"),
        ("shop.43/2", "2"),
    ];
    until_state(&ingest, 9, &moved).await;
    // Whether or not the position was written: what is sent again has the same ids, and is stored already.
    first.kill().await.unwrap();
    let mut second = process(&ingest, &more);
    // There and back in one commit, and onto a key that another row just left.
    postgres.sql(
        "BEGIN; UPDATE prices SET shop_id = 44 WHERE id = 4; UPDATE prices SET shop_id = 42 WHERE id = 4; \
         UPDATE prices SET id = 1 WHERE id = 2; UPDATE prices SET id = 2, shop_id = 42 WHERE id = 9; \
         UPDATE prices SET active = true WHERE id = 3; COMMIT",
    );
    let back = [
        ("shop.42/1", "gone"),
        ("shop.42/2", "1"),
        ("shop.42/3", "3"),
        ("shop.42/4", "4"),
        ("shop.42/9", "gone"),
        ("shop.43/1", "2"),
        ("shop.43/2", "gone"),
        ("shop.44/4", "gone"),
    ];
    until_state(&ingest, 18, &back).await;
    second.kill().await.unwrap();
}

/// All changes of the table were left out, and confirmed, from the moment it had another name.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_another_name_is_said_and_nothing_of_it_is_lost() {
    let Some(postgres) = Postgres::start().await else {
        return;
    };
    postgres.sql(TABLE);
    let insert = |table: &str, id: u32| {
        postgres.sql(&format!("INSERT INTO {table} VALUES ({id}, 'new', 0, NULL)"));
    };
    let Some((ingest, _dir)) = following(&postgres, TICKETS).await else {
        return;
    };
    until_following(&ingest).await;
    insert("tickets", 1);
    until_stored(&ingest, 1).await;
    postgres.sql("ALTER TABLE tickets RENAME TO cases");
    insert("cases", 2);
    let failed =
        |reason: &str| ingest.metric(&format!("roomcast_capture_failures_total{{reason=\"{reason}\"}}"));
    eventually("it says that it cannot go on", SOON, || async {
        failed("stuck") > 0.0
    })
    .await;
    eventually("it says that the table is not there", SOON, || async {
        failed("problems") > 0.0
    })
    .await;
    insert("cases", 3);
    postgres.sql("CREATE SCHEMA desk; ALTER TABLE cases SET SCHEMA desk");
    insert("desk.cases", 4);
    // It has its name back: what happened under the others comes, too.
    postgres.sql("ALTER TABLE desk.cases SET SCHEMA public; ALTER TABLE cases RENAME TO tickets");
    insert("tickets", 5);
    let ids = |found: &[(String, Value)]| -> Vec<u64> {
        found
            .iter()
            .map(|(_, data)| data["row"]["id"].as_u64().unwrap())
            .collect()
    };
    eventually("all of it is stored", AGAIN, || async {
        ingest.stored("EVENTS").await.len() == 5
    })
    .await;
    assert_eq!(ids(&until_stored(&ingest, 5).await), [1, 2, 3, 4, 5]);
    // Another table takes its place: the old one is not followed any more, without anybody doing anything.
    postgres.sql(
        "ALTER TABLE tickets RENAME TO tickets_2025; CREATE TABLE tickets (LIKE tickets_2025 INCLUDING ALL); \
                  ALTER TABLE tickets REPLICA IDENTITY FULL; ALTER PUBLICATION roomcast ADD TABLE tickets",
    );
    insert("tickets_2025", 6);
    insert("tickets", 7);
    eventually("the new one is followed", AGAIN, || async {
        ingest.stored("EVENTS").await.len() >= 6
    })
    .await;
    assert_eq!(ids(&until_stored(&ingest, 6).await), [1, 2, 3, 4, 5, 7]);
}

/// Changes of before the table had the name that the mapping has now are its changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_name_in_the_mapping_has_the_changes_under_the_old_one() {
    let Some(postgres) = Postgres::start().await else {
        return;
    };
    postgres.sql(TABLE);
    let Some(ingest) = Ingest::start_with(POLICY, &[]).await else {
        return;
    };
    let insert = |table: &str, id: u32| {
        postgres.sql(&format!("INSERT INTO {table} VALUES ({id}, 'new', 0, NULL)"));
    };
    // Rows that are there when a name is new in the mapping are another matter.
    let mapping = TICKETS.replacen(", snapshot: ticket:present", "", 1);
    let dir = tempfile::tempdir().unwrap();
    let mut first = process(&ingest, &settings(&postgres, &mapping, &dir));
    eventually("the slot is made", SOON, || async {
        postgres.ask("SELECT count(*) FROM pg_replication_slots WHERE active") == "1"
    })
    .await;
    insert("tickets", 1);
    until_stored(&ingest, 1).await;
    first.kill().await.unwrap();
    insert("tickets", 2);
    postgres.sql("ALTER TABLE tickets RENAME TO cases");
    insert("cases", 3);
    let renamed = mapping.replacen("table: tickets", "table: cases", 1);
    let mut second = process(&ingest, &settings(&postgres, &renamed, &dir));
    let found = until_stored(&ingest, 3).await;
    let told =
        |(_, data): &(String, Value)| format!("{} {}", data["table"].as_str().unwrap(), data["row"]["id"]);
    let told: Vec<String> = found.iter().map(told).collect();
    assert_eq!(told, ["public.tickets 1", "public.cases 2", "public.cases 3"]);
    second.kill().await.unwrap();
}

/// A policy on a table left rows out of its snapshot without a word, while the stream has all of them.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_policy_hides_are_refused_and_not_left_out() {
    let Some(postgres) = Postgres::start().await else {
        return;
    };
    postgres.sql(TABLE);
    postgres.sql("CREATE ROLE capture LOGIN REPLICATION; GRANT SELECT ON tickets TO capture; INSERT INTO tickets SELECT i, 'new' FROM generate_series(1, 9) i");
    let mapping = Mapping::parse(&format!("version: 1\n{TICKETS}"), "capture.yaml", None).unwrap();
    let database = Database::parse(&postgres.address("capture")).unwrap();
    let mut session = Session::open(&database, &mapping).await.unwrap();
    assert_eq!(judge(&mapping, &session.facts(&mapping).await.unwrap()), []);
    postgres
        .sql("CREATE POLICY few ON tickets USING (id > 7); ALTER TABLE tickets ENABLE ROW LEVEL SECURITY");
    let facts = session.facts(&mapping).await.unwrap();
    let said: Vec<String> = judge(&mapping, &facts).iter().map(ToString::to_string).collect();
    let expected = "line 5, column 12: row-level security hides rows of public.tickets, which has a snapshot, from capture; to mend it: ALTER \
                    ROLE capture BYPASSRLS;";
    assert_eq!(said, [expected]);
    // Where the policy comes after the look at the table.
    let name = &mapping.tables[0].name;
    session.run("BEGIN").await.unwrap();
    let refused = session.open_rows(name, &facts, "").await.unwrap_err().to_string();
    assert!(refused.contains("ALTER ROLE capture BYPASSRLS;"), "{refused}");
    // What it says is what mends it.
    postgres.sql("ALTER ROLE capture BYPASSRLS");
    let mut session = Session::open(&database, &mapping).await.unwrap();
    let facts = session.facts(&mapping).await.unwrap();
    assert_eq!(judge(&mapping, &facts), []);
    session.run("BEGIN").await.unwrap();
    session.open_rows(name, &facts, "").await.unwrap();
    assert_eq!(session.rows().await.unwrap().len(), 9);
}
