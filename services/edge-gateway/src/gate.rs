//! Who comes in: a token in, a user with rights out.
//!
//! Asked before 101 when a token came with the request, at `connect` and `refresh`, and by every HTTP route. Pure but
//! for the cost of a signature and for looking up what is in force now; the time is an argument.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec};
use roomcast_access::in_force::Again;
use roomcast_access::{Decided, InForce, Principal, Revoked, Rights, TokenError, Verifier};
use roomcast_admin::Audit;
use roomcast_proto::close::Close;
use roomcast_proto::ids::Tenant;
use roomcast_proto::refusal::{Code, Refusal};
use roomcast_rights::Current;

/// When to come back with a token whose key is not there yet, milliseconds: most fetches are over by then.
const RETRY_MS: u64 = 1_000;

/// The keys, and what is in force.
#[derive(Debug)]
pub struct Gate {
    verifier: Verifier,
    rights: Current,
    /// `roomcast_gateway_tokens_total` and those of it that were accepted; `None` where nobody counts.
    shown: Option<(IntCounterVec, IntCounter)>,
    /// Where it is put on record who was refused; `None` where nobody keeps one.
    audit: Option<Audit>,
}

/// A user whose token was verified.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The token's subject.
    pub user: Arc<str>,
    /// The user's roles by the policy's names: those of the token and those granted beside it.
    pub roles: Arc<[String]>,
    /// What the user may do.
    pub rights: Rights,
    /// When the token ends, Unix seconds.
    pub expires_at: i64,
    /// The last second in which it is still honoured: the end and the leeway for clocks.
    pub ends_at: i64,
    /// Under which generation of rights this was decided; see [`Admitted::decide_again`].
    pub generation: u64,
    /// Who this is, to decide again.
    pub principal: Arc<Principal>,
}

/// Nobody comes in with this token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// It is not a token that counts.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// It was one.
    #[error(transparent)]
    Revoked(#[from] Revoked),
}

impl NotAdmitted {
    /// The check that failed, from a closed set: a label for a counter, not for an answer.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Token(error) => error.reason(),
            Self::Revoked(revoked) => revoked.label(),
        }
    }

    /// How a connection ends that has shown it.
    #[must_use]
    pub fn close(self) -> Close {
        match self {
            Self::Token(TokenError::Expired) => Close::Expired,
            // Its key may be there in a moment, here or at another gateway.
            Self::Token(TokenError::Unready) => Close::Resync,
            Self::Token(TokenError::Invalid(_)) => Close::BadToken,
            Self::Revoked(_) => Close::Revoked,
        }
    }
}

impl Gate {
    /// A gate with these keys, under what is in force.
    #[must_use]
    pub fn new(verifier: Verifier, rights: Current) -> Self {
        Self {
            verifier,
            rights,
            shown: None,
            audit: None,
        }
    }

    /// Counts every token that is shown, whatever the way, by its outcome.
    #[must_use]
    pub fn counting(mut self, shown: IntCounterVec) -> Self {
        let accepted = shown.with_label_values(&["accepted"]);
        self.shown = Some((shown, accepted));
        self
    }

    /// Has it on record who is refused.
    #[must_use]
    pub fn recording(mut self, audit: Audit) -> Self {
        self.audit = Some(audit);
        self
    }

    /// What is in force.
    #[must_use]
    pub fn rights(&self) -> &Current {
        &self.rights
    }

    /// Verifies a token and looks up its rights. `now_secs`: Unix seconds.
    ///
    /// # Errors
    /// The verifier's, or that it was revoked; answer with [`refusal`].
    pub fn admit(&self, token: &str, now_secs: i64) -> Result<Admitted, NotAdmitted> {
        let admitted = self.decide(token, now_secs);
        if let Some((shown, accepted)) = &self.shown {
            match &admitted {
                Ok(_) => accepted.inc(),
                Err(error) => shown.with_label_values(&[error.reason()]).inc(),
            }
        }
        admitted
    }

