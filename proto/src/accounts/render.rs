//! The configuration as text: accounts, users, exports and imports in the language of nats-server.

use std::fmt::Write as _;

use super::calls::{Answer, IMPORTERS, Who, api_calls};
use super::{
    API_IN_CORE, API_OUTSIDE_CORE, BACKEND_QUEUE, Backend, Publisher, ServerConfig, TenantAccount, User,
    inbox_prefix,
};
use crate::subject::{
    QUEUED_ALL, SERIES_ALL, SERVERS_HEALTH, SERVERS_JETSTREAM, STATISTICS_ANSWERS_ALL, command_tokens,
    queue_of, queue_stream, stream as names,
};

/// What `CORE` may ask the servers themselves, and under which name.
const SYSTEM_QUESTIONS: [(&str, &str); 2] = [
    ("$SYS.REQ.SERVER.PING.JSZ", SERVERS_JETSTREAM),
    ("$SYS.REQ.SERVER.PING.HEALTHZ", SERVERS_HEALTH),
];

/// A backend may answer what it heard for this long, once.
const BACKEND_ANSWERS_WITHIN: &str = "60s";

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
            &["in.>", "svc.>", "prs.>", "cmd.>", STATISTICS_ANSWERS_ALL],
            &["prs.>"],
            &gateway_extra(&self.tenants),
        );
        // Answers go where the server says that the question came from.
        let from_aggregator = ["in.>", "_R_.>"];
        self.account(
            &mut out,
            Who::Aggregator,
            &self.aggregator,
            &from_aggregator,
            &[SERIES_ALL],
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
            "$KV.devices.>",
            "$KV.sinks.>",
            "$JS.API.INFO",
            "$JS.API.STREAM.INFO.*",
            "$JS.API.STREAM.NAMES",
            "$JS.API.STREAM.MSG.GET.*",
            "$JS.API.DIRECT.GET.>",
            SERVERS_JETSTREAM,
            SERVERS_HEALTH,
        ];
        // What was sent is taken away, one by one.
        let sent = format!("{API_IN_CORE}.STREAM.MSG.DELETE.{}", names::SINKS);
        let purges = self.queue_purges();
        let ingest_publishes: Vec<&str> = ingest_publishes
            .into_iter()
            .chain([sent.as_str()])
            .chain(purges.iter().map(String::as_str))
            .collect();
        let inbox = format!("{}.>", inbox_prefix(&self.ingest.name));
        let ingest_hears = [
            "in.*.> ingest",
            "svc.*.> ingest",
            QUEUED_ALL,
            "kvl.>",
            STATISTICS_ANSWERS_ALL,
            &inbox,
        ];
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
        let _ = writeln!(
            out,
            "      {{ stream: {{ account: {}, subject: {} }} }}",
            Who::Gateway.account(),
            quoted(STATISTICS_ANSWERS_ALL)
        );
        let _ = writeln!(
            out,
            "      {{ service: {{ account: {}, subject: {} }} }}",
            Who::Aggregator.account(),
            quoted(SERIES_ALL)
        );
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
            "  {} {{\n    users: [ {} ]{}\n    imports: [",
            who.account(),
            self.user(login, Some((&refs(&publishes), &refs(&hears)))),
            who.exports()
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
pub(super) fn quoted(text: &str) -> String {
    crate::refusal::to_json(&text)
}
