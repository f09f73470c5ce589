//! File descriptors: every socket is one, and many systems begin a process with 1,024 of them although it may have far more.

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

/// Whether `have` descriptors do for `sockets` and what else a process holds open; if not, what to do about it.
///
/// # Errors
/// In words, for an operator.
pub fn enough(have: u64, sockets: usize) -> Result<(), String> {
    let need = (sockets as u64).saturating_add(BESIDES);
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
