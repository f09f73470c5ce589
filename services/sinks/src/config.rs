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

use std::path::{Path, PathBuf};
use std::time::Duration;

use roomcast_access::Mistake;
use roomcast_access::yaml::{self, Mistakes, Node, Value};
use roomcast_chassis::fetch::Url;
use roomcast_proto::event::Priority;
use roomcast_proto::ids::{Room, Tenant, is_token};
use roomcast_proto::notification::is_notification;

use crate::address::Range;
use crate::notice::Notice;
use crate::vapid::Vapid;
use crate::webhook::Secrets;

/// Webhooks of one file.
pub const WEBHOOKS_MAX: usize = 64;
/// Hosts, ranges, and patterns of one webhook.
const LIST_MAX: usize = 64;
/// The usual life of a device that is not registered again, and its bounds, days.
const DAYS: u32 = 30;
const DAYS_MAX: i64 = 90;
/// The usual time until a dead letter, and its bound, seconds.
const GIVE_UP_SECS: u64 = 3_600;
const GIVE_UP_SECS_MAX: i64 = 24 * 3_600;
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
                Some(hosts) => hosts.iter().any(|host| host.takes(url)),
                None => url.port() == 443,
            }
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
        parse(&text, &name, &open).map_err(|mistakes| {
            let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            lines.join("\n")
        })
    }
}

type Open<'a> = &'a dyn Fn(&str) -> Result<Vec<u8>, String>;

struct Reader<'a> {
    mistakes: Mistakes<'a>,
    open: Open<'a>,
}

fn parse(text: &str, file: &str, open: Open<'_>) -> Result<Config, Vec<Mistake>> {
    let mut mistakes = Mistakes::new(file, text);
    let root = match yaml::read(text) {
        Ok(root) => root,
        Err((at, message)) => {
            mistakes.add(at, message);
            return Err(mistakes.finish());
        }
    };
    let mut reader = Reader { mistakes, open };
    match reader.file(&root) {
        Some(config) if reader.mistakes.is_empty() => Ok(config),
        _ => Err(reader.mistakes.finish()),
    }
}

