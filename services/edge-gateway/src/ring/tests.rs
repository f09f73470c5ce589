use proptest::prelude::*;
use roomcast_access::AudienceId;
use roomcast_proto::cursor::Position;
use roomcast_proto::ids::Tenant;

use super::*;
use crate::delivery::tests::address;
use crate::delivery::{Address, Kind};
use crate::encoding::Encoding;

fn push(ring: &mut Ring, tenant: &str, room: &str, seq: u64) {
    let address = Address {
        tenant: Tenant::parse(tenant).unwrap(),
        audience: Some(AudienceId::ALL),
        ..address(room)
    };
    let position = Position { seq, rev: 0 };
    let event = Delivery::new(address, Kind::Event, position, None, None, &[b'x'; 100]);
    let time = i64::try_from(seq).unwrap();
    ring.push(&format!("{tenant}.{room}").into(), Arc::new(event), time, 7);
}

fn held(ring: &Ring, key: &str) -> Vec<u64> {
    ring.after(key, 0).map(|event| event.position.seq).collect()
}

fn limits(events: usize, room_events_min: usize) -> RingLimits {
    let mut probe = Ring::new(
        RingLimits {
            bytes_max: usize::MAX,
            tenant_bytes_max: usize::MAX,
            room_events_min: 0,
        },
        1,
    );
    push(&mut probe, "main", "busy", 1);
    RingLimits {
        bytes_max: probe.bytes() * events,
        tenant_bytes_max: usize::MAX,
        room_events_min,
    }
}

#[test]
fn a_rooms_events_are_found_by_position() {
    let mut ring = Ring::new(limits(100, 4), 1);
    for seq in 1..=9 {
        push(&mut ring, "main", if seq % 3 == 0 { "c" } else { "a" }, seq);
    }
    assert_eq!(held(&ring, "main.c"), [3, 6, 9]);
    let (events, bytes, came) = ring.room_sizes("main.a");
    assert_eq!((events, bytes * 9, came), (6, ring.bytes() * 6, 6));
    assert_eq!(ring.room_sizes("main.nothing"), (0, 0, 0));
    assert_eq!(
        ring.after("main.a", 4)
            .map(|e| e.position.seq)
            .collect::<Vec<_>>(),
        [5, 7, 8]
    );
    assert_eq!(
        ring.before("main.a", 5)
            .rev()
            .map(|e| e.position.seq)
            .collect::<Vec<_>>(),
        [4, 2, 1]
    );
    assert!(held(&ring, "main.none").is_empty());
    assert_eq!(
        (
            ring.covers_from("main.none"),
            ring.time_bits(9),
            ring.time_bits(10)
        ),
        (1, Some(7), None)
    );
}

#[test]
fn a_quiet_room_outlives_a_busy_one() {
    let mut ring = Ring::new(limits(50, 4), 1);
    for seq in 1..=3 {
        push(&mut ring, "main", "quiet", seq);
    }
    for seq in 4..=400 {
        push(&mut ring, "main", "busy", seq);
    }
    assert_eq!(held(&ring, "main.quiet"), [1, 2, 3]);
    assert_eq!(ring.covers_from("main.quiet"), 1);
    assert!(ring.covers_from("main.busy") > 340 && ring.events() <= 50);
}

#[test]
fn a_tenants_flood_costs_the_others_nothing() {
    let mut ring = Ring::new(limits(60, 1), 1);
    for seq in 1..=20 {
        push(&mut ring, "calm", "room", seq);
    }
    for seq in 21..=1_000 {
        push(&mut ring, "loud", "room", seq);
    }
    assert_eq!(held(&ring, "calm.room").len(), 20);
    assert_eq!(ring.covers_from("calm.room"), 1);
}

#[test]
fn a_tenant_holds_its_share_also_where_the_rest_is_free() {
    let whole = limits(1_000, 4);
    let mut ring = Ring::new(
        RingLimits {
            tenant_bytes_max: whole.bytes_max / 10,
            ..whole
        },
        1,
    );
    push(&mut ring, "main", "quiet", 1);
    push(&mut ring, "calm", "room", 2);
    for seq in 3..=500 {
        push(&mut ring, "main", "busy", seq);
    }
    assert_eq!(
        (held(&ring, "main.quiet"), held(&ring, "calm.room")),
        (vec![1], vec![2])
    );
    let busy = held(&ring, "main.busy");
    assert!((95..=100).contains(&busy.len()), "{}", busy.len());
    assert_eq!(busy.last(), Some(&500));
    assert_eq!(ring.covers_from("main.busy"), busy[0]);
    assert_eq!(ring.events(), busy.len() + 2);
}

