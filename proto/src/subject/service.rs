//! What goes between gateways, ingest and backends as requests: `svc.<account>.<tenant>.<what>.<verb>` and `cmd.<tenant>.<name…>`,
//! and the keys of the buckets that ingest writes on such requests.

use crate::ids::{Tenant, escape, is_token};

/// What ingest does for gateways on request, and for nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Keys and results of commands.
    Commands,
    /// What users have done with notifications.
    ReadState,
    /// Tickets of browsers that cannot set a header.
    Tickets,
    /// Devices that are pushed to.
    Devices,
}

impl Service {
    /// All of them.
    pub const ALL: &'static [Service] = &[
        Service::Commands,
        Service::ReadState,
        Service::Tickets,
        Service::Devices,
    ];

    /// The token in subjects, and the label in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Service::Commands => "commands",
            Service::ReadState => "readstate",
            Service::Tickets => "tickets",
            Service::Devices => "devices",
        }
    }

    /// What ingest listens on for this service, in account `CORE`: of every account, for every tenant, every verb.
    #[must_use]
    pub fn requests(self) -> String {
        format!("svc.*.*.{}.*", self.as_str())
    }

    fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|service| service.as_str() == name)
    }
}

/// `svc.<tenant>.<what>.<verb>`: what a gateway asks; the server puts the account in. `verb` is one plain token of ours.
#[must_use]
pub fn service(tenant: &Tenant, what: Service, verb: &str) -> String {
    format!("svc.{tenant}.{}.{verb}", what.as_str())
}

/// What a `svc.` subject says, in the form in which it reaches ingest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRequest<'a> {
    /// For whom the gateway asks.
    pub tenant: Tenant,
    /// What.
    pub what: Service,
    /// Which of the service's verbs; one plain token.
    pub verb: &'a str,
}

/// Reads the subject on which a service request reached ingest. `None` where the account, which only the server writes, is not that
/// of the gateways, or the rest is not of the grammar: answer `forbidden` to both.
#[must_use]
pub fn parse_service(subject: &str) -> Option<ServiceRequest<'_>> {
    let mut parts = subject.strip_prefix("svc.GW.")?.split('.');
    let (tenant, what, verb) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !is_token(verb) {
        return None;
    }
    Some(ServiceRequest {
        tenant: Tenant::parse(tenant).ok()?,
        what: Service::of_name(what)?,
        verb,
    })
}

/// The verb of what is asked about a metric.
const SERIES_VERB: &str = "group";

/// What aggregators hear of gateways, whichever shard.
pub const SERIES_ALL: &str = "svc.GW.*.series.*.*";

/// `svc.<tenant>.series.<ss>.group`: where a gateway asks the aggregator that works a shard; the server puts the account in.
#[must_use]
pub fn series(tenant: &Tenant, shard: u32) -> String {
    format!("svc.{tenant}.series.{shard:02}.{SERIES_VERB}")
}

/// The same as that aggregator hears it.
#[must_use]
pub fn series_heard(tenant: &Tenant, shard: u32) -> String {
    format!("svc.GW.{tenant}.series.{shard:02}.{SERIES_VERB}")
}

/// `cmd.<tenant>.<name…>`: where a gateway asks a tenant's backends; they listen on `cmd.<name…>` in their own account. The parts of
/// the name between its dots are escaped here.
#[must_use]
pub fn command(tenant: &Tenant, name: &str) -> String {
    format!("cmd.{tenant}.{}", command_tokens(name))
}

/// The `<name…>` of a command's subject.
#[must_use]
pub fn command_tokens(name: &str) -> String {
    let parts: Vec<String> = name.split('.').map(escape).collect();
    parts.join(".")
}

/// What gateways say to each other about who is in which room.
pub const PRESENCE_ALL: &str = "prs.>";

/// `prs.<gateway>`: where one gateway says it. The name is escaped here.
#[must_use]
pub fn presence(gateway: &str) -> String {
    format!("prs.{}", escape(gateway))
}

/// `prs.<gateway>.passed`: where one gateway passes to the others what is not for it. The name is escaped here.
#[must_use]
pub fn passed(gateway: &str) -> String {
    format!("{}.passed", presence(gateway))
}

