//! Events, as publishers send them.

use roomcast_proto::event::{Completion, Draft, Event, View};
use roomcast_proto::ids::{Audience, Room, Tenant};
use roomcast_proto::limits::{BATCH_EVENTS_MAX, EVENT_BYTES_MAX};

const NOW_MICROS: i64 = 1_790_000_000_000_000;

/// What is accepted is bounded, is stored as JSON that reads as the same event, and hashes the same when it comes again.
pub fn check(bytes: &[u8]) {
    if let Ok(elements) = Draft::parse_batch(bytes) {
        assert!((1..=BATCH_EVENTS_MAX).contains(&elements.len()));
        for (range, element) in elements {
            let own = bytes.get(range).expect("a range of the request");
            assert_eq!(
                element.is_ok(),
                Draft::parse(own).is_ok(),
                "alone and in a batch it is the same"
            );
        }
    }
    let Some(event) = completed(bytes) else { return };
    assert!(bytes.len() <= EVENT_BYTES_MAX);
    let stored = event.to_json();
    View::parse(&stored).expect("what is stored is an event");
    // Attributes that were filled in may bring it over the limit; then it is refused when it comes again.
    let Some(again) = completed(&stored) else {
        assert!(
            stored.len() > EVENT_BYTES_MAX,
            "{}",
            String::from_utf8_lossy(&stored)
        );
        return;
    };
    assert_eq!(again.to_json(), stored);
    assert_eq!((&again.id, again.time_micros), (&event.id, event.time_micros));
}

fn completed(bytes: &[u8]) -> Option<Event> {
    let (tenant, room, audience) = (Tenant::default(), Room::parse("a").ok()?, Audience::all());
    let draft = Draft::parse(bytes).ok()?;
    let free = Completion {
        tenant: &tenant,
        publisher: "fuzz",
        room: None,
        audience: None,
        now_micros: NOW_MICROS,
    };
    let by_subject = Completion {
        room: Some(&room),
        audience: Some(&audience),
        ..free.clone()
    };
    let again = Draft::parse(bytes).ok()?;
    draft
        .complete(&free)
        .or_else(|_| again.complete(&by_subject))
        .ok()
}
