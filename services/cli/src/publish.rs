//! `roomcast publish`: one event, over HTTP or NATS.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use roomcast_chassis::process::Failure;
use roomcast_proto::ids::{Audience, Room, new_event_id};
use roomcast_proto::subject;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::dev_env::{self, DevEnv};
use crate::ingest::{Credential, Ingest, PublishError, SHORT};
use crate::terminal::{Colour, Stream, print, say};

/// Largest data read from a file: more than ingest takes, so that its refusal says the true limit.
const DATA_BYTES_MAX: u64 = 1024 * 1024;
/// Attempts before giving up, all with the same id, so that an event is stored once at most.
const ATTEMPTS: u32 = 5;

/// Publishes one event and prints ingest's answer.
///
/// Where to and as whom is read from .roomcast/dev.env of the working directory; the environment overrides it: ROOMCAST_INGEST and
/// ROOMCAST_TOKEN for HTTP, ROOMCAST_NATS, ROOMCAST_NATS_PUBLISHER_USER, …_PASSWORD and …_INBOX for NATS.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    roomcast publish --room bookings --audience staff --type booking:new --data '{\"id\":\"bk-1\",\"customer\":\"Elif Kaya\"}'\n  \
    roomcast publish --room bookings --type booking:new --data @booking.json\n  \
    echo '{\"id\":\"bk-1\"}' | roomcast publish --room bookings --type booking:new --data - --nats nats://127.0.0.1:4222")]
pub(crate) struct Options {
    /// Where it goes.
    #[arg(long)]
    room: String,
    /// What happened: booking:new
    #[arg(long = "type", value_name = "TYPE")]
    kind: String,
    /// The data: JSON, @file, or - for standard input. Absent: an event without data.
    #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    data: Option<String>,
    /// A role of the policy: who of the room's members gets it.
    #[arg(long, default_value = "all")]
    audience: String,
    /// The event's own id; publishing it again within two minutes is a duplicate, not a second event.
    #[arg(long)]
    id: Option<String>,
    /// Ingest's address, instead of ROOMCAST_INGEST.
    #[arg(long, value_name = "URL", conflicts_with = "nats")]
    http: Option<String>,
    /// Publish over NATS: its address; without a value ROOMCAST_NATS.
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "")]
    nats: Option<String>,
    /// Print the answer as it came, one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Publishes.
///
/// # Errors
/// 64: a name or the data is not one. 65: ingest refused the event. 69: nobody took it.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let room = Room::parse(&options.room).map_err(|bad| Failure::settings(format!("--room: {bad}")))?;
    let audience =
        Audience::parse(&options.audience).map_err(|bad| Failure::settings(format!("--audience: {bad}")))?;
    let data = options.data.as_deref().map(read_data).transpose()?;
    let id = options.id.clone().unwrap_or_else(new_event_id);
    let event = event(&id, &options.kind, &room, &audience, data.as_deref())?;
    let env = DevEnv::load()?;
    let answer = match &options.nats {
        Some(url) => over_nats(url, &env, &room, &audience, event).await?,
        None => over_http(options.http.as_deref(), &env, event).await?,
    };
    show(&answer, options.json);
    Ok(())
}

/// The short form of the event.
fn event(
    id: &str,
    kind: &str,
    room: &Room,
    audience: &Audience,
    data: Option<&RawValue>,
) -> Result<Bytes, Failure> {
    let mut members = Map::new();
    members.insert("id".to_owned(), json!(id));
    members.insert("type".to_owned(), json!(kind));
    members.insert("room".to_owned(), json!(room.as_str()));
    members.insert("audience".to_owned(), json!(audience.as_str()));
    let mut text = Value::Object(members).to_string();
    if let Some(data) = data {
        // Behind the rest, as it was given: numbers keep their digits.
        text.pop();
        text.push_str(",\"data\":");
        text.push_str(data.get());
        text.push('}');
    }
    Ok(text.into())
}

fn read_data(given: &str) -> Result<Box<RawValue>, Failure> {
    let mut text = String::new();
    let failed =
        |what: &str, error: &dyn std::fmt::Display| Failure::settings(format!("--data: {what}: {error}"));
    if given == "-" {
        let mut input = std::io::stdin().take(DATA_BYTES_MAX);
        input
            .read_to_string(&mut text)
            .map_err(|error| failed("standard input", &error))?;
    } else if let Some(path) = given.strip_prefix('@') {
        let file = std::fs::File::open(path).map_err(|error| failed(path, &error))?;
        file.take(DATA_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|error| failed(path, &error))?;
    } else {
        given.clone_into(&mut text);
    }
    serde_json::from_str(text.trim()).map_err(|error| failed("not JSON", &error))
}

