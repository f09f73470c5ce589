use proptest::prelude::*;
use roomcast_proto::cursor::Epoch;
use serde_json::{Value, json};

use super::*;

const PAGE_BYTES_MAX: usize = 256 * 1024;

fn note(rev: u64, priority: &str, kind: &str) -> Note {
    let event = json!({
        "id": format!("n{rev}"), "source": "/s", "type": kind, "time": "2026-01-31T14:05:00Z", "priority": priority,
        "data": { "title": "t" },
    });
    read(
        event.to_string().into(),
        Room::parse("hall").unwrap(),
        (rev, stored(rev)),
    )
    .unwrap()
}

/// When the notification at this position was stored.
fn stored(rev: u64) -> i64 {
    1_800_000_000_000 + i64::try_from(rev).unwrap() * 1_000
}

fn marks(all: &[(u64, Level)]) -> ReadState {
    let mut state = ReadState::default();
    for (rev, level) in all {
        let id = format!("n{rev}");
        state.mark(*level, &[Marking { id, at: 5 }]);
    }
    state
}

fn ids(shown: &[&Note]) -> Vec<u64> {
    shown.iter().map(|note| note.rev).collect()
}

#[test]
fn only_notifications_are_read_and_their_keys_are_known_without_reading() {
    let room = Room::parse("hall").unwrap();
    for strange in [
        "",
        "[]",
        "{}",
        r#"{"id":"1","source":"/s","type":"metric","time":"2026-01-31T14:05:00Z"}"#,
    ] {
        assert!(read(strange.into(), room.clone(), (1, 0)).is_none(), "{strange}");
    }
    let found = note(3, "high", "notification.alert");
    assert_eq!((found.at, found.priority), (stored(3), Priority::High));
    for (key, may_be) in [
        ("notification/k", true),
        ("notifications", false),
        ("sum", false),
        (&*format!("notification/{}", "x".repeat(200)), true),
    ] {
        assert_eq!(may_be_one(&roomcast_proto::ids::escape(key)), may_be, "{key}");
    }
}

