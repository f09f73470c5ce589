//! The operator's file: whether pushes are sent and to which hosts, which webhooks there are, and what may be spoken to.
//!
//! ```yaml
//! push:
//!   key_file: vapid.pem                       # openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256
//!   contact: mailto:ops@desk.example          # whom push services write to
//!   hosts: [fcm.googleapis.com, "*.push.services.mozilla.com"]   # left out: any, on public addresses
//!   days: 30                                  # a device that is not registered again counts for so long
//! webhooks:
//!   - name: pager
//!     url: https://pager.example/roomcast
//!     secret_file: pager.secret               # echo whsec_$(openssl rand -base64 32)
//!     rooms: [notifications, "property.*"]
//!     types: [notification.alert]             # left out: all
//!     priorities: [critical, high]            # left out: all
//!     tenant: main
//! private: [10.1.0.0/16]                      # what may be spoken to beside public addresses
//! ca_file: internal.pem                       # authorities that are trusted beside the system's
//! give_up_seconds: 3600                       # then what nobody takes becomes a dead letter
//! ```

mod read;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use roomcast_chassis::fetch::Url;
use roomcast_proto::event::Priority;
use roomcast_proto::ids::Tenant;

use crate::address::Range;
use crate::notice::Notice;
use crate::vapid::Vapid;
use crate::webhook::Secrets;

/// Webhooks of one file.
pub const WEBHOOKS_MAX: usize = 64;
/// Largest file that this one names.
const NAMED_BYTES_MAX: u64 = 1 << 20;

/// What the file says, with the keys and secrets that it names.
#[derive(Debug)]
pub struct Config {
    /// Pushes, where they are sent.
    pub push: Option<PushConfig>,
    /// Webhooks, in the order of the file.
    pub webhooks: Vec<Webhook>,
    /// What may be spoken to beside public addresses.
    pub private: Vec<Range>,
    /// Authorities that are trusted beside the system's, in PEM.
    pub authorities: Option<Vec<u8>>,
    /// How long it is tried.
    pub give_up: Duration,
}

/// How pushes are sent.
#[derive(Debug)]
pub struct PushConfig {
    /// The server's key.
    pub vapid: Vapid,
    /// Where to; `None`: anywhere.
    pub hosts: Option<Vec<Host>>,
    /// How long a device counts that is not registered again, days.
    pub days: u32,
}

/// A webhook.
#[derive(Debug)]
pub struct Webhook {
    /// Its name: one token.
    pub name: String,
    /// Where to.
    pub url: Url,
    /// What is shared with the receiver.
    pub secrets: Secrets,
    /// What it is told of.
    pub filter: Filter,
}

/// Which notifications a webhook is told of: whatever their audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    tenant: Tenant,
    /// Names, with `*` for one token.
    rooms: Vec<String>,
    /// `None`: all.
    types: Option<Vec<String>>,
    /// `None`: all.
    priorities: Option<Vec<Priority>>,
}

impl Filter {
    /// Whether it lets a notification through.
    #[must_use]
    pub fn takes(&self, tenant: &Tenant, notice: &Notice) -> bool {
        let kind = |types: &Vec<String>| types.contains(&notice.kind);
        let priority = |priorities: &Vec<Priority>| priorities.contains(&notice.priority());
        *tenant == self.tenant
            && self.rooms.iter().any(|pattern| matches(pattern, &notice.room))
            && self.types.as_ref().is_none_or(kind)
            && self.priorities.as_ref().is_none_or(priority)
    }
}

fn matches(pattern: &str, room: &str) -> bool {
    let (mut pattern, mut room) = (pattern.split('.'), room.split('.'));
    loop {
        match (pattern.next(), room.next()) {
            (None, None) => return true,
            (Some(want), Some(token)) if want == "*" || want == token => {}
            _ => return false,
        }
    }
}

/// A host that pushes may go to: a name, or `*.` and a name for all below it; with a port where it is not 443.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    name: String,
    below: bool,
    port: u16,
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        let (text, below) = text.strip_prefix("*.").map_or((text, false), |rest| (rest, true));
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, port.parse().ok()?),
            None => (text, 443),
        };
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
        let right = !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain);
        right.then(|| Self {
            name: name.to_owned(),
            below,
            port,
        })
    }

    fn takes(&self, url: &Url) -> bool {
        let host = url.host().to_ascii_lowercase();
        let named = match self.below {
            true => host
                .strip_suffix(&self.name)
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            false => host == self.name,
        };
        named && url.port() == self.port
    }
}

impl PushConfig {
    /// Whether a device at this address may be pushed to: over TLS, and to a listed host where there is a list, else to port 443.
    #[must_use]
    pub fn may(&self, url: &Url) -> bool {
        url.is_tls()
            && match &self.hosts {
                Some(_) => self.listed(url).is_some(),
                None => url.port() == 443,
            }
    }

    /// Which of the listed hosts an address is of, by its place in the list; `None`: of none, or there is no list.
    #[must_use]
    pub fn listed(&self, url: &Url) -> Option<usize> {
        self.hosts.as_ref()?.iter().position(|host| host.takes(url))
    }
}

impl Config {
    /// Reads the file and those that it names, whose paths begin at its own folder.
    ///
    /// # Errors
    /// Every mistake, one a line, each with its place.
    pub fn load(path: &Path) -> Result<Self, String> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| format!("{name}:1:1: {error}"))?;
        let folder = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        let open = |named: &str| -> Result<Vec<u8>, String> {
            let path = folder.join(named);
            let length = std::fs::metadata(&path).map_err(|error| error.to_string())?.len();
            if length > NAMED_BYTES_MAX {
                return Err("is larger than 1 MiB".to_owned());
            }
            std::fs::read(&path).map_err(|error| error.to_string())
        };
        read::parse(&text, &name, &open).map_err(|mistakes| {
            let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            lines.join("\n")
        })
    }
}
