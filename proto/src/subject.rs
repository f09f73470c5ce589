//! The one place where a NATS subject is spelled, built and parsed.
//!
//! Builders take checked names ([`Room`], [`Audience`], [`Tenant`]) and escape free text, so a wildcard or a stray dot can never
//! come from outside. Parsers borrow from the subject and allocate nothing: gateways call them once per event.

mod control;
mod queue;
mod server;
mod service;
mod sink;

use std::fmt::Write as _;

pub use control::{
    ACL_LIVE_ALL, CFG_LIVE_ALL, CONTROL_ALL, KICK, POLICY, STATISTICS, STATISTICS_ANSWERS_ALL, acl_entry,
    acl_key, statistics_answer,
};
pub use queue::{QUEUED_ALL, QUEUES_LEASE, parse_queued, queue_of, queue_stream, queued};
pub use server::{TENANT_PROBES, server_question};
pub use service::{
    PRESENCE_ALL, READ_STATE_LIVE_ALL, READ_STATES_ALL, SERIES_ALL, Service, ServiceRequest, command,
    command_key, command_tokens, is_passed, parse_service, passed, presence, read_state_key,
    read_state_live_key, replay_key, series, series_heard, service, ticket_key,
};
pub use sink::{
    DEVICES_ALL, SINKS_LEASE, SINKS_POSITION, SinkJob, SinkTarget, UNDELIVERED, devices_key,
    parse_devices_key, undelivered,
};

use crate::ids::{Audience, Room, Tenant, escape, partition};

/// Events as ingest stores them (captured by stream `EVENTS`).
pub const EVENTS_ALL: &str = "evt.>";
/// Events as the server republishes them to gateways.
pub const LIVE_ALL: &str = "live.>";
/// State values as they are stored (captured by stream `STATE`).
pub const STATE_ALL: &str = "st.>";
/// State values as the server republishes them to gateways.
pub const STATE_LIVE_ALL: &str = "slive.>";
/// Ephemeral events: never stored.
pub const EPHEMERAL_ALL: &str = "eph.>";
/// Dead letters (captured by stream `DLQ`).
pub const DEAD_LETTERS_ALL: &str = "dlq.>";
/// Audit entries (captured by stream `AUDIT`).
pub const AUDIT_ALL: &str = "audit.>";
/// Asks every server, inside `CORE`, how its JetStream is configured; each answers for itself.
pub const SERVERS_JETSTREAM: &str = "servers.jetstream";
/// Asks every server, inside `CORE`, whether anything is wrong with it; each answers for itself.
pub const SERVERS_HEALTH: &str = "servers.health";
/// Captured by `EVENTS`, and nothing is ever stored there: publishes on it ask for another stream, so that only a leader that works
/// refuses them.
pub const EVENTS_PROBE: &str = "evt.probe";
/// The same of `STATE`.
pub const STATE_PROBE: &str = "st.probe";
/// What ingest listens on, in account CORE: the server puts the publisher's account in as second token.
pub const INBOUND_ALL: &str = "in.*.>";
/// The queue group of the ingest instances.
pub const INGEST_QUEUE: &str = "ingest";

/// Names of streams and of the streams behind the key-value buckets.
pub mod stream {
    /// Business events, in order, 72 h.
    pub const EVENTS: &str = "EVENTS";
    /// The latest value of every key.
    pub const STATE: &str = "STATE";
    /// What was refused, with its reason.
    pub const DLQ: &str = "DLQ";
    /// Who did what, 400 d.
    pub const AUDIT: &str = "AUDIT";
    /// Aggregator state and leases.
    pub const AGG: &str = "KV_agg";
    /// Roles, grants, revocations.
    pub const ACL: &str = "KV_acl";
    /// Policy and definitions.
    pub const CFG: &str = "KV_cfg";
    /// Marks and preferences of users.
    pub const READSTATE: &str = "KV_readstate";
    /// Claimed command keys and results.
    pub const COMMANDS: &str = "KV_commands";
    /// Tickets that stand for a token once.
    pub const TICKETS: &str = "KV_tickets";
    /// How far each database's changes are stored.
    pub const CAPTURE: &str = "KV_capture";
    /// Devices that users have registered for pushes.
    pub const DEVICES: &str = "KV_devices";
    /// What waits to be sent to devices and webhooks.
    pub const SINKS: &str = "KV_sinks";
}

