//! Who may publish and hear what in NATS, tried from outside with the bare protocol, and seen by its effect.
//!
//! A witness in `CORE` hears everything there. A row names who gets through; everybody else must be told off by the server, and
//! nothing of theirs may arrive. One server, no service: what holds here holds whatever the services do.

use roomcast_harness::nats::{Nats, PASSWORD};
use roomcast_harness::outsider::Outsider;

use crate::world::{alone_with_nats, say};

/// Everybody who is held by permissions: services, publishers of `main` (`erp`: of room `bookings` only), one of tenant `acme`,
/// backends of `main` (`fleet`: of one command).
const EVERYBODY: [&str; 9] = [
    "ingest",
    "agg",
    "gw",
    "reader",
    "publisher",
    "erp",
    "stranger",
    "backend",
    "fleet",
];

/// Arrives under the subject it was published on.
const SAME: &str = "";
/// May be published, and stays in the publisher's own account.
const STAYS: &str = "-";

/// Who may publish on a subject, and where that arrives in `CORE`.
type Row = (&'static str, &'static [(&'static str, &'static str)]);

/// Subjects of the streams, of control, of other people's inboxes, and the doors.
const SUBJECTS: &[Row] = &[
    ("evt.00.main.bookings.staff", &[("ingest", SAME)]),
    ("live.00.main.bookings.staff", &[]),
    ("st.00.main.bookings.all.k", &[("ingest", SAME), ("agg", SAME)]),
    ("slive.00.main.bookings.all.k", &[]),
    ("eph.00.main.bookings.all", &[("ingest", SAME)]),
    ("dlq.main.nats.json", &[("ingest", SAME), ("agg", SAME)]),
    ("ctl.gw.all.kick", &[("ingest", SAME)]),
    ("ctl.kick", &[("ingest", SAME)]),
    ("ctl.statistics", &[("ingest", SAME)]),
    ("sts.x", &[("gw", SAME)]),
    ("kvl.acl.revoked", &[]),
    ("kvl.cfg.policy", &[]),
    ("audit.ingest.x", &[("ingest", SAME)]),
    ("audit.aggregator.x", &[("agg", SAME)]),
    ("audit.gateway.x", &[("gw", SAME)]),
    ("$KV.agg.shard.00.head", &[("agg", SAME)]),
    ("$KV.acl.revoked", &[("ingest", SAME)]),
    ("$KV.acl.grant.main.u1.admin", &[("ingest", SAME)]),
    ("$KV.cfg.policy", &[]),
    ("$KV.readstate.x", &[("ingest", SAME)]),
    ("$KV.commands.x", &[("ingest", SAME)]),
    ("$KV.tickets.x", &[("ingest", SAME)]),
    ("$KV.devices.main.u1", &[("ingest", SAME)]),
    ("$KV.sinks.position", &[("ingest", SAME)]),
    (
        "in.bookings.staff",
        &[
            ("publisher", "in.main.bookings.staff"),
            ("erp", "in.main.bookings.staff"),
            ("stranger", "in.acme.bookings.staff"),
            ("gw", "in.GW.bookings.staff"),
            ("agg", "in.AGG.bookings.staff"),
        ],
    ),
    (
        "in.vault.all",
        &[
            ("publisher", "in.main.vault.all"),
            ("stranger", "in.acme.vault.all"),
            ("gw", "in.GW.vault.all"),
            ("agg", "in.AGG.vault.all"),
        ],
    ),
    // A tenant, a gateway or the aggregator in the subject: the server puts the true account before it.
    (
        "in.main.bookings.staff",
        &[
            ("publisher", "in.main.main.bookings.staff"),
            ("stranger", "in.acme.main.bookings.staff"),
            ("gw", "in.GW.main.bookings.staff"),
            ("agg", "in.AGG.main.bookings.staff"),
        ],
    ),
    (
        "in.GW.main.bookings.staff",
        &[
            ("publisher", "in.main.GW.main.bookings.staff"),
            ("stranger", "in.acme.GW.main.bookings.staff"),
            ("gw", "in.GW.GW.main.bookings.staff"),
            ("agg", "in.AGG.GW.main.bookings.staff"),
        ],
    ),
    ("inq.publisher.1", &[("publisher", "inq.main.publisher.1")]),
    ("inq.stranger.1", &[("stranger", "inq.acme.stranger.1")]),
    ("svc.main.commands.claim", &[("gw", "svc.GW.main.commands.claim")]),
    (
        "svc.main.series.03.group",
        &[("gw", "svc.GW.main.series.03.group")],
    ),
    // An account of ours in the subject: the server puts the true one before it.
    (
        "svc.GW.main.commands.claim",
        &[("gw", "svc.GW.GW.main.commands.claim")],
    ),
    ("prs.main.bookings", &[("gw", STAYS)]),
    ("cmd.main.book", &[("ingest", SAME), ("gw", STAYS)]),
    ("_R_.guessed", &[("ingest", SAME), ("agg", STAYS)]),
    ("_INBOX.guessed", &[]),
    ("_INBOX_ingest.guessed", &[]),
    ("_INBOX_agg.guessed", &[]),
    ("_INBOX_gw.guessed", &[]),
    ("_INBOX_reader.guessed", &[]),
    ("_INBOX_publisher.guessed", &[]),
    ("anything.else", &[]),
    ("servers.jetstream", &[("ingest", SAME)]),
    ("servers.health", &[("ingest", SAME)]),
    ("servers.other", &[]),
    ("$SYS.REQ.SERVER.PING", &[]),
    ("$SYS.REQ.SERVER.PING.JSZ", &[]),
    ("$SYS.REQ.ACCOUNT.CORE.CONNZ", &[]),
];

