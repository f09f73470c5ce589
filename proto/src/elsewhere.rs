//! What gateways pass to each other because the connection that is meant is at another one: see `prs.<gateway>.passed` in
//! [`crate::subject`].

use serde::{Deserialize, Serialize};

/// One message of one gateway to all others.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passed {
    /// The name of the gateway's life.
    pub gateway: String,
    /// What it passes.
    pub what: Pass,
}

/// What is passed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Pass {
    /// A newer token for a stream; whoever has it verifies the token itself.
    Refresh {
        /// What the answer is to name.
        ask: String,
        /// The connection, as `connected` called it.
        connection: String,
        /// The token.
        token: String,
    },
    /// The stream goes on. What is refused is not answered: it looks like a stream that is nowhere.
    Refreshed {
        /// What was asked.
        ask: String,
        /// When the newer token ends, RFC 3339.
        expires_at: String,
        /// The roles in force.
        roles: Vec<String>,
    },
}

/// Shows who passes what, and never a token.
impl std::fmt::Debug for Passed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match &self.what {
            Pass::Refresh { .. } => "refresh",
            Pass::Refreshed { .. } => "refreshed",
        };
        f.debug_struct("Passed")
            .field("gateway", &self.gateway)
            .field("what", &what)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_the_documented_ones_and_strange_ones_are_not_read() {
        let refresh = r#"{"gateway":"g","what":{"refresh":{"ask":"a","connection":"c1","token":"secret"}}}"#;
        let refreshed = r#"{"gateway":"g","what":{"refreshed":{"ask":"a","expires_at":"2026-01-01T00:00:00Z","roles":["r"]}}}"#;
        for text in [refresh, refreshed] {
            let passed: Passed = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&passed).unwrap(), text);
            assert!(!format!("{passed:?}").contains("secret"));
        }
        for strange in [
            "",
            r#"{"gateway":"g"}"#,
            r#"{"gateway":"g","what":"refresh"}"#,
            r#"{"gateway":"g","what":{"refresh":{"ask":"a","connection":"c1"}}}"#,
            r#"{"gateway":"g","what":{"refresh":{"ask":"a","connection":"c1","token":"t","more":1}}}"#,
            r#"{"gateway":"g","what":{"refreshed":{"ask":"a","expires_at":"x","roles":[]}},"more":1}"#,
        ] {
            assert!(serde_json::from_str::<Passed>(strange).is_err(), "{strange}");
        }
    }
}
