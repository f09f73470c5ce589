//! `roomcast tenant`: tenants in the configuration of NATS and in the policy, with keys of their own.
//!
//! What a tenant may is written by the generator of all configurations ([`roomcast_proto::accounts`]); here it is put into the file that
//! is there. A user's key is made here: the server knows its public half alone. Rotation writes a second key beside the first, so both
//! hold until the second step takes the first away.

mod conf;
mod listed;
mod next;
mod reload;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use nkeys::KeyPair;
use roomcast_access::Policy;
use roomcast_chassis::process::Failure;
use roomcast_proto::ids::{Room, Tenant, is_token};

use crate::terminal::print;
use conf::{Conf, Kind, NewUser};
use next::Next;

/// Adds and removes tenants, and exchanges their keys.
///
/// Changes the configuration of nats-server (one that is generated, like deploy/nats/node.conf.example) and the policy; both are
/// checked before either is written, and keep their owners and rights; a link stays one. Then the same configuration goes to every node, and counts when each has read it again
/// (`roomcast tenant reload`), which ends no connection that may stay. The services follow the policy by themselves; several tenants
/// need ROOMCAST_CURSOR_KEYS.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    roomcast tenant add acme --publisher erp --role desk --conf nats.conf --policy policy.yaml --secrets keys\n  \
    ROOMCAST_NATS_USER=sys ROOMCAST_NATS_PASSWORD=… roomcast tenant reload acme --nats nats://n1:4222,nats://n2:4222,nats://n3:4222\n  \
    roomcast tenant rotate acme erp --conf nats.conf --policy policy.yaml --secrets keys\n  \
    roomcast tenant rotate acme erp --finish --conf nats.conf --policy policy.yaml --secrets keys\n  \
    roomcast tenant remove acme --conf nats.conf --policy policy.yaml --secrets keys")]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Add a tenant: its account, a publisher with a key, and its entry in the policy.
    Add(Add),
    /// Give a user of a tenant a second key beside the first; with --finish take the first one away.
    Rotate(Rotate),
    /// Take a tenant away: its account, its keys' entries and what the policy says of them. What is stored stays until it expires.
    Remove(Remove),
    /// Have every server read its configuration again, as the user of the account SYS that ROOMCAST_NATS_USER and
    /// ROOMCAST_NATS_PASSWORD name, and see that it routes what a tenant publishes.
    Reload(reload::Reload),
}

#[derive(Args, Debug)]
struct Files {
    /// The configuration of nats-server.
    #[arg(long, value_name = "FILE")]
    conf: PathBuf,
    /// The policy.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// The folder of secret keys: <tenant>.<user>.<public key>.nk, readable by their owner alone.
    #[arg(long, value_name = "DIR")]
    secrets: PathBuf,
}

#[derive(Args, Debug)]
struct Add {
    /// The tenant.
    tenant: String,
    /// The name of a user that publishes.
    #[arg(long, value_name = "USER")]
    publisher: String,
    /// A role that the policy gives the publisher; several times for several.
    #[arg(long, value_name = "ROLE", required = true)]
    role: Vec<String>,
    /// A room to which the publisher may publish, with those below it; several times for several, any if none is named.
    #[arg(long, value_name = "ROOM")]
    room: Vec<String>,
    /// The name of a user that carries out commands.
    #[arg(long, value_name = "USER")]
    backend: Option<String>,
    #[command(flatten)]
    files: Files,
}

#[derive(Args, Debug)]
struct Rotate {
    /// The tenant.
    tenant: String,
    /// The user's name.
    user: String,
    /// Take the older key away, when nobody uses it any more.
    #[arg(long)]
    finish: bool,
    #[command(flatten)]
    files: Files,
}

#[derive(Args, Debug)]
struct Remove {
    /// The tenant.
    tenant: String,
    #[command(flatten)]
    files: Files,
}

/// Both files as they are to be.
struct Pair {
    conf: Conf,
    policy: String,
}

/// Runs the command.
///
/// # Errors
/// 64: a name that is none, or not there. 65: a file that is not of the expected form, or would not hold after the change. 69: a file
/// cannot be read or written, or a server does not do as it is asked.
pub(crate) async fn run(options: &Options) -> Result<(), Failure> {
    match &options.action {
        Action::Add(add) => self::add(add),
        Action::Rotate(rotate) => self::rotate(rotate),
        Action::Remove(remove) => self::remove(remove),
        Action::Reload(servers) => reload::run(servers).await,
    }
}

fn add(options: &Add) -> Result<(), Failure> {
    let tenant = tenant(&options.tenant)?;
    let files = &options.files;
    let mut pair = files.read()?;
    let rooms = options.room.iter().map(|room| Room::parse(room));
    let rooms: Vec<Room> = rooms
        .collect::<Result<_, _>>()
        .map_err(|bad| Failure::settings(format!("--room: {bad}")))?;
    let publisher = NewUser::make(user(&options.publisher)?, Kind::Publisher { rooms })?;
    let backend = options
        .backend
        .as_deref()
        .map(|name| NewUser::make(user(name)?, Kind::Backend));
    let users: Vec<NewUser> = std::iter::once(Ok(publisher))
        .chain(backend)
        .collect::<Result<_, Failure>>()?;
    if users.len() == 2 && users[0].name == users[1].name {
        return Err(Failure::settings(
            "--backend: another name than that of the publisher",
        ));
    }
    files.wrong_conf(pair.conf.add(&tenant, &users))?;
    let entry = listed::entry(&tenant, &users[0].public, &options.role);
    pair.policy = listed::with(&pair.policy, &entry).map_err(|why| files.wrong_policy(&why))?;
    let next = files.next(&pair)?;
    for user in &users {
        files.keep_secret(&tenant, user)?;
    }
    files.place(next, &format!(" {tenant}"))
}

