//! The policy file: roles, rooms, commands and publishers, read once and compiled so that deciding is cheap.
//!
//! Services read `policy.yaml` at start and at each reload, keep the result behind a shared pointer and ask it for the
//! [`Rights`] of each principal. A policy with any mistake is no policy; all its mistakes are reported at once.

mod compile;
mod compiled;
pub(crate) mod draft;
mod exposure;
mod roles;
mod sections;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use roomcast_proto::ids::{Audience, Room, Tenant};
use serde_json::{Map, Value};

pub(crate) use compiled::{Compiled, Entry, PermissionId, PermissionSet};

use crate::audience::{AudienceId, AudienceSet};
use crate::principal::Principal;
use crate::rights::Rights;
use crate::yaml::{self, Mistake};

/// Where `activity` messages of clients go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// The room of the events.
    pub room: Room,
    /// Who of its members gets them.
    pub audience: Audience,
}

/// A policy without mistakes. Cloning is cheap.
#[derive(Clone)]
pub struct Policy {
    compiled: Arc<Compiled>,
    publishers: Arc<HashMap<Tenant, HashMap<String, Rights>>>,
}

impl Policy {
    /// Reads a policy from YAML. `file` is only the name that mistakes carry; nothing is opened.
    ///
    /// # Errors
    /// Every mistake that can be found, in the order of the file, at most [`yaml::MISTAKES_MAX`].
    pub fn parse(text: &str, file: &str) -> Result<Self, Vec<Mistake>> {
        Self::parse_after(text, file, None)
    }

    /// The same for a policy that takes the place of another one in a running process: roles keep the numbers of their audiences, so
    /// that events and permits which were made before mean the same under both.
    ///
    /// # Errors
    /// As [`Policy::parse`]; and more different role names than there are numbers, over all policies of this process.
    pub fn parse_after(text: &str, file: &str, before: Option<&Self>) -> Result<Self, Vec<Mistake>> {
        let (root, mut mistakes) = yaml::read(text, file)?;
        let draft = draft::read(&root, &mut mistakes);
        let before = before.map(|before| &*before.compiled);
        let (compiled, publishers) = compile::compile(draft, fnv1a64(text.as_bytes()), before, &mut mistakes);
        if !mistakes.is_empty() {
            return Err(mistakes.finish());
        }
        let compiled = Arc::new(compiled);
        let mut by_tenant: HashMap<Tenant, HashMap<String, Rights>> = HashMap::new();
        for publisher in publishers {
            let rights =
                Rights::of_publisher(&compiled, &publisher.tenant, &publisher.user, &publisher.roles);
            by_tenant
                .entry(publisher.tenant)
                .or_default()
                .insert(publisher.user, rights);
        }
        Ok(Self {
            compiled,
            publishers: Arc::new(by_tenant),
        })
    }

    /// What a principal may do. A few microseconds; meant to be kept for the life of a connection or request.
    #[must_use]
    pub fn rights(&self, principal: &Principal) -> Rights {
        self.rights_with(principal, std::iter::empty())
    }

    /// The same with roles that were granted beside those of the token. Like those, unknown ones mean nothing.
    #[must_use]
    pub fn rights_with<'a>(
        &self,
        principal: &'a Principal,
        granted: impl Iterator<Item = &'a str>,
    ) -> Rights {
        Rights::of_principal(&self.compiled, principal, granted)
    }

    /// Whether these rights were decided under this policy.
    #[must_use]
    pub fn decided(&self, rights: &Rights) -> bool {
        rights.is_under(&self.compiled)
    }

    /// What a NATS user may publish; `None` for one that is not listed, which may publish nothing.
    ///
    /// Such a publisher has no token and so no claims: the policy's own list vouches for it, and a `{claim}` token of a
    /// room it may publish to stands for any one token. It reads nothing.
    #[must_use]
    pub fn publisher(&self, tenant: &Tenant, nats_user: &str) -> Option<Rights> {
        self.publishers.get(tenant)?.get(nats_user).cloned()
    }

    /// The listed NATS users with their rights, in no order: account permissions and queues are generated from them.
    pub fn publishers(&self) -> impl Iterator<Item = (&Tenant, &str, &Rights)> {
        self.publishers.iter().flat_map(|(tenant, users)| {
            users
                .iter()
                .map(move |(user, rights)| (tenant, user.as_str(), rights))
        })
    }

    /// The number of an audience: a role's name or `all`. `None` means `unknown_audience`.
    #[must_use]
    pub fn audience(&self, name: &str) -> Option<AudienceId> {
        self.compiled.audience(name)
    }

    /// All audiences, `all` first.
    pub fn audiences(&self) -> impl Iterator<Item = &str> {
        self.compiled.audience_names()
    }

    /// The roles whose holders belong to an audience, in the order of the policy.
    pub(crate) fn roles_with(&self, audience: AudienceId) -> impl Iterator<Item = &str> {
        let roles = self.compiled.roles.iter().zip(self.compiled.role_names());
        roles
            .filter(move |(role, _)| role.audiences.contains(audience))
            .map(|(_, name)| name)
    }

    /// The policy's name for a role as a token spells it, aliases included; `None` for one that is not in the policy.
    #[must_use]
    pub fn role_name(&self, token_role: &str) -> Option<&str> {
        self.compiled.role_name(token_role)
    }

    /// Whether any entry lets anybody see who is in this room. Personal rooms show nobody.
    #[must_use]
    pub fn shows_presence(&self, room: &Room) -> bool {
        !room.is_personal() && self.compiled.shows_presence(room)
    }

    /// The audiences of somebody with these roles, by the policy's names or as a token spells them.
    #[must_use]
    pub fn audiences_of(&self, roles: &[String]) -> AudienceSet {
        let known = roles.iter().filter_map(|role| self.compiled.role(role));
        crate::rights::sum_of_roles(&self.compiled, known).1
    }

    /// Of a token's claims those that rooms of this policy name: what another service needs to decide as this one does.
    #[must_use]
    pub fn named_claims(&self, claims: &Map<String, Value>) -> Map<String, Value> {
        let named = |name: &String| Some((name.clone(), claims.get(name)?.clone()));
        self.compiled.claims.iter().filter_map(named).collect()
    }

    /// Where a trigger goes that names a role and no room; `None`: it must name one.
    #[must_use]
    pub fn trigger_room(&self) -> Option<&Room> {
        self.compiled.trigger_room.as_ref()
    }

    /// Where activity goes; `None` means that clients may not send any.
    #[must_use]
    pub fn activity(&self) -> Option<&Activity> {
        self.compiled.activity.as_ref()
    }

    /// Whether any entry could open this room to anybody. Only for those who hold every permission
    /// ([`Rights::hold_everything`]): everybody else gets the same answer for absent and forbidden.
    #[must_use]
    pub fn knows_room(&self, room: &Room) -> bool {
        room.is_personal() || self.compiled.could_open(room)
    }

    /// A mark of the file's content, to tell policies apart in logs and metrics.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.compiled.fingerprint
    }
}

/// Shows how large it is; the content is in the file.
impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("fingerprint", &format_args!("{:016x}", self.compiled.fingerprint))
            .field("audiences", &self.audiences().count())
            .field("rooms", &self.compiled.entries.len())
            .finish_non_exhaustive()
    }
}

/// FNV-1a, 64 bits.
fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| {
        (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
pub(crate) use tests::EXAMPLE;

#[cfg(test)]
mod tests;
