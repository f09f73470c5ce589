//! Instances come and go under load: shards move within seconds, and every number stays exact.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use roomcast_metrics_aggregator::definition::Definitions;
use serde_json::Value;

use crate::truth::Truth;
use crate::world;
use crate::world::{Aggregator, METRICS, World};

/// Seconds, on a machine that does much else; a lease ends after five.
const WITHIN: Duration = Duration::from_secs(40);

/// Publishes until the instances work so many shards each, at least, and `all` together.
async fn moved(world: &World, truth: &mut Truth, instances: &[&Aggregator], least: u64, all: u64) {
    let until = Instant::now() + WITHIN;
    loop {
        truth.publish(world, 5).await;
        let held: Vec<u64> = instances
            .iter()
            .map(|instance| instance.counter("roomcast_aggregator_shards"))
            .collect();
        if held.iter().sum::<u64>() == all && held.iter().all(|held| *held >= least) {
            return;
        }
        assert!(Instant::now() < until, "shards are held {held:?}, {all} in all");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_move_with_instances_and_numbers_stay_exact() {
    let Some(world) = world().await else { return };
    let mut truth = Truth::default();
    let mut a = world.start("a", METRICS);
    a.ready().await;
    let definitions = Definitions::parse(METRICS, "metrics.yaml", None).unwrap();
    let shards: BTreeSet<u32> = definitions.metrics.iter().map(|metric| metric.shard).collect();
    let all = u64::try_from(shards.len()).unwrap();
    assert!(all >= 4, "{all} shards are too few to be spread");
    moved(&world, &mut truth, &[&a], all, all).await;
    let mut b = world.start("b", METRICS);
    moved(&world, &mut truth, &[&a, &b], all / 2, all).await;
    let mut c = world.start("c", METRICS);
    moved(&world, &mut truth, &[&a, &b, &c], all / 3, all).await;
    // One goes in order, one without a word.
    assert_eq!(a.stop(), 0);
    moved(&world, &mut truth, &[&b, &c], all / 2, all).await;
    b.kill();
    moved(&world, &mut truth, &[&c], all, all).await;
    let holds = |values: &BTreeMap<String, Value>| truth.holds(values);
    world
        .eventually("nothing is lost and nothing counts twice", holds)
        .await;
    assert_eq!(c.stop(), 0);
}