/// Names of our own message headers. Everything else that begins with `Rc-` or `Nats-` is dropped at ingest.
pub mod header {
    /// Server-side de-duplication key.
    pub const MSG_ID: &str = "Nats-Msg-Id";
    /// Stream sequence, put in by the server on republished and directly read messages.
    pub const SEQUENCE: &str = "Nats-Sequence";
    /// The subject a message is stored under, put in by the server on republished and directly read messages.
    pub const SUBJECT: &str = "Nats-Subject";
    /// Storage time, RFC 3339, put in by the server.
    pub const TIME_STAMP: &str = "Nats-Time-Stamp";
    /// Who sent a request across accounts, put in by the server (a forged one is overwritten).
    pub const REQUEST_INFO: &str = "Nats-Request-Info";
    /// Message lifetime, seconds or a duration such as `168h`.
    pub const TTL: &str = "Nats-TTL";
    /// On a key's last message: `DEL`, the key is gone.
    pub const KV_OPERATION: &str = "KV-Operation";
    /// Compare-and-set on the subject's last sequence.
    pub const EXPECTED_LAST_SUBJECT_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
    /// Digest of the event as its publisher gave it; tells a repeat from a conflict.
    pub const HASH: &str = "Rc-Hash";
    /// Unix milliseconds after which the event is no longer delivered.
    pub const EXPIRES: &str = "Rc-Expires";
    /// The true (unescaped) state key, JSON string.
    pub const KEY: &str = "Rc-Key";
    /// `1` when the value is withdrawn.
    pub const WITHDRAWN: &str = "Rc-Withdrawn";
    /// Who published: a NATS user or a token's subject, JSON string.
    pub const PUBLISHER: &str = "Rc-Publisher";
    /// The end user a gateway publishes for, JSON string. Believed only from account GW.
    pub const USER: &str = "Rc-User";
    /// Where a message stood in the queue it came from: `<life>.<position>.<index>`. On state values and dead letters.
    pub const QUEUED: &str = "Rc-Queued";
    /// On dead letters: the closed reason again, beside the subject.
    pub const REASON: &str = "Rc-Reason";
    /// On dead letters: what was wrong, in words, JSON string.
    pub const DETAIL: &str = "Rc-Detail";
    /// On dead letters: the subject or HTTP path the bytes came by, JSON string.
    pub const ORIGIN: &str = "Rc-Origin";
}

fn with_partition(kind: &str, tenant: &Tenant, room: &Room, audience: &Audience) -> String {
    // Not by `format!`: it costs five times as much, and every event has such a subject.
    let partition = partition(tenant, room);
    let digit = |digit: u32| char::from_digit(digit, 10).unwrap_or('0');
    let (tenant, room, audience) = (tenant.as_str(), room.as_str(), audience.as_str());
    let mut subject = String::with_capacity(kind.len() + tenant.len() + room.len() + audience.len() + 6);
    subject.push_str(kind);
    subject.push('.');
    subject.push(digit(partition / 10));
    subject.push(digit(partition % 10));
    for token in [tenant, room, audience] {
        subject.push('.');
        subject.push_str(token);
    }
    subject
}

/// `evt.<pp>.<tenant>.<room…>.<audience>`: where ingest stores an event.
#[must_use]
pub fn event(tenant: &Tenant, room: &Room, audience: &Audience) -> String {
    with_partition("evt", tenant, room, audience)
}

/// `eph.<pp>.<tenant>.<room…>.<audience>`: an event that is not stored.
#[must_use]
pub fn ephemeral(tenant: &Tenant, room: &Room, audience: &Audience) -> String {
    with_partition("eph", tenant, room, audience)
}

/// `st.<pp>.<tenant>.<room…>.<audience>.<key>`: one state value. `key` is free text and is escaped here.
#[must_use]
pub fn state(tenant: &Tenant, room: &Room, audience: &Audience, key: &str) -> String {
    let mut subject = with_partition("st", tenant, room, audience);
    let _ = write!(subject, ".{}", escape(key));
    subject
}

/// The filter of all state values of one room, every audience and key.
#[must_use]
pub fn room_state_filter(tenant: &Tenant, room: &Room) -> String {
    format!("st.{:02}.{tenant}.{room}.*.*", partition(tenant, room))
}

/// The filter of all stored events of one room, every audience.
#[must_use]
pub fn room_events_filter(tenant: &Tenant, room: &Room) -> String {
    format!("evt.{:02}.{tenant}.{room}.*", partition(tenant, room))
}