#[test]
fn pages_go_back_in_time_and_show_what_the_filter_asks_for() {
    let notes = newest(vec![
        note(1, "low", "notification.a"),
        note(4, "critical", "notification.a"),
        note(2, "high", "notification.b"),
        note(3, "medium", "notification.a"),
    ]);
    let state = marks(&[(4, Level::Seen), (3, Level::Archived), (2, Level::Read)]);
    let rows: [(Value, Option<u64>, usize, &[u64]); 10] = [
        (json!({}), None, 10, &[4, 2, 1]),
        (json!({ "archived": true }), None, 10, &[4, 3, 2, 1]),
        (json!({}), None, 2, &[4, 2]),
        (json!({}), Some(2), 2, &[1]),
        (json!({}), Some(1), 2, &[]),
        (json!({ "unread": true }), None, 10, &[4, 1]),
        (json!({ "type": "notification.b" }), None, 10, &[2]),
        (
            json!({ "priority": ["low", "critical", "none"] }),
            None,
            10,
            &[4, 1],
        ),
        (json!({ "room": "hall" }), None, 10, &[4, 2, 1]),
        (json!({ "room": "other" }), None, 10, &[]),
    ];
    for (filter, before, limit, expected) in rows {
        let read: Filter = serde_json::from_value(filter.clone()).unwrap();
        let shown = page(&notes, &state, before, limit, PAGE_BYTES_MAX, &read);
        assert_eq!(ids(&shown), expected, "{filter} {before:?} {limit}");
    }
    assert_eq!(mark_of(&notes[0], &state).unwrap().r#as, "seen");
    assert_eq!(mark_of(&notes[3], &state), None);
}

/// A record that is full keeps the newest marks: those of what is seen, whatever time its publishers say.
#[test]
fn what_is_shown_can_be_marked_however_old_it_says_it_is() {
    let mut state = ReadState::default();
    for rev in 1..=2_000 {
        let id = format!("{rev}-{}", "x".repeat(60));
        state.mark(Level::Read, &[Marking { id, at: stored(rev) }]);
    }
    for (rev, time) in [(2_001, "1970-01-01T00:00:00Z"), (2_002, "9000-01-01T00:00:00Z")] {
        let event = json!({ "id": format!("n{rev}"), "source": "/s", "type": "notification.a", "time": time, "data": { "title": "t" } });
        let room = Room::parse("hall").unwrap();
        let shown = [read(event.to_string().into(), room, (rev, stored(rev))).unwrap()];
        assert!(is_unread(&shown[0], &state));
        state.mark(Level::Read, &marked(&shown, &Which::Ids(vec![format!("n{rev}")])));
        assert!(!is_unread(&shown[0], &state), "{time}");
    }
}

#[test]
fn groups_are_counted_over_all_pages_and_as_the_filter_says() {
    /// A filter, the groups (name, total, unread) and the notifications that it shows.
    type Row<'a> = (Value, &'a [(&'a str, u32, u32)], &'a [u64]);
    let in_group = |rev: u64, group: Option<&str>| {
        let event = json!({
            "id": format!("n{rev}"), "source": "/s", "type": "notification.a", "time": "2026-01-31T14:05:00Z",
            "data": { "title": "t", "group": group },
        });
        read(
            event.to_string().into(),
            Room::parse("hall").unwrap(),
            (rev, stored(rev)),
        )
        .unwrap()
    };
    let notes = newest(vec![
        in_group(1, Some("late")),
        in_group(2, None),
        in_group(3, Some("new")),
        in_group(4, Some("late")),
        in_group(5, Some("late")),
    ]);
    let state = marks(&[(5, Level::Read), (1, Level::Archived)]);
    let rows: [Row<'_>; 4] = [
        (json!({}), &[("late", 2, 1), ("new", 1, 1)], &[5, 4, 3, 2]),
        (
            json!({ "archived": true }),
            &[("late", 3, 1), ("new", 1, 1)],
            &[5, 4, 3, 2, 1],
        ),
        (
            json!({ "unread": true }),
            &[("late", 1, 1), ("new", 1, 1)],
            &[4, 3, 2],
        ),
        (json!({ "group": "new" }), &[("new", 1, 1)], &[3]),
    ];
    for (filter, expected, shown) in rows {
        let read: Filter = serde_json::from_value(filter.clone()).unwrap();
        let found = groups(&notes, &state, &read);
        let found: Vec<_> = found
            .iter()
            .map(|group| (&*group.group, group.total, group.unread))
            .collect();
        assert_eq!(found, expected, "{filter}");
        assert_eq!(
            ids(&page(&notes, &state, None, 10, usize::MAX, &read)),
            shown,
            "{filter}"
        );
    }
}

#[test]
fn a_page_ends_before_it_is_too_long() {
    let mut notes: Vec<Note> = (0..8).map(|rev| note(rev, "low", "notification.a")).collect();
    for note in &mut notes {
        note.event = vec![b'x'; 60 * 1024].into();
    }
    assert_eq!(
        page(
            &notes,
            &ReadState::default(),
            None,
            8,
            PAGE_BYTES_MAX,
            &Filter::default()
        )
        .len(),
        4
    );
    notes[0].event = vec![b'x'; 2 * PAGE_BYTES_MAX].into();
    assert_eq!(
        page(
            &notes,
            &ReadState::default(),
            None,
            8,
            PAGE_BYTES_MAX,
            &Filter::default()
        )
        .len(),
        1
    );
}

#[test]
fn what_clients_say_is_read_strictly() {
    let place = Cursor {
        epoch: Epoch::of_streams("a", "b"),
        position: Position { seq: 1, rev: 2 },
        time_bits: 0,
    };
    let cursor = |text: &str| (text == "good").then_some(place);
    let mark = |ids: &[&str], up_to: Option<&str>, level: &str| MarkFrame {
        ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        up_to: up_to.map(str::to_owned),
        r#as: level.to_owned(),
    };
    let many = vec!["a"; MARKS_AT_ONCE_MAX + 1];
    for (frame, pointer) in [
        (mark(&["a"], None, "read"), None),
        (mark(&[], None, "seen"), None),
        (mark(&[], Some("good"), "archived"), None),
        (mark(&["a"], Some("good"), "read"), Some("/mark")),
        (mark(&[], Some("bad"), "read"), Some("/mark/upTo")),
        (mark(&["a"], None, ""), Some("/mark/as")),
        (mark(&many, None, "read"), Some("/mark/ids")),
    ] {
        let read = Want::mark(frame.clone(), cursor);
        let found = read.as_ref().err().and_then(|refusal| refusal.pointer.as_deref());
        assert_eq!(found, pointer, "{frame:?}");
    }
    let query = |before: Option<&str>, limit: u32, filter: &str| FeedQuery {
        before: before.map(str::to_owned),
        limit,
        filter: filter.to_owned().into(),
    };
    for (frame, expected) in [
        (query(None, 0, ""), Ok(50)),
        (query(Some("good"), 7, "null"), Ok(7)),
        (query(None, u32::MAX, "{}"), Ok(200)),
        (query(Some("bad"), 7, ""), Err("/feed/before")),
        (query(None, 7, "[]"), Err("/feed/filter")),
        (query(None, 7, r#"{"unread":1}"#), Err("/feed/filter")),
    ] {
        let read = Want::page(&frame, cursor);
        let found = match &read {
            Ok(Want::Page { limit, .. }) => Ok(*limit),
            Ok(Want::Mark { .. }) => Ok(0),
            Err(refusal) => Err(refusal.pointer.as_deref().unwrap_or_default()),
        };
        assert_eq!(found, expected, "{frame:?}");
    }
}

proptest! {
    /// Counters are what a plain count says, whatever is marked; and only what a user sees can be marked.
    #[test]
    fn counters_are_a_count(
        priorities in prop::collection::vec(0..4_usize, 0..260),
        marked_revs in prop::collection::vec((0..300_u64, 0..3_usize), 0..60),
        up_to in 0..300_u64,
    ) {
        let names = ["critical", "high", "medium", "low"];
        let levels = [Level::Seen, Level::Read, Level::Archived];
        let all = priorities.iter().enumerate();
        let notes = newest(all.map(|(rev, priority)| note(rev as u64, names[*priority], "notification.a")).collect());
        prop_assert_eq!(notes.len(), priorities.len().min(NOTIFICATIONS_MAX));
        let state = marks(&marked_revs.iter().map(|(rev, level)| (*rev, levels[*level])).collect::<Vec<_>>());
        let found = counters(&notes, &state, 1_000);
        let unread = |rev: usize| !marked_revs.iter().any(|(marked, level)| *marked == rev as u64 && *level > 0);
        let seen = priorities.len().saturating_sub(NOTIFICATIONS_MAX)..priorities.len();
        let expected = |priority: usize| {
            let counted = seen.clone().filter(|rev| priorities[*rev] == priority && unread(*rev));
            u32::try_from(counted.count()).unwrap()
        };
        prop_assert_eq!([found.critical, found.high, found.medium, found.low], [0, 1, 2, 3].map(expected));
        prop_assert_eq!(found.unread, found.critical + found.high + found.medium + found.low);
        prop_assert_eq!(found.version, 1_000 + state.version);

        let head = Cursor { epoch: Epoch::of_streams("a", "b"), position: Position { seq: 0, rev: up_to }, time_bits: 0 };
        let all = marked(&notes, &Which::UpTo(head));
        prop_assert_eq!(all.len(), seen.clone().filter(|rev| *rev as u64 <= up_to).count());
        let asked: Vec<String> = marked_revs.iter().map(|(rev, _)| format!("n{rev}")).collect();
        for marking in marked(&notes, &Which::Ids(asked)) {
            prop_assert!(notes.iter().any(|note| note.id == marking.id));
        }
    }
}
