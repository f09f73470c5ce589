//! Reads rooms from the streams when memory does not hold them: one read per room at a time, however many ask, and many rooms' state with
//! one request where thousands come back at once.
//!
//! A read through a filter makes the server walk the stream while ingest waits, so events are read in one room after the other, at most
//! 50,000 positions, newest part first; those who ask take turns (`turns`). A replica may be behind: what it answers counts when it knows the room's last message.

mod gather;
mod states;
mod turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use roomcast_chassis::jetstream::{ApiError, At, JetStream, StoredMessage};
use roomcast_chassis::shutdown::StageTasks;
use roomcast_proto::cursor::time_bits;
use roomcast_proto::limits::WITHDRAWN_TTL;
use roomcast_proto::subject::{STATE_ALL, room_events_filter, stream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::hub::{Hub, Part, READS_WAITING_MAX, Read, WantedPart};
use crate::nats_side::now_millis;
use crate::place::Place;
use crate::ring::Entry;
use crate::spine_driver::of_stored;
use gather::gather;
use states::read_states;
use turns::Turns;

/// Messages of one direct get.
const BATCH: usize = 500;
/// Requests for the state of rooms at the same time.
const STATE_READS_MAX: usize = 8;
/// They begin this far apart, so that in a storm of users who were never here, each with a room of their own, one names many rooms:
/// nearly a request for each cost the server 120 µs a user, which publishers waited for; what is left cannot be seen beside their events.
/// The first one after a rest does not wait.
const STATE_READS_APART: Duration = Duration::from_millis(10);
/// Rooms whose state is read with one request, where that many are wanted: fewer when they hold more values than the server gives at once.
const ROOMS_AT_ONCE: usize = 128;
/// Attempts of one read, and the pause after the first that failed; it doubles.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(200);
/// Positions of the first step back; the next ones are twice as long each.
const STEP_POSITIONS: u64 = 2_000;
/// Events of one room read at most; whoever missed more is told so.
const EVENTS_MAX: usize = 20_000;
/// The same in bytes.
const EVENT_BYTES_MAX: usize = 32 << 20;
/// The age of withdrawn values is looked at this often.
const FLOOR_EVERY: Duration = Duration::from_secs(600);

/// Why a read has to be made again.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("the replica that answered is behind")]
    Behind,
}

/// Starts the readers; they end with the stage.
pub fn spawn(hub: &Arc<Hub>, js: &JetStream, stage: &StageTasks) {
    let Some(wanted) = hub.take_reads() else { return };
    let (events, in_turn) = mpsc::channel(READS_WAITING_MAX);
    stage.spawn(in_turns(Arc::clone(hub), js.clone(), in_turn, stage.token()));
    stage.spawn(dispatch(
        Arc::clone(hub),
        js.clone(),
        wanted,
        events,
        stage.token(),
    ));
    stage.spawn(floors(Arc::clone(hub), js.clone(), stage.token()));
}

/// Reads state of several rooms at once, passes events on.
async fn dispatch(
    hub: Arc<Hub>,
    js: JetStream,
    mut wanted: mpsc::Receiver<Read>,
    events: mpsc::Sender<Read>,
    ending: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(STATE_READS_MAX));
    let at_once = Arc::new(AtomicUsize::new(ROOMS_AT_ONCE / 4));
    let mut next = Instant::now();
    loop {
        let limit = at_once.load(Ordering::Relaxed);
        let pass_on = |read| {
            // Where nobody takes any more the next one to want it asks anew.
            if let Err(refused) = events.try_send(read) {
                hub.give_up(&refused.into_inner());
            }
        };
        let gathered = gather(&mut wanted, (limit, next), pass_on);
        let Some(Some(places)) = ending.run_until_cancelled(gathered).await else {
            return;
        };
        // While all are reading, those who come wait together.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        next = Instant::now() + STATE_READS_APART;
        let (hub, js, at_once) = (Arc::clone(&hub), js.clone(), Arc::clone(&at_once));
        tokio::spawn(async move {
            read_states(&hub, &js, places, &at_once).await;
            drop(permit);
        });
    }
}

/// Reads one thing after the other, each in its turn. What waits is as bounded as the queue it comes from.
async fn in_turns(hub: Arc<Hub>, js: JetStream, mut wanted: mpsc::Receiver<Read>, ending: CancellationToken) {
    let (mut turns, mut reading) = (Turns::default(), None);
    loop {
        if reading.is_none() {
            reading = turns.pop().map(|read| Box::pin(read_one(&hub, &js, read)));
        }
        hub.metrics()
            .reads_waiting
            .set(i64::try_from(turns.len()).unwrap_or(i64::MAX));
        let nothing = std::future::pending();
        let done = async {
            match reading.as_mut() {
                Some(reading) => reading.await,
                None => nothing.await,
            }
        };
        tokio::select! {
            () = ending.cancelled() => return,
            () = done => reading = None,
            read = wanted.recv(), if turns.len() < READS_WAITING_MAX => match read {
                None => return,
                Some(Read::Events(place, waiter)) => {
                    let tenant = place.tenant.clone();
                    turns.push(&tenant, waiter, Read::Events(place, waiter));
                }
                // A single message by its position costs the server nothing: before all others.
                Some(read) => read_one(&hub, &js, read).await,
            },
        }
    }
}

async fn read_one(hub: &Hub, js: &JetStream, read: Read) {
    match read {
        Read::Events(place, _) => read_events(hub, js, &place).await,
        Read::Time(seq) => read_time(hub, js, seq).await,
        Read::State(place) => states::read_state(hub, js, &place).await,
    }
}

