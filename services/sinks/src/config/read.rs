//! Reads the file: what each key may hold, and every mistake with its place.

use std::time::Duration;

use roomcast_access::Mistake;
use roomcast_access::yaml::{self, Mistakes, Node, Value};
use roomcast_chassis::fetch::Url;
use roomcast_proto::event::Priority;
use roomcast_proto::ids::{Room, Tenant, is_token};
use roomcast_proto::notification::is_notification;

use super::{Config, Filter, Host, PushConfig, WEBHOOKS_MAX, Webhook};
use crate::vapid::Vapid;
use crate::webhook::Secrets;

/// Hosts, ranges, and patterns of one webhook.
const LIST_MAX: usize = 64;
/// The usual life of a device that is not registered again, and its bounds, days.
const DAYS: u32 = 30;
const DAYS_MAX: i64 = 90;
/// The usual time until a dead letter, and its bound, seconds.
const GIVE_UP_SECS: u64 = 3_600;
const GIVE_UP_SECS_MAX: i64 = 24 * 3_600;
pub(super) type Open<'a> = &'a dyn Fn(&str) -> Result<Vec<u8>, String>;

struct Reader<'a> {
    mistakes: Mistakes<'a>,
    open: Open<'a>,
}

pub(super) fn parse(text: &str, file: &str, open: Open<'_>) -> Result<Config, Vec<Mistake>> {
    let (root, mistakes) = yaml::read(text, file)?;
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
