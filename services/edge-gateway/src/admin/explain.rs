//! Who gets an event and why, who does not and why not.
//!
//! Asked of the same functions that decide at delivery, under the rights in force now; nothing is remembered of deliveries.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use roomcast_access::{AudienceId, Policy, Why};
use roomcast_admin::extract::Query;
use roomcast_admin::problem::guarded;
use roomcast_admin::{Operation, Problem, Routes};
use roomcast_proto::ids::{Audience, Room, Tenant};
use roomcast_proto::refusal::Code;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::connections::number;
use super::{AdminDesk, bad, nothing, page_schema, page_size};
use crate::delivery::{Delivery, Kind};
use crate::http::unix_millis;
use crate::place::{self, Place};
use crate::session::rfc3339;
use crate::shard::{Filter, Holder};

/// Why a connection gets an event, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Reason {
    /// It follows the room and belongs to the audience.
    Follows,
    /// The same, once what it missed has been sent.
    Recovers,
    /// It may, but has not opened the room.
    NotFollowing,
    /// The room is somebody else's own.
    NotOwn,
    /// It lacks the permission that the room asks for.
    Permission,
    /// Its claims name other rooms.
    Claims,
    /// No entry of the policy lets anybody follow the room.
    Nobody,
    /// It follows the room, but none of its roles belongs to the audience.
    Audience,
    /// The event's time is over.
    Expired,
    /// Something is to be taken out of the event, which cannot be read.
    Unreadable,
}

/// One connection.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Told {
    /// Its name, as `connected` told it to the client.
    connection: String,
    /// The token's subject.
    user: String,
    /// Its roles by the policy's names, those granted beside the token included.
    roles: Vec<String>,
    /// Whether it gets the event.
    gets: bool,
    /// Why, or why not.
    reason: Reason,
    /// The same in words.
    why: String,
    /// What is taken out for it: JSON pointers into the event's data.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    without: Vec<String>,
}

/// The event that was asked about.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Event {
    /// Its id.
    id: String,
    /// Its source.
    source: String,
    /// Its type.
    r#type: String,
    /// How it is delivered.
    delivery: &'static str,
    /// From when on it is not delivered any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

/// A page of connections, with what they are told about.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Page {
    /// The event, where one was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Event>,
    /// Its audience.
    audience: String,
    /// The roles that belong to the audience; empty for `all`, to which everybody belongs.
    roles: Vec<String>,
    /// The tenant's connections, by name.
    connections: Vec<Told>,
    /// Give this as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    room: String,
    event: Option<String>,
    audience: Option<String>,
    tenant: Option<String>,
    user: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

/// What connections are told about.
struct Subject {
    room: Room,
    audience: String,
    number: Option<AudienceId>,
    roles: Vec<String>,
    event: Option<Arc<Delivery>>,
}

pub(super) fn routes() -> Routes<AdminDesk> {
    let text = || json!({ "type": "string" });
    let explain = guarded(Operation::new(
        "gateway",
        "explain",
        "Says who gets an event and why, and who does not and why not.",
    ))
    .about(
        "For an event that this gateway holds in memory, or for any that would be published to a room for an audience. Of the connections \
         at this gateway, a page at a time, under the rights in force now.",
    )
    .query_required("room", "The room.", text())
    .query("event", "The event's id; without it, any event for the audience.", text())
    .query("audience", "The audience, `all` when left out; an event has its own.", text())
    .query("tenant", "Whose room; `main` when left out.", text())
    .query("user", "Only the connections of this user.", text())
    .query("after", "`next` of the page before.", text())
    .query("limit", "Entries of a page.", page_schema())
    .answers_json::<Page>(200, "A page.")
    .refuses([Code::NotFound, Code::UnknownAudience].map(Code::listed));
    Routes::new().get("/admin/v1/explain", explain, explained)
}

async fn explained(State(desk): State<AdminDesk>, Query(asked): Query<Asked>) -> Result<Json<Page>, Problem> {
    let limit = page_size(asked.limit)?;
    let after = asked.after.as_deref().map(number).transpose();
    let after = after.map_err(|_| bad("after is not a `next` of ours"))?;
    let tenant = asked.tenant.as_deref().map(Tenant::parse).transpose();
    let tenant = tenant
        .map_err(|_| bad("tenant is no tenant's name"))?
        .unwrap_or_default();
    let subject = subject(&desk, &asked, &tenant).await?;
    let filter = Filter {
        user: asked.user,
        tenant: Some(tenant),
        ..Filter::default()
    };
    // One more than the page: whether there is a next one.
    let found = desk
        .ask(|shard| shard.holders(filter.clone(), after, limit + 1))
        .await?;
    let mut all: Vec<Holder> = found.into_iter().flatten().collect();
    all.sort_unstable_by_key(|holder| holder.number);
    let more = all.len() > limit;
    all.truncate(limit);
    let next = all.last().filter(|_| more).map(Holder::name);
    let now_millis = jiff::Timestamp::now().as_millisecond();
    Ok(Json(Page {
        connections: all
            .iter()
            .map(|holder| subject.tell(holder, now_millis))
            .collect(),
        event: subject.event.as_deref().map(shown),
        audience: subject.audience,
        roles: subject.roles,
        next,
    }))
}

