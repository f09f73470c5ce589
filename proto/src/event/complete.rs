//! A draft made whole: what was left out is filled in, and what is said twice has to be the same.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::draft::bad;
use super::{Delivery, Destination, Draft, Event, Priority, digest22, rfc3339};
use crate::ids::{Audience, Room, Tenant, new_event_id};
use crate::notification;
use crate::refusal::{Code, Refusal};

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

impl<'a> Draft<'a> {
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
            None => [
                "roomcast://",
                from.tenant.as_str(),
                "/",
                &crate::ids::escape(from.publisher),
            ]
            .concat(),
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

    /// The key of a state event. A notification that names none has its own.
    fn final_statekey(&self, id: &str) -> Result<Option<String>, Refusal> {
        if !notification::is_notification(&self.kind) || self.statekey.is_some() {
            return Ok(self.statekey.as_deref().map(str::to_owned));
        }
        let dedup = self.dedup_key()?;
        let key = dedup.as_deref().unwrap_or(id);
        Ok(Some(format!("{}{key}", notification::KEY_PREFIX)))
    }

    /// Digest of what the publisher said: two requests with the same id and the same digest are a repeat, others a conflict.
    /// What ingest fills in differently each time (`time`) is not part of it.
    fn hash(&self, destination: &Destination, audience: &Audience, source: &str) -> String {
        let (room, users) = match destination {
            Destination::Room(room) => (Some(room.as_str()), None),
            Destination::Users(users) => (None, Some(users.join("\n"))),
        };
        let given = [
            ("audience", Some(audience.as_str())),
            ("source", Some(source)),
            ("type", Some(self.kind.as_ref())),
            ("room", room),
            ("users", users.as_deref()),
            ("subject", self.subject.as_deref()),
            ("datacontenttype", self.datacontenttype.as_deref()),
            ("time", self.time.as_ref().map(|(given, _)| given.as_ref())),
            (
                "expirytime",
                self.expires.as_ref().map(|(given, _)| given.as_ref()),
            ),
            ("statekey", self.statekey.as_deref()),
            ("priority", self.priority.map(Priority::as_str)),
            ("delivery", self.delivery.map(Delivery::as_str)),
            ("withdrawn", self.withdrawn.then_some("true")),
            ("data", self.data.map(RawValue::get)),
            ("data_base64", self.data_base64.as_deref()),
        ];
        let mut parts = Vec::with_capacity(given.len() + self.extensions.len());
        parts.extend(given.into_iter().filter_map(|(name, value)| Some((name, value?))));
        parts.extend(
            self.extensions
                .iter()
                .map(|(name, raw)| (name.as_ref(), raw.get())),
        );
        parts.sort_unstable();
        digest22(parts.into_iter().flat_map(|(name, value)| [name, value]))
    }
}
