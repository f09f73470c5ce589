//! What a publisher sent, read member by member and checked for form.

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine as _;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Delivery, Priority, micros_of_rfc3339};
use crate::json;
use crate::limits::{
    ATTRIBUTE_BYTES_MAX, BATCH_EVENTS_MAX, EVENT_BYTES_MAX, EVENT_ID_BYTES_MAX, EXTENSIONS_MAX, USERS_MAX,
};
use crate::notification;
use crate::refusal::{Code, Refusal};

/// What a publisher sent, checked for form and not yet complete. Borrows from the request.
#[derive(Debug, Clone)]
pub struct Draft<'a> {
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) made_id: Option<String>,
    pub(super) source: Option<Cow<'a, str>>,
    pub(super) kind: Cow<'a, str>,
    pub(super) subject: Option<Cow<'a, str>>,
    pub(super) time: Option<(Cow<'a, str>, i64)>,
    pub(super) datacontenttype: Option<Cow<'a, str>>,
    pub(super) room: Option<Cow<'a, str>>,
    pub(super) users: Option<Vec<String>>,
    pub(super) audience: Option<Cow<'a, str>>,
    pub(super) priority: Option<Priority>,
    pub(super) delivery: Option<Delivery>,
    pub(super) statekey: Option<Cow<'a, str>>,
    pub(super) withdrawn: bool,
    pub(super) expires: Option<(Cow<'a, str>, i64)>,
    pub(super) extensions: Vec<(Cow<'a, str>, &'a RawValue)>,
    pub(super) data: Option<&'a RawValue>,
    pub(super) data_base64: Option<Cow<'a, str>>,
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

    pub(super) fn final_delivery(&self) -> Delivery {
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
    pub(super) fn dedup_key(&self) -> Result<Option<Cow<'a, str>>, Refusal> {
        let name = notification::DEDUP_ATTRIBUTE;
        let given = self.extensions.iter().find(|(known, _)| known == name);
        let max = ATTRIBUTE_BYTES_MAX - notification::KEY_PREFIX.len();
        given.map(|(_, raw)| text(name, raw, max)).transpose()
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
