//! The faults themselves: each is done to a rig under traffic and leaves it whole for the next.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::rig::Rig;
use crate::traffic::Traffic;

/// Acknowledged before the fault, between two blows of it, and after it.
pub const BETWEEN: usize = 400;
/// How long a server is frozen: longer than clients and other nodes need to give it up.
const FROZEN: Duration = Duration::from_secs(9);
/// How long disks stay full where all are.
const STOPPED: Duration = Duration::from_secs(20);
/// How long every fsync is slow.
const SLOW: Duration = Duration::from_secs(6);

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of ingest, three times.
    KillIngest,
    /// `kill -9` of the node that leads, or the only one.
    KillLeader,
    /// `kill -9` of all nodes at once.
    KillAll,
    /// `SIGSTOP` of the node that leads, or the only one.
    Freeze,
    /// Leaders move, five times.
    StepDown,
    /// The disk of the leading node is full; then there is room again, and it is restarted.
    DiskFull,
    /// The disks of all nodes.
    AllDisksFull,
    /// Every fsync of the leading node takes 200 ms longer.
    SlowFsync,
    /// One fsync of the leading node fails; it is restarted.
    FsyncFails,
    /// The power of all nodes is cut.
    PowerCut,
    /// The power of one node is cut.
    PowerCutOfOne,
}

impl Fault {
    /// Whether each node must have a file system of its own.
    #[must_use]
    pub fn needs_images(self) -> bool {
        matches!(
            self,
            Self::DiskFull | Self::AllDisksFull | Self::PowerCut | Self::PowerCutOfOne
        )
    }

    /// Whether `strace` must be able to attach to the server.
    #[must_use]
    pub fn needs_strace(self) -> bool {
        matches!(self, Self::SlowFsync | Self::FsyncFails)
    }

    /// Does it, under this traffic; afterwards everything works again. What was seen on the way.
    ///
    /// # Errors
    /// Where it cannot be done.
    ///
    /// # Panics
    /// Where something does not come back.
    pub async fn strike(self, rig: &mut Rig, traffic: &Traffic) -> anyhow::Result<String> {
        match self {
            Self::KillIngest => {
                for _ in 0..3 {
                    rig.restart_ingest().await?;
                    traffic.more(BETWEEN).await;
                }
                Ok(String::new())
            }
            Self::StepDown => {
                for _ in 0..5 {
                    roomcast_harness::eventually("another node leads", crate::rig::BACK_WITHIN, || {
                        rig.step_down()
                    })
                    .await;
                    traffic.more(BETWEEN / 2).await;
                }
                Ok(String::new())
            }
            Self::KillLeader => {
                let node = rig.leader().await;
                rig.nodes[node].kill();
                rig.nodes[node].start()?;
                Ok(String::new())
            }
            Self::KillAll => {
                rig.nodes.iter_mut().for_each(crate::rig::Node::kill);
                rig.nodes.iter_mut().try_for_each(crate::rig::Node::start)?;
                Ok(String::new())
            }
            Self::Freeze => {
                let node = rig.leader().await;
                rig.nodes[node].signal("STOP");
                tokio::time::sleep(FROZEN).await;
                rig.nodes[node].signal("CONT");
                Ok(String::new())
            }
            Self::DiskFull => {
                let node = rig.leader().await;
                full(rig, traffic, &[node]).await
            }
            Self::AllDisksFull => {
                let all: Vec<usize> = (0..rig.nodes.len()).collect();
                full(rig, traffic, &all).await
            }
            Self::SlowFsync => slow(rig).await,
            Self::FsyncFails => fails(rig).await,
            Self::PowerCut => {
                let all: Vec<usize> = (0..rig.nodes.len()).collect();
                cut(rig, &all)
            }
            Self::PowerCutOfOne => {
                let node = rig.leader().await;
                cut(rig, &[node])
            }
        }
    }
}

/// A full disk stops a lone node, and ingest says why; of three nodes, the others go on. Three full disks may also be answered with
/// errors, which is no hang.
async fn full(rig: &mut Rig, traffic: &Traffic, nodes: &[usize]) -> anyhow::Result<String> {
    let all = nodes.len() == rig.nodes.len();
    let mut said = None;
    let start = Instant::now();
    while start.elapsed() < STOPPED && said.is_none() {
        // Again and again: of three nodes, each makes room by letting go of its oldest logs.
        for node in nodes {
            rig.nodes[*node].image.as_ref().context("no image")?.fill()?;
        }
        said = rig.says_that_writes_hang(Duration::from_secs(1)).await;
    }
    ensure!(
        said.is_some() || rig.nodes.len() > 1,
        "ingest does not say that writes hang"
    );
    if !all {
        traffic.more(BETWEEN).await;
    }
    for node in nodes {
        rig.nodes[*node].image.as_ref().context("no image")?.empty()?;
        // Room alone does not help a server whose write has failed.
        rig.nodes[*node].kill();
        rig.nodes[*node].start()?;
    }
    Ok(said.map_or_else(String::new, |words| format!("ingest: \"{words}\"")))
}

/// A tracer that changes what a server's fsync does, for as long as it lives.
struct Tracer(Child);

impl Tracer {
    fn attach(pid: u32, inject: &str) -> anyhow::Result<Self> {
        let child = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-p", &pid.to_string()])
            .args([
                "-e",
                "trace=fsync,fdatasync",
                "-e",
                &format!("inject=fsync,fdatasync:{inject}"),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("strace is missing: make tools")?;
        Ok(Self(child))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Asked to end, it lets go of the server; killed, it would take the server along.
        let _ = Command::new("kill")
            .args(["-INT", &self.0.id().to_string()])
            .status();
        let _ = self.0.wait();
    }
}

async fn slow(rig: &Rig) -> anyhow::Result<String> {
    let node = rig.leader().await;
    let tracer = Tracer::attach(rig.nodes[node].pid(), "delay_exit=200000")?;
    tokio::time::sleep(SLOW).await;
    drop(tracer);
    Ok(String::new())
}

async fn fails(rig: &mut Rig) -> anyhow::Result<String> {
    let node = rig.leader().await;
    let tracer = Tracer::attach(rig.nodes[node].pid(), "error=EIO:when=5")?;
    let said = if rig.nodes.len() == 1 {
        let words = rig.says_that_writes_hang(crate::rig::BACK_WITHIN).await;
        format!(
            "ingest: \"{}\"",
            words.context("ingest does not say that writes hang")?
        )
    } else {
        tokio::time::sleep(SLOW).await;
        String::new()
    };
    drop(tracer);
    rig.nodes[node].kill();
    rig.nodes[node].start()?;
    Ok(said)
}

/// Cuts the power of these nodes: disks first, all of them, then the processes; then everything comes up again.
fn cut(rig: &mut Rig, nodes: &[usize]) -> anyhow::Result<String> {
    for node in nodes {
        rig.nodes[*node].image.as_mut().context("no image")?.cut()?;
    }
    nodes.iter().for_each(|node| rig.nodes[*node].kill());
    for node in nodes {
        rig.nodes[*node].image.as_mut().context("no image")?.power_on()?;
        rig.nodes[*node].start()?;
    }
    ensure!(!nodes.is_empty(), "no node was cut");
    Ok(format!(
        "power of {} cut, mounted again, started again",
        nodes.len()
    ))
}
