//! The NATS server's configuration: accounts, imports, exports and permissions, generated from the subject grammar.
//!
//! Accounts are the first wall, permissions the second. Inside one account a reply subject can carry an answer of the server onto any
//! subject, so services that must not write for one another live in different accounts: `CORE` (ingest and the streams), `GW`
//! (gateways), `AGG` (aggregators), one per tenant, one for readers, `SYS`. Outside `CORE` the JetStream API is imported call by call
//! under `core.JS.API`: under its own name the server would answer for the wrong account first.

mod security;

use std::fmt::Write as _;

pub use security::{Security, Tls};

use crate::ids::{Room, Tenant};
use crate::subject::{
    QUEUED_ALL, SERVERS_HEALTH, SERVERS_JETSTREAM, command_tokens, queue_of, queue_stream, stream as names,
};

/// Prefix of the JetStream API inside `CORE`.
pub const API_IN_CORE: &str = "$JS.API";
/// Prefix of the JetStream API everywhere else.
pub const API_OUTSIDE_CORE: &str = "core.JS.API";

/// What `CORE` may ask the servers themselves, and under which name.
const SYSTEM_QUESTIONS: [(&str, &str); 2] = [
    ("$SYS.REQ.SERVER.PING.JSZ", SERVERS_JETSTREAM),
    ("$SYS.REQ.SERVER.PING.HEALTHZ", SERVERS_HEALTH),
];

/// A NATS user with its password.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The user's name; its inbox prefix is `_INBOX_<name>`.
    pub name: String,
    /// The password, or its bcrypt hash.
    pub password: String,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "User({:?})", self.name)
    }
}

/// The inbox prefix a user may listen on.
#[must_use]
pub fn inbox_prefix(user: &str) -> String {
    format!("_INBOX_{user}")
}

/// A publisher of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publisher {
    /// Its NATS user.
    pub user: User,
    /// The rooms it may publish to, each with its sub-rooms; `None`: any (the policy still decides).
    pub rooms: Option<Vec<Room>>,
}

/// A backend of a tenant: carries out commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Its NATS user.
    pub user: User,
    /// The commands it hears, each with those below its name; `None`: all of the tenant.
    pub commands: Option<Vec<String>>,
}

/// The queue group of a tenant's backends: each command is heard by one of them, and nobody gets a copy.
pub const BACKEND_QUEUE: &str = "backends";
/// A backend may answer what it heard for this long, once.
const BACKEND_ANSWERS_WITHIN: &str = "60s";

/// A tenant's account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantAccount {
    /// The tenant.
    pub tenant: Tenant,
    /// Who publishes.
    pub publishers: Vec<Publisher>,
    /// Who carries out commands.
    pub backends: Vec<Backend>,
}

/// One node of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Address of this node's route listener.
    pub listen: String,
    /// Addresses of all nodes' route listeners.
    pub routes: Vec<String>,
    /// Shared by the nodes.
    pub user: User,
}

/// Everything a server's configuration is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Unique among the nodes.
    pub server_name: String,
    /// Client listener, `address:port`.
    pub listen: String,
    /// Monitoring listener, `address:port`; loopback or a private network only.
    pub monitor: Option<String>,
    /// Where JetStream stores.
    pub store_dir: String,
    /// Bytes JetStream may store: not below the sum of all streams, and below the disk.
    pub max_file_bytes: u64,
    /// The user that creates streams.
    pub admin: User,
    /// The user of the ingests.
    pub ingest: User,
    /// The user of the aggregators.
    pub aggregator: User,
    /// The user of the gateways.
    pub gateway: User,
    /// May read `EVENTS`, `STATE` and `DLQ`, and nothing else.
    pub reader: Option<User>,
    /// The system account's user.
    pub system: User,
    /// Tenants.
    pub tenants: Vec<TenantAccount>,
    /// Present on each of three nodes.
    pub cluster: Option<Cluster>,
    /// TLS, and keys instead of passwords.
    pub security: Security,
}

/// How often the server answers a call.
#[derive(Clone, Copy)]
enum Answer {
    One,
    Many,
}

