//! `roomcast record`: what was published, written to a file that `simulate --from` publishes again.

use std::fs::File;
use std::io::{BufWriter, Error, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use roomcast_chassis::jetstream::{ApiError, At, JetStream, StoredMessage};
use roomcast_chassis::process::Failure;
use roomcast_proto::accounts::API_OUTSIDE_CORE;
use roomcast_proto::event::{View, rfc3339};
use roomcast_proto::ids::{Room, Tenant};
use roomcast_proto::subject::{parse_placed, stream::EVENTS};

use crate::dev_env::{self, DevEnv};
use crate::duration::shown;
use crate::simulate::now_micros;
use crate::span::Span;
use crate::streams::connect;
use crate::terminal::{one_line, say};

/// A question to NATS is answered within this.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Writes what was published to a file, an event a line, as it is stored: only its own line breaks become blanks.
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
    /// The file, which must not be there yet, and is there when all is written: until then FILE.part.
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
    let mut part = Part::create(&options.out)?;
    let recorded = record(&jetstream, &wanted, &mut part).await?;
    part.keep(&options.out)?;
    say(&format!(
        "{} events in {}{}",
        recorded.events,
        options.out.display(),
        recorded.span(options.since, wanted.since_micros)
    ));
    Ok(())
}

/// The file while it is written, under another name; it goes away unless it is kept.
struct Part {
    file: BufWriter<File>,
    path: PathBuf,
    kept: bool,
}

impl Part {
    fn create(out: &Path) -> Result<Self, Failure> {
        // Also a link to nowhere is there.
        if out.symlink_metadata().is_ok() {
            return Err(unwritable(out, &Error::from(ErrorKind::AlreadyExists)));
        }
        let mut path = out.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        // One that was left by a process that was killed is nobody's.
        let file = File::create(&path).map_err(|error| unwritable(&path, &error))?;
        Ok(Self {
            file: BufWriter::new(file),
            path,
            kept: false,
        })
    }

    fn line(&mut self, event: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(&one_line(event));
        written
            .and_then(|()| self.file.write_all(b"\n"))
            .map_err(|error| unwritable(&self.path, &error))
    }

    /// Gives it its name.
    fn keep(mut self, out: &Path) -> Result<(), Failure> {
        let whole = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        whole
            .and_then(|()| std::fs::rename(&self.path, out))
            .map_err(|error| unwritable(out, &error))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be taken away is written over by the next one.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn unwritable(path: &Path, error: &Error) -> Failure {
    Failure::unavailable(format!("{}: {error}", path.display()))
}

/// What was recorded.
#[derive(Debug, Default)]
struct Recorded {
    events: u64,
    /// When the oldest message was stored that the stream still has; `None`: it has none.
    begins_micros: Option<i64>,
}

impl Recorded {
    /// Of which time it is: never of more than the stream has.
    fn span(&self, since: Duration, since_micros: i64) -> String {
        match self.begins_micros {
            None => ": the stream is empty".to_owned(),
            Some(begins) if begins > since_micros => {
                format!(", since {}, where the stream begins", rfc3339(begins))
            }
            Some(_) => format!(", of the last {}", shown(since)),
        }
    }
}

/// Reads the stream from where the wanted events can begin to its present end.
async fn record(jetstream: &JetStream, wanted: &Wanted, part: &mut Part) -> Result<Recorded, Failure> {
    let unusable =
        |error: &dyn std::fmt::Display| Failure::unavailable(format!("the stream {EVENTS}: {error}"));
    let info = jetstream.stream_info(EVENTS).await;
    let state = info
        .map_err(|error| unusable(&error))?
        .ok_or_else(|| Failure::unavailable(format!("there is no stream {EVENTS}")))?
        .state;
    let last = state.last_seq;
    let first = beginning(jetstream, state.first_seq, last, wanted.since_micros).await;
    let first = first.map_err(|error| unusable(&error))?;
    let mut recorded = Recorded {
        events: 0,
        begins_micros: (state.messages > 0).then(|| state.first_ts.as_microsecond()),
    };
    let mut span = Span::new(jetstream, EVENTS, first, last);
    loop {
        let messages = span.page().await.map_err(|error| unusable(&error))?;
        if messages.is_empty() {
            return Ok(recorded);
        }
        for message in messages
            .iter()
            .filter(|message| message.sequence <= last && wanted.means(message))
        {
            part.line(&message.payload)?;
            recorded.events += 1;
        }
    }
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
    fn a_file_is_there_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("day.ndjson");
        let names = || std::fs::read_dir(folder.path()).unwrap().count();
        // Given up midway: nothing is left, and it can be done again.
        let mut part = Part::create(&out).unwrap();
        part.line(b"1").unwrap();
        assert_eq!((names(), out.exists()), (1, false));
        drop(part);
        assert_eq!(names(), 0);
        // Killed midway.
        std::fs::write(folder.path().join("day.ndjson.part"), "11111\n22").unwrap();
        let mut part = Part::create(&out).unwrap();
        part.line(b"2").unwrap();
        part.line(b"{\r\n\t\"a\": 1.50\n}").unwrap();
        part.keep(&out).unwrap();
        let whole = "2\n{  \t\"a\": 1.50 }\n";
        assert_eq!(std::fs::read_to_string(&out).unwrap(), whole);
        assert_eq!(names(), 1);
        // What is there stays.
        assert!(Part::create(&out).is_err());
        assert_eq!(std::fs::read_to_string(&out).unwrap(), whole);
        assert_eq!(names(), 1);
    }

    #[test]
    fn no_more_is_claimed_than_the_stream_has() {
        let check = |begins_micros: Option<i64>, expected: &str| {
            let recorded = Recorded {
                events: 3,
                begins_micros,
            };
            let span = recorded.span(Duration::from_secs(60), 60_000_000);
            assert_eq!(span, expected, "{begins_micros:?}");
        };
        check(Some(0), ", of the last 60.00 s");
        check(Some(60_000_000), ", of the last 60.00 s");
        check(
            Some(90_000_000),
            ", since 1970-01-01T00:01:30Z, where the stream begins",
        );
        check(None, ": the stream is empty");
    }

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
