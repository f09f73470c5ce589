//! What a capture that begins again takes as published, and what it publishes of before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use roomcast_chassis::jetstream::{At, JetStream, StoredMessage};
use roomcast_harness::eventually;
use roomcast_harness::nats::Nats;
use roomcast_harness::postgres::Postgres;
use roomcast_harness::token::Signer;
use serde_json::Value;

use crate::capture::{POLICY, SOON, TABLE, TICKETS, process, settings, tickets_followed, until_stored};
use crate::fixture::Ingest;
use crate::process::Process;

/// Age at which a position is written anew before anything is stored; see `capture/kept.rs`.
const YOUNG: Duration = Duration::from_secs(10);

const ORDERS: &str = "
  - table: orders
    room: orders
    audience: staff
    types: { insert: order:created, update: order:changed, delete: order:deleted }
    columns: all
";

fn now_micros() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_micros()).unwrap()
}

/// The last position, as it is stored.
async fn position(ingest: &Ingest) -> StoredMessage {
    let key = At::Last("$KV.capture.main.shop");
    ingest.streams.message("KV_capture", key).await.unwrap().unwrap()
}

async fn until_held(postgres: &Postgres, held: bool) {
    eventually("the slot is held, or free", SOON, || async {
        let active =
            postgres.ask("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'roomcast' AND active");
        active == if held { "1" } else { "0" }
    })
    .await;
}

/// What the read-back begins at and how far it goes both come from the position: one that was written long before a change would have
/// the change found by nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_after_a_quiet_time_is_stored_behind_a_new_position() {
    let Some((postgres, ingest, _dir)) = tickets_followed().await else {
        return;
    };
    eventually("nothing was written for some time", SOON, || async {
        let age = now_micros() - position(&ingest).await.time_micros;
        Duration::from_micros(age.unsigned_abs()) > YOUNG + Duration::from_secs(1)
    })
    .await;
    let quiet = position(&ingest).await;
    postgres.sql("INSERT INTO tickets VALUES (1, 'new', 0, NULL)");
    until_stored(&ingest, 1).await;
    // One before the change, and one that has it.
    eventually(
        "the position was written twice",
        Duration::from_secs(15),
        || async { position(&ingest).await.sequence >= quiet.sequence + 2 },
    )
    .await;
}