/// A call of the JetStream API (without prefix) and who imports it.
fn api_calls() -> Vec<(String, Answer, &'static [Who])> {
    use Who::{Aggregator, Gateway, Reader};
    let mut calls: Vec<(String, Answer, &'static [Who])> = vec![
        ("INFO".into(), Answer::One, &[Gateway, Aggregator, Reader]),
        (
            format!("CONSUMER.CREATE.{}.>", names::EVENTS),
            Answer::One,
            &[Aggregator],
        ),
        (
            format!("CONSUMER.DELETE.{}.>", names::EVENTS),
            Answer::One,
            &[Aggregator],
        ),
        (
            format!("CONSUMER.INFO.{}.>", names::EVENTS),
            Answer::One,
            &[Aggregator],
        ),
        (
            format!("CONSUMER.MSG.NEXT.{}.>", names::EVENTS),
            Answer::Many,
            &[Aggregator],
        ),
        // How far it is, so that a gateway knows whether it has heard of every change; what it holds they ask ingest for.
        (
            format!("STREAM.INFO.{}", names::READSTATE),
            Answer::One,
            &[Gateway],
        ),
    ];
    let readable: [(&str, &'static [Who]); 6] = [
        (names::EVENTS, &[Gateway, Aggregator, Reader]),
        (names::STATE, &[Gateway, Aggregator, Reader]),
        (names::DLQ, &[Reader]),
        (names::AGG, &[Aggregator]),
        (names::ACL, &[Gateway]),
        (names::CFG, &[Gateway, Aggregator]),
    ];
    for (stream, who) in readable {
        calls.push((format!("STREAM.INFO.{stream}"), Answer::One, who));
        calls.push((format!("STREAM.MSG.GET.{stream}"), Answer::One, who));
        // One direct get may be answered by a whole batch of messages.
        calls.push((format!("DIRECT.GET.{stream}"), Answer::Many, who));
        calls.push((format!("DIRECT.GET.{stream}.>"), Answer::Many, who));
    }
    calls
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Gateway,
    Aggregator,
    Reader,
}

impl Who {
    const fn account(self) -> &'static str {
        match self {
            Who::Gateway => "GW",
            Who::Aggregator => "AGG",
            Who::Reader => "READER",
        }
    }

    /// Subjects this account may publish on in `CORE` through an import, with one answer each.
    const fn writes(self) -> &'static [&'static str] {
        match self {
            Who::Aggregator => &["st.>", "$KV.agg.>", "dlq.>", "audit.aggregator.>"],
            Who::Gateway => &["audit.gateway.>"],
            Who::Reader => &[],
        }
    }

    /// Subjects of `CORE` this account listens to.
    const fn hears(self) -> &'static [&'static str] {
        match self {
            Who::Gateway => &["live.>", "slive.>", "eph.>", "ctl.>", "kvl.>"],
            Who::Aggregator => &["kvl.cfg.>"],
            Who::Reader => &[],
        }
    }
}

const IMPORTERS: [Who; 3] = [Who::Gateway, Who::Aggregator, Who::Reader];

