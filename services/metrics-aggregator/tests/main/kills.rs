//! Kills of aggregators and of NATS, and zombies: every number stays exact.

use std::time::{Duration, Instant};

use roomcast_chassis::jetstream::JetStream;
use roomcast_metrics_aggregator::definition::Definitions;
use roomcast_metrics_aggregator::engine::shard::Shard;
use roomcast_metrics_aggregator::store::{self, StoreError};
use serde_json::Value;

use crate::truth::Truth;
use crate::world;
use crate::world::{Aggregator, METRICS, now};

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_exact_under_kills_of_aggregators_and_of_nats() {
    let Some(mut world) = world().await else { return };
    let mut truth = Truth::default();
    let mut a = world.start("a", METRICS);
    let mut b = world.start("b", METRICS);
    a.ready().await;
    for round in 0..6 {
        truth.publish(&world, 150).await;
        match round {
            0 => {
                a.kill();
                a = world.start("a", METRICS);
            }
            1 => b.kill(),
            2 => {
                b = world.start("b", METRICS);
                world.nats.kill();
                world.nats.launch().await;
            }
            3 => {
                a.kill();
                b.kill();
                truth.publish(&world, 50).await;
                a = world.start("a", METRICS);
                b = world.start("c", METRICS);
            }
            4 => assert_eq!(b.stop(), 0),
            _ => {}
        }
    }
    world
        .eventually("every number equals the sum of what was stored", |values| {
            truth.holds(values)
        })
        .await;
    assert_eq!(a.counter("roomcast_aggregator_unreadable_total"), 0);
    // A server that comes back has not made its streams anew.
    assert_eq!(a.counter("roomcast_aggregator_incomplete_total"), 0);
    assert_eq!(
        world.values().await["status/revenue"]["incomplete_since"],
        Value::Null
    );
    assert_eq!(a.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_both_believe_they_are_alone_count_nothing_twice() {
    let Some(world) = world().await else { return };
    let mut truth = Truth::default();
    let a = world.start("same", METRICS);
    // It has to hold all before another comes: of two that begin at once either may win, and the one that others follow has to stay.
    a.ready().await;
    let mut b = world.start("same", METRICS);
    let conflicts = |aggregator: &Aggregator| aggregator.counter("roomcast_aggregator_conflicts_total");
    // The second believes that leases in its name are left from before only until it has seen one renewed; where that happens before
    // its own write, it leaves all to the first, rightly, and another second one has to come. By the clock, because a fast machine
    // stores thousands of events before they meet and a busy one takes seconds for a hundred.
    let (begun, mut came) = (Instant::now(), Instant::now());
    let mut rounds = 0;
    while rounds < 10 || conflicts(&a) + conflicts(&b) < 3 {
        truth.publish(&world, 50).await;
        rounds += 1;
        if conflicts(&a) + conflicts(&b) == 0 && came.elapsed() > Duration::from_secs(5) {
            b.kill();
            b = world.start("same", METRICS);
            came = Instant::now();
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "they never met: {} and {} conflicts in {rounds} rounds",
            conflicts(&a),
            conflicts(&b)
        );
    }
    world
        .eventually("every number equals the sum of what was stored", |values| {
            truth.holds(values)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_on_an_old_head_is_refused_whole() {
    let Some(world) = world().await else { return };
    let jetstream: JetStream = world.jetstream.clone();
    let definitions = Definitions::parse(METRICS, "m", None).unwrap();
    let number = definitions.metrics[0].shard;
    let metrics = definitions.of_shard(number);
    let mut ours = Shard::load(metrics.clone(), None, now()).unwrap();
    let mut zombie = Shard::load(metrics.clone(), None, now()).unwrap();
    ours.reached(10);
    zombie.reached(5);
    let head = store::write(&jetstream, number, ours.flush(), 0).await.unwrap();
    assert!(matches!(
        store::write(&jetstream, number, zombie.flush(), 0).await,
        Err(StoreError::Conflict)
    ));
    let stored = store::load(&jetstream, number, &metrics).await.unwrap();
    assert_eq!(stored.head_seq, head);
    let (read, chunks) = stored.state.unwrap();
    assert_eq!(
        Shard::load(metrics, Some((read, &chunks)), now())
            .unwrap()
            .position(),
        10
    );
}
