use bytes::{BufMut, BytesMut};
use serde_json::Value;

use super::*;

const MAPPING: &str = "version: 1\nsource: shop\noutbox: outbox\ntables:\n  - { table: t, room: r, audience: all, types: { insert: t:new, \
                       truncate: t:none }, columns: all, where: data.row.v != 'hidden' }\n";

fn follow(from: From) -> Follow {
    let mapping = Arc::new(Mapping::parse(MAPPING, "m.yaml", None).unwrap());
    let mut follow = Follow::new(mapping, Timelines::new(1, ""), from);
    for message in [
        described(1, "t", &T),
        described(
            2,
            "outbox",
            &[("id", 20, 1), ("type", 25, 0), ("room", 25, 0), ("data", 3802, 0)],
        ),
        described(3, "other", &[("id", 23, 1)]),
    ] {
        let mut items = Vec::new();
        follow.message(message, &mut items).unwrap();
        assert!(items.is_empty());
    }
    follow
}

/// Columns of the table `t`.
const T: [(&str, u32, u8); 2] = [("id", 23, 1), ("v", 25, 0)];

fn described(oid: u32, name: &str, columns: &[(&str, u32, u8)]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(b'R');
    out.put_u32(oid);
    out.put_slice(b"public\0");
    out.put_slice(name.as_bytes());
    out.put_slice(b"\0d");
    out.put_u16(u16::try_from(columns.len()).unwrap());
    for (name, kind, key) in columns {
        out.put_u8(*key);
        out.put_slice(name.as_bytes());
        out.put_u8(0);
        out.put_u32(*kind);
        out.put_i32(-1);
    }
    out.freeze()
}

fn insert(oid: u32, cells: &[&str]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(b'I');
    out.put_u32(oid);
    put_row(&mut out, b'N', cells);
    out.freeze()
}

/// A row as it was (`O`) or is (`N`).
fn put_row(out: &mut BytesMut, tag: u8, cells: &[&str]) {
    out.put_u8(tag);
    out.put_u16(u16::try_from(cells.len()).unwrap());
    for cell in cells {
        out.put_u8(b't');
        out.put_u32(u32::try_from(cell.len()).unwrap());
        out.put_slice(cell.as_bytes());
    }
}

fn truncate(oid: u32) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(b'T');
    out.put_u32(1);
    out.put_u8(0);
    out.put_u32(oid);
    out.freeze()
}

/// One transaction at 0x50: the ids of the events that come out.
fn transaction(follow: &mut Follow) -> Vec<String> {
    let mut items = Vec::new();
    follow.begin(0x50, 0);
    for message in [
        insert(1, &["1", "a"]),
        insert(1, &["2", "hidden"]),
        insert(3, &["9"]),
        insert(2, &["17", "order:placed", "orders", "{}"]),
        insert(1, &["1", "b"]),
        truncate(1),
    ] {
        follow.message(message, &mut items).unwrap();
    }
    let mut ids = Vec::new();
    for item in &items {
        let Item::Event(line) = item else {
            panic!("nothing passes inside a transaction");
        };
        let event: Value = serde_json::from_slice(&line.bytes).unwrap();
        assert_eq!(line.original_bytes, line.bytes.len());
        assert_eq!(event["time"], "2000-01-01T00:00:00Z");
        ids.push(event["id"].as_str().unwrap().to_owned());
    }
    let passed = Item::Passed {
        place: Place::through(0x50),
        confirm: 0x60,
        caught_up: true,
    };
    assert_eq!(follow.commit(0x50, 0x60), passed);
    ids
}

#[test]
fn every_row_has_its_place_whatever_is_left_out() {
    let mut all = follow(From::default());
    assert_eq!(transaction(&mut all), ["1-50-0", "outbox-17", "1-50-4", "1-50-5"]);
    let left = all.left();
    assert_eq!((left.filtered, left.repeated), (1, 0));
    assert_eq!(all.left(), Left::default());
}