impl Reader<'_> {
    fn file(&mut self, root: &Node) -> Option<Config> {
        const KEYS: [&str; 5] = ["push", "webhooks", "private", "ca_file", "give_up_seconds"];
        let found = self.mistakes.fields(root, "the file", &KEYS, &[])?;
        let push = found.get("push").map(|node| self.push(node));
        let webhooks = found
            .get("webhooks")
            .map_or_else(Vec::new, |node| self.each(node, WEBHOOKS_MAX, Self::webhook));
        for (index, one) in webhooks.iter().enumerate() {
            if webhooks.iter().take(index).any(|other| other.name == one.name) {
                let message = format!("the webhook {:?} stands here twice", one.name);
                self.mistakes.add(root.at, message);
            }
        }
        if push.is_none() && !found.contains_key("webhooks") {
            self.mistakes
                .add(root.at, "nothing is sent; the file needs `push` or `webhooks`");
        }
        let range = |reader: &mut Self, node: &Node| {
            reader.parsed(node, "a range like 10.1.0.0/16", |text| text.parse().ok())
        };
        let private = found
            .get("private")
            .map_or_else(Vec::new, |node| self.each(node, LIST_MAX, range));
        let authorities = found.get("ca_file").map(|node| self.opened(node, "a path"));
        let seconds = found.get("give_up_seconds").map_or(Some(GIVE_UP_SECS), |node| {
            self.whole(node, GIVE_UP_SECS_MAX).map(u64::from)
        });
        Some(Config {
            push: match push {
                Some(push) => Some(push?),
                None => None,
            },
            webhooks,
            private,
            authorities: match authorities {
                Some(authorities) => Some(authorities?),
                None => None,
            },
            give_up: Duration::from_secs(seconds?),
        })
    }

    fn push(&mut self, node: &Node) -> Option<PushConfig> {
        const KEYS: [&str; 4] = ["key_file", "contact", "hosts", "days"];
        let found = self
            .mistakes
            .fields(node, "`push`", &KEYS, &["key_file", "contact"])?;
        let contact = found.get("contact").and_then(|node| {
            self.parsed(
                node,
                "mailto:… or https://…, whom push services write to",
                |text| {
                    let right = text.starts_with("mailto:") || text.starts_with("https://");
                    right.then(|| text.to_owned())
                },
            )
        });
        let vapid = found.get("key_file").and_then(|node| {
            let pem = self.opened(node, "a path")?;
            let read = Vapid::read(&pem, contact.as_deref().unwrap_or_default());
            read.map_err(|error| self.mistakes.add(node.at, format!("the file {error}")))
                .ok()
        });
        let host = |reader: &mut Self, node: &Node| {
            reader.parsed(
                node,
                "a host like fcm.googleapis.com or *.push.example",
                Host::parse,
            )
        };
        let hosts = found.get("hosts").map(|node| self.each(node, LIST_MAX, host));
        let days = found
            .get("days")
            .map_or(Some(DAYS), |node| self.whole(node, DAYS_MAX));
        contact?;
        Some(PushConfig {
            vapid: vapid?,
            hosts,
            days: days?,
        })
    }

    fn webhook(&mut self, node: &Node) -> Option<Webhook> {
        const KEYS: [&str; 7] = [
            "name",
            "url",
            "secret_file",
            "rooms",
            "types",
            "priorities",
            "tenant",
        ];
        const NEEDED: [&str; 4] = ["name", "url", "secret_file", "rooms"];
        let found = self.mistakes.fields(node, "a webhook", &KEYS, &NEEDED)?;
        let name = found.get("name").and_then(|node| {
            self.parsed(node, "a name of letters, digits, _ and -", |text| {
                is_token(text).then(|| text.to_owned())
            })
        });
        let url = found.get("url").and_then(|node| {
            self.parsed(node, "an address that begins with https://", |text| {
                Url::parse(text).ok().filter(Url::is_tls)
            })
        });
        let secrets = found.get("secret_file").and_then(|node| {
            let text = self.opened(node, "a path")?;
            let read = Secrets::read(&String::from_utf8_lossy(&text));
            read.map_err(|wrong| self.mistakes.add(node.at, format!("the file {wrong}")))
                .ok()
        });
        let room = |reader: &mut Self, node: &Node| {
            reader.parsed(node, "a room, with * for one part of its name", |text| {
                is_pattern(text).then(|| text.to_owned())
            })
        };
        let kind = |reader: &mut Self, node: &Node| {
            reader.parsed(node, "a type that begins with notification.", |text| {
                is_notification(text).then(|| text.to_owned())
            })
        };
        let priority = |reader: &mut Self, node: &Node| {
            reader.parsed(node, "critical, high, medium or low", Priority::from_name)
        };
        let rooms = found
            .get("rooms")
            .map_or_else(Vec::new, |node| self.each(node, LIST_MAX, room));
        let types = found.get("types").map(|node| self.each(node, LIST_MAX, kind));
        let priorities = found
            .get("priorities")
            .map(|node| self.each(node, LIST_MAX, priority));
        let tenant = match found.get("tenant") {
            None => Some(Tenant::default()),
            Some(node) => self.parsed(node, "a tenant", |text| Tenant::parse(text).ok()),
        };
        Some(Webhook {
            name: name?,
            url: url?,
            secrets: secrets?,
            filter: Filter {
                tenant: tenant?,
                rooms,
                types,
                priorities,
            },
        })
    }

    /// What stands in a list of 1 to `most` entries; an empty one would mean nothing, and nobody writes that.
    fn each<T>(&mut self, node: &Node, most: usize, read: impl Fn(&mut Self, &Node) -> Option<T>) -> Vec<T> {
        match &node.value {
            Value::List(list) if (1..=most).contains(&list.len()) => {
                list.iter().filter_map(|node| read(self, node)).collect()
            }
            _ => {
                let message = format!("expected a list of 1 to {most} entries");
                self.mistakes.add(node.at, message);
                Vec::new()
            }
        }
    }

    fn parsed<T>(&mut self, node: &Node, what: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.mistakes.text(node, what)?;
        let read = read(text);
        if read.is_none() {
            self.mistakes
                .add(node.at, format!("expected {what}, found {text:?}"));
        }
        read
    }

    fn whole(&mut self, node: &Node, most: i64) -> Option<u32> {
        let found = match node.value {
            Value::Whole(number) if (1..=most).contains(&number) => u32::try_from(number).ok(),
            _ => None,
        };
        if found.is_none() {
            let message = format!("expected a whole number from 1 to {most}");
            self.mistakes.add(node.at, message);
        }
        found
    }

    fn opened(&mut self, node: &Node, what: &str) -> Option<Vec<u8>> {
        let path = self.mistakes.text(node, what)?;
        (self.open)(path)
            .map_err(|error| self.mistakes.add(node.at, format!("{path:?}: {error}")))
            .ok()
    }
}

