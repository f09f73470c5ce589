//! The door of databases: follows the changes of one PostgreSQL database and takes them in like everybody's events.
//!
//! Everything about PostgreSQL is in the crate `roomcast_capture`; here is what has to do with NATS: where it goes on ([`kept`]), what of
//! before it publishes ([`snapshot`], [`catch_up`]), how much leaves at once ([`batches`]), that a change is confirmed to the database only
//! after it is stored. Where several ingests have the same database, one follows it, and the others wait for its lock there.

mod batches;
mod catch_up;
mod ended;
mod kept;
mod metrics;
mod settings;
mod snapshot;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use roomcast_capture::Mapping;
use roomcast_capture::begin::{Begin, begin, snapshots};
use roomcast_capture::checks::judge;
use roomcast_capture::database::Database;
use roomcast_capture::follow::{Follow, From, Item, Line};
use roomcast_capture::position::{Lsn, Numbers, Place, Position, Snapshots};
use roomcast_capture::session::{self, Session, Stream};
use roomcast_chassis::jetstream::JetStream;
use roomcast_chassis::trace::{KeyValue, SpanKind, Step};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::accept::Sender;
use crate::intake::{Intake, Request, Shape};
use crate::lines;
use crate::metrics::Door;
use crate::now_micros;

use batches::{Batches, cut};
use ended::Ended;
use kept::Kept;
pub use metrics::CaptureMetrics;
pub use settings::CaptureSettings;

/// Items between the reader of the stream and the one who stores them.
const ITEMS_MAX: usize = 512;
/// How often the position is stored while changes come.
const POSITION_EVERY: Duration = Duration::from_secs(1);
/// First and longest pause before it is begun again.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(15)];
/// How often one that waits for another asks for the lock.
const WAIT: Duration = Duration::from_secs(2);
/// Time in which a batch must be stored; less than the stream remembers ids, so that none is stored twice.
const STORED_WITHIN: Duration = Duration::from_secs(60);
/// Time to write the position when asked to end.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How often the slot is looked at.
const LAG_EVERY: Duration = Duration::from_secs(15);

/// How far a capture is.
#[derive(Debug)]
struct GoingOn {
    kept: Kept,
    position: Position,
    /// The tables whose rows of before are published.
    snapshots: Snapshots,
    /// Whether the position covers everything that is stored.
    covered: bool,
    /// Where in the log it does at the latest: what was stored before following began was committed before.
    covered_at: u64,
}

impl GoingOn {
    async fn write(&mut self) -> Result<(), Ended> {
        self.kept.write(&mut self.position, self.covered).await
    }

    /// To be called before anything is stored, so that it is found again.
    async fn freshen(&mut self) -> Result<(), Ended> {
        if self.kept.is_old() {
            self.write().await?;
        }
        Ok(())
    }
}

/// Follows one database.
#[derive(Debug)]
pub struct Capture {
    mapping: Arc<Mapping>,
    database: Database,
    intake: Intake,
    jetstream: JetStream,
    sender: Sender,
    origin: String,
    metrics: CaptureMetrics,
}

impl Capture {
    /// Makes it; nothing is connected.
    #[must_use]
    pub fn new(
        mapping: Mapping,
        database: Database,
        intake: Intake,
        jetstream: JetStream,
        metrics: CaptureMetrics,
    ) -> Self {
        let source = mapping.event_source();
        Self {
            sender: Sender::capture(&mapping.tenant, &source),
            origin: source,
            mapping: Arc::new(mapping),
            database,
            intake,
            jetstream,
            metrics,
        }
    }

