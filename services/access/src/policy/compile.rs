//! From names to numbers: what roles inherit, what rooms ask for, checked against each other and made quick to ask.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use roomcast_proto::ids::{AUDIENCE_ALL, Audience, ROOM_TOKENS_MAX, Room, Tenant};

use super::Activity;
use super::draft::{CommandDraft, Draft, Name, PublisherDraft, RedactDraft, RoleDraft, RoomDraft};
use super::mistake::{At, Mistakes, distance, nearest};
use crate::audience::{AUDIENCES_MAX, AudienceId, AudienceSet};
use crate::pattern::{PERSONAL_ROOMS, Pattern};
use crate::redact::{Pointer, RULES_MAX};

/// Most permissions with a name in one policy: a set of them is 128 bytes.
const PERMISSIONS_MAX: usize = 1_024;
/// Most entries under `rooms`, `commands` and `publishers` each.
const ENTRIES_MAX: usize = 4_096;

/// One permission of one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PermissionId(usize);

/// A set of permissions, and whether it is every permission there is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PermissionSet {
    pub(crate) everything: bool,
    bits: Vec<u64>,
}

impl PermissionSet {
    pub(crate) fn holds(&self, id: PermissionId) -> bool {
        self.everything
            || self
                .bits
                .get(id.0 / 64)
                .is_some_and(|word| word & (1 << (id.0 % 64)) != 0)
    }

    fn insert(&mut self, id: PermissionId) {
        if self.bits.len() <= id.0 / 64 {
            self.bits.resize(id.0 / 64 + 1, 0);
        }
        self.bits[id.0 / 64] |= 1 << (id.0 % 64);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.everything |= other.everything;
        if self.bits.len() < other.bits.len() {
            self.bits.resize(other.bits.len(), 0);
        }
        for (mine, theirs) in self.bits.iter_mut().zip(&other.bits) {
            *mine |= theirs;
        }
    }
}

/// A role with all that it inherits.
#[derive(Debug)]
pub(crate) struct Role {
    pub(crate) permissions: PermissionSet,
    pub(crate) audiences: AudienceSet,
}

/// One entry of `rooms`: the permission that each right asks for; none means nobody has it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) pattern: Pattern,
    pub(crate) subscribe: Option<PermissionId>,
    pub(crate) history: Option<PermissionId>,
    pub(crate) presence: Option<PermissionId>,
    pub(crate) publish: Option<PermissionId>,
    pub(crate) client_publish: Option<PermissionId>,
    pub(crate) auto_join: bool,
    /// Places in [`Compiled::rules`].
    pub(crate) rules: Vec<usize>,
}

/// One redaction: who lacks the permission does not see what the pointers name.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) unless: PermissionId,
    pub(crate) remove: Arc<[Pointer]>,
}

/// Who may publish to personal rooms, which no pattern reaches.
#[derive(Debug, Default)]
pub(crate) struct PersonalRooms {
    pub(crate) publish: Option<PermissionId>,
    pub(crate) client_publish: Option<PermissionId>,
}

/// A policy as numbers.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    pub(crate) fingerprint: u64,
    role_names: Vec<String>,
    /// Roles and aliases by name.
    role_index: HashMap<String, usize>,
    pub(crate) roles: Vec<Role>,
    /// Names of the claims that patterns use.
    pub(crate) claims: Vec<String>,
    pub(crate) entries: Vec<Entry>,
    /// Entries without claims by name; more than one never happens, duplicates are mistakes.
    plain: HashMap<String, usize>,
    /// Entries with claims by number of tokens.
    with_claims: [Vec<usize>; ROOM_TOKENS_MAX + 1],
    pub(crate) personal: PersonalRooms,
    pub(crate) rules: Vec<Rule>,
    pub(crate) commands: HashMap<Arc<str>, PermissionId>,
    /// Permissions by name, for those that no room and no command asks for.
    pub(crate) permissions: HashMap<String, PermissionId>,
    pub(crate) activity: Option<Activity>,
}

/// A NATS user with its roles as places in [`Compiled::roles`].
pub(super) struct Publisher {
    pub(super) tenant: Tenant,
    pub(super) user: String,
    pub(super) roles: Vec<usize>,
}

