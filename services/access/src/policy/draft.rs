//! What a policy file says, understood key by key: shapes and names are checked here, what they refer to in `compile`.

use roomcast_proto::ids::{Room, Tenant, is_token};

use super::mistake::{At, Mistakes};
use super::tree::{Node, Value};
use crate::redact::Pointer;

/// A name and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Name {
    pub(super) text: String,
    pub(super) at: At,
}

#[derive(Debug)]
pub(super) struct RoleDraft {
    pub(super) name: Name,
    pub(super) inherits: Vec<Name>,
    pub(super) permissions: Vec<Name>,
}

#[derive(Debug, Default)]
pub(super) struct RoomDraft {
    pub(super) room: Option<Name>,
    pub(super) subscribe: Option<Name>,
    pub(super) history: Option<Name>,
    pub(super) presence: Option<Name>,
    pub(super) publish: Option<Name>,
    pub(super) client_publish: Option<Name>,
    pub(super) auto_join: Option<At>,
    pub(super) redact: Vec<RedactDraft>,
}

#[derive(Debug)]
pub(super) struct RedactDraft {
    pub(super) unless: Name,
    pub(super) remove: Vec<Pointer>,
}

#[derive(Debug)]
pub(super) struct CommandDraft {
    pub(super) command: Name,
    pub(super) allow: Name,
}

#[derive(Debug)]
pub(super) struct ActivityDraft {
    pub(super) room: Room,
    pub(super) audience: Name,
}

#[derive(Debug)]
pub(super) struct PublisherDraft {
    pub(super) at: At,
    pub(super) tenant: Tenant,
    pub(super) user: String,
    pub(super) roles: Vec<Name>,
}

/// A whole policy, names not yet resolved.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) aliases: Vec<(Name, Name)>,
    pub(super) roles: Vec<RoleDraft>,
    pub(super) rooms: Vec<RoomDraft>,
    pub(super) commands: Vec<CommandDraft>,
    pub(super) activity: Option<ActivityDraft>,
    pub(super) publishers: Vec<PublisherDraft>,
}

const TOP_KEYS: [&str; 7] = [
    "version",
    "role_aliases",
    "roles",
    "rooms",
    "commands",
    "activity",
    "publishers",
];
const ROOM_KEYS: [&str; 8] = [
    "room",
    "subscribe",
    "history",
    "presence",
    "publish",
    "client_publish",
    "auto_join",
    "redact",
];

/// Understands a tree as a policy; what cannot be understood becomes a mistake and is left out.
pub(super) fn read(root: &Node, mistakes: &mut Mistakes) -> Draft {
    let mut draft = Draft::default();
    if matches!(root.value, Value::Nothing) {
        mistakes.add(
            root.at,
            "the policy is empty; it needs `version: 1`, `roles` and `rooms`",
        );
        return draft;
    }
    let Some(top) = fields(
        root,
        "the policy",
        &TOP_KEYS,
        &["version", "roles", "rooms"],
        mistakes,
    ) else {
        return draft;
    };
    for (key, node) in top {
        match key {
            "version" if !matches!(node.value, Value::Whole(1)) => {
                mistakes.add(node.at, "expected version 1, the only one there is");
            }
            "role_aliases" => draft.aliases = aliases(node, mistakes),
            "roles" => draft.roles = roles(node, mistakes),
            "rooms" => draft.rooms = each(node, "`rooms`", mistakes, room),
            "commands" => draft.commands = each(node, "`commands`", mistakes, command),
            "activity" => draft.activity = activity(node, mistakes),
            "publishers" => draft.publishers = each(node, "`publishers`", mistakes, publisher),
            _ => {}
        }
    }
    draft
}

/// The known keys of a map with their values; unknown and missing keys become mistakes.
fn fields<'a>(
    node: &'a Node,
    what: &str,
    known: &[&'static str],
    required: &[&str],
    mistakes: &mut Mistakes,
) -> Option<Vec<(&'static str, &'a Node)>> {
    let Value::Map(members) = &node.value else {
        mistakes.add(
            node.at,
            format!("expected {what} as a map, found {}", node.value.kind()),
        );
        return None;
    };
    let mut found = Vec::with_capacity(members.len());
    for (key, value) in members {
        let Some(name) = text(key, "a key", mistakes) else {
            continue;
        };
        match known.iter().find(|known| **known == name.text) {
            Some(known) => found.push((*known, value)),
            None => mistakes.unknown(
                key.at,
                format!("unknown key {:?} in {what}", name.text),
                &name.text,
                known.iter().copied(),
            ),
        }
    }
    for missing in required
        .iter()
        .filter(|key| !found.iter().any(|(name, _)| name == *key))
    {
        mistakes.add(node.at, format!("{what} needs `{missing}`"));
    }
    Some(found)
}

fn text(node: &Node, what: &str, mistakes: &mut Mistakes) -> Option<Name> {
    match &node.value {
        Value::Text(text) => Some(Name {
            text: text.clone(),
            at: node.at,
        }),
        Value::Nothing => {
            mistakes.add(node.at, format!("expected {what}, found nothing"));
            None
        }
        other => {
            let hint = match other {
                Value::Whole(_) | Value::Number | Value::Flag(_) => "; put it in quotes if it is a name",
                _ => "",
            };
            mistakes.add(
                node.at,
                format!("expected {what} as text, found {}{hint}", other.kind()),
            );
            None
        }
    }
}

