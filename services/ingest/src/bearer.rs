//! Who an HTTP request speaks for: its bearer token, checked once and remembered while it lasts.
//!
//! A signature check costs more than the rest of a small request. Remembered are digests, not tokens, and only as long as the
//! keys, the policy, the grants and the revocations are the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use roomcast_access::{TokenError, Verifier};
use roomcast_admin::Audit;
use roomcast_proto::limits::TOKEN_BYTES_MAX;
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_rights::Current;

use crate::accept::Sender;
use crate::metrics::IngestMetrics;

/// Tokens remembered; beyond, all are forgotten and checked anew.
const REMEMBERED_MAX: usize = 1_024;

/// When to come back with a token whose key is not there yet, milliseconds: most fetches are over by then.
const RETRY_MS: u64 = 1_000;

/// Checks bearer tokens.
#[derive(Debug)]
pub struct Bearers {
    verifier: Verifier,
    rights: Current,
    audit: Audit,
    remembered: Mutex<Memory>,
    metrics: IngestMetrics,
}

/// What was checked under one generation of keys and rights.
#[derive(Debug, Default)]
struct Memory {
    generation: u64,
    senders: HashMap<[u8; 32], Remembered>,
}

impl Memory {
    /// The senders of a generation, none if it is new; `None` for one that is over already.
    fn at(&mut self, generation: u64) -> Option<&mut HashMap<[u8; 32], Remembered>> {
        if generation > self.generation {
            self.generation = generation;
            self.senders.clear();
        }
        (generation == self.generation).then_some(&mut self.senders)
    }
}

#[derive(Debug)]
struct Remembered {
    expires_at: i64,
    sender: Arc<Sender>,
}

impl Bearers {
    /// Makes it; nothing is remembered.
    #[must_use]
    pub fn new(verifier: Verifier, rights: Current, audit: Audit, metrics: IngestMetrics) -> Self {
        Self {
            verifier,
            rights,
            audit,
            remembered: Mutex::default(),
            metrics,
        }
    }

    /// The sender for whom a request's `Authorization: Bearer` speaks. `now_secs`: Unix seconds.
    ///
    /// # Errors
    /// `unauthenticated` or `expired`, 401 both; `unavailable`, 503, while keys are being fetched; never more than that.
    pub fn sender(&self, headers: &HeaderMap, now_secs: i64) -> Result<Arc<Sender>, Refusal> {
        let Some(token) = bearer(headers) else {
            self.metrics.unauthenticated("missing");
            return Err(Refusal::new(
                Code::Unauthenticated,
                "Authorization: Bearer with a token is needed",
            ));
        };
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        // Before the check: what changes meanwhile makes what it says old. Both only grow, and so does their sum.
        let in_force = self.rights.now();
        let generation = self.verifier.generation() + in_force.generation;
        if let Some(sender) = self.recall(&key, generation, now_secs) {
            return Ok(sender);
        }
        let principal = self
            .verifier
            .verify(token, now_secs)
            .map_err(|error| self.refusal(error))?;
        let decided = in_force.decide(&principal, now_secs).map_err(|revoked| {
            self.metrics.unauthenticated(revoked.label());
            let who = (principal.tenant.as_str(), &*principal.subject);
            self.audit.refused("token", revoked.label(), Some(who));
            not_valid()
        })?;
        let sender = Arc::new(Sender::of_token(&principal, decided.rights));
        self.remember(key, generation, principal.ends_at(), &sender);
        Ok(sender)
    }

    fn recall(&self, key: &[u8; 32], generation: u64, now_secs: i64) -> Option<Arc<Sender>> {
        let mut memory = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let senders = memory.at(generation)?;
        let Remembered { expires_at, sender } = senders.get(key)?;
        if now_secs < *expires_at {
            return Some(Arc::clone(sender));
        }
        // Its end is the verifier's to tell.
        senders.remove(key);
        None
    }

    fn remember(&self, key: [u8; 32], generation: u64, expires_at: i64, sender: &Arc<Sender>) {
        let mut memory = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(senders) = memory.at(generation) else {
            return;
        };
        if senders.len() >= REMEMBERED_MAX {
            senders.clear();
        }
        let sender = Arc::clone(sender);
        senders.insert(key, Remembered { expires_at, sender });
    }

    fn refusal(&self, error: TokenError) -> Refusal {
        self.metrics.unauthenticated(error.reason());
        self.audit.refused("token", error.reason(), None);
        match error {
            TokenError::Expired => Refusal::new(Code::Expired, "the token has expired"),
            TokenError::Unready => {
                Refusal::new(Code::Unavailable, "the token cannot be checked at the moment")
                    .retry_after_ms(RETRY_MS)
            }
            TokenError::Invalid(_) => not_valid(),
        }
    }
}

fn not_valid() -> Refusal {
    Refusal::new(Code::Unauthenticated, "the token is not valid")
}

/// The one bearer token of a request; `None` for no, several or other credentials.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (all.next(), all.next()) else {
        return None;
    };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    let good = scheme.eq_ignore_ascii_case("bearer") && (1..=TOKEN_BYTES_MAX).contains(&token.len());
    good.then_some(token)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn exactly_one_bearer_token_counts() {
        #[track_caller]
        fn check(values: &[&str], expected: Option<&str>) {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(bearer(&headers), expected, "{values:?}");
        }
        check(&["Bearer abc"], Some("abc"));
        check(&["bearer abc"], Some("abc"));
        check(&[], None);
        check(&["Bearer abc", "Bearer abc"], None);
        check(&["Basic abc"], None);
        check(&["Bearer"], None);
        check(&["Bearer "], None);
        check(&[&format!("Bearer {}", "a".repeat(TOKEN_BYTES_MAX + 1))], None);
    }
}
