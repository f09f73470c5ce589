//! Who a verified token says this is.

use std::fmt;
use std::sync::Arc;

use roomcast_proto::ids::{Room, Tenant};
use serde_json::{Map, Value};

/// The holder of a verified token.
///
/// Made by [`crate::Verifier::verify`]. It grants nothing by itself: [`crate::Policy::rights`] says what it may do.
#[derive(Clone, PartialEq)]
pub struct Principal {
    /// The tenant, `main` unless the token says otherwise.
    pub tenant: Tenant,
    /// The user's id (`sub`), 1 to 128 bytes of `[A-Za-z0-9_@:-]`.
    pub subject: Arc<str>,
    /// The roles as the token spells them; aliases and unknown names are the policy's affair.
    pub roles: Vec<String>,
    /// The claims that are not registered ones; room patterns may name them.
    pub claims: Map<String, Value>,
    /// When the token ends (`exp`), seconds since the Unix epoch.
    pub expires_at: i64,
    /// When the token was made (`iat`), seconds since the Unix epoch; revocation by "issued before" needs it.
    pub issued_at: Option<i64>,
    /// The token's own id (`jti`), at most 128 bytes; revocation by token needs it.
    pub token_id: Option<String>,
}

impl Principal {
    /// The room that belongs to this user alone.
    #[must_use]
    pub fn personal_room(&self) -> Room {
        Room::personal(&self.subject)
    }

    /// The last second in which a connection of this principal may live: expiry and the leeway every check of the
    /// token allows, so that a token that was just accepted is not thrown out in the same instant.
    #[must_use]
    pub fn ends_at(&self) -> i64 {
        self.expires_at.saturating_add(crate::token::LEEWAY_SECS)
    }
}

/// Shows names and times only: claims may hold anything, and debug output ends up in logs.
impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal")
            .field("tenant", &self.tenant)
            .field("subject", &self.subject)
            .field("roles", &self.roles)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
