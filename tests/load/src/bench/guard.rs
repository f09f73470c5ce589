//! No stage hangs, and nothing is left behind: a watch over the stage under way, and one folder for all files of a run.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What a stage that did not end in time leaves to be read: the last lines of the system.
const LINES: usize = 40;
/// "Something needed did not work", as the services say it.
const EXIT_WEDGED: i32 = 69;
/// Ended by Ctrl-C, as shells say it.
const EXIT_INTERRUPTED: i32 = 130;

#[derive(Default)]
struct Watched {
    stage: Option<(String, Instant)>,
    system: Option<PathBuf>,
    /// Folders of files, removed with the values that hold them; here for the ends at which nothing is dropped.
    folders: Vec<PathBuf>,
}

fn watched() -> MutexGuard<'static, Watched> {
    static WATCHED: OnceLock<Mutex<Watched>> = OnceLock::new();
    WATCHED
        .get_or_init(Mutex::default)
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// Begins to watch: ends this process, and with it all that it started, on Ctrl-C and when a stage does not end in time.
pub fn watch() {
    tokio::spawn(async {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hang_up)) = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
            signal(SignalKind::hangup()),
        ) else {
            return;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
        end("ended by a signal", EXIT_INTERRUPTED);
    });
    // A thread, because a stage that hangs may hold the runtime's.
    std::thread::spawn(|| {
        loop {
            std::thread::park_timeout(Duration::from_millis(500));
            let late = watched()
                .stage
                .as_ref()
                .filter(|(_, due)| *due < Instant::now())
                .map(|(name, _)| name.clone());
            if let Some(name) = late {
                let log = watched().system.as_ref().map(|folder| last_lines(folder));
                end(
                    &format!(
                        "{name} did not end in time; the system said last:\n{}",
                        log.unwrap_or_default()
                    ),
                    EXIT_WEDGED,
                );
            }
        }
    });
}

fn end(why: &str, code: i32) -> ! {
    eprintln!("roomcast-load: {why}");
    for folder in std::mem::take(&mut watched().folders) {
        let _ = std::fs::remove_dir_all(folder);
    }
    // The pipes that the system and the others wait on end with this process.
    std::process::exit(code)
}

fn last_lines(folder: &Path) -> String {
    let log = std::fs::read(folder.join("stderr")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// A stage begins that has so much time; the one before is over.
pub fn stage(name: &str, within: Duration) {
    watched().stage = Some((name.to_owned(), Instant::now() + within));
}

/// No stage is under way.
pub fn over() {
    watched().stage = None;
}

/// The system whose last words matter now.
pub fn now_running(folder: &Path) {
    watched().system = Some(folder.to_owned());
}

/// A temporary folder that is gone at every end of this process but `kill -9`.
///
/// # Errors
/// When it cannot be made.
pub fn folder() -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("roomcast-bench-").tempdir()?;
    watched().folders.push(folder.path().to_owned());
    Ok(folder)
}
