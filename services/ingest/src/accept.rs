//! The decision about one event: may this sender publish it there, and as what is it stored. Pure: no I/O, no clock.
//!
//! Called by [`crate::intake`] for every draft of either door. What it gives out ([`Accepted`]) is all that [`crate::store`]
//! ever sends: headers are made here from nothing, so whatever a publisher put into its own never reaches a stream.

use std::sync::Arc;

use async_nats::{HeaderMap, HeaderName};
use bytes::Bytes;
use roomcast_access::{Denied, Policy, Principal, Publish, Rights};
use roomcast_chassis::jetstream::Outgoing;
use roomcast_chassis::trace::Trail;
use roomcast_proto::ascii_json;
use roomcast_proto::event::{ACTIVITY_TYPE, Completion, Delivery, Destination, Draft, Event};
use roomcast_proto::ids::{Audience, Room, Tenant, time_of_id};
use roomcast_proto::limits::{DEDUP_SAFETY, DEDUP_WINDOW, WITHDRAWN_TTL};
use roomcast_proto::notification::is_notification;
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_proto::subject::{self, header};
use roomcast_schemas::{Breach, Catalog, Data, Mode};

use crate::queues::place::Place;
use crate::statistics;

/// On whose authority a sender publishes.
#[derive(Debug, Clone)]
pub enum May {
    /// A service: a token over HTTP, or a listed NATS user.
    Service(Rights),
    /// A user, through a gateway: what the policy calls `client_publish`.
    User(Rights),
    /// The aggregator's account: notifications, to any room and audience the policy knows.
    Aggregator,
    /// An administrator: anything, to any room and audience the policy knows.
    Administrator,
    /// What an operator's mapping file makes of a database's changes: as an administrator.
    Capture,
    /// Nothing at all: a NATS user whom the policy does not list, or of whom nobody says who it is. What it sends is refused and kept in
    /// its name, within its share.
    Nothing,
}

/// Who publishes.
#[derive(Debug, Clone)]
pub struct Sender {
    /// Whose event it is.
    pub tenant: Tenant,
    /// A token's subject, or `nats/<user>`: part of the de-duplication key and of the default `source`.
    pub publisher: Arc<str>,
    /// On whose authority.
    pub may: May,
}

impl Sender {
    /// The holder of a verified token.
    #[must_use]
    pub fn of_token(principal: &Principal, rights: Rights) -> Self {
        Self {
            tenant: principal.tenant.clone(),
            publisher: Arc::clone(&principal.subject),
            may: May::Service(rights),
        }
    }

    /// A user for whom a gateway publishes.
    #[must_use]
    pub fn of_user(principal: &Principal, rights: Rights) -> Self {
        Self {
            tenant: principal.tenant.clone(),
            publisher: Arc::clone(&principal.subject),
            may: May::User(rights),
        }
    }

    /// A NATS user; `None` when the policy does not list it.
    #[must_use]
    pub fn of_nats_user(tenant: &Tenant, user: &str, policy: &Policy) -> Option<Self> {
        let may = May::Service(policy.publisher(tenant, user)?);
        Some(Self {
            tenant: tenant.clone(),
            publisher: format!("nats/{user}").into(),
            may,
        })
    }

    /// The aggregator.
    #[must_use]
    pub fn aggregator(tenant: &Tenant) -> Self {
        Self {
            tenant: tenant.clone(),
            publisher: "aggregator".into(),
            may: May::Aggregator,
        }
    }

    /// An administrator, by the subject of the admin token.
    #[must_use]
    pub fn administrator(tenant: &Tenant, subject: &str) -> Self {
        Self {
            tenant: tenant.clone(),
            publisher: format!("admin/{subject}").into(),
            may: May::Administrator,
        }
    }

    /// A database, by its name in the mapping file.
    #[must_use]
    pub fn capture(tenant: &Tenant, source: &str) -> Self {
        Self {
            tenant: tenant.clone(),
            publisher: source.into(),
            may: May::Capture,
        }
    }

    /// Somebody on NATS who may not publish.
    #[must_use]
    pub fn stranger(tenant: Tenant, publisher: &str) -> Self {
        Self {
            tenant,
            publisher: publisher.into(),
            may: May::Nothing,
        }
    }

