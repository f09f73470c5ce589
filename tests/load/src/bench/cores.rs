//! A core for the server that is measured, another one for everything else: where what a request costs is measured to some
//! microseconds. A server that shares its cores with the load client finds its caches emptied by it, and its threads moved.

use std::fs;

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

/// Holds this process, and what it starts meanwhile, to one core; ends when dropped. On a machine with one core nothing is held.
pub struct Apart {
    /// Where everything may run otherwise.
    usual: CpuSet,
    /// The server's core, and that of all else.
    cores: Option<[CpuSet; 2]>,
}

impl Apart {
    /// From now on. A service that starts meanwhile finds one core, and starts as many threads as it does for one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn begin() -> anyhow::Result<Self> {
        let usual = sched_getaffinity(None)?;
        let mut each = (0..CpuSet::MAX_CPU)
            .filter(|core| usual.is_set(*core))
            .map(|core| {
                let mut one = CpuSet::new();
                one.set(core);
                one
            });
        let cores = each.next().zip(each.next()).map(<[CpuSet; 2]>::from);
        let apart = Self { usual, cores };
        if let Some([_, rest]) = &apart.cores {
            hold(std::process::id(), rest)?;
        }
        Ok(apart)
    }

    /// Gives the server its core.
    ///
    /// # Errors
    /// When it is gone.
    pub fn give(&self, server: u32) -> anyhow::Result<()> {
        match &self.cores {
            Some([own, _]) => hold(server, own),
            None => Ok(()),
        }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = hold(std::process::id(), &self.usual);
    }
}

/// Holds every thread of a process to some cores; those that it starts later inherit that.
fn hold(process: u32, cores: &CpuSet) -> anyhow::Result<()> {
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = thread?.file_name();
        let number = thread.to_str().and_then(|number| number.parse().ok());
        if let Some(number) = number.and_then(Pid::from_raw) {
            // A thread that has ended meanwhile needs no core.
            let _ = sched_setaffinity(Some(number), cores);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_a_core_of_its_own_until_the_end() {
        let usual = sched_getaffinity(None).unwrap();
        let apart = Apart::begin().unwrap();
        if apart.cores.is_none() {
            return;
        }
        assert_eq!(std::thread::available_parallelism().unwrap().get(), 1);
        let mut server = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let of = |process| sched_getaffinity(Pid::from_raw(process)).unwrap();
        let number = i32::try_from(server.id()).unwrap();
        let theirs = sched_getaffinity(None).unwrap();
        assert!(of(number) == theirs);
        apart.give(server.id()).unwrap();
        assert!(of(number) != theirs && of(number).count() == 1);
        drop(apart);
        assert!(sched_getaffinity(None).unwrap() == usual);
        let _ = server.kill();
        server.wait().unwrap();
    }
}
