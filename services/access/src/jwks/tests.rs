//! An endpoint through good and bad times, second by second.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const SCHEDULE: Schedule = Schedule {
    interval_secs: 10,
    refresh_secs: 600,
};

fn jwks(kids: &[&str]) -> Vec<u8> {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    let keys: Vec<_> = kids
        .iter()
        .map(|kid| json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x }))
        .collect();
    json!({ "keys": keys }).to_string().into_bytes()
}

/// An endpoint whose first fetch, at 0, was good.
fn endpoint(kids: &[&str]) -> Endpoint {
    let endpoint = Endpoint::new(SCHEDULE);
    assert!(endpoint.begin(0));
    assert_eq!(endpoint.finish(0, Some(&jwks(kids))), Fetched::Changed);
    endpoint
}

#[test]
fn nothing_is_known_before_the_first_answer() {
    let endpoint = Endpoint::new(SCHEDULE);
    assert!(!endpoint.has_keys());
    assert_eq!(endpoint.missed(0), Hope::Soon);
    assert!(endpoint.begin(0));
    assert!(!endpoint.begin(100), "one at a time");
    assert_eq!(endpoint.finish(103, None), Fetched::Away);
    assert_eq!(endpoint.missed(103), Hope::Soon);
    assert!(
        endpoint.begin(103),
        "the interval counts from beginning to beginning"
    );
    assert_eq!(endpoint.finish(104, Some(&jwks(&["a"]))), Fetched::Changed);
    assert!(endpoint.has_keys() && endpoint.key("a").is_some());
}

#[test]
fn keys_are_refreshed_when_they_are_old() {
    let endpoint = endpoint(&["a"]);
    for (now, expected) in [(1, false), (599, false), (600, true)] {
        assert_eq!(endpoint.begin(now), expected, "{now}");
    }
    assert_eq!(endpoint.finish(601, Some(&jwks(&["a"]))), Fetched::Same);
    assert_eq!(endpoint.changes(), 1);
    assert!(!endpoint.begin(700));
}

#[test]
fn an_unknown_key_fetches_once_per_interval() {
    let endpoint = endpoint(&["a"]);
    assert_eq!(endpoint.missed(9), Hope::None);
    assert!(!endpoint.begin(9));
    assert_eq!(endpoint.missed(10), Hope::Soon);
    assert!(endpoint.begin(10));
    assert_eq!(endpoint.missed(11), Hope::Soon, "under way");
    assert_eq!(endpoint.finish(11, Some(&jwks(&["a"]))), Fetched::Same);
    assert_eq!(endpoint.missed(12), Hope::None);
    assert!(!endpoint.begin(20) && !endpoint.begin(500));
}

#[test]
fn the_last_good_keys_outlive_a_bad_endpoint() {
    let endpoint = endpoint(&["a"]);
    for (round, answer) in [None, Some(&b"<html>"[..]), Some(b"\xff"), Some(br#"{"keys":[]}"#)]
        .into_iter()
        .enumerate()
    {
        let now = 600 + 10 * i64::try_from(round).unwrap();
        assert!(endpoint.begin(now), "tried again after each interval");
        let fetched = endpoint.finish(now + 3, answer);
        assert!(
            matches!(fetched, Fetched::Away | Fetched::Unusable(_)),
            "{fetched:?}"
        );
        assert!(endpoint.key("a").is_some());
        assert_eq!(
            endpoint.missed(now + 4),
            Hope::Soon,
            "what is known is out of date"
        );
        assert!(!endpoint.begin(now + 5));
    }
    assert_eq!(endpoint.changes(), 1);
}

#[test]
fn a_key_that_was_taken_back_is_gone() {
    let endpoint = endpoint(&["a", "b"]);
    assert!(endpoint.begin(600));
    assert_eq!(endpoint.finish(600, Some(&jwks(&["b"]))), Fetched::Changed);
    assert!(endpoint.key("a").is_none() && endpoint.key("b").is_some());
    assert_eq!(endpoint.changes(), 2);
}

#[test]
fn a_clock_that_was_set_back_does_not_stop_fetching() {
    let endpoint = Endpoint::new(SCHEDULE);
    assert!(endpoint.begin(1_000_000));
    assert_eq!(endpoint.finish(1_000_000, Some(&jwks(&["a"]))), Fetched::Changed);
    assert!(endpoint.begin(5));
}

proptest! {
    /// Whatever happens in whatever order, two fetches do not begin within one interval.
    #[test]
    fn fetches_keep_their_distance(steps in prop::collection::vec((0_i64..8, 0_u8..4), 1..200)) {
        let endpoint = Endpoint::new(SCHEDULE);
        let (mut now, mut last) = (0, None::<i64>);
        for (pause, what) in steps {
            now += pause;
            match what {
                0 => drop(endpoint.missed(now)),
                1 => drop(endpoint.finish(now, None)),
                2 => drop(endpoint.finish(now, Some(&jwks(&["a"])))),
                _ => if endpoint.begin(now) {
                    prop_assert!(last.is_none_or(|last| now - last >= 10));
                    last = Some(now);
                },
            }
        }
    }
}
