//! Tickets: kept for 30 s, given out once, whichever gateway asks.
//!
//! Called by [`crate::door_service`]. Taking is a compare-and-set that deletes, so of two gateways with the same ticket one gets what
//! stands behind it; a taking whose outcome nobody knows counts as taken.

use std::time::Duration;

use bytes::Bytes;
use roomcast_chassis::jetstream::JetStream;
use roomcast_proto::ids::{Tenant, is_token};
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::{stream, ticket_key};
use roomcast_proto::ticket::{HOLDER_BYTES_MAX, Holder, KEPT, Keep, Kept, Take, Taken, Verb};
use serde::{Deserialize, Serialize};

use crate::door_service::{self, Answer};
use crate::key_value::{Decision, KeyValue};
use crate::metrics::IngestMetrics;

/// Characters of an id.
const ID_CHARACTERS: usize = 22;

/// The service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tickets {
    keys: KeyValue,
}

/// One ticket as the bucket holds it.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Unix milliseconds up to which it is good; the bucket forgets it by whole seconds only.
    until: i64,
    holder: Holder,
}

impl Tickets {
    /// Makes it.
    #[must_use]
    pub fn new(jetstream: JetStream, metrics: IngestMetrics) -> Self {
        Self {
            keys: KeyValue::new(jetstream, stream::TICKETS, metrics),
        }
    }

    /// Answers one request. `now_millis`: Unix.
    ///
    /// # Errors
    /// `bad_request`, `conflict`, `too_large`, `unavailable` (nothing was done), `unknown` (for a taking: it may be gone), `internal`.
    pub async fn answer(&self, tenant: &Tenant, verb: &str, body: &[u8], now_millis: i64) -> Answer {
        match Verb::of_name(verb).ok_or_else(door_service::no_such_verb)? {
            Verb::Keep => {
                let keep: Keep = door_service::read(body)?;
                self.keep(tenant, keep, now_millis).await?;
                door_service::write(&Kept {})
            }
            Verb::Take => {
                let take: Take = door_service::read(body)?;
                let key = key(tenant, &take.id)?;
                let decide = |value: Option<&Bytes>| taken(value, now_millis);
                let holder = self
                    .keys
                    .update(&key, decide)
                    .await
                    .map_err(|error| error.refusal())?;
                door_service::write(&Taken { holder })
            }
        }
    }

    async fn keep(&self, tenant: &Tenant, keep: Keep, now_millis: i64) -> Result<(), Refusal> {
        let key = key(tenant, &keep.id)?;
        let record = Record {
            until: now_millis.saturating_add(i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX)),
            holder: keep.holder,
        };
        let value = serde_json::to_vec(&record)
            .map_err(|_| Refusal::new(Code::Internal, "the ticket cannot be written"))?;
        if value.len() > HOLDER_BYTES_MAX {
            return Err(Refusal::new(
                Code::TooLarge,
                "larger than what a ticket may stand for",
            ));
        }
        let value = Bytes::from(value);
        let decide = |held: Option<&Bytes>| match held {
            None => Decision::Set {
                value: value.clone(),
                ttl: Some(KEPT + Duration::from_secs(1)),
                outcome: Ok(()),
            },
            // This very write, whose acknowledgement was lost.
            Some(held) if *held == value => Decision::Keep(Ok(())),
            Some(_) => Decision::Keep(Err(Refusal::new(Code::Conflict, "there is such a ticket"))),
        };
        self.keys
            .update(&key, decide)
            .await
            .map_err(|error| error.refusal())?
    }
}

fn key(tenant: &Tenant, id: &str) -> Result<String, Refusal> {
    if id.len() == ID_CHARACTERS && is_token(id) {
        return Ok(ticket_key(tenant, id));
    }
    Err(Refusal::new(Code::BadRequest, "a ticket's id has 22 characters"))
}

/// What becomes of a ticket that is asked for: it goes, whether it is still good or not.
fn taken(value: Option<&Bytes>, now_millis: i64) -> Decision<Option<Holder>> {
    let Some(value) = value else {
        return Decision::Keep(None);
    };
    let record: Option<Record> = serde_json::from_slice(value)
        .inspect_err(|error| tracing::error!(%error, "a ticket cannot be read: {error}"))
        .ok();
    Decision::Delete(
        record
            .filter(|record| now_millis < record.until)
            .map(|record| record.holder),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_ticket_is_good_until_its_time_and_goes_in_any_case() {
        let holder = json!({ "user": "u1", "roles": [], "claims": {}, "expires_at": 5, "rooms": ["a"] });
        let value = Bytes::from(json!({ "until": 1_000, "holder": holder }).to_string());
        let user = |decision: Decision<Option<Holder>>| match decision {
            Decision::Delete(holder) => Some(holder.map(|holder: Holder| holder.user)),
            _ => None,
        };
        assert_eq!(user(taken(Some(&value), 999)), Some(Some("u1".to_owned())));
        assert_eq!(user(taken(Some(&value), 1_000)), Some(None));
        assert_eq!(user(taken(Some(&Bytes::from("nonsense")), 0)), Some(None));
        assert!(matches!(taken(None, 0), Decision::Keep(None)));
    }

    #[test]
    fn only_an_id_is_a_key() {
        let tenant = Tenant::default();
        assert_eq!(
            key(&tenant, "BwcHBwcHBwcHBwcHBwcHBw").unwrap(),
            "$KV.tickets.main.BwcHBwcHBwcHBwcHBwcHBw"
        );
        for bad in [
            "",
            "x",
            "BwcHBwcHBwcHBwcHBwcHB>",
            "BwcHBwcHBwcHBwcHBwcHB.",
            "BwcHBwcHBwcHBwcHBwcHBww",
        ] {
            assert_eq!(key(&tenant, bad).unwrap_err().code, Code::BadRequest, "{bad}");
        }
    }
}