impl ServerConfig {
    /// The configuration as nats-server reads it.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(16 * 1024);
        self.server(&mut out);
        out.push_str("accounts {\n");
        self.system_account(&mut out);
        self.core(&mut out);
        self.account(
            &mut out,
            Who::Gateway,
            &self.gateway,
            &["in.>", "svc.>", "prs.>", "cmd.>"],
            &["prs.>"],
            &gateway_extra(&self.tenants),
        );
        let from_aggregator = ["in.>"];
        self.account(
            &mut out,
            Who::Aggregator,
            &self.aggregator,
            &from_aggregator,
            &[],
            &[import_service("in.AGG.>", "in.>", true)],
        );
        if let Some(reader) = &self.reader {
            self.account(&mut out, Who::Reader, reader, &[], &[], &[]);
        }
        for tenant in &self.tenants {
            self.tenant_account(&mut out, tenant);
        }
        out.push_str("}\nsystem_account: SYS\n");
        out
    }

    /// Every server tells `CORE` how it stores and how it is, and nothing else of what it tells its own account.
    fn system_account(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "  SYS {{\n    users: [ {} ]\n    exports: [",
            self.user(&self.system, None)
        );
        for (question, _) in SYSTEM_QUESTIONS {
            let _ = writeln!(
                out,
                "      {{ service: {}, accounts: [ CORE ], response_type: Stream }}",
                quoted(question)
            );
        }
        out.push_str("    ]\n  }\n");
    }

    fn server(&self, out: &mut String) {
        let _ = writeln!(out, "server_name: {}", quoted(&self.server_name));
        let _ = writeln!(out, "listen: {}", quoted(&self.listen));
        if let Some(monitor) = &self.monitor {
            let _ = writeln!(out, "http: {}", quoted(monitor));
        }
        if let Some(tls) = &self.security.tls {
            out.push_str(&tls.block("", tls.verify));
        }
        out.push_str(
            "max_payload: 256KB\nmax_pending: 64MB\nwrite_deadline: \"5s\"\nlame_duck_grace_period: \"5s\"\nlame_duck_duration: \"30s\"\n",
        );
        let _ = writeln!(
            out,
            "jetstream {{\n  store_dir: {}\n  max_file: {}\n  max_mem: 512MB\n  # Acknowledged means on disk: without this a power cut loses acknowledged events.\n  sync_interval: always\n  max_buffered_msgs: 50000\n  max_buffered_size: 128MB\n  strict: true\n}}",
            quoted(&self.store_dir),
            self.max_file_bytes
        );
        if let Some(cluster) = &self.cluster {
            let login = format!("{}:{}@", cluster.user.name, cluster.user.password);
            let routes: Vec<String> = cluster
                .routes
                .iter()
                .map(|address| quoted(&format!("nats-route://{login}{address}")))
                .collect();
            let tls = self.security.tls.as_ref().map(|tls| tls.block("  ", false));
            let _ = writeln!(
                out,
                "cluster {{\n  name: roomcast\n  listen: {}\n  routes: [ {} ]\n  authorization {{ user: {}, password: {}, timeout: 2 }}\n{}}}",
                quoted(&cluster.listen),
                routes.join(", "),
                quoted(&cluster.user.name),
                quoted(&cluster.user.password),
                tls.unwrap_or_default()
            );
        }
    }

    fn core(&self, out: &mut String) {
        let ingest_publishes = [
            "evt.>",
            "st.>",
            "eph.>",
            "dlq.>",
            "ctl.>",
            "audit.ingest.>",
            "cmd.>",
            "_R_.>",
            "$KV.readstate.>",
            "$KV.acl.>",
            "$KV.commands.>",
            "$KV.tickets.>",
            "$KV.capture.>",
            "$JS.API.INFO",
            "$JS.API.STREAM.INFO.*",
            "$JS.API.STREAM.NAMES",
            "$JS.API.STREAM.MSG.GET.*",
            "$JS.API.DIRECT.GET.>",
            SERVERS_JETSTREAM,
            SERVERS_HEALTH,
        ];
        let purges = self.queue_purges();
        let ingest_publishes: Vec<&str> = ingest_publishes
            .into_iter()
            .chain(purges.iter().map(String::as_str))
            .collect();
        let inbox = format!("{}.>", inbox_prefix(&self.ingest.name));
        let ingest_hears = ["in.*.> ingest", "svc.*.> ingest", QUEUED_ALL, "kvl.>", &inbox];
        let _ = writeln!(
            out,
            "  CORE {{\n    jetstream: enabled\n    users: [\n      {}\n      {}\n    ]\n    exports: [",
            self.user(&self.admin, None),
            self.user(&self.ingest, Some((&ingest_publishes, &ingest_hears)))
        );
        for subject in ["in.*.>", "inq.*.>", "svc.*.>"] {
            let _ = writeln!(
                out,
                "      {{ service: {}, account_token_position: 2, response_type: Singleton }}",
                quoted(subject)
            );
        }
        for (call, answer, who) in api_calls() {
            let who: Vec<Who> = who.iter().copied().filter(|w| self.has(*w)).collect();
            export_service(out, &format!("{API_IN_CORE}.{call}"), answer, &who);
        }
        for who in IMPORTERS.into_iter().filter(|w| self.has(*w)) {
            for subject in who.writes() {
                export_service(out, subject, Answer::One, &[who]);
            }
        }
        for subject in ["live.>", "slive.>", "eph.>", "ctl.>", "kvl.>"] {
            let _ = writeln!(out, "      {{ stream: {}, accounts: [ GW ] }}", quoted(subject));
        }
        let _ = writeln!(
            out,
            "      {{ stream: \"kvl.cfg.>\", accounts: [ AGG ] }}\n    ]\n    imports: ["
        );
        for (question, name) in SYSTEM_QUESTIONS {
            let _ = writeln!(
                out,
                "      {{ service: {{ account: SYS, subject: {} }}, to: {} }}",
                quoted(question),
                quoted(name)
            );
        }
        out.push_str("    ]\n  }\n");
    }

    /// The calls with which ingest empties queues, stream by stream: no pattern of subjects means queues alone.
    fn queue_purges(&self) -> Vec<String> {
        let of_tenant = |account: &TenantAccount| {
            let queue = |publisher: &Publisher| queue_stream(&account.tenant, self.known_as(&publisher.user));
            account.publishers.iter().filter_map(queue).collect::<Vec<_>>()
        };
        let queues = self.tenants.iter().flat_map(of_tenant);
        queues
            .map(|(stream, _)| format!("{API_IN_CORE}.STREAM.PURGE.{stream}"))
            .collect()
    }

    fn account(
        &self,
        out: &mut String,
        who: Who,
        login: &User,
        own_publishes: &[&str],
        own_hears: &[&str],
        extra: &[String],
    ) {
        let calls: Vec<String> = api_calls()
            .into_iter()
            .filter(|(_, _, whose)| whose.contains(&who))
            .map(|(call, _, _)| call)
            .collect();
        let mut publishes: Vec<String> = own_publishes.iter().map(|s| (*s).to_owned()).collect();
        publishes.extend(who.writes().iter().map(|s| (*s).to_owned()));
        publishes.extend(calls.iter().map(|call| format!("{API_OUTSIDE_CORE}.{call}")));
        let mut hears: Vec<String> = own_hears.iter().map(|s| (*s).to_owned()).collect();
        hears.extend(who.hears().iter().map(|s| (*s).to_owned()));
        hears.push(format!("{}.>", inbox_prefix(&login.name)));
        let _ = writeln!(
            out,
            "  {} {{\n    users: [ {} ]\n    imports: [",
            who.account(),
            self.user(login, Some((&refs(&publishes), &refs(&hears))))
        );
        for call in &calls {
            let import = import_service(
                &format!("{API_IN_CORE}.{call}"),
                &format!("{API_OUTSIDE_CORE}.{call}"),
                false,
            );
            let _ = writeln!(out, "      {import}");
        }
        for subject in who.writes() {
            let _ = writeln!(out, "      {}", import_service(subject, subject, false));
        }
        for subject in who.hears() {
            let _ = writeln!(
                out,
                "      {{ stream: {{ account: CORE, subject: {} }} }}",
                quoted(subject)
            );
        }
        for line in extra {
            let _ = writeln!(out, "      {line}");
        }
        out.push_str("    ]\n  }\n");
    }

    fn tenant_account(&self, out: &mut String, account: &TenantAccount) {
        let tenant = &account.tenant;
        let _ = writeln!(
            out,
            "  {} {{\n    exports: [ {{ service: \"cmd.>\", accounts: [ GW ], response_type: Singleton }} ]\n    imports: [\n      {}\n      {}\n    ]\n    users: [",
            quoted(tenant.as_str()),
            import_service(&format!("in.{tenant}.>"), "in.>", true),
            import_service(&format!("inq.{tenant}.>"), "inq.>", true)
        );
        for publisher in &account.publishers {
            let mut publishes: Vec<String> = match &publisher.rooms {
                None => vec!["in.>".to_owned()],
                Some(rooms) => rooms
                    .iter()
                    .flat_map(|room| [format!("in.{room}.*"), format!("in.{room}.>")])
                    .collect(),
            };
            publishes.push(queue_of(self.known_as(&publisher.user)));
            let hears = [format!("{}.>", inbox_prefix(&publisher.user.name))];
            let _ = writeln!(
                out,
                "      {}",
                self.user(&publisher.user, Some((&refs(&publishes), &refs(&hears))))
            );
        }
        for backend in &account.backends {
            let _ = writeln!(out, "      {}", self.backend(backend));
        }
        out.push_str("    ]\n  }\n");
    }

    /// One user; `permissions` are (publish, subscribe) allow lists. Nothing that is not listed is allowed.
    fn user(&self, user: &User, permissions: Option<(&[&str], &[&str])>) -> String {
        let login = self.login(user);
        match permissions {
            None => format!("{{ {login} }}"),
            Some((publish, subscribe)) => format!(
                "{{ {login}, permissions: {{\n        publish:   {{ allow: [ {} ] }}\n        subscribe: {{ allow: [ {} ] }} }} }}",
                publish.iter().map(|s| quoted(s)).collect::<Vec<_>>().join(", "),
                subscribe.iter().map(|s| quoted(s)).collect::<Vec<_>>().join(", ")
            ),
        }
    }

    /// A backend hears commands as one of its queue, publishes nothing of its own, and answers what it has heard.
    fn backend(&self, backend: &Backend) -> String {
        let mut hears: Vec<String> = match &backend.commands {
            None => vec![format!("cmd.> {BACKEND_QUEUE}")],
            Some(names) => names
                .iter()
                .map(|name| command_tokens(name))
                .flat_map(|name| {
                    [
                        format!("cmd.{name} {BACKEND_QUEUE}"),
                        format!("cmd.{name}.> {BACKEND_QUEUE}"),
                    ]
                })
                .collect(),
        };
        hears.push(format!("{}.>", inbox_prefix(&backend.user.name)));
        let hears: Vec<String> = hears.iter().map(|subject| quoted(subject)).collect();
        format!(
            "{{ {}, permissions: {{\n        publish:   {{ deny: [ \">\" ] }}\n        subscribe: {{ allow: [ {} ] }}\n        allow_responses: {{ max: 1, expires: \"{BACKEND_ANSWERS_WITHIN}\" }} }} }}",
            self.login(&backend.user),
            hears.join(", ")
        )
    }

    /// The name by which the server, and so the policy, knows a user: its key where it has one.
    fn known_as<'a>(&'a self, user: &'a User) -> &'a str {
        self.security.nkeys.get(&user.name).map_or(&user.name, |key| key)
    }

    fn login(&self, user: &User) -> String {
        match self.security.nkeys.get(&user.name) {
            Some(key) => format!("nkey: {}", quoted(key)),
            None => format!(
                "user: {}, password: {}",
                quoted(&user.name),
                quoted(&user.password)
            ),
        }
    }

    fn has(&self, who: Who) -> bool {
        who != Who::Reader || self.reader.is_some()
    }
}

