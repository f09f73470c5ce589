//! What one principal, or one listed publisher, may do under one policy.
//!
//! Made when a connection opens and whenever its token or the policy changes; asked at each subscribe and publish.
//! Answers are permits, or one [`Denied`] that never says why.

use std::fmt;
use std::sync::Arc;

use roomcast_proto::ids::{Audience, Room, Tenant, is_token};
use serde_json::Value;

use crate::audience::AudienceSet;
use crate::pattern::ClaimValues;
use crate::permit::{Command, Denied, History, Presence, Publish, Subscribe, View};
use crate::policy::{Compiled, Entry, PermissionId, PermissionSet};
use crate::principal::Principal;
use crate::redact::{Pointer, RedactionClass};

/// Most rooms that are opened without being asked for.
pub const AUTO_JOIN_MAX: usize = 512;

/// Everything a policy lets one holder do. Owned, and cheap to clone.
#[derive(Clone)]
pub struct Rights(Arc<Inner>);

struct Inner {
    policy: Arc<Compiled>,
    tenant: Tenant,
    publisher: Arc<str>,
    /// The user's own room. A listed NATS publisher has none, and reads nothing at all.
    personal: Option<Room>,
    permissions: PermissionSet,
    audiences: AudienceSet,
    values: ClaimValues,
    skipped: usize,
}

