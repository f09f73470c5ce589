//! How values are stored: rooms that were full and have room again, and values of those that slept.

use std::ops::Range;
use std::time::{Duration, Instant};

use roomcast_chassis::jetstream::Publisher;
use roomcast_chassis::metrics::Metrics;
use roomcast_metrics_aggregator::counters::Counters;
use roomcast_metrics_aggregator::engine::render::Outgoing;
use roomcast_metrics_aggregator::publish::Values;
use roomcast_proto::ids::Audience;
use roomcast_proto::limits::ROOM_KEYS_MAX;
use roomcast_proto::metric::UPDATED;
use roomcast_proto::subject::{state, stream};
use serde_json::json;

use crate::world;
use crate::world::{World, now};

const SECOND: i64 = 1_000_000;

async fn values_of(world: &World) -> (Values, Counters) {
    let publisher = Publisher::start(world.jetstream.client(), 256, None)
        .await
        .unwrap();
    let counters = Counters::new(&Metrics::new("test").unwrap()).unwrap();
    let (jetstream, tenant) = (world.jetstream.clone(), world.tenant.clone());
    (
        Values::new(jetstream, publisher, tenant, counters.clone()),
        counters,
    )
}

fn staff() -> Audience {
    Audience::parse("staff").unwrap()
}

/// A value that is true at `as_of`; `shows` none: it is withdrawn.
fn value(world: &World, key: &str, shows: Option<u64>, as_of: i64, until: Option<i64>) -> Outgoing {
    let body = |shows: u64| json!({ "value": shows.to_string(), "revision": shows, "as_of": roomcast_proto::event::rfc3339(as_of) });
    Outgoing {
        room: world.room.clone(),
        audience: staff(),
        key: key.to_owned(),
        kind: UPDATED,
        body: shows.map(|shows| body(shows).to_string()),
        expires_micros: until,
        revision: shows.unwrap_or_default(),
        as_of,
    }
}

/// Stores keys with these numbers, which are there until then.
async fn fill(world: &World, values: &mut Values, keys: Range<usize>, until: Option<i64>) {
    let all = keys.map(|key| value(world, &format!("m/{key}"), Some(1), now(), until));
    values.publish(all.collect()).await.unwrap();
}

/// How many keys there are of the room, and of this name.
async fn stored(world: &World, key: &str) -> (u64, bool) {
    let info = world.jetstream.stream_info(stream::STATE).await.unwrap().unwrap();
    let subject = state(&world.tenant, &world.room, &staff(), key);
    let at = roomcast_chassis::jetstream::At::Last(&subject);
    let found = world.jetstream.message(stream::STATE, at).await.unwrap();
    (info.state.messages, found.is_some())
}

/// The count of a room's keys went up with each closed window and never down: after a week of minutes nothing new was stored there.
#[tokio::test(flavor = "multi_thread")]
async fn a_room_whose_values_ended_has_room_again() {
    let Some(world) = world().await else { return };
    let (mut values, counters) = values_of(&world).await;
    // Those that end come last: a slow machine takes longer for all than they are there.
    let stay = ROOM_KEYS_MAX - 10;
    fill(&world, &mut values, 0..stay, None).await;
    let until = Some(now() + 10 * SECOND);
    fill(&world, &mut values, stay..ROOM_KEYS_MAX, until).await;
    values
        .publish(vec![value(&world, "late", Some(1), now(), None)])
        .await
        .unwrap();
    assert_eq!(stored(&world, "late").await, (ROOM_KEYS_MAX as u64, false));
    assert_eq!(counters.keys_refused.get(), 1);
    let until = Instant::now() + Duration::from_secs(40);
    while stored(&world, "late").await.0 > stay as u64 {
        assert!(Instant::now() < until, "the server has dropped nothing");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    values
        .publish(vec![value(&world, "late", Some(1), now(), None)])
        .await
        .unwrap();
    assert_eq!(stored(&world, "late").await, (stay as u64 + 1, true));
}

/// What others have withdrawn is seen when a room seems full, and before anything is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_room_of_which_others_took_something_back_has_room_again() {
    let Some(world) = world().await else { return };
    let (mut values, counters) = values_of(&world).await;
    fill(&world, &mut values, 0..ROOM_KEYS_MAX, None).await;
    let (mut other, _) = values_of(&world).await;
    other.read(&[(world.room.clone(), staff())]).await.unwrap();
    other
        .publish(vec![value(&world, "m/7", None, now(), None)])
        .await
        .unwrap();
    let late = |key: &str| value(&world, key, Some(1), now(), None);
    values.publish(vec![late("late")]).await.unwrap();
    assert!(stored(&world, "late").await.1);
    assert_eq!(counters.keys_refused.get(), 0);
    values.publish(vec![late("later"), late("m/8")]).await.unwrap();
    assert!(!stored(&world, "later").await.1, "it is full");
    assert_eq!(counters.keys_refused.get(), 1);
}

/// Each row: what the successor stored last, as (what it shows, seconds after the one that slept), and what is there once that one woke and
/// published. A withdrawn value came back with the old number.
#[tokio::test(flavor = "multi_thread")]
async fn who_slept_overwrites_nothing_newer() {
    let Some(world) = world().await else { return };
    let at = now();
    for (row, (successor, expected)) in [
        ((Some(3), 5), Some("3")),
        ((None, 5), None),
        // Of the same instant: what comes last.
        ((None, 0), Some("2")),
        ((None, -5), Some("2")),
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("m/{row}");
        let (mut zombie, counters) = values_of(&world).await;
        let (mut other, _) = values_of(&world).await;
        let targets = [(world.room.clone(), staff())];
        let first = value(&world, &key, Some(1), at - 10 * SECOND, None);
        zombie.publish(vec![first]).await.unwrap();
        other.read(&targets).await.unwrap();
        let (shows, after) = successor;
        let newer = value(&world, &key, shows, at + after * SECOND, None);
        other.publish(vec![newer]).await.unwrap();
        let old = value(&world, &key, Some(2), at, None);
        zombie.publish(vec![old]).await.unwrap();
        let there = world.values().await;
        assert_eq!(there[&key]["value"].as_str(), expected, "row {row}");
        assert_eq!(
            counters.stale.get(),
            u64::from(expected != Some("2")),
            "row {row}"
        );
        // The successor goes on, over what it withdrew as well.
        let next = value(&world, &key, Some(9), at + 6 * SECOND, None);
        other.publish(vec![next]).await.unwrap();
        assert_eq!(world.values().await[&key]["value"], "9", "row {row}");
    }
}