fn export_service(out: &mut String, subject: &str, answer: Answer, who: &[Who]) {
    if who.is_empty() {
        return;
    }
    let kind = match answer {
        Answer::One => "Singleton",
        Answer::Many => "Stream",
    };
    let accounts: Vec<&str> = who.iter().map(|w| w.account()).collect();
    let _ = writeln!(
        out,
        "      {{ service: {}, accounts: [ {} ], response_type: {kind} }}",
        quoted(subject),
        accounts.join(", ")
    );
}

fn import_service(subject: &str, to: &str, share: bool) -> String {
    let share = if share { ", share: true" } else { "" };
    format!(
        "{{ service: {{ account: CORE, subject: {} }}, to: {}{share} }}",
        quoted(subject),
        quoted(to)
    )
}

/// What gateways reach beyond the API: ingest (their own account put in) and each tenant's command handlers.
fn gateway_extra(tenants: &[TenantAccount]) -> Vec<String> {
    let mut extra = vec![
        import_service("in.GW.>", "in.>", true),
        import_service("svc.GW.>", "svc.>", true),
    ];
    extra.extend(tenants.iter().map(|t| {
        let tenant = &t.tenant;
        format!(
            "{{ service: {{ account: {}, subject: \"cmd.>\" }}, to: \"cmd.{tenant}.>\" }}",
            quoted(tenant.as_str())
        )
    }));
    extra
}