/// The filter of stored events for a room pattern in which each `*` stands for one token (`property.*`).
///
/// Returns `None` when a token is neither plain nor `*`: a pattern is written by operators, yet never trusted.
#[must_use]
pub fn pattern_events_filter(tenant: &Tenant, pattern: &str) -> Option<String> {
    if let Ok(room) = Room::parse(pattern) {
        return Some(room_events_filter(tenant, &room));
    }
    let concrete: Vec<&str> = pattern
        .split('.')
        .map(|t| if t == "*" { "x" } else { t })
        .collect();
    Room::parse(&concrete.join(".")).ok()?;
    Some(format!("evt.*.{tenant}.{pattern}.*"))
}

/// `dlq.<tenant>.<reason>`. `reason` is a refusal code and so one token.
#[must_use]
pub fn dead_letter(tenant: &Tenant, reason: crate::refusal::Code) -> String {
    format!("dlq.{tenant}.{}", reason.as_str())
}

/// All dead letters, or those of a tenant, a reason or both. A reason that is no token means all.
#[must_use]
pub fn dead_letters(tenant: Option<&Tenant>, reason: Option<&str>) -> String {
    let token = |reason: &&str| {
        !reason.is_empty()
            && reason
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    match (tenant, reason.filter(token)) {
        (None, None) => DEAD_LETTERS_ALL.to_owned(),
        (Some(tenant), None) => format!("dlq.{tenant}.*"),
        (None, Some(reason)) => format!("dlq.*.{reason}"),
        (Some(tenant), Some(reason)) => format!("dlq.{tenant}.{reason}"),
    }
}

/// Whose dead letter it is and why; `None`: it is none.
#[must_use]
pub fn parse_dead_letter(subject: &str) -> Option<(Tenant, &str)> {
    let (tenant, reason) = subject.strip_prefix("dlq.")?.split_once('.')?;
    Some((Tenant::parse(tenant).ok()?, reason))
}

/// `in.<tenant>.<room…>.<audience>`: what gateways and aggregators publish; it arrives at ingest with their account put in.
#[must_use]
pub fn inbound_for_tenant(tenant: &Tenant, room: &Room, audience: &Audience) -> String {
    format!("in.{tenant}.{room}.{audience}")
}

/// `in.<room…>.<audience>`: what a publisher in a tenant's account publishes; the server puts the tenant in.
#[must_use]
pub fn inbound(room: &Room, audience: &Audience) -> String {
    format!("in.{room}.{audience}")
}

/// Which account a request came from. The server wrote it; nobody can forge it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A tenant's own account: a publisher.
    Tenant,
    /// The gateways' account: a user's own publish.
    Gateway,
    /// The aggregators' account: alerts.
    Aggregator,
}

/// What an `in.` subject says, in the form in which it reaches ingest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    /// The account.
    pub origin: Origin,
    /// Whose event this is.
    pub tenant: Tenant,
    /// Where it goes.
    pub room: Room,
    /// Who of the room's members gets it.
    pub audience: Audience,
}

/// Why an `in.` subject cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadInbound {
    /// Not an `in.` subject with a tenant, a room and an audience.
    #[error("an event is published on in.<room>.<audience>")]
    Shape,
    /// The tenant's name is not one.
    #[error("{0}")]
    Tenant(crate::ids::BadName),
    /// The room's name is not one. The tenant is known, so a dead letter can be kept.
    #[error("{1}")]
    Room(Tenant, crate::ids::BadName),
    /// The audience's name is not one.
    #[error("{1}")]
    Audience(Tenant, crate::ids::BadName),
}

/// Reads the subject on which a request reached ingest.
///
/// # Errors
/// [`BadInbound`], with the tenant where it is known, so that the refused bytes can be kept for it.
pub fn parse_inbound(subject: &str) -> Result<Inbound, BadInbound> {
    let rest = subject.strip_prefix("in.").ok_or(BadInbound::Shape)?;
    let (account, rest) = rest.split_once('.').ok_or(BadInbound::Shape)?;
    let (origin, tenant, rest) = match account {
        "GW" | "AGG" => {
            let (tenant, rest) = rest.split_once('.').ok_or(BadInbound::Shape)?;
            let origin = if account == "GW" {
                Origin::Gateway
            } else {
                Origin::Aggregator
            };
            (origin, tenant, rest)
        }
        tenant => (Origin::Tenant, tenant, rest),
    };
    let tenant = Tenant::parse(tenant).map_err(BadInbound::Tenant)?;
    let (room, audience) = rest.rsplit_once('.').ok_or(BadInbound::Shape)?;
    let room = Room::parse(room).map_err(|bad| BadInbound::Room(tenant.clone(), bad))?;
    let audience = Audience::parse(audience).map_err(|bad| BadInbound::Audience(tenant.clone(), bad))?;
    Ok(Inbound {
        origin,
        tenant,
        room,
        audience,
    })
}

