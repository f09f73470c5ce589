//! Tokens whose signature one of a set's keys has vouched for already.
//!
//! A client that comes back brings the token it left with, and thousands come back at once; the signature of each would be
//! the dearest step of its return. Only what the signature said is kept, under the SHA-256 of the whole token: whoever could
//! get another token past this could forge signatures that are made over such a digest, too. Everything else of a token, its
//! time above all, is read again each time. The set goes with its keys: other keys start with an empty one.

use std::collections::HashSet;
use std::mem;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

/// Most tokens in either half, so twice as many in all: more than the connections of a gateway. A full half takes at most
/// 1.1 MiB.
pub(super) const HALF_MAX: usize = 16_384;

/// What stands for a token.
type Digest = [u8; SHA256_OUTPUT_LEN];

/// The halves: when the newer is full it becomes the older, and what was in the older is forgotten.
#[derive(Default)]
struct Halves {
    newer: HashSet<Digest>,
    older: HashSet<Digest>,
}

/// What a set of keys remembers of the tokens it was asked about.
#[derive(Default)]
pub(super) struct Vouched(Mutex<Halves>);

impl Vouched {
    /// Whether the signature of this token is good: remembered, or else found out by `check`. Only good ones are remembered,
    /// so strangers cannot push anything out.
    pub(super) fn or_else(&self, signed: &str, signature: &str, check: impl FnOnce() -> bool) -> bool {
        let digest = digest(signed, signature);
        if self.knows(&digest) {
            return true;
        }
        let good = check();
        if good {
            self.remember(digest);
        }
        good
    }

    fn knows(&self, digest: &Digest) -> bool {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if halves.newer.contains(digest) {
            return true;
        }
        // What is still in use moves on, so that only what nobody shows any more is forgotten.
        let known = halves.older.remove(digest);
        if known {
            halves.add(*digest);
        }
        known
    }

    fn remember(&self, digest: Digest) {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        halves.add(digest);
    }
}

impl Halves {
    fn add(&mut self, digest: Digest) {
        if self.newer.len() >= HALF_MAX {
            self.older = mem::take(&mut self.newer);
        }
        self.newer.insert(digest);
    }
}

/// Of the token as it stood: neither part holds a dot where it could be cut elsewhere, as the signature has none.
fn digest(signed: &str, signature: &str) -> Digest {
    let mut context = Context::new(&SHA256);
    context.update(signed.as_bytes());
    context.update(b".");
    context.update(signature.as_bytes());
    let mut digest = Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Asks about `token`, whose signature is `good`; answers with what is said and whether the signature was checked.
    fn ask(vouched: &Vouched, token: &str, good: bool) -> (bool, bool) {
        let checked = Cell::new(false);
        let said = vouched.or_else(token, "signature", || {
            checked.set(true);
            good
        });
        (said, checked.get())
    }

    #[test]
    fn a_good_signature_is_checked_once_and_a_bad_one_each_time() {
        let vouched = Vouched::default();
        assert_eq!(ask(&vouched, "good", true), (true, true));
        assert_eq!(ask(&vouched, "good", false), (true, false));
        assert_eq!(ask(&vouched, "bad", false), (false, true));
        assert_eq!(ask(&vouched, "bad", false), (false, true));
        assert!(!vouched.or_else("good", "other signature", || false));
        assert!(!vouched.or_else("goo", "d.signature", || false));
    }

    #[test]
    fn what_is_shown_again_stays_and_the_rest_is_forgotten() {
        let vouched = Vouched::default();
        ask(&vouched, "kept", true);
        ask(&vouched, "left", true);
        for i in 0..3 * HALF_MAX {
            ask(&vouched, &i.to_string(), true);
            if i % 1_000 == 0 {
                assert_eq!(ask(&vouched, "kept", false), (true, false), "after {i}");
            }
        }
        assert_eq!(ask(&vouched, "left", false), (false, true));
        let halves = vouched.0.lock().unwrap();
        assert!(halves.newer.len() <= HALF_MAX && halves.older.len() <= HALF_MAX);
    }
}
