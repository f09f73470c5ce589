//! PostgreSQL for a scenario whose events begin in a database (`capture.yaml` and `database.sql` beside its other files): started where it
//! is installed, with its tables and a user that may follow them.

use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use roomcast_capture::Mapping;
use roomcast_capture::database::Database;
use roomcast_capture::session::Session;
use roomcast_capture::sql::literal;
use roomcast_chassis::process::Failure;
use tokio::process::Command;

use super::child::{Role, Spec};
use super::family::Family;
use super::home::Home;
use super::nats::password;
use super::ready::{step, unless_died};
use crate::find;
use crate::terminal::say;

/// Pause between two looks at whether it answers, and when that is given up.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// The owner of the tables, and who follows them.
const OWNER: &str = "shop";
const FOLLOWER: &str = "capture";
const DATABASE: &str = "postgres";

/// A PostgreSQL that runs.
#[derive(Debug)]
pub(super) struct Postgres {
    /// The mapping file.
    pub(super) capture: PathBuf,
    /// What it says.
    pub(super) mapping: Mapping,
    /// The file with the address that ingest follows.
    pub(super) address_file: PathBuf,
    /// The database, as its owner.
    pub(super) owner: Database,
    /// Whether it was made just now.
    pub(super) fresh: bool,
}

/// Where it is installed, and as whom it runs.
struct Installed {
    bin: PathBuf,
    /// Where this program is root's, which PostgreSQL refuses to run as.
    user: Option<(u32, u32)>,
}

impl Installed {
    /// What is missing, in words.
    async fn find() -> Result<Self, &'static str> {
        let bin = find::postgres().ok_or("PostgreSQL is not here (Debian: apt-get install postgresql)")?;
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { bin, user: None });
        }
        let missing = "there is no user postgres to run PostgreSQL as (Debian: apt-get install postgresql)";
        let mut ids = [0; 2];
        for (id, flag) in ids.iter_mut().zip(["-u", "-g"]) {
            let output = Command::new("id").args([flag, "postgres"]).output().await;
            let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
            *id = text.ok().and_then(|text| text.parse().ok()).ok_or(missing)?;
        }
        Ok(Self {
            bin,
            user: Some((ids[0], ids[1])),
        })
    }

    /// A program of it, and the first arguments, so that it runs as who it must and ends with its parent.
    fn program(&self, name: &str) -> (PathBuf, Vec<OsString>) {
        let program = self.bin.join(name);
        let Some((user, group)) = self.user else {
            return (program, Vec::new());
        };
        let arguments = [
            "--reuid".into(),
            user.to_string().into(),
            "--regid".into(),
            group.to_string().into(),
            "--clear-groups".into(),
            // A change of user takes back the wish to end with the parent.
            "--pdeathsig".into(),
            "KILL".into(),
            program.into_os_string(),
        ];
        (PathBuf::from("setpriv"), arguments.into())
    }

    fn give(&self, path: &Path) -> std::io::Result<()> {
        match self.user {
            Some((user, group)) => chown(path, Some(user), Some(group)),
            None => Ok(()),
        }
    }
}