    fn decide(&self, token: &str, now_secs: i64) -> Result<Admitted, NotAdmitted> {
        let verified = self.verifier.verify(token, now_secs);
        let principal = Arc::new(verified.inspect_err(|error| self.record(error.reason(), None))?);
        let admitted = Admitted::new(Arc::clone(&principal), &self.rights.now(), now_secs);
        Ok(admitted.inspect_err(|revoked| self.record(revoked.label(), Some(&principal)))?)
    }

    /// A user is named only where the token is genuine.
    fn record(&self, reason: &'static str, who: Option<&Principal>) {
        if let Some(audit) = &self.audit {
            let who = who.map(|who| (who.tenant.as_str(), &*who.subject));
            audit.refused("token", reason, who);
        }
    }

    /// Puts on record that a user asked for something without the right to it: a minute of that is one entry.
    pub fn forbade(&self, what: &'static str, who: &Admitted) {
        if let Some(audit) = &self.audit {
            let who = (who.rights.tenant().as_str(), &*who.user);
            audit.refused(what, Code::Forbidden.as_str(), Some(who));
        }
    }

    /// Decides again about a user whose request has waited. Whether anything may have changed.
    ///
    /// # Errors
    /// That the token has ended or was revoked since.
    pub fn again(&self, admitted: &mut Admitted, now_secs: i64) -> Result<bool, NotAdmitted> {
        if now_secs >= admitted.ends_at {
            return Err(TokenError::Expired.into());
        }
        Ok(admitted.decide_again(&self.rights.now(), now_secs)?)
    }

    /// Looks up the rights of a user whose token was verified before, here or at another gateway.
    ///
    /// # Errors
    /// That the token has ended or was revoked since.
    pub fn admit_again(&self, principal: Principal, now_secs: i64) -> Result<Admitted, NotAdmitted> {
        if now_secs >= principal.ends_at() {
            return Err(TokenError::Expired.into());
        }
        Ok(Admitted::new(principal.into(), &self.rights.now(), now_secs)?)
    }

    /// Whether users of this tenant come in here.
    #[must_use]
    pub fn serves(&self, tenant: &Tenant) -> bool {
        self.verifier.serves(tenant)
    }
}

impl Admitted {
    fn new(principal: Arc<Principal>, in_force: &InForce, now_secs: i64) -> Result<Self, Revoked> {
        let Decided {
            roles,
            rights,
            generation,
        } = in_force.decide(&principal, now_secs)?;
        Ok(Self {
            user: Arc::clone(&principal.subject),
            roles,
            rights,
            expires_at: principal.expires_at,
            ends_at: principal.ends_at(),
            generation,
            principal,
        })
    }

    /// Decides again under what is in force now. Whether anything may have changed.
    ///
    /// # Errors
    /// [`Revoked`]: whatever this user has open must end.
    pub fn decide_again(&mut self, in_force: &InForce, now_secs: i64) -> Result<bool, Revoked> {
        let decided = Decided {
            roles: Arc::clone(&self.roles),
            rights: self.rights.clone(),
            generation: self.generation,
        };
        let again = in_force.again(&self.principal, &decided, now_secs)?;
        self.generation = in_force.generation;
        match again {
            Again::Same => Ok(false),
            Again::Changed(decided) => {
                self.roles = decided.roles;
                self.rights = decided.rights;
                Ok(true)
            }
        }
    }
}

/// What may be told about a token that was not accepted: that it has expired, to come back with it, or nothing.
#[must_use]
pub fn refusal(error: NotAdmitted) -> Refusal {
    match error {
        NotAdmitted::Token(TokenError::Expired) => Refusal::new(Code::Expired, "the token has expired"),
        NotAdmitted::Token(TokenError::Unready) => {
            Refusal::new(Code::Unavailable, "the token cannot be checked at the moment")
                .retry_after_ms(RETRY_MS)
        }
        NotAdmitted::Token(TokenError::Invalid(_)) | NotAdmitted::Revoked(_) => no_token(),
    }
}

/// The one answer to a token that is absent and to one that is not valid.
#[must_use]
pub fn no_token() -> Refusal {
    Refusal::new(Code::Unauthenticated, "a valid token is needed")
}