/// Every element of a list, read by `read`.
fn each<T>(
    node: &Node,
    what: &str,
    mistakes: &mut Mistakes,
    read: impl Fn(&Node, &mut Mistakes) -> Option<T>,
) -> Vec<T> {
    match &node.value {
        Value::List(items) => items.iter().filter_map(|item| read(item, mistakes)).collect(),
        // `roles:` with nothing behind it is more often a cut-off file than an intention.
        other => {
            mistakes.add(
                node.at,
                format!("expected {what} as a list, found {}", other.kind()),
            );
            Vec::new()
        }
    }
}

fn aliases(node: &Node, mistakes: &mut Mistakes) -> Vec<(Name, Name)> {
    let Value::Map(members) = &node.value else {
        mistakes.add(
            node.at,
            format!("expected `role_aliases` as a map, found {}", node.value.kind()),
        );
        return Vec::new();
    };
    members
        .iter()
        .filter_map(|(alias, role)| {
            Some((
                text(alias, "an alias", mistakes)?,
                text(role, "the role it stands for", mistakes)?,
            ))
        })
        .collect()
}

fn roles(node: &Node, mistakes: &mut Mistakes) -> Vec<RoleDraft> {
    let Value::Map(members) = &node.value else {
        mistakes.add(
            node.at,
            format!("expected `roles` as a map, found {}", node.value.kind()),
        );
        return Vec::new();
    };
    if members.is_empty() {
        mistakes.add(node.at, "a policy without roles lets nobody do anything");
    }
    members
        .iter()
        .filter_map(|(name, body)| role(name, body, mistakes))
        .collect()
}

fn role(name: &Node, body: &Node, mistakes: &mut Mistakes) -> Option<RoleDraft> {
    let name = text(name, "a role's name", mistakes)?;
    if name.text == roomcast_proto::ids::AUDIENCE_ALL {
        mistakes.add(name.at, "`all` is the audience of everybody and cannot be a role");
    } else if !is_token(&name.text) {
        let rule = "a role is an audience, too: 1 to 64 letters, digits, - or _";
        mistakes.add(name.at, format!("bad role name {:?}: {rule}", name.text));
    }
    let mut role = RoleDraft {
        name,
        inherits: Vec::new(),
        permissions: Vec::new(),
    };
    if matches!(body.value, Value::Nothing) {
        return Some(role);
    }
    for (key, node) in fields(body, "a role", &["inherits", "permissions"], &[], mistakes)? {
        match key {
            "inherits" => role.inherits = each(node, "`inherits`", mistakes, |n, m| text(n, "a role", m)),
            _ => role.permissions = each(node, "`permissions`", mistakes, granted),
        }
    }
    Some(role)
}

/// A permission in a role; `"*"` is every permission.
fn granted(node: &Node, mistakes: &mut Mistakes) -> Option<Name> {
    match &node.value {
        Value::Text(text) if text == "*" => Some(Name {
            text: text.clone(),
            at: node.at,
        }),
        _ => permission(node, mistakes),
    }
}

/// The name of a permission: 1 to 64 letters, digits and `_ . : -`.
fn permission(node: &Node, mistakes: &mut Mistakes) -> Option<Name> {
    let name = text(node, "a permission", mistakes)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
    if (1..=64).contains(&name.text.len()) && name.text.bytes().all(allowed) {
        return Some(name);
    }
    let rule = if name.text.contains('*') {
        "`\"*\"` alone is the only wildcard, and only a role can have it"
    } else {
        "1 to 64 letters, digits or _ . : -"
    };
    mistakes.add(node.at, format!("bad permission {:?}: {rule}", name.text));
    None
}

fn room(node: &Node, mistakes: &mut Mistakes) -> Option<RoomDraft> {
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
            _ => room.redact = each(node, "`redact`", mistakes, redact),
        }
    }
    Some(room)
}

fn redact(node: &Node, mistakes: &mut Mistakes) -> Option<RedactDraft> {
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

fn pointer(node: &Node, mistakes: &mut Mistakes) -> Option<Pointer> {
    let pointer = text(node, "a pointer", mistakes)?;
    Pointer::parse(&pointer.text)
        .map_err(|rule| mistakes.add(node.at, format!("bad pointer {:?}: {rule}", pointer.text)))
        .ok()
}

fn command(node: &Node, mistakes: &mut Mistakes) -> Option<CommandDraft> {
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

fn command_name(node: &Node, mistakes: &mut Mistakes) -> Option<Name> {
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

fn activity(node: &Node, mistakes: &mut Mistakes) -> Option<ActivityDraft> {
    let (mut room, mut audience) = (None, None);
    for (key, node) in fields(
        node,
        "`activity`",
        &["room", "audience"],
        &["room", "audience"],
        mistakes,
    )? {
        match key {
            "room" => room = activity_room(node, mistakes),
            _ => audience = text(node, "an audience", mistakes),
        }
    }
    Some(ActivityDraft {
        room: room?,
        audience: audience?,
    })
}

fn activity_room(node: &Node, mistakes: &mut Mistakes) -> Option<Room> {
    let name = text(node, "a room", mistakes)?;
    match Room::parse(&name.text) {
        Ok(room) if !room.is_personal() => Some(room),
        Ok(_) => {
            mistakes.add(node.at, "activity cannot go to a personal room");
            None
        }
        Err(bad) => {
            mistakes.add(node.at, format!("bad room {:?}: {}", name.text, bad.rule()));
            None
        }
    }
}

fn publisher(node: &Node, mistakes: &mut Mistakes) -> Option<PublisherDraft> {
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
fn nats_user(node: &Node, mistakes: &mut Mistakes) -> Option<(Tenant, String)> {
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