impl Compiled {
    pub(crate) fn audience(&self, name: &str) -> Option<AudienceId> {
        if name == AUDIENCE_ALL {
            return Some(AudienceId::ALL);
        }
        // Not `role_index`: an alias is a spelling in tokens, never the name of an audience.
        let index = self
            .role_index
            .get(name)
            .copied()
            .filter(|index| self.role_names[*index] == name)?;
        AudienceId::of_role(index)
    }

    pub(crate) fn audience_names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(AUDIENCE_ALL).chain(self.role_names.iter().map(String::as_str))
    }

    /// The role that a token's text means, aliases included.
    pub(crate) fn role(&self, text: &str) -> Option<usize> {
        self.role_index.get(text).copied()
    }

    /// The entries whose shape fits the room; whether claims fit is the caller's to ask.
    pub(crate) fn candidates(&self, room: &Room) -> impl Iterator<Item = &Entry> {
        let tokens = room.tokens().count();
        let with_claims = self.with_claims.get(tokens).map_or(&[][..], Vec::as_slice);
        self.plain
            .get(room.as_str())
            .into_iter()
            .chain(with_claims)
            .map(|index| &self.entries[*index])
    }

    pub(crate) fn could_open(&self, room: &Room) -> bool {
        self.candidates(room).any(|entry| entry.pattern.could_match(room))
    }
}

/// Resolves all names of a draft. The result means something only if no mistake was added.
pub(super) fn compile(draft: Draft, fingerprint: u64, mistakes: &mut Mistakes) -> (Compiled, Vec<Publisher>) {
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
    compile_roles(&mut compiled, &draft, &permissions, mistakes);
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
    let publishers = compile_publishers(&compiled, draft.publishers, mistakes);
    compiled.permissions = permissions.ids;
    (compiled, publishers)
}

/// The names of permissions. What rooms and commands ask for must be granted by some role, or nobody could ever do it.
struct Permissions {
    ids: HashMap<String, PermissionId>,
    granted: HashSet<String>,
    everything: bool,
}

impl Permissions {
    fn granted_by(roles: &[RoleDraft], mistakes: &mut Mistakes) -> Self {
        let mut this = Self {
            ids: HashMap::new(),
            granted: HashSet::new(),
            everything: false,
        };
        for permission in roles.iter().flat_map(|role| &role.permissions) {
            if permission.text == "*" {
                this.everything = true;
            } else if this.id(permission, mistakes).is_some() {
                this.granted.insert(permission.text.clone());
            }
        }
        this
    }

    fn id(&mut self, name: &Name, mistakes: &mut Mistakes) -> Option<PermissionId> {
        if let Some(id) = self.ids.get(&name.text) {
            return Some(*id);
        }
        if self.ids.len() == PERMISSIONS_MAX {
            mistakes.add(name.at, format!("more than {PERMISSIONS_MAX} permissions"));
            return None;
        }
        let id = PermissionId(self.ids.len());
        self.ids.insert(name.text.clone(), id);
        Some(id)
    }

    /// A permission that something asks for. Where a role has `"*"`, a permission that only this role has needs no other
    /// mention; but one that differs from a granted one by a letter or two is a slip of the pen all the same.
    fn asked_for(&mut self, name: Option<&Name>, mistakes: &mut Mistakes) -> Option<PermissionId> {
        let name = name?;
        if !self.granted.contains(&name.text) {
            let granted = || self.granted.iter().map(String::as_str);
            let slip = nearest(&name.text, granted()).is_some_and(|near| distance(near, &name.text) <= 2);
            if !self.everything {
                let message = format!("no role grants the permission {:?}", name.text);
                mistakes.unknown(name.at, message, &name.text, granted());
            } else if slip {
                let message = format!(
                    "no role but one with \"*\" grants the permission {:?} (if it is meant, name it beside \"*\")",
                    name.text
                );
                mistakes.unknown(name.at, message, &name.text, granted());
            }
        }
        self.id(name, mistakes)
    }
}

