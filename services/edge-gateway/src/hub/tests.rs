mod model;

use std::sync::mpsc::{Receiver, channel};

use roomcast_access::{Policy, Principal, Subscribe};
use roomcast_proto::ids::{Audience, Room, Tenant};
use roomcast_proto::subject;
use tokio::sync::mpsc;

use super::*;
use crate::delivery::Kind;
use crate::spine::Cause;

const POLICY: &str = "version: 1\nroles:\n  staff: { permissions: [see] }\nrooms:\n  - { room: a, subscribe: see }\n  - { room: b, subscribe: see }\n";

fn permit(room: &str) -> Subscribe {
    let rights = Policy::parse(POLICY, "policy.yaml").unwrap().rights(&Principal {
        tenant: Tenant::default(),
        subject: "u1".into(),
        roles: vec!["staff".to_owned()],
        claims: serde_json::Map::new(),
        expires_at: i64::MAX,
        issued_at: None,
        token_id: None,
    });
    rights.subscribe(&Room::parse(room).unwrap()).unwrap()
}

fn message(subject: String) -> Incoming {
    Incoming {
        subject,
        expires_millis: None,
        withdrawn: false,
        payload: bytes::Bytes::from_static(b"{}"),
        trail: None,
    }
}

fn event(room: &str) -> Incoming {
    message(subject::event(
        &Tenant::default(),
        &Room::parse(room).unwrap(),
        &Audience::all(),
    ))
}

fn value(room: &str, key: &str) -> Incoming {
    message(subject::state(
        &Tenant::default(),
        &Room::parse(room).unwrap(),
        &Audience::all(),
        key,
    ))
}

/// A hub at the beginning of two empty streams, and what its only shard is told.
fn hub() -> (Arc<Hub>, Receiver<ToShard>) {
    hub_with(HubSettings::default())
}

fn hub_with(settings: HubSettings) -> (Arc<Hub>, Receiver<ToShard>) {
    let policy = Policy::parse(POLICY, "policy.yaml").unwrap();
    let metrics = Metrics::new("test").unwrap();
    let hub = Hub::new(settings, Box::new(move |name| policy.audience(name)), &metrics).unwrap();
    let (tell, told) = channel();
    hub.attach(Box::new(move |message| drop(tell.send(message))));
    hub.reset_state("s", 1, None);
    hub.reset_events("e", 1, 1, None);
    hub.open();
    (hub, told)
}

/// Answers reads of state as if the rooms were empty.
fn load_empty(hub: &Hub) {
    if let Some(mut reads) = hub.take_reads() {
        while let Ok(read) = reads.try_recv() {
            if let Read::State(place) = read {
                hub.loaded(&place.key, hub.life(), Some(Vec::new()));
            }
        }
    }
}

fn waiter(ticket: u64) -> Waiter {
    Waiter { shard: 0, ticket }
}

fn at(hub: &Hub, seq: u64, rev: u64) -> Option<Cursor> {
    Some(Cursor {
        epoch: hub.epoch().unwrap(),
        position: Position { seq, rev },
        time_bits: 0,
    })
}