    /// Whether they may ask who is connected.
    #[must_use]
    pub fn may_see_statistics(&self) -> bool {
        matches!(&self.may, May::Service(rights) if rights.permits(statistics::PERMISSION))
    }

    /// Whether ids that are too old to be de-duplicated may be published (`Roomcast-Backfill: 1`).
    #[must_use]
    pub fn may_backfill(&self) -> bool {
        match &self.may {
            May::Service(rights) => rights.permits(BACKFILL_PERMISSION),
            // Replayed letters are older than their ids may be.
            May::Administrator | May::Capture => true,
            May::User(_) | May::Aggregator | May::Nothing => false,
        }
    }

    /// Whether this sender may publish an event of this type there.
    fn permit(&self, kind: &str, room: &Room, audience: &Audience, policy: &Policy) -> Result<(), Refusal> {
        let publish: &dyn Fn(&Audience) -> Result<Publish, Denied> = match &self.may {
            May::Service(rights) => &|audience| rights.publish(room, audience),
            May::User(_) if kind == ACTIVITY_TYPE => return activity_permit(room, audience, policy),
            May::User(rights) => &|audience| rights.client_publish(room, audience),
            May::Aggregator => return aggregator_permit(kind, room, audience, policy),
            May::Administrator | May::Capture => return administrator_permit(room, audience, policy),
            May::Nothing => return Err(Refusal::forbidden()),
        };
        if publish(audience).is_ok() {
            return Ok(());
        }
        // Who may publish to the room may know its audiences; who may not learns nothing about either.
        if publish(&Audience::all()).is_ok() {
            return Err(unknown_audience(audience));
        }
        let everything = matches!(&self.may, May::Service(rights) if rights.hold_everything());
        if everything && !policy.knows_room(room) {
            return Err(unknown_room(room));
        }
        Err(Refusal::forbidden())
    }
}

/// Longest life that the server is asked to end by itself, seconds: ten years. It counts in nanoseconds, up to the year 2262, and what is to
/// end after that it deletes at once.
pub const TTL_SECS_MAX: u64 = 10 * 365 * 24 * 3_600;
/// The permission behind `Roomcast-Backfill: 1`.
pub const BACKFILL_PERMISSION: &str = "events.backfill";

fn aggregator_permit(kind: &str, room: &Room, audience: &Audience, policy: &Policy) -> Result<(), Refusal> {
    if !is_notification(kind) || !policy.knows_room(room) {
        return Err(Refusal::forbidden());
    }
    known_audience(audience, policy)
}

/// Administrators hold everything; so they are told when a room is not there.
fn administrator_permit(room: &Room, audience: &Audience, policy: &Policy) -> Result<(), Refusal> {
    if !policy.knows_room(room) {
        return Err(unknown_room(room));
    }
    known_audience(audience, policy)
}

fn known_audience(audience: &Audience, policy: &Policy) -> Result<(), Refusal> {
    policy
        .audience(audience.as_str())
        .map(drop)
        .ok_or_else(|| unknown_audience(audience))
}

fn unknown_room(room: &Room) -> Refusal {
    let detail = format!("no entry of the policy makes the room {room}");
    Refusal::new(Code::UnknownRoom, detail).at("/room")
}

/// What users do goes where the policy wants it, and is made by gateways: everybody may, nowhere else.
fn activity_permit(room: &Room, audience: &Audience, policy: &Policy) -> Result<(), Refusal> {
    let wanted = policy
        .activity()
        .is_some_and(|to| to.room == *room && to.audience == *audience);
    wanted.then_some(()).ok_or_else(Refusal::forbidden)
}

fn unknown_audience(audience: &Audience) -> Refusal {
    let detail = format!("the audience {audience} is not a role of the policy");
    Refusal::new(Code::UnknownAudience, detail).at("/audience")
}

/// What is known about an event besides its own text.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// Who publishes.
    pub sender: &'a Sender,
    /// The room of the subject it came by.
    pub room: Option<&'a Room>,
    /// The audience of the subject it came by.
    pub audience: Option<&'a Audience>,
    /// Whether this is a back-fill that the sender may do: then no id is too old.
    pub backfill: bool,
    /// Now, Unix microseconds; of what waited in a queue, when it was queued.
    pub now_micros: i64,
    /// For what waited in a queue.
    pub queued: Option<Queued<'a>>,
}

