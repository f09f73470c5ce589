//! The second reader of a shard: brings what new and changed metrics missed, while the first one goes on.
//!
//! First it reads the rooms of those metrics alone. When nothing is left there it reads the rooms of all from the same place on, until
//! it meets an event that is as far as the others: a node's word that nothing is waiting is no proof, such an event is one. Then the
//! first reader is opened anew, for all.

use async_nats::Client;
use roomcast_proto::ids::Tenant;

use crate::cover::filters;
use crate::delivered::Frame;
use crate::engine::shard::Shard;
use crate::reader::{Broken, Reader};

/// An open reader of what is missing.
#[derive(Debug)]
pub struct Filler {
    /// Where the events come from.
    pub reader: Reader,
    /// Whether it reads the rooms of all metrics.
    pub whole: bool,
    /// Events behind the last one.
    pub pending: u64,
}

impl Filler {
    /// Begins behind what is filled already; `None` where nothing is to be filled.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn open(
        client: &Client,
        api_prefix: &str,
        tenant: &Tenant,
        shard: &Shard,
        whole: bool,
    ) -> Result<Option<Self>, Broken> {
        let Some(filled_to) = shard.filled_to() else {
            return Ok(None);
        };
        let wanted = if whole {
            filters(tenant, shard.definitions().map(AsRef::as_ref))
        } else {
            filters(tenant, shard.filling().map(AsRef::as_ref))
        };
        let reader = Reader::open(client, api_prefix, &wanted, filled_to + 1).await?;
        Ok(Some(Self {
            pending: reader.pending_at_start,
            reader,
            whole,
        }))
    }

    /// What comes next; never where there is no filler.
    ///
    /// # Errors
    /// [`Broken`].
    ///
    /// # Cancel safety
    /// As [`Reader::next`].
    pub async fn next(filler: &mut Option<Self>) -> Result<Frame, Broken> {
        match filler {
            Some(filler) => filler.reader.next().await,
            None => std::future::pending().await,
        }
    }
}
