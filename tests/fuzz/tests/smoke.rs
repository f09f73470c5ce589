//! A short run of every target: all seeds, then mutations of them. The same inputs each time, unless the environment says
//! otherwise: `ROOMCAST_FUZZ_SEED=7 ROOMCAST_FUZZ_RUNS=1000000 cargo test -p roomcast-fuzz --release`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use roomcast_fuzz::mutation::mutate;
use roomcast_fuzz::seeds::seeds;
use roomcast_fuzz::{Check, TARGETS};

const RUNS: u64 = 20_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or(default))
}

/// The first input that breaks a promise.
fn first_broken(name: &str, check: Check, runs: u64) -> Option<Vec<u8>> {
    let seeds = seeds(name);
    assert!(seeds.len() >= 3, "{name}: {} seeds", seeds.len());
    let broken = |bytes: &[u8]| catch_unwind(AssertUnwindSafe(|| check(bytes))).is_err();
    if let Some(bytes) = seeds.iter().find(|seed| broken(seed)) {
        return Some(bytes.clone());
    }
    let mut random = fastrand::Rng::with_seed(number("ROOMCAST_FUZZ_SEED", 1));
    let pick = |random: &mut fastrand::Rng| seeds[random.usize(0..seeds.len())].clone();
    for _ in 0..runs {
        let (mut bytes, other) = (pick(&mut random), pick(&mut random));
        mutate(&mut bytes, &other, &mut random);
        if broken(&bytes) {
            return Some(bytes);
        }
    }
    None
}

#[test]
fn no_input_breaks_a_promise() {
    let runs = number("ROOMCAST_FUZZ_RUNS", RUNS);
    for (name, check) in TARGETS {
        let started = std::time::Instant::now();
        if let Some(bytes) = first_broken(name, check, runs) {
            panic!(
                "{name}: put this into tests/fuzz/corpus/{name}: b\"{}\"",
                bytes.escape_ascii()
            );
        }
        println!("{name}: {runs} mutations in {} ms", started.elapsed().as_millis());
    }
}

#[test]
fn a_broken_promise_is_found() {
    // A reader that forgets one of its rules: a name may hold an asterisk.
    fn careless(bytes: &[u8]) {
        assert!(!String::from_utf8_lossy(bytes).contains("*.all"));
    }
    std::panic::set_hook(Box::new(|_| {}));
    let found = first_broken("subject", careless, 200_000);
    let _ = std::panic::take_hook();
    assert!(found.is_some());
}
