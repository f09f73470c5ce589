//! The configuration of nats-server as text: where tenants stand in it, and how one is put in or taken out. Pure.
//!
//! Only files that our generator has written are understood, whatever their passwords and addresses have become.

use nkeys::KeyPair;
use roomcast_chassis::process::Failure;
use roomcast_proto::accounts::{
    API_IN_CORE, Backend, Publisher, Security, ServerConfig, TenantAccount, User,
};
use roomcast_proto::ids::{Room, Tenant};
use roomcast_proto::subject::{queue_of, queue_stream};

/// How a service of `CORE` is imported by gateways; after the last of them stand what they import of each tenant.
const GATEWAY_IMPORTS: [&str; 3] = [
    "{ service: { account: CORE, ",
    ".GW.>\" }, to: ",
    ", share: true }",
];

/// What a user is there for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Publishes to these rooms; none named: to any.
    Publisher { rooms: Vec<Room> },
    /// Carries out commands.
    Backend,
}

/// A user with a key of its own.
pub(super) struct NewUser {
    pub(super) name: String,
    pub(super) public: String,
    pub(super) seed: String,
    kind: Kind,
}

impl NewUser {
    /// Makes a key for a user.
    ///
    /// # Errors
    /// 70: there is none.
    pub(super) fn make(name: String, kind: Kind) -> Result<Self, Failure> {
        Self::of(name, KeyPair::new_user(), kind)
    }

    /// A user with this key.
    ///
    /// # Errors
    /// 70: the key has no secret half.
    pub(super) fn of(name: String, key: KeyPair, kind: Kind) -> Result<Self, Failure> {
        let seed = key
            .seed()
            .map_err(|error| Failure::internal(format!("a key without a seed: {error}")))?;
        Ok(Self {
            name,
            public: key.public_key(),
            seed,
            kind,
        })
    }
}

/// Why a configuration is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Wrong {
    /// It is not one of ours.
    #[error("{0}; write it anew from deploy/nats/node.conf.example, or by hand")]
    Form(&'static str),
    /// There is such a tenant.
    #[error("the tenant {0} is there already")]
    Present(Tenant),
    /// There is none.
    #[error("there is no tenant {0}")]
    Absent(Tenant),
    /// The tenant has no such user.
    #[error("{0} has no user {1}")]
    NoUser(Tenant, String),
    /// Its user has two keys.
    #[error("{1} of {0} has two keys already; take the older one away with --finish")]
    Rotating(Tenant, String),
    /// Its user has one.
    #[error("{1} of {0} has one key only; give it another first")]
    NotRotating(Tenant, String),
}

/// A configuration, line by line.
#[derive(Debug, Clone)]
pub(super) struct Conf {
    lines: Vec<String>,
    text: String,
}

impl Conf {
    /// Reads it.
    ///
    /// # Errors
    /// [`Wrong::Form`].
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let conf = Self {
            lines,
            text: text.to_owned(),
        };
        conf.gateway_imports()?;
        conf.end_of_accounts()?;
        Ok(conf)
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    fn changed(&mut self) {
        self.text = self.lines.join("\n") + "\n";
    }

    fn gateway_imports(&self) -> Result<usize, Wrong> {
        let [first, middle, last] = GATEWAY_IMPORTS;
        let is_it = |line: &str| line.starts_with(first) && line.contains(middle) && line.ends_with(last);
        let found = self.lines.iter().rposition(|line| is_it(line.trim()));
        found.ok_or(Wrong::Form("the account GW does not import svc.GW.>"))
    }

    /// The line that says where ingest publishes: it alone may ask which streams there are.
    fn ingest_publishes(&self) -> Result<usize, Wrong> {
        let names = format!("\"{API_IN_CORE}.STREAM.NAMES\"");
        let found = self.lines.iter().position(|line| line.contains(&names));
        found.ok_or(Wrong::Form("no user may ask for the names of streams"))
    }