async fn alone(nats: &Nats, dir: &Path, settings: &[(&'static str, String)]) -> Process {
    std::fs::write(dir.join("policy.yaml"), POLICY).unwrap();
    std::fs::write(dir.join("keys.json"), Signer::new().jwks()).unwrap();
    let settings: Vec<_> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    Process::start(&nats.url(), dir, &settings).await
}

/// Databases of two tenants may have one name, and their outboxes count alike.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_tenant_published_is_not_taken_for_ours() {
    let (Some(ours), Some(theirs), Some(nats)) = (
        Postgres::start().await,
        Postgres::start().await,
        Nats::start().await,
    ) else {
        return;
    };
    let outbox =
        std::fs::read_to_string(roomcast_harness::repository().join("deploy/postgres/outbox.sql")).unwrap();
    let streams = JetStream::new(nats.connect("admin").await, "$JS.API");
    let count = async |tenant: &str| {
        let read = streams.direct_batch("EVENTS", 1, 500, None).await.unwrap();
        let token = format!(".{tenant}.");
        let of = |message: &&StoredMessage| message.subject.contains(&token);
        read.messages.iter().filter(of).count()
    };
    let put = |database: &Postgres| {
        database.sql(
            "INSERT INTO roomcast_outbox (type, room, audience, data) SELECT 'order:placed', 'orders', 'staff', jsonb_build_object('n', i) \
             FROM generate_series(1, 5) i",
        );
    };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let of = |database: &Postgres, tenant: &str, dir: &tempfile::TempDir| {
        settings(
            database,
            &format!("tenant: {tenant}\nsource: shop\noutbox: roomcast_outbox\n"),
            dir,
        )
    };
    for database in [&ours, &theirs] {
        database.sql(&outbox);
        database.sql("CREATE PUBLICATION roomcast FOR TABLE roomcast_outbox");
    }
    let first = alone(&nats, dirs[0].path(), &of(&ours, "ours", &dirs[0])).await;
    until_held(&ours, true).await;
    first.kill().await;
    let other = alone(&nats, dirs[1].path(), &of(&theirs, "theirs", &dirs[1])).await;
    until_held(&theirs, true).await;
    put(&theirs);
    eventually("theirs are stored", SOON, || async { count("theirs").await == 5 }).await;
    put(&ours);
    until_held(&ours, false).await;
    let again = alone(&nats, dirs[0].path(), &of(&ours, "ours", &dirs[0])).await;
    eventually("ours are stored, too", SOON, || async {
        count("ours").await == 5
    })
    .await;
    again.kill().await;
    other.kill().await;
}

/// An event as `(id, type, row)`.
type Read = (String, String, Value);

async fn read(ingest: &Ingest) -> Vec<Read> {
    let one = |message: &StoredMessage| {
        let mut event: Value = serde_json::from_slice(&message.payload).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (
            text(&event["id"]),
            text(&event["type"]),
            event["data"]["row"].take(),
        )
    };
    ingest.stored("EVENTS").await.iter().map(one).collect()
}

/// How many events there are of each snapshot of tickets, oldest first; a snapshot's place in the log is in its ids.
fn snapshots(events: &[Read], kind: &str) -> Vec<usize> {
    let mut places: Vec<String> = Vec::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (id, _, _) in events.iter().filter(|(_, found, _)| found == kind) {
        let (place, _) = id.split_once("-snapshot-").unwrap();
        if !counts.contains_key(place) {
            places.push(place.to_owned());
        }
        *counts.entry(place.to_owned()).or_default() += 1;
    }
    places.iter().map(|place| counts[place]).collect()
}

/// What the events say that is there now, by table and id.
fn known(events: &[Read]) -> BTreeSet<(String, String)> {
    let mut rows: BTreeMap<(String, u64), String> = BTreeMap::new();
    for (_, kind, row) in events {
        let (table, what) = kind.split_once(':').unwrap();
        let key = (table.to_owned(), row["id"].as_u64().unwrap());
        match what {
            "deleted" => drop(rows.remove(&key)),
            _ => drop(rows.insert(key, row["status"].to_string())),
        }
    }
    let shown = |((table, id), status)| (format!("{table} {id}"), status);
    rows.into_iter().map(shown).collect()
}

fn there(postgres: &Postgres, tables: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    let of = |(kind, table): &(&str, &str)| {
        let sql = format!("SELECT '{kind} ' || id || '|' || to_json(status)::text FROM {table}");
        let rows = postgres.ask(&sql);
        let split = |row: &str| {
            row.split_once('|')
                .map(|(row, status)| (row.to_owned(), status.to_owned()))
        };
        rows.lines().filter_map(split).collect::<Vec<_>>()
    };
    tables.iter().flat_map(of).collect()
}

/// The slot has what changed since it was made; dropping it for another snapshot lost that.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_snapshot_loses_no_change() {
    const ROWS: usize = 8_000;
    let Some(postgres) = Postgres::start().await else {
        return;
    };
    postgres.sql(&format!("{TABLE}, orders").replace(
        "CREATE PUBLICATION",
        "CREATE TABLE orders (id bigint PRIMARY KEY, status text); CREATE PUBLICATION",
    ));
    postgres.sql("INSERT INTO orders VALUES (1, 'of before, which nobody asked for')");
    postgres.sql(&format!(
        "INSERT INTO tickets SELECT i, 'new', 0, NULL FROM generate_series(1, {ROWS}) i"
    ));
    let Some(ingest) = Ingest::start_with(POLICY, &[]).await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let more = settings(&postgres, &format!("{TICKETS}{ORDERS}"), &dir);
    let mut first = process(&ingest, &more);
    eventually("some of the rows are published", SOON, || async {
        ingest.stored("EVENTS").await.len() >= 400
    })
    .await;
    first.kill().await.unwrap();
    let before = read(&ingest).await;
    assert!(before.len() < ROWS, "it was killed too late to say anything");
    postgres.sql("INSERT INTO orders SELECT i, 'open' FROM generate_series(2, 50) i");
    postgres.sql("UPDATE orders SET status = 'paid' WHERE id <= 10 AND id > 1");
    postgres.sql("UPDATE tickets SET status = 'open' WHERE id <= 20");
    postgres.sql("DELETE FROM tickets WHERE id <= 10 OR id > 7990");
    postgres.sql("INSERT INTO tickets VALUES (9000, 'new', 0, NULL)");
    until_held(&postgres, false).await;
    let mut second = process(&ingest, &more);
    eventually("the rows are published", Duration::from_secs(120), || async {
        snapshots(&read(&ingest).await, "ticket:present").get(1) == Some(&(ROWS - 19))
    })
    .await;
    until_held(&postgres, true).await;
    postgres.sql("UPDATE tickets SET status = 'done' WHERE id < 30; INSERT INTO orders VALUES (51, 'open')");
    eventually("the events say what is there", SOON, || async {
        let mut expected = there(&postgres, &[("ticket", "tickets"), ("order", "orders")]);
        expected.retain(|(row, _)| row != "order 1");
        known(&read(&ingest).await) == expected
    })
    .await;
    let events = read(&ingest).await;
    let ids: BTreeSet<&str> = events.iter().map(|(id, _, _)| id.as_str()).collect();
    assert_eq!(ids.len(), events.len(), "each once");
    assert_eq!(
        events
            .iter()
            .filter(|(_, kind, _)| kind == "order:created")
            .count(),
        50
    );
    // Nothing goes back: what a row's snapshot says is not followed by what was before it.
    let at = |wanted: &dyn Fn(&Read) -> bool| events.iter().position(wanted).unwrap();
    let second_snapshot =
        at(&|(id, kind, _)| kind == "ticket:present" && before.iter().all(|(known, _, _)| known != id));
    let last_change = at(&|(_, kind, row)| kind == "ticket:created" && row["id"] == 9000);
    assert!(last_change < second_snapshot, "{last_change} {second_snapshot}");
    assert_eq!(
        postgres.ask("SELECT string_agg(slot_name, ' ') FROM pg_replication_slots"),
        "roomcast"
    );
    second.kill().await.unwrap();
}

