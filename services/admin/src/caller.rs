//! Who calls, for handlers; and what handlers add to the record.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;

/// The administrator whose token a call carries. Handlers take it as `Extension<Caller>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's `sub`.
    pub subject: Arc<str>,
    /// The token's `jti`.
    pub token_id: Option<Arc<str>>,
    /// Where the call comes from; `None` only in tests without a socket.
    pub from: Option<SocketAddr>,
}

/// What a handler adds to the record of its call: put it into the answer's extensions. Never secrets, never contents of events.
#[derive(Clone, Debug)]
pub struct Note(pub Value);