/// The parts of a stored, republished or ephemeral subject, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// The room, with its dots.
    pub room: &'a str,
    /// The audience.
    pub audience: &'a str,
    /// The escaped key; state only.
    pub key: Option<&'a str>,
}

/// Whether the server republishes messages stored under `stored` as `live`: `live.<rest>` for `evt.<rest>`, `slive.<rest>` for
/// `st.<rest>`. A gateway that was broken into can have the server answer it on any subject its siblings hear; the answer's own
/// subject tells.
#[must_use]
pub fn is_republished(live: &str, stored: &str) -> bool {
    let same = |as_live, as_stored| match (live.strip_prefix(as_live), stored.strip_prefix(as_stored)) {
        (Some(live), Some(stored)) => live == stored,
        _ => false,
    };
    same("live.", "evt.") || same("slive.", "st.")
}

/// Reads `evt. live. eph. st. slive.` subjects. `None` for anything else: such a message is not ours.
#[must_use]
pub fn parse_placed(subject: &str) -> Option<Placed<'_>> {
    let (kind, rest) = subject.split_once('.')?;
    let keyed = match kind {
        "evt" | "live" | "eph" => false,
        "st" | "slive" => true,
        _ => return None,
    };
    let (_partition, rest) = rest.split_once('.')?;
    let (tenant, rest) = rest.split_once('.')?;
    let (rest, key) = if keyed {
        let (rest, key) = rest.rsplit_once('.')?;
        (rest, Some(key))
    } else {
        (rest, None)
    };
    let (room, audience) = rest.rsplit_once('.')?;
    Some(Placed {
        tenant,
        room,
        audience,
        key,
    })
}

/// `$KV.agg.shard.<ss>.head`: position, revisions and outbox of one shard of metrics.
#[must_use]
pub fn shard_head(shard: u32) -> String {
    format!("$KV.agg.shard.{shard:02}.head")
}

/// `$KV.agg.shard.<ss>.c.<chunk>`: one chunk of a shard's state. `chunk` is escaped here.
#[must_use]
pub fn shard_chunk(shard: u32, chunk: &str) -> String {
    format!("$KV.agg.shard.{shard:02}.c.{}", escape(chunk))
}

/// The filter of everything a shard has stored.
#[must_use]
pub fn shard_all(shard: u32) -> String {
    format!("$KV.agg.shard.{shard:02}.>")
}

/// `$KV.agg.lease.<ss>`: who works a shard.
#[must_use]
pub fn shard_lease(shard: u32) -> String {
    format!("$KV.agg.lease.{shard:02}")
}

/// The filter of all leases.
pub const SHARD_LEASES: &str = "$KV.agg.lease.*";

/// The silences that operators made: one list.
pub const SILENCES: &str = "$KV.agg.silences";

/// `$KV.capture.<tenant>.<source>`: how far a database's changes are stored. `source` is escaped here.
#[must_use]
pub fn capture_position(tenant: &Tenant, source: &str) -> String {
    format!("$KV.capture.{tenant}.{}", escape(source))
}