/// Rows of a table that comes to the mapping later are published once, in their place among the changes; those of others not again.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_comes_later_has_its_rows_published() {
    let Some(postgres) = Postgres::start().await else {
        return;
    };
    postgres.sql(TABLE);
    postgres.sql("INSERT INTO tickets SELECT i, 'new', 0, NULL FROM generate_series(1, 30) i");
    let Some(ingest) = Ingest::start_with(POLICY, &[]).await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut follower = process(&ingest, &settings(&postgres, TICKETS, &dir));
    until_held(&postgres, true).await;
    until_stored(&ingest, 30).await;
    follower.kill().await.unwrap();
    postgres.sql("CREATE TABLE orders (id bigint PRIMARY KEY, status text)");
    postgres.sql("INSERT INTO orders SELECT i, 'open' FROM generate_series(1, 20) i");
    postgres.sql("ALTER PUBLICATION roomcast ADD TABLE orders");
    postgres.sql("UPDATE orders SET status = 'paid' WHERE id <= 5");
    postgres.sql("UPDATE tickets SET status = 'done' WHERE id <= 3");
    postgres.sql("DELETE FROM orders WHERE id = 20");
    let orders = ORDERS.replace("deleted }", "deleted, snapshot: order:present }");
    let more = settings(&postgres, &format!("{TICKETS}{orders}"), &dir);
    let both = [("ticket", "tickets"), ("order", "orders")];
    for round in 0..3 {
        until_held(&postgres, false).await;
        if round == 2 {
            // As a version before this leaves it, which knew all or nothing: nothing comes again.
            let key = "$KV.capture.main.shop=2Esnapshots";
            let sent = ingest
                .streams
                .publish(key, HeaderMap::new(), Bytes::new(), SOON)
                .await;
            sent.unwrap();
        }
        let mut follower = process(&ingest, &more);
        until_held(&postgres, true).await;
        postgres.sql("UPDATE orders SET status = status || '.' WHERE id > 15");
        eventually("the events say what is there", SOON, || async {
            known(&read(&ingest).await) == there(&postgres, &both)
        })
        .await;
        let events = read(&ingest).await;
        assert_eq!(snapshots(&events, "order:present"), [19], "round {round}");
        assert_eq!(snapshots(&events, "ticket:present"), [30], "round {round}");
        let paid = events.iter().filter(|(_, kind, _)| kind == "order:changed");
        assert_eq!(paid.count(), 5 + 4 * (round + 1), "round {round}");
        follower.kill().await.unwrap();
    }
}

