//! Devices of users, and what waits to be sent to them and to webhooks: the keys of the buckets `devices` and `sinks`.

use crate::ids::{Tenant, escape, is_escaped_token, is_token};

/// `$KV.commands.CORE.sinks`: which ingest sends. No tenant is called so.
pub const SINKS_LEASE: &str = "$KV.commands.CORE.sinks";
/// `$KV.sinks.position`: up to where in `STATE` notifications have become jobs.
pub const SINKS_POSITION: &str = "$KV.sinks.position";

/// `$KV.devices.>`: the devices of all users.
pub const DEVICES_ALL: &str = "$KV.devices.>";

/// `$KV.devices.<tenant>.<user>`: the devices of one user. The user is escaped here.
#[must_use]
pub fn devices_key(tenant: &Tenant, user: &str) -> String {
    format!("$KV.devices.{tenant}.{}", escape(user))
}

/// Whose devices a key holds: the tenant, and the user as one escaped token. `None`: it is no such key.
#[must_use]
pub fn parse_devices_key(subject: &str) -> Option<(Tenant, &str)> {
    let (tenant, user) = subject.strip_prefix("$KV.devices.")?.split_once('.')?;
    Some((Tenant::parse(tenant).ok()?, user)).filter(|_| is_escaped_token(user))
}

/// To whom a job goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SinkTarget {
    /// The operator's webhook of this name.
    Webhook(String),
    /// A device of a user.
    Device {
        /// The user, as one escaped token.
        user: String,
        /// The device's id.
        device: String,
    },
}

/// One notification for one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkJob {
    /// Whose.
    pub tenant: Tenant,
    /// To whom.
    pub target: SinkTarget,
    /// The notification's position in `STATE`.
    pub position: u64,
}

impl SinkJob {
    /// `$KV.sinks.job.<tenant>.hook.<name>.<position>` or `$KV.sinks.job.<tenant>.push.<user>.<device>.<position>`: where it waits.
    #[must_use]
    pub fn subject(&self) -> String {
        let Self {
            tenant,
            target,
            position,
        } = self;
        match target {
            SinkTarget::Webhook(name) => format!("$KV.sinks.job.{tenant}.hook.{name}.{position}"),
            SinkTarget::Device { user, device } => {
                format!("$KV.sinks.job.{tenant}.push.{user}.{device}.{position}")
            }
        }
    }

    /// Reads what [`SinkJob::subject`] writes; `None` for anything else.
    #[must_use]
    pub fn parse(subject: &str) -> Option<Self> {
        let rest = subject.strip_prefix("$KV.sinks.job.")?;
        let parts: Vec<&str> = rest.split('.').collect();
        let (tenant, target, position) = match *parts.as_slice() {
            [tenant, "hook", name, position] => {
                let target = is_token(name).then(|| SinkTarget::Webhook(name.to_owned()))?;
                (tenant, target, position)
            }
            [tenant, "push", user, device, position] => {
                let right = is_escaped_token(user) && is_token(device);
                let target = right.then(|| SinkTarget::Device {
                    user: user.to_owned(),
                    device: device.to_owned(),
                })?;
                (tenant, target, position)
            }
            _ => return None,
        };
        Some(Self {
            tenant: Tenant::parse(tenant).ok()?,
            target,
            position: position.parse().ok()?,
        })
    }
}

/// `dlq.<tenant>.undelivered`: a notification that a webhook or a device did not take. Not an event that was refused, so it is not taken
/// again.
#[must_use]
pub fn undelivered(tenant: &Tenant) -> String {
    format!("dlq.{tenant}.{UNDELIVERED}")
}

/// The reason of such a dead letter.
pub const UNDELIVERED: &str = "undelivered";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_read_as_they_were_written_and_nothing_else_is_one() {
        let tenant = Tenant::parse("acme").unwrap();
        let job = |target, position| SinkJob {
            tenant: tenant.clone(),
            target,
            position,
        };
        let device = SinkTarget::Device {
            user: escape("u/1"),
            device: "BwcHBwcHBwcHBwcHBwcHBw".to_owned(),
        };
        let rows = [
            (
                job(SinkTarget::Webhook("pager".to_owned()), 7),
                "$KV.sinks.job.acme.hook.pager.7",
            ),
            (
                job(device, 9),
                "$KV.sinks.job.acme.push.u=2F1.BwcHBwcHBwcHBwcHBwcHBw.9",
            ),
        ];
        for (job, subject) in rows {
            assert_eq!(job.subject(), subject);
            assert_eq!(SinkJob::parse(subject), Some(job));
        }
        for bad in [
            "",
            SINKS_POSITION,
            "$KV.sinks.job.acme.hook.pager",
            "$KV.sinks.job.acme.hook.pager.x",
            "$KV.sinks.job.acme.hook.pager.7.8",
            "$KV.sinks.job.GW.hook.pager.7",
            "$KV.sinks.job.acme.push.u1.7",
            "$KV.sinks.job.acme.push.u1..7",
            "$KV.sinks.job.acme.mail.u1.d.7",
        ] {
            assert_eq!(SinkJob::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn devices_are_kept_under_their_user() {
        let tenant = Tenant::default();
        let key = devices_key(&tenant, "u.1");
        assert_eq!(key, "$KV.devices.main.u=2E1");
        assert_eq!(parse_devices_key(&key), Some((tenant.clone(), "u=2E1")));
        for bad in [
            "",
            "$KV.devices.main",
            "$KV.devices.GW.u1",
            "$KV.devices.main.u1.x",
            "$KV.tickets.main.u1",
        ] {
            assert_eq!(parse_devices_key(bad), None, "{bad}");
        }
        assert_eq!(undelivered(&tenant), "dlq.main.undelivered");
    }
}
