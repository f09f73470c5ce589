//! One real PostgreSQL on a free port of loopback, with a store of its own.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{folder, free_port, secured, skip};

/// Time for a start, also after a crash.
const START: Duration = Duration::from_secs(60);

/// A running server; it trusts everybody on loopback and lives for seconds.
pub struct Postgres {
    dir: tempfile::TempDir,
    bin: PathBuf,
    psql: PathBuf,
    /// Whom it runs as, where the test runs as root, which PostgreSQL refuses.
    user: Option<(u32, u32)>,
    port: u16,
    settings: Vec<String>,
    child: Option<Child>,
}

/// Names a folder of PostgreSQL's programs to run instead of the newest that is installed: another version, for example. It need not
/// have `psql`.
const BIN: &str = "ROOMCAST_POSTGRES_BIN";

/// The newest installed folder of PostgreSQL's programs that has this one.
fn installed(program: &str) -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let bins = versions.flatten().map(|version| version.path().join("bin"));
    bins.filter(|bin| bin.join(program).is_file()).max()
}

/// The folders of `initdb` and of `psql`, or `None` after saying how to get them.
fn programs() -> Option<(PathBuf, PathBuf)> {
    let named = std::env::var_os(BIN).map(PathBuf::from);
    let bin = named.or_else(|| installed("initdb"));
    let found = bin.zip(installed("psql"));
    if found.is_none() {
        skip("PostgreSQL", "apt-get install postgresql");
    }
    found
}

/// Whether there is one, for tests whose stack starts it.
#[must_use]
pub fn is_installed() -> bool {
    programs().is_some()
}

fn id(flag: &str) -> Option<u32> {
    let output = Command::new("id").args([flag, "postgres"]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout == b"0\n")
}