#[test]
fn what_is_stored_does_not_come_again() {
    let place = |lsn, index| Place { lsn, index };
    let mut rest = follow(From {
        place: place(0x50, 3),
        stored: HashSet::from([place(0x50, 5)]),
        ..From::default()
    });
    assert_eq!(transaction(&mut rest), ["1-50-4"]);
    assert_eq!(rest.left().repeated, 5);
    let mut numbered = follow(From {
        numbers: HashSet::from([17]),
        ..From::default()
    });
    assert_eq!(transaction(&mut numbered), ["1-50-0", "1-50-4", "1-50-5"]);
    let mut whole = follow(From {
        place: Place::through(0x50),
        ..From::default()
    });
    assert!(transaction(&mut whole).is_empty());
    let mut next = follow(From {
        place: Place::through(0x4f),
        ..From::default()
    });
    assert_eq!(transaction(&mut next).len(), 4);
}

#[test]
fn nothing_is_confirmed_inside_a_transaction() {
    let mut follow = follow(From::default());
    assert!(follow.idle(0x40).is_some());
    follow.begin(0x50, 0);
    assert_eq!(follow.idle(0x60), None);
    follow.commit(0x50, 0x60);
    assert!(follow.idle(0x70).is_some());
}

#[test]
fn what_cannot_be_followed_is_said() {
    let mut items = Vec::new();
    let mut undescribed = follow(From::default());
    undescribed.begin(1, 0);
    assert_eq!(
        undescribed.message(insert(9, &["1"]), &mut items),
        Err(Stuck::Undescribed(9))
    );
    let mut outside = follow(From::default());
    assert!(outside.message(insert(1, &["1", "a"]), &mut items).is_err());
    let mut changed = follow(From::default());
    let mut relation = BytesMut::new();
    relation.put_slice(b"R\0\0\0\x01public\0t\0d\0\x01\x01id\0\0\0\0\x17\0\0\0\0");
    let stuck = changed.message(relation.freeze(), &mut items).unwrap_err();
    assert!(
        stuck
            .to_string()
            .starts_with("the table public.t no longer has v, which the mapping needs"),
        "{stuck}"
    );
    assert!(items.is_empty());
}

/// What a transaction at `lsn` makes of a table that is described under `name` and then has a row: the ids, or why it ends.
fn described_as(follow: &mut Follow, lsn: u64, oid: u32, name: &str) -> Result<Vec<String>, String> {
    let mut items = Vec::new();
    follow.begin(lsn, 0);
    let described = follow.message(described(oid, name, &T), &mut items);
    described.map_err(|stuck| stuck.to_string())?;
    follow.message(insert(oid, &["1", "a"]), &mut items).unwrap();
    follow.commit(lsn, lsn + 8);
    let id = |item: &Item| match item {
        Item::Event(line) => {
            let event: Value = serde_json::from_slice(&line.bytes).unwrap();
            assert_eq!(
                event["data"]["table"], "public.t",
                "it has its name of the mapping"
            );
            event["id"].as_str().unwrap().to_owned()
        }
        Item::Passed { .. } => panic!("nothing passes inside a transaction"),
    };
    Ok(items.iter().map(id).collect())
}

#[test]
fn a_table_that_loses_its_name_is_not_left_out_without_a_word() {
    let renamed = Err("the table public.t is called public.x now, which the mapping does not have; to mend it: write public.x in the \
                       mapping, or give the table its old name back, and start again: nothing is confirmed before"
        .to_owned());
    let known = |tables: &[(u32, &str)]| {
        let mut follow = follow(From::default());
        let named = |(oid, name): &(u32, &str)| (*oid, ("public".to_owned(), (*name).to_owned()));
        follow.know(Catalogue {
            lsn: 0x50,
            tables: tables.iter().map(named).collect(),
        });
        follow
    };
    let ids = |ids: &[&str]| Ok(ids.iter().map(|id| (*id).to_owned()).collect());
    // While it is followed, whether it had a row before or not.
    assert_eq!(described_as(&mut follow(From::default()), 0x51, 1, "x"), renamed);
    assert_eq!(
        described_as(&mut known(&[(1, "t"), (2, "outbox")]), 0x51, 1, "x"),
        renamed
    );
    assert_eq!(described_as(&mut known(&[(9, "t")]), 0x51, 9, "x"), renamed);
    let outbox = described_as(&mut known(&[(2, "outbox")]), 0x51, 2, "x").unwrap_err();
    assert!(
        outbox.starts_with("the table public.outbox is called public.x now"),
        "{outbox}"
    );
    // It has its name back by now, or the mapping has the new one: what was committed under another one belongs to it.
    assert_eq!(
        described_as(&mut known(&[(1, "t")]), 0x50, 1, "x"),
        ids(&["1-50-0"])
    );
    // Another table has taken its place by now: each name is whose it was.
    let mut replaced = known(&[(7, "t")]);
    assert_eq!(described_as(&mut replaced, 0x40, 1, "t"), ids(&["1-40-0"]));
    assert_eq!(described_as(&mut replaced, 0x41, 1, "x"), ids(&[]));
    assert_eq!(described_as(&mut replaced, 0x51, 1, "x"), ids(&[]));
    assert_eq!(described_as(&mut replaced, 0x52, 7, "t"), ids(&["1-52-0"]));
    // One that never was of the mapping may be called as it likes.
    assert_eq!(described_as(&mut known(&[(1, "t")]), 0x51, 3, "x"), ids(&[]));
}

