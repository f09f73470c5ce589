//! Events as they are stored: made by ourselves, and read without what nobody asks for.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Delivery, Priority, micros_of_rfc3339, rfc3339};
use crate::ids::{Audience, Room};
use crate::json;

/// A state event of our own making: a metric's update, its status.
#[derive(Debug, Clone)]
pub struct StateEvent<'a> {
    /// CloudEvents `id`.
    pub id: &'a str,
    /// CloudEvents `source`.
    pub source: &'a str,
    /// CloudEvents `type`.
    pub kind: &'a str,
    /// Unix microseconds.
    pub time_micros: i64,
    /// Where it goes.
    pub room: &'a Room,
    /// For whom.
    pub audience: &'a Audience,
    /// Its key.
    pub statekey: &'a str,
    /// When it ends, Unix microseconds.
    pub expires_micros: Option<i64>,
    /// JSON text, or `None` for a withdrawn value.
    pub data: Option<&'a str>,
}

impl StateEvent<'_> {
    /// CloudEvents JSON.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        let mut out = String::with_capacity(320 + self.data.map_or(0, str::len));
        out.push_str("{\"specversion\":\"1.0\"");
        let mut put = |name: &str, value: &str| json::member(&mut out, name, value);
        put("id", self.id);
        put("source", self.source);
        put("type", self.kind);
        put("time", &rfc3339(self.time_micros));
        put("room", self.room.as_str());
        put("audience", self.audience.as_str());
        put("priority", Priority::Medium.as_str());
        put("delivery", Delivery::State.as_str());
        put("statekey", self.statekey);
        if let Some(micros) = self.expires_micros {
            put("expirytime", &rfc3339(micros));
        }
        match self.data {
            Some(data) => {
                out.push_str(",\"data\":");
                out.push_str(data);
            }
            None => out.push_str(",\"withdrawn\":true"),
        }
        out.push('}');
        Bytes::from(out)
    }
}

/// What a reader needs of a stored event, borrowed; the rest is skipped without being read.
#[derive(Debug, Clone, Deserialize)]
pub struct View<'a> {
    /// CloudEvents `id`.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// CloudEvents `source`.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    /// CloudEvents `type`.
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    /// CloudEvents `subject`.
    #[serde(borrow, default)]
    pub subject: Option<Cow<'a, str>>,
    /// CloudEvents `time`, RFC 3339; see [`View::time_micros`].
    #[serde(borrow)]
    pub time: Cow<'a, str>,
    /// How urgent: `critical high medium low`.
    #[serde(borrow, default)]
    pub priority: Option<Cow<'a, str>>,
    /// The data, unread.
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
}

impl<'a> View<'a> {
    /// Reads a stored event.
    ///
    /// # Errors
    /// When the bytes are not an event of ours; the caller counts and skips it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// `time` as Unix microseconds.
    #[must_use]
    pub fn time_micros(&self) -> Option<i64> {
        micros_of_rfc3339(&self.time)
    }
}
