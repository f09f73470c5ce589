//! From names to numbers: what rooms, commands and publishers refer to, checked and resolved.

use std::collections::{HashMap, HashSet};

use roomcast_proto::ids::{Audience, Tenant};

use super::Activity;
use super::compiled::{Compiled, Entry, PersonalRooms, Rule};
use super::draft::{CommandDraft, Draft, Name, PublisherDraft, RedactDraft, RoomDraft};
use super::roles::{Permissions, compile_roles, resolve_roles};
use crate::audience::AUDIENCES_MAX;
use crate::pattern::{PERSONAL_ROOMS, Pattern};
use crate::redact::RULES_MAX;
use crate::yaml::{At, Mistakes};

/// Most entries under `rooms`, `commands` and `publishers` each.
const ENTRIES_MAX: usize = 4_096;

/// A NATS user with its roles as places in [`Compiled::roles`].
pub(super) struct Publisher {
    pub(super) tenant: Tenant,
    pub(super) user: String,
    pub(super) roles: Vec<usize>,
}

/// Resolves all names of a draft. The result means something only if no mistake was added.
pub(super) fn compile(
    draft: Draft,
    fingerprint: u64,
    before: Option<&Compiled>,
    mistakes: &mut Mistakes<'_>,
) -> (Compiled, Vec<Publisher>) {
    let mut compiled = Compiled {
        fingerprint,
        ..Compiled::default()
    };
    for (what, count, max) in [
        ("roles", draft.roles.len(), AUDIENCES_MAX - 1),
        ("rooms", draft.rooms.len(), ENTRIES_MAX),
        ("commands", draft.commands.len(), ENTRIES_MAX),
        ("publishers", draft.publishers.len(), ENTRIES_MAX),
    ] {
        if count > max {
            mistakes.add(
                At::default(),
                format!("{count} {what} are too many; at most {max}"),
            );
            return (compiled, Vec::new());
        }
    }
    let mut permissions = Permissions::granted_by(&draft.roles, mistakes);
    compile_roles(&mut compiled, &draft, &permissions, before, mistakes);
    compile_rooms(&mut compiled, draft.rooms, &mut permissions, mistakes);
    compile_commands(&mut compiled, draft.commands, &mut permissions, mistakes);
    if let Some(activity) = draft.activity {
        if compiled.audience(&activity.audience.text).is_none() {
            unknown_audience(&compiled, &activity.audience, mistakes);
        }
        if let Ok(audience) = Audience::parse(&activity.audience.text) {
            compiled.activity = Some(Activity {
                room: activity.room,
                audience,
            });
        }
    }
    compiled.trigger_room = draft.trigger_room;
    let publishers = compile_publishers(&compiled, draft.publishers, mistakes);
    compiled.permissions = permissions.ids;
    (compiled, publishers)
}

fn compile_rooms(
    compiled: &mut Compiled,
    rooms: Vec<RoomDraft>,
    permissions: &mut Permissions,
    mistakes: &mut Mistakes<'_>,
) {
    let mut lines: HashMap<String, u64> = HashMap::new();
    for draft in rooms {
        let mut ask = |name: &Option<Name>| permissions.asked_for(name.as_ref(), mistakes);
        let subscribe = ask(&draft.subscribe);
        let history = ask(&draft.history).or(subscribe);
        let presence = ask(&draft.presence);
        let publish = ask(&draft.publish);
        let client_publish = ask(&draft.client_publish);
        let rules = compile_rules(compiled, &draft.redact, permissions, mistakes);
        let Some(room) = &draft.room else { continue };
        if let Some(line) = lines.insert(room.text.clone(), room.at.line) {
            mistakes.add(
                room.at,
                format!("the room {:?} has an entry on line {line} already", room.text),
            );
            continue;
        }
        if room.text == PERSONAL_ROOMS {
            check_personal(&draft, room, mistakes);
            compiled.personal = PersonalRooms {
                publish,
                client_publish,
            };
            continue;
        }
        if let (Some(at), None) = (draft.auto_join, &draft.subscribe) {
            mistakes.add(at, "`auto_join` needs `subscribe`: nobody could join this room");
        }
        let pattern = match Pattern::parse(&room.text, &mut compiled.claims) {
            Ok(pattern) => pattern,
            Err(rule) => {
                mistakes.add(room.at, format!("bad room {:?}: {rule}", room.text));
                continue;
            }
        };
        compiled.sets_flush |= draft.flush_millis.is_some();
        let index = compiled.entries.len();
        if pattern.is_plain() {
            compiled.plain.insert(room.text.clone(), index);
        } else if let Some(same_length) = compiled.with_claims.get_mut(pattern.len()) {
            same_length.push(index);
        }
        let auto_join = draft.auto_join.is_some();
        compiled.entries.push(Entry {
            pattern,
            subscribe,
            history,
            presence,
            publish,
            client_publish,
            auto_join,
            flush_millis: draft.flush_millis,
            rules,
        });
    }
}