async fn subject(desk: &AdminDesk, asked: &Asked, tenant: &Tenant) -> Result<Subject, Problem> {
    let room = Room::parse(&asked.room).map_err(|_| bad("room is no room's name"))?;
    let event = match (&asked.event, &asked.audience) {
        (Some(_), Some(_)) => return Err(bad("an event has its own audience: say one of the two")),
        (Some(id), None) => Some(find(desk, tenant, &room, id).await.ok_or_else(|| {
            nothing("this gateway holds no event with this id in the room; ask for the room and an audience")
        })?),
        (None, _) => None,
    };
    let audience = match (&event, &asked.audience) {
        (Some(event), _) => event.audience_name.as_str().to_owned(),
        (None, Some(audience)) => audience.clone(),
        (None, None) => Audience::all().as_str().to_owned(),
    };
    let policy = &desk.gate.rights().now().policy;
    let number = match &event {
        Some(event) => event.audience,
        None => Some(known_audience(policy, &audience)?),
    };
    let roles = policy.roles_of_audience(&audience);
    Ok(Subject {
        roles: roles.into_iter().map(str::to_owned).collect(),
        room,
        audience,
        number,
        event,
    })
}

fn known_audience(policy: &Policy, name: &str) -> Result<AudienceId, Problem> {
    policy.audience(name).ok_or_else(|| {
        Problem::new(
            Code::UnknownAudience,
            "the audience is no role of the policy in force",
        )
    })
}

/// The members of an event that name it.
#[derive(Debug, Deserialize)]
struct Names {
    id: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    r#type: String,
}

/// Looks through what is held of a room, outside the lock of those who deliver.
async fn find(desk: &AdminDesk, tenant: &Tenant, room: &Room, id: &str) -> Option<Arc<Delivery>> {
    let place = Place {
        key: place::key(tenant.as_str(), room.as_str()).into(),
        tenant: tenant.clone(),
        room: room.clone(),
    };
    let held = desk.hub.held_async(&place, unix_millis).await;
    held.into_iter()
        .find(|event| serde_json::from_slice::<Names>(event.body()).is_ok_and(|names| names.id == id))
}

fn shown(event: &Delivery) -> Event {
    let names = serde_json::from_slice(event.body()).unwrap_or(Names {
        id: String::new(),
        source: String::new(),
        r#type: String::new(),
    });
    Event {
        id: names.id,
        source: names.source,
        r#type: names.r#type,
        delivery: match event.kind {
            Kind::Event => "event",
            Kind::State { .. } => "state",
            Kind::Ephemeral => "ephemeral",
        },
        expires_at: event.expires_millis.map(rfc3339),
    }
}

impl Subject {
    fn tell(&self, holder: &Holder, now_millis: i64) -> Told {
        let (reason, why) = self.reason(holder, now_millis);
        let gets = matches!(reason, Reason::Follows | Reason::Recovers);
        let view = holder.admitted.rights.subscribe(&self.room).ok().filter(|_| gets);
        let without = view
            .iter()
            .flat_map(|view| view.redaction())
            .map(ToString::to_string);
        Told {
            connection: holder.name(),
            user: holder.admitted.user.as_ref().to_owned(),
            roles: holder.admitted.roles.to_vec(),
            gets,
            reason,
            why,
            without: without.collect(),
        }
    }

    fn reason(&self, holder: &Holder, now_millis: i64) -> (Reason, String) {
        let (room, rights) = (self.room.as_str(), &holder.admitted.rights);
        let why = rights.why(&self.room);
        let open = match &why {
            Why::Own => format!("{room} is its own"),
            Why::Opened { entry, permission } => format!("{entry} asks for {permission}, which it has"),
            Why::NotOwn => return (Reason::NotOwn, format!("{room} is somebody else's own room")),
            Why::Permission { lacks } => {
                return (
                    Reason::Permission,
                    format!("{room} asks for {}, which it lacks", lacks.join(" or ")),
                );
            }
            Why::Claims { entries } => {
                let entries = entries.join(" and ");
                return (
                    Reason::Claims,
                    format!("{entries} opens other rooms for its claims"),
                );
            }
            Why::Nobody => {
                return (
                    Reason::Nobody,
                    format!("no entry of the policy lets anybody follow {room}"),
                );
            }
        };
        let Ok(permit) = rights.subscribe(&self.room) else {
            return (Reason::Nobody, "the room is not open".to_owned());
        };
        if !self
            .number
            .is_some_and(|number| permit.audiences().contains(number))
        {
            let mine = match holder.admitted.roles.join(", ") {
                none if none.is_empty() => "no role".to_owned(),
                roles => roles,
            };
            let words = format!("{} is {}; it has {mine}", self.audience, self.roles.join(", "));
            return (Reason::Audience, words);
        }
        let opened = holder.rooms.iter().find(|(opened, _)| *opened == self.room);
        let Some((_, recovers)) = opened else {
            return (
                Reason::NotFollowing,
                format!("it has not opened the room; {open}"),
            );
        };
        if let Some(event) = &self.event {
            if event.expired(now_millis) {
                return (Reason::Expired, "the event's time is over".to_owned());
            }
            if event.for_class(&permit).is_none() {
                return (
                    Reason::Unreadable,
                    "something is to be taken out, and the event cannot be read".to_owned(),
                );
            }
        }
        let through: Vec<&str> = holder
            .admitted
            .roles
            .iter()
            .map(String::as_str)
            .filter(|role| self.roles.iter().any(|belongs| belongs == role))
            .collect();
        let words = match through.is_empty() {
            true => open,
            false => format!("{open}; {} reaches {}", self.audience, through.join(", ")),
        };
        match recovers {
            false => (Reason::Follows, words),
            true => (Reason::Recovers, format!("{words}; what it missed is being sent")),
        }
    }
}

#[cfg(test)]
mod tests;
