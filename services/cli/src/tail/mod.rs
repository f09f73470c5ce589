//! `roomcast tail`: follows rooms as a browser would, with resume, and prints what happens.

mod following;
mod output;

use std::time::Duration;

use clap::Args;
use futures_util::{SinkExt, StreamExt};
use roomcast_chassis::process::Failure;
use roomcast_proto::close::may_return;
use roomcast_proto::frame::ServerFrame;
use roomcast_proto::ids::Room;
use tokio_websockets::{ClientBuilder, Message};

use crate::dev_env::{self, DevEnv};
use crate::terminal::{Colour, Stream, harmless, say};
use following::{Following, Heard};
use output::Output;

/// Back-off between attempts: full jitter below a bound that doubles between these.
const BACKOFF: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(20)];
/// Time for connecting and for the answer to `connect`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// Silence after which a connection is dead, until the server has said how often it pings.
const SILENCE_MAX: Duration = Duration::from_secs(40);

/// Follows rooms until Ctrl-C, across reconnects: nothing missed, nothing twice, or told plainly.
///
/// A line per event: time, room, type, data. Where to and as whom is read from .roomcast/dev.env of the working directory; the
/// environment overrides it: ROOMCAST_GATEWAY, and ROOMCAST_VIEWER_TOKEN (a reader's token).
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    roomcast tail bookings\n  \
    roomcast tail bookings os_dashboard --json | jq .event.type\n  \
    roomcast tail bookings --from k3f9.1041.77.a2")]
pub(crate) struct Options {
    /// The rooms.
    #[arg(required = true, value_name = "ROOM", value_parser = parse_room)]
    rooms: Vec<Room>,
    /// Begin after this cursor: CURSOR for a single room, ROOM=CURSOR for one of several.
    #[arg(long, value_name = "[ROOM=]CURSOR")]
    from: Vec<String>,
    /// Gateway's address, instead of ROOMCAST_GATEWAY.
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
    /// End after so many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// One JSON object per line: {"room","cursor","event"}.
    #[arg(long)]
    json: bool,
}

fn parse_room(text: &str) -> Result<Room, String> {
    Room::parse(text).map_err(|bad| bad.to_string())
}

/// How one connection ended.
enum Ended {
    /// All that was asked for has been shown, or nobody reads any more.
    Done,
    /// Come back, after this or the usual back-off. `lived`: it had been connected.
    Lost {
        reason: String,
        after: Option<Duration>,
        lived: bool,
    },
    /// It makes no sense to come back.
    Refused(String),
}

