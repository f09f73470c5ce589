//! `roomcast record`: what was published, written to a file that `simulate --from` publishes again.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use roomcast_chassis::jetstream::{ApiError, At, JetStream, StoredMessage};
use roomcast_chassis::process::Failure;
use roomcast_proto::accounts::API_OUTSIDE_CORE;
use roomcast_proto::event::View;
use roomcast_proto::ids::{Room, Tenant};
use roomcast_proto::subject::{parse_placed, stream::EVENTS};

use crate::dev_env::{self, DevEnv};
use crate::duration::shown;
use crate::simulate::now_micros;
use crate::streams::connect;
use crate::terminal::say;

/// Messages read at once.
const BATCH: usize = 500;
/// A question to NATS is answered within this.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Writes what was published to a file, an event a line, as it is stored.
///
/// Reads the stream of events as the NATS user `reader`, who may write nothing: from .roomcast/dev.env of the working directory, or as
/// ROOMCAST_NATS, ROOMCAST_NATS_READER_USER and ROOMCAST_NATS_READER_PASSWORD say. State (notifications, metrics) and ephemeral events are
/// not in that stream. The file holds what the events hold: keep it as you keep them.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    roomcast record --since 24h --out day.ndjson\n  \
    roomcast record --since 1h --room bookings --out hour.ndjson\n  \
    roomcast simulate --from day.ndjson --speed 10")]
pub(crate) struct Options {
    /// How far back: events whose own time is not older.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = crate::duration::parse)]
    since: Duration,
    /// Only this room; several times for several.
    #[arg(long, value_name = "ROOM")]
    room: Vec<String>,
    /// Whose events.
    #[arg(long, value_name = "TENANT", default_value = "main")]
    tenant: String,
    /// The file, which must not be there yet.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Which events are meant.
#[derive(Debug)]
struct Wanted {
    tenant: Tenant,
    rooms: Vec<Room>,
    since_micros: i64,
    until_micros: i64,
}

impl Wanted {
    /// Whether a stored message is one of them. Personal rooms are only taken when they are named.
    fn means(&self, message: &StoredMessage) -> bool {
        let Some(placed) = parse_placed(&message.subject) else {
            return false;
        };
        let Ok(room) = Room::parse(placed.room) else {
            return false;
        };
        let room = match self.rooms.as_slice() {
            [] => !room.is_personal(),
            rooms => rooms.contains(&room),
        };
        let time = || {
            View::parse(&message.payload)
                .ok()
                .and_then(|view| view.time_micros())
        };
        placed.tenant == self.tenant.as_str()
            && room
            && time().is_some_and(|time| (self.since_micros..self.until_micros).contains(&time))
    }
}

/// Records.
///
/// # Errors
/// 64: a name that is none. 69: NATS cannot be used, or the file is there already.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let bad = |what: &str, error: &dyn std::fmt::Display| Failure::settings(format!("--{what}: {error}"));
    let rooms = options
        .room
        .iter()
        .map(|room| Room::parse(room).map_err(|error| bad("room", &error)));
    let now = now_micros();
    let back = i64::try_from(options.since.as_micros()).unwrap_or(i64::MAX);
    let wanted = Wanted {
        tenant: Tenant::parse(&options.tenant).map_err(|error| bad("tenant", &error))?,
        rooms: rooms.collect::<Result<_, _>>()?,
        since_micros: now.saturating_sub(back),
        until_micros: now,
    };
    let env = DevEnv::load()?;
    let (user, password) = (
        env.require(dev_env::NATS_READER_USER)?,
        env.require(dev_env::NATS_READER_PASSWORD)?,
    );
    let client = connect(&env.require(dev_env::NATS)?, Some((&user, &password))).await?;
    let jetstream = JetStream::new(client, API_OUTSIDE_CORE).with_timeout(CALL_TIMEOUT);
    let path = options.out.display();
    let failed = |error: std::io::Error| Failure::unavailable(format!("{path}: {error}"));
    let mut file = BufWriter::new(File::create_new(&options.out).map_err(failed)?);
    let events = record(&jetstream, &wanted, |event| {
        file.write_all(event)?;
        file.write_all(b"\n")
    })
    .await?;
    file.flush().map_err(failed)?;
    say(&format!(
        "{events} events of the last {} in {path}",
        shown(options.since)
    ));
    Ok(())
}

/// Reads the stream from where the wanted events can begin to its present end; how many there were.
async fn record(
    jetstream: &JetStream,
    wanted: &Wanted,
    mut write: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<u64, Failure> {
    let unusable = |error: ApiError| Failure::unavailable(format!("the stream {EVENTS}: {error}"));
    let info = jetstream.stream_info(EVENTS).await.map_err(unusable)?;
    let state = info
        .ok_or_else(|| Failure::unavailable(format!("there is no stream {EVENTS}")))?
        .state;
    let (mut next, last) = (
        beginning(jetstream, state.first_seq, state.last_seq, wanted.since_micros)
            .await
            .map_err(unusable)?,
        state.last_seq,
    );
    let mut events = 0;
    while next <= last {
        let batch = jetstream
            .direct_batch(EVENTS, next, BATCH, None)
            .await
            .map_err(unusable)?;
        let Some(seen) = batch.messages.last().map(|message| message.sequence) else {
            break;
        };
        for message in batch
            .messages
            .iter()
            .filter(|message| message.sequence <= last && wanted.means(message))
        {
            write(&message.payload).map_err(|error| Failure::unavailable(format!("the file: {error}")))?;
            events += 1;
        }
        next = seen + 1;
    }
    Ok(events)
}

/// The first position that was stored at an instant or later: no event is stored before it happens. Asks once per doubling of the stream.
async fn beginning(jetstream: &JetStream, first: u64, last: u64, since_micros: i64) -> Result<u64, ApiError> {
    let (mut low, mut high) = (first, last + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let at = At::Next {
            from: middle,
            subject: ">",
        };
        match jetstream.message(EVENTS, at).await? {
            Some(found) if found.time_micros < since_micros => low = found.sequence + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;
    use bytes::Bytes;

    use super::*;

    #[test]
    fn events_are_chosen_by_tenant_room_and_their_own_time() {
        #[track_caller]
        fn check(subject: &str, time: &str, rooms: &[&str], expected: bool) {
            let message = StoredMessage {
                sequence: 1,
                subject: subject.to_owned(),
                time_micros: 0,
                headers: HeaderMap::new(),
                payload: Bytes::from(format!(r#"{{"id":"1","source":"s","type":"t","time":"{time}"}}"#)),
            };
            let wanted = Wanted {
                tenant: Tenant::default(),
                rooms: rooms.iter().map(|room| Room::parse(room).unwrap()).collect(),
                since_micros: 0,
                until_micros: 60_000_000,
            };
            assert_eq!(wanted.means(&message), expected, "{subject} {time} {rooms:?}");
        }
        let good = "1970-01-01T00:00:30Z";
        check("evt.03.main.bookings.staff", good, &[], true);
        check("evt.03.main.bookings.staff", good, &["bookings"], true);
        check("evt.03.main.bookings.staff", good, &["other"], false);
        check("evt.03.acme.bookings.staff", good, &[], false);
        check("evt.03.main.bookings.staff", "1970-01-01T00:01:00Z", &[], false);
        check("evt.03.main.bookings.staff", "1969-12-31T23:59:59Z", &[], false);
        check("evt.03.main.user.u1.all", good, &[], false);
        check("evt.03.main.user.u1.all", good, &["user.u1"], true);
        check("nonsense", good, &[], false);
    }
}
