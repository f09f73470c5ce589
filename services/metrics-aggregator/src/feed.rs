//! One reader for all shards of this instance that read the same rooms: an event comes over the wire once, whatever the number of shards.
//!
//! A feed reads ahead into a ring of batches, and each shard takes them at its own pace. A shard that keeps the others waiting for more
//! than a second in all is cast off and goes on with a reader of its own; so does one that begins elsewhere than the feed is. A shard
//! without company is a feed of one. Where there are several the feed reads what an event says, and the shards need not.

mod ring;
mod tap;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_nats::Client;
use futures_util::FutureExt;

use crate::delivered::Frame;
use crate::reader::{Broken, Reader};

use self::ring::{Feed, State};
use self::tap::Tap;

/// All feeds of an instance. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Feeds {
    client: Client,
    api_prefix: Arc<str>,
    by_filters: Arc<Mutex<HashMap<Vec<String>, Weak<Feed>>>>,
}

impl Feeds {
    /// None yet.
    #[must_use]
    pub fn new(client: Client, api_prefix: Arc<str>) -> Self {
        Self {
            client,
            api_prefix,
            by_filters: Arc::default(),
        }
    }

    /// What comes from `start` (at least 1) on: with others, where that is possible.
    ///
    /// # Errors
    /// [`Broken`], for whatever reason.
    pub async fn open(&self, mut filters: Vec<String>, start: u64) -> Result<Source, Broken> {
        filters.sort_unstable();
        let tap = self.join(&filters, start);
        let Some(mut tap) = tap else {
            return self.alone(&filters, start).await;
        };
        let pending_at_start = tap.opened().await?;
        Ok(Source {
            pending_at_start,
            way: Way::Feed(tap),
            newest: Frame::Quiet,
            feeds: self.clone(),
            filters,
        })
    }

    async fn alone(&self, filters: &[String], start: u64) -> Result<Source, Broken> {
        let reader = Reader::open(&self.client, &self.api_prefix, filters, start).await?;
        Ok(Source {
            pending_at_start: reader.pending_at_start,
            way: Way::Reader(Box::new(reader)),
            newest: Frame::Quiet,
            feeds: self.clone(),
            filters: filters.to_vec(),
        })
    }

    /// A place in the feed of these filters, which is made where there is none. `None`: it is elsewhere.
    fn join(&self, filters: &[String], start: u64) -> Option<Tap> {
        let mut by_filters = self.by_filters.lock().unwrap_or_else(PoisonError::into_inner);
        by_filters.retain(|_, feed| feed.strong_count() > 0);
        let known = by_filters.get(filters).and_then(Weak::upgrade);
        if let Some(feed) = known.filter(|feed| !feed.ring().is_over()) {
            return Tap::new(feed, start);
        }
        let feed = Arc::new(Feed::new(start));
        by_filters.insert(filters.to_vec(), Arc::downgrade(&feed));
        let tap = Tap::new(Arc::clone(&feed), start);
        let (client, prefix, filters) = (
            self.client.clone(),
            Arc::clone(&self.api_prefix),
            filters.to_vec(),
        );
        tokio::spawn(async move {
            let ended = feed.run(&client, &prefix, &filters).await;
            feed.ring().state = State::Over(ended.err().unwrap_or_else(|| Broken::new("nobody listens")));
            feed.newest.send_modify(|_| {});
        });
        tap
    }
}

/// Where a shard's events come from.
#[derive(Debug)]
pub struct Source {
    /// Events that were waiting when it was opened.
    pub pending_at_start: u64,
    way: Way,
    /// What its own reader gave last.
    newest: Frame,
    feeds: Feeds,
    filters: Vec<String>,
}

#[derive(Debug)]
enum Way {
    Feed(Tap),
    Reader(Box<Reader>),
}

impl Source {
    /// The next thing that happens. [`Frame::CastOff`]: call [`Source::go_alone`] before the next one.
    ///
    /// # Errors
    /// [`Broken`].
    ///
    /// # Cancel safety
    /// As [`Reader::next`].
    pub async fn next(&mut self) -> Result<&Frame, Broken> {
        match &mut self.way {
            Way::Feed(tap) => tap.next().await,
            Way::Reader(reader) => {
                self.newest = reader.next().await?;
                Ok(&self.newest)
            }
        }
    }

    /// The next thing, where it is there already.
    pub fn ready(&mut self) -> Option<Result<&Frame, Broken>> {
        self.next().now_or_never()
    }

    /// Goes on with a reader of its own, at the same place.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn go_alone(&mut self) -> Result<(), Broken> {
        if let Way::Feed(tap) = &self.way {
            *self = self.feeds.alone(&self.filters, tap.after + 1).await?;
        }
        Ok(())
    }

    /// As [`Reader::probe`].
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn probe(&mut self, last_seq: u64) -> Result<(), Broken> {
        match &mut self.way {
            Way::Reader(reader) => reader.probe(last_seq).await,
            Way::Feed(tap) => {
                let mut ring = tap.feed.ring();
                ring.probe = ring.probe.max(Some(last_seq));
                drop(ring);
                tap.feed.wanted.notify_one();
                Ok(())
            }
        }
    }

    /// Lets the server forget the consumer now rather than later.
    pub async fn close(self) {
        if let Way::Reader(reader) = self.way {
            reader.close().await;
        }
    }
}