    /// Lets ingest empty the queue of a login.
    fn allow_drain(&mut self, tenant: &Tenant, login: &str) -> Result<(), Wrong> {
        let at = self.ingest_publishes()?;
        let kept = self.lines[at].strip_suffix(" ] }");
        let kept = kept.ok_or(Wrong::Form("where ingest publishes does not stand in one line"))?;
        self.lines[at] = match drain(tenant, login) {
            Some(drain) => format!("{kept}, {drain} ] }}"),
            None => return Ok(()),
        };
        Ok(())
    }

    /// Takes that back; whether it was so.
    fn forbid_drain(&mut self, tenant: &Tenant, login: &str) -> Result<bool, Wrong> {
        let at = self.ingest_publishes()?;
        let without = drain(tenant, login).map(|drain| self.lines[at].replace(&format!(", {drain}"), ""));
        Ok(without.is_some_and(|without| std::mem::replace(&mut self.lines[at], without.clone()) != without))
    }

    /// The line that closes `accounts`.
    fn end_of_accounts(&self) -> Result<usize, Wrong> {
        let begins = self.lines.iter().position(|line| line == "accounts {");
        let after = begins.ok_or(Wrong::Form("there is no block of accounts"))?;
        let found = self.lines.iter().skip(after).position(|line| line == "}");
        found
            .map(|at| after + at)
            .ok_or(Wrong::Form("the block of accounts has no end"))
    }

    /// The lines of a tenant's account.
    fn account(&self, tenant: &Tenant) -> Option<std::ops::Range<usize>> {
        let first = self
            .lines
            .iter()
            .position(|line| *line == format!("  \"{tenant}\" {{"))?;
        let last = self.lines.iter().skip(first).position(|line| line == "  }")?;
        Some(first..first + last + 1)
    }

    /// The users of a tenant: name, login, lines.
    fn users(&self, tenant: &Tenant) -> Result<Vec<(String, String, std::ops::Range<usize>)>, Wrong> {
        let account = self
            .account(tenant)
            .ok_or_else(|| Wrong::Absent(tenant.clone()))?;
        let is_begin = |line: &str| line.starts_with("      { user: ") || line.starts_with("      { nkey: ");
        let begins: Vec<usize> = account.clone().filter(|at| is_begin(&self.lines[*at])).collect();
        let users = begins.into_iter().map(|first| {
            let rest = self.lines[first + 1..account.end].iter();
            let length = rest
                .take_while(|line| !is_begin(line) && *line != "    ]")
                .count();
            let lines = first..first + length + 1;
            let text = self.lines[lines.clone()].join("\n");
            let between = |before: &str, after: &str| {
                let begin = text.find(before)? + before.len();
                let length = text[begin..].find(after)?;
                Some(text[begin..begin + length].to_owned())
            };
            let login = between("{ nkey: \"", "\"").or_else(|| between("{ user: \"", "\""));
            let name = between("\"_INBOX_", ".>\"");
            match (name, login) {
                (Some(name), Some(login)) => Ok((name, login, lines)),
                _ => Err(Wrong::Form("a user of the tenant has no inbox or no login")),
            }
        });
        users.collect()
    }

    /// Puts a tenant in.
    ///
    /// # Errors
    /// [`Wrong::Present`].
    pub(super) fn add(&mut self, tenant: &Tenant, users: &[NewUser]) -> Result<(), Wrong> {
        if self.account(tenant).is_some() {
            return Err(Wrong::Present(tenant.clone()));
        }
        let (account, import) = generated(tenant, users)?;
        for user in users.iter().filter(|user| user.kind != Kind::Backend) {
            self.allow_drain(tenant, &user.public)?;
        }
        let end = self.end_of_accounts()?;
        self.lines.splice(end..end, account);
        let at = self.gateway_imports()? + 1;
        self.lines.insert(at, import);
        self.changed();
        Ok(())
    }