/// Outbox rows that were there before are read from the table, those that came since are in the slot, and some are both.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_outbox_is_published_once() {
    const ROWS: u64 = 8_000;
    let Some(postgres) = Postgres::start().await else {
        return;
    };
    let outbox =
        std::fs::read_to_string(roomcast_harness::repository().join("deploy/postgres/outbox.sql")).unwrap();
    postgres.sql(&outbox);
    postgres.sql("CREATE PUBLICATION roomcast FOR TABLE roomcast_outbox");
    let put = |from: u64, to: u64| {
        postgres.sql(&format!(
            "INSERT INTO roomcast_outbox (type, room, audience, data) SELECT 'order:placed', 'orders', 'staff', jsonb_build_object('n', i) \
             FROM generate_series({from}, {to}) i"
        ));
    };
    put(1, ROWS);
    let Some(ingest) = Ingest::start_with(POLICY, &[]).await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let more = settings(&postgres, "source: shop\noutbox: roomcast_outbox\n", &dir);
    let mut follower = process(&ingest, &more);
    eventually("some of the rows are published", SOON, || async {
        ingest.stored("EVENTS").await.len() >= 400
    })
    .await;
    follower.kill().await.unwrap();
    assert!(
        ingest.stored("EVENTS").await.len() < 8_000,
        "it was killed too late to say anything"
    );
    put(ROWS + 1, ROWS + 40);
    // What is cleaned up at once is in the slot alone.
    postgres.sql("DELETE FROM roomcast_outbox WHERE id > 8030");
    for last in [ROWS + 50, ROWS + 60] {
        until_held(&postgres, false).await;
        follower = process(&ingest, &more);
        until_held(&postgres, true).await;
        put(last - 9, last);
        eventually("all are published", Duration::from_secs(120), || async {
            ingest.stored("EVENTS").await.len() as u64 >= last
        })
        .await;
        follower.kill().await.unwrap();
        let events = ingest.stored("EVENTS").await;
        let number = |message: &StoredMessage| {
            let event: Value = serde_json::from_slice(&message.payload).unwrap();
            event["data"]["n"].as_u64().unwrap()
        };
        let mut numbers: Vec<u64> = events.iter().map(number).collect();
        numbers.sort_unstable();
        assert!(
            numbers.iter().copied().eq(1..=last),
            "each once: {}",
            numbers.len()
        );
    }
}

/// Rows of before are no reason to have changes wait.
#[tokio::test(flavor = "multi_thread")]
async fn where_rows_cannot_be_read_changes_are_followed() {
    let Some(postgres) = Postgres::start_with(&["wal_level=logical", "max_replication_slots=1"]).await else {
        return;
    };
    postgres.sql(TABLE);
    let Some(ingest) = Ingest::start_with(POLICY, &[]).await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut follower = process(&ingest, &settings(&postgres, TICKETS, &dir));
    until_held(&postgres, true).await;
    postgres.sql("INSERT INTO tickets VALUES (1, 'new', 0, NULL)");
    until_stored(&ingest, 1).await;
    follower.kill().await.unwrap();
    postgres.sql(
        "CREATE TABLE orders (id bigint PRIMARY KEY, status text); INSERT INTO orders VALUES (1, 'open')",
    );
    postgres.sql("ALTER PUBLICATION roomcast ADD TABLE orders");
    let orders = ORDERS.replace("deleted }", "deleted, snapshot: order:present }");
    let more = settings(&postgres, &format!("{TICKETS}{orders}"), &dir);
    until_held(&postgres, false).await;
    let mut follower = process(&ingest, &more);
    postgres.sql("INSERT INTO orders VALUES (2, 'open')");
    until_stored(&ingest, 2).await;
    postgres.sql("INSERT INTO orders VALUES (3, 'open')");
    until_stored(&ingest, 3).await;
    assert_eq!(snapshots(&read(&ingest).await, "order:present"), [0; 0]);
    follower.kill().await.unwrap();
}
