//! `roomcast try`: a policy against who is connected now, before it is put in force.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use roomcast_chassis::process::Failure;
use serde::Deserialize;
use serde_json::json;

use crate::gateways::Gateways;
use crate::terminal::{harmless, print};

/// Largest policy that gateways read.
const POLICY_BYTES_MAX: u64 = 1 << 20;

/// Says who would lose and gain which rooms under another policy, of everybody who is connected now. Changes nothing.
///
/// All gateways are asked. Where to and as whom is read from .roomcast/dev.env of the working directory; the environment overrides it:
/// ROOMCAST_ADMIN (addresses of the admin ports, separated by commas) and ROOMCAST_ADMIN_TOKEN. One line a connection that would change:
/// `-room` lost (`!` and open now), `+room` gained (`!` and opening by itself), `~room` other audiences or something else taken out.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    roomcast try policy.yaml\n  \
    roomcast try policy.yaml --rooms")]
pub(crate) struct Options {
    /// The policy.
    policy: PathBuf,
    /// Only the sums of each room.
    #[arg(long)]
    rooms: bool,
    /// Addresses of admin ports, separated by commas, instead of ROOMCAST_ADMIN.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    admin: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Outcome {
    mistakes: Vec<String>,
    connections: usize,
    changed: usize,
    rooms: BTreeMap<String, Counts>,
    changes: Vec<Change>,
    next: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Counts {
    lose: usize,
    closed: usize,
    gain: usize,
    opened: usize,
    differ: usize,
}

#[derive(Debug, Deserialize)]
struct Change {
    connection: String,
    user: String,
    tenant: String,
    roles: Vec<String>,
    then: Vec<String>,
    loses: Vec<Lost>,
    gains: Vec<Gained>,
    differs: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Lost {
    room: String,
    closed: bool,
}

#[derive(Debug, Deserialize)]
struct Gained {
    room: String,
    opened: bool,
}

/// Asks all gateways.
///
/// # Errors
/// 65: the policy cannot be read or has mistakes. 69: a gateway does not answer.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let name = options.policy.display().to_string();
    let read = std::fs::metadata(&options.policy).and_then(|about| match about.len() {
        0..=POLICY_BYTES_MAX => std::fs::read_to_string(&options.policy),
        _ => Err(std::io::Error::other("larger than 1 MiB")),
    });
    let policy = read.map_err(|error| Failure::file(format!("{name}:1:1: {error}")))?;
    let gateways = Gateways::find(&options.admin).await?;
    let (mut connections, mut changed) = (0, 0);
    let mut rooms: BTreeMap<String, Counts> = BTreeMap::new();
    for address in gateways.addresses() {
        let mut after: Option<String> = None;
        loop {
            let body = json!({ "policy": policy, "after": after, "limit": 500 });
            let outcome: Outcome = gateways.post(address, "policy/trial", &body).await?;
            if !outcome.mistakes.is_empty() {
                let named = |mistake: &String| harmless(&mistake.replacen("policy:", &format!("{name}:"), 1));
                let lines: Vec<String> = outcome.mistakes.iter().map(named).collect();
                return Err(Failure::file(lines.join("\n")));
            }
            if !options.rooms && !outcome.changes.iter().all(|change| print(&line(change))) {
                return Ok(());
            }
            // Every page counts all connections anew.
            if after.is_none() {
                connections += outcome.connections;
                changed += outcome.changed;
                for (room, counts) in outcome.rooms {
                    rooms.entry(room).or_default().add(counts);
                }
            }
            after = outcome.next.filter(|_| !options.rooms);
            if after.is_none() {
                break;
            }
        }
    }
    for (room, counts) in &rooms {
        print(&format!("{}: {}", harmless(room), counts.words()));
    }
    print(&format!("{changed} of {connections} connections would change"));
    Ok(())
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.lose += other.lose;
        self.closed += other.closed;
        self.gain += other.gain;
        self.opened += other.opened;
        self.differ += other.differ;
    }

    fn words(self) -> String {
        let mut words = Vec::new();
        if self.lose > 0 {
            words.push(format!("{} lose it ({} follow it now)", self.lose, self.closed));
        }
        if self.gain > 0 {
            words.push(format!(
                "{} gain it (for {} it opens by itself)",
                self.gain, self.opened
            ));
        }
        if self.differ > 0 {
            words.push(format!("{} see it differently", self.differ));
        }
        words.join(", ")
    }
}

fn line(change: &Change) -> String {
    let mark = |yes: bool| if yes { "!" } else { "" };
    let loses = change
        .loses
        .iter()
        .map(|lost| format!("-{}{}", lost.room, mark(lost.closed)));
    let gains = change
        .gains
        .iter()
        .map(|gained| format!("+{}{}", gained.room, mark(gained.opened)));
    let differs = change.differs.iter().map(|room| format!("~{room}"));
    let rooms: Vec<String> = loses.chain(gains).chain(differs).collect();
    let roles = match change.roles == change.then {
        true => change.roles.join(","),
        false => format!("{} -> {}", change.roles.join(","), change.then.join(",")),
    };
    harmless(&format!(
        "{} {}.{} [{roles}] {}",
        change.connection,
        change.tenant,
        change.user,
        rooms.join(" ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_all_of_it() {
        let change: Change = serde_json::from_value(json!({
            "connection": "c01", "user": "ada", "tenant": "main", "roles": ["staff"], "then": ["user"],
            "loses": [{ "room": "desk", "closed": true }, { "room": "attic", "closed": false }],
            "gains": [{ "room": "hall", "opened": true }], "differs": ["flat.1"],
        }))
        .unwrap();
        assert_eq!(
            line(&change),
            "c01 main.ada [staff -> user] -desk! -attic +hall! ~flat.1"
        );
        let counts = Counts {
            lose: 2,
            closed: 1,
            differ: 3,
            ..Counts::default()
        };
        assert_eq!(
            counts.words(),
            "2 lose it (1 follow it now), 3 see it differently"
        );
    }
}