    /// Gives a user a second key; its present login.
    ///
    /// # Errors
    /// [`Wrong::Absent`], [`Wrong::NoUser`], [`Wrong::Rotating`].
    pub(super) fn rotate(&mut self, tenant: &Tenant, name: &str, public: &str) -> Result<String, Wrong> {
        let mut all = self.users(tenant)?;
        all.retain(|(found, ..)| found == name);
        let [(_, login, lines)] = all.as_slice() else {
            return Err(match all.is_empty() {
                true => Wrong::NoUser(tenant.clone(), name.to_owned()),
                false => Wrong::Rotating(tenant.clone(), name.to_owned()),
            });
        };
        let mut second = self.lines[lines.clone()].to_vec();
        let permissions = second[0].find(", permissions:");
        let permissions = permissions.ok_or(Wrong::Form("a user of the tenant has no permissions"))?;
        second[0] = format!("      {{ nkey: \"{public}\"{}", &second[0][permissions..]);
        let (queue, login) = (queue_of(login), login.clone());
        let queued = second.iter().any(|line| line.contains(&queue));
        for line in &mut second {
            *line = line.replace(&queue, &queue_of(public));
        }
        self.lines.splice(lines.end..lines.end, second);
        if queued {
            self.allow_drain(tenant, public)?;
        }
        self.changed();
        Ok(login)
    }

    /// Takes the older of two keys away; which it was.
    ///
    /// # Errors
    /// [`Wrong::Absent`], [`Wrong::NoUser`], [`Wrong::NotRotating`].
    pub(super) fn finish(&mut self, tenant: &Tenant, name: &str) -> Result<String, Wrong> {
        let mut all = self.users(tenant)?;
        all.retain(|(found, ..)| found == name);
        match all.as_slice() {
            [] => Err(Wrong::NoUser(tenant.clone(), name.to_owned())),
            [_] => Err(Wrong::NotRotating(tenant.clone(), name.to_owned())),
            [(_, login, lines), ..] => {
                let login = login.clone();
                self.lines.drain(lines.clone());
                self.forbid_drain(tenant, &login)?;
                self.changed();
                Ok(login)
            }
        }
    }

    /// Takes a tenant out; the logins it had.
    ///
    /// # Errors
    /// [`Wrong::Absent`].
    pub(super) fn remove(&mut self, tenant: &Tenant) -> Result<Vec<String>, Wrong> {
        let users = self.users(tenant)?.into_iter();
        let gone: Vec<String> = users.map(|(_, login, _)| login).collect();
        let account = self
            .account(tenant)
            .ok_or_else(|| Wrong::Absent(tenant.clone()))?;
        self.lines.drain(account);
        for login in &gone {
            self.forbid_drain(tenant, login)?;
        }
        let (_, import) = generated(tenant, &[])?;
        self.lines.retain(|line| line.trim() != import.trim());
        self.changed();
        Ok(gone)
    }
}

/// What lets ingest empty the queue of a login, as the configuration has it; `None`: its name makes no queue.
fn drain(tenant: &Tenant, login: &str) -> Option<String> {
    queue_stream(tenant, login).map(|(stream, _)| format!("\"{API_IN_CORE}.STREAM.PURGE.{stream}\""))
}