/// Calls of the JetStream API that exist outside `CORE`, under `core.JS.API`, and who has them.
const CALLS: &[(&str, &[&str])] = &[
    ("INFO", &["gw", "agg", "reader"]),
    ("STREAM.INFO.EVENTS", &["gw", "agg", "reader"]),
    ("STREAM.INFO.STATE", &["gw", "agg", "reader"]),
    ("STREAM.INFO.DLQ", &["reader"]),
    ("STREAM.INFO.AUDIT", &[]),
    ("STREAM.INFO.KV_agg", &["agg"]),
    ("STREAM.INFO.KV_acl", &["gw"]),
    ("STREAM.INFO.KV_cfg", &["gw", "agg"]),
    ("STREAM.MSG.GET.KV_acl", &["gw"]),
    ("DIRECT.GET.KV_acl", &["gw"]),
    ("STREAM.MSG.GET.KV_cfg", &["gw", "agg"]),
    ("STREAM.INFO.KV_readstate", &["gw"]),
    ("STREAM.MSG.GET.EVENTS", &["gw", "agg", "reader"]),
    ("STREAM.MSG.GET.KV_commands", &[]),
    ("DIRECT.GET.KV_commands", &[]),
    ("STREAM.MSG.GET.KV_tickets", &[]),
    ("STREAM.MSG.GET.KV_devices", &[]),
    ("DIRECT.GET.KV_devices", &[]),
    ("STREAM.MSG.GET.KV_sinks", &[]),
    ("STREAM.MSG.DELETE.KV_sinks", &[]),
    ("DIRECT.GET.EVENTS", &["gw", "agg", "reader"]),
    (
        "DIRECT.GET.EVENTS.evt.00.main.bookings.staff",
        &["gw", "agg", "reader"],
    ),
    ("DIRECT.GET.DLQ", &["reader"]),
    ("DIRECT.GET.AUDIT", &[]),
    ("DIRECT.GET.KV_agg", &["agg"]),
    ("DIRECT.GET.KV_readstate", &["gw"]),
    ("STREAM.MSG.GET.KV_readstate", &["gw"]),
    ("CONSUMER.CREATE.EVENTS.c", &["agg"]),
    ("CONSUMER.INFO.EVENTS.c", &["agg"]),
    ("CONSUMER.MSG.NEXT.EVENTS.c", &["agg"]),
    ("CONSUMER.DELETE.EVENTS.c", &["agg"]),
    ("CONSUMER.CREATE.STATE.c", &[]),
    ("STREAM.NAMES", &[]),
    ("STREAM.LIST", &[]),
    ("STREAM.CREATE.MINE", &[]),
    ("STREAM.UPDATE.EVENTS", &[]),
    ("STREAM.PURGE.EVENTS", &[]),
    ("STREAM.PURGE.DLQ", &[]),
    ("STREAM.PURGE.INQ_main_publisher", &[]),
    ("STREAM.DELETE.EVENTS", &[]),
    ("STREAM.MSG.DELETE.EVENTS", &[]),
    ("STREAM.SNAPSHOT.EVENTS", &[]),
    ("STREAM.RESTORE.EVENTS", &[]),
    ("STREAM.LEADER.STEPDOWN.EVENTS", &[]),
];

/// What of the API ingest has, which lives in `CORE`: it looks, and changes nothing but queues and what it has sent.
const INGEST_CALLS: [&str; 7] = [
    "INFO",
    "STREAM.INFO.",
    "STREAM.NAMES",
    "STREAM.MSG.GET.",
    "DIRECT.GET.",
    "STREAM.PURGE.INQ_",
    "STREAM.MSG.DELETE.KV_sinks",
];

