//! Databases that fail over: what comes along, and what is gone on from where nothing does.

use roomcast_harness::eventually;
use roomcast_harness::postgres::Postgres;

use crate::capture::{POLICY, SOON, TABLE, TICKETS, following, settings, until_following, until_stored};
use crate::fixture::Ingest;

async fn until_promoted(standby: &Postgres) {
    standby.promote();
    eventually("the standby is the primary", SOON, || async {
        standby.ask("SELECT pg_is_in_recovery()") == "f"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fail_over_loses_no_outbox_row() {
    let Some(mut postgres) = Postgres::start().await else {
        return;
    };
    let outbox =
        std::fs::read_to_string(roomcast_harness::repository().join("deploy/postgres/outbox.sql")).unwrap();
    postgres.sql(&outbox);
    postgres.sql("CREATE PUBLICATION roomcast FOR TABLE roomcast_outbox");
    let mut standby = postgres.standby().await;
    let put = |server: &Postgres, from: u32, to: u32| {
        server.sql(&format!(
            "INSERT INTO roomcast_outbox (type, room, audience, data) SELECT 'order:placed', 'orders', 'staff', \
             jsonb_build_object('n', i) FROM generate_series({from}, {to}) i"
        ));
    };
    put(&postgres, 1, 50);
    let Some((ingest, _dir)) = following(&postgres, "\nsource: shop\noutbox: roomcast_outbox\n").await else {
        return;
    };
    until_following(&ingest).await;
    put(&postgres, 51, 100);
    until_stored(&ingest, 100).await;
    eventually("the standby has everything", SOON, || async {
        standby.ask("SELECT count(*) FROM roomcast_outbox") == "100"
    })
    .await;
    // Its slot is gone with it; the numbers of the rows are what is gone on from.
    standby.take_over(&mut postgres).await;
    until_promoted(&standby).await;
    put(&standby, 101, 150);
    let found = until_stored(&ingest, 150).await;
    let numbers: Vec<u64> = found
        .iter()
        .map(|(_, data)| data["n"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=150).collect::<Vec<_>>());
}

/// From PostgreSQL 17 a standby keeps a copy of the slot, and a table's changes go on with it; before, that cannot be asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_comes_along_misses_nothing() {
    let Some(mut postgres) = Postgres::start().await else {
        return;
    };
    postgres.sql(TABLE);
    let mapping = format!("failover: true{TICKETS}");
    if postgres.version() < 17 {
        let Some((ingest, _dir)) = following(&postgres, &mapping).await else {
            return;
        };
        eventually("it says that this needs a newer one", SOON, || async {
            ingest.metric("roomcast_capture_failures_total{reason=\"problems\"}") > 0.0
        })
        .await;
        assert_eq!(postgres.ask("SELECT count(*) FROM pg_replication_slots"), "0");
        return;
    }
    let mut standby = postgres.standby().await;
    // Nothing is published that the standby does not have.
    postgres.sql("ALTER SYSTEM SET synchronized_standby_slots = 'standby'");
    postgres.sql("SELECT pg_reload_conf()");
    // A slot that was there before: it becomes one that comes along.
    postgres.sql("SELECT pg_create_logical_replication_slot('roomcast', 'pgoutput')");
    let insert = |server: &Postgres, from: u32, to: u32| {
        server.sql(&format!(
            "INSERT INTO tickets SELECT i, 'new', i, NULL FROM generate_series({from}, {to}) i"
        ));
    };
    let Some(ingest) = Ingest::start_with(POLICY, &[]).await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let more = settings(&postgres, &mapping, &dir);
    let mut follower = crate::capture::process(&ingest, &more);
    insert(&postgres, 1, 50);
    until_stored(&ingest, 50).await;
    eventually("the standby has the slot", SOON, || async {
        postgres.sql("SELECT pg_log_standby_snapshot()");
        let copied = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'roomcast' AND synced AND NOT temporary";
        standby.ask(copied) == "1"
    })
    .await;
    insert(&postgres, 51, 100);
    until_stored(&ingest, 100).await;
    // Some of these are stored, and some of them are on the standby.
    insert(&postgres, 101, 2_000);
    standby.take_over(&mut postgres).await;
    until_promoted(&standby).await;
    insert(&standby, 2_001, 2_100);
    let there = standby.ask("SELECT string_agg(id::text, ',' ORDER BY id) FROM tickets");
    let there: Vec<u64> = there.split(',').map(|id| id.parse().unwrap()).collect();
    let found = until_stored(&ingest, there.len()).await;
    let stored = found.iter().map(|(_, data)| data["row"]["id"].as_u64().unwrap());
    let mut stored: Vec<u64> = stored.collect();
    stored.sort_unstable();
    assert_eq!(stored, there, "what the database has, each once");
    follower.kill().await.unwrap();
}