/// `audit.<service>.<instance>`.
#[must_use]
pub fn audit(service: &str, instance: &str) -> String {
    format!("audit.{}.{}", escape(service), escape(instance))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::escape;

    fn names() -> (Tenant, Room, Audience) {
        (
            Tenant::default(),
            Room::parse("property.42").unwrap(),
            Audience::parse("staff").unwrap(),
        )
    }

    #[test]
    fn subjects_are_the_documented_ones() {
        let (tenant, room, audience) = names();
        assert_eq!(event(&tenant, &room, &audience), "evt.13.main.property.42.staff");
        assert_eq!(
            ephemeral(&tenant, &room, &audience),
            "eph.13.main.property.42.staff"
        );
        assert_eq!(
            state(&tenant, &room, &audience, "a b"),
            "st.13.main.property.42.staff.a=20b"
        );
        assert_eq!(room_state_filter(&tenant, &room), "st.13.main.property.42.*.*");
        assert_eq!(room_events_filter(&tenant, &room), "evt.13.main.property.42.*");
        assert_eq!(inbound(&room, &audience), "in.property.42.staff");
        assert_eq!(
            inbound_for_tenant(&tenant, &room, &audience),
            "in.main.property.42.staff"
        );
        assert_eq!(
            dead_letter(&tenant, crate::refusal::Code::Schema),
            "dlq.main.schema"
        );
        assert_eq!(shard_head(3), "$KV.agg.shard.03.head");
        assert_eq!(shard_chunk(3, "a.b"), "$KV.agg.shard.03.c.a=2Eb");
        assert_eq!(shard_lease(11), "$KV.agg.lease.11");
        assert_eq!(capture_position(&tenant, "shop"), "$KV.capture.main.shop");
    }

    #[test]
    fn patterns_become_filters_only_when_every_token_is_plain_or_a_star() {
        let tenant = Tenant::default();
        let rows = [
            ("bookings", Some("evt.06.main.bookings.*")),
            ("property.*", Some("evt.*.main.property.*.*")),
            ("*", Some("evt.*.main.*.*")),
            ("property.>", None),
            (">", None),
            ("", None),
            ("a..b", None),
            ("user.*", Some("evt.*.main.user.*.*")),
        ];
        for (pattern, filter) in rows {
            assert_eq!(
                pattern_events_filter(&tenant, pattern).as_deref(),
                filter,
                "{pattern:?}"
            );
        }
    }

    #[test]
    fn what_is_built_is_parsed_back() {
        let (tenant, room, audience) = names();
        let rows = [
            (event(&tenant, &room, &audience), None),
            (event(&tenant, &room, &audience).replacen("evt", "live", 1), None),
            (
                state(&tenant, &room, &audience, "k/1").replacen("st", "slive", 1),
                Some(escape("k/1")),
            ),
        ];
        for (subject, key) in rows {
            let placed = parse_placed(&subject).unwrap();
            assert_eq!(
                (placed.tenant, placed.room, placed.audience),
                ("main", "property.42", "staff")
            );
            assert_eq!(placed.key, key.as_deref());
        }
        for strange in [
            "",
            "evt",
            "evt.01.main",
            "evt.01.main.room",
            "xyz.01.main.room.all",
            "st.01.main.room.all",
        ] {
            assert_eq!(parse_placed(strange), None, "{strange}");
        }
    }

    #[test]
    fn a_republished_message_stands_under_its_own_subject() {
        let rows = [
            ("live.06.main.bookings.all", "evt.06.main.bookings.all", true),
            ("slive.06.main.bookings.all.k", "st.06.main.bookings.all.k", true),
            ("live.06.main.lobby.all", "evt.06.main.vault.all", false),
            (
                "slive.06.main.bookings.all.k",
                "evt.06.main.bookings.all.k",
                false,
            ),
            ("live.06.main.bookings.all", "live.06.main.bookings.all", false),
            ("live.06.main.bookings.all", "", false),
        ];
        for (live, stored, same) in rows {
            assert_eq!(is_republished(live, stored), same, "{live} {stored}");
        }
    }

    #[test]
    fn inbound_subjects_say_whose_event_it_is() {
        let good = [
            ("in.main.bookings.all", Origin::Tenant, "main", "bookings", "all"),
            (
                "in.GW.main.property.42.staff",
                Origin::Gateway,
                "main",
                "property.42",
                "staff",
            ),
            (
                "in.AGG.acme.notifications.admin",
                Origin::Aggregator,
                "acme",
                "notifications",
                "admin",
            ),
        ];
        for (subject, origin, tenant, room, audience) in good {
            let inbound = parse_inbound(subject).unwrap();
            assert_eq!(inbound.origin, origin);
            let parts = (
                inbound.tenant.as_str(),
                inbound.room.as_str(),
                inbound.audience.as_str(),
            );
            assert_eq!(parts, (tenant, room, audience));
        }
        for bad in [
            "in",
            "in.main",
            "in.main.all",
            "in.GW.main.all",
            "evt.main.a.all",
            "in.SYS.a.all",
            "in.main.user.a.b.all",
        ] {
            assert!(parse_inbound(bad).is_err(), "{bad}");
        }
    }
}
