//! The event: a CloudEvent (1.0, JSON event format) with a room, an audience and data.
//!
//! A [`Draft`] is what a publisher sent, checked for form. [`Draft::complete`] fills in what was left out and gives an [`Event`], which
//! only ingest makes. Readers use [`View`], which borrows. `data` goes through byte for byte.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::ids::{Audience, Room, Tenant, new_event_id};
use crate::json;
use crate::limits::{
    ATTRIBUTE_BYTES_MAX, BATCH_EVENTS_MAX, EVENT_BYTES_MAX, EVENT_ID_BYTES_MAX, EXTENSIONS_MAX, USERS_MAX,
};
use crate::notification;
use crate::refusal::{Code, Refusal};

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

/// What a publisher sent, checked for form and not yet complete. Borrows from the request.
#[derive(Debug, Clone)]
pub struct Draft<'a> {
    id: Option<Cow<'a, str>>,
    made_id: Option<String>,
    source: Option<Cow<'a, str>>,
    kind: Cow<'a, str>,
    subject: Option<Cow<'a, str>>,
    time: Option<(Cow<'a, str>, i64)>,
    datacontenttype: Option<Cow<'a, str>>,
    room: Option<Cow<'a, str>>,
    users: Option<Vec<String>>,
    audience: Option<Cow<'a, str>>,
    priority: Option<Priority>,
    delivery: Option<Delivery>,
    statekey: Option<Cow<'a, str>>,
    withdrawn: bool,
    expires: Option<(Cow<'a, str>, i64)>,
    extensions: Vec<(Cow<'a, str>, &'a RawValue)>,
    data: Option<&'a RawValue>,
    data_base64: Option<Cow<'a, str>>,
}

/// What ingest knows about a draft from elsewhere.
#[derive(Debug, Clone)]
pub struct Completion<'a> {
    /// Whose event this is.
    pub tenant: &'a Tenant,
    /// Who publishes: a NATS user or a token's subject. Part of the default `source`.
    pub publisher: &'a str,
    /// The room of the subject, when the event came by one. An attribute that says otherwise is refused.
    pub room: Option<&'a Room>,
    /// The audience of the subject, likewise.
    pub audience: Option<&'a Audience>,
    /// Now, Unix microseconds.
    pub now_micros: i64,
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

/// An object's members in the order of the text.
pub(crate) struct Members<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Self::Value = Vec::with_capacity(12);
                while let Some(name) = map.next_key::<json::Text<'de>>()? {
                    members.push((name.0, map.next_value()?));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Collect).map(Members)
    }
}

/// One element of a batch: where it stands in the request, and what was read of it.
pub type Element<'a> = (Range<usize>, Result<Draft<'a>, Refusal>);