#[test]
fn times_know_what_they_do_not_know() {
    let mut times = Times::default();
    times.put(10, 1);
    times.put(13, 2);
    let found: Vec<_> = (9..15).map(|seq| times.get(seq)).collect();
    assert_eq!(found, [None, Some(1), Some(0), Some(0), Some(2), None]);
    times.put(5, 9);
    assert_eq!(
        (times.get(5), times.get(13)),
        (Some(9), None),
        "positions that are used again start anew"
    );
}

proptest! {
    /// Whatever is pushed out: from `covers_from` on nothing of the room is missing, and the bounds hold.
    #[test]
    fn what_is_covered_is_complete(
        rooms in prop::collection::vec((0_u8..3, 0_u8..6), 1..600),
        events in 5_usize..80,
        room_events_min in 0_usize..8,
    ) {
        let limits = limits(events, room_events_min);
        let mut ring = Ring::new(limits, 1);
        let mut all: HashMap<String, Vec<u64>> = HashMap::default();
        for (seq, (tenant, room)) in (1..).zip(&rooms) {
            push(&mut ring, &format!("t{tenant}"), &format!("r{room}"), seq);
            all.entry(format!("t{tenant}.r{room}")).or_default().push(seq);
            prop_assert!(ring.bytes() <= limits.bytes_max);
        }
        let mut count = 0;
        for (key, seqs) in &all {
            let from = ring.covers_from(key);
            let expected: Vec<u64> = seqs.iter().copied().filter(|seq| *seq >= from).collect();
            prop_assert_eq!(held(&ring, key), expected, "{} from {}", key, from);
            count += held(&ring, key).len();
        }
        prop_assert_eq!(ring.events(), count);
    }
}

proptest! {
    /// A tenant that never wrote more than its share has lost nothing, whatever the others write.
    #[test]
    fn one_tenants_flood_never_evicts_anothers_share(
        flood in prop::collection::vec((0_u8..3, 0_u8..40), 100..1_500),
        calm in prop::collection::vec(0_usize..1_500, 1..20),
        room_events_min in 0_usize..8,
    ) {
        // Four tenants in a ring for 100 events: 24 each, with the hundredth that is freed at a time.
        let mut ring = Ring::new(limits(100, room_events_min), 1);
        let mut calm_seqs = Vec::new();
        for (seq, (number, (tenant, room))) in (1..).zip(flood.iter().enumerate().flat_map(|(n, what)| {
            let calm = calm.iter().filter(move |at| **at == n).map(move |_| (n, (9, 0)));
            calm.chain(std::iter::once((n, *what)))
        })) {
            let name = if tenant == 9 { "calm".to_owned() } else { format!("loud{tenant}") };
            push(&mut ring, &name, &format!("r{room}"), seq);
            if tenant == 9 {
                calm_seqs.push(seq);
            }
            prop_assert_eq!(held(&ring, "calm.r0"), calm_seqs.clone(), "after {}", number);
        }
        prop_assert_eq!(ring.covers_from("calm.r0"), 1);
    }
}

#[test]
fn forms_made_of_events_are_charged() {
    let limits = limits(100, 0);
    let mut ring = Ring::new(limits, 1);
    for seq in 1..=100 {
        push(&mut ring, "main", "a", seq);
    }
    assert_eq!(ring.events(), 100);
    ring.beside(limits.bytes_max / 2);
    assert!((40..=50).contains(&ring.events()), "{}", ring.events());
    ring.beside(0);
    let made = |ring: &Ring| -> usize { ring.after("main.a", 0).map(|event| event.made_bytes()).sum() };
    assert_eq!(made(&ring), 0);
    for event in ring.after("main.a", 0) {
        let made = [Encoding::Protobuf, Encoding::Sse].map(|encoding| event.frame(encoding).len());
        assert_eq!(event.made_bytes(), made.iter().sum::<usize>());
    }
    let bytes = made(&ring);
    assert!(bytes > 49 * 200);
    // Pushing out gives back what was made of it as well.
    let before = ring.events();
    ring.beside(bytes);
    for seq in 101..=200 {
        push(&mut ring, "main", "a", seq);
    }
    assert!(ring.events() > before, "{}", ring.events());
    assert!(ring.bytes() + made(&ring) <= limits.bytes_max);
}