/// The account of a tenant and what gateways import of it, from the one generator: taken from a configuration with this tenant alone.
fn generated(tenant: &Tenant, users: &[NewUser]) -> Result<(Vec<String>, String), Wrong> {
    let login = |name: &str| User {
        name: name.to_owned(),
        password: String::new(),
    };
    let (mut publishers, mut backends) = (Vec::new(), Vec::new());
    for user in users {
        match &user.kind {
            Kind::Publisher { rooms } => publishers.push(Publisher {
                user: login(&user.name),
                rooms: (!rooms.is_empty()).then(|| rooms.clone()),
            }),
            Kind::Backend => backends.push(Backend {
                user: login(&user.name),
                commands: None,
            }),
        }
    }
    let alone = ServerConfig {
        server_name: String::new(),
        listen: String::new(),
        monitor: None,
        store_dir: String::new(),
        max_file_bytes: 0,
        admin: login("admin"),
        ingest: login("ingest"),
        aggregator: login("agg"),
        gateway: login("gw"),
        reader: None,
        system: login("sys"),
        tenants: vec![TenantAccount {
            tenant: tenant.clone(),
            publishers,
            backends,
        }],
        cluster: None,
        security: Security {
            tls: None,
            nkeys: users
                .iter()
                .map(|user| (user.name.clone(), user.public.clone()))
                .collect(),
        },
    };
    let alone = Conf::parse(&alone.render())?;
    let account = alone
        .account(tenant)
        .ok_or(Wrong::Form("the account is not generated"))?;
    let import = alone
        .lines
        .get(alone.gateway_imports()? + 1)
        .cloned()
        .unwrap_or_default();
    Ok((alone.lines[account].to_vec(), import))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../../deploy/nats/node.conf.example");

    fn acme() -> Tenant {
        Tenant::parse("acme").unwrap()
    }

    fn users() -> Vec<NewUser> {
        let rooms = vec![Room::parse("orders").unwrap()];
        let publisher = NewUser::make("erp".to_owned(), Kind::Publisher { rooms }).unwrap();
        vec![
            publisher,
            NewUser::make("fleet".to_owned(), Kind::Backend).unwrap(),
        ]
    }

    #[test]
    fn a_tenant_that_is_added_and_removed_leaves_nothing() {
        let users = users();
        let mut conf = Conf::parse(EXAMPLE).unwrap();
        conf.add(&acme(), &users).unwrap();
        for part in [
            "  \"acme\" {\n".to_owned(),
            "{ service: { account: \"acme\", subject: \"cmd.>\" }, to: \"cmd.acme.>\" }".to_owned(),
            format!("nkey: \"{}\"", users[0].public),
            format!("\"in.orders.*\", \"in.orders.>\", \"inq.{}.>\"", users[0].public),
            format!(", \"$JS.API.STREAM.PURGE.INQ_acme_{}\" ] }}", users[0].public),
        ] {
            assert!(conf.text().contains(&part), "{part} in {}", conf.text());
        }
        assert!(!conf.text().contains(&users[0].seed));
        assert_eq!(conf.add(&acme(), &users), Err(Wrong::Present(acme())));
        let gone = conf.remove(&acme()).unwrap();
        assert_eq!(gone, [users[0].public.clone(), users[1].public.clone()]);
        assert_eq!(conf.text(), EXAMPLE);
        assert_eq!(conf.remove(&acme()), Err(Wrong::Absent(acme())));
    }

    #[test]
    fn a_key_is_exchanged_in_two_steps() {
        let users = users();
        let mut conf = Conf::parse(EXAMPLE).unwrap();
        conf.add(&acme(), &users).unwrap();
        let name = |name: &str| name.to_owned();
        assert_eq!(
            conf.finish(&acme(), "erp"),
            Err(Wrong::NotRotating(acme(), name("erp")))
        );
        assert_eq!(conf.rotate(&acme(), "erp", "UNEW").unwrap(), users[0].public);
        assert_eq!(
            conf.rotate(&acme(), "erp", "UNEXT"),
            Err(Wrong::Rotating(acme(), name("erp")))
        );
        assert_eq!(
            conf.rotate(&acme(), "nobody", "U"),
            Err(Wrong::NoUser(acme(), name("nobody")))
        );
        // Both have the same permissions.
        assert_eq!(conf.text().matches("\"in.orders.*\"").count(), 2);
        // Each key has a queue of its own.
        for part in ["\"inq.UNEW.>\"", "PURGE.INQ_acme_UNEW\""] {
            assert!(conf.text().contains(part), "{part} in {}", conf.text());
        }
        assert_eq!(conf.finish(&acme(), "erp").unwrap(), users[0].public);
        assert!(!conf.text().contains(&users[0].public) && conf.text().contains("UNEW"));
        // A user with a password gets a key.
        let main = Tenant::default();
        assert_eq!(
            conf.rotate(&main, "booking-system", "UKEY").unwrap(),
            "booking-system"
        );
        assert_eq!(conf.finish(&main, "booking-system").unwrap(), "booking-system");
        assert!(!conf.text().contains("CHANGE-ME-booking-system"));
    }

    #[test]
    fn what_nobody_generated_is_left_alone() {
        for text in ["", "port: 4222\n", "accounts {\n}\n"] {
            assert!(matches!(Conf::parse(text), Err(Wrong::Form(_))), "{text}");
        }
    }
}