fn rotate(options: &Rotate) -> Result<(), Failure> {
    let (tenant, name) = (tenant(&options.tenant)?, user(&options.user)?);
    let files = &options.files;
    let mut pair = files.read()?;
    if options.finish {
        let gone = files.wrong_conf(pair.conf.finish(&tenant, &name))?;
        files.unlist(&mut pair, &tenant, &[gone])?;
        return files.place(files.next(&pair)?, "");
    }
    let key = KeyPair::new_user();
    let old = files.wrong_conf(pair.conf.rotate(&tenant, &name, &key.public_key()))?;
    let was_listed = files.policy(&pair)?.publisher(&tenant, &old).is_some();
    pair.policy = listed::beside(&pair.policy, &tenant, &old, &key.public_key());
    let is_listed = files.policy(&pair)?.publisher(&tenant, &key.public_key());
    if was_listed && is_listed.is_none() {
        return Err(files.not_a_line(&tenant, &old));
    }
    let next = files.next(&pair)?;
    files.keep_secret(&tenant, &NewUser::of(name, key, Kind::Backend)?)?;
    files.place(next, "")
}

fn remove(options: &Remove) -> Result<(), Failure> {
    let tenant = tenant(&options.tenant)?;
    let files = &options.files;
    let mut pair = files.read()?;
    let gone = files.wrong_conf(pair.conf.remove(&tenant))?;
    files.unlist(&mut pair, &tenant, &gone)?;
    files.place(files.next(&pair)?, "")
}

fn tenant(name: &str) -> Result<Tenant, Failure> {
    Tenant::parse(name).map_err(|bad| Failure::settings(format!("{name:?}: {bad}")))
}

fn user(name: &str) -> Result<String, Failure> {
    match is_token(name) {
        true => Ok(name.to_owned()),
        false => Err(Failure::settings(format!(
            "{name:?} is no user's name: 1 to 64 letters, digits, - or _"
        ))),
    }
}

impl Files {
    fn read(&self) -> Result<Pair, Failure> {
        let text = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|error| Failure::unavailable(format!("{}: {error}", path.display())))
        };
        let conf = Conf::parse(&text(&self.conf)?);
        Ok(Pair {
            conf: self.wrong_conf(conf)?,
            policy: text(&self.policy)?,
        })
    }

    fn wrong_conf<T>(&self, result: Result<T, conf::Wrong>) -> Result<T, Failure> {
        result.map_err(|why| match why {
            conf::Wrong::Form(_) => Failure::file(format!("{}: {why}", self.conf.display())),
            _ => Failure::settings(why.to_string()),
        })
    }

    fn wrong_policy(&self, why: &str) -> Failure {
        Failure::file(format!("{}: {why}", self.policy.display()))
    }

    /// Writes a key's secret half, which is in no other place.
    fn keep_secret(&self, tenant: &Tenant, user: &NewUser) -> Result<(), Failure> {
        let path = self
            .secrets
            .join(format!("{tenant}.{}.{}.nk", user.name, user.public));
        let failed = |error: std::io::Error| Failure::unavailable(format!("{}: {error}", path.display()));
        std::fs::create_dir_all(&self.secrets).map_err(failed)?;
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        writeln!(file.map_err(failed)?, "{}", user.seed).map_err(failed)?;
        print(&format!(
            "{}: the key of {} of {tenant}",
            path.display(),
            user.name
        ));
        Ok(())
    }

    /// The policy as it is to be, if it holds.
    fn policy(&self, pair: &Pair) -> Result<Policy, Failure> {
        let name = self.policy.display().to_string();
        Policy::parse(&pair.policy, &name).map_err(|mistakes| {
            let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            Failure::file(format!("the policy would not hold:\n{}", lines.join("\n")))
        })
    }

    /// Takes the entries of these logins out of the policy.
    fn unlist(&self, pair: &mut Pair, tenant: &Tenant, logins: &[String]) -> Result<(), Failure> {
        pair.policy = listed::without(&pair.policy, tenant, logins);
        let policy = self.policy(pair)?;
        let left = logins
            .iter()
            .find(|login| policy.publisher(tenant, login).is_some());
        left.map_or(Ok(()), |login| Err(self.not_a_line(tenant, login)))
    }

    /// The policy lists a login in a form that is not changed here: which it has to have.
    fn not_a_line(&self, tenant: &Tenant, login: &str) -> Failure {
        let entry = listed::entry(tenant, login, &["…".to_owned()]);
        self.wrong_policy(&format!(
            "the entry of {tenant}/{login} among the publishers is not a line of its own, and nothing was changed; write one entry a line, \
             with its roles, and do the same again: {}",
            entry.trim_start()
        ))
    }

    /// Both files as they are to be, written beside those that are there.
    fn next(&self, pair: &Pair) -> Result<[Next; 2], Failure> {
        self.policy(pair)?;
        let conf = Next::write(&self.conf, pair.conf.text())?;
        Ok([conf, Next::write(&self.policy, &pair.policy)?])
    }

    /// Puts both in their places, and says what is to be done now. `tenant`: the one that servers have to know then.
    fn place(&self, next: [Next; 2], tenant: &str) -> Result<(), Failure> {
        for file in next {
            file.place()?;
        }
        let name = self.policy.display();
        print(&format!(
            "{0} and {name} are written; now copy {0} to each node, and run: ROOMCAST_NATS_USER=sys ROOMCAST_NATS_PASSWORD=… roomcast \
             tenant reload{tenant} --nats URL,…",
            self.conf.display()
        ));
        Ok(())
    }
}