/// Whether that was said there.
#[must_use]
pub fn is_passed(subject: &str) -> bool {
    subject
        .strip_prefix("prs.")
        .and_then(|rest| rest.split_once('.'))
        .is_some_and(|(_, rest)| rest == "passed")
}

/// `$KV.commands.<tenant>.<user>.<name>.<key>`: the claim and the result of one command. Free text is escaped here.
#[must_use]
pub fn command_key(tenant: &Tenant, user: &str, name: &str, key: &str) -> String {
    format!(
        "$KV.commands.{tenant}.{}.{}.{}",
        escape(user),
        escape(name),
        escape(key)
    )
}

/// `$KV.readstate.<tenant>.<user>`: a user's marks. The user is escaped here.
#[must_use]
pub fn read_state_key(tenant: &Tenant, user: &str) -> String {
    format!("$KV.readstate.{tenant}.{}", escape(user))
}

/// All read states.
pub const READ_STATES_ALL: &str = "$KV.readstate.>";

/// Changes of read states as the server republishes them, without what they hold.
pub const READ_STATE_LIVE_ALL: &str = "kvl.readstate.>";

/// The key whose change a message on [`READ_STATE_LIVE_ALL`] tells of.
#[must_use]
pub fn read_state_live_key(subject: &str) -> Option<String> {
    let rest = subject.strip_prefix("kvl.readstate.")?;
    Some(format!("$KV.readstate.{rest}"))
}

/// `$KV.commands.CORE.replay.<position>-<time>`: that a dead letter was taken again. No tenant is called so; the time tells letters of
/// another life of the stream apart.
#[must_use]
pub fn replay_key(position: u64, time_micros: i64) -> String {
    format!("$KV.commands.CORE.replay.{position}-{time_micros}")
}

/// `$KV.tickets.<tenant>.<id>`: what stands behind one ticket. `id` is one plain token of ours.
#[must_use]
pub fn ticket_key(tenant: &Tenant, id: &str) -> String {
    format!("$KV.tickets.{tenant}.{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_subjects_say_for_whom_and_come_from_gateways_only() {
        let tenant = Tenant::default();
        assert_eq!(
            service(&tenant, Service::Commands, "claim"),
            "svc.main.commands.claim"
        );
        assert_eq!(series(&tenant, 3), "svc.main.series.03.group");
        assert_eq!(series_heard(&tenant, 3), "svc.GW.main.series.03.group");
        // Ingest hears those of its own services alone.
        assert_eq!(parse_service(&series_heard(&tenant, 3)), None);
        let read = parse_service("svc.GW.main.commands.claim").unwrap();
        assert_eq!(
            (read.tenant.as_str(), read.what, read.verb),
            ("main", Service::Commands, "claim")
        );
        for bad in [
            "svc.main.commands.claim",
            "svc.AGG.main.commands.claim",
            "svc.main.GW.main.commands.claim",
            "svc.GW.SYS.commands.claim",
            "svc.GW.main.nothing.claim",
            "svc.GW.main.commands",
            "svc.GW.main.commands.claim.more",
            "svc.GW.main.commands.",
            "svc.GW.main.commands.*",
            "in.GW.main.commands.claim",
            "",
        ] {
            assert_eq!(parse_service(bad), None, "{bad}");
        }
        for service in Service::ALL {
            assert_eq!(Service::of_name(service.as_str()), Some(*service));
        }
    }

    #[test]
    fn names_of_commands_are_escaped_part_by_part() {
        let tenant = Tenant::default();
        let rows = [
            ("delivery.update", "cmd.main.delivery.update"),
            ("delivery/up$", "cmd.main.delivery=2Fup=24"),
        ];
        for (name, subject) in rows {
            assert_eq!(command(&tenant, name), subject);
        }
        assert_eq!(
            command_key(&tenant, "u.1", "delivery.update", "k *"),
            "$KV.commands.main.u=2E1.delivery=2Eupdate.k=20=2A"
        );
        let long = "k".repeat(500);
        assert!(command_key(&tenant, &long, &long, &long).len() < 200);
    }
}
