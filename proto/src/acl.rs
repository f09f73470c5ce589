//! The `acl` bucket: what is granted to users and what is revoked, beside tokens and policy; and kicks, which nobody remembers.
//!
//! One key for each fact, so that nobody has to read before writing. Written by ingest alone, read by gateways and ingests.

use serde::{Deserialize, Serialize};

use crate::close::Close;
use crate::ids::{Tenant, escape, is_escaped_token, is_token};

/// What one entry is about. Users and token ids are escaped tokens here, see [`escape`]; the text is in [`Entry::name`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `grant.<tenant>.<user>.<role>`: the user has one role more.
    Grant {
        /// Whose user.
        tenant: Tenant,
        /// The user.
        user: String,
        /// The role, by the policy's name or an alias.
        role: String,
    },
    /// `user.<tenant>.<user>`: no token of this user counts.
    User {
        /// Whose user.
        tenant: Tenant,
        /// The user.
        user: String,
    },
    /// `token.<tenant>.<jti>`: this token does not count.
    Token {
        /// Whose token.
        tenant: Tenant,
        /// Its `jti`.
        token: String,
    },
    /// `before.<tenant>.<user>`, `before.<tenant>`: tokens of the user, or of all users, that were issued before [`Entry::before`], or do not
    /// say when, do not count.
    Before {
        /// Whose users.
        tenant: Tenant,
        /// The user; all of the tenant's without one.
        user: Option<String>,
    },
}

impl Key {
    /// The key of a granted role.
    #[must_use]
    pub fn grant(tenant: &Tenant, user: &str, role: &str) -> Self {
        Self::Grant {
            tenant: tenant.clone(),
            user: escape(user),
            role: role.to_owned(),
        }
    }

    /// The key of a revoked user.
    #[must_use]
    pub fn user(tenant: &Tenant, user: &str) -> Self {
        Self::User {
            tenant: tenant.clone(),
            user: escape(user),
        }
    }

    /// The key of a revoked token.
    #[must_use]
    pub fn token(tenant: &Tenant, token_id: &str) -> Self {
        Self::Token {
            tenant: tenant.clone(),
            token: escape(token_id),
        }
    }

    /// The key of a revocation by time.
    #[must_use]
    pub fn before(tenant: &Tenant, user: Option<&str>) -> Self {
        Self::Before {
            tenant: tenant.clone(),
            user: user.map(escape),
        }
    }

    /// Reads the key of the bucket; `None` for one that is not ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (kind, tenant) = (parts.next()?, Tenant::parse(parts.next()?).ok()?);
        let escaped = |token: &str| is_escaped_token(token).then(|| token.to_owned());
        let (first, second) = (parts.next(), parts.next());
        if parts.next().is_some() {
            return None;
        }
        Some(match (kind, first, second) {
            ("grant", Some(user), Some(role)) if is_token(role) => Self::Grant {
                tenant,
                user: escaped(user)?,
                role: role.to_owned(),
            },
            ("user", Some(user), None) => Self::User {
                tenant,
                user: escaped(user)?,
            },
            ("token", Some(token), None) => Self::Token {
                tenant,
                token: escaped(token)?,
            },
            ("before", Some(user), None) => Self::Before {
                tenant,
                user: Some(escaped(user)?),
            },
            ("before", None, None) => Self::Before { tenant, user: None },
            _ => return None,
        })
    }

    /// The tenant it is about.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        match self {
            Self::Grant { tenant, .. }
            | Self::User { tenant, .. }
            | Self::Token { tenant, .. }
            | Self::Before { tenant, .. } => tenant,
        }
    }

    /// Whether it takes something away.
    #[must_use]
    pub fn is_revocation(&self) -> bool {
        !matches!(self, Self::Grant { .. })
    }
}