fn compile_roles(compiled: &mut Compiled, draft: &Draft, permissions: &Permissions, mistakes: &mut Mistakes) {
    compiled.role_names = draft.roles.iter().map(|role| role.name.text.clone()).collect();
    compiled.role_index = compiled
        .role_names
        .iter()
        .enumerate()
        .map(|(index, name)| (name.clone(), index))
        .collect();
    let parents: Vec<Vec<usize>> = draft
        .roles
        .iter()
        .map(|role| resolve_roles(compiled, &role.inherits, "`inherits` names", mistakes))
        .collect();
    report_cycles(&draft.roles, &parents, mistakes);
    compiled.roles = (0..draft.roles.len())
        .map(|start| {
            let mut role = Role {
                permissions: PermissionSet::default(),
                audiences: AudienceSet::EVERYBODY,
            };
            for index in reachable(start, &parents) {
                if let Some(audience) = AudienceId::of_role(index) {
                    role.audiences = role.audiences.with(audience);
                }
                for permission in &draft.roles[index].permissions {
                    role.permissions.everything |= permission.text == "*";
                    if let Some(id) = permissions.ids.get(&permission.text) {
                        role.permissions.insert(*id);
                    }
                }
            }
            role
        })
        .collect();
    for (alias, role) in &draft.aliases {
        if compiled.role_names.contains(&alias.text) {
            mistakes.add(
                alias.at,
                format!("{:?} is a role already and cannot be an alias", alias.text),
            );
        } else if alias.text.is_empty() || alias.text.len() > crate::token::ROLE_BYTES_MAX {
            mistakes.add(alias.at, "an alias has 1 to 128 bytes");
        }
        match resolve_roles(
            compiled,
            std::slice::from_ref(role),
            "`role_aliases` names",
            mistakes,
        )
        .first()
        {
            Some(index) => drop(compiled.role_index.insert(alias.text.clone(), *index)),
            None => continue,
        }
    }
}

/// The places of named roles; names of no role become mistakes. Aliases do not count: inside the policy a role has one name.
fn resolve_roles(compiled: &Compiled, names: &[Name], who: &str, mistakes: &mut Mistakes) -> Vec<usize> {
    let known = || compiled.role_names.iter().map(String::as_str);
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        match compiled.role_names.iter().position(|role| *role == name.text) {
            Some(index) => found.push(index),
            None => {
                let message = format!("{who} the role {:?}, which is not defined", name.text);
                mistakes.unknown(name.at, message, &name.text, known());
            }
        }
    }
    found
}

/// A role and everything it inherits. Ends also on cycles.
fn reachable(start: usize, parents: &[Vec<usize>]) -> Vec<usize> {
    let mut seen = vec![start];
    let mut next = 0;
    while let Some(index) = seen.get(next).copied() {
        next += 1;
        for parent in &parents[index] {
            if !seen.contains(parent) {
                seen.push(*parent);
            }
        }
    }
    seen
}

/// One mistake per cycle, at the first of its roles in the file.
fn report_cycles(roles: &[RoleDraft], parents: &[Vec<usize>], mistakes: &mut Mistakes) {
    let mut told = HashSet::new();
    for start in 0..roles.len() {
        if told.contains(&start) {
            continue;
        }
        if let Some(way) = way_back(start, parents) {
            let names: Vec<&str> = way
                .iter()
                .chain([&start])
                .map(|index| &*roles[*index].name.text)
                .collect();
            mistakes.add(
                roles[start].name.at,
                format!("roles inherit each other in a circle: {}", names.join(" → ")),
            );
            told.extend(way);
        }
    }
}

/// The shortest way from a role back to itself, without its end.
fn way_back(start: usize, parents: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut ways = vec![vec![start]];
    let mut seen = HashSet::new();
    let mut next = 0;
    while let Some(way) = ways.get(next).cloned() {
        next += 1;
        for parent in &parents[*way.last()?] {
            if *parent == start {
                return Some(way);
            }
            if seen.insert(*parent) {
                ways.push(way.iter().copied().chain([*parent]).collect());
            }
        }
    }
    None
}

fn compile_rooms(
    compiled: &mut Compiled,
    rooms: Vec<RoomDraft>,
    permissions: &mut Permissions,
    mistakes: &mut Mistakes,
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
            rules,
        });
    }
}

/// Personal rooms belong to their user alone, so an entry for them says who may publish and nothing else.
fn check_personal(draft: &RoomDraft, room: &Name, mistakes: &mut Mistakes) {
    let reads = draft.subscribe.is_some()
        || draft.history.is_some()
        || draft.presence.is_some()
        || draft.auto_join.is_some()
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
    mistakes: &mut Mistakes,
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
    mistakes: &mut Mistakes,
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
    mistakes: &mut Mistakes,
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

fn unknown_audience(compiled: &Compiled, name: &Name, mistakes: &mut Mistakes) {
    let message = format!("unknown audience {:?}: an audience is a role or `all`", name.text);
    mistakes.unknown(name.at, message, &name.text, compiled.audience_names());
}
