//! Silences that operators make: kept in NATS as one list under one key, changed by compare-and-set, followed by every instance.
//!
//! The holder reads the list with the leases, once a second and before any shard is worked, so a silence holds on all instances within
//! a second or two and none forgets one over a restart. The admin routes are in `admin::silences`.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_nats::HeaderMap;
use roomcast_chassis::jetstream::{At, JetStream, code};
use roomcast_proto::event::micros_of_rfc3339;
use roomcast_proto::subject::{SILENCES, header, stream as names};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::alert::Silenced;

/// Most silences at once; those that are over do not count.
pub const SILENCES_MAX: usize = 200;
/// How often a change that met another one is tried.
const TRIES: u32 = 5;
const WITHIN: Duration = Duration::from_secs(1);

/// While it lasts, what it names says nothing; what still fires afterwards is said then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Silence {
    /// Its name.
    pub id: String,
    /// The rule; absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<String>,
    /// The group of the rule, as its notifications name it; absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// From this instant, RFC 3339.
    pub from: String,
    /// Until this one.
    pub until: String,
    /// Why.
    pub reason: String,
    /// Who made it.
    pub by: String,
}

impl Silence {
    fn lasts(&self, now: i64) -> bool {
        micros_of_rfc3339(&self.until).is_some_and(|until| until > now)
    }

    fn silenced(&self) -> Option<Silenced> {
        Some(Silenced {
            alert: self.alert.clone(),
            group: self.group.clone(),
            from: micros_of_rfc3339(&self.from)?,
            until: micros_of_rfc3339(&self.until)?,
        })
    }
}

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// There is no such silence, or it is over.
    #[error("there is no such silence")]
    Absent,
    /// There are [`SILENCES_MAX`].
    #[error("{SILENCES_MAX} silences last, no more are taken")]
    Full,
    /// NATS does not answer, or others change them all the time: ask again.
    #[error("silences cannot be changed at the moment: {0}")]
    Unavailable(String),
}

#[derive(Debug, Default)]
struct Known {
    seq: u64,
    silenced: Arc<[Silenced]>,
}

/// What is silent, as far as this instance knows. Clones are the same.
#[derive(Clone, Debug)]
pub struct Silences {
    jetstream: JetStream,
    known: Arc<RwLock<Known>>,
}

impl Silences {
    /// Nothing is silent yet.
    #[must_use]
    pub fn new(jetstream: JetStream) -> Self {
        Self {
            jetstream,
            known: Arc::default(),
        }
    }

    /// What rules are told.
    #[must_use]
    pub fn now(&self) -> Arc<[Silenced]> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner).silenced)
    }

    /// Takes the stored list over, where it is newer than the one that is known.
    pub fn observe(&self, seq: u64, payload: &[u8]) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if seq <= known.seq {
            return;
        }
        match serde_json::from_slice::<Vec<Silence>>(payload) {
            Ok(list) => known.silenced = list.iter().filter_map(Silence::silenced).collect(),
            Err(error) => tracing::error!("the stored silences cannot be read, those before hold: {error}"),
        }
        known.seq = seq;
    }

    /// Those that last, or will begin, at `now`, Unix microseconds.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn list(&self, now: i64) -> Result<Vec<Silence>, Failed> {
        Ok(self.read(now).await?.1)
    }

    /// Adds one.
    ///
    /// # Errors
    /// `Full`, `Unavailable`.
    pub async fn add(&self, silence: Silence, now: i64) -> Result<(), Failed> {
        self.change(now, |list| {
            if list.len() >= SILENCES_MAX {
                return Err(Failed::Full);
            }
            // A repeat after an answer that was lost.
            list.retain(|known| known.id != silence.id);
            list.push(silence.clone());
            Ok(())
        })
        .await
    }

    /// Ends one at once.
    ///
    /// # Errors
    /// `Absent`, `Unavailable`.
    pub async fn end(&self, id: &str, now: i64) -> Result<(), Failed> {
        self.change(now, |list| {
            let before = list.len();
            list.retain(|known| known.id != id);
            if list.len() == before {
                Err(Failed::Absent)
            } else {
                Ok(())
            }
        })
        .await
    }

    async fn change(
        &self,
        now: i64,
        mut change: impl FnMut(&mut Vec<Silence>) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let mut last = String::new();
        for _ in 0..TRIES {
            let (seq, mut list) = self.read(now).await?;
            change(&mut list)?;
            let body = serde_json::to_vec(&list).map_err(|error| Failed::Unavailable(error.to_string()))?;
            let mut headers = HeaderMap::new();
            headers.insert(header::EXPECTED_LAST_SUBJECT_SEQUENCE, seq.to_string().as_str());
            match self
                .jetstream
                .publish(SILENCES, headers, body.clone().into(), WITHIN)
                .await
            {
                Ok(ack) => {
                    self.observe(ack.seq, &body);
                    return Ok(());
                }
                // Somebody else wrote in between; or this did, and its answer was lost: what is read next says which.
                Err(error) if error.err_code() == Some(code::WRONG_LAST_SEQUENCE) => last = error.to_string(),
                Err(error) => return Err(Failed::Unavailable(error.to_string())),
            }
        }
        Err(Failed::Unavailable(last))
    }

    /// Through the stream's leader; with its position, 0 where nothing was ever stored.
    async fn read(&self, now: i64) -> Result<(u64, Vec<Silence>), Failed> {
        let unavailable = |error: &dyn std::fmt::Display| Failed::Unavailable(error.to_string());
        let stored = self
            .jetstream
            .message(names::AGG, At::Last(SILENCES))
            .await
            .map_err(|error| unavailable(&error))?;
        let Some(stored) = stored else {
            return Ok((0, Vec::new()));
        };
        let mut list: Vec<Silence> =
            serde_json::from_slice(&stored.payload).map_err(|error| unavailable(&error))?;
        list.retain(|silence| silence.lasts(now));
        Ok((stored.sequence, list))
    }
}
