//! Starts everything between NATS and the hub: two connections, two spines, ephemeral events, reads, the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::Subscriber;
use futures_util::StreamExt;
use jiff::Timestamp;
use roomcast_chassis::config::Reader;
use roomcast_chassis::jetstream::{JetStream, StreamInfo};
use roomcast_chassis::nats::{Connector, Nats};
use roomcast_chassis::process::Failure;
use roomcast_chassis::readiness::{Latch, Readiness};
use roomcast_chassis::shutdown::{Shutdown, Stage};
use roomcast_proto::cursor::Cursors;
use roomcast_proto::limits::SCAN_POSITIONS_MAX;
use roomcast_proto::stream::{Sizing, definitions, differences};
use roomcast_proto::subject::EPHEMERAL_ALL;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::hub::{Hub, HubSettings};
use crate::reads;
use crate::spine_driver::{LiveFilter, Parts, SpineDriver, Which, incoming, uptime_millis};
use crate::traces;

/// How often the hub is told the time.
const TICK: Duration = Duration::from_millis(100);
/// A stream that does not exist yet is looked for this often.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Settings of the NATS side.
#[derive(Clone)]
pub struct NatsSideSettings {
    /// Copies of every stream; the streams found must have as many.
    pub replicas: u32,
    /// Limits of what is kept in memory.
    pub hub: HubSettings,
    /// For tests: which republished messages are let through.
    pub live_filter: Option<LiveFilter>,
}

impl NatsSideSettings {
    /// Reads `ROOMCAST_REPLICAS`, `ROOMCAST_RING_…`, `ROOMCAST_STATE_BYTES`.
    pub fn read(reader: &mut Reader<'_>, cursors: Cursors) -> Self {
        let usual = HubSettings::default();
        let ring_bytes_max = reader.number(
            "ROOMCAST_RING_BYTES",
            usual.ring_bytes_max,
            1 << 20..=1 << 40,
            "Bytes of recent events kept in memory for clients that return.",
        );
        Self {
            replicas: reader.number(
                "ROOMCAST_REPLICAS",
                3,
                1..=5,
                "Copies of every stream that NATS must hold.",
            ),
            hub: HubSettings {
                ring_bytes_max,
                ring_tenant_bytes_max: reader.number(
                    "ROOMCAST_RING_TENANT_BYTES",
                    ring_bytes_max,
                    1 << 20..=1 << 40,
                    "Bytes of them that one tenant may hold, however much is free; usually all. Whoever holds most gives way first in any \
                     case.",
                ),
                ring_room_events_min: reader.number(
                    "ROOMCAST_RING_ROOM_EVENTS",
                    usual.ring_room_events_min,
                    1..=10_000,
                    "Recent events of a quiet room that others do not push out of memory.",
                ),
                warm_events_max: reader.number(
                    "ROOMCAST_RING_WARM_EVENTS",
                    usual.warm_events_max,
                    1..=10_000_000,
                    "Recent events read into memory at start.",
                ),
                scan_positions_max: reader.number(
                    "ROOMCAST_SCAN_POSITIONS_MAX",
                    usual.scan_positions_max,
                    1..=SCAN_POSITIONS_MAX,
                    "Positions of the stream looked through for a returning client whose place is no longer in memory; farther back is \
                     too_far.",
                ),
                state_bytes_max: reader.number(
                    "ROOMCAST_STATE_BYTES",
                    usual.state_bytes_max,
                    1 << 20..=1 << 40,
                    "Bytes of the state of rooms without members, and of users' own rooms, that are kept in memory; other rooms with members are, whatever \
                     they weigh.",
                ),
                cursors,
            },
            live_filter: None,
        }
    }
}

/// Connects and starts all tasks; returns once they run. Ready (latches `events`, `state`) when both streams have been read to their
/// ends; then [`Hub::accepting`] says yes. Waits for NATS and for the streams as long as it takes. Answers the connection that
/// live messages do not come by.
///
/// # Errors
/// NATS is too old, or a stream differs from what it must be: exit code 69 and how to mend it. Stopped while waiting: exit code 0.
///
/// # Cancel safety
/// Dropped while it waits, nothing runs.
pub async fn start(
    hub: &Arc<Hub>,
    settings: &NatsSideSettings,
    connector: &Connector,
    readiness: &Readiness,
    shutdown: &Shutdown,
) -> Result<Nats, Failure> {
    let waiting =
        |which: Which| readiness.latch(which.label(), format!("waiting for stream {}", which.stream()));
    let latches = [
        (Which::State, waiting(Which::State)),
        (Which::Events, waiting(Which::Events)),
    ];
    // Ready only when the door is: streams that have been read open it with the next tick.
    let door = readiness.latch("door", "closed until both streams have been read");
    // Direct gets are answered on the connection they come by: live messages must not wait behind them.
    let live = connector.connect("live").await?;
    let repair = connector.connect("repair").await?;
    let started = Instant::now();
    let caught_up = Arc::new(AtomicUsize::new(0));
    let side = Side {
        hub,
        settings,
        live: &live,
        js: repair.jetstream(),
        shutdown,
        started,
        caught_up,
    };
    let mut drivers = Vec::new();
    for (which, latch) in latches {
        drivers.push(side.prepare(which, latch).await?);
    }
    let ephemeral = subscribe(&live, EPHEMERAL_ALL).await?;
    let stage = shutdown.stage(Stage::Finish);
    for driver in drivers {
        shutdown.spawn_vital(Stage::Finish, "spine", driver.run(stage.token()));
    }
    stage.spawn(pass_ephemeral(Arc::clone(hub), ephemeral, stage.token()));
    stage.spawn(clock(
        Arc::clone(hub),
        started,
        Arc::clone(&side.caught_up),
        door,
        stage.token(),
    ));
    reads::spawn(hub, &side.js, stage);
    Ok(repair)
}

