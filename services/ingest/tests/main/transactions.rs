//! A large transaction passes through ingest row by row, whatever NATS and the database do meanwhile.

use std::time::Duration;

use roomcast_chassis::jetstream::{At, JetStream};
use roomcast_harness::eventually;
use roomcast_harness::nats::Nats;
use roomcast_harness::postgres::Postgres;
use roomcast_harness::token::Signer;
use serde_json::Value;

use crate::capture::{POLICY, SOON, TABLE, TICKETS, settings};
use crate::process::Process;

/// Rows of the one commit.
const ROWS: u64 = 40_000;
/// Time for all of them, on a slow machine.
const WITHIN: Duration = Duration::from_secs(180);
/// What a process may grow by meanwhile: both queues full of such rows, what leaves at once, and what the allocator keeps. The rows
/// themselves are twice as much, held in any way.
const GROWTH_BYTES_MAX: u64 = 16 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_any_size_takes_the_same_memory() {
    let (Some(postgres), Some(nats)) = (Postgres::start().await, Nats::start().await) else {
        return;
    };
    postgres.sql(TABLE);
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::new();
    std::fs::write(dir.path().join("policy.yaml"), POLICY).unwrap();
    std::fs::write(dir.path().join("keys.json"), signer.jwks()).unwrap();
    let settings = settings(&postgres, TICKETS, &dir);
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let process = Process::start(&nats.url(), dir.path(), &settings).await;
    let streams = JetStream::new(nats.connect("admin").await, "$JS.API");
    let stored = async || {
        let info = streams.stream_info("EVENTS").await.ok().flatten();
        info.map_or(0, |info| info.state.last_seq)
    };
    // Some hundred bytes each, that do not compress.
    let insert = |from: u64, to: u64| {
        postgres.sql(&format!(
            "INSERT INTO tickets SELECT i, 'new', i, (SELECT string_agg(md5((i * 20 + n)::text), '') FROM generate_series(1, 20) n) \
             FROM generate_series({from}, {to}) i"
        ));
    };
    eventually("the slot is made", SOON, || async {
        postgres.ask("SELECT count(*) FROM pg_replication_slots WHERE active") == "1"
    })
    .await;
    insert(1, 2_000);
    eventually("the first are stored", SOON, || async { stored().await == 2_000 }).await;
    let before = process.peak_bytes();
    insert(2_001, 2_000 + ROWS);
    eventually("all are stored", WITHIN, || async {
        stored().await == 2_000 + ROWS
    })
    .await;
    let growth = process.peak_bytes() - before;
    println!(
        "{ROWS} rows of one commit: {} MiB more than {} MiB",
        growth >> 20,
        before >> 20
    );
    assert!(growth <= GROWTH_BYTES_MAX, "{} MiB", growth >> 20);
    // In their order, each once.
    for (seq, id) in [(2_001, 2_001), (20_000, 20_000), (2_000 + ROWS, 2_000 + ROWS)] {
        let message = streams
            .message("EVENTS", At::Sequence(seq))
            .await
            .unwrap()
            .unwrap();
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(event["data"]["row"]["id"], id);
    }
}