impl Rights {
    pub(crate) fn of_principal<'a>(
        policy: &Arc<Compiled>,
        principal: &'a Principal,
        granted: impl Iterator<Item = &'a str>,
    ) -> Self {
        let roles = principal.roles.iter().map(String::as_str).chain(granted);
        let roles = roles.filter_map(|role| policy.role(role));
        let (permissions, audiences) = sum_of_roles(policy, roles);
        let mut skipped = 0;
        let values = policy
            .claims
            .iter()
            .map(|claim| {
                principal
                    .claims
                    .get(claim)
                    .map_or_else(Box::default, |value| tokens(value, &mut skipped))
            })
            .collect();
        Self(Arc::new(Inner {
            policy: Arc::clone(policy),
            tenant: principal.tenant.clone(),
            publisher: Arc::clone(&principal.subject),
            personal: Some(principal.personal_room()),
            permissions,
            audiences,
            values,
            skipped,
        }))
    }

    pub(crate) fn of_publisher(policy: &Arc<Compiled>, tenant: &Tenant, user: &str, roles: &[usize]) -> Self {
        let (permissions, audiences) = sum_of_roles(policy, roles.iter().copied());
        Self(Arc::new(Inner {
            policy: Arc::clone(policy),
            tenant: tenant.clone(),
            publisher: format!("nats/{user}").into(),
            personal: None,
            permissions,
            audiences,
            values: ClaimValues::default(),
            skipped: 0,
        }))
    }

    /// Whether, and how, the holder may follow a room.
    ///
    /// The own personal room is always open, any other never, whatever the policy says.
    ///
    /// # Errors
    /// [`Denied`] for a room that is not there and for one that is not the holder's: answer `forbidden` to both.
    pub fn subscribe(&self, room: &Room) -> Result<Subscribe, Denied> {
        let (view, [_, history]) = self.view(room, |entry| [entry.subscribe, entry.history])?;
        let flush_millis = self.0.policy.flush_millis(room);
        Ok(Subscribe {
            view,
            history,
            flush_millis,
        })
    }

    /// Whether, and how, the holder may read a room's past events.
    ///
    /// # Errors
    /// [`Denied`], as for [`Rights::subscribe`].
    pub fn history(&self, room: &Room) -> Result<History, Denied> {
        let (view, _) = self.view(room, |entry| [entry.history])?;
        Ok(History { view })
    }

    /// Whether the holder may see who is in a room. Personal rooms show nobody.
    ///
    /// # Errors
    /// [`Denied`], as for [`Rights::subscribe`].
    pub fn presence(&self, room: &Room) -> Result<Presence, Denied> {
        if room.is_personal() {
            return Err(Denied(()));
        }
        let (view, _) = self.view(room, |entry| [entry.presence])?;
        Ok(Presence { view })
    }

    /// Whether the holder may publish to a room as a service, over HTTP or NATS.
    ///
    /// # Errors
    /// [`Denied`] also for an audience that the policy does not know; [`crate::Policy::audience`] tells that apart.
    pub fn publish(&self, room: &Room, audience: &Audience) -> Result<Publish, Denied> {
        let personal = self.0.policy.personal.publish;
        self.publish_as(room, audience, personal, |entry| entry.publish)
    }

    /// Whether the holder may publish to a room as a user, over its own socket.
    ///
    /// # Errors
    /// As for [`Rights::publish`].
    pub fn client_publish(&self, room: &Room, audience: &Audience) -> Result<Publish, Denied> {
        let personal = self.0.policy.personal.client_publish;
        self.publish_as(room, audience, personal, |entry| entry.client_publish)
    }

    /// Whether the holder may send a command.
    ///
    /// # Errors
    /// [`Denied`] for a command that is not listed and for one that is not the holder's.
    pub fn command(&self, name: &str) -> Result<Command, Denied> {
        let (name, allow) = self.0.policy.commands.get_key_value(name).ok_or(Denied(()))?;
        if !self.0.permissions.holds(*allow) || self.0.personal.is_none() {
            return Err(Denied(()));
        }
        Ok(Command {
            tenant: self.0.tenant.clone(),
            name: Arc::clone(name),
        })
    }

    /// The rooms that open by themselves, in the order of the policy, at most [`AUTO_JOIN_MAX`], each once.
    /// Every one of them is open to [`Rights::subscribe`]. The personal room is not among them.
    #[must_use]
    pub fn auto_join(&self) -> Vec<Room> {
        self.auto_joined().0
    }

    /// How many rooms were left off by the limit of [`Rights::auto_join`].
    #[must_use]
    pub fn auto_join_left_off(&self) -> usize {
        self.auto_joined().1
    }

    /// The audiences the holder belongs to: its roles, all that they inherit, and `all`.
    #[must_use]
    pub fn audiences(&self) -> AudienceSet {
        self.0.audiences
    }

    /// The tenant within which all of this holds.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.0.tenant
    }

    /// The holder's own room; none for a listed NATS publisher.
    #[must_use]
    pub fn personal_room(&self) -> Option<&Room> {
        self.0.personal.as_ref()
    }

    /// Whether a role with `"*"` is among the holder's: only then may an answer say `unknown_room`.
    #[must_use]
    pub fn hold_everything(&self) -> bool {
        self.0.permissions.everything
    }

    /// Whether the holder has a permission that stands for a right of its own, beside rooms and commands, such as
    /// `events.backfill`.
    #[must_use]
    pub fn permits(&self, permission: &str) -> bool {
        let id = self.0.policy.permissions.get(permission);
        self.0.permissions.everything || id.is_some_and(|id| self.0.permissions.holds(*id))
    }

    /// How many values of claims were skipped, because they are no tokens and so name no room. Callers count them.
    #[must_use]
    pub fn skipped_values(&self) -> usize {
        self.0.skipped
    }

    /// The rooms that the holder may publish to as a service, token by token; `None` stands for any one token.
    /// Account permissions of NATS users are generated from it. Personal rooms appear as `user` and any one token.
    #[must_use]
    pub fn publish_patterns(&self) -> Vec<Vec<Option<&str>>> {
        let may = |asked: Option<PermissionId>| asked.is_some_and(|asked| self.0.permissions.holds(asked));
        let policy = &self.0.policy;
        let entries = policy.entries.iter().filter(|entry| may(entry.publish));
        let mut patterns: Vec<_> = entries.map(|entry| entry.pattern.tokens()).collect();
        if may(policy.personal.publish) {
            patterns.push(vec![Some(roomcast_proto::ids::PERSONAL), None]);
        }
        patterns
    }

    pub(crate) fn is_under(&self, policy: &Arc<Compiled>) -> bool {
        Arc::ptr_eq(&self.0.policy, policy)
    }

    fn is_open(&self, entry: &Entry, room: &Room) -> bool {
        // A listed publisher has no claims; see `Policy::publisher`.
        let any_value = self.0.personal.is_none();
        entry.pattern.matches(room, &self.0.values) || any_value && entry.pattern.could_match(room)
    }

    /// Whether any entry that opens the room to the holder asks for a permission that it has.
    fn holds(&self, room: &Room, right: impl Fn(&Entry) -> Option<PermissionId>) -> bool {
        let permissions = &self.0.permissions;
        self.0.policy.candidates(room).any(|entry| {
            right(entry).is_some_and(|asked| permissions.holds(asked)) && self.is_open(entry, room)
        })
    }

    /// What the holder sees of a room that the first of these rights opens to it, and which of them it has. A listed publisher sees
    /// nothing.
    fn view<const N: usize>(
        &self,
        room: &Room,
        rights: impl Fn(&Entry) -> [Option<PermissionId>; N],
    ) -> Result<(View, [bool; N]), Denied> {
        let (held, rules) = self.open_under(room, rights);
        if held.first() != Some(&true) || self.0.personal.is_none() {
            return Err(Denied(()));
        }
        let (class, redaction) = self.redaction(rules);
        let view = View {
            tenant: self.0.tenant.clone(),
            room: room.clone(),
            audiences: self.0.audiences,
            redaction,
            class,
        };
        Ok((view, held))
    }

    /// For each right, whether any entry that opens the room asks for a permission that the holder has; and the rules of all that open
    /// it, bit by bit, but for those that the holder is spared. Rights add up over entries, and so do redactions: an entry that opens a
    /// room does not undo what another one hides in it. In one walk, however many rights are asked for.
    fn open_under<const N: usize>(
        &self,
        room: &Room,
        rights: impl Fn(&Entry) -> [Option<PermissionId>; N],
    ) -> ([bool; N], u128) {
        if room.is_personal() {
            // No entry is about personal rooms.
            return ([self.0.personal.as_ref() == Some(room); N], 0);
        }
        let (policy, permissions) = (&self.0.policy, &self.0.permissions);
        let (mut open, mut rules) = ([false; N], 0_u128);
        let entries = policy.candidates(room);
        for entry in entries.filter(|entry| self.is_open(entry, room)) {
            for (open, right) in open.iter_mut().zip(rights(entry)) {
                *open |= right.is_some_and(|asked| permissions.holds(asked));
            }
            for rule in &entry.rules {
                rules |= u128::from(!permissions.holds(policy.rules[*rule].unless)) << rule;
            }
        }
        (open, rules)
    }

    /// What these rules take out.
    fn redaction(&self, rules: u128) -> (RedactionClass, Arc<[Pointer]>) {
        let policy = &self.0.policy;
        if rules == 0 {
            return (RedactionClass::default(), Arc::default());
        }
        let class = RedactionClass {
            policy: policy.fingerprint,
            rules,
        };
        let all = policy.rules.iter().enumerate();
        let apply = all
            .filter(|(at, _)| rules >> at & 1 == 1)
            .map(|(_, rule)| &rule.remove);
        if rules.count_ones() == 1
            && let Some(one) = apply.clone().next()
        {
            return (class, Arc::clone(one));
        }
        let mut all: Vec<Pointer> = apply.flat_map(|remove| remove.iter().cloned()).collect();
        all.sort();
        all.dedup();
        (class, all.into())
    }

    fn publish_as(
        &self,
        room: &Room,
        audience: &Audience,
        personal: Option<PermissionId>,
        right: impl Fn(&Entry) -> Option<PermissionId>,
    ) -> Result<Publish, Denied> {
        let may = if room.is_personal() {
            personal.is_some_and(|asked| self.0.permissions.holds(asked))
        } else {
            self.holds(room, right)
        };
        let audience_id = self
            .0
            .policy
            .audience(audience.as_str())
            .filter(|_| may)
            .ok_or(Denied(()))?;
        Ok(Publish {
            tenant: self.0.tenant.clone(),
            room: room.clone(),
            audience: audience.clone(),
            audience_id,
            publisher: Arc::clone(&self.0.publisher),
        })
    }

    /// The rooms, and how many were left off. Tries at most [`AUTO_JOIN_MAX`] names, so a token full of values stays cheap.
    fn auto_joined(&self) -> (Vec<Room>, usize) {
        self.opened(|entry| entry.auto_join)
    }

    /// The rooms that these entries open, each once, and how many were left off.
    fn opened(&self, meant: impl Fn(&Entry) -> bool) -> (Vec<Room>, usize) {
        let mut rooms: Vec<Room> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let (mut tried, mut left_off) = (0, 0_usize);
        let may = |entry: &&Entry| {
            meant(entry)
                && entry
                    .subscribe
                    .is_some_and(|asked| self.0.permissions.holds(asked))
        };
        if self.0.personal.is_none() {
            return (rooms, 0);
        }
        for entry in self.0.policy.entries.iter().filter(may) {
            let names = entry.pattern.room_count(&self.0.values);
            let tries = names.min(AUTO_JOIN_MAX - tried);
            rooms.extend(
                entry
                    .pattern
                    .rooms(&self.0.values, tries)
                    .filter(|room| seen.insert(room.clone())),
            );
            tried += tries;
            left_off = left_off.saturating_add(names - tries);
        }
        (rooms, left_off)
    }
}

