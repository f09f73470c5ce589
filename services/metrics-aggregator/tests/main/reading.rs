//! The reader by itself: what it does when little comes.

use std::time::Duration;

use roomcast_harness::nats::Nats;
use roomcast_metrics_aggregator::delivered::Frame;
use roomcast_metrics_aggregator::reader::Reader;
use serde_json::json;

use super::world::{World, now};

/// Reads until event `last` came.
async fn until(reader: &mut Reader, last: u64) {
    let come = async {
        loop {
            if reader.next().await.unwrap().seq() == Some(last) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), come).await.unwrap();
}

/// More is asked for while some is still to come; where nothing does, both requests run out after ten seconds, and what comes then
/// is asked for anew. Counted wrongly, the reader would wait for what no request stands for.
#[tokio::test]
async fn requests_that_ran_out_are_asked_anew() {
    let Some(nats) = Nats::start().await else { return };
    let world = World::new(nats).await;
    let filters = ["evt.>".to_owned()];
    let publish = async |from: u64, to: u64| {
        for id in from..=to {
            world.event(id, "new", &json!({ "customer": "c" }), now()).await;
        }
    };
    let mut reader = Reader::open(world.jetstream.client(), "$JS.API", &filters, 1)
        .await
        .unwrap();
    publish(1, 600).await;
    until(&mut reader, 600).await;
    let quiet = async {
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < Duration::from_secs(11) {
            assert!(matches!(reader.next().await.unwrap(), Frame::Quiet));
        }
    };
    quiet.await;
    publish(601, 2_700).await;
    until(&mut reader, 2_700).await;
}