impl<'a> Draft<'a> {
    /// Reads one event: structured mode or the short form `{"type":…,"data":…}`.
    ///
    /// # Errors
    /// A [`Refusal`] with code, JSON pointer and reason; never panics, whatever the bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        if bytes.len() > EVENT_BYTES_MAX {
            let detail = format!(
                "an event has at most {EVENT_BYTES_MAX} bytes, this one has {}",
                bytes.len()
            );
            return Err(Refusal::new(Code::TooLarge, detail));
        }
        let text = json::check(bytes)?;
        let Members(members) = serde_json::from_str(text)
            .map_err(|error| Refusal::new(Code::BadJson, format!("not a JSON object: {error}")))?;
        let mut draft = Draft::empty();
        let mut seen: Vec<&str> = Vec::with_capacity(members.len());
        for (name, _) in &members {
            if seen.contains(&name.as_ref()) {
                return Err(bad(name, "is given twice"));
            }
            seen.push(name);
        }
        for (name, raw) in members {
            // CloudEvents JSON format: null stands for an absent attribute; `data: null` is a value.
            if raw.get() == "null" && name != "data" {
                continue;
            }
            if name == "specversion" {
                if raw.get() != "\"1.0\"" {
                    return Err(bad("specversion", "must be \"1.0\""));
                }
                continue;
            }
            draft.take(name, raw)?;
        }
        draft.check()
    }

    /// Reads a JSON array of events. Each result stands beside the bytes it came from, so that a refused one can be kept.
    ///
    /// # Errors
    /// When the whole is not an array, has too many elements, or is empty.
    pub fn parse_batch(bytes: &'a [u8]) -> Result<Vec<Element<'a>>, Refusal> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            Refusal::new(
                Code::BadEncoding,
                format!("not UTF-8 at byte {}", error.valid_up_to()),
            )
        })?;
        let elements: Vec<&'a RawValue> = serde_json::from_str(text)
            .map_err(|error| Refusal::new(Code::BadJson, format!("not a JSON array of events: {error}")))?;
        if elements.is_empty() {
            return Err(Refusal::new(Code::BadRequest, "the batch holds no event"));
        }
        if elements.len() > BATCH_EVENTS_MAX {
            let detail = format!(
                "a batch holds at most {BATCH_EVENTS_MAX} events, this one {}",
                elements.len()
            );
            return Err(Refusal::new(Code::TooLarge, detail));
        }
        let base = text.as_ptr() as usize;
        let place = |raw: &RawValue| {
            let start = raw.get().as_ptr() as usize - base;
            start..start + raw.get().len()
        };
        Ok(elements
            .into_iter()
            .map(|raw| (place(raw), Self::parse(raw.get().as_bytes())))
            .collect())
    }

    fn empty() -> Self {
        Self {
            id: None,
            made_id: None,
            source: None,
            kind: Cow::Borrowed(""),
            subject: None,
            time: None,
            datacontenttype: None,
            room: None,
            users: None,
            audience: None,
            priority: None,
            delivery: None,
            statekey: None,
            withdrawn: false,
            expires: None,
            extensions: Vec::new(),
            data: None,
            data_base64: None,
        }
    }

    fn take(&mut self, name: Cow<'a, str>, raw: &'a RawValue) -> Result<(), Refusal> {
        match &*name {
            "id" => self.id = Some(text(&name, raw, EVENT_ID_BYTES_MAX)?),
            "source" => self.source = Some(text(&name, raw, ATTRIBUTE_BYTES_MAX)?),
            "type" => self.kind = text(&name, raw, ATTRIBUTE_BYTES_MAX)?,
            "subject" => self.subject = Some(text(&name, raw, ATTRIBUTE_BYTES_MAX)?),
            "datacontenttype" => self.datacontenttype = Some(text(&name, raw, ATTRIBUTE_BYTES_MAX)?),
            "time" => self.time = Some(time(&name, raw)?),
            "expirytime" => self.expires = Some(time(&name, raw)?),
            "room" => {
                self.room = Some(text(&name, raw, ATTRIBUTE_BYTES_MAX).map_err(|r| Refusal {
                    code: Code::BadRoom,
                    ..r
                })?)
            }
            "audience" => {
                self.audience = Some(text(&name, raw, ATTRIBUTE_BYTES_MAX).map_err(|r| Refusal {
                    code: Code::UnknownAudience,
                    ..r
                })?);
            }
            "users" => self.users = Some(users(raw)?),
            "statekey" => self.statekey = Some(text(&name, raw, ATTRIBUTE_BYTES_MAX)?),
            "priority" => {
                let given = text(&name, raw, ATTRIBUTE_BYTES_MAX)?;
                self.priority = Some(
                    Priority::from_name(&given)
                        .ok_or_else(|| bad("priority", "is critical, high, medium or low"))?,
                );
            }
            "delivery" => {
                let given = text(&name, raw, ATTRIBUTE_BYTES_MAX)?;
                self.delivery = Some(
                    Delivery::from_name(&given)
                        .ok_or_else(|| bad("delivery", "is event, state or ephemeral"))?,
                );
            }
            "withdrawn" => {
                self.withdrawn = match raw.get() {
                    "true" => true,
                    "false" => false,
                    _ => return Err(bad("withdrawn", "is true or false")),
                };
            }
            "data" => self.data = Some(raw),
            "data_base64" => {
                let given: Cow<'a, str> = serde_json::from_str::<json::Text<'a>>(raw.get())
                    .map_err(|_| bad(&name, "is a string"))?
                    .0;
                if base64::engine::general_purpose::STANDARD
                    .decode(given.as_bytes())
                    .is_err()
                {
                    return Err(bad(&name, "is not base64"));
                }
                self.data_base64 = Some(given);
            }
            _ => self.extension(name, raw)?,
        }
        Ok(())
    }

    fn extension(&mut self, name: Cow<'a, str>, raw: &'a RawValue) -> Result<(), Refusal> {
        if name.is_empty()
            || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            || name.len() > 64
        {
            return Err(bad(
                &name,
                "attribute names are lower-case letters and digits, at most 64",
            ));
        }
        if self.extensions.len() == EXTENSIONS_MAX {
            return Err(bad(&name, "one extension attribute too many: at most 32"));
        }
        match raw.get().as_bytes().first() {
            Some(b'"') => {
                text(&name, raw, ATTRIBUTE_BYTES_MAX)?;
            }
            Some(b'{' | b'[') | None => {
                return Err(bad(&name, "attributes are strings, numbers or booleans"));
            }
            Some(_) => {}
        }
        self.extensions.push((name, raw));
        Ok(())
    }

    fn check(self) -> Result<Self, Refusal> {
        if self.kind.is_empty() {
            return Err(bad("type", "is required"));
        }
        if self.data.is_some() && self.data_base64.is_some() {
            return Err(bad("data_base64", "stands instead of data, not beside it"));
        }
        if self.room.is_some() && self.users.is_some() {
            return Err(bad("users", "stands instead of room, not beside it"));
        }
        if notification::is_notification(&self.kind) {
            self.check_notification()?;
        }
        let state = self.final_delivery() == Delivery::State;
        if state && self.statekey.is_none() && !notification::is_notification(&self.kind) {
            return Err(bad("statekey", "is required for delivery state"));
        }
        if !state && self.statekey.is_some() {
            return Err(bad("statekey", "belongs to delivery state only"));
        }
        if self.withdrawn && !state {
            return Err(bad("withdrawn", "belongs to delivery state only"));
        }
        if self.withdrawn && (self.data.is_some() || self.data_base64.is_some()) {
            return Err(bad("withdrawn", "a withdrawn value has no data"));
        }
        Ok(self)
    }

    fn final_delivery(&self) -> Delivery {
        match self.delivery {
            Some(given) => given,
            None if notification::is_notification(&self.kind) => Delivery::State,
            None => Delivery::Event,
        }
    }

    fn check_notification(&self) -> Result<(), Refusal> {
        if self.final_delivery() != Delivery::State {
            return Err(bad("delivery", "of a notification is state"));
        }
        let dedup = self.dedup_key()?;
        let key = self.statekey.as_deref();
        let given = key.map(|key| {
            let key = key.strip_prefix(notification::KEY_PREFIX);
            key.filter(|key| !key.is_empty())
                .ok_or_else(|| bad("statekey", "of a notification begins with notification/"))
        });
        match (given.transpose()?, dedup) {
            (Some(given), Some(dedup)) if given != dedup => {
                return Err(bad("dedupkey", "says another key than statekey"));
            }
            (None, None) if self.withdrawn => {
                return Err(bad("dedupkey", "is required to withdraw a notification"));
            }
            _ => {}
        }
        match self.withdrawn {
            true => Ok(()),
            false => notification::check_data(self.data.map(RawValue::get)),
        }
    }

    /// The de-duplication key of a notification, where one was given.
    fn dedup_key(&self) -> Result<Option<Cow<'a, str>>, Refusal> {
        let name = notification::DEDUP_ATTRIBUTE;
        let given = self.extensions.iter().find(|(known, _)| known == name);
        let max = ATTRIBUTE_BYTES_MAX - notification::KEY_PREFIX.len();
        given.map(|(_, raw)| text(name, raw, max)).transpose()
    }

    /// The key of a state event. A notification that names none has its own.
    fn final_statekey(&self, id: &str) -> Result<Option<String>, Refusal> {
        if !notification::is_notification(&self.kind) || self.statekey.is_some() {
            return Ok(self.statekey.as_deref().map(str::to_owned));
        }
        let dedup = self.dedup_key()?;
        let key = dedup.as_deref().unwrap_or(id);
        Ok(Some(format!("{}{key}", notification::KEY_PREFIX)))
    }

    /// An extension attribute whose text needs no escape, like `traceparent`.
    #[must_use]
    pub fn extension_text(&self, name: &str) -> Option<&str> {
        let (_, raw) = self.extensions.iter().find(|(known, _)| known == name)?;
        serde_json::from_str(raw.get()).ok()
    }

    /// The `id`, where one was given.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The id it gets where none was given, instead of a new one: who reads the same draft twice makes the same event twice.
    #[must_use]
    pub fn or_id(mut self, made: String) -> Self {
        self.made_id = Some(made);
        self
    }

    /// The `type`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Fills in what the publisher left out.
    ///
    /// # Errors
    /// `bad_room` and `unknown_audience` when a name breaks its grammar, `bad_event` when the subject the event came by says
    /// something else than the event, `event_expired` when `expirytime` has passed.
    pub fn complete(self, from: &Completion<'_>) -> Result<Event, Refusal> {
        let destination = self.destination(from)?;
        let audience = self.final_audience(from)?;
        if self
            .expires
            .as_ref()
            .is_some_and(|(_, at)| *at <= from.now_micros)
        {
            return Err(Refusal::new(Code::EventExpired, "expirytime has passed").at("/expirytime"));
        }
        let source = match &self.source {
            Some(given) => given.to_string(),
            None => format!(
                "roomcast://{}/{}",
                from.tenant,
                crate::ids::escape(from.publisher)
            ),
        };
        let content_hash = self.hash(&destination, &audience, &source);
        let made_id = self.made_id.as_deref();
        let id = self
            .id
            .as_deref()
            .or(made_id)
            .map_or_else(new_event_id, str::to_owned);
        let statekey = self.final_statekey(&id)?;
        let delivery = self.final_delivery();
        let (time_text, time_micros) = match self.time {
            Some((given, micros)) => (given.into_owned(), micros),
            None => (rfc3339(from.now_micros), from.now_micros),
        };
        let (expires_text, expires_micros) = match self.expires {
            Some((given, micros)) => (Some(given.into_owned()), Some(micros)),
            None if notification::is_notification(&self.kind) && !self.withdrawn => {
                let life = notification::life(self.priority.unwrap_or_default());
                let life = i64::try_from(life.as_micros()).unwrap_or(i64::MAX);
                let at = from.now_micros.saturating_add(life);
                (Some(rfc3339(at)), Some(at))
            }
            None => (None, None),
        };
        Ok(Event {
            id_was_given: self.id.is_some(),
            id,
            source,
            kind: self.kind.into_owned(),
            time_micros,
            destination,
            audience,
            priority: self.priority.unwrap_or_default(),
            delivery,
            statekey,
            withdrawn: self.withdrawn,
            expires_micros,
            time_text,
            expires_text,
            subject: self.subject.map(Cow::into_owned),
            datacontenttype: self.datacontenttype.map(Cow::into_owned),
            extensions: self
                .extensions
                .into_iter()
                .map(|(n, v)| (n.into_owned(), v.get().to_owned()))
                .collect(),
            data: self.data.map(|raw| raw.get().to_owned()),
            data_base64: self.data_base64.map(Cow::into_owned),
            content_hash,
        })
    }

    fn destination(&self, from: &Completion<'_>) -> Result<Destination, Refusal> {
        let room_refusal = |bad: crate::ids::BadName| Refusal::new(Code::BadRoom, bad.rule()).at("/room");
        match (from.room, &self.room, &self.users) {
            (Some(_), _, Some(_)) => Err(bad("users", "cannot be used on a subject that names a room")),
            (Some(room), None, None) => Ok(Destination::Room(room.clone())),
            (Some(room), Some(given), None) if room.as_str() == given => Ok(Destination::Room(room.clone())),
            (Some(room), Some(_), None) => Err(Refusal::new(
                Code::BadRoom,
                format!("the subject says room {room}, the event another"),
            )
            .at("/room")),
            (None, Some(given), _) => Room::parse(given).map(Destination::Room).map_err(room_refusal),
            (None, None, Some(users)) => Ok(Destination::Users(users.clone())),
            (None, None, None) => Err(Refusal::new(Code::BadRoom, "a room or users is required").at("/room")),
        }
    }

    fn final_audience(&self, from: &Completion<'_>) -> Result<Audience, Refusal> {
        if self.users.is_some() {
            return match &self.audience {
                None => Ok(Audience::all()),
                Some(given) if given == crate::ids::AUDIENCE_ALL => Ok(Audience::all()),
                Some(_) => Err(bad("audience", "a personal room has the audience all")),
            };
        }
        match (from.audience, &self.audience) {
            (Some(audience), None) => Ok(audience.clone()),
            (Some(audience), Some(given)) if audience.as_str() == given => Ok(audience.clone()),
            (Some(audience), Some(_)) => Err(bad(
                "audience",
                &format!("the subject says audience {audience}, the event another"),
            )),
            (None, None) => Ok(Audience::all()),
            (None, Some(given)) => Audience::parse(given)
                .map_err(|bad| Refusal::new(Code::UnknownAudience, bad.rule()).at("/audience")),
        }
    }

    /// Digest of what the publisher said: two requests with the same id and the same digest are a repeat, others a conflict.
    /// What ingest fills in differently each time (`time`) is not part of it.
    fn hash(&self, destination: &Destination, audience: &Audience, source: &str) -> String {
        let mut parts: Vec<(&str, Cow<'_, str>)> = vec![
            ("audience", audience.as_str().into()),
            ("source", source.into()),
            ("type", self.kind.as_ref().into()),
        ];
        match destination {
            Destination::Room(room) => parts.push(("room", room.as_str().into())),
            Destination::Users(users) => parts.push(("users", users.join("\n").into())),
        }
        let mut add = |name, value: Option<&str>| {
            if let Some(value) = value {
                parts.push((name, value.to_owned().into()));
            }
        };
        add("subject", self.subject.as_deref());
        add("datacontenttype", self.datacontenttype.as_deref());
        add("time", self.time.as_ref().map(|(given, _)| given.as_ref()));
        add(
            "expirytime",
            self.expires.as_ref().map(|(given, _)| given.as_ref()),
        );
        add("statekey", self.statekey.as_deref());
        add("priority", self.priority.map(Priority::as_str));
        add("delivery", self.delivery.map(Delivery::as_str));
        add("withdrawn", self.withdrawn.then_some("true"));
        add("data", self.data.map(RawValue::get));
        add("data_base64", self.data_base64.as_deref());
        parts.extend(
            self.extensions
                .iter()
                .map(|(name, raw)| (name.as_ref(), Cow::Borrowed(raw.get()))),
        );
        parts.sort_unstable();
        digest22(parts.iter().flat_map(|(name, value)| [*name, value.as_ref()]))
    }
}

