use bytes::{BufMut, BytesMut};
use serde_json::Value;

use super::*;

const MAPPING: &str = "version: 1\nsource: shop\noutbox: outbox\ntables:\n  - { table: t, room: r, audience: all, types: { insert: t:new, \
                       truncate: t:none }, columns: all, where: data.row.v != 'hidden' }\n";

fn follow(from: From) -> Follow {
    let mapping = Arc::new(Mapping::parse(MAPPING, "m.yaml", None).unwrap());
    let mut follow = Follow::new(mapping, Timelines::new(1, ""), from);
    for (oid, name, columns) in [
        (1, "t", &[("id", 23_u32, 1_u8), ("v", 25, 0)][..]),
        (
            2,
            "outbox",
            &[("id", 20, 1), ("type", 25, 0), ("room", 25, 0), ("data", 3802, 0)],
        ),
        (3, "other", &[("id", 23, 1)]),
    ] {
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
        let mut items = Vec::new();
        follow.message(out.freeze(), &mut items).unwrap();
        assert!(items.is_empty());
    }
    follow
}

fn insert(oid: u32, cells: &[&str]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(b'I');
    out.put_u32(oid);
    out.put_u8(b'N');
    out.put_u16(u16::try_from(cells.len()).unwrap());
    for cell in cells {
        out.put_u8(b't');
        out.put_u32(u32::try_from(cell.len()).unwrap());
        out.put_slice(cell.as_bytes());
    }
    out.freeze()
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