/// The key as the bucket has it.
impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Grant { tenant, user, role } => write!(f, "grant.{tenant}.{user}.{role}"),
            Self::User { tenant, user } => write!(f, "user.{tenant}.{user}"),
            Self::Token { tenant, token } => write!(f, "token.{tenant}.{token}"),
            Self::Before {
                tenant,
                user: Some(user),
            } => write!(f, "before.{tenant}.{user}"),
            Self::Before { tenant, user: None } => write!(f, "before.{tenant}"),
        }
    }
}

/// What stands under a key, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Entry {
    /// The user or the token's id as it is written outside; empty where it is all users.
    #[serde(default)]
    pub name: String,
    /// From when on it does not hold any more, Unix seconds; without it, until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// For [`Key::Before`]: tokens issued before this do not count, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<i64>,
}

/// Which connections every gateway ends now. Nothing is remembered: who comes back with a good token is let in.
///
/// At least one of `user` and `connection`, or `everybody: true`, must be said: nobody ends all connections by leaving something out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kick {
    /// Of this tenant.
    pub tenant: Tenant,
    /// Of this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// This connection, by its name in `connected`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// All of the tenant's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub everybody: bool,
}

impl Kick {
    /// How those connections end: the client may come back, after a while.
    pub const CLOSE: Close = Close::Kicked;

    /// Reads one; `None` for what is not one.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let kick: Self = serde_json::from_slice(bytes).ok()?;
        kick.is_definite().then_some(kick)
    }

    /// Whether it says whom.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        let named = self.user.is_some() || self.connection.is_some();
        named != self.everybody
    }

    /// Whether it means this connection.
    #[must_use]
    pub fn means(&self, tenant: &Tenant, user: &str, connection: &str) -> bool {
        self.tenant == *tenant
            && self.user.as_deref().is_none_or(|name| name == user)
            && self.connection.as_deref().is_none_or(|name| name == connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_documented_ones_and_are_read_back() {
        let main = Tenant::default();
        let rows = [
            (Key::grant(&main, "a@b", "staff"), "grant.main.a=40b.staff"),
            (Key::user(&main, "u1"), "user.main.u1"),
            (Key::token(&main, "7.7"), "token.main.7=2E7"),
            (Key::before(&main, Some("u1")), "before.main.u1"),
            (Key::before(&main, None), "before.main"),
        ];
        for (key, text) in rows {
            assert_eq!(key.to_string(), text);
            assert_eq!(Key::parse(text), Some(key));
        }
        for strange in [
            "",
            "user",
            "user.main",
            "user.main.u1.x",
            "user.GW.u1",
            "user.main.a b",
            "grant.main.u1",
            "grant.main.u1.a=b",
            "grant.main.u1.staff.x",
            "token.main",
            "before",
            "before.main.u1.x",
            "other.main.u1",
        ] {
            assert_eq!(Key::parse(strange), None, "{strange:?}");
        }
    }

    #[test]
    fn a_kick_says_whom() {
        let means = |text: &str| {
            Kick::read(text.as_bytes()).map(|kick| {
                (
                    kick.means(&Tenant::default(), "u1", "c1"),
                    kick.means(&Tenant::default(), "u2", "c2"),
                )
            })
        };
        let rows = [
            (r#"{"tenant":"main","user":"u1"}"#, Some((true, false))),
            (r#"{"tenant":"main","connection":"c2"}"#, Some((false, true))),
            (
                r#"{"tenant":"main","user":"u1","connection":"c2"}"#,
                Some((false, false)),
            ),
            (r#"{"tenant":"main","everybody":true}"#, Some((true, true))),
            (r#"{"tenant":"acme","everybody":true}"#, Some((false, false))),
            (r#"{"tenant":"main"}"#, None),
            (r#"{"tenant":"main","user":"u1","everybody":true}"#, None),
            (r#"{"user":"u1"}"#, None),
            (r#"{"tenant":"main","user":"u1","room":"x"}"#, None),
            (
                r#"{"type":"io.nats.jetstream.api.v1.stream_info_response"}"#,
                None,
            ),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(means(text), expected, "{text}");
        }
    }
}
