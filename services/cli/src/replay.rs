//! `roomcast replay`: what was refused, looked at and taken again, over ingest's admin port.

mod desk;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::Args;
use roomcast_chassis::process::Failure;
use serde_json::{Value, json};

use crate::dev_env::{self, DevEnv};
use crate::duration;
use crate::terminal::{escaped, harmless, print};
use desk::Desk;

/// Shows dead letters: events that were refused, with the reason and what was sent. Takes them again when told to.
///
/// Without a position it lists them, oldest first; with positions it takes those again, with --show it only shows them. --all takes all
/// that are listed, but for those of reason unknown, which may be stored already: those with --reason unknown; it ends
/// where an answer does not come in time, and says which letters that is about and what to run then. A letter is taken at most once; where
/// only a part of it is, the rest is a letter of its own. One that must be mended is shown, its event put right in a file, and taken with
/// --mended FILE. Where to and as whom: ROOMCAST_ADMIN and ROOMCAST_ADMIN_TOKEN, from .roomcast/dev.env or the environment.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    roomcast replay --reason unknown_audience --since 2h\n  \
    roomcast replay --show 17\n  \
    roomcast replay 17 --mended event.json\n  \
    roomcast replay --all --reason unknown_audience --since 2h")]
pub(crate) struct Options {
    /// Positions of letters, as listed.
    positions: Vec<u64>,
    /// Show these letters with what was sent; take none.
    #[arg(long, requires = "positions")]
    show: bool,
    /// Take what is in this file instead of what was sent; one position only.
    #[arg(long, value_name = "FILE", requires = "positions", conflicts_with = "show")]
    mended: Option<PathBuf>,
    /// Take all that would be listed.
    #[arg(long, conflicts_with_all = ["positions", "show"])]
    all: bool,
    /// Only those refused with this code, e.g. bad_room.
    #[arg(long, conflicts_with = "positions")]
    reason: Option<String>,
    /// Only those of this tenant.
    #[arg(long, conflicts_with = "positions")]
    tenant: Option<String>,
    /// Only those kept in the last so long: 90s, 30m, 48h, 2d.
    #[arg(long, value_parser = duration::parse, conflicts_with = "positions")]
    since: Option<Duration>,
    /// Only those kept longer ago than this.
    #[arg(long, value_parser = duration::parse, conflicts_with = "positions")]
    until: Option<Duration>,
    /// Address of an ingest's admin port, instead of ROOMCAST_ADMIN.
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
}

/// Does it.
///
/// # Errors
/// 64: two positions for one file. 65: the file cannot be read. 69: no ingest answers, or one of the letters was not wholly taken, or it
/// is not known whether it was.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    if options.mended.is_some() && options.positions.len() > 1 {
        return Err(Failure::settings("--mended is for one letter: one position"));
    }
    let env = DevEnv::load()?;
    let addresses = match &options.admin {
        Some(address) => vec![address.clone()],
        None => env
            .require(dev_env::ADMIN)?
            .split(',')
            .map(str::to_owned)
            .collect(),
    };
    let desk = Desk::find(&addresses, &env.require(dev_env::ADMIN_TOKEN)?).await?;
    if options.positions.is_empty() {
        let selection = selection(&options);
        return if options.all {
            desk.take_all(selection).await
        } else {
            desk.list(selection).await
        };
    }
    if options.show {
        for position in &options.positions {
            let letter = desk.get(&format!("dead-letters/{position}")).await?;
            say(&head(&letter));
            // What is shown may be mended and sent: it means what it meant.
            let text = escaped(letter["text"].as_str().unwrap_or_default());
            text.lines().all(print);
        }
        return Ok(());
    }
    let body = match &options.mended {
        None => Bytes::from_static(b"{}"),
        Some(path) => std::fs::read(path)
            .map(Bytes::from)
            .map_err(|error| Failure::file(format!("{}: {error}", path.display())))?,
    };
    desk.take(&options.positions, body).await
}

/// What to say of one letter by ingest's answer, and whether all of it was taken.
fn became(position: u64, ok: bool, said: &Value) -> (Vec<String>, bool) {
    let text = |said: &Value, name: &str| said[name].as_str().unwrap_or("?").to_owned();
    let refusal = |said: &Value| format!("{}: {}", text(said, "code"), text(said, "detail"));
    if !ok {
        return (vec![format!("{position} {}", refusal(said))], false);
    }
    let results = said["results"].as_array().into_iter().flatten().enumerate();
    let refused = results.filter(|(_, one)| one["status"] == "refused");
    let refused = refused.map(|(index, one)| format!("{position} event {index} {}", refusal(one)));
    let refused: Vec<String> = refused.collect();
    let all = said["results"].as_array().map_or(1, Vec::len);
    match refused.len() {
        0 => (vec![format!("{position} taken")], true),
        count if count == all => (refused, false),
        count => {
            let head = format!("{position} taken but for {count} of its events");
            (std::iter::once(head).chain(refused).collect(), false)
        }
    }
}

fn selection(options: &Options) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ago = |ago: Duration| now.saturating_sub(ago).as_secs();
    let mut selection = json!({});
    let members = [
        ("reason", options.reason.as_ref().map(|reason| json!(reason))),
        ("tenant", options.tenant.as_ref().map(|tenant| json!(tenant))),
        ("since", options.since.map(|since| json!(ago(since)))),
        ("until", options.until.map(|until| json!(ago(until)))),
    ];
    for (name, value) in members {
        if let Some(value) = value {
            selection[name] = value;
        }
    }
    selection
}

/// One line of a list.
fn head(letter: &Value) -> String {
    let text = |name: &str| letter[name].as_str().unwrap_or("?").to_owned();
    let at = letter["at"]
        .as_i64()
        .and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    let at = at.map_or_else(|| "?".to_owned(), |at| at.to_string());
    let cut = if letter["cut"] == true { " (cut)" } else { "" };
    format!(
        "{} {at} {} {} from {} by {}, {} bytes{cut}: {}",
        letter["position"],
        text("tenant"),
        text("reason"),
        text("publisher"),
        text("origin"),
        letter["bytes"],
        text("detail")
    )
}

/// What others wrote must not steer the terminal.
fn say(text: &str) -> bool {
    text.lines().all(|line| print(&harmless(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_taken_when_all_its_events_are() {
        let refused = |code: &str| json!({ "status": "refused", "code": code, "detail": "no" });
        let stored = || json!({ "status": "stored" });
        let batch = |results: Vec<Value>| json!({ "results": results });
        let rows: [(bool, Value, &[&str], bool); 5] = [
            (true, stored(), &["7 taken"], true),
            (true, batch(vec![stored(), stored()]), &["7 taken"], true),
            (
                true,
                batch(vec![stored(), refused("unknown")]),
                &["7 taken but for 1 of its events", "7 event 1 unknown: no"],
                false,
            ),
            (true, batch(vec![refused("late")]), &["7 event 0 late: no"], false),
            (false, refused("conflict"), &["7 conflict: no"], false),
        ];
        for (ok, said, lines, whole) in rows {
            let found = became(7, ok, &said);
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(found, (lines, whole), "{said}");
        }
    }
}
