//! The trigger: one call of a backend that means a room, a role, users, or several of them at once.
//!
//! A trigger is an event with three members of its own (`room`, `role`, `users`) that say where it goes. [`Trigger::parse`] makes of it the
//! events that ingest takes, together or not at all. Everything else passes through as it was written, `data` byte for byte.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::value::RawValue;

use crate::event::{Members, bad};
use crate::ids::{Room, new_event_id};
use crate::json;
use crate::limits::{ATTRIBUTE_BYTES_MAX, EVENT_BYTES_MAX, USERS_MAX};
use crate::refusal::{Code, Refusal};

/// The events of one trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    /// The one for the room, and the one for the users, as ingest takes events; one of them or both, with the same id.
    pub events: Vec<String>,
}

impl Trigger {
    /// Reads a trigger. `role_room`: where one goes that names a role and no room.
    ///
    /// # Errors
    /// A refusal with code, JSON pointer and reason. The events themselves are not checked yet.
    pub fn parse(bytes: &[u8], role_room: Option<&Room>) -> Result<Self, Refusal> {
        if bytes.len() > EVENT_BYTES_MAX {
            let detail = format!(
                "a trigger has at most {EVENT_BYTES_MAX} bytes, this one has {}",
                bytes.len()
            );
            return Err(Refusal::new(Code::TooLarge, detail));
        }
        let text = json::check(bytes)?;
        let Members(members) = serde_json::from_str(text)
            .map_err(|error| Refusal::new(Code::BadJson, format!("not a JSON object: {error}")))?;
        let mut read = Read::default();
        let mut seen: Vec<&str> = Vec::with_capacity(members.len());
        for (name, raw) in &members {
            if seen.contains(&name.as_ref()) {
                return Err(bad(name, "is given twice"));
            }
            seen.push(name);
            read.take(name, raw)?;
        }
        read.events(role_room)
    }

    /// As the batch that ingest takes.
    #[must_use]
    pub fn batch(&self) -> String {
        format!("[{}]", self.events.join(","))
    }
}

#[derive(Default)]
struct Read<'a> {
    room: Option<&'a RawValue>,
    role: Option<Cow<'a, str>>,
    users: Option<Vec<String>>,
    has_id: bool,
    /// All other members, as they were written.
    others: String,
}

impl<'a> Read<'a> {
    fn take(&mut self, name: &str, raw: &'a RawValue) -> Result<(), Refusal> {
        if raw.get() == "null" && name != "data" {
            return Ok(());
        }
        match name {
            "room" => self.room = Some(raw),
            "role" => self.role = Some(role(raw)?),
            "users" => self.users = Some(users(raw)?),
            "audience" => return Err(bad(name, "of a trigger is its role")),
            _ => {
                self.has_id |= name == "id";
                self.member(name, raw.get());
            }
        }
        Ok(())
    }

    fn member(&mut self, name: &str, value: &str) {
        let name = serde_json::Value::from(name);
        let _ = write!(self.others, "{name}:{value},");
    }

    fn events(mut self, role_room: Option<&Room>) -> Result<Trigger, Refusal> {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let room = match (self.room, &self.role, role_room) {
            (Some(room), ..) => Some(room.get().to_owned()),
            (None, Some(_), Some(room)) => Some(quoted(room.as_str())),
            (None, Some(_), None) => {
                let detail = "the policy names no room for triggers, so one with a role names its room";
                return Err(Refusal::new(Code::BadRoom, detail).at("/room"));
            }
            (None, None, _) if self.users.is_some() => None,
            (None, None, _) => {
                let detail = "a room, a role or users are required";
                return Err(Refusal::new(Code::BadRoom, detail).at("/room"));
            }
        };
        // One trigger is one event, wherever it goes.
        if !self.has_id && room.is_some() && self.users.is_some() {
            self.member("id", &quoted(&new_event_id()));
        }
        let mut events = Vec::with_capacity(2);
        if let Some(room) = room {
            let audience = self
                .role
                .as_deref()
                .map(|role| format!(",\"audience\":{}", quoted(role)));
            events.push(format!(
                "{{{}\"room\":{room}{}}}",
                self.others,
                audience.unwrap_or_default()
            ));
        }
        if let Some(users) = &self.users {
            events.push(format!(
                "{{{}\"users\":{}}}",
                self.others,
                quoted(&users.join(","))
            ));
        }
        Ok(Trigger { events })
    }
}

fn role(raw: &RawValue) -> Result<Cow<'_, str>, Refusal> {
    serde_json::from_str::<json::Text<'_>>(raw.get())
        .map(|text| text.0)
        .map_err(|_| bad("role", "is a string"))
}

/// The subjects, as an event's `users` has them: percent-encoded where a comma or a percent sign would be misread.
fn users(raw: &RawValue) -> Result<Vec<String>, Refusal> {
    let listed: Vec<json::Text<'_>> =
        serde_json::from_str(raw.get()).map_err(|_| bad("users", "is a list of subjects"))?;
    if listed.is_empty() || listed.len() > USERS_MAX {
        return Err(bad("users", &format!("names 1 to {USERS_MAX} subjects")));
    }
    let encoded = listed.into_iter().map(|json::Text(user)| {
        if user.is_empty() || user.len() > ATTRIBUTE_BYTES_MAX || user.trim() != user {
            return Err(bad(
                "users",
                "holds an empty or overlong subject, or one with blanks around it",
            ));
        }
        Ok(user.replace('%', "%25").replace(',', "%2C"))
    });
    encoded.collect()
}
