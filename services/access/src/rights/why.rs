//! Why a holder may follow a room or not, and which rooms it may follow at all.
//!
//! For operators alone: it says what exists, which no client may be told. Nothing is decided here; properties hold every answer to
//! what [`Rights::subscribe`] decides.

use roomcast_proto::ids::Room;

use super::Rights;
use crate::policy::{Compiled, Entry, PermissionId, Policy};

/// Why a room is open to somebody, or closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Open: it is the holder's own.
    Own,
    /// Open: an entry of the policy says so.
    Opened {
        /// The entry, as the policy writes it.
        entry: String,
        /// The permission that it asks for and the holder has.
        permission: String,
    },
    /// Closed: it is somebody else's own, or the holder is no user.
    NotOwn,
    /// Closed: entries name the room; the holder has none of the permissions that they ask for.
    Permission {
        /// The permissions, each of which would do.
        lacks: Vec<String>,
    },
    /// Closed: the holder has the permission, and its claims name other rooms.
    Claims {
        /// The entries.
        entries: Vec<String>,
    },
    /// Closed: no entry lets anybody follow it.
    Nobody,
}

impl Why {
    /// Whether the room is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Own | Self::Opened { .. })
    }

    /// One word of a closed set.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Opened { .. } => "opened",
            Self::NotOwn => "not_own",
            Self::Permission { .. } => "permission",
            Self::Claims { .. } => "claims",
            Self::Nobody => "nobody",
        }
    }
}

impl Rights {
    /// Why [`Rights::subscribe`] answers for this room as it does.
    #[must_use]
    pub fn why(&self, room: &Room) -> Why {
        let inner = &self.0;
        let policy = &*inner.policy;
        if room.is_personal() || inner.personal.is_none() {
            return match inner.personal.as_ref() {
                Some(own) if own == room => Why::Own,
                _ => Why::NotOwn,
            };
        }
        let asked = |entry: &Entry| entry.subscribe;
        let named: Vec<(&Entry, PermissionId)> = policy
            .candidates(room)
            .filter(|entry| entry.pattern.could_match(room))
            .filter_map(|entry| Some((entry, asked(entry)?)))
            .collect();
        let (held, lacking): (Vec<_>, Vec<_>) = named
            .into_iter()
            .partition(|(_, permission)| inner.permissions.holds(*permission));
        let opening = held.iter().find(|(entry, _)| self.is_open(entry, room));
        if let Some((entry, permission)) = opening {
            return Why::Opened {
                entry: entry.pattern.text(&policy.claims),
                permission: permission_name(policy, *permission),
            };
        }
        if !held.is_empty() {
            let entries = held.iter().map(|(entry, _)| entry.pattern.text(&policy.claims));
            return Why::Claims {
                entries: entries.collect(),
            };
        }
        let mut lacks: Vec<String> = lacking
            .iter()
            .map(|(_, permission)| permission_name(policy, *permission))
            .collect();
        lacks.sort_unstable();
        lacks.dedup();
        match lacks.is_empty() {
            true => Why::Nobody,
            false => Why::Permission { lacks },
        }
    }

    /// The rooms that the holder may follow, in the order of the policy, at most [`super::AUTO_JOIN_MAX`], each once; and how many
    /// were left off by that limit. The personal room is not among them.
    #[must_use]
    pub fn rooms(&self) -> (Vec<Room>, usize) {
        self.opened(|_| true)
    }
}

impl Policy {
    /// The roles whose holders belong to an audience, by name: those that it is inherited by, and itself. Everybody belongs to `all`,
    /// so for that there are none.
    #[must_use]
    pub fn roles_of_audience(&self, audience: &str) -> Vec<&str> {
        let Some(id) = self.audience(audience).filter(|id| id.index() != 0) else {
            return Vec::new();
        };
        let mut names: Vec<&str> = self.roles_with(id).collect();
        names.sort_unstable();
        names
    }
}

fn permission_name(policy: &Compiled, permission: PermissionId) -> String {
    let found = policy.permissions.iter().find(|(_, id)| **id == permission);
    found.map(|(name, _)| name.clone()).unwrap_or_default()
}
