//! The entries of the lists in a policy: rooms, commands, activity, triggers and publishers.

use roomcast_proto::ids::{Room, Tenant, is_token};

use super::draft::{
    ActivityDraft, CommandDraft, Name, PublisherDraft, RedactDraft, RoomDraft, each, fields, permission, text,
};
use crate::redact::Pointer;
use crate::yaml::{Mistakes, Node, Value};

const ROOM_KEYS: [&str; 9] = [
    "room",
    "subscribe",
    "history",
    "presence",
    "publish",
    "client_publish",
    "auto_join",
    "flush_ms",
    "redact",
];

/// Longest wait of a busy room's events for each other, milliseconds: longer is seen by people.
const FLUSH_MILLIS_MAX: u16 = 20;

pub(super) fn room(node: &Node, mistakes: &mut Mistakes<'_>) -> Option<RoomDraft> {
    let mut room = RoomDraft::default();
    for (key, node) in fields(node, "a room", &ROOM_KEYS, &["room"], mistakes)? {
        match key {
            "room" => room.room = text(node, "a room's name", mistakes),
            "subscribe" => room.subscribe = permission(node, mistakes),
            "history" => room.history = permission(node, mistakes),
            "presence" => room.presence = permission(node, mistakes),
            "publish" => room.publish = permission(node, mistakes),
            "client_publish" => room.client_publish = permission(node, mistakes),
            "auto_join" => match node.value {
                Value::Flag(true) => room.auto_join = Some(node.at),
                Value::Flag(false) => {}
                _ => mistakes.add(
                    node.at,
                    format!(
                        "expected `auto_join` as true or false, found {}",
                        node.value.kind()
                    ),
                ),
            },
            "flush_ms" => room.flush_millis = flush_millis(node, mistakes),
            _ => room.redact = each(node, "`redact`", mistakes, redact),
        }
    }
    Some(room)
}

/// How long the events of a busy room may wait for each other.
fn flush_millis(node: &Node, mistakes: &mut Mistakes<'_>) -> Option<u16> {
    let millis = match node.value {
        Value::Whole(millis) => u16::try_from(millis)
            .ok()
            .filter(|millis| *millis <= FLUSH_MILLIS_MAX),
        _ => None,
    };
    if millis.is_none() {
        let found = match node.value {
            Value::Whole(millis) => millis.to_string(),
            _ => node.value.kind().to_owned(),
        };
        let rule = format!(
            "expected `flush_ms` from 0 to {FLUSH_MILLIS_MAX}, found {found}: the milliseconds that events of this room wait for each \
             other while it is busy; 0: each leaves at once"
        );
        mistakes.add(node.at, rule);
    }
    millis
}

fn redact(node: &Node, mistakes: &mut Mistakes<'_>) -> Option<RedactDraft> {
    let (mut unless, mut remove) = (None, Vec::new());
    for (key, node) in fields(
        node,
        "a redaction",
        &["unless", "remove"],
        &["unless", "remove"],
        mistakes,
    )? {
        match key {
            "unless" => unless = permission(node, mistakes),
            _ => {
                remove = each(node, "`remove`", mistakes, pointer);
                if matches!(&node.value, Value::List(items) if items.is_empty()) {
                    mistakes.add(node.at, "`remove` names nothing");
                }
            }
        }
    }
    Some(RedactDraft {
        unless: unless?,
        remove,
    })
}

fn pointer(node: &Node, mistakes: &mut Mistakes<'_>) -> Option<Pointer> {
    let pointer = text(node, "a pointer", mistakes)?;
    Pointer::parse(&pointer.text)
        .map_err(|rule| mistakes.add(node.at, format!("bad pointer {:?}: {rule}", pointer.text)))
        .ok()
}

pub(super) fn command(node: &Node, mistakes: &mut Mistakes<'_>) -> Option<CommandDraft> {
    let (mut command, mut allow) = (None, None);
    for (key, node) in fields(
        node,
        "a command",
        &["command", "allow"],
        &["command", "allow"],
        mistakes,
    )? {
        match key {
            "command" => command = command_name(node, mistakes),
            _ => allow = permission(node, mistakes),
        }
    }
    Some(CommandDraft {
        command: command?,
        allow: allow?,
    })
}

fn command_name(node: &Node, mistakes: &mut Mistakes<'_>) -> Option<Name> {
    let name = text(node, "a command's name", mistakes)?;
    let part =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic() && !b"*>".contains(&b));
    if name.text.len() <= 128 && name.text.split('.').all(part) {
        return Some(name);
    }
    let rule = "1 to 128 printable characters without spaces, * or >, no empty part between dots";
    mistakes.add(node.at, format!("bad command name {:?}: {rule}", name.text));
    None
}

pub(super) fn activity(node: &Node, mistakes: &mut Mistakes<'_>) -> Option<ActivityDraft> {
    let (mut room, mut audience) = (None, None);
    for (key, node) in fields(
        node,
        "`activity`",
        &["room", "audience"],
        &["room", "audience"],
        mistakes,
    )? {
        match key {
            "room" => room = shared_room(node, "activity", mistakes),
            _ => audience = text(node, "an audience", mistakes),
        }
    }
    Some(ActivityDraft {
        room: room?,
        audience: audience?,
    })
}

/// `triggers: { room }`.
pub(super) fn triggers(node: &Node, mistakes: &mut Mistakes<'_>) -> Option<Room> {
    let mut room = None;
    for (_, node) in fields(node, "`triggers`", &["room"], &["room"], mistakes)? {
        room = shared_room(node, "a trigger for a role", mistakes);
    }
    room
}

/// A room that is nobody's own.
fn shared_room(node: &Node, what: &str, mistakes: &mut Mistakes<'_>) -> Option<Room> {
    let name = text(node, "a room", mistakes)?;
    match Room::parse(&name.text) {
        Ok(room) if !room.is_personal() => Some(room),
        Ok(_) => {
            mistakes.add(node.at, format!("{what} cannot go to a personal room"));
            None
        }
        Err(bad) => {
            mistakes.add(node.at, format!("bad room {:?}: {}", name.text, bad.rule()));
            None
        }
    }
}

pub(super) fn publisher(node: &Node, mistakes: &mut Mistakes<'_>) -> Option<PublisherDraft> {
    let (mut who, mut roles) = (None, Vec::new());
    for (key, node) in fields(
        node,
        "a publisher",
        &["nats", "roles"],
        &["nats", "roles"],
        mistakes,
    )? {
        match key {
            "nats" => who = nats_user(node, mistakes),
            _ => roles = each(node, "`roles`", mistakes, |n, m| text(n, "a role", m)),
        }
    }
    let (tenant, user) = who?;
    Some(PublisherDraft {
        at: node.at,
        tenant,
        user,
        roles,
    })
}

/// `<tenant>/<user>`.
fn nats_user(node: &Node, mistakes: &mut Mistakes<'_>) -> Option<(Tenant, String)> {
    let who = text(node, "a NATS user", mistakes)?;
    let Some((tenant, user)) = who.text.split_once('/') else {
        mistakes.add(
            node.at,
            format!("{:?} is not written <tenant>/<user>, such as main/erp", who.text),
        );
        return None;
    };
    let tenant = Tenant::parse(tenant)
        .map_err(|bad| mistakes.add(node.at, format!("bad tenant {tenant:?}: {}", bad.rule())))
        .ok();
    if !is_token(user) {
        mistakes.add(
            node.at,
            format!("bad NATS user {user:?}: 1 to 64 letters, digits, - or _"),
        );
        return None;
    }
    Some((tenant?, user.to_owned()))
}
