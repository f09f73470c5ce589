//! Answering those who come back or look back: deep resume, state of many keys, history, cursors that fit nowhere.

use std::sync::Arc;

use async_nats::HeaderMap;
use roomcast_edge_gateway::delivery::{Delivery, Kind};
use roomcast_edge_gateway::hub::{Gap, HubSettings, Outcome, Recovered};
use roomcast_edge_gateway::nats_side::now_millis;
use roomcast_harness::nats::Nats;
use roomcast_proto::cursor::{Cursor, Cursors, Position};
use roomcast_proto::ids::Tenant;
use roomcast_proto::subject::header;

use super::rig::{Follower, Writer, history, subscribe};

fn positions(events: &[Arc<Delivery>]) -> Vec<u64> {
    events.iter().map(|event| event.position.seq).collect()
}

async fn recover(follower: &Follower, role: &str, room: &str, from: Option<Cursor>) -> Recovered {
    follower
        .hub
        .recover_async(&subscribe(role, room), from, now_millis)
        .await
        .unwrap()
}

fn at(follower: &Follower, seq: u64, rev: u64, time_bits: u16) -> Option<Cursor> {
    Some(Cursor {
        epoch: follower.hub.epoch().unwrap(),
        position: Position { seq, rev },
        time_bits,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_from_before_the_ring_reads_the_stream_once_and_misses_nothing() {
    let Some(nats) = Nats::start().await else { return };
    // A ring of about 1,500 events.
    let small = HubSettings {
        ring_bytes_max: 1 << 20,
        ring_room_events_min: 4,
        ..HubSettings::default()
    };
    let writer = Writer::connect(&nats).await;
    writer.events(&["a", "b", "c"], 0..9_000).await;
    let follower = Follower::start(&nats, small, None).await;
    let whole = Follower::start(&nats, HubSettings::default(), None).await;
    writer.events(&["a", "b", "c"], 9_000..12_000).await;
    follower.reaches(12_000, 0).await;
    whole.reaches(12_000, 0).await;
    for seq in [0, 1, 100, 7_777, 11_000, 12_000] {
        let expected = recover(&whole, "staff", "b", at(&whole, seq, 0, 0)).await;
        let (deep, again) = tokio::join!(
            recover(&follower, "staff", "b", at(&follower, seq, 0, 0)),
            recover(&follower, "staff", "b", at(&follower, seq, 0, 0)),
        );
        assert_eq!(
            (deep.recovery, again.recovery),
            (Outcome::Complete, Outcome::Complete),
            "from {seq}"
        );
        assert_eq!(positions(&deep.events), positions(&expected.events), "from {seq}");
        assert_eq!(
            positions(&again.events),
            positions(&expected.events),
            "from {seq}"
        );
        let bodies = |recovered: &Recovered| {
            recovered
                .events
                .iter()
                .map(|e| e.body_bytes())
                .collect::<Vec<_>>()
        };
        assert_eq!(bodies(&deep), bodies(&expected));
    }
    let reads = follower.count("roomcast_gateway_stream_reads_total{kind=\"events\",outcome=\"done\"");
    assert_eq!(reads, 1.0, "for twelve clients");
    assert_eq!(
        whole.count("roomcast_gateway_stream_reads_total{kind=\"events\""),
        0.0
    );
    // The time of a message that nobody remembers is looked up; a wrong one is another life of the stream.
    let good = whole
        .hub
        .recover_async(&subscribe("staff", "a"), at(&whole, 11_999, 0, 0), now_millis)
        .await
        .unwrap();
    let cursor = good.events.first().and_then(|event| event.cursor());
    if let Some(cursor) = cursor {
        assert_eq!(
            recover(&whole, "staff", "a", Some(cursor)).await.recovery,
            Outcome::Complete
        );
        let other = Cursor {
            time_bits: cursor.time_bits ^ 0x55,
            ..cursor
        };
        let lost = recover(&whole, "staff", "a", Some(other)).await;
        assert_eq!(lost.recovery, Outcome::Incomplete { reason: Gap::Epoch });
    }
    follower.stop().await;
    whole.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifteen_hundred_keys_are_loaded_although_the_server_gives_at_most_1024_at_once() {
    let Some(nats) = Nats::start().await else { return };
    let writer = Writer::connect(&nats).await;
    writer.values("a", 0..1_500).await;
    writer.value("b", "all", "k", 5_000, false).await;
    let follower = Follower::start(&nats, HubSettings::default(), None).await;
    let fresh = recover(&follower, "staff", "a", None).await;
    assert_eq!(
        (fresh.recovery, fresh.state.len(), fresh.events.len()),
        (Outcome::Fresh, 1_500, 0)
    );
    assert!(
        fresh.state.iter().all(|value| value.cursor().is_none()),
        "values of a recovery carry no cursor"
    );
    assert_eq!(fresh.head.position.rev, 1_501);
    let rev = writer.value("a", "all", "k7", 6_000, false).await;
    follower.reaches(0, rev).await;
    let back = recover(&follower, "staff", "a", Some(fresh.head)).await;
    assert_eq!((back.recovery, back.state.len()), (Outcome::Complete, 1));
    assert_eq!(back.state[0].position.rev, rev);
    let snapshot = follower
        .hub
        .state_async(&subscribe("staff", "a"), now_millis)
        .await
        .unwrap();
    assert_eq!((snapshot.state.len(), snapshot.cursor.position.rev), (1_500, rev));
    assert_eq!(
        follower.count("roomcast_gateway_stream_reads_total{kind=\"state\",outcome=\"done\""),
        1.0
    );
    let empty = recover(&follower, "staff", "c", None).await;
    assert!(empty.state.is_empty());
    follower.stop().await;
}

/// Rooms that are wanted at the same time are read together, with more than the server gives at once and with less: each gets its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_that_are_read_together_get_their_own_values() {
    let Some(nats) = Nats::start().await else { return };
    let writer = Writer::connect(&nats).await;
    // Numbers are ids, too: each is said once.
    for (from, each, held) in [(0, 20, 20), (1_000, 600, 620)] {
        for (number, room) in ["a", "b", "c"].into_iter().enumerate() {
            let from = from + number * each;
            writer.values(room, from..from + each).await;
        }
        let follower = Follower::start(&nats, HubSettings::default(), None).await;
        let (a, b, c) = tokio::join!(
            recover(&follower, "staff", "a", None),
            recover(&follower, "staff", "b", None),
            recover(&follower, "staff", "c", None),
        );
        for (room, found) in [("a", a), ("b", b), ("c", c)] {
            assert!(
                found.state.iter().all(|value| value.room.as_str() == room),
                "{room}"
            );
            assert_eq!(found.state.len(), held, "{room}");
        }
        follower.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_what_is_for_others_or_over() {
    let Some(nats) = Nats::start().await else { return };
    let follower = Follower::start(&nats, HubSettings::default(), None).await;
    let writer = Writer::connect(&nats).await;
    writer.event("a", "all", 1).await;
    writer.event("a", "admin", 2).await;
    writer.event("a", "nobodys_role", 3).await;
    let mut over = HeaderMap::new();
    over.insert(header::EXPIRES, (now_millis() - 1).to_string().as_str());
    writer.event_with("a", "all", 4, over).await;
    writer.value("a", "staff", "k", 1, false).await;
    writer.value("a", "admin", "k", 2, false).await;
    follower.reaches(4, 2).await;
    let start = at(&follower, 0, 0, 0);
    let (staff, admin) = (
        recover(&follower, "staff", "a", start).await,
        recover(&follower, "admin", "a", start).await,
    );
    assert_eq!(
        (positions(&staff.events), positions(&admin.events)),
        (vec![1], vec![1, 2])
    );
    let revs = |recovered: &Recovered| {
        recovered
            .state
            .iter()
            .map(|value| value.position.rev)
            .collect::<Vec<_>>()
    };
    assert_eq!((revs(&staff), revs(&admin)), (vec![1], vec![2]));
    assert!(
        staff.events.iter().all(|event| event.position.rev == 0),
        "no cursor overtakes the state that follows"
    );
    let page = follower
        .hub
        .history_async(&history("staff", "a"), None, 50, now_millis, || Ok(()))
        .await
        .unwrap();
    assert_eq!(
        (positions(&page.events), page.complete, page.cursor),
        (vec![1], true, None)
    );
    // The admin's value goes: the staff's holds again for the admin, and nothing changes for the staff.
    let rev = writer.value("a", "admin", "k", 3, true).await;
    follower.reaches(4, rev).await;
    let told = follower.told.lock().unwrap().last().cloned();
    let Some(roomcast_edge_gateway::hub::ToShard::Deliver(withdrawn)) = told else {
        panic!("{told:?}")
    };
    assert!(matches!(withdrawn.kind, Kind::State { withdrawn: true, .. }));
    let resolved = follower
        .hub
        .resolve_withdrawn(&subscribe("admin", "a"), &withdrawn, now_millis())
        .unwrap();
    assert!(matches!(resolved.kind, Kind::State { withdrawn: false, .. }));
    assert_eq!(
        (resolved.position, resolved.cursor()),
        (withdrawn.position, withdrawn.cursor())
    );
    assert_eq!(
        revs(&recover(&follower, "admin", "a", Some(admin.head)).await),
        [1]
    );
    assert!(
        recover(&follower, "staff", "a", Some(staff.head))
            .await
            .state
            .is_empty()
    );
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_fits_nowhere_is_told_so() {
    let Some(nats) = Nats::start().await else { return };
    let follower = Follower::start(&nats, HubSettings::default(), None).await;
    let writer = Writer::connect(&nats).await;
    writer.events(&["a"], 0..10).await;
    follower.reaches(10, 0).await;
    let ahead = async {
        let started = std::time::Instant::now();
        let answer = recover(&follower, "staff", "a", at(&follower, 1_000, 0, 0)).await;
        (answer, started.elapsed().as_secs())
    };
    let nearly = async {
        let answer = recover(&follower, "staff", "a", at(&follower, 11, 0, 0)).await;
        positions(&answer.events)
    };
    let later = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        writer.events(&["a"], 10..12).await;
    };
    let ((ahead, waited), nearly, ()) = tokio::join!(ahead, nearly, later);
    assert_eq!(ahead.recovery, Outcome::Incomplete { reason: Gap::Ahead });
    assert!((5..8).contains(&waited), "{waited} s");
    assert!(
        nearly.is_empty() || nearly == [12],
        "the stream got there: {nearly:?}"
    );
    let other = Cursors::plain()
        .read(&Tenant::default(), "00000000.1.1.0")
        .unwrap();
    let lost = recover(&follower, "staff", "a", Some(other)).await;
    assert_eq!(
        (lost.recovery, lost.events.len()),
        (Outcome::Incomplete { reason: Gap::Epoch }, 0)
    );
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_pages_lead_back_to_the_beginning() {
    let Some(nats) = Nats::start().await else { return };
    let small = HubSettings {
        ring_bytes_max: 1 << 20,
        ring_room_events_min: 4,
        ..HubSettings::default()
    };
    let writer = Writer::connect(&nats).await;
    writer.events(&["a", "b", "b", "b", "b"], 0..8_000).await;
    let follower = Follower::start(&nats, small, None).await;
    let permit = history("staff", "a");
    let (mut before, mut found) = (None, Vec::new());
    for _ in 0..40 {
        let page = follower
            .hub
            .history_async(&permit, before, 100, now_millis, || Ok(()))
            .await
            .unwrap();
        found.splice(0..0, positions(&page.events));
        before = page.cursor;
        if page.complete {
            break;
        }
    }
    assert_eq!(before, None, "complete");
    assert_eq!(found.len(), 1_600);
    assert!(found.is_sorted());
    follower.stop().await;
}