async fn over_http(url: Option<&str>, env: &DevEnv, event: Bytes) -> Result<Bytes, Failure> {
    let base = match url {
        Some(url) => url.to_owned(),
        None => env.require(dev_env::INGEST)?,
    };
    let ingest = Ingest::new(&base, Credential::Fixed(env.require(dev_env::TOKEN)?));
    let mut attempt = 1;
    loop {
        match ingest.post(SHORT, event.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(PublishError::Refused(message) | PublishError::Late { message, .. }) => {
                return Err(Failure::file(message));
            }
            Err(PublishError::Temporary { message, .. }) if attempt == ATTEMPTS => {
                return Err(Failure::unavailable(message));
            }
            Err(PublishError::Temporary { .. }) => attempt += 1,
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn over_nats(
    url: &str,
    env: &DevEnv,
    room: &Room,
    audience: &Audience,
    event: Bytes,
) -> Result<Bytes, Failure> {
    let url = if url.is_empty() {
        env.require(dev_env::NATS)?
    } else {
        url.to_owned()
    };
    let (user, password) = (
        env.require(dev_env::NATS_USER)?,
        env.require(dev_env::NATS_PASSWORD)?,
    );
    let inbox = env
        .get(dev_env::NATS_INBOX)
        .unwrap_or_else(|| roomcast_proto::accounts::inbox_prefix(&user));
    let unusable = |error: &dyn std::fmt::Display| Failure::unavailable(format!("{url}: {error}"));
    let addresses: Vec<async_nats::ServerAddr> = url
        .split(',')
        .map(|one| one.trim().parse())
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(&error))?;
    let client = async_nats::ConnectOptions::with_user_and_password(user, password)
        .name("roomcast publish")
        .custom_inbox_prefix(inbox)
        .request_timeout(Some(Duration::from_secs(5)))
        .connect(&addresses[..])
        .await
        .map_err(|error| unusable(&error))?;
    let answer = client
        .request(subject::inbound(room, audience), event)
        .await
        .map_err(|error| unusable(&error))?;
    #[derive(serde::Deserialize)]
    struct Refused {
        code: String,
        message: String,
        temporary: bool,
    }
    match serde_json::from_slice::<Refused>(&answer.payload) {
        Ok(refused) => {
            let message = format!(
                "ingest refused the event: {}: {}",
                refused.code,
                crate::terminal::harmless(&refused.message)
            );
            Err(if refused.temporary {
                Failure::unavailable(message)
            } else {
                Failure::file(message)
            })
        }
        Err(_) => Ok(answer.payload),
    }
}

fn show(answer: &Bytes, json: bool) {
    let value: Value = serde_json::from_slice(answer).unwrap_or_default();
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let status = text("status");
    if json || status.is_empty() {
        print(&String::from_utf8_lossy(answer));
        return;
    }
    let colour = if status == "duplicate" {
        Colour::Yellow
    } else {
        Colour::Green
    };
    let parts = [
        Stream::Out.paint(colour, &status),
        text("id"),
        Stream::Out.paint(Colour::Dim, &text("cursor")),
    ];
    print(parts.join(" ").trim_end());
    if status == "duplicate" {
        say("this id was published before, with the same content; nothing was stored again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_travels_as_it_was_given() {
        let room = Room::parse("bookings").unwrap();
        let data = read_data(r#" {"amount":4250.50,"b":1e2} "#).unwrap();
        let event = event("1", "booking:new", &room, &Audience::all(), Some(&data)).unwrap();
        let text = std::str::from_utf8(&event).unwrap();
        assert!(text.ends_with(r#","data":{"amount":4250.50,"b":1e2}}"#), "{text}");
        let draft = roomcast_proto::event::Draft::parse(&event).unwrap();
        assert_eq!(draft.kind(), "booking:new");
    }

    #[test]
    fn data_that_is_not_json_is_refused_before_anything_is_sent() {
        for bad in ["{", "", "nonsense", "@/nowhere/data.json", "{} {}"] {
            assert!(
                read_data(bad).unwrap_err().message.starts_with("--data: "),
                "{bad}"
            );
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"[1]\n").unwrap();
        assert_eq!(
            read_data(&format!("@{}", file.path().display())).unwrap().get(),
            "[1]"
        );
    }
}
