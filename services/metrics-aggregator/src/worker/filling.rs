//! New and changed metrics are filled from what the stream keeps, while the others go on.

use async_nats::Subscriber;

use crate::cover::filters;
use crate::delivered::Frame;
use crate::feed::Source;
use crate::filler::Filler;
use crate::reader::Broken;

use super::{Ended, Session};

/// Where a shard's events come from.
pub(super) struct Readers {
    /// Those of the metrics that go on.
    pub(super) reader: Source,
    /// Those of the metrics that are being filled.
    pub(super) filler: Option<Filler>,
    /// What gateways ask.
    pub(super) questions: Subscriber,
}

impl Readers {
    pub(super) async fn close(self) {
        self.reader.close().await;
        if let Some(filler) = self.filler {
            filler.reader.close().await;
        }
    }
}

impl Session<'_> {
    pub(super) async fn filler(&self, whole: bool) -> Result<Option<Filler>, Broken> {
        let shared = self.shared;
        let client = shared.jetstream.client();
        Filler::open(client, &shared.api_prefix, &shared.tenant, &self.shard, whole).await
    }

    /// What came for the metrics that are being filled.
    pub(super) async fn filled(&mut self, frame: Frame, readers: &mut Readers) -> Result<(), Ended> {
        let Some(filler) = &mut readers.filler else {
            return Ok(());
        };
        let mut met = false;
        if let Frame::Event(delivered) = &frame {
            filler.pending = delivered.pending;
            let counters = &self.shared.counters;
            let shard = &mut self.shard;
            let read = delivered.read(&self.shared.tenant, |event| {
                shard.fill(event, &mut |outcome| counters.count(outcome))
            });
            // What is no event was counted when the others met it.
            met = read.unwrap_or(delivered.seq >= shard.position());
        } else {
            filler.pending = 0;
        }
        self.filling = filler.pending;
        if met {
            self.join(readers).await
        } else if filler.pending == 0 {
            self.nothing_to_fill(readers).await
        } else {
            Ok(())
        }
    }

    /// In the rooms that the filler reads nothing is waiting.
    pub(super) async fn nothing_to_fill(&mut self, readers: &mut Readers) -> Result<(), Ended> {
        let wider = match &readers.filler {
            Some(filler) if !filler.whole => self.filler(true).await?,
            _ => None,
        };
        if let Some(wider) = wider {
            let pending = wider.pending;
            if let Some(narrow) = readers.filler.replace(wider) {
                narrow.reader.close().await;
            }
            if pending > 0 {
                return Ok(());
            }
        }
        self.shard.believe_filled();
        Ok(())
    }

    /// What was filled is as far as the others: from here on one reader serves all.
    async fn join(&mut self, readers: &mut Readers) -> Result<(), Ended> {
        let filled: Vec<String> = self.shard.filling().map(|metric| metric.name.clone()).collect();
        tracing::info!(
            shard = self.number,
            "shard {}: {} filled from history up to position {}",
            self.number,
            filled.join(", "),
            self.shard.position()
        );
        self.shard.join();
        self.filling = 0;
        let reader = self.reader().await?;
        self.pending = reader.pending_at_start;
        std::mem::replace(&mut readers.reader, reader).close().await;
        if let Some(filler) = readers.filler.take() {
            filler.reader.close().await;
        }
        Ok(())
    }

    /// The reader of what goes on, from the position on.
    pub(super) async fn reader(&self) -> Result<Source, Broken> {
        let shared = self.shared;
        let settled = self.shard.settled_definitions().map(AsRef::as_ref);
        let wanted = filters(&shared.tenant, settled);
        let start = self.shard.position() + 1;
        shared.feeds.open(wanted, start).await
    }
}
