//! Following the streams: kills, lost messages, streams made anew.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use roomcast_edge_gateway::hub::{Gap, HubSettings, Outcome, ToShard};
use roomcast_edge_gateway::nats_side::now_millis;
use roomcast_edge_gateway::spine_driver::{LiveFilter, Which};
use roomcast_harness::nats::Nats;

use super::rig::{Follower, Writer, subscribe};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_events_over_three_kills_reach_two_gateways_once_in_order() {
    let Some(mut nats) = Nats::start().await else {
        return;
    };
    let first = Follower::start(&nats, HubSettings::default(), None).await;
    let second = Follower::start(&nats, HubSettings::default(), None).await;
    let writer = Writer::connect(&nats).await;
    let publishing = tokio::spawn(async move { writer.events(&["a", "b", "c"], 0..10_000).await });
    for goal in [2_000, 4_000, 6_000] {
        first.reaches(goal, 0).await;
        nats.kill();
        nats.launch().await;
    }
    publishing.await.unwrap();
    // The id of every event is acknowledged once; the stream may hold an event more than once only if its dedup failed.
    let expected: Vec<u64> = (1..=10_000).collect();
    for follower in [&first, &second] {
        follower.reaches(10_000, 0).await;
        assert_eq!(follower.events(), expected);
        assert!(
            !follower
                .told
                .lock()
                .unwrap()
                .iter()
                .any(|told| matches!(told, ToShard::Reset))
        );
    }
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_messages_that_are_lost_are_read_again_and_so_is_the_tail() {
    let Some(nats) = Nats::start().await else { return };
    // The network loses every seventh message, and every one from 191 on: nothing comes that would show that loss.
    let lossy: LiveFilter = Arc::new(|_, sequence| sequence % 7 != 0 && sequence < 191);
    let follower = Follower::start(&nats, HubSettings::default(), Some(lossy)).await;
    let writer = Writer::connect(&nats).await;
    for number in 0..200 {
        writer.event("a", "all", number).await;
        writer.value("a", "all", &number.to_string(), number, false).await;
    }
    follower.reaches(200, 200).await;
    let expected: Vec<u64> = (1..=200).collect();
    assert_eq!(
        (follower.events(), follower.values()),
        (expected.clone(), expected)
    );
    for stream in ["events", "state"] {
        let count = |what: &str| {
            follower.count(&format!(
                "roomcast_gateway_spine_{what}_total{{stream=\"{stream}\""
            ))
        };
        assert!(count("repaired") >= 10.0 && count("probes") >= 1.0, "{stream}");
    }
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_starts_late_has_the_past_in_its_ring() {
    let Some(nats) = Nats::start().await else { return };
    let writer = Writer::connect(&nats).await;
    writer.events(&["a"], 0..3_000).await;
    let seen = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&seen);
    let count: LiveFilter = Arc::new(move |which, _| {
        counting.fetch_add(u64::from(which == Which::Events), Ordering::Relaxed);
        true
    });
    let follower = Follower::start(&nats, HubSettings::default(), Some(count)).await;
    assert!(follower.events().is_empty(), "what is old is not handed out live");
    let is_warm = |follower: &Follower| follower.count("roomcast_gateway_ring_events{") == 3_000.0;
    follower.until("3,000 events in the ring", is_warm).await;
    writer.events(&["a"], 3_000..3_010).await;
    follower.reaches(3_010, 0).await;
    assert_eq!(follower.events(), (3_001..=3_010).collect::<Vec<u64>>());
    assert_eq!(seen.load(Ordering::Relaxed), 10);
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_made_anew_is_another_epoch() {
    let Some(nats) = Nats::start().await else { return };
    let follower = Follower::start(&nats, HubSettings::default(), None).await;
    let writer = Writer::connect(&nats).await;
    writer.events(&["a"], 0..5).await;
    follower.reaches(5, 0).await;
    let epoch = follower.hub.epoch();
    let admin = nats.connect("admin").await;
    let info = admin
        .request("$JS.API.STREAM.INFO.EVENTS", "".into())
        .await
        .unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
    admin
        .request("$JS.API.STREAM.DELETE.EVENTS", "".into())
        .await
        .unwrap();
    admin
        .request("$JS.API.STREAM.CREATE.EVENTS", info["config"].to_string().into())
        .await
        .unwrap();
    follower
        .until("another epoch", |follower| follower.hub.epoch() != epoch)
        .await;
    assert!(
        follower
            .told
            .lock()
            .unwrap()
            .iter()
            .any(|told| matches!(told, ToShard::Reset))
    );
    writer.events(&["a"], 100..103).await;
    follower
        .until("the new stream's events", |follower| {
            follower.events().ends_with(&[1, 2, 3])
        })
        .await;
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_told_and_then_given_up() {
    let Some(nats) = Nats::start().await else { return };
    let follower = Follower::start(&nats, HubSettings::default(), None).await;
    nats.signal("STOP");
    let told = |follower: &Follower, is: fn(&ToShard) -> bool| follower.told.lock().unwrap().iter().any(is);
    let is_stale = |told: &ToShard| matches!(told, ToShard::Status { stale: true, .. });
    follower.until("stale", |follower| told(follower, is_stale)).await;
    assert!(!told(&follower, |told| matches!(told, ToShard::CloseAll)) && follower.hub.accepting().is_ok());
    follower
        .until("given up", |follower| {
            told(follower, |told| matches!(told, ToShard::CloseAll))
        })
        .await;
    assert!(follower.hub.accepting().is_err());
    nats.signal("CONT");
    follower
        .until("back", |follower| {
            follower.hub.accepting().is_ok() && !follower.hub.status().stale
        })
        .await;
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warming_a_ring_of_many_events_takes_little_time() {
    let Some(nats) = Nats::start().await else { return };
    let writer = Writer::connect(&nats).await;
    writer.events(&["a", "b", "c"], 0..20_000).await;
    let start = std::time::Instant::now();
    let follower = Follower::start(&nats, HubSettings::default(), None).await;
    println!("20,000 events in the ring after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(10));
    follower.stop().await;
}

/// The disk of every node lost the last seconds, as a restored copy has: the stream ends before what clients have seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_lost_its_tail_is_told_and_its_new_events_are_not_taken_for_old_ones() {
    let Some(mut nats) = Nats::start().await else {
        return;
    };
    let follower = Follower::start(&nats, HubSettings::default(), None).await;
    let writer = Writer::connect(&nats).await;
    writer.events(&["a"], 0..20).await;
    follower.reaches(20, 0).await;
    let store = nats.dir().join("store");
    let copy = nats.dir().join("copy");
    // Stopped in good order, so that the copy is whole.
    nats.stop();
    copy_all(&store, &copy);
    nats.launch().await;
    writer.events(&["a"], 20..30).await;
    follower.reaches(30, 0).await;
    let seen = follower.hub.head();
    nats.kill();
    std::fs::remove_dir_all(&store).unwrap();
    std::fs::rename(&copy, &store).unwrap();
    nats.launch().await;
    // Positions are given out a second time, to other events, and beyond: a gateway that looks only then finds no end that is too low.
    writer.events(&["a"], 100..115).await;
    follower
        .until("everybody is told to begin anew", |follower| {
            let told = follower.told.lock().unwrap();
            told.iter().any(|told| matches!(told, ToShard::Reset))
        })
        .await;
    follower.reaches(35, 0).await;
    let page = follower
        .hub
        .recover_async(&subscribe("staff", "a"), Some(seen), now_millis)
        .await
        .unwrap();
    assert_eq!(page.recovery, Outcome::Incomplete { reason: Gap::Epoch });
    follower.stop().await;
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