fn recovered(hub: &Hub, room: &str, from: Option<Cursor>, now_millis: i64) -> Recovered {
    match hub.recover(&permit(room), from, waiter(9), now_millis) {
        Recovery::Done(recovered) => recovered,
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_cursor_says_more_than_was_delivered() {
    let (hub, told) = hub();
    assert!(matches!(
        hub.recover(&permit("a"), None, waiter(1), 0),
        Recovery::Wait
    ));
    load_empty(&hub);
    assert!(matches!(told.try_recv(), Ok(ToShard::Ready { ticket: 1 })));
    hub.event(1, 1_000, &event("a"), false);
    hub.state_value(1, 1_000, &value("a", "k"));
    hub.event(2, 2_000, &event("a"), false);
    hub.event(3, 3_000, &event("b"), false);
    let live: Vec<Position> = told
        .try_iter()
        .filter_map(|told| match told {
            ToShard::Deliver(delivery) => delivery.cursor().map(|cursor| cursor.position),
            _ => None,
        })
        .collect();
    let position = |seq, rev| Position { seq, rev };
    assert_eq!(
        live,
        [position(1, 0), position(1, 1), position(2, 1), position(3, 1)]
    );
    let back = recovered(&hub, "a", at(&hub, 0, 0), 0);
    let cursors: Vec<Position> = back
        .events
        .iter()
        .map(|event| event.cursor().unwrap().position)
        .collect();
    // Live, event 2 came after value 1; replayed, it comes before it.
    assert_eq!(cursors, [position(1, 0), position(2, 0)]);
    assert_eq!((back.state.len(), back.head.position), (1, position(3, 1)));
    let later = recovered(&hub, "a", at(&hub, 1, 1), 0);
    assert_eq!(
        later.events[0].cursor().unwrap().position,
        position(2, 1),
        "no state is missed: shared as it is"
    );
    let fresh = recovered(&hub, "a", None, 0);
    assert_eq!(
        (fresh.recovery, fresh.events.len(), fresh.state.len()),
        (Outcome::Fresh, 0, 1)
    );
}

#[test]
fn a_room_that_cannot_be_read_is_refused_in_time() {
    let (hub, told) = hub();
    assert!(matches!(
        hub.recover(&permit("a"), None, waiter(4), 1_000),
        Recovery::Wait
    ));
    hub.tick(5_999, 0);
    assert!(told.try_recv().is_err());
    hub.tick(6_000, 0);
    assert!(matches!(told.try_recv(), Ok(ToShard::Ready { ticket: 4 })));
    assert!(matches!(
        hub.recover(&permit("a"), None, waiter(4), 6_000),
        Recovery::Unavailable
    ));
}

#[test]
fn a_cursor_beyond_the_end_waits_for_it() {
    let (hub, told) = hub();
    assert!(matches!(
        hub.recover(&permit("a"), None, waiter(1), 0),
        Recovery::Wait
    ));
    load_empty(&hub);
    let _ = told.try_iter().count();
    assert!(matches!(
        hub.recover(&permit("a"), at(&hub, 2, 0), waiter(2), 0),
        Recovery::Wait
    ));
    hub.event(1, 1_000, &event("b"), false);
    assert!(told.try_iter().all(|told| !matches!(told, ToShard::Ready { .. })));
    hub.event(2, 2_000, &event("a"), false);
    assert!(
        told.try_iter()
            .any(|told| matches!(told, ToShard::Ready { ticket: 2 }))
    );
    assert_eq!(
        recovered(&hub, "a", at(&hub, 2, 0), 1).recovery,
        Outcome::Complete
    );
}

/// The stream is read past what has come live: given out now, a value would come again, and an older one of its key after it.
#[test]
fn what_a_read_saw_before_it_came_live_is_given_once() {
    let (hub, told) = hub();
    let ask = |ticket| hub.recover(&permit("a"), None, waiter(ticket), 0);
    assert!(matches!(ask(1), Recovery::Wait));
    let read = hub.old_value(3, 0, &value("a", "k")).unwrap();
    hub.loaded(&"main.a".into(), hub.life(), Some(vec![read]));
    let ready = |ticket| {
        let is = |message: &ToShard| matches!(message, ToShard::Ready { ticket: of } if *of == ticket);
        told.try_iter().filter(is).count()
    };
    assert_eq!(ready(1), 1);
    assert!(matches!(ask(1), Recovery::Wait));
    hub.state_value(2, 0, &value("a", "k"));
    assert_eq!(ready(1), 0);
    assert!(matches!(ask(2), Recovery::Wait));
    hub.skip_state(3);
    assert_eq!(
        ready(1),
        1,
        "it is skipped: another one of its key has come since"
    );
    match ask(1) {
        Recovery::Done(recovered) => {
            let given: Vec<u64> = recovered.state.iter().map(|value| value.position.rev).collect();
            assert_eq!((given, recovered.head.position.rev), (vec![3], 3));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn silence_is_told_once_and_ends_in_closing() {
    let (hub, told) = hub();
    hub.answered(1_000);
    for uptime in [1_000, 5_999, 6_000, 6_100, 10_999, 11_000, 11_100] {
        hub.tick(100_000 + uptime, uptime);
    }
    assert!(hub.accepting().is_err());
    hub.answered(12_000);
    hub.tick(112_000, 12_000);
    let told: Vec<String> = told.try_iter().map(|told| format!("{told:?}")).collect();
    let expected = [
        "Status { stale: true, since_millis: 101000 }",
        "CloseAll",
        "Status { stale: false, since_millis: 112000 }",
    ];
    assert_eq!(told, expected);
    assert_eq!(hub.accepting(), Ok(()));
}

/// How somebody begins who comes back to room `a` with all events and the state up to `rev`. What is read is empty.
fn begun(hub: &Hub, reads: &mut mpsc::Receiver<Read>, rev: u64) -> Outcome {
    match hub.recover(&permit("a"), at(hub, 0, rev), waiter(7), 0) {
        Recovery::Done(recovered) => recovered.recovery,
        Recovery::Wait => {
            while let Ok(read) = reads.try_recv() {
                if let Read::State(place) = read {
                    hub.loaded(&place.key, hub.life(), Some(Vec::new()));
                }
            }
            recovered(hub, "a", at(hub, 0, rev), 0).recovery
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stream_of_state_that_is_made_anew_has_forgotten_nothing_yet() {
    let (hub, told) = hub();
    let mut reads = hub.take_reads().unwrap();
    hub.skip_state(6_000);
    hub.kept_state(5_000);
    assert_eq!(
        begun(&hub, &mut reads, 10),
        Outcome::Incomplete { reason: Gap::Expired }
    );
    hub.reset_state("another", 1, Some(Cause::Recreated));
    assert!(told.try_iter().any(|message| matches!(message, ToShard::Reset)));
    hub.state_value(1, 1_000, &value("a", "k"));
    hub.event(1, 1_000, &event("a"), false);
    assert_eq!(begun(&hub, &mut reads, 1), Outcome::Complete);
}

#[test]
fn nobody_goes_on_from_values_that_were_lost() {
    let (hub, _told) = hub();
    let mut reads = hub.take_reads().unwrap();
    hub.skip_state(1_000);
    let mut lives = vec![hub.epoch().unwrap()];
    // It loses its end twice, and comes back to where it was.
    for next in [901, 801] {
        hub.reset_state("s", next, Some(Cause::Regressed));
        lives.push(hub.epoch().unwrap());
        hub.state_value(next, 1_000, &value("a", "k"));
        assert_eq!(begun(&hub, &mut reads, next), Outcome::Complete, "{next}");
    }
    hub.skip_state(2_000);
    let life = lives.pop().unwrap();
    for (rev, epoch) in [
        (800, lives[0]),
        (950, lives[0]),
        (1_000, lives[0]),
        (901, lives[1]),
    ] {
        assert_ne!(epoch, life);
        let from = at(&hub, 0, rev).map(|cursor| Cursor { epoch, ..cursor });
        let outcome = recovered(&hub, "a", from, 0).recovery;
        assert_eq!(outcome, Outcome::Incomplete { reason: Gap::Epoch }, "{rev}");
    }
    assert_eq!(begun(&hub, &mut reads, 1_000), Outcome::Complete);
}

/// A room is being read when the stream is made anew: what comes live from then on is kept, whenever the reading ends.
#[test]
fn a_room_that_is_wanted_while_its_stream_is_made_anew_keeps_what_comes_live() {
    let (hub, _told) = hub();
    let mut reads = hub.take_reads().unwrap();
    assert!(matches!(
        hub.recover(&permit("a"), None, waiter(1), 0),
        Recovery::Wait
    ));
    hub.reset_state("another", 1, Some(Cause::Recreated));
    // Somebody else wants it, who is not the first.
    assert!(matches!(
        hub.recover(&permit("a"), None, waiter(2), 0),
        Recovery::Wait
    ));
    let Ok(Read::State(place)) = reads.try_recv() else {
        panic!("a read");
    };
    hub.state_value(1, 1_000, &value("a", "k"));
    // The server had answered before that value.
    hub.loaded(&place.key, hub.life(), Some(Vec::new()));
    assert_eq!(recovered(&hub, "a", None, 0).state.len(), 1);
}

#[test]
fn a_change_of_policy_decides_audiences_again() {
    let known = Arc::new(AtomicBool::new(false));
    let (asked, policy) = (Arc::clone(&known), Policy::parse(POLICY, "policy.yaml").unwrap());
    let lookup: AudienceLookup =
        Box::new(move |name| policy.audience(name).filter(|_| asked.load(Ordering::Relaxed)));
    let hub = Hub::new(HubSettings::default(), lookup, &Metrics::new("test").unwrap()).unwrap();
    hub.reset_state("s", 1, None);
    hub.reset_events("e", 1, 1, None);
    assert!(matches!(
        hub.recover(&permit("a"), None, waiter(1), 0),
        Recovery::Wait
    ));
    load_empty(&hub);
    hub.event(1, 1_000, &event("a"), false);
    assert!(recovered(&hub, "a", at(&hub, 0, 0), 0).events.is_empty());
    known.store(true, Ordering::Relaxed);
    hub.policy_changed();
    assert_eq!(recovered(&hub, "a", at(&hub, 0, 0), 0).events.len(), 1);
}

/// Two writers hand out while somebody comes back again and again: what is recovered and what comes live after the cut is
/// everything, once, in order.
#[test]
fn a_cut_and_what_follows_it_is_everything_once() {
    const EVENTS: u64 = 4_000;
    let (hub, told) = hub();
    assert!(matches!(
        hub.recover(&permit("a"), None, waiter(1), 0),
        Recovery::Wait
    ));
    load_empty(&hub);
    let writers = [
        std::thread::spawn({
            let hub = Arc::clone(&hub);
            move || (1..=EVENTS).for_each(|seq| hub.event(seq, 1_000, &event("a"), false))
        }),
        std::thread::spawn({
            let hub = Arc::clone(&hub);
            move || {
                (1..=EVENTS).for_each(|rev| hub.state_value(rev, 1_000, &value("a", &(rev % 7).to_string())))
            }
        }),
    ];
    let mut cuts = Vec::new();
    while cuts
        .last()
        .is_none_or(|cut: &Recovered| cut.head.position.seq < EVENTS)
        && cuts.len() < 300
    {
        cuts.push(recovered(&hub, "a", at(&hub, 0, 0), 0));
        std::thread::yield_now();
    }
    for writer in writers {
        writer.join().unwrap();
    }
    let live: Vec<Arc<Delivery>> = told
        .try_iter()
        .filter_map(|told| match told {
            ToShard::Deliver(delivery) => Some(delivery),
            _ => None,
        })
        .collect();
    let all: Vec<u64> = (1..=EVENTS).collect();
    for cut in cuts {
        let head = cut.head.position;
        let after = live
            .iter()
            .filter(|event| event.kind == Kind::Event && event.position.seq > head.seq);
        let seen: Vec<u64> = cut
            .events
            .iter()
            .chain(after)
            .map(|event| event.position.seq)
            .collect();
        assert_eq!(seen, all);
        // Whatever arrives before a value of the cut must not claim it.
        assert!(
            cut.events
                .iter()
                .all(|event| cut.state.is_empty() || event.cursor().unwrap().position.rev == 0)
        );
        let newest = cut
            .state
            .iter()
            .map(|value| value.position.rev)
            .max()
            .unwrap_or(0);
        assert_eq!(newest, head.rev);
    }
    let mut before = Position::default();
    for delivery in live {
        let position = delivery.position;
        assert!(
            position.seq >= before.seq && position.rev >= before.rev,
            "{before:?} then {position:?}"
        );
        before = position;
    }
}

/// A shard is behind the cache: what holds there now may be newer than the withdrawal that it is writing.
#[test]
fn a_withdrawal_shows_what_held_before_it_and_never_what_came_after() {
    let (hub, told) = hub();
    let permit = permit("a");
    assert!(matches!(hub.recover(&permit, None, waiter(1), 0), Recovery::Wait));
    load_empty(&hub);
    let of = |audience: &str, withdrawn| Incoming {
        withdrawn,
        ..message(subject::state(
            &Tenant::default(),
            &Room::parse("a").unwrap(),
            &Audience::parse(audience).unwrap(),
            "k",
        ))
    };
    hub.state_value(1, 0, &of("staff", false));
    hub.state_value(2, 0, &of("all", true));
    let delivered = told.try_iter().filter_map(|message| match message {
        ToShard::Deliver(delivery) => Some(delivery),
        _ => None,
    });
    let withdrawn = delivered.last().unwrap();
    let is_withdrawn = |delivery: &Delivery| matches!(delivery.kind, Kind::State { withdrawn: true, .. });
    assert!(is_withdrawn(&withdrawn));
    assert!(!is_withdrawn(
        &hub.resolve_withdrawn(&permit, &withdrawn, 0).unwrap()
    ));
    hub.state_value(3, 0, &of("staff", false));
    assert!(is_withdrawn(
        &hub.resolve_withdrawn(&permit, &withdrawn, 0).unwrap()
    ));
}

/// Clients who come back from before what is in memory, all from somewhere near, some while the room is read for others.
struct Storm {
    hub: Arc<Hub>,
    told: Receiver<ToShard>,
    reads: tokio::sync::mpsc::Receiver<Read>,
    stored: u64,
}

impl Storm {
    fn new() -> Self {
        let (hub, told) = hub_with(HubSettings {
            ring_bytes_max: 32 << 10,
            ring_room_events_min: 1,
            ..HubSettings::default()
        });
        let _ = hub.recover(&permit("a"), None, waiter(0), 0);
        let mut reads = hub.take_reads().unwrap();
        while let Ok(Read::State(place)) = reads.try_recv() {
            hub.loaded(&place.key, hub.life(), Some(Vec::new()));
        }
        Self {
            hub,
            told,
            reads,
            stored: 0,
        }
    }

    fn write(&mut self, count: u64) {
        for seq in self.stored + 1..=self.stored + count {
            self.hub.event(seq, 0, &event("a"), false);
        }
        self.stored += count;
    }

    /// Asks; how many events it gets, `None` while they have to be read.
    fn ask(&self, ticket: u64, seq: u64) -> Option<usize> {
        match self
            .hub
            .recover(&permit("a"), at(&self.hub, seq, 0), waiter(ticket), 0)
        {
            Recovery::Done(recovered) => {
                assert_eq!(recovered.recovery, Outcome::Complete);
                let seqs = recovered.events.iter().map(|event| event.position.seq);
                assert_eq!(
                    seqs.collect::<Vec<_>>(),
                    (seq + 1..=self.stored).collect::<Vec<_>>()
                );
                Some(recovered.events.len())
            }
            Recovery::Wait => None,
            other => panic!("{other:?}"),
        }
    }

    /// What is read next, from and to. Places in the line that are not needed any more are passed over.
    fn next_read(&mut self) -> Option<(Arc<str>, u64, u64)> {
        while let Ok(Read::Events(place, _)) = self.reads.try_recv() {
            if let Some(wanted) = self.hub.wanted_part(&place.key) {
                return Some((place.key, wanted.from, wanted.to));
            }
        }
        None
    }

    /// The read is over; who is told to ask again.
    fn answer(&self, (key, from, to): (Arc<str>, u64, u64)) -> Vec<u64> {
        let old = |seq| Arc::new(self.hub.old_event(seq, 0, &event("a")).unwrap());
        let part = Part {
            from,
            to,
            events: (from..=to).map(|seq| (old(seq), 0)).collect(),
            cut: false,
        };
        let _ = self.told.try_iter().count();
        self.hub.read_part(&key, self.hub.life(), Some(part), 0);
        let ready = |told| match told {
            ToShard::Ready { ticket } => Some(ticket),
            _ => None,
        };
        self.told.try_iter().filter_map(ready).collect()
    }
}

#[test]
fn a_room_is_read_once_however_many_waves_of_a_storm_want_it() {
    let mut storm = Storm::new();
    storm.write(2_000);
    // One who was there until event 1,000, while its room is read a second wave, and then a third.
    assert_eq!(storm.ask(1, 1_000), None);
    let first = storm.next_read().unwrap();
    let second = [(2, 1_000), (3, 990), (4, 1_500)];
    assert!(
        second
            .iter()
            .all(|(ticket, seq)| storm.ask(*ticket, *seq).is_none())
    );
    assert_eq!(storm.answer(first), [1, 2, 3, 4]);
    for (ticket, seq) in [(1, 1_000), (2, 1_000), (3, 990), (4, 1_500), (5, 900), (6, 1_999)] {
        assert!(storm.ask(ticket, seq).is_some(), "{ticket} from {seq}");
    }
    assert_eq!(storm.next_read(), None, "the room was read once");
    // The ring moves on: of the third wave only the rest is read, and who was away for longer has only what was before.
    storm.write(1_000);
    assert_eq!(storm.ask(7, 1_000), None);
    let rest = storm.next_read().unwrap();
    assert_eq!((rest.1, rest.2), (2_001, 3_000));
    assert_eq!(storm.answer(rest), [7]);
    assert_eq!(storm.ask(7, 1_000), Some(2_000));
    assert_eq!(storm.ask(8, 100), None);
    let before = storm.next_read().unwrap();
    assert_eq!((before.1, before.2), (1, 500));
    assert_eq!(storm.answer(before), [8]);
    assert_eq!(storm.ask(8, 100), Some(2_900));
    assert_eq!(storm.next_read(), None);
}

/// Whom an event is for is decided when it is read: under another policy it is read again, also what is being read.
#[test]
fn what_was_read_under_another_policy_is_not_given() {
    let mut storm = Storm::new();
    storm.write(1_000);
    assert_eq!(storm.ask(1, 500), None);
    let read = storm.next_read().unwrap();
    assert_eq!(storm.answer(read), [1]);
    assert!(storm.ask(1, 500).is_some());
    storm.hub.policy_changed();
    assert_eq!(storm.ask(1, 500), None);
    let read = storm.next_read().unwrap();
    let before = storm.hub.life();
    storm.hub.policy_changed();
    let _ = storm.told.try_iter().count();
    storm.hub.read_part(
        &read.0,
        before,
        Some(Part {
            from: read.1,
            to: read.2,
            ..Part::default()
        }),
        0,
    );
    assert_eq!(storm.ask(1, 500), None, "it was read for nothing");
}