/// What is known about an event that waited in a queue.
#[derive(Debug, Clone, Copy)]
pub struct Queued<'a> {
    /// Where it stood.
    pub place: &'a Place,
    /// Now, Unix microseconds.
    pub drained_micros: i64,
}

/// An event that will be stored or sent.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The event's id, given or made.
    pub id: String,
    /// Its type.
    pub kind: String,
    /// Whose it is.
    pub tenant: Tenant,
    /// One placement, or one for each of `users`.
    pub placements: Vec<Placement>,
    /// How its data breaks its schema, where that only warns.
    pub breach: Option<Breach>,
}

impl Accepted {
    /// The trail that it came with; `None`: it is on that of its request.
    pub fn trail(&self) -> Option<&Trail> {
        self.placements.first()?.trail.as_deref()
    }

    /// It is on this trail from now on.
    pub fn follows(&mut self, trail: &Trail) {
        for placement in &mut self.placements {
            placement.trail = Some(Box::new(trail.clone()));
        }
    }
}

/// One message to be published.
#[derive(Debug, Clone)]
pub struct Placement {
    /// Where it is kept.
    pub class: Delivery,
    /// Its subject.
    pub subject: String,
    /// `Nats-Msg-Id`.
    pub msg_id: String,
    /// `Rc-Hash`.
    pub hash: String,
    /// All state values of the same room; state only.
    pub room_filter: Option<String>,
    /// The event as JSON.
    pub payload: Bytes,
    /// Where its trace goes on, if its event came with one.
    pub trail: Option<Box<Trail>>,
    publisher: Arc<str>,
    key: Option<String>,
    withdrawn: bool,
    expires_millis: Option<i64>,
    ttl_secs: Option<u64>,
    queued: Option<String>,
}

impl Placement {
    /// The message: subject, payload and headers made from nothing.
    #[must_use]
    pub fn outgoing(&self) -> Outgoing {
        let mut headers = HeaderMap::new();
        // Names that are not looked at again, values that are not copied again: every event has them.
        let mut put =
            |name: &'static str, value: String| headers.insert(HeaderName::from_static(name), value);
        put(header::PUBLISHER, ascii_json(&self.publisher));
        if self.class != Delivery::Ephemeral {
            put(header::MSG_ID, self.msg_id.clone());
            put(header::HASH, self.hash.clone());
        }
        if let Some(key) = &self.key {
            put(header::KEY, ascii_json(key));
        }
        if self.withdrawn {
            put(header::WITHDRAWN, "1".to_owned());
        }
        if let Some(millis) = self.expires_millis {
            put(header::EXPIRES, millis.to_string());
        }
        if let Some(secs) = self.ttl_secs {
            put(header::TTL, secs.to_string());
        }
        if let Some(place) = &self.queued {
            put(header::QUEUED, place.clone());
        }
        Outgoing {
            subject: self.subject.clone(),
            headers,
            payload: self.payload.clone(),
        }
    }
}

/// Decides about one draft.
///
/// # Errors
/// The refusal, with the event's id where it was given: `bad_room`, `unknown_audience`, `event_expired`, `forbidden`,
/// `unknown_room`, `late`, `schema`, or what makes the draft incomplete.
pub fn decide(
    draft: Draft<'_>,
    arrival: &Arrival<'_>,
    policy: &Policy,
    schemas: &Catalog,
) -> Result<Accepted, Refusal> {
    let sender = arrival.sender;
    let event = draft.complete(&Completion {
        tenant: &sender.tenant,
        publisher: &sender.publisher,
        room: arrival.room,
        audience: arrival.audience,
        now_micros: arrival.now_micros,
    })?;
    let copies = match &event.destination {
        Destination::Room(room) => {
            sender.permit(&event.kind, room, &event.audience, policy)?;
            None
        }
        Destination::Users(users) => {
            for user in users {
                sender.permit(&event.kind, &Room::personal(user), &event.audience, policy)?;
            }
            Some(users.iter().map(|user| event.for_user(user)).collect::<Vec<_>>())
        }
    };
    if event.id_was_given() && event.delivery != Delivery::Ephemeral && !arrival.backfill {
        check_age(&event.id, arrival.now_micros)?;
    }
    if arrival.queued.is_some() && event.delivery == Delivery::Ephemeral {
        let detail = "an event that is not stored does not wait in a queue; send it as a request on in.…";
        return Err(Refusal::new(Code::BadEvent, detail).at("/delivery"));
    }
    // After the rights: what a type's data looks like is told to those who may publish it.
    let breach = check_data(&event, schemas)?;
    let place = |event: &Event| placement(event, sender, arrival);
    let placements = copies.map_or_else(
        || place(&event).into_iter().collect(),
        |copies| copies.iter().filter_map(place).collect(),
    );
    Ok(Accepted {
        tenant: sender.tenant.clone(),
        id: event.id,
        kind: event.kind,
        placements,
        breach,
    })
}

