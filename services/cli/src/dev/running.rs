//! One process while it runs: what it says, and how it ends.

use std::collections::VecDeque;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use roomcast_chassis::process::{Exit, Failure};
use rustix::process::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::Child;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::child::{Role, Spec};
use crate::terminal::{Stream, say};

/// Lines of a child kept for the case that it dies.
const LINES_KEPT: usize = 12;
/// Longest line shown in one piece.
const LINE_BYTES_MAX: u64 = 16 * 1024;
/// Time for the last lines of a dead child to arrive: a grandchild may hold the pipe for ever.
const LAST_LINES_WITHIN: Duration = Duration::from_millis(300);

/// How processes are ended.
#[derive(Debug, Clone)]
pub(super) struct End {
    /// How long one may take when asked.
    pub(super) grace: Duration,
    /// Somebody has lost patience: none may take longer.
    pub(super) hurry: CancellationToken,
}

/// A process that ended without being asked to.
#[derive(Debug)]
pub(crate) struct Died {
    pub(crate) name: String,
    pub(crate) how: String,
    pub(super) code: Option<i32>,
    pub(super) last_lines: Vec<String>,
}

impl Died {
    /// The end of `dev` because of it: with the child's own exit code where that says whose fault it was.
    pub(crate) fn failure(&self) -> Failure {
        let exit = match self.code {
            Some(64) => Exit::Settings,
            Some(65) => Exit::File,
            Some(69) => Exit::Unavailable,
            _ => Exit::Internal,
        };
        let mut message = format!("{} {}", self.name, self.how);
        if !self.last_lines.is_empty() {
            message.push_str("; the last it said:");
        }
        for line in &self.last_lines {
            message.push_str("\n  ");
            message.push_str(line);
        }
        Failure { exit, message }
    }
}

/// A process that runs.
pub(super) struct Running {
    pub(super) child: Child,
    pub(super) pid: u32,
    last_lines: Arc<Mutex<VecDeque<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts it.
    ///
    /// # Errors
    /// 69: it cannot be started at all.
    pub(super) fn start(spec: &Spec) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::unavailable(format!("{} cannot be started: {error}", spec.name()))
        };
        let mut child = spec.command()?.spawn().map_err(|error| failed(&error))?;
        let pid = child.id().ok_or_else(|| failed(&"it ended at once"))?;
        let last_lines: Arc<Mutex<VecDeque<String>>> = Arc::default();
        let mut readers = Vec::new();
        if let Some(out) = child.stdout.take() {
            readers.push(tokio::spawn(read_lines(
                out,
                spec.role,
                spec.name(),
                Arc::clone(&last_lines),
            )));
        }
        if let Some(error) = child.stderr.take() {
            readers.push(tokio::spawn(read_lines(
                error,
                spec.role,
                spec.name(),
                Arc::clone(&last_lines),
            )));
        }
        Ok(Self {
            child,
            pid,
            last_lines,
            readers,
        })
    }

    /// Asks it to end, waits, and insists.
    pub(super) async fn end(mut self, end: &End, role: Role) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself in this instant; then there is nobody to tell.
            let _ = rustix::process::kill_process(pid, role.end());
        }
        let ended = tokio::select! {
            _ = self.child.wait() => true,
            () = tokio::time::sleep(end.grace) => false,
            () = end.hurry.cancelled() => false,
        };
        if !ended {
            let _ = self.child.kill().await;
        }
        self.readers_done().await;
    }

    /// What is to be told about its end.
    pub(super) async fn died(&mut self, spec: &Spec, status: Option<ExitStatus>) -> Died {
        self.readers_done().await;
        let last_lines = self
            .last_lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect();
        let how = status.map_or_else(|| "was lost".to_owned(), describe);
        Died {
            name: spec.name(),
            how,
            code: status.and_then(|status| status.code()),
            last_lines,
        }
    }

    async fn readers_done(&mut self) {
        for reader in &mut self.readers {
            let _ = tokio::time::timeout(LAST_LINES_WITHIN, reader).await;
        }
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(0), _) => "ended without being asked to".to_owned(),
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(9)) => "was killed (signal 9)".to_owned(),
        (None, signal) => format!("ended by signal {}", signal.unwrap_or_default()),
    }
}

/// Shows and keeps what a process says, line by line; a longer line in pieces.
async fn read_lines(
    pipe: impl AsyncRead + Unpin,
    role: Role,
    name: String,
    kept: Arc<Mutex<VecDeque<String>>>,
) {
    let prefix = Stream::Error.paint(role.colour(), &format!("{name:<12} │"));
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .await
        {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if role.shows(text) {
            say(&format!("{prefix} {text}"));
        }
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == LINES_KEPT {
            kept.pop_front();
        }
        kept.push_back(text.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_ends_dev_with_whose_fault_it_was() {
        let died = |code| Died {
            name: "ingest-1".into(),
            how: "ended".into(),
            code,
            last_lines: vec!["why".into()],
        };
        for (code, exit) in [
            (Some(64), 64),
            (Some(65), 65),
            (Some(69), 69),
            (Some(1), 70),
            (Some(0), 70),
            (None, 70),
        ] {
            let failure = died(code).failure();
            assert_eq!(failure.exit as u8, exit);
            assert_eq!(failure.message, "ingest-1 ended; the last it said:\n  why");
        }
    }
}
