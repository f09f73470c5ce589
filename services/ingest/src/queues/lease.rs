//! Which of several ingests drains the queues: one, by a key that ends by itself.
//!
//! For speed alone. Two that drain at the same time store everything once all the same, because the streams find the ids of each other's
//! events; they would only do the work twice.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use roomcast_proto::ids::new_event_id;
use roomcast_proto::subject::QUEUES_LEASE;

use crate::key_value::{Decision, KeyValue, KeyValueError};

/// The server takes the key away when it was not renewed for this long.
const LIFE: Duration = Duration::from_secs(10);
/// The holder believes in it for less than that.
const BELIEVED: Duration = Duration::from_secs(7);
/// It is renewed this often, and asked for by the others.
pub const RENEW_EVERY: Duration = Duration::from_secs(2);

/// The lease as one instance sees it.
#[derive(Debug)]
pub struct Lease {
    keys: KeyValue,
    name: Bytes,
    until: Mutex<Option<Instant>>,
}

impl Lease {
    /// Not held.
    #[must_use]
    pub fn new(keys: KeyValue) -> Self {
        Self {
            keys,
            name: new_event_id().into(),
            until: Mutex::new(None),
        }
    }

    /// Whether this instance may begin a portion.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.until().is_some_and(|until| Instant::now() < until)
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
                ttl: Some(LIFE),
                outcome: true,
            },
        };
        let ours = self.keys.update(QUEUES_LEASE, decide).await?;
        // Counted from before the question: the server may have had it at once.
        *self.until() = ours.then(|| asked + BELIEVED);
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
        if let Err(error) = self.keys.update(QUEUES_LEASE, decide).await {
            tracing::debug!(%error, "the queues' lease was not given back and ends by itself: {error}");
        }
    }
}