impl Postgres {
    /// Starts it, and makes the scenario's tables where the store is new. `None`, after saying why, where it is not installed.
    ///
    /// # Errors
    /// 65: the mapping or the SQL is wrong. 69: it does not start.
    pub(super) async fn start(
        capture: &Path,
        home: &Home,
        family: &mut Family,
        port: u16,
    ) -> Result<Option<Self>, Failure> {
        let since = Instant::now();
        let name = capture.display().to_string();
        let wrong = |error: &dyn std::fmt::Display| Failure::file(format!("{name}: {error}"));
        let text = std::fs::read_to_string(capture).map_err(|error| wrong(&error))?;
        let mapping = Mapping::parse(&text, &name, None).map_err(|mistakes| {
            let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            Failure::file(lines.join("\n"))
        })?;
        let installed = match Installed::find().await {
            Ok(installed) => installed,
            Err(why) => {
                say(&format!(
                    "  {why}: the changes of the shop's tables are simulated instead of read from them"
                ));
                return Ok(None);
            }
        };
        let failed = |error: &dyn std::fmt::Display| Failure::unavailable(format!("PostgreSQL: {error}"));
        let store = home.path().join("postgres");
        let fresh = !store.join("data/PG_VERSION").is_file();
        let (owner, follower) = (Self::secret(home, OWNER)?, Self::secret(home, FOLLOWER)?);
        if fresh {
            if installed.user.is_some() {
                // Its user must get through to its own folder, and sees nothing else: every file here is its owner's alone.
                let through = std::fs::Permissions::from_mode(0o711);
                std::fs::set_permissions(home.path(), through).map_err(|error| failed(&error))?;
            }
            initialize(&installed, &store, home, &owner).await?;
        }
        family.start(spec(&installed, &store, port))?;
        let database = |user: &str, password: &str| Database {
            host: "127.0.0.1".to_owned(),
            port,
            user: user.to_owned(),
            password: password.to_owned(),
            name: DATABASE.to_owned(),
            tls: None,
        };
        let owner = database(OWNER, &owner);
        let mut session = unless_died(family, answers(&owner, &mapping)).await?;
        if fresh {
            let path = capture.with_file_name("database.sql");
            let name = path.display();
            let sql =
                std::fs::read_to_string(&path).map_err(|error| Failure::file(format!("{name}: {error}")))?;
            let password = format!("ALTER ROLE {FOLLOWER} PASSWORD {}", literal(&follower));
            for sql in [sql, password] {
                let ran = session.run(&sql).await;
                ran.map_err(|error| Failure::file(format!("{name}: {error}")))?;
            }
        }
        let address = format!("postgres://{FOLLOWER}:{follower}@127.0.0.1:{port}/{DATABASE}");
        step(
            "PostgreSQL",
            &format!("postgres://{OWNER}@127.0.0.1:{port}/{DATABASE}"),
            since,
        );
        Ok(Some(Self {
            capture: capture.to_owned(),
            mapping,
            address_file: home.write("secrets/database", &address)?,
            owner,
            fresh,
        }))
    }

    /// A password that is made once per folder.
    fn secret(home: &Home, user: &str) -> Result<String, Failure> {
        let name = format!("secrets/postgres-{user}");
        match std::fs::read_to_string(home.path().join(&name)) {
            Ok(known) => Ok(known),
            Err(_) => {
                let made = password()?;
                home.write(&name, &made)?;
                Ok(made)
            }
        }
    }
}

/// Makes the store. Nobody gets in without a password: other users of this machine could, else, run programs as this one.
async fn initialize(installed: &Installed, store: &Path, home: &Home, owner: &str) -> Result<(), Failure> {
    let failed =
        |error: &dyn std::fmt::Display| Failure::unavailable(format!("PostgreSQL's initdb: {error}"));
    std::fs::create_dir_all(store).map_err(|error| failed(&error))?;
    let password = home.write("postgres/password", owner)?;
    for path in [store, &password] {
        installed.give(path).map_err(|error| failed(&error))?;
    }
    let (program, first) = installed.program("initdb");
    let output = Command::new(program)
        .args(first)
        .args([
            "-U",
            OWNER,
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--locale",
            "C",
            "--no-sync",
            "--pwfile",
        ])
        .arg(&password)
        .arg("-D")
        .arg(store.join("data"))
        .current_dir(store)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| failed(&error))?;
    let _ = std::fs::remove_file(&password);
    if output.status.success() {
        Ok(())
    } else {
        Err(failed(&String::from_utf8_lossy(&output.stderr).trim()))
    }
}

fn spec(installed: &Installed, store: &Path, port: u16) -> Spec {
    let (program, mut arguments) = installed.program("postgres");
    let data = store.join("data").into_os_string();
    let port = port.to_string();
    arguments.extend([
        "-D".into(),
        data,
        "-p".into(),
        port.into(),
        "-h".into(),
        "127.0.0.1".into(),
        "-k".into(),
        "".into(),
    ]);
    for setting in [
        "wal_level=logical",
        "max_wal_senders=10",
        "max_connections=20",
        "shared_buffers=32MB",
    ] {
        arguments.extend(["-c".into(), setting.into()]);
    }
    Spec {
        role: Role::Postgres,
        number: 1,
        program,
        arguments,
        environment: Vec::new(),
    }
}

async fn answers(database: &Database, mapping: &Mapping) -> Result<Session, Failure> {
    let since = Instant::now();
    loop {
        match Session::open(database, mapping).await {
            Ok(session) => return Ok(session),
            Err(error) if since.elapsed() > GIVE_UP_AFTER => {
                return Err(Failure::unavailable(format!(
                    "PostgreSQL does not answer: {error}"
                )));
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
