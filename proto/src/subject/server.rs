//! Subjects with which the servers themselves are asked, by users of the account SYS.

/// What a server whose account imports are in order listens to for each tenant: an event and a queued event, of anybody.
pub const TENANT_PROBES: [&str; 2] = ["in.any.all", "inq.any.any.all"];

/// Asks one server: `RELOAD` has it read its configuration again, `ACCOUNTZ` tells its accounts, `SUBSZ` its subscriptions.
#[must_use]
pub fn server_question(server_id: &str, what: &str) -> String {
    format!("$SYS.REQ.SERVER.{server_id}.{what}")
}