/// Shows whose rights they are.
impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rights")
            .field("tenant", &self.0.tenant)
            .field("publisher", &self.0.publisher)
            .field("audiences", &self.0.audiences)
            .finish_non_exhaustive()
    }
}

pub(crate) fn sum_of_roles(
    policy: &Compiled,
    roles: impl Iterator<Item = usize>,
) -> (PermissionSet, AudienceSet) {
    let mut permissions = PermissionSet::default();
    let mut audiences = AudienceSet::EVERYBODY;
    for role in roles.filter_map(|index| policy.roles.get(index)) {
        permissions.add(&role.permissions);
        audiences = audiences.union(role.audiences);
    }
    (permissions, audiences)
}

/// The values of a claim that are tokens, sorted, each once: text, whole numbers, or a list of them.
fn tokens(claim: &Value, skipped: &mut usize) -> Box<[Box<str>]> {
    let mut found = match claim {
        Value::Array(list) => list.iter().filter_map(|value| token(value, skipped)).collect(),
        one => token(one, skipped).into_iter().collect::<Vec<_>>(),
    };
    found.sort_unstable();
    found.dedup();
    found.into()
}

fn token(value: &Value, skipped: &mut usize) -> Option<Box<str>> {
    let text = match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    };
    let token = text.filter(|text| is_token(text));
    *skipped += usize::from(token.is_none());
    token.map(Into::into)
}

pub mod why;

#[cfg(test)]
mod tests;
