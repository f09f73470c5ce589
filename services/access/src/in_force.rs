//! What is in force at one moment: a policy, and beside it grants and revocations.
//!
//! Made anew by whoever follows them, at each change. The only way from a principal to rights in a running service, so that no door
//! forgets to ask whether somebody was revoked.

use std::sync::Arc;

use crate::acl::{Acl, Cause};
use crate::policy::Policy;
use crate::principal::Principal;
use crate::rights::Rights;

/// The policy, the grants and the revocations of one moment.
#[derive(Debug, Clone)]
pub struct InForce {
    /// The policy.
    pub policy: Policy,
    /// Grants and revocations.
    pub acl: Arc<Acl>,
    /// Grows with every change, never twice the same in a process.
    pub generation: u64,
}

/// The principal has no rights at all, whatever its token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("revoked")]
pub struct Revoked(pub Cause);

impl Revoked {
    /// The label for a counter of tokens that were not accepted.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self.0 {
            Cause::User => "revoked_user",
            Cause::Token => "revoked_token",
            Cause::UserBefore => "revoked_user_before",
            Cause::TenantBefore => "revoked_tenant_before",
        }
    }
}

/// What a principal may do, and under what it was decided.
#[derive(Debug, Clone)]
pub struct Decided {
    /// Its roles by the policy's names, those granted to it included, sorted.
    pub roles: Arc<[String]>,
    /// What they let it do.
    pub rights: Rights,
    /// [`InForce::generation`].
    pub generation: u64,
}

/// What became of a decision when it was made again.
#[derive(Debug, Clone)]
pub enum Again {
    /// Nothing changed for this principal.
    Same,
    /// Something may have.
    Changed(Decided),
}

impl InForce {
    /// A policy alone, as at the start.
    #[must_use]
    pub fn of(policy: Policy) -> Self {
        Self {
            policy,
            acl: Arc::default(),
            generation: 1,
        }
    }

    /// What a principal may do. `now`: Unix seconds. A few microseconds; not to be kept beyond a change of generation.
    ///
    /// # Errors
    /// [`Revoked`]: treat it like a token that is not valid.
    pub fn decide(&self, principal: &Principal, now: i64) -> Result<Decided, Revoked> {
        self.check(principal, now)?;
        Ok(Decided {
            roles: self.roles(principal, now).into(),
            rights: self
                .policy
                .rights_with(principal, self.acl.granted(principal, now)),
            generation: self.generation,
        })
    }

    /// Decides again about a principal. Cheap where nothing changed for it: then `decided` is what [`InForce::decide`] would answer,
    /// but for the generation.
    ///
    /// # Errors
    /// As [`InForce::decide`].
    pub fn again(&self, principal: &Principal, decided: &Decided, now: i64) -> Result<Again, Revoked> {
        self.check(principal, now)?;
        if self.policy.decided(&decided.rights) && *self.roles(principal, now) == *decided.roles {
            return Ok(Again::Same);
        }
        self.decide(principal, now).map(Again::Changed)
    }

    /// Whether anything is left of the principal's rights.
    ///
    /// # Errors
    /// [`Revoked`].
    pub fn check(&self, principal: &Principal, now: i64) -> Result<(), Revoked> {
        self.acl
            .revoked(principal, now)
            .map_or(Ok(()), |cause| Err(Revoked(cause)))
    }

    fn roles(&self, principal: &Principal, now: i64) -> Vec<String> {
        let all = principal
            .roles
            .iter()
            .map(String::as_str)
            .chain(self.acl.granted(principal, now));
        let mut known: Vec<String> = all
            .filter_map(|role| self.policy.role_name(role))
            .map(str::to_owned)
            .collect();
        known.sort_unstable();
        known.dedup();
        known
    }
}

#[cfg(test)]
mod tests;