/// Personal rooms have a grammar of their own: `user.*` means all of them.
fn is_pattern(text: &str) -> bool {
    let concrete: Vec<&str> = text
        .split('.')
        .map(|token| if token == "*" { "x" } else { token })
        .collect();
    Room::parse(&concrete.join(".")).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n";

    fn open(name: &str) -> Result<Vec<u8>, String> {
        match name {
            "vapid.pem" => Ok(include_bytes!("../tests/vapid.pem").to_vec()),
            "pager.secret" => Ok(SECRET.into()),
            "empty" => Ok(Vec::new()),
            _ => Err("not there".to_owned()),
        }
    }

    fn read(text: &str) -> Result<Config, Vec<String>> {
        parse(text, "sinks.yaml", &open)
            .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
    }

    const WHOLE: &str = r#"
push:
  key_file: vapid.pem
  contact: mailto:ops@desk.example
  hosts: [fcm.googleapis.com, "*.push.services.mozilla.com", "localhost:8443"]
  days: 7
webhooks:
  - name: pager
    url: https://pager.example/roomcast
    secret_file: pager.secret
    rooms: [notifications, "property.*"]
    types: [notification.alert]
    priorities: [critical, high]
  - { name: personal, url: "https://pager.example:8443/", secret_file: pager.secret, rooms: ["user.*"], tenant: acme }
private: [10.1.0.0/16]
give_up_seconds: 300
"#;

    #[test]
    fn a_file_says_where_and_what() {
        let config = read(WHOLE).unwrap();
        assert_eq!(
            (config.give_up, config.private.len()),
            (Duration::from_secs(300), 1)
        );
        let push = config.push.unwrap();
        assert_eq!(push.days, 7);
        let rows = [
            ("https://fcm.googleapis.com/x", true),
            ("https://FCM.googleapis.com/x", true),
            ("https://fcm.googleapis.com:8443/x", false),
            ("https://fcm.googleapis.com.evil.example/x", false),
            ("https://updates.push.services.mozilla.com/x", true),
            ("https://push.services.mozilla.com/x", false),
            ("https://evilpush.services.mozilla.com/x", false),
            ("https://localhost:8443/x", true),
            ("http://localhost:8443/x", false),
        ];
        for (url, may) in rows {
            assert_eq!(push.may(&Url::parse(url).unwrap()), may, "{url}");
        }
        let any = PushConfig { hosts: None, ..push };
        for (url, may) in [
            ("https://anything.example/x", true),
            ("https://anything.example:22/x", false),
            ("http://localhost/x", false),
        ] {
            assert_eq!(any.may(&Url::parse(url).unwrap()), may, "{url}");
        }
        let notice = |kind: &str, room: &str, priority: &str| {
            let event = json!({ "id": "1", "source": "s", "type": kind, "room": room, "priority": priority, "statekey": "k" });
            Notice::read(event.to_string().as_bytes()).unwrap()
        };
        let [pager, personal] = &config.webhooks[..] else {
            unreachable!("two webhooks")
        };
        let (main, acme) = (Tenant::default(), Tenant::parse("acme").unwrap());
        let rows = [
            (
                pager,
                &main,
                notice("notification.alert", "notifications", "critical"),
                true,
            ),
            (
                pager,
                &main,
                notice("notification.alert", "property.42", "high"),
                true,
            ),
            (
                pager,
                &main,
                notice("notification.alert", "property", "high"),
                false,
            ),
            (
                pager,
                &main,
                notice("notification.alert", "property.42.door", "high"),
                false,
            ),
            (
                pager,
                &main,
                notice("notification.alert", "notifications", "medium"),
                false,
            ),
            (
                pager,
                &main,
                notice("notification.late", "notifications", "high"),
                false,
            ),
            (
                pager,
                &acme,
                notice("notification.alert", "notifications", "high"),
                false,
            ),
            (
                personal,
                &acme,
                notice("notification.late", "user.u=2F1", "low"),
                true,
            ),
            (
                personal,
                &main,
                notice("notification.late", "user.u1", "low"),
                false,
            ),
        ];
        for (webhook, tenant, notice, takes) in rows {
            assert_eq!(webhook.filter.takes(tenant, &notice), takes, "{notice:?}");
        }
    }

    #[test]
    fn mistakes_are_all_named_with_their_places() {
        let rows: [(&str, &[&str]); 9] = [
            ("", &["sinks.yaml:1:1: expected the file as a map, found nothing"]),
            (
                "private: [10.1.0.0/16]",
                &["sinks.yaml:1:1: nothing is sent; the file needs `push` or `webhooks`"],
            ),
            (
                "push: { contact: me }",
                &[
                    "sinks.yaml:1:7: `push` needs `key_file`",
                    "sinks.yaml:1:18: expected mailto:… or https://…, whom push services write to, found \"me\"",
                ],
            ),
            (
                "push: { key_file: empty, contact: \"mailto:a@b\" }",
                &[
                    "sinks.yaml:1:19: the file is no P-256 key in PEM (`openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256` makes one)",
                ],
            ),
            (
                "push: { key_file: nowhere.pem, contact: \"mailto:a@b\", hosts: [], days: 0 }",
                &[
                    "sinks.yaml:1:19: \"nowhere.pem\": not there",
                    "sinks.yaml:1:62: expected a list of 1 to 64 entries",
                    "sinks.yaml:1:72: expected a whole number from 1 to 90",
                ],
            ),
            (
                "webhook: []",
                &[
                    "sinks.yaml:1:1: unknown key \"webhook\" in the file; did you mean \"webhooks\"?",
                    "sinks.yaml:1:1: nothing is sent; the file needs `push` or `webhooks`",
                ],
            ),
            (
                "webhooks: [{ name: a.b, url: \"http://localhost/\", secret_file: vapid.pem, rooms: [\"a..b\"] }]",
                &[
                    "sinks.yaml:1:20: expected a name of letters, digits, _ and -, found \"a.b\"",
                    "sinks.yaml:1:30: expected an address that begins with https://, found \"http://localhost/\"",
                    "sinks.yaml:1:64: the file is not one or two lines of whsec_ and base64 of 24 to 64 bytes (`echo whsec_$(openssl rand -base64 32)` makes one)",
                    "sinks.yaml:1:83: expected a room, with * for one part of its name, found \"a..b\"",
                ],
            ),
            (
                "webhooks: [{ name: a, url: \"https://x/\", secret_file: pager.secret, rooms: [a], types: [booking], priorities: [loud], tenant: GW }]",
                &[
                    "sinks.yaml:1:89: expected a type that begins with notification., found \"booking\"",
                    "sinks.yaml:1:112: expected critical, high, medium or low, found \"loud\"",
                    "sinks.yaml:1:127: expected a tenant, found \"GW\"",
                ],
            ),
            (
                "webhooks: [{ name: a, url: \"https://x/\", secret_file: pager.secret, rooms: [a] }]\nprivate: [10.0.0.1/8, all]\ngive_up_seconds: never",
                &[
                    "sinks.yaml:2:11: expected a range like 10.1.0.0/16, found \"10.0.0.1/8\"",
                    "sinks.yaml:2:23: expected a range like 10.1.0.0/16, found \"all\"",
                    "sinks.yaml:3:18: expected a whole number from 1 to 86400",
                ],
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(read(text).err().unwrap_or_default(), expected, "{text}");
        }
        let twice = WHOLE.replace("name: personal", "name: pager");
        assert_eq!(read(&twice).unwrap_err().len(), 1);
    }
}
