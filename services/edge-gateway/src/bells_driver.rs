//! Counters between the hub, ingest and those who are told: what [`crate::bells`] wants is read, what it says is passed on.
//!
//! It hears of notifications as shards do, from the hub, in the order of the stream; of marks and preferences from what the server
//! republishes of the bucket, without what it holds. Those messages are numbered, and once in a while the bucket is asked how far it is:
//! a message that was lost is found, and records are read again. One task for the whole gateway.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use prometheus::IntGauge;
use roomcast_access::Subscribe;
use roomcast_chassis::jetstream::{JetStream, Newest};
use roomcast_proto::ids::Tenant;
use roomcast_proto::subject::{READ_STATES_ALL, header, read_state_key, read_state_live_key, stream};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::bells::{Bells, Change, For, Record, Want};
use crate::http::unix_millis;
use crate::hub::Hub;
use crate::place::{self, Place};
use crate::shard::Handle;
use crate::state_cache::Values;

mod desk;
mod trail;

use desk::Said;
pub use desk::{BellDesk, Listener, Told};
use trail::Trail;

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

impl BellDesk {
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
                Said::Reset => self.bells.begin_anew(self.hub.head().position.rev),
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
