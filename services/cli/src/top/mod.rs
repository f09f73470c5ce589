//! `roomcast top`: the running system in a terminal, read from the admin ports.

mod ask;
mod screen;
mod seen;
mod table;
mod view;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::Args;
use roomcast_chassis::process::Failure;

use crate::dev_env::{self, DevEnv};
use crate::duration;
use crate::http::Http;
use crate::terminal::{Stream, print};
use ask::Asker;
use screen::Screen;
use seen::Seen;

/// Between two looks unless asked for otherwise.
const EVERY: &str = "2s";
/// The shortest time between two looks: each is some calls of every admin port, and on record there.
const EVERY_MIN: Duration = Duration::from_millis(500);
/// Time for each answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// Columns where there is no terminal to ask.
const WIDTH_PIPED: usize = 160;

/// Shows the running system: every gateway, ingest and aggregator with its rates, who reads too slowly, and the fullest rooms.
///
/// Where to and as whom is read from .roomcast/dev.env of the working directory; the environment overrides it: ROOMCAST_ADMIN
/// (addresses of the admin ports, separated by commas) and ROOMCAST_ADMIN_TOKEN. Rates are those between two looks: IN are frames
/// from clients, OUT live events handed to members, MEMORY what is kept of rooms. In yellow: worth a look; in red: act. Each look is
/// three calls of a gateway and one of every other service, and like every call of an admin port it is on record.
/// q, Esc or Ctrl-C ends it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    roomcast top\n  \
    roomcast top --every 5s --rooms 40\n  \
    roomcast top --once --admin http://127.0.0.1:9101,http://127.0.0.1:9102")]
pub(crate) struct Options {
    /// Addresses of admin ports, separated by commas, instead of ROOMCAST_ADMIN.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    admin: Vec<String>,
    /// Time between two looks, at least 500ms.
    #[arg(long, value_name = "DURATION", default_value = EVERY, value_parser = every)]
    every: Duration,
    /// How many rooms and slow connections at most; a terminal shows as many as it has lines for.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=500))]
    rooms: u16,
    /// Look twice, print what was seen, and end.
    #[arg(long)]
    once: bool,
}

fn every(text: &str) -> Result<Duration, String> {
    match duration::parse(text)? {
        short if short < EVERY_MIN => Err("must be at least 500ms".to_owned()),
        long => Ok(long),
    }
}

/// Looks until somebody has seen enough.
///
/// # Errors
/// 64: an address is none, or there is no terminal and no `--once`. 69: no service answers a single look; the words are those of the first.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let env = DevEnv::load()?;
    let admin = match options.admin.is_empty() {
        true => env
            .require(dev_env::ADMIN)?
            .split(',')
            .map(str::to_owned)
            .collect(),
        false => options.admin.clone(),
    };
    let token = env.require(dev_env::ADMIN_TOKEN)?;
    let rooms = usize::from(options.rooms);
    let asker = Asker::new(&admin, token, Http::new(ANSWER_WITHIN))?;
    if options.once {
        return once(&asker, options.every, rooms).await;
    }
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::settings(
            "there is no terminal here; with --once it looks twice, prints what it saw and ends",
        ));
    }
    // Before the screen is taken: whoever cannot enter reads why where they asked.
    let first = asker.look(Instant::now(), rooms).await;
    someone_answers(&first)?;
    watch(&asker, options.every, rooms, first).await
}

async fn once(asker: &Asker, every: Duration, rooms: usize) -> Result<(), Failure> {
    let before = asker.look(Instant::now(), rooms).await;
    someone_answers(&before)?;
    tokio::time::sleep(every).await;
    let now = asker.look(Instant::now(), rooms).await;
    someone_answers(&now)?;
    for line in view::lines(Some(&before), &now, rooms) {
        if !print(&line.painted(WIDTH_PIPED, Stream::Out.coloured())) {
            break;
        }
    }
    Ok(())
}

fn someone_answers(seen: &Seen) -> Result<(), Failure> {
    match seen.first_silence() {
        Some(why) => Err(Failure::unavailable(why)),
        None => Ok(()),
    }
}

async fn watch(asker: &Asker, every: Duration, rooms: usize, first: Seen) -> Result<(), Failure> {
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| Failure::internal(error.to_string()))?;
    let mut resized = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change())
        .map_err(|error| Failure::internal(error.to_string()))?;
    let mut screen =
        Screen::take().map_err(|error| Failure::unavailable(format!("this terminal: {error}")))?;
    let (mut before, mut now) = (None, first);
    let mut next = tokio::time::interval(every);
    next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick comes at once; what is shown then was just seen.
    next.tick().await;
    loop {
        screen.draw(&view::lines(before.as_ref(), &now, rooms));
        let looked = async {
            next.tick().await;
            asker.look(Instant::now(), rooms).await
        };
        tokio::select! {
            seen = looked => before = Some(std::mem::replace(&mut now, seen)),
            () = screen.told_to_end() => return Ok(()),
            _ = tokio::signal::ctrl_c() => return Ok(()),
            _ = terminated.recv() => return Ok(()),
            _ = resized.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_not_too_close() {
        assert_eq!(every("500ms"), Ok(EVERY_MIN));
        assert_eq!(every(EVERY), Ok(Duration::from_secs(2)));
        assert!(every("499ms").is_err());
        assert!(every("2").is_err());
    }
}
