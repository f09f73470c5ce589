//! Counters between the hub, ingest and those who are told: what [`crate::bells`] wants is read, what it says is passed on.
//!
//! It hears of notifications as shards do, from the hub, in the order of the stream; of marks and preferences from what the server
//! republishes of the bucket, without what it holds. Those messages are numbered, and once in a while the bucket is asked how far it is:
//! a message that was lost is found, and records are read again. One task for the whole gateway.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use prometheus::{IntCounterVec, IntGauge};
use roomcast_access::Subscribe;
use roomcast_chassis::jetstream::{JetStream, Newest};
use roomcast_chassis::metrics::Metrics;
use roomcast_proto::ids::Tenant;
use roomcast_proto::subject::{READ_STATES_ALL, header, read_state_key, read_state_live_key, stream};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::bells::{Bell, Bells, Change, Entering, For, Record, Want};
use crate::delivery::{Delivery, Kind};
use crate::feed::may_be_one;
use crate::http::unix_millis;
use crate::hub::{Hub, ToShard};
use crate::place::{self, Place};
use crate::shard::Handle;
use crate::state_cache::Values;

/// Messages about notifications that may wait; beyond it they are dropped, and all rooms read again.
const WAITING_MAX: usize = 65_536;
/// Rooms and sets of records read at the same time. Rooms are asked of the hub, which reads many with one request where many are wanted.
const READS_MAX: usize = 512;
/// Records read with one request: 80 KiB each at most.
const RECORDS_AT_ONCE: usize = 256;
/// What could not be read is read again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often values that have ended are looked for, and viewers that nobody listens to.
const TICK: Duration = Duration::from_millis(500);
/// How often the bucket is asked how far it is: a lost message is found by the second question.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// After a round, nobody is counted for this long for each who was: a room that thousands watch costs a part of one thread.
const REST_PER_VIEWER: Duration = Duration::from_micros(50);
/// The longest such rest.
const REST_MAX: Duration = Duration::from_millis(250);

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

enum Said {
    Enter(Box<Entering<Listener>>),
    Leave(u64),
    State(Arc<Delivery>),
    /// Rooms are not what they were, or audiences.
    Rooms,
}

#[derive(Default)]
struct Inbox {
    said: VecDeque<Said>,
    states: usize,
    /// The last position of the stream of state that was handed out.
    rev: u64,
    lost: bool,
}

/// Where listeners come to. Cheap to clone.
#[derive(Clone)]
pub struct BellDesk {
    inbox: Arc<Mutex<Inbox>>,
    wake: Arc<Notify>,
    metrics: BellMetrics,
}

impl std::fmt::Debug for BellDesk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BellDesk").finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
struct BellMetrics {
    viewers: IntGauge,
    notes: IntGauge,
    reads: IntCounterVec,
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

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
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
            ToShard::Reset => self.say(Said::Rooms),
            ToShard::Ready { .. } | ToShard::Status { .. } | ToShard::CloseAll => {}
        }
    }

    /// Counts and tells until `ending`. `heard`: what is republished of the bucket of read states.
    ///
    /// # Cancel safety
    /// Dropped, nobody is told any more.
    pub async fn run(
        self,
        hub: Arc<Hub>,
        jetstream: JetStream,
        (heard, shards): (Subscriber, Vec<Handle>),
        ending: CancellationToken,
    ) {
        let driver = Driver {
            shards,
            desk: self,
            hub,
            jetstream,
            bells: Bells::default(),
            started: Instant::now(),
            reading: FuturesUnordered::new(),
            again: VecDeque::new(),
            trail: Trail::default(),
        };
        driver.run(heard, ending).await;
    }
}

/// What was read for whom; nothing: it could not be.
enum Found {
    Room(For, Arc<Subscribe>, Option<(u64, Values)>),
    Records(Vec<(WantedRecord, Option<Record>)>),
    /// How far the bucket of records is.
    Probe(Option<u64>),
}

/// For whom, and whose.
type WantedRecord = (For, Tenant, Arc<str>);

type Reading = futures_util::future::BoxFuture<'static, Found>;

struct Driver {
    desk: BellDesk,
    shards: Vec<Handle>,
    hub: Arc<Hub>,
    jetstream: JetStream,
    bells: Bells<Listener>,
    started: Instant,
    reading: FuturesUnordered<Reading>,
    again: VecDeque<(Instant, Want)>,
    trail: Trail,
}