impl Postgres {
    /// Starts a server with `wal_level = logical`. `None` when there is none on this machine.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Option<Self> {
        Self::start_with(&["wal_level=logical"]).await
    }

    /// Starts a server with these settings.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_with(settings: &[&str]) -> Option<Self> {
        let mut server = Self::empty(settings)?;
        let store = server.store();
        server.run(
            "initdb",
            &[
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-sync",
                "-D",
                &store,
            ],
        );
        server.start_again().await;
        Some(server)
    }

    /// A standby of this server, which follows it until it is promoted. This server is restarted.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn standby(&mut self) -> Self {
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        let mut standby = Self::empty(&settings).expect("PostgreSQL was there before");
        // What has ended in order may be copied as it is, also where there is no pg_basebackup.
        self.stop("INT");
        let (from, to) = (self.store(), standby.store());
        let copied = self.as_user("cp").args(["-a", &from, &to]).status();
        assert!(copied.is_ok_and(|status| status.success()), "{from} is copied");
        let signal = format!("{to}/standby.signal");
        let made = self.as_user("touch").arg(signal).status();
        assert!(made.is_ok_and(|status| status.success()), "it is a standby");
        self.start_again().await;
        self.sql("SELECT pg_create_physical_replication_slot('standby')");
        standby.settings.extend([
            format!(
                "primary_conninfo=host=127.0.0.1 port={} user=postgres dbname=postgres",
                self.port
            ),
            "primary_slot_name=standby".to_owned(),
            "hot_standby_feedback=on".to_owned(),
        ]);
        if self.version() >= 17 {
            standby.settings.push("sync_replication_slots=on".to_owned());
        }
        standby.start_again().await;
        standby
    }

    /// Its major version.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn version(&self) -> u32 {
        let number = self.ask("SHOW server_version_num");
        number.parse::<u32>().expect("a number") / 10_000
    }

    fn empty(settings: &[&str]) -> Option<Self> {
        let (bin, psql) = programs()?;
        let dir = folder();
        let user = if is_root() {
            let Some(user) = id("-u").zip(id("-g")) else {
                skip("the user postgres", "apt-get install postgresql");
                return None;
            };
            chown(dir.path(), Some(user.0), Some(user.1)).expect("root may give a folder away");
            Some(user)
        } else {
            None
        };
        Some(Self {
            dir,
            bin,
            psql,
            user,
            port: free_port(),
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            child: None,
        })
    }

    fn store(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    fn command(&self, program: &str) -> Command {
        self.as_user(self.bin.join(program))
    }

    fn as_user(&self, program: impl AsRef<OsStr>) -> Command {
        let program = program.as_ref();
        let mut command = match self.user {
            None => Command::new(program),
            Some((user, group)) => {
                let mut command = Command::new("setpriv");
                command
                    .args([
                        "--reuid",
                        &user.to_string(),
                        "--regid",
                        &group.to_string(),
                        "--clear-groups",
                    ])
                    .arg(program);
                command
            }
        };
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.command(program).args(arguments).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {said}");
    }

    /// Starts it on the same port and store, e.g. after [`Self::kill`], and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub async fn start_again(&mut self) {
        let began = Instant::now();
        while self.try_sql("SELECT 1").is_err() {
            let ended = self
                .child
                .as_mut()
                .is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended {
                self.child = Some(self.spawn());
            }
            let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(began.elapsed() < START, "PostgreSQL does not answer: {}", log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn spawn(&self) -> Child {
        let log = File::create(self.dir.path().join("log")).expect("a log file");
        let (store, port) = (self.store(), self.port.to_string());
        let mut command = self.command("postgres");
        command
            .args(["-D", &store, "-p", &port, "-k", "", "-h", "127.0.0.1"])
            .args(["-c", "fsync=off", "-c", "max_wal_senders=10"])
            .stdout(Stdio::null())
            .stderr(log);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command.spawn().expect("postgres starts")
    }

    /// Runs SQL and gives what it answers, a line per row, columns separated by `|`.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    pub fn ask(&self, sql: &str) -> String {
        match self.try_sql(sql) {
            Ok(answer) => answer,
            Err(error) => panic!("{sql}: {error}"),
        }
    }

    /// Runs SQL.
    ///
    /// # Panics
    /// When it is refused.
    pub fn sql(&self, sql: &str) {
        let _ = self.ask(sql);
    }

    /// Runs SQL, each statement by itself.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub fn try_sql(&self, sql: &str) -> Result<String, String> {
        let output = Command::new(self.psql.join("psql"))
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                "127.0.0.1",
                "-U",
                "postgres",
            ])
            .args(["-p", &self.port.to_string(), "-d", "postgres", "-c", sql])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Its address for a user that needs no password.
    #[must_use]
    pub fn address(&self, user: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/postgres", self.port)
    }

    /// Lets it speak TLS, too: for `127.0.0.1`, by the tests' own authority.
    ///
    /// # Panics
    /// When the files cannot be written, or it refuses.
    pub fn secure(&self) {
        let names = ["server.crt", "server.key"];
        for (from, name) in secured::certificate().iter().zip(names) {
            let to = self.dir.path().join("data").join(name);
            std::fs::copy(from, &to).expect("the store takes files");
            std::fs::set_permissions(&to, Permissions::from_mode(0o600)).expect("they are ours");
            if let Some((user, group)) = self.user {
                chown(&to, Some(user), Some(group)).expect("root may give a file away");
            }
        }
        self.sql("ALTER SYSTEM SET ssl = on");
        self.sql("SELECT pg_reload_conf()");
    }

    /// Makes a standby a server of its own.
    pub fn promote(&self) {
        self.sql("SELECT pg_promote()");
    }

    /// Takes the port of another one that is gone, with a restart.
    pub async fn take_over(&mut self, other: &mut Self) {
        other.kill();
        self.kill();
        self.port = other.port;
        self.start_again().await;
    }

    /// Ends it by a signal of its own: QUIT at once, INT in order.
    fn stop(&mut self, signal: &str) {
        if let Some(mut child) = self.child.take() {
            let asked = Command::new("kill")
                .args([&format!("-{signal}"), &child.id().to_string()])
                .status();
            if !asked.is_ok_and(|status| status.success()) {
                let _ = child.kill();
            }
            let _ = child.wait();
        }
    }

    /// Ends it at once, as a crash does: SIGKILL for the first process, and the others follow.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Ended is ended, by whatever.
            let _ = child.kill();
            let _ = child.wait();
        }
        // The others notice by themselves. A store that they still hold is refused to a new server, which then is tried again.
        let _ = std::fs::remove_file(self.dir.path().join("data/postmaster.pid"));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // All its processes end at once; the folder goes with the value.
        self.stop("QUIT");
    }
}
