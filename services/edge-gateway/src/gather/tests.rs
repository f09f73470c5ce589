use roomcast_proto::cursor::Position;

use super::*;
use crate::delivery::Kind;
use crate::delivery::tests::address;

fn events(count: usize) -> Vec<Arc<Delivery>> {
    let event = || Delivery::new(address("a"), Kind::Event, Position::default(), None, None, b"{}");
    (0..count).map(|_| Arc::new(event())).collect()
}

const WINDOW: u64 = 20;

/// Offers one event at each instant, and lets what waits leave when it is due: the instants of the flushes.
#[track_caller]
fn check(offers: impl IntoIterator<Item = u64>, window: u64, flushes: &[u64]) {
    let (mut gather, mut due, mut flushed) = (Gather::default(), None, Vec::new());
    for at in offers {
        if let Some(due_millis) = due.filter(|due| *due <= at) {
            assert!(gather.is_due(due_millis));
            assert!(!gather.take(due_millis, window).is_empty());
            flushed.push(due_millis);
            due = None;
        }
        match gather.offer(&events(1), at, window) {
            Turn::AtOnce => flushed.push(at),
            Turn::From(instant) => {
                assert!(instant > at && instant <= at + window, "{instant} at {at}");
                due = Some(instant);
            }
            turn => assert_eq!(turn, Turn::Waits),
        }
    }
    assert_eq!(flushed, flushes);
}

#[test]
fn a_quiet_room_never_waits_and_a_busy_one_flushes_once_a_window() {
    check([1_000], WINDOW, &[1_000]);
    // 50 a second, and slower: each by itself.
    check(
        [1_000, 1_020, 1_040, 1_060, 1_080, 1_100],
        WINDOW,
        &[1_000, 1_020, 1_040, 1_060, 1_080, 1_100],
    );
    // An event, its number and its notification; then a rest.
    check(
        [1_000, 1_001, 1_002, 1_100, 1_101, 1_102],
        WINDOW,
        &[1_000, 1_001, 1_002, 1_100, 1_101, 1_102],
    );
    // 400 a second: three at once, then one flush a window.
    let busy = (0..80).map(|n| 1_000 + n * 5 / 2);
    let every = [
        1_000, 1_002, 1_005, 1_020, 1_040, 1_060, 1_080, 1_100, 1_120, 1_140, 1_160, 1_180,
    ];
    check(busy, WINDOW, &every);
    check([1_000, 1_000, 1_000, 1_000], 0, &[1_000, 1_000, 1_000, 1_000]);
}

#[test]
fn as_many_as_may_wait_leave_early() {
    let mut gather = Gather::default();
    for turn in [Turn::AtOnce; 3] {
        assert_eq!(gather.offer(&events(1), 1_000, WINDOW), turn);
    }
    assert_eq!(
        gather.offer(&events(EVENTS_MAX - 1), 1_001, WINDOW),
        Turn::From(1_020)
    );
    assert!(gather.bytes() > 0 && !gather.is_due(1_019));
    assert_eq!(gather.offer(&events(1), 1_002, WINDOW), Turn::Full);
    assert_eq!(gather.take(1_002, WINDOW).len(), EVENTS_MAX);
    assert_eq!(
        (gather.bytes(), gather.is_empty(), gather.is_due(1_020)),
        (0, true, false)
    );
}

/// A window that shrinks while a room is ahead of its rhythm: nothing waits longer than the new one.
#[test]
fn a_shorter_window_counts_from_now() {
    let mut gather = Gather::default();
    for _ in 0..3 {
        gather.offer(&events(1), 1_000, 500);
    }
    assert_eq!(gather.offer(&events(1), 1_000, 10), Turn::From(1_010));
    gather.take(1_010, 0);
    assert_eq!(gather.offer(&events(1), 1_010, 0), Turn::AtOnce);
}