/// Follows.
///
/// # Errors
/// 64: a room or cursor is not one. 69: the gateway refuses this token or room.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let env = DevEnv::load()?;
    let gateway = match &options.gateway {
        Some(url) => url.clone(),
        None => env.require(dev_env::GATEWAY)?,
    };
    let token = env.require(dev_env::VIEWER_TOKEN)?;
    let address = socket_address(&gateway)?;
    let mut following = Following::new(&options.rooms, &options.from)?;
    let mut output = Output {
        json: options.json,
        left: options.count,
    };
    let mut attempt = 0_u32;
    loop {
        let connection = follow(&address, &token, &mut following, &mut output);
        let ended = tokio::select! {
            ended = connection => ended,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let (reason, after, lived) = match ended {
            Ended::Done => return Ok(()),
            Ended::Refused(reason) => return Err(Failure::unavailable(reason)),
            Ended::Lost { reason, after, lived } => (reason, after, lived),
        };
        attempt = if lived { 0 } else { attempt.saturating_add(1) };
        let pause = after.unwrap_or_else(|| backoff(attempt, fastrand::f64()));
        say(&format!(
            "{}: {reason}; back in {:.1} s",
            Stream::Error.paint(Colour::Yellow, "disconnected"),
            pause.as_secs_f64()
        ));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

/// Full jitter: anything from nothing to a bound that doubles with each attempt.
fn backoff(attempt: u32, random: f64) -> Duration {
    (BACKOFF[0] * 2_u32.pow(attempt.min(10)))
        .min(BACKOFF[1])
        .mul_f64(random)
}

fn socket_address(gateway: &str) -> Result<http::Uri, Failure> {
    let rest = ["http://", "ws://"]
        .iter()
        .find_map(|scheme| gateway.strip_prefix(scheme));
    let address = rest.and_then(|rest| format!("ws://{}/v1/ws", rest.trim_end_matches('/')).parse().ok());
    address.ok_or_else(|| Failure::settings(format!("{gateway} is not an http:// address of a gateway")))
}

/// One connection, from connecting to its end.
async fn follow(address: &http::Uri, token: &str, following: &mut Following, output: &mut Output) -> Ended {
    let lost = |reason: String| Ended::Lost {
        reason,
        after: None,
        lived: false,
    };
    let builder = ClientBuilder::from_uri(address.clone());
    let mut socket = match tokio::time::timeout(CONNECT_TIMEOUT, builder.connect()).await {
        Ok(Ok((socket, _))) => socket,
        Ok(Err(error)) => return lost(format!("{address}: {error}")),
        Err(_) => return lost(format!("{address}: no connection within 8 s")),
    };
    if let Err(error) = socket
        .send(Message::text(following.connect(token).to_json()))
        .await
    {
        return lost(error.to_string());
    }
    let mut silence_max = CONNECT_TIMEOUT;
    let mut lived = false;
    let mut closing: Option<(String, bool, Option<Duration>)> = None;
    // How it ended, as far as the socket shows; what the server had said before counts more.
    let seen = loop {
        let message = match tokio::time::timeout(silence_max, socket.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(error))) => break (error.to_string(), true, None),
            Ok(None) => break ("the connection ended".to_owned(), true, None),
            Err(_) => {
                break (format!("silent for {} s", silence_max.as_secs()), true, None);
            }
        };
        if let Some((code, reason)) = message.as_close() {
            let code = u16::from(code);
            break (format!("{code} {}", harmless(reason)), may_return(code), None);
        }
        let Some(frame) = message
            .as_text()
            .and_then(|text| ServerFrame::from_json(text).ok())
        else {
            continue;
        };
        match following.heard(frame) {
            Heard::Nothing => {}
            Heard::Show(push) => {
                if !output.show(&push) {
                    let _ = socket.close().await;
                    return Ended::Done;
                }
            }
            Heard::Answer(frame) => {
                if let Err(error) = socket.send(Message::text(frame.to_json())).await {
                    break (error.to_string(), true, None);
                }
            }
            Heard::Tell(what) => say(&what),
            Heard::Connected { ping_seconds, lost } => {
                lost.iter().for_each(|room| say(room));
                lived = true;
                let told = Duration::from_millis(u64::from(ping_seconds) * 1_600);
                silence_max = if told.is_zero() { SILENCE_MAX } else { told };
                say(&format!(
                    "{} to {address}",
                    Stream::Error.paint(Colour::Green, "connected")
                ));
            }
            Heard::Closing {
                reason,
                back,
                after_ms,
            } => closing = Some((reason, back, after_ms.map(Duration::from_millis))),
            Heard::Later { reason, after_ms } => {
                let _ = socket.close().await;
                let after = after_ms.map(Duration::from_millis);
                return Ended::Lost { reason, after, lived };
            }
            Heard::Refused(reason) => {
                let _ = socket.close().await;
                return Ended::Refused(reason);
            }
        }
    };
    match closing.unwrap_or(seen) {
        (reason, false, _) => Ended::Refused(reason),
        (reason, true, after) => Ended::Lost { reason, after, lived },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_socket_addresses() {
        for (gateway, expected) in [
            ("http://127.0.0.1:8080", Some("ws://127.0.0.1:8080/v1/ws")),
            ("http://127.0.0.1:8080/", Some("ws://127.0.0.1:8080/v1/ws")),
            ("ws://h:1", Some("ws://h:1/v1/ws")),
            ("https://h", None),
            ("h:1", None),
        ] {
            assert_eq!(
                socket_address(gateway).ok().map(|uri| uri.to_string()).as_deref(),
                expected,
                "{gateway}"
            );
        }
    }

    #[test]
    fn back_off_grows_to_its_bound() {
        assert_eq!(backoff(0, 1.0), BACKOFF[0]);
        assert_eq!(backoff(3, 0.5), Duration::from_secs(2));
        assert_eq!(backoff(u32::MAX, 1.0), BACKOFF[1]);
    }
}
