//! The processes that `dev` runs: started, watched, started again, and ended in their order.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use roomcast_chassis::process::Failure;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::child::{Role, Spec};
use super::running::{Died, End, Running};
use crate::terminal::say;

/// How long a child that died stays away with `--restart`.
const RESTART_AFTER: Duration = Duration::from_millis(200);
/// Process ids by name, kept current across restarts.
type Pids = Arc<Mutex<BTreeMap<String, u32>>>;

struct Member {
    role: Role,
    stop: CancellationToken,
    watching: JoinHandle<()>,
}

/// All processes of one `dev`.
pub(crate) struct Family {
    members: Vec<Member>,
    pids: Pids,
    pids_file: PathBuf,
    restart: Arc<AtomicBool>,
    died: mpsc::Receiver<Died>,
    report: mpsc::Sender<Died>,
    end: End,
}

impl Family {
    /// `pids_file` is kept current and removed at the end. `grace`: how long a process may take to end when asked; `hurry` ends that.
    pub(crate) fn new(pids_file: PathBuf, grace: Duration, hurry: CancellationToken) -> Self {
        let (report, died) = mpsc::channel(64);
        let restart = Arc::default();
        Self {
            members: Vec::new(),
            pids: Pids::default(),
            pids_file,
            restart,
            died,
            report,
            end: End { grace, hurry },
        }
    }

    /// From now on a process that dies is started again. Before, a wrong setting would be tried for ever.
    pub(crate) fn restart_from_now_on(&self) {
        self.restart.store(true, Ordering::Relaxed);
    }

    /// Process ids by name.
    pub(crate) fn pids(&self) -> BTreeMap<String, u32> {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts a process and watches it.
    ///
    /// # Errors
    /// 69: it cannot be started at all.
    pub(crate) fn start(&mut self, spec: Spec) -> Result<(), Failure> {
        let running = Running::start(&spec)?;
        let stop = CancellationToken::new();
        let watch = Watch {
            spec,
            stop: stop.clone(),
            restart: Arc::clone(&self.restart),
            report: self.report.clone(),
            pids: Arc::clone(&self.pids),
            pids_file: self.pids_file.clone(),
            end: self.end.clone(),
        };
        watch.note(running.pid);
        let role = watch.spec.role;
        self.members.push(Member {
            role,
            stop,
            watching: tokio::spawn(watch.run(running)),
        });
        Ok(())
    }

    /// Waits for a process that ends without being asked to. Cancel safe.
    pub(crate) async fn died(&mut self) -> Died {
        match self.died.recv().await {
            Some(died) => died,
            // We hold a sender ourselves, so this cannot be.
            None => std::future::pending().await,
        }
    }

    /// Ends all processes, role by role: as each is asked, and SIGKILL for those that take longer than the grace.
    pub(crate) async fn stop(&mut self) {
        for role in [
            Role::Gateway,
            Role::Aggregator,
            Role::Ingest,
            Role::Postgres,
            Role::Nats,
        ] {
            let (now, later) = std::mem::take(&mut self.members)
                .into_iter()
                .partition(|member| member.role == role);
            self.members = later;
            let now: Vec<Member> = now;
            for member in &now {
                member.stop.cancel();
            }
            for member in now {
                let _ = member.watching.await;
            }
        }
        let _ = std::fs::remove_file(&self.pids_file);
        // Only when it is empty: others may keep things there.
        let _ = self.pids_file.parent().map(std::fs::remove_dir);
    }
}

/// What watches one process.
struct Watch {
    spec: Spec,
    stop: CancellationToken,
    restart: Arc<AtomicBool>,
    report: mpsc::Sender<Died>,
    pids: Pids,
    pids_file: PathBuf,
    end: End,
}

impl Watch {
    async fn run(self, mut running: Running) {
        loop {
            let status = tokio::select! {
                status = running.child.wait() => status,
                () = self.stop.cancelled() => return running.end(&self.end, self.spec.role).await,
            };
            let died = running.died(&self.spec, status.ok()).await;
            if !self.restart.load(Ordering::Relaxed) {
                let _ = self.report.send(died).await;
                return;
            }
            say(&format!("{} {}; starting it again", self.spec.name(), died.how));
            tokio::select! {
                () = tokio::time::sleep(RESTART_AFTER) => {}
                () = self.stop.cancelled() => return,
            }
            match Running::start(&self.spec) {
                Ok(again) => {
                    running = again;
                    self.note(running.pid);
                }
                Err(failure) => {
                    let died = Died {
                        how: failure.message,
                        last_lines: Vec::new(),
                        ..died
                    };
                    let _ = self.report.send(died).await;
                    return;
                }
            }
        }
    }

    /// Keeps the process id, in memory and in the file.
    fn note(&self, pid: u32) {
        let mut pids = self.pids.lock().unwrap_or_else(PoisonError::into_inner);
        pids.insert(self.spec.name(), pid);
        let text = serde_json::json!(*pids).to_string();
        if let Err(error) = crate::dev_env::write_private(&self.pids_file, text.as_bytes()) {
            say(&format!("{}: {error}", self.pids_file.display()));
        }
    }
}