const STATE: &str = "version: 1\nsource: shop\ntables:\n  - { table: t, room: 'shop.{v}', audience: all, types: { insert: p, update: p }, \
                     columns: all, state: [id], where: data.row.v != 'hidden' }\n";

fn update(oid: u32, before: &[&str], now: &[&str]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(b'U');
    out.put_u32(oid);
    put_row(&mut out, b'O', before);
    put_row(&mut out, b'N', now);
    out.freeze()
}

/// Both have the change's place; a position that names it may be written between the two, and then both come again. Nothing that is read
/// back takes the withdrawal for another change.
#[test]
fn a_withdrawal_comes_before_the_value_and_with_it() {
    let moves = |from: From| {
        let mapping = Arc::new(Mapping::parse(STATE, "m.yaml", None).unwrap());
        let mut follow = Follow::new(mapping, Timelines::new(1, ""), from);
        let mut items = Vec::new();
        follow.begin(0x50, 0);
        for message in [
            described(1, "t", &T),
            update(1, &["5", "42"], &["5", "43"]),
            update(1, &["5", "43"], &["6", "43"]),
            update(1, &["6", "43"], &["6", "hidden"]),
            update(1, &["6", "hidden"], &["7", "hidden"]),
        ] {
            follow.message(message, &mut items).unwrap();
        }
        let shown = |item: &Item| match item {
            Item::Event(line) => {
                let event: Value = serde_json::from_slice(&line.bytes).unwrap();
                let of = |name: &str| event[name].as_str().unwrap().to_owned();
                let (id, withdrawn) = (of("id"), event["withdrawn"] == true);
                assert_eq!(crate::position::parse_event_id(&id).is_none(), withdrawn, "{id}");
                (format!("{id} {} {}", of("room"), of("statekey")), line.place)
            }
            Item::Passed { .. } => panic!("nothing passes inside a transaction"),
        };
        (items.iter().map(shown).collect::<Vec<_>>(), follow.left())
    };
    let at = |index| Place { lsn: 0x50, index };
    let all = [
        ("1-50-0-withdrawn shop.42 5", at(0)),
        ("1-50-0 shop.43 5", at(0)),
        ("1-50-1-withdrawn shop.43 5", at(1)),
        ("1-50-1 shop.43 6", at(1)),
        ("1-50-2-withdrawn shop.43 6", at(2)),
    ]
    .map(|(event, place)| (event.to_owned(), place));
    let (events, left) = moves(From::default());
    assert_eq!(events, all);
    assert_eq!((left.filtered, left.repeated), (1, 0), "the last is neither");
    for (place, sent, repeated) in [
        (at(0), &all[..], 0),
        (at(1), &all[2..], 1),
        (at(2), &all[4..], 2),
        (at(3), &[], 4),
        (Place::through(0x50), &[], 4),
    ] {
        let (events, left) = moves(From {
            place,
            ..From::default()
        });
        assert_eq!((events.as_slice(), left.repeated), (sent, repeated), "{place:?}");
    }
}
