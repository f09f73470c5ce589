//! `roomcast explain`: who gets an event and why, and who does not and why not.

use clap::Args;
use roomcast_chassis::process::Failure;
use serde::Deserialize;

use crate::gateways::{Gateways, escaped};
use crate::terminal::{Colour, Stream, complain, harmless, print};

/// Says who gets an event and why, and who does not and why not.
///
/// Of an event that gateways hold in memory, or of any that would be published to a room for an audience; of everybody who is connected
/// now, under the rights in force now. All gateways are asked. Where to and as whom is read from .roomcast/dev.env of the working
/// directory; the environment overrides it: ROOMCAST_ADMIN (addresses of the admin ports, separated by commas) and
/// ROOMCAST_ADMIN_TOKEN. One line a connection: whether it gets it, user, roles, why.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    roomcast explain bookings --audience staff\n  \
    roomcast explain bookings --event bk-1\n  \
    roomcast explain property.42 --user ada")]
pub(crate) struct Options {
    /// The room.
    room: String,
    /// The event's id; without it, any event for the audience.
    #[arg(long, value_name = "ID", conflicts_with = "audience")]
    event: Option<String>,
    /// The audience; everybody in the room when left out.
    #[arg(long, value_name = "ROLE")]
    audience: Option<String>,
    /// Only this user's connections.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Whose room.
    #[arg(long, value_name = "TENANT", default_value = "main")]
    tenant: String,
    /// Addresses of admin ports, separated by commas, instead of ROOMCAST_ADMIN.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    admin: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Page {
    connections: Vec<Told>,
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Told {
    connection: String,
    user: String,
    roles: Vec<String>,
    gets: bool,
    reason: String,
    why: String,
    #[serde(default)]
    without: Vec<String>,
}

/// Asks all gateways.
///
/// # Errors
/// 69: none answers, or none can say: the event is held by none, the audience is unknown.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let gateways = Gateways::find(&options.admin).await?;
    let (mut gets, mut others, mut answered, mut silent) = (0, 0, false, None);
    for address in gateways.addresses() {
        let mut after = None;
        loop {
            let page: Page = match gateways.get(address, &options.question(after.as_deref())).await {
                Ok(page) => page,
                Err(failure) => {
                    // Memory differs: another gateway may hold the event.
                    complain(&failure.message);
                    silent = Some(failure);
                    break;
                }
            };
            answered = true;
            for told in &page.connections {
                let count = if told.gets { &mut gets } else { &mut others };
                *count += 1;
                if !print(&line(told, Stream::Out.coloured())) {
                    return Ok(());
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    match silent {
        Some(failure) if !answered => Err(Failure {
            message: String::new(),
            ..failure
        }),
        _ => {
            print(&format!("{gets} get it, {others} do not"));
            Ok(())
        }
    }
}

impl Options {
    fn question(&self, after: Option<&str>) -> String {
        let mut question = format!(
            "explain?limit=500&room={}&tenant={}",
            escaped(&self.room),
            escaped(&self.tenant)
        );
        for (name, value) in [
            ("event", self.event.as_deref()),
            ("audience", self.audience.as_deref()),
            ("user", self.user.as_deref()),
            ("after", after),
        ] {
            if let Some(value) = value {
                question.push_str(&format!("&{name}={}", escaped(value)));
            }
        }
        question
    }
}

fn line(told: &Told, coloured: bool) -> String {
    let (colour, word) = match told.gets {
        true => (Colour::Green, "gets it "),
        false => (Colour::Yellow, "does not"),
    };
    let without = match told.without.is_empty() {
        true => String::new(),
        false => format!(", without {}", told.without.join(" ")),
    };
    let said = format!(
        "{} {} [{}] {}: {}{without}",
        told.connection,
        told.user,
        told.roles.join(","),
        told.reason,
        told.why
    );
    format!(
        "{}  {}",
        crate::terminal::paint(coloured, colour, word),
        harmless(&said)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_all_of_it() {
        let told = Told {
            connection: "c01".to_owned(),
            user: "ada".to_owned(),
            roles: vec!["staff".to_owned(), "user".to_owned()],
            gets: true,
            reason: "follows".to_owned(),
            why: "desk asks for work, which it has".to_owned(),
            without: vec!["/price".to_owned()],
        };
        assert_eq!(
            line(&told, false),
            "gets it   c01 ada [staff,user] follows: desk asks for work, which it has, without /price"
        );
    }
}
