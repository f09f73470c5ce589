//! Whoever stands for another machine goes last on this one: the lowest priority that there is (`SCHED_IDLE`). Whoever else wakes up takes
//! the processor from it at once, where a thread that is only nice would keep it to the end of its slice, some milliseconds.

use std::fs;
use std::process::Command;

/// Whether the kernel shares the processors among sessions first (`kernel.sched_autogroup_enabled`), as it does on desktops: then the
/// lowest priority is the lowest of its session only, and the kernel's own threads, the disk's above all, wait for the session's turn.
#[must_use]
pub fn is_within_session() -> bool {
    fs::read_to_string("/proc/sys/kernel/sched_autogroup_enabled").is_ok_and(|value| value.trim() == "1")
}

/// A thread, by the number by which the system knows it.
///
/// # Errors
/// When there is no `chrt`, or no such thread.
pub fn thread(number: &str) -> anyhow::Result<()> {
    chrt(&[], number)
}

/// Every thread that a process has, and whatever those start from now on.
///
/// # Errors
/// When there is no `chrt`, or no such process.
pub fn process(pid: u32) -> anyhow::Result<()> {
    chrt(&["--all-tasks"], &pid.to_string())
}

fn chrt(options: &[&str], number: &str) -> anyhow::Result<()> {
    let chrt = Command::new("chrt")
        .arg("--idle")
        .args(options)
        .args(["--pid", "0", number])
        .output()?;
    anyhow::ensure!(chrt.status.success(), "{}", String::from_utf8_lossy(&chrt.stderr));
    Ok(())
}
