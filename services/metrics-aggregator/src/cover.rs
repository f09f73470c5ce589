//! Which events a shard's consumer asks for: patterns that cover all its metrics' rooms and of which no two overlap.
//!
//! The server refuses overlapping filters. Two patterns that overlap are replaced by the narrowest one that covers both; what that
//! lets in besides is sorted out by each metric's own `from`.

use roomcast_proto::ids::Tenant;
use roomcast_proto::subject::pattern_events_filter;

use crate::definition::{Definition, RoomPattern};

/// Patterns that cover all of `patterns`, none overlapping another, in order.
#[must_use]
pub fn cover<'a>(patterns: impl IntoIterator<Item = &'a RoomPattern>) -> Vec<RoomPattern> {
    let mut cover: Vec<RoomPattern> = Vec::new();
    for pattern in patterns {
        let mut merged = pattern.clone();
        // A merger is wider and may overlap what did not overlap before, so it is tried again until nothing changes.
        while let Some(at) = cover.iter().position(|known| known.merged(&merged).is_some()) {
            let known = cover.swap_remove(at);
            merged = known.merged(&merged).unwrap_or(merged);
        }
        cover.push(merged);
    }
    cover.sort();
    cover
}

/// The consumer's filters for some metrics of one tenant.
#[must_use]
pub fn filters<'a>(tenant: &Tenant, definitions: impl IntoIterator<Item = &'a Definition>) -> Vec<String> {
    let legs = definitions.into_iter().flat_map(|definition| &definition.legs);
    let patterns: Vec<&RoomPattern> = legs.map(|leg| &leg.rooms).collect();
    cover(patterns)
        .iter()
        .filter_map(|pattern| pattern_events_filter(tenant, pattern.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(patterns: &[&str], expected: &[&str]) {
        let patterns: Vec<RoomPattern> = patterns
            .iter()
            .map(|text| RoomPattern::parse(text).unwrap())
            .collect();
        let got: Vec<String> = cover(&patterns)
            .iter()
            .map(|pattern| pattern.as_str().to_owned())
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn overlapping_patterns_become_their_common_wider_one() {
        check(&[], &[]);
        check(&["bookings", "bookings"], &["bookings"]);
        check(&["bookings", "orders"], &["bookings", "orders"]);
        check(&["property.*", "property.42"], &["property.*"]);
        check(&["property.*", "*.42"], &["*.*"]);
        check(&["a.*.c", "a.b.*", "x.y.z"], &["a.*.*", "x.y.z"]);
        check(&["a.*.c", "a.b.*", "*.q.r"], &["*.*.*"]);
        check(&["*", "a.b"], &["*", "a.b"]);
    }

    fn pattern() -> impl Strategy<Value = RoomPattern> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "*"]), 1..4)
            .prop_map(|tokens| RoomPattern::parse(&tokens.join(".")).unwrap())
    }

    proptest! {
        #[test]
        fn everything_is_covered_and_nothing_twice(
            patterns in prop::collection::vec(pattern(), 0..8),
            room in prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "d"]), 1..4),
        ) {
            let room = room.join(".");
            let cover = cover(&patterns);
            let covering = cover.iter().filter(|pattern| pattern.fits(&room)).count();
            prop_assert!(covering <= 1);
            prop_assert!(covering == 1 || !patterns.iter().any(|pattern| pattern.fits(&room)));
            for (i, a) in cover.iter().enumerate() {
                prop_assert!(cover[i + 1..].iter().all(|b| a.merged(b).is_none()));
            }
        }
    }
}
