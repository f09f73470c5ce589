use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    bytes_max: 100,
    frames_max: 4,
};

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn state(key: &str) -> Class {
    Class::State(StateKey {
        room: Room::parse("a").unwrap(),
        key: key.into(),
    })
}

fn push(outbox: &mut Outbox, text: &str, class: Class) -> Result<GaveWay, Full> {
    outbox.push(bytes(text), 0, class, LIMITS)
}

/// Writes at most `most` bytes and answers what went out.
fn write(outbox: &mut Outbox, most: usize) -> String {
    let mut slices = [IoSlice::new(&[]); 3];
    let filled = outbox.next(&mut slices);
    let all: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
    let out = String::from_utf8(all[..most.min(all.len())].to_vec()).unwrap();
    outbox.wrote(out.len());
    out
}

fn write_all(outbox: &mut Outbox) -> String {
    let mut out = String::new();
    while !outbox.is_empty() {
        out += &write(outbox, 2);
    }
    out
}

#[test]
fn frames_leave_in_order_however_little_is_written() {
    let mut outbox = Outbox::default();
    outbox.push(bytes("first"), 2, Class::Event, LIMITS).unwrap();
    push(&mut outbox, "second", Class::Answer).unwrap();
    assert_eq!(write_all(&mut outbox), "rstsecond");
}

#[test]
fn the_limits_hold_for_live_frames_and_not_for_recovery() {
    let mut outbox = Outbox::default();
    for _ in 0..50 {
        push(&mut outbox, "missed", Class::Recovery).unwrap();
    }
    for _ in 0..4 {
        push(&mut outbox, "live", Class::Event).unwrap();
    }
    assert_eq!(push(&mut outbox, "live", state("k")), Err(Full));
    let mut large = Outbox::default();
    push(&mut large, &"x".repeat(99), Class::Event).unwrap();
    assert_eq!(push(&mut large, "yy", Class::Answer), Err(Full));
    push(&mut large, "y", Class::Answer).unwrap();
}

#[test]
fn only_the_newest_pong_waits() {
    let mut outbox = Outbox::default();
    outbox.push(bytes("head"), 1, Class::Event, LIMITS).unwrap();
    for n in 0..1000 {
        push(&mut outbox, &format!("pong{n}"), Class::Pong).unwrap();
    }
    assert_eq!(outbox.len(), 2);
    assert_eq!(write(&mut outbox, 100), "eadpong999");
}

/// A client that reads nothing while a thousand values of two keys come is left with the newest of each, behind what
/// came before them.
#[test]
fn of_each_key_the_newest_value_waits_at_the_end() {
    let mut outbox = Outbox::default();
    outbox.push(bytes("a0;"), 1, state("a"), LIMITS).unwrap();
    push(&mut outbox, "event;", Class::Event).unwrap();
    let mut gave_way = 0;
    for n in 1..=1000 {
        for key in ["a", "b"] {
            gave_way += push(&mut outbox, &format!("{key}{n};"), state(key))
                .unwrap()
                .state;
        }
        assert!(outbox.entries.len() <= 2 * outbox.len() + GAPS_MIN + 1);
    }
    assert_eq!((gave_way, outbox.len()), (1998, 4));
    // What is half out is ended.
    assert_eq!(write_all(&mut outbox), "0;event;a1000;b1000;");
    assert!(outbox.states.is_empty());
}

#[test]
fn ephemeral_events_give_way_first_and_events_never() {
    let mut outbox = Outbox::default();
    let gone = |state, ephemeral| Ok(GaveWay { state, ephemeral });
    outbox.push(bytes("x1;"), 1, Class::Ephemeral, LIMITS).unwrap();
    push(&mut outbox, "x2;", Class::Ephemeral).unwrap();
    push(&mut outbox, "e1;", Class::Event).unwrap();
    push(&mut outbox, "x3;", Class::Ephemeral).unwrap();
    assert_eq!(push(&mut outbox, "x4;", Class::Ephemeral), gone(0, 1));
    assert_eq!(push(&mut outbox, "e2;", Class::Event), gone(0, 2));
    assert_eq!(push(&mut outbox, "k1;", state("k")), gone(0, 0));
    assert_eq!(push(&mut outbox, "k2;", state("k")), gone(1, 0));
    assert_eq!(push(&mut outbox, "e3;", Class::Event), Err(Full));
    assert_eq!(write_all(&mut outbox), "1;e1;e2;k2;");
    // Also where the first of them is nowhere near the socket yet.
    for n in 0..4 {
        push(&mut outbox, &format!("y{n};"), Class::Ephemeral).unwrap();
    }
    assert_eq!(push(&mut outbox, "e4;", Class::Event), gone(0, 4));
    assert_eq!(write_all(&mut outbox), "e4;");
}

