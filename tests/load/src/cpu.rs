//! What a process has cost, as the kernel counts it.

use std::fs;

/// A reading of one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading {
    /// User and system time of all its threads, nanoseconds.
    pub cpu_ns: u64,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
}

/// Reads a process now. A process that is gone reads as zero.
#[must_use]
pub fn read(pid: u32) -> Reading {
    Reading {
        cpu_ns: cpu_ns(pid),
        rss_bytes: rss_bytes(pid),
    }
}

/// The run time of every thread from `schedstat` (nanoseconds); threads that ended meanwhile are missing, so a process that is
/// measured keeps its threads.
fn cpu_ns(pid: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0;
    };
    let of_task = |task: fs::DirEntry| -> Option<u64> {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    tasks.flatten().filter_map(of_task).sum()
}

fn rss_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
