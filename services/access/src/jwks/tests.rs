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

/// A time, seconds.
fn at(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

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
    assert!(endpoint.begin(at(0)));
    assert_eq!(endpoint.finish(at(0), Some(&jwks(kids))), Fetched::Changed);
    endpoint
}

#[test]
fn nothing_is_known_before_the_first_answer() {
    let endpoint = Endpoint::new(SCHEDULE);
    assert!(!endpoint.has_keys());
    assert_eq!(endpoint.missed("t"), Hope::Soon);
    assert!(endpoint.begin(at(0)));
    assert!(!endpoint.begin(at(100)), "one at a time");
    assert_eq!(endpoint.finish(at(103), None), Fetched::Away);
    assert_eq!(endpoint.missed("t"), Hope::Soon);
    assert!(
        endpoint.begin(at(103)),
        "the interval counts from beginning to beginning"
    );
    assert_eq!(endpoint.finish(at(104), Some(&jwks(&["a"]))), Fetched::Changed);
    assert!(endpoint.has_keys() && endpoint.key("a").is_some());
}

#[test]
fn keys_are_refreshed_when_they_are_old() {
    let endpoint = endpoint(&["a"]);
    for (now, expected) in [(1, false), (599, false), (600, true)] {
        assert_eq!(endpoint.begin(at(now)), expected, "{now}");
    }
    assert_eq!(endpoint.finish(at(601), Some(&jwks(&["a"]))), Fetched::Same);
    assert_eq!(endpoint.changes(), 1);
    assert!(!endpoint.begin(at(700)));
}

#[test]
fn an_unknown_key_fetches_once_per_interval() {
    let endpoint = endpoint(&["a"]);
    assert_eq!(endpoint.missed("t"), Hope::Soon);
    assert!(!endpoint.begin(at(9)), "not yet");
    assert!(endpoint.begin(at(10)));
    assert_eq!(endpoint.missed("t"), Hope::Soon, "under way");
    assert_eq!(endpoint.finish(at(11), Some(&jwks(&["a"]))), Fetched::Same);
    assert_eq!(endpoint.missed("t"), Hope::None);
    assert!(
        !endpoint.begin(at(20)) && !endpoint.begin(at(500)),
        "what is known to be absent fetches nothing"
    );
}

/// A key that was published just after a fetch: its tokens wait for the next one, whatever strangers sent before.
#[test]
fn a_token_is_refused_only_by_a_fetch_that_began_after_it() {
    let endpoint = endpoint(&["a"]);
    assert_eq!(
        endpoint.missed("a stranger's, with the key id of tomorrow"),
        Hope::Soon
    );
    assert!(endpoint.begin(at(10)));
    // Rotated while the fetch is under way, which brings what was true before.
    assert_eq!(endpoint.missed("honest"), Hope::Soon);
    assert_eq!(endpoint.finish(at(11), Some(&jwks(&["a"]))), Fetched::Same);
    assert_eq!(
        endpoint.missed("a stranger's, with the key id of tomorrow"),
        Hope::None
    );
    assert_eq!(
        endpoint.missed("honest"),
        Hope::Soon,
        "that fetch began too early"
    );
    assert!(endpoint.begin(at(20)));
    assert_eq!(endpoint.finish(at(21), None), Fetched::Away);
    assert_eq!(endpoint.missed("honest"), Hope::Soon, "nothing was answered");
    assert!(endpoint.begin(at(30)));
    assert_eq!(endpoint.finish(at(31), Some(&jwks(&["a"]))), Fetched::Same);
    assert_eq!(
        endpoint.missed("honest"),
        Hope::None,
        "asked for after it came, and not there"
    );
    assert_eq!(
        endpoint.missed("the next one"),
        Hope::Soon,
        "by token, not by key id"
    );
    assert!(endpoint.begin(at(40)));
    assert_eq!(
        endpoint.finish(at(41), Some(&jwks(&["a", "b"]))),
        Fetched::Changed
    );
    assert!(endpoint.key("b").is_some());
}

/// Strangers may send as many tokens as they like: what is remembered of them has a bound, and none of them is refused
/// before its time because of it.
#[test]
fn what_is_remembered_of_strangers_is_bounded() {
    let endpoint = endpoint(&["a"]);
    for round in 1..4 {
        for n in 0..2 * MISSED_MAX {
            assert_eq!(endpoint.missed(&format!("{round} {n}")), Hope::Soon);
        }
        assert!(endpoint.begin(at(10 * round)));
        assert_eq!(
            endpoint.finish(at(10 * round + 1), Some(&jwks(&["a"]))),
            Fetched::Same
        );
        assert_eq!(endpoint.missed(&format!("{round} 0")), Hope::None);
        let state = endpoint.read();
        for set in [&state.waiting, &state.asked, &state.absent] {
            assert!(set.len() <= MISSED_MAX);
        }
    }
}