#[test]
fn what_gave_way_is_told_once_and_never_behind_a_note_that_waits() {
    let mut outbox = Outbox::default();
    outbox.push(bytes("x;"), 1, Class::Event, LIMITS).unwrap();
    for n in 0..3 {
        push(&mut outbox, &format!("k{n};"), state("k")).unwrap();
    }
    assert_eq!(
        outbox.take_thinned(),
        GaveWay {
            state: 2,
            ephemeral: 0
        }
    );
    assert_eq!(outbox.take_thinned(), GaveWay::default());
    let nothing_fits = Limits {
        bytes_max: 0,
        frames_max: 0,
    };
    outbox.push(bytes("note;"), 0, Class::Note, nothing_fits).unwrap();
    push(&mut outbox, "k3;", state("k")).unwrap();
    assert_eq!(outbox.take_thinned(), GaveWay::default());
    assert_eq!(write_all(&mut outbox), ";note;k3;");
    assert_eq!(
        outbox.take_thinned(),
        GaveWay {
            state: 1,
            ephemeral: 0
        }
    );
}

#[test]
fn little_is_given_out_at_once() {
    let mut outbox = Outbox::default();
    let limits = Limits {
        bytes_max: usize::MAX,
        frames_max: usize::MAX,
    };
    for _ in 0..40 {
        outbox
            .push(bytes(&"x".repeat(1000)), 0, Class::Event, limits)
            .unwrap();
    }
    let mut slices = [IoSlice::new(&[]); 64];
    assert_eq!(outbox.next(&mut slices), NEXT_BYTES.div_ceil(1000));
}

#[test]
fn abandoning_keeps_what_is_half_out() {
    let mut outbox = Outbox::default();
    outbox.push(bytes("half"), 2, Class::Event, LIMITS).unwrap();
    push(&mut outbox, "rest", state("k")).unwrap();
    outbox.abandon();
    assert_eq!(write(&mut outbox, 100), "lf");
    for frame in ["a", "b", "c"] {
        push(&mut outbox, frame, Class::Event).unwrap();
    }
    push(&mut outbox, "d", state("k")).unwrap();
    outbox.abandon();
    assert!(outbox.is_empty() && outbox.states.is_empty());
    assert_eq!((outbox.bytes(), outbox.frames, outbox.gaps), (0, 0, 0));
}

/// What a frame is to the test below: the number of a key, or not.
fn class_of(kind: u8) -> Class {
    match kind {
        0 => Class::Answer,
        1 | 2 => Class::Event,
        3 => Class::Recovery,
        4 => Class::Ephemeral,
        key => state(&key.to_string()),
    }
}

proptest! {
    /// Events, answers and recovery leave in their order, all of them. Of a key no value comes after a newer one, the
    /// newest comes, and a frame is overtaken only by the newest: whoever is cut off behind any frame, and asks for what
    /// changed after it, has every value.
    #[test]
    fn nothing_is_lost_but_what_may_be(steps in prop::collection::vec((0_u8..9, 1_usize..40), 0..120)) {
        let limits = Limits { bytes_max: 400, frames_max: 16 };
        let (mut outbox, mut pushed, mut out) = (Outbox::default(), Vec::new(), String::new());
        for (n, (kind, size)) in steps.into_iter().enumerate() {
            if kind == 8 {
                out += &write(&mut outbox, size);
            } else {
                let result = outbox.push(bytes(&format!("{n:>size$};")), 0, class_of(kind), limits);
                // A client that is too slow is closed.
                if result.is_err() {
                    break;
                }
                pushed.push((n, kind));
            }
            let counted = || outbox.entries.iter().flatten().filter(|entry| entry.counts());
            prop_assert_eq!(outbox.frames, counted().count());
            prop_assert_eq!(outbox.bytes, counted().map(|entry| entry.frame.len()).sum::<usize>());
            prop_assert_eq!(outbox.gaps, outbox.entries.iter().filter(|entry| entry.is_none()).count());
            prop_assert!(outbox.frames <= limits.frames_max && outbox.bytes <= limits.bytes_max);
            prop_assert!(!matches!(outbox.entries.front(), Some(None)));
        }
        while !outbox.is_empty() {
            out += &write(&mut outbox, 1000);
        }
        prop_assert!(outbox.states.is_empty() && outbox.ephemerals == 0 && outbox.gaps == 0);
        let sent: Vec<usize> = out.split_terminator(';').map(|n| n.trim().parse().unwrap()).collect();
        prop_assert!(sent.is_sorted());
        for (n, kind) in &pushed {
            let newer = pushed.iter().any(|(m, other)| m > n && other == kind);
            match kind {
                0..=3 => prop_assert!(sent.contains(n)),
                4 => {}
                _ => prop_assert!(newer || sent.contains(n), "the newest value of {kind} is not sent"),
            }
        }
        for cut in &sent {
            for key in 5..8 {
                let last = pushed.iter().rfind(|(n, kind)| *kind == key && n <= cut);
                let newer = pushed.iter().any(|(n, kind)| *kind == key && n > cut);
                prop_assert!(newer || last.is_none_or(|(n, _)| sent.contains(n)));
            }
        }
    }
}