fn refs(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

/// A string of the server's configuration language. Its escapes are those of JSON for the characters that occur.
fn quoted(text: &str) -> String {
    crate::refusal::to_json(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(name: &str) -> User {
        User {
            name: name.to_owned(),
            password: format!("{name}-password"),
        }
    }

    fn config() -> ServerConfig {
        ServerConfig {
            server_name: "n1".into(),
            listen: "127.0.0.1:4222".into(),
            monitor: None,
            store_dir: "store".into(),
            max_file_bytes: 1 << 30,
            admin: login("admin"),
            ingest: login("ingest"),
            aggregator: login("agg"),
            gateway: login("gw"),
            reader: Some(login("reader")),
            system: login("sys"),
            tenants: vec![TenantAccount {
                tenant: Tenant::default(),
                publishers: vec![
                    Publisher {
                        user: login("publisher"),
                        rooms: None,
                    },
                    Publisher {
                        user: login("erp"),
                        rooms: Some(vec![Room::parse("bookings").unwrap()]),
                    },
                ],
                backends: vec![
                    Backend {
                        user: login("backend"),
                        commands: None,
                    },
                    Backend {
                        user: login("fleet"),
                        commands: Some(vec!["delivery/x.update".into()]),
                    },
                ],
            }],
            cluster: None,
            security: Security::default(),
        }
    }

    /// The block of one user, from its name to the end of its permissions.
    fn block<'a>(text: &'a str, name: &str) -> &'a str {
        let start = text.find(&format!("user: \"{name}\"")).unwrap();
        let end = text[start..].find("} }\n").unwrap();
        &text[start..start + end]
    }

    #[test]
    fn nobody_but_ingest_writes_events_and_nobody_writes_live() {
        let text = config().render();
        for name in ["agg", "gw", "reader", "publisher", "erp"] {
            assert!(!block(&text, name).contains("\"evt.>\""), "{name}");
            let publishes = block(&text, name).split("subscribe:").next().unwrap();
            assert!(!publishes.contains("live.>"), "{name}");
            assert!(!publishes.contains("$JS"), "{name}");
        }
        assert!(block(&text, "ingest").contains("\"evt.>\""));
        assert!(block(&text, "erp").contains("\"in.bookings.*\", \"in.bookings.>\""));
        assert!(!block(&text, "erp").contains("\"in.>\""));
        assert!(block(&text, "erp").contains("\"inq.erp.>\""));
        let purges: Vec<&str> = text.matches("STREAM.PURGE.").collect();
        assert_eq!(purges.len(), 2, "ingest empties queues, nobody anything else");
        assert!(block(&text, "ingest").contains("\"$JS.API.STREAM.PURGE.INQ_main_erp\""));
        assert!(text.contains("sync_interval: always"));
    }

    #[test]
    fn backends_hear_their_commands_as_one_of_a_queue_and_publish_only_answers() {
        let text = config().render();
        assert!(block(&text, "backend").contains("allow: [ \"cmd.> backends\", \"_INBOX_backend.>\" ]"));
        let fleet = block(&text, "fleet");
        assert!(
            fleet.contains("\"cmd.delivery=2Fx.update backends\", \"cmd.delivery=2Fx.update.> backends\"")
        );
        for name in ["backend", "fleet"] {
            let block = block(&text, name);
            assert!(block.contains("publish:   { deny: [ \">\" ] }"), "{block}");
            assert!(block.contains("allow_responses: { max: 1"), "{block}");
        }
    }

    #[test]
    fn every_inbox_is_the_users_own() {
        let text = config().render();
        for name in ["ingest", "agg", "gw", "reader", "publisher", "erp"] {
            assert!(block(&text, name).contains(&format!("_INBOX_{name}.>")), "{name}");
            assert!(!block(&text, name).contains("\"_INBOX.>\""), "{name}");
        }
    }

    #[test]
    fn a_key_replaces_the_password_and_nothing_else() {
        let (with, without) = (
            ServerConfig {
                security: Security {
                    nkeys: [("erp".to_owned(), "UKEY".to_owned())].into(),
                    ..Security::default()
                },
                ..config()
            },
            config(),
        );
        let expected = without
            .render()
            .replace("user: \"erp\", password: \"erp-password\"", "nkey: \"UKEY\"")
            // The policy names it by its key, and so does its queue.
            .replace("inq.erp.>", "inq.UKEY.>")
            .replace("INQ_main_erp", "INQ_main_UKEY");
        assert_eq!(with.render(), expected);
        assert_ne!(with.render(), without.render());
    }

    #[test]
    fn tls_is_on_every_listener_that_others_reach() {
        let blocks = |verify: bool, cluster: bool| {
            let mut config = config();
            config.security.tls = Some(Tls {
                cert: "c.pem".into(),
                key: "k.pem".into(),
                ca: verify.then(|| "ca.pem".into()),
                verify,
            });
            config.cluster = cluster.then(|| Cluster {
                listen: "127.0.0.1:6222".into(),
                routes: Vec::new(),
                user: login("route"),
            });
            let text = config.render();
            let count = |what: &str| text.matches(what).count();
            (
                count("tls {"),
                count("verify: true"),
                count("ca_file: \"ca.pem\""),
            )
        };
        assert_eq!(blocks(false, false), (1, 0, 0));
        assert_eq!(blocks(true, false), (1, 1, 1));
        // Nodes verify each other whatever is said.
        assert_eq!(blocks(true, true), (2, 1, 2));
        assert!(!config().render().contains("tls"));
    }

    #[test]
    fn passwords_are_not_shown_by_debug() {
        assert!(!format!("{:?}", config()).contains("-password"));
    }
}
