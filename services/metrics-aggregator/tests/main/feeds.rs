//! Feeds: shards that read the same rooms share one reader, and none of them misses an event or gets one twice, whoever is slow, late,
//! or elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use roomcast_chassis::jetstream::Outgoing;
use roomcast_harness::nats::Nats;
use roomcast_metrics_aggregator::delivered::Frame;
use roomcast_metrics_aggregator::feed::{Feeds, Source};
use roomcast_proto::ids::{Audience, Room};
use roomcast_proto::subject::{self, stream};
use serde_json::json;

use crate::world::World;

/// A machine that does much else.
const SOON: Duration = Duration::from_secs(60);
/// What a feed may read ahead is 16 MiB; so many events of so many bytes are more.
const LARGE: usize = 64 << 10;
const MANY: u64 = 600;

/// Stores events of a size, as fast as they are taken.
async fn publish(world: &World, count: u64, bytes: usize) {
    let (room, all) = (
        Room::parse("bookings").unwrap(),
        Audience::parse("staff").unwrap(),
    );
    let subject = subject::event(&world.tenant, &room, &all);
    let body = json!({
        "specversion": "1.0", "id": "e", "source": "test", "type": "new", "time": "2026-06-01T12:00:00Z",
        "room": "bookings", "audience": "staff", "priority": "medium", "data": { "text": "x".repeat(bytes) },
    });
    let payload = bytes::Bytes::from(body.to_string());
    for first in (0..count).step_by(50) {
        let batch = (first..count.min(first + 50)).map(|_| Outgoing {
            subject: subject.clone(),
            headers: async_nats::HeaderMap::new(),
            payload: payload.clone(),
        });
        world.jetstream.publish_batch(batch.collect()).await.unwrap();
    }
}

/// The positions that come until `last`; how often it was cast off.
async fn read(source: &mut Source, last: u64) -> (Vec<u64>, u32) {
    let (mut seen, mut cast_off) = (Vec::new(), 0);
    let reading = async {
        while seen.last() != Some(&last) {
            match source.next().await.unwrap() {
                Frame::Event(event) => seen.push(event.seq),
                Frame::CastOff => {
                    cast_off += 1;
                    source.go_alone().await.unwrap();
                }
                Frame::Reached(_) | Frame::Quiet => {}
            }
        }
    };
    let ended = tokio::time::timeout(SOON, reading).await.is_ok();
    assert!(ended, "{:?} instead of {last}", seen.last());
    (seen, cast_off)
}

/// How many readers the server has.
async fn consumers(world: &World) -> u64 {
    let subject = format!("$JS.API.STREAM.INFO.{}", stream::EVENTS);
    let answer = world
        .jetstream
        .client()
        .request(subject, "".into())
        .await
        .unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
    answer["state"]["consumer_count"].as_u64().unwrap()
}

async fn world() -> Option<(World, Feeds, Vec<String>)> {
    let world = World::new(Nats::start().await?).await;
    let feeds = Feeds::new(world.jetstream.client().clone(), "$JS.API".into());
    Some((world, feeds, vec!["evt.>".to_owned()]))
}

/// One that does not read keeps the other waiting for about a second in all; then it is cast off, and reads on by itself from where it
/// was.
#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_the_others_waiting_is_cast_off_and_misses_nothing() {
    let Some((world, feeds, filters)) = world().await else {
        return;
    };
    publish(&world, MANY, LARGE).await;
    let (quick, slow) = tokio::join!(feeds.open(filters.clone(), 1), feeds.open(filters, 1));
    let (mut quick, mut slow) = (quick.unwrap(), slow.unwrap());
    assert_eq!(consumers(&world).await, 1, "they share a reader");
    let first = slow.next().await.unwrap().seq();
    assert_eq!(first, Some(1));
    let all: Vec<u64> = (1..=MANY).collect();
    assert_eq!(
        read(&mut quick, MANY).await,
        (all.clone(), 0),
        "the one that reads goes on"
    );
    let (seen, cast_off) = read(&mut slow, MANY).await;
    assert_eq!((seen, cast_off), (all[1..].to_vec(), 1));
    // Both go on, each by itself.
    publish(&world, 10, 10).await;
    for source in [&mut quick, &mut slow] {
        assert_eq!(
            read(source, MANY + 10).await,
            ((MANY + 1..=MANY + 10).collect(), 0)
        );
    }
}

/// One without company is waited for as long as it takes.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_alone_is_never_cast_off() {
    let Some((world, feeds, filters)) = world().await else {
        return;
    };
    publish(&world, MANY, LARGE).await;
    let mut source = feeds.open(filters, 1).await.unwrap();
    assert_eq!(source.pending_at_start, MANY);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(read(&mut source, MANY).await, ((1..=MANY).collect(), 0));
}

/// Each row: from where somebody joins a feed that has read everything, and how many readers there are then.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_later_joins_where_the_feed_is_and_reads_alone_where_it_was() {
    let Some((world, feeds, filters)) = world().await else {
        return;
    };
    publish(&world, 500, 10).await;
    let mut first = feeds.open(filters.clone(), 1).await.unwrap();
    read(&mut first, 500).await;
    // What was taken is dropped when something else has come.
    for last in [501, 502] {
        publish(&world, 1, 10).await;
        read(&mut first, last).await;
    }
    let mut sources = BTreeMap::new();
    for (start, readers) in [(503, 1), (504, 1), (1, 2), (250, 3)] {
        let source = feeds.open(filters.clone(), start).await.unwrap();
        assert_eq!(consumers(&world).await, readers, "from {start}");
        sources.insert(start, source);
    }
    publish(&world, 98, 10).await;
    for (start, source) in &mut sources {
        let (seen, _) = read(source, 600).await;
        assert_eq!(seen, (*start..=600).collect::<Vec<u64>>(), "from {start}");
    }
    assert_eq!(read(&mut first, 600).await.0, (503..=600).collect::<Vec<u64>>());
    // Who leaves takes nothing from the others.
    drop(first);
    sources.remove(&503);
    publish(&world, 10, 10).await;
    for (start, source) in &mut sources {
        let (seen, _) = read(source, 610).await;
        assert_eq!(seen, (601..=610).collect::<Vec<u64>>(), "from {start}");
    }
}

/// A feed whose consumer is gone ends for all who share it, and says so; whoever begins anew gets what comes next, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_breaks_ends_for_all_and_is_begun_anew() {
    let Some((mut world, feeds, filters)) = world().await else {
        return;
    };
    publish(&world, 20, 10).await;
    let (one, two) = tokio::join!(feeds.open(filters.clone(), 1), feeds.open(filters.clone(), 1));
    let mut both = [one.unwrap(), two.unwrap()];
    for source in &mut both {
        read(source, 20).await;
    }
    world.nats.kill();
    world.nats.launch().await;
    for source in &mut both {
        let ended = tokio::time::timeout(SOON, async { while source.next().await.is_ok() {} });
        assert!(ended.await.is_ok(), "it ends");
    }
    publish(&world, 5, 10).await;
    let again = async || loop {
        if let Ok(source) = feeds.open(filters.clone(), 21).await {
            return source;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let mut source = tokio::time::timeout(SOON, again()).await.unwrap();
    assert_eq!(read(&mut source, 25).await.0, (21..=25).collect::<Vec<u64>>());
}
