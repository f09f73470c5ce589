//! File descriptors: every socket is one, and many systems begin a process with 1,024 of them although it may have far more.

use std::fs::File;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes as many as this process may have without asking anybody, and answers how many that are. What it starts later may have as many.
///
/// Called once, at the start of a process; a system that refuses leaves what was there.
pub fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        );
    }
    // None is "without limit".
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Takes as many as this process may have, and makes its table of them as large as so many sockets need, once and for all; if that is more
/// than it may have, says what to do about it. Eight bytes each, of the kernel's memory.
///
/// The kernel lets the table grow when it is full, to twice its size, and holds up whoever opens anything in any thread until every
/// processor has been idle or has changed its thread: some 10 ms with 250 ticks a second (`expand_fdtable` waits in `synchronize_rcu` where
/// threads share a table). That is at 1,024, 2,048, 4,096 sockets, in the middle of everybody coming at once. Here it is waited for once.
///
/// # Errors
/// In words, for an operator; the table has then all that there may be.
pub fn make_room(sockets: usize) -> Result<(), String> {
    let have = raise();
    let last = need(sockets).min(have).saturating_sub(1);
    // A system that refuses leaves what was there, and lets it grow as it fills.
    if let (Ok(file), Ok(last)) = (File::open("/dev/null"), i32::try_from(last)) {
        drop(fcntl_dupfd_cloexec(file, last));
    }
    enough(have, sockets)
}

fn need(sockets: usize) -> u64 {
    (sockets as u64).saturating_add(BESIDES)
}

fn enough(have: u64, sockets: usize) -> Result<(), String> {
    let need = need(sockets);
    if have >= need {
        return Ok(());
    }
    Err(format!(
        "{have} file descriptors are too few for {sockets} sockets: {need} are needed; raise the hard limit with `ulimit -Hn {need}` as root, LimitNOFILE={need} in a systemd unit, or --ulimit nofile={need} of a container"
    ))
}

/// What a process holds open beside its sockets: listeners, connections to NATS, files, pollers.
const BESIDES: u64 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_had_is_taken() {
        let had = raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(raise(), had, "a second time changes nothing");
    }

    #[test]
    fn the_table_has_its_size_before_it_is_filled() {
        let size = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
            line.unwrap().trim().parse::<u64>().unwrap()
        };
        let sockets = usize::try_from(raise() - BESIDES).unwrap().min(3_000);
        assert!(size() < need(sockets), "{} already", size());
        assert_eq!(make_room(sockets), Ok(()));
        assert!(size() >= need(sockets), "{}", size());
    }

    #[test]
    fn too_few_are_said_with_what_to_do() {
        for (have, sockets, good) in [
            (1_024, 896, true),
            (1_024, 897, false),
            (u64::MAX, usize::MAX, true),
            (0, 0, false),
        ] {
            let said = enough(have, sockets);
            assert_eq!(said.is_ok(), good, "{have} for {sockets}: {said:?}");
        }
        assert!(enough(1_024, 10_000).is_err_and(|why| why.contains("LimitNOFILE=10128")));
    }
}