async fn read_events(hub: &Hub, js: &JetStream, place: &Place) {
    let Some(wanted) = hub.wanted_part(&place.key) else {
        return;
    };
    let life = hub.life();
    let part = again(|| part_of(hub, js, &wanted)).await;
    count(hub, "events", part.is_some());
    // What was too old to be read must be known before anybody is told that nothing is missing.
    let part = match (part, js.stream_info(stream::EVENTS).await) {
        (Some(part), Ok(Some(info))) => {
            hub.kept_events(info.state.first_seq, None);
            Some(part)
        }
        _ => None,
    };
    hub.read_part(&place.key, life, part, now_millis());
}

/// Reads backwards, in steps that grow, until enough is found.
async fn part_of(hub: &Hub, js: &JetStream, wanted: &WantedPart) -> Result<Part, ReadError> {
    let filter = room_events_filter(&wanted.place.tenant, &wanted.place.room);
    let last = js
        .message(stream::EVENTS, At::Last(&filter))
        .await?
        .map_or(0, |last| last.sequence);
    let (mut events, mut bytes): (Vec<Entry>, usize) = (Vec::new(), 0);
    let (mut high, mut step) = (wanted.to, STEP_POSITIONS);
    let mut part = Part {
        from: wanted.to + 1,
        to: wanted.to,
        ..Part::default()
    };
    while part.from > wanted.from {
        let low = (high + 1).saturating_sub(step).max(wanted.from);
        let read = between(js, &filter, low, high, last).await?;
        bytes += read.iter().map(|message| message.payload.len()).sum::<usize>();
        let made = read.into_iter().rev().map(of_stored);
        events.extend(made.filter_map(|placed| {
            let made = hub.old_event(placed.sequence, placed.time_micros, &placed.message)?;
            (made.room == wanted.place.room).then(|| (Arc::new(made), placed.time_micros))
        }));
        part.from = low;
        if events.len() > EVENTS_MAX || bytes > EVENT_BYTES_MAX {
            part.cut = true;
            break;
        }
        if wanted.enough.is_met(events.iter().map(|(_, micros)| *micros)) {
            break;
        }
        high = low.saturating_sub(1);
        step = (step * 2).min(16_000);
    }
    events.reverse();
    part.events = events;
    Ok(part)
}

/// The room's messages from `low` to `high`. `last`: the room's last message as the leader has it.
async fn between(
    js: &JetStream,
    filter: &str,
    low: u64,
    high: u64,
    last: u64,
) -> Result<Vec<StoredMessage>, ReadError> {
    let (mut all, mut from) = (Vec::new(), low);
    // Nothing is asked for where the leader has nothing.
    while from <= high.min(last) {
        let batch = js.direct_batch(stream::EVENTS, from, BATCH, Some(filter)).await?;
        let Some(newest) = batch.messages.last().map(|newest| newest.sequence) else {
            return Err(ReadError::Behind);
        };
        from = newest + 1;
        all.extend(
            batch
                .messages
                .into_iter()
                .filter(|message| message.sequence <= high),
        );
        if batch.pending == 0 && newest < last && newest < high {
            return Err(ReadError::Behind);
        }
    }
    Ok(all)
}

async fn read_time(hub: &Hub, js: &JetStream, seq: u64) {
    let read = again(|| async { Ok(js.direct(stream::EVENTS, At::Sequence(seq)).await?) }).await;
    count(hub, "time", read.is_some());
    // A message that is gone cannot be compared.
    hub.timed(
        seq,
        read.map(|message| message.map_or(0, |message| time_bits(message.time_micros))),
    );
}

/// Makes several attempts.
async fn again<T, F: Future<Output = Result<T, ReadError>>>(mut read: impl FnMut() -> F) -> Option<T> {
    let mut pause = PAUSE;
    for _ in 0..ATTEMPTS {
        match read().await {
            Ok(read) => return Some(read),
            Err(error) => tracing::debug!("a room could not be read: {error}"),
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    None
}

fn count(hub: &Hub, kind: &str, done: bool) {
    hub.metrics()
        .reads
        .with_label_values(&[kind, if done { "done" } else { "failed" }])
        .inc();
}

/// Finds, every ten minutes, the position from which on every state value is younger than withdrawn ones are kept.
async fn floors(hub: Arc<Hub>, js: JetStream, ending: CancellationToken) {
    loop {
        let pause = match floor(&js, now_millis()).await {
            Ok(Some(first_rev)) => {
                hub.kept_state(first_rev);
                FLOOR_EVERY
            }
            Ok(None) => FLOOR_EVERY,
            Err(error) => {
                tracing::debug!("the age of state values is not known: {error}");
                PAUSE * 10
            }
        };
        tokio::select! {
            () = ending.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Positions rise with time, so halving finds the first that is young enough; `None` when nothing can be older.
async fn floor(js: &JetStream, now_millis: i64) -> Result<Option<u64>, ReadError> {
    let ttl_millis = i64::try_from(WITHDRAWN_TTL.as_millis()).unwrap_or(i64::MAX);
    let oldest_micros = now_millis.saturating_sub(ttl_millis).saturating_mul(1_000);
    let Some(info) = js.stream_info(stream::STATE).await? else {
        return Ok(None);
    };
    let created: Option<jiff::Timestamp> = info.created.parse().ok();
    if created.is_some_and(|created| created.as_microsecond() >= oldest_micros) {
        return Ok(None);
    }
    let (mut low, mut high) = (info.state.first_seq, info.state.last_seq + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let at = At::Next {
            from: middle,
            subject: STATE_ALL,
        };
        match js.message(stream::STATE, at).await? {
            // Nothing from here on: what is left is older.
            None => high = middle,
            Some(message) if message.time_micros >= oldest_micros => high = middle,
            Some(message) => low = message.sequence + 1,
        }
    }
    Ok(Some(low))
}