/// Checks the data against the schemas of the event's type; a withdrawn value has none.
fn check_data(event: &Event, schemas: &Catalog) -> Result<Option<Breach>, Refusal> {
    if schemas.is_empty() || event.withdrawn {
        return Ok(None);
    }
    let data = match event.holds_bytes() {
        true => Data::Bytes,
        false => Data::Json(event.data().unwrap_or("null")),
    };
    let dataschema = event.dataschema();
    match schemas.check(&event.kind, dataschema.as_deref(), data) {
        Ok(()) => Ok(None),
        Err(breach) if breach.mode == Mode::Warn => Ok(Some(breach)),
        Err(breach) => Err(Refusal::new(Code::Schema, breach.detail).at(breach.pointer)),
    }
}

/// An id that tells its own age must be young enough for a repeat of it to be found.
fn check_age(id: &str, now_micros: i64) -> Result<(), Refusal> {
    let Some(made_millis) = time_of_id(id) else {
        return Ok(());
    };
    let oldest = DEDUP_WINDOW.saturating_sub(DEDUP_SAFETY);
    let age_millis = now_micros.div_euclid(1000).saturating_sub(made_millis);
    if i128::from(age_millis) <= i128::try_from(oldest.as_millis()).unwrap_or(i128::MAX) {
        return Ok(());
    }
    let detail = format!(
        "the id was made {} s ago; a repeat is found within {} s only, so it would be stored twice",
        age_millis / 1000,
        oldest.as_secs()
    );
    Err(Refusal::new(Code::Late, detail).at("/id"))
}

/// `None` only for `users`, which have been turned into copies before.
fn placement(event: &Event, sender: &Sender, arrival: &Arrival<'_>) -> Option<Placement> {
    let now_micros = arrival
        .queued
        .map_or(arrival.now_micros, |queued| queued.drained_micros);
    let room = event.room()?;
    let tenant = &sender.tenant;
    let key = event.statekey.as_deref();
    let subject = match (event.delivery, key) {
        (Delivery::State, key) => subject::state(tenant, room, &event.audience, key.unwrap_or_default()),
        (Delivery::Event, _) => subject::event(tenant, room, &event.audience),
        (Delivery::Ephemeral, _) => subject::ephemeral(tenant, room, &event.audience),
    };
    let state = event.delivery == Delivery::State;
    Some(Placement {
        class: event.delivery,
        subject,
        msg_id: event.msg_id(tenant, &sender.publisher),
        hash: event.content_hash().to_owned(),
        room_filter: state.then(|| subject::room_state_filter(tenant, room)),
        payload: event.to_json(),
        trail: None,
        publisher: Arc::clone(&sender.publisher),
        key: event.statekey.clone(),
        withdrawn: event.withdrawn,
        expires_millis: event.expires_micros.map(|micros| micros.div_euclid(1000)),
        ttl_secs: if state {
            state_ttl_secs(event, now_micros)
        } else {
            None
        },
        queued: arrival
            .queued
            .filter(|_| state)
            .map(|queued| queued.place.to_string()),
    })
}

/// A withdrawn value is kept as long as a cursor may be old; another ends with its `expirytime`, rounded up so that the
/// stream never drops it before readers do, who go by `Rc-Expires`. To them alone it is left beyond [`TTL_SECS_MAX`].
fn state_ttl_secs(event: &Event, now_micros: i64) -> Option<u64> {
    if event.withdrawn {
        return Some(WITHDRAWN_TTL.as_secs());
    }
    let left_micros = event.expires_micros?.saturating_sub(now_micros);
    let secs = u64::try_from(left_micros).map_or(1, |left| left.div_ceil(1_000_000).max(1));
    (secs <= TTL_SECS_MAX).then_some(secs)
}

#[cfg(test)]
mod tests;
