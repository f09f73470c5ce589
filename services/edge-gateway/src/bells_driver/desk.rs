//! Where those come to who want to be told, and where the hub's deliveries and rights that change are said.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::{IntCounterVec, IntGauge};
use roomcast_chassis::metrics::Metrics;
use tokio::sync::{Notify, watch};

use crate::bells::{Bell, Entering};
use crate::delivery::{Delivery, Kind};
use crate::feed::may_be_one;
use crate::hub::{Hub, ToShard};
use crate::shard::Handle;

/// Messages about notifications that may wait; beyond it they are dropped, and all rooms read again.
const WAITING_MAX: usize = 65_536;

/// How a listener is reached.
#[derive(Clone, Debug)]
pub enum Listener {
    /// A connection of a shard, by its key there, and under which generation of rights it asked.
    Shard {
        /// Which shard, by its number.
        shard: usize,
        /// Its key in the shard.
        key: u32,
        /// What is told under other rights than those of now is not passed on.
        generation: u64,
    },
    /// A request that is held.
    Held(watch::Sender<Option<Bell>>),
}

/// What a shard passes on to one of its connections.
#[derive(Debug)]
pub struct Told {
    /// The connection's key and name: the key may have another holder by now.
    pub key: u32,
    /// Its name.
    pub name: u64,
    /// See [`Listener::Shard`].
    pub generation: u64,
    /// What to say.
    pub bell: Bell,
}

pub(super) enum Said {
    Enter(Box<Entering<Listener>>),
    Leave(u64),
    State(Arc<Delivery>),
    /// Audiences have other numbers.
    Rooms,
    /// The streams are not what they were.
    Reset,
}

#[derive(Default)]
pub(super) struct Inbox {
    pub(super) said: VecDeque<Said>,
    pub(super) states: usize,
    /// The last position of the stream of state that was handed out.
    pub(super) rev: u64,
    pub(super) lost: bool,
}

/// Where listeners come to. Cheap to clone.
#[derive(Clone)]
pub struct BellDesk {
    inbox: Arc<Mutex<Inbox>>,
    pub(super) wake: Arc<Notify>,
    pub(super) metrics: BellMetrics,
}

impl std::fmt::Debug for BellDesk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BellDesk").finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
pub(super) struct BellMetrics {
    pub(super) viewers: IntGauge,
    pub(super) notes: IntGauge,
    pub(super) reads: IntCounterVec,
    told: IntCounterVec,
}

impl BellDesk {
    /// Makes it; nothing is heard before [`BellDesk::attach`], nothing counted before [`BellDesk::run`].
    ///
    /// # Errors
    /// Where the metrics are declared already.
    pub fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        Ok(Self {
            inbox: Arc::default(),
            wake: Arc::default(),
            metrics: BellMetrics {
                viewers: metrics.gauge(
                    "roomcast_gateway_bell_viewers",
                    "Users whose unread notifications are counted here, once for each set of rooms.",
                )?,
                notes: metrics.gauge(
                    "roomcast_gateway_bell_notifications",
                    "Notifications held for counting, 24 bytes each.",
                )?,
                reads: metrics.counter_vec(
                    "roomcast_gateway_bell_reads_total",
                    "Rooms and records read for counting, by what came of it: read, failed; lost: messages were lost and all is read again.",
                    &["what", "outcome"],
                )?,
                told: metrics.counter_vec(
                    "roomcast_gateway_bell_told_total",
                    "Counters said to listeners, by kind.",
                    &["to"],
                )?,
            },
        })
    }

    /// From now on the hub's deliveries are heard; after the shards, whose numbers begin at 0.
    pub fn attach(&self, hub: &Hub) {
        let own = self.clone();
        hub.attach(Box::new(move |message| own.heard(message)));
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, said: Said) {
        self.inbox().said.push_back(said);
        self.wake.notify_one();
    }

    /// Somebody wants to be told from now on, as its rights are now.
    pub fn enter(&self, entering: Entering<Listener>) {
        self.say(Said::Enter(Box::new(entering)));
    }

    /// A listener is gone.
    pub fn leave(&self, name: u64) {
        self.say(Said::Leave(name));
    }

    /// Audiences have other numbers: what is held of rooms is read again.
    pub fn policy_changed(&self) {
        self.say(Said::Rooms);
    }

    /// Called by the hub under its lock: it must be quick.
    fn heard(&self, message: ToShard) {
        match message {
            ToShard::Deliver(delivery) => {
                let Kind::State { key, .. } = &delivery.kind else {
                    return;
                };
                let mut inbox = self.inbox();
                inbox.rev = delivery.position.rev;
                if !may_be_one(key) {
                    return;
                }
                if inbox.states >= WAITING_MAX {
                    inbox.lost = true;
                    return;
                }
                inbox.states += 1;
                inbox.said.push_back(Said::State(delivery));
                drop(inbox);
                self.wake.notify_one();
            }
            ToShard::Reset => {
                // A place in streams that are no more.
                self.inbox().rev = 0;
                self.say(Said::Reset);
            }
            ToShard::Ready { .. } | ToShard::Status { .. } | ToShard::CloseAll => {}
        }
    }

    pub(super) fn pass_on(&self, shards: &[Handle], name: u64, to: &Listener, bell: &Bell) {
        let told = match to {
            Listener::Shard {
                shard,
                key,
                generation,
            } => {
                if let Some(shard) = shards.get(*shard) {
                    shard.told(Told {
                        key: *key,
                        name,
                        generation: *generation,
                        bell: bell.clone(),
                    });
                }
                "connection"
            }
            Listener::Held(sender) => {
                sender.send_replace(Some(bell.clone()));
                "request"
            }
        };
        self.metrics.told.with_label_values(&[told]).inc();
    }
}
