//! Tickets: what browsers show that cannot set a header, and what a gateway asks of `svc.….tickets` for them.
//!
//! A ticket is a name for something that ingest keeps for 30 s and gives out once. It names the tenant, because a gateway must know
//! whom to ask, and 128 random bits; the bucket holds a hash of those, so reading the bucket gives nobody a ticket.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::Tenant;

/// How long a ticket is good for.
pub const KEPT: Duration = Duration::from_secs(30);
/// Random bytes of a ticket.
pub const SECRET_BYTES: usize = 16;
/// Largest holder as JSON: a token's claims are below it.
pub const HOLDER_BYTES_MAX: usize = 14 * 1024;

/// A ticket as its holder has it: `<tenant>.<22 characters>`. It is a secret: `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    tenant: Tenant,
    secret: [u8; SECRET_BYTES],
}

impl Ticket {
    /// A new one; `secret` is random.
    #[must_use]
    pub fn new(tenant: Tenant, secret: [u8; SECRET_BYTES]) -> Self {
        Self { tenant, secret }
    }

    /// Reads one. `None`: not one of ours; answer like a token that is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (tenant, secret) = text.split_once('.')?;
        let secret = URL_SAFE_NO_PAD.decode(secret).ok()?;
        Some(Self {
            tenant: Tenant::parse(tenant).ok()?,
            secret: secret.try_into().ok()?,
        })
    }

    /// The text for its holder.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}.{}", self.tenant, URL_SAFE_NO_PAD.encode(self.secret))
    }

    /// Whose it is.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The name under which it is kept: 22 characters of a hash. Nobody makes the ticket from it.
    #[must_use]
    pub fn id(&self) -> String {
        let mut sum = digest::Context::new(&digest::SHA256);
        sum.update(b"roomcast-ticket\0");
        sum.update(&self.secret);
        let sum = sum.finish();
        let half = sum.as_ref().get(..SECRET_BYTES).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(half)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({})", self.tenant)
    }
}

/// The verbs of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Keeps a ticket: [`Keep`] to [`Kept`].
    Keep,
    /// Gives it out, once: [`Take`] to [`Taken`].
    Take,
}

impl Verb {
    /// Both.
    pub const ALL: [Verb; 2] = [Verb::Keep, Verb::Take];

    /// The token in the subject.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Keep => "keep",
            Verb::Take => "take",
        }
    }

    /// The verb with this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Verb> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == name)
    }
}

/// What stands behind a ticket: the token it was got with, and what it is bound to.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// The token's subject.
    pub user: String,
    /// Its roles, as the token spells them.
    pub roles: Vec<String>,
    /// Its other claims.
    pub claims: Map<String, Value>,
    /// `exp`, Unix seconds.
    pub expires_at: i64,
    /// `iat`, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<i64>,
    /// `jti`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// The rooms it opens, and no others.
    pub rooms: Vec<String>,
    /// The origin whose pages may show it; `None`: no page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// Shows the user only: claims may hold anything.
impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holder")
            .field("user", &self.user)
            .field("rooms", &self.rooms)
            .finish_non_exhaustive()
    }
}

/// Asks to keep a ticket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// [`Ticket::id`].
    pub id: String,
    /// What stands behind it.
    pub holder: Holder,
}

/// It is kept, for [`KEPT`] from now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {}

/// Asks for what stands behind a ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Take {
    /// [`Ticket::id`].
    pub id: String,
}

/// What stands behind it; `None`: there is no such ticket, or it was taken, or it is too old. Nobody is told which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    /// See above.
    pub holder: Option<Holder>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_read_as_it_was_written_and_nothing_else_is_one() {
        let ticket = Ticket::new(Tenant::parse("acme").unwrap(), [7; SECRET_BYTES]);
        let text = ticket.text();
        assert_eq!(text, "acme.BwcHBwcHBwcHBwcHBwcHBw");
        assert_eq!(Ticket::parse(&text), Some(ticket.clone()));
        assert_eq!(format!("{ticket:?}"), "Ticket(acme)");
        let id = ticket.id();
        assert!(
            id.len() == 22 && crate::ids::is_token(&id) && !text.contains(&id),
            "{id}"
        );
        let other = Ticket::new(Tenant::default(), [7; SECRET_BYTES]);
        assert_eq!(other.id(), id, "the key names the tenant beside it");
        for bad in [
            "",
            "acme",
            "acme.",
            ".BwcHBwcHBwcHBwcHBwcHBw",
            "GW.BwcHBwcHBwcHBwcHBwcHBw",
            "acme.BwcHBwcHBwcHBwcHBwcHBw==",
            "acme.BwcHBwcHBwcHBwcHBwcHBx",
            "acme.BwcHBwcHBwcHBwcHBwcH",
            "acme.BwcHBwcHBwcHBwcHBwcHBwcH",
            "acme.x.BwcHBwcHBwcHBwcHBwcHBw",
            "acme.*",
            "ac me.BwcHBwcHBwcHBwcHBwcHBw",
        ] {
            assert_eq!(Ticket::parse(bad), None, "{bad}");
        }
    }
}
