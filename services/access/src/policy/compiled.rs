//! A policy as numbers: what [`crate::Rights`] asks, laid out so that asking is cheap.

use std::collections::HashMap;
use std::sync::Arc;

use roomcast_proto::ids::{AUDIENCE_ALL, ROOM_TOKENS_MAX, Room};

use super::Activity;
use crate::audience::{AudienceId, AudienceSet};
use crate::pattern::Pattern;
use crate::redact::Pointer;

/// One permission of one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PermissionId(pub(super) usize);

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

    pub(super) fn insert(&mut self, id: PermissionId) {
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
    /// How long its events wait for each other while it is busy.
    pub(crate) flush_millis: Option<u16>,
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
    pub(super) role_names: Vec<String>,
    /// The audience of each role.
    pub(super) role_audiences: Vec<AudienceId>,
    /// Role names by the numbers of their audiences, those of the policies before included; see [`Compiled::number`].
    pub(super) numbered: Vec<String>,
    /// Roles and aliases by name.
    pub(super) role_index: HashMap<String, usize>,
    pub(crate) roles: Vec<Role>,
    /// Names of the claims that patterns use.
    pub(crate) claims: Vec<String>,
    pub(crate) entries: Vec<Entry>,
    /// Whether any of them says [`Entry::flush_millis`].
    pub(super) sets_flush: bool,
    /// Entries without claims by name; more than one never happens, duplicates are mistakes.
    pub(super) plain: HashMap<String, usize, foldhash::fast::RandomState>,
    /// Entries with claims by number of tokens.
    pub(super) with_claims: [Vec<usize>; ROOM_TOKENS_MAX + 1],
    pub(crate) personal: PersonalRooms,
    pub(crate) rules: Vec<Rule>,
    pub(crate) commands: HashMap<Arc<str>, PermissionId>,
    /// Permissions by name, for those that no room and no command asks for.
    pub(crate) permissions: HashMap<String, PermissionId>,
    pub(crate) activity: Option<Activity>,
    pub(crate) trigger_room: Option<Room>,
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
        self.role_audiences.get(index).copied()
    }

    /// Gives every role the number of its audience: the one it had in the policies before, else a new one. So a number means the
    /// same name as long as the process lives, and an event that is under way during a change reaches nobody it is not for.
    /// `false`: there are not enough numbers.
    pub(super) fn number(&mut self, before: Option<&Self>) -> bool {
        self.numbered = before.map(|before| before.numbered.clone()).unwrap_or_default();
        for name in &self.role_names {
            let known = self.numbered.iter().position(|numbered| numbered == name);
            let index = known.unwrap_or_else(|| {
                self.numbered.push(name.clone());
                self.numbered.len() - 1
            });
            let Some(audience) = AudienceId::of_role(index) else {
                return false;
            };
            self.role_audiences.push(audience);
        }
        true
    }

    pub(crate) fn audience_names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(AUDIENCE_ALL).chain(self.role_names())
    }

    /// In the order of [`Compiled::roles`].
    pub(crate) fn role_names(&self) -> impl Iterator<Item = &str> {
        self.role_names.iter().map(String::as_str)
    }

    /// The role that a token's text means, aliases included.
    pub(crate) fn role(&self, text: &str) -> Option<usize> {
        self.role_index.get(text).copied()
    }

    /// The name of the role that a token's text means, aliases included.
    pub(crate) fn role_name(&self, text: &str) -> Option<&str> {
        self.role(text).map(|index| self.role_names[index].as_str())
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

    pub(crate) fn shows_presence(&self, room: &Room) -> bool {
        self.candidates(room)
            .any(|entry| entry.presence.is_some() && entry.pattern.could_match(room))
    }

    /// The least that an entry says which may mean this room: where two disagree, the fresher one counts.
    pub(crate) fn flush_millis(&self, room: &Room) -> Option<u16> {
        if !self.sets_flush {
            return None;
        }
        let meant = self
            .candidates(room)
            .filter(|entry| entry.pattern.could_match(room));
        meant.filter_map(|entry| entry.flush_millis).min()
    }

    pub(crate) fn could_open(&self, room: &Room) -> bool {
        self.candidates(room).any(|entry| entry.pattern.could_match(room))
    }
}
