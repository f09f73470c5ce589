//! Who comes in: a token in, a user with rights out.
//!
//! Asked before 101 when a token came with the request, at `connect` and `refresh`, and by every HTTP route. Pure but
//! for the cost of a signature; the time is an argument.

use std::sync::Arc;

use roomcast_access::{Policy, Rights, TokenError, Verifier};
use roomcast_proto::refusal::{Code, Refusal};

/// When to come back with a token whose key is not there yet, milliseconds: most fetches are over by then.
const RETRY_MS: u64 = 1_000;

/// The keys and the policy in force.
#[derive(Debug)]
pub struct Gate {
    verifier: Verifier,
    policy: Policy,
}

/// A user whose token was verified.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The token's subject.
    pub user: Arc<str>,
    /// The roles of the token that the policy knows, by the policy's names.
    pub roles: Arc<[String]>,
    /// What the user may do.
    pub rights: Rights,
    /// When the token ends, Unix seconds.
    pub expires_at: i64,
    /// The last second in which it is still honoured: the end and the leeway for clocks.
    pub ends_at: i64,
}

impl Gate {
    /// A gate with these keys and this policy.
    #[must_use]
    pub fn new(verifier: Verifier, policy: Policy) -> Self {
        Self { verifier, policy }
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Verifies a token and looks up its rights. `now_secs`: Unix seconds.
    ///
    /// # Errors
    /// The verifier's; answer with [`refusal`].
    pub fn admit(&self, token: &str, now_secs: i64) -> Result<Admitted, TokenError> {
        let principal = self.verifier.verify(token, now_secs)?;
        let known = principal
            .roles
            .iter()
            .filter_map(|role| self.policy.role_name(role));
        let mut roles: Vec<String> = known.map(str::to_owned).collect();
        roles.sort_unstable();
        roles.dedup();
        Ok(Admitted {
            roles: roles.into(),
            rights: self.policy.rights(&principal),
            expires_at: principal.expires_at,
            ends_at: principal.ends_at(),
            user: principal.subject,
        })
    }
}

/// What may be told about a token that was not accepted: that it has expired, to come back with it, or nothing.
#[must_use]
pub fn refusal(error: TokenError) -> Refusal {
    match error {
        TokenError::Expired => Refusal::new(Code::Expired, "the token has expired"),
        TokenError::Unready => Refusal::new(Code::Unavailable, "the token cannot be checked at the moment")
            .retry_after_ms(RETRY_MS),
        TokenError::Invalid(_) => no_token(),
    }
}

/// The one answer to a token that is absent and to one that is not valid.
#[must_use]
pub fn no_token() -> Refusal {
    Refusal::new(Code::Unauthenticated, "a valid token is needed")
}