/// A subscription, its queue group, a subject in `CORE` that it would catch, who may have it, and who of those hears it.
type Ear = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const EARS: &[Ear] = &[
    ("live.>", "", "live.00.main.bookings.staff", &["gw"], &["gw"]),
    ("slive.>", "", "slive.00.main.bookings.all.k", &["gw"], &["gw"]),
    ("eph.>", "", "eph.00.main.bookings.all", &["gw"], &["gw"]),
    ("ctl.>", "", "ctl.gw.all.kick", &["gw"], &["gw"]),
    // What gateways say of who is connected is for ingest; they do not hear each other.
    ("sts.>", "", "sts.x", &["ingest"], &["ingest"]),
    (
        "kvl.acl.>",
        "",
        "kvl.acl.revoked",
        &["gw", "ingest"],
        &["gw", "ingest"],
    ),
    (
        "kvl.cfg.>",
        "",
        "kvl.cfg.policy",
        &["gw", "agg", "ingest"],
        &["gw", "agg", "ingest"],
    ),
    (
        "kvl.>",
        "",
        "kvl.acl.revoked",
        &["gw", "ingest"],
        &["gw", "ingest"],
    ),
    ("evt.>", "", "evt.00.main.bookings.staff", &[], &[]),
    ("st.>", "", "st.00.main.bookings.all.k", &[], &[]),
    ("dlq.>", "", "dlq.main.nats.json", &[], &[]),
    ("audit.>", "", "audit.ingest.x", &[], &[]),
    ("$KV.>", "", "$KV.acl.revoked", &[], &[]),
    ("$KV.readstate.>", "", "$KV.readstate.x", &[], &[]),
    ("$JS.>", "", "$JS.API.STREAM.NAMES", &[], &[]),
    ("core.JS.API.>", "", "core.JS.API.INFO", &[], &[]),
    ("$SYS.>", "", "$SYS.REQ.SERVER.PING", &[], &[]),
    (">", "", "live.00.main.bookings.staff", &[], &[]),
    ("*.>", "", "live.00.main.bookings.staff", &[], &[]),
    ("*.*.*.*.*", "", "live.00.main.bookings.staff", &[], &[]),
    // Others' requests: only as one of the ingests, so that nobody gets a copy.
    (
        "in.*.>",
        "ingest",
        "in.main.bookings.staff",
        &["ingest"],
        &["ingest"],
    ),
    ("in.*.>", "", "in.main.bookings.staff", &[], &[]),
    ("in.*.>", "thief", "in.main.bookings.staff", &[], &[]),
    ("in.>", "", "in.main.bookings.staff", &[], &[]),
    (
        "inq.>",
        "",
        "inq.main.publisher.bookings.staff",
        &["ingest"],
        &["ingest"],
    ),
    (
        "inq.*.publisher.>",
        "thief",
        "inq.main.publisher.bookings.staff",
        &["ingest"],
        &["ingest"],
    ),
    (
        "svc.*.*.commands.*",
        "ingest",
        "svc.GW.main.commands.claim",
        &["ingest"],
        &["ingest"],
    ),
    ("svc.*.*.commands.*", "", "svc.GW.main.commands.claim", &[], &[]),
    (
        "svc.*.*.commands.*",
        "thief",
        "svc.GW.main.commands.claim",
        &[],
        &[],
    ),
    ("svc.>", "", "svc.GW.main.commands.claim", &[], &[]),
    // What is asked about metrics is for aggregators, and nothing else of it.
    (
        "svc.GW.main.series.03.group",
        "",
        "svc.GW.main.series.03.group",
        &["agg"],
        &["agg"],
    ),
    ("svc.GW.>", "", "svc.GW.main.series.03.group", &[], &[]),
    ("prs.>", "", "prs.main.bookings", &["gw"], &[]),
    ("cmd.>", "", "cmd.main.book", &[], &[]),
    ("cmd.>", "thief", "cmd.main.book", &[], &[]),
    ("cmd.>", "backends", "cmd.main.book", &["backend"], &[]),
    ("cmd.book", "backends", "cmd.main.book", &["backend"], &[]),
    (
        "cmd.delivery.update",
        "backends",
        "cmd.main.delivery.update",
        &["backend", "fleet"],
        &[],
    ),
    ("_R_.>", "", "_R_.guessed", &[], &[]),
    ("_INBOX.>", "", "_INBOX.guessed", &[], &[]),
    ("_INBOX_ingest.>", "", "_INBOX_ingest.x", &["ingest"], &["ingest"]),
    ("_INBOX_agg.>", "", "_INBOX_agg.x", &["agg"], &[]),
    ("_INBOX_gw.>", "", "_INBOX_gw.x", &["gw"], &[]),
    ("_INBOX_reader.>", "", "_INBOX_reader.x", &["reader"], &[]),
    (
        "_INBOX_publisher.>",
        "",
        "_INBOX_publisher.x",
        &["publisher"],
        &[],
    ),
    ("_INBOX_erp.>", "", "_INBOX_erp.x", &["erp"], &[]),
    ("_INBOX_stranger.>", "", "_INBOX_stranger.x", &["stranger"], &[]),
];

