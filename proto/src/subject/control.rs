//! Subjects of control: the `acl` and `cfg` buckets, and what ingest says to gateways on `ctl.`.

use crate::ids::escape;

/// Changes of the `acl` bucket as the server republishes them.
pub const ACL_LIVE_ALL: &str = "kvl.acl.>";
/// Changes of the `cfg` bucket as the server republishes them.
pub const CFG_LIVE_ALL: &str = "kvl.cfg.>";
/// The policy that takes the place of the services' files.
pub const POLICY: &str = "$KV.cfg.policy";
/// What ingest tells all gateways to do with connections.
pub const CONTROL_ALL: &str = "ctl.>";
/// Ends connections; what it says is [`crate::acl::Kick`].
pub const KICK: &str = "ctl.kick";

/// Asks all gateways who is connected; what it says is [`crate::statistics::Question`].
pub const STATISTICS: &str = "ctl.statistics";
/// What gateways answer to that.
pub const STATISTICS_ANSWERS_ALL: &str = "sts.>";

const ACL: &str = "$KV.acl.";

/// `$KV.acl.<key>`; the key is spelled by [`crate::acl::Key`].
#[must_use]
pub fn acl_entry(key: &str) -> String {
    format!("{ACL}{key}")
}

/// `sts.<question>`: where gateways answer it. The id is escaped here.
#[must_use]
pub fn statistics_answer(question: &str) -> String {
    format!("sts.{}", escape(question))
}

/// The key of a message of the `acl` bucket; `None`: not of that bucket.
#[must_use]
pub fn acl_key(subject: &str) -> Option<&str> {
    subject.strip_prefix(ACL)
}