pub(crate) fn bad(attribute: &str, rule: &str) -> Refusal {
    let shown: String = attribute.chars().take(64).collect();
    let pointer = format!("/{}", shown.replace('~', "~0").replace('/', "~1"));
    Refusal::new(Code::BadEvent, format!("{shown} {rule}")).at(pointer)
}

/// A string attribute: not empty, no control characters (CloudEvents type system), bounded.
fn text<'a>(name: &str, raw: &'a RawValue, bytes_max: usize) -> Result<Cow<'a, str>, Refusal> {
    let json::Text(text) = serde_json::from_str(raw.get()).map_err(|_| bad(name, "is a string"))?;
    if text.is_empty() {
        return Err(bad(name, "is empty"));
    }
    if text.len() > bytes_max {
        return Err(bad(name, &format!("has more than {bytes_max} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(bad(name, "holds a control character"));
    }
    Ok(text)
}

fn time<'a>(name: &str, raw: &'a RawValue) -> Result<(Cow<'a, str>, i64), Refusal> {
    let refusal = |rule: &str| Refusal::new(Code::BadTime, format!("{name} {rule}")).at(format!("/{name}"));
    let json::Text(given) = serde_json::from_str(raw.get()).map_err(|_| refusal("is a string"))?;
    let micros = micros_of_rfc3339(&given)
        .ok_or_else(|| refusal("is not RFC 3339, for example 2026-01-31T14:05:00Z"))?;
    Ok((given, micros))
}

/// Reads RFC 3339 and nothing wider. Unix microseconds, finer parts cut.
#[must_use]
pub fn micros_of_rfc3339(text: &str) -> Option<i64> {
    let b = text.as_bytes();
    let digits = |range: Range<usize>| {
        b.get(range)
            .is_some_and(|part| part.iter().all(u8::is_ascii_digit))
    };
    let fixed = b.len() >= 20
        && digits(0..4)
        && b[4] == b'-'
        && digits(5..7)
        && b[7] == b'-'
        && digits(8..10)
        && matches!(b[10], b'T' | b't' | b' ')
        && digits(11..13)
        && b[13] == b':'
        && digits(14..16)
        && b[16] == b':'
        && digits(17..19);
    if !fixed {
        return None;
    }
    let mut at = 19;
    if b[at] == b'.' {
        let fraction = b[at + 1..].iter().take_while(|c| c.is_ascii_digit()).count();
        if fraction == 0 || fraction > 9 {
            return None;
        }
        at += 1 + fraction;
    }
    let zone = match b.get(at..)? {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', _, _, b':', _, _] => {
            digits(at + 1..at + 3) && digits(at + 4..at + 6) && &b[at + 1..at + 3] < b"24".as_slice()
        }
        _ => false,
    };
    if !zone {
        return None;
    }
    text.parse::<Timestamp>()
        .ok()
        .map(|t| t.as_nanosecond().div_euclid(1000))
        .and_then(|m| i64::try_from(m).ok())
}

