//! One process that `dev` starts: how it begins, so that none outlives `dev`, and which part of the system it is.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;

use roomcast_chassis::process::{Exit, Failure};
use rustix::process::Signal;
use tokio::process::Command;

use crate::terminal::{Colour, complain};

/// The hidden first argument of the wrapper every child begins as.
const WRAPPER: &str = "__child";
/// In a freshly started wrapper, becomes the program it was started for; `None` in every other process.
///
/// The wrapper asks the kernel for SIGKILL when its parent dies, then replaces itself by the program: that wish survives the
/// replacement, so that even `kill -9` of `dev` leaves no process behind. On success this never returns.
pub(crate) fn become_program(mut arguments: impl Iterator<Item = OsString>) -> Option<Exit> {
    use std::os::unix::process::CommandExt;
    if arguments.nth(1).is_none_or(|first| first != WRAPPER) {
        return None;
    }
    let parent: Option<i32> = arguments.next().and_then(|text| text.to_str()?.parse().ok());
    let Some((parent, program)) = parent.zip(arguments.next()) else {
        complain("this is not for people");
        return Some(Exit::Settings);
    };
    if let Err(reason) = die_with(parent) {
        complain(&reason);
        return Some(Exit::Unavailable);
    }
    let error = std::process::Command::new(&program).args(arguments).exec();
    complain(&format!("{}: {error}", program.to_string_lossy()));
    Some(Exit::Unavailable)
}

#[cfg(target_os = "linux")]
fn die_with(parent: i32) -> Result<(), String> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| error.to_string())?;
    // It may have died before the wish was known; then there is nobody left whose death could be told.
    let alive = rustix::process::getppid().is_some_and(|now| now.as_raw_nonzero().get() == parent);
    if alive {
        Ok(())
    } else {
        Err("roomcast dev has ended".to_owned())
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with(_parent: i32) -> Result<(), String> {
    Ok(())
}

/// Which part of the system a process is; the order in which `dev` ends them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Gateway,
    Aggregator,
    Ingest,
    Postgres,
    Nats,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Aggregator => "aggregator",
            Self::Ingest => "ingest",
            Self::Postgres => "postgres",
            Self::Nats => "nats",
        }
    }

    pub(super) fn colour(self) -> Colour {
        match self {
            Self::Gateway => Colour::Cyan,
            Self::Aggregator => Colour::Magenta,
            Self::Ingest => Colour::Blue,
            Self::Postgres | Self::Nats => Colour::Dim,
        }
    }

    /// How it is asked to end. PostgreSQL waits for its clients when it is asked as the others are.
    pub(super) fn end(self) -> Signal {
        match self {
            Self::Postgres => Signal::INT,
            _ => Signal::TERM,
        }
    }

    /// Whether a line is worth showing; all of them are kept for the case that the process dies.
    pub(super) fn shows(self, line: &str) -> bool {
        // Thirty lines of greeting at each start help nobody; warnings and errors do, except that our random passwords of an hour are
        // in a file of our own.
        let matters = ["[WRN]", "[ERR]", "[FTL]"]
            .iter()
            .any(|level| line.contains(level));
        if self == Self::Postgres {
            // Its other complaints are told to whoever asked, and to us.
            return line.contains("PANIC:");
        }
        self != Self::Nats || (matters && !line.contains("Plaintext passwords"))
    }
}

/// A process to run.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) role: Role,
    /// From 1.
    pub(crate) number: u32,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(String, String)>,
}

impl Spec {
    /// `gateway-1`
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.role.name(), self.number)
    }

    /// The command that starts it, by way of the wrapper.
    ///
    /// # Errors
    /// 70: this program does not know where it is.
    pub(super) fn command(&self) -> Result<Command, Failure> {
        // The kernel's own name for this program works also when the file has been replaced by a newer build.
        let wrapper = if cfg!(target_os = "linux") {
            PathBuf::from("/proc/self/exe")
        } else {
            std::env::current_exe()
                .map_err(|error| Failure::internal(format!("where this program is: {error}")))?
        };
        let mut command = Command::new(wrapper);
        command
            .arg(WRAPPER)
            .arg(std::process::id().to_string())
            .arg(&self.program)
            .args(&self.arguments);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ROOMCAST_"))
        {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // A group of its own: Ctrl-C reaches dev alone, which ends the others in order.
        command.process_group(0).kill_on_drop(true);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(list: &[&str]) -> impl Iterator<Item = OsString> {
        list.iter().map(OsString::from).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn only_the_wrapper_becomes_something_else() {
        assert_eq!(become_program(arguments(&["roomcast"])), None);
        assert_eq!(become_program(arguments(&["roomcast", "dev", WRAPPER])), None);
        assert_eq!(
            become_program(arguments(&["roomcast", WRAPPER])),
            Some(Exit::Settings)
        );
        assert_eq!(
            become_program(arguments(&["roomcast", WRAPPER, "x", "/bin/true"])),
            Some(Exit::Settings)
        );
        // Whose parent is gone does not start.
        assert_eq!(
            become_program(arguments(&["roomcast", WRAPPER, "1999999999", "/bin/true"])),
            Some(Exit::Unavailable)
        );
    }

    #[test]
    fn nats_is_quiet_unless_something_is_wrong() {
        assert!(!Role::Nats.shows("[1] 2026/11/21 08:00:00.000000 [INF] Server is ready"));
        assert!(
            !Role::Nats.shows(
                "[1] 2026/11/21 08:00:00.000000 [WRN] Plaintext passwords detected, use nkeys or bcrypt"
            )
        );
        assert!(Role::Nats.shows("[1] 2026/11/21 08:00:00.000000 [ERR] no space left"));
        assert!(Role::Gateway.shows("anything"));
        assert!(!Role::Postgres.shows("LOG:  database system is ready to accept connections"));
    }
}
