//! Which of several ingests does what only one should do: drain the queues, send notifications. One, by a key that ends by itself.
//!
//! Queues have it for speed alone: two that drain at the same time store everything once all the same, because the streams find the ids of
//! each other's events. Who sends must not send twice: it begins nothing that could end after its lease ([`Lease::is_held_for`]).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::key_value::{Decision, KeyValue, KeyValueError};
use bytes::Bytes;
use roomcast_proto::ids::new_event_id;

/// The holder believes in it for this part of its life: clocks differ, and the server's time begins later.
const BELIEVED: f64 = 0.7;
/// It is renewed this often, and asked for by the others.
pub const RENEW_EVERY: Duration = Duration::from_secs(2);

/// The lease as one instance sees it.
#[derive(Debug)]
pub struct Lease {
    keys: KeyValue,
    key: &'static str,
    life: Duration,
    name: Bytes,
    until: Mutex<Option<Instant>>,
}

impl Lease {
    /// Not held. `life`: the server takes the key away when it was not renewed for this long.
    #[must_use]
    pub fn new(keys: KeyValue, key: &'static str, life: Duration) -> Self {
        Self {
            keys,
            key,
            life,
            name: new_event_id().into(),
            until: Mutex::new(None),
        }
    }

    /// Whether this instance may begin something.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.is_held_for(Duration::ZERO)
    }

    /// Whether it may begin something that takes so long.
    #[must_use]
    pub fn is_held_for(&self, takes: Duration) -> bool {
        self.until().is_some_and(|until| Instant::now() + takes < until)
    }

    fn until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes it where nobody has it, and keeps it where this instance has it.
    ///
    /// # Errors
    /// The bucket cannot be reached: the lease ends by itself.
    ///
    /// # Cancel safety
    /// Dropped, it may be held without this instance's knowing, until it ends.
    pub async fn ask(&self) -> Result<(), KeyValueError> {
        let asked = Instant::now();
        let decide = |held: Option<&Bytes>| match held {
            Some(other) if *other != self.name => Decision::Keep(false),
            _ => Decision::Set {
                value: self.name.clone(),
                ttl: Some(self.life),
                outcome: true,
            },
        };
        let ours = self.keys.update(self.key, decide).await?;
        // Counted from before the question: the server may have had it at once.
        *self.until() = ours.then(|| asked + self.life.mul_f64(BELIEVED));
        Ok(())
    }

    /// Gives it to whoever asks next.
    ///
    /// # Cancel safety
    /// Dropped, it ends by itself.
    pub async fn give_back(&self) {
        *self.until() = None;
        let decide = |held: Option<&Bytes>| match held {
            Some(held) if *held == self.name => Decision::Delete(()),
            _ => Decision::Keep(()),
        };
        if let Err(error) = self.keys.update(self.key, decide).await {
            let key = self.key;
            tracing::debug!(%error, key, "the lease {key} was not given back and ends by itself: {error}");
        }
    }
}
