//! A notification as sinks read it: from the event that is stored, or from what of it a user may see.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use roomcast_proto::event::Priority;
use roomcast_proto::ids::Tenant;
use roomcast_proto::notification::is_notification;
use serde::{Deserialize, Serialize};

use crate::push::PLAIN_BYTES_MAX;

/// Below this nothing more is cut from a text.
const CUT_BYTES_MIN: usize = 80;

/// What a device or a webhook is told of.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Notice {
    /// The event's id.
    pub id: String,
    /// The event's source: with the id it names the notification for ever.
    pub source: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its room.
    pub room: String,
    /// Its state key.
    pub statekey: String,
    /// How urgent it is.
    #[serde(default)]
    priority: String,
    #[serde(default)]
    time: String,
    #[serde(default)]
    data: Texts,
}

/// What is shown; a member that was taken out is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Texts {
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sound: Option<String>,
}

/// What a push holds, as JSON.
#[derive(Serialize)]
struct Pushed<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    room: &'a str,
    priority: &'a str,
    time: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(flatten)]
    texts: &'a Texts,
}

impl Notice {
    /// Reads a stored event; `None`: it is no notification.
    #[must_use]
    pub fn read(event: &[u8]) -> Option<Self> {
        let notice: Self = serde_json::from_slice(event).ok()?;
        is_notification(&notice.kind).then_some(notice)
    }

    /// How urgent it is.
    #[must_use]
    pub fn priority(&self) -> Priority {
        Priority::from_name(&self.priority).unwrap_or_default()
    }

    /// The text of a push: what a service worker needs to show it, and the `id` by which it finds that it has shown it. Where all of it is
    /// longer than a push may be, the body is cut, then what is not needed to show it goes, then the title is cut. `None`: even that is
    /// too long. `traceparent`: behind which step of which trace the device may go on.
    #[must_use]
    pub fn push_text(&self, traceparent: Option<String>) -> Option<Vec<u8>> {
        let mut texts = self.data.clone();
        loop {
            let pushed = Pushed {
                id: &self.id,
                kind: &self.kind,
                room: &self.room,
                priority: self.priority().as_str(),
                time: &self.time,
                traceparent: traceparent.as_deref(),
                texts: &texts,
            };
            let text = serde_json::to_vec(&pushed).ok()?;
            if text.len() <= PLAIN_BYTES_MAX {
                return Some(text);
            }
            if !texts.shorten() {
                return None;
            }
        }
    }

    /// The same for every attempt to deliver this notification, and for every repeat of it that its publisher makes: 26 characters.
    #[must_use]
    pub fn delivery_id(&self, tenant: &Tenant) -> String {
        format!(
            "msg_{}",
            short(&["delivery", tenant.as_str(), &self.source, &self.id], 16)
        )
    }

    /// `Topic` of its pushes: one that the device has not taken yet gives way to a newer one under the same key, as it does everywhere.
    #[must_use]
    pub fn topic(&self, tenant: &Tenant) -> String {
        short(&["topic", tenant.as_str(), &self.room, &self.statekey], 24)
    }
}

impl Texts {
    /// Makes it shorter by what matters least; `false`: nothing is left to leave out.
    fn shorten(&mut self) -> bool {
        if let Some(body) = &mut self.body {
            if !cut(body) {
                self.body = None;
            }
            return true;
        }
        let spare = [
            &mut self.sound,
            &mut self.category,
            &mut self.group,
            &mut self.link,
        ];
        spare.into_iter().any(|text| text.take().is_some()) || self.title.as_mut().is_some_and(cut)
    }
}

/// Takes a quarter off a text's end; `false`: it is short.
fn cut(text: &mut String) -> bool {
    if text.len() <= CUT_BYTES_MIN {
        return false;
    }
    let kept = text.trim_end_matches('…');
    let end = kept.floor_char_boundary(kept.len() / 4 * 3);
    text.truncate(end);
    text.push('…');
    true
}