impl Driver {
    async fn run(mut self, mut heard: Subscriber, ending: CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut probes = tokio::time::interval(PROBE_EVERY);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rest_until = Instant::now();
        let wake = Arc::clone(&self.desk.wake);
        loop {
            let mut is_due = false;
            tokio::select! {
                () = ending.cancelled() => return,
                () = wake.notified() => {}
                Some(found) = self.reading.next(), if !self.reading.is_empty() => self.found(found),
                message = heard.next() => match message {
                    Some(message) => self.record_changed(&message),
                    None => return,
                },
                _ = ticks.tick() => is_due = true,
                _ = probes.tick() => self.reading.push(Box::pin(probe(self.jetstream.clone()))),
                () = tokio::time::sleep_until(rest_until), if rest_until > Instant::now() => {}
            }
            self.take_inbox();
            if is_due {
                self.pass_time();
            }
            self.read_on();
            if Instant::now() >= rest_until {
                let rest = REST_PER_VIEWER * u32::try_from(self.tell()).unwrap_or(u32::MAX);
                rest_until = Instant::now() + rest.min(REST_MAX);
            }
        }
    }

    fn now_millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lost(&self, what: &str) {
        self.desk.metrics.reads.with_label_values(&[what, "lost"]).inc();
    }

    fn take_inbox(&mut self) {
        let (said, rev, lost) = {
            let mut inbox = self.desk.inbox();
            inbox.states = 0;
            (
                std::mem::take(&mut inbox.said),
                inbox.rev,
                std::mem::take(&mut inbox.lost),
            )
        };
        let now_millis = self.now_millis();
        for one in said {
            match one {
                Said::Enter(entering) => {
                    let (name, to) = (entering.name, entering.to.clone());
                    if let Some(bell) = self.bells.enter(*entering, now_millis) {
                        self.desk.pass_on(&self.shards, name, &to, &bell);
                    }
                }
                Said::Leave(name) => self.bells.leave(name, now_millis),
                Said::State(delivery) => {
                    let key = place::key(delivery.tenant.as_str(), delivery.room.as_str());
                    if self.bells.has_room(&key)
                        && let Some(change) = Change::of(&delivery)
                    {
                        self.bells.changed(&key, change);
                    }
                }
                Said::Rooms => self.bells.rooms_changed(),
            }
        }
        if lost {
            self.lost("room");
            self.bells.rooms_changed();
        }
        self.bells.passed(rev);
    }

    fn record_changed(&mut self, message: &Message) {
        let sequence = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get_last(header::SEQUENCE))
            .and_then(|sequence| sequence.as_str().parse().ok());
        if sequence.is_some_and(|sequence| self.trail.heard(sequence)) {
            self.lost("record");
            self.bells.records_changed();
        } else if let Some(key) = read_state_live_key(&message.subject) {
            self.bells.record_changed(&key);
        }
    }

    fn pass_time(&mut self) {
        let secs = unix_millis().div_euclid(1_000);
        self.bells.expire(u32::try_from(secs).unwrap_or(0));
        self.bells.sweep(self.now_millis());
        let due = |(at, _): &(Instant, Want)| *at <= Instant::now();
        while self.again.front().is_some_and(due) {
            if let Some((_, want)) = self.again.pop_front() {
                self.bells.give_back(want);
            }
        }
        let (viewers, _, notes) = self.bells.sizes();
        let gauge = |gauge: &IntGauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        gauge(&self.desk.metrics.viewers, viewers);
        gauge(&self.desk.metrics.notes, notes);
    }

    fn read_on(&mut self) {
        let mut records = Vec::new();
        while self.reading.len() < READS_MAX {
            match self.bells.take_want() {
                Some(Want::Room(of, permit)) => self.read_room(of, permit),
                Some(Want::Record(of, tenant, user)) => records.push((of, tenant, user)),
                None => break,
            }
            if records.len() == RECORDS_AT_ONCE {
                self.read_records(std::mem::take(&mut records));
            }
        }
        if !records.is_empty() {
            self.read_records(records);
        }
    }

    fn read_room(&self, of: For, permit: Arc<Subscribe>) {
        let hub = Arc::clone(&self.hub);
        self.reading.push(Box::pin(async move {
            let whole = hub.whole_async(&Place::of(&permit), unix_millis).await;
            Found::Room(of, permit, whole.ok())
        }));
    }

    fn read_records(&self, wanted: Vec<WantedRecord>) {
        let jetstream = self.jetstream.clone();
        self.reading.push(Box::pin(async move {
            Found::Records(records(&jetstream, wanted).await)
        }));
    }

    fn found(&mut self, found: Found) {
        match found {
            Found::Probe(last) => {
                if last.is_some_and(|last| self.trail.probed(last)) {
                    self.lost("record");
                    self.bells.records_changed();
                }
            }
            Found::Room(of, _, Some((rev, values))) => {
                self.bells
                    .room_read(of, rev, values.iter().filter_map(Change::of));
                self.count("room", "read");
            }
            Found::Room(of, permit, None) => {
                self.count("room", "failed");
                self.later(Want::Room(of, permit));
            }
            Found::Records(found) => {
                for ((of, tenant, user), record) in found {
                    if let Some(record) = record {
                        self.bells.record_read(of, record);
                        self.count("record", "read");
                    } else {
                        self.count("record", "failed");
                        self.later(Want::Record(of, tenant, user));
                    }
                }
            }
        }
    }

    fn count(&self, what: &str, outcome: &str) {
        self.desk.metrics.reads.with_label_values(&[what, outcome]).inc();
    }

    fn later(&mut self, want: Want) {
        self.again.push_back((Instant::now() + AGAIN_AFTER, want));
    }

    fn tell(&mut self) -> usize {
        let (desk, shards) = (&self.desk, &self.shards);
        self.bells
            .round(|name, to, bell| desk.pass_on(shards, name, to, bell))
    }
}