#[test]
fn the_last_good_keys_outlive_a_bad_endpoint() {
    let endpoint = endpoint(&["a"]);
    let bad = [
        "<html>",
        "",
        "[]",
        "{}",
        r#"{"keys":null}"#,
        r#"{"keys":{}}"#,
        r#"{"keys":[1]}"#,
        r#"{"keys":[{}]}"#,
        r#"{"keys":[],"keys":[]}"#,
    ];
    let bad = bad.map(|answer| Some(answer.as_bytes()));
    for (round, answer) in [None, Some(&b"\xff"[..])].into_iter().chain(bad).enumerate() {
        let now = 600 + 10 * u64::try_from(round).unwrap();
        assert!(endpoint.begin(at(now)), "tried again after each interval");
        let fetched = endpoint.finish(at(now + 3), answer);
        assert!(
            matches!(fetched, Fetched::Away | Fetched::Unusable(_)),
            "{fetched:?}"
        );
        assert!(endpoint.key("a").is_some());
        assert_eq!(endpoint.missed("t"), Hope::Soon, "what is known is out of date");
        assert!(!endpoint.begin(at(now + 5)));
    }
    assert_eq!(endpoint.changes(), 1);
}

#[test]
fn a_key_that_was_taken_back_is_gone() {
    let endpoint = endpoint(&["a", "b"]);
    assert!(endpoint.begin(at(600)));
    assert_eq!(endpoint.finish(at(600), Some(&jwks(&["b"]))), Fetched::Changed);
    assert!(endpoint.key("a").is_none() && endpoint.key("b").is_some());
    assert_eq!(endpoint.changes(), 2);
}

/// An issuer whose only key was stolen publishes an empty list: that is its word, and no fault of its address.
#[test]
fn the_last_key_can_be_taken_back() {
    let endpoint = endpoint(&["a"]);
    assert!(!endpoint.is_empty());
    assert!(endpoint.begin(at(600)));
    assert_eq!(endpoint.finish(at(600), Some(&jwks(&[]))), Fetched::Changed);
    assert!(endpoint.key("a").is_none() && endpoint.is_empty());
    assert!(endpoint.has_keys(), "there was one");
    assert_eq!(
        endpoint.changes(),
        2,
        "what was verified before is verified again"
    );
    // Its tokens are refused like those of any key that is not there.
    assert_eq!(endpoint.missed("t"), Hope::Soon);
    assert!(!endpoint.begin(at(609)) && endpoint.begin(at(610)));
    assert_eq!(endpoint.finish(at(610), Some(&jwks(&[]))), Fetched::Same);
    assert_eq!(endpoint.missed("t"), Hope::None);
    // An address that fails then does not bring the key back.
    assert!(
        endpoint.begin(at(620)),
        "asked after each interval, as long as there is none"
    );
    assert_eq!(endpoint.finish(at(623), None), Fetched::Away);
    assert!(endpoint.key("a").is_none() && endpoint.is_empty());
    assert!(endpoint.begin(at(630)));
    assert_eq!(endpoint.finish(at(630), Some(&jwks(&["b"]))), Fetched::Changed);
    assert!(endpoint.key("b").is_some() && !endpoint.is_empty());
    assert!(!endpoint.begin(at(640)));
}

#[test]
fn an_issuer_that_never_had_a_key_has_none() {
    let endpoint = Endpoint::new(SCHEDULE);
    assert!(endpoint.begin(at(0)));
    assert_eq!(endpoint.finish(at(0), Some(&jwks(&[]))), Fetched::Changed);
    assert!(!endpoint.has_keys() && endpoint.is_empty());
    assert!(endpoint.begin(at(10)));
}

proptest! {
    /// Whatever happens in whatever order, two fetches do not begin within one interval.
    #[test]
    fn fetches_keep_their_distance(steps in prop::collection::vec((0_u64..8, 0_u8..5), 1..200)) {
        let endpoint = Endpoint::new(SCHEDULE);
        let (mut now, mut last) = (0, None::<u64>);
        for (pause, what) in steps {
            now += pause;
            match what {
                0 => drop(endpoint.missed("t")),
                1 => drop(endpoint.finish(at(now), None)),
                2 => drop(endpoint.finish(at(now), Some(&jwks(&["a"])))),
                3 => drop(endpoint.finish(at(now), Some(&jwks(&[])))),
                _ => if endpoint.begin(at(now)) {
                    prop_assert!(last.is_none_or(|last| now - last >= 10));
                    last = Some(now);
                },
            }
        }
    }
}
