//! The event: a CloudEvent (1.0, JSON event format) with a room, an audience and data.
//!
//! A [`Draft`] is what a publisher sent, checked for form. [`Draft::complete`] fills in what was left out and gives an [`Event`], which
//! only ingest makes. Readers use [`View`], which borrows. `data` goes through byte for byte.

mod complete;
mod draft;
mod instant;
mod stored;

use std::borrow::Cow;
use std::fmt::Write as _;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

pub use complete::Completion;
pub use draft::{Draft, Element};
pub(crate) use draft::{Members, bad, percent_decode};
pub use instant::{micros_of_rfc3339, rfc3339};
pub use stored::{StateEvent, View};

use crate::ids::{Audience, Room, Tenant};
use crate::json;

/// The type of the events in which gateways say what a user is doing.
pub const ACTIVITY_TYPE: &str = "user.activity";

/// How urgent an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Priority {
    /// `critical`
    Critical,
    /// `high`
    High,
    /// `medium`, the default
    #[default]
    Medium,
    /// `low`
    Low,
}

impl Priority {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Priority::Critical => "critical",
            Priority::High => "high",
            Priority::Medium => "medium",
            Priority::Low => "low",
        }
    }

    /// The priority with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Critical, Self::High, Self::Medium, Self::Low]
            .into_iter()
            .find(|p| p.as_str() == name)
    }
}

/// What is kept of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Delivery {
    /// `event`: stored, in order. The default.
    #[default]
    Event,
    /// `state`: the latest value of its key.
    State,
    /// `ephemeral`: not stored.
    Ephemeral,
}

impl Delivery {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Delivery::Event => "event",
            Delivery::State => "state",
            Delivery::Ephemeral => "ephemeral",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Event, Self::State, Self::Ephemeral]
            .into_iter()
            .find(|d| d.as_str() == name)
    }
}

/// Where an event goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// One room.
    Room(Room),
    /// The personal rooms of these subjects (true ids, unescaped), one copy each.
    Users(Vec<String>),
}

/// A complete event, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// CloudEvents `id`.
    pub id: String,
    /// CloudEvents `source`.
    pub source: String,
    /// CloudEvents `type`.
    pub kind: String,
    /// `time` as Unix microseconds.
    pub time_micros: i64,
    /// Where it goes.
    pub destination: Destination,
    /// Who of the room's members gets it.
    pub audience: Audience,
    /// How urgent it is.
    pub priority: Priority,
    /// What is kept of it.
    pub delivery: Delivery,
    /// The key of a state event.
    pub statekey: Option<String>,
    /// Whether the key is gone.
    pub withdrawn: bool,
    /// `expirytime` as Unix microseconds.
    pub expires_micros: Option<i64>,
    time_text: String,
    expires_text: Option<String>,
    subject: Option<String>,
    datacontenttype: Option<String>,
    /// Name and JSON text, in the order given.
    extensions: Vec<(String, String)>,
    data: Option<String>,
    data_base64: Option<String>,
    content_hash: String,
    id_was_given: bool,
}

/// First 22 characters (132 bits) of base64url SHA-256 over the length-prefixed parts.
fn digest22<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut text = URL_SAFE_NO_PAD.encode(context.finish());
    text.truncate(22);
    text
}

impl Event {
    /// The value of `Nats-Msg-Id`: the same for every repeat by the same publisher, for no other event.
    #[must_use]
    pub fn msg_id(&self, tenant: &Tenant, publisher: &str) -> String {
        digest22([tenant.as_str(), publisher, &self.source, &self.id])
    }

    /// The value of `Rc-Hash`.
    #[must_use]
    pub fn content_hash(&self) -> &str {
        &self.content_hash
    }

    /// Whether the publisher chose the id (else a retry is a new event).
    #[must_use]
    pub fn id_was_given(&self) -> bool {
        self.id_was_given
    }

    /// The data as JSON text, where there is any.
    #[must_use]
    pub fn data(&self) -> Option<&str> {
        self.data.as_deref()
    }

    /// Whether the data are bytes (`data_base64`).
    #[must_use]
    pub fn holds_bytes(&self) -> bool {
        self.data_base64.is_some()
    }

    /// `dataschema`: the name of the schema that the data follows.
    #[must_use]
    pub fn dataschema(&self) -> Option<Cow<'_, str>> {
        let (_, given) = self.extensions.iter().find(|(name, _)| name == "dataschema")?;
        serde_json::from_str::<json::Text<'_>>(given)
            .ok()
            .map(|text| text.0)
    }

    /// The copy for one of the `users`: id `<id>/<user>`, in the personal room.
    #[must_use]
    pub fn for_user(&self, user: &str) -> Self {
        let mut copy = self.clone();
        copy.id = format!("{}/{user}", self.id);
        copy.destination = Destination::Room(Room::personal(user));
        copy
    }

    /// The room, unless the event is for `users` and not yet copied.
    #[must_use]
    pub fn room(&self) -> Option<&Room> {
        match &self.destination {
            Destination::Room(room) => Some(room),
            Destination::Users(_) => None,
        }
    }

    /// The stored form: CloudEvents JSON, attributes in a fixed order, `data` last and byte for byte.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        let mut out = String::with_capacity(320 + self.data.as_ref().map_or(0, String::len));
        out.push_str("{\"specversion\":\"1.0\"");
        let mut put = |name: &str, value: &str| json::member(&mut out, name, value);
        put("id", &self.id);
        put("source", &self.source);
        put("type", &self.kind);
        put("time", &self.time_text);
        match &self.destination {
            Destination::Room(room) => put("room", room.as_str()),
            Destination::Users(users) => {
                let encoded: Vec<String> = users
                    .iter()
                    .map(|user| user.replace('%', "%25").replace(',', "%2C"))
                    .collect();
                put("users", &encoded.join(","));
            }
        }
        put("audience", self.audience.as_str());
        put("priority", self.priority.as_str());
        if self.delivery != Delivery::Event {
            put("delivery", self.delivery.as_str());
        }
        if let Some(key) = &self.statekey {
            put("statekey", key);
        }
        if let Some(expires) = &self.expires_text {
            put("expirytime", expires);
        }
        if let Some(subject) = &self.subject {
            put("subject", subject);
        }
        if let Some(kind) = &self.datacontenttype {
            put("datacontenttype", kind);
        }
        if self.withdrawn {
            out.push_str(",\"withdrawn\":true");
        }
        for (name, value) in &self.extensions {
            let _ = write!(out, ",\"{name}\":{value}");
        }
        if let Some(data) = &self.data {
            out.push_str(",\"data\":");
            out.push_str(data);
        }
        if let Some(data) = &self.data_base64 {
            json::member(&mut out, "data_base64", data);
        }
        out.push('}');
        Bytes::from(out)
    }
}