impl BellDesk {
    fn pass_on(&self, shards: &[Handle], name: u64, to: &Listener, bell: &Bell) {
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

/// What is kept of these users. Which replica answers is anybody's guess, so it must have what the leader has.
async fn records(jetstream: &JetStream, wanted: Vec<WantedRecord>) -> Vec<(WantedRecord, Option<Record>)> {
    let keys: Vec<String> = wanted
        .iter()
        .map(|(_, tenant, user)| read_state_key(tenant, user))
        .collect();
    let subjects: Vec<&str> = keys.iter().map(String::as_str).collect();
    let newest = jetstream
        .newest(stream::READSTATE, READ_STATES_ALL, &subjects)
        .await;
    let held: Option<(u64, HashMap<String, Bytes>)> = match newest {
        Ok(Newest::Messages(messages)) => {
            let at = messages.iter().map(|message| message.sequence).max();
            let held = messages
                .into_iter()
                .map(|message| (message.subject, message.payload));
            Some((at.unwrap_or(0), held.collect()))
        }
        Ok(Newest::TooMany | Newest::Behind) | Err(_) => None,
    };
    let of = |key: String| {
        let (at, held) = held.as_ref()?;
        let record = Record::read(held.get(&key))?;
        Some(Record { at: *at, ..record })
    };
    wanted.into_iter().zip(keys.into_iter().map(of)).collect()
}

async fn probe(jetstream: JetStream) -> Found {
    let info = jetstream.stream_info(stream::READSTATE).await;
    Found::Probe(info.ok().flatten().map(|info| info.state.last_seq))
}

/// What was heard of the bucket, by position: each write of it makes one message, and its position is one more.
#[derive(Debug, Default)]
struct Trail {
    /// The last position heard of; `None`: nothing is known yet.
    heard: Option<u64>,
    /// Where the bucket was at the question before.
    probed: u64,
}

impl Trail {
    /// A message came; whether one before it did not.
    fn heard(&mut self, sequence: u64) -> bool {
        // Less than before: the bucket was made anew.
        let is_next = self.heard.is_none_or(|heard| sequence == heard + 1);
        self.heard = Some(sequence);
        !is_next
    }

    /// The bucket says where it is; whether something was lost: it was there at the question before, and has still not come.
    fn probed(&mut self, last: u64) -> bool {
        // What was before is in the records when they are read.
        let heard = *self.heard.get_or_insert(last);
        let lost = heard < self.probed;
        if lost {
            self.heard = Some(self.probed);
        }
        self.probed = last;
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_message_is_found_by_the_next_or_by_the_second_question() {
        let mut trail = Trail::default();
        assert!(!trail.probed(7));
        assert!(!trail.heard(8));
        assert!(trail.heard(10), "9 was lost");
        assert!(!trail.heard(11));
        assert!(!trail.probed(11));
        assert!(!trail.probed(12), "12 may be on its way");
        assert!(trail.probed(12), "12 was lost");
        assert!(!trail.probed(12));
        assert!(!trail.heard(13));
        assert!(trail.heard(1), "the bucket was made anew");
        assert!(!trail.heard(2));
        let mut quiet = Trail::default();
        assert!(!quiet.probed(0));
        assert!(!quiet.heard(1));
        assert!(!quiet.probed(1));
        let mut first = Trail::default();
        assert!(!first.probed(0));
        assert!(!first.probed(1));
        assert!(first.probed(1), "the first message of all was lost");
    }
}
