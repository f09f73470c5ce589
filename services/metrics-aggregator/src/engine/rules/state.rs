//! How state is cut, written and read again.

use super::*;

/// Everything a shard stores, after some thousand events of many groups and customers: it is split into many chunks.
fn large() -> (Bench, Flush) {
    let mut bench =
        Bench::new("value: count(), group_by: [data.g], groups_max: 5000, window: { tumbling: day }");
    for i in 0..3_000 {
        bench.event(0, &format!("{{\"g\":\"group number {i}\"}}"));
    }
    let flush = bench.shard.flush();
    (bench, flush)
}

#[test]
fn state_is_cut_into_chunks_and_a_fold_rewrites_one() {
    let (mut bench, first) = large();
    assert!(first.chunks.len() > 4, "{}", first.chunks.len());
    assert!(first.chunks.iter().all(|(_, bytes)| bytes.len() <= 16 * 1024));
    bench.event(0, r#"{"g":"group number 7"}"#);
    let second = bench.shard.flush();
    // The group's chunk, and that of the room's watermark if it is another.
    assert!(second.chunks.len() <= 2, "{}", second.chunks.len());
    let mut chunks: HashMap<String, Vec<u8>> = first.chunks.into_iter().collect();
    chunks.extend(second.chunks);
    let head = Head::read(&second.head).unwrap();
    let again = Shard::load(
        bench.definitions.metrics.clone(),
        Some((head, &chunks)),
        bench.now,
    )
    .unwrap();
    assert_eq!(again.position(), 3_001);
    let (metric, before) = (again.metric("m").unwrap(), bench.shard.metric("m").unwrap());
    let place = before.place.unwrap();
    for group in ["[\"group number 7\"]", "[\"group number 2999\"]"] {
        assert_eq!(metric.update(group, place), before.update(group, place));
    }
}

#[test]
fn what_a_node_that_lags_gives_out_later_is_folded() {
    let again = |bench: &mut Bench| {
        let flush = bench.shard.flush();
        let chunks: HashMap<String, Vec<u8>> = flush.chunks.into_iter().collect();
        let head = Head::read(&flush.head).unwrap();
        Shard::load(bench.definitions.metrics.clone(), Some((head, &chunks)), NOON).unwrap()
    };
    let mut bench = Bench::new("value: count(), window: { total: true }");
    bench.event(0, "{}");
    bench.shard.believe(9);
    assert_eq!((bench.shard.position(), bench.shard.believed()), (1, 9));
    // Event 2 lies before what was believed, here and after a restart.
    assert_eq!(bench.event(0, "{}"), Outcome::Folded);
    bench.shard = again(&mut bench);
    assert_eq!((bench.shard.position(), bench.shard.believed()), (2, 9));
    assert_eq!(bench.event(0, "{}"), Outcome::Folded);
    // What the stream drops up to there was not missed; what it drops behind it was.
    assert_eq!(bench.shard.missed(10, NOON), 0);
    assert_eq!(bench.shard.position(), 9);
    assert_eq!(bench.shard.missed(12, NOON), 1);
}

#[test]
fn a_chunk_of_another_moment_is_found() {
    let (bench, flush) = large();
    let mut chunks: HashMap<String, Vec<u8>> = flush.chunks.iter().cloned().collect();
    let load = |chunks: &HashMap<String, Vec<u8>>| {
        let head = Head::read(&flush.head).unwrap();
        Shard::load(bench.definitions.metrics.clone(), Some((head, chunks)), bench.now).is_ok()
    };
    assert!(load(&chunks));
    let (name, bytes) = flush.chunks[0].clone();
    chunks.remove(&name);
    assert!(!load(&chunks), "a chunk is missing");
    chunks.insert(name.clone(), flush.chunks[1].1.clone());
    assert!(!load(&chunks), "a chunk is another's");
    chunks.insert(name, bytes);
    assert!(load(&chunks));
}

#[test]
fn chunks_of_former_definitions_are_emptied() {
    let (bench, flush) = large();
    let chunks: HashMap<String, Vec<u8>> = flush.chunks.iter().cloned().collect();
    let other = Bench::new("value: count(), window: { total: true }");
    let head = Head::read(&flush.head).unwrap();
    assert!(head.chunk_names(&other.definitions.metrics).is_empty());
    let mut shard = Shard::load(
        other.definitions.metrics.clone(),
        Some((head, &chunks)),
        bench.now,
    )
    .unwrap();
    assert_eq!(
        shard.position(),
        0,
        "a changed metric is filled from the beginning"
    );
    let mut emptied = Vec::new();
    for _ in 0..10 {
        emptied.extend(
            shard
                .flush()
                .chunks
                .into_iter()
                .filter(|(_, bytes)| bytes.is_empty())
                .map(|(name, _)| name),
        );
    }
    emptied.sort();
    let mut stored: Vec<String> = chunks.into_keys().collect();
    stored.sort();
    assert_eq!(emptied, stored);
    let metric = shard.metric("m").unwrap();
    assert_eq!(
        metric.update("[]", metric.place.unwrap()).revision,
        3_000,
        "revisions never go back"
    );
}

#[test]
fn a_stream_made_anew_begins_anew_under_other_names() {
    let (mut bench, _) = large();
    bench.shard.set_stream(NOON);
    for i in 0..3_000 {
        bench.event(0, &format!("{{\"g\":\"group number {i}\"}}"));
    }
    let flush = bench.shard.flush();
    let chunks: HashMap<String, Vec<u8>> = flush.chunks.into_iter().collect();
    let load = |created: i64| {
        let mut head = Head::read(&flush.head).unwrap();
        let anew = head.meet(created);
        let shard = Shard::load(
            bench.definitions.metrics.clone(),
            Some((head, &chunks)),
            bench.now,
        );
        (anew, shard.unwrap())
    };
    let (anew, same) = load(NOON);
    assert!(!anew);
    assert_eq!(same.position(), 6_000);
    let (anew, mut other) = load(NOON + SECOND);
    assert!(anew);
    assert_eq!(other.position(), 0);
    let metric = other.metric("m").unwrap();
    let update = metric.update("[\"group number 7\"]", metric.place.unwrap());
    assert_eq!((update.events, update.revision), (0, 6_000));
    assert_eq!(update.incomplete_since.as_deref(), Some("2026-06-01T12:00:01Z"));
    let mut emptied = std::collections::BTreeSet::new();
    for _ in 0..10 {
        for (name, bytes) in other.flush().chunks {
            assert_eq!(bytes.is_empty(), chunks.contains_key(&name), "{name}");
            emptied.extend(bytes.is_empty().then_some(name));
        }
    }
    assert_eq!(emptied.len(), chunks.len(), "old chunks are emptied");
    // What was begun anew goes on: it has met this stream.
    let mut head = Head::read(&other.flush().head).unwrap();
    assert!(!head.meet(NOON + SECOND));
}

proptest! {
    #[test]
    fn damaged_heads_are_refused_and_never_panic(at in 0..200_usize, byte: u8, cut in 0..200_usize) {
        let mut bench = Bench::new("value: count(), window: { total: true }");
        bench.event(0, "{}");
        let mut bytes = bench.shard.flush().head;
        let len = bytes.len();
        bytes[at % len] = byte;
        let _ = Head::read(&bytes);
        bytes.truncate(cut % len);
        prop_assert!(Head::read(&bytes).is_err());
    }
}