/// Writes Unix microseconds as RFC 3339 in UTC, with as many fraction digits as are needed.
#[must_use]
pub fn rfc3339(micros: i64) -> String {
    Timestamp::from_microsecond(micros).map_or_else(|_| "1970-01-01T00:00:00Z".to_owned(), |t| t.to_string())
}

/// `users`: comma-separated, percent-encoded subjects.
fn users(raw: &RawValue) -> Result<Vec<String>, Refusal> {
    let json::Text(text) = serde_json::from_str(raw.get())
        .map_err(|_| bad("users", "is a string of subjects joined by commas"))?;
    let mut users: Vec<String> = Vec::new();
    for part in text.split(',') {
        let user = percent_decode(part.trim().as_bytes())
            .ok_or_else(|| bad("users", "holds a broken percent-encoding"))?;
        if user.is_empty() || user.len() > ATTRIBUTE_BYTES_MAX {
            return Err(bad("users", "holds an empty or overlong subject"));
        }
        if !users.contains(&user) {
            users.push(user);
        }
        if users.len() > USERS_MAX {
            return Err(bad("users", "names more than 1000 subjects"));
        }
    }
    Ok(users)
}

/// Percent-encoding as in RFC 3986 §2.1; `None` where it is broken or what it stands for is not UTF-8.
pub(crate) fn percent_decode(bytes: &[u8]) -> Option<String> {
    let digit = |at: usize| {
        bytes
            .get(at)
            .and_then(|byte| char::from(*byte).to_digit(16))
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            out.push(digit(at + 1)? << 4 | digit(at + 2)?);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(out).ok()
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