async fn subscribe(live: &Nats, subject: &'static str) -> Result<Subscriber, Failure> {
    let subscribed = live.client().subscribe(subject).await;
    subscribed.map_err(|error| Failure::unavailable(format!("cannot subscribe to {subject}: {error}")))
}

/// What both streams need to begin.
struct Side<'a> {
    hub: &'a Arc<Hub>,
    settings: &'a NatsSideSettings,
    live: &'a Nats,
    js: JetStream,
    shutdown: &'a Shutdown,
    started: Instant,
    caught_up: Arc<AtomicUsize>,
}

impl Side<'_> {
    /// Subscribes to a stream's republished messages, then looks where the stream is: nothing lies between.
    async fn prepare(&self, which: Which, latch: Latch) -> Result<SpineDriver, Failure> {
        let subscription = subscribe(self.live, which.live()).await?;
        let flushed = self.live.client().flush().await;
        flushed.map_err(|error| Failure::unavailable(format!("{}: {error}", which.live())))?;
        let info = find(&self.js, which, self.settings.replicas, &latch, self.shutdown).await?;
        let next = match which {
            Which::State => {
                self.hub.reset_state(&info.created, info.state.last_seq + 1, None);
                info.state.last_seq + 1
            }
            Which::Events => {
                let next = warm_from(&info, &self.settings.hub);
                self.hub
                    .reset_events(&info.created, info.state.first_seq, next, None);
                let max_age = info.config.get("max_age").and_then(serde_json::Value::as_u64);
                let max_age = max_age.filter(|age| *age > 0).map(Duration::from_nanos);
                self.hub.kept_events(info.state.first_seq, max_age);
                next
            }
        };
        latch.not_ready(format!(
            "reading {} from {next} to {}",
            which.stream(),
            info.state.last_seq
        ));
        Ok(SpineDriver::new(Parts {
            hub: Arc::clone(self.hub),
            which,
            live: subscription,
            status: self.live.status(),
            repair: self.js.clone(),
            info,
            next,
            filter: self.settings.live_filter.clone(),
            latch,
            caught_up: Arc::clone(&self.caught_up),
            started: self.started,
        }))
    }
}

/// Waits for a stream and compares it with what it must be.
async fn find(
    js: &JetStream,
    which: Which,
    replicas: u32,
    latch: &Latch,
    shutdown: &Shutdown,
) -> Result<StreamInfo, Failure> {
    let stream = which.stream();
    let stopped = shutdown.token();
    loop {
        match js.stream_info(stream).await {
            Ok(Some(info)) => return check(which, replicas, &info).map(|()| info),
            Ok(None) => latch.not_ready(format!("stream {stream} does not exist yet")),
            Err(error) => latch.not_ready(format!("stream {stream}: {error}")),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = stopped.cancelled() => return Err(roomcast_chassis::nats::ConnectError::Stopped.into()),
        }
    }
}

fn check(which: Which, replicas: u32, info: &StreamInfo) -> Result<(), Failure> {
    let sizing = Sizing {
        replicas,
        ..Sizing::PRODUCTION
    };
    let wanted = definitions(&sizing)
        .into_iter()
        .find(|definition| definition.name == which.stream());
    let Some(wanted) = wanted else { return Ok(()) };
    let differs = differences(&wanted.config, &info.config);
    if differs.is_empty() {
        return Ok(());
    }
    let (stream, differs) = (which.stream(), differs.join("; "));
    Err(Failure::unavailable(format!(
        "stream {stream} is not what it must be: {differs}; correct it with `nats stream edit {stream}`"
    )))
}

/// Where the ring begins: as far back as its limits allow, judged by what the stream's messages weigh on average.
fn warm_from(info: &StreamInfo, settings: &HubSettings) -> u64 {
    let state = &info.state;
    // A message in the ring costs about 300 bytes more than in the stream.
    let average = state.bytes.checked_div(state.messages).unwrap_or(0) + 300;
    let fit = u64::try_from(settings.ring_bytes_max).unwrap_or(u64::MAX) / average;
    let events = settings.warm_events_max.min(fit);
    (state.last_seq + 1)
        .saturating_sub(events)
        .max(state.first_seq)
        .max(1)
}

async fn pass_ephemeral(hub: Arc<Hub>, mut messages: Subscriber, ending: CancellationToken) {
    loop {
        let message = tokio::select! {
            () = ending.cancelled() => return,
            message = messages.next() => message,
        };
        let Some(message) = message else { return };
        let headers = message.headers.unwrap_or_default();
        let mut incoming = incoming(message.subject.to_string(), &headers, message.payload);
        let step = traces::received("ephemeral", 0, &mut incoming);
        let _entered = step.enter();
        hub.ephemeral(&incoming);
    }
}

/// Tells the hub the time, and opens it once both streams are read.
async fn clock(
    hub: Arc<Hub>,
    started: Instant,
    caught_up: Arc<AtomicUsize>,
    door: Latch,
    ending: CancellationToken,
) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut open = false;
    loop {
        tokio::select! {
            () = ending.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if !open && caught_up.load(Ordering::Relaxed) == 2 {
            open = true;
            hub.answered(uptime_millis(started));
            hub.open();
            door.ready();
        }
        hub.tick(now_millis(), uptime_millis(started));
    }
}

/// Unix milliseconds.
#[must_use]
pub fn now_millis() -> i64 {
    Timestamp::now().as_millisecond()
}
