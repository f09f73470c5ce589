//! Holds rooms to their number of state keys: asks the server what [`crate::room_keys`] needs to know.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use roomcast_chassis::jetstream::{At, JetStream};
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::stream as names;

use crate::accept::Placement;
use crate::error::unavailable;
use crate::room_keys::{Ask, RoomKeys};

/// The limit on state keys per room.
#[derive(Debug)]
pub struct KeyLimit {
    jetstream: JetStream,
    api_prefix: String,
    keys: Mutex<RoomKeys>,
}

impl KeyLimit {
    /// `keys_max`: how many keys a room may hold.
    #[must_use]
    pub fn new(jetstream: JetStream, api_prefix: String, keys_max: u64) -> Self {
        Self {
            jetstream,
            api_prefix,
            keys: Mutex::new(RoomKeys::new(keys_max)),
        }
    }

    /// Refuses a key that would be one too many for its room.
    ///
    /// # Errors
    /// `too_many_keys`; `unavailable` when the keys cannot be counted.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn make_room(&self, placement: &Placement) -> Result<(), Refusal> {
        let Some(room) = &placement.room_filter else {
            return Ok(());
        };
        let failed = |error| {
            tracing::debug!(%error, "state keys cannot be counted: {error}");
            unavailable("the keys of the room cannot be counted")
        };
        let mut ask = self.keys().ask(room, Instant::now());
        if ask == Ask::Count {
            let keys = self.count_keys(room).await.map_err(failed)?;
            let mut counts = self.keys();
            counts.counted(room, keys, Instant::now());
            ask = counts.ask(room, Instant::now());
        }
        match ask {
            Ask::Send => return Ok(()),
            // Counted just now by another request: the room is as good as full.
            Ask::Count | Ask::LookUp => {}
        }
        let found = self
            .jetstream
            .message(names::STATE, At::Last(&placement.subject))
            .await;
        if found.map_err(|error| failed(error.to_string()))?.is_some() || self.keys().add(room) {
            return Ok(());
        }
        Err(Refusal::new(Code::TooManyKeys, "the room holds as many state keys as it may").at("/statekey"))
    }

    fn keys(&self) -> MutexGuard<'_, RoomKeys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many subjects match a filter. The offset lies behind the last, so that the server counts and lists none.
    async fn count_keys(&self, filter: &str) -> Result<u64, String> {
        let request = serde_json::json!({ "subjects_filter": filter, "offset": u32::MAX });
        let subject = format!("{}.STREAM.INFO.{}", self.api_prefix, names::STATE);
        let answer = self
            .jetstream
            .client()
            .request(subject, Bytes::from(request.to_string()))
            .await;
        let answer = answer.map_err(|error| error.to_string())?;
        let answer: serde_json::Value =
            serde_json::from_slice(&answer.payload).map_err(|error| error.to_string())?;
        match answer.get("error") {
            Some(error) => Err(error.to_string()),
            None => Ok(answer["total"].as_u64().unwrap_or(0)),
        }
    }
}