    /// Follows the database until `ending`, beginning again whenever a session ends.
    pub async fn run(self, ending: CancellationToken) {
        let mut pause = PAUSES[0];
        let mut said = String::new();
        loop {
            let began = Instant::now();
            let ended = match self.session(&ending).await {
                Ok(never) => match never {},
                Err(ended) => ended,
            };
            self.metrics.following.set(0);
            let wait = match &ended {
                Ended::Asked => return,
                Ended::Standby => WAIT,
                other => {
                    self.metrics.failed(other.reason());
                    // What holds for long is said once.
                    let text = other.to_string();
                    if text == said {
                        tracing::debug!(%text, "capture still cannot go on: {text}");
                    } else {
                        tracing::error!(
                            source = self.mapping.source,
                            database = %self.database,
                            "capture of {} cannot go on, and is tried again: {text}",
                            self.mapping.source
                        );
                    }
                    said = text;
                    if began.elapsed() > PAUSES[1] {
                        pause = PAUSES[0];
                    }
                    let wait = pause;
                    pause = (pause * 2).min(PAUSES[1]);
                    wait
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = ending.cancelled() => return,
            }
        }
    }

    /// Looks at the slot until `ending`, whoever follows it: a database that nobody follows keeps its log.
    pub async fn watch(
        mapping: Arc<Mapping>,
        database: Database,
        metrics: CaptureMetrics,
        ending: CancellationToken,
    ) {
        loop {
            let lag = async {
                let mut session = Session::open(&database, &mapping).await?;
                session.lag(&mapping).await
            };
            match lag.await {
                Ok(lag) => {
                    let (held, unconfirmed) = lag.unwrap_or_default();
                    metrics.lag(held, unconfirmed);
                }
                Err(error) => tracing::debug!(%error, "the slot cannot be looked at: {error}"),
            }
            tokio::select! {
                () = tokio::time::sleep(LAG_EVERY) => {}
                () = ending.cancelled() => return,
            }
        }
    }

    /// The mapping it goes by.
    #[must_use]
    pub fn mapping(&self) -> Arc<Mapping> {
        Arc::clone(&self.mapping)
    }

    async fn session(&self, ending: &CancellationToken) -> Result<std::convert::Infallible, Ended> {
        tokio::select! {
            ended = self.follow(ending) => ended,
            // Following ends by itself, and writes how far it came; whatever else is under way is found again by its ids.
            () = async {
                ending.cancelled().await;
                tokio::time::sleep(LAST_WORDS).await;
            } => Err(Ended::Asked),
        }
    }

    async fn follow(&self, ending: &CancellationToken) -> Result<std::convert::Infallible, Ended> {
        let mapping = &self.mapping;
        let mut session = Session::open(&self.database, mapping).await?;
        if !session.lock(mapping).await? {
            return Err(Ended::Standby);
        }
        let facts = session.facts(mapping).await?;
        let problems = judge(mapping, &facts);
        if !problems.is_empty() {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            return Err(Ended::Problems(lines.join("\n  ")));
        }
        let (system, timelines) = session.identity().await?;
        let mut kept = Kept::new(self.jetstream.clone(), mapping);
        let (stored, written) = kept.read().await?;
        let listed = kept.read_snapshots().await?;
        let slot = session.slot(mapping).await?;
        let before = stored.clone().zip(written);
        let mut snapshots = snapshots(mapping, stored.as_ref(), listed.clone());
        let decided = begin(
            mapping,
            stored,
            slot.as_ref(),
            &system,
            &self.database.name,
            &timelines,
        );
        let is_kept = matches!(decided, Begin::Resume(_) | Begin::Adopt);
        if is_kept && mapping.failover.is_some() && slot.is_some_and(|slot| !slot.failover) {
            session.let_fail_over(mapping).await?;
        }
        let fresh = |outbox: Numbers, snapshot_done: bool| Position {
            system: system.clone(),
            timeline: timelines.now(),
            place: Place::default(),
            events_seq: 0,
            snapshot_done,
            outbox,
        };
        let mut from = From::default();
        let going_on = match decided {
            Begin::Stop(why) => return Err(Ended::Stopped(why)),
            Begin::Resume(mut position) => {
                if let Some((_, micros)) = before {
                    from = kept.beyond(&position, micros, &self.origin, &timelines).await?;
                }
                from.numbers
                    .iter()
                    .for_each(|number| position.outbox.insert(*number));
                if listed.is_none() && position.snapshot_done && snapshots != Snapshots::default() {
                    tracing::info!(
                        "an ingest of a version before this followed {}: rows of before are taken as published for every table in \
                         the mapping",
                        mapping.source
                    );
                }
                going_on(kept, position, snapshots)
            }
            Begin::Adopt => {
                let name = &mapping.slot;
                tracing::warn!(
                    slot = name,
                    "the slot {name} was there before: its changes are followed, and no snapshot is made"
                );
                snapshots = Snapshots::all(mapping);
                going_on(kept, fresh(Numbers::default(), true), snapshots)
            }
            Begin::Fresh {
                drop,
                mut outbox,
                why,
            } => {
                if let Some((before, micros)) = &before {
                    let beyond = kept.beyond(before, *micros, &self.origin, &timelines).await?;
                    beyond
                        .numbers
                        .into_iter()
                        .for_each(|number| outbox.insert(number));
                }
                if !why.is_empty() {
                    tracing::warn!(
                        "{why}: a new slot is made, and rows that are there now are published again where tables have a snapshot"
                    );
                }
                // First what is taken back: a position that says that all begins anew is not read with it.
                kept.write_snapshots(&Snapshots::default()).await?;
                let mut going_on = going_on(kept, fresh(outbox, false), Snapshots::default());
                going_on.covered = true;
                going_on.write().await?;
                if drop {
                    session.drop_slot(mapping).await?;
                }
                let lsn = session.create_slot(mapping).await?;
                going_on.position.place = Place::through(lsn.saturating_sub(1));
                going_on.write().await?;
                self.outbox_rows(&mut session, &facts, &mut going_on, &mut from)
                    .await?;
                self.snapshot(&mut session, &facts, &mut going_on, lsn).await?;
                session.end_snapshot().await?;
                going_on
            }
        };
        from.place = going_on.position.place;
        let (mut going_on, mut from) = self
            .rows_of_before(&mut session, &facts, &timelines, going_on, from, ending)
            .await?;
        from.place = going_on.position.place;
        going_on.position.snapshot_done |= going_on.snapshots.has_all(mapping);
        going_on.covered = from.is_covered();
        going_on.covered_at = session.end_of_log().await?;
        going_on.kept.write_snapshots(&going_on.snapshots).await?;
        going_on.write().await?;
        let follow = Follow::new(Arc::clone(mapping), timelines, from);
        let stream = session.start(follow).await?;
        self.metrics.following.set(1);
        tracing::info!(
            source = mapping.source,
            database = %self.database,
            "capture follows {} at {}",
            mapping.source,
            self.database
        );
        self.store_stream(stream, going_on, u64::MAX, ending).await?;
        Err(Ended::Asked)
    }

    /// Reads and stores at the same time, with a bounded queue in between, until everything that was committed before `until` is stored.
    async fn store_stream(
        &self,
        stream: Stream,
        going_on: GoingOn,
        until: u64,
        ending: &CancellationToken,
    ) -> Result<GoingOn, Ended> {
        let (items, received) = mpsc::channel(ITEMS_MAX);
        let (confirm, confirmed) = watch::channel(0);
        let reader = tokio::spawn(read(stream, items, confirmed, self.metrics.clone()));
        let stored = self.store_items(received, confirm, going_on, until, ending).await;
        // Without the queue, the reader ends by itself, and says why if it did before.
        match (stored, reader.await) {
            (Err(Ended::Asked), Ok(Err(error))) => Err(error.into()),
            (Err(Ended::Asked), Err(failed)) => {
                Err(Ended::Stopped(format!("the reader has failed: {failed}")))
            }
            (stored, _) => stored,
        }
    }

    /// Ends with `Asked` when nothing comes any more.
    async fn store_items(
        &self,
        mut received: mpsc::Receiver<Item>,
        confirm: watch::Sender<u64>,
        mut going_on: GoingOn,
        until: u64,
        ending: &CancellationToken,
    ) -> Result<GoingOn, Ended> {
        let mut batches = Batches::default();
        let mut passed = None;
        let mut changed = false;
        let mut tick = tokio::time::interval(POSITION_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut items = Vec::with_capacity(ITEMS_MAX);
        loop {
            tokio::select! {
                biased;
                _ = tick.tick() => {
                    if changed {
                        going_on.write().await?;
                        changed = false;
                    }
                    if let Some(lsn) = passed.take() {
                        confirm.send_replace(lsn);
                    }
                }
                () = ending.cancelled() => {
                    going_on.write().await?;
                    confirm.send_replace(passed.unwrap_or(0));
                    return Err(Ended::Asked);
                }
                count = received.recv_many(&mut items, ITEMS_MAX) => {
                    if count == 0 {
                        return Err(Ended::Asked);
                    }
                    let reached = cut(&mut items, until);
                    batches.extend(items.drain(..));
                    while let Some(batch) = batches.next() {
                        if !batch.lines.is_empty() {
                            going_on.freshen().await?;
                            self.store(batch.lines.iter().collect()).await?;
                        }
                        for number in batch.lines.iter().filter_map(|line| line.number) {
                            going_on.position.outbox.insert(number);
                        }
                        if batch.place > going_on.position.place {
                            going_on.position.place = batch.place;
                            changed = true;
                        }
                        if let Some(lsn) = batch.confirm {
                            passed = Some(lsn);
                        }
                        let at = going_on.covered_at;
                        going_on.covered |= batch.caught_up || batch.confirm.is_some_and(|lsn| lsn >= at);
                    }
                    if reached {
                        let place = Place::through(until.saturating_sub(1));
                        going_on.position.place = going_on.position.place.max(place);
                        going_on.covered = true;
                        going_on.write().await?;
                        confirm.send_replace(passed.unwrap_or(0));
                        return Ok(going_on);
                    }
                }
            }
        }
    }

    /// Takes events in until each is stored, known, or refused for good and kept as a dead letter. The sample decides whether that begins
    /// a trace, which names the last transaction; an event that came with one goes on with its own.
    async fn store(&self, lines: Vec<&Line>) -> Result<(), Ended> {
        if lines.is_empty() {
            // Transactions that changed nothing of ours, or rows that are published already.
            return Ok(());
        }
        let step = Step::begin("process changes", SpanKind::Consumer, None);
        step.set(|| {
            let last = lines.last().map_or(0, |line| line.place.lsn);
            [
                KeyValue::new("db.system.name", "postgresql"),
                KeyValue::new("db.namespace", self.database.name.clone()),
                KeyValue::new("roomcast.capture.lsn", Lsn(last).to_string()),
                KeyValue::new(
                    "messaging.batch.message_count",
                    i64::try_from(lines.len()).unwrap_or(i64::MAX),
                ),
            ]
        });
        let stored = step.run(self.stored(lines)).await;
        if stored.is_err() {
            step.failed("unavailable");
        }
        stored
    }

    async fn stored(&self, mut left: Vec<&Line>) -> Result<(), Ended> {
        let began = Instant::now();
        let mut pause = Duration::from_millis(50);
        while !left.is_empty() {
            let mut body = BytesMut::with_capacity(left.iter().map(|line| line.bytes.len()).sum());
            let place = |line: &&Line| {
                let start = body.len();
                body.extend_from_slice(&line.bytes);
                lines::Line {
                    place: start..body.len(),
                    original_bytes: line.original_bytes,
                }
            };
            let places: Vec<lines::Line> = left.iter().map(place).collect();
            let request = Request {
                door: Door::Capture,
                sender: &self.sender,
                room: None,
                audience: None,
                backfill: true,
                origin: &self.origin,
                shape: Shape::Batch,
                body: body.freeze(),
                original: None,
            };
            self.intake.metrics.request(Door::Capture);
            let taken = self.intake.take_lines(&request, &places, now_micros()).await;
            let mut last = None;
            let again = left.iter().zip(&taken).filter_map(|(line, taken)| {
                let refusal = &taken.as_ref().err()?.refusal;
                refusal.code.temporary().then(|| {
                    last = Some(refusal.to_string());
                    *line
                })
            });
            left = again.collect();
            if let Some(reason) = last {
                if began.elapsed() > STORED_WITHIN {
                    return Err(Ended::Store(reason));
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
        }
        Ok(())
    }
}

/// The beginning, of which it is not known what of it is stored beyond.
fn going_on(kept: Kept, position: Position, snapshots: Snapshots) -> GoingOn {
    GoingOn {
        kept,
        position,
        snapshots,
        covered: false,
        covered_at: u64::MAX,
    }
}

/// Reads the stream until it ends, or nobody takes what is read.
async fn read(
    mut stream: Stream,
    items: mpsc::Sender<Item>,
    mut confirmed: watch::Receiver<u64>,
    metrics: CaptureMetrics,
) -> Result<(), session::Error> {
    let mut ready = Vec::new();
    loop {
        tokio::select! {
            biased;
            changed = confirmed.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                stream.confirm(*confirmed.borrow_and_update());
            }
            next = stream.next(&mut ready) => next?,
        }
        metrics.left(stream.left());
        for item in ready.drain(..) {
            if items.send(item).await.is_err() {
                return Ok(());
            }
        }
    }
}