fn short(parts: &[&str], bytes: usize) -> String {
    let mut sum = digest::Context::new(&digest::SHA256);
    for part in parts {
        // No part runs into the next.
        sum.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        sum.update(part.as_bytes());
    }
    let sum = sum.finish();
    URL_SAFE_NO_PAD.encode(sum.as_ref().get(..bytes).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn notice(data: Value) -> Notice {
        let event = json!({
            "specversion": "1.0", "id": "n1", "source": "roomcast://main/desk", "type": "notification.late", "room": "bookings",
            "audience": "staff", "priority": "high", "time": "2026-01-31T12:00:00Z", "statekey": "notification/n1", "data": data,
        });
        Notice::read(event.to_string().as_bytes()).unwrap()
    }

    fn text(notice: &Notice) -> Value {
        let text = notice.push_text(None).unwrap();
        assert!(text.len() <= PLAIN_BYTES_MAX);
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn a_push_holds_what_is_shown_and_nothing_else() {
        let shown = text(&notice(
            json!({ "title": "Late", "body": "Ada", "link": "/desk", "secret": 1 }),
        ));
        let expected = json!({
            "id": "n1", "type": "notification.late", "room": "bookings", "priority": "high", "time": "2026-01-31T12:00:00Z",
            "title": "Late", "body": "Ada", "link": "/desk",
        });
        assert_eq!(shown, expected);
        let traced = notice(json!({ "title": "Late" })).push_text(Some("00-1-2-01".to_owned()));
        let traced: Value = serde_json::from_slice(&traced.unwrap()).unwrap();
        assert_eq!(traced["traceparent"], "00-1-2-01");
        // What a role may not see was taken out before.
        assert_eq!(text(&notice(json!({})))["title"], Value::Null);
        for strange in [
            &b"{}"[..],
            b"[]",
            b"",
            br#"{"id":"a","source":"b","type":"booking:new","room":"r","statekey":"k"}"#,
        ] {
            assert_eq!(Notice::read(strange), None);
        }
    }

    #[test]
    fn what_is_too_long_is_cut_where_it_matters_least() {
        let long = |bytes: usize| "é".repeat(bytes / 2);
        let cut = text(&notice(
            json!({ "title": "Late", "body": long(8_192), "link": "/desk" }),
        ));
        let body = cut["body"].as_str().unwrap();
        assert!(
            body.len() > 1_000 && body.ends_with('…') && cut["link"] == "/desk",
            "{cut}"
        );
        let all = json!({ "title": long(1_024), "body": long(8_192), "link": format!("/{}", "a".repeat(1_000)),
            "category": "\u{1}".repeat(1_024), "group": long(1_024), "sound": long(1_024) });
        let cut = text(&notice(all));
        assert_eq!(
            (&cut["body"], &cut["sound"], &cut["category"]),
            (&Value::Null, &Value::Null, &Value::Null)
        );
        assert_eq!(cut["title"], long(1_024));
        // Every character of it takes six bytes.
        let cut = text(&notice(json!({ "title": "\u{1}".repeat(1_024) })));
        assert!(cut["title"].as_str().unwrap().ends_with('…'));
        let mut endless = notice(json!({ "title": "Late" }));
        endless.id = "\u{1}".repeat(1_000);
        assert_eq!(endless.push_text(None), None);
    }

    #[test]
    fn names_are_the_same_for_the_same_and_no_others() {
        let one = notice(json!({ "title": "Late" }));
        let (main, acme) = (Tenant::default(), Tenant::parse("acme").unwrap());
        let id = one.delivery_id(&main);
        assert_eq!((id.len(), one.topic(&main).len()), (26, 32));
        assert_eq!(notice(json!({ "title": "Later" })).delivery_id(&main), id);
        assert_ne!(one.delivery_id(&acme), id);
        let mut other = one.clone();
        (other.id, other.source) = ("1".to_owned(), "roomcast://main/deskn".to_owned());
        assert_ne!(other.delivery_id(&main), id);
        // A newer one under the same key takes the place of the older on the device.
        assert_eq!(other.topic(&main), one.topic(&main));
        other.statekey = "notification/n2".to_owned();
        assert_ne!(other.topic(&main), one.topic(&main));
    }
}
