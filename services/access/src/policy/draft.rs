//! What a policy file says, understood key by key: shapes and names are checked here, what they refer to in `compile`.

use roomcast_proto::ids::{Room, Tenant, is_token};

use super::sections::{activity, command, publisher, room, triggers};
use crate::redact::Pointer;
use crate::yaml::{At, Mistakes, Node, Value};

/// A name and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) at: At,
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
    pub(super) flush_millis: Option<u16>,
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
    pub(super) trigger_room: Option<Room>,
    pub(super) publishers: Vec<PublisherDraft>,
}

const TOP_KEYS: [&str; 8] = [
    "version",
    "role_aliases",
    "roles",
    "rooms",
    "commands",
    "activity",
    "triggers",
    "publishers",
];

/// Understands a tree as a policy; what cannot be understood becomes a mistake and is left out.
pub(super) fn read(root: &Node, mistakes: &mut Mistakes<'_>) -> Draft {
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
            "triggers" => draft.trigger_room = triggers(node, mistakes),
            "publishers" => draft.publishers = each(node, "`publishers`", mistakes, publisher),
            _ => {}
        }
    }
    draft
}

/// The known keys of a map with their values; unknown and missing keys become mistakes.
pub(crate) fn fields<'a>(
    node: &'a Node,
    what: &str,
    known: &[&'static str],
    required: &[&str],
    mistakes: &mut Mistakes<'_>,
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

pub(crate) fn text(node: &Node, what: &str, mistakes: &mut Mistakes<'_>) -> Option<Name> {
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
                Value::Whole(_) | Value::Number(_) | Value::Flag(_) => "; put it in quotes if it is a name",
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
pub(crate) fn each<T>(
    node: &Node,
    what: &str,
    mistakes: &mut Mistakes<'_>,
    read: impl Fn(&Node, &mut Mistakes<'_>) -> Option<T>,
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

fn aliases(node: &Node, mistakes: &mut Mistakes<'_>) -> Vec<(Name, Name)> {
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

fn roles(node: &Node, mistakes: &mut Mistakes<'_>) -> Vec<RoleDraft> {
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

fn role(name: &Node, body: &Node, mistakes: &mut Mistakes<'_>) -> Option<RoleDraft> {
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
fn granted(node: &Node, mistakes: &mut Mistakes<'_>) -> Option<Name> {
    match &node.value {
        Value::Text(text) if text == "*" => Some(Name {
            text: text.clone(),
            at: node.at,
        }),
        _ => permission(node, mistakes),
    }
}

/// The name of a permission: 1 to 64 letters, digits and `_ . : -`.
pub(super) fn permission(node: &Node, mistakes: &mut Mistakes<'_>) -> Option<Name> {
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