/// Personal rooms belong to their user alone, so an entry for them says who may publish and nothing else.
fn check_personal(draft: &RoomDraft, room: &Name, mistakes: &mut Mistakes<'_>) {
    let reads = draft.subscribe.is_some()
        || draft.history.is_some()
        || draft.presence.is_some()
        || draft.auto_join.is_some()
        || draft.flush_millis.is_some()
        || !draft.redact.is_empty();
    if reads {
        let message = "a personal room is read by its own user and nobody else; \
                       only `publish` and `client_publish` can be said here";
        mistakes.add(room.at, message);
    }
}

fn compile_rules(
    compiled: &mut Compiled,
    drafts: &[RedactDraft],
    permissions: &mut Permissions,
    mistakes: &mut Mistakes<'_>,
) -> Vec<usize> {
    let mut rules = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let Some(unless) = permissions.asked_for(Some(&draft.unless), mistakes) else {
            continue;
        };
        if compiled.rules.len() == RULES_MAX {
            mistakes.add(draft.unless.at, format!("more than {RULES_MAX} redactions"));
            break;
        }
        rules.push(compiled.rules.len());
        compiled.rules.push(Rule {
            unless,
            remove: draft.remove.as_slice().into(),
        });
    }
    rules
}

fn compile_commands(
    compiled: &mut Compiled,
    drafts: Vec<CommandDraft>,
    permissions: &mut Permissions,
    mistakes: &mut Mistakes<'_>,
) {
    for draft in drafts {
        let Some(allow) = permissions.asked_for(Some(&draft.allow), mistakes) else {
            continue;
        };
        if compiled
            .commands
            .insert(draft.command.text.as_str().into(), allow)
            .is_some()
        {
            mistakes.add(
                draft.command.at,
                format!("the command {:?} is listed twice", draft.command.text),
            );
        }
    }
}

fn compile_publishers(
    compiled: &Compiled,
    drafts: Vec<PublisherDraft>,
    mistakes: &mut Mistakes<'_>,
) -> Vec<Publisher> {
    let mut seen = HashSet::new();
    let mut publishers = Vec::with_capacity(drafts.len());
    for draft in drafts {
        if !seen.insert((draft.tenant.clone(), draft.user.clone())) {
            mistakes.add(
                draft.at,
                format!(
                    "the publisher \"{}/{}\" is listed twice",
                    draft.tenant, draft.user
                ),
            );
        }
        let roles = resolve_roles(compiled, &draft.roles, "`publishers` names", mistakes);
        publishers.push(Publisher {
            tenant: draft.tenant,
            user: draft.user,
            roles,
        });
    }
    publishers
}

fn unknown_audience(compiled: &Compiled, name: &Name, mistakes: &mut Mistakes<'_>) {
    let message = format!("unknown audience {:?}: an audience is a role or `all`", name.text);
    mistakes.unknown(name.at, message, &name.text, compiled.audience_names());
}
