//! What gateways say to each other about who is in which room, over core NATS: see `prs.` in [`crate::subject`].

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{Room, Tenant};

/// Users named in one answer or push; a room with more says how many there are.
pub const USERS_SHOWN_MAX: usize = 500;

/// One message of one gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// The name of the gateway's life: another one after each start.
    pub gateway: String,
    /// The number of its last change, this one included.
    pub version: u64,
    /// What it says.
    pub what: What,
}

/// What a gateway says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum What {
    /// It is there; once a second.
    Beat,
    /// This has changed, by one version.
    Changes(Vec<Here>),
    /// Everybody it speaks for, as of its version, in parts.
    All {
        /// Which part, from 0.
        part: u32,
        /// How many there are.
        of: u32,
        /// Those of this part.
        users: Vec<Here>,
    },
    /// The gateway with this name is to say everybody it speaks for.
    TellAll(String),
}

/// A user in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Here {
    /// The tenant.
    pub tenant: Tenant,
    /// The room.
    pub room: Room,
    /// The token's subject.
    pub user: Arc<str>,
    /// How; `None`: no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is: Option<Is>,
}

/// How a user is in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Is {
    /// Its roles, by the policy's names.
    pub roles: Arc<[String]>,
    /// Open connections to this gateway.
    pub connections: u32,
    /// Since when, Unix milliseconds.
    pub since_millis: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_the_documented_ones_and_strange_ones_are_not_read() {
        let beat = r#"{"gateway":"g","version":3,"what":"beat"}"#;
        let changes = r#"{"gateway":"g","version":4,"what":{"changes":[{"tenant":"main","room":"a","user":"u","is":{"roles":["r"],"connections":1,"since_millis":5}},{"tenant":"main","room":"a","user":"v"}]}}"#;
        let ask = r#"{"gateway":"g","version":4,"what":{"tell_all":"h"}}"#;
        for text in [beat, changes, ask] {
            let said: Said = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&said).unwrap(), text);
        }
        for strange in [
            "",
            r#"{"gateway":"g","version":3}"#,
            r#"{"gateway":"g","version":-1,"what":"beat"}"#,
            r#"{"gateway":"g","version":3,"what":{"changes":[{"tenant":"SYS","room":"a","user":"u"}]}}"#,
            r#"{"gateway":"g","version":3,"what":{"changes":[{"tenant":"main","room":"a b","user":"u"}]}}"#,
            r#"{"gateway":"g","version":3,"what":"beat","more":1}"#,
        ] {
            assert!(serde_json::from_str::<Said>(strange).is_err(), "{strange}");
        }
    }
}