async fn outsider(nats: &Nats, user: &str) -> anyhow::Result<Outsider> {
    Outsider::connect(&nats.url(), user, PASSWORD).await
}

/// One attempt to publish, judged by what the witness hears and what the server says. `expected`: where it arrives; `None`: nowhere.
async fn attempt(
    witness: &mut Outsider,
    client: &mut Outsider,
    user: &str,
    subject: &str,
    expected: Option<&str>,
) -> anyhow::Result<Option<String>> {
    let mark = format!("{user} on {subject}");
    client.publish(subject, "", &[], &mark).await?;
    client.settle().await?;
    witness.settle().await?;
    let arrived: Vec<String> = witness
        .heard
        .drain(..)
        .filter(|heard| heard.payload == mark)
        .map(|heard| heard.subject)
        .collect();
    let refused = client
        .errors
        .drain(..)
        .any(|error| error.contains("Permissions Violation for Publish"));
    let right = match expected {
        None => refused && arrived.is_empty(),
        Some(STAYS) => !refused && arrived.is_empty(),
        Some(SAME) => !refused && arrived.iter().any(|at| at == subject),
        Some(there) => !refused && arrived == [there],
    };
    Ok(
        (!right)
            .then(|| format!("{mark}: expected {expected:?}, arrived at {arrived:?}, refused: {refused}")),
    )
}

#[test]
fn everybody_publishes_where_they_may_and_nowhere_else() {
    alone_with_nats(async |nats| {
        let mut witness = outsider(nats, "admin").await?;
        witness.subscribe(">", "").await?;
        let (mut wrong, mut tried, mut through) = (Vec::new(), 0, 0);
        for user in EVERYBODY {
            let mut client = outsider(nats, user).await?;
            let mut rows: Vec<(String, Option<String>)> = Vec::new();
            for (subject, allowed) in SUBJECTS {
                let there = allowed.iter().find(|(name, _)| *name == user);
                rows.push(((*subject).to_owned(), there.map(|(_, there)| (*there).to_owned())));
            }
            for (call, allowed) in CALLS {
                let inside = format!("$JS.API.{call}");
                let outside = allowed.contains(&user).then(|| inside.clone());
                rows.push((format!("core.JS.API.{call}"), outside));
                let ingest = user == "ingest" && INGEST_CALLS.iter().any(|mine| call.starts_with(mine));
                rows.push((inside, ingest.then(|| SAME.to_owned())));
            }
            for (subject, expected) in rows {
                tried += 1;
                through += usize::from(expected.is_some());
                wrong.extend(attempt(&mut witness, &mut client, user, &subject, expected.as_deref()).await?);
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        say(&format!(
            "    {tried} attempts to publish: {through} allowed and arrived where they should, {} refused",
            tried - through
        ));
        Ok(())
    });
}

#[test]
fn everybody_hears_what_they_may_and_nothing_else() {
    alone_with_nats(async |nats| {
        let mut core = outsider(nats, "admin").await?;
        let (mut wrong, mut tried, mut through) = (Vec::new(), 0, 0);
        for user in EVERYBODY {
            let mut client = outsider(nats, user).await?;
            for (subscription, queue, subject, may, hears) in EARS {
                let mark = format!("for {user} on {subscription} as {queue:?}");
                let id = client.subscribe(subscription, queue).await?;
                client.settle().await?;
                core.publish(subject, "", &[], &mark).await?;
                core.settle().await?;
                client.settle().await?;
                let heard = client
                    .heard
                    .drain(..)
                    .filter(|heard| heard.payload == mark)
                    .count();
                let refused = client
                    .errors
                    .drain(..)
                    .any(|error| error.contains("Permissions Violation for Subscription"));
                client.unsubscribe(id).await?;
                client.settle().await?;
                tried += 1;
                through += usize::from(may.contains(&user));
                if refused == may.contains(&user) || heard != usize::from(hears.contains(&user)) {
                    wrong.push(format!("{mark}: refused: {refused}, heard {heard} times"));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        say(&format!(
            "    {tried} subscriptions: {through} allowed, {} refused",
            tried - through
        ));
        Ok(())
    });
}
